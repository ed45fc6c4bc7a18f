package archive

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// The tolerances of the view, in ticks.
const (
	// occurrence: copies of one identity dated less than this apart are one
	// segment; further apart they are a repeated broadcast.
	occurrence = 2 * m4f.Timescale
	// utcSlack: segments of different timelines overlap only by more than this
	// in UTC, and timelines whose offsets differ by no more are one.
	utcSlack = m4f.Timescale / 4
)

// Element is a segment of the view. Its Record has the best flags and the
// earliest UTC of all copies of the segment.
type Element struct {
	Record
	// Parts is what the view shows of the segment: the parts of its span that
	// no better segment covers, in order, never empty.
	Parts []Part

	at location // of the copy to read
}

// candidate is an element whose parts are being found.
type candidate struct {
	Element
	local   bool      // some copy is in this archive
	mine    judgement // the best of those copies, and the earliest UTC
	offered *stored   // the first copy that is only offered to it, or nil
}

// judgement is what nodes may think differently of one segment.
type judgement struct {
	utc           m4f.UTC
	flags         m4f.Flags
	lost, errored uint32
}

func judge(h *m4f.Header) judgement { return judgement{h.UTC, h.Flags, h.Lost, h.Errored} }

// Part is a part of a segment's span, [From, To) in ticks from its opening PTS.
type Part struct{ From, To int64 }

// Whole says whether the view shows all of the segment.
func (e *Element) Whole() bool {
	return len(e.Parts) == 1 && e.Parts[0] == Part{0, int64(e.Duration)}
}

// Piece is one part of one element, as it is played.
type Piece struct {
	*Element
	Part
}

// Start is the UTC at which the piece starts.
func (p Piece) Start() m4f.UTC { return p.UTC.Add(p.Part.From) }

// Stop is the UTC at which the piece ends.
func (p Piece) Stop() m4f.UTC { return p.UTC.Add(p.To) }

// Media is the media time at which the piece starts, 33 bits.
func (p Piece) Media() int64 { return (p.MediaTime + p.Part.From) & (m4f.Wrap - 1) }

// View returns what a reader of an archive with these records sees, in playing
// order. It depends on the set of records alone, not on their order.
//
// All segments are put in the order (clean, whole, fewer lost packets, longer,
// more bytes, identity), and each is shown for the part of its span that none
// before it shows. Spans are measured in media time. Two segments overlap if
// they do in media time and either their timelines are one (offsets between
// UTC and media time that differ by at most 250 ms) or they overlap by more
// than 250 ms in UTC, so that neither a repeated broadcast nor a clock some
// milliseconds off hides anything.
func View(recs []Record) []Element {
	st := make([]stored, len(recs))
	for i := range recs {
		st[i].Record = recs[i]
	}
	return view(st)
}

// stored is a record and where its media is.
type stored struct {
	Record
	at     location
	remote bool // offered by a peer, not here
}

func view(recs []stored) []Element {
	shown := candidates(recs)
	els := make([]Element, len(shown))
	for i := range shown {
		els[i] = shown[i].Element
	}
	return els
}

// candidates returns the elements of the view with what is known of their
// copies.
func candidates(recs []stored) []candidate {
	all := merge(recs)
	resolve(all)
	all = slices.DeleteFunc(all, func(c candidate) bool { return len(c.Parts) == 0 })
	playingOrder(all)
	return all
}

// merge makes one element of the copies of an identity that are of one
// occurrence. The elements come sorted by UTC and identity.
func merge(recs []stored) []candidate {
	order := make([]*stored, len(recs))
	for i := range recs {
		order[i] = &recs[i]
	}
	slices.SortFunc(order, func(a, b *stored) int {
		return cmp.Or(cmp.Compare(a.UTC, b.UTC), bytes.Compare(a.ID[:], b.ID[:]), compareCopies(a, b))
	})
	els := make([]candidate, 0, len(recs))
	last := make(map[m4f.Identity]int, len(recs)) // the last element of each identity
	for _, r := range order {
		i, ok := last[r.ID]
		if !ok || r.UTC >= els[i].UTC+occurrence {
			i = len(els)
			last[r.ID] = i
			els = append(els, candidate{Element: Element{Record: r.Record}})
		}
		els[i].add(r)
	}
	return els
}

// compareCopies puts copies of one identity and UTC in an order that depends on
// nothing but them.
func compareCopies(a, b *stored) int {
	return cmp.Or(
		cmp.Compare(a.Flags, b.Flags),
		cmp.Compare(a.Lost, b.Lost),
		cmp.Compare(a.Errored, b.Errored),
		cmp.Compare(b.Duration, a.Duration),
		cmp.Compare(b.Length, a.Length),
		cmp.Compare(a.MediaTime, b.MediaTime),
		cmp.Compare(a.Origin, b.Origin),
		cmp.Compare(a.Arrived, b.Arrived),
		cmp.Compare(a.Input, b.Input),
		cmp.Compare(a.at.offset, b.at.offset),
	)
}

// add takes a copy into the element.
func (e *candidate) add(c *stored) {
	best := judge(&e.Header)
	best.improve(&c.Header)
	e.Flags, e.Lost, e.Errored = best.flags, best.lost, best.errored
	if c.remote {
		if e.offered == nil {
			e.offered = c
		}
		return
	}
	if !e.local {
		e.local, e.at, e.mine = true, c.at, judge(&c.Header)
		e.Origin, e.Input, e.Arrived = c.Origin, c.Input, c.Arrived
		return
	}
	e.mine.improve(&c.Header)
}

// improve takes a copy's flags and counts if they are better in the order of the
// view. They go together: taking the best of each alone would make a segment of
// two poor copies better than either, and a node that had dropped one of them as
// superseded would see something else than one that had not. Only a
// discontinuity is none if any node has heard what was before.
func (j *judgement) improve(c *m4f.Header) {
	known := j.flags & c.Flags & m4f.Discontinuity
	theirs := judge(c)
	if cmp.Or(theirs.compare(*j), cmp.Compare(theirs.lost, j.lost)) < 0 {
		j.flags, j.lost, j.errored = theirs.flags, theirs.lost, theirs.errored
	}
	j.flags = j.flags&^m4f.Discontinuity | known
}

// compare is the part of the view's order that nodes may judge differently:
// clean, whole, fewer lost packets.
func (j judgement) compare(o judgement) int {
	return cmp.Or(
		cmp.Compare(j.flags&m4f.Damaged, o.flags&m4f.Damaged),
		cmp.Compare(j.flags&m4f.Partial, o.flags&m4f.Partial),
		cmp.Compare(uint64(j.lost)+uint64(j.errored), uint64(o.lost)+uint64(o.errored)),
	)
}

// better is the order of the view.
func better(a, b *Element) int {
	return cmp.Or(
		judge(&a.Header).compare(judge(&b.Header)),
		cmp.Compare(b.Duration, a.Duration),
		cmp.Compare(b.Length, a.Length),
		bytes.Compare(a.ID[:], b.ID[:]),
		cmp.Compare(a.UTC, b.UTC),
	)
}

// resolve fills in the parts of elements that are sorted by UTC. What an
// element shows depends on its neighbours in time alone, so it costs the
// overlaps, and the order of those elements that have one.
func resolve(els []candidate) {
	var longest m4f.UTC
	for i := range els {
		longest = max(longest, m4f.UTC(els[i].Duration))
	}
	parts := make([]Part, 0, len(els)+len(els)/8) // shared backing
	whole := func(x *candidate) {
		parts = append(parts, Part{0, int64(x.Duration)})
		x.Parts = parts[len(parts)-1 : len(parts) : len(parts)]
	}
	contested := contested(els)
	for i := range els {
		if !contested[i] {
			whole(&els[i])
		}
	}
	var order []int
	for i := range els {
		if contested[i] {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int { return better(&els[a].Element, &els[b].Element) })
	for _, i := range order {
		x := &els[i].Element
		n := len(parts)
		parts = append(parts, Part{0, int64(x.Duration)})
		for j := i - 1; j >= 0 && els[j].UTC > x.UTC-longest-utcSlack; j-- {
			parts = uncover(parts, n, x, &els[j].Element)
		}
		for j := i + 1; j < len(els) && els[j].UTC < x.End()+utcSlack; j++ {
			parts = uncover(parts, n, x, &els[j].Element)
		}
		x.Parts = parts[n:len(parts):len(parts)]
	}
}

// contested says which elements overlap another.
func contested(els []candidate) []bool {
	out := make([]bool, len(els))
	for i := range els {
		x := &els[i].Element
		for j := i + 1; j < len(els) && els[j].UTC < x.End()+utcSlack; j++ {
			if overlap(&x.Header, &els[j].Header) {
				out[i], out[j] = true, true
			}
		}
	}
	return out
}

// uncover takes from x's parts, parts[n:], those that y shows already.
func uncover(parts []Part, n int, x, y *Element) []Part {
	if len(y.Parts) == 0 || !overlap(&x.Header, &y.Header) {
		return parts
	}
	d := m4f.Diff33(y.MediaTime, x.MediaTime)
	for _, c := range y.Parts {
		from, to := c.From+d, c.To+d
		for k := n; k < len(parts); {
			p := parts[k]
			switch {
			case to <= p.From || p.To <= from:
				k++
			case from <= p.From && p.To <= to:
				parts = slices.Delete(parts, k, k+1)
			case p.From < from && to < p.To:
				parts[k].To = from
				parts = slices.Insert(parts, k+1, Part{to, p.To})
				k += 2
			case p.From < from:
				parts[k].To = from
				k++
			default:
				parts[k].From = to
				k++
			}
		}
	}
	return parts
}

// overlap says whether two segments show the same time.
func overlap(x, y *m4f.Header) bool {
	media := m4f.Diff33(y.MediaTime, x.MediaTime)
	if media >= int64(x.Duration) || -media >= int64(y.Duration) {
		return false
	}
	if sameTimeline(y.UTC, media, x.UTC) {
		return true
	}
	return min(x.End(), y.End())-max(x.UTC, y.UTC) > utcSlack
}

// sameTimeline says whether two instants, media ticks of media time apart, have
// the same offset between media time and UTC.
func sameTimeline(later m4f.UTC, media int64, earlier m4f.UTC) bool {
	d := m4f.Diff33(int64(later-earlier), media)
	return -utcSlack <= d && d <= utcSlack
}

// playingOrder sorts by UTC, and neighbours of one timeline by media time:
// nodes may date them some milliseconds apart.
func playingOrder(els []candidate) {
	slices.SortFunc(els, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.UTC.Add(a.Parts[0].From), b.UTC.Add(b.Parts[0].From)),
			cmp.Compare(a.UTC, b.UTC), bytes.Compare(a.ID[:], b.ID[:]))
	})
	for i := 1; i < len(els); i++ {
		for j := i; j > 0 && playsBefore(&els[j].Header, els[j].Parts[0].From, &els[j-1].Header, els[j-1].Parts[0].From); j-- {
			els[j], els[j-1] = els[j-1], els[j]
		}
	}
}

func playsBefore(a *m4f.Header, aFrom int64, b *m4f.Header, bFrom int64) bool {
	ua, ub := a.UTC.Add(aFrom), b.UTC.Add(bFrom)
	if ub-ua > utcSlack || ua-ub > utcSlack {
		return false // the sort by UTC decides
	}
	media := m4f.Diff33(a.MediaTime+aFrom, b.MediaTime+bFrom)
	return media < 0 && sameTimeline(ua, media, ub)
}

// Pieces returns the parts of a view's elements in playing order. An element
// that a better one splits comes once for each of its parts.
func Pieces(els []Element) []Piece { return pieces(els, false) }

// pieces is Pieces; split says that the elements may not be in the order of their
// first parts.
func pieces(els []Element, split bool) []Piece {
	out := make([]Piece, 0, len(els))
	for i := range els {
		for _, p := range els[i].Parts {
			out = append(out, Piece{&els[i], p})
		}
		split = split || len(els[i].Parts) > 1
	}
	if !split {
		return out
	}
	slices.SortStableFunc(out, func(a, b Piece) int { return cmp.Compare(a.Start(), b.Start()) })
	for i := 1; i < len(out); i++ {
		for j := i; j > 0 && playsBefore(&out[j].Header, out[j].Part.From, &out[j-1].Header, out[j-1].Part.From); j-- {
			out[j], out[j-1] = out[j-1], out[j]
		}
	}
	return out
}
