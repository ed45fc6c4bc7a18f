package archive

import (
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

// allow returns how far the horizon may go towards want, and holds the pass
// where that is not as far. Time is counted from where the last pass left the
// horizon, or the archive. What is asked for is told in words, and as a flag.
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
// believed, and an hour.
func (p *pruning) timePassed() (int64, error) {
	if p.passed > 0 {
		return p.passed, nil
	}
	since := m4f.UTCOf(p.last.At)
	recorded, err := p.s.recordedSince(since, p.now)
	if err == nil {
		p.passed = min(max(int64(p.now-since), 0), recordedPerJump*recorded) + hourTicks
	}
	return p.passed, err
}

// left is the first hour that the last pass left: what space asks for goes on
// from there.
func (l *lastPrune) left() time.Time {
	if l.First.After(l.Horizon) {
		return l.First
	}
	return l.Horizon
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
