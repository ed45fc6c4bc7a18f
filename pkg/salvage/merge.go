package salvage

import (
	"bytes"
	"cmp"
	"slices"
)

// Gain is what came of a merge.
type Gain struct {
	A, B    int // packets of the result that only the first, only the second copy had
	Common  int // packets of the result that both had
	LeftOut int // packets that the result lacks, since their order is not certain
	Filled  int // holes of either copy that the other one filled
}

// Merge makes one copy of two that were heard of the same stretch; MERGE.md has
// the rules and what each is there for. Both orders
// of the arguments give the same packets. The result is in the order in which
// the packets were sent: packets whose place is not certain are left out, and
// a hole says so.
//
// Anchors are the packets that occur exactly once in each copy, in the order
// common to both, and those with equal bytes between two of them that their PID's
// counter gives the same place in both copies. Between two anchors, packets that only one copy has are taken
// as they are. Where both have some, equal ends are trimmed, packets that occur
// once in each copy there are anchors again, and the rest is woven so that the
// continuity counter of every PID runs unbroken from before it to behind it and
// clock references ascend. That stands if it can be done in one way only; or, where
// each copy has no more packets than are lost at once, if one way only has them
// one behind the other. Otherwise packets are taken whose order the clock references tell,
// or those of the longer copy. Ahead of
// the first anchor and behind the last, where one copy begins or ends within the
// other, the same holds from the anchor outwards until one has no packets left, and
// its counters must run on into the rest of the other. Tables with which a copy begins
// are looked for in the other one.
//
// A hole is filled where the other copy has the packets around it and no hole
// between them. Its Missing shrinks by what the other copy has in it.
func Merge(a, b *Copy) (*Copy, Gain) {
	a, b = withoutNulls(a), withoutNulls(b)
	swapped := order(a, b) < 0
	if swapped {
		a, b = b, a
	}
	m := newMerger(a, b)
	m.run()
	out := &Copy{Packets: m.packets(), Holes: m.holes()}
	if swapped {
		m.gain.A, m.gain.B = m.gain.B, m.gain.A
	}
	return out, m.gain
}

// withoutNulls is a copy without null packets, which no copy should have: they
// have no counter, and come anywhere.
func withoutNulls(c *Copy) *Copy {
	isNull := func(k int) bool { p := c.Packet(k); return p[1]&0x1f == 0x1f && p[2] == 0xff }
	n := c.Len()
	k := 0
	for k < n && !isNull(k) {
		k++
	}
	if k == n {
		return c
	}
	out, holes := &Copy{}, c.Holes
	for k := 0; k <= n; k++ {
		for ; len(holes) > 0 && holes[0].At <= k; holes = holes[1:] {
			out.Holes = append(out.Holes, Hole{out.Len(), holes[0].Missing})
		}
		if k < n && !isNull(k) {
			out.Packets = append(out.Packets, c.Packet(k)...)
		}
	}
	return out
}

// MergeAll merges any number of copies, whatever their order. A copy that has
// nothing in common with the others is left out; the longest is the first.
func MergeAll(copies []*Copy) *Copy {
	rest := slices.Clone(copies)
	slices.SortStableFunc(rest, func(a, b *Copy) int { return -order(a, b) })
	if len(rest) == 0 {
		return &Copy{}
	}
	out, rest := rest[0], rest[1:]
	for joined := true; joined; {
		joined = false
		var apart []*Copy // perhaps another one lies between
		for _, c := range rest {
			if both, gain := Merge(out, c); gain.Common > 0 {
				out, joined = both, true
			} else {
				apart = append(apart, c)
			}
		}
		rest = apart
	}
	return out
}

// order is any total order of copies; the longer one is the greater.
func order(a, b *Copy) int {
	if d := cmp.Compare(len(a.Packets), len(b.Packets)); d != 0 {
		return d
	}
	if d := bytes.Compare(a.Packets, b.Packets); d != 0 {
		return d
	}
	return slices.CompareFunc(a.Holes, b.Holes, func(x, y Hole) int {
		return cmp.Or(cmp.Compare(x.At, y.At), cmp.Compare(x.Missing, y.Missing))
	})
}

// chain is how far the continuity counter of a PID has come in the result.
type chain struct {
	known bool
	cc    uint8
}

type merger struct {
	classes *classes
	a, b    *side
	out     []int32 // the result: numbers in a, and in b with the length of a added
	shared  int     // ... of which so many go up to the last packet that both have
	chains  [pids]chain
	free    [pids]bool // the PID's counter never counts
	doubts  []Hole     // in the result: packets were left out there
	gain    Gain
	budget  int // cells that weaves may still visit
	lumps   int // packets that may be lost at once
	weave   weaver

	clockRead, clocked bool     // the clock references were read, and are of use
	times              [2]times // of each copy
	silence            int64    // how far apart they are where a copy was not heard
}

func newMerger(a, b *Copy) *merger {
	m := &merger{a: newSide(a), b: newSide(b)}
	m.out = make([]int32, 0, len(m.a.heads)+len(m.b.heads)/8)
	m.budget = cellsPerPacket * (len(m.a.heads) + len(m.b.heads))
	m.findFree()
	return m
}

// findFree finds the PIDs whose packets all have one counter: tables of
// multiplexers that do not count them.
func (m *merger) findFree() {
	var seen [pids]int
	var value [pids]uint8
	for _, s := range []*side{m.a, m.b} {
		for k := range s.heads {
			h := &s.heads[k]
			if h.flags&payload == 0 {
				continue
			}
			if seen[h.pid] == 0 {
				value[h.pid] = h.cc
				m.free[h.pid] = true
			}
			seen[h.pid]++
			if value[h.pid] != h.cc {
				m.free[h.pid] = false
			}
		}
	}
	for p := range seen {
		m.free[p] = m.free[p] && seen[p] > 3
	}
}

func (m *merger) run() {
	if bytes.Equal(m.a.Packets, m.b.Packets) {
		for k := range m.a.heads {
			m.both(k, k)
		}
		return
	}
	m.classes = classify(m.a, m.b)
	pairs := m.count(m.anchors())
	number(m.a, m.b, pairs)
	m.lumps = lumps(pairs)
	a, b := 0, 0
	for k, p := range pairs {
		edge := inside
		if k == 0 {
			edge = start
		}
		m.region(a, int(p.a), b, int(p.b), edge)
		m.pass(int(p.a), int(p.a)+1, int(p.b), int(p.b)+1)
		m.both(int(p.a), int(p.b))
		a, b = int(p.a)+1, int(p.b)+1
	}
	if len(pairs) == 0 { // nothing in common: the longer one is the first
		m.fromA(0, len(m.a.heads))
		m.gain.LeftOut = len(m.b.heads)
		return
	}
	m.region(a, len(m.a.heads), b, len(m.b.heads), end)
}

// lumps is how many packets may have been lost at once, as the stretches tell that
// only one of the copies has. Three in four of those have q packets or more (a
// datagram of one program has seven, or fewer with null packets left out, or one
// or two where it holds other programs too), so that less than twice as many are
// hardly those of two losses.
func lumps(pairs []pair) int {
	var lengths []int
	for k := 1; k < len(pairs); k++ {
		a, b := int(pairs[k].a-pairs[k-1].a)-1, int(pairs[k].b-pairs[k-1].b)-1
		if (a == 0) != (b == 0) {
			lengths = append(lengths, a+b)
		}
	}
	if len(lengths) == 0 {
		return 0
	}
	slices.Sort(lengths)
	q := lengths[len(lengths)/4]
	return min(max(q, 2*q-2), datagram)
}

func (m *merger) pass(a0, a1, b0, b1 int) {
	m.a.pass(a0, a1)
	m.b.pass(b0, b1)
}

// edge says where a region lies.
type edge uint8

const (
	inside edge = iota // between two anchors
	start              // ahead of the first one
	end                // behind the last one
)

// region merges the packets a0 to a1 of one copy and b0 to b1 of the other.
func (m *merger) region(a0, a1, b0, b1 int, e edge) {
	m.pass(a0, a1, b0, b1)
	for e != start && a0 < a1 && b0 < b1 && m.equal(a0, b0) {
		m.both(a0, b0)
		a0, b0 = a0+1, b0+1
	}
	tail := 0
	for e != end && a0 < a1 && b0 < b1 && m.equal(a1-1, b1-1) {
		a1, b1, tail = a1-1, b1-1, tail+1
	}
	switch {
	case a0 == a1 || b0 == b1:
		m.fromA(a0, a1)
		m.fromB(b0, b1)
	case m.holds(m.a, a0, a1, m.b, b0, b1):
		m.contain(m.a, a0, a1, m.b, b0, b1)
	case m.holds(m.b, b0, b1, m.a, a0, a1):
		m.contain(m.b, b0, b1, m.a, a0, a1)
	case m.weavable(a0, a1, b0, b1, e):
		m.emit(a0, b0)
	case e == start && m.behindTables(a0, a1, b0, b1):
	case e == inside && m.inTurn(a0, a1, b0, b1):
	case m.byClock(a0, a1, b0, b1):
	default:
		m.longer(a0, a1, b0, b1)
	}
	for k := range tail {
		m.both(a1+k, b1+k)
	}
}

func (m *merger) equal(a, b int) bool { return m.a.heads[a].class == m.b.heads[b].class }

// holds says whether one copy has all packets that the other has in a region, in
// their order.
func (m *merger) holds(s *side, s0, s1 int, part *side, p0, p1 int) bool {
	for ; s0 < s1 && p0 < p1 && s1-s0 >= p1-p0; s0++ {
		if s.heads[s0].class == part.heads[p0].class {
			p0++
		}
	}
	return p0 == p1
}

// contain takes the packets of a copy that holds those of the other.
func (m *merger) contain(s *side, s0, s1 int, part *side, p0, p1 int) {
	for ; s0 < s1; s0++ {
		a, b := s0, p0
		if s == m.b {
			a, b = p0, s0
		}
		switch {
		case p0 < p1 && s.heads[s0].class == part.heads[p0].class:
			m.both(a, b)
			p0++
		case s == m.a:
			m.fromA(s0, s0+1)
		default:
			m.fromB(s0, s0+1)
		}
	}
}

// both takes a packet that both copies have.
func (m *merger) both(a, b int) {
	m.a.at[a], m.b.at[b] = int32(len(m.out)), int32(len(m.out))
	m.take(&m.a.heads[a], int32(a))
	m.shared = len(m.out)
	m.gain.Common++
}

func (m *merger) fromA(a0, a1 int) {
	for k := a0; k < a1; k++ {
		m.a.at[k] = int32(len(m.out))
		m.take(&m.a.heads[k], int32(k))
	}
	m.gain.A += a1 - a0
}

func (m *merger) fromB(b0, b1 int) {
	for k := b0; k < b1; k++ {
		m.b.at[k] = int32(len(m.out))
		m.take(&m.b.heads[k], int32(len(m.a.heads)+k))
	}
	m.gain.B += b1 - b0
}

func (m *merger) take(h *head, number int32) {
	m.chains[h.pid] = chain{true, h.cc}
	m.out = append(m.out, number)
}

// emit takes the packets from a0 and b0 on as the weave found their order.
func (m *merger) emit(a0, b0 int) {
	for _, s := range m.weave.steps {
		if s == takeA || s == takeBoth {
			a0++
		}
		if s == takeB || s == takeBoth {
			b0++
		}
		switch s {
		case takeA:
			m.fromA(a0-1, a0)
		case takeB:
			m.fromB(b0-1, b0)
		case takeBoth:
			m.both(a0-1, b0-1)
		}
	}
}

// A longer stretch of which packets are left out than doubtEvery has a hole
// after so many each: what begins and ends within it is damaged too.
const (
	doubtEvery = 64
	// unseen is how many packets a hole must have to count on every PID:
	// continuity counters show fewer.
	unseen = 16
)

// longer takes the packets of the copy that has more.
func (m *merger) longer(a0, a1, b0, b1 int) {
	take, k, k1 := m.fromA, a0, a1
	kept, other, o0, o1 := m.a, m.b, b0, b1
	if b1-b0 > a1-a0 {
		take, k, k1 = m.fromB, b0, b1
		kept, other, o0, o1 = m.b, m.a, a0, a1
	}
	m.openSlots([2]int{a0, b0}, [2]int{a1, b1})
	m.gain.LeftOut += o1 - o0
	if m.hides(kept, k, k1, other, o0, o1) {
		m.doubtful(take, k, k1, o1-o0)
	} else {
		take(k, k1)
	}
}

// doubt puts a hole where the result has come.
func (m *merger) doubt(missing int) {
	m.doubts = append(m.doubts, Hole{len(m.out), max(missing, unseen)})
}

// doubtful takes packets of one copy among which others are missing.
func (m *merger) doubtful(take func(from, to int), from, to, missing int) {
	m.doubt(missing)
	for ; from < to; from += doubtEvery {
		take(from, min(from+doubtEvery, to))
		m.doubt(missing)
	}
}

// hides says whether packets of the other copy are left out that the counters
// of those that are taken do not show to be missing.
func (m *merger) hides(kept *side, k0, k1 int, other *side, o0, o1 int) bool {
	w := &m.weave
	for k := k0; k < k1; k++ {
		s, h := w.slotOf(&kept.heads[k]), &kept.heads[k]
		if s.known && !m.follows(s.chain, h) {
			s.state |= ended // its counter shows a gap
		}
		s.chain = chain{true, h.cc}
	}
	for k := o0; k < o1; k++ {
		if h := &other.heads[k]; h.flags&payload != 0 {
			w.slotOf(h).state |= begun
		}
	}
	for k := range w.slots {
		s := &w.slots[k]
		if s.state != begun {
			continue
		}
		goesOn := !s.known
		heads := m.behind(s.pid)
		for _, h := range heads {
			goesOn = goesOn || m.follows(s.chain, h)
		}
		if goesOn || len(heads) == 0 {
			return true
		}
	}
	return false
}

// packets are those of the result.
func (m *merger) packets() []byte {
	out := make([]byte, 0, len(m.out)*PacketSize)
	for _, k := range m.out {
		if k < int32(len(m.a.heads)) {
			out = append(out, m.a.Packet(int(k))...)
		} else {
			out = append(out, m.b.Packet(int(k)-len(m.a.heads))...)
		}
	}
	return out
}
