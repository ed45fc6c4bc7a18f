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

// PruneOptions say what a pass keeps.
type PruneOptions struct {
	Depth  time.Duration // whole hours older than this go
	DryRun bool          // change nothing, say what would go
	Force  bool          // also what time does not explain
}

// PruneResult says what a pass removed, or would remove.
type PruneResult struct {
	Horizon m4f.UTC   // where the horizon is now, or would be
	Hours   []m4f.UTC // starts of the hours removed, oldest first
	Bytes   int64     // of their files
}

// Prune moves the horizon to Depth before now and removes the hours before it.
//
// A wrong clock must not empty an archive. So now is never taken to be later
// than one hour after the end of the newest live segment. And hours that the
// passing of time does not explain (the clock must have moved on so far since
// the pass before, and a ninth of that must have been recorded) are removed
// only as long as they are at most a tenth of the archive; otherwise the pass
// removes what time explains and returns a *PruneHeldError, until one is run
// with Force.
func (s *Stream) Prune(now time.Time, opt PruneOptions) (PruneResult, error) {
	var res PruneResult
	if opt.Depth < time.Hour {
		return res, fmt.Errorf("a depth of %v is less than the hour that is removed at once: use 1h or more", opt.Depth)
	}
	m, err := s.marker()
	if err != nil {
		return res, err
	}
	all, err := listHours(s.fs, s.dir)
	if err != nil {
		return res, err
	}
	at, err := s.believedNow(now)
	if err != nil {
		return res, err
	}
	goal := max(hourOf(at.Add(-m4f.Ticks(opt.Depth))), 0)
	horizon := hourOf(m.horizon())
	back := depthRaised(m, opt.Depth)
	if goal < horizon && !back {
		goal = horizon // the clock went back
	}
	last := lastPass(m, all)
	var held error
	if !opt.Force {
		if goal, held, err = s.hold(last, all, at, goal, opt.Depth); err != nil {
			return res, err
		}
		if !back {
			goal = max(goal, horizon)
		}
	}
	if held == nil {
		last = lastPrune{At: at.Time().Truncate(time.Second), Depth: opt.Depth.String(), Horizon: goal.start().Time()}
	}
	res.Horizon = goal.start()
	gone, _ := slices.BinarySearch(all, goal)
	for _, h := range all[:gone] {
		n, err := s.hourBytes(h)
		if err != nil {
			return res, err
		}
		res.Hours = append(res.Hours, h.start())
		res.Bytes += n
	}
	if opt.DryRun {
		return res, held
	}
	if err := s.drop(goal, all[:gone], last); err != nil {
		return res, err
	}
	return res, held
}

// depthRaised says whether more is to be kept than the pass before kept: only
// then does the horizon move back.
func depthRaised(m *marker, depth time.Duration) bool {
	if m.Pruned == nil {
		return false
	}
	before, err := time.ParseDuration(m.Pruned.Depth)
	return err == nil && depth > before
}

// believedNow is now, or an hour after the newest segment that was recorded
// here where that is earlier. An archive that only follows a peer goes by its
// newest segment; an empty one has nothing to lose.
func (s *Stream) believedNow(now time.Time) (m4f.UTC, error) {
	hours, err := s.hours(0, 0)
	if err != nil {
		return 0, err
	}
	var newest m4f.UTC
	for _, h := range slices.Backward(hours) {
		els, err := s.viewOf(h)
		if err != nil {
			return 0, err
		}
		for i := range els {
			if isLive(els[i].Origin) {
				newest = max(newest, els[i].End())
			}
		}
		if newest != 0 {
			break
		}
	}
	if newest == 0 {
		info, err := s.Info()
		if err != nil {
			return 0, err
		}
		newest = info.Newest
	}
	at := m4f.UTCOf(now)
	if newest != 0 {
		at = min(at, newest.Add(hourTicks))
	}
	return at, nil
}

func isLive(o Origin) bool { return o == Live || o == Imported || o == Unknown }

// recordedPerJump is how many times what was recorded since the last pass the
// clock may have moved on by: after an outage of two days, hours go again when
// five more have been recorded.
const recordedPerJump = 9

// hold returns how far the horizon may move, and a *PruneHeldError where that
// is not as far as asked.
func (s *Stream) hold(last lastPrune, all []hour, at m4f.UTC, goal hour, depth time.Duration) (hour, error, error) {
	if len(all) == 0 || goal <= all[0] {
		return goal, nil, nil
	}
	since := m4f.UTCOf(last.At)
	recorded, err := s.recordedSince(since, at)
	if err != nil {
		return goal, nil, err
	}
	passed := min(max(int64(at-since), 0), recordedPerJump*recorded) + hourTicks
	explained := hourOf(m4f.UTCOf(last.Horizon).Add(passed))
	if explained >= goal {
		return goal, nil, nil
	}
	first, _ := slices.BinarySearch(all, explained)
	end, _ := slices.BinarySearch(all, goal)
	excess := end - first
	if excess*10 <= len(all) {
		return goal, nil, nil
	}
	return explained, &PruneHeldError{Dir: s.dir, Hours: excess, Of: len(all), Horizon: goal.start(), Depth: depth}, nil
}

// lastPass is what time is counted from: the last complete pass, or how the
// archive began.
func lastPass(m *marker, all []hour) lastPrune {
	if m.Pruned != nil {
		return *m.Pruned
	}
	from := hourOf(m.horizon())
	if len(all) > 0 {
		from = max(from, all[0])
	}
	return lastPrune{At: m.Created, Horizon: from.start().Time()}
}

// recordedSince is how many ticks of the view were recorded here since a time.
func (s *Stream) recordedSince(since, until m4f.UTC) (int64, error) {
	var n int64
	err := s.Each(since, until, func(e *Element) error {
		if isLive(e.Origin) || e.Origin == Replicated {
			for _, p := range e.Parts {
				n += p.To - p.From
			}
		}
		return nil
	})
	return n, err
}

// drop is the numbered steps of prune in the package documentation.
func (s *Stream) drop(goal hour, gone []hour, last lastPrune) error {
	err := s.changeMarker(func(m *marker) bool { // 1
		horizon, pruned := m.horizon(), m.Pruned
		if goal > 0 {
			m.setHorizon(goal.start())
		}
		m.Pruned = &last
		return m.horizon() != horizon || pruned == nil || worthNoting(*pruned, last)
	})
	if err != nil {
		return err
	}
	if len(gone) == 0 {
		return nil
	}
	if err := s.dropChanges(goal); err != nil { // 2
		return placeError(s.dir, err)
	}
	for _, h := range gone { // 3
		if err := s.dropHour(h); err != nil {
			return placeError(s.hourDir(h), err)
		}
	}
	return nil
}

// worthNoting keeps a pass that removes nothing from writing stream.json each
// time: the time of the last pass may be a little old.
func worthNoting(was, is lastPrune) bool {
	return was.Depth != is.Depth || is.At.Sub(was.At) > 10*time.Minute || is.At.Before(was.At)
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

func (s *Stream) hourBytes(h hour) (int64, error) {
	entries, err := readDir(s.fs, s.hourDir(h))
	var n int64
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			n += info.Size()
		}
	}
	return n, err
}

// Size is the bytes of all files of the stream's hours.
func (s *Stream) Size() (int64, error) {
	hours, err := listHours(s.fs, s.dir)
	if err != nil {
		return 0, err
	}
	var n int64
	for _, h := range hours {
		b, err := s.hourBytes(h)
		if err != nil {
			return n, err
		}
		n += b
	}
	return n, nil
}

// NotePrune writes down that a pass removed hours, or why it waits.
func (s *Stream) NotePrune(res PruneResult, err error) error {
	var held *PruneHeldError
	switch {
	case errors.As(err, &held):
		return s.Note(event.Event{Kind: event.Prune, Msg: held.Error()})
	case err == nil && len(res.Hours) > 0:
		return s.Note(event.Event{Kind: event.Prune, Msg: fmt.Sprintf("pruning removed %d hours", len(res.Hours)),
			Attrs: map[string]any{"bytes": res.Bytes, "horizon": res.Horizon.Time().Format(time.RFC3339)}})
	}
	return nil
}
