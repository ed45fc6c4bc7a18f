package ingest

import (
	"context"
	"time"
)

// napEpoch is the grid of the naps: all sources of a process wake up together,
// which is one wake-up of the machine and not one a source.
var napEpoch = time.Now()

// napper waits between two reads of a socket, so long that the reads are few
// and so short that the socket's buffer stays almost empty.
type napper struct {
	pace  pace
	timer *time.Timer
	due   bool // the socket is empty: nap before the next read
	// enlarge, where set, asks for a socket buffer of so many bytes.
	enlarge func(bytes int)
	asked   int // bytes of buffer there are or were asked for

	since time.Time // of the figures below
	used  int       // bytes received, in the kernel's accounting
}

// newNapper returns a napper for a socket with a receive buffer of so many
// bytes (as asked for: the kernel grants twice that).
func newNapper(buffer int) *napper {
	return &napper{pace: newPace(buffer), timer: newStoppedTimer(), since: time.Now(), asked: buffer}
}

// wait naps if the last read emptied the socket.
func (n *napper) wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil || !n.due {
		return err
	}
	nap := n.pace.nap()
	n.timer.Reset(nap - time.Since(napEpoch)%nap)
	select {
	case <-n.timer.C:
		n.due = false
		return nil
	case <-ctx.Done():
		n.timer.Stop()
		return ctx.Err()
	}
}

// received notes what a round of reads returned. More says that one of them
// filled all slots, so that there may be more: the next follows at once.
func (n *napper) received(packets, bytes int, more bool) {
	if more {
		n.used += charge(packets, bytes)
		return
	}
	n.drained(packets, bytes)
}

// drained notes what the read returned that emptied the socket, and sets the
// next nap.
func (n *napper) drained(packets, bytes int) {
	n.used += charge(packets, bytes)
	now := time.Now()
	if now.Sub(n.since) >= naps[shortest]/2 {
		n.pace.emptied(n.since.Sub(napEpoch), now.Sub(napEpoch), n.used)
		n.suit(n.pace.rate())
		n.since, n.used = now, 0
	}
	n.due = true
}

const (
	// hold is how much of a stream a socket's buffer should hold: the source's
	// goroutine may be busy with a segment of a fast one, or wait for its turn. The
	// kernel grants twice what is asked for.
	hold = 400 * time.Millisecond
	// mostBuffer is the most that is asked for without being told to, in bytes.
	mostBuffer = 64 << 20
)

// suit has the buffer suit a rate of bytes a second, in the kernel's accounting.
func (n *napper) suit(rate float64) {
	want := min(int(rate*hold.Seconds()/2), mostBuffer)
	if n.enlarge == nil || want <= n.asked {
		return
	}
	n.asked = min(want+want/4, mostBuffer)
	n.enlarge(n.asked)
}

// charge is what the kernel charges to the receive buffer for datagrams: about
// a kilobyte each beyond their bytes.
func charge(packets, bytes int) int { return bytes + packets*1024 }
