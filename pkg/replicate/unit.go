package replicate

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"sort"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/salvage"
)

// unit is a stretch of time of which two archives keep packets, that overlaps
// no other: one damaged segment as a rule, or several where loss hid from one
// node where a segment begins.
type unit struct {
	own, theirs []salvage.Entry // each in order of time, at least one
}

// maxUnit bounds the packets of a unit that are in memory: 96 MiB.
const maxUnit = 96 << 20 / salvage.PacketSize

// dated is an entry with where it lies by the own clock.
type dated struct {
	salvage.Entry
	from, to m4f.UTC
	theirs   bool
}

// units groups entries of two archives by what they overlap in media time, and what
// begins in one bucket: a recorder that came back in the middle of a segment opened
// another one at the next keyframe, which the whole segment goes on into. What
// only one of them has is left out, and what belongs to another timeline, another
// program or is cut in another way.
func units(own, theirs []salvage.Entry) []unit {
	if len(own) == 0 || len(theirs) == 0 {
		return nil
	}
	all := make([]dated, 0, len(own)+len(theirs))
	for _, e := range own {
		all = append(all, dated{Entry: e, from: e.Start(), to: e.End()})
	}
	for _, e := range theirs {
		if d, ok := datedBy(own, e); ok {
			all = append(all, d)
		}
	}
	slices.SortStableFunc(all, func(a, b dated) int { return cmp.Compare(a.from, b.from) })
	var out []unit
	for _, s := range bridge(spans(all)) {
		var u unit
		for i := range s {
			if s[i].theirs {
				u.theirs = append(u.theirs, s[i].Entry)
			} else {
				u.own = append(u.own, s[i].Entry)
			}
		}
		if len(u.own) > 0 && len(u.theirs) > 0 {
			out = append(out, u)
		}
	}
	return out
}

// spans groups entries in order of time.
func spans(all []dated) (out [][]dated) {
	var end m4f.UTC
	packets, from := 0, 0
	for i := range all {
		d := &all[i]
		if i > from && (d.from > end-sliver && !d.sameBucket(&all[i-1]) || packets+d.Len() > maxUnit) {
			out, from = append(out, all[from:i:i]), i
			end, packets = 0, 0
		}
		end, packets = max(end, d.to), packets+d.Len()
	}
	return append(out, all[from:])
}

// bridge joins a group that one side alone has, damaged by what may have come ahead of
// it and not by a loss within it, with the one ahead of it of which the other side has some:
// packets are kept until after a segment was complete, and tell how this one begins.
func bridge(spans [][]dated) (out [][]dated) {
	for _, s := range spans {
		if n := len(out); n > 0 && unsure(s) && sides(s)|sides(out[n-1]) == 3 && adjoin(out[n-1], s) {
			out[n-1] = append(out[n-1], s...)
			continue
		}
		out = append(out, s)
	}
	return out
}

// unsure says whether one side alone has a group that begins with a segment which
// lacks nothing by the counters and is damaged all the same.
func unsure(s []dated) bool {
	h := &s[0].Segments[0]
	return sides(s) != 3 && h.Damaged() && lossOf(h) == 0
}

// sides says which sides have entries of a group: 1 the own one, 2 the other.
func sides(s []dated) (which int) {
	for i := range s {
		if s[i].theirs {
			which |= 2
		} else {
			which |= 1
		}
	}
	return which
}

// adjoin says whether a group goes on where another one ends, and both may be one.
func adjoin(a, b []dated) bool {
	packets, end := 0, m4f.UTC(0)
	for i := range a {
		packets, end = packets+a[i].Len(), max(end, a[i].to)
	}
	for i := range b {
		packets += b[i].Len()
	}
	return b[0].from <= end+sliver && packets <= maxUnit
}

// sameBucket says whether the entry begins in the bucket of the target duration in
// which the last segment of another one does. No keyframe of a bucket but the first
// opens a segment to one who has heard them all.
func (d *dated) sameBucket(before *dated) bool {
	if d.Target <= 0 || distance(d.from, before.to) > m4f.UTC(d.Target) {
		return false
	}
	last := &before.Segments[len(before.Segments)-1]
	return d.Segments[0].MediaTime/d.Target == last.MediaTime/d.Target
}

// datedBy says where a peer's entry lies by the clock of the own ones: their
// media time carries over, if both clocks nearly agree.
func datedBy(own []salvage.Entry, e salvage.Entry) (d dated, ok bool) {
	h := &e.Segments[0]
	i := sort.Search(len(own), func(i int) bool { return own[i].Start() >= h.UTC })
	for _, k := range []int{i, i - 1, i + 1} {
		if k < 0 || k >= len(own) || own[k].Program != e.Program || own[k].Target != e.Target {
			continue
		}
		at := dateOf(&own[k].Segments[0], h.MediaTime)
		if distance(at, h.UTC) < sameWithin {
			return dated{Entry: e, from: at, to: at.Add(int64(e.End() - e.Start())), theirs: true}, true
		}
	}
	return dated{}, false
}

// dateOf is the UTC that the timeline of a segment gives to a media time.
func dateOf(h *m4f.Header, media int64) m4f.UTC {
	return h.UTC.Add(m4f.Diff33(media, h.MediaTime))
}

// key tells a unit from any other, of whichever peer.
func (u *unit) key(peer string) [sha256.Size]byte {
	b := []byte(peer)
	for _, l := range [][]salvage.Entry{u.own, u.theirs} {
		b = append(b, '\n')
		for i := range l {
			b = append(append(b, l[i].Name...), ' ')
		}
	}
	return sha256.Sum256(b)
}

// span is the time of a unit by the own clock.
func (u *unit) span() (from, to m4f.UTC) {
	from, to = u.own[0].Start(), u.own[0].End()
	for i := range u.own {
		from, to = min(from, u.own[i].Start()), max(to, u.own[i].End())
	}
	return from, to
}

// kept is when the youngest of a unit's entries was kept, Unix milliseconds.
func (u *unit) kept() (ms int64) {
	for _, l := range [][]salvage.Entry{u.own, u.theirs} {
		for i := range l {
			ms = max(ms, l[i].Kept.UnixMilli())
		}
	}
	return ms
}

// merged is what came of a unit.
type merged struct {
	copy    *salvage.Copy
	of      []*salvage.Copy // that it was made of
	segs    []*m4f.Segment  // dated by the own clock, better than what either archive kept packets of
	left    []m4f.Header    // of those that are still damaged or partial
	lost    int64           // packets that the segments lack, by the counters
	gained  int             // packets that the own archive lacked
	fetched int64           // packets that came from the other side
}

// errApart says that a unit's entries are not what can be merged.
var errApart = errors.New("salvage that does not belong together")

// gathered is what both sides have of a unit.
type gathered struct {
	copies  []*salvage.Copy // one for each run
	near    []*salvage.Copy // that are kept here of the segments beside the unit
	own     int             // packets of the longest of the own ones
	fetched int64           // packets that came from the other side
	more    bool            // there is something to merge: packets that one of the own copies lacks
}

// gather reads the own copies and fetches the others. What the own ones lack need
// not have been fetched for that: it may be in an entry beside the unit, into
// which a merge has brought it.
func (u *unit) gather(ctx context.Context, store *salvage.Store, src Side, flow *Flow) (*gathered, error) {
	g := &gathered{}
	var err error
	if g.copies, g.own, err = u.read(store); err != nil {
		return nil, err
	}
	// What one of several own copies lacks, another may have out of an earlier merge.
	g.more = len(g.copies) > 1
	have := tally(g.copies)
	g.near = u.near(store, g.copies)
	pool := &salvage.Copy{}
	for _, c := range slices.Concat(g.copies, g.near) {
		pool.Packets = append(pool.Packets, c.Packets...)
	}
	for _, group := range salvage.Adjoin(u.theirs) {
		list := make([]*salvage.Copy, 0, len(group))
		for i := range group {
			counted := &countingPeer{Peer: src.SalvageCopy(&group[i], flow)}
			c, err := salvage.Fetch(ctx, pool, counted)
			if err != nil {
				return nil, err
			}
			g.fetched += counted.packets
			if counted.packets > 0 && len(group) > 1 {
				// What the next one has in common with this is not fetched twice.
				pool = &salvage.Copy{Packets: slices.Concat(pool.Packets, c.Packets)}
			}
			list = append(list, c)
		}
		c, err := salvage.Join(group, list)
		if err != nil {
			return nil, err
		}
		g.copies = append(g.copies, c)
		g.more = g.more || exceeds(c, have)
	}
	return g, nil
}

// tally says how often a packet of each hash is in the copy that has most of them.
func tally(copies []*salvage.Copy) map[uint32]int {
	most := map[uint32]int{}
	for _, c := range copies {
		for h, n := range occurrences(c) {
			most[h] = max(most[h], n)
		}
	}
	return most
}

// exceeds says whether a copy has packets that are not in a tally, or has some of
// them more often: the packets of a table come again and again with the same
// bytes.
func exceeds(c *salvage.Copy, have map[uint32]int) bool {
	for h, n := range occurrences(c) {
		if n > have[h] {
			return true
		}
	}
	return false
}

func occurrences(c *salvage.Copy) map[uint32]int {
	n := make(map[uint32]int, c.Len())
	for _, h := range salvage.Hashes(c) {
		n[h]++
	}
	return n
}

// merge makes one copy of all and cuts it again. Where a segment is then damaged by what may
// have been lost ahead of it alone, what is kept for those ahead of it may tell.
func (u *unit) merge(g *gathered) *merged {
	m := &merged{fetched: g.fetched, copy: salvage.MergeAll(g.copies), of: g.copies}
	m.gained = max(m.copy.Len()-g.own, 0)
	u.cut(m)
	if !slices.ContainsFunc(m.left, func(h m4f.Header) bool { return hidden(&h) }) {
		return m
	}
	if len(g.near) > 0 {
		wide := &merged{copy: salvage.MergeAll(slices.Concat(g.copies, g.near))}
		u.cut(wide)
		m.take(wide)
	}
	return m
}

// hidden says whether a segment is damaged though no packet of it is known to be lost: what
// was lost ahead of it may have been the keyframe that it opens at.
func hidden(h *m4f.Header) bool { return h.Damaged() && lossOf(h) == 0 }

// take takes over the undamaged segments of another merge in place of what is damaged here
// though nothing of it is known to be lost.
func (m *merged) take(wide *merged) {
	for _, seg := range wide.segs {
		h := &seg.Header
		is := func(l *m4f.Header) bool { return l.MediaTime == h.MediaTime && l.ID == h.ID }
		i := slices.IndexFunc(m.left, func(l m4f.Header) bool { return hidden(&l) && is(&l) })
		if h.Damaged() || i < 0 {
			continue
		}
		m.segs = slices.DeleteFunc(m.segs, func(s *m4f.Segment) bool { return is(&s.Header) })
		m.segs = append(m.segs, seg)
		if h.Clean() {
			m.left = slices.Delete(m.left, i, i+1)
		} else {
			m.left[i] = *h
		}
	}
}

// all says whether a merged copy has every packet of those that it was made of.
func (m *merged) all() bool {
	have := tally([]*salvage.Copy{m.copy})
	return !slices.ContainsFunc(m.of, func(c *salvage.Copy) bool { return exceeds(c, have) })
}

// read reads what the own archive has, one copy for each run, and counts the
// packets of the longest.
func (u *unit) read(store *salvage.Store) (copies []*salvage.Copy, longest int, err error) {
	first := &u.own[0]
	for _, l := range [][]salvage.Entry{u.own, u.theirs} {
		for i := range l {
			if l[i].Program != first.Program || l[i].Target != first.Target {
				return nil, 0, errApart
			}
		}
	}
	for _, group := range salvage.Adjoin(u.own) {
		c, err := store.Read(group...)
		if err != nil {
			return nil, 0, err
		}
		copies = append(copies, c)
		longest = max(longest, c.Len())
	}
	return copies, longest, nil
}

// beside is how far beside a unit packets are looked for that are here already.
const beside = 8 * m4f.Timescale

// near reads what is kept here of the segments beside a unit, into which the other side's
// copies may reach, as far as it and the own copies are no more than a unit may have: those
// packets need not be fetched.
func (u *unit) near(store *salvage.Store, own []*salvage.Copy) (copies []*salvage.Copy) {
	from, to := u.span()
	near, err := store.Entries(max(from.Add(-beside), 1), to.Add(beside))
	if err != nil {
		return nil
	}
	mine := map[string]bool{}
	for i := range u.own {
		mine[u.own[i].Name] = true
	}
	near = slices.DeleteFunc(near, func(e salvage.Entry) bool {
		return mine[e.Name] || e.Program != u.own[0].Program || e.Target != u.own[0].Target
	})
	packets := 0
	for _, c := range own {
		packets += c.Len()
	}
	for _, group := range salvage.Adjoin(near) {
		// One that has gone meanwhile is fetched, if it matters.
		if c, err := store.Read(group...); err == nil && packets+c.Len() <= maxUnit {
			copies, packets = append(copies, c), packets+c.Len()
		}
	}
	return copies
}

// countingPeer counts the packets that come from a copy.
type countingPeer struct {
	salvage.Peer
	packets int64
}

func (c *countingPeer) Packets(ctx context.Context, ranges []salvage.Range) ([]byte, error) {
	b, err := c.Peer.Packets(ctx, ranges)
	c.packets += int64(len(b) / salvage.PacketSize)
	return b, err
}

// lost sums up what the own segments of a unit lack.
func (u *unit) lost() (n int64, damaged int) {
	for i := range u.own {
		for k := range u.own[i].Segments {
			if h := &u.own[i].Segments[k]; !h.Clean() {
				n += int64(lossOf(h))
				damaged++
			}
		}
	}
	return n, damaged
}

// senseless says whether what came from the other side is not what it listed, or
// what is kept here cannot be read: there is no use in asking for the same
// again.
func senseless(err error) bool {
	var bad *m4fhttp.BadAnswerError
	var corrupt *salvage.CorruptError
	return errors.As(err, &bad) || errors.As(err, &corrupt) || errors.Is(err, salvage.ErrMismatch) ||
		errors.Is(err, salvage.ErrApart) || errors.Is(err, errApart)
}
