package archive

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// wantTotals is what Totals must be, from what reads everything.
func wantTotals(t testing.TB, s *Stream, from m4f.UTC) (want Totals) {
	t.Helper()
	gaps, err := s.Gaps(from, 0)
	if err != nil {
		t.Fatal(err)
	}
	hours, err := s.Hours(from, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range gaps {
		want.Gaps++
		want.Missing += int64(g.To - g.From)
	}
	for i, h := range hours {
		if i >= len(hours)-2 {
			want.RecentBytes += h.Bytes
		}
		want.Segments, want.Bytes = want.Segments+h.Segments, want.Bytes+h.Bytes
		want.Damaged, want.Partial = want.Damaged+h.Damaged, want.Partial+h.Partial
	}
	last := map[hour]bool{}
	for _, h := range hours[max(len(hours)-2, 0):] {
		last[hourOf(h.Start)] = true
	}
	err = s.eachPiece(0, 0, func(p Piece) {
		if p.Damaged() && hourOf(p.Start()) >= hourOf(from) {
			want.DamagedTicks += p.To - p.Part.From
		}
		if last[hourOf(p.Start())] {
			want.RecentTicks += p.To - p.Part.From
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return want
}

// Whatever is added, in whatever order, with damage, gaps, repeats and timelines,
// and whatever has been asked before: the totals are those of reading everything.
func TestTotals(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newStream(t, Options{Clock: fixedClock})
		w := s.Writer(Live, 0, WriterOptions{Sync: SyncOff})
		defer func() { w.Close() }()
		media, utc := int64(rapid.SampledFrom([]int{0, 1 << 20}).Draw(rt, "media"))*sec, noon
		for range rapid.IntRange(1, 5).Draw(rt, "rounds") {
			for range rapid.IntRange(1, 12).Draw(rt, "segments") {
				d := int64(rapid.SampledFrom([]int{4, 4, 600, 1500}).Draw(rt, "seconds")) * sec
				seg := spec{media: media, utc: utc, duration: d, content: rapid.Uint64Range(0, 1).Draw(rt, "content")}
				if rapid.IntRange(0, 3).Draw(rt, "damaged") == 0 {
					seg.flags |= m4f.Damaged
				}
				if rapid.IntRange(0, 7).Draw(rt, "partial") == 0 {
					seg.flags |= m4f.Partial
				}
				if err := w.Append(seg.build(t)); err != nil {
					t.Fatal(err)
				}
				// The next one: behind it, behind a gap, of another timeline, or before it.
				switch step := int64(rapid.SampledFrom([]int{1, 7, 900, 4000, 9000}).Draw(rt, "step")) * sec; rapid.IntRange(0, 5).Draw(rt, "next") {
				case 0:
					media, utc = media+d+step, utc.Add(d+step)
				case 1:
					media, utc = media+1<<31, utc.Add(d+step/900)
				case 2:
					media, utc = max(media-step, 0), max(utc.Add(-step), noon)
				default:
					media, utc = media+d, utc.Add(d)
				}
			}
			for _, from := range []m4f.UTC{0, noon.Add(int64(rapid.IntRange(0, 20000).Draw(rt, "from")) * sec)} {
				got, err := s.Totals(from)
				if err != nil {
					t.Fatal(err)
				}
				want := wantTotals(t, s, from)
				// The first gap is cut at from by UTC here and there by media time, which
				// may differ by as much as two nodes may.
				if d := got.Missing - want.Missing; got.Gaps == want.Gaps && -2*sec < d && d < 2*sec {
					want.Missing = got.Missing
				}
				if got != want {
					rt.Fatalf("from %v:\n%+v, want\n%+v", from, got, want)
				}
				if fresh, err := reopen(t, s).Totals(from); err != nil || fresh != got {
					rt.Fatalf("from %v: %+v remembered, %+v afresh, %v", from, got, fresh, err)
				}
			}
		}
	})
}

// What is pruned, healed and set aside is seen at once.
func TestTotalsFollow(t *testing.T) {
	s := newStream(t, Options{Clock: fixedClock})
	if got, err := s.Totals(0); err != nil || got != (Totals{}) {
		t.Errorf("an empty archive: %+v, %v", got, err)
	}
	w := s.Writer(Live, 0, WriterOptions{Sync: SyncOff})
	segs := run(t, noon, 0, 2000)
	put := func(some []*m4f.Segment) {
		t.Helper()
		for _, seg := range some {
			if err := w.Append(seg); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(segs[:500])
	put(segs[510:])
	if got, err := s.Totals(0); err != nil || got.Gaps != 1 || got.Missing != 40*sec || got.Segments != 1990 {
		t.Errorf("a gap: %+v, %v", got, err)
	}
	put(segs[500:510])
	if got, err := s.Totals(0); err != nil || got.Gaps != 0 || got.Missing != 0 || got.Segments != 2000 {
		t.Errorf("healed: %+v, %v", got, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.SetHorizon(noon.Add(hourTicks)); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Totals(0); err != nil || got.Segments != 1100 || got.Gaps != 0 {
		t.Errorf("pruned: %+v, %v", got, err)
	}
}

func BenchmarkTotals(b *testing.B) {
	s := month(b, 30)
	coldAndWarm(b, "", s, func(b *testing.B, s *Stream) {
		if got, err := s.Totals(0); err != nil || got.Segments != 30*24*900 {
			b.Fatal(got, err)
		}
	})
	b.Run("growing", func(b *testing.B) {
		w := s.Writer(Live, 0, WriterOptions{Sync: SyncOff})
		defer w.Close()
		at := noon.Add(30 * 24 * hourTicks)
		for n := int64(0); b.Loop(); n++ {
			seg := spec{media: int64(at) + n*4*sec, utc: at.Add(n * 4 * sec), duration: 4 * sec}.build(b)
			if err := w.Append(seg); err != nil {
				b.Fatal(err)
			}
			if _, err := s.Totals(0); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// A damaged segment reaches over the hour; its first part is shown in the one, its
// last behind clean segments of the other.
func TestPiecesOverTheHour(t *testing.T) {
	s := newStream(t, Options{Clock: fixedClock})
	w := s.Writer(Live, 0, WriterOptions{Sync: SyncOff})
	for _, seg := range []spec{
		{media: 3590 * sec, utc: noon.Add(3590 * sec), duration: 30 * sec, flags: m4f.Damaged},
		{media: 3600 * sec, utc: noon.Add(3600 * sec), duration: 4 * sec},
		{media: 3604 * sec, utc: noon.Add(3604 * sec), duration: 4 * sec},
	} {
		if err := w.Append(seg.build(t)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var starts []int64
	if err := s.eachPiece(0, 0, func(p Piece) { starts = append(starts, int64(p.Start()-noon)/sec) }); err != nil {
		t.Fatal(err)
	}
	if want := []int64{3590, 3600, 3604, 3608}; !slices.Equal(starts, want) {
		t.Errorf("pieces start at %v, want %v", starts, want)
	}
}
