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
	local   bool       // some copy is in this archive
	mine    m4f.Header // the best flags and earliest UTC of those copies
	remote  bool       // some copy is only offered to it
	offered Record     // the first of those
}

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
// occurrence. The elements come sorted by UTC.
func merge(recs []stored) []candidate {
	order := make([]*stored, len(recs))
	for i := range recs {
		order[i] = &recs[i]
	}
	slices.SortFunc(order, func(a, b *stored) int {
		return cmp.Or(bytes.Compare(a.ID[:], b.ID[:]), compareCopies(a, b))
	})
	els := make([]candidate, 0, len(recs))
	for i := 0; i < len(order); {
		e := candidate{Element: Element{Record: order[i].Record}}
		j := i
		for ; j < len(order) && order[j].ID == e.ID && order[j].UTC < e.UTC+occurrence; j++ {
			e.add(order[j])
		}
		els = append(els, e)
		i = j
	}
	slices.SortFunc(els, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.UTC, b.UTC), bytes.Compare(a.ID[:], b.ID[:]))
	})
	return els
}

// compareCopies puts the copies of one identity in an order that depends on
// nothing but them.
func compareCopies(a, b *stored) int {
	return cmp.Or(
		cmp.Compare(a.UTC, b.UTC),
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
	bestFlags(&e.Header, &c.Header)
	if c.remote {
		if !e.remote {
			e.remote, e.offered = true, c.Record
		}
		return
	}
	if !e.local {
		e.local, e.at, e.mine = true, c.at, c.Header
		e.Origin, e.Input, e.Arrived = c.Origin, c.Input, c.Arrived
		return
	}
	bestFlags(&e.mine, &c.Header)
}

// bestFlags gives h the flags and counts of c if they are better in the order
// of the view. They go together: taking the best of each alone would make a
// segment of two poor copies better than either, and a node that had dropped one
// of them as superseded would see something else than one that had not. Only a
// discontinuity is none if any node has heard what was before.
func bestFlags(h, c *m4f.Header) {
	known := h.Flags & c.Flags & m4f.Discontinuity
	if cmp.Or(compareFlags(c, h), cmp.Compare(c.Lost, h.Lost)) < 0 {
		h.Flags, h.Lost, h.Errored = c.Flags, c.Lost, c.Errored
	}
	h.Flags = h.Flags&^m4f.Discontinuity | known
}

// compareFlags is the part of the view's order that nodes may judge
// differently: clean, whole, fewer lost packets.
func compareFlags(a, b *m4f.Header) int {
	return cmp.Or(
		cmp.Compare(a.Flags&m4f.Damaged, b.Flags&m4f.Damaged),
		cmp.Compare(a.Flags&m4f.Partial, b.Flags&m4f.Partial),
		cmp.Compare(uint64(a.Lost)+uint64(a.Errored), uint64(b.Lost)+uint64(b.Errored)),
	)
}

// better is the order of the view.
func better(a, b *Element) int {
	return cmp.Or(
		compareFlags(&a.Header, &b.Header),
		cmp.Compare(b.Duration, a.Duration),
		cmp.Compare(b.Length, a.Length),
		bytes.Compare(a.ID[:], b.ID[:]),
		cmp.Compare(a.UTC, b.UTC),
	)
}

// resolve fills in the parts of elements that are sorted by UTC. What an
// element shows depends on its neighbours in time alone, so it costs n log n
// and the overlaps.
func resolve(els []candidate) {
	var longest m4f.UTC
	order := make([]int, len(els))
	for i := range els {
		order[i] = i
		longest = max(longest, m4f.UTC(els[i].Duration))
	}
	slices.SortFunc(order, func(a, b int) int { return better(&els[a].Element, &els[b].Element) })
	parts := make([]Part, 0, len(els)+len(els)/8) // shared backing
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

// uncover takes from x's parts, parts[n:], those that y shows already.
func uncover(parts []Part, n int, x, y *Element) []Part {
	if len(y.Parts) == 0 || !overlap(x, y) {
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
func overlap(x, y *Element) bool {
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
		for j := i; j > 0 && playsBefore(&els[j].Element, els[j].Parts[0].From, &els[j-1].Element, els[j-1].Parts[0].From); j-- {
			els[j], els[j-1] = els[j-1], els[j]
		}
	}
}

func playsBefore(a *Element, aFrom int64, b *Element, bFrom int64) bool {
	ua, ub := a.UTC.Add(aFrom), b.UTC.Add(bFrom)
	if ub-ua > utcSlack || ua-ub > utcSlack {
		return false // the sort by UTC decides
	}
	media := m4f.Diff33(a.MediaTime+aFrom, b.MediaTime+bFrom)
	return media < 0 && sameTimeline(ua, media, ub)
}

// Pieces returns the parts of a view's elements in playing order. An element
// that a better one splits comes once for each of its parts.
func Pieces(els []Element) []Piece {
	out := make([]Piece, 0, len(els))
	split := false
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
		for j := i; j > 0 && playsBefore(out[j].Element, out[j].Part.From, out[j-1].Element, out[j-1].Part.From); j-- {
			out[j], out[j-1] = out[j-1], out[j]
		}
	}
	return out
}
