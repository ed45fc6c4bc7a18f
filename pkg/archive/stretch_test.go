package archive

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// Whatever was written by whomever, and whatever was asked before: the stretches
// are in order, cover what Coverage covers, and miss what Gaps tells.
func TestStretches(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newStream(t, Options{Clock: fixedClock})
		utc := noon
		for range rapid.IntRange(1, 4).Draw(rt, "writers") {
			origin := rapid.SampledFrom([]Origin{Live, Replicated, Healed}).Draw(rt, "origin")
			w := s.Writer(origin, 0, WriterOptions{Sync: SyncOff})
			for range rapid.IntRange(1, 8).Draw(rt, "segments") {
				d := int64(rapid.SampledFrom([]int{4, 4, 60, 1500}).Draw(rt, "seconds")) * sec
				seg := spec{media: int64(utc), utc: utc, duration: d, content: rapid.Uint64Range(0, 1).Draw(rt, "content")}
				if rapid.IntRange(0, 3).Draw(rt, "damaged") == 0 {
					seg.flags |= m4f.Damaged
				}
				if err := w.Append(seg.build(t)); err != nil {
					t.Fatal(err)
				}
				utc = max(noon, utc.Add(d+int64(rapid.SampledFrom([]int{0, 0, 0, 7, 900, 9000, -40, -5000}).Draw(rt, "step"))*sec))
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			from := m4f.UTC(0)
			if rapid.Bool().Draw(rt, "later") {
				from = noon.Add(int64(rapid.IntRange(0, 9000).Draw(rt, "from")) * sec)
			}
			to := m4f.UTC(0)
			if rapid.Bool().Draw(rt, "bounded") {
				to = max(from, noon).Add(int64(rapid.IntRange(1, 9000).Draw(rt, "to")) * sec)
			}
			checkStretches(rt, s, from, to)
		}
	})
}

func checkStretches(t *rapid.T, s *Stream, from, to m4f.UTC) {
	got, err := s.Stretches(from, to)
	if err != nil {
		t.Fatal(err)
	}
	var missing []Gap
	var have []Interval
	for i, x := range got {
		switch {
		case x.From >= x.To, i > 0 && x.From < got[i-1].To, x.From < from, to != 0 && x.To > to:
			t.Fatalf("stretch %d: %+v behind %+v, of %d to %d", i, x, got[max(i-1, 0)], from, to)
		case i > 0 && x.From == got[i-1].To && x.State == got[i-1].State:
			t.Fatalf("stretch %d: %+v goes on with %+v", i, x, got[i-1])
		case x.State == StateMissing:
			missing = append(missing, Gap{From: x.From, To: x.To})
			continue
		}
		if n := len(have); n > 0 && have[n-1].To == x.From {
			have[n-1].To = x.To
		} else {
			have = append(have, Interval{From: x.From, To: x.To})
		}
	}
	gaps, err := s.Gaps(from, to)
	if err != nil {
		t.Fatal(err)
	}
	for limit, some := range [][]Gap{nil, gaps[max(len(gaps)-1, 0):], 100: gaps} {
		if last, more, err := s.LastGaps(from, to, limit); some != nil && (err != nil || !slices.EqualFunc(last, some, sameGap) || more != (len(gaps) > limit)) {
			t.Fatalf("%d to %d: the last %d gaps are %v, %v, %v; all are %v", from, to, limit, last, more, err, gaps)
		}
	}
	for i := range gaps {
		gaps[i] = Gap{From: gaps[i].From, To: gaps[i].To}
	}
	if !slices.Equal(missing, gaps) {
		t.Fatalf("%d to %d: missing %v, gaps %v", from, to, missing, gaps)
	}
	cover, err := s.Coverage(from, to)
	if err != nil {
		t.Fatal(err)
	}
	if len(cover) != len(have) {
		t.Fatalf("%d to %d: %v, coverage %v", from, to, have, cover)
	}
	for i := range cover {
		if a, b := have[i], cover[i]; max(a.From-b.From, b.From-a.From, a.To-b.To, b.To-a.To) > utcSlack {
			t.Fatalf("%d to %d: %v, coverage %v", from, to, have, cover)
		}
	}
}

func sameGap(a, b Gap) bool { return a.From == b.From && a.To == b.To && a.Cause == b.Cause }

// What is shown in an hour of segments that begin in the one before is told, where
// none begins in the hour.
func TestStretchesInHourWithoutSegments(t *testing.T) {
	s := newStream(t, Options{})
	w := s.Writer(Healed, 0, WriterOptions{Sync: SyncOff})
	for _, x := range []struct {
		from  int64
		flags m4f.Flags
	}{{2400, 0}, {3000, m4f.Damaged}} { // the damaged one is shown behind the other, from 3900 s on
		if err := w.Append(spec{media: x.from * sec, utc: noon.Add(x.from * sec), duration: 1500 * sec, flags: x.flags}.build(t)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := s.Stretches(0, 0)
	if err != nil || len(got) != 2 || got[0].To != noon.Add(3900*sec) || got[1].From != got[0].To || got[1].To != noon.Add(4500*sec) {
		t.Errorf("%+v, %v", got, err)
	}
}

// The states are those of the segments, an hour's edge is none, and counts add up.
func TestStretchStates(t *testing.T) {
	s := newStream(t, Options{})
	put := func(o Origin, from, to int64, flags m4f.Flags) {
		w := s.Writer(o, 0, WriterOptions{Sync: SyncOff})
		for at := from; at < to; at += 4 {
			seg := spec{media: at * sec, utc: noon.Add(at * sec), duration: 4 * sec, flags: flags}
			if err := w.Append(seg.build(t)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	put(Live, 0, 7200, 0)
	put(Replicated, 7200, 7240, 0)
	put(Live, 7300, 7320, m4f.Damaged)
	put(Healed, 7320, 7340, 0)
	want := []struct {
		from, to int64
		state    State
		segments int
	}{{0, 7200, StateLive, 1800}, {7200, 7240, StateReplicated, 10}, {7240, 7300, StateMissing, 0}, {7300, 7320, StateDamaged, 5}, {7320, 7340, StateHealed, 5}}
	got, err := s.Stretches(0, 0)
	if err != nil || len(got) != len(want) {
		t.Fatal(got, err)
	}
	for i, w := range want {
		if x := got[i]; x.From != noon.Add(w.from*sec) || x.To != noon.Add(w.to*sec) || x.State != w.state || x.Segments != w.segments {
			t.Errorf("stretch %d is %+v, want %+v", i, x, w)
		}
	}
	got, err = s.Stretches(noon.Add(1000*sec), noon.Add(1400*sec))
	if err != nil || len(got) != 1 || got[0].Segments != 100 || got[0].To-got[0].From != 400*sec {
		t.Errorf("a part of it: %+v %v", got, err)
	}
}

// Merging keeps what is long, and every tick of every state.
func TestMergeStretches(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var all []Stretch
		at := noon
		for range rapid.IntRange(0, 60).Draw(rt, "stretches") {
			if rapid.IntRange(0, 9).Draw(rt, "pruned") == 0 {
				at = at.Add(hourTicks)
			}
			x := Stretch{From: at, To: at.Add(int64(rapid.SampledFrom([]int{1, 2, 7, 30, 100}).Draw(rt, "seconds")) * sec), Segments: 1, Bytes: 10}
			x.State = State(rapid.IntRange(0, int(StateMissing)).Draw(rt, "state"))
			all, at = append(all, x), x.To
		}
		step := int64(rapid.SampledFrom([]int{0, 5, 25, 1000}).Draw(rt, "step")) * sec
		merged := MergeStretches(all, step)
		var was, is [NumStates]int64
		segments := 0
		for i := range all {
			was[all[i].State] += int64(all[i].To - all[i].From)
			if int64(all[i].To-all[i].From) >= step && !slices.Contains(merged, all[i]) {
				rt.Fatalf("%+v is not in %+v", all[i], merged)
			}
		}
		for i := range merged {
			sum := int64(0)
			for st := range NumStates {
				is[st] += merged[i].Ticks(st)
				sum += merged[i].Ticks(st)
			}
			segments += merged[i].Segments
			if sum != int64(merged[i].To-merged[i].From) || i > 0 && merged[i].From < merged[i-1].To {
				rt.Fatalf("%+v", merged[i])
			}
		}
		if was != is || segments != len(all) {
			rt.Fatalf("%v ticks and %d segments became %v and %d", was, len(all), is, segments)
		}
		if step > 0 && len(all) > 0 {
			if most := 3*int64(at-noon)/step + 3 + 2*int64(len(all))/10*3; int64(len(merged)) > most+60 {
				rt.Fatalf("%d are left", len(merged))
			}
		}
	})
}
