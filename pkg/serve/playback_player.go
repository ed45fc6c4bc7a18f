package serve

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/render"
)

// player is what playback remembers between requests. All of it is bounded, and
// none of it is needed: it follows from the archives.
type player struct {
	healer Healer // nil: the node fetches nothing
	clock  clock.Clock

	movies  *recent[m4f.Identity, *render.Movie]  // by init segment
	named   *recent[movieName, *render.Movie]     // that a playlist has named
	layouts *recent[m4f.Identity, *render.Layout] // by segment
	wrapped *recent[m4f.Identity, bool]           // by segment
	lists   *recent[listKey, *spanList]
	feeds   *recent[feedKey, *feed]
}

// movieName is how an init segment is named in addresses.
type movieName struct {
	choice render.Choice
	name   string
}

// Bounds of what is remembered.
const (
	keepMovies  = 256
	keepNames   = 1024
	keepLayouts = 4 << 20 // bytes, about
	keepWrapped = 4096
	keepLists   = 64 << 20 // bytes, about, of those that are over and of those that grow
)

func newPlayer(n Node, c clock.Clock) *player {
	p := &player{
		clock:   c,
		movies:  newRecent[m4f.Identity, *render.Movie](keepMovies),
		named:   newRecent[movieName, *render.Movie](keepNames),
		layouts: newRecent[m4f.Identity, *render.Layout](keepLayouts),
		wrapped: newRecent[m4f.Identity, bool](keepWrapped),
		lists:   newRecent[listKey, *spanList](keepLists),
		feeds:   newRecent[feedKey, *feed](keepLists),
	}
	p.healer, _ = n.(Healer)
	return p
}

func (p *player) now() m4f.UTC { return m4f.UTCOf(p.clock.Now()) }

// movie is what a segment's init segment says.
func (p *player) movie(a *archive.Stream, e *archive.Element) (*render.Movie, error) {
	if m, ok := p.movies.get(e.Init); ok {
		return m, nil
	}
	media, err := a.OpenElement(e)
	if err != nil {
		return nil, err
	}
	defer media.Close()
	m, err := render.NewMovie(media.Init)
	if err != nil {
		return nil, err
	}
	// What the samples tell is for players to choose by; they do without.
	_ = m.Look(&media.Header, media.Section())
	p.movies.put(e.Init, m, 1)
	return m, nil
}

// layout is what is known of a segment's media without reading it. Where its bytes
// are bad the archive sets it aside, and another copy is read.
func (p *player) layout(a *archive.Stream, e *archive.Element) (*render.Layout, error) {
	if l, ok := p.layouts.get(e.ID); ok {
		return l, nil
	}
	movie, err := p.movie(a, e)
	if err != nil {
		return nil, err
	}
	for again := false; ; again = true {
		media, err := a.OpenElement(e)
		if err != nil {
			return nil, err
		}
		l, err := render.ReadLayout(movie, &media.Header, media.Section())
		if err == nil {
			p.layouts.put(e.ID, l, l.Cost())
		} else if !again && media.Check() != nil {
			media.Close()
			continue // that copy is set aside now
		}
		media.Close()
		return l, err
	}
}

// isWrapped is render.Lister's Wrapped.
func (p *player) isWrapped(a *archive.Stream, e *archive.Element) bool {
	if w, ok := p.wrapped.get(e.ID); ok {
		return w
	}
	l, err := p.layout(a, e)
	if err != nil {
		return false
	}
	p.wrapped.put(e.ID, l.Wrapped(), 1)
	return l.Wrapped()
}

// view is what there is of a stream in a span, here and at peers.
type view struct {
	ctx     context.Context // of the request that it was read for
	archive *archive.Stream
	name    string
	own     map[m4f.Identity]bool // nil: all are here
	pieces  []archive.Piece
}

// maxHoles bounds the gaps of a span that peers are asked about.
const maxHoles = 64

// view reads what shows something of [from, to), in playing order. Where a peer has
// what lacks here it is in the view as if it were here.
func (p *player) view(q *play, from, to m4f.UTC) (*view, error) {
	els, err := q.archive.Span(from, to)
	if err != nil {
		return nil, err
	}
	v := &view{ctx: q.r.Context(), archive: q.archive, name: q.name, pieces: archive.Pieces(els)}
	if p.healer == nil {
		return v, nil
	}
	var offered []archive.Record
	began := time.Now()
	for _, g := range p.holes(v.pieces, from, to) {
		if time.Since(began) > offerTime {
			q.unasked = true
			break // peers are slow: what they have is not listed for now
		}
		recs, err := q.offered(q.r.Context(), p.healer, g.From, g.To)
		if err != nil {
			return nil, err
		}
		offered = append(offered, recs...)
	}
	if len(offered) == 0 {
		return v, nil
	}
	v.own = make(map[m4f.Identity]bool, len(els))
	recs := make([]archive.Record, 0, len(els)+len(offered))
	for i := range els {
		recs = append(recs, els[i].Record)
		v.own[els[i].ID] = true
	}
	v.pieces = v.pieces[:0]
	for _, piece := range archive.Pieces(archive.View(append(recs, offered...))) {
		if piece.Stop() > from && (to == 0 || piece.Start() < to) {
			v.pieces = append(v.pieces, piece)
		}
	}
	return v, nil
}

// holes are the gaps of a span, its edges included, that peers may fill: what is
// recorded live is no gap yet.
func (p *player) holes(pieces []archive.Piece, from, to m4f.UTC) []archive.Gap {
	var out []archive.Gap
	at := from
	add := func(until m4f.UTC) {
		if at > 0 && until-at > holeSlack && len(out) < maxHoles {
			out = append(out, archive.Gap{From: at, To: until})
		}
	}
	for i := range pieces {
		if i == 0 || !archive.Follows(pieces[i-1], pieces[i]) {
			add(pieces[i].Start())
		}
		at = max(at, pieces[i].Stop())
	}
	// The end is told in steps, so that what peers say of it holds for a while.
	end := (p.now() - arriving) / arriving * arriving
	if to != 0 {
		end = min(end, to)
	}
	add(end)
	return out
}

const (
	// holeSlack is how long a gap is that peers are asked about.
	holeSlack = m4f.Timescale / 4
	// settling is for how long what lacks ahead of what came live may still be on its
	// way, and arriving how long ago it is by when the newest has come.
	settling = 3 * m4f.Timescale
	arriving = 10 * m4f.Timescale
	// offerTime is for how long peers are asked what they have of one list.
	offerTime = 3 * time.Second
)

// lister makes the entries of a view that is read piece by piece; v is the one read
// last.
func (p *player) lister(v **view) *render.Lister {
	l := &render.Lister{Wrapped: func(e *archive.Element) bool {
		return (*v).has(e) && p.isWrapped((*v).archive, e)
	}}
	asked := false
	l.Movie = func(e *archive.Element) (*render.Movie, error) {
		x := *v
		if m, ok := p.movies.get(e.Init); ok {
			return m, nil
		}
		here := x.has(e)
		if !here && !asked {
			// How a peer's segment is coded is not known before one is here.
			asked = true
			here = p.heal(x.ctx, x.name, e.UTC, e.End()) == nil
		}
		if here {
			if m, err := p.movie(x.archive, e); err == nil {
				return m, nil
			}
		}
		if err := x.ctx.Err(); err != nil {
			return nil, err
		}
		if last, ok := l.Last(); ok {
			return last.Movie, nil
		}
		return nil, nil // it cannot be read now
	}
	return l
}

// has says whether an element of the view is in this archive.
func (v *view) has(e *archive.Element) bool { return v.own == nil || v.own[e.ID] }

// healTime is how long a player waits for what is fetched from a peer.
const healTime = 15 * time.Second

func (p *player) heal(ctx context.Context, name string, from, to m4f.UTC) error {
	ctx, cancel := context.WithTimeout(ctx, healTime)
	defer cancel()
	return p.healer.Heal(ctx, name, from, to)
}

// gone says whether an error is that a segment is not there any more.
func gone(err error) bool {
	return errors.Is(err, archive.ErrNoSegment) || errors.Is(err, io.ErrUnexpectedEOF)
}
