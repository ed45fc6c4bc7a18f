package render

import (
	"context"
	"slices"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// plan is what is known of an export before its media is read.
type plan struct {
	pieces []placed
	inits  map[m4f.Identity]*mapping
	tracks []*track
	length int64 // ticks, of the whole export
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
		if opt.From != 0 && piece.Stop() <= opt.From+spanSlack || opt.To != 0 && piece.Start() >= opt.To-spanSlack {
			continue
		}
		p.add(piece)
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
	next := placed{Piece: piece}
	if n := len(p.pieces); n > 0 {
		last := &p.pieces[n-1]
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
	if n := len(p.pieces); n == 0 || p.pieces[n-1].ID != piece.ID || p.pieces[n-1].UTC != piece.UTC {
		p.result.Segments++
		if piece.Damaged() {
			p.result.Damaged++
		}
	}
	p.result.Duration = m4f.Duration(p.length)
	p.pieces = append(p.pieces, next)
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

// oneTimeline says whether the length of the export is known ahead.
func (p *plan) oneTimeline() bool {
	return !slices.ContainsFunc(p.pieces, func(x placed) bool { return x.fresh })
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
	p.inits = map[m4f.Identity]*mapping{}
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
		init, err := m4f.ParseInit(seg.Init)
		if err != nil {
			return unreadable(e, err)
		}
		m := &mapping{init: init}
		p.inits[e.Init] = m
		order = append(order, m)
	}
	p.tracks = mergeTracks(order)
	return nil
}
