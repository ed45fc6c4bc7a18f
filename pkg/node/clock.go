package node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twindvr/twindvr/pkg/event"
)

const (
	// clockEvery is how often the clock is looked at.
	clockEvery = time.Second
	// clockStep is the least that is told: adjustments below it are those of a
	// clock that is kept right, and change nothing here.
	clockStep = 500 * time.Millisecond
)

// clockOffset is by how much a peer's clock is ahead. What the peer says arrives
// later than it was said, so that of the last ones the highest is nearest.
type clockOffset struct {
	last [8]time.Duration
	n    int // how many there are
}

// heard takes what the peer's clock says, in Unix milliseconds, and when that came.
func (c *clockOffset) heard(ms int64, at time.Time) {
	const most = 365 * 24 * time.Hour // what is further away is nonsense
	d := time.Duration(ms-at.UnixMilli()) * time.Millisecond
	if ms <= 0 || ms > 1<<50 || d > most || d < -most {
		return
	}
	c.last[c.n%len(c.last)] = d
	c.n++
}

// explains says whether a time by the peer's clock may be so far ahead of one by this
// node's, give or take some. Where the peer has not said anything, it may.
func (c *clockOffset) explains(ahead, slack time.Duration) bool {
	return c.n == 0 || slices.ContainsFunc(c.last[:min(c.n, len(c.last))], func(d time.Duration) bool { return (ahead - d).Abs() <= slack })
}

// seconds is nil where the peer has not said anything.
func (c *clockOffset) seconds() *float64 {
	if c.n == 0 {
		return nil
	}
	s := slices.Max(c.last[:min(c.n, len(c.last))]).Seconds()
	return &s
}

// clockWatch tells when the machine's clock is set, or the machine was
// suspended. Whatever lasts is measured by the monotonic clock, which neither
// changes; streams keep their timelines.
type clockWatch struct {
	n *Node
	// read returns the time of day, and a time that only ever goes on.
	read func() (wall time.Time, mono time.Duration)

	mu   sync.Mutex
	wall time.Time // when it was read last
	mono time.Duration
	step time.Duration // by how much the clock was set lately, in all
	set  time.Duration // when last, by the monotonic clock
}

// lately is for how long a step may be taken back: a clock that is set wrong is
// often set right soon, and streams that begin anew meanwhile go on with their
// timelines.
const lately = 10 * time.Minute

func newClockWatch(n *Node) *clockWatch {
	start := n.now()
	c := &clockWatch{n: n, read: func() (time.Time, time.Duration) {
		now := n.now()
		return now.Round(0), now.Sub(start) // Round takes the monotonic reading away
	}}
	c.wall, c.mono = c.read()
	return c
}

func (c *clockWatch) String() string { return "watch of the clock" }

// Serve implements suture.Service.
func (c *clockWatch) Serve(ctx context.Context) error {
	for c.n.pause(ctx, clockEvery) {
		c.look()
	}
	return ctx.Err()
}

// compare reads both clocks and returns by how much the clock was set since they
// were compared last, if by enough to be told, and what time it would be.
func (c *clockWatch) compare() (step time.Duration, right, wall time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, mono := c.read()
	right = c.wall.Add(mono - c.mono)
	step = wall.Sub(right)
	c.wall, c.mono = wall, mono
	if step.Abs() < clockStep {
		return 0, right, wall
	}
	if mono-c.set > lately {
		c.step = 0
	}
	c.step, c.set = c.step+step, mono
	return step, right, wall
}

// stepped is by how much the clock was set in the last minutes, 0: not.
func (c *clockWatch) stepped() (step time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, mono := c.read()
	if mono-c.set <= lately {
		step = c.step
	}
	if d := wall.Sub(c.wall.Add(mono - c.mono)); d.Abs() >= clockStep { // just now
		step += d
	}
	return step
}

// look compares both clocks once and tells of a step.
func (c *clockWatch) look() {
	step, right, wall := c.compare()
	if step == 0 {
		return
	}
	way := "forward"
	if step < 0 {
		way = "back"
	}
	c.n.log.Warn("the clock has stepped; streams keep their timelines", "by", step.Round(time.Millisecond), "from", right.UTC(), "to", wall.UTC())
	for _, s := range c.n.all() {
		// It is noted by the clock of before, where the segments of the time are.
		s.note(event.Event{
			Time: right, Kind: event.Clock,
			Msg:   fmt.Sprintf("the clock stepped %s by %v, to %s; what is recorded keeps its timeline, and a new one is dated by the clock", way, step.Abs().Round(time.Millisecond), wall.UTC().Format(time.RFC3339)),
			Attrs: map[string]any{"step_seconds": step.Seconds()},
		})
	}
}

// now is the time by the node's clock.
func (n *Node) now() time.Time { return n.opt.Clock.Now() }

// since is the time that has passed since t by the node's clock.
func (n *Node) since(t time.Time) time.Duration { return n.opt.Clock.Now().Sub(t) }

// pause waits; it returns false when the context has ended.
func (n *Node) pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-n.opt.Clock.After(d):
		return true
	}
}
