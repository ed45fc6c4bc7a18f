package replicate

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/salvage"
)

const hour = 3600 * m4f.Timescale

// DiffOptions say what is compared.
type DiffOptions struct {
	// From is where to begin; 0: at the later of the two horizons, so that an
	// archive that keeps less is not one with a gap.
	From m4f.UTC
	To   m4f.UTC // 0: the end of the later one
	// Known remembers hours that hold the same segments under different
	// digests; nil: nothing is remembered.
	Known *Known
	// Settle is how long differences at the live edge, of segments that have only
	// just come, are given to go away: two nodes that record one source have each
	// segment some milliseconds apart.
	Settle time.Duration
	// NoSalvage leaves out what merging packets of both archives would heal.
	NoSalvage bool
}

// Diff compares the views of two archives and returns where they differ, in
// order of time. What it costs follows from what differs: hours are compared by
// their digests, those with different ones by their minutes', and only minutes with
// different ones by their segments.
func Diff(ctx context.Context, a, b Side, o DiffOptions) ([]Span, error) {
	d := &differ{a: a, b: b, DiffOptions: o}
	spans, err := d.compare(ctx)
	if err != nil || o.Settle == 0 {
		return spans, err
	}
	for deadline := time.Now().Add(o.Settle); time.Now().Before(deadline); {
		fresh := slices.IndexFunc(spans, func(s Span) bool {
			return time.Since(time.UnixMilli(s.arrived)).Abs() < o.Settle && time.Since(s.To.Time()).Abs() < liveEdge
		})
		if fresh < 0 {
			break
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(settleStep):
		}
		again := *d
		again.From = spans[fresh].From
		tail, err := again.compare(ctx)
		if err != nil {
			return nil, err
		}
		spans = append(spans[:fresh], tail...)
	}
	return spans, nil
}

const (
	settleStep = 250 * time.Millisecond
	// liveEdge is how far from now a segment may end that is being recorded.
	liveEdge = time.Minute
)

type differ struct {
	a, b Side
	DiffOptions
}

// hourPair is one hour with what both sides say of it.
type hourPair struct {
	start            m4f.UTC
	digestA, digestB m4f.Identity // zero where there is nothing
}

// compare does the work of Diff. It sets the span's ends to what they stand
// for.
func (d *differ) compare(ctx context.Context) ([]Span, error) {
	hours, err := d.hours(ctx)
	if err != nil {
		return nil, err
	}
	windows, narrowed := d.narrow(ctx, hours)
	if !narrowed {
		for i := range hours {
			windows = append(windows, windowOf(hours, i, d.From, d.To))
		}
	}
	// Windows are listed some at a time, and taken in order.
	batches := batchesOf(windows)
	results := make([][]found, len(batches))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i := range batches {
		g.Go(func() (err error) {
			results[i], err = d.compareWindows(gctx, batches[i], narrowed)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var all found
	for _, list := range results {
		for _, f := range list {
			all.join(f)
		}
	}
	spans := all.spans
	more, err := d.mergeable(ctx)
	spans = append(spans, more...)
	slices.SortStableFunc(spans, func(x, y Span) int { return cmp.Compare(x.From, y.From) })
	return spans, err
}

// mergeable returns where merging what both archives keep of packets would make
// something better than either has. It merges, for there is no other way to know;
// of two peers neither's packets are here, and it returns nothing.
func (d *differ) mergeable(ctx context.Context) ([]Span, error) {
	dst, ok := d.a.(Dir)
	src := d.b
	if !ok {
		if dst, ok = d.b.(Dir); !ok {
			return nil, nil
		}
		src = d.a
	}
	if d.From >= d.To || d.NoSalvage {
		return nil, nil
	}
	var spans []Span
	h := NewHealer(dst.Stream, HealerOptions{})
	_, err := h.Heal(ctx, src, HealOptions{From: d.From, To: d.To, DryRun: true, found: func(u *unit, m *merged) {
		bytes := m.fetched * salvage.PacketSize
		for _, seg := range m.segs {
			hd := &seg.Header
			wants, err := dst.Stream.Wants([]archive.Record{{Header: *hd, Origin: archive.Healed}})
			if err != nil || len(wants) == 0 {
				continue
			}
			spans = append(spans, Span{Op: Mergeable, From: hd.UTC, To: hd.End(), Segments: 1, Bytes: bytes, arrived: u.kept()})
			bytes = 0
		}
	}})
	var joined []Span
	for _, s := range spans {
		joined = join(joined, []Span{s})
	}
	return joined, errors.Join(err, h.Close())
}

// hours returns the hours of the span whose digests differ.
func (d *differ) hours(ctx context.Context) ([]hourPair, error) {
	infoA, infoB, err := both(ctx, d.a, d.b, func(ctx context.Context, s Side) (SideInfo, error) { return s.Info(ctx) })
	if err != nil {
		return nil, err
	}
	if d.From == 0 {
		d.From = max(infoA.Horizon, infoB.Horizon)
	}
	if d.To == 0 {
		d.To = max(infoA.Newest, infoB.Newest)
	}
	if d.From >= d.To {
		return nil, nil
	}
	hoursA, hoursB, err := both(ctx, d.a, d.b, func(ctx context.Context, s Side) ([]archive.Hour, error) { return s.Hours(ctx, d.From, d.To) })
	if err != nil {
		return nil, err
	}
	return d.Known.differing(hoursA, hoursB), nil
}

// reach is how far beyond its hour a segment that begins in it is looked for:
// the part of it that the view shows may lie there. Longer segments are found
// wherever the hour after differs too.
const reach = 30 * m4f.Timescale

// window is a span that is looked at.
type window struct {
	from, to m4f.UTC
	hour     hourPair // which it is of, if it is of a whole one
	estimate amount   // of what is to be fetched; of a backfill
}

// windowOf returns the span in which hour i of a list is looked at, as far as it
// lies in [from, to): the hour, and where its neighbours are not looked at
// themselves, what its segments may show beyond it.
func windowOf(hours []hourPair, i int, from, to m4f.UTC) window {
	w := window{from: hours[i].start, to: hours[i].start.Add(hour)}
	if i == 0 || hours[i-1].start.Add(hour) != w.from {
		w.from = w.from.Add(-sameWithin)
	}
	if i == len(hours)-1 || hours[i+1].start != w.to {
		w.to = w.to.Add(reach)
	}
	if from <= hours[i].start && hours[i].start.Add(hour) <= to {
		w.hour = hours[i]
	}
	w.from, w.to = max(from, w.from), min(to, w.to)
	return w
}

// batchesOf takes windows together that are listed at once: as many as two hours of
// segments are in.
func batchesOf(windows []window) [][]window {
	var list [][]window
	lasts := int64(0)
	for i, w := range windows {
		if lasts += int64(w.to - w.from); i == 0 || lasts > 2*hour {
			list, lasts = append(list, nil), int64(w.to-w.from)
		}
		list[len(list)-1] = append(list[len(list)-1], w)
	}
	return list
}

// compareWindows compares the segments that lie in some windows: by outlines, or
// where a side does not know of them by all that is known of the segments.
func (d *differ) compareWindows(ctx context.Context, windows []window, outlines bool) ([]found, error) {
	windows = slices.DeleteFunc(windows, func(w window) bool { return w.from >= w.to })
	lists, of := listing(windows)
	a, b, err := both(ctx, d.a, d.b, func(ctx context.Context, s Side) ([][]archive.Element, error) {
		if outlines {
			return s.(minuter).Outline(ctx, lists)
		}
		all := make([][]archive.Element, len(lists))
		for i, l := range lists {
			var err error
			if all[i], err = s.Segments(ctx, l.From, l.To); err != nil {
				return nil, err
			}
		}
		return all, nil
	})
	if err != nil {
		return nil, err
	}
	results := make([]found, len(windows))
	for i, w := range windows {
		results[i] = compare(a[of[i]], b[of[i]], w.from, w.to)
		if len(results[i].spans) == 0 {
			d.Known.add(w.hour)
		}
	}
	return results, nil
}

// listing returns what is listed for some windows, in whole seconds and without
// overlap, and which of it is for each of them. It is somewhat more than they are, so
// that a segment that one side dates a little outside is recognised.
func listing(windows []window) (lists []archive.Window, of []int) {
	for _, w := range windows {
		l := archive.Window{From: w.from.Add(-2 * sameWithin), To: w.to.Add(2*sameWithin + m4f.Timescale - 1)}
		l.From, l.To = max(l.From-l.From%m4f.Timescale, m4f.Timescale), l.To-l.To%m4f.Timescale
		if n := len(lists); n > 0 && l.From <= lists[n-1].To {
			lists[n-1].To = max(l.To, lists[n-1].To)
		} else {
			lists = append(lists, l)
		}
		of = append(of, len(lists)-1)
	}
	return lists, of
}

// join appends what was found in the window behind, and makes one of two spans that are
// one but for the border between them.
func (f *found) join(next found) {
	n := len(f.spans)
	if f.spans = join(f.spans, next.spans); n > 0 && len(f.spans) < n+len(next.spans) {
		s := &f.spans[n-1]
		for _, e := range next.early { // it was counted already
			if slices.Contains(f.late, e) {
				s.Segments--
				s.Bytes -= e.bytes
			}
		}
	}
	if len(next.spans) > 0 {
		f.late = next.late
	}
}

// join appends spans to those ahead of them, and makes one of two that are one
// but for the border of an hour between them.
func join(spans, more []Span) []Span {
	if n := len(spans); n > 0 && len(more) > 0 {
		last, next := &spans[n-1], more[0]
		if last.Op == next.Op && next.From-last.To <= sliver {
			last.To = next.To
			last.Segments += next.Segments
			last.Bytes += next.Bytes
			last.arrived = max(last.arrived, next.arrived)
			more = more[1:]
		}
	}
	return append(spans, more...)
}

// maxKnown bounds what a Known remembers.
const maxKnown = 1 << 16

// Known remembers pairs of digests between which there is nothing to do: Diff
// has found that they hold the same segments (one at the edge of the hour is
// dated some milliseconds into the next by one node), or Backfill that the view
// wants nothing. One Known serves one of both. The zero value is ready; a nil one remembers nothing. It may be used by
// many goroutines.
type Known struct {
	mu    sync.Mutex
	pairs map[hourPair]bool
}

func (k *Known) add(h hourPair) {
	if k == nil || h.start == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pairs == nil || len(k.pairs) >= maxKnown {
		k.pairs = map[hourPair]bool{}
	}
	k.pairs[h] = true
}

// forget makes it as new.
func (k *Known) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pairs = nil
}

func (k *Known) has(h hourPair) bool {
	if k == nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pairs[h]
}

// differing merges two lists of hours into those whose segments may differ.
func (k *Known) differing(a, b []archive.Hour) []hourPair {
	var list []hourPair
	for len(a) > 0 || len(b) > 0 {
		var h hourPair
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].Start < b[0].Start:
			h = hourPair{start: a[0].Start, digestA: a[0].Digest}
			a = a[1:]
		case len(a) == 0 || b[0].Start < a[0].Start:
			h = hourPair{start: b[0].Start, digestB: b[0].Digest}
			b = b[1:]
		default:
			h = hourPair{a[0].Start, a[0].Digest, b[0].Digest}
			a, b = a[1:], b[1:]
		}
		if h.digestA != h.digestB && !k.has(h) {
			list = append(list, h)
		}
	}
	return list
}
