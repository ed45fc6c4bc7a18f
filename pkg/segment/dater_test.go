package segment

import (
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/m4f"
)

const tick = m4f.Timescale

// An encoder whose clock is off is followed for weeks, over wraps, in steps
// that nothing takes for a gap.
func TestDrift(t *testing.T) {
	for _, off := range []float64{-300e-6, -30e-6, 0, 30e-6, 300e-6} {
		rng := rand.New(rand.NewPCG(1, 1))
		d := dater{}
		const step = 4 * tick
		base := m4f.UTC(1_700_000_000 * tick)
		var media int64 = m4f.Wrap - 100*step
		var last m4f.UTC
		for k := range int64(21 * 86400 / 4) {
			real := base.Add(int64(float64(k*step) * (1 + off)))
			utc := d.date(media, step, real.Add(rng.Int64N(tick/10)), false)
			if k > 0 {
				if move := int64(utc-last) - step; move > step*ppm/1e6 || move < -step*ppm/1e6 {
					t.Fatalf("clock off by %v: segment %d moves by %d ticks", off, k, move)
				}
			}
			if diff := abs(int64(utc - real)); diff > tick/4 {
				t.Fatalf("clock off by %v: segment %d is dated %d ms off", off, k, diff/90)
			}
			media, last = (media+step)&(m4f.Wrap-1), utc
		}
	}
}

// A clock that is set while a stream runs, by an hour or a year, forward or back,
// moves nothing by more than an encoder's drift would: segments stay in the
// order of their media, without a gap or an overlap. A while after the clock is
// right again, so are the dates.
func TestClockSteps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := dater{}
		const step = 4 * tick
		real, wrong := m4f.UTC(1_700_000_000*tick), int64(0)
		media := rapid.Int64Range(0, m4f.Wrap-1).Draw(t, "media")
		last := d.date(media, step, real, false)
		next := func() {
			media, real = (media+step)&(m4f.Wrap-1), real+step
			utc := d.date(media, step, real.Add(wrong), false)
			if off := int64(utc-last) - step; off > step*ppm/1e6 || off < -step*ppm/1e6 {
				t.Fatalf("with a clock off by %d ms a segment is moved by %d ticks", wrong/90, off)
			}
			last = utc
		}
		for range rapid.IntRange(1, 4).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "short") {
				wrong = 0
				next()
				continue
			}
			wrong = rapid.SampledFrom([]int64{0, 3600, -3600, 365 * 86400, -365 * 86400, 1, -2}).Draw(t, "off") * tick
			for range rapid.IntRange(1, 100).Draw(t, "segments") {
				next()
			}
		}
	})
	for _, off := range []int64{3600, -3600, 365 * 86400, -365 * 86400} {
		d := dater{}
		const step = 4 * tick
		real, media := m4f.UTC(1_700_000_000*tick), int64(0)
		last := d.date(media, step, real, false)
		for k := range 15 + 300 { // a minute, and twenty
			wrong := off * tick
			if k >= 15 {
				wrong = 0
			}
			media, real = media+step, real+step
			last = d.date(media, step, real.Add(wrong), false)
		}
		if diff := abs(int64(last - real)); diff > tick/4 {
			t.Errorf("after a minute off by %d s, dates are %d ms off", off, diff/90)
		}
	}
}

// Jumps and joints, paced and not.
func TestDates(t *testing.T) {
	const at = m4f.UTC(1_700_000_000 * tick)
	type seg struct {
		media, duration int64
		arrived         m4f.UTC
		jump            bool
		want            m4f.UTC
	}
	for _, c := range []struct {
		name string
		d    dater
		segs []seg
	}{
		{"paced: the clock dates the first", dater{}, []seg{
			{5 * tick, 4 * tick, at, false, at}, {9 * tick, 4 * tick, at + 4*tick, false, at + 4*tick},
		}},
		{"paced: an encoder that starts again at once goes on", dater{}, []seg{
			{5 * tick, 4 * tick, at, false, at}, {tick, 4 * tick, at + 4*tick + 30000, true, at + 4*tick},
		}},
		{"paced: one that starts again later is dated by the clock", dater{}, []seg{
			{5 * tick, 4 * tick, at, false, at}, {tick, 4 * tick, at + 60*tick, true, at + 60*tick},
		}},
		{"paced: media that is missing is missing", dater{}, []seg{
			{5 * tick, 4 * tick, at, false, at}, {11 * tick, 4 * tick, at + 6*tick, false, at + 6*tick},
		}},
		{"not paced: dated now, whatever the clock says later", dater{unpaced: true}, []seg{
			{5 * tick, 4 * tick, at, false, at}, {9 * tick, 4 * tick, at + 100, false, at + 4*tick}, {tick, 4 * tick, at + 200, true, at + 8*tick},
		}},
		{"not paced: from a start", dater{unpaced: true, start: 77 * tick}, []seg{
			{5 * tick, 4 * tick, at, false, 77 * tick}, {9 * tick, 4 * tick, at, false, 81 * tick}, {0, 4 * tick, at, true, 85 * tick},
		}},
		{"over the wrap", dater{unpaced: true, start: 77 * tick}, []seg{
			{m4f.Wrap - tick, 4 * tick, at, false, 77 * tick}, {3 * tick, 4 * tick, at, false, 81 * tick},
		}},
	} {
		for k, s := range c.segs {
			if got := c.d.date(s.media, s.duration, s.arrived, s.jump); got != s.want {
				t.Errorf("%s: segment %d is dated %d, want %d", c.name, k, got, s.want)
			}
		}
	}
}

// An offset that others have set is taken over within a second; beyond, it is
// told of and left.
func TestHints(t *testing.T) {
	const at = m4f.UTC(1_700_000_000 * tick)
	for _, c := range []struct {
		hint m4f.UTC
		ok   bool
		want m4f.UTC
		off  int64
	}{
		{at + tick/2, true, at + tick/2, 0}, {at - tick, true, at - tick, 0},
		{at + 3*tick, true, at, 3 * tick}, {at - 2*tick, true, at, -2 * tick}, {at + 50, false, at, 0},
	} {
		asked := 0
		d := dater{hint: func(media int64, utc m4f.UTC, fresh bool) (m4f.UTC, bool) {
			if asked++; media != 5*tick || utc != at || !fresh {
				t.Errorf("hint is asked about %d, %d, %v", media, utc, fresh)
			}
			return c.hint, c.ok
		}}
		if got := d.date(5*tick, 4*tick, at, false); got != c.want || d.disagreement != c.off || asked != 1 {
			t.Errorf("hint %d: dated %d, want %d; disagreement %d, want %d", c.hint-at, got-at, c.want-at, d.disagreement, c.off)
		}
	}
}

// A timeline that begins after a silence and goes on with one that was recorded a
// moment ago keeps its offset, however late its first frames were heard.
func TestResumed(t *testing.T) {
	const at = m4f.UTC(1_700_000_000 * tick)
	rapid.Check(t, func(t *rapid.T) {
		late := rapid.Int64Range(0, 10*tick).Draw(t, "late")
		caught := rapid.Int64Range(1, 8).Draw(t, "caught up after")
		silence := rapid.Int64Range(2, 60).Draw(t, "silence") * tick
		media := rapid.Int64Range(0, m4f.Wrap-1).Draw(t, "media")
		inRun := rapid.Bool().Draw(t, "in a run")
		d := dater{resume: func(m int64, near m4f.UTC) (m4f.UTC, bool) {
			return at.Add(m4f.Diff33(m, media)), true
		}}
		const step = 4 * tick
		begin := int64(0)
		if inRun {
			d.date(media, step, at, false)
			begin = step + silence
		}
		for k := range int64(20) {
			m := (media + begin + k*step) & (m4f.Wrap - 1)
			true0 := at.Add(begin + k*step)
			arrived := true0.Add(max(0, late-k*late/caught))
			utc := d.date(m, step, arrived, inRun && k == 0)
			if off := abs(int64(utc - true0)); off > (k+1)*step*ppm/1e6 {
				t.Fatalf("late by %d ms: segment %d is dated %d ms off", late/90, k, off/90)
			}
		}
	})
	for _, c := range []struct {
		name    string
		resume  m4f.UTC
		arrived m4f.UTC
		jump    bool
		want    m4f.UTC
	}{
		{"whoever resumes knows by how much the clock is wrong", at, at + 365*24*3600*tick, false, at},
		{"one that begins anew at once goes on with its own", at - 2*tick, at + 4*tick + 100, true, at + 4*tick},
	} {
		d := dater{resume: func(int64, m4f.UTC) (m4f.UTC, bool) { return c.resume, true }}
		if c.jump {
			d.resume = nil
			d.date(5*tick, 4*tick, at, false)
			d.resume = func(int64, m4f.UTC) (m4f.UTC, bool) { return c.resume, true }
		}
		if utc := d.date(0, 4*tick, c.arrived, c.jump); utc != c.want {
			t.Errorf("%s: dated %d ms off", c.name, int64(utc-c.want)/90)
		}
	}
	d := dater{unpaced: true, resume: func(int64, m4f.UTC) (m4f.UTC, bool) { return at, true }}
	if utc := d.date(0, 4*tick, at+2*tick, false); utc != at+2*tick {
		t.Errorf("what is not paced is dated %d ms off", int64(utc-at-2*tick)/90)
	}
}

// A recorder that was late with its first segment, and so did not agree with
// others, takes their offset once its clock does.
func TestLateStart(t *testing.T) {
	const at = m4f.UTC(1_700_000_000 * tick)
	for _, late := range []int64{0, tick / 2, 3 * tick / 2, 20 * tick} {
		d := dater{hint: func(media int64, _ m4f.UTC, fresh bool) (m4f.UTC, bool) { return at.Add(media), fresh }}
		for k := range int64(10) {
			arrived := at.Add(k * 4 * tick)
			if k == 0 {
				arrived = arrived.Add(late)
			}
			utc := d.date(k*4*tick, 4*tick, arrived, false)
			if want := at.Add(k * 4 * tick); k > 0 && abs(int64(utc-want)) > 10*4*tick*ppm/1e6 {
				t.Errorf("late by %d ms: segment %d is dated %d ms off", late/90, k, int64(utc-want)/90)
			}
		}
		if d.disagreement != 0 {
			t.Errorf("late by %d ms: a disagreement of %d ms stays", late/90, d.disagreement/90)
		}
	}
	// Clocks that differ for good stay as they are.
	d := dater{hint: func(media int64, _ m4f.UTC, fresh bool) (m4f.UTC, bool) { return at.Add(media + 2*tick), fresh }}
	for k := range int64(40) {
		if utc := d.date(k*4*tick, 4*tick, at.Add(k*4*tick), false); abs(int64(utc-at.Add(k*4*tick))) > tick/10 {
			t.Fatalf("segment %d is dated %d ms off", k, int64(utc-at)/90-k*4000)
		}
	}
}

// What disagreed with a timeline says nothing of the next one.
func TestDisagreementEnds(t *testing.T) {
	const at = m4f.UTC(1_700_000_000 * tick)
	other := true
	d := dater{hint: func(int64, m4f.UTC, bool) (m4f.UTC, bool) { return at + 3*tick, other }}
	if d.date(5*tick, 4*tick, at, false); d.disagreement != 3*tick {
		t.Fatal(d.disagreement)
	}
	other = false
	if d.date(9*tick, 4*tick, at+4*tick, false); d.disagreement != 3*tick {
		t.Errorf("it is over though the timeline goes on: %d", d.disagreement)
	}
	if d.date(0, 4*tick, at+9*tick, true); d.disagreement != 0 {
		t.Errorf("it goes on with another timeline: %d", d.disagreement)
	}
}
