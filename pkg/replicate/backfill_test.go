package replicate

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

func backfill(t testing.TB, dst *archive.Stream, src Side, o BackfillOptions) Result {
	t.Helper()
	o.Log, o.Writer.Sync = quiet, archive.SyncOff
	r, err := Backfill(context.Background(), dst, src, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Into an archive comes what its view would take and nothing else, and a second
// time nothing.
func TestBackfill(t *testing.T) {
	own := append(clean(2, 5), spec{n: 5, variant: 1, flags: m4f.Damaged}, spec{n: 6, flags: m4f.Damaged}, spec{n: 7}, spec{n: 10, variant: 9, flags: m4f.Damaged})
	theirs := append(clean(0, 7), spec{n: 7, variant: 2, flags: m4f.Damaged}, spec{n: 8}, spec{n: 10, variant: 8, flags: m4f.Damaged | m4f.Partial})
	want := Result{Segments: 4, Copied: 1} // 0, 1, 5, 8; the flag of 6
	for _, kind := range []string{"directory", "peer"} {
		t.Run(kind, func(t *testing.T) {
			a, b := newArchive(t, own...), newArchive(t, theirs...)
			p := servePeer(t, b)
			var src Side = Peer{p.client}
			if kind == "directory" {
				src = Dir{b}
			}
			dry := backfill(t, a, src, BackfillOptions{DryRun: true})
			if dry.Segments != want.Segments || dry.Copied != want.Copied || dry.Left != 5 || p.asked() != 0 {
				t.Errorf("dry run: %+v, want %+v and 5 left", dry, want)
			}
			before := view(t, a)
			got := backfill(t, a, src, BackfillOptions{})
			want.Bytes = got.Bytes
			if got != want || got.Bytes != dry.Bytes {
				t.Errorf("%+v, want %+v", got, want)
			}
			if kind == "peer" && p.asked() != want.Segments {
				t.Errorf("media was asked for %d times, want %d", p.asked(), want.Segments)
			}
			for range 2 {
				if got := backfill(t, a, src, BackfillOptions{}); got != (Result{}) {
					t.Errorf("once more: %+v", got)
				}
			}
			after := view(t, a)
			if len(after) <= len(before) {
				t.Errorf("the view has %d segments, before it had %d", len(after), len(before))
			}
			for _, e := range after {
				switch n := int(e.UTC-epoch) / length; {
				case n == 10 && e.Damaged(), n == 7 && e.Origin == archive.Live && e.Clean():
				case n <= 8 && e.Clean():
					if healed := n < 2 || n == 5 || n == 8; healed != (e.Origin == archive.Healed) {
						t.Errorf("segment %d is %s", n, e.Origin)
					}
				default:
					t.Errorf("segment %d is %s", n, flagsOf(e.Flags))
				}
			}
			// The other way round, both are the same.
			backfill(t, b, Dir{a}, BackfillOptions{})
			sameView(t, a, b)
			if got := text(diff(t, Dir{a}, Dir{b}, DiffOptions{})); got != "" {
				t.Error(got)
			}
		})
	}
}

// What extends an archive is replicated, what lies inside is healed.
func TestBackfillOrigins(t *testing.T) {
	a, b := newArchive(t, spec{n: 5}), newArchive(t, clean(0, 10)...)
	backfill(t, a, Dir{b}, BackfillOptions{})
	var got []string
	for _, e := range view(t, a) {
		got = append(got, e.Origin.String())
	}
	if want := strings.Fields("healed healed healed healed healed live replicated replicated replicated replicated"); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func TestBackfillSpan(t *testing.T) {
	b := newArchive(t, clean(0, 20)...)
	at := func(n int64) m4f.UTC { return epoch.Add(n * length) }
	starts := func(a *archive.Stream) []int {
		var l []int
		for _, e := range view(t, a) {
			l = append(l, int(e.UTC-epoch)/length)
		}
		return l
	}
	a := newArchive(t)
	if got := backfill(t, a, Dir{b}, BackfillOptions{From: at(3), To: at(6)}); got.Segments != 3 || !slices.Equal(starts(a), []int{3, 4, 5}) {
		t.Errorf("from and to: %+v, %v", got, starts(a))
	}
	a = newArchive(t)
	spans := []Span{{Op: OnlyB, From: at(2), To: at(3)}, {Op: OnlyA, From: at(5), To: at(6)}, {Op: ABetter, From: at(7), To: at(8)}, {Op: BBetter, From: at(9), To: at(10)}, {Op: Differs, From: at(11), To: at(12)}}
	if got := backfill(t, a, Dir{b}, BackfillOptions{Spans: spans}); got.Segments != 3 || !slices.Equal(starts(a), []int{2, 9, 11}) {
		t.Errorf("spans: %+v, %v", got, starts(a))
	}
	if got := backfill(t, newArchive(t), Dir{b}, BackfillOptions{Spans: []Span{}}); got != (Result{}) {
		t.Errorf("no spans: %+v", got)
	}
	// Nothing older than is kept.
	a = newArchive(t)
	if err := a.SetHorizon(epoch.Add(hour)); err != nil {
		t.Fatal(err)
	}
	if got := backfill(t, a, Dir{b}, BackfillOptions{}); got != (Result{}) {
		t.Errorf("before the horizon: %+v", got)
	}
}

func TestBackfillOrder(t *testing.T) {
	b := newArchive(t, clean(440, 460)...) // over an hour's edge
	for _, c := range []struct {
		order Order
		want  []int
	}{
		{Oldest, []int{440, 441, 448, 449, 450, 451, 458, 459}},
		{Newest, []int{450, 451, 458, 459, 440, 441, 448, 449}},
	} {
		a := newArchive(t)
		appendAll(t, a, append(clean(442, 448), clean(452, 458)...)...)
		if dry := backfill(t, a, Dir{b}, BackfillOptions{Order: c.order, DryRun: true}); dry.Segments != 8 || dry.Left != 8 {
			t.Errorf("dry run: %+v", dry)
		}
		var got []int
		left := int64(-1)
		backfill(t, a, Dir{b}, BackfillOptions{
			Order:   c.order,
			OnTaken: func(r archive.Record) { got = append(got, int(r.UTC-epoch)/length) },
			Progress: func(p Progress) {
				if p.Segments != len(got) {
					t.Errorf("progress of %d segments after %d", p.Segments, len(got))
				}
				left = p.Left
			},
		})
		if !slices.Equal(got, c.want) || left != 0 {
			t.Errorf("%v, %d bytes left; want %v", got, left, c.want)
		}
	}
}

// Hours in which nothing is wanted although they differ are listed once.
func TestBackfillRemembers(t *testing.T) {
	b := newArchive(t, append(clean(0, 1000), spec{n: 1000, variant: 1, flags: m4f.Damaged})...)
	a := newArchive(t, append(clean(0, 1000), spec{n: 1000}, spec{n: 1001})...)
	p := servePeer(t, b)
	var known Known
	var moved []int64
	for range 2 {
		before, _ := p.client.Traffic()
		if got := backfill(t, a, Peer{p.client}, BackfillOptions{Known: &known, To: epoch.Add(3 * hour)}); got != (Result{}) {
			t.Errorf("%+v", got)
		}
		after, _ := p.client.Traffic()
		moved = append(moved, after-before)
	}
	if moved[1]*2 > moved[0] {
		t.Errorf("%d bytes at first, then %d", moved[0], moved[1])
	}
	// What comes there is seen.
	appendAll(t, b, spec{n: 1002})
	if got := backfill(t, a, Peer{p.client}, BackfillOptions{Known: &known}); got.Segments != 1 {
		t.Errorf("%+v", got)
	}
}

// A segment that lies over the edge of an hour is counted once.
func TestBackfillOverHour(t *testing.T) {
	var specs []spec
	for _, s := range clean(440, 460) {
		s.moved = second
		specs = append(specs, s)
	}
	b := newArchive(t, specs...)
	a := newArchive(t)
	if got := backfill(t, a, Dir{b}, BackfillOptions{DryRun: true}); got.Segments != 20 || got.Left != 20 {
		t.Errorf("dry run: %+v", got)
	}
	if got := backfill(t, a, Dir{b}, BackfillOptions{}); got.Segments != 20 {
		t.Errorf("%+v", got)
	}
}

// An archive that is cut in another way gives only what lies in gaps.
func TestBackfillOtherDuration(t *testing.T) {
	a := newArchive(t, append(clean(0, 3), clean(6, 9)...)...)
	var six []spec
	for n := range 6 {
		six = append(six, spec{n: n, duration: 6 * second})
	}
	b := newArchive(t, six...)
	got := backfill(t, a, Dir{b}, BackfillOptions{})
	if got.Segments != 2 || got.Left != 0 { // 12 to 18 and 18 to 24 seconds
		t.Errorf("%+v", got)
	}
	if gaps, err := a.Gaps(0, 0); err != nil || len(gaps) != 0 {
		t.Errorf("gaps %v, %v", gaps, err)
	}
	if got := backfill(t, a, Dir{b}, BackfillOptions{}); got != (Result{}) {
		t.Errorf("once more: %+v", got)
	}
}

// A segment that the other side has lost, or sends wrong, is counted and passed
// over; a side that is gone ends it.
func TestBackfillLeaves(t *testing.T) {
	b := newArchive(t, clean(0, 10)...)
	bad := spec{n: 4}.make(t).Header.ID.String()
	for _, c := range []struct {
		name   string
		answer func(w http.ResponseWriter, r *http.Request) bool
		left   int
		err    bool
	}{
		{"lost", func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, bad) {
				w.WriteHeader(404)
				return true
			}
			return false
		}, 1, false},
		{"another one", func(w http.ResponseWriter, r *http.Request) bool {
			r.URL.Path = strings.Replace(r.URL.Path, bad, spec{n: 5}.make(t).Header.ID.String(), 1)
			return false
		}, 1, false},
		{"all gone", func(w http.ResponseWriter, r *http.Request) bool {
			if strings.Contains(r.URL.Path, "/media/") {
				panic(http.ErrAbortHandler)
			}
			return false
		}, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := servePeer(t, b, func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if !c.answer(w, r) {
						next.ServeHTTP(w, r)
					}
				})
			})
			a := newArchive(t)
			r, err := Backfill(context.Background(), a, Peer{p.client}, BackfillOptions{Log: quiet})
			if (err != nil) != c.err {
				t.Fatal(err)
			}
			if !c.err && (r.Left != c.left || len(view(t, a)) != 10-c.left) {
				t.Errorf("%+v, %d in the view", r, len(view(t, a)))
			}
		})
	}
}

// A backfill that is interrupted leaves a whole archive and is finished by the
// next.
func TestBackfillInterrupted(t *testing.T) {
	b := newArchive(t, clean(0, 50)...)
	p := servePeer(t, b)
	a := newArchive(t)
	total := 0
	for stop := 7; ; stop += 11 {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		r, err := Backfill(ctx, a, Peer{p.client}, BackfillOptions{Log: quiet, Progress: func(Progress) {
			if n++; n == stop {
				cancel()
			}
		}})
		cancel()
		total += r.Segments
		if err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if len(view(t, a)) != total {
			t.Fatalf("%d segments in the view after %d were fetched", len(view(t, a)), total)
		}
	}
	if total != 50 {
		t.Errorf("%d segments were fetched for 50", total)
	}
	sameView(t, a, b)
}

// A rate is never exceeded by more than a tenth.
func TestLimitRate(t *testing.T) {
	var specs []spec
	for n := range 12 {
		specs = append(specs, spec{n: n, size: 100_000})
	}
	b := newArchive(t, specs...)
	p := servePeer(t, b)
	for _, src := range []Side{Dir{b}, Peer{p.client}} {
		const rate = 1_000_000
		start := time.Now()
		r := backfill(t, newArchive(t), src, BackfillOptions{Limit: NewLimiter(rate)})
		took := time.Since(start).Seconds()
		got := float64(r.Bytes) / took
		t.Logf("%d bytes in %.2f s: %.0f bytes/s of %d", r.Bytes, took, got, rate)
		if r.Segments != 12 || got > 1.1*rate {
			t.Errorf("%+v at %.0f bytes/s, asked for %d", r, got, rate)
		}
	}
}

// Whatever two archives hold: when each has fetched what it wants of the other,
// their views are equal, and nothing more is wanted.
func TestExchangeProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		draw := func(label string) []spec {
			return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) spec {
				return spec{
					n:       rapid.IntRange(446, 452).Draw(t, "n"),
					late:    rapid.SampledFrom([]int64{0, 0, 0, second, 3 * second}).Draw(t, "late"),
					short:   rapid.SampledFrom([]int64{0, 0, 0, second / 2}).Draw(t, "short"),
					variant: rapid.SampledFrom([]byte{0, 0, 0, 1, 2}).Draw(t, "variant"),
					flags:   rapid.SampledFrom([]m4f.Flags{0, 0, m4f.Damaged, m4f.Partial}).Draw(t, "flags"),
					moved:   rapid.SampledFrom([]int64{0, 0, 300, -300}).Draw(t, "moved"),
				}
			}), 0, 8).Draw(rt, label)
		}
		a, b := newArchive(t, draw("a")...), newArchive(t, draw("b")...)
		for range 2 {
			backfill(t, a, Dir{b}, BackfillOptions{})
			backfill(t, b, Dir{a}, BackfillOptions{})
		}
		va, vb := shownBy(t, a), shownBy(t, b)
		// An element that one node dates into the hour before may come earlier
		// in its list.
		slices.Sort(va)
		slices.Sort(vb)
		if !slices.Equal(va, vb) {
			rt.Fatalf("views differ:\n%v\n%v", va, vb)
		}
		if r := backfill(t, a, Dir{b}, BackfillOptions{}); r != (Result{}) {
			rt.Fatalf("once more: %+v", r)
		}
		if spans := diff(t, Dir{a}, Dir{b}, DiffOptions{}); len(spans) != 0 {
			rt.Fatalf("%s", text(spans))
		}
	})
}
