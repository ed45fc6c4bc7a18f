package node

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// A clock that is set is told once for each step, by the time of before; one
// that is kept right is not.
func TestClockSteps(t *testing.T) {
	n, _ := idle(t, "source b.example { dvr "+t.TempDir()+" 1d; }")
	n.sources[0].apply(listing("b", "x"), 0)
	s := n.streams["x"].stream
	wall, mono := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), time.Duration(0)
	c := &clockWatch{n: n, read: func() (time.Time, time.Duration) { return wall, mono }}
	c.wall, c.mono = c.read()
	told := func() *event.Event {
		select {
		case e := <-s.notes:
			return &e
		default:
			return nil
		}
	}
	const year = 365 * 24 * time.Hour
	for _, step := range []time.Duration{0, 500 * time.Microsecond, -499 * time.Millisecond, time.Hour, -time.Hour, year, -year, time.Second, -700 * time.Millisecond, 0} {
		// A node that was stopped for a minute has not seen the clock step.
		for _, passed := range []time.Duration{time.Second, time.Minute} {
			wall, mono = wall.Add(passed), mono+passed
			right := wall
			if passed == time.Second {
				wall = wall.Add(step)
			}
			c.look()
			e := told()
			if want := passed == time.Second && step.Abs() >= clockStep; (e != nil) != want {
				t.Fatalf("after a step of %v and %v: %+v", step, passed, e)
			}
			if e == nil {
				continue
			}
			if e.Kind != event.Clock || !e.Time.Equal(right) || math.Abs(e.Attrs["step_seconds"].(float64)-step.Seconds()) > 1e-6 {
				t.Errorf("after a step of %v: %+v", step, e)
			}
			if way := map[bool]string{true: "forward by " + step.Abs().String(), false: "back by " + step.Abs().String()}[step > 0]; !strings.Contains(e.Msg, way) {
				t.Errorf("after a step of %v: %s", step, e.Msg)
			}
			if told() != nil {
				t.Errorf("a step of %v is told twice", step)
			}
		}
	}
}

// A step is known at once, and until it was some minutes ago; one back undoes one
// forward.
func TestClockStepped(t *testing.T) {
	n, _ := idle(t, "source b.example { dvr "+t.TempDir()+" 1d; }")
	wall, mono := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), time.Duration(0)
	c := &clockWatch{n: n, read: func() (time.Time, time.Duration) { return wall, mono }}
	c.wall, c.mono = c.read()
	const year = 365 * 24 * time.Hour
	for i, v := range []struct {
		passed, step time.Duration
		seen         bool
		want         time.Duration
	}{
		{time.Second, 0, true, 0},
		{time.Second, year, false, year},
		{time.Second, 0, true, year},
		{time.Minute, 0, true, year},
		{time.Minute, -year, false, 0},
		{time.Second, 0, true, 0},
		{time.Second, -time.Hour, true, -time.Hour},
		{lately + time.Second, 0, true, 0},
		{time.Second, time.Hour, false, time.Hour},
		{lately / 2, 0, true, time.Hour},
		{lately + time.Second, 0, true, 0},
	} {
		wall, mono = wall.Add(v.passed+v.step), mono+v.passed
		if v.seen {
			c.look()
		}
		if got := c.stepped(); got != v.want {
			t.Errorf("%d: stepped %v, want %v", i, got, v.want)
		}
	}
}

// What goes on with a timeline of a moment ago does while the clock is a year
// ahead, too; what began anew is dated by the clock.
func TestResumeAcrossClockStep(t *testing.T) {
	s := idleStream(t)
	arc, err := archive.Create(t.TempDir(), "x", archive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.arc = arc
	wall, mono := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), time.Duration(0)
	s.node.clock.read = func() (time.Time, time.Duration) { return wall, mono }
	s.node.clock.wall, s.node.clock.mono = s.node.clock.read()
	const sec = m4f.Timescale
	at := m4f.UTCOf(wall)
	s.links = []*link{{s: s, media: 100 * sec, length: 4 * sec, utc: at, listed: s.node.now()}}
	c := &source{s: s, index: 1}
	for _, step := range []time.Duration{0, 365 * 24 * time.Hour, -365 * 24 * time.Hour, -time.Hour} {
		wall = wall.Add(step)
		near := m4f.UTCOf(wall).Add(8 * sec)
		if utc, ok := c.resume(108*sec, near); !ok || utc != at.Add(8*sec) {
			t.Errorf("after a step of %v: %v, %d s off", step, ok, int64(utc-at.Add(8*sec))/sec)
		}
		if utc, ok := c.resume(50*sec, near); ok {
			t.Errorf("after a step of %v what begins anew is dated %v", step, utc.Time())
		}
	}
}

// The time of day of this machine and its monotonic clock go together.
func TestClockRuns(t *testing.T) {
	n, _ := idle(t, "source b.example { dvr "+t.TempDir()+" 1d; }")
	c := newClockWatch(n)
	wall, mono := c.read()
	again, on := c.read()
	if on < mono || again.Sub(wall.Add(on-mono)).Abs() > clockStep {
		t.Errorf("from %v %v to %v %v", wall, mono, again, on)
	}
}

// Of what a peer has said lately, what took least to arrive is nearest.
func TestClockOffset(t *testing.T) {
	var c clockOffset
	if c.seconds() != nil {
		t.Error("a peer that has said nothing has an offset")
	}
	now := time.UnixMilli(1_700_000_000_000)
	for i, delay := range []int64{300, 20, 5, 900, 40} {
		c.heard(now.UnixMilli()+int64(i)*1000+2000, now.Add(time.Duration(i)*time.Second+time.Duration(delay)*time.Millisecond))
	}
	c.heard(0, now)
	c.heard(1<<60, now)
	c.heard(-1, now)
	if got := c.seconds(); got == nil || *got != 1.995 {
		t.Errorf("%v, want 1.995 s", got)
	}
	for i := range 8 { // the clock is set
		c.heard(now.UnixMilli()-500, now.Add(time.Duration(i)*time.Millisecond))
	}
	if got := c.seconds(); *got != -.5 {
		t.Errorf("%v, want -0.5 s", *got)
	}
}
