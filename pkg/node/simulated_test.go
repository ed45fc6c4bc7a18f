package node_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/node"
	"github.com/twindvr/twindvr/pkg/serve"
)

// A node goes by the clock that it is given: a week passes at once, and the
// archive is verified when it is due by that clock, not before.
func TestVerifiedByTheNodesClock(t *testing.T) {
	t.Parallel()
	began := time.Date(2026, 11, 22, 12, 30, 0, 0, time.UTC)
	sim := clock.NewSim(began)
	dir := t.TempDir()
	a, err := archive.Create(dir+"/x", "x", archive.Options{Clock: sim})
	if err != nil {
		t.Fatal(err)
	}
	w := a.Writer(archive.Live, 0, archive.WriterOptions{Sync: archive.SyncOff})
	if err := w.Append(node.DataSegment(t, m4f.UTCOf(began), 1000)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	n, _, _ := inProcessOn(t, fmt.Sprintf(`http 127.0.0.1:%d; verify 7d;
stream x { url %s; segment_duration 1s; dvr %s 30d; }`, freePort(t), multicast(), dir), node.Options{Clock: sim})
	if at := n.Status().Started; !at.Equal(began) {
		t.Errorf("started at %v", at)
	}
	state := func() serve.VerifyStatus { return n.Status().Streams[0].Archive.Verify }
	// step moves the clock as often as it takes.
	step := func(what string, d time.Duration, ok func() bool) {
		within(t, 20*time.Second, what, func() bool {
			if ok() {
				return true
			}
			sim.Advance(d)
			return false
		})
	}
	step("due", time.Second, func() bool { return state().Due != nil })
	due := *state().Due
	if d := due.Sub(began); d <= 0 || d > 7*24*time.Hour || state().Ended != nil {
		t.Fatalf("due after %v, %+v", d, state())
	}
	sim.Advance(due.Sub(sim.Now()) - time.Second)
	step("verified", time.Second, func() bool { return state().Ended != nil })
	if v := state(); v.Segments != 1 || v.Ended.Before(due) {
		t.Errorf("%+v, due %v", v, due)
	}
}
