package serve

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/render"
)

const (
	// downloadWait is for how long a download of a transport stream waits for what
	// peers have of its span, and stretchWait any other for each stretch.
	downloadWait = time.Minute
	stretchWait  = 30 * time.Second
	// previewWait is for how long a picture waits.
	previewWait = 3 * time.Second
	// mostGaps bounds the gaps of a span that peers are asked about.
	mostGaps = 256
)

// offered is what peers have of a span that this archive lacks, and how it is
// fetched.
func (h *Handler) offered(q *play, from, to m4f.UTC) (o render.Offer, err error) {
	healer := h.play.healer
	if healer == nil {
		return o, nil
	}
	gaps, err := h.play.missing(q.archive, from, to)
	if err != nil {
		return o, err
	}
	ctx, cancel := context.WithTimeout(q.r.Context(), offerTime)
	defer cancel()
	for _, g := range gaps[:min(len(gaps), mostGaps)] {
		if ctx.Err() != nil {
			q.unasked = true // peers are slow: the file is made without what they have
			break
		}
		recs, err := q.offered(ctx, healer, g.From, g.To)
		if err != nil {
			return o, err
		}
		o.Records = append(o.Records, recs...)
	}
	name := q.name
	o.Fetch = func(ctx context.Context, from, to m4f.UTC) error {
		ctx, cancel := context.WithTimeout(ctx, stretchWait)
		defer cancel()
		if err := healer.Heal(ctx, name, from, to); err != nil {
			return unfetched(err)
		}
		return nil
	}
	return o, nil
}

// unfetched is the answer where what a peer has could not be had.
func unfetched(err error) error {
	return m4fhttp.Problemf(http.StatusServiceUnavailable, "a peer has this and it could not be fetched: %s", m4fhttp.Clip(err.Error()))
}

// fetchThrough has the node fetch what its archive lacks of a span and peers
// have, for as long as wait. What could not be had by then is not there for this
// request.
func (h *Handler) fetchThrough(q *play, from, to m4f.UTC, wait time.Duration) error {
	healer := h.play.healer
	if healer == nil {
		return nil
	}
	gaps, err := h.play.missing(q.archive, from, to)
	if err != nil || len(gaps) == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(q.r.Context(), wait)
	defer cancel()
	for _, g := range gaps {
		err := healer.Heal(ctx, q.name, g.From, g.To)
		if errors.Is(err, ErrUnasked) || errors.Is(err, context.DeadlineExceeded) {
			q.unasked = true
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			h.log.Debug("could not fetch what is played", "stream", q.name, "from", g.From.Time(), "to", g.To.Time(), "err", err)
		}
	}
	if err := q.r.Context().Err(); err != nil || q.unasked {
		return err
	}
	// Whether all peers could be asked is known without waiting by now.
	ask, stop := context.WithTimeout(q.r.Context(), offerTime)
	defer stop()
	_, err = q.offered(ask, healer, gaps[0].From, gaps[0].To)
	return err
}

// missing is what an archive has nothing of in a span: also from before it began, and
// not what may still be on its way.
func (p *player) missing(a *archive.Stream, from, to m4f.UTC) ([]archive.Gap, error) {
	to = min(to, p.now()-settling)
	if from >= to {
		return nil, nil
	}
	have, err := a.Coverage(from, to)
	if err != nil {
		return nil, err
	}
	var out []archive.Gap
	at := from
	for _, iv := range append(have, archive.Interval{From: to, To: to}) {
		if iv.From-at > holeSlack {
			out = append(out, archive.Gap{From: at, To: iv.From})
		}
		at = max(at, iv.To)
	}
	return out, nil
}
