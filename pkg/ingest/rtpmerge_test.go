package ingest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pion/rtp"
	"pgregory.net/rapid"
)

// rtpPacketOf makes an RTP packet of one transport packet that holds a number.
func rtpPacketOf(ssrc uint32, seq uint16, ts uint32, n int) []byte {
	body := make([]byte, 188)
	body[0] = 0x47
	binary.BigEndian.PutUint32(body[4:], uint32(n))
	b, err := (&rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: typeMP2T, SequenceNumber: seq, Timestamp: ts, SSRC: ssrc}, Payload: body}).Marshal()
	if err != nil {
		panic(err)
	}
	return b
}

func numberOf(payload []byte) int { return int(binary.BigEndian.Uint32(payload[4:])) }

// arrival is a packet that comes by a path at a time.
type arrival struct {
	path int
	at   time.Duration
	d    []byte
}

// feeder gives arrivals to a merger as a source would: all that has come by
// the time of a read, then what is due.
type feeder struct {
	t interface {
		Fatalf(string, ...any)
		Helper()
	}
	m   *merger
	fec *corrector
	out []int // numbers delivered; -k: k missing
}

func (f *feeder) drain(now time.Time) {
	for {
		if f.m.lost > 0 {
			f.out = append(f.out, -int(f.m.lost))
			f.m.lost = 0
		}
		p, ok := f.m.pop()
		switch {
		case ok:
			if len(p) > 0 {
				f.out = append(f.out, numberOf(p))
			}
		case f.m.full(), f.fec != nil && f.fec.correct(now), f.m.expire(now):
		default:
			f.m.reclaim()
			return
		}
	}
}

// ready takes what is in order, as a source does between two datagrams.
func (f *feeder) ready() {
	for {
		if f.m.lost > 0 {
			f.out = append(f.out, -int(f.m.lost))
			f.m.lost = 0
		}
		p, ok := f.m.pop()
		if !ok {
			return
		}
		if len(p) > 0 {
			f.out = append(f.out, numberOf(p))
		}
	}
}

// feed reads every step until all has come and nothing is waited for.
func (f *feeder) feed(list []arrival, step time.Duration) {
	for k, at := 0, time.Duration(0); k < len(list) || at < list[len(list)-1].at+20*time.Second; at += step {
		now := start.Add(at)
		for ; k < len(list) && list[k].at <= at; k++ {
			if a := list[k]; a.path >= 100 {
				f.fec.take(a.d, now)
			} else if p, ok := f.m.take(a.path, a.d, now); ok {
				f.out = append(f.out, numberOf(p))
			}
			f.ready()
		}
		f.drain(now)
		if k == len(list) && f.m.held == 0 {
			return
		}
	}
	f.t.Fatalf("%d packets are held for ever", f.m.held)
}

// want compares what was delivered with the numbers 0 to n-1 less those gone.
// Loss before the first and after the last delivered cannot be told.
func (f *feeder) want(n int, gone map[int]bool) {
	f.t.Helper()
	var want []int
	lost := 0
	for k := range n {
		if gone[k] {
			lost++
			continue
		}
		if lost > 0 && len(want) > 0 {
			want = append(want, -lost)
		}
		lost = 0
		want = append(want, k)
	}
	if !slices.Equal(f.out, want) {
		i := 0
		for i < len(want) && i < len(f.out) && want[i] == f.out[i] {
			i++
		}
		f.t.Fatalf("from place %d: %v, want %v", i, f.out[i:min(i+20, len(f.out))], want[i:min(i+20, len(want))])
	}
}

// TestMergeSorts shuffles packets within the time that one may be late, leaves
// some out and repeats some: what comes is sorted, once each, and what is
// missing is told in its place.
func TestMergeSorts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const reorder = 50 * time.Millisecond
		n := rapid.IntRange(1, 400).Draw(t, "packets")
		first := rapid.Uint16().Draw(t, "first")
		interval := time.Duration(rapid.IntRange(50, 5000).Draw(t, "µs apart")) * time.Microsecond
		jitter := rapid.IntRange(0, 40).Draw(t, "ms of jitter")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		loss := rapid.Float64Range(0, 0.5).Draw(t, "loss")
		gone := map[int]bool{}
		var list []arrival
		dups := uint64(0)
		for k := range n {
			at := time.Duration(k) * interval
			if k > 0 && rng.Float64() < loss {
				gone[k] = true
				continue
			}
			d := rtpPacketOf(7, first+uint16(k), uint32(at/time.Microsecond*9/100), k)
			list = append(list, arrival{0, at + time.Duration(rng.IntN(jitter+1))*time.Millisecond, d})
			if rng.IntN(10) == 0 {
				dups++
				list = append(list, arrival{0, at + time.Duration(rng.IntN(jitter+1))*time.Millisecond, d})
			}
		}
		slices.SortStableFunc(list, func(a, b arrival) int { return int(a.at - b.at) })
		f := &feeder{t: t, m: newMerger(1, reorder, 0)}
		f.feed(list, 2*time.Millisecond)
		f.want(n, gone)
		if c := f.m.count; c.duplicates != dups || c.errors != 0 || c.late != 0 || c.runs != 1 {
			t.Fatalf("counts %+v, %d repeated", c, dups)
		}
	})
}

// TestMergeTwoPaths loses 20 % on each of two paths that are apart by up to
// the skew: what is missing in the end is what both lost, and no more.
func TestMergeTwoPaths(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(200, 2000).Draw(t, "packets")
		first := rapid.Uint16().Draw(t, "first")
		skew := time.Duration(rapid.IntRange(-430, 430).Draw(t, "ms of skew")) * time.Millisecond
		interval := time.Duration(rapid.IntRange(100, 3000).Draw(t, "µs apart")) * time.Microsecond
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		gone := map[int]bool{}
		var list []arrival
		for k := range n {
			at := time.Duration(k) * interval
			d := rtpPacketOf(7, first+uint16(k), uint32(at/time.Microsecond*9/100), k)
			a, b := rng.IntN(5) == 0, rng.IntN(5) == 0
			// Both begin and end whole, and the late one has begun when the
			// other loses its first.
			if early := time.Duration(k) * interval; early < 500*time.Millisecond || k == n-1 {
				a, b = false, false
			}
			if !a {
				list = append(list, arrival{0, at + max(-skew, 0) + time.Duration(rng.IntN(10))*time.Millisecond, d})
			}
			if !b {
				list = append(list, arrival{1, at + max(skew, 0) + time.Duration(rng.IntN(10))*time.Millisecond, d})
			}
			if a && b {
				gone[k] = true
			}
		}
		slices.SortStableFunc(list, func(a, b arrival) int { return int(a.at - b.at) })
		f := &feeder{t: t, m: newMerger(2, defaultReorder, defaultSkew)}
		f.feed(list, 2*time.Millisecond)
		f.want(n, gone)
		if c := f.m.count; c.lost != uint64(len(gone)) || c.errors != 0 || c.runs != 1 {
			t.Fatalf("counts %+v, %d gone", c, len(gone))
		}
	})
}

// series is packets of one sender, a millisecond apart.
func series(ssrc uint32, first uint16, ts uint32, at time.Duration, from, to int) []arrival {
	var list []arrival
	for k := from; k < to; k++ {
		list = append(list, arrival{0, at, rtpPacketOf(ssrc, first, ts, k)})
		first++
		ts += 90
		at += time.Millisecond
	}
	return list
}

func TestMergeRuns(t *testing.T) {
	ms := time.Millisecond
	for _, c := range []struct {
		name string
		list [][]arrival
		n    int
		lost int // missing at place 100
		runs uint64
		errs uint64
	}{
		{"another SSRC", [][]arrival{series(1, 65500, 0, 0, 0, 100), series(2, 20, 5e8, 100*ms, 100, 200)}, 200, 0, 2, 0},
		{"another SSRC, near in number", [][]arrival{series(1, 0, 0, 0, 0, 100), series(2, 90, 5e8, 100*ms, 100, 200)}, 200, 0, 2, 0},
		{"fixed SSRC, number back", [][]arrival{series(1, 40000, 0, 0, 0, 100), series(1, 0, 5e8, 100*ms, 100, 200)}, 200, 0, 2, 0},
		{"fixed SSRC, number a little back", [][]arrival{series(1, 4000, 0, 0, 0, 100), series(1, 1000, 5e8, 100*ms, 100, 200)}, 200, 0, 2, 0},
		{"fixed SSRC, number far ahead", [][]arrival{series(1, 0, 0, 0, 0, 100), series(1, 30000, 5e8, 100*ms, 100, 200)}, 200, 0, 2, 0},
		{"3 s lost", [][]arrival{series(1, 0, 0, 0, 0, 100), series(1, 3100, 3100*90, 3100*ms, 100, 200)}, 200, 3000, 1, 0},
		{"20 s lost", [][]arrival{series(1, 0, 0, 0, 0, 100), series(1, 20100, 20100*90, 20100*ms, 100, 200)}, 200, 20000, 2, 0},
		{"60 s lost, the number has gone round almost", [][]arrival{series(1, 0, 0, 0, 0, 100), series(1, 60100, 60100*90, 60100*ms, 100, 200)}, 200, 60000, 2, 0},
		{"a whole round lost", [][]arrival{series(1, 0, 0, 0, 0, 100), series(1, 100, 65636*90, 65636*ms, 100, 200)}, 200, 0, 1, 0},
		{"a stray packet", [][]arrival{series(1, 0, 0, 0, 0, 100), series(9, 3000, 7, 100*ms, 9999, 10000), series(1, 100, 9000, 100*ms, 100, 200)}, 200, 0, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &feeder{t: t, m: newMerger(1, defaultReorder, 0)}
			f.feed(slices.Concat(c.list...), 2*ms)
			var want []int
			for k := range c.n {
				if k == 100 && c.lost > 0 {
					want = append(want, -c.lost)
				}
				want = append(want, k)
			}
			if !slices.Equal(f.out, want) {
				t.Errorf("%v", f.out)
			}
			if k := f.m.count; k.runs != c.runs || k.errors != c.errs || k.lost != uint64(c.lost) {
				t.Errorf("counts %+v", k)
			}
		})
	}
}

// Both paths begin anew, one after the other.
func TestMergeRunsOfTwoPaths(t *testing.T) {
	by := func(path int, late time.Duration, list []arrival) []arrival {
		out := slices.Clone(list)
		for i := range out {
			out[i].path, out[i].at = path, out[i].at+late
		}
		return out
	}
	ms := time.Millisecond
	one, two := series(1, 5000, 0, 0, 0, 500), series(2, 100, 9e8, 500*ms, 500, 1000)
	list := slices.Concat(by(0, 0, one), by(1, 100*ms, one), by(0, 0, two), by(1, 100*ms, two))
	slices.SortStableFunc(list, func(a, b arrival) int { return int(a.at - b.at) })
	f := &feeder{t: t, m: newMerger(2, defaultReorder, defaultSkew)}
	f.feed(list, 2*ms)
	f.want(1000, nil)
	if c := f.m.count; c.runs != 2 {
		t.Errorf("%+v", c)
	}
	// A path with other packets altogether is left out, and told of.
	list = slices.Concat(by(0, 0, one), by(1, 0, series(3, 40000, 3e8, 0, 5000, 5500)))
	slices.SortStableFunc(list, func(a, b arrival) int { return int(a.at - b.at) })
	f = &feeder{t: t, m: newMerger(2, defaultReorder, defaultSkew)}
	f.feed(list, 2*ms)
	f.want(500, nil)
	if c := f.m.count; c.runs != 1 || c.strange < 400 {
		t.Errorf("%+v", c)
	}
	// One path dies; the other goes on, and its losses are told.
	f = &feeder{t: t, m: newMerger(2, defaultReorder, defaultSkew)}
	f.feed(slices.Concat(by(0, 0, one[:100]), by(1, 0, one[:200]), by(1, 0, one[205:])), 2*ms)
	f.want(500, map[int]bool{200: true, 201: true, 202: true, 203: true, 204: true})
}

// The first packets come in reverse, more of them than room was made for at
// first: none is lost, and none waits for ever.
func TestMergeStartsBackwards(t *testing.T) {
	const n = 3000
	var list []arrival
	for k := n - 1; k >= 0; k-- {
		list = append(list, arrival{0, 0, rtpPacketOf(1, uint16(k), 0, k)})
	}
	f := &feeder{t: t, m: newMerger(1, defaultReorder, 0)}
	f.feed(list, 2*time.Millisecond)
	f.want(n, nil)
}

func TestMergeKinds(t *testing.T) {
	body := append([]byte{0x47}, make([]byte, 187)...)
	header := func(change func(*rtp.Packet)) []byte {
		p := &rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: typeMP2T, SequenceNumber: 1, SSRC: 1}, Payload: body}
		change(p)
		b, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, c := range []struct {
		name string
		d    []byte
		size int // of the payload; -1: an error; -2: neither
	}{
		{"plain", header(func(p *rtp.Packet) {}), 188},
		{"contributing sources", header(func(p *rtp.Packet) { p.CSRC = []uint32{1, 2, 3} }), 188},
		{"extension", header(func(p *rtp.Packet) { p.Header.Extension = true; p.Header.SetExtension(1, []byte{1, 2, 3}) }), 188},
		{"padding", header(func(p *rtp.Packet) { p.Header.Padding = true; p.Header.PaddingSize = 40 }), 188},
		{"dynamic type", header(func(p *rtp.Packet) { p.PayloadType = 96 }), 188},
		{"empty", header(func(p *rtp.Packet) { p.Payload = nil }), 0},
		{"another medium", header(func(p *rtp.Packet) { p.PayloadType = 96; p.Payload = []byte("opus") }), -1},
		{"no RTP", append([]byte(nil), body...), -1},
		{"short", []byte{0x80, 33, 0, 1}, -1},
		{"nothing but a byte", []byte{0x80}, -1},
		{"bad padding", append(header(func(p *rtp.Packet) {})[:0:0], append([]byte{0xa0, 33, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1}, 200)...), -1},
		{"RTCP", []byte{0x80, 200, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, -2},
	} {
		m := newMerger(1, 0, 0)
		m.take(0, c.d, start)
		m.expire(start)
		p, ok := m.pop()
		size := -2
		if ok {
			size = len(p)
		} else if m.count.errors == 1 {
			size = -1
		}
		if size != c.size {
			t.Errorf("%s: %d, want %d", c.name, size, c.size)
		}
	}
}

// A hostile sender cannot make it hold more than the bound.
func TestMergeBounded(t *testing.T) {
	m := newMerger(1, 10*time.Second, 0)
	f := &feeder{t: t, m: m}
	d := append(rtpPacketOf(1, 0, 0, 0), make([]byte, 60000)...)
	for k := range 100000 {
		binary.BigEndian.PutUint16(d[2:], uint16(k*2))
		if p, ok := m.take(0, d, start); ok {
			f.out = append(f.out, numberOf(p))
		}
		for m.full() {
			f.ready()
		}
		if m.heldSize > rtpHeldBytes || m.held > rtpAhead || len(m.ring) > 1<<15 {
			t.Fatalf("holds %d packets, %d bytes, ring %d", m.held, m.heldSize, len(m.ring))
		}
		m.reclaim()
	}
}

// FuzzRTP gives any packets in any order, by two paths and with correction:
// nothing panics, nothing comes twice or out of order within a run.
func FuzzRTP(f *testing.F) {
	var seed []byte
	add := func(kind byte, d []byte) {
		seed = append(seed, kind, byte(len(d)))
		seed = append(seed, d...)
	}
	for k := range 12 {
		if k != 5 {
			add(byte(k%2), rtpPacketOf(1, uint16(65530+k), uint32(k), k)[:32])
		}
	}
	add(2, append([]byte{0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}, 0xff, 0xfa, 0, 0, 0x80|33, 0, 0, 0, 0, 0, 0, 0, 0x40, 1, 10, 0, 0x47))
	f.Add(seed)
	f.Add([]byte{0, 3, 0x47, 1, 2})
	f.Fuzz(func(t *testing.T, in []byte) {
		m := newMerger(2, 20*time.Millisecond, 100*time.Millisecond)
		c := newCorrector(m)
		now := start
		runs, last := uint64(0), int64(-1)
		seen := func(ok bool) {
			if !ok {
				return
			}
			if next := m.next; len(m.queue) == 0 {
				if runs == m.count.runs && next <= last {
					t.Fatalf("%d after %d", next, last)
				}
				runs, last = m.count.runs, next
			}
		}
		for len(in) >= 2 {
			kind, n := in[0], int(in[1])
			in = in[2:]
			d := in[:min(n, len(in))]
			in = in[len(d):]
			now = now.Add(time.Duration(kind>>2) * time.Millisecond)
			// A payload of any bytes that counts as one of transport packets.
			d = append([]byte(nil), d...)
			if kind&3 == 2 {
				c.take(d, now)
			} else {
				_, ok := m.take(int(kind&1), d, now)
				seen(ok)
			}
			for {
				m.lost = 0
				before := len(m.queue) > 0 // of the run before, whose numbers are others
				if p, ok := m.pop(); ok {
					seen(p != nil && !before)
					continue
				}
				if m.full() || kind&32 != 0 && (c.correct(now) || m.expire(now)) {
					continue
				}
				break
			}
			if kind&64 != 0 {
				m.giveAway()
			}
			m.reclaim()
			held := 0
			for _, p := range m.ring {
				if p != nil && !p.delivered {
					held++
				}
			}
			if held != m.held {
				t.Fatalf("%d held, counted %d", held, m.held)
			}
		}
	})
}

func ExampleSplitProgram() {
	url, program, err := SplitProgram("udp://239.1.1.1:1234?program=3&interface=eth1")
	fmt.Println(url, program, err)
	// Output: udp://239.1.1.1:1234?interface=eth1 3 <nil>
}

// rtpOf puts a datagram number k of a sender into RTP.
func rtpOf(k int, d []byte) []byte {
	b, err := (&rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: typeMP2T, SequenceNumber: uint16(k), Timestamp: uint32(k) * 90, SSRC: 0x7477}, Payload: d}).Marshal()
	if err != nil {
		panic(err)
	}
	return b
}
