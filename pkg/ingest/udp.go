package ingest

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/twindvr/twindvr/pkg/clock"
)

// slots is how many datagrams one system call takes: 40 ms of 16 Mbit/s. A
// faster stream takes several calls, one after the other.
const slots = 64

// openUDP opens udp://HOST:PORT[?OPTIONS].
func openUDP(ctx context.Context, rest string, opt Options) (Source, error) {
	fail := func(err error) (Source, error) { return nil, &URLError{"udp:" + rest, err} }
	u, err := parseUDP(ctx, rest, opt, lookupSystem)
	if err != nil {
		return fail(err)
	}
	fd, buffer, err := listenUDP(u, opt.Log)
	if err != nil {
		return fail(err)
	}
	s := &udpSource{fd: fd, url: "udp:" + rest, clock: opt.Clock, nap: newNapper(buffer)}
	if s.region, err = takeRegion(); err != nil {
		unix.Close(fd)
		return fail(err)
	}
	for i := range s.msgs {
		s.prepare(i)
	}
	return s, nil
}

// udpSource reads a UDP socket in batches (recvmmsg(2)).
//
// The socket is kept away from the runtime's poller, which would wake up for
// every datagram of every socket.
type udpSource struct {
	fd    int
	url   string
	clock clock.Clock
	nap   *napper

	region   *region
	msgs     [slots]mmsghdr
	iovs     [slots]unix.Iovec
	controls [slots]control
	got      int    // datagrams of the last system call
	next     int    // of them, the first not delivered
	dropped  uint32 // the kernel's running count, modulo 2^32

	out   [slots][]byte
	batch Batch

	packets, bytes, drops, truncated atomic.Uint64
	last                             atomic.Int64
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// control is the ancillary data of a datagram: SO_RXQ_OVFL, alone.
type control struct {
	hdr     unix.Cmsghdr
	dropped uint32
	_       uint32
}

// prepare readies slot i for the next system call, which overwrites parts.
func (s *udpSource) prepare(i int) {
	m := &s.msgs[i]
	s.iovs[i].Base = &s.region.slot(i)[0]
	s.iovs[i].SetLen(slotSize)
	m.hdr.Iov = &s.iovs[i]
	m.hdr.SetIovlen(1)
	m.hdr.Control = (*byte)(unsafe.Pointer(&s.controls[i]))
	m.hdr.SetControllen(int(unsafe.Sizeof(control{})))
	m.hdr.Flags = 0
	s.controls[i] = control{}
}

// Read implements Source. A batch ends where the kernel dropped something, so
// that Dropped tells the exact place.
func (s *udpSource) Read(ctx context.Context) (*Batch, error) {
	if s.fd < 0 {
		return nil, fmt.Errorf("source %q is closed", s.url)
	}
	for {
		if s.next < s.got {
			if s.deliver() {
				return &s.batch, nil
			}
			continue
		}
		if err := s.nap.wait(ctx); err != nil {
			return nil, err
		}
		if err := s.receive(); err != nil {
			return nil, fmt.Errorf("receiving from %q: %w", s.url, err)
		}
	}
}

// receive takes what the kernel holds, up to all slots.
func (s *udpSource) receive() error {
	for i := range s.got {
		s.prepare(i)
	}
	s.got, s.next = 0, 0
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(s.fd),
		uintptr(unsafe.Pointer(&s.msgs)), slots, unix.MSG_DONTWAIT, 0, 0)
	now := s.clock.Now()
	switch errno {
	case 0:
		s.got = int(n)
	case unix.EAGAIN, unix.EINTR:
		s.nap.drained(0, 0)
		return nil
	default:
		s.nap.drained(0, 0)
		return errno
	}
	var bytes int
	for i := range s.got {
		bytes += int(s.msgs[i].len)
	}
	s.nap.received(s.got, bytes)
	s.batch.Arrived = now
	s.packets.Add(uint64(s.got))
	s.bytes.Add(uint64(bytes))
	s.last.Store(now.UnixNano())
	return nil
}

// deliver makes a batch of the datagrams received and not yet delivered, up to
// the next place where the kernel dropped some. It is false when none of them
// holds anything.
func (s *udpSource) deliver() bool {
	out := s.out[:0]
	s.batch.Dropped = 0
	for ; s.next < s.got; s.next++ {
		i := s.next
		if lost := s.lostBefore(i); lost > 0 {
			if len(out) > 0 {
				break
			}
			s.dropped += lost
			s.batch.Dropped += lost
			s.drops.Add(uint64(lost))
		}
		if s.msgs[i].hdr.Flags&unix.MSG_TRUNC != 0 {
			s.truncated.Add(1)
		}
		if n := s.msgs[i].len; n > 0 {
			out = append(out, s.region.slot(i)[:n:n])
		}
	}
	s.batch.Datagrams = out
	return len(out) > 0
}

// lostBefore is how many datagrams the kernel dropped just before datagram i.
// It tells its running count only once that is above zero.
func (s *udpSource) lostBefore(i int) uint32 {
	c := &s.controls[i]
	if s.msgs[i].hdr.Controllen == 0 || c.hdr.Level != unix.SOL_SOCKET || c.hdr.Type != unix.SO_RXQ_OVFL {
		return 0
	}
	return c.dropped - s.dropped
}

// Close implements Source.
func (s *udpSource) Close() error {
	if s.fd < 0 {
		return nil
	}
	err := unix.Close(s.fd)
	s.fd, s.got, s.next = -1, 0, 0
	s.region.give()
	s.region = nil
	if err != nil {
		return fmt.Errorf("closing %q: %w", s.url, err)
	}
	return nil
}

// Stats implements Source.
func (s *udpSource) Stats() Stats {
	return Stats{Packets: s.packets.Load(), Bytes: s.bytes.Load(), Dropped: s.drops.Load(),
		Truncated: s.truncated.Load(), LastArrival: timeOf(s.last.Load())}
}

// The naps of a network source, longest first. One of 40 ms is 25 wake-ups a
// second and adds 20 ms to the delay, on average.
var naps = [...]time.Duration{40 * time.Millisecond, 20 * time.Millisecond, 10 * time.Millisecond,
	5 * time.Millisecond, 2 * time.Millisecond, time.Millisecond}

// napEpoch is the grid of the naps: all sources of a process wake up together,
// which is one wake-up of the machine and not one a source.
var napEpoch = time.Now()

// napper waits between two reads of a socket, so long that the reads are few
// and so short that the socket's buffer stays almost empty.
type napper struct {
	budget int // bytes, in the kernel's accounting, that may pile up
	nap    time.Duration
	timer  *time.Timer
	due    bool // the socket is empty: nap before the next read

	since time.Time // of the figures below
	used  int       // bytes received, in the kernel's accounting
}

// newNapper returns a napper for a socket with a receive buffer of so many
// bytes (as asked for: the kernel grants twice that).
func newNapper(buffer int) *napper {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &napper{budget: buffer / 4, nap: naps[0], timer: t, since: time.Now()}
}

// wait naps if the last read emptied the socket.
func (n *napper) wait(ctx context.Context) error {
	if err := ctx.Err(); err != nil || !n.due {
		return err
	}
	n.timer.Reset(n.nap - time.Since(napEpoch)%n.nap)
	select {
	case <-n.timer.C:
		n.due = false
		return nil
	case <-ctx.Done():
		n.timer.Stop()
		return ctx.Err()
	}
}

// received notes what one read returned.
func (n *napper) received(packets, bytes int) {
	if packets == slots {
		n.used += charge(packets, bytes) // there may be more: read again at once
		return
	}
	n.drained(packets, bytes)
}

// drained notes what the read returned that emptied the socket, and sets the
// next nap by the rate since the socket was last empty.
func (n *napper) drained(packets, bytes int) {
	n.used += charge(packets, bytes)
	now := time.Now()
	if d := now.Sub(n.since); d >= naps[len(naps)-1]/2 {
		n.nap = napFor(n.used, d, n.budget)
		n.since, n.used = now, 0
	}
	n.due = true
}

// napFor returns the longest nap in which no more than budget bytes arrive at
// a rate of used bytes in d.
func napFor(used int, d time.Duration, budget int) time.Duration {
	for _, nap := range naps {
		if float64(used)*float64(nap) <= float64(budget)*float64(d) {
			return nap
		}
	}
	return naps[len(naps)-1]
}

// charge is what the kernel charges to the receive buffer for datagrams: about
// a kilobyte each beyond their bytes.
func charge(packets, bytes int) int { return bytes + packets*1024 }
