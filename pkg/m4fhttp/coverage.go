package m4fhttp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

const (
	// maxStretches bounds the lines of an answer to coverage; where there would be
	// more, they are merged further.
	maxStretches = 20000
	// MaxStep bounds the step of coverage, in seconds: one year.
	MaxStep = 366 * 24 * 3600
)

// CoverageLine is a line of the answer to coverage: one of its members is there.
// The archive comes first, then the stretches in order of time, then what is
// kept.
type CoverageLine struct {
	Archive *CoveredArchive `json:"archive,omitempty"`
	Stretch *Stretch        `json:"stretch,omitempty"`
	Kept    *Kept           `json:"kept,omitempty"`
}

// CoveredArchive is the archive of which coverage tells.
type CoveredArchive struct {
	Oldest  *Time `json:"oldest,omitempty"`  // start of the first segment
	Newest  *Time `json:"newest,omitempty"`  // end of the last
	Horizon *Time `json:"horizon,omitempty"` // before it, everything has been pruned
	// Step is what stretches were merged to, in seconds; more than was asked for
	// where there would be too many.
	Step int64 `json:"step"`
}

// Stretch is an archive.Stretch as it travels.
type Stretch struct {
	Start    Time   `json:"start"`
	End      Time   `json:"end"`
	State    string `json:"state"` // live, replicated, healed, damaged, missing
	Segments int    `json:"segments"`
	Bytes    int64  `json:"bytes"`
	// Mixed is how many ticks are in each state, of a stretch that was merged of
	// several.
	Mixed map[string]int64 `json:"mixed,omitempty"`
}

// Kept is a span protected from pruning.
type Kept struct {
	Name  string `json:"name"`
	Start Time   `json:"start"`
	End   Time   `json:"end"`
}

// Coverage is what an archive has of a span of time.
type Coverage struct {
	Oldest, Newest, Horizon m4f.UTC // of all of the archive; 0: there is none
	Step                    int64   // seconds that the stretches were merged to
	Stretches               []archive.Stretch
	Kept                    []archive.Keep // those that touch the span; without Created
}

// CoverageOf returns what an archive has of [from, to), merged to step seconds,
// or to more where there would be more than about most stretches.
func CoverageOf(a *archive.Stream, from, to m4f.UTC, step int64, most int) (*Coverage, error) {
	info, err := a.Info()
	if err != nil {
		return nil, err
	}
	c := &Coverage{Oldest: info.Oldest, Newest: info.Newest, Horizon: info.Horizon, Step: step}
	all, err := a.Stretches(from, to)
	if err != nil {
		return nil, err
	}
	for c.Stretches = archive.MergeStretches(all, step*m4f.Timescale); len(c.Stretches) > most && c.Step < MaxStep; {
		span := int64(all[len(all)-1].To-all[0].From) / m4f.Timescale
		c.Step = min(max(2*c.Step, 3*span/int64(most)+1), MaxStep)
		c.Stretches = archive.MergeStretches(all, c.Step*m4f.Timescale)
	}
	kept, err := a.Kept()
	if err != nil {
		return nil, err
	}
	for _, k := range kept {
		if k.To > from && (to == 0 || k.From < to) {
			c.Kept = append(c.Kept, k)
		}
	}
	return c, nil
}

// serveCoverage answers with what the archive has of a span.
func (h *Handler) serveCoverage(q *request) error {
	from, to, err := q.span()
	if err != nil {
		return err
	}
	step := int64(0)
	if text := q.query.Get("step"); text != "" {
		if step, err = strconv.ParseInt(text, 10, 64); err != nil || step < 0 || step > MaxStep {
			return problemf(http.StatusBadRequest, "step=%s is no number of seconds from 0 to %d", clip(text), MaxStep)
		}
	}
	c, err := CoverageOf(q.stream.Archive(), from, to, step, maxStretches)
	if err != nil {
		return err
	}
	l := newLineWriter(q, false)
	head := &CoveredArchive{Oldest: timeOf(c.Oldest), Newest: timeOf(c.Newest), Horizon: timeOf(c.Horizon), Step: c.Step}
	err = l.line(CoverageLine{Archive: head})
	for i := range c.Stretches {
		err = errors.Join(err, l.line(CoverageLine{Stretch: stretchOf(&c.Stretches[i])}))
	}
	for _, k := range c.Kept {
		err = errors.Join(err, l.line(CoverageLine{Kept: &Kept{k.Name, Time(k.From), Time(k.To)}}))
	}
	if errors.Join(err, l.end()) != nil {
		cut()
	}
	return nil
}

func timeOf(u m4f.UTC) *Time {
	if u == 0 {
		return nil
	}
	return ptr(Time(u))
}

func utcOf(t *Time) m4f.UTC {
	if t == nil {
		return 0
	}
	return m4f.UTC(*t)
}

func stretchOf(x *archive.Stretch) *Stretch {
	w := &Stretch{Start: Time(x.From), End: Time(x.To), State: x.State.String(), Segments: x.Segments, Bytes: x.Bytes}
	if x.Mixed != nil {
		w.Mixed = make(map[string]int64, len(x.Mixed))
		for s, ticks := range x.Mixed {
			if ticks > 0 {
				w.Mixed[archive.State(s).String()] = ticks
			}
		}
	}
	return w
}

// Coverage asks what the peer's archive has of a span, merged to step seconds.
// From 0 is the beginning, to 0 the end.
func (c *Client) Coverage(ctx context.Context, from, to m4f.UTC, step int64) (*Coverage, error) {
	query := span(from, to)
	if step > 0 {
		query.Set("step", strconv.FormatInt(step, 10))
	}
	r := coverageReader{from: from, to: to}
	if err := c.lines(ctx, "coverage", query, 2*maxStretches, r.line); err != nil {
		return nil, err
	}
	return &r.Coverage, nil
}

// coverageReader checks what a peer tells of its archive.
type coverageReader struct {
	Coverage
	from, to m4f.UTC
}

func (r *coverageReader) line(b []byte) error {
	var l CoverageLine
	if err := json.Unmarshal(b, &l); err != nil {
		return err
	}
	switch {
	case l.Archive != nil:
		r.Oldest, r.Newest, r.Horizon, r.Step = utcOf(l.Archive.Oldest), utcOf(l.Archive.Newest), utcOf(l.Archive.Horizon), l.Archive.Step
		if r.Step < 0 || r.Step > MaxStep {
			return fmt.Errorf("a step of %d seconds", r.Step)
		}
	case l.Stretch != nil:
		x, err := l.Stretch.stretch()
		if n := len(r.Stretches); err == nil && n > 0 && x.From < r.Stretches[n-1].To {
			err = fmt.Errorf("a stretch from %s is not behind the one ahead of it", l.Stretch.Start)
		}
		if err == nil && (x.To <= r.from.Add(-slack) || r.to > 0 && x.From >= r.to.Add(slack)) {
			err = fmt.Errorf("a stretch from %s was not asked for", l.Stretch.Start)
		}
		if err != nil {
			return err
		}
		r.Stretches = append(r.Stretches, x)
	case l.Kept != nil:
		if archive.ValidKeepName(l.Kept.Name) != nil || l.Kept.End <= l.Kept.Start || len(r.Kept) >= archive.MaxKeeps {
			return fmt.Errorf("a kept span %q", printable(l.Kept.Name))
		}
		r.Kept = append(r.Kept, archive.Keep{Name: printable(l.Kept.Name), From: m4f.UTC(l.Kept.Start), To: m4f.UTC(l.Kept.End)})
	}
	return nil
}

// stretch checks what came from a peer.
func (w *Stretch) stretch() (archive.Stretch, error) {
	x := archive.Stretch{From: m4f.UTC(w.Start), To: m4f.UTC(w.End), Segments: w.Segments, Bytes: w.Bytes}
	var ok bool
	if x.State, ok = archive.ParseState(w.State); !ok {
		return x, fmt.Errorf("a stretch in the state %q", printable(w.State))
	}
	if x.To <= x.From || x.Segments < 0 || x.Bytes < 0 {
		return x, fmt.Errorf("a stretch from %s to %s with %d segments and %d bytes", w.Start, w.End, x.Segments, x.Bytes)
	}
	if w.Mixed == nil {
		return x, nil
	}
	x.Mixed = new([archive.NumStates]int64)
	left := int64(x.To - x.From)
	for name, ticks := range w.Mixed {
		s, ok := archive.ParseState(name)
		if !ok || ticks < 0 || ticks > left {
			return x, fmt.Errorf("a stretch from %s with %d ticks in the state %q", w.Start, ticks, printable(name))
		}
		x.Mixed[s], left = ticks, left-ticks
	}
	return x, nil
}
