package salvage

import "slices"

// item is a packet of a stretch that is woven, in the direction of the weave.
type item struct {
	class int32
	row   int32 // of the other copy's counts of its PID; -1: it has none
	need  uint8 // how many packets of the PID of the other copy come first, modulo 16
	alone bool  // not counted: the copies may have the same one
	// least and most packets of the other copy that may come first.
	least, most int32
}

// Values of need that are no numbers.
const (
	anyNeed = 16 + iota
	never
)

// items makes the items of a stretch of both copies; back: from its end. It
// returns false where nothing can be said about a PID of both.
func (m *merger) items(from, to [2]int, back bool) bool {
	w := &m.weave
	for k := range w.slots {
		w.slots[k].in, w.slots[k].row = 0, -1
	}
	sides := [2]*side{m.a, m.b}
	for x, s := range sides {
		for k := from[x]; k < to[x]; k++ {
			w.slotOf(&s.heads[k]).in |= 1 << x
		}
	}
	rows := 0
	for k := range w.slots {
		s := &w.slots[k]
		if s.in != 3 || m.free[s.pid] {
			continue
		}
		if !s.known {
			return false
		}
		s.row = int32(rows)
		rows++
	}
	if rows*(to[0]-from[0]+to[1]-from[1]+2) > maxCounts {
		return false
	}
	for x := range sides {
		if !m.sideItems(x, from[x], to[x], rows, back) {
			return false
		}
	}
	m.clock(from, to, back)
	return true
}

// sideItems makes the items of one copy. With the counter at c ahead of the
// stretch, x packets of the PID counted before in this copy and y in the other,
// a counted packet has c+1+x+y; one that is not counted c+x+y. Going back from a
// counter of c behind it, both have c-1-x-y.
func (m *merger) sideItems(x, from, to, rows int, back bool) bool {
	w, s := &m.weave, [2]*side{m.a, m.b}[x]
	n := to - from
	w.items[x] = slices.Grow(w.items[x][:0], n)[:n]
	w.counts[x] = slices.Grow(w.counts[x][:0], rows*(n+1))[:rows*(n+1)]
	for k := range w.slots {
		w.slots[k].count, w.slots[k].jump = 0, !w.slots[k].known
	}
	running := make([]uint8, rows)
	for i := range n {
		k := from + i
		if back {
			k = to - 1 - i
		}
		h := &s.heads[k]
		t := w.slotOf(h)
		for r, c := range running {
			w.counts[x][r*(n+1)+i] = c
		}
		it := item{class: h.class, row: t.row, least: 0, most: 1 << 30}
		counted := h.flags&payload != 0 && !s.repeats(k, back)
		it.alone = !counted
		value := h.cc - t.cc - t.count // ahead, not counted
		switch {
		case back && h.flags&payload != 0 && !counted:
			value = t.cc - t.count - h.cc
		case back:
			value = t.cc - 1 - t.count - h.cc
		case counted:
			value--
		}
		if !back && h.flags&jumps != 0 {
			t.jump = true
		}
		switch {
		case m.free[h.pid]:
			it.need, it.alone = anyNeed, true
		case t.jump && t.row >= 0:
			return false
		case t.jump: // the counter begins anew
			t.jump, it.need = false, 0
			if back {
				t.cc = h.cc + 1 + t.count
			} else if t.cc = h.cc - t.count; counted {
				t.cc--
			}
		case t.row < 0 && value&15 != 0:
			it.need = never
		default:
			it.need = value & 15
		}
		if back && h.flags&jumps != 0 {
			t.jump = true
		}
		if counted {
			t.count++
			if t.row >= 0 {
				running[t.row] = t.count & 15
			}
		}
		w.items[x][i] = it
	}
	for r, c := range running {
		w.counts[x][r*(n+1)+n] = c
	}
	return true
}

// repeats says whether a packet has the counter of the one that is before it
// in the direction of the weave, as duplicate packets have.
func (s *side) repeats(k int, back bool) bool {
	if !back {
		return s.heads[k].flags&duplicate != 0
	}
	next := int(s.heads[k].next)
	return next < len(s.heads) && s.heads[next].flags&duplicate != 0
}

// maxClock is how far the clock runs in a stretch at most, 27 MHz: where
// references are further apart it has jumped, and they tell no order.
const maxClock = 2 * 27_000_000

// clock narrows where the packets with a PCR of the first copy may come, by
// those of the second.
func (m *merger) clock(from, to [2]int, back bool) {
	w := &m.weave
	var at [2][]int32
	var value [2][]int64
	pid, base := -1, int64(0)
	for x, s := range []*side{m.a, m.b} {
		n := to[x] - from[x]
		for i := range n {
			k := from[x] + i
			if back {
				k = to[x] - 1 - i
			}
			h := &s.heads[k]
			if h.flags&timed == 0 || pid >= 0 && int(h.pid) != pid {
				continue
			}
			if h.flags&jumps != 0 {
				return
			}
			v := pcr(s.Packet(k))
			if pid < 0 {
				pid, base = int(h.pid), v
			}
			v = sinceClock(v, base)
			if back {
				v = -v
			}
			at[x], value[x] = append(at[x], int32(i)), append(value[x], v)
		}
	}
	for x := range value {
		for _, v := range value[x] {
			if v > maxClock || v < -maxClock {
				return
			}
		}
		if !slices.IsSorted(value[x]) {
			return
		}
	}
	b := 0
	for i, v := range value[0] {
		for b < len(value[1]) && value[1][b] < v {
			b++
		}
		it := &w.items[0][at[0][i]]
		if b > 0 {
			it.least = at[1][b-1] + 1
		}
		e := b
		for e < len(value[1]) && value[1][e] == v {
			e++
		}
		if e < len(value[1]) {
			it.most = at[1][e]
		}
	}
}

// sinceClock is v-base of two PCRs, the shorter way round.
func sinceClock(v, base int64) int64 {
	const wrap = 300 << 33
	d := (v - base) % wrap
	switch {
	case d >= wrap/2:
		d -= wrap
	case d < -wrap/2:
		d += wrap
	}
	return d
}

// fits says whether item i of copy x may come when j of the other copy have.
func (w *weaver) fits(x, i, j int) bool {
	it := &w.items[x][i]
	if it.need < anyNeed {
		have := uint8(0)
		if it.row >= 0 {
			have = w.counts[1-x][int(it.row)*(len(w.items[1-x])+1)+j]
		}
		if have != it.need {
			return false
		}
	}
	return it.need != never && j >= int(it.least) && j <= int(it.most)
}

// cell is a place in a stretch, i packets of the first copy and so many of the
// second behind us, with the best way there for each last step.
type cell struct {
	i    int32
	cost [3]int64 // changes between the copies, then packets; by the last step
	from [3]int32 // the cell before and its last step; -1: the beginning
	best [3]uint8 // how many ways cost as little; 2: several
	ways [3]uint8 // how many there are
}

const (
	change  = 1 << 32 // what a change between the copies costs
	noWay   = 1 << 62
	nowhere = -1
)

// grid searches the ways through a stretch diagonal by diagonal: cells that no
// way reaches are never made.
type grid struct {
	cells []cell
	limit int
	level int // first cell of the diagonal that is made
}

// reach notes a way to cell i of the diagonal that is made, whose cells come
// in ascending order.
func (g *grid) reach(i int32, last step, cost int64, best, ways uint8, from int32) {
	n := len(g.cells)
	if n == g.level || g.cells[n-1].i != i {
		g.cells = append(g.cells, cell{i: i, cost: [3]int64{noWay, noWay, noWay}, from: [3]int32{nowhere, nowhere, nowhere}})
		n++
	}
	c := &g.cells[n-1]
	c.ways[last] = min(c.ways[last]+ways, 2)
	switch {
	case cost < c.cost[last]:
		c.cost[last], c.from[last], c.best[last] = cost, from, best
	case cost == c.cost[last]:
		c.best[last] = 2
	}
}

// walk goes one step on from cell number k.
func (g *grid) walk(k int, i int32, s step) {
	least, from, best, ways := int64(noWay), int32(nowhere), uint8(0), uint8(0)
	for last := takeA; last <= takeBoth; last++ {
		c := &g.cells[k]
		cost := c.cost[last]
		if cost == noWay {
			continue
		}
		if cost++; s != takeBoth && last != takeBoth && last != s {
			cost += change
		}
		ways = min(ways+c.ways[last], 2)
		switch {
		case cost < least:
			least, from, best = cost, int32(k)*3+int32(last), c.best[last]
		case cost == least:
			best = 2
		}
	}
	g.reach(i, s, least, best, ways, from)
}

// datagram is how many packets a datagram usually has.
const datagram = 7

// search finds the one way through a stretch, and adds its steps. open: it need
// not go to the end, but until one copy has none left, where what the other has
// goes on. It returns false where there is no way. Where there are several, that
// which changes least between the copies is taken if each copy has no more packets
// in it than are lost at once, one behind the other: in longer stretches, datagrams
// of one may lie between those of the other, which PIDs that only some of them
// have do not tell; and beside an open end, anywhere in the rest.
func (m *merger) search(from, to [2]int, back, open bool) bool {
	w, g := &m.weave, &m.weave.grid
	na, nb := to[0]-from[0], to[1]-from[1]
	g.cells = append(g.cells[:0], cell{cost: [3]int64{noWay, noWay, 0}, from: [3]int32{nowhere, nowhere, nowhere}, best: [3]uint8{0, 0, 1}, ways: [3]uint8{0, 0, 1}})
	g.limit = min(maxCells, m.budget)
	defer func() { m.budget -= len(g.cells) }()
	var goesOn [2][]bool
	if open {
		goesOn = [2][]bool{w.goesOn(0), w.goesOn(1)}
	}
	best := ending{cost: noWay}
	before, at, next := 0, 0, 1 // the two diagonals behind us
	for d := 1; d <= na+nb && next > before; d++ {
		g.level = next
		b := before
		both := func(most int32) { // diagonal steps that end at most there
			for ; b < at && g.cells[b].i < most; b++ {
				i := int(g.cells[b].i)
				if j := d - 2 - i; i < na && j < nb && !w.stops(i, j, open) && w.same(i, j) {
					g.walk(b, int32(i+1), takeBoth)
				}
			}
		}
		for k := at; k < next; k++ {
			i := int(g.cells[k].i)
			j := d - 1 - i
			if w.stops(i, j, open) {
				continue
			}
			both(int32(i))
			if j < nb && w.fits(1, j, i) {
				g.walk(k, int32(i), takeB)
			}
			if i < na && w.fits(0, i, j) {
				g.walk(k, int32(i+1), takeA)
			}
		}
		both(1 << 30)
		if len(g.cells) > g.limit {
			return false
		}
		before, at, next = at, next, len(g.cells)
		for k := at; k < next; k++ {
			best.consider(g, k, d, na, nb, goesOn)
		}
	}
	if !best.certain(m.lumps, open) {
		return false
	}
	g.trace(best.from, &w.steps)
	return true
}

// stops says whether an open weave ends at a place: one copy has no packets
// left.
func (w *weaver) stops(i, j int, open bool) bool {
	return open && (i == len(w.items[0]) || j == len(w.items[1]))
}

// same says whether both copies have the same packet at a place, one that is
// not counted.
func (w *weaver) same(i, j int) bool {
	a, b := &w.items[0][i], &w.items[1][j]
	return a.class == b.class && a.alone && b.alone && w.fits(0, i, j) && w.fits(1, j, i)
}

// ending is the best way to an end.
type ending struct {
	cost       int64
	best, ways uint8
	from       int32
	taken      int // packets of the copy that has more on the way
}

func (e *ending) certain(lumps int, open bool) bool {
	return e.ways == 1 || !open && e.best == 1 && e.taken <= lumps && e.cost/change <= 1
}

// consider takes cell k of diagonal d for an end if it is one.
func (e *ending) consider(g *grid, k, d, na, nb int, goesOn [2][]bool) {
	c := &g.cells[k]
	i := int(c.i)
	j := d - i
	rest := takeBoth // whose packets are left
	switch {
	case goesOn[0] == nil && (i < na || j < nb):
		return
	case goesOn[0] == nil:
	case i == na && j < nb && goesOn[1][j]:
		rest = takeB
	case j == nb && i < na && goesOn[0][i]:
		rest = takeA
	default:
		return
	}
	for last := takeA; last <= takeBoth; last++ {
		cost := c.cost[last]
		if cost == noWay {
			continue
		}
		if rest != takeBoth {
			cost &^= change - 1 // different ends have different numbers of packets
			if last != takeBoth && last != rest {
				cost += change
			}
		}
		e.ways = min(e.ways+c.ways[last], 2)
		switch {
		case cost < e.cost:
			e.cost, e.best, e.from = cost, c.best[last], int32(k)*3+int32(last)
			e.taken = max(i, j)
		case cost == e.cost:
			e.best = 2
		}
	}
}

// goesOn says for each place in copy x whether the packets from there on go on
// where the PIDs of the other copy have come with its last packet.
func (w *weaver) goesOn(x int) []bool {
	items, others := w.items[x], len(w.items[1-x])
	rows := make(map[int32]bool)
	bad, alone := 0, false
	for k := range w.items[1-x] {
		it := &w.items[1-x][k]
		switch {
		case it.need == anyNeed:
		case it.row < 0:
			alone = true // the copy does not have the PID at all
		case !rows[it.row]:
			rows[it.row] = true
			bad++
		}
	}
	good := make(map[int32]bool)
	out := make([]bool, len(items)+1)
	for i := len(items) - 1; i >= 0; i-- {
		if r := items[i].row; r >= 0 && rows[r] {
			if now := w.fits(x, i, others); now != good[r] {
				good[r] = now
				if now {
					bad--
				} else {
					bad++
				}
			}
		}
		out[i] = bad == 0 && !alone
	}
	return out
}

// trace adds the steps that lead to a cell.
func (g *grid) trace(from int32, steps *[]step) {
	n := len(*steps)
	for {
		c, last := &g.cells[from/3], step(from%3)
		if c.from[last] == nowhere {
			break
		}
		*steps = append(*steps, last)
		from = c.from[last]
	}
	slices.Reverse((*steps)[n:])
}
