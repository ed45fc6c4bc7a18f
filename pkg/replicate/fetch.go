package replicate

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
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
	came int64 // bytes of it that count as under way
}

// fetcher gets segments of another archive.
type fetcher struct {
	src   Side
	jobs  int // how many at once
	limit *rate.Limiter

	// under counts bytes that have come of segments that are not done: whoever
	// takes a segment takes its part away.
	under atomic.Int64
	// tick is called now and then while nothing is done, from the goroutine of
	// get; nil: not.
	tick func()
}

// tickEvery is how often a fetcher ticks.
const tickEvery = 250 * time.Millisecond

// get gets segments, and calls fn with each in their order until it returns
// false or the context ends. No more than jobs segments are in memory.
func (f *fetcher) get(ctx context.Context, wants []archive.Want, fn func(fetched) bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	queue := make(chan chan fetched, f.jobs-1)
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
					got.seg, got.came, got.err = f.one(ctx, &w.Record)
				}
				c <- got
			}()
		}
	}()
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	stopped := false
	for c := range queue {
		got := f.await(c, ticker.C, stopped)
		f.under.Add(-got.came)
		if !stopped && !fn(got) {
			stopped = true
			cancel()
		}
	}
}

// await waits for a segment, and ticks meanwhile unless that is over.
func (f *fetcher) await(c <-chan fetched, ticks <-chan time.Time, over bool) fetched {
	for {
		select {
		case got := <-c:
			return got
		case <-ticks:
			if f.tick != nil && !over {
				f.tick()
			}
		}
	}
}

// tries is how often a segment is asked for when the connection breaks.
const tries = 3

// one asks for a segment, and again where a connection broke. It counts no more
// than the segment's bytes as under way, and none twice.
func (f *fetcher) one(ctx context.Context, rec *archive.Record) (seg *m4f.Segment, came int64, err error) {
	for i := range tries {
		n := int64(0)
		seg, err = f.src.Fetch(ctx, rec, &Flow{Limit: f.limit, Count: func(k int) {
			n += int64(k)
			if more := min(n, int64(rec.Length)) - came; more > 0 {
				came += more
				f.under.Add(more)
			}
		}})
		if err == nil || ctx.Err() != nil || !transient(err) {
			break
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(i+1) * 200 * time.Millisecond):
		}
	}
	return seg, came, err
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
