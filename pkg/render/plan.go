package render

import (
	"context"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// plan is what is known of an export before its media is read.
type plan struct {
	pieces []placed
	inits  map[m4f.Identity]*mapping
	tracks []*track
	length int64 // ticks, of the whole export
	jumps  bool  // a new timeline begins inside it
	result Result
}

// placed is a piece of the view and where on the export's time axis it goes.
// The axis starts, for now, at the opening of the first piece.
type placed struct {
	archive.Piece
	start int64 // ticks
	joins bool  // goes on with the media time of the piece before it
	fresh bool  // a new timeline
}

// contiguous is how many ticks of media time may be between two pieces of one
// timeline that join.
const contiguous = m4f.Timescale / 200

func makePlan(a Archive, opt Options) (*plan, error) {
	els, err := a.Span(opt.From, opt.To)
	if err != nil {
		return nil, err
	}
	p := &plan{}
	for _, piece := range archive.Pieces(els) {
		if opt.inside(piece) {
			p.add(piece)
		}
	}
	if len(p.pieces) == 0 {
		return nil, ErrEmpty
	}
	oldest, newest, err := a.Bounds()
	if err != nil {
		return nil, err
	}
	p.edges(opt, oldest, newest)
	return p, nil
}

// add places one more piece behind the others.
func (p *plan) add(piece archive.Piece) {
	var last *placed
	if n := len(p.pieces); n > 0 {
		last = &p.pieces[n-1]
	}
	p.pieces = append(p.pieces, p.place(last, piece))
}

// place finds where on the axis a piece goes that comes behind last, nil for the
// first, and counts it.
func (p *plan) place(last *placed, piece archive.Piece) placed {
	next := placed{Piece: piece}
	if last != nil {
		end := last.start + last.To - last.From
		media := m4f.Diff33(piece.Media(), last.Media()+last.To-last.From)
		utc := int64(piece.Start() - last.Stop())
		next.start = end
		next.joins = -contiguous <= media && media <= contiguous
		if media > 0 && sameClock(utc, media) {
			next.start = end + media
		} else {
			next.fresh = !next.joins
		}
		if !archive.Follows(last.Piece, piece) {
			p.result.Gaps = append(p.result.Gaps, Gap{last.Stop(), piece.Start()})
		}
	}
	p.length = next.start + piece.To - piece.From
	p.jumps = p.jumps || next.fresh
	if last == nil || last.ID != piece.ID || last.UTC != piece.UTC {
		p.result.Segments++
		if piece.Damaged() {
			p.result.Damaged++
		}
	}
	p.result.Duration = m4f.Duration(p.length)
	return next
}

// inside says whether a piece reaches far enough into the span to be taken.
func (o *Options) inside(p archive.Piece) bool {
	return (o.From == 0 || p.Stop() > o.From+spanSlack) && (o.To == 0 || p.Start() < o.To-spanSlack)
}

// sameClock says whether a pause is as long in UTC as in media time.
func sameClock(utc, media int64) bool {
	slack := m4f.Timescale + max(utc, 0)/2000
	return -slack <= utc-media && utc-media <= slack
}

// edges adds the gaps at the ends of the span: what is asked for, lies inside
// the archive, and is not there.
func (p *plan) edges(opt Options, oldest, newest m4f.UTC) {
	first, last := p.pieces[0], p.pieces[len(p.pieces)-1]
	if from := max(opt.From, oldest); opt.From != 0 && first.Start() > from+spanSlack {
		p.result.Gaps = append([]Gap{{from, first.Start()}}, p.result.Gaps...)
	}
	if to := min(opt.To, newest); opt.To != 0 && last.Stop() < to-spanSlack {
		p.result.Gaps = append(p.result.Gaps, Gap{last.Stop(), to})
	}
}

// total is how many bytes of media will be read.
func (p *plan) total(twice bool) int64 {
	n := int64(0)
	for i := range p.pieces {
		n += int64(p.pieces[i].Length)
	}
	if twice {
		n *= 2
	}
	return n
}

// readInits reads the init segments that the pieces have and makes the tracks.
func (p *plan) readInits(ctx context.Context, a Archive) error {
	var order []*mapping
	for i := range p.pieces {
		e := p.pieces[i].Element
		if p.inits[e.Init] != nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		seg, err := a.ReadElement(e)
		if err != nil {
			return err
		}
		m, err := p.know(e, seg.Init)
		if err != nil {
			return err
		}
		order = append(order, m)
	}
	p.tracks = mergeTracks(order)
	return nil
}

// know takes note of the init segment of an element.
func (p *plan) know(e *archive.Element, b []byte) (*mapping, error) {
	init, err := m4f.ParseInit(b)
	if err != nil {
		return nil, unreadable(e, err)
	}
	m := &mapping{init: init}
	if p.inits == nil {
		p.inits = map[m4f.Identity]*mapping{}
	}
	p.inits[e.Init] = m
	return m, nil
}
