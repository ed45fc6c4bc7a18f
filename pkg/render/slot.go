package render

import (
	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// Slot is a span of UTC, in Unix milliseconds, that an entry of a playlist names.
// What it shows is what the view shows then: an entry stays valid whatever is
// healed, superseded or dated some milliseconds otherwise after it was published.
// Slots that lie end to end show everything once.
type Slot struct{ From, To int64 }

const ticksPerMS = m4f.Timescale / 1000

// MaxSlot bounds the length of a slot that anybody asks for, in milliseconds: a
// segment is of an hour at most.
const MaxSlot = 3600_000

// Ticks are the slot's ends.
func (s Slot) Ticks() (from, to m4f.UTC) {
	return m4f.UTC(s.From * ticksPerMS), m4f.UTC(s.To * ticksPerMS)
}

// Around is the span that the view is to be asked for: with what the slot's edges
// may take in, and the neighbours.
func (s Slot) Around() (from, to m4f.UTC) {
	from, to = s.Ticks()
	return max(from-2*m4f.Timescale, 1), to + 2*m4f.Timescale
}

// Cut is what a slot shows of a piece of the view: [From, To) in ticks from the
// opening of the piece's segment.
type Cut struct {
	Piece    archive.Piece
	From, To int64
	// Prev and Next are the pieces before and behind it in the view, where media
	// time goes on between them; else nil.
	Prev, Next *archive.Piece
}

// whole says whether the cut is a whole segment.
func (c *Cut) whole() bool { return c.From == 0 && c.To == int64(c.Piece.Duration) }

// Cuts are what a slot shows of a view that holds its Around, in playing order.
func (s Slot) Cuts(view []archive.Element) []Cut {
	from, to := s.Ticks()
	pieces := archive.Pieces(view)
	var out []Cut
	for i := range pieces {
		c := Cut{Piece: pieces[i], From: cutAt(pieces[i], from), To: cutAt(pieces[i], to)}
		if c.From >= c.To {
			continue
		}
		c.connect(pieces, i)
		out = append(out, c)
	}
	return out
}

// connect finds the neighbours of a cut of a piece.
func (c *Cut) connect(pieces []archive.Piece, i int) {
	if i > 0 && joins(pieces[i-1], pieces[i]) {
		c.Prev = &pieces[i-1]
	}
	if i+1 < len(pieces) && joins(pieces[i], pieces[i+1]) {
		c.Next = &pieces[i+1]
	}
}

// cutAt is where an instant cuts a piece, in ticks from the opening of its
// segment. An instant within 250 ms of the nearer end of the piece is that end:
// nodes date one segment alike to within less, and healing may move a date by some
// milliseconds.
func cutAt(p archive.Piece, at m4f.UTC) int64 {
	before, behind := int64(at-p.Start()), int64(p.Stop()-at)
	switch {
	case before <= 0:
		return p.Part.From
	case behind <= 0:
		return p.Part.To
	case behind <= spanSlack && behind <= before:
		return p.Part.To
	case before <= spanSlack && before < behind:
		return p.Part.From
	}
	return p.Part.From + before
}

// Missing is what cuts leave of a slot: the stretches of more than 250 ms that none
// shows.
func (s Slot) Missing(cuts []Cut) []Gap {
	at, to := s.Ticks()
	var out []Gap
	for i := range cuts {
		c := &cuts[i]
		if from := c.Piece.UTC.Add(c.From); from > at+spanSlack {
			out = append(out, Gap{at, from})
		}
		at = max(at, c.Piece.UTC.Add(c.To))
	}
	if to > at+spanSlack {
		out = append(out, Gap{at, to})
	}
	return out
}

// joins says whether a piece goes on with the media time of the one before it.
func joins(a, b archive.Piece) bool {
	d := m4f.Diff33(b.Media(), a.Media()+a.Part.To-a.Part.From)
	return -contiguous <= d && d <= contiguous
}
