package archive

import (
	"slices"

	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// Each calls fn with the elements of the view that show something of
// [from, to), in playing order, reading an hour at a time. from 0 is the
// beginning and to 0 the end. It returns fn's error.
func (s *Stream) Each(from, to m4f.UTC, fn func(*Element) error) error {
	return s.EachIn([]Window{{from, to}}, func(_ int, e *Element) error { return fn(e) })
}

// EachIn is Each for some windows, which are in order of both their ends: fn gets
// the number of the window with each element. It costs little more than one Each.
func (s *Stream) EachIn(windows []Window, fn func(int, *Element) error) error {
	hours, err := s.hoursOf(windows)
	if err != nil {
		return err
	}
	for i, w := range windows {
		for _, h := range within(hours, hourOf(w.From)-1, w.To) {
			els, err := s.cache.about(h, w)
			if err != nil {
				return err
			}
			for j := range els {
				if !els[j].shows(w.From, w.To) {
					continue
				}
				e := els[j]
				if err := fn(i, &e); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (e *Element) shows(from, to m4f.UTC) bool {
	for _, p := range e.Parts {
		if e.UTC.Add(p.To) > from && (to == 0 || e.UTC.Add(p.From) < to) {
			return true
		}
	}
	return false
}

// Span returns what Each calls fn with. An element is given whole: readers trim
// by sample time to its parts and to the span.
func (s *Stream) Span(from, to m4f.UTC) ([]Element, error) {
	var out []Element
	err := s.Each(from, to, func(e *Element) error {
		out = append(out, *e)
		return nil
	})
	return out, err
}

// eachPiece is Each for the pieces, over the edges of hours.
func (s *Stream) eachPiece(from, to m4f.UTC, fn func(Piece)) error {
	hours, err := s.hours(from, to)
	if err != nil {
		return err
	}
	var held []Element // of the hour before, whose last pieces reach into this one
	cut := false       // of some of them the first pieces were given
	flush := func(until m4f.UTC) {
		n := 0
		for _, p := range pieces(held, cut) {
			if until != 0 && p.Start() >= until {
				break
			}
			n++
			if p.Stop() > from && (to == 0 || p.Start() < to) {
				fn(p)
			}
		}
		held = slices.DeleteFunc(held, func(e Element) bool {
			return until == 0 || e.UTC.Add(e.Parts[len(e.Parts)-1].From) < until
		})
		cut = len(held) > 0
		for i := range held { // pieces that were given already
			held[i].Parts = slices.DeleteFunc(slices.Clone(held[i].Parts), func(p Part) bool {
				return held[i].UTC.Add(p.From) < until
			})
		}
	}
	for _, h := range hours {
		els, err := s.viewOf(h)
		if err != nil {
			return err
		}
		flush(h.start())
		held = append(held, els...)
	}
	flush(0)
	return nil
}

// Follows says whether b begins where a ends. Within a timeline media time
// decides (to 5 ms), so that drift of the encoder's clock and milliseconds
// between nodes are no gap; between timelines UTC does (to 250 ms). An overlap
// is no gap either.
func Follows(a, b Piece) bool { return gapBetween(a, b) <= 0 }

// gapBetween is the time, in ticks, that is missing between two pieces.
func gapBetween(a, b Piece) int64 {
	x, y := a.edge(), b.edge()
	return x.gap(&y)
}

// gap is gapBetween for the pieces of two edges.
func (a *edge) gap(b *edge) int64 {
	utc := int64(b.start - a.stop)
	media := m4f.Diff33(b.media, a.end)
	switch {
	case utc >= hourTicks: // media time may have gone round any number of times
		return utc
	case -contiguous <= media && media <= contiguous:
		return 0
	case !b.begins && sameClock(utc, media):
		return max(media, 0)
	case utc <= utcSlack:
		return 0
	}
	return utc
}

// sameClock says whether a stretch between two segments is as long in UTC as in
// media time, to within what two nodes that agree may differ by, one second,
// and what drift is corrected by, 500 ppm of an hour.
func sameClock(utc, media int64) bool {
	const slack = m4f.Timescale + hourTicks/2000
	return -slack <= utc-media && utc-media <= slack
}

// Interval is a stretch of the view without a gap.
type Interval struct {
	From, To  m4f.UTC
	Segments  int
	Bytes     int64 // of moof and mdat, whole segments
	Damaged   int   // segments
	Partial   int   // segments
	Timelines int   // stretches of unbroken media time in it
}

// continues says whether b goes on with a's media time.
func continues(a, b Piece) bool {
	d := m4f.Diff33(b.Media(), a.Media()+(a.To-a.Part.From))
	return -contiguous <= d && d <= contiguous
}

// Coverage returns the stretches of the view in [from, to), which they are
// clipped to. from 0 is the beginning and to 0 the end.
func (s *Stream) Coverage(from, to m4f.UTC) ([]Interval, error) {
	c := coverage{from: from, to: to}
	err := s.eachPiece(from, to, c.add)
	return c.intervals, err
}

// Cover returns the stretches and the gaps between them of a view that was
// read elsewhere, clipped to [from, to). The gaps have no cause.
func Cover(els []Element, from, to m4f.UTC) ([]Interval, []Gap) {
	c := coverage{from: from, to: to}
	for _, p := range Pieces(els) {
		if p.Stop() > from && (to == 0 || p.Start() < to) {
			c.add(p)
		}
	}
	return c.intervals, c.gaps
}

// coverage sums up pieces that come in playing order.
type coverage struct {
	from, to  m4f.UTC
	intervals []Interval
	gaps      []Gap

	last, furthest Piece // the one played last, and the one that ends last
}

func (c *coverage) add(p Piece) {
	first := c.last.Element == nil
	if first {
		c.open(p)
	} else if gap := c.missing(p); gap > 0 {
		c.miss(p.Start(), gap)
		c.open(p)
	} else if !continues(c.last, p) {
		c.intervals[len(c.intervals)-1].Timelines++
	}
	iv := &c.intervals[len(c.intervals)-1]
	iv.To = max(iv.To, c.clip(p.Stop()))
	if first || p.ID != c.last.ID || p.UTC != c.last.UTC {
		iv.count(p.Element)
	}
	c.pass(p)
}

// pass has the next piece judged by this one.
func (c *coverage) pass(p Piece) {
	e := *p.Element // views of hours gone by are not kept alive
	p.Element = &e
	if c.last.Element == nil || p.Stop() >= c.furthest.Stop() {
		c.furthest = p
	}
	c.last = p
}

// missing is the time, in ticks, that is missing ahead of the next piece; 0 or less: none.
func (c *coverage) missing(p Piece) int64 {
	return min(gapBetween(c.last, p), gapBetween(c.furthest, p))
}

// miss adds a gap of so many ticks before a piece, and has the stretch ahead of it
// end there: media time decides, and UTC may be some milliseconds off.
func (c *coverage) miss(until m4f.UTC, gap int64) {
	n := len(c.intervals) - 1
	ahead := &c.intervals[n]
	if from := until.Add(-gap); from > ahead.From {
		ahead.To = from
		c.gaps = append(c.gaps, Gap{From: from, To: until})
		return
	}
	c.intervals = c.intervals[:n] // nothing is left of it
	if len(c.gaps) > 0 {
		c.gaps[len(c.gaps)-1].To = until
	}
}

func (c *coverage) open(p Piece) {
	c.intervals = append(c.intervals, Interval{From: max(p.Start(), c.from), To: c.clip(p.Stop()), Timelines: 1})
}

func (c *coverage) clip(u m4f.UTC) m4f.UTC {
	if c.to != 0 {
		return min(u, c.to)
	}
	return u
}

func (iv *Interval) count(e *Element) {
	iv.Segments++
	iv.Bytes += int64(e.Length)
	if e.Damaged() {
		iv.Damaged++
	}
	if e.Partial() {
		iv.Partial++
	}
}

// Gap is a span inside the archive that no segment of the view covers.
type Gap struct {
	From, To m4f.UTC
	Cause    string       // a sentence; "not recorded" where nothing says why
	Event    *event.Event // the event that says why, or nil
}

// Gaps returns the gaps inside [from, to), each with its cause as far as the
// events tell. The time before the first and after the last segment of the
// archive is no gap, nor is what has been pruned between kept spans and the
// horizon.
func (s *Stream) Gaps(from, to m4f.UTC) ([]Gap, error) {
	info, err := s.Info()
	if err != nil {
		return nil, err
	}
	hours, err := s.hours(0, 0)
	if err != nil {
		return nil, err
	}
	first, err := s.beginsIn(hours)
	if err != nil {
		return nil, err
	}
	from = max(from, first)
	if to == 0 || to > info.Newest {
		to = info.Newest
	}
	c := coverage{from: from, to: to}
	err = s.eachPiece((hourOf(from) - 1).start(), to, func(p Piece) {
		if p.Stop() <= from {
			c.pass(p)
			return
		}
		first := len(c.intervals) == 0 && c.last.Element != nil
		follows := first && c.missing(p) <= 0 // what is ahead of the span, by media time
		if first {
			c.last, c.furthest = Piece{}, Piece{}
		}
		if c.add(p); follows {
			c.intervals[0].From = from
		}
	})
	if err != nil {
		return nil, err
	}
	out := c.gaps
	at := from // where the span ends in a gap, if it does
	if len(c.intervals) > 0 {
		if c.intervals[0].From-from > utcSlack {
			out = slices.Insert(out, 0, Gap{From: from, To: c.intervals[0].From})
		}
		at = c.furthest.Stop() // not always of the last one: timelines may overlap
	}
	if to-at > utcSlack {
		out = append(out, Gap{From: at, To: to})
	}
	if out, err = s.notPruned(out); err != nil {
		return nil, err
	}
	return out, s.explain(out)
}

// notPruned leaves of gaps what is in hours that exist.
func (s *Stream) notPruned(gaps []Gap) ([]Gap, error) {
	r, err := s.reach()
	if err != nil || len(gaps) == 0 || gaps[0].From >= r.first.start() {
		return gaps, err
	}
	var out []Gap
	for _, g := range gaps {
		for _, x := range r.within(g.From, g.To) {
			if x.to-x.from > utcSlack || x.from == g.From && x.to == g.To {
				out = append(out, Gap{From: x.from, To: x.to})
			}
		}
	}
	return out, nil
}
