package replicate

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// following is a Follower that runs.
type following struct {
	*Follower
	stop func()
}

func startFollowing(t *testing.T, dst *archive.Stream, p *peerNode, o FollowOptions) following {
	t.Helper()
	if o.Log == nil {
		o.Log = quiet
	}
	o.Writer.Sync = archive.SyncOff
	if o.Clock == nil {
		o.Clock = dayAfter{}
	}
	if o.MaxRetry == 0 {
		o.MaxRetry = 50 * time.Millisecond
	}
	f := NewFollower(dst, p.client, o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the follower ends with %v", err)
		}
	}
	t.Cleanup(stop)
	return following{f, stop}
}

// until waits for something to become true.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for !cond() {
		if t.Context().Err() != nil {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func has(t *testing.T, a *archive.Stream, want ...spec) func() bool {
	ids := map[m4f.Identity]m4f.Flags{}
	for _, s := range want {
		seg := s.make(t)
		ids[seg.Header.ID] = seg.Header.Flags & quality
	}
	return func() bool {
		n := 0
		for _, e := range view(t, a) {
			if flags, ok := ids[e.ID]; ok && e.Flags&quality == flags {
				n++
			}
		}
		return n == len(want)
	}
}

// A node that follows another has what the other has: what was there before,
// what comes, and what is healed there later.
func TestFollow(t *testing.T) {
	b := newArchive(t, append(clean(0, 20), spec{n: 20, variant: 1, flags: m4f.Damaged})...)
	a := newArchive(t)
	p := servePeer(t, b)
	f := startFollowing(t, a, p, FollowOptions{})
	until(t, "what was there before", has(t, a, clean(0, 20)...))
	until(t, "compared", func() bool { s := f.Stats(); return !s.Reconciled.IsZero() && s.Pending == 0 })
	appendAll(t, b, clean(21, 25)...)
	until(t, "what comes", has(t, a, clean(21, 25)...))
	appendAll(t, b, spec{n: 20})
	until(t, "what is healed", has(t, a, spec{n: 20}))
	until(t, "reconciled", func() bool { s := f.Stats(); return !s.Reconciled.IsZero() && s.Pending == 0 })
	sameView(t, a, b)
	s := f.Stats()
	if !s.Connected || s.Status == nil || s.Err != nil || s.WriteErr != nil || s.Left != 0 {
		t.Errorf("%+v", s)
	}
	// The healed segment replaced one that was fetched too.
	if s.Segments != 26 || p.asked() != 26 || s.Bytes == 0 {
		t.Errorf("%d segments, asked for %d times", s.Segments, p.asked())
	}
}

// Two nodes that follow each other end with equal views and then fall silent:
// nothing goes round.
func TestFollowEachOther(t *testing.T) {
	a := newArchive(t, append(clean(0, 10), spec{n: 10, variant: 1, flags: m4f.Damaged}, spec{n: 11})...)
	b := newArchive(t, append(clean(5, 11), spec{n: 11, variant: 1, flags: m4f.Damaged}, spec{n: 12, flags: m4f.Damaged})...)
	appendAll(t, a, spec{n: 12})
	pa, pb := servePeer(t, a), servePeer(t, b)
	fa := startFollowing(t, a, pb, FollowOptions{})
	fb := startFollowing(t, b, pa, FollowOptions{})
	all := clean(0, 13)
	until(t, "a is whole", has(t, a, all...))
	until(t, "b is whole", has(t, b, all...))
	for n := 13; n < 30; n++ { // both hear the source
		appendAll(t, a, spec{n: n})
		appendAll(t, b, spec{n: n})
	}
	settled := func() bool {
		for _, f := range []following{fa, fb} {
			if s := f.Stats(); s.Pending > 0 || s.Reconciling {
				return false
			}
		}
		return true
	}
	until(t, "both are done", func() bool {
		return settled() && has(t, a, clean(0, 30)...)() && has(t, b, clean(0, 30)...)()
	})
	sameView(t, a, b)
	asked := pa.asked() + pb.asked()
	fa.Reconcile()
	fb.Reconcile()
	before := []time.Time{fa.Stats().Reconciled, fb.Stats().Reconciled}
	until(t, "both have looked again", func() bool {
		return fa.Stats().Reconciled.After(before[0]) && fb.Stats().Reconciled.After(before[1]) && settled()
	})
	if got := pa.asked() + pb.asked(); got != asked {
		t.Errorf("media was asked for %d times more", got-asked)
	}
}

// A node that hears the source itself fetches only what it has not completed
// when its time is up.
func TestFollowDelay(t *testing.T) {
	b := newArchive(t, clean(0, 3)...)
	a := newArchive(t, clean(0, 3)...)
	p := servePeer(t, b)
	clock := newManualClock()
	f := startFollowing(t, a, p, FollowOptions{
		Clock: clock,
		Delay: func(*archive.Record) time.Duration { return 2 * time.Second },
	})
	until(t, "compared", func() bool { return !f.Stats().Reconciled.IsZero() })
	appendAll(t, b, clean(3, 6)...)
	until(t, "listed", func() bool { return f.Stats().Pending == 3 })
	appendAll(t, a, spec{n: 3}, spec{n: 4, variant: 1, flags: m4f.Damaged})
	clock.move(time.Second)
	if p.asked() != 0 {
		t.Error("media was asked for too early")
	}
	clock.move(time.Second)
	until(t, "fetched", func() bool {
		clock.move(time.Millisecond)
		return f.Stats().Pending == 0 && has(t, a, clean(0, 6)...)()
	})
	if p.asked() != 2 {
		t.Errorf("media was asked for %d times, want 2", p.asked())
	}
}

// A live-only follower takes what is new and leaves the past alone.
func TestFollowLiveOnly(t *testing.T) {
	b := newArchive(t, clean(0, 10)...)
	a := newArchive(t)
	p := servePeer(t, b)
	f := startFollowing(t, a, p, FollowOptions{LiveOnly: true})
	until(t, "following", func() bool { return f.Stats().Connected })
	appendAll(t, b, spec{n: 12})
	until(t, "the first", has(t, a, spec{n: 12}))
	appendAll(t, b, spec{n: 11}, spec{n: 13})
	until(t, "the next", has(t, a, spec{n: 13}))
	if n := len(view(t, a)); n != 2 {
		t.Errorf("%d segments, want 2", n)
	}
}

// While the peer is away nothing is lost: what it recorded then comes when it is
// back, whether the cursor still holds or not.
func TestFollowPeerReturns(t *testing.T) {
	for _, forgotten := range []bool{false, true} {
		var away atomic.Bool
		var gone atomic.Int64
		b := newArchive(t, clean(0, 5)...)
		p := servePeer(t, b, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if away.Load() {
					panic(http.ErrAbortHandler)
				}
				cursor := r.URL.Query().Get("cursor")
				if forgotten && strings.HasSuffix(r.URL.Path, "/changes") && cursor != string(m4fhttp.CursorNow) {
					gone.Add(1)
					m4fhttp.WriteProblem(w, http.StatusGone, "pruned")
					return
				}
				next.ServeHTTP(w, r)
			})
		})
		a := newArchive(t)
		var lost, heard atomic.Int64
		f := startFollowing(t, a, p, FollowOptions{OnStatus: func(s *m4fhttp.Status, err error) {
			if err != nil {
				lost.Add(1)
			} else {
				heard.Add(1)
			}
		}})
		until(t, "equal", has(t, a, clean(0, 5)...))
		away.Store(true)
		p.srv.CloseClientConnections()
		until(t, "away", func() bool { s := f.Stats(); return !s.Connected && s.Err != nil && lost.Load() > 0 })
		appendAll(t, b, clean(5, 9)...)
		away.Store(false)
		until(t, "equal again", has(t, a, clean(0, 9)...))
		if forgotten != (gone.Load() > 0) || heard.Load() == 0 {
			t.Errorf("the cursor was refused %d times", gone.Load())
		}
		f.stop()
	}
}

// Media that cannot be had for now is tried again; what a peer sends wrong is
// left to reconciliation, and does not stop the rest.
func TestFollowFaults(t *testing.T) {
	b := newArchive(t, clean(0, 3)...)
	flaky := spec{n: 4}.make(t).Header.ID.String()
	wrong := spec{n: 5}.make(t).Header.ID.String()
	var mu sync.Mutex
	failed := 0
	p := servePeer(t, b, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			fail := strings.HasSuffix(r.URL.Path, flaky) && failed < 4
			if fail {
				failed++
			}
			mu.Unlock()
			switch {
			case fail:
				panic(http.ErrAbortHandler)
			case strings.HasSuffix(r.URL.Path, wrong):
				w.Write([]byte("nonsense"))
			default:
				next.ServeHTTP(w, r)
			}
		})
	})
	a := newArchive(t)
	f := startFollowing(t, a, p, FollowOptions{})
	until(t, "following", has(t, a, clean(0, 3)...))
	appendAll(t, b, clean(3, 8)...)
	until(t, "all but the wrong one", has(t, a, spec{n: 3}, spec{n: 4}, spec{n: 6}, spec{n: 7}))
	mu.Lock()
	if failed != 4 {
		t.Errorf("%d faults were injected, want 4", failed)
	}
	mu.Unlock()
	f.stop()
}

// A peer that cuts its segments in another way fills gaps only.
func TestFollowOtherDuration(t *testing.T) {
	var six []spec
	for n := range 6 {
		six = append(six, spec{n: n, duration: 6 * second})
	}
	b := newArchive(t, six...)
	a := newArchive(t, append(clean(0, 3), clean(6, 9)...)...)
	p := servePeer(t, b)
	clock := newManualClock()
	f := startFollowing(t, a, p, FollowOptions{Clock: clock})
	until(t, "the gap is filled", func() bool {
		clock.move(time.Second)
		gaps, err := a.Gaps(0, 0)
		return err == nil && len(gaps) == 0
	})
	until(t, "reconciled", func() bool { return !f.Stats().Reconciled.IsZero() })
	for _, e := range view(t, a) {
		if e.Origin == archive.Live && !e.Whole() {
			t.Errorf("an own segment is covered: %+v", e)
		}
	}
}

// Twins that both hear the source exchange far less than a hundredth of the
// media.
func TestTwinTraffic(t *testing.T) {
	const size, n = 3_000_000, 12 // 4 s at 6 Mbit/s
	big := func(from, to int) []spec {
		var l []spec
		for k := from; k < to; k++ {
			l = append(l, spec{n: k, size: size})
		}
		return l
	}
	a, b := newArchive(t, big(0, 2)...), newArchive(t, big(0, 2)...)
	p := servePeer(t, b)
	f := startFollowing(t, a, p, FollowOptions{Delay: func(*archive.Record) time.Duration { return 100 * time.Millisecond }})
	until(t, "following", func() bool { return !f.Stats().Reconciled.IsZero() })
	for k := 2; k < n; k++ {
		appendAll(t, a, big(k, k+1)...)
		appendAll(t, b, big(k, k+1)...)
	}
	until(t, "all listed and looked at", func() bool {
		s := f.Stats()
		return s.Pending == 0 && s.Heard.After(dayAfter{}.Now().Add(-time.Second)) && len(view(t, b)) == n
	})
	in, out := p.client.Traffic()
	t.Logf("%d bytes for %d of media: %.3f %%", in+out, n*size, float64(in+out)*100/(n*size))
	if in+out > n*size/100 || p.asked() != 0 {
		t.Errorf("%d bytes were exchanged, %d segments", in+out, p.asked())
	}
}

// manualClock moves when it is told to.
type manualClock struct {
	mu     sync.Mutex
	now    time.Time
	timers []manualTimer
}

type manualTimer struct {
	at time.Time
	c  chan time.Time
}

func newManualClock() *manualClock { return &manualClock{now: dayAfter{}.Now()} }

// dayAfter is a clock by which the archives of these tests are a day old,
// whatever the system's says.
type dayAfter struct{}

var beganAt = time.Now()

func (dayAfter) Now() time.Time {
	return epoch.Time().Add(24*time.Hour + time.Since(beganAt))
}

func (dayAfter) After(d time.Duration) <-chan time.Time { return time.After(d) }

func (c *manualClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *manualClock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := manualTimer{c.now.Add(d), make(chan time.Time, 1)}
	if d <= 0 {
		t.c <- c.now
	} else {
		c.timers = append(c.timers, t)
	}
	return t.c
}

func (c *manualClock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	left := c.timers[:0]
	for _, t := range c.timers {
		if t.at.After(c.now) {
			left = append(left, t)
		} else {
			t.c <- c.now
		}
	}
	c.timers = left
}

// While the archive cannot be written nothing is lost and memory stays bounded:
// what was listed is fetched when it can be again.
func TestFollowDiskFull(t *testing.T) {
	b := newArchive(t, clean(0, 3)...)
	own := newArchive(t)
	var full atomic.Bool
	fs := fsx.NewFaults(fsx.OS, func(op fsx.Op) error {
		if full.Load() && op.Name == "write" {
			return syscall.ENOSPC
		}
		return nil
	})
	a, err := archive.OpenWith(own.Dir(), archive.Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	p := servePeer(t, b)
	f := startFollowing(t, a, p, FollowOptions{})
	until(t, "following", has(t, a, clean(0, 3)...))
	full.Store(true)
	appendAll(t, b, clean(3, 6)...)
	until(t, "full", func() bool {
		var we *archive.WriteError
		s := f.Stats()
		return errors.As(s.WriteErr, &we) && we.Full() && s.Pending >= 3
	})
	if fs.Fired() == 0 {
		t.Error("no fault was injected")
	}
	full.Store(false)
	f.Reconcile() // as a node does that can record again
	until(t, "written again", has(t, a, clean(0, 6)...))
	until(t, "at rest", func() bool { s := f.Stats(); return s.WriteErr == nil && s.Pending == 0 })
	f.stop()
}
