package replicate

import (
	"cmp"
	"slices"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// Op says in what two archives differ over a span.
type Op byte

// The ways in which archives A and B differ. A segment is clean when it is neither
// damaged nor partial.
const (
	OnlyB   Op = '>' // A has nothing here
	OnlyA   Op = '<' // B has nothing here
	BBetter Op = '!' // A's is damaged or partial, B's is clean
	ABetter Op = '?' // A's is clean, B's is damaged or partial
	Differs Op = '~' // both have something else
	// Mergeable: neither is clean, and the packets that both archives keep make
	// something better than either has.
	Mergeable Op = '+'
)

// Span is a stretch of time in which two views differ in one way.
type Span struct {
	Op       Op
	From, To m4f.UTC
	// Segments and Bytes are those of the archive that has them, or has the
	// better ones; for Differs those of B. For Mergeable they are the segments
	// that merging makes, and the bytes of the packets that A lacks for it, or B
	// where A is a peer.
	Segments int
	Bytes    int64

	arrived int64 // unix ms: when the youngest of the segments came to its archive
}

const (
	// sliver is how far the edges of equal segments may lie apart on two nodes,
	// and the least overlap that counts, as in the view.
	sliver = m4f.Timescale / 4
	// sameWithin is how far apart two copies of one segment may be dated;
	// further apart they are a repeated broadcast.
	sameWithin = 2 * m4f.Timescale
)

// shown is a stretch of a view, with the element that it shows.
type shown struct {
	from, to m4f.UTC
	element  int
}

// comparison is two views of one window, laid over each other.
type comparison struct {
	a, b   []archive.Element
	inB    []int // for each element of a, the same in b, or -1
	inA    []int
	pieces []piece
}

// piece is a stretch over which the views differ. A missing element is -1.
type piece struct {
	from, to m4f.UTC
	a, b     int
}

// found is what was found in a window.
type found struct {
	spans []Span
	// Of segments at the window's edges, those of the first span that begin before
	// it, or nearly so, and those of the last span that end behind it: they may be
	// counted in two windows that touch.
	early, late []counted
}

// counted is a segment that is counted in a span.
type counted struct {
	id         m4f.Identity
	start, end m4f.UTC
	bytes      int64
}

// compare finds where two views differ inside a window. The elements should
// reach somewhat beyond it, so that segments at its edges are recognised.
func compare(a, b []archive.Element, from, to m4f.UTC) found {
	c := &comparison{a: a, b: b}
	c.match()
	c.overlay(c.timeline(a, nil), c.timeline(b, c.shifts()), from, to)
	return c.found(from, to)
}

// match pairs elements of one identity that are dated less than sameWithin
// apart, the nearest first.
func (c *comparison) match() {
	c.inB, c.inA = fill(len(c.a), -1), fill(len(c.b), -1)
	at := map[m4f.Identity][]int{}
	for i := range c.a {
		at[c.a[i].ID] = append(at[c.a[i].ID], i)
	}
	type pair struct {
		apart m4f.UTC
		a, b  int
	}
	var pairs []pair
	for j := range c.b {
		for _, i := range at[c.b[j].ID] {
			if apart := distance(c.a[i].UTC, c.b[j].UTC); apart < sameWithin {
				pairs = append(pairs, pair{apart, i, j})
			}
		}
	}
	slices.SortStableFunc(pairs, func(x, y pair) int { return cmp.Compare(x.apart, y.apart) })
	for _, p := range pairs {
		if c.inB[p.a] < 0 && c.inA[p.b] < 0 {
			c.inB[p.a], c.inA[p.b] = p.b, p.a
		}
	}
}

func fill(n, v int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = v
	}
	return s
}

func distance(x, y m4f.UTC) m4f.UTC { return max(x-y, y-x) }

// shifts says by how much each element of b must be moved to be dated as a has
// it: as far as it is itself where a has it, or as the nearest ahead of it.
func (c *comparison) shifts() []int64 {
	s := make([]int64, len(c.b))
	last, known := int64(0), false
	for j := range c.b {
		if i := c.inA[j]; i >= 0 {
			last = int64(c.a[i].UTC - c.b[j].UTC)
			if !known {
				for k := range j {
					s[k] = last
				}
			}
			known = true
		}
		s[j] = last
	}
	return s
}

// timeline lists what a view shows in order of time.
func (c *comparison) timeline(view []archive.Element, shifts []int64) []shown {
	var list []shown
	for i := range view {
		for _, p := range view[i].Parts {
			start := view[i].UTC
			if shifts != nil {
				start = start.Add(shifts[i])
			}
			list = append(list, shown{start.Add(p.From), start.Add(p.To), i})
		}
	}
	slices.SortStableFunc(list, func(x, y shown) int { return cmp.Compare(x.from, y.from) })
	return list
}

// overlay walks both timelines and collects the stretches where they differ.
func (c *comparison) overlay(a, b []shown, from, to m4f.UTC) {
	for at := from; at < to; {
		for len(a) > 0 && a[0].to <= at {
			a = a[1:]
		}
		for len(b) > 0 && b[0].to <= at {
			b = b[1:]
		}
		if len(a) == 0 && len(b) == 0 {
			return
		}
		p := piece{from: at, to: to, a: -1, b: -1}
		p.a, p.to = under(a, at, p.to)
		p.b, p.to = under(b, at, p.to)
		at = p.to
		if !c.equal(p) {
			c.add(p)
		}
	}
}

// under returns the element that is shown at a time, and until when at most
// that stays so.
func under(list []shown, at, to m4f.UTC) (int, m4f.UTC) {
	switch {
	case len(list) == 0:
		return -1, to
	case list[0].from > at:
		return -1, min(to, list[0].from)
	case len(list) > 1 && list[1].from > at:
		// Parts of one view overlap by milliseconds at most.
		to = min(to, list[1].from)
	}
	return list[0].element, min(to, list[0].to)
}

// add appends a piece, or lengthens the last by it.
func (c *comparison) add(p piece) {
	if n := len(c.pieces); n > 0 {
		if last := &c.pieces[n-1]; last.to == p.from && last.a == p.a && last.b == p.b {
			last.to = p.to
			return
		}
	}
	c.pieces = append(c.pieces, p)
}

const quality = m4f.Damaged | m4f.Partial

// equal says whether both views show the same, as the digest of an hour has it.
func (c *comparison) equal(p piece) bool {
	if p.a < 0 || p.b < 0 {
		return p.a == p.b
	}
	return c.inB[p.a] == p.b && c.a[p.a].Flags&quality == c.b[p.b].Flags&quality
}

func (c *comparison) op(p piece) Op {
	switch {
	case p.a < 0:
		return OnlyB
	case p.b < 0:
		return OnlyA
	}
	switch cleanA, cleanB := c.a[p.a].Clean(), c.b[p.b].Clean(); {
	case cleanB && !cleanA:
		return BBetter
	case cleanA && !cleanB:
		return ABetter
	}
	return Differs
}

// found turns pieces into spans. Slivers come from edges that lie some
// milliseconds apart and are dropped, but for elements that would not be
// mentioned at all without them.
func (c *comparison) found(from, to m4f.UTC) found {
	keep := make([]bool, len(c.pieces))
	seenA, seenB := map[int]bool{}, map[int]bool{}
	mention := func(k int) {
		keep[k] = true
		seenA[c.pieces[k].a], seenB[c.pieces[k].b] = true, true
	}
	for k, p := range c.pieces {
		if p.to-p.from >= sliver {
			mention(k)
		}
	}
	bySize := make([]int, len(c.pieces))
	for k := range bySize {
		bySize[k] = k
	}
	slices.SortStableFunc(bySize, func(x, y int) int {
		return cmp.Compare(c.pieces[y].to-c.pieces[y].from, c.pieces[x].to-c.pieces[x].from)
	})
	for _, k := range bySize {
		p := c.pieces[k]
		if !keep[k] && (p.a >= 0 && !seenA[p.a] && !c.hasEqual(p.a) || p.b >= 0 && !seenB[p.b] && c.inA[p.b] < 0) {
			mention(k)
		}
	}
	m := merger{from: from, to: to}
	for k, p := range c.pieces {
		if keep[k] {
			m.add(c, p)
		}
	}
	return m.found
}

// hasEqual says whether b has an element of a, of the same quality.
func (c *comparison) hasEqual(i int) bool {
	j := c.inB[i]
	return j >= 0 && c.a[i].Flags&quality == c.b[j].Flags&quality
}

// merger joins pieces of one kind that follow each other.
type merger struct {
	found
	from, to m4f.UTC      // of the window
	last     map[int]bool // elements counted in the last span
}

func (m *merger) add(c *comparison, p piece) {
	op := c.op(p)
	n := len(m.spans)
	if n == 0 || m.spans[n-1].Op != op || p.from-m.spans[n-1].To > sliver {
		m.spans = append(m.spans, Span{Op: op, From: p.from})
		m.last, m.late = map[int]bool{}, nil
		n++
	}
	s := &m.spans[n-1]
	s.To = p.to
	view, at := c.b, p.b
	if op == OnlyA || op == ABetter {
		view, at = c.a, p.a
	}
	for _, e := range []struct {
		view []archive.Element
		at   int
	}{{c.a, p.a}, {c.b, p.b}} {
		if e.at >= 0 {
			s.arrived = max(s.arrived, e.view[e.at].Arrived)
		}
	}
	if m.last[at] {
		return
	}
	m.last[at] = true
	e := &view[at]
	s.Segments++
	s.Bytes += int64(e.Length)
	// Whether it is at an edge one archive may date otherwise than the other.
	x := counted{e.ID, e.UTC, e.End(), int64(e.Length)}
	if n == 1 && x.start < m.from+sameWithin {
		m.early = append(m.early, x)
	}
	if x.end > m.to-sameWithin {
		m.late = append(m.late, x)
	}
}
