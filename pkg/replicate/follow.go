package replicate

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// FollowOptions say how a peer is followed.
type FollowOptions struct {
	// Delay is how long the archive is given to get a segment that the peer has
	// listed by other means, before it is fetched: a node that hears the source
	// itself completes most of them. Nil: no time.
	Delay func(*archive.Record) time.Duration
	// LiveOnly takes only what extends the archive: no healing, no filling.
	LiveOnly bool
	// Share is what the Followers of one archive have in common. Its rate is
	// that of reconciliation; what the peer lists as new is fetched at once.
	Share *Share
	Jobs  int // 0: DefaultJobs
	// Healer heals out of packets what both archives have damaged; nil: that is
	// not done.
	Healer *Healer
	// Depth is how far back the archive is kept: what is older is not fetched;
	// 0: as far as its horizon.
	Depth time.Duration
	// Size is how many bytes the archive may have: what would not fit beside what
	// is newer is not fetched, to be pruned at once; 0: any number.
	Size int64
	// ReconcileEvery is how often the archives are compared while the peer is
	// being followed, beside each time that it is reached again; 0: ten minutes.
	ReconcileEvery time.Duration
	// MaxRetry caps the time between two attempts to reach the peer; 0: ten
	// seconds.
	MaxRetry time.Duration

	// OnStatus is told what the peer says of the stream, each second, and with
	// nil and the reason that the peer is out of reach. OnTaken is told each
	// segment that was added. Both are called from the Follower's goroutines and
	// should return soon; either may be nil.
	OnStatus func(*m4fhttp.Status, error)
	OnTaken  func(archive.Record)

	Writer archive.WriterOptions // how segments are made durable
	Log    *slog.Logger
	Clock  clock.Clock
}

// FollowStats is how a Follower stands.
type FollowStats struct {
	Connected bool
	Err       error     // why not
	Heard     time.Time // when the peer last said anything
	Status    *m4fhttp.Status

	// Pending counts segments that the peer has listed and that are not looked at
	// to the end yet, and Lag is for how long the oldest of them has been.
	Pending int
	Lag     time.Duration

	// Reconciling says that the archives are being compared and filled; Backlog
	// estimates the bytes that are still to come by it, with what it left to
	// following and is overdue. Reconciled is when that was last done to the end,
	// and Left how many segments could then not be had.
	Reconciling bool
	Backlog     int64
	Reconciled  time.Time
	Left        int

	// Segments and Bytes were fetched, Copied were made locally.
	Segments, Copied int64
	Bytes            int64
	// Mended segments were made of packets of both archives, for which
	// MendPackets were fetched, and MendBytes with what was compared to find
	// them.
	Mended, MendPackets, MendBytes int64
	// WriteErr is why the archive does not take what is fetched; nil: it does.
	WriteErr error
}

// Follower keeps an archive equal to what a peer's view has, as far as the own
// view takes it: by following the list of segments that come to the peer, and
// by comparing both archives whenever the peer is reached and from time to time.
type Follower struct {
	FollowOptions
	dst  *archive.Stream
	peer Peer

	mu       sync.Mutex
	stats    FollowStats
	lanes    lanes
	lost     bool // something listed was dropped: compare the archives
	gapsOnly bool
	newest   m4f.UTC       // end of the archive, when last looked at
	asked    time.Time     // when what was dropped was last compared
	ahead    bool          // the peer has listed what is not there yet, by the clock
	overdue  int64         // bytes being fetched that a comparison found missing
	compare  chan struct{} // capacity 1: reconcile now
	cursor   archive.Cursor
	known    Known
	refused  Refused
}

// maxPending bounds the records that wait; what comes beyond it is left to
// reconciliation.
const maxPending = 1 << 16

// NewFollower returns a Follower that does nothing yet.
func NewFollower(dst *archive.Stream, peer *m4fhttp.Client, o FollowOptions) *Follower {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Clock == nil {
		o.Clock = clock.System
	}
	if o.ReconcileEvery == 0 {
		o.ReconcileEvery = 10 * time.Minute
	}
	if o.MaxRetry == 0 {
		o.MaxRetry = 10 * time.Second
	}
	if o.Jobs <= 0 {
		o.Jobs = DefaultJobs
	}
	if o.Share == nil {
		o.Share = &Share{}
	}
	return &Follower{
		FollowOptions: o,
		dst:           dst,
		peer:          Peer{peer},
		lanes:         newLanes(),
		compare:       make(chan struct{}, 1),
		cursor:        m4fhttp.CursorNow,
	}
}

// Stats returns how the Follower stands.
func (f *Follower) Stats() FollowStats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.stats
	now := f.Clock.Now()
	s.Backlog += f.overdue
	for i := range f.lanes {
		l := &f.lanes[i]
		s.Pending += len(l.pending) + l.working
		for j := range l.pending {
			p := &l.pending[j]
			s.Lag = max(s.Lag, now.Sub(p.listed))
			if p.missed && !p.due.After(now) {
				s.Backlog += int64(p.Length)
			}
		}
	}
	return s
}

// Reconcile asks for a comparison of the archives, now or as soon as the peer
// is reached.
func (f *Follower) Reconcile() {
	f.Share.gate.hurry(f.Clock.Now())
	signal(f.compare)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run follows the peer until the context ends, and returns its error. It
// connects again, with growing pauses, as often as the connection breaks.
func (f *Follower) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.listen(ctx) })
	for i := range f.lanes {
		g.Go(func() error { return f.work(ctx, &f.lanes[i]) })
	}
	if !f.LiveOnly {
		g.Go(func() error { return f.reconcile(ctx) })
		if f.Healer != nil {
			g.Go(func() error { return f.mend(ctx) })
		}
	}
	return g.Wait()
}

// sleep waits, and returns early with the context's error.
func (f *Follower) sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-f.Clock.After(d):
		return nil
	}
}

// listen keeps a connection to the peer's list of changes.
func (f *Follower) listen(ctx context.Context) error {
	const first = 250 * time.Millisecond
	pause := first
	for {
		heard := false
		err := f.peer.Changes(ctx, f.cursor, func(ev *m4fhttp.ChangeEvent) error {
			if !heard {
				heard = true
				if err := f.connected(ctx); err != nil {
					return err
				}
			}
			f.event(ev)
			return nil
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if m4fhttp.StatusOf(err) == http.StatusGone && f.cursor != m4fhttp.CursorNow {
			f.cursor = m4fhttp.CursorNow
			f.Log.Info("a peer no longer keeps the changes since it was last heard, so both archives are compared", "peer", f.peer.String())
			continue
		}
		f.disconnected(err)
		if heard {
			pause = first
		}
		if err := f.sleep(ctx, pause); err != nil {
			return err
		}
		pause = min(2*pause, f.MaxRetry)
	}
}

// connected is called with the first line of a connection. From then on nothing that
// comes to the peer is missed, and what came before is found by comparison.
func (f *Follower) connected(ctx context.Context) error {
	theirs, err := f.peer.Info(ctx)
	if err != nil {
		return err
	}
	own, err := Dir{f.dst}.Info(ctx)
	if err != nil {
		return err
	}
	gapsOnly := !sameCut(own, theirs)
	if gapsOnly {
		logCut(f.Log, f.peer, own, theirs)
	}
	f.known.forget()
	f.mu.Lock()
	f.gapsOnly, f.newest = gapsOnly, own.Newest
	f.stats.Connected, f.stats.Err = true, nil
	f.mu.Unlock()
	f.Log.Info("following a peer", "peer", f.peer.String())
	f.Reconcile()
	return nil
}

func (f *Follower) disconnected(err error) {
	f.mu.Lock()
	was, before := f.stats.Connected, f.stats.Err
	f.stats.Connected, f.stats.Err = false, err
	f.mu.Unlock()
	if was || before == nil || before.Error() != err.Error() {
		f.Log.Warn("peer is out of reach", "peer", f.peer.String(), "err", err)
	}
	if f.OnStatus != nil {
		f.OnStatus(nil, err)
	}
}

// event takes one line of the peer's changes.
func (f *Follower) event(ev *m4fhttp.ChangeEvent) {
	if ev.Cursor != "" {
		f.cursor = ev.Cursor
	}
	f.mu.Lock()
	f.stats.Heard = f.Clock.Now()
	if ev.Status != nil {
		f.stats.Status = ev.Status
	}
	f.mu.Unlock()
	if ev.Record != nil && f.timely(ev.Record) {
		f.push(*ev.Record, false)
	}
	if ev.Status != nil && f.OnStatus != nil {
		f.OnStatus(ev.Status, nil)
	}
}

const (
	// timely is how far behind the end of the archive a segment may end that is
	// fetched as soon as it is listed: what is older is healing, which a
	// comparison does in order and at its rate, behind what is live.
	timely = 90 * m4f.Timescale
	// maxAhead is how far ahead of the clock a segment may be dated.
	maxAhead = time.Hour
)

// latest is where what may be taken of the peer ends.
func (f *Follower) latest() m4f.UTC { return m4f.UTCOf(f.Clock.Now().Add(maxAhead)) }

// timely says whether a record that the peer has listed is to be looked at by
// itself.
func (f *Follower) timely(rec *archive.Record) bool {
	late := rec.UTC > f.latest()
	f.mu.Lock()
	tell := late && !f.ahead
	f.ahead = f.ahead || late
	old := rec.End() < f.newest.Add(-timely)
	f.mu.Unlock()
	if old && !f.LiveOnly && !f.present(rec) {
		f.mu.Lock()
		f.dropped()
		f.mu.Unlock()
	}
	if tell {
		f.Log.Error("a peer has segments that are dated in the future and not taken before their time; set the clocks of both nodes",
			"peer", f.peer.String(), "start", m4fhttp.Time(rec.UTC))
	}
	return !late && !old
}

// present says whether the archive has a segment already, as when it is the one
// that the peer is filled from.
func (f *Follower) present(rec *archive.Record) bool {
	ok, err := f.dst.Present(&rec.Header)
	return err == nil && ok
}

// push puts a record among the pending ones.
func (f *Follower) push(rec archive.Record, missed bool) {
	now := f.Clock.Now()
	delay := time.Duration(0)
	if f.Delay != nil {
		delay = f.Delay(&rec)
	}
	f.mu.Lock()
	if f.gapsOnly {
		// The own segments end elsewhere: what looks like a gap now is filled
		// by the next of them.
		delay += 2*m4f.Duration(int64(rec.Duration)) + gapPatience
	}
	f.pushLocked(pendingRecord{Record: rec, listed: now, due: now.Add(delay), missed: missed})
	f.mu.Unlock()
}

// gapPatience is how much later than usual a gap is taken for one where the peer
// cuts its segments in another way.
const gapPatience = 5 * time.Second

// rested is called when nothing is due, and has compared what was dropped: now,
// or in the time that it returns. A live stream always has something pending, so
// that is not waited for.
func (f *Follower) rested() (next time.Duration) {
	now := f.Clock.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.lost || f.lanes.count() >= maxPending {
		return time.Hour
	}
	if wait := compareEvery - now.Sub(f.asked); wait > 0 && wait <= compareEvery {
		return wait
	}
	f.lost, f.asked = false, now
	signal(f.compare)
	return time.Hour
}

// wants asks what of the records the view would take.
func (f *Follower) wants(sink *sink, due []pendingRecord) ([]archive.Want, error) {
	info, err := f.dst.Info()
	if err != nil {
		return nil, err
	}
	sink.newest = info.Newest
	f.mu.Lock()
	f.newest = info.Newest
	f.mu.Unlock()
	recs := make([]archive.Record, 0, len(due))
	for i := range due {
		if !f.LiveOnly || due[i].End() > info.Newest {
			recs = append(recs, due[i].Record)
		}
	}
	f.mu.Lock()
	gapsOnly := f.gapsOnly
	f.mu.Unlock()
	if gapsOnly {
		if recs, err = inGaps(f.dst, recs); err != nil {
			return nil, err
		}
	}
	return f.dst.Wants(recs)
}

const (
	// fullAgainIn is when the archive is tried again that could not be written.
	fullAgainIn = 3 * time.Second
)

// room says whether segments may be fetched: 0, or in what time that is to be asked
// again, because the archive cannot be written. What could not be written is tried.
func (f *Follower) room() (wait time.Duration) {
	wait = f.Share.gate.try(f.Clock.Now(), func(e *unwrittenError) error {
		wants, err := f.dst.Wants([]archive.Record{e.want.Record})
		if err != nil || len(wants) == 0 {
			return err
		}
		info, err := f.dst.Info()
		if err != nil {
			return err
		}
		sink := newSink(f.dst, f.Writer)
		sink.newest = info.Newest
		if wants[0].Local = wants[0].Local || e.seg == nil; !wants[0].Local {
			e.seg.Header = wants[0].Header
		}
		err = sink.put(&wants[0], e.seg)
		if err = errors.Join(err, sink.close()); err == nil {
			f.taken(&wants[0])
		}
		return err
	})
	if wait == 0 {
		f.writeFailed(nil)
	}
	return wait
}

func (f *Follower) taken(w *archive.Want) {
	f.mu.Lock()
	if w.Local {
		f.stats.Copied++
	} else {
		f.stats.Segments++
		f.stats.Bytes += int64(w.Length)
	}
	f.mu.Unlock()
	f.writeFailed(nil)
	if f.OnTaken != nil {
		f.OnTaken(w.Record)
	}
}

// writeFailed notes that the archive does not take segments, or with nil that
// it does; it logs the change, and has compared what was missed meanwhile.
func (f *Follower) writeFailed(err error) {
	f.mu.Lock()
	before := f.stats.WriteErr
	f.stats.WriteErr = err
	f.mu.Unlock()
	switch {
	case err != nil && before == nil: // the next error is of another file
		f.Log.Error("replicated segments cannot be written", "peer", f.peer.String(), "err", err)
	case err == nil && before != nil:
		f.Log.Info("replicated segments are written again", "peer", f.peer.String())
		f.Reconcile()
	}
}

// compareEvery is the least time between two comparisons that nothing but the
// peer's list asks for: a peer that is being filled itself lists much.
const compareEvery = 5 * time.Second

// reconcile compares and fills, each time that it is asked to and from time to
// time.
func (f *Follower) reconcile(ctx context.Context) error {
	said := ""
	pause := f.MaxRetry
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.compare:
		case <-f.Clock.After(f.ReconcileEvery):
		}
		f.mu.Lock()
		connected := f.stats.Connected
		f.mu.Unlock()
		if !connected {
			continue
		}
		for wait := f.room(); wait > 0; wait = f.room() {
			if err := f.sleepOrAsked(ctx, wait); err != nil {
				return err
			}
		}
		err := f.reconcileOnce(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		full := f.Share.gate.failed(err) || errors.Is(err, errClosed)
		if err == nil {
			said, pause = "", f.MaxRetry
			continue
		}
		if text := causeOf(err); said != text {
			said = text
			f.Log.Warn("comparison with a peer broke off", "peer", f.peer.String(), "err", err)
		}
		if full {
			signal(f.compare) // as soon as it can be written
			continue
		}
		if err := f.sleepOrAsked(ctx, pause); err != nil {
			return err
		}
		pause = max(min(2*pause, f.ReconcileEvery), f.MaxRetry)
		f.Reconcile()
	}
}

// sleepOrAsked is sleep that also ends where a comparison is asked for: what was in the
// way of the last one may be over.
func (f *Follower) sleepOrAsked(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-f.compare:
	case <-f.Clock.After(d):
	}
	return nil
}

// causeOf is the text of an error without what differs each time: the name of the
// file that could not be written.
func causeOf(err error) string {
	var we *archive.WriteError
	var pe *fs.PathError
	if errors.As(err, &we) && errors.As(we.Err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

func (f *Follower) reconcileOnce(ctx context.Context) error {
	theirs, err := f.peer.Info(ctx)
	if err != nil {
		return err
	}
	if theirs.Newest == 0 {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.stats.Reconciled, f.stats.Left = f.Clock.Now(), 0
		return nil
	}
	f.setReconciling(true, 0)
	defer f.setReconciling(false, 0)
	before := Progress{}
	from, err := f.from(ctx, theirs)
	if err != nil {
		return err
	}
	edge := theirs.Newest
	if latest := f.latest(); edge > latest {
		f.mu.Lock()
		edge = f.newest
		f.mu.Unlock()
	}
	result, err := Backfill(ctx, f.dst, f.peer, BackfillOptions{
		Healer:  f.Healer,
		From:    from,
		To:      min(theirs.Newest, f.latest()),
		Limit:   f.Share.Limit,
		Jobs:    f.Jobs,
		Order:   Oldest,
		Known:   &f.known,
		Refused: &f.refused,
		Share:   f.Share,
		Log:     f.Log,
		Writer:  f.Writer,
		// What is at the live edge is treated as if it had been listed just now.
		Defer: func(w *archive.Want) bool {
			if w.UTC < edge.Add(-followed) {
				return false
			}
			f.push(w.Record, true)
			return true
		},
		Progress: func(p Progress) {
			f.setReconciling(true, p.Left)
			f.mu.Lock()
			f.stats.Bytes += p.Bytes - before.Bytes
			f.mu.Unlock()
			before = p
		},
		OnTaken: f.OnTaken,
	})
	f.mu.Lock()
	f.stats.Segments += int64(result.Segments)
	f.stats.Copied += int64(result.Copied)
	f.addMended(result.Healed)
	if err == nil {
		f.stats.Reconciled, f.stats.Left = f.Clock.Now(), result.Left
	}
	f.mu.Unlock()
	f.logFilled(result, err)
	return err
}

// from is where filling begins: at the archive's depth, in whole hours as pruning
// has it, and at its size, so that nothing is fetched to be pruned at once; 0: at
// its horizon. A clock that runs ahead of all that is recorded does not count.
func (f *Follower) from(ctx context.Context, theirs SideInfo) (m4f.UTC, error) {
	if f.Depth == 0 && f.Size == 0 {
		return 0, nil
	}
	from, err := f.dst.Horizon()
	if err != nil {
		return 0, err
	}
	if f.Depth > 0 {
		f.mu.Lock()
		end := max(f.newest, theirs.Newest).Add(hour)
		f.mu.Unlock()
		kept := min(m4f.UTCOf(f.Clock.Now()), end).Add(-m4f.Ticks(f.Depth))
		from = max(from, kept/hour*hour)
	}
	if f.Size > 0 {
		own, others, err := both(ctx, Dir{f.dst}, f.peer, func(ctx context.Context, s Side) ([]archive.Hour, error) {
			return s.Hours(ctx, from, min(theirs.Newest, f.latest()))
		})
		if err != nil {
			return 0, err
		}
		from = max(from, fitting(own, others, f.Size))
	}
	return max(from, 1), nil
}

// fitting is the start of the oldest hour of two archives together that fits into
// nine tenths of a size, with all that are newer; 0: all do.
func fitting(a, b []archive.Hour, size int64) m4f.UTC {
	bytes := map[m4f.UTC]int64{}
	for _, h := range slices.Concat(a, b) {
		bytes[h.Start] = max(bytes[h.Start], h.Bytes)
	}
	left := size / 10 * 9
	from := m4f.UTC(0)
	for _, start := range slices.Backward(slices.Sorted(maps.Keys(bytes))) {
		if left -= bytes[start]; left < 0 && from > 0 {
			return from
		}
		if from = start; left < 0 {
			return from // the newest, in any case
		}
	}
	return 0
}

// logFilled tells what came of a comparison, where anything did.
func (f *Follower) logFilled(r Result, err error) {
	text := "archive filled from a peer"
	switch {
	case r.Segments+r.Copied > 0 && err != nil:
		text = "filling the archive from a peer broke off"
	case r.Segments+r.Copied > 0:
	case r.Left > 0 && err == nil:
		text = "a peer has segments that it does not give"
	default:
		return
	}
	f.Log.Info(text, "peer", f.peer.String(),
		"segments", r.Segments, "bytes", r.Bytes, "copied", r.Copied, "left", r.Left)
}

// followed is how far from the peer's newest segment reconciliation leaves a
// segment to following.
const followed = 10 * m4f.Timescale

func (f *Follower) setReconciling(on bool, backlog int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats.Reconciling, f.stats.Backlog = on, backlog
}
