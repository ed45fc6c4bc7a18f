package replicate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// Order says which hours come first.
type Order int

// The orders of a backfill. The oldest first is the default: the peer prunes
// them first. The newest first goes back hour by hour, forward inside each.
const (
	Oldest Order = iota
	Newest
)

// ParseOrder reads oldest or newest.
func ParseOrder(s string) (Order, error) {
	switch s {
	case "oldest":
		return Oldest, nil
	case "newest":
		return Newest, nil
	}
	return 0, fmt.Errorf("%q is no order; it is oldest or newest", s)
}

// DefaultJobs is how many segments are fetched at once.
const DefaultJobs = 4

// BackfillOptions say what is fetched, and how.
type BackfillOptions struct {
	// From and To bound what is fetched; 0: from the archive's horizon, to the
	// end of what the other side has.
	From, To m4f.UTC
	// Spans are the only ones that are looked at, where not nil. Those in which
	// the other side has nothing better are passed over.
	Spans []Span

	Limit  *rate.Limiter // nil: as fast as it goes
	Jobs   int           // 0: DefaultJobs
	Order  Order
	DryRun bool
	Known  *Known // hours that need no look, see DiffOptions
	// Refused holds back segments that the other side has not given of late;
	// nil: none.
	Refused *Refused
	// Healer heals what both archives have damaged, as far as the packets that
	// they keep allow, before anything is fetched; nil: that is not done.
	Healer *Healer
	// Share is what others have in common with this backfill who fill the same
	// archive; nil: there are none.
	Share *Share
	// Defer takes a segment out of the backfill where it returns true; nil:
	// none.
	Defer func(*archive.Want) bool

	// Progress is called from one goroutine: before the first segment is
	// fetched, as bytes come, and as segments are done.
	Progress func(Progress)
	// Writer says how segments are made durable.
	Writer archive.WriterOptions
	// OnTaken is called from the same goroutine with each segment added.
	OnTaken func(archive.Record)
	Log     *slog.Logger
}

// Progress is how far a backfill is.
type Progress struct {
	Segments int   // fetched or copied
	Bytes    int64 // that have come, those of segments under way included
	// Left is an estimate of the bytes that are still to be fetched; exact once
	// the last hour is under way.
	Left int64
	At   m4f.UTC // start of the segment just done, or of the one that is next
}

// Result is what a backfill did.
type Result struct {
	Segments int   // fetched, or with DryRun to be fetched
	Bytes    int64 // of those
	// Copied counts segments whose media was here already, and of which a
	// better flag or another occurrence was added.
	Copied int
	// Healed is what was made of packets of both archives, or with DryRun would
	// be; it is not among Segments and Bytes.
	Healed Healed
	// Left counts segments that the view would take and that have not come: the
	// other side lost them or sends something else, or the backfill broke off.
	// Of hours that were not under way then, it counts what the other side has
	// more.
	Left int
}

// Backfill fetches into an archive what its view would take from the other
// side. It may be interrupted at any moment and run again. A segment that cannot
// be had is logged, counted and passed over; an error is returned when the other
// side is out of reach or the archive cannot be written, with what was done until then.
func Backfill(ctx context.Context, dst *archive.Stream, src Side, o BackfillOptions) (Result, error) {
	f, err := newFiller(ctx, dst, src, o)
	if err != nil {
		return Result{}, err
	}
	unhealed := f.heal(ctx)
	windows, err := f.windows(ctx)
	if err == nil {
		err = f.run(ctx, windows)
	}
	if err == nil {
		err = unhealed
	}
	if cerr := f.close(); err == nil {
		err = cerr
	}
	return f.result, err
}

// alone is the rate below which one connection will do: several that share a low
// one would all end late, and at once, and might look dead.
const alone = 8_000_000

// jobs is how many segments are fetched at once.
func jobs(asked int, limit *rate.Limiter) int {
	switch {
	case limit != nil && limit.Limit() < alone:
		return 1
	case asked <= 0:
		return DefaultJobs
	}
	return asked
}

// occurrence tells a segment from another, and a repeated broadcast too.
type occurrence struct {
	id  m4f.Identity
	utc m4f.UTC
}

// filler is a backfill under way.
type filler struct {
	BackfillOptions
	*sink
	src      Side
	gapsOnly bool // the other side cuts its segments in another way
	result   Result
	last     map[occurrence]bool // segments of the window before, which this one may reach into
	future   amount              // estimate for the windows that are not under way
	left     int64               // bytes of the window that is, of segments that are not done
	wasted   int64               // bytes of segments that could not be had
	told     bool                // Progress has been called
	fetcher  fetcher
	failures int // requests that failed, one after the other
	nonsense int // answers that made no sense, one after the other
	missed   int // segments that could not be had

	healed []m4f.Header // clean segments that would be made out of packets; with DryRun
}

// amount is how much media is meant.
type amount struct {
	segments int
	bytes    int64
}

func newFiller(ctx context.Context, dst *archive.Stream, src Side, o BackfillOptions) (*filler, error) {
	o.Jobs = jobs(o.Jobs, o.Limit)
	if o.Log == nil {
		o.Log = slog.Default()
	}
	f := &filler{BackfillOptions: o, src: src, sink: newSink(dst, o.Writer)}
	f.fetcher = fetcher{src: src, jobs: o.Jobs, limit: o.Limit, share: o.Share, dst: dst, heal: true}
	theirs, err := src.Info(ctx)
	if err != nil {
		return nil, err
	}
	own, err := Dir{dst}.Info(ctx)
	if err != nil {
		return nil, err
	}
	f.newest = own.Newest
	if f.gapsOnly = !sameCut(own, theirs); f.gapsOnly {
		logCut(o.Log, src, own, theirs)
	}
	if f.From == 0 {
		f.From = own.Horizon
	}
	if f.To == 0 {
		f.To = theirs.Newest
	}
	return f, nil
}

// heal merges packets, in all of the span or in those spans in which that helps.
func (f *filler) heal(ctx context.Context) error {
	if f.Healer == nil || f.gapsOnly {
		return nil
	}
	flow := &Flow{Limit: f.Limit}
	if f.Share != nil {
		flow.Yield = func(ctx context.Context) error { return f.Share.yield(ctx, nil, yieldRead) }
	}
	o := HealOptions{From: f.From, To: f.To, DryRun: f.DryRun, Flow: flow}
	if f.DryRun {
		o.found = func(_ *unit, m *merged) {
			for _, seg := range m.segs {
				if seg.Header.Clean() {
					f.healed = append(f.healed, seg.Header)
				}
			}
		}
	}
	spans := []HealOptions{o}
	if f.Spans != nil {
		spans = spans[:0]
		for _, s := range f.Spans {
			if s.Op == Mergeable {
				o.From, o.To = max(s.From, f.From), s.To
				if f.To != 0 {
					o.To = min(o.To, f.To)
				}
				spans = append(spans, o)
			}
		}
	}
	for _, o := range spans {
		if o.To != 0 && o.From >= o.To {
			continue
		}
		got, err := f.Healer.Heal(ctx, f.src, o)
		f.result.Healed = f.result.Healed.plus(got)
		if err != nil {
			return err
		}
	}
	if f.DryRun {
		f.result.Left += f.result.Healed.Segments
	}
	return nil
}

// sameCut says whether two archives cut one source into the same segments.
func sameCut(a, b SideInfo) bool {
	return (a.TargetDuration == b.TargetDuration || a.TargetDuration == 0 || b.TargetDuration == 0) &&
		(a.Rules == b.Rules || a.Rules == 0 || b.Rules == 0)
}

func logCut(log *slog.Logger, src Side, own, theirs SideInfo) {
	log.Warn("the peer cuts its segments in another way, so only gaps are filled from it; use the same segment duration and version on both",
		"peer", src.String(),
		"segment_duration", m4f.Duration(own.TargetDuration), "peer_segment_duration", m4f.Duration(theirs.TargetDuration),
		"rules", own.Rules, "peer_rules", theirs.Rules)
}

// windows lists what is to be looked at, in the order asked for.
func (f *filler) windows(ctx context.Context) ([]window, error) {
	var list []window
	var err error
	if f.Spans != nil {
		list = f.spanWindows()
	} else {
		list, err = f.hourWindows(ctx)
	}
	if f.Order == Newest {
		slices.Reverse(list)
	}
	for _, w := range list {
		f.future.segments += w.estimate.segments
		f.future.bytes += w.estimate.bytes
	}
	return list, err
}

// spanWindows cuts the given spans into hours.
func (f *filler) spanWindows() []window {
	var list []window
	for _, s := range f.Spans {
		if s.Op == OnlyA || s.Op == ABetter || s.Op == Mergeable {
			continue
		}
		from, to := max(s.From, f.From), s.To
		if f.To != 0 {
			to = min(to, f.To)
		}
		estimate := amount{s.Segments, s.Bytes}
		for from < to {
			end := min(to, (from/hour+1)*hour)
			list = append(list, window{from: from, to: end, estimate: estimate})
			from, estimate = end, amount{}
		}
	}
	return list
}

// hourWindows lists the hours whose digests differ.
func (f *filler) hourWindows(ctx context.Context) ([]window, error) {
	if f.From >= f.To {
		return nil, nil
	}
	own, theirs, err := both(ctx, Dir{f.dst}, f.src, func(ctx context.Context, s Side) ([]archive.Hour, error) {
		return s.Hours(ctx, f.From, f.To)
	})
	if err != nil {
		return nil, err
	}
	more := map[m4f.UTC]amount{}
	for _, h := range theirs {
		more[h.Start] = amount{h.Segments, h.Bytes}
	}
	for _, h := range own {
		m := more[h.Start]
		more[h.Start] = amount{max(m.segments-h.Segments, 0), max(m.bytes-h.Bytes, 0)}
	}
	var list []window
	differing := f.Known.differing(own, theirs)
	for i, h := range differing {
		if w := windowOf(differing, i, f.From, f.To); w.from < w.to && !h.digestB.IsZero() {
			w.estimate = more[h.start]
			list = append(list, w)
		}
	}
	return list, nil
}

// run looks at one window after the other.
func (f *filler) run(ctx context.Context, windows []window) error {
	for _, w := range windows {
		if err := f.window(ctx, w); err != nil {
			f.result.Left += f.future.segments
			return err
		}
	}
	return nil
}

func (f *filler) window(ctx context.Context, w window) error {
	wants, deferred, err := f.wants(ctx, w)
	if err != nil {
		return err
	}
	f.future.segments -= w.estimate.segments
	f.future.bytes -= w.estimate.bytes
	if len(wants)+deferred == 0 {
		f.Known.add(w.hour)
	}
	if f.DryRun {
		f.count(wants)
		return nil
	}
	return f.fill(ctx, wants)
}

// wants asks what of a window the view would take, and how much of that was
// deferred.
func (f *filler) wants(ctx context.Context, w window) (wants []archive.Want, deferred int, err error) {
	list, err := f.src.Segments(ctx, w.from, w.to)
	if err != nil {
		return nil, 0, err
	}
	recs := make([]archive.Record, 0, len(list))
	listed := make(map[occurrence]bool, len(list))
	for i := range list {
		o := occurrence{list[i].ID, list[i].UTC}
		if listed[o] = true; !f.last[o] {
			recs = append(recs, list[i].Record)
		}
	}
	f.last = listed
	if f.gapsOnly {
		if recs, err = inGaps(f.dst, recs); err != nil {
			return nil, 0, err
		}
	}
	if wants, err = f.dst.Wants(recs); err != nil {
		return nil, 0, err
	}
	all := len(wants)
	now := time.Now()
	wants = slices.DeleteFunc(wants, func(w archive.Want) bool {
		if !w.Local && f.Refused.holds(occurrence{w.ID, w.UTC}, now) {
			f.result.Left++
			return true
		}
		return f.Defer != nil && f.Defer(&w)
	})
	return wants, all - len(wants), nil
}

// inGaps returns the records that lie where the archive has nothing.
func inGaps(dst *archive.Stream, recs []archive.Record) ([]archive.Record, error) {
	if len(recs) == 0 {
		return nil, nil
	}
	from, to := recs[0].UTC, recs[0].End()
	for i := range recs {
		from, to = min(from, recs[i].UTC), max(to, recs[i].End())
	}
	view, err := dst.Span(max(from, 1), to)
	if err != nil {
		return nil, err
	}
	var free []archive.Record
	for _, r := range recs {
		taken := int64(0)
		for _, e := range view {
			for _, p := range e.Parts {
				taken += max(0, int64(min(r.End(), e.UTC.Add(p.To))-max(r.UTC, e.UTC.Add(p.From))))
			}
		}
		if int64(r.Duration)-taken > sliver {
			free = append(free, r)
		}
	}
	return free, nil
}

func (f *filler) count(wants []archive.Want) {
	for _, w := range wants {
		if f.wouldHeal(&w.Header) {
			continue
		}
		f.result.Left++
		if w.Local {
			f.result.Copied++
			continue
		}
		f.result.Segments++
		f.result.Bytes += int64(w.Length)
	}
}

// wouldHeal says whether a clean segment would be made out of packets of the time of
// one that the other side has damaged; with DryRun.
func (f *filler) wouldHeal(h *m4f.Header) bool {
	return !h.Clean() && slices.ContainsFunc(f.healed, func(c m4f.Header) bool {
		at := dateOf(&c, h.MediaTime)
		return distance(at, h.UTC) < sameWithin && at >= c.UTC-sliver && at.Add(int64(h.Duration)) <= c.End()+sliver
	})
}

// fill fetches segments and appends them in their order.
func (f *filler) fill(ctx context.Context, wants []archive.Want) error {
	f.left = 0
	for _, w := range wants {
		if !w.Local {
			f.left += int64(w.Length)
		}
	}
	if len(wants) > 0 {
		f.progress(wants[0].UTC)
	} else if f.told {
		f.progress(0)
	}
	var failed error
	done := 0
	f.fetcher.tick = func() { f.progress(wants[done].UTC) }
	f.fetcher.get(ctx, wants, func(got fetched) bool {
		if failed = f.take(ctx, got); failed != nil {
			return false
		}
		done++
		if !got.want.Local {
			f.left -= int64(got.want.Length)
		}
		f.progress(got.want.UTC)
		return true
	})
	if failed == nil {
		failed = ctx.Err()
	}
	if failed == nil && done < len(wants) {
		failed = errClosed
	}
	if failed != nil {
		f.result.Left += len(wants) - done
	}
	return failed
}

func (f *filler) progress(at m4f.UTC) {
	f.told = true
	if f.Progress == nil {
		return
	}
	under := f.fetcher.under.Load()
	f.Progress(Progress{
		Segments: f.result.Segments + f.result.Copied,
		Bytes:    f.result.Bytes + f.wasted + under,
		Left:     max(f.left-under, 0) + f.future.bytes,
		At:       at,
	})
}

const (
	// maxFailures is after how many segments that could not be had, one after
	// the other, the other side counts as out of reach.
	maxFailures = 3
	// maxNonsense is after how many answers that are not what was asked for, one
	// after the other, nothing more is asked.
	maxNonsense = 12
	// maxTold is how many segments that could not be had are told one by one.
	maxTold = 3
)

// take puts what came into the archive. What could not be had is counted and
// logged, unless it means that the other side is gone.
func (f *filler) take(ctx context.Context, got fetched) error {
	w := &got.want
	if got.err != nil {
		return f.miss(ctx, got)
	}
	f.failures, f.nonsense = 0, 0
	if got.gone {
		return nil
	}
	f.Refused.remove(occurrence{w.ID, w.UTC})
	if err := f.put(w, got.seg); err != nil {
		f.Share.failed(err)
		return bare(err)
	}
	f.Share.wrote()
	if f.OnTaken != nil {
		f.OnTaken(w.Record)
	}
	if w.Local {
		f.result.Copied++
		return nil
	}
	f.result.Segments++
	f.result.Bytes += int64(w.Length)
	return nil
}

// miss takes note of a segment that could not be had, and returns an error where
// there is no use in asking for more.
func (f *filler) miss(ctx context.Context, got fetched) error {
	w := &got.want
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var bad *m4fhttp.BadAnswerError
	switch {
	case !refusal(got.err):
		if f.failures++; f.failures >= maxFailures {
			return got.err
		}
	case errors.As(got.err, &bad):
		if f.nonsense++; f.nonsense >= maxNonsense {
			return got.err
		}
	}
	f.result.Left++
	f.wasted += got.came
	first := f.Refused.add(occurrence{w.ID, w.UTC}, time.Now())
	level := slog.LevelDebug
	if f.missed++; first && f.missed <= maxTold {
		level = slog.LevelWarn
	}
	f.Log.Log(ctx, level, "could not get a segment", "peer", f.src.String(), "segment", w.ID, "start", m4fhttp.Time(w.UTC), "err", got.err)
	return nil
}
