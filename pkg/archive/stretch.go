package archive

import (
	"container/list"
	"slices"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// State is what an archive has of a stretch of time.
type State uint8

// The states of a stretch of time, the better first.
const (
	StateLive       State = iota // recorded here: from a source, or by record
	StateReplicated              // fetched as a peer listed it
	StateHealed                  // fetched or merged later, to fill a gap or to replace damage
	StateDamaged                 // recorded with known loss, however it came
	StateMissing                 // a gap
	NumStates
)

var stateNames = [NumStates]string{"live", "replicated", "healed", "damaged", "missing"}

// String returns the state's name, as JSON has it.
func (s State) String() string { return stateNames[min(s, StateMissing)] }

// ParseState reads a name that String returned.
func ParseState(name string) (State, bool) {
	for i, n := range stateNames {
		if n == name {
			return State(i), true
		}
	}
	return 0, false
}

// StateOf is the state of the time that an element is shown for.
func StateOf(e *Element) State {
	switch {
	case e.Damaged():
		return StateDamaged
	case e.Origin == Replicated:
		return StateReplicated
	case e.Origin == Healed:
		return StateHealed
	}
	return StateLive
}

// Stretch is a span of time in one state, or, where several were merged, with
// how much of each there is in it.
type Stretch struct {
	From, To m4f.UTC
	State    State // the worst, of those that were merged
	Segments int   // whose first shown part begins in it; about, where the span asked for cuts it
	Bytes    int64 // of those, whole
	// Mixed is how many ticks are in each state; nil: all are in State.
	Mixed *[NumStates]int64
}

// Ticks is how many ticks of the stretch are in a state.
func (x *Stretch) Ticks(s State) int64 {
	switch {
	case x.Mixed != nil:
		return x.Mixed[s]
	case x.State == s:
		return int64(x.To - x.From)
	}
	return 0
}

// Stretches returns what the archive has of [from, to), in order of time and
// without overlap: the stretches of the view by the state of their segments, and the
// gaps that Gaps tells. from 0 is the beginning and to 0 the end. Time before the
// first and behind the last segment, and what has been pruned, is in none.
//
// It remembers the stretches of each hour and looks only at those hours that have
// changed.
func (s *Stream) Stretches(from, to m4f.UTC) ([]Stretch, error) {
	hours, err := s.hours(0, 0)
	if err != nil {
		return nil, err
	}
	first, err := s.beginsIn(hours)
	if err != nil || first == 0 {
		return nil, err
	}
	from = max(from, first)
	j := joiner{from: from, to: to}
	var state foldState
	hours = andNext(hours)
	for i, h := range hours {
		if h < hourOf(from)-1 { // the last segment of the hour before may reach into the span
			continue
		}
		x, err := s.cache.strip(h, state, i < len(hours)-growing)
		if err != nil {
			return nil, err
		}
		state = x.out
		if j.out == nil && x.in.last.stop == 0 && len(x.list) > 0 && x.list[0].From-from > utcSlack {
			j.add(&Stretch{From: from, To: x.list[0].From, State: StateMissing})
		}
		for k := range x.list {
			j.add(&x.list[k])
		}
		if to != 0 && h > hourOf(to) && len(x.list) > 0 { // behind it nothing tells more of the span
			break
		}
	}
	return s.existing(j.end())
}

// existing leaves of stretches what is in hours that exist: no gap is where
// everything was pruned.
func (s *Stream) existing(all []Stretch) ([]Stretch, error) {
	r, err := s.reach()
	if err != nil || len(all) == 0 || all[0].From >= r.first.start() {
		return all, err
	}
	out := all[:0:0]
	for _, x := range all {
		if x.State != StateMissing {
			out = append(out, x)
			continue
		}
		for _, part := range r.within(x.From, x.To) {
			if part.to-part.from > utcSlack || part.from == x.From && part.to == x.To {
				out = append(out, Stretch{From: part.from, To: part.to, State: StateMissing})
			}
		}
	}
	return out, nil
}

// joiner puts stretches of one hour behind those of the one before.
type joiner struct {
	from, to m4f.UTC
	out      []Stretch
}

// add takes the next stretch. Where no gap was found between two, none is: media
// time decides what follows what, and UTC may be some milliseconds off.
func (j *joiner) add(next *Stretch) {
	x := *next
	if n := len(j.out); n > 0 {
		last := &j.out[n-1]
		x.From = max(x.From, last.From)
		last.To = x.From
		if last.State == x.State {
			last.To = max(last.To, x.To)
			last.Segments, last.Bytes = last.Segments+x.Segments, last.Bytes+x.Bytes
			return
		}
		if last.To == last.From {
			*last = x
			return
		}
	}
	j.out = append(j.out, x)
}

// end returns what there is of the span.
func (j *joiner) end() []Stretch {
	kept := j.out[:0]
	for _, x := range j.out {
		if x.clip(j.from, j.to); x.From < x.To {
			kept = append(kept, x)
		}
	}
	return kept
}

// clip cuts a stretch to a span, and what it holds in proportion.
func (x *Stretch) clip(from, to m4f.UTC) {
	whole := float64(x.To - x.From)
	x.From = max(x.From, from)
	if to != 0 {
		x.To = min(x.To, to)
	}
	if left := float64(x.To - x.From); left < whole && whole > 0 {
		left = max(left, 0) / whole
		x.Segments, x.Bytes = int(float64(x.Segments)*left+0.5), int64(float64(x.Bytes)*left)
	}
}

// strip is an hour's stretches: of the pieces that start in it, and of the gaps
// before them.
type strip struct {
	of      [2]cacheVersion // of the views of the hour before and the hour
	in, out foldState
	list    []Stretch
}

// stripBytes bounds what is remembered of stretches: those of 200 streams of 30 days.
const stripBytes = 96 << 20

// strips remembers the stretches of hours, of all streams of the process.
var strips = &lru{limit: stripBytes, at: make(map[cacheKey]*list.Element)}

const kindStrip = kindView + 1

// strip returns an hour's stretches, behind a state. The result is shared.
func (c *hourCache) strip(h hour, in foldState, settled bool) (*strip, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	of, err := c.foldVersions(h, settled)
	if err != nil {
		return nil, err
	}
	key := cacheKey{c, h, kindStrip}
	if v, ok := strips.get(key, of[1]); ok {
		if x := v.(*strip); x.of == of && x.in == in {
			return x, nil
		}
	}
	x := &strip{of: of, in: in, out: in}
	if err := c.eachStarting(h, x.add); err != nil {
		return nil, err
	}
	x.remember(c, h)
	return x, nil
}

// remember keeps an hour's stretches for the next time.
func (x *strip) remember(c *hourCache, h hour) {
	strips.put(cacheKey{c, h, kindStrip}, x.of[1], x, len(x.list)*48+512)
}

// add takes the next piece.
func (x *strip) add(p Piece) {
	e := p.edge()
	if gap := x.out.next(&e); gap > 0 {
		from := x.end(e.start.Add(-gap))
		x.list = append(x.list, Stretch{From: from, To: e.start, State: StateMissing})
	}
	from := x.end(e.start)
	state := StateOf(p.Element)
	if n := len(x.list); n == 0 || x.list[n-1].State != state {
		x.list = append(x.list, Stretch{From: from, State: state})
	}
	last := &x.list[len(x.list)-1]
	last.To = max(last.To, e.stop)
	if p.Part.From == p.Parts[0].From {
		last.Segments++
		last.Bytes += int64(p.Length)
	}
}

// end has what came so far end at a time, or where it began.
func (x *strip) end(at m4f.UTC) m4f.UTC {
	n := len(x.list)
	if n == 0 {
		return at
	}
	x.list[n-1].To = max(at, x.list[n-1].From)
	return x.list[n-1].To
}

// MergeStretches merges runs of stretches that are each shorter than step ticks,
// up to that length, so that no more than about three are left for each step.
// Longer ones, and a short one between two longer ones, stay as they are.
func MergeStretches(all []Stretch, step int64) []Stretch {
	out := make([]Stretch, 0, min(len(all), 64))
	run := false // the last of out is shorter than step and may grow
	for i := range all {
		x := &all[i]
		short := int64(x.To-x.From) < step
		n := len(out)
		if !short || !run || out[n-1].To != x.From {
			out = append(out, *x)
			run = short
			continue
		}
		out[n-1].merge(x)
		run = int64(out[n-1].To-out[n-1].From) < step
	}
	return out
}

// merge takes the stretch that follows.
func (x *Stretch) merge(next *Stretch) {
	var mixed [NumStates]int64
	for s := range NumStates {
		mixed[s] = x.Ticks(s) + next.Ticks(s)
	}
	x.To, x.State, x.Mixed = next.To, max(x.State, next.State), &mixed
	x.Segments, x.Bytes = x.Segments+next.Segments, x.Bytes+next.Bytes
}

// LastGaps returns the newest of the gaps that Gaps tells, at most limit of them,
// and whether there are more. It looks at what Stretches remembers.
func (s *Stream) LastGaps(from, to m4f.UTC, limit int) (gaps []Gap, more bool, err error) {
	all, err := s.Stretches(from, to)
	if err != nil {
		return nil, false, err
	}
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].State != StateMissing {
			continue
		}
		if len(gaps) == limit {
			more = true
			break
		}
		gaps = append(gaps, Gap{From: all[i].From, To: all[i].To})
	}
	slices.Reverse(gaps)
	return gaps, more, s.explain(gaps)
}
