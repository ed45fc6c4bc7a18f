package replicate

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// text writes spans as "op first-end segments" with segment numbers for times.
func text(spans []Span) string {
	var l []string
	at := func(u m4f.UTC) string {
		return strings.TrimSuffix(fmt.Sprintf("%.2f", float64(u-epoch)/length), ".00")
	}
	for _, s := range spans {
		l = append(l, fmt.Sprintf("%c %s-%s %d", s.Op, at(s.From), at(s.To), s.Segments))
	}
	return strings.Join(l, ", ")
}

func TestDiff(t *testing.T) {
	long := clean(0, 1800) // over two full hours
	without := func(l []spec, ns ...int) []spec {
		return slices.DeleteFunc(slices.Clone(l), func(s spec) bool { return slices.Contains(ns, s.n) })
	}
	with := func(l []spec, more ...spec) []spec { return append(slices.Clone(l), more...) }
	moved := func(l []spec, by int64) []spec {
		l = slices.Clone(l)
		for i := range l {
			l[i].moved = by
		}
		return l
	}
	for _, c := range []struct {
		name string
		a, b []spec
		want string
	}{
		{"both empty", nil, nil, ""},
		{"equal", long, long, ""},
		{"a is empty", nil, clean(0, 3), "> 0-3 3"},
		{"b is empty", clean(0, 3), nil, "< 0-3 3"},
		{"a lacks some", without(long, 10, 11, 600), long, "> 10-12 2, > 600-601 1"},
		{"b lacks some", long, without(long, 10, 11, 600), "< 10-12 2, < 600-601 1"},
		{"a lacks over an hour's edge", without(long, 448, 449, 450, 451), long, "> 448-452 4"},
		{"a lacks two hours", without(long, numbers(400, 1700)...), long, "> 400-1700 1300"},
		{"the end", clean(0, 10), clean(0, 12), "> 10-12 2"},
		{"the beginning", clean(5, 12), clean(0, 12), "> 0-5 5"},
		{"damaged in a", with(without(long, 7), spec{n: 7, variant: 1, flags: m4f.Damaged}), long, "! 7-8 1"},
		{"damaged in b", long, with(without(long, 7), spec{n: 7, variant: 1, flags: m4f.Damaged}), "? 7-8 1"},
		{"damaged in both alike", clean(0, 3), clean(0, 3), ""},
		{"damaged in both, but otherwise",
			with(clean(0, 3), spec{n: 3, variant: 1, flags: m4f.Damaged}),
			with(clean(0, 3), spec{n: 3, variant: 2, flags: m4f.Damaged}), "~ 3-4 1"},
		{"a flag that is too bad in a", with(clean(0, 3), spec{n: 3, flags: m4f.Damaged}), clean(0, 4), "! 3-4 1"},
		{"a flag that is too bad in b", clean(0, 4), with(clean(0, 3), spec{n: 3, flags: m4f.Partial}), "? 3-4 1"},
		{"a partial one in a", with(clean(0, 3), spec{n: 3, late: second, flags: m4f.Partial}), clean(0, 4), "> 3-3.25 1, ! 3.25-4 1"},
		{"a cut one in a", with(clean(0, 3), spec{n: 3, short: second, flags: m4f.Partial}), clean(0, 4), "! 3-3.75 1, > 3.75-4 1"},
		{"a patch over damage in a only",
			[]spec{{n: 0, flags: m4f.Damaged}, {n: 0, late: 3 * second, flags: m4f.Partial}},
			[]spec{{n: 0, flags: m4f.Damaged}}, "~ 0.75-1 1"},
		{"clocks some milliseconds apart", long, moved(long, 450), ""},
		{"clocks more than a second apart", long, moved(long, 3*second/2), ""},
		{"clocks so far apart, and one lacks some", without(long, 20), moved(long, -3*second/2), "> 20-21 1"},
		{"clocks apart, and one lacks some", without(long, 20), moved(long, -450), "> 20-21 1"},
		{"clocks apart, and one is damaged", with(without(long, 20), spec{n: 20, variant: 1, flags: m4f.Damaged}), moved(long, 450), "! 20-21 1"},
		{"a short one at the end", clean(0, 3), with(clean(0, 3), spec{n: 3, short: 3*second + 72000, flags: m4f.Partial}), "> 3-3.05 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			a, b := newArchive(t, c.a...), newArchive(t, c.b...)
			if got := text(diff(t, Dir{a}, Dir{b}, DiffOptions{})); got != c.want {
				t.Errorf("between directories: %s, want %s", got, c.want)
			}
			if got := text(diff(t, Dir{a}, Peer{servePeer(t, b).client}, DiffOptions{})); got != c.want {
				t.Errorf("with a peer: %s, want %s", got, c.want)
			}
		})
	}
}

func numbers(from, to int) []int {
	var l []int
	for n := from; n < to; n++ {
		l = append(l, n)
	}
	return l
}

func TestDiffSpan(t *testing.T) {
	a, b := newArchive(t, clean(0, 20)...), newArchive(t)
	at := func(n float64) m4f.UTC { return epoch.Add(int64(n * length)) }
	for _, c := range []struct {
		from, to m4f.UTC
		want     string
	}{
		{at(5), at(7), "< 5-7 2"},
		{at(5.5), at(7.5), "< 5.50-7.50 3"},
		{at(15), 0, "< 15-20 5"},
		{0, at(3), "< 0-3 3"},
		{at(30), at(40), ""},
	} {
		if got := text(diff(t, Dir{a}, Dir{b}, DiffOptions{From: c.from, To: c.to})); got != c.want {
			t.Errorf("from %d to %d: %s, want %s", c.from, c.to, got, c.want)
		}
	}
	// What one archive has pruned is no difference, unless asked for.
	if err := b.SetHorizon(epoch.Add(hour)); err != nil {
		t.Fatal(err)
	}
	if got := text(diff(t, Dir{a}, Dir{b}, DiffOptions{})); got != "" {
		t.Errorf("before the horizon: %s", got)
	}
	if got := text(diff(t, Dir{a}, Dir{b}, DiffOptions{From: epoch})); got != "< 0-20 20" {
		t.Errorf("before the horizon, asked for: %s", got)
	}
}

// The views of two archives are equal exactly if nothing is reported, whatever
// they hold; spans come in order, do not overlap, and say what is so.
func TestDiffProperty(t *testing.T) {
	records := func(t *rapid.T, label string) []archive.Record {
		clock := rapid.SampledFrom([]int64{0, 0, 80000, -80000}).Draw(t, label+" clock")
		return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) archive.Record {
			n := rapid.IntRange(0, 6).Draw(t, "n")
			late := rapid.SampledFrom([]int64{0, 0, 0, second, 3 * second}).Draw(t, "late")
			short := rapid.SampledFrom([]int64{0, 0, 0, second / 2}).Draw(t, "short")
			variant := rapid.SampledFrom([]byte{0, 0, 0, 1, 2}).Draw(t, "variant")
			start := int64(n)*length + late
			r := archive.Record{Header: m4f.Header{
				MediaTime: start,
				UTC:       epoch.Add(clock + start + rapid.SampledFrom([]int64{0, 0, 300, -300}).Draw(t, "moved")),
				Duration:  uint32(length - late - short),
				Flags:     m4f.Flags(rapid.SampledFrom([]m4f.Flags{0, 0, m4f.Damaged, m4f.Partial}).Draw(t, "flags")),
				Length:    1000,
			}}
			r.ID = m4f.Identity{1, byte(n), byte(late / second), byte(short * 2 / second), variant}
			return r
		}), 0, 10).Draw(t, label)
	}
	equal := func(a, b []archive.Element) bool {
		key := func(e archive.Element) string { return fmt.Sprint(e.ID, e.Flags&quality) }
		as, bs := []string{}, []string{}
		for _, e := range a {
			as = append(as, key(e))
		}
		for _, e := range b {
			bs = append(bs, key(e))
		}
		slices.Sort(as)
		slices.Sort(bs)
		return slices.Equal(as, bs)
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := archive.View(records(t, "a")), archive.View(records(t, "b"))
		spans := compare(a, b, epoch.Add(-length), epoch.Add(20*length)).spans
		if got, want := len(spans) == 0, equal(a, b); got != want {
			t.Fatalf("no difference: %v, equal views: %v\n%s\n%v\n%v", got, want, text(spans), a, b)
		}
		for i, s := range spans {
			if s.From >= s.To || i > 0 && s.From < spans[i-1].To {
				t.Fatalf("spans in disorder: %s", text(spans))
			}
			if s.Segments == 0 || s.Bytes != int64(s.Segments)*1000 {
				t.Fatalf("a span of %d segments and %d bytes: %s", s.Segments, s.Bytes, text(spans))
			}
		}
		// The other way round it is the same with the operators turned.
		turn := map[Op]Op{OnlyA: OnlyB, OnlyB: OnlyA, ABetter: BBetter, BBetter: ABetter, Differs: Differs}
		back := compare(b, a, epoch.Add(-length), epoch.Add(20*length)).spans
		if len(back) != len(spans) {
			t.Fatalf("%s\nturned round: %s", text(spans), text(back))
		}
		for i := range back {
			if turn[back[i].Op] != spans[i].Op || back[i].Op != Differs && back[i].Segments != spans[i].Segments {
				t.Fatalf("%s\nturned round: %s", text(spans), text(back))
			}
		}
	})
}

// Comparing two archives of a day that are equal moves less than 20 kB, and an
// hour's edge that lies some milliseconds apart costs its hours only once.
func TestDiffTraffic(t *testing.T) {
	if testing.Short() {
		t.Skip("two archives of a day")
	}
	day := clean(0, 24*3600/4)
	a := newArchive(t, day...)
	moved := slices.Clone(day)
	moved[450].moved = -900 // the first of an hour, dated into the one before
	b, c := newArchive(t, day...), newArchive(t, moved...)
	p := servePeer(t, b)
	if spans := diff(t, Dir{a}, Peer{p.client}, DiffOptions{}); len(spans) > 0 {
		t.Error(text(spans))
	}
	in, out := p.client.Traffic()
	t.Logf("a day of equal segments: %d bytes in, %d bytes out", in, out)
	if in+out == 0 || in+out >= 20_000 {
		t.Errorf("%d bytes moved, want less than 20 kB", in+out)
	}

	q := servePeer(t, c)
	var known Known
	var moves []int64
	for range 2 {
		before, _ := q.client.Traffic()
		if spans := diff(t, Dir{a}, Peer{q.client}, DiffOptions{Known: &known}); len(spans) > 0 {
			t.Error(text(spans))
		}
		after, _ := q.client.Traffic()
		moves = append(moves, after-before)
	}
	t.Logf("with an edge that is off: %d bytes at first, then %d", moves[0], moves[1])
	if moves[0] < 20_000 || moves[1] >= 20_000 {
		t.Errorf("%d bytes at first and %d then; the edge is not remembered", moves[0], moves[1])
	}
}

// A difference at the live edge that goes away while Diff looks is none; one
// that stays is one, and so is one in the past, at once.
func TestDiffSettles(t *testing.T) {
	now := int((m4f.UTCOf(time.Now()) - epoch) / length)
	a, b := newArchive(t, clean(now-10, now)...), newArchive(t, clean(now-10, now-1)...)
	side := &laggard{Dir: Dir{b}, then: func() { appendAll(t, b, spec{n: now - 1}) }}
	if got := diff(t, Dir{a}, side, DiffOptions{Settle: time.Minute}); len(got) != 0 {
		t.Error(text(got))
	}
	if !side.done {
		t.Error("there was no difference to begin with")
	}
	b = newArchive(t, clean(now-10, now-1)...)
	if got := diff(t, Dir{a}, Dir{b}, DiffOptions{Settle: time.Second}); len(got) != 1 || got[0].Op != OnlyA || got[0].Segments != 1 {
		t.Error(text(got))
	}
	past := &laggard{Dir: Dir{newArchive(t, clean(0, 9)...)}, then: func() {}}
	if got := text(diff(t, Dir{newArchive(t, clean(0, 10)...)}, past, DiffOptions{Settle: time.Hour})); got != "< 9-10 1" {
		t.Error(got)
	}
}

// laggard is a side to which something happens after it was first listed.
type laggard struct {
	Dir
	then func()
	done bool
}

func (l *laggard) Outline(ctx context.Context, windows []archive.Window) ([][]archive.Element, error) {
	list, err := l.Dir.Outline(ctx, windows)
	if !l.done {
		l.done = true
		l.then()
	}
	return list, err
}
