package replicate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// countingSide is a Side that counts the segments that are listed; wholeHours is one that
// knows of no minutes.
type (
	countingSide struct {
		Dir
		listed *int
	}
	wholeHours struct{ Side }
)

func (c countingSide) Outline(ctx context.Context, windows []archive.Window) ([][]archive.Element, error) {
	list, err := c.Dir.Outline(ctx, windows)
	for _, els := range list {
		*c.listed += len(els)
	}
	return list, err
}

// older answers as a node of an older version does.
func older(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/minutes") || strings.HasSuffix(r.URL.Path, "/outline") {
			m4fhttp.WriteProblem(w, http.StatusNotFound, "there is no m4f/minutes")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// sameDifferences compares what was found by minutes with what was found by hours. Times
// of what only one side has are told by the dates of what is listed beside it, so
// they may be as far off as the sides' clocks are.
func sameDifferences(t testing.TB, name string, got, want []Span, off int64) {
	t.Helper()
	same := len(got) == len(want)
	for i := 0; same && i < len(got); i++ {
		g, w := got[i], want[i]
		same = distance(g.From, w.From) <= m4f.UTC(off) && distance(g.To, w.To) <= m4f.UTC(off)
		g.From, g.To = w.From, w.To
		same = same && g == w
	}
	if !same {
		t.Errorf("%s: by minutes %s\nby hours %s", name, text(got), text(want))
	}
}

// changed makes what another node might have of some segments.
func changed(rng *rand.Rand, l []spec) []spec {
	var out []spec
	for _, s := range l {
		quarter := int64(length) / 4
		if s.duration != 0 {
			quarter = s.duration / 4
		}
		switch rng.IntN(max(len(l)/5, 10)) {
		case 0:
			continue
		case 1:
			s.flags, s.variant = m4f.Damaged, byte(1+rng.IntN(2))
		case 2:
			s.flags = m4f.Partial
		case 3:
			s.late, s.flags = quarter, m4f.Partial
		case 4: // what is damaged, with what is there of it clean
			out = append(out, spec{n: s.n, duration: s.duration, variant: 3, flags: m4f.Damaged})
			s.short, s.flags = quarter, m4f.Partial
		}
		out = append(out, s)
	}
	return out
}

// twoNodes makes what two nodes have of a source, at random. Their dates are at most off
// apart.
func twoNodes(seed uint64) (less, long []spec, off int64) {
	rng := rand.New(rand.NewPCG(seed, seed))
	long = clean(0, 1300)
	of := func(d int64) { // segments are as long
		long = nil
		for n := range int(1300 * length / d) {
			long = append(long, spec{n: n, duration: d})
		}
	}
	jitter := int64(0)
	switch seed {
	case 1: // clocks some milliseconds apart
		off = 450
	case 2:
		off = 3 * second / 2
	case 3: // longer than a minute
		of(100 * second)
	case 4: // longer than what is looked at behind a minute
		of(40 * second)
	case 5: // short
		of(2 * second)
	case 6: // broadcast again, in time that has other segments too and in time that has none
		for _, later := range []int64{700, 1500} {
			for _, s := range long[500:520] {
				s.moved = later * length
				long = append(long, s)
			}
		}
	case 8:
		off = -3 * second / 2
	case 9: // each side dates each segment for itself
		jitter = 900
	}
	less = slices.Clone(long)
	switch cut := rng.IntN(len(long) / 2); seed {
	case 7: // hours that one side has alone
		less = slices.Delete(less, 440, 920)
	default:
		less = slices.Delete(less, cut, cut+rng.IntN(len(long)/10))
	}
	less, long = changed(rng, less), changed(rng, long)
	beside := rng.Int64N(2 * length) // minutes do not begin with segments
	for i := range less {
		less[i].moved += beside + rng.Int64N(2*jitter+1) - jitter
	}
	for i := range long {
		long[i].moved += beside + off + rng.Int64N(2*jitter+1) - jitter
	}
	return less, long, max(off, -off, 2*jitter)
}

// TestMinutesChangeNothing compares archives that differ at random, by minutes and by
// hours, and wants the same differences.
func TestMinutesChangeNothing(t *testing.T) {
	from, to := epoch.Add(100*length+second/3), epoch.Add(1000*length-second/7)
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			less, long, off := twoNodes(seed)
			a, b := newArchive(t, less...), newArchive(t, long...)
			for name, o := range map[string]DiffOptions{"all": {}, "some": {From: from, To: to}} {
				want := diff(t, wholeHours{Dir{a}}, Dir{b}, o)
				if len(want) < 2 {
					t.Errorf("there is little to compare: %s", text(want))
				}
				sameDifferences(t, name+", directories", diff(t, Dir{a}, Dir{b}, o), want, off)
				sameDifferences(t, name+", a peer", diff(t, Dir{a}, Peer{servePeer(t, b).client}, o), want, off)
				sameDifferences(t, name+", an older peer", diff(t, Dir{a}, Peer{servePeer(t, b, older).client}, o), want, 0)
			}
		})
	}
}

// TestMinutesListLittle lists the segments about a difference, and not its hour.
func TestMinutesListLittle(t *testing.T) {
	long := clean(0, 1800)
	a, b := newArchive(t, slices.Delete(slices.Clone(long), 700, 701)...), newArchive(t, long...)
	listed := 0
	if got := text(diff(t, countingSide{Dir{a}, &listed}, Dir{b}, DiffOptions{})); got != "> 700-701 1" {
		t.Error(got)
	}
	if listed == 0 || listed > 22 {
		t.Errorf("%d segments were listed", listed)
	}
}

// TestNarrowIsBounded asks for no more minutes than can be remembered.
func TestNarrowIsBounded(t *testing.T) {
	d := &differ{} // whoever is asked panics
	if _, ok := d.narrow(t.Context(), make([]hourPair, mostNarrowed+1)); ok {
		t.Error("it is not bounded")
	}
}
