package salvage

import (
	"bytes"
	"hash/maphash"
	"slices"
)

// head is what the merge reads of a packet.
type head struct {
	class int32 // equal in packets with equal bytes, in both copies
	next  int32 // number of the next packet of the PID in this copy; its length: none
	prev  int32 // ... of the one before; -1: none
	pid   uint16
	cc    uint8
	flags uint8
}

// Flags of a head.
const (
	payload   = 1 << iota // counted by the continuity counter
	jumps                 // discontinuity_indicator: the counter may begin anew
	timed                 // has a PCR
	duplicate             // has the bytes of the packet before it on the PID (13818-1 2.4.3.3)
)

const pids = 8192

// side is one of two copies that are merged.
type side struct {
	*Copy
	heads  []head
	region []int32     // of each packet: twice the anchors ahead of it; an anchor's own is one more
	at     []int32     // of each packet: its place in the result, or left
	first  [pids]int32 // number of the first packet of a PID; the length: none
	passed [pids]int32 // number of the last packet of a PID that the merge has passed; -1: none
}

const left = -1

func newSide(c *Copy) *side {
	n := c.Len()
	s := &side{Copy: c, heads: make([]head, n), region: make([]int32, n), at: make([]int32, n)}
	for k := range s.at {
		s.at[k] = left
	}
	for p := range s.first {
		s.first[p], s.passed[p] = int32(n), -1
	}
	for k := n - 1; k >= 0; k-- {
		h := readHead(c.Packet(k))
		h.next, h.prev = s.first[h.pid], -1
		if int(h.next) < n {
			s.heads[h.next].prev = int32(k)
		}
		s.first[h.pid] = int32(k)
		s.heads[k] = h
	}
	return s
}

// readHead reads the header of a transport packet, 13818-1 2.4.3.2 to 2.4.3.5.
func readHead(p []byte) head {
	h := head{pid: uint16(p[1]&0x1f)<<8 | uint16(p[2]), cc: p[3] & 15}
	if p[3]&0x10 != 0 {
		h.flags |= payload
	}
	if p[3]&0x20 != 0 && p[4] > 0 {
		if p[5]&0x80 != 0 {
			h.flags |= jumps
		}
		if p[5]&0x10 != 0 && p[4] >= 7 {
			h.flags |= timed
		}
	}
	return h
}

// pcr is the program clock reference of a packet that has one, in ticks of
// 90 kHz, and its extension, in 27 MHz: base*300+extension.
func pcr(p []byte) int64 {
	base := int64(p[6])<<25 | int64(p[7])<<17 | int64(p[8])<<9 | int64(p[9])<<1 | int64(p[10]>>7)
	return base*300 + int64(p[10]&1)<<8 + int64(p[11])
}

// after is the number of the first packet of a PID behind what the merge has
// passed; the length where there is none.
func (s *side) after(pid uint16) int {
	if k := s.passed[pid]; k >= 0 {
		return int(s.heads[k].next)
	}
	return int(s.first[pid])
}

// pass says that the merge has passed the packets from and up to to.
func (s *side) pass(from, to int) {
	for k := from; k < to; k++ {
		s.passed[s.heads[k].pid] = int32(k)
	}
}

// rewind says that the merge has not passed the packets from and up to to, the last
// that it had passed.
func (s *side) rewind(from, to int) {
	for k := to - 1; k >= from; k-- {
		s.passed[s.heads[k].pid] = s.heads[k].prev
	}
}

// occurs is where the packets of a class are in both copies.
type occurs struct {
	a, b   int32 // the last one
	na, nb uint8 // how many, 2: more than one
}

func (o *occurs) inA(k int) { o.a, o.na = int32(k), min(o.na+1, 2) }
func (o *occurs) inB(k int) { o.b, o.nb = int32(k), min(o.nb+1, 2) }

// classes are the different packets of both copies.
type classes struct {
	occurs []occurs // of each class
	kinds  []int32  // of each class: equal in packets that differ in their counter alone
	times  []uint8  // of each kind: how often it is in one of the copies, maxRepeats+1: more
}

// anchoring says whether a packet that each copy has once may be taken for the same
// one. What comes again and again with other counters (tables, stuffing) may not,
// since each copy may have lost another one of it; nor may a packet that carries
// nothing.
func (c *classes) anchoring(h *head) bool {
	return h.flags&(payload|timed) != 0 && c.times[c.kinds[h.class]] <= maxRepeats
}

// once says whether packets of a class come once at most, with other counters too.
func (c *classes) once(class int32) bool { return c.times[c.kinds[class]] == 1 }

// table numbers byte strings. It compares bytes, so that no collision of hashes
// tells here. The seed differs from process to process; numbers do not depend
// on it.
type table struct {
	seed     maphash.Seed
	slots    []tableSlot
	examples [][]byte
}

type tableSlot struct {
	hash   uint32 // the upper half; the lower one says where it is
	number int32  // +1; 0: free
}

func newTable(most int) *table {
	size := 4
	for size < 2*most {
		size *= 2
	}
	return &table{seed: maphash.MakeSeed(), slots: make([]tableSlot, size)}
}

func (t *table) find(p []byte) int32 {
	hash := maphash.Bytes(t.seed, p)
	for k := int(hash) & (len(t.slots) - 1); ; k = (k + 1) & (len(t.slots) - 1) {
		switch s := &t.slots[k]; {
		case s.number == 0:
			t.examples = append(t.examples, p)
			*s = tableSlot{uint32(hash >> 32), int32(len(t.examples))}
			return int32(len(t.examples) - 1)
		case s.hash == uint32(hash>>32) && bytes.Equal(t.examples[s.number-1], p):
			return s.number - 1
		}
	}
}

// classify gives every packet its class.
func classify(a, b *side) *classes {
	t := newTable(len(a.heads) + len(b.heads))
	for k := range a.heads {
		a.heads[k].class = t.find(a.Packet(k))
	}
	for k := range b.heads {
		b.heads[k].class = t.find(b.Packet(k))
	}
	a.markDuplicates()
	b.markDuplicates()
	n := len(t.examples)
	c := &classes{occurs: make([]occurs, n), kinds: make([]int32, n)}
	kinds := newTable(n)
	for k, p := range t.examples {
		c.kinds[k] = kinds.find(p[4:]) // the same on two PIDs: no harm
	}
	for k := range a.heads {
		c.occurs[a.heads[k].class].inA(k)
	}
	for k := range b.heads {
		c.occurs[b.heads[k].class].inB(k)
	}
	c.times = make([]uint8, len(kinds.examples))
	for _, s := range []*side{a, b} {
		times := make([]uint8, len(c.times))
		for k := range s.heads {
			kind := c.kinds[s.heads[k].class]
			times[kind] = min(times[kind]+1, maxRepeats+1)
			c.times[kind] = max(c.times[kind], times[kind])
		}
	}
	return c
}

func (s *side) markDuplicates() {
	for k := range s.heads {
		h := &s.heads[k]
		if int(h.next) == len(s.heads) {
			continue
		}
		if n := &s.heads[h.next]; n.class == h.class && h.flags&payload != 0 {
			n.flags |= duplicate
		}
	}
}

// pair is a packet of one copy and the same one of the other.
type pair struct{ a, b int32 }

// anchors are the packets that occur exactly once in each copy, in the order
// that both have them in. Where they are few, since the source repeats itself byte
// for byte (a clip that is looped), packets that occur a few times are paired in
// every way, and the longest order is what tells.
func (m *merger) anchors() []pair {
	a, b, c := m.a, m.b, m.classes
	var out []pair
	for k := range a.heads {
		h := &a.heads[k]
		if o := &c.occurs[h.class]; o.na == 1 && o.nb == 1 && c.anchoring(h) {
			if m.mayBe(int32(k), o.b, c.once(h.class)) {
				out = append(out, pair{int32(k), o.b})
			}
		}
	}
	if 2*len(out) < min(len(a.heads), len(b.heads)) {
		if all := certain(m.repeated()); dense(all) {
			return all
		}
	}
	return certain(out)
}

// dense says whether pairs are most of the packets that they span: tables alone,
// which come again in whatever stream, are not.
func dense(pairs []pair) bool {
	if len(pairs) == 0 {
		return false
	}
	first, last := pairs[0], pairs[len(pairs)-1]
	return 2*len(pairs) > int(min(last.a-first.a, last.b-first.b))
}

// repeated are all pairs of packets with equal bytes that occur at most so often
// in each copy that their pairs are few; in ascending order of a, of which those
// with the same a descend in b. nil: there are too many.
func (m *merger) repeated() []pair {
	a, b := m.a, m.b
	where := make([][]int32, len(m.classes.kinds))
	for k := len(b.heads) - 1; k >= 0; k-- {
		c := b.heads[k].class
		if len(where[c]) <= maxRepeats {
			where[c] = append(where[c], int32(k))
		}
	}
	times := make([]int, len(m.classes.kinds))
	for k := range a.heads {
		times[a.heads[k].class]++
	}
	var out []pair
	for k := range a.heads {
		c := a.heads[k].class
		if times[c] > maxRepeats || len(where[c]) > maxRepeats || a.heads[k].flags&(payload|timed) == 0 {
			continue
		}
		for _, j := range where[c] {
			if m.mayBe(int32(k), j, m.classes.once(c)) {
				out = append(out, pair{int32(k), j})
			}
		}
		if len(out) > maxRepeats*(len(a.heads)+len(b.heads)) {
			return nil
		}
	}
	return out
}

const maxRepeats = 4

// certain are those of the pairs that every longest subsequence ascending in
// both copies has. Of pairs that contradict each other evenly none is left.
func certain(pairs []pair) []pair {
	ascending := func(k int) bool { return pairs[k-1].a < pairs[k].a && pairs[k-1].b < pairs[k].b }
	k := 1
	for k < len(pairs) && ascending(k) {
		k++
	}
	if k >= len(pairs) {
		return pairs
	}
	// The length of the longest that ends with a pair, and that begins with it.
	ending, longest := longestUpTo(pairs, 1)
	beginning, _ := longestUpTo(pairs, -1)
	rivals := make([]int32, longest+1)
	for k := range pairs {
		if ending[k]+beginning[k] == longest+1 {
			rivals[ending[k]]++
		}
	}
	out := pairs[:0]
	for k, p := range pairs {
		if ending[k]+beginning[k] == longest+1 && rivals[ending[k]] == 1 {
			out = append(out, p)
		}
	}
	return out
}

// longestUpTo is the length of the longest ascending subsequence that ends with
// each pair, and the longest of them; with a direction of -1, that begins with it.
func longestUpTo(pairs []pair, direction int32) (lengths []int32, longest int32) {
	lengths = make([]int32, len(pairs))
	var tails []int32
	for n := range pairs {
		k := n
		if direction < 0 {
			k = len(pairs) - 1 - n
		}
		b := pairs[k].b * direction
		x, _ := slices.BinarySearch(tails, b)
		if x == len(tails) {
			tails = append(tails, 0)
		}
		tails[x], lengths[k] = b, int32(x+1)
	}
	return lengths, int32(len(tails))
}

// number gives every packet of both copies the number of its region.
func number(a, b *side, pairs []pair) {
	x, y := 0, 0
	for k := 0; k <= len(pairs); k++ {
		p := pair{int32(len(a.heads)), int32(len(b.heads))}
		if k < len(pairs) {
			p = pairs[k]
		}
		for ; x < int(p.a); x++ {
			a.region[x] = int32(2 * k)
		}
		for ; y < int(p.b); y++ {
			b.region[y] = int32(2 * k)
		}
		if k < len(pairs) {
			a.region[x], b.region[y] = int32(2*k+1), int32(2*k+1)
			x, y = x+1, y+1
		}
	}
}
