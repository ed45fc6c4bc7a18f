package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/ingest"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/segment"
	"github.com/twindvr/twindvr/pkg/serve"
)

const (
	// queued segments wait for a slow disk; the next is lost here and healed
	// from the peer.
	queued = 8
	// drain is how long the queue may take to be written at the end.
	drain = 3 * time.Second
	// rewrite is how often a write that failed is tried again.
	rewrite = time.Second
)

// source is an input that is the stream's source itself. While it is wanted it
// is heard, segmented, and what the archive's view would take of it written.
type source struct {
	s     *stream
	index int
	in    *config.Input

	mu       sync.Mutex
	wanted   bool
	wake     chan struct{}      // closed and renewed when wanted changes
	stop     context.CancelFunc // ends the run under way
	state    string
	err      error
	heard    time.Time // when an access unit last came
	goodFrom time.Time // since when without a break
	stats    segment.Stats
	base     segment.Stats // of the runs before
	io       ingest.Stats
	ioBase   ingest.Stats
	opens    int64
	lastSeg  time.Time
	told     teller
	losses   lossTeller

	unwritten atomic.Int64 // segments that the archive was too slow for
}

func newSource(s *stream, index int) *source {
	return &source{s: s, index: index, in: s.cfg.Inputs[index], wake: make(chan struct{}), state: stateClosed}
}

// The states of an input.
const (
	stateGood    = "good"    // it delivers
	stateWaiting = "waiting" // it is open and has delivered nothing usable yet
	stateClosed  = "closed"  // it is not wanted
	stateSilent  = "silent"  // it has stopped delivering
	stateFailed  = "failed"  // it cannot be opened or read
)

func (c *source) String() string { return "input " + c.name() + " of " + c.s.cfg.Name }

// url is the input's URL without credentials.
func (c *source) url() string { return ingest.Redact(c.in.URL) }

// name is its URL and which program of it is recorded.
func (c *source) name() string { return serve.InputName(c.url(), c.in.Program) }

var errEnded = errors.New("it has ended")

// want opens or closes the source.
func (c *source) want(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wanted == on {
		return
	}
	c.wanted = on
	close(c.wake)
	c.wake = make(chan struct{})
	if !on && c.stop != nil {
		c.stop()
	}
}

// good says whether the source works, and since when.
func (c *source) good(now time.Time) (bool, time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.heard.IsZero() || now.Sub(c.heard) > c.in.SourceTimeout || c.state != stateGood {
		return false, time.Time{}
	}
	return true, c.goodFrom
}

// age is for how long the source has delivered nothing; false: it has not been
// heard at all, or is closed.
func (c *source) age(now time.Time) (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.heard.IsZero() || c.state == stateClosed {
		return 0, false
	}
	return max(now.Sub(c.heard), 0), true
}

func (c *source) set(state string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state, c.err = state, err
	if state != stateGood {
		c.goodFrom = time.Time{}
	}
}

// opened notes that the source is open. Why it was lost stays known until it
// delivers.
func (c *source) opened() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state = stateWaiting
}

// Serve implements suture.Service: it opens the source whenever it is wanted,
// and again with growing pauses when it fails.
func (c *source) Serve(ctx context.Context) error {
	pause := backoff{most: c.in.MaxRetryTimeout}
	for {
		c.mu.Lock()
		wanted, wake := c.wanted, c.wake
		c.mu.Unlock()
		if !wanted {
			c.set(stateClosed, nil)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-wake:
			}
			pause.reset()
			c.mu.Lock()
			c.told = teller{}
			c.mu.Unlock()
			continue
		}
		began := c.s.node.now()
		heard, err := c.once(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			continue // closed: not wanted any more
		}
		ran := c.s.node.since(began)
		if errors.As(err, new(*ingest.SilentError)) {
			// It was waited for all the time: who sends or calls now must not
			// meet a closed socket.
			pause.reset()
		}
		c.lost(err, heard && ran > c.in.MaxRetryTimeout)
		if !c.s.node.pause(ctx, pause.after(ran, err)) {
			return ctx.Err()
		}
	}
}

// lost tells that the input was lost, or cannot be opened. steady says that it
// had delivered for some time: then it is told in any case.
func (c *source) lost(err error, steady bool) {
	c.mu.Lock()
	tell, times := c.told.lost(err, steady, c.s.node.now())
	c.mu.Unlock()
	if !tell {
		return
	}
	log := c.s.log
	if times > 1 {
		log = log.With("times", times)
	}
	log.Warn("input is lost; trying again", "input", c.name(), "err", err)
	c.s.note(event.Event{Kind: event.SourceLost, Msg: fmt.Sprintf("the input %s was lost: %v", c.name(), err)})
}

// once opens the source and records it until it fails (an error), is silent
// for too long, or is not wanted any more (nil). It says whether anything
// usable came.
func (c *source) once(ctx context.Context) (heard bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.mu.Lock()
	c.stop = cancel
	wanted := c.wanted
	c.opens++
	c.mu.Unlock()
	if !wanted {
		return false, nil
	}
	src, err := c.open(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return false, nil
		}
		c.set(stateFailed, err)
		return false, err
	}
	defer src.Close()
	c.opened()

	rec := newRecorder(c.s, uint8(c.index), &c.unwritten)
	kept := newSalvageRun(c.s)
	seg := segment.New(segment.Config{TargetDuration: c.s.target(), Program: c.in.Program, Hint: c.hint, Resume: c.resume, Salvage: kept.hook(), Lend: true}, func(sg *m4f.Segment) {
		c.mu.Lock()
		c.lastSeg = c.s.node.now()
		c.mu.Unlock()
		rec.put(sg)
	})
	w := &watched{Source: src, c: c, seg: seg}
	opt := ingest.PumpOptions{Silence: c.in.SourceTimeout, FirstSilence: c.in.SourceTimeout, Log: c.s.log}
	if ingest.Listens(c.in.URL) {
		opt.FirstSilence = 0
	}
	err = ingest.Pump(ctx, w, seg, opt)
	w.observe()
	ingest.Finish(seg, src, err)
	w.count() // what was held back until now did not come now
	rec.close()
	kept.close()
	c.settle()
	var silent *ingest.SilentError
	switch {
	case ctx.Err() != nil:
		return w.heard, nil
	case errors.As(err, &silent):
		c.set(stateSilent, err)
		return w.heard, err
	case err == nil:
		err = errEnded
	}
	c.set(stateFailed, err)
	return w.heard, err
}

// open opens the source. Streams of one multiplex hear it from one socket.
func (c *source) open(ctx context.Context) (ingest.Source, error) {
	log := c.s.log
	if ingest.Shared(c.in.URL) {
		log = c.s.node.log.With("input", c.url()) // of whichever stream
	}
	return c.s.node.hub.Open(ctx, c.in.URL, ingest.Options{Realtime: true, Log: log})
}

// settle adds the counts of a run that is over to those of the runs before.
func (c *source) settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.base, c.stats = addStats(c.base, c.stats), segment.Stats{}
	c.ioBase, c.io = addIO(c.ioBase, c.io), ingest.Stats{}
}

// addIO sums up what two runs of a source received.
func addIO(a, b ingest.Stats) ingest.Stats {
	a.Packets += b.Packets
	a.Bytes += b.Bytes
	a.Dropped += b.Dropped
	a.Truncated += b.Truncated
	a.Lost += b.Lost
	a.Reordered += b.Reordered
	a.Duplicates += b.Duplicates
	a.Recovered += b.Recovered
	a.Errors += b.Errors
	a.Reconnects += b.Reconnects
	if b.LastArrival.After(a.LastArrival) {
		a.LastArrival = b.LastArrival
	}
	return a
}

func addStats(a, b segment.Stats) segment.Stats {
	a.Packets += b.Packets
	a.Lost += b.Lost
	a.Errored += b.Errored
	a.Segments += b.Segments
	a.Damaged += b.Damaged
	return a
}

// hint tells the segmenter the UTC that others gave to a media time: on a
// standby the peer's, else the archive's own when a timeline begins, or the
// peer's where the archive has none.
func (c *source) hint(media int64, utc m4f.UTC, fresh bool) (m4f.UTC, bool) {
	for i, l := range c.s.links {
		if l != nil && i < c.index {
			if at, ok := l.dateOf(media, utc); ok {
				return at, true
			}
		}
	}
	if !fresh {
		return 0, false
	}
	if at, ok, err := c.s.archive().DateOf(media, utc); err == nil && ok {
		return at, true
	}
	for _, l := range c.s.links {
		if l != nil {
			if at, ok := l.dateOf(media, utc); ok {
				return at, true
			}
		}
	}
	return 0, false
}

// resume tells the segmenter the UTC that the timeline that peers or the archive have
// recorded up to a moment ago gives to a media time at which it goes on: a standby
// that of the peer, else the archive's own, else a peer's. Where the clock has
// stepped lately, what goes on by the clock of before does.
func (c *source) resume(media int64, near m4f.UTC) (m4f.UTC, bool) {
	at, ok := c.resumeNear(media, near)
	if step := c.s.node.clock.stepped(); !ok && step != 0 {
		at, ok = c.resumeNear(media, near.Add(-ticks(step)))
	}
	return at, ok
}

// ticks of m4f.Timescale in a duration, which may be of years.
func ticks(d time.Duration) int64 {
	return int64(d/time.Second)*m4f.Timescale + int64(d%time.Second)*m4f.Timescale/int64(time.Second)
}

func (c *source) resumeNear(media int64, near m4f.UTC) (m4f.UTC, bool) {
	for i, l := range c.s.links {
		if l != nil && i < c.index {
			if at, ok := l.resume(media, near); ok {
				return at, true
			}
		}
	}
	if at, ok, err := c.s.archive().Resume(media, near); err == nil && ok {
		return at, true
	}
	for _, l := range c.s.links {
		if l != nil {
			if at, ok := l.resume(media, near); ok {
				return at, true
			}
		}
	}
	return 0, false
}

// watched is a source that tells what has become of each batch when the next
// is asked for.
type watched struct {
	ingest.Source
	c     *source
	seg   *segment.Segmenter
	units int64
	heard bool
	first time.Time // when data came first
	asked time.Time // when the segmenter was asked why there is no segment
}

// Read implements ingest.Source.
func (w *watched) Read(ctx context.Context) (*ingest.Batch, error) {
	w.observe()
	return w.Source.Read(ctx)
}

// count takes what a run has brought and lost.
func (w *watched) count() {
	c := w.c
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats, c.io = w.seg.Stats(), w.Source.Stats()
}

// observe runs on the pump's goroutine, as the segmenter does.
func (w *watched) observe() {
	st := w.seg.Stats()
	c := w.c
	now := c.s.node.now()
	c.mu.Lock()
	back := false
	if st.Units > w.units {
		w.units = st.Units
		if c.state != stateGood {
			c.state, c.err, c.goodFrom = stateGood, nil, now
			back = !w.heard && c.told.delivers()
		}
		c.heard, w.heard = now, true
	}
	c.stats, c.io = st, w.Source.Stats()
	if c.state == stateGood || c.state == stateWaiting {
		c.err = w.diagnose(now, &st, c.err)
	}
	losing := c.losses.take(now, addStats(c.base, c.stats), addIO(c.ioBase, c.io))
	c.mu.Unlock()
	if losing != nil {
		c.s.log.Warn("input loses packets", append([]any{"input", c.name()}, losing...)...)
	}
	if back {
		c.s.log.Info("input delivers", "input", c.name())
		c.s.note(event.Event{Kind: event.SourceBack, Msg: "the input " + c.name() + " delivers"})
	}
}

// diagnose says why a source that has delivered for some time has given no
// segment. It is asked once a second.
func (w *watched) diagnose(now time.Time, st *segment.Stats, before error) error {
	switch {
	case st.Segments > 0:
		return nil
	case st.Packets+st.Garbage+st.Units == 0:
		return before // why it was lost, perhaps
	case w.first.IsZero():
		w.first = now
	case now.Sub(w.first) > 10*time.Second && now.Sub(w.asked) > time.Second:
		w.asked = now
		return w.seg.Diagnose()
	}
	return before
}

// recorder writes segments behind a queue, so that a slow disk does not keep a
// source from being heard.
type recorder struct {
	s      *stream
	w      *archive.Writer
	made   int64 // which of the archives made at this place w belongs to
	input  uint8
	queue  chan *m4f.Segment
	done   chan struct{}
	closed chan struct{} // closed when the queue is to be drained
	lost   *atomic.Int64 // segments dropped
	losing bool
}

func newRecorder(s *stream, input uint8, lost *atomic.Int64) *recorder {
	r := &recorder{
		s: s, input: input, lost: lost, made: s.made.Load(), w: s.archive().Writer(archive.Live, input, archive.WriterOptions{}),
		queue: make(chan *m4f.Segment, queued), done: make(chan struct{}), closed: make(chan struct{}),
	}
	go r.run()
	return r
}

// put hands over a segment; with a full queue it is dropped, told and later
// healed.
func (r *recorder) put(seg *m4f.Segment) {
	select {
	case r.queue <- seg:
		r.losing = false
	default:
		seg.Recycle()
		r.lost.Add(1)
		if !r.losing {
			r.losing = true
			r.s.log.Error("the archive takes segments too slowly; some are dropped", "start", seg.Header.UTC.Time())
			r.s.note(event.Event{Kind: event.Disk, Msg: "the archive took segments too slowly; some were dropped"})
		}
	}
}

func (r *recorder) run() {
	defer close(r.done)
	defer func() {
		if err := r.w.Close(); err != nil {
			r.s.wrote(err)
		}
	}()
	for seg := range r.queue {
		since := r.s.node.now().UnixNano()
		r.s.writing.CompareAndSwap(0, since) // else another input's recorder waits for longer
		for {
			written, err := r.write(seg)
			if written || err != nil {
				r.s.wrote(err)
			}
			if err == nil || len(r.queue) == cap(r.queue) {
				break
			}
			select {
			case <-r.s.node.opt.Clock.After(rewrite):
				continue
			case <-r.closed:
			}
			break
		}
		r.s.writing.CompareAndSwap(since, 0)
		seg.Recycle()
	}
}

// write adds a segment if the view would take it, and says whether it did: the
// peer may have delivered it first.
func (r *recorder) write(seg *m4f.Segment) (written bool, err error) {
	if made := r.s.made.Load(); made != r.made {
		// What this writer holds open is gone with the archive that it was in.
		_ = r.w.Close()
		r.made, r.w = made, r.s.archive().Writer(archive.Live, r.input, archive.WriterOptions{})
	}
	wants, err := r.s.archive().Wants([]archive.Record{{Header: seg.Header, Origin: archive.Live, Input: r.input}})
	if err != nil || len(wants) == 0 {
		return false, err
	}
	// What the archive knows better of a segment that it has is kept.
	one := *seg
	one.Header = wants[0].Header
	return true, r.w.Append(&one)
}

// close drains the queue, for a bounded time.
func (r *recorder) close() {
	close(r.closed)
	close(r.queue)
	select {
	case <-r.done:
	case <-time.After(drain):
		r.s.log.Error("the archive does not take the last segments in time")
	}
}
