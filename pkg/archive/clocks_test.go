package archive

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// TestWrongClocksForWeeks records and prunes for six days on a clock that is set
// wrong, for minutes, again and again: by minutes, an hour, days, a year, ahead and
// back; and each time the recorder may be restarted and date what it records by it.
// What was recorded is never removed before its time by more than the guard allows a
// single pass: a tenth of the archive, and the hours that depth and clock round to.
func TestWrongClocksForWeeks(t *testing.T) {
	const (
		depth = 72 * time.Hour
		step  = 20 * time.Minute // between passes
	)
	for seed := range uint64(2) {
		rng := rand.New(rand.NewPCG(seed, 1))
		now := noon.Time() // as it really is
		d := newDisk(t, 0, "a")
		s, c := d.streams[0], d.clock
		w := s.Writer(Live, 0, WriterOptions{Sync: SyncOff})
		var real []hour // recorded with the right date, in order
		wrong, held, redated := 0, 0, 0
		for range 6 * 24 * 3 {
			skew := time.Duration(0)
			if rng.IntN(12) == 0 {
				skew = []time.Duration{time.Minute, time.Hour, -time.Hour, 26 * time.Hour, -26 * time.Hour, 365 * 24 * time.Hour, -365 * 24 * time.Hour}[rng.IntN(7)]
				wrong++
			}
			c.Step(now.Add(skew))
			at := m4f.UTCOf(now)
			duration := int64(step/time.Second) * sec
			if skew != 0 && rng.IntN(2) == 0 {
				at, duration = m4f.UTCOf(now.Add(skew)), 60*sec
				redated++
			}
			seg := spec{media: int64(m4f.UTCOf(now)) & (m4f.Wrap - 1), utc: at, duration: duration}.build(t)
			if err := w.Append(seg); err == nil && at == m4f.UTCOf(now) {
				if h := hourOf(at); len(real) == 0 || real[len(real)-1] != h {
					real = append(real, h)
				}
			} else if err != nil && !errors.As(err, new(*HorizonError)) {
				t.Fatal(err)
			}
			c.Advance(time.Minute)
			_, err := s.Prune(c.Now(), PruneOptions{Depth: depth})
			if errors.As(err, new(*PruneHeldError)) {
				held++
			} else if err != nil {
				t.Fatal(err)
			}
			checkReal(t, s, real, now, depth)
			if t.Failed() {
				t.Fatalf("seed %d, at %v, with a clock that is wrong by %v", seed, now, skew)
			}
			now = now.Add(step)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		c.Step(now)
		if _, err := s.Prune(now, PruneOptions{Depth: depth}); err != nil {
			t.Errorf("seed %d: the clock is right, and pruning waits: %v", seed, err)
		}
		t.Logf("seed %d: the clock was wrong %d times, %d times something was dated by it, %d passes were held", seed, wrong, redated, held)
		if wrong == 0 || held == 0 || redated == 0 {
			t.Errorf("seed %d: not everything has happened", seed)
		}
	}
}

// checkReal wants every hour that is younger than the depth less what the guard
// allows.
func checkReal(t *testing.T, s *Stream, real []hour, now time.Time, depth time.Duration) {
	t.Helper()
	have := map[int]bool{}
	all := starts(t, s)
	for _, h := range all {
		have[h] = true
	}
	early := time.Duration(len(all)/10+2) * time.Hour
	for _, h := range real {
		if h.start().Time().After(now.Add(early-depth)) && !have[int(h-hourOf(noon))] {
			t.Errorf("hour %d is gone after %v, %v before its time", h-hourOf(noon), now.Sub(h.start().Time()), h.start().Time().Sub(now.Add(-depth)))
		}
	}
}

// TestBegunOnAWrongClock: an archive that was begun while the clock was a year
// ahead takes what is recorded when it is right again, and does not believe it the
// second time either.
func TestBegunOnAWrongClock(t *testing.T) {
	d := newDiary(t, 72*time.Hour)
	right := d.clock.Now()
	ahead := func() {
		d.clock.Step(d.clock.Now().AddDate(1, 0, 0))
		d.prune(false)
		u := m4f.UTCOf(d.clock.Now())
		write(t, d.s, Live, spec{media: int64(u) & (m4f.Wrap - 1), utc: u, duration: 60 * sec}.build(t))
	}
	ahead()
	d.clock.Advance(time.Minute)
	if err := d.prune(false); err != nil {
		t.Fatal(err)
	}
	d.clock.Step(right)
	for range 80 {
		if err := d.prune(false); err != nil {
			t.Fatal(err)
		}
		d.record(Live, 1)
	}
	d.want(73+1, "three days later, and the hour a year ahead")
	d.prune(false)
	before := d.hours()
	for range 3 {
		ahead()
		d.clock.Advance(time.Minute)
		if err := d.prune(false); err == nil {
			t.Error("all of the archive is old, and nothing is said")
		}
		d.clock.Step(d.clock.Now().AddDate(-1, 0, 0))
	}
	if n := d.hours(); n < before-1 {
		t.Errorf("%d hours of %d are left", n, before)
	}
}

// TestClockBackAndAhead: time that a clock loses and gains again explains nothing.
func TestClockBackAndAhead(t *testing.T) {
	d := newDiary(t, 72*time.Hour)
	d.day(80)
	before := d.hours()
	for i := range 3 {
		right := d.clock.Now()
		d.clock.Step(right.Add(-26 * time.Hour))
		if err := d.prune(false); err != nil {
			t.Fatal(err)
		}
		d.clock.Step(right.Add(26 * time.Hour))
		u := m4f.UTCOf(d.clock.Now())
		write(t, d.s, Live, spec{media: int64(u) & (m4f.Wrap - 1), utc: u, duration: 60 * sec, content: uint64(i)}.build(t))
		d.clock.Advance(time.Minute)
		if err := d.prune(false); err == nil {
			t.Error("a day too much goes, and nothing is said")
		}
		d.clock.Step(right.Add(2 * time.Minute))
	}
	if n := d.hours(); n < before-1 {
		t.Errorf("%d hours of %d are left", n, before)
	}
}
