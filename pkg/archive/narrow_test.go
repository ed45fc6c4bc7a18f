package archive

import (
	"errors"
	"os"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// forgetViews has the views and records of hours read anew, but not sketches.
func forgetViews(s *Stream) {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	for key, el := range shared.at {
		if key.c == &s.cache {
			shared.remove(el)
		}
	}
}

// narrowly says of how many elements of an hour those of a window are found, and
// whether they were read from where they lie.
func narrowly(t testing.TB, s *Stream, w Window) (n int, narrow bool) {
	t.Helper()
	forgetViews(s)
	els, err := s.cache.about(hourOf(w.From), w)
	if err != nil {
		t.Fatal(err)
	}
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	vs, err := s.cache.versions(hourOf(w.From))
	if err != nil {
		t.Fatal(err)
	}
	_, whole := shared.get(cacheKey{&s.cache, hourOf(w.From), kindView}, vs)
	return len(els), !whole
}

// sumsAreOfView wants what is summed up without making a view to be what is of the view.
func sumsAreOfView(t testing.TB, s *Stream) {
	t.Helper()
	hours, err := s.hours(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hours {
		forgetViews(s)
		s.cache.mu.Lock()
		vs, err := s.cache.versions(h)
		sum, sketch, err1 := s.cache.sumUp(h, vs)
		v, _, err2 := s.cache.viewed(h)
		s.cache.mu.Unlock()
		if err := errors.Join(err, err1, err2); err != nil {
			t.Fatal(err)
		}
		wantSum, wantSketch := summarize(h, v)
		if sum != wantSum || !reflect.DeepEqual(sketch, wantSketch) {
			t.Fatalf("hour %d\ngot  %+v %+v\nwant %+v %+v", h, sum, sketch, wantSum, wantSketch)
		}
	}
}

// Whatever an archive holds, a window of it that is read from where its records lie
// is what the view shows there.
func TestNarrow(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newStream(t, Options{Clock: fixedClock})
		w := s.Writer(Live, 0, WriterOptions{Sync: SyncOff})
		defer func() { w.Close() }()
		media, utc := int64(0), noon.Add(50*60*sec)
		for range rapid.IntRange(1, 60).Draw(rt, "segments") {
			d := int64(rapid.SampledFrom([]int{4, 4, 4, 10, 100}).Draw(rt, "seconds")) * sec
			seg := spec{media: media, utc: utc, duration: d, content: rapid.Uint64Range(0, 1).Draw(rt, "content")}
			if rapid.IntRange(0, 20).Draw(rt, "damaged") == 0 {
				seg.flags |= m4f.Damaged
			}
			if err := w.Append(seg.build(t)); err != nil {
				t.Fatal(err)
			}
			switch rapid.IntRange(0, 30).Draw(rt, "next") {
			case 0: // behind a gap
				d += int64(rapid.IntRange(1, 600).Draw(rt, "gap")) * sec
			case 1: // another extent
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				w = s.Writer(Healed, 1, WriterOptions{Sync: SyncOff})
			case 2: // over the last
				d -= 2 * sec
			}
			media, utc = media+d, utc.Add(d)
		}
		if _, err := s.Hours(0, 0); err != nil {
			t.Fatal(err)
		}
		sumsAreOfView(t, s)
		whole := span(t, s)
		var windows []Window
		for from := noon.Add(49 * 60 * sec); len(windows) < 10; {
			from = from.Add(int64(rapid.IntRange(0, 600).Draw(rt, "on")) * sec)
			to := from.Add(int64(rapid.IntRange(1, 600*sec).Draw(rt, "long")))
			windows = append(windows, Window{from, to})
			from = to
		}
		got := make([][]Element, len(windows))
		forgetViews(s)
		if err := s.EachIn(windows, func(i int, e *Element) error {
			got[i] = append(got[i], *e)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for i, w := range windows {
			var want []Element
			for _, e := range whole {
				if e.shows(w.From, w.To) {
					want = append(want, e)
				}
			}
			if !reflect.DeepEqual(got[i], want) {
				rt.Fatalf("window %v\ngot  %+v\nwant %+v", w, got[i], want)
			}
		}
	})
}

// A minute is read from where its records lie, and whole where they are not what
// they were.
func TestNarrowIndexGone(t *testing.T) {
	s := newStream(t, Options{})
	write(t, s, Live, run(t, noon, 0, 900)...)
	want := ids(span(t, s))[150:165]
	window := Window{noon.Add(600 * sec), noon.Add(660 * sec)}
	look := func() (n int, narrow bool) {
		t.Helper()
		if _, err := s.Hours(0, 0); err != nil {
			t.Fatal(err)
		}
		n, narrow = narrowly(t, s, window)
		forgetViews(s)
		els, err := s.Span(window.From, window.To)
		if err != nil || !slices.Equal(ids(els), want) {
			t.Errorf("%v, %v", ids(els), err)
		}
		return n, narrow
	}
	if n, narrow := look(); !narrow || n >= 60 {
		t.Errorf("%d elements were read, from where they lie: %v", n, narrow)
	}
	// What was not announced is not seen for a while, so the files are other ones.
	index := glob(t, s, "*/*/*/*/*.idx")[0]
	whole, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func() error{
		"cut":     func() error { return os.Truncate(index, int64(len(whole))/10) },
		"gone":    func() error { return os.Remove(index) },
		"flipped": func() error { b := slices.Clone(whole); b[64+96*155+50]++; return os.WriteFile(index, b, 0o640) },
		"shifted": func() error {
			return os.WriteFile(index, append(slices.Clone(whole[:64+96*20]), whole[64+96*21:]...), 0o640)
		},
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if n, narrow := look(); narrow || n != 900 {
			t.Errorf("%s: %d elements were read, from where they lie: %v", name, n, narrow)
		}
		if err := os.WriteFile(index, whole, 0o640); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkNarrow reads a thousand windows of a month whose sums are known.
func BenchmarkNarrow(b *testing.B) {
	s := month(b, 30)
	var windows []Window
	for i := range int64(1000) {
		from := noon.Add(i*2592*sec + 60*sec)
		windows = append(windows, Window{from, from.Add(74 * sec)})
	}
	if _, err := s.Hours(0, 0); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		err := s.EachIn(windows, func(int, *Element) error { n++; return nil })
		if err != nil || n < 18000 {
			b.Fatal(n, err)
		}
	}
}
