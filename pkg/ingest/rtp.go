package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/twindvr/twindvr/pkg/clock"
)

// rtpBatchMost is how many datagrams a batch of an RTP source holds at most.
const rtpBatchMost = 512

// openRTP opens rtp://HOST:PORT[,HOST:PORT…][?OPTIONS].
func openRTP(ctx context.Context, rest string, opt Options) (Source, error) {
	fail := func(err error) (Source, error) { return nil, &URLError{"rtp:" + rest, err} }
	a, err := parseRTP(ctx, rest, opt, lookupSystem)
	if err != nil {
		return fail(err)
	}
	s := &rtpSource{url: "rtp:" + rest, clock: opt.Clock, log: opt.Log, merge: newMerger(len(a.paths), a.reorder, a.skew), batch: &rtpBatch{}}
	if a.fec {
		s.fec = newCorrector(s.merge)
	}
	buffer := 0
	for path, u := range a.paths {
		n, err := s.listen(u, path, false)
		if err != nil {
			return fail(errors.Join(err, s.Close()))
		}
		if buffer == 0 || n < buffer {
			buffer = n
		}
		for _, off := range fecPorts[:] {
			if !a.fec {
				break
			}
			if _, err := s.listen(u.shifted(off), path, true); err != nil {
				return fail(errors.Join(fmt.Errorf("for error correction (fec=on): %w", err), s.Close()))
			}
		}
	}
	s.nap = newNapper(buffer)
	if !a.paths[0].sized {
		s.nap.enlarge = func(want int) {
			for _, sock := range s.socks {
				sock.enlarge(want)
			}
		}
	}
	return s, nil
}

// fecPorts are how far above the port of the packets the ports of column and
// row correction are (SMPTE 2022-1 clause 7.1).
var fecPorts = [...]uint16{2, 4}

// rtpSource reads a transport stream in RTP (RFC 2250 section 2).
type rtpSource struct {
	url   string
	clock clock.Clock
	log   *slog.Logger
	nap   *napper
	socks []*rtpSocket
	merge *merger
	fec   *corrector // nil: none
	batch *rtpBatch

	now     time.Time     // of the last reads
	waited  time.Duration // for how long the last of what came had waited there
	drained bool          // they emptied the sockets
	runs    uint64        // of numbers, as logged
	told    [3]time.Time
	toldFor [3]uint64

	packets, bytes, drops, long                    atomic.Uint64
	lost, reordered, duplicates, recovered, errors atomic.Uint64
	last                                           atomic.Int64
}

// rtpSocket is a socket of a path.
type rtpSocket struct {
	*receiver
	path int
	fec  bool
}

// rtpBatch is a batch with the room for its datagrams.
type rtpBatch struct {
	Batch
	out [][]byte
}

func (s *rtpSource) listen(u *udpAddr, path int, fec bool) (buffer int, err error) {
	r, buffer, err := newReceiver(u, s.log)
	if err == nil {
		s.socks = append(s.socks, &rtpSocket{r, path, fec})
	}
	return buffer, err
}

// Read implements Source. A batch ends where packets are missing, so that Lost
// tells the exact place.
func (s *rtpSource) Read(ctx context.Context) (*Batch, error) {
	if s.socks == nil {
		return nil, fmt.Errorf("source %q is closed", s.url)
	}
	s.merge.reclaim()
	if len(s.batch.out) > 0 { // it was delivered
		s.batch.Lost, s.batch.out = 0, s.batch.out[:0]
	}
	for {
		s.fill()
		s.publish()
		if len(s.batch.out) > 0 {
			s.batch.Datagrams, s.batch.Arrived = s.batch.out, s.now.Add(-s.waited)
			return &s.batch.Batch, nil
		}
		if err := s.nap.wait(ctx); err != nil {
			return nil, err
		}
		if err := s.receive(); err != nil {
			return nil, fmt.Errorf("receiving from %q: %w", s.url, err)
		}
	}
}

// receive reads all sockets once.
func (s *rtpSource) receive() error {
	var packets, bytes, all, size int
	var waited time.Duration
	more := false
	for _, k := range s.socks {
		n, err := k.receive()
		if err != nil {
			s.nap.received(all, size, false)
			return err
		}
		all, size = all+k.got, size+n
		if k.got > 0 {
			waited = max(waited, k.waited(k.got-1))
		}
		more = more || k.got == slots
		if !k.fec {
			packets, bytes = packets+k.got, bytes+n
		}
	}
	s.now, s.drained = s.clock.Now(), !more
	if all > 0 {
		s.waited = waited
	}
	s.nap.received(all, size, more)
	if packets > 0 {
		s.packets.Add(uint64(packets))
		s.bytes.Add(uint64(bytes))
		s.last.Store(s.now.UnixNano())
	}
	return nil
}

// fill adds to the batch what is in order, up to the next place where packets
// are missing.
func (s *rtpSource) fill() {
	m, b := s.merge, s.batch
	for len(b.out) < rtpBatchMost {
		if m.lost > 0 {
			if len(b.out) > 0 {
				return
			}
			b.Lost += uint32(m.lost)
			m.lost = 0
		}
		payload, ok := m.pop()
		switch {
		case ok:
		case m.full():
			continue
		default:
			d, k := s.datagram()
			if d == nil {
				if s.fec != nil && s.drained && s.fec.correct(s.now) || s.drained && m.expire(s.now) {
					continue
				}
				return
			}
			if k.fec {
				s.fec.take(d, s.now)
				continue
			}
			payload, ok = m.take(k.path, d, s.now)
		}
		if ok && len(payload) > 0 {
			b.out = append(b.out, payload)
		}
	}
}

// datagram returns the next one received and not yet looked at, or nil.
func (s *rtpSource) datagram() ([]byte, *rtpSocket) {
	for _, k := range s.socks {
		for k.next < k.got {
			i := k.next
			k.next++
			if n := k.lostBefore(i); n > 0 {
				k.dropped += n
				if !k.fec {
					s.drops.Add(uint64(n))
				}
			}
			if k.truncated(i) {
				s.long.Add(1)
			}
			if d := k.receiver.datagram(i); len(d) > 0 {
				return d, k
			}
		}
	}
	return nil, nil
}

// publish makes the counts readable for others and says what the operator
// should know.
func (s *rtpSource) publish() {
	c := &s.merge.count
	s.lost.Store(c.lost)
	s.reordered.Store(c.reordered)
	s.duplicates.Store(c.duplicates)
	s.recovered.Store(c.recovered)
	s.errors.Store(c.errors)
	if c.runs != s.runs {
		if s.runs > 0 {
			s.log.Info("the RTP sender has begun anew", "source", Redact(s.url), "ssrc", s.merge.ssrc)
		}
		s.runs = c.runs
	}
	if c.late|c.plain|c.strange == 0 {
		return
	}
	s.tell(0, c.late, "RTP packets come later than they are waited for; raise reorder= (or skew= for two paths)")
	s.tell(1, c.plain, "datagrams are plain transport packets and no RTP; open the source as udp://")
	s.tell(2, c.strange, "the paths of an RTP source carry different sequences; only one of them is used")
}

// tell logs a line about a count that has grown, once a minute at most.
func (s *rtpSource) tell(i int, n uint64, msg string) {
	if n == s.toldFor[i] || s.now.Sub(s.told[i]) < time.Minute {
		return
	}
	s.log.Warn(msg, "source", Redact(s.url), "packets", n-s.toldFor[i])
	s.told[i], s.toldFor[i] = s.now, n
}

// detach leaves the last batch and its memory to whoever still reads it, until
// that calls the function returned.
func (s *rtpSource) detach() (done func(), err error) {
	var old []*region
	done = func() {
		for _, r := range old {
			r.give()
		}
	}
	for _, k := range s.socks {
		r, err := k.renew()
		if err != nil {
			return done, err
		}
		old = append(old, r)
	}
	s.merge.giveAway()
	s.batch = &rtpBatch{}
	return done, nil
}

// Close implements Source.
func (s *rtpSource) Close() error {
	var errs []error
	for _, k := range s.socks {
		if err := k.close(); err != nil {
			errs = append(errs, fmt.Errorf("closing %q: %w", s.url, err))
		}
	}
	s.socks = nil
	return errors.Join(errs...)
}

// Stats implements Source.
func (s *rtpSource) Stats() Stats {
	return Stats{Packets: s.packets.Load(), Bytes: s.bytes.Load(), Dropped: s.drops.Load(), Truncated: s.long.Load(),
		Lost: s.lost.Load(), Reordered: s.reordered.Load(), Duplicates: s.duplicates.Load(), Recovered: s.recovered.Load(),
		Errors: s.errors.Load(), LastArrival: timeOf(s.last.Load())}
}
