// Package replicate compares archives of a stream, fills one from another, and
// follows a peer's archive as it grows. All three go the same way: learn which
// segments the other side's view has, ask the own archive which of them its view
// would take, fetch those and check that they are what their names say. So
// nothing is fetched twice, nothing that is here already is fetched at all, and
// any order, repetition or interruption ends in the same archive.
//
// Where both sides have damage, a Healer goes below the segment: it learns which
// packets the other side keeps of that time (package salvage), fetches those that
// are not here, merges both copies and cuts the result again. What comes of that
// enters the archive as a segment like any other, with the identity that whoever
// has heard all of it writes. Followers heal so while it is warm, and each
// comparison and backfill what was left.
package replicate

import (
	"context"
	"io"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/salvage"
)

// Side is an archive that is compared or fetched from: a directory, or a peer.
// A span's from 0 is the beginning, its to 0 the end.
type Side interface {
	// String names the archive for messages.
	String() string
	Info(ctx context.Context) (SideInfo, error)
	// Hours returns the hours of the view that overlap a span, in order.
	Hours(ctx context.Context, from, to m4f.UTC) ([]archive.Hour, error)
	// Segments returns the elements of the view with a part in a span, in playing
	// order.
	Segments(ctx context.Context, from, to m4f.UTC) ([]archive.Element, error)
	// Fetch returns a segment of the view, its bytes verified and its header
	// the record's. Its bytes pass the flow unless that is nil.
	Fetch(ctx context.Context, rec *archive.Record, flow *Flow) (*m4f.Segment, error)
	// Salvage returns the entries of kept packets that are for segments of a
	// span, by start. The error wraps m4fhttp.ErrNoSalvage where the other side
	// knows of none.
	Salvage(ctx context.Context, from, to m4f.UTC) ([]salvage.Entry, error)
	// SalvageCopy is the copy of such an entry. What is fetched of it passes the
	// flow unless that is nil.
	SalvageCopy(e *salvage.Entry, flow *Flow) salvage.Peer
}

// Flow is what fetched bytes pass: they are counted as they come, held up where
// something else goes first, and then held to a rate.
type Flow struct {
	Limit *rate.Limiter               // nil: none
	Count func(n int)                 // called with each piece, from the goroutine that fetches; nil: not
	Yield func(context.Context) error // called behind Count; nil: not
}

// pass counts n bytes and waits until the rate allows them.
func (f *Flow) pass(ctx context.Context, n int) error {
	if f == nil {
		return ctx.Err()
	}
	if f.Count != nil {
		f.Count(n)
	}
	if f.Yield != nil {
		if err := f.Yield(ctx); err != nil {
			return err
		}
	}
	return take(ctx, f.Limit, n)
}

// SideInfo is what a comparison has to know of an archive.
type SideInfo struct {
	TargetDuration int64 // D in ticks, 0: not yet known
	Rules          int
	Horizon        m4f.UTC // before it, everything has been pruned; 0: nothing has
	Oldest, Newest m4f.UTC // start of the first segment, end of the last; 0, 0: empty
}

// Dir is the Side of an archive on this machine.
type Dir struct{ Stream *archive.Stream }

// String implements Side.
func (d Dir) String() string { return d.Stream.Dir() }

// Info implements Side.
func (d Dir) Info(context.Context) (SideInfo, error) {
	i, err := d.Stream.Info()
	return SideInfo{i.TargetDuration, i.Rules, i.Horizon, i.Oldest, i.Newest}, err
}

// Hours implements Side.
func (d Dir) Hours(_ context.Context, from, to m4f.UTC) ([]archive.Hour, error) {
	return d.Stream.Hours(from, to)
}

// Segments implements Side.
func (d Dir) Segments(_ context.Context, from, to m4f.UTC) ([]archive.Element, error) {
	return d.Stream.Span(from, to)
}

// Fetch implements Side.
func (d Dir) Fetch(ctx context.Context, rec *archive.Record, flow *Flow) (*m4f.Segment, error) {
	if err := flow.pass(ctx, int(rec.Length)); err != nil {
		return nil, err
	}
	seg, err := d.Stream.ReadSegment(rec.ID, rec.UTC)
	if err != nil {
		return nil, err
	}
	seg.Header = rec.Header
	return seg, nil
}

// Peer is the Side of an archive on another node.
type Peer struct{ *m4fhttp.Client }

// Info implements Side.
func (p Peer) Info(ctx context.Context) (SideInfo, error) {
	i, err := p.Client.Info(ctx)
	if err != nil {
		return SideInfo{}, err
	}
	info := SideInfo{TargetDuration: i.TargetDuration, Rules: i.Rules}
	for _, v := range []struct {
		dst *m4f.UTC
		src *m4fhttp.Time
	}{{&info.Horizon, i.Horizon}, {&info.Oldest, i.Oldest}, {&info.Newest, i.Newest}} {
		if v.src != nil {
			*v.dst = m4f.UTC(*v.src)
		}
	}
	return info, nil
}

// Fetch implements Side.
func (p Peer) Fetch(ctx context.Context, rec *archive.Record, flow *Flow) (*m4f.Segment, error) {
	if flow == nil {
		return p.Media(ctx, rec, nil)
	}
	return p.Media(ctx, rec, func(r io.Reader) io.Reader { return &flowing{ctx, r, flow} })
}

// flowing is a reader whose bytes pass a flow.
type flowing struct {
	ctx  context.Context
	r    io.Reader
	flow *Flow
}

func (l *flowing) Read(p []byte) (int, error) {
	if limit := l.flow.Limit; limit != nil && len(p) > limit.Burst() {
		p = p[:limit.Burst()]
	}
	n, err := l.r.Read(p)
	if werr := l.flow.pass(l.ctx, n); werr != nil {
		return n, werr
	}
	return n, err
}

// take waits until the limiter gives n bytes.
func take(ctx context.Context, limit *rate.Limiter, n int) error {
	if limit == nil {
		return ctx.Err()
	}
	for n > 0 {
		some := min(n, limit.Burst())
		if err := limit.WaitN(ctx, some); err != nil {
			return err
		}
		n -= some
	}
	return nil
}

// NewLimiter returns a limiter for a number of bytes a second, nil for 0. What
// goes at once is a fiftieth of a second's worth, so that a few seconds keep to
// the rate already.
func NewLimiter(bytesPerSecond int64) *rate.Limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytesPerSecond), int(min(max(bytesPerSecond/50, 1<<10), 1<<20)))
}

// both asks both sides at once.
func both[T any](ctx context.Context, a, b Side, ask func(context.Context, Side) (T, error)) (ra, rb T, err error) {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) { ra, err = ask(ctx, a); return err })
	g.Go(func() (err error) { rb, err = ask(ctx, b); return err })
	err = g.Wait()
	return ra, rb, err
}
