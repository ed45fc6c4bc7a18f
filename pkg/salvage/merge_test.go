package salvage

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

const (
	videoPID = 256
	audioPID = 257
	clockPID = 258 // PCR alone, or nothing
	tablePID = 4096
)

// source makes a program's packets.
type source struct {
	rng *rand.Rand
	cc  map[uint16]int
	now int64 // of its clock, 27 MHz
	c   Copy
}

func newSource(seed uint64) *source {
	return &source{rng: rand.New(rand.NewPCG(seed, 7)), cc: map[uint16]int{}}
}

func (s *source) add(p []byte) { s.c.Packets = append(s.c.Packets, p...) }

// media adds a packet that differs from all others.
func (s *source) media(pid uint16) {
	s.add(randomPacket(s.rng, pid, s.cc[pid]))
	s.cc[pid]++
}

// table adds a packet that has only its counter to tell it from others.
func (s *source) table(pid uint16) {
	p := bytes.Repeat([]byte{0xff}, PacketSize)
	p[0], p[1], p[2], p[3] = syncByte, byte(pid>>8), byte(pid), 0x10|byte(s.cc[pid]&15)
	s.cc[pid]++
	s.add(p)
}

// field adds a packet with an adaptation field alone: a PCR, or nothing where
// it is negative. The counter stays.
func (s *source) field(pid uint16, pcr int64) {
	p := bytes.Repeat([]byte{0xff}, PacketSize)
	p[0], p[1], p[2], p[3] = syncByte, byte(pid>>8), byte(pid), 0x20|byte((s.cc[pid]-1)&15)
	p[4], p[5] = 183, 0
	if pcr >= 0 {
		base, extension := pcr/300&(1<<33-1), pcr%300
		p[5] = 0x10
		p[6], p[7], p[8], p[9] = byte(base>>25), byte(base>>17), byte(base>>9), byte(base>>1)
		p[10], p[11] = byte(base<<7)|0x7e|byte(extension>>8), byte(extension)
	}
	s.add(p)
}

// again adds the packet before once more, as 13818-1 2.4.3.3 allows.
func (s *source) again() { s.add(slices.Clone(s.c.Packet(s.c.Len() - 1))) }

// jump adds a packet whose counter begins anew.
func (s *source) jump(pid uint16) {
	s.cc[pid] += 1 + s.rng.IntN(14)
	p := randomPacket(s.rng, pid, s.cc[pid])
	s.cc[pid]++
	p[3] |= 0x20
	p[4], p[5] = 1, 0x80
	s.add(p)
}

// program adds n packets as a multiplexer of video and audio sends them.
func (s *source) program(n int) {
	for end := s.c.Len() + n; s.c.Len() < end; {
		switch k := s.rng.IntN(100); {
		case k < 4:
			s.table(0)
			s.table(tablePID)
		case k < 7:
			s.field(clockPID, int64(s.c.Len())*10000)
		case k < 8:
			s.field(videoPID, -1)
		case k < 9 && s.cc[audioPID] > 0:
			s.media(audioPID)
			s.again()
		case k < 28:
			s.media(audioPID)
		default:
			s.media(videoPID)
		}
	}
}

// cut is the copy of the packets that these ranges have.
func (s *source) cut(ranges ...Range) *Copy {
	out := &Copy{}
	for _, r := range ranges {
		out.Packets = append(out.Packets, s.c.Packets[r.From*PacketSize:r.To*PacketSize]...)
	}
	return out
}

// merged merges both ways, which must be the same.
func merged(t rapid.TB, a, b *Copy) (*Copy, Gain) {
	c, gain := Merge(a, b)
	d, back := Merge(b, a)
	if !bytes.Equal(c.Packets, d.Packets) || !slices.Equal(c.Holes, d.Holes) {
		t.Fatal("Merge(a, b) and Merge(b, a) differ")
	}
	back.A, back.B = back.B, back.A
	if gain != back {
		t.Fatalf("Merge(a, b) gained %+v, Merge(b, a) %+v", gain, back)
	}
	if n := gain.A + gain.B + gain.Common; n != c.Len() {
		t.Fatalf("gained %+v, the result has %d packets", gain, c.Len())
	}
	a, b = withoutNulls(a), withoutNulls(b)
	if n := gain.A + gain.B + 2*gain.Common + gain.LeftOut; n != a.Len()+b.Len() {
		t.Fatalf("gained %+v of %d and %d packets", gain, a.Len(), b.Len())
	}
	if c.Len() < max(a.Len(), b.Len()) {
		t.Fatalf("%d packets came of %d and %d", c.Len(), a.Len(), b.Len())
	}
	return c, gain
}

// Within says whether the packets of part are in whole, in their order.
func Within(part, whole *Copy) bool {
	k := 0
	for n := range part.Len() {
		for k < whole.Len() && !bytes.Equal(part.Packet(n), whole.Packet(k)) {
			k++
		}
		if k++; k > whole.Len() {
			return false
		}
	}
	return true
}

func TestMerge(t *testing.T) {
	type test struct {
		name string
		make func(s *source) (a, b, want *Copy)
	}
	plain := func(a, b []Range) func(s *source) (_, _, _ *Copy) {
		return func(s *source) (_, _, _ *Copy) {
			s.program(200)
			for range 400 {
				s.media(videoPID)
			}
			s.program(200)
			return s.cut(a...), s.cut(b...), &s.c
		}
	}
	tests := []test{
		{"equal", plain([]Range{{0, 800}}, []Range{{0, 800}})},
		{"each lacks others", plain([]Range{{0, 300}, {307, 800}}, []Range{{0, 400}, {410, 800}})},
		{"neighbours lost", plain([]Range{{0, 300}, {307, 800}}, []Range{{0, 307}, {314, 800}})},
		{"in turn", plain([]Range{{0, 300}, {307, 314}, {321, 800}}, []Range{{0, 307}, {314, 321}, {325, 800}})},
		{"16 packets", plain([]Range{{0, 300}, {316, 800}}, []Range{{0, 400}, {432, 800}})},
		{"other ends", plain([]Range{{0, 500}}, []Range{{250, 800}})},
		{"one inside the other", plain([]Range{{0, 500}, {505, 800}}, []Range{{300, 600}})},
		{"begins where the other lost", plain([]Range{{0, 400}, {407, 800}}, []Range{{400, 800}})},
		{"ends where the other lost", plain([]Range{{0, 400}, {407, 800}}, []Range{{0, 407}})},
		{"an early start that loses at once", plain([]Range{{0, 300}, {307, 800}}, []Range{{300, 307}, {314, 800}})},
		{"begins with tables behind which the other lost", func(s *source) (_, _, _ *Copy) {
			for range 20 {
				s.media(videoPID)
				s.table(0)
				s.table(tablePID)
				for range 24 {
					s.media([]uint16{videoPID, videoPID, videoPID, audioPID}[s.rng.IntN(4)])
				}
			}
			begins := 27*18 + 1
			return s.cut(Range{0, begins + 2}, Range{begins + 13, s.c.Len()}), s.cut(Range{begins, s.c.Len()}), &s.c
		}},
		{"a datagram of tables", func(s *source) (_, _, _ *Copy) {
			s.program(100)
			for range 3 {
				for range 20 {
					s.media(videoPID)
				}
				s.table(0)
				s.table(tablePID)
				for range 20 {
					s.media(videoPID)
				}
			}
			s.program(100)
			return s.cut(Range{0, 119}, Range{124, s.c.Len()}), s.cut(Range{0, 162}, Range{163, s.c.Len()}), &s.c
		}},
		{"clock references beside each other", func(s *source) (_, _, _ *Copy) {
			s.program(100)
			n := s.c.Len()
			s.field(clockPID, 9_000_000)
			s.field(clockPID, 9_000_100)
			s.program(100)
			return s.cut(Range{0, n}, Range{n + 1, s.c.Len()}), s.cut(Range{0, n + 1}, Range{n + 2, s.c.Len()}), &s.c
		}},
		{"the clock begins anew", func(s *source) (_, _, _ *Copy) {
			s.program(100)
			n := s.c.Len()
			s.field(clockPID, 90_000_000)
			s.media(videoPID)
			s.field(clockPID, 77)
			s.media(videoPID)
			s.program(100)
			return s.cut(Range{0, 20}, Range{27, n}, Range{n + 2, s.c.Len()}), s.cut(Range{0, n + 2}, Range{n + 4, s.c.Len()}), &s.c
		}},
		{"a counter begins anew", func(s *source) (_, _, _ *Copy) {
			s.program(100)
			n := s.c.Len()
			s.media(videoPID)
			s.jump(audioPID)
			s.media(audioPID)
			s.media(videoPID)
			s.media(videoPID)
			s.program(100)
			return s.cut(Range{0, n}, Range{n + 4, s.c.Len()}), s.cut(Range{0, n + 4}, Range{n + 5, s.c.Len()}), &s.c
		}},
		{"tables that are not counted", func(s *source) (_, _, _ *Copy) {
			for range 40 {
				s.cc[0] = 3
				s.table(0)
				for range 10 {
					s.media(videoPID)
				}
			}
			return s.cut(Range{0, 215}, Range{222, s.c.Len()}), s.cut(Range{0, 222}, Range{227, s.c.Len()}), &s.c
		}},
		{"a source that repeats itself", func(s *source) (_, _, _ *Copy) {
			for range 320 {
				s.media(videoPID)
			}
			once := slices.Clone(s.c.Packets)
			s.add(once)
			s.add(once)
			return s.cut(Range{50, 300}, Range{307, 960}), s.cut(Range{0, 600}, Range{607, 900}), &s.c
		}},
		{"nothing but tables", func(s *source) (_, _, _ *Copy) {
			for range 3 {
				s.table(0)
			}
			return &s.c, s.cut(Range{0, 3}), &s.c
		}},
		{"nothing in common", func(s *source) (_, _, _ *Copy) {
			s.program(300)
			n := s.c.Len()
			return s.cut(Range{0, 100}), s.cut(Range{110, n}), s.cut(Range{110, n})
		}},
		{"one is empty", func(s *source) (_, _, _ *Copy) {
			s.program(100)
			return &Copy{}, s.cut(Range{10, 90}), s.cut(Range{10, 90})
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a, b, want := test.make(newSource(1))
			got, gain := merged(t, a, b)
			if !bytes.Equal(got.Packets, want.Packets) {
				t.Errorf("%d packets of %d and %d, want %d; %+v; in order: %v", got.Len(), a.Len(), b.Len(), want.Len(), gain, Within(got, want))
			}
			if len(got.Holes) > 0 {
				t.Errorf("holes %v", got.Holes)
			}
		})
	}
}

// TestMergeGuessesNoOrder has packets whose order nothing tells.
func TestMergeGuessesNoOrder(t *testing.T) {
	for name, add := range map[string]func(s *source) (n, k int){
		// A sound and a picture packet: either may be the first.
		"two PIDs": func(s *source) (int, int) {
			s.media(audioPID)
			s.media(videoPID)
			return 1, 1
		},
		// One copy has the first and the last of three datagrams.
		"between others": func(s *source) (int, int) {
			for range 14 {
				s.media(audioPID)
			}
			for range 7 {
				s.media(videoPID)
			}
			return 7, 7
		},
		// Sixteen and sixteen of one PID: the counter allows other orders.
		"a turn of the counter": func(s *source) (int, int) {
			for range 40 {
				s.media(videoPID)
			}
			return 20, 20
		},
	} {
		s := newSource(2)
		s.program(200)
		from := s.c.Len()
		n, k := add(s)
		end := s.c.Len()
		s.program(200)
		a := s.cut(Range{0, from + n}, Range{from + n + k, s.c.Len()})
		b := s.cut(Range{0, from}, Range{from + n, from + n + k}, Range{end, s.c.Len()})
		got, gain := merged(t, a, b)
		if !Within(got, &s.c) {
			t.Errorf("%s: not the order of the source", name)
		}
		if gain.LeftOut != min(end-from-k, k) {
			t.Errorf("%s: %+v", name, gain)
		}
	}
}

// TestMergeSaysWhatItLeftOut: packets that were left out and that no counter
// shows to be missing make a hole.
func TestMergeSaysWhatItLeftOut(t *testing.T) {
	s := newSource(3)
	s.program(200)
	from := s.c.Len()
	for range 16 {
		s.media(videoPID)
	}
	for range 16 {
		s.media(videoPID)
	}
	s.program(200)
	a := s.cut(Range{0, from + 16}, Range{from + 32, s.c.Len()})
	b := s.cut(Range{0, from}, Range{from + 16, s.c.Len()})
	got, gain := merged(t, a, b)
	if gain.LeftOut != 16 || !Within(got, &s.c) {
		t.Fatalf("%+v", gain)
	}
	if want := []Hole{{from, 16}, {from + 16, 16}}; !slices.Equal(got.Holes, want) {
		t.Fatalf("holes %v, want %v", got.Holes, want)
	}
}

func TestMergeFillsHoles(t *testing.T) {
	const lost = 50
	s := newSource(4)
	s.program(200)
	for range 400 {
		s.media(videoPID)
	}
	s.program(200)
	end := s.c.Len()
	hole := func(c *Copy, holes ...Hole) *Copy {
		c.Holes = holes
		return c
	}
	a := hole(s.cut(Range{0, 300}, Range{350, end}), Hole{300, lost + 20})
	for _, test := range []struct {
		name   string
		a, b   *Copy
		want   []Hole
		filled int
	}{
		{"the other has it", a, s.cut(Range{0, end}), nil, 1},
		{"nothing was missing", hole(s.cut(Range{0, end}), Hole{300, 100}), s.cut(Range{0, end}), nil, 1},
		{"both", a, a, []Hole{{300, lost + 20}}, 0},
		{"the other has a smaller one beside", a, hole(s.cut(Range{0, 350}, Range{357, end}), Hole{350, 7}), nil, 2},
		{"both there, of other sizes", a, hole(s.cut(Range{0, 320}, Range{350, end}), Hole{320, 60}), []Hole{{320, lost}}, 0},
		{"the other ends there", a, s.cut(Range{0, 300}), []Hole{{300, lost + 20}}, 0},
		{"the other begins there", a, s.cut(Range{350, end}), []Hole{{300, lost + 20}}, 0},
		{"the other begins within", a, s.cut(Range{330, end}), []Hole{{300, lost + 20}}, 0},
		{"elsewhere", a, hole(s.cut(Range{0, 500}, Range{516, end}), Hole{500, 16}), nil, 2},
		{"ahead of all, the other has more", hole(s.cut(Range{100, end}), Hole{0, 40}), s.cut(Range{0, end}), nil, 1},
		{"ahead of all in both", hole(s.cut(Range{100, end}), Hole{0, 40}), s.cut(Range{100, end}), []Hole{{0, 40}}, 0},
		{"behind all", hole(s.cut(Range{0, 500}), Hole{500, 40}), s.cut(Range{0, end}), nil, 1},
		{"behind all in both", hole(s.cut(Range{0, 500}), Hole{500, 40}), s.cut(Range{100, 500}), []Hole{{500, 40}}, 0},
	} {
		got, gain := merged(t, test.a, test.b)
		if !slices.Equal(got.Holes, test.want) || gain.Filled != test.filled {
			t.Errorf("%s: holes %v, %+v; want %v, %d filled", test.name, got.Holes, gain, test.want, test.filled)
		}
	}
}

func TestMergeLeavesOutNullPackets(t *testing.T) {
	s := newSource(10)
	s.program(300)
	a := s.cut(Range{0, 100}, Range{107, s.c.Len()})
	b := &Copy{}
	null := bytes.Repeat([]byte{0xff}, PacketSize)
	copy(null, []byte{syncByte, 0x1f, 0xff, 0x10})
	for k := range s.c.Len() {
		b.Packets = append(append(b.Packets, s.c.Packet(k)...), null...)
	}
	b.Holes = []Hole{{401, 30}}
	got, _ := merged(t, a, s.cut(Range{0, s.c.Len()}))
	nulls, _ := Merge(a, b)
	if !bytes.Equal(got.Packets, nulls.Packets) || len(nulls.Holes) != 0 {
		t.Errorf("%d packets and holes %v, want %d", nulls.Len(), nulls.Holes, got.Len())
	}
	both, _ := Merge(b, b)
	if want := []Hole{{201, 30}}; both.Len() != s.c.Len() || !slices.Equal(both.Holes, want) {
		t.Errorf("%d packets and holes %v, want %d and %v", both.Len(), both.Holes, s.c.Len(), want)
	}
}

func TestMergeKeepsFewHoles(t *testing.T) {
	s := newSource(5)
	s.program(8000)
	a := s.cut(Range{0, s.c.Len()})
	for k := 1; k < a.Len(); k += 2 {
		a.Holes = append(a.Holes, Hole{k, 20})
	}
	got, _ := merged(t, a, a)
	if n := len(got.Holes); n > MaxHoles || n < MaxHoles/2 {
		t.Errorf("%d holes", n)
	}
}

// lossy is what comes of a source whose datagrams are lost on their way.
func (s *source) lossy(t *rapid.T, name string) *Copy {
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, name), 1))
	loss := rapid.SampledFrom([]int{0, 1, 10, 50, 200}).Draw(t, name+" lost of 1000")
	burst := rapid.SampledFrom([]int{0, 0, 3}).Draw(t, name+" bursts of 1000")
	size := rapid.SampledFrom([]int{7, 7, 7, 4, 1}).Draw(t, name+" packets in a datagram")
	out := &Copy{}
	n := s.c.Len()
	from, to := rng.IntN(n/4), n-rng.IntN(n/4)
	for skip := 0; from < to; from += size {
		switch {
		case skip > 0:
			skip--
		case rng.IntN(1000) < burst:
			skip = rng.IntN(30)
		case rng.IntN(1000) < loss:
		default:
			end := min(from+size, to)
			out.Packets = append(out.Packets, s.c.Packets[from*PacketSize:end*PacketSize]...)
		}
	}
	return out
}

func TestMergedCopiesKeepTheSourcesOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSource(rapid.Uint64().Draw(t, "source"))
		s.program(rapid.IntRange(50, 1200).Draw(t, "packets"))
		if rapid.Bool().Draw(t, "begins anew") {
			s.jump(videoPID)
			s.jump(audioPID)
			s.program(500)
		}
		copies := []*Copy{s.lossy(t, "a"), s.lossy(t, "b"), s.lossy(t, "c")}
		got, _ := merged(t, copies[0], copies[1])
		if !Within(got, &s.c) {
			t.Fatal("not in the order of the source")
		}
		all := MergeAll(copies)
		if !Within(all, &s.c) {
			t.Fatal("three copies: not in the order of the source")
		}
		slices.Reverse(copies)
		if back := MergeAll(copies); !bytes.Equal(all.Packets, back.Packets) {
			t.Fatal("three copies: another order of them makes another result")
		}
	})
}

func TestMergeAllJoinsWhatAThirdConnects(t *testing.T) {
	s := newSource(8)
	s.program(900)
	n := s.c.Len()
	copies := []*Copy{s.cut(Range{0, 400}), s.cut(Range{450, n}), s.cut(Range{380, 470})}
	if got := MergeAll(copies); !bytes.Equal(got.Packets, s.c.Packets) {
		t.Errorf("%d packets, want %d", got.Len(), n)
	}
	if got := MergeAll(copies[:2]); !bytes.Equal(got.Packets, copies[1].Packets) {
		t.Errorf("%d packets of copies with nothing in common, want the longer one's %d", got.Len(), copies[1].Len())
	}
	if got := MergeAll(nil); got.Len() != 0 {
		t.Errorf("%d packets of none", got.Len())
	}
}

// TestWorkOfAMergeIsBounded merges packets of which any order would do.
func TestWorkOfAMergeIsBounded(t *testing.T) {
	s := newSource(9)
	loose := func(c *Copy, n int) {
		for range n { // not counted, all different
			p := randomPacket(s.rng, 300, 0)
			p[3], p[4], p[5] = 0x20, 183, 0
			c.Packets = append(c.Packets, p...)
		}
	}
	a, b := &Copy{}, &Copy{}
	for range 6 {
		n := s.c.Len()
		for range 4 {
			s.media(videoPID)
		}
		for _, c := range []*Copy{a, b} {
			c.Packets = append(c.Packets, s.c.Packets[n*PacketSize:]...)
			loose(c, 900)
		}
	}
	m := newMerger(a, b)
	budget := m.budget
	m.run()
	visited := budget - m.budget
	if most := budget + a.Len() + b.Len(); visited > most {
		t.Errorf("%d cells visited, the most are %d", visited, most)
	}
	if visited < budget/2 {
		t.Errorf("%d cells visited: nothing was tried", visited)
	}
	if m.gain.LeftOut == 0 {
		t.Error("an order was found where there is none")
	}
}

// FuzzMerge merges whatever packets come: nothing is made up, both ways are the
// same, and the work is bounded.
func FuzzMerge(f *testing.F) {
	s := newSource(6)
	s.program(60)
	compact := func(c *Copy) []byte { // four bytes of each packet, and one of the payload
		var b []byte
		for k := range c.Len() {
			p := c.Packet(k)
			b = append(b, p[1], p[2], p[3], p[4], p[5], p[20])
		}
		return b
	}
	f.Add(compact(s.cut(Range{0, 20}, Range{27, 60})), compact(s.cut(Range{0, 27}, Range{33, 60})), uint16(20), uint16(9))
	f.Add(compact(s.cut(Range{0, 50})), compact(s.cut(Range{20, 60})), uint16(0), uint16(40))
	f.Add(bytes.Repeat([]byte{0, 0, 0x20, 1, 0, 0}, 50), bytes.Repeat([]byte{0, 0, 0x20, 1, 0, 1}, 60), uint16(3), uint16(3))
	f.Fuzz(func(t *testing.T, x, y []byte, holeX, holeY uint16) {
		expand := func(b []byte, hole uint16) *Copy {
			c := &Copy{}
			for ; len(b) >= 6 && c.Len() < 2000; b = b[6:] {
				p := make([]byte, PacketSize)
				p[0], p[1], p[2], p[3], p[4], p[5], p[20] = syncByte, b[0], b[1], b[2], b[3], b[4], b[5]
				c.Packets = append(c.Packets, p...)
			}
			if n := int(hole); n <= c.Len() {
				c.Holes = []Hole{{n, n}}
			}
			return c
		}
		a, b := expand(x, holeX), expand(y, holeY)
		got, _ := merged(t, a, b)
		have := map[string]bool{}
		for _, c := range []*Copy{a, b} {
			for k := range c.Len() {
				have[string(c.Packet(k))] = true
			}
		}
		for k := range got.Len() {
			if !have[string(got.Packet(k))] {
				t.Fatalf("packet %d is in neither copy", k)
			}
		}
		at := 0
		for _, h := range got.Holes {
			if h.At < at || h.At > got.Len() || h.Missing <= 0 {
				t.Fatalf("holes %v of %d packets", got.Holes, got.Len())
			}
			at = h.At
		}
	})
}
