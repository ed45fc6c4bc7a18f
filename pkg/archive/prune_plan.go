package archive

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// pruning is what a pass knows of a stream, and what it is going to do to it.
type pruning struct {
	s     *Stream
	depth time.Duration // 0: none
	force bool

	mark  *marker
	kept  keeps
	clock m4f.UTC // now
	now   m4f.UTC // as far as it is believed; 0: the archive is empty
	all   []hour  // that have a directory, in order
	last  lastPrune
	end   Cursor // of changes

	passed *int64 // see timePassed; nil: not yet known

	// The plan: hours before goal go, unless they are kept.
	goal  hour
	why   []until // in order
	ahead bool    // the horizon is ahead of now
	held  *PruneHeldError
	unmet *LimitError
}

// until says for which limit the hours before one go, from where the limit
// before it left off.
type until struct {
	hour hour
	why  Reason
}

// planFor plans to keep to a stream's own limits.
func (s *Stream) planFor(now time.Time, depth time.Duration, size int64, force bool) (*pruning, error) {
	if depth != 0 && depth < time.Hour {
		return nil, fmt.Errorf("a depth of %v is less than the hour that is removed at once: use 1h or more", depth)
	}
	p, err := s.plan(now, depth, force)
	if err != nil {
		return nil, err
	}
	if err := p.toDepth(); err != nil {
		return nil, err
	}
	return p, p.toSize(size)
}

// plan begins a pass that removes nothing yet but what lies before the horizon.
func (s *Stream) plan(now time.Time, depth time.Duration, force bool) (*pruning, error) {
	p := &pruning{s: s, depth: depth, force: force, clock: m4f.UTCOf(now)}
	var err error
	if p.end, err = s.End(); err != nil {
		return nil, err
	}
	if p.mark, err = s.marker(); err != nil {
		return nil, err
	}
	if p.kept, err = s.readKeeps(true); err != nil {
		return nil, err
	}
	if p.all, err = listHours(s.fs, s.dir); err != nil {
		return nil, err
	}
	if p.now, err = s.believedNow(now); err != nil {
		return nil, err
	}
	p.last = lastPass(p.mark, p.all)
	p.goal = hourOf(p.mark.horizon())
	p.why = []until{{p.goal, ByHorizon}}
	return p, nil
}

// toDepth plans to keep the depth.
func (p *pruning) toDepth() error {
	if p.depth == 0 {
		return nil
	}
	horizon := p.goal
	if p.clock < horizon.start() {
		// One of the two is wrong. The horizon goes back, which removes nothing, or
		// nothing could be recorded.
		p.ahead = true
		p.goal = max(hourOf(p.clock.Add(-m4f.Ticks(p.depth))), 0)
		return nil
	}
	if p.now == 0 {
		return nil
	}
	goal := max(hourOf(p.now.Add(-m4f.Ticks(p.depth))), 0)
	back := depthRaised(p.mark, p.depth)
	if goal < horizon && !back {
		goal = horizon // the clock went back
	}
	goal, err := p.allow(goal, p.from(), "keeping "+p.depth.String(), "--depth "+p.depth.String())
	if err != nil {
		return err
	}
	if !back {
		goal = max(goal, horizon)
	}
	p.goal = goal
	p.why = append(p.why, until{goal, ByDepth})
	return nil
}

// toSize plans to keep to a size.
func (p *pruning) toSize(limit int64) error {
	if limit == 0 {
		return nil
	}
	total := int64(0)
	for _, h := range p.all {
		if h < p.goal && !p.kept.touch(h) {
			continue
		}
		size, err := p.size(h)
		if err != nil {
			return err
		}
		total += size.bytes
	}
	want := p.goal
	candidates, err := p.candidates()
	if err != nil {
		return err
	}
	for _, h := range candidates {
		if total <= limit {
			break
		}
		size, err := p.size(h)
		if err != nil {
			return err
		}
		total -= size.bytes
		want = h + 1
	}
	if total > limit {
		p.unmet = &LimitError{Where: p.s.dir, Limit: "a size of " + bytesText(limit), Over: total - limit, Kept: len(p.kept) > 0}
	}
	goal, err := p.allow(want, p.last.left(), "a size of "+bytesText(limit), "--size "+bytesText(limit))
	if err != nil {
		return err
	}
	p.goal = max(p.goal, goal)
	p.why = append(p.why, until{p.goal, BySize})
	return nil
}

// newestKept is how many of the newest hours with segments no limit but the
// depth removes: the one that is being recorded and the one before.
const newestKept = 2

// candidates are the hours that a limit on space may remove beyond what is
// planned, oldest first.
func (p *pruning) candidates() ([]hour, error) {
	first, _ := slices.BinarySearch(p.all, p.goal)
	end, newest := len(p.all), 0
	for end > first && newest < newestKept {
		end--
		files, err := p.s.hourFiles(p.all[end])
		if err != nil {
			return nil, err
		}
		if len(files) > 0 {
			newest++
		}
	}
	var out []hour
	for _, h := range p.all[first:end] {
		if !p.kept.touch(h) {
			out = append(out, h)
		}
	}
	return out, nil
}

// reason says for which limit an hour goes.
func (p *pruning) reason(h hour) Reason {
	for _, u := range p.why {
		if h < u.hour {
			return u.why
		}
	}
	return p.why[len(p.why)-1].why
}

// size returns what an hour takes. The newest hours, which grow, are looked at
// each time, the others once in a while.
func (p *pruning) size(h hour) (hourSize, error) {
	const growing = 3
	n := len(p.all)
	if n > growing && h < p.all[n-growing] {
		if size, ok := p.s.sizes.get(h, p.s.clock.Now()); ok {
			return size, nil
		}
	}
	size, err := p.s.sizeOf(h)
	if err == nil {
		p.s.sizes.put(h, p.s.clock.Now(), size)
	}
	return size, err
}

// sizesFor is for how long the size of an hour that is over is believed: what
// is healed in it meanwhile counts late.
const sizesFor = 30 * time.Minute

// sizeCache remembers what hours take.
type sizeCache struct {
	mu sync.Mutex
	at map[hour]sizedAt
}

type sizedAt struct {
	hourSize
	at time.Time
}

func (c *sizeCache) get(h hour, now time.Time) (hourSize, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.at[h]
	age := now.Sub(s.at)
	return s.hourSize, ok && age >= 0 && age < sizesFor
}

func (c *sizeCache) put(h hour, now time.Time, size hourSize) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at == nil {
		c.at = make(map[hour]sizedAt)
	}
	c.at[h] = sizedAt{size, now}
}

func (c *sizeCache) forget(h hour) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.at, h)
}
