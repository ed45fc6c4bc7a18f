package replicate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/testkit"
)

// cluster is nodes that all follow each other.
type cluster struct {
	nodes []*peerNode
	runs  []*Follower
}

// followAll starts a Follower of every archive for every other.
func followAll(t *testing.T, ctx context.Context, archives []*archive.Stream) (*cluster, func()) {
	c := &cluster{}
	for _, a := range archives {
		c.nodes = append(c.nodes, servePeer(t, a))
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for i, a := range archives {
		share := &Share{}
		for j, p := range c.nodes {
			if i == j {
				continue
			}
			f := NewFollower(a, p.client, FollowOptions{
				Share: share, Log: quiet, Clock: dayAfter{}, MaxRetry: 20 * time.Millisecond,
				Writer: archive.WriterOptions{Sync: archive.SyncOff},
			})
			c.runs = append(c.runs, f)
			wg.Go(func() { _ = f.Run(ctx) })
		}
	}
	return c, func() { cancel(); wg.Wait() }
}

// settled says whether every Follower has compared since a time and has nothing to
// do.
func (c *cluster) settled(since time.Time) bool {
	for _, f := range c.runs {
		s := f.Stats()
		if !s.Reconciled.After(since) || s.Pending > 0 || s.Reconciling {
			return false
		}
	}
	return true
}

// rest lets the nodes compare until nothing is fetched any more.
func (c *cluster) rest(t *testing.T) {
	for {
		before, now := c.taken(), dayAfter{}.Now()
		for _, f := range c.runs {
			f.Reconcile()
		}
		until(t, "all have compared", func() bool { return c.settled(now) })
		if c.taken() == before {
			return
		}
	}
}

func (c *cluster) taken() (n int64) {
	for _, f := range c.runs {
		s := f.Stats()
		n += s.Segments + s.Copied
	}
	return n
}

// equalViews says whether archives show the same.
func equalViews(t testing.TB, archives []*archive.Stream) error {
	var first []string
	for i, a := range archives {
		v := shownBy(t, a)
		slices.Sort(v) // of segments that begin at once, dates may differ
		if i == 0 {
			first = v
		} else if !slices.Equal(first, v) {
			return fmt.Errorf("views differ:\n%v\n%v", first, v)
		}
	}
	return nil
}

// Two to four nodes that start with anything, follow each other while more is
// recorded at some of them, and end with equal views, without a segment in them
// that overlaps another.
func TestFollowProperty(t *testing.T) {
	testkit.FewerChecks(t, 12)
	rapid.Check(t, func(rt *rapid.T) {
		draw := func(label string, from int) []spec {
			return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) spec {
				return spec{
					n:       from + rapid.IntRange(0, 7).Draw(t, "n"),
					late:    rapid.SampledFrom([]int64{0, 0, 0, second}).Draw(t, "late"),
					variant: rapid.SampledFrom([]byte{0, 0, 0, 1}).Draw(t, "variant"),
					flags:   rapid.SampledFrom([]m4f.Flags{0, 0, m4f.Damaged, m4f.Partial}).Draw(t, "flags"),
				}
			}), 0, 6).Draw(rt, label)
		}
		var archives []*archive.Stream
		var more [][]spec
		var moved []int64
		for i := range rapid.IntRange(2, 4).Draw(rt, "nodes") {
			// A node's clock may be off by 1.5 s at most from the first's.
			moved = append(moved, rapid.SampledFrom([]int64{0, 0, 300, 3 * second / 2}).Draw(rt, "clock"))
			set := func(l []spec) []spec {
				for k := range l {
					l[k].moved = moved[i]
				}
				return l
			}
			archives = append(archives, newArchive(t, set(draw("before", 446))...))
			more = append(more, set(draw("live", 454)))
		}
		c, stop := followAll(t, t.Context(), archives)
		defer stop()
		for i, l := range more {
			appendAll(t, archives[i], l...)
		}
		c.rest(t)
		if err := equalViews(t, archives); err != nil {
			rt.Fatal(err)
		}
		for _, a := range archives {
			noOverlap(rt, view(t, a))
		}
	})
}

// noOverlap wants no media time to be shown twice.
func noOverlap(t interface{ Fatalf(string, ...any) }, els []archive.Element) {
	pieces := archive.Pieces(els)
	for i, p := range pieces {
		for _, q := range pieces[i+1:] {
			d := q.Media() - p.Media()
			if d < p.To-p.Part.From && -d < q.To-q.Part.From {
				t.Fatalf("%d to %d is shown by %s and from %d on by %s", p.Media(), p.Media()+p.To-p.Part.From, p.ID, q.Media(), q.ID)
			}
		}
	}
}

// Of two peers that have the same, each segment is fetched from one.
func TestFollowTwoPeers(t *testing.T) {
	all := clean(0, 60)
	for k := range all {
		all[k].size = 100_000
	}
	b, c := newArchive(t, all...), newArchive(t, all...)
	a := newArchive(t)
	pb, pc := servePeer(t, b), servePeer(t, c)
	share := &Share{}
	fb := startFollowing(t, a, pb, FollowOptions{Share: share})
	fc := startFollowing(t, a, pc, FollowOptions{Share: share})
	until(t, "filled", func() bool {
		x, y := fb.Stats(), fc.Stats()
		return has(t, a, all...)() && !x.Reconciled.IsZero() && !y.Reconciled.IsZero() && x.Pending+y.Pending == 0
	})
	live := spec{n: 60, size: 100_000}
	appendAll(t, b, live)
	appendAll(t, c, live)
	until(t, "the live one", has(t, a, live))
	until(t, "at rest", func() bool { return fb.Stats().Pending+fc.Stats().Pending == 0 })
	if n := pb.asked() + pc.asked(); n != 61 {
		t.Errorf("%d and %d segments were asked for, want 61 in all", pb.asked(), pc.asked())
	}
	t.Logf("%d from one, %d from the other", pb.asked(), pc.asked())
}

// hostile is a server that plays a peer; its archive is behind it where it does
// not answer itself.
func hostile(t *testing.T, a *archive.Stream, silence time.Duration, answer func(w http.ResponseWriter, r *http.Request) bool) *peerNode {
	p := servePeer(t, a, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !answer(w, r) {
				next.ServeHTTP(w, r)
			}
		})
	})
	if silence > 0 {
		peer := p.client.Peer()
		p.client.Close()
		p.client = m4fhttp.NewClient(m4fhttp.ClientOptions{Peer: peer, Silence: silence})
		t.Cleanup(p.client.Close)
	}
	return p
}

// Whatever one peer does, what another one has comes from there, and nothing
// wrong enters the archive.
func TestFollowHostilePeer(t *testing.T) {
	good := clean(0, 12)
	is := func(r *http.Request, what string) bool { return strings.Contains(r.URL.Path, "/m4f/"+what) }
	hang := func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	year := epoch.Add(365 * 24 * hour)
	for _, c := range []struct {
		name   string
		answer func(w http.ResponseWriter, r *http.Request, fired *atomic.Int64) bool
	}{
		{"hangs over media", func(w http.ResponseWriter, r *http.Request, fired *atomic.Int64) bool {
			if is(r, "media/") {
				fired.Add(1)
				hang(w, r)
				return true
			}
			return false
		}},
		{"hangs over lists", func(w http.ResponseWriter, r *http.Request, fired *atomic.Int64) bool {
			if is(r, "segments") {
				fired.Add(1)
				hang(w, r)
				return true
			}
			return false
		}},
		{"sends other bytes", func(w http.ResponseWriter, r *http.Request, fired *atomic.Int64) bool {
			if is(r, "media/") {
				fired.Add(1)
				w.Write([]byte(strings.Repeat("nonsense", 100)))
				return true
			}
			return false
		}},
		{"refuses all media", func(w http.ResponseWriter, r *http.Request, fired *atomic.Int64) bool {
			if is(r, "media/") {
				fired.Add(1)
				http.Error(w, "", http.StatusInternalServerError)
				return true
			}
			return false
		}},
		{"lists without end", func(w http.ResponseWriter, r *http.Request, fired *atomic.Int64) bool {
			if !is(r, "segments") {
				return false
			}
			fired.Add(1)
			rec := archive.Record{Header: spec{n: 3}.make(t).Header}
			for n := uint64(0); r.Context().Err() == nil; n++ {
				rec.ID[3], rec.ID[4], rec.ID[5] = byte(n), byte(n>>8), byte(n>>16)
				if json.NewEncoder(w).Encode(m4fhttp.RecordOf(&rec)) != nil {
					break
				}
			}
			return true
		}},
		{"lists another time than was asked for", func(w http.ResponseWriter, r *http.Request, fired *atomic.Int64) bool {
			if !is(r, "segments") {
				return false
			}
			fired.Add(1)
			for n := range 100 {
				rec := archive.Record{Header: spec{n: 90000 + n, variant: 7}.make(t).Header}
				json.NewEncoder(w).Encode(m4fhttp.RecordOf(&rec))
			}
			return true
		}},
		{"lists hours without end", func(w http.ResponseWriter, r *http.Request, fired *atomic.Int64) bool {
			if !is(r, "hours") {
				return false
			}
			fired.Add(1)
			for u := epoch / hour * hour; r.Context().Err() == nil && u < 1<<50; u += hour {
				if json.NewEncoder(w).Encode(m4fhttp.Hour{Start: m4fhttp.Time(u), Segments: 9, Bytes: -9}) != nil {
					break
				}
			}
			return true
		}},
		{"lives in another year", func(w http.ResponseWriter, r *http.Request, fired *atomic.Int64) bool {
			switch {
			case is(r, "changes"):
				rec := archive.Record{Header: spec{n: 3, variant: 8}.make(t).Header}
				rec.UTC = year
				wire := m4fhttp.RecordOf(&rec)
				enc := json.NewEncoder(w)
				for range 100 {
					fired.Add(1)
					rec.UTC = rec.UTC.Add(4 * second)
					wire.Start = m4fhttp.Time(rec.UTC)
					enc.Encode(m4fhttp.Change{Record: &wire})
				}
				enc.Encode(m4fhttp.Change{Cursor: "x", Status: &m4fhttp.Status{Idle: true}})
				http.NewResponseController(w).Flush()
				<-r.Context().Done()
			case is(r, "info"):
				newest := m4fhttp.Time(year)
				json.NewEncoder(w).Encode(m4fhttp.Info{Newest: &newest, TargetDuration: length})
			default:
				return false
			}
			return true
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var fired atomic.Int64
			bad := hostile(t, newArchive(t, good...), 300*time.Millisecond, func(w http.ResponseWriter, r *http.Request) bool {
				return c.answer(w, r, &fired)
			})
			a := newArchive(t)
			share := &Share{}
			f := startFollowing(t, a, bad, FollowOptions{Share: share, MaxRetry: 100 * time.Millisecond})
			until(t, "the bad one was met", func() bool { return fired.Load() > 0 })
			b := newArchive(t, good...)
			g := startFollowing(t, a, servePeer(t, b), FollowOptions{Share: share})
			until(t, "filled", has(t, a, good...))
			appendAll(t, b, spec{n: 12})
			until(t, "live", has(t, a, spec{n: 12}))
			g.stop()
			f.stop()
			if n := len(view(t, a)); n != 13 {
				t.Errorf("%d segments in the view, want 13", n)
			}
			sameView(t, a, b)
		})
	}
}

// A list of what was not asked for is no answer.
func TestListsOfAnotherTime(t *testing.T) {
	stray := archive.Record{Header: spec{n: 90000}.make(t).Header}
	p := hostile(t, newArchive(t), 0, func(w http.ResponseWriter, r *http.Request) bool {
		json.NewEncoder(w).Encode(m4fhttp.RecordOf(&stray))
		return true
	})
	var bad *m4fhttp.BadAnswerError
	if _, err := p.client.Segments(t.Context(), epoch, epoch.Add(hour)); !errors.As(err, &bad) {
		t.Errorf("segments: %v", err)
	}
	start := epoch / hour * hour
	for _, h := range []m4fhttp.Hour{
		{Start: m4fhttp.Time(start.Add(9 * hour))},
		{Start: m4fhttp.Time(start.Add(-9 * hour))},
		{Start: m4fhttp.Time(start.Add(1))},
		{Start: m4fhttp.Time(start), Bytes: -1},
		{Start: m4fhttp.Time(start), Segments: 1 << 30},
	} {
		p := hostile(t, newArchive(t), 0, func(w http.ResponseWriter, r *http.Request) bool {
			json.NewEncoder(w).Encode(h)
			return true
		})
		if _, err := p.client.Hours(t.Context(), epoch, epoch.Add(hour)); !errors.As(err, &bad) {
			t.Errorf("hour %+v: %v", h, err)
		}
	}
}

// What a peer lists and does not give is asked for again less and less often,
// and nothing is asked of a peer for long that answers with nonsense alone.
func TestRefused(t *testing.T) {
	b := newArchive(t, clean(0, 30)...)
	p := hostile(t, b, 0, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/media/") {
			return false
		}
		m4fhttp.WriteProblem(w, http.StatusNotFound, "pruned")
		return true
	})
	var refused Refused
	for n, want := range []int{30, 30} {
		r, err := Backfill(t.Context(), newArchive(t), Peer{p.client}, BackfillOptions{Log: quiet, Refused: &refused})
		if err != nil || r.Left != 30 || p.asked() != want {
			t.Errorf("pass %d: %+v, %v, asked for %d times, want %d", n, r, err, p.asked(), want)
		}
	}
	now := time.Now()
	o := occurrence{utc: epoch}
	var waits []time.Duration
	for range 12 {
		refused.add(o, now)
		d := time.Duration(0)
		for refused.holds(o, now.Add(d)) {
			d += time.Minute
		}
		waits = append(waits, d)
	}
	if waits[0] != time.Minute || waits[2] != 4*time.Minute || waits[11] != lastAgain {
		t.Errorf("%v", waits)
	}
	refused.remove(o)
	if refused.holds(o, now) {
		t.Error("it is held after it came")
	}

	nonsense := hostile(t, b, 0, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/media/") {
			return false
		}
		w.Write([]byte("nonsense"))
		return true
	})
	if _, err := Backfill(t.Context(), newArchive(t), Peer{nonsense.client}, BackfillOptions{Log: quiet}); err == nil || nonsense.asked() > maxNonsense+DefaultJobs {
		t.Errorf("%v after %d answers", err, nonsense.asked())
	}
}

// A peer that is filled itself lists much that is old: it comes by comparison,
// at its rate and behind what is live.
func TestFollowRecoveringPeer(t *testing.T) {
	b := newArchive(t, clean(400, 402)...)
	a := newArchive(t)
	p := servePeer(t, b)
	clock := newManualClock()
	f := startFollowing(t, a, p, FollowOptions{Clock: clock})
	until(t, "following", has(t, a, clean(400, 402)...))
	until(t, "compared", func() bool { return !f.Stats().Reconciled.IsZero() })
	appendAll(t, b, append(clean(0, 300), spec{n: 402})...)
	until(t, "the live one", has(t, a, spec{n: 402}))
	until(t, "what is old", func() bool {
		clock.move(time.Second)
		return has(t, a, clean(0, 300)...)()
	})
	for _, e := range view(t, a) {
		if old := e.UTC < epoch.Add(400*length); old != (e.Origin == archive.Healed) {
			t.Errorf("%v is %s", e.UTC.Time(), e.Origin)
		}
	}
	sameView(t, a, b)
}

// A new node with a depth takes no more than that from a peer that keeps more,
// and what it has pruned does not come back.
func TestFollowDepth(t *testing.T) {
	const hours = 3
	var long []spec
	for n := range hours * 60 {
		long = append(long, spec{n: n, duration: 60 * second})
	}
	b := newArchive(t, long...)
	a, err := archive.Create(scratchDir(t)+"/x", "", archive.CreateOptions{TargetDuration: 60 * second})
	if err != nil {
		t.Fatal(err)
	}
	clock := newManualClock()
	clock.now = epoch.Add(hours * hour).Time()
	f := startFollowing(t, a, servePeer(t, b), FollowOptions{Clock: clock, Depth: 2 * time.Hour})
	until(t, "filled", func() bool { s := f.Stats(); return !s.Reconciled.IsZero() && s.Pending == 0 })
	from := (epoch.Add((hours - 2) * hour)) / hour * hour
	els := view(t, a)
	if len(els) == 0 || els[0].UTC < from || els[0].UTC > from.Add(60*second) || els[len(els)-1].End() != epoch.Add(hours*hour) {
		t.Fatalf("%d segments, from %v, want from %v", len(els), els[0].UTC.Time(), from.Time())
	}
	if _, err := a.Prune(clock.Now(), archive.PruneOptions{Depth: time.Hour, Force: true}); err != nil {
		t.Fatal(err)
	}
	left := len(view(t, a))
	if left >= len(els) {
		t.Fatal("nothing was pruned")
	}
	segments := f.Stats().Segments
	clock.move(time.Second)
	now := clock.Now()
	f.Reconcile()
	until(t, "compared again", func() bool { clock.move(time.Millisecond); return f.Stats().Reconciled.After(now) })
	if n := len(view(t, a)); n != left || f.Stats().Segments != segments {
		t.Errorf("%d segments after pruning, then %d", left, n)
	}
}

// While a new node is being filled, at a low rate, what is live comes at once.
func TestFollowLiveFirst(t *testing.T) {
	var old []spec
	for n := range 100 {
		old = append(old, spec{n: n, size: 40_000})
	}
	b := newArchive(t, old...)
	a := newArchive(t)
	f := startFollowing(t, a, servePeer(t, b), FollowOptions{Share: &Share{Limit: NewLimiter(400_000)}})
	until(t, "it is being filled", func() bool { s := f.Stats(); return s.Reconciling && s.Segments+s.Backlog > 0 && len(view(t, a)) > 0 })
	for n := 100; n < 105; n++ {
		live := spec{n: n, size: 40_000}
		appendAll(t, b, live)
		until(t, "live", has(t, a, live))
	}
	if s := f.Stats(); !s.Reconciling || s.Backlog == 0 {
		t.Errorf("it was filled before what is live came: %+v", s)
	}
	f.stop()
}

// What does not fit beside what is newer is not fetched.
func TestFitting(t *testing.T) {
	h := func(n, bytes int64) archive.Hour { return archive.Hour{Start: m4f.UTC(n * hour), Bytes: bytes} }
	a, b := []archive.Hour{h(3, 10), h(4, 20)}, []archive.Hour{h(1, 30), h(2, 30), h(3, 20), h(4, 10)}
	for size, want := range map[int64]int64{1000: 0, 120: 0, 110: 2, 80: 2, 70: 3, 50: 3, 30: 4, 10: 4} {
		if got := fitting(a, b, size); got != m4f.UTC(want*hour) {
			t.Errorf("%d bytes: from hour %d, want %d", size, got/hour, want)
		}
	}
}

// Filling gives way to what is live, and to a recording that is late.
func TestShareYields(t *testing.T) {
	all := clean(0, 40)
	for k := range all {
		all[k].size = 200_000
	}
	b := newArchive(t, all...)
	p := servePeer(t, b)
	var late atomic.Bool
	late.Store(true)
	share := &Share{Behind: late.Load, Slots: NewSlots(2)}
	a := newArchive(t)
	done := make(chan Result, 1)
	go func() {
		r, _ := Backfill(t.Context(), a, Peer{p.client}, BackfillOptions{Share: share, Log: quiet, Writer: archive.WriterOptions{Sync: archive.SyncOff}})
		done <- r
	}()
	until(t, "it asks for something", func() bool { return p.asked() > 0 })
	if n := len(view(t, a)); n > 2 {
		t.Errorf("%d segments have come while recording was late", n)
	}
	late.Store(false)
	if r := <-done; r.Segments != 40 || len(share.Slots) != 0 {
		t.Errorf("%+v, %d slots are taken", r, len(share.Slots))
	}
}

// Peers of one archive keep to one rate together.
func TestShareRate(t *testing.T) {
	var all []spec
	for n := range 16 {
		all = append(all, spec{n: n, size: 100_000})
	}
	even, odd := []spec{}, []spec{}
	for n, s := range all {
		if n%2 == 0 {
			even = append(even, s)
		} else {
			odd = append(odd, s)
		}
	}
	pb, pc := servePeer(t, newArchive(t, even...)), servePeer(t, newArchive(t, odd...))
	const rate = 2_000_000
	share := &Share{Limit: NewLimiter(rate)}
	a := newArchive(t)
	began := time.Now()
	var wg sync.WaitGroup
	for _, p := range []*peerNode{pb, pc} {
		wg.Go(func() {
			if _, err := Backfill(t.Context(), a, Peer{p.client}, BackfillOptions{Share: share, Limit: share.Limit, Log: quiet}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := 16 * 100_000 / time.Since(began).Seconds(); got > 1.1*rate {
		t.Errorf("%.0f bytes a second, want %d", got, rate)
	}
	if !has(t, a, all...)() {
		t.Error("something is missing")
	}
}
