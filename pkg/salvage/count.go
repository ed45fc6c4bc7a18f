package salvage

import (
	"cmp"
	"slices"
)

// newCount is what a counter that begins anew adds to a place: both copies add
// it if both have the packet.
const newCount = 1 << 20

// place gives every packet its place on its PID: the packets that were sent
// ahead of it since the first one, as far as the counters tell.
func (s *side) place() []int32 {
	out := make([]int32, len(s.heads))
	for k := range s.heads {
		h := &s.heads[k]
		next := int(h.next)
		if next == len(s.heads) {
			continue
		}
		n := &s.heads[next]
		step := int32(n.cc-h.cc) & 15 // not counted
		switch {
		case n.flags&jumps != 0:
			step = newCount
		case n.counted() && step == 0:
			step = 16
		}
		out[next] = out[k] + step
	}
	return out
}

// counted says whether a packet has a place of its own on its PID.
func (h *head) counted() bool { return h.flags&(payload|duplicate) == payload }

// count adds to the anchors the packets that have the same place on their PID in
// both copies, and the same bytes: stuffing, tables and whatever else comes
// again and again. They are counted from an anchor of the PID, and where there
// is one on either side both copies must have counted the same between them.
func (m *merger) count(anchors []pair) []pair {
	c := counting{m: m, a: m.a.place(), b: m.b.place(), out: slices.Clone(anchors)}
	match := make([]int32, len(m.a.heads))
	for k := range match {
		match[k] = left
	}
	for _, p := range anchors {
		match[p.a] = p.b
	}
	n := int32(len(m.a.heads))
	for pid := range m.a.first {
		if m.free[pid] || m.a.first[pid] == n {
			continue
		}
		from := pair{left, left}
		for k := m.a.first[pid]; ; k = m.a.heads[k].next {
			if k == n {
				c.between(uint16(pid), from, pair{left, left})
				break
			}
			if match[k] != left {
				c.between(uint16(pid), from, pair{k, match[k]})
				from = pair{k, match[k]}
			}
		}
	}
	if len(c.out) == len(anchors) {
		return anchors
	}
	slices.SortFunc(c.out, func(x, y pair) int { return cmp.Compare(x.a, y.a) })
	return certain(c.out)
}

type counting struct {
	m    *merger
	a, b []int32 // places
	out  []pair
}

// between adds what two anchors of a PID have between them; left: there is none
// on that side.
func (c *counting) between(pid uint16, from, to pair) {
	a, b := c.m.a, c.m.b
	i, j := a.first[pid], b.first[pid]
	endA, endB := int32(len(a.heads)), int32(len(b.heads))
	anchor := from
	if from.a != left {
		i, j = a.heads[from.a].next, b.heads[from.b].next
	}
	if to.a != left {
		anchor, endA, endB = to, to.a, to.b
	}
	if anchor.a == left || from.a != left && to.a != left && c.a[to.a]-c.a[from.a] != c.b[to.b]-c.b[from.b] {
		return
	}
	n := len(c.out)
	for i < endA && j < endB {
		x, y := &a.heads[i], &b.heads[j]
		ahead := (c.a[i] - c.a[anchor.a]) - (c.b[j] - c.b[anchor.b])
		switch {
		case !x.counted() || ahead < 0 && y.counted():
			i = x.next
		case !y.counted() || ahead > 0:
			j = y.next
		case x.class != y.class: // one has lost sixteen, or more, unseen
			c.out = c.out[:n]
			return
		default:
			if c.m.mayBe(i, j, false) {
				c.out = append(c.out, pair{i, j})
			}
			i, j = x.next, y.next
		}
	}
}
