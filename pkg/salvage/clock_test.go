package salvage

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// timed adds so many packets of a program whose clock runs on, in ticks of 27 MHz a
// packet.
func (s *source) timed(n int, perPacket int64) {
	for end := s.c.Len() + n; s.c.Len() < end; {
		s.now += perPacket
		switch k := s.rng.IntN(100); {
		case k < 2:
			s.table(0)
			s.table(tablePID)
		case k < 12:
			s.field(clockPID, s.now)
		case k < 25:
			s.media(audioPID)
		default:
			s.media(videoPID)
		}
	}
}

// second is how many packets timed adds in a second at so many ticks a packet.
const (
	second    = 500
	perPacket = 27_000_000 / second
)

// beside is how many packets of a copy were sent beside a silence of it, or at one of
// its ends, as its references tell.
func beside(c *Copy) (n int) {
	last, lastAt := int64(0), -1
	for k := range c.Len() {
		if readHead(c.Packet(k)).flags&timed == 0 {
			continue
		}
		if v := pcr(c.Packet(k)); lastAt < 0 || sinceClock(v, last) >= silence {
			n += k - lastAt - 1
		}
		last, lastAt = pcr(c.Packet(k)), k
	}
	return n + c.Len() - lastAt - 1
}

// TestMergeOrdersByTheClock has copies that were not heard for seconds, of which one
// begins or ends within a silence of the other: nothing but the clock tells on which
// side.
func TestMergeOrdersByTheClock(t *testing.T) {
	at := func(from, to float64) Range { return Range{int(from * second), int(to * second)} }
	for _, test := range []struct {
		name string
		a, b []Range
		// Where neither was heard, the other one goes on: a counter need not show it.
		holes []Hole
	}{
		{"one begins while the other hears nothing", []Range{at(2, 5.4), at(5.6, 10)}, []Range{at(0, 1.3), at(4.9, 6.3), at(8.1, 9)}, []Hole{{648, 16}}},
		{"one ends while the other hears nothing", []Range{at(0, 4), at(4.5, 7)}, []Range{at(1, 6), at(9, 10)}, []Hole{{3500, 16}}},
		{"one hears nothing while the other goes on and is lost later", []Range{at(0, 4), at(6, 8)}, []Range{at(0, 5), at(6.004, 8)}, nil},
		{"each hears nothing, in turn", []Range{at(0, 1), at(4, 5), at(7, 10)}, []Range{at(2, 3), at(5.5, 6), at(6.5, 9)}, []Hole{{497, 16}, {947, 16}, {1412, 16}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newSource(31)
			s.timed(10*second, perPacket)
			a, b := s.cut(test.a...), s.cut(test.b...)
			got, gain := merged(t, a, b)
			if !Within(got, &s.c) {
				t.Error("not in the order of the source")
			}
			if most := beside(a) + beside(b); gain.LeftOut > most {
				t.Errorf("%+v, want %d left out at most", gain, most)
			}
			if !slices.Equal(got.Holes, test.holes) {
				t.Errorf("holes %v, want %v", got.Holes, test.holes)
			}
		})
	}
}

// TestMergeTurnsAtTables has two nodes that lose their source one behind the other, of
// which the second stops hearing it with tables that the first hears again with. Only
// where they lie says that they are the same.
func TestMergeTurnsAtTables(t *testing.T) {
	for _, common := range []int{1, 2} {
		s := newSource(7)
		s.timed(8*second, perPacket)
		n, lost := s.c.Len(), second/2
		tried := 0
		for k := 3 * second; k < 5*second; k++ {
			if p := s.c.Packet(k); p[1] != 0 || p[2] != 0 {
				continue // no PAT
			}
			got, gain := merged(t, s.cut(Range{0, k - lost}, Range{k, n}), s.cut(Range{0, k + common}, Range{k + lost, n}))
			if !bytes.Equal(got.Packets, s.c.Packets) || len(got.Holes) > 0 {
				t.Errorf("%d tables in common at %d: %d of %d packets, holes %v, %+v", common, k, got.Len(), n, got.Holes, gain)
			}
			tried++
		}
		if tried < 10 {
			t.Errorf("%d tables tried", tried)
		}
	}
}

// heard are the ranges of n packets that one node has whose source is lost now and
// then, for a quarter of a second up to so many packets; sure: it has those.
func heard(rng *rand.Rand, n, most int, sure ...Range) (out []Range) {
	for at := rng.IntN(min(most, n)); at < n; {
		to := min(at+1+rng.IntN(most), n)
		out = append(out, Range{at, to})
		at = to + 1 + rng.IntN(most)
	}
	out = append(out, sure...)
	slices.SortFunc(out, func(a, b Range) int { return a.From - b.From })
	joined := out[:1]
	for _, r := range out[1:] {
		if last := &joined[len(joined)-1]; r.From <= last.To+second/4 {
			last.To = max(last.To, r.To)
		} else {
			joined = append(joined, r)
		}
	}
	return joined
}

// TestMergeOfCopiesWithSilences has nodes that lose their source for seconds and
// datagrams besides. Whatever comes of it is in the order in which it was sent, and what
// the clock tells the place of is there.
func TestMergeOfCopiesWithSilences(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSource(rapid.Uint64().Draw(t, "source"))
		s.now = rapid.SampledFrom([]int64{0, 300<<33 - 27_000_000}).Draw(t, "clock")
		n := rapid.IntRange(2*second, 12*second).Draw(t, "packets")
		s.timed(n, perPacket)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "losses"), 1))
		most := rapid.SampledFrom([]int{second / 2, 2 * second, 4 * second}).Draw(t, "silence")
		from := rng.IntN(n - second/2)
		both := Range{from, from + second/2}
		a, b := s.cut(heard(rng, n, most, both)...), s.cut(heard(rng, n, most, both)...)
		c := s.cut(heard(rng, n, most)...)
		sure := true
		if rapid.Bool().Draw(t, "datagrams lost") {
			a, b, sure = thinned(rng, a), thinned(rng, b), false
		}
		got, gain := merged(t, a, b)
		if !Within(got, &s.c) {
			t.Fatal("not in the order of the source")
		}
		if sure && gain.LeftOut > beside(a)+beside(b) {
			t.Fatalf("%+v, want %d and %d left out at most", gain, beside(a), beside(b))
		}
		if !Within(MergeAll([]*Copy{a, b, c}), &s.c) {
			t.Fatal("three copies: not in the order of the source")
		}
	})
}

// thinned is a copy that has lost some datagrams more.
func thinned(rng *rand.Rand, c *Copy) *Copy {
	out := &Copy{}
	for k := 0; k < c.Len(); k += 7 {
		if rng.IntN(100) > 0 {
			out.Packets = append(out.Packets, c.Packets[k*PacketSize:min(k+7, c.Len())*PacketSize]...)
		}
	}
	return out
}

// TestMergeOfCopiesThatCoverEachOther has two nodes that lose their source in turn,
// never both at once: the merge is all that was sent.
func TestMergeOfCopiesThatCoverEachOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSource(rapid.Uint64().Draw(t, "source"))
		n := rapid.IntRange(4*second, 16*second).Draw(t, "packets")
		s.timed(n, perPacket)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "losses"), 1))
		var lost [2][]Range
		for at, x := 0, rng.IntN(2); at < n; {
			to := min(at+1+rng.IntN(3*second), n)
			lost[x] = append(lost[x], Range{at, to})
			if at = to + second/5 + rng.IntN(second); rng.IntN(3) > 0 {
				x = 1 - x
			}
		}
		var copies [2]*Copy
		for x := range copies {
			var has []Range
			at := 0
			for _, r := range lost[x] {
				has = append(has, Range{at, r.From})
				at = r.To
			}
			copies[x] = s.cut(append(has, Range{min(at, s.c.Len()), s.c.Len()})...)
		}
		got, gain := merged(t, copies[0], copies[1])
		if !bytes.Equal(got.Packets, s.c.Packets) || len(got.Holes) > 0 {
			t.Fatalf("%d of %d packets, holes %v, %+v", got.Len(), s.c.Len(), got.Holes, gain)
		}
	})
}
