package archive

import (
	"fmt"
	"slices"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// Place is where the copy of an element lies that is read. Extents only grow, so
// it names the same bytes for as long as they are kept, whatever the view shows
// by then.
type Place struct{ at location }

// Place returns where an element that a Stream returned is read from.
func (e *Element) Place() Place { return Place{e.at} }

// Next says whether q is the place behind p, in one extent.
func (p Place) Next(q Place) bool {
	return p.at.hour == q.at.hour && p.at.name == q.at.name && p.at.number+1 == q.at.number
}

// EachPiece calls fn with the pieces of the view that show something of
// [from, to), in playing order, reading an hour at a time: what Pieces makes of
// Span, in memory that does not depend on the span. A piece is valid until fn
// returns.
func (s *Stream) EachPiece(from, to m4f.UTC, fn func(Piece)) error { return s.eachPiece(from, to, fn) }

// At returns the n segments that lie one behind the other from a place on, each
// shown whole, with the flags and the UTC of that copy. ErrNoSegment: they have
// been pruned or set aside since.
func (s *Stream) At(p Place, n int) ([]Element, error) {
	recs, err := s.recordsIn(p.at.hour)
	if err != nil {
		return nil, err
	}
	k := slices.IndexFunc(recs, func(r stored) bool { return r.at == p.at })
	if k < 0 || k+n > len(recs) || recs[k+n-1].at.name != p.at.name || int(recs[k+n-1].at.number-p.at.number) != n-1 {
		return nil, fmt.Errorf("%w: what was recorded at %s is no longer kept", ErrNoSegment, p.at.hour.start().Time().Format("2006-01-02T15Z"))
	}
	out := make([]Element, n)
	for i := range out {
		r := &recs[k+i]
		out[i] = Element{Record: r.Record, Parts: []Part{{0, int64(r.Duration)}}, at: r.at}
	}
	return out, nil
}
