package node

import (
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/serve"
)

// A disk that does not take a segment is a problem of the stream, soon, with how
// long that has been, also by another recorder than the one that waits; and what
// was recorded before is known while the archive tells nothing.
func TestStatusTellsOfADiskThatHangs(t *testing.T) {
	sim := clock.NewSim(time.Date(2026, 11, 22, 12, 30, 0, 0, time.UTC))
	stalled, release := make(chan struct{}, 64), make(chan struct{})
	open := sync.OnceFunc(func() { close(release) })
	var hangs atomic.Bool
	disk := fsx.NewFaults(fsx.OS, func(o fsx.Op) error {
		if hangs.Load() && o.Name == "write" {
			stalled <- struct{}{}
			return &fsx.Stall{Until: release}
		}
		return nil
	})
	dir, quiet := t.TempDir(), slog.New(slog.NewTextHandler(io.Discard, nil))
	n := New(Options{Config: &config.Config{}, Log: quiet, FS: disk, Clock: sim})
	s := newStream(n, &config.Stream{Name: "x", SegmentDuration: time.Second, DVR: config.DVR{Dir: dir + "/x", Root: dir}})
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	want := func(want ...string) {
		t.Helper()
		if got := s.problems(&serve.StreamStatus{Mode: serve.Normal}); !slices.Equal(got, want) {
			t.Errorf("at %v: %q, want %q", sim.Now().Sub(s.began), got, want)
		}
	}
	var lost atomic.Int64
	put := func(r *recorder) { r.put(DataSegment(t, m4f.UTCOf(sim.Now()).Add(-m4f.Timescale), 100)) }

	sim.Advance(20 * time.Second)
	first := newRecorder(s, 0, &lost)
	put(first)
	first.close()
	sim.Advance(10 * time.Second) // half a minute since the stream began, which is late
	want()

	rec, other := newRecorder(s, 0, &lost), newRecorder(s, 1, &lost)
	hangs.Store(true)
	defer open()
	put(rec)
	<-stalled
	sim.Advance(6 * time.Second)
	want()
	put(other)
	<-stalled
	sim.Advance(8 * time.Second)
	want("the disk has not taken a segment for 14s")
	sim.Advance(26 * time.Second)
	want("the disk has not taken a segment for 40s")

	open()
	for _, r := range []*recorder{rec, other} {
		r.close()
		<-r.done
	}
	want("nothing has been recorded for 34s")
}
