package salvage

import "slices"

// burst is how many packets of a region each copy has at least where one lost a
// burst and the other another one right behind it.
const burst = 3 * datagram

// inTurn takes all that one copy has of a region and then all that the other has,
// where each has a burst's packets: those of the first go on from what is ahead of
// the region and those of the second into what is behind it, on all their PIDs and
// without a gap. What is lost in both of them is between, and the counters show it.
// The other order must not do as well. Packets with which the first one ends and the
// second begins are taken once: they come again and again, else they were anchors.
func (m *merger) inTurn(a0, a1, b0, b1 int) bool {
	if min(a1-a0, b1-b0) < burst {
		return false
	}
	inAB, inBA := joint(m.a.heads[a0:a1], m.b.heads[b0:b1]), joint(m.b.heads[b0:b1], m.a.heads[a0:a1])
	ab := m.turns(m.a, a0, a1, m.b, b0+inAB, b1)
	ba := m.turns(m.b, b0, b1, m.a, a0+inBA, a1)
	switch {
	case ab == ba:
		return false
	case ab:
		m.fromA(a0, a1-inAB)
		for k := range inAB {
			m.both(a1-inAB+k, b0+k)
		}
		m.fromB(b0+inAB, b1)
	default:
		m.fromB(b0, b1-inBA)
		for k := range inBA {
			m.both(a0+k, b1-inBA+k)
		}
		m.fromA(a0+inBA, a1)
	}
	return true
}

// joint is how many packets there are with which the first part ends and the second
// begins.
func joint(first, second []head) int {
	same := func(x, y head) bool { return x.class == y.class }
	for n := min(len(first), len(second), datagram); n > 0; n-- {
		if slices.EqualFunc(first[len(first)-n:], second[:n], same) {
			return n
		}
	}
	return 0
}

// turns says whether first goes on from the result so far, and second into what
// is behind the region, without a gap in either.
func (m *merger) turns(first *side, f0, f1 int, second *side, s0, s1 int) bool {
	w := &m.weave
	from, to := [2]int{f0, s0}, [2]int{f1, s1}
	if first == m.b {
		from, to = [2]int{s0, f0}, [2]int{s1, f1}
	}
	m.openSlots(from, to)
	for k := f0; k < f1; k++ {
		h := &first.heads[k]
		s := w.slotOf(h)
		if !s.known || !m.follows(s.chain, h) {
			return false
		}
		s.chain, s.state = chain{true, h.cc}, begun
	}
	shared := false
	for k := s0; k < s1; k++ {
		h := &second.heads[k]
		s := w.slotOf(h)
		if s.state&ended != 0 && !m.follows(s.chain, h) {
			return false
		}
		shared = shared || s.state&begun != 0 && h.counted() && !m.free[h.pid]
		s.chain, s.state = chain{true, h.cc}, s.state|ended
	}
	for k := range w.slots {
		s := &w.slots[k]
		if s.state&ended == 0 {
			continue
		}
		goesOn := false
		for _, h := range m.behind(s.pid) {
			goesOn = goesOn || m.follows(s.chain, h)
		}
		if !goesOn {
			return false
		}
	}
	return shared
}
