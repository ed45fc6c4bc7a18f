package replicate

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/fsx"
)

// A node whose disk takes small writes and no large ones does not fetch the same
// segments again and again, neither what is listed nor what a comparison finds,
// and has all of them once there is room.
func TestFullDiskTraffic(t *testing.T) {
	const size = 50_000
	for _, room := range []int64{0, 3} { // segments that fit each time that the disk seems to have room
		b := newArchive(t, sized(0, 20, size)...)
		var full atomic.Bool
		var tries, fit atomic.Int64
		full.Store(true)
		fs := fsx.NewFaults(fsx.OS, func(op fsx.Op) error {
			if op.Name != "write" || op.Size < size || !full.Load() {
				return nil
			}
			if fit.Add(-1) >= 0 {
				return nil
			}
			if tries.Add(1)%3 == 0 {
				fit.Store(room)
			}
			return syscall.ENOSPC
		})
		a, err := archive.OpenWith(newArchive(t).Dir(), archive.Options{FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		p := servePeer(t, b)
		clock := newManualClock()
		f := startFollowing(t, a, p, FollowOptions{Clock: clock})
		until(t, "full", func() bool { clock.move(time.Second / 10); return tries.Load() >= 2 })
		appendAll(t, b, sized(20, 30, size)...)
		until(t, "tried again and again, or all of it here", func() bool {
			clock.move(2 * time.Second)
			return tries.Load() >= 12 || len(view(t, a)) == 30
		})
		got := len(view(t, a))
		if asked := p.asked(); asked > got+3*DefaultJobs {
			t.Errorf("room for %d: %d segments were fetched for %d that could be written", room, asked, got)
		}
		full.Store(false)
		until(t, "written", func() bool { clock.move(2 * time.Second); return len(view(t, a)) == 30 })
		if asked := p.asked(); asked > 30+3*DefaultJobs {
			t.Errorf("room for %d: %d segments were fetched in all for 30", room, asked)
		}
		t.Logf("room for %d: %d fetched, %d refused by the disk", room, p.asked(), tries.Load())
		f.stop()
	}
}

// The gate tries what could not be written with growing pauses, gives up what is
// refused for another reason, and lets one fetch at a time until it trusts the disk.
func TestGate(t *testing.T) {
	disk := &archive.WriteError{Path: "x", Err: syscall.ENOSPC}
	now := time.Unix(1_000_000, 0)
	var g gate
	seg := spec{}.make(t)
	want := archive.Want{Record: archive.Record{Header: seg.Header}}
	if g.failed(errors.New("other")) || g.shut() || !g.failed(unwritten(&want, seg, disk)) || !g.shut() {
		t.Fatal("closed by what is not the disk's, or not by what is")
	}
	g.failed(unwritten(&want, nil, disk)) // of another goroutine, at the same time
	answer := error(disk)
	tries := 0
	put := func(e *unwrittenError) error {
		if e.seg != seg {
			t.Error("another segment is tried")
		}
		tries++
		return answer
	}
	var at []int
	for s := range 100 {
		before := tries
		if wait := g.try(now.Add(time.Duration(s)*time.Second), put); wait <= 0 || wait > gateLook {
			t.Fatalf("after %d s it is to be asked again in %v", s, wait)
		}
		if tries > before {
			at = append(at, s)
		}
	}
	if want := []int{3, 9, 21, 45, 75}; !slices.Equal(at, want) {
		t.Errorf("tried after %v s, want %v", at, want)
	}
	now = now.Add(80 * time.Second)
	g.hurry(now)
	if before := tries; g.try(now, put) == 0 || tries != before+1 {
		t.Error("not tried at once")
	}
	if before := tries; g.try(now.Add(-time.Hour), put) == 0 || tries != before+1 {
		t.Error("a clock that was put back keeps it shut")
	}
	if _, err := g.turn(t.Context()); !errors.Is(err, errClosed) {
		t.Errorf("a turn while shut: %v", err)
	}
	answer = &archive.HorizonError{}
	g.hurry(now)
	if wait := g.try(now, put); wait != 0 || g.shut() || g.trusted() {
		t.Error("what has become too old keeps it shut, or is trusted")
	}
	for range gateTrial {
		done, err := g.turn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := g.turn(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("two fetch at once: %v", err)
		}
		g.wrote()
		done()
	}
	if !g.trusted() {
		t.Error("not trusted after all that was written")
	}
	// With nothing held, as where an fdatasync failed, it opens after a pause.
	g.failed(disk)
	if g.try(now, nil) == 0 || g.try(now.Add(gatePause), nil) != 0 {
		t.Error("does not open after the pause")
	}
}
