package replicate

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/testkit"
)

func sized(from, to, size int) []spec {
	var l []spec
	for n := from; n < to; n++ {
		l = append(l, spec{n: n, size: size})
	}
	return l
}

func mediaBytes(t *testing.T, a *archive.Stream) int64 {
	n := int64(0)
	for _, e := range view(t, a) {
		n += int64(e.Length)
	}
	return n
}

// halves lets media out up to its middle, and the rest when it is told to.
type halves struct {
	release chan struct{}
	once    sync.Once
}

func newHalves(t *testing.T) *halves {
	h := &halves{release: make(chan struct{})}
	t.Cleanup(h.open)
	return h
}

func (h *halves) open() { h.once.Do(func() { close(h.release) }) }

func (h *halves) between(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/media/") {
			w = &halfWriter{w, r.Context(), h, 0}
		}
		next.ServeHTTP(w, r)
	})
}

type halfWriter struct {
	http.ResponseWriter
	ctx context.Context
	h   *halves
	n   int
}

func (w *halfWriter) Write(p []byte) (int, error) {
	const half = 50_000
	before := w.n
	n, err := w.ResponseWriter.Write(p)
	if w.n += n; err == nil && before < half && w.n >= half {
		w.ResponseWriter.(http.Flusher).Flush()
		select {
		case <-w.h.release:
		case <-w.ctx.Done():
		}
	}
	return n, err
}

// What is to be fetched is known before the first byte of it, and each byte
// counts when it comes.
func TestProgressOfBytes(t *testing.T) {
	b := newArchive(t, sized(0, 3, 100_000)...)
	total := mediaBytes(t, b)
	gate := newHalves(t)
	p := servePeer(t, b, gate.between)
	var first, last Progress
	calls, partly := 0, false
	r := backfill(t, newArchive(t), Peer{p.client}, BackfillOptions{Progress: func(g Progress) {
		if calls++; calls == 1 {
			first = g
		}
		if g.Bytes < last.Bytes || g.Left > last.Left && calls > 1 || g.Bytes+g.Left != total {
			t.Errorf("%+v after %+v, of %d bytes", g, last, total)
		}
		if last = g; g.Bytes > 0 && g.Segments == 0 {
			partly = true
			gate.open()
		}
	}})
	if first != (Progress{Left: total, At: epoch}) {
		t.Errorf("at first: %+v, want %d bytes left", first, total)
	}
	if !partly || last.Left != 0 || last.Bytes != total || r.Segments != 3 {
		t.Errorf("partly: %v, at last: %+v, %+v", partly, last, r)
	}
}

// What a backfill that broke off has left is counted: the rest of the hour that
// was under way, and what the hours after it lack.
func TestBackfillLeft(t *testing.T) {
	b := newArchive(t, clean(440, 460)...) // ten on each side of an hour's edge
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		r, err := Backfill(ctx, newArchive(t), Dir{b}, BackfillOptions{Log: quiet, OnTaken: func(archive.Record) { cancel() }})
		if !errors.Is(err, context.Canceled) || r.Left != 20-r.Segments || r.Segments == 0 {
			t.Errorf("%+v, %v", r, err)
		}
	})
	t.Run("disk full", func(t *testing.T) {
		own := newArchive(t)
		taken := 0
		fs := fsx.NewFaults(fsx.OS, func(op fsx.Op) error {
			if taken == 3 && op.Name == "write" {
				return syscall.ENOSPC
			}
			return nil
		})
		a, err := archive.OpenWith(own.Dir(), archive.Options{FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		r, err := Backfill(t.Context(), a, Dir{b}, BackfillOptions{Log: quiet, OnTaken: func(archive.Record) { taken++ }})
		var we *archive.WriteError
		if !errors.As(err, &we) || r.Segments != 3 || r.Left != 17 || fs.Fired() == 0 {
			t.Errorf("%+v, %v", r, err)
		}
	})
}

// A Follower says what is to come before any of it does.
func TestFollowBacklog(t *testing.T) {
	b := newArchive(t, sized(0, 8, 100_000)...)
	gate := newHalves(t)
	p := servePeer(t, b, gate.between)
	var log testkit.Log
	f := startFollowing(t, newArchive(t), p, FollowOptions{Log: log.Logger(), Jobs: 1})
	bytes := mediaBytes(t, b)
	until(t, "the backlog is known, and what comes counts", func() bool {
		s := f.Stats()
		return s.Reconciling && s.Bytes > 0 && s.Segments == 0 && s.Backlog > bytes/2
	})
	f.stop()
	if log.Count("broke off") != 0 || log.Count("archive filled") != 0 {
		t.Error("nothing came, and that is said")
	}
}

// What a comparison leaves to following belongs to the backlog while it is
// overdue.
func TestFollowBacklogAtTheLiveEdge(t *testing.T) {
	b := newArchive(t, sized(0, 1, 100_000)...)
	gate := newHalves(t)
	p := servePeer(t, b, gate.between)
	a := newArchive(t)
	f := startFollowing(t, a, p, FollowOptions{})
	until(t, "the backlog is known", func() bool { s := f.Stats(); return s.Backlog == mediaBytes(t, b) })
	gate.open()
	until(t, "fetched", has(t, a, sized(0, 1, 100_000)...))
	until(t, "no backlog", func() bool { return f.Stats().Backlog == 0 })
}

// A Follower that is stopped in the middle does not say that the archive was
// filled.
func TestFollowStopsFilling(t *testing.T) {
	b := newArchive(t, clean(0, 50)...)
	p := servePeer(t, b)
	var log testkit.Log
	taken := make(chan bool, 100)
	goOn := make(chan bool)
	f := startFollowing(t, newArchive(t), p, FollowOptions{Log: log.Logger(), OnTaken: func(r archive.Record) {
		if r.UTC < epoch.Add(40*length) { // not left to following
			taken <- true
			<-goOn
		}
	}})
	<-taken
	go close(goOn)
	f.stop()
	n := log.Count("left=0")
	if whole := log.Count("archive filled from a peer"); whole != n || log.Count("broke off") != 1-whole {
		t.Errorf("%s", log.String())
	}
}

// A peer that refuses every cursor is asked with pauses, and that is said.
func TestFollowEveryCursorGone(t *testing.T) {
	var asked atomic.Int64
	p := servePeer(t, newArchive(t, clean(0, 1)...), func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/changes") {
				asked.Add(1)
				m4fhttp.WriteProblem(w, http.StatusGone, "pruned")
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	clock := newManualClock()
	var log testkit.Log
	f := startFollowing(t, newArchive(t), p, FollowOptions{Clock: clock, MaxRetry: time.Second, Log: log.Logger()})
	for range 4 {
		n := asked.Load()
		until(t, "asked again", func() bool {
			clock.move(time.Second)
			return asked.Load() > n
		})
	}
	until(t, "known", func() bool { return f.Stats().Err != nil })
	f.stop()
	// With a clock that stands nothing more is asked: this would spin.
	if n := log.Count("out of reach"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// What was dropped is looked for though something is always pending.
func TestLostWhilePending(t *testing.T) {
	p := servePeer(t, newArchive(t))
	clock := newManualClock()
	f := NewFollower(newArchive(t), p.client, FollowOptions{
		Clock: clock,
		Log:   quiet,
		Delay: func(*archive.Record) time.Duration { return time.Minute },
	})
	f.push(archive.Record{Header: spec{n: 1}.make(t).Header}, false)
	f.again(nil) // something unknown could not be had
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.work(ctx, &f.lanes[firstLane]) }()
	<-f.compare
	cancel()
	<-done
}

// An archive that cannot be written is said once, whichever file it is about.
func TestWriteFailedOnce(t *testing.T) {
	p := servePeer(t, newArchive(t))
	var log testkit.Log
	f := NewFollower(newArchive(t), p.client, FollowOptions{Log: log.Logger()})
	full := func(name string) error {
		return &archive.WriteError{Path: name, Err: &fs.PathError{Op: "write", Path: name, Err: syscall.ENOSPC}}
	}
	for _, name := range []string{"a", "b", "c"} {
		f.writeFailed(full(name))
	}
	f.writeFailed(nil)
	f.writeFailed(full("d"))
	if n := log.Count("cannot be written"); n != 2 {
		t.Errorf("said %d times, want 2", n)
	}
	if a, b := causeOf(full("a")), causeOf(full("b")); a != b {
		t.Errorf("%q and %q are one trouble", a, b)
	}
}

// A comparison that breaks off is made again after a pause, or as soon as it is asked
// for, as when the archive can be written again.
func TestReconcileAskedWhilePausing(t *testing.T) {
	var refuse atomic.Bool
	refuse.Store(true)
	p := servePeer(t, newArchive(t, clean(0, 3)...), func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if refuse.Load() && strings.Contains(r.URL.Path, "/m4f/hours") {
				m4fhttp.WriteProblem(w, http.StatusInternalServerError, "trouble")
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	var log testkit.Log
	// The clock stands.
	f := startFollowing(t, newArchive(t), p, FollowOptions{Clock: newManualClock(), MaxRetry: time.Minute, Log: log.Logger()})
	until(t, "it broke off", func() bool { return log.Count("broke off") == 1 })
	refuse.Store(false)
	f.writeFailed(&archive.WriteError{Path: "a", Err: syscall.ENOSPC})
	f.writeFailed(nil)
	until(t, "compared", func() bool { return !f.Stats().Reconciled.IsZero() })
	f.stop()
}
