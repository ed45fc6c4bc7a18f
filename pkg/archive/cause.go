package archive

import (
	"cmp"
	"iter"
	"slices"

	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/m4f"
)

const (
	notRecorded = "not recorded"
	// An event explains a gap that begins up to this long before it, since a
	// source is found to be lost only after its timeout, or a little after it.
	noticedAfter = 30 * m4f.Timescale
	noticedAhead = 5 * m4f.Timescale
	// outageReach is how far from the gaps that are asked for the beginning and the
	// end of their outage are looked for.
	outageReach = 24 * hourTicks
)

// explain gives gaps, in order of time, their causes.
func (s *Stream) explain(gaps []Gap) error {
	if len(gaps) == 0 {
		return nil
	}
	all, err := s.Stretches(gaps[0].From-outageReach, gaps[len(gaps)-1].To+outageReach)
	if err != nil {
		return err
	}
	down := downtimes(all)
	for i := range gaps {
		g := &gaps[i]
		for len(down) > 0 && down[0].to <= g.From {
			down = down[1:]
		}
		o, whole := &downtime{from: g.From, to: g.To}, *g // where it was filled meanwhile
		if len(down) > 0 && down[0].from <= g.From && g.To <= down[0].to {
			o, whole = &down[0], down[0].around(g)
		}
		if err := o.explain(s, &whole); err != nil {
			return err
		}
		g.Cause, g.Event = whole.Cause, whole.Event
	}
	return nil
}

// downtime is a stretch of which nothing was recorded here when it was sent: gaps, and
// between them and around them what was fetched from peers.
type downtime struct {
	from, to m4f.UTC
	gaps     []Gap
	read     bool
	events   []event.Event // from a little ahead of it to a little behind it, once read
}

func downtimes(all []Stretch) []downtime {
	var out []downtime
	for _, x := range all {
		if x.State != StateMissing && x.State != StateHealed && x.State != StateReplicated {
			continue
		}
		if n := len(out); n == 0 || out[n-1].to != x.From {
			out = append(out, downtime{from: x.From})
		}
		o := &out[len(out)-1]
		if o.to = x.To; x.State == StateMissing {
			o.gaps = append(o.gaps, Gap{From: x.From, To: x.To})
		}
	}
	return out
}

// around returns the gap of which g is what lies in the span that was asked for.
func (o *downtime) around(g *Gap) Gap {
	i, _ := slices.BinarySearchFunc(o.gaps, g.From, func(x Gap, at m4f.UTC) int {
		if x.To <= at {
			return -1
		}
		return 1
	})
	if i < len(o.gaps) && o.gaps[i].From <= g.From && g.To <= o.gaps[i].To {
		return o.gaps[i]
	}
	return *g
}

// explain finds why a gap is there that lies in the outage: the event that is nearest
// to its start and of a kind that explains one; else what began since nothing is
// recorded here, and was not over when the gap began. Without any, a recorder that starts at the gap's end, or at the
// outage's, shows that none was running.
func (o *downtime) explain(s *Stream, g *Gap) (err error) {
	if !o.read {
		if o.events, err = s.Events(o.from-noticedAhead, o.to+noticedAfter); err != nil {
			return err
		}
		o.read = true
	}
	g.Cause = notRecorded
	if g.Event = o.near(g); g.Event == nil {
		g.Event = o.before(g)
	}
	if g.Event != nil {
		g.Cause = g.Event.Msg
	} else if g.Event = o.start(g); g.Event != nil {
		g.Cause = "no recorder was running"
	}
	return nil
}

// near returns the explaining event that is nearest to the start of a gap, or nil.
// That a recorder stopped is what follows from the others, and only counts where
// there is none.
func (o *downtime) near(g *Gap) (near *event.Event) {
	best := m4f.UTC(1 << 62)
	for e := range o.between(g.From-noticedAhead, min(g.From+noticedAfter, g.To+noticedAhead)) {
		d := m4f.UTCOf(e.Time) - g.From
		if d = max(d, -d); e.Kind == event.Stop {
			d += noticedAfter
		}
		if e.Explains() && d < best {
			best, near = d, e
		}
	}
	return near
}

// lasting are the kinds of event that explain a gap until another one has come.
var lasting = map[string]string{event.SourceLost: event.SourceBack, event.Disk: event.DiskBack, event.Stop: event.Start}

// before returns the last event of the outage that explains what follows it, and that
// nothing has ended ahead of the gap, or nil.
func (o *downtime) before(g *Gap) (last *event.Event) {
	for e := range o.between(o.from-noticedAhead, g.From) {
		switch {
		case e.Kind == event.Stop && last != nil: // which follows from the other
		case lasting[e.Kind] != "":
			last = e
		case last != nil && lasting[last.Kind] == e.Kind:
			last = nil
		}
	}
	return last
}

// start returns the event of a recorder that starts at the end of a gap, or at that
// of the outage, or nil.
func (o *downtime) start(g *Gap) *event.Event {
	for _, end := range []m4f.UTC{g.To, o.to} {
		for e := range o.between(end-noticedAhead, end+noticedAhead) {
			if e.Kind == event.Start {
				return e
			}
		}
	}
	return nil
}

// between returns those of the events that are of [from, to), in order of time.
func (o *downtime) between(from, to m4f.UTC) iter.Seq[*event.Event] {
	i, _ := slices.BinarySearchFunc(o.events, from, func(e event.Event, at m4f.UTC) int {
		return cmp.Compare(m4f.UTCOf(e.Time), at)
	})
	return func(yield func(*event.Event) bool) {
		for ; i < len(o.events) && m4f.UTCOf(o.events[i].Time) < to; i++ {
			if !yield(&o.events[i]) {
				return
			}
		}
	}
}
