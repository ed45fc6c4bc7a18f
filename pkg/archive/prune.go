package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// PruneOptions say what a pass over one stream keeps. 0 is no limit.
type PruneOptions struct {
	Depth  time.Duration // whole hours older than this go
	Size   int64         // bytes of the hours' files; beyond it the oldest hours go
	DryRun bool          // change nothing, say what would go
	Force  bool          // also what time does not explain
}

// Reason is the limit that an hour is removed for.
type Reason string

// The reasons.
const (
	ByDepth   Reason = "depth"
	BySize    Reason = "size"     // of the stream
	ByPercent Reason = "percent"  // the use of the volume
	ByMinFree Reason = "min_free" // what is to be left free on the volume
	// ByHorizon: it lay before the horizon already; a pass was stopped, or a
	// kept span was released.
	ByHorizon Reason = "horizon"
)

// PrunedHour is an hour that a pass removed, or would remove.
type PrunedHour struct {
	Start m4f.UTC
	Bytes int64 // of its files
	Why   Reason
}

// PruneResult says what a pass did to a stream, or would do.
type PruneResult struct {
	Horizon m4f.UTC      // where the horizon is now, or would be
	Hours   []PrunedHour // oldest first
	Bytes   int64        // of their files
	// Unmet is the stream's own size limit where it is not met: only kept spans
	// and the newest hours are left. Nil: it is.
	Unmet *LimitError
	// Held says why not all went that was asked for; nil: it did.
	Held *PruneHeldError
}

// Prune moves the horizon to Depth before now and removes the hours before it,
// and then the oldest ones as long as the stream is larger than Size. Kept
// spans stay, and for Size the newest two hours that hold segments.
//
// A wrong clock must not empty an archive. So now is never taken to be later
// than one hour after the end of the newest live segment. And hours that the
// passing of time does not explain (the clock must have moved on so far since
// the pass before, and a ninth of that must have been recorded) are removed
// only as long as they are at most a tenth of the archive; otherwise the pass
// removes what time explains and returns a *PruneHeldError, until one is run
// with Force. A horizon that lies ahead of now, set on a wrong clock, goes back,
// so that what is recorded is taken again.
func (s *Stream) Prune(now time.Time, opt PruneOptions) (PruneResult, error) {
	p, err := s.planFor(now, opt.Depth, opt.Size, opt.Force)
	if err != nil {
		return PruneResult{}, err
	}
	res, err := p.apply(opt.DryRun)
	if err == nil && p.held != nil {
		err = p.held
	}
	return res, err
}

// apply removes what was planned, or says what would go.
func (p *pruning) apply(dryRun bool) (PruneResult, error) {
	res := PruneResult{Horizon: p.goal.start(), Unmet: p.unmet, Held: p.held}
	var gone []hour
	for _, h := range p.all {
		if h >= p.goal {
			break
		}
		if p.kept.touch(h) {
			continue
		}
		size, err := p.size(h)
		if err != nil {
			return res, err
		}
		gone = append(gone, h)
		res.Hours = append(res.Hours, PrunedHour{h.start(), size.bytes, p.reason(h)})
		res.Bytes += size.bytes
	}
	if dryRun || p.now == 0 && !p.ahead && len(gone) == 0 {
		return res, nil
	}
	if p.held == nil && p.now != 0 && !p.ahead {
		var err error
		if p.last, err = p.next(); err != nil {
			return res, err
		}
	}
	left, err := p.s.drop(p.goal, gone, p.last)
	for _, h := range left { // kept since the pass began
		i := slices.IndexFunc(res.Hours, func(x PrunedHour) bool { return x.Start == h.start() })
		res.Bytes -= res.Hours[i].Bytes
		res.Hours = slices.Delete(res.Hours, i, i+1)
	}
	return res, err
}

// begins is where the archive begins once the plan is carried out: its first hour
// that is not kept, or the horizon.
func (p *pruning) begins() hour {
	for _, h := range p.all {
		if h >= p.goal && !p.kept.touch(h) {
			return h
		}
	}
	return p.goal
}

// noteDepth is the depth as it is written down; a pass without one leaves that
// of the pass before.
func (p *pruning) noteDepth() string {
	switch {
	case p.depth > 0:
		return p.depth.String()
	case p.mark.Pruned != nil:
		return p.mark.Pruned.Depth
	}
	return ""
}

// drop is the numbered steps of prune in the package documentation. It returns
// the hours that it left because a span was kept meanwhile.
func (s *Stream) drop(goal hour, gone []hour, last lastPrune) (left []hour, err error) {
	for {
		err = s.moveHorizon(goal, last) // 1
		if len(gone) == 0 || !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
			break
		}
		// Not even stream.json finds room: the first hour has to make it.
		kept, err := s.dropUnlessKept(gone[0])
		if err != nil {
			return left, err
		}
		if kept {
			left = append(left, gone[0])
		}
		gone = gone[1:]
	}
	if err != nil || len(gone) == 0 {
		return left, err
	}
	if err := s.dropChanges(goal); err != nil { // 2
		return left, placeError(s.dir, err)
	}
	for _, h := range gone { // 3
		kept, err := s.dropUnlessKept(h)
		if err != nil {
			return left, err
		}
		if kept {
			left = append(left, h)
		}
	}
	return left, nil
}

func (s *Stream) moveHorizon(goal hour, last lastPrune) error {
	return s.changeMarker(func(m *marker) bool {
		horizon, pruned := m.horizon(), m.Pruned
		if goal > 0 {
			m.setHorizon(goal.start())
		}
		m.Pruned = &last
		return m.horizon() != horizon || pruned == nil || worthNoting(*pruned, last)
	})
}

// worthNoting keeps a pass that removes nothing from writing stream.json each
// time: the time of the last pass may be a little old.
func worthNoting(was, is lastPrune) bool {
	return was.Depth != is.Depth || is.At.Sub(was.At) > 10*time.Minute || is.At.Before(was.At)
}

// dropUnlessKept removes an hour, or says that a kept span touches it by now.
func (s *Stream) dropUnlessKept(h hour) (kept bool, err error) {
	defer s.lockKeeps()()
	l, err := s.readKeeps(true)
	if err != nil || l.touch(h) {
		return true, err
	}
	if err := s.dropHour(h); err != nil {
		return false, placeError(s.hourDir(h), err)
	}
	s.sizes.forget(h)
	return false, nil
}

// dropHour removes the files of an hour, then the directories that are empty
// by that.
func (s *Stream) dropHour(h hour) error {
	dir := s.hourDir(h)
	entries, err := readDir(s.fs, dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := s.fs.Remove(filepath.Join(dir, e.Name())); err != nil && !isNotExist(err) {
			return err
		}
	}
	for ; dir != s.dir; dir = filepath.Dir(dir) {
		err := s.fs.Remove(dir)
		if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, fs.ErrExist) {
			return nil // it holds later hours, or a writer was quicker
		}
		if err != nil && !isNotExist(err) {
			return err
		}
	}
	return nil
}

// NotePrune writes down that a pass removed hours, why it waits, or that a limit
// is not met.
func (s *Stream) NotePrune(res PruneResult, err error) error {
	var held *PruneHeldError
	if errors.As(err, &held) {
		if err := s.report(event.Event{Kind: event.Prune, Msg: held.Error()}); err != nil {
			return err
		}
	} else if err != nil {
		return nil
	}
	if res.Unmet != nil {
		if err := s.report(event.Event{Kind: event.Prune, Msg: res.Unmet.Error()}); err != nil {
			return err
		}
	}
	if len(res.Hours) == 0 {
		return nil
	}
	why := map[Reason]int{}
	for _, h := range res.Hours {
		why[h.Why]++
	}
	return s.report(event.Event{Kind: event.Prune, Msg: fmt.Sprintf("pruning removed %d hours", len(res.Hours)),
		Attrs: map[string]any{"bytes": res.Bytes, "horizon": res.Horizon.Time().Format(time.RFC3339), "why": why}})
}
