package segment_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/salvage"
	"github.com/twindvr/twindvr/pkg/segment"
)

// What is held for salvage stays below 32 MiB where keyframes are far apart and
// pictures large, and all is kept again behind them.
func TestKeptIsBounded(t *testing.T) {
	var kept []*salvage.Kept
	var segs []*m4f.Segment
	s := segment.New(segment.Config{TargetDuration: m4f.Timescale, Unpaced: true, Start: 1, Salvage: func(k *salvage.Kept) {
		kept = append(kept, &salvage.Kept{Header: k.Header, First: k.First, Copy: salvage.Copy{Packets: k.Join()}})
	}}, func(seg *m4f.Segment) { segs = append(segs, seg) })
	noise := bytes.Repeat([]byte{0xa5, 0x5a, 0x3c}, 165_000)
	m, most := &mux{}, int64(0)
	for k := range int64(260) {
		size := 1000
		if k > 30 && k < 150 {
			size = len(noise)
		}
		if k%5 == 0 {
			m.section(0, pat(0, 1, mapPID))
			m.section(mapPID, pmt(1, 0, es{0x100, 0x1b, nil}))
		}
		m.packets(0x100, pes(0xe0, 3600*k, 3600*k, 0, append(avc(k%25 == 0 && (k < 30 || k > 150), 0), noise[:size]...)))
		if k == 140 || k == 210 {
			m.out = m.out[:len(m.out)-packet] // lost
		}
		s.Write(m.out)
		m.out = m.out[:0]
		most = max(most, segment.HeldPackets(s))
	}
	s.Close()
	if most*packet > 32<<20 || most*packet < 24<<20 {
		t.Errorf("%d MiB of packets held", most*packet>>20)
	}
	if n := segment.HeldPackets(s); n != 0 {
		t.Errorf("%d packets held in the end", n)
	}
	of := func(at int64) (n int) {
		for _, k := range kept {
			if k.Header.MediaTime <= at && k.Header.MediaTime+int64(k.Header.Duration) > at {
				n++
			}
			if len(k.Packets) > 32<<20 {
				t.Errorf("%d MiB kept", len(k.Packets)>>20)
			}
		}
		return n
	}
	if len(segs) < 8 || of(3600*209) != 1 {
		t.Errorf("%d segments, %d kept, of the loss behind the large pictures %d", len(segs), len(kept), of(3600*209))
	}
}

// Packets with an error, bytes that are no packets and datagrams that the kernel
// dropped are holes where they were; null packets and other programs are none,
// and not kept.
func TestHoles(t *testing.T) {
	ts := multiplex(3, 100)
	const pcrPID = 0x100 // of every program, as the maps say
	pid := func(n int) int { return pidOf(ts[n*packet:]) }
	own := func(n int) bool { return pid(n) == 0 || pid(n)>>8 == 2 || pid(n) == pcrPID }
	at := len(ts) / packet / 2
	for !own(at) {
		at++
	}
	for name, c := range map[string]struct {
		put  func(s *segmenter, p []byte)
		want int // missing
	}{
		"an error": {func(s *segmenter, p []byte) {
			q := bytes.Clone(p)
			q[1] |= 0x80
			s.Write(q)
		}, 1},
		"no packet": {func(s *segmenter, p []byte) {
			q := bytes.Clone(p)
			q[0] = 0
			s.Write(q)
		}, 1},
		"drops": {func(s *segmenter, p []byte) { s.Drops(7) }, 7},
		"many":  {func(s *segmenter, p []byte) { s.Drops(70) }, 70},
	} {
		var all []salvage.Kept
		s := segment.New(segment.Config{TargetDuration: m4f.Ticks(time.Second), Program: 2, Unpaced: true, Start: 1, Salvage: func(k *salvage.Kept) {
			c := *k
			c.Packets, c.Pieces, c.Holes = k.Join(), nil, slices.Clone(k.Holes)
			all = append(all, c)
		}}, func(*m4f.Segment) {})
		for n := range len(ts) / packet {
			if p := ts[n*packet : (n+1)*packet]; n == at {
				c.put(s, p)
			} else {
				s.Write(p)
			}
		}
		s.Close()
		found := 0
		for _, k := range all {
			for i := range k.Len() {
				if p := k.Packet(i); pidOf(p) != 0 && pidOf(p)>>8 != 2 && pidOf(p) != pcrPID || p[0] != 0x47 {
					t.Fatalf("%s: PID %#x is kept", name, pidOf(p))
				}
			}
			for _, h := range k.Holes {
				next := at + 1
				for !own(next) {
					next++
				}
				if h.Missing == c.want && bytes.Equal(k.Packet(h.At), ts[next*packet:(next+1)*packet]) {
					found++
				}
			}
		}
		if found == 0 {
			t.Errorf("%s: no hole of %d in %d copies", name, c.want, len(all))
		}
	}
}

// A copy that holds what no recorder writes is cut without harm.
func FuzzResegment(f *testing.F) {
	ts := multiplex(1, 40)
	f.Add(ts[:min(len(ts), 100*packet)], uint8(3), uint8(20))
	f.Add(ts, uint8(0), uint8(0))
	f.Add([]byte("<html>"), uint8(1), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, at, missing uint8) {
		c := &salvage.Copy{Packets: b[:len(b)/packet*packet], Holes: []salvage.Hole{{At: int(at), Missing: int(missing)}, {At: int(at) + 5, Missing: 300}}}
		for _, s := range segment.Resegment(c, 1, m4f.Timescale) {
			if s.Header.UTC != 0 || s.Header.Length == 0 {
				t.Errorf("a segment of %d bytes at %v", s.Header.Length, s.Header.UTC)
			}
		}
	})
}
