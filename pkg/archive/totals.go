package archive

import (
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// Totals sums up the view of a span, as Hours, Gaps and Coverage tell it.
type Totals struct {
	// Of the hours that hold segments and touch the span, whole.
	Segments     int
	Bytes        int64 // of moof and mdat
	Damaged      int   // segments
	Partial      int   // segments
	DamagedTicks int64 // that damaged segments are shown for

	// Of the span.
	Gaps    int
	Missing int64 // ticks, of all gaps

	// Of the last two of those hours.
	RecentBytes int64
	RecentTicks int64 // that segments are shown for
}

const (
	// settledRecheck is how long the totals believe what is known of an hour that
	// nothing is written to, without looking at its directory again. Each hour has
	// up to twice that, so that not all are looked at in the same moment.
	settledRecheck = 5 * time.Minute
	// growing is how many of the newest hours are looked at as other readers do: one
	// of them is still to come.
	growing = 3
)

// Totals returns what Hours(from, 0) and Gaps(from, 0) add up to, but for the
// causes of the gaps. It remembers each hour's part of it and looks only at those
// that have changed, so it can be asked each second of an archive of months; what
// appears in an old hour without being announced (copied in from a backup) counts
// after some minutes.
func (s *Stream) Totals(from m4f.UTC) (Totals, error) {
	hours, err := s.hours(0, 0)
	if err != nil {
		return Totals{}, err
	}
	first, err := s.beginsIn(hours)
	if err != nil || first == 0 {
		return Totals{}, err
	}
	from = max(from, first)
	begin := 0
	for begin < len(hours) && hours[begin] < hourOf(from)-1 { // one more, whose last segment may reach into the span
		begin++
	}
	hours = andNext(hours[begin:])
	var t Totals
	var gaps []Gap
	var state foldState
	var recent [2]fold
	reached := false // a piece of the span has come
	for i, h := range hours {
		f, err := s.cache.fold(h, state, i < len(hours)-growing)
		if err != nil {
			return Totals{}, err
		}
		state = f.out
		if f.in.last.start == 0 && f.first != 0 && f.first > from && !reached && f.first-from > utcSlack {
			gaps = append(gaps, Gap{From: from, To: f.first})
		}
		reached = reached || f.first != 0
		for _, g := range f.gaps {
			if g.From >= from || g.To-from > utcSlack {
				gaps = append(gaps, Gap{From: max(g.From, from), To: g.To})
			}
		}
		if h >= hourOf(from) {
			if f.segments > 0 {
				recent[0], recent[1] = recent[1], *f
			}
			t.Segments, t.Bytes = t.Segments+f.segments, t.Bytes+f.bytes
			t.Damaged, t.Partial = t.Damaged+f.damaged, t.Partial+f.partial
			t.DamagedTicks += f.damagedTicks
		}
	}
	if gaps, err = s.notPruned(gaps); err != nil {
		return Totals{}, err
	}
	for _, g := range gaps {
		t.Gaps++
		t.Missing += int64(g.To - g.From)
	}
	for i := range recent {
		t.RecentBytes, t.RecentTicks = t.RecentBytes+recent[i].bytes, t.RecentTicks+recent[i].ticks
	}
	return t, nil
}

// andNext puts behind each hour the one after it: a piece of a segment that begins
// in the one may start in the other, where nothing else does.
func andNext(hours []hour) []hour {
	out := make([]hour, 0, len(hours)+1)
	for i, h := range hours {
		if out = append(out, h); i+1 == len(hours) || hours[i+1] != h+1 {
			out = append(out, h+1)
		}
	}
	return out
}

// edge is what a gap between two pieces is judged by.
type edge struct {
	start, stop m4f.UTC
	media, end  int64 // media time at start and stop; end is not reduced to 33 bits
	begins      bool  // a timeline
}

func (p Piece) edge() edge {
	media := p.Media()
	return edge{
		start: p.Start(), stop: p.Stop(), media: media, end: media + (p.To - p.Part.From),
		begins: p.Flags&m4f.Discontinuity != 0 && p.Part.From == 0,
	}
}

// foldState is what the pieces up to a moment leave to judge the next one by.
type foldState struct{ last, furthest edge }

// fold is an hour's part of the totals: of the segments that begin in it, and of
// the pieces that start in it.
type fold struct {
	of      [2]cacheVersion // of the views of the hour before and the hour
	in, out foldState

	segments, damaged, partial int
	bytes, ticks, damagedTicks int64
	first                      m4f.UTC // start of the first piece; 0: none
	gaps                       []Gap   // before a piece that starts in the hour
}

// fold returns an hour's part of the totals, behind a state. The result is shared.
func (c *hourCache) fold(h hour, in foldState, settled bool) (*fold, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	of, err := c.foldVersions(h, settled)
	if err != nil {
		return nil, err
	}
	st := c.state[h]
	if st == nil { // pruned meanwhile
		return &fold{in: in, out: in}, nil
	}
	if f := st.fold; f != nil && f.of == of && f.in == in {
		return f, nil
	}
	f := &fold{of: of, in: in, out: in}
	els, _, err := c.view(h)
	if err != nil {
		return nil, err
	}
	f.count(els)
	x := &strip{of: of, in: in, out: in} // whoever draws a timeline finds it
	if err := c.eachStarting(h, func(p Piece) { f.add(p); x.add(p) }); err != nil {
		return nil, err
	}
	st.fold = f
	x.remember(c, h)
	return f, nil
}

// versionWithin is versionOf, for an hour that nothing is written to with more
// patience. Callers hold mu.
func (c *hourCache) versionWithin(h hour, settled bool) (version, error) {
	st := c.state[h]
	if settled && st != nil && !st.dirty && c.reach.has(h) {
		patience := settledRecheck + time.Duration(uint64(h)*7919%300)*time.Second
		if age := c.s.clock.Now().Sub(st.checked); 0 <= age && age < patience {
			return st.version, nil
		}
	}
	return c.versionOf(h)
}

// foldVersions is what the pieces that start in an hour follow from: the views of
// the hour before and of the hour. Callers hold mu.
func (c *hourCache) foldVersions(h hour, settled bool) (of [2]cacheVersion, err error) {
	for i := range of {
		for j := range of[i] {
			if of[i][j], err = c.versionWithin(h-2+hour(i+j), settled); err != nil {
				return of, err
			}
		}
	}
	return of, nil
}

// eachStarting calls fn with the pieces of the view that start in an hour, in
// playing order: also of segments that begin in the one before. Callers hold mu.
func (c *hourCache) eachStarting(h hour, fn func(Piece)) error {
	before, _, err := c.view(h - 1)
	if err != nil {
		return err
	}
	els, _, err := c.view(h)
	if err != nil {
		return err
	}
	var reach []Element
	for i := range before {
		if e := &before[i]; e.UTC.Add(e.Parts[len(e.Parts)-1].From) >= h.start() {
			reach = append(reach, *e)
		}
	}
	if len(reach) > 0 {
		els = append(reach, els...)
	}
	for _, p := range pieces(els, len(reach) > 0) {
		if hourOf(p.Start()) == h {
			fn(p)
		}
	}
	return nil
}

// next takes a piece and returns the time, in ticks, that is missing before it.
func (s *foldState) next(e *edge) (gap int64) {
	if s.last.stop != 0 {
		gap = max(min(s.last.gap(e), s.furthest.gap(e)), 0)
	}
	if s.last = *e; e.stop >= s.furthest.stop {
		s.furthest = *e
	}
	return gap
}

// count takes the elements that begin in the hour.
func (f *fold) count(els []Element) {
	for i := range els {
		e := &els[i]
		f.segments++
		f.bytes += int64(e.Length)
		if e.Damaged() {
			f.damaged++
		}
		if e.Partial() {
			f.partial++
		}
	}
}

// add takes the next piece.
func (f *fold) add(p Piece) {
	e := p.edge()
	if f.first == 0 {
		f.first = e.start
	}
	if gap := f.out.next(&e); gap > 0 {
		f.gaps = append(f.gaps, Gap{From: e.start.Add(-gap), To: e.start})
	}
	f.ticks += p.To - p.Part.From
	if p.Damaged() {
		f.damagedTicks += p.To - p.Part.From
	}
}
