package archive

import (
	"errors"
	"slices"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
)

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
// newest segment. 0: it is empty, and nothing says whether the clock is right.
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
	if newest == 0 {
		return 0, nil
	}
	return min(m4f.UTCOf(now), newest.Add(hourTicks)), nil
}

func isLive(o Origin) bool { return o == Live || o == Imported || o == Unknown }

// recordedPerJump is how many times what was recorded since the last pass the
// clock may have moved on by: after an outage of two days, hours go again when
// five more have been recorded.
const recordedPerJump = 9

// allow returns how far the horizon may move towards want, and holds the pass
// where that is not as far. What has passed since the last pass counts from the
// time given. What is asked for is told in words, and as a flag.
func (p *pruning) allow(want hour, from time.Time, what, flag string) (hour, error) {
	end, _ := slices.BinarySearch(p.all, want)
	if end == 0 || p.force {
		return want, nil
	}
	passed, err := p.timePassed()
	if err != nil {
		return p.goal, err
	}
	explained := hourOf(m4f.UTCOf(from).Add(passed))
	excess, of := 0, 0
	for i, h := range p.all {
		if p.kept.touch(h) {
			continue
		}
		of++
		if explained <= h && i < end {
			excess++
		}
	}
	if excess*10 <= of {
		return want, nil
	}
	p.held = &PruneHeldError{Dir: p.s.dir, Hours: excess, Of: of, Horizon: want.start(), What: what, Flag: flag}
	return min(explained, want), nil
}

// timePassed is the time, in ticks, since the last pass, as far as it is
// believed.
func (p *pruning) timePassed() (int64, error) {
	if p.passed != nil {
		return *p.passed, nil
	}
	since := m4f.UTCOf(p.last.At)
	recorded, err := p.recorded(since)
	if err != nil {
		return 0, err
	}
	passed := min(max(int64(p.now-since), 0), recordedPerJump*recorded)
	p.passed = &passed
	return passed, nil
}

// from is where time is counted from for a depth: where the last pass would have
// put the horizon if it moved by less than hours. What was kept for more before is
// not explained by time. Where the last pass is not before this one, its clock or
// this one's was wrong: then from where the horizon was left.
func (p *pruning) from() time.Time {
	before, err := time.ParseDuration(p.last.Depth)
	if err != nil || m4f.UTCOf(p.last.At) > p.now {
		return p.last.Horizon.Add(time.Hour)
	}
	return p.last.At.Add(-max(before, p.depth))
}

// next is what this pass leaves behind for the next. The clock that the guard
// goes by moves on no faster than what was recorded explains.
func (p *pruning) next() (lastPrune, error) {
	at := p.now
	if p.mark.Pruned != nil && !p.force {
		passed, err := p.timePassed()
		if err != nil {
			return p.last, err
		}
		at = min(at, m4f.UTCOf(p.last.At).Add(passed))
	}
	return lastPrune{
		At: at.Time().Truncate(time.Second), Depth: p.noteDepth(), Cursor: p.end,
		Horizon: p.goal.start().Time(), First: p.begins().start().Time(),
	}, nil
}

// recorded is how many ticks were recorded here since the last pass: what has
// arrived since, whatever its date. Where that is not known, what is dated since.
func (p *pruning) recorded(since m4f.UTC) (int64, error) {
	if p.mark.Pruned == nil {
		return p.s.recordedSince(since, p.now)
	}
	n := int64(0)
	for c := p.last.Cursor; ; {
		recs, next, err := p.s.ReadChanges(c, 1000)
		if errors.Is(err, ErrCursorGone) {
			return p.s.recordedSince(since, p.now)
		}
		if err != nil || next == c {
			return n, err
		}
		for i := range recs {
			if isLive(recs[i].Origin) || recs[i].Origin == Replicated {
				n += int64(recs[i].Duration)
			}
		}
		c = next
	}
}

// left is where time is counted from for limits on space: the hour after the
// first that the last pass left, since they ask for whole hours.
func (l *lastPrune) left() time.Time {
	if l.First.After(l.Horizon) {
		return l.First.Add(time.Hour)
	}
	return l.Horizon.Add(time.Hour)
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
