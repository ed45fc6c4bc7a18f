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
	hours, err := s.hours(from, to)
	if err != nil {
		return err
	}
	for _, h := range hours {
		els, err := s.viewOf(h)
		if err != nil {
			return err
		}
		for i := range els {
			if !els[i].shows(from, to) {
				continue
			}
			e := els[i]
			if err := fn(&e); err != nil {
				return err
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
	flush := func(until m4f.UTC) {
		n := 0
		for _, p := range Pieces(held) {
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
	utc := int64(b.Start() - a.Stop())
	// Far apart, media time may have gone round any number of times.
	if media := m4f.Diff33(b.Media(), a.Media()+(a.To-a.Part.From)); utc < hourTicks && sameClock(utc, media) {
		if media <= contiguous {
			return 0
		}
		return media
	}
	if utc <= utcSlack {
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

// walk calls fn with the pieces of the view in [from, to) in playing order,
// each with the ticks that are missing ahead of it (0: none) and whether it
// goes on with the media time of the one before.
func (s *Stream) walk(from, to m4f.UTC, fn func(p Piece, gap int64, goesOn bool)) error {
	var last, furthest Piece // the one played last, and the one that ends last
	return s.eachPiece(from, to, func(p Piece) {
		e := *p.Element // the views of hours gone by are not kept alive
		p.Element = &e
		if last.Element == nil {
			fn(p, 0, false)
			last, furthest = p, p
			return
		}
		fn(p, min(gapBetween(last, p), gapBetween(furthest, p)), continues(last, p))
		last = p
		if p.Stop() >= furthest.Stop() {
			furthest = p
		}
	})
}

// continues says whether b goes on with a's media time.
func continues(a, b Piece) bool {
	d := m4f.Diff33(b.Media(), a.Media()+(a.To-a.Part.From))
	return -contiguous <= d && d <= contiguous
}

// Coverage returns the stretches of the view in [from, to), which they are
// clipped to. from 0 is the beginning and to 0 the end.
func (s *Stream) Coverage(from, to m4f.UTC) ([]Interval, error) {
	var out []Interval
	var last *Element
	err := s.walk(from, to, func(p Piece, gap int64, goesOn bool) {
		if len(out) == 0 || gap > 0 {
			out = append(out, Interval{From: p.Start(), To: p.Stop(), Timelines: 1})
		} else if !goesOn {
			out[len(out)-1].Timelines++
		}
		iv := &out[len(out)-1]
		iv.To = max(iv.To, p.Stop())
		if last == nil || p.ID != last.ID || p.UTC != last.UTC {
			iv.count(p.Element)
		}
		last = p.Element
	})
	for i := range out {
		out[i].From = max(out[i].From, from)
		if to != 0 {
			out[i].To = min(out[i].To, to)
		}
	}
	return out, err
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
// archive is no gap.
func (s *Stream) Gaps(from, to m4f.UTC) ([]Gap, error) {
	info, err := s.Info()
	if err != nil {
		return nil, err
	}
	from = max(from, info.Oldest)
	if to == 0 || to > info.Newest {
		to = info.Newest
	}
	var out []Gap
	at := from
	err = s.walk(from, to, func(p Piece, gap int64, _ bool) {
		if at == from && p.Start()-from > utcSlack { // the span begins in a gap
			gap = int64(p.Start() - from)
		}
		if gap > 0 {
			out = append(out, Gap{From: p.Start().Add(-gap), To: p.Start()})
		}
		at = max(at, p.Stop())
	})
	if err != nil {
		return nil, err
	}
	if to-at > utcSlack { // and ends in one
		out = append(out, Gap{From: at, To: to})
	}
	for i := range out {
		if err := s.explain(&out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

const (
	notRecorded = "not recorded"
	// An event explains a gap that begins up to this long before it, since a
	// source is found to be lost only after its timeout, or a little after it.
	noticedAfter = 30 * m4f.Timescale
	noticedAhead = 5 * m4f.Timescale
)

// explain finds the event that is nearest to the gap's start and of a kind that
// explains one; without one, a recorder that starts at the gap's end shows that
// none was running.
func (s *Stream) explain(g *Gap) error {
	g.Cause = notRecorded
	near, err := s.Events(g.From-noticedAhead, g.From+noticedAfter)
	if err != nil {
		return err
	}
	best := m4f.UTC(1 << 62)
	for i := range near {
		e := &near[i]
		d := m4f.UTCOf(e.Time) - g.From
		if e.Explains() && m4f.UTCOf(e.Time) < g.To+noticedAhead && max(d, -d) < best {
			best = max(d, -d)
			g.Event, g.Cause = e, e.Msg
		}
	}
	if g.Event != nil {
		return nil
	}
	after, err := s.Events(g.To-noticedAhead, g.To+noticedAhead)
	if err != nil {
		return err
	}
	for i := range after {
		if after[i].Kind == event.Start {
			g.Event, g.Cause = &after[i], "no recorder was running"
			return nil
		}
	}
	return nil
}
