package salvage

import (
	"cmp"
	"slices"
)

// span is a hole of a copy in the result: what is missing is between two
// packets of that copy, which are at lo and hi there.
type span struct {
	lo, hi  int
	missing int
	// known says that the other copy has the packet at lo, the one at hi.
	knownLo, knownHi bool
}

// holes are those of the result: where packets were left out, and what neither
// copy fills of the holes of the other.
func (m *merger) holes() []Hole {
	missing := make(map[int]int) // by place
	add := func(at, n int) { missing[at] = max(missing[at], n) }
	for _, h := range m.doubts {
		add(h.At, h.Missing)
	}
	a, b := m.spans(m.a, m.b), m.spans(m.b, m.a)
	m.remaining(a, b, add)
	m.remaining(b, a, add)
	out := make([]Hole, 0, len(missing))
	for at, n := range missing {
		out = append(out, Hole{at, n})
	}
	slices.SortFunc(out, func(x, y Hole) int { return cmp.Compare(x.At, y.At) })
	return thin(out)
}

// spans are the holes of a copy that the result may still have.
func (m *merger) spans(s, other *side) []span {
	if len(s.Holes) == 0 {
		return nil
	}
	has := make([]bool, len(m.out)+1) // what the other copy has of the result
	for _, at := range other.at {
		if at != left {
			has[at] = true
		}
	}
	var out []span
	for _, h := range s.Holes {
		x := span{lo: -1, hi: len(m.out), missing: h.Missing}
		if h.At < 0 || h.At > len(s.at) || h.At > 0 && s.at[h.At-1] == left || h.At < len(s.at) && s.at[h.At] == left {
			continue // the packets there are the other copy's
		}
		if h.At > 0 {
			x.lo = int(s.at[h.At-1])
			x.knownLo = has[x.lo]
		}
		if h.At < len(s.at) {
			x.hi = int(s.at[h.At])
			x.knownHi = has[x.hi]
		}
		switch {
		case h.At > 0 && h.At < len(s.at):
			x.missing -= x.hi - x.lo - 1 // the other copy has these
		case h.At == 0 && x.knownHi && x.hi > 0:
			x.lo, x.knownLo = x.hi-1, true // it begins earlier
		case h.At > 0 && x.knownLo && x.lo+1 < len(m.out):
			x.hi, x.knownHi = x.lo+1, true // it ends later
		}
		x.missing = max(x.missing, 0)
		out = append(out, x)
	}
	return out
}

// remaining adds what is left of the holes of one copy beside those of the other.
func (m *merger) remaining(spans, other []span, add func(at, n int)) {
	for _, x := range spans {
		filled := true
		leave := func(at, n int) {
			if n > 0 {
				filled = false
				add(at, n)
			}
		}
		// A copy that lacks a packet beside the hole may lack more there, unless
		// it knows what.
		sureLo, sureHi := x.knownLo || x.lo < 0, x.knownHi && x.lo >= 0
		k, _ := slices.BinarySearchFunc(other, x.lo, func(y span, lo int) int {
			if y.hi > lo {
				return 1
			}
			return -1
		})
		for ; k < len(other) && other[k].lo < x.hi; k++ {
			y := other[k]
			leave(min(x.hi, y.hi), min(x.missing, y.missing))
			sureLo, sureHi = sureLo || y.lo <= x.lo, sureHi || y.hi >= x.hi
		}
		if !sureLo {
			leave(x.lo+1, x.missing)
		}
		if !sureHi {
			leave(x.hi, x.missing)
		}
		if filled {
			m.gain.Filled++
		}
	}
}

// thin makes neighbours one until there are no more than a copy may have.
func thin(holes []Hole) []Hole {
	for len(holes) > MaxHoles {
		n := 0
		for k := 0; k < len(holes); k += 2 {
			h := holes[k]
			if k+1 < len(holes) {
				h.Missing = min(h.Missing+holes[k+1].Missing, maxMissing)
			}
			holes[n] = h
			n++
		}
		holes = holes[:n]
	}
	return holes
}
