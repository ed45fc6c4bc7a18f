package archive

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// rec makes a record of an abstract segment: times in quarters of a second.
func rec(media, duration int64, id byte, flags m4f.Flags) Record {
	var r Record
	r.ID[0] = id
	r.MediaTime = media * sec / 4
	r.UTC = noon.Add(media * sec / 4)
	r.Duration = uint32(duration * sec / 4)
	r.Flags, r.Length = flags, 1000
	return r
}

// show writes a view as text: identity[from,to) of each piece in quarters of a
// second of media time.
func show(els []Element) string {
	var b bytes.Buffer
	for _, p := range Pieces(els) {
		flags := ""
		if p.Damaged() {
			flags += "!"
		}
		if p.Partial() {
			flags += "~"
		}
		at := p.MediaTime + p.Part.From
		fmt.Fprintf(&b, "%c%s[%d,%d) ", p.ID[0], flags, at*4/sec, (at+p.To-p.Part.From)*4/sec)
	}
	return string(bytes.TrimSpace(b.Bytes()))
}

func TestViewExamples(t *testing.T) {
	const dam, part = m4f.Damaged, m4f.Partial
	late := func(r Record, ticks int64) Record { r.UTC = r.UTC.Add(ticks); return r }
	with := func(r Record, fn func(*Record)) Record { fn(&r); return r }
	for name, c := range map[string]struct {
		recs []Record
		want string
	}{
		"nothing":                       {nil, ""},
		"a run":                         {[]Record{rec(16, 16, 'b', 0), rec(0, 16, 'a', 0)}, "a[0,16) b[16,32)"},
		"clean before damaged":          {[]Record{rec(0, 16, 'a', dam), rec(0, 16, 'b', 0)}, "b[0,16)"},
		"whole before partial":          {[]Record{rec(0, 16, 'a', part), rec(0, 16, 'b', 0)}, "b[0,16)"},
		"clean partial before damaged":  {[]Record{rec(0, 16, 'a', dam), rec(12, 4, 'b', part)}, "a![0,12) b~[12,16)"},
		"a better piece in the middle":  {[]Record{rec(0, 16, 'a', dam), rec(4, 4, 'b', 0)}, "a![0,4) b[4,8) a![8,16)"},
		"longer":                        {[]Record{rec(0, 12, 'a', part), rec(0, 16, 'b', part)}, "b~[0,16)"},
		"more bytes":                    {[]Record{rec(0, 16, 'a', 0), with(rec(0, 16, 'b', 0), func(r *Record) { r.Length++ })}, "b[0,16)"},
		"identity":                      {[]Record{rec(0, 16, 'b', 0), rec(0, 16, 'a', 0)}, "a[0,16)"},
		"fewer lost":                    {[]Record{with(rec(0, 16, 'a', dam), func(r *Record) { r.Lost = 5 }), with(rec(0, 16, 'b', dam), func(r *Record) { r.Lost, r.Errored = 1, 3 })}, "b![0,16)"},
		"flags of the best copy":        {[]Record{rec(0, 16, 'a', dam), rec(0, 16, 'a', part)}, "a~[0,16)"},
		"copies some ms apart":          {[]Record{rec(0, 16, 'a', dam), late(rec(0, 16, 'a', 0), sec)}, "a[0,16)"},
		"a repeated broadcast":          {[]Record{rec(0, 16, 'a', 0), late(rec(0, 16, 'a', 0), 10*sec)}, "a[0,16) a[0,16)"},
		"a clock 100 ms off":            {[]Record{rec(0, 16, 'a', 0), late(rec(16, 16, 'b', 0), -sec/10), rec(32, 16, 'c', 0)}, "a[0,16) b[16,32) c[32,48)"},
		"order by media, not by UTC":    {[]Record{late(rec(0, 1, 'a', 0), sec/5), late(rec(1, 1, 'b', 0), -sec/20)}, "a[0,1) b[1,2)"},
		"a short piece of one timeline": {[]Record{rec(0, 16, 'a', 0), with(rec(15, 1, 'b', part), func(r *Record) { r.MediaTime, r.UTC, r.Duration = 4*sec-9000, noon.Add(4*sec-9000), 9000 })}, "a[0,16)"},
		"other media time, same UTC":    {[]Record{rec(0, 16, 'a', 0), with(rec(0, 16, 'b', 0), func(r *Record) { r.MediaTime += 4000 * sec })}, "a[0,16) b[16000,16016)"},
		"same media time, 200 ms of overlap in UTC": {
			[]Record{rec(0, 16, 'a', 0), late(rec(0, 16, 'b', dam), 4*sec-sec/5)}, "a[0,16) b![0,16)"},
		"over the wrap": {[]Record{
			with(rec(0, 16, 'a', 0), func(r *Record) { r.MediaTime = m4f.Wrap - 4*sec }),
			with(rec(12, 16, 'b', dam), func(r *Record) { r.MediaTime = m4f.Wrap - sec }),
		}, "a[381758,381774) b![381774,381786)"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := show(View(c.recs)); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			slices.Reverse(c.recs)
			if got := show(View(c.recs)); got != c.want {
				t.Errorf("in another order %s, want %s", got, c.want)
			}
		})
	}
}

// recordGen draws records of one stream as two nodes could have them: one or
// two timelines, dates some milliseconds apart, losses, pieces, and copies of
// one identity with different flags.
func recordGen(t *rapid.T, label string) []Record {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Record {
		media := int64(rapid.IntRange(0, 40).Draw(t, "media"))
		dur := int64(rapid.IntRange(1, 20).Draw(t, "duration"))
		loop := int64(rapid.IntRange(0, 1).Draw(t, "timeline"))
		variant := rapid.IntRange(0, 2).Draw(t, "variant")
		r := rec(media, dur, 0, 0)
		r.Flags = m4f.Flags(rapid.IntRange(0, 3).Draw(t, "flags"))
		if r.Damaged() {
			r.Lost = uint32(rapid.IntRange(1, 3).Draw(t, "lost"))
		}
		r.Length = uint64(1000 + variant%2)
		// The identity follows from what the bytes follow from.
		var b [32]byte
		binary.BigEndian.PutUint64(b[:], uint64(media))
		binary.BigEndian.PutUint64(b[8:], uint64(dur))
		binary.BigEndian.PutUint64(b[16:], uint64(variant))
		r.ID = sha256.Sum256(b[:])
		// The other timeline shows the same media one hour later.
		r.UTC = r.UTC.Add(loop*3600*sec + rapid.Int64Range(-90, 90).Draw(t, "jitter"))
		return r
	}), 0, 12).Draw(t, label)
}

// TestPlainViewIsTheView wants the short way to the view to end where the long one
// does, of records that are mostly plain, and both ways to be taken.
func TestPlainViewIsTheView(t *testing.T) {
	plain, other := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		var recs []stored
		shifts := append(make([]int64, 30), 90, -sec/5, sec/5, hourTicks-20*sec) // mostly none
		for at := int64(0); len(recs) < 12; {
			dur := int64(rapid.IntRange(1, 20).Draw(rt, "duration"))
			r := rec(at, dur, byte(len(recs)), m4f.Flags(rapid.IntRange(0, 15).Draw(rt, "flags")))
			r.UTC = r.UTC.Add(rapid.SampledFrom(shifts).Draw(rt, "shift"))
			switch rapid.IntRange(0, 20).Draw(rt, "odd") { // small numbers are drawn the most
			case 17:
				r.ID[0] = 0 // as another
			case 18:
				at -= 2 // time that the next one has too
			case 19:
				at += 7 // a gap
			case 20:
				r.MediaTime = (r.MediaTime + 1000*sec) & (m4f.Wrap - 1)
			}
			at += dur
			recs = append(recs, stored{Record: r, at: location{number: uint32(len(recs))}})
		}
		for h := hourOf(noon); h < hourOf(noon)+2; h++ {
			want := inHour(view(slices.Clone(recs)), h)
			got, ok := plainView(recs, h)
			if !ok {
				other++
				continue
			}
			plain++
			if len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
				rt.Fatalf("the short way shows %s, the long one %s", show(got), show(want))
			}
		}
	})
	if plain == 0 || other == 0 {
		t.Errorf("%d were plain, %d were not", plain, other)
	}
}

// loopOf says which of recordGen's timelines a time is of.
func loopOf(u m4f.UTC) int64 {
	if u-noon > 1800*sec {
		return 1
	}
	return 0
}

// equalViews compares what the hour digests compare, and the parts.
func equalViews(a, b []Element) error {
	if len(a) != len(b) {
		return fmt.Errorf("%d elements and %d", len(a), len(b))
	}
	for i := range a {
		x, y := &a[i], &b[i]
		if x.ID != y.ID || x.Damaged() != y.Damaged() || x.Partial() != y.Partial() || !reflect.DeepEqual(x.Parts, y.Parts) {
			return fmt.Errorf("element %d: %s and %s", i, show(a[i:i+1]), show(b[i:i+1]))
		}
	}
	return nil
}

func storedOf(recs []Record, remote bool) []stored {
	out := make([]stored, len(recs))
	for i := range recs {
		out[i] = stored{Record: recs[i], remote: remote}
	}
	return out
}

func recordsOfView(els []Element) []Record {
	var out []Record
	for i := range els {
		out = append(out, els[i].Record)
	}
	return out
}

// take is a node that adds what its view would take of the peer's view.
func take(mine []Record, peer []Element) ([]Record, int) {
	n := 0
	offered := recordsOfView(peer)
	for h := hourOf(noon) - 1; h < hourOf(noon)+4; h++ {
		var window []stored
		for _, s := range storedOf(offered, true) {
			if o := hourOf(s.UTC); o >= h-1 && o <= h+1 {
				window = append(window, s)
			}
		}
		for _, w := range wantsIn(storedOf(mine, false), window, h) {
			mine = append(slices.Clip(mine), w.Record)
			n++
		}
	}
	return mine, n
}

func TestViewsConvergeInOneExchange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := recordGen(t, "a"), recordGen(t, "b")
		va, vb := View(a), View(b)
		a2, _ := take(a, vb)
		b2, _ := take(b, va)
		if err := equalViews(View(a2), View(b2)); err != nil {
			t.Fatalf("after one exchange: %v\n%s\n%s", err, show(View(a2)), show(View(b2)))
		}
		if a3, n := take(a2, View(b2)); n != 0 {
			t.Fatalf("still wants %d: %v", n, a3[len(a2):])
		}
	})
}

func TestPruningSupersededChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := recordGen(t, "a"), recordGen(t, "b")
		all := append(slices.Clone(a), b...)
		pruned := append(recordsOfView(View(a)), recordsOfView(View(b))...)
		if err := equalViews(View(all), View(pruned)); err != nil {
			t.Fatalf("%v\n%s\n%s", err, show(View(all)), show(View(pruned)))
		}
		if err := equalViews(View(all), View(recordsOfView(View(all)))); err != nil {
			t.Fatalf("the view of a view: %v", err)
		}
	})
}

func TestViewDependsOnTheSetAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := recordGen(t, "a")
		b := rapid.Permutation(a).Draw(t, "order")
		if va, vb := View(a), View(b); !reflect.DeepEqual(va, vb) {
			t.Fatalf("%s\n%s", show(va), show(vb))
		}
	})
}

func TestAddingNeverShrinksCoverage(t *testing.T) {
	covered := func(recs []Record) map[int64]bool {
		at := make(map[int64]bool)
		for _, p := range Pieces(View(recs)) {
			later := loopOf(p.UTC) > 0
			for q := (p.MediaTime + p.Part.From) * 4 / sec; q < (p.MediaTime+p.To)*4/sec; q++ {
				if later {
					q += 1 << 40
				}
				if at[q] {
					panic("shown twice")
				}
				at[q] = true
				if later {
					q -= 1 << 40
				}
			}
		}
		return at
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := recordGen(t, "a"), recordGen(t, "b")
		before, after := covered(a), covered(append(slices.Clone(a), b...))
		for q := range before {
			if !after[q] {
				t.Fatalf("%d is no longer covered", q)
			}
		}
		for _, r := range append(slices.Clone(a), b...) {
			for q := r.MediaTime * 4 / sec; q < (r.MediaTime+int64(r.Duration))*4/sec; q++ {
				k := q
				if loopOf(r.UTC) > 0 {
					k += 1 << 40
				}
				if !after[k] {
					t.Fatalf("%d was recorded and is not shown", q)
				}
			}
		}
	})
}

// TestViewAgainstTheRule compares with the rule written down naively.
func TestViewAgainstTheRule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		recs := recordGen(t, "records")
		best := make(map[int64]*candidate)
		els := merge(storedOf(recs, false))
		for i := range els {
			e := &els[i]
			for q := e.MediaTime * 4 / sec; q < (e.MediaTime+int64(e.Duration))*4/sec; q++ {
				k := q*4 + loopOf(e.UTC)
				if b := best[k]; b == nil || better(&e.Element, &b.Element) < 0 {
					best[k] = e
				}
			}
		}
		shown := make(map[int64]m4f.Identity)
		for _, p := range Pieces(View(recs)) {
			for q := (p.MediaTime + p.Part.From) * 4 / sec; q < (p.MediaTime+p.To)*4/sec; q++ {
				shown[q*4+loopOf(p.UTC)] = p.ID
			}
		}
		if len(shown) != len(best) {
			t.Fatalf("%d quarters shown, %d by the rule", len(shown), len(best))
		}
		for k, e := range best {
			if shown[k] != e.ID {
				t.Fatalf("at %d", k)
			}
		}
	})
}

// TestViewConvergesWhateverItIsGiven: records that no two honest clocks could
// make still end in equal views, if after more than one exchange.
func TestViewConvergesWhateverItIsGiven(t *testing.T) {
	wild := func(t *rapid.T, label string) []Record {
		recs := recordGen(t, label)
		for i := range recs {
			recs[i].UTC = recs[i].UTC.Add(rapid.Int64Range(-6*sec, 6*sec).Draw(t, "off"))
		}
		return recs
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := wild(t, "a"), wild(t, "b")
		for range 50 {
			va, vb := View(a), View(b)
			var na, nb int
			a, na = take(a, vb)
			b, nb = take(b, va)
			if na+nb == 0 {
				return
			}
		}
		t.Fatalf("they exchange for ever")
	})
}

func TestPiecesOfASplitElement(t *testing.T) {
	els := View([]Record{rec(0, 64, 'a', m4f.Damaged), rec(4, 4, 'b', 0), rec(16, 4, 'c', 0)})
	want := "a![0,4) b[4,8) a![8,16) c[16,20) a![20,64)"
	if got := show(els); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if !slices.IsSortedFunc(Pieces(els), func(a, b Piece) int { return cmp.Compare(a.Start(), b.Start()) }) {
		t.Error("not in order")
	}
}

func BenchmarkView(b *testing.B) {
	var recs []Record
	for i := range int64(2700) {
		var r Record
		binary.BigEndian.PutUint64(r.ID[:], uint64(i*2654435761))
		r.MediaTime, r.UTC, r.Duration, r.Length = i*4*sec, noon.Add(i*4*sec), 4*sec, 3e6
		recs = append(recs, r, r)
	}
	for b.Loop() {
		if els := View(recs); len(els) != 2700 {
			b.Fatal(len(els))
		}
	}
}
