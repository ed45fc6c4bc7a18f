package salvage

import (
	"slices"
	"sort"
)

// Bounds of what clock references tell, in ticks of 27 MHz.
const (
	// silence is how far apart references are at least between which a copy was not
	// heard: 13818-1 2.7.2 wants one every 100 ms. Where they are usually further
	// apart than a quarter of that, it is four times as much.
	silence = 27_000_000 / 4
	// maxSilence is how far apart the references of one copy may be at all.
	maxSilence = 30 * 27_000_000
	// The times ahead of the first reference of a copy and behind its last.
	beforeAll, afterAll = -1 << 60, 1 << 60
)

// times are the clock references of a copy: the packets that have one, and the time
// that it says, in both copies counted from the same reference.
type times struct {
	at    []int32
	value []int64
	last  int // the reference that was asked for last
}

// clocks reads the references of both copies, of the PID that has most of them. It
// returns false where they are of no use: the clock of a copy goes back, begins anew
// or is not heard for long.
func (m *merger) clocks() bool {
	if m.clockRead {
		return m.clocked
	}
	m.clockRead = true
	var count [pids]int
	pid := uint16(0)
	for _, s := range []*side{m.a, m.b} {
		for k := range s.heads {
			if h := &s.heads[k]; h.flags&timed != 0 {
				count[h.pid]++
				if n := count[h.pid]; n > count[pid] || n == count[pid] && h.pid < pid {
					pid = h.pid
				}
			}
		}
	}
	base, known := int64(0), false
	for x, s := range []*side{m.a, m.b} {
		last := int64(0)
		for k := s.first[pid]; int(k) < len(s.heads); k = s.heads[k].next {
			h := &s.heads[k]
			if h.flags&timed == 0 {
				continue
			}
			if h.flags&jumps != 0 {
				return false
			}
			v := pcr(s.Packet(int(k)))
			if !known {
				base, known = v, true
			}
			t := &m.times[x]
			if len(t.at) == 0 {
				last = sinceClock(v, base)
			} else {
				d := sinceClock(v-base, last)
				if d < 0 || d > maxSilence {
					return false
				}
				last += d
			}
			t.at, t.value = append(t.at, k), append(t.value, last)
		}
	}
	m.clocked = len(m.times[0].at) > 0 && len(m.times[1].at) > 0
	m.silence = max(silence, 4*usual(m.times))
	return m.clocked
}

// usual is the median of the times between two references.
func usual(copies [2]times) int64 {
	var steps []int64
	for _, t := range copies {
		for k := 1; k < len(t.value); k++ {
			steps = append(steps, t.value[k]-t.value[k-1])
		}
	}
	if len(steps) == 0 {
		return 0
	}
	slices.Sort(steps)
	return steps[len(steps)/2]
}

// mayBe says whether the clock allows a packet to be the same in both copies. One that
// comes again and again (once is false) may be another one if it was sent beside a
// silence of a copy.
func (m *merger) mayBe(a, b int32, once bool) bool {
	if !m.clocks() {
		return true
	}
	x, y := m.times[0].when(int(a)), m.times[1].when(int(b))
	return !x.ahead(y) && !y.ahead(x) && (once || x.span() < m.silence && y.span() < m.silence)
}

// sent is when a packet was sent at the earliest and at the latest.
type sent struct{ least, most int64 }

// ahead says whether a packet was certainly sent before another of the other copy.
func (s sent) ahead(other sent) bool { return s.most < other.least }

// span is how long the time is in which a packet was sent.
func (s sent) span() int64 { return s.most - s.least }

// when says when packet k was sent.
func (t *times) when(k int) sent {
	n := t.last // one is asked for after the other
	if n > 0 && int(t.at[n-1]) >= k || n+1 < len(t.at) && int(t.at[n+1]) < k {
		n = sort.Search(len(t.at), func(n int) bool { return int(t.at[n]) >= k })
	} else if n < len(t.at) && int(t.at[n]) < k {
		n++
	}
	t.last = n
	return t.beside(n, k)
}

// beside is when packet k was sent, ahead of which n references are.
func (t *times) beside(n, k int) sent {
	s := sent{beforeAll, afterAll}
	if n > 0 {
		s.least = t.value[n-1]
	}
	if n < len(t.at) {
		s.most = t.value[n]
		if int(t.at[n]) == k {
			s.least = s.most
		}
	}
	return s
}

// between says when the packets from and up to to were sent.
func (t *times) between(from, to int) []sent {
	out := make([]sent, to-from)
	n := sort.Search(len(t.at), func(n int) bool { return int(t.at[n]) >= from }) // the next reference
	for k := range out {
		for n < len(t.at) && int(t.at[n]) < from+k {
			n++
		}
		out[k] = t.beside(n, from+k)
	}
	return out
}

// piece is a part of a region: the packets from and up to to of each copy.
type piece struct {
	from, to [2]int
	leftOut  bool  // packets of one copy that have no certain place
	until    int64 // ... and were sent before that
}

func (s *piece) has(x int) bool { return s.from[x] < s.to[x] }

// byClock merges a region of which the clock tells how the packets lie to each other,
// if more of them have a place so than in the longer copy alone. A packet of one copy
// is ahead of one of the other if the reference behind it is less than the one ahead of
// the other; those of one copy are in their order. Where both have packets that may have been
// sent at the same time, those of one copy are taken; and what was sent at either end
// of a long silence of its copy is left out if the other copy has something there.
func (m *merger) byClock(a0, a1, b0, b1 int) bool {
	if !m.clocks() {
		return false
	}
	z := sorter{from: [2]int{a0, b0}, silence: m.silence}
	z.sent[0], z.sent[1] = m.times[0].between(a0, a1), m.times[1].between(b0, b1)
	if !z.sort() || z.taken() <= max(a1-a0, b1-b0) {
		return false
	}
	m.a.rewind(a0, a1)
	m.b.rewind(b0, b1)
	doubtful := int64(beforeAll)
	var apart [2]bool // packets of the copy were left out that may lie ahead of its next
	for k := range z.out {
		s := &z.out[k]
		m.pass(s.from[0], s.to[0], s.from[1], s.to[1])
		x := 0
		if !s.has(0) {
			x = 1
		}
		if s.leftOut {
			if m.leaveOut(s, x) {
				doubtful = max(doubtful, s.until)
			}
			apart[x] = true
			continue
		}
		if m.alone(1-x) && (apart[0] || apart[1]) {
			m.doubt(unseen)
		}
		switch {
		case s.has(0) && s.has(1):
			m.overlapping(s.from[0], s.to[0], s.from[1], s.to[1])
			apart = [2]bool{}
		case z.sent[x][s.from[x]-z.from[x]].least < doubtful:
			m.doubtful(func(from, to int) { m.from(x, from, to) }, s.from[x], s.to[x], unseen)
		default:
			m.from(x, s.from[x], s.to[x])
		}
		apart[x] = false
	}
	return true
}

// alone says whether the last packet so far is one that copy x has alone.
func (m *merger) alone(x int) bool {
	n := len(m.out)
	return n > m.shared && (m.out[n-1] < int32(len(m.a.heads))) == (x == 0)
}

// overlapping merges packets of both copies that may have been sent at the same time.
func (m *merger) overlapping(a0, a1, b0, b1 int) {
	switch {
	case m.holds(m.a, a0, a1, m.b, b0, b1):
		m.contain(m.a, a0, a1, m.b, b0, b1)
	case m.holds(m.b, b0, b1, m.a, a0, a1):
		m.contain(m.b, b0, b1, m.a, a0, a1)
	default:
		m.longer(a0, a1, b0, b1)
	}
}

// from takes packets of copy x.
func (m *merger) from(x, from, to int) {
	if x == 0 {
		m.fromA(from, to)
	} else {
		m.fromB(from, to)
	}
}

// leaveOut leaves packets of copy x out. They are missing where the other copy was not
// heard: ahead of its beginning, behind its end or in a silence. It says whether they may be
// missing elsewhere in what it has there without a counter that shows it.
func (m *merger) leaveOut(s *piece, x int) (hidden bool) {
	own, other := [2]*side{m.a, m.b}[x], [2]*side{m.a, m.b}[1-x]
	m.gain.LeftOut += s.to[x] - s.from[x]
	for k := s.from[x]; k < s.to[x]; k++ {
		h := &own.heads[k]
		if h.flags&payload == 0 || m.free[h.pid] {
			continue
		}
		next := other.after(h.pid)
		if next < len(other.heads) && m.times[1-x].when(next).least < s.until {
			continue // its counter runs on there, or it shows
		}
		c := m.chains[h.pid]
		heads := m.behind(h.pid)
		hidden = hidden || !c.known || len(heads) == 0
		for _, n := range heads {
			hidden = hidden || m.follows(c, n)
		}
	}
	return hidden
}

// sorter finds how the packets of a region lie to each other.
type sorter struct {
	from [2]int    // the first packets of the region
	sent [2][]sent // of each packet of the region
	next [2]int    // of each copy, those ahead of it are in out
	out  []piece
	// silence is the time from which on a packet is said to be sent beside one.
	silence int64
}

// taken is how many packets have a place at least.
func (z *sorter) taken() (n int) {
	for k := range z.out {
		if s := &z.out[k]; !s.leftOut {
			n += max(s.to[0]-s.from[0], s.to[1]-s.from[1])
		}
	}
	return n
}

// add adds the next packets, so many of each copy.
func (z *sorter) add(a, b int, leftOut bool) {
	s := piece{leftOut: leftOut}
	for x, n := range [2]int{a, b} {
		s.from[x] = z.from[x] + z.next[x]
		s.to[x] = s.from[x] + n
		if n > 0 {
			s.until = max(s.until, z.sent[x][z.next[x]+n-1].most)
		}
		z.next[x] += n
	}
	if n := len(z.out); n > 0 && a*b == 0 {
		if last := &z.out[n-1]; last.leftOut == leftOut && last.has(0) == (a > 0) && last.has(1) == (b > 0) {
			last.to, last.until = s.to, s.until
			return
		}
	}
	z.out = append(z.out, s)
}

// sort makes the pieces. All packets of those that are made lie ahead of all that
// are to come, but for the ones left out.
func (z *sorter) sort() bool {
	a, b := z.sent[0], z.sent[1]
	for z.next[0] < len(a) && z.next[1] < len(b) {
		p, q := a[z.next[0]], b[z.next[1]]
		switch {
		case p.ahead(q):
			z.add(1, 0, false)
		case q.ahead(p):
			z.add(0, 1, false)
		case p.span() >= max(z.silence, q.span()):
			z.add(1, 0, true)
		case q.span() >= z.silence:
			z.add(0, 1, true)
		default:
			if !z.overlap() {
				return false
			}
		}
	}
	z.addRest()
	return true
}

// addRest adds the packets of the copy that has some left.
func (z *sorter) addRest() {
	if n := len(z.sent[0]) - z.next[0]; n > 0 {
		z.add(n, 0, false)
	}
	if n := len(z.sent[1]) - z.next[1]; n > 0 {
		z.add(0, n, false)
	}
}

// overlap adds the least number of next packets of both copies that lie ahead of all
// others, and leaves out those behind them that may lie among them.
func (z *sorter) overlap() bool {
	end := [2]int{z.next[0] + 1, z.next[1] + 1} // of the packets that belong to it
	seen := end                                 // ... and of those behind that do not
	for grown := true; grown; {
		grown = false
		for x := range end {
			last := z.sent[1-x][end[1-x]-1]
			for seen[x] < len(z.sent[x]) && !last.ahead(z.sent[x][seen[x]]) {
				switch {
				case z.sent[x][seen[x]].span() >= z.silence:
				case seen[x] > end[x]:
					return false // beside a silence on both of its sides
				default:
					end[x]++
				}
				seen[x]++
				grown = true
			}
		}
	}
	left := [2]int{seen[0] - end[0], seen[1] - end[1]}
	z.add(end[0]-z.next[0], end[1]-z.next[1], false)
	if left[0] > 0 {
		z.add(left[0], 0, true)
	}
	if left[1] > 0 {
		z.add(0, left[1], true)
	}
	return true
}
