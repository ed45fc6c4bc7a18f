package serve

import (
	"context"
	"errors"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// downloadWait is for how long a download waits for what peers have of its span.
const downloadWait = 20 * time.Second

// fetchThrough has the node fetch what its archive lacks of a span and peers
// have, for as long as wait. What could not be had by then is fetched on, and is
// not there for this request.
func (h *Handler) fetchThrough(q *play, from, to m4f.UTC, wait time.Duration) error {
	healer, ok := h.node.(Healer)
	if !ok {
		return nil
	}
	missing, err := missing(q.archive, from, to)
	if err != nil || len(missing) == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(q.r.Context(), wait)
	defer cancel()
	for _, g := range missing {
		if err := healer.Heal(ctx, q.name, g.From, g.To); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			h.log.Debug("could not fetch what is played", "stream", q.name, "from", g.From.Time(), "to", g.To.Time(), "err", err)
		}
	}
	return q.r.Context().Err()
}

// missing is what an archive has nothing of in a span: also from before it began.
func missing(a *archive.Stream, from, to m4f.UTC) ([]archive.Gap, error) {
	const least = m4f.Timescale / 4 // what nodes may differ by is none
	have, err := a.Coverage(from, to)
	if err != nil {
		return nil, err
	}
	var out []archive.Gap
	at := from
	for _, iv := range append(have, archive.Interval{From: to, To: to}) {
		if iv.From-at > least {
			out = append(out, archive.Gap{From: at, To: iv.From})
		}
		at = max(at, iv.To)
	}
	return out, nil
}
