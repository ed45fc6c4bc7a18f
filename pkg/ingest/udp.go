package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/mpegts"
)

// openUDP opens udp://HOST:PORT[?OPTIONS].
func openUDP(ctx context.Context, rest string, opt Options) (Source, error) {
	fail := func(err error) (Source, error) { return nil, &URLError{"udp:" + rest, err} }
	u, err := parseUDP(ctx, rest, opt, lookupSystem)
	if err != nil {
		return fail(err)
	}
	r, buffer, err := newReceiver(u, opt.Log)
	if err != nil {
		return fail(err)
	}
	s := &udpSource{receiver: r, url: "udp:" + rest, clock: opt.Clock, log: opt.Log, nap: newNapper(buffer), batch: &udpBatch{}}
	if !u.sized {
		s.nap.enlarge = r.enlarge
	}
	return s, nil
}

// udpSource reads a UDP socket.
type udpSource struct {
	*receiver
	url   string
	clock clock.Clock
	log   *slog.Logger
	nap   *napper
	batch *udpBatch
	now   time.Time // of the last read
	told  bool      // that it is RTP

	packets, bytes, drops, long atomic.Uint64
	last                        atomic.Int64
}

// udpBatch is a batch with the room for its datagrams.
type udpBatch struct {
	Batch
	out [slots][]byte
}

// Read implements Source. A batch ends where the kernel dropped something, so
// that Dropped tells the exact place.
func (s *udpSource) Read(ctx context.Context) (*Batch, error) {
	if s.fd < 0 {
		return nil, fmt.Errorf("source %q is closed", s.url)
	}
	if len(s.batch.Datagrams) > 0 { // it was delivered
		s.batch.Dropped, s.batch.Datagrams = 0, nil
	}
	for {
		if s.next < s.got {
			if s.deliver() {
				return &s.batch.Batch, nil
			}
			continue
		}
		if err := s.nap.wait(ctx); err != nil {
			return nil, err
		}
		bytes, err := s.receive()
		now := s.clock.Now()
		s.nap.received(s.got, bytes, s.got == slots)
		if err != nil {
			return nil, fmt.Errorf("receiving from %q: %w", s.url, err)
		}
		if s.got > 0 {
			s.now = now
			s.packets.Add(uint64(s.got))
			s.bytes.Add(uint64(bytes))
			s.last.Store(now.UnixNano())
			if d := s.datagram(0); !s.told && len(d) > 0 && d[0] != 0x47 {
				s.look(d)
			}
		}
	}
}

// look says of a datagram that is no transport packets what else it is: packets
// of RTP, whose header would harm every segment.
func (s *udpSource) look(d []byte) {
	const header = 12 // RFC 3550 5.1, without sources and extension
	if len(d) > header && d[0]>>6 == 2 && d[header] == 0x47 && (len(d)-header)%mpegts.PacketSize == 0 {
		s.told = true
		s.log.Warn("datagrams are RTP; open the source as rtp://", "source", Redact(s.url))
	}
}

// deliver makes a batch of the datagrams received and not yet delivered, up to
// the next place where the kernel dropped some, or that came later than what is
// tolerated. It is false when none of them holds anything.
func (s *udpSource) deliver() bool {
	out := s.batch.out[:0]
	first := s.waited(s.next)
	for ; s.next < s.got; s.next++ {
		i := s.next
		if first-s.waited(i) > tolerated && len(out) > 0 {
			break
		}
		if lost := s.lostBefore(i); lost > 0 {
			if len(out) > 0 {
				break
			}
			s.dropped += lost
			s.batch.Dropped += lost
			s.drops.Add(uint64(lost))
		}
		if s.truncated(i) {
			s.long.Add(1)
		}
		if s.msgs[i].len > 0 {
			out = append(out, s.datagram(i))
		}
	}
	s.batch.Datagrams, s.batch.Arrived = out, s.now.Add(-first)
	return len(out) > 0
}

// detach leaves the last batch and its memory to whoever still reads it, until
// that calls the function returned.
func (s *udpSource) detach() (done func(), err error) {
	old, err := s.renew()
	if err != nil {
		return nil, err
	}
	s.batch = &udpBatch{Batch: Batch{Arrived: s.batch.Arrived}}
	return old.give, nil
}

// Close implements Source.
func (s *udpSource) Close() error {
	if err := s.receiver.close(); err != nil {
		return fmt.Errorf("closing %q: %w", s.url, err)
	}
	return nil
}

// Stats implements Source.
func (s *udpSource) Stats() Stats {
	return Stats{Packets: s.packets.Load(), Bytes: s.bytes.Load(), Dropped: s.drops.Load(),
		Truncated: s.long.Load(), LastArrival: timeOf(s.last.Load())}
}
