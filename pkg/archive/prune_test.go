package archive

import (
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// diary is an archive that is recorded and pruned on a simulated clock: one
// segment an hour stands for the hour's recording.
type diary struct {
	t     *testing.T
	s     *Stream
	clock *clock.Sim
	depth time.Duration
}

func newDiary(t *testing.T, depth time.Duration) *diary {
	c := clock.NewSim(noon.Time())
	return &diary{t, newStream(t, Options{Clock: c, FS: noSync{fsx.OS}}), c, depth}
}

// record lets hours pass while the hour before each is recorded.
func (d *diary) record(origin Origin, hours int) {
	d.t.Helper()
	w := d.s.Writer(origin, 0, WriterOptions{Sync: SyncOff})
	for range hours {
		u := m4f.UTCOf(d.clock.Now())
		if err := w.Append(spec{media: int64(u) & (m4f.Wrap - 1), utc: u, duration: 3600*sec - 1}.build(d.t)); err != nil {
			d.t.Fatal(err)
		}
		d.clock.Advance(time.Hour)
	}
	if err := w.Close(); err != nil {
		d.t.Fatal(err)
	}
}

func (d *diary) hours() int {
	d.t.Helper()
	l, err := listHours(d.s.fs, d.s.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	n := 0
	for _, h := range l {
		if f, _ := d.s.hourFiles(h); len(f) > 0 {
			n++
		}
	}
	return n
}

func (d *diary) prune(force bool) error {
	d.t.Helper()
	_, err := d.s.Prune(d.clock.Now(), PruneOptions{Depth: d.depth, Force: force})
	var held *PruneHeldError
	if err != nil && !errors.As(err, &held) {
		d.t.Fatal(err)
	}
	return err
}

func (d *diary) want(hours int, what string) {
	d.t.Helper()
	// A whole hour goes only when all of it is old: one more may be there.
	if n := d.hours(); n != hours && n != hours+1 {
		d.t.Errorf("%s: %d hours, want %d", what, n, hours)
	}
}

// day records and prunes each hour for some hours; pruning must not be held.
func (d *diary) day(hours int) {
	d.t.Helper()
	for range hours {
		d.record(Live, 1)
		if err := d.prune(false); err != nil {
			d.t.Fatalf("at %v: %v", d.clock.Now(), err)
		}
	}
}

func TestPruneForWeeks(t *testing.T) {
	d := newDiary(t, 3*24*time.Hour)
	d.day(3 * 24)
	d.want(72, "after three days")
	d.day(2 * 24)
	d.want(72, "after five days")
	horizon, err := d.s.Horizon()
	if err != nil || horizon != m4f.UTCOf(d.clock.Now().Add(-d.depth)) {
		t.Errorf("horizon %v at %v, %v", horizon.Time(), d.clock.Now(), err)
	}
	if err := d.s.Writer(Healed, 0, WriterOptions{}).Append(spec{utc: horizon - 1, duration: sec}.build(t)); !errors.As(err, new(*HorizonError)) {
		t.Errorf("before the horizon: %v", err)
	}
	ivs, err := d.s.Coverage(0, 0)
	if err != nil || len(ivs) != 1 {
		t.Errorf("%+v, %v", ivs, err)
	}
}

func TestPruneSeldom(t *testing.T) {
	d := newDiary(t, 24*time.Hour)
	d.record(Live, 24*10)
	if err := d.prune(false); err != nil {
		t.Fatalf("ten days were recorded, so time explains it: %v", err)
	}
	d.want(24, "pruned once")
}

func TestClockAheadPrunesNothing(t *testing.T) {
	d := newDiary(t, 24*time.Hour)
	d.day(48)
	right := d.clock.Now()
	before := d.hours()
	d.clock.Step(right.AddDate(1, 0, 0))
	if err := d.prune(false); err != nil {
		t.Fatal(err)
	}
	if n := d.hours(); n != before && n != before-1 {
		t.Errorf("%d hours of %d: now is at most an hour after the newest segment", n, before)
	}
	before = d.hours()
	// Worse: segments are recorded with the wrong date before anyone notices.
	w := d.s.Writer(Live, 0, WriterOptions{Sync: SyncOff})
	for i := range int64(15) {
		u := m4f.UTCOf(d.clock.Now()).Add(i * 4 * sec)
		if err := w.Append(spec{media: i * 4 * sec, utc: u, duration: 4 * sec}.build(t)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		err := d.prune(false)
		var held *PruneHeldError
		if !errors.As(err, &held) || held.Hours < 18 {
			t.Fatalf("%v", err)
		}
		if n := d.hours(); n < before-4 { // 20 passes in 3 hours
			t.Fatalf("%d hours of %d", n, before)
		}
		d.clock.Advance(10 * time.Minute)
	}
}

func TestOutageIsExplainedByWhatFollows(t *testing.T) {
	d := newDiary(t, 3*24*time.Hour)
	d.day(4 * 24)
	d.clock.Advance(48 * time.Hour) // nothing runs
	d.record(Live, 1)
	if err := d.prune(false); err == nil {
		t.Fatal("the clock has jumped by two days, and one hour of recording is enough to believe it")
	}
	held := 0
	for range 8 {
		d.record(Live, 1)
		if d.prune(false) != nil {
			held++
		}
	}
	if held == 8 {
		t.Fatal("nine hours of recording do not explain two days")
	}
	d.day(24 * 3)
	d.want(72, "three days later")
}

func TestDepthChanged(t *testing.T) {
	d := newDiary(t, 48*time.Hour)
	d.day(60)
	d.depth = 24 * time.Hour
	for range 30 {
		d.record(Live, 1)
		if d.prune(false) == nil {
			t.Fatal("half of the archive goes unasked")
		}
	}
	d.want(47, "held")
	if err := d.prune(true); err != nil {
		t.Fatal(err)
	}
	d.want(24, "forced")
	d.day(5)
	d.want(24, "and on")
	d.depth = 36 * time.Hour
	if err := d.prune(false); err != nil {
		t.Fatal(err)
	}
	if h, err := d.s.Horizon(); err != nil || h != m4f.UTCOf(d.clock.Now().Add(-36*time.Hour)) {
		t.Errorf("a raised depth moves the horizon back: %v, %v", h.Time(), err)
	}
	// A clock that goes back does not.
	d.clock.Step(d.clock.Now().Add(-10 * time.Hour))
	before, _ := d.s.Horizon()
	if err := d.prune(false); err != nil {
		t.Fatal(err)
	}
	if h, _ := d.s.Horizon(); h != before {
		t.Errorf("the horizon went back to %v", h.Time())
	}
}

func TestImportedPastIsNotPrunedUnasked(t *testing.T) {
	d := newDiary(t, 24*time.Hour)
	now := d.clock.Now()
	d.clock.Step(now.Add(-10 * 24 * time.Hour))
	d.record(Imported, 24*10)
	// The archive was made when its first segment was, by its own clock; one
	// that is imported within a minute has no such past.
	if err := d.s.changeMarker(func(m *marker) bool { m.Created = now; return true }); err != nil {
		t.Fatal(err)
	}
	if err := d.prune(false); err == nil {
		t.Error("nine of ten days that were imported just now are gone")
	}
	if err := d.prune(true); err != nil {
		t.Fatal(err)
	}
	d.want(24, "forced")
}

func TestPruneDryRun(t *testing.T) {
	d := newDiary(t, 24*time.Hour)
	d.record(Live, 30)
	before, err := os.ReadFile(d.s.dir + "/" + markerName)
	if err != nil {
		t.Fatal(err)
	}
	res, err := d.s.Prune(d.clock.Now(), PruneOptions{Depth: d.depth, DryRun: true})
	if err != nil || len(res.Hours) != 6 || res.Bytes == 0 || res.Hours[0].Start != noon {
		t.Errorf("%+v, %v", res, err)
	}
	after, _ := os.ReadFile(d.s.dir + "/" + markerName)
	if d.hours() != 30 || string(before) != string(after) {
		t.Error("a dry run changes something")
	}
	if _, err := d.s.Prune(d.clock.Now(), PruneOptions{Depth: time.Minute}); err == nil {
		t.Error("a depth of a minute is taken")
	}
}

// TestPruneFreesChanges: the prefix of changes goes, cursors from it are gone,
// later ones go on.
func TestPruneFreesChanges(t *testing.T) {
	s := newStream(t, Options{})
	w := s.Writer(Live, 0, WriterOptions{Sync: SyncOff})
	const n = 6000
	var seg *m4f.Segment
	var middle Cursor
	for i := range int64(n) {
		seg = spec{media: i * sec, utc: noon.Add(i * 2 * sec), duration: sec}.build(t)
		if i == 0 {
			seg.Header.UTC = noon
		}
		if err := w.Append(seg); err != nil {
			t.Fatal(err)
		}
		if i == n-100 {
			middle, _ = s.End()
		}
	}
	early, _, err := s.ReadChanges("", 1)
	if err != nil || len(early) != 1 {
		t.Fatal(err)
	}
	_, cursor, _ := s.ReadChanges("", 1)
	blocks := func() int64 {
		st, err := os.Stat(s.changesPath())
		if err != nil {
			t.Fatal(err)
		}
		return st.Sys().(*syscall.Stat_t).Blocks
	}
	size := blocks()
	if _, err := s.Prune(noon.Add(2*n*sec).Time(), PruneOptions{Depth: time.Hour, Force: true}); err != nil {
		t.Fatal(err)
	}
	if after := blocks(); after >= size {
		t.Errorf("%d blocks, were %d", after, size)
	}
	if _, _, err := s.ReadChanges(cursor, 1); err != ErrCursorGone {
		t.Errorf("%v", err)
	}
	recs, next, err := s.ReadChanges(middle, 1000)
	if err != nil || len(recs) != 99 || recs[98].ID != seg.Header.ID {
		t.Errorf("%d changes, %v", len(recs), err)
	}
	if all, _, err := s.ReadChanges("", 10*n); err != nil || len(all) != len(span(t, s)) {
		t.Errorf("%d changes, %d segments, %v", len(all), len(span(t, s)), err)
	}
	// A writer that was open all the time goes on, and so does its follower.
	if err := w.Append(spec{media: n * sec, utc: noon.Add(2 * n * sec), duration: sec}.build(t)); err != nil {
		t.Fatal(err)
	}
	if recs, _, err := s.ReadChanges(next, 10); err != nil || len(recs) != 1 {
		t.Errorf("%d changes, %v", len(recs), err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}
