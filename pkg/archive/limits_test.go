package archive

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// recordHours writes a segment of some bytes into each of n hours from one on.
func recordHours(t testing.TB, s *Stream, from m4f.UTC, n, size int) {
	t.Helper()
	w := s.Writer(Live, 0, WriterOptions{Sync: SyncOff})
	for h := range int64(n) {
		u := from.Add(h * hourTicks)
		if err := w.Append(spec{media: int64(u) & (m4f.Wrap - 1), utc: u, duration: 3600*sec - 1, size: size}.build(t)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// disk is a volume of a size on which streams and other files lie.
type disk struct {
	t       testing.TB
	total   int64
	foreign int64
	clock   *clock.Sim
	streams []*Stream
}

func newDisk(t testing.TB, total int64, names ...string) *disk {
	d := &disk{t: t, total: total, clock: clock.NewSim(noon.Time())}
	memory := "/dev/shm"
	if st, err := os.Stat(memory); err != nil || !st.IsDir() {
		memory = ""
	}
	root, err := os.MkdirTemp(memory, "twindvr-disk")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	for _, n := range names {
		s, err := Create(filepath.Join(root, n), n, Options{Clock: d.clock, FS: noSync{fsx.OS}})
		if err != nil {
			t.Fatal(err)
		}
		d.streams = append(d.streams, s)
	}
	return d
}

// usage counts what the streams' hours and the other files take.
func (d *disk) usage() (Usage, error) {
	used := d.foreign
	for _, s := range d.streams {
		hours, err := listHours(s.fs, s.dir)
		if err != nil {
			return Usage{}, err
		}
		for _, h := range hours {
			size, err := s.sizeOf(h)
			if err != nil {
				return Usage{}, err
			}
			used += size.blocks
		}
	}
	return Usage{Total: d.total, Used: min(used, d.total), Free: max(d.total-used, 0)}, nil
}

func (d *disk) free() int64 {
	d.t.Helper()
	u, err := d.usage()
	if err != nil {
		d.t.Fatal(err)
	}
	return u.Free
}

func (d *disk) members(percent ...int) []Member {
	var out []Member
	for i, s := range d.streams {
		m := Member{Stream: s}
		if i < len(percent) {
			m.Percent = percent[i]
		}
		out = append(out, m)
	}
	return out
}

// starts are the hours of a stream that have segments, counted from noon.
func starts(t testing.TB, s *Stream) []int {
	t.Helper()
	all, err := listHours(s.fs, s.dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, h := range all {
		if f, _ := s.hourFiles(h); len(f) > 0 {
			out = append(out, int(h-hourOf(noon)))
		}
	}
	return out
}

const each = 100 << 10 // bytes of an hour, about

func TestSizeTakesTheStreamsOldestHours(t *testing.T) {
	d := newDisk(t, 0, "a", "b")
	for _, s := range d.streams {
		recordHours(t, s, noon, 20, each)
	}
	d.clock.Advance(20 * time.Hour)
	keep(t, d.streams[0], "a", 2, 4)
	res, err := d.streams[0].Prune(d.clock.Now(), PruneOptions{Size: 12 * (each + 4096)})
	if err != nil || res.Unmet != nil || len(res.Hours) != 8 || res.Hours[0].Why != BySize || res.Hours[0].Bytes < each {
		t.Fatalf("%+v, %v", res, err)
	}
	if got := starts(t, d.streams[0]); !slices.Equal(got, []int{2, 3, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19}) {
		t.Errorf("hours %v are left", got)
	}
	if res.Horizon != noon.Add(10*hourTicks) {
		t.Errorf("horizon %v", res.Horizon.Time())
	}
	if n := len(starts(t, d.streams[1])); n != 20 {
		t.Errorf("%d hours of the other stream", n)
	}
	// What cannot be met is told, and the newest two hours stay.
	res, err = d.streams[0].Prune(d.clock.Now(), PruneOptions{Size: each, Force: true})
	if err != nil || res.Unmet == nil || res.Unmet.Over < 3*each || !strings.Contains(res.Unmet.Error(), "but kept spans and the newest hours is left") {
		t.Errorf("%+v, %v", res.Unmet, err)
	}
	if got := starts(t, d.streams[0]); !slices.Equal(got, []int{2, 3, 18, 19}) {
		t.Errorf("hours %v are left", got)
	}
	if err := d.streams[0].NotePrune(res, err); err != nil {
		t.Error(err)
	}
	// A depth on top takes what is older, and no more.
	if err := d.streams[0].Release("a"); err != nil {
		t.Fatal(err)
	}
	res, err = d.streams[0].Prune(d.clock.Now(), PruneOptions{Size: 1 << 40, Depth: 10 * time.Hour})
	if err != nil || len(res.Hours) != 2 || res.Hours[0].Why != ByHorizon {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestVolumeTakesTheOldestOfAll(t *testing.T) {
	d := newDisk(t, 100*each, "old", "young", "tiny")
	recordHours(t, d.streams[0], noon, 20, each)
	recordHours(t, d.streams[1], noon.Add(15*hourTicks), 5, each)
	recordHours(t, d.streams[2], noon.Add(4*hourTicks), 16, 100)
	d.clock.Advance(20 * time.Hour)
	d.foreign = d.free() - 2*each
	res, err := PruneVolume(d.clock.Now(), d.members(), VolumeOptions{MinFree: 10 * each, Usage: d.usage})
	if err != nil || res.Held != nil || res.Unmet != nil || d.free() < 10*each || d.free() > 12*each {
		t.Fatalf("%+v, %v, %d free", res, err, d.free())
	}
	old, young, tiny := starts(t, d.streams[0]), starts(t, d.streams[1]), starts(t, d.streams[2])
	if len(young) != 5 || old[0] < 7 || old[0] > 9 || tiny[0] != old[0] && tiny[0] != old[0]-1 {
		t.Errorf("old begins at %d, young at %d, tiny at %d", old[0], young[0], tiny[0])
	}
	if r := res.Streams[0].Hours[0]; r.Why != ByMinFree || r.Start != noon {
		t.Errorf("%+v", r)
	}
}

// TestPercentTakesFromThoseThatHaveIt: a stream's limit on the use of the
// volume never costs one that has none, or a higher one.
func TestPercentTakesFromThoseThatHaveIt(t *testing.T) {
	d := newDisk(t, 0, "half", "most", "none")
	for _, s := range d.streams {
		recordHours(t, s, noon, 20, each)
	}
	one, err := d.streams[0].sizeOf(hourOf(noon) + 10)
	if err != nil {
		t.Fatal(err)
	}
	d.total = 100 * one.blocks
	d.clock.Advance(20 * time.Hour)
	pass := func(foreign int64, want ...int) {
		t.Helper()
		d.foreign = foreign * one.blocks
		res, err := PruneVolume(d.clock.Now(), d.members(50, 80), VolumeOptions{Usage: d.usage, Force: true})
		if err != nil {
			t.Fatal(err)
		}
		u, _ := d.usage()
		if (res.Unmet == nil) != (u.Percent() <= 50) {
			t.Errorf("%.1f%% in use, %v", u.Percent(), res.Unmet)
		}
		for i, s := range d.streams {
			if n := len(starts(t, s)); n < want[i]-1 || n > want[i] {
				t.Errorf("%s: %d hours are left, want %d", s.Name(), n, want[i])
			}
		}
	}
	pass(0, 10, 20, 20) // 60 % → 50 %
	pass(30, 2, 20, 20) // 80 %: the newest two stay
	pass(48, 2, 10, 20) // 90 % → 80 %
	pass(68, 2, 2, 20)  // 100 %
	pass(0, 2, 2, 20)   // 24 %: met
}

// TestOtherFilesFillTheVolume: a pass that would empty the archives because of
// them waits, and takes only what recording needs.
func TestOtherFilesFillTheVolume(t *testing.T) {
	d := newDisk(t, 100*each, "a", "b")
	for _, s := range d.streams {
		recordHours(t, s, noon, 24, each)
	}
	d.clock.Advance(24 * time.Hour)
	opt := VolumeOptions{MinFree: 20 * each, Usage: d.usage, Where: "/storage"}
	pass := func() VolumeResult {
		t.Helper()
		res, err := PruneVolume(d.clock.Now(), d.members(), opt)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	if res := pass(); res.Hours != 0 || res.Held != nil {
		t.Fatalf("%+v", res)
	}
	for _, s := range d.streams { // as a node does each minute
		if _, err := s.Prune(d.clock.Now(), PruneOptions{Depth: 48 * time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	d.foreign = d.free() - 17*each // three hours are missing
	if res := pass(); res.Held != nil || res.Hours < 3 || res.Hours > 4 || d.free() < opt.MinFree {
		t.Fatalf("%d hours, %v, %d free", res.Hours, res.Held, d.free())
	}
	before := len(starts(t, d.streams[0])) + len(starts(t, d.streams[1]))
	d.foreign += d.free() - 8*each // more than a tenth of each
	for range 5 {
		res := pass()
		if res.Held == nil || res.Urgent || !strings.Contains(res.Held.Error(), `twindvr prune /storage --min-free`) || !strings.Contains(res.Held.Error(), "what else fills the volume") {
			t.Fatalf("%+v", res)
		}
	}
	if n := len(starts(t, d.streams[0])) + len(starts(t, d.streams[1])); n < before-4 {
		t.Errorf("%d hours of %d: passes that wait add up", n, before)
	}
	// Recording needs room: hours go one by one, the oldest.
	d.foreign += d.free() - each
	res := pass()
	if !res.Urgent || res.Held == nil || d.free() < opt.MinFree/4 || d.free() > opt.MinFree/4+2*each {
		t.Errorf("%+v, %d free", res, d.free())
	}
	a, b := starts(t, d.streams[0]), starts(t, d.streams[1])
	if a[0]-b[0] > 1 || b[0]-a[0] > 1 {
		t.Errorf("not the oldest of both: %v, %v", a, b)
	}
	dry := opt
	dry.DryRun, dry.Force = true, true
	if res, err := PruneVolume(d.clock.Now(), d.members(), dry); err != nil || res.Hours == 0 || len(starts(t, d.streams[0])) != len(a) {
		t.Errorf("dry run: %+v, %v", res, err)
	}
	opt.Force = true
	if res := pass(); res.Held != nil || d.free() < opt.MinFree || res.Unmet != nil {
		t.Errorf("%+v, %d free", res, d.free())
	}
	// Everything full: the newest two hours stay, and it is told.
	d.foreign += d.free()
	pass()
	d.foreign += d.free()
	if res := pass(); res.Unmet == nil || res.Unmet.Over <= 0 || res.Unmet.Over > opt.MinFree {
		t.Errorf("%+v", res)
	}
	for _, s := range d.streams {
		if got := starts(t, s); !slices.Equal(got, []int{22, 23}) {
			t.Errorf("hours %v are left", got)
		}
	}
}

// TestHardLinksFreeNothing: an hour whose files have other names is not
// expected to make room.
func TestHardLinksFreeNothing(t *testing.T) {
	d := newDisk(t, 100*each, "a")
	s := d.streams[0]
	recordHours(t, s, noon, 10, each)
	for _, f := range glob(t, s, "2026/11/22/1[23]/*.mp4") {
		if err := os.Link(f, s.Dir()+"-backup-"+filepath.Base(filepath.Dir(f))); err != nil {
			t.Fatal(err)
		}
	}
	if size, err := s.sizeOf(hourOf(noon)); err != nil || size.blocks >= each || size.bytes < each {
		t.Errorf("%+v, %v", size, err)
	}
	d.foreign = d.free() - each
	if res, err := PruneVolume(d.clock.Now(), d.members(), VolumeOptions{MinFree: 2 * each, Usage: d.usage, Force: true}); err != nil || res.Hours != 3 {
		t.Errorf("%d hours, %v", res.Hours, err)
	}
}

// TestPruneOnAFullVolume: where not even stream.json finds room, the first hour
// makes it.
func TestPruneOnAFullVolume(t *testing.T) {
	d := newDisk(t, 0, "a")
	recordHours(t, d.streams[0], noon, 6, 100)
	removed, refused := 0, 0
	f := fsx.NewFaults(noSync{fsx.OS}, func(o fsx.Op) error {
		switch {
		case o.Name == "remove" && strings.HasSuffix(o.Path, mediaExt):
			removed++
		case o.Name == "write" && removed == 0:
			refused++
			return &fsx.ShortWrite{N: 3, Err: syscall.ENOSPC}
		}
		return nil
	})
	s, err := OpenWith(d.streams[0].Dir(), Options{FS: f})
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Prune(noon.Add(6*hourTicks).Time(), PruneOptions{Depth: 3 * time.Hour, Force: true})
	if err != nil || len(res.Hours) != 3 || refused != 1 {
		t.Errorf("%+v, %v, refused %d times", res, err, refused)
	}
	if got := starts(t, s); !slices.Equal(got, []int{3, 4, 5}) {
		t.Errorf("hours %v are left", got)
	}
	if h, err := s.Horizon(); err != nil || h != noon.Add(3*hourTicks) {
		t.Errorf("horizon %v, %v", h.Time(), err)
	}
}

// TestOneStreamFails: an archive that cannot be pruned does not keep the others
// from making room.
func TestOneStreamFails(t *testing.T) {
	d := newDisk(t, 100*each, "bad", "good")
	for _, s := range d.streams {
		recordHours(t, s, noon, 10, each)
	}
	bad, err := OpenWith(d.streams[0].Dir(), Options{Clock: d.clock, FS: fsx.NewFaults(fsx.OS, func(o fsx.Op) error {
		if o.Name == "remove" {
			return syscall.EIO
		}
		return nil
	})})
	if err != nil {
		t.Fatal(err)
	}
	d.foreign = d.free() - each
	members := []Member{{Stream: bad}, {Stream: d.streams[1]}}
	res, err := PruneVolume(d.clock.Now(), members, VolumeOptions{MinFree: 4 * each, Usage: d.usage, Force: true})
	if !errors.Is(err, syscall.EIO) || len(starts(t, d.streams[1])) >= 10 {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestStopAtEachStepOfPruningASize(t *testing.T) {
	template := newStream(t, Options{TargetDuration: 4 * sec})
	recordHours(t, template, noon, 5, 1000)
	keep(t, template, "a", 1, 2)
	all := span(t, template)
	want := append(slices.Clone(ids(all[1:2])), ids(all[3:])...)
	opt := PruneOptions{Size: 6750, Force: true}
	now := noon.Add(5 * hourTicks).Time()
	stops := stopping(t,
		copies(t, template),
		pruned(now, opt),
		func(t *testing.T, dir string) {
			s, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			horizon, err := s.Horizon()
			if got := ids(span(t, s)); err != nil || horizon == 0 && len(got) != 5 || horizon != 0 && !slices.Equal(got, want) {
				t.Errorf("horizon %v: %d elements, %v", horizon.Time(), len(got), err)
			}
			if _, err := s.Prune(now, opt); err != nil {
				t.Fatal(err)
			}
			if got := ids(span(t, reopen(t, s))); !slices.Equal(got, want) {
				t.Errorf("pruned again: %d elements, want %d", len(got), len(want))
			}
			if n := len(starts(t, s)); n != 3 {
				t.Errorf("%d hours on disk", n)
			}
		})
	if stops < 12 {
		t.Errorf("stopped %d times", stops)
	}
}

// TestPruneForWeeksWhateverHappens lets weeks pass for some streams on one
// volume: they record, are kept in part, other files come and go, limits change, the
// clock is wrong at times. Whatever happens, a pass keeps its promises.
func TestPruneForWeeksWhateverHappens(t *testing.T) {
	passes, removed, held, unmet, urgent, wrong := 0, 0, 0, 0, 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		names := []string{"a", "b", "c"}[:rapid.IntRange(1, 3).Draw(rt, "streams")]
		d := newDisk(t, int64(rapid.IntRange(20, 60).Draw(rt, "volume"))*each, names...)
		defer func() {
			for _, s := range d.streams {
				os.RemoveAll(s.Dir())
			}
		}()
		depth := make([]time.Duration, len(names))
		for i := range depth {
			depth[i] = time.Duration(rapid.IntRange(4, 200).Draw(rt, "depth")) * time.Hour
		}
		size := int64(rapid.IntRange(0, 20).Draw(rt, "size")) * each
		opt := VolumeOptions{MinFree: int64(rapid.IntRange(0, 12).Draw(rt, "free")) * each, Usage: d.usage}
		percent := rapid.SampledFrom([]int{0, 0, 50, 90}).Draw(rt, "percent")
		kept := 0
		for range rapid.IntRange(4, 9).Draw(rt, "hours recorded") {
			now := d.clock.Now()
			for i, s := range d.streams {
				bytes := []int{each, each / 4, 3 * each}[i]
				if d.free() < int64(bytes+32<<10) {
					continue // full
				}
				w := s.Writer(Live, 0, WriterOptions{Sync: SyncOff})
				u := m4f.UTCOf(now)
				if err := w.Append(spec{media: int64(u) & (m4f.Wrap - 1), utc: u, duration: 1800 * sec, size: bytes, content: uint64(i)}.build(t)); err != nil {
					rt.Fatalf("%v", err)
				}
				if err := w.Close(); err != nil {
					rt.Fatal(err)
				}
			}
			switch rapid.IntRange(0, 8).Draw(rt, "what") {
			case 0:
				s := rapid.SampledFrom(d.streams).Draw(rt, "kept stream")
				from := m4f.UTCOf(now.Add(-time.Duration(rapid.IntRange(0, 100).Draw(rt, "kept from")) * time.Hour))
				if err := s.Keep(Keep{Name: fmt.Sprint(kept), From: from, To: from.Add(int64(rapid.IntRange(1, 30).Draw(rt, "kept hours")) * hourTicks)}); err != nil {
					rt.Fatal(err)
				}
				kept++
			case 1:
				for _, s := range d.streams {
					if l, _ := s.Kept(); len(l) > 0 {
						if err := s.Release(l[0].Name); err != nil {
							rt.Fatal(err)
						}
					}
				}
			case 2: // other files come and go, up to the last byte
				d.foreign = 0
				d.foreign = min(int64(rapid.IntRange(0, 40).Draw(rt, "foreign"))*each, d.free())
			case 3:
				depth[0] = time.Duration(rapid.IntRange(4, 200).Draw(rt, "new depth")) * time.Hour
			case 4:
				size = int64(rapid.IntRange(0, 20).Draw(rt, "new size")) * each
			}
			// The clock that passes go by is wrong at times, by minutes to a year.
			skew := time.Duration(0)
			if rapid.IntRange(0, 4).Draw(rt, "wrong clock") == 0 {
				skew = rapid.SampledFrom([]time.Duration{-time.Hour, time.Hour, -30 * 24 * time.Hour, 365 * 24 * time.Hour, time.Minute}).Draw(rt, "skew")
				wrong++
				if rapid.Bool().Draw(rt, "filled") { // while nobody knows what is old
					d.foreign += d.free()
				}
			}
			for i, s := range d.streams {
				before := look(t, s)
				res, err := s.Prune(now.Add(skew), PruneOptions{Depth: depth[i], Size: size})
				var h *PruneHeldError
				if errors.As(err, &h) {
					held++
				} else if err != nil {
					rt.Fatal(err)
				}
				before.check(rt, t, s, res, now, skew, depth[i])
				if total := sizeNow(t, s); size > 0 && total > size && res.Unmet == nil && h == nil {
					rt.Errorf("%d bytes, the limit is %d, and nothing is told", total, size)
				}
				removed += len(res.Hours)
				passes++
			}
			befores := make([]looked, len(d.streams))
			for i, s := range d.streams {
				befores[i] = look(t, s)
			}
			percents := make([]int, len(d.streams))
			for i := range percents {
				percents[i] = percent
			}
			u, _ := d.usage()
			res, err := PruneVolume(now.Add(skew), d.members(percents...), opt)
			if err != nil {
				rt.Fatal(err)
			}
			after, _ := d.usage()
			if opt.Exceeded(after, d.members(percents...)) && res.Held == nil && res.Unmet == nil {
				rt.Errorf("free %d, then %d, %.1f%% in use, and nothing is told", u.Free, after.Free, after.Percent())
			}
			if !opt.Exceeded(u, d.members(percents...)) && res.Hours > 0 {
				rt.Errorf("%d hours went although there was room", res.Hours)
			}
			newestGone, oldestLeft := hour(-1), hour(1<<40)
			for i, s := range d.streams {
				befores[i].check(rt, t, s, res.Streams[i], now, skew, 0)
				for _, h := range res.Streams[i].Hours {
					if h.Why != ByHorizon {
						newestGone = max(newestGone, hourOf(h.Start))
					}
				}
				p, err := s.plan(now, 0, false)
				if err != nil {
					rt.Fatal(err)
				}
				if l, err := p.candidates(); err == nil && len(l) > 0 {
					oldestLeft = min(oldestLeft, l[0])
				}
			}
			if newestGone > oldestLeft {
				rt.Errorf("hour %d went and hour %d stays", newestGone, oldestLeft)
			}
			removed += res.Hours
			passes++
			if res.Held != nil {
				held++
			}
			if res.Unmet != nil {
				unmet++
			}
			if res.Urgent {
				urgent++
			}
			d.clock.Advance(time.Duration(rapid.IntRange(1, 24).Draw(rt, "pause")) * time.Hour)
		}
	})
	t.Logf("%d passes removed %d hours; %d were held, %d could not meet a limit, %d were urgent; the clock was wrong %d times", passes, removed, held, unmet, urgent, wrong)
	if removed == 0 || held == 0 || unmet == 0 || urgent == 0 || wrong == 0 {
		t.Error("not everything has happened")
	}
}

// looked is what an archive was before a pass.
type looked struct {
	horizon m4f.UTC
	starts  []int
	kept    keeps
	view    []Element
	depth   string
}

func look(t testing.TB, s *Stream) looked {
	t.Helper()
	m, err := s.marker()
	if err != nil {
		t.Fatal(err)
	}
	kept, err := s.readKeeps(true)
	if err != nil {
		t.Fatal(err)
	}
	l := looked{horizon: m.horizon(), starts: starts(t, s), kept: kept, view: span(t, s)}
	if m.Pruned != nil {
		l.depth = m.Pruned.Depth
	}
	return l
}

// check looks at an archive after a pass. Depth 0: none was asked for.
func (l *looked) check(rt *rapid.T, t testing.TB, s *Stream, res PruneResult, now time.Time, skew, depth time.Duration) {
	horizon, err := s.Horizon()
	if err != nil {
		rt.Fatal(err)
	}
	was, _ := time.ParseDuration(l.depth)
	ahead := l.horizon > m4f.UTCOf(now.Add(skew)) // the clock is behind the horizon
	if horizon < l.horizon && !ahead && (depth == 0 || l.depth == "" || depth <= was) {
		rt.Errorf("the horizon went back from %v to %v", l.horizon.Time(), horizon.Time())
	}
	left := starts(t, s)
	for _, h := range res.Hours {
		at := hourOf(h.Start)
		n := int(at - hourOf(noon))
		if l.kept.touch(at) {
			rt.Errorf("hour %d was kept and is gone", n)
		}
		if slices.Contains(left, n) {
			rt.Errorf("hour %d is told to be gone and is there", n)
		}
		if h.Why == ByDepth && h.Start.Add(hourTicks).Time().After(now.Add(-depth+time.Hour)) {
			rt.Errorf("hour %d went for a depth of %v at %v", n, depth, now)
		}
		if h.Why != ByDepth && h.Why != ByHorizon && len(l.starts) > 1 && n >= l.starts[len(l.starts)-2] {
			rt.Errorf("hour %d went for %s, of %v", n, h.Why, l.starts)
		}
	}
	if len(left)+countMedia(res.Hours, l.starts) != len(l.starts) {
		rt.Errorf("%v were there, %d went, %v are left", l.starts, len(res.Hours), left)
	}
	var want []m4f.Identity
	for _, e := range l.view {
		if e.UTC >= horizon || l.kept.touch(hourOf(e.UTC)) {
			want = append(want, e.ID)
		}
	}
	got := ids(span(t, s))
	if horizon >= l.horizon && !slices.Equal(got, want) && len(got)+len(want) > 0 {
		rt.Errorf("%d segments are shown, want %d", len(got), len(want))
	}
}

// countMedia counts the hours that had segments.
func countMedia(hours []PrunedHour, starts []int) int {
	n := 0
	for _, h := range hours {
		if slices.Contains(starts, int(hourOf(h.Start)-hourOf(noon))) {
			n++
		}
	}
	return n
}

func sizeNow(t testing.TB, s *Stream) int64 {
	t.Helper()
	n, err := s.Size()
	if err != nil {
		t.Fatal(err)
	}
	return n
}
