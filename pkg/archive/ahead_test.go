package archive

import (
	"reflect"
	"runtime"
	"sync"
	"testing"
)

// Hours are the same whether they are read ahead or not, while others ask and an archive
// grows at either end.
func TestLoadAhead(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	s := newStream(t, Options{})
	media := int64(0)
	add := func(h int64) {
		write(t, s, Live, run(t, noon.Add(h*hourTicks), media, 3)...)
		media += 1 << 24
	}
	for h := range int64(60) {
		if h%7 != 3 {
			add(h)
		}
	}
	sums := func(s *Stream) []Hour {
		t.Helper()
		hours, err := s.Hours(0, 0)
		if err != nil {
			t.Fatal(err)
		}
		return hours
	}
	r := reopen(t, s)
	if r.cache.loadAhead([]hour{hourOf(noon)}) != nil {
		t.Error("one hour is read ahead")
	}
	few := []*ahead{}
	for range mostAhead {
		few = append(few, r.cache.loadAhead(make([]hour, 60)))
	}
	if few[mostAhead-1] == nil || r.cache.loadAhead(make([]hour, 60)) != nil {
		t.Errorf("not %d streams are read ahead", mostAhead)
	}
	for _, a := range few {
		a.stop()
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if hours, err := r.Hours(0, 0); err != nil || len(hours) < 51 {
				t.Errorf("%d hours, %v", len(hours), err)
			}
		})
	}
	for _, h := range []int64{3, 60, 59, 10} {
		add(h)
	}
	wg.Wait()
	got := sums(r)
	runtime.GOMAXPROCS(1)
	if want := sums(reopen(t, s)); len(want) != 55 || !reflect.DeepEqual(got, want) {
		t.Errorf("%d hours, want %d, or others", len(got), len(want))
	}
	sumsAreOfView(t, r)
	if r.cache.loadAhead(make([]hour, 60)) != nil {
		t.Error("with one processor hours are read ahead")
	}
}
