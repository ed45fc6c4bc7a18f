package salvage

// step is one step through a region: whose packet comes next.
type step uint8

const (
	takeA step = iota
	takeB
	takeBoth
)

// Bounds of the work on one merge, whatever the packets are.
const (
	cellsPerPacket = 16      // cells visited in all
	maxCells       = 1 << 18 // in one weave
	maxCounts      = 1 << 22 // counts kept for one weave
	maxDepth       = 6       // of anchors inside a region
)

// weaver finds the order of the packets of a region.
type weaver struct {
	steps []step // the order found so far

	slots  []slot
	number [pids]int32 // of each PID of the region: its slot+1
	woven  bool        // packets of both copies had no anchor between them
	items  [2][]item
	counts [2][]uint8
	grid   grid
}

// slot is a PID that has packets in a region.
type slot struct {
	pid   uint16
	chain       // of the packet before, in the direction of the weave
	in    uint8 // which copies have it: 1 the first, 2 the second
	row   int32 // of its counts; -1: none
	count uint8
	jump  bool
	state uint8
}

// weavable says whether the order of the packets of a region is certain, and
// leaves it in m.weave.steps.
func (m *merger) weavable(a0, a1, b0, b1 int, e edge) bool {
	w := &m.weave
	from := [2]int{a0, b0}
	to := [2]int{a1, b1}
	if e != inside {
		checked, ok := m.weaveEdge(from, to, e)
		return ok && m.unbroken(from, checked, e)
	}
	for _, depth := range []int{0, maxDepth} { // with anchors inside, then without
		m.openSlots(from, to)
		w.steps, w.woven = w.steps[:0], false
		if m.weaveInside(from, to, depth) && (!w.woven || m.unbroken(from, [2]int{0, len(w.steps)}, e)) {
			return true
		}
	}
	return false
}

// openSlots gives the PIDs of a region their slots, which know the counters
// that the result has reached.
func (m *merger) openSlots(from, to [2]int) {
	w := &m.weave
	for k := range w.slots {
		w.number[w.slots[k].pid] = 0
	}
	w.slots = w.slots[:0]
	for x, s := range []*side{m.a, m.b} {
		for k := from[x]; k < to[x]; k++ {
			pid := s.heads[k].pid
			if w.number[pid] == 0 {
				w.slots = append(w.slots, slot{pid: pid, chain: m.chains[pid]})
				w.number[pid] = int32(len(w.slots))
			}
		}
	}
}

func (w *weaver) slotOf(h *head) *slot { return &w.slots[w.number[h.pid]-1] }

// take adds a step and the packet that it takes to the chain of its PID.
func (w *weaver) take(s step, h *head) {
	w.steps = append(w.steps, s)
	w.slotOf(h).chain = chain{true, h.cc}
}

// weaveInside weaves a region between two anchors: equal ends are trimmed,
// packets that each copy has once in it are anchors again.
func (m *merger) weaveInside(from, to [2]int, depth int) bool {
	w := &m.weave
	for from[0] < to[0] && from[1] < to[1] && m.equal(from[0], from[1]) {
		w.take(takeBoth, &m.a.heads[from[0]])
		from[0], from[1] = from[0]+1, from[1]+1
	}
	tail := to[0]
	for from[0] < to[0] && from[1] < to[1] && m.equal(to[0]-1, to[1]-1) {
		to[0], to[1] = to[0]-1, to[1]-1
	}
	if !m.weaveMiddle(from, to, depth) {
		return false
	}
	for k := to[0]; k < tail; k++ {
		w.take(takeBoth, &m.a.heads[k])
	}
	return true
}

func (m *merger) weaveMiddle(from, to [2]int, depth int) bool {
	w := &m.weave
	if from[0] == to[0] || from[1] == to[1] {
		for k := from[0]; k < to[0]; k++ {
			w.take(takeA, &m.a.heads[k])
		}
		for k := from[1]; k < to[1]; k++ {
			w.take(takeB, &m.b.heads[k])
		}
		return true
	}
	var inner []pair
	if depth < maxDepth {
		inner = m.innerAnchors(from, to)
	}
	if len(inner) == 0 {
		w.woven = true
		return m.weaveLeaf(from, to)
	}
	for _, p := range inner {
		if !m.weaveInside(from, [2]int{int(p.a), int(p.b)}, depth+1) {
			return false
		}
		w.take(takeBoth, &m.a.heads[p.a])
		from = [2]int{int(p.a) + 1, int(p.b) + 1}
	}
	return m.weaveInside(from, to, depth+1)
}

// innerAnchors are the packets that each copy has exactly once in a region, and
// not with another counter either.
func (m *merger) innerAnchors(from, to [2]int) []pair {
	kinds := make(map[int32]occurs, to[0]-from[0])
	for k := from[0]; k < to[0]; k++ {
		kind := m.classes.kinds[m.a.heads[k].class]
		o := kinds[kind]
		o.inA(k)
		kinds[kind] = o
	}
	for k := from[1]; k < to[1]; k++ {
		kind := m.classes.kinds[m.b.heads[k].class]
		if o, ok := kinds[kind]; ok {
			o.inB(k)
			kinds[kind] = o
		}
	}
	var out []pair
	for k := from[0]; k < to[0]; k++ {
		h := &m.a.heads[k]
		o := kinds[m.classes.kinds[h.class]]
		if o.na == 1 && o.nb == 1 && m.b.heads[o.b].class == h.class && h.flags&(payload|timed) != 0 {
			out = append(out, pair{int32(k), o.b})
		}
	}
	return certain(out)
}

// weaveLeaf weaves a stretch without anchors.
func (m *merger) weaveLeaf(from, to [2]int) bool {
	w := &m.weave
	if !m.items(from, to, false) {
		return false
	}
	n := len(w.steps)
	if !m.search(from, to, false, false) {
		return false
	}
	for _, s := range w.steps[n:] { // the chains go on from here
		if s != takeB {
			w.slotOf(&m.a.heads[from[0]]).chain = chain{true, m.a.heads[from[0]].cc}
			from[0]++
		}
		if s != takeA {
			w.slotOf(&m.b.heads[from[1]]).chain = chain{true, m.b.heads[from[1]].cc}
			from[1]++
		}
	}
	return true
}

// weaveEdge weaves a region at an end of the copies, from the anchor outwards,
// until one copy has no packets left: it begins or ends there, and what the
// other has beyond is taken as it is. It returns which of the steps are woven.
func (m *merger) weaveEdge(from, to [2]int, e edge) (woven [2]int, ok bool) {
	w := &m.weave
	w.steps = w.steps[:0]
	m.openSlots(from, to)
	back := e == start
	if back {
		m.turnSlots()
	}
	if !m.items(from, to, back) || !m.search(from, to, back, true) {
		return woven, false
	}
	used := [2]int{}
	for _, s := range w.steps {
		if s != takeB {
			used[0]++
		}
		if s != takeA {
			used[1]++
		}
	}
	n := len(w.steps)
	for x, s := range []step{takeA, takeB} {
		for range to[x] - from[x] - used[x] {
			w.steps = append(w.steps, s)
		}
	}
	if !back {
		return [2]int{0, n}, true
	}
	for i, k := 0, len(w.steps)-1; i < k; i, k = i+1, k-1 {
		w.steps[i], w.steps[k] = w.steps[k], w.steps[i]
	}
	return [2]int{len(w.steps) - n, len(w.steps)}, true
}

// turnSlots makes the slots know the counter of the packet behind the region
// instead of that before it.
func (m *merger) turnSlots() {
	w := &m.weave
	for k := range w.slots {
		s := &w.slots[k]
		heads := m.behind(s.pid)
		s.chain = chain{}
		if len(heads) == 0 || len(heads) == 2 && heads[0].class != heads[1].class {
			continue
		}
		s.chain = chain{true, heads[0].cc}
		if heads[0].flags&payload == 0 {
			s.cc = (s.cc + 1) & 15 // of the next packet that is counted
		}
		s.known = heads[0].flags&jumps == 0
	}
}

// behind are the packets of a PID that may come next behind the region just
// passed: one of each copy where the next region has both.
func (m *merger) behind(pid uint16) []*head {
	a, b := m.a.after(pid), m.b.after(pid)
	noA, noB := a == len(m.a.heads), b == len(m.b.heads)
	switch {
	case noA && noB:
		return nil
	case noB || !noA && m.a.region[a] < m.b.region[b]:
		return []*head{&m.a.heads[a]}
	case noA || m.b.region[b] < m.a.region[a]:
		return []*head{&m.b.heads[b]}
	}
	return []*head{&m.a.heads[a], &m.b.heads[b]}
}

// follows says whether a packet goes on where the counter of its PID has come.
func (m *merger) follows(c chain, h *head) bool {
	switch {
	case h.flags&jumps != 0 || m.free[h.pid]:
		return true
	case h.flags&payload == 0 || h.flags&duplicate != 0:
		return h.cc == c.cc
	}
	return h.cc == (c.cc+1)&15
}

const (
	begun = 1 << iota // the PID has packets in the woven part
	ended             // and the next one behind it follows
)

// unbroken says whether the counter of every PID runs through the woven steps
// from what is ahead of them to what is behind.
func (m *merger) unbroken(from, woven [2]int, e edge) bool {
	w := &m.weave
	for k := range w.slots {
		s := &w.slots[k]
		s.chain, s.state, s.in = chain{}, 0, 0
		if e != start {
			s.chain = m.chains[s.pid]
		}
	}
	short := m.present(from, woven)
	for n, t := range w.steps {
		var h *head
		switch t {
		case takeA:
			h = &m.a.heads[from[0]]
		case takeB:
			h = &m.b.heads[from[1]]
		case takeBoth:
			h = &m.a.heads[from[0]]
		}
		if t != takeB {
			from[0]++
		}
		if t != takeA {
			from[1]++
		}
		s := w.slotOf(h)
		switch {
		case n >= woven[0] && n < woven[1]:
			if s.known && !m.follows(s.chain, h) {
				return false
			}
			if !s.known && !m.free[s.pid] && (s.in == 3 || s.in == short) {
				return false
			}
			s.state |= begun
		case n >= woven[1] && s.state == begun:
			if !m.follows(s.chain, h) {
				return false
			}
			s.state |= ended
		}
		s.chain = chain{true, h.cc}
	}
	return m.ends(short, e)
}

// present finds which copies have packets of each PID in the woven steps, and
// which copy has none in the others: 0 where there are no others.
func (m *merger) present(from, woven [2]int) (short uint8) {
	w := &m.weave
	for n, t := range w.steps {
		inside := n >= woven[0] && n < woven[1]
		if t != takeB {
			if inside {
				w.slotOf(&m.a.heads[from[0]]).in |= 1
			} else {
				short = 2
			}
			from[0]++
		}
		if t != takeA {
			if inside {
				w.slotOf(&m.b.heads[from[1]]).in |= 2
			} else {
				short = 1
			}
			from[1]++
		}
	}
	return short
}

// ends says whether the counters go on behind a region.
func (m *merger) ends(short uint8, e edge) bool {
	w := &m.weave
	for k := range w.slots {
		s := &w.slots[k]
		if s.state != begun {
			continue
		}
		if e == end {
			if s.in&short != 0 && !m.free[s.pid] {
				return false
			}
			continue
		}
		heads := m.behind(s.pid)
		ok := len(heads) == 0
		for _, h := range heads {
			ok = ok || m.follows(s.chain, h)
		}
		if !ok {
			return false
		}
	}
	return true
}
