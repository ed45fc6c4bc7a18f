package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// keep protects hours [from, to) of a diary's archive, counted from noon.
func keep(t testing.TB, s *Stream, name string, from, to int64) {
	t.Helper()
	if err := s.Keep(Keep{Name: name, From: noon.Add(from * hourTicks), To: noon.Add(to * hourTicks)}); err != nil {
		t.Fatal(err)
	}
}

// TestKeptHours: kept hours before the horizon are like any other hour: shown,
// read, healed, announced, and no gap lies between them and the horizon; the
// hours beside them are gone for everyone.
func TestKeptHours(t *testing.T) {
	d := newDiary(t, 12*time.Hour)
	d.record(Live, 24)
	all := span(t, d.s)
	if err := d.s.Keep(Keep{Name: "the final", From: noon.Add(3*hourTicks + 17*sec), To: noon.Add(4*hourTicks + 1)}); err != nil {
		t.Fatal(err)
	}
	keep(t, d.s, "later", 20, 30)
	if err := d.prune(true); err != nil {
		t.Fatal(err)
	}
	want := append(slices.Clone(ids(all[3:5])), ids(all[12:])...)
	for _, s := range []*Stream{d.s, reopen(t, d.s)} {
		if got := ids(span(t, s)); !slices.Equal(got, want) {
			t.Fatalf("%d segments are shown, want %d", len(got), len(want))
		}
		els := span(t, s)
		if _, err := s.ReadElement(&els[0]); err != nil {
			t.Error(err)
		}
		if ok, err := s.Has(all[3].ID, 0); !ok || err != nil {
			t.Errorf("a kept segment is not found: %v", err)
		}
		if ok, err := s.Has(all[2].ID, 0); ok || err != nil {
			t.Errorf("a pruned segment is found: %v", err)
		}
		info, err := s.Info()
		if err != nil || info.Oldest != noon.Add(12*hourTicks) || info.Horizon != info.Oldest {
			t.Errorf("oldest %v, horizon %v, %v", info.Oldest.Time(), info.Horizon.Time(), err)
		}
		if ivs, err := s.Coverage(0, 0); err != nil || len(ivs) != 2 {
			t.Errorf("%+v, %v", ivs, err)
		}
		if gaps, err := s.Gaps(0, 0); err != nil || len(gaps) != 0 {
			t.Errorf("what was pruned is a gap: %+v, %v", gaps, err)
		}
		if h, err := s.Hours(noon, 0); err != nil || len(h) != 14 {
			t.Errorf("%d hours, %v", len(h), err)
		}
	}
	for _, c := range []struct {
		from, to int64
		want     bool
	}{{3, 5, true}, {2, 5, false}, {3, 6, false}, {12, 20, true}, {5, 11, false}, {3, 20, false}} {
		if ok, err := d.s.Takes(noon.Add(c.from*hourTicks), noon.Add(c.to*hourTicks)); err != nil || ok != c.want {
			t.Errorf("takes hours %d to %d: %v, %v", c.from, c.to, ok, err)
		}
	}
	// Healing goes on in kept hours, and nowhere else before the horizon.
	outside := spec{media: 1, utc: noon.Add(5 * hourTicks), duration: sec, content: 2}.build(t)
	if wants, err := d.s.Wants([]Record{{Header: outside.Header}}); err != nil || len(wants) != 0 {
		t.Errorf("wanted: %+v, %v", wants, err)
	}
	hole := all[3]
	if err := os.RemoveAll(d.s.hourDir(hourOf(hole.UTC))); err != nil {
		t.Fatal(err)
	}
	s := reopen(t, d.s)
	wants, err := s.Wants([]Record{{Header: all[2].Header}, {Header: hole.Header}, {Header: all[5].Header}})
	if err != nil || len(wants) != 1 || wants[0].ID != hole.ID {
		t.Fatalf("wanted: %+v, %v", wants, err)
	}
	end, err := s.End()
	if err != nil {
		t.Fatal(err)
	}
	w := s.Writer(Healed, 0, WriterOptions{Sync: SyncOff})
	again := spec{media: int64(hole.UTC) & (m4f.Wrap - 1), utc: hole.UTC, duration: 3600*sec - 1}.build(t)
	if err := w.Append(again); err != nil {
		t.Fatal(err)
	}
	if err := w.Append(outside); !errors.As(err, new(*HorizonError)) {
		t.Errorf("beside the kept span: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if recs, _, err := s.ReadChanges(end, 10); err != nil || len(recs) != 1 || recs[0].ID != hole.ID {
		t.Errorf("announced: %+v, %v", recs, err)
	}
	if err := s.Note(event.Event{Time: hole.UTC.Time(), Kind: event.Start, Msg: "in a kept hour"}); err != nil {
		t.Fatal(err)
	}
	if evs, err := s.Events(hole.UTC, hole.UTC.Add(hourTicks)); err != nil || !slices.ContainsFunc(evs, func(e event.Event) bool { return e.Msg == "in a kept hour" }) {
		t.Errorf("%+v, %v", evs, err)
	}
	if got := ids(span(t, d.s)); !slices.Equal(got, want) {
		t.Errorf("%d segments are shown, want %d", len(got), len(want))
	}
	// A hole inside the kept hours is a gap, and only what is of them.
	if err := os.RemoveAll(d.s.hourDir(hourOf(noon) + 3)); err != nil {
		t.Fatal(err)
	}
	first := spec{media: 9, utc: noon.Add(3 * hourTicks), duration: sec}.build(t)
	write(t, d.s, Healed, first)
	gaps, err := reopen(t, d.s).Gaps(0, 0)
	if err != nil || len(gaps) != 1 || gaps[0].From != noon.Add(3*hourTicks+sec) || gaps[0].To != noon.Add(4*hourTicks) {
		t.Errorf("%+v, %v", gaps, err)
	}
	// Released, they go with the next pass.
	if err := d.s.Release("the final"); err != nil {
		t.Fatal(err)
	}
	if got := ids(span(t, d.s)); !slices.Equal(got, ids(all[12:])) {
		t.Errorf("released: %d segments are shown", len(got))
	}
	res, err := d.s.Prune(d.clock.Now(), PruneOptions{Depth: d.depth})
	if err != nil || len(res.Hours) != 2 || res.Hours[0].Why != ByHorizon {
		t.Errorf("%+v, %v", res, err)
	}
	if len(glob(t, d.s, "2026/11/22/15")) != 0 {
		t.Error("the hour is still there")
	}
}

func TestKeepRefuses(t *testing.T) {
	s := newStream(t, Options{FS: noSync{fsx.OS}})
	ok := Keep{Name: "a", From: noon, To: noon + 1}
	for _, c := range []struct {
		k    Keep
		want string
	}{
		{Keep{Name: "", From: noon, To: noon + 1}, "is empty"},
		{Keep{Name: "a/b", From: noon, To: noon + 1}, "slash"},
		{Keep{Name: ".a", From: noon, To: noon + 1}, "dot"},
		{Keep{Name: "a\nb", From: noon, To: noon + 1}, "control"},
		{Keep{Name: "a\xff", From: noon, To: noon + 1}, "UTF-8"},
		{Keep{Name: strings.Repeat("x", 101), From: noon, To: noon + 1}, "101 bytes"},
		{Keep{Name: "b", From: noon, To: noon}, "ends before it begins"},
		{Keep{Name: "b", From: -1, To: noon}, "ends before it begins"},
	} {
		if err := s.Keep(c.k); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v", c.k.Name, err)
		}
	}
	if err := s.Keep(ok); err != nil {
		t.Fatal(err)
	}
	if err := s.Keep(ok); !errors.Is(err, fs.ErrExist) || !errors.As(err, new(*KeepError)) {
		t.Errorf("twice: %v", err)
	}
	if err := s.Release("b"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "there is a") {
		t.Errorf("%v", err)
	}
	for i := 1; i < MaxKeeps; i++ {
		file := fmt.Sprintf(`{"from":%q,"to":%q}`, noon.Add(int64(i)).Time().Format(time.RFC3339Nano), noon.Add(int64(i)+1).Time().Format(time.RFC3339Nano))
		if err := os.WriteFile(s.keepPath(fmt.Sprint(i)), []byte(file), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Keep(Keep{Name: "more", From: noon, To: noon + 1}); err == nil || !strings.Contains(err.Error(), "256 already") {
		t.Errorf("%v", err)
	}
	kept, err := s.Kept()
	if err != nil || len(kept) != MaxKeeps || kept[0].Name != "a" || kept[1].Name != "1" || kept[255].From != noon.Add(255) {
		t.Errorf("%d kept, %v", len(kept), err)
	}
	if st, err := os.Stat(s.keepPath("a")); err != nil || st.Mode().Perm() != filePerm {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

// TestKeepNobodyCanRead: while a kept span cannot be read nothing is pruned; the
// view goes on with the others.
func TestKeepNobodyCanRead(t *testing.T) {
	d := newDiary(t, 6*time.Hour)
	d.record(Live, 12)
	keep(t, d.s, "good", 0, 1)
	if err := os.WriteFile(d.s.keepPath("bad"), []byte("{"), 0o640); err != nil {
		t.Fatal(err)
	}
	_, err := d.s.Prune(d.clock.Now(), PruneOptions{Depth: d.depth, Force: true})
	if !errors.As(err, new(*KeepError)) || !strings.Contains(err.Error(), "bad.json cannot be read") {
		t.Errorf("%v", err)
	}
	if res, err := PruneVolume(d.clock.Now(), []Member{{Stream: d.s}}, VolumeOptions{MinFree: 1, Usage: full}); err == nil || res.Hours != 0 {
		t.Errorf("%+v, %v", res, err)
	}
	if d.hours() != 12 {
		t.Errorf("%d hours", d.hours())
	}
	if err := d.s.SetHorizon(noon.Add(6 * hourTicks)); err != nil {
		t.Fatal(err)
	}
	if n := len(span(t, d.s)); n != 7 {
		t.Errorf("%d segments are shown", n)
	}
	if err := d.s.Release("bad"); err != nil {
		t.Fatal(err)
	}
	if err := d.prune(true); err != nil {
		t.Fatal(err)
	}
	d.want(7, "released")
}

// full is a volume without a byte left.
func full() (Usage, error) { return Usage{Total: 1 << 40, Used: 1 << 40}, nil }

func TestStopAtEachStepOfKeep(t *testing.T) {
	for _, release := range []bool{false, true} {
		stops := stopping(t,
			func() string {
				s := newStream(t, Options{TargetDuration: 4 * sec})
				if release {
					keep(t, s, "a", 0, 1)
				}
				return s.Dir()
			},
			func(fsys fsx.FS, dir string, arm func()) error {
				s, err := OpenWith(dir, Options{FS: fsys})
				if err != nil {
					return err
				}
				arm()
				if release {
					return s.Release("a")
				}
				return s.Keep(Keep{Name: "a", From: noon, To: noon.Add(hourTicks)})
			},
			func(t *testing.T, dir string) {
				s, err := Open(dir)
				if err != nil {
					t.Fatal(err)
				}
				kept, err := s.Kept()
				if err != nil || len(kept) > 1 || len(kept) == 1 && (kept[0].From != noon || kept[0].To != noon.Add(hourTicks)) {
					t.Errorf("%+v, %v", kept, err)
				}
				if len(kept) == 1 {
					if err := s.Release("a"); err != nil {
						t.Error(err)
					}
				}
				keep(t, s, "a", 0, 1)
			})
		if stops < 2 || !release && stops < 8 {
			t.Errorf("stopped %d times", stops)
		}
	}
}

// TestKeepWhilePruning keeps a span from every moment of a pass on: an hour that
// the archive had when Keep had returned stays.
func TestKeepWhilePruning(t *testing.T) {
	stayed := 0
	for n := 0; ; n++ {
		d := newDiary(t, 2*time.Hour)
		d.record(Live, 5)
		calls, there := 0, make(chan bool, 1)
		f := fsx.NewFaults(noSync{fsx.OS}, func(o fsx.Op) error {
			if calls++; calls-1 == n {
				r := reopen(t, d.s)
				go func() {
					keep(t, r, "a", 1, 2)
					els, err := r.Span(0, 0)
					there <- err == nil && len(els) > 0 && hourOf(els[0].UTC) <= hourOf(noon)+1
				}()
			}
			return nil
		})
		s, err := OpenWith(d.s.Dir(), Options{FS: f, Clock: d.clock})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Prune(d.clock.Now(), PruneOptions{Depth: d.depth, Force: true}); err != nil {
			t.Fatal(err)
		}
		if calls <= n {
			if n < 10 || stayed == 0 || stayed == n {
				t.Errorf("%d moments, at %d of them the hour was kept", n, stayed)
			}
			return
		}
		had := <-there
		els := span(t, reopen(t, s))
		if got := hourOf(els[0].UTC) == hourOf(noon)+1; got != had {
			t.Errorf("kept at call %d: it was there: %v, it is there: %v", n, had, got)
		}
		if had {
			stayed++
		}
	}
}

// TestManyKeep: processes that keep and release at once lose nothing of each
// other's.
func TestManyKeep(t *testing.T) {
	s := newStream(t, Options{FS: noSync{fsx.OS}})
	var wg sync.WaitGroup
	for k := range 8 {
		wg.Go(func() {
			own, err := OpenWith(s.Dir(), Options{FS: noSync{fsx.OS}})
			if err != nil {
				t.Error(err)
				return
			}
			for i := range 5 {
				name := fmt.Sprintf("%d-%d", k, i)
				if err := own.Keep(Keep{Name: name, From: noon, To: noon + 1}); err != nil {
					t.Error(err)
				}
				if i%2 == 1 {
					if err := own.Release(name); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if kept, err := s.Kept(); err != nil || len(kept) != 24 {
		t.Errorf("%d kept, %v", len(kept), err)
	}
	if l := glob(t, s, "keep/*"); len(l) != 24 {
		t.Errorf("%v lie about", l)
	}
}

func FuzzParseKeep(f *testing.F) {
	for _, seed := range []string{
		`{"from":"2026-11-22T12:00:00Z","to":"2026-11-22T13:00:00.5Z","created":"2026-11-22T14:00:00Z"}`,
		`{"from":"2026-11-22T13:00:00Z","to":"2026-11-22T12:00:00Z"}`,
		`{"from":"0001-01-01T00:00:00Z","to":"9999-12-31T23:59:59+14:00"}`,
		`{}`, `[]`, `null`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := parseKeep("x", b)
		if err != nil {
			return
		}
		from, to := k.hours()
		if from < 0 || to <= from || !k.touches(from) || k.touches(to) || !k.touches(to-1) {
			t.Errorf("%s: hours %d to %d", b, from, to)
		}
	})
}
