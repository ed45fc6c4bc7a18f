package segment_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/segment"
)

// perDatagram is how many packets a datagram holds.
const perDatagram = 7

// multiplex makes a stream of programs 1 to n, of so many pictures, with a keyframe and
// a map every half second. Program k has its map on PID 0x100*k, H.264 on the
// next PID and sound on the one after that; program 1 has a PES packet of data
// every three seconds too.
func multiplex(n, pictures int) []byte {
	m := &mux{}
	for i := range pictures {
		t := int64(90000 + i*3600)
		if i%12 == 0 {
			var pairs []int
			for k := 1; k <= n; k++ {
				pairs = append(pairs, k, k<<8)
			}
			m.section(0, pat(0, pairs...))
		}
		for k := 1; k <= n; k++ {
			if i%12 == 0 {
				tracks := []es{{k<<8 + 1, 0x1b, nil}, {k<<8 + 2, 0x03, nil}}
				if k == 1 {
					tracks = append(tracks, es{k<<8 + 3, 0x06, nil})
				}
				m.section(k<<8, pmt(k, 0, tracks...))
			}
			m.packets(k<<8+1, pes(0xe0, t, t, 0, avc((i+3*k)%12 == 0, 300+40*k)))
			for a := (i*3600 + 2159) / 2160; a < ((i+1)*3600+2159)/2160; a++ {
				at := int64(90000 + a*2160)
				m.packets(k<<8+2, pes(0xc0, at, at, -1, mp2()))
			}
			if k == 1 && i%75 == 10 {
				m.packets(k<<8+3, pes(0xbd, t, t, -1, bytes.Repeat([]byte{byte(i)}, 40)))
			}
		}
	}
	return m.out
}

// lossy segments a program of a stream of datagrams without those that gone
// names, telling how many packets each run of them held at most.
func lossy(ts []byte, program uint16, gone func(datagram int) bool) (all []*m4f.Segment) {
	s := segment.New(segment.Config{TargetDuration: m4f.Ticks(time.Second), Program: program, Unpaced: true, Start: 1},
		func(seg *m4f.Segment) { all = append(all, seg) })
	run := 0
	for d := 0; d*perDatagram*packet < len(ts); d++ {
		if gone(d) {
			run++
			continue
		}
		s.Drops(run * perDatagram)
		run = 0
		s.Write(ts[d*perDatagram*packet : min((d+1)*perDatagram*packet, len(ts))])
	}
	s.Close()
	return all
}

// own says whether a datagram holds packets of a program.
func own(ts []byte, program, datagram int) bool {
	for k := datagram * perDatagram; k < (datagram+1)*perDatagram && (k+1)*packet <= len(ts); k++ {
		if pid := pidOf(ts[k*packet:]); pid == 0 || pid>>8 == program {
			return true
		}
	}
	return false
}

func damaged(all []*m4f.Segment) (n int) {
	for _, s := range all {
		if s.Header.Flags&m4f.Damaged != 0 {
			n++
		}
	}
	return n
}

// TestDropsOfOtherPrograms loses datagrams of a multiplex of 12 programs: one
// that holds nothing of a program damages nothing of it, one that does damages
// something, and what is called clean is what a recorder without loss writes.
func TestDropsOfOtherPrograms(t *testing.T) {
	ts := multiplex(12, 200)
	datagrams := len(ts) / packet / perDatagram
	rng := rand.New(rand.NewPCG(1, 2))
	foreign, mine := 0, 0
	for program := 2; program <= 12; program++ {
		full := lossy(ts, uint16(program), func(int) bool { return false })
		ids := identities(full)
		if len(full) < 7 || damaged(full) != 0 {
			t.Fatalf("program %d: %d segments, %d damaged", program, len(full), damaged(full))
		}
		for range max(40/less, 10) {
			// One datagram, or two in a row: 14 packets.
			at, n := datagrams/10+rng.IntN(datagrams*8/10), 1+rng.IntN(2)
			got := lossy(ts, uint16(program), func(d int) bool { return d >= at && d < at+n })
			if !own(ts, program, at) && (n == 1 || !own(ts, program, at+1)) {
				foreign++
				if fmt.Sprint(slices.Collect(flagged(got))) != fmt.Sprint(slices.Collect(flagged(full))) {
					t.Errorf("program %d: datagrams %d+%d of other programs change it:\n%v", program, at, n, slices.Collect(flagged(got)))
				}
				continue
			}
			mine++
			if damaged(got) == 0 {
				t.Errorf("program %d: nothing is damaged by datagrams %d+%d", program, at, n)
			}
			for _, s := range got {
				if s.Header.Clean() && !ids[s.Header.ID] {
					t.Errorf("program %d: %s is called clean and differs", program, describe(s))
				}
			}
			if d := damaged(got); d > 3 {
				t.Errorf("program %d: %d segments damaged by %d datagrams", program, d, n)
			}
		}
	}
	t.Logf("%d losses of other programs, %d own", foreign, mine)
	if foreign < 20 || mine < 10 {
		t.Error("too few")
	}
}

// flagged tells segments with their flags.
func flagged(all []*m4f.Segment) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, s := range all {
			if !yield(describe(s)) {
				return
			}
		}
	}
}

// TestDropsOfSparseTrack loses the one packet of a data track in seconds: its
// counter tells when the next comes, and the segment is complete by then.
func TestDropsOfSparseTrack(t *testing.T) {
	ts := multiplex(12, 300)
	full := lossy(ts, 1, func(int) bool { return false })
	ids := identities(full)
	lost := 0
	for k := 0; (k+1)*packet <= len(ts); k++ {
		if pidOf(ts[k*packet:]) != 0x103 {
			continue
		}
		lost++
		got := lossy(ts, 1, func(d int) bool { return d == k/perDatagram })
		if damaged(got) == 0 {
			t.Errorf("nothing is damaged without packet %d", k)
		}
		for _, s := range got {
			if s.Header.Clean() && !ids[s.Header.ID] {
				t.Errorf("without packet %d %s is called clean and differs", k, describe(s))
			}
		}
	}
	if lost < 3 {
		t.Errorf("%d data packets", lost)
	}
}

// TestDropsThatCountersHide loses 16 packets of a PID: by three datagrams at
// once, and by three with packets of others in between, so that each loss
// alone would have shown.
func TestDropsThatCountersHide(t *testing.T) {
	ts := multiplex(12, 200)
	datagrams := len(ts) / packet / perDatagram
	for program := 2; program <= 12; program += 5 {
		got := lossy(ts, uint16(program), func(d int) bool { return d >= datagrams/2 && d < datagrams/2+3 })
		if damaged(got) == 0 {
			t.Errorf("program %d: three datagrams damage nothing", program)
		}
	}
	// A picture of 40 packets, and among them two of another PID, at which
	// datagrams arrive.
	m := &mux{}
	m.section(0, pat(0, 1, 0x100))
	m.section(0x100, pmt(1, 0, es{0x101, 0x1b, nil}))
	for i := range 100 {
		t := int64(90000 + i*3600)
		m.packets(0x101, pes(0xe0, t, t, 0, avc(i%25 == 0, 40*184)))
		m.section(0, pat(0, 1, 0x100))
		m.section(0x100, pmt(1, 0, es{0x101, 0x1b, nil}))
	}
	var out []*m4f.Segment
	s := segment.New(segment.Config{TargetDuration: m4f.Ticks(time.Second), Unpaced: true, Start: 1}, func(seg *m4f.Segment) { out = append(out, seg) })
	seen, gone := 0, 0
	for k := 0; (k+1)*packet <= len(m.out); k++ {
		p := m.out[k*packet : (k+1)*packet]
		if pidOf(p) == 0x101 {
			seen++
		}
		// In the middle of picture 60 16 packets are lost, told in three parts
		// between which no packet of the PID comes.
		if pidOf(p) == 0x101 && seen > 60*41+10 && gone < 16 {
			if gone == 0 || gone == 6 || gone == 11 {
				s.Drops(map[int]int{0: 6, 6: 5, 11: 5}[gone])
				s.Write(bytes.Join([][]byte{{0x47, 0x1f, 0xff, 0x10}, make([]byte, 184)}, nil))
			}
			gone++
			continue
		}
		s.Write(p)
	}
	s.Close()
	if gone != 16 || damaged(out) == 0 {
		t.Errorf("%d lost, %d segments, none of them damaged", gone, len(out))
	}
}
