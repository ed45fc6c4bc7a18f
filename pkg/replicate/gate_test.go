package replicate

import (
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
			clock.move(time.Second / 2)
			return tries.Load() >= 12 || len(view(t, a)) == 30
		})
		got := len(view(t, a))
		if asked := p.asked(); asked > got+3*DefaultJobs {
			t.Errorf("room for %d: %d segments were fetched for %d that could be written", room, asked, got)
		}
		full.Store(false)
		until(t, "written", func() bool { clock.move(time.Second / 2); return len(view(t, a)) == 30 })
		if asked := p.asked(); asked > 30+3*DefaultJobs {
			t.Errorf("room for %d: %d segments were fetched in all for 30", room, asked)
		}
		t.Logf("room for %d: %d fetched, %d refused by the disk", room, p.asked(), tries.Load())
		f.stop()
	}
}
