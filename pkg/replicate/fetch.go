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

	done   func()  // ends its turn
	flight *flight // of a segment that others are kept from fetching
	gone   bool    // it is no longer wanted: another peer gave it meanwhile
}

// fetcher gets segments of another archive.
type fetcher struct {
	src   Side
	jobs  int // how many at once
	limit *rate.Limiter

	share *Share          // with whoever else fetches; nil: nobody
	dst   *archive.Stream // where segments go; it may be nil where share is
	heal  bool            // what is live goes first
	// patience is how long the segment whose turn it is may bring nothing: then
	// its error is errHung. 0: as long as the other side lets it.
	patience time.Duration

	// under counts bytes that have come of segments that are not done: whoever
	// takes a segment takes its part away.
	under atomic.Int64
	// tick is called now and then while nothing is done, from the goroutine of
	// get; nil: not.
	tick func()
}

// errHung is the error of a segment that was given up for those behind it.
var errHung = errors.New("nothing of the segment comes")

// tickEvery is how often a fetcher ticks.
const tickEvery = 250 * time.Millisecond

// get gets segments, and calls fn with each in their order until it returns
// false, the context ends or the archive cannot be written. No more than jobs segments are in memory.
func (f *fetcher) get(ctx context.Context, wants []archive.Want, fn func(fetched) bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	queue := make(chan *fetching, f.jobs-1)
	go f.start(ctx, wants, queue)
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	stopped := false
	for one := range queue {
		got := f.await(one, ticker.C, stopped)
		f.under.Add(-got.came)
		if !stopped && !fn(got) {
			stopped = true
			cancel()
		}
		f.finish(&got)
	}
}

// fetching is a segment that is under way.
type fetching struct {
	c      chan fetched
	moved  atomic.Int64 // when a byte last came, or it was asked for, Unix nanoseconds
	cancel context.CancelCauseFunc
}

// start begins to get one segment after the other. A slot is taken ahead of each,
// in their order, so that one whose turn it is never waits for one behind it.
func (f *fetcher) start(ctx context.Context, wants []archive.Want, queue chan<- *fetching) {
	defer close(queue)
	for _, w := range wants {
		if f.heal && f.share.yield(ctx, nil, yieldSegment) != nil || f.slots().take(ctx) != nil {
			return
		}
		done, err := f.share.turn(ctx)
		if err != nil {
			f.slots().give()
			return
		}
		one := &fetching{c: make(chan fetched, 1)}
		ctx, cancel := context.WithCancelCause(ctx)
		one.cancel = cancel
		select {
		case queue <- one:
		case <-ctx.Done():
			cancel(nil)
			done()
			f.slots().give()
			return
		}
		one.move()
		go func() {
			defer cancel(nil)
			got := fetched{want: w, done: done}
			if !w.Local {
				f.fetch(ctx, one, &got)
			}
			if got.err != nil && errors.Is(context.Cause(ctx), errHung) {
				got.err = errHung
			}
			one.c <- got
		}()
	}
}

// slots are those that segments of this fetcher take.
func (f *fetcher) slots() Slots {
	if !f.heal || f.share == nil {
		return nil
	}
	return f.share.Slots
}

// finish lets others go on once a segment is where it belongs.
func (f *fetcher) finish(got *fetched) {
	f.share.land(got.want.ID, got.flight)
	got.done()
	f.slots().give()
}

// fetch gets a segment, unless somebody else does.
func (f *fetcher) fetch(ctx context.Context, on *fetching, got *fetched) {
	var err error
	if got.flight, _, err = f.share.join(ctx, got.want.ID, !f.heal); err != nil {
		got.err = err
		return
	}
	if f.share != nil && f.dst != nil {
		if has, err := f.dst.Has(got.want.ID, got.want.UTC); err == nil && has {
			wants, err := f.dst.Wants([]archive.Record{got.want.Record})
			switch {
			case err != nil:
				got.err = err
				return
			case len(wants) == 0:
				got.gone = true
				return
			case wants[0].Local:
				got.want = wants[0]
				return
			}
		}
	}
	got.seg, got.came, got.err = f.one(ctx, on, &got.want.Record, got.flight)
}

// move notes that something of a segment has come.
func (one *fetching) move() { one.moved.Store(time.Now().UnixNano()) }

// await waits for a segment as long as the fetcher has patience, and ticks
// meanwhile unless that is over.
func (f *fetcher) await(one *fetching, ticks <-chan time.Time, over bool) fetched {
	for {
		select {
		case got := <-one.c:
			return got
		case <-ticks:
			if at := one.moved.Load(); f.patience > 0 && at > 0 && time.Since(time.Unix(0, at)) > f.patience {
				one.cancel(errHung)
			}
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
func (f *fetcher) one(ctx context.Context, on *fetching, rec *archive.Record, fl *flight) (seg *m4f.Segment, came int64, err error) {
	for i := range tries {
		n := int64(0)
		seg, err = f.src.Fetch(ctx, rec, &Flow{Limit: f.limit, Yield: f.yield(fl), Count: func(k int) {
			n += int64(k)
			on.move()
			fl.flow()
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

// yield is what a flow calls to let what is live go first; nil where this is.
func (f *fetcher) yield(fl *flight) func(context.Context) error {
	if !f.heal || f.share == nil || !f.share.gate.trusted() {
		return nil // what is live may wait for the turn of this one
	}
	return func(ctx context.Context) error { return f.share.yield(ctx, fl, yieldRead) }
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
