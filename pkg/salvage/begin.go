package salvage

import "slices"

// maxBegins bounds at how many places of a region the tables are looked for with which a
// copy begins.
const maxBegins = 8

// behindTables merges a region ahead of the first anchor of which one copy begins with
// tables, and has something behind them that the other lost: those come again with the same
// bytes, so that they are no anchors, and nothing else ties that copy's beginning to the other
// one. It stands if at one place only of the other copy, where it has these tables
// one behind the other, the rest goes in so that the counter of every PID runs unbroken
// through all that is behind them.
func (m *merger) behindTables(a0, a1, b0, b1 int) bool {
	from, to := [2]int{a0, b0}, [2]int{a1, b1}
	x := 1 // the copy that begins there has less
	if a1-a0 < b1-b0 {
		x = 0
	}
	n := m.tables(x, from[x], to[x])
	if n == 0 || from[x]+n == to[x] {
		return false
	}
	places := m.places(x, from, to, n)
	if len(places) > maxBegins {
		return false
	}
	found, at := 0, from
	var steps []step
	for _, k := range places {
		rest := [2]int{k + n, k + n}
		rest[x] = from[x] + n
		if m.runsOn(from, rest, to, x) {
			found, at = found+1, rest
			steps = append(steps[:0], m.weave.steps...)
		}
	}
	if found != 1 {
		return false
	}
	m.from(1-x, from[1-x], at[1-x]-n)
	for k := n; k > 0; k-- {
		m.both(at[0]-k, at[1]-k)
	}
	m.weave.steps = append(m.weave.steps[:0], steps...)
	m.emit(at[0], at[1])
	return true
}

// tables is with how many packets a stretch of copy x begins that are never anchors.
func (m *merger) tables(x, from, to int) (n int) {
	heads := [2]*side{m.a, m.b}[x].heads
	for from+n < to && heads[from+n].flags&payload != 0 && !m.classes.anchoring(&heads[from+n]) {
		n++
	}
	return n
}

// places are where the other copy has the first n packets of copy x in a region, one behind
// the other.
func (m *merger) places(x int, from, to [2]int, n int) (out []int) {
	sides := [2]*side{m.a, m.b}
	begins := sides[x].heads[from[x] : from[x]+n]
	other := sides[1-x].heads
	same := func(p, q head) bool { return p.class == q.class }
	for k := from[1-x]; k+n <= to[1-x]; k++ {
		if slices.EqualFunc(other[k:k+n], begins, same) {
			out = append(out, k)
		}
	}
	return out
}

// runsOn weaves what is left of a region behind the tables with which copy x begins, if
// all of its counters go on from what the other copy has up to there, and run unbroken into
// what is behind the region. The steps are in m.weave then.
func (m *merger) runsOn(from, rest, to [2]int, x int) bool {
	ahead := m.chains
	defer func() { m.chains = ahead }()
	other := [2]*side{m.a, m.b}[1-x]
	for k := from[1-x]; k < rest[1-x]; k++ {
		h := &other.heads[k]
		m.chains[h.pid] = chain{true, h.cc}
	}
	w := &m.weave
	w.steps, w.woven = w.steps[:0], false
	m.openSlots(rest, to)
	return m.weaveInside(rest, to, 0) && m.unbroken(rest, [2]int{0, len(w.steps)}, inside)
}
