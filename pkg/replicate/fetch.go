package replicate

import (
	"context"
	"errors"
	"net/http"
	"time"

	"golang.org/x/time/rate"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// fetched is a segment that has come, or why not.
type fetched struct {
	want archive.Want
	seg  *m4f.Segment // nil where the media is here
	err  error
}

// fetch gets segments, up to jobs of them at once, and calls fn with each in
// their order until it returns false or the context ends. No more than jobs
// segments are in memory.
func fetch(ctx context.Context, src Side, wants []archive.Want, jobs int, limit *rate.Limiter, fn func(fetched) bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	queue := make(chan chan fetched, jobs-1)
	go func() {
		defer close(queue)
		for _, w := range wants {
			c := make(chan fetched, 1)
			select {
			case queue <- c:
			case <-ctx.Done():
				return
			}
			go func() {
				got := fetched{want: w}
				if !w.Local {
					got.seg, got.err = fetchOne(ctx, src, &w.Record, limit)
				}
				c <- got
			}()
		}
	}()
	stopped := false
	for c := range queue {
		if got := <-c; !stopped && !fn(got) {
			stopped = true
			cancel()
		}
	}
}

// tries is how often a segment is asked for when the connection breaks.
const tries = 3

// fetchOne asks for a segment, and again where a connection broke.
func fetchOne(ctx context.Context, src Side, rec *archive.Record, limit *rate.Limiter) (seg *m4f.Segment, err error) {
	for i := range tries {
		seg, err = src.Fetch(ctx, rec, limit)
		if err == nil || ctx.Err() != nil || !transient(err) {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(i+1) * 200 * time.Millisecond):
		}
	}
	return seg, err
}

// transient says whether the other side may do better when asked again at
// once: it neither refused nor answered with something else nor fell silent.
func transient(err error) bool {
	var peer *m4fhttp.PeerError
	var bad *m4fhttp.BadAnswerError
	return errors.As(err, &peer) && !errors.As(err, &bad) && m4fhttp.StatusOf(err) == 0 &&
		!errors.Is(err, m4fhttp.ErrSilent) && !errors.Is(err, m4fhttp.ErrSlow)
}

// refusal says whether the other side is there and does not have, or misnames,
// one segment.
func refusal(err error) bool {
	var bad *m4fhttp.BadAnswerError
	var corrupt *archive.CorruptError
	return errors.As(err, &bad) || errors.As(err, &corrupt) || errors.Is(err, archive.ErrNoSegment) ||
		m4fhttp.StatusOf(err) == http.StatusNotFound
}
