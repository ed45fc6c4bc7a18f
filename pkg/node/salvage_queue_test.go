package node

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/salvage"
)

// held counts the copies of packetsOf that somebody holds.
var held atomic.Int32

// packetsOf makes a copy of n packets, in two pieces, for the k-th segment.
func packetsOf(k byte, n int) *salvage.Kept {
	h := m4f.Header{
		ID: m4f.Identity{k + 1}, Init: m4f.Identity{1}, MediaTime: int64(k) * 360000, Duration: 360000, Length: 1,
		UTC: m4f.UTCOf(time.Now()).Add(int64(k) * 360000), Flags: m4f.Damaged,
	}
	p := bytes.Repeat(append([]byte{0x47}, make([]byte, salvage.PacketSize-1)...), n)
	half := n / 2 * salvage.PacketSize
	return &salvage.Kept{Header: h, Target: 360000, Pieces: [][]byte{p[:half], p[half:]}, Hold: func() func() {
		held.Add(1)
		return func() { held.Add(-1) }
	}}
}

// TestSalvageQueue lets a disk stand still: copies wait up to a bound and are
// dropped beyond it, at once, and the segmenter's bytes are held until they are
// written.
func TestSalvageQueue(t *testing.T) {
	dir := t.TempDir() + "/x"
	a, err := archive.Create(dir, "x", archive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	cfg := &config.Stream{Name: "x", DVR: config.DVR{Dir: dir, Root: dir}, Salvage: config.Salvage{Bytes: 1 << 30, Age: time.Hour}}
	n := New(Options{Config: &config.Config{}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	s := &stream{node: n, cfg: cfg, arc: a, log: slog.New(slog.NewTextHandler(&log, nil)), notes: make(chan event.Event, 8)}
	r := &salvageRun{s: s, run: a.Salvage().NewRun(), queue: make(chan heldSalvage, salvageQueued), done: make(chan struct{})}
	for k := range byte(salvageQueued + 3) {
		c := packetsOf(k, 100)
		c.First = int64(k) * 100
		r.take(c)
	}
	if n := held.Load(); n != salvageQueued {
		t.Errorf("%d copies are held", n)
	}
	if len(r.queue) != salvageQueued || s.salv.dropped.Load() != 3 || salvageWaiting.Load() != salvageQueued*100*salvage.PacketSize {
		t.Errorf("%d wait with %d bytes, %d dropped", len(r.queue), salvageWaiting.Load(), s.salv.dropped.Load())
	}
	if c := strings.Count(log.String(), "not kept"); c != 1 {
		t.Errorf("told %d times:\n%s", c, &log)
	}
	go r.write()
	close(r.queue)
	<-r.done
	all, err := a.Salvage().Entries(0, 0)
	if err != nil || len(all) != salvageQueued || s.salv.kept.Load() != salvageQueued || salvageWaiting.Load() != 0 {
		t.Errorf("%d entries, %d bytes still wait, %v", len(all), salvageWaiting.Load(), err)
	}
	if c, err := a.Salvage().Read(all...); err != nil || c.Len() != salvageQueued*100 {
		t.Errorf("%v", err)
	}
	// Few, but large ones.
	r = &salvageRun{s: s, run: a.Salvage().NewRun(), queue: make(chan heldSalvage, salvageQueued), done: make(chan struct{})}
	large := packetsOf(0, salvageMemory/salvage.PacketSize*2/3)
	r.take(large)
	r.take(large)
	if len(r.queue) != 1 || s.salv.dropped.Load() != 4 {
		t.Errorf("%d wait, %d dropped", len(r.queue), s.salv.dropped.Load())
	}
	go r.write()
	close(r.queue)
	<-r.done
	if salvageWaiting.Load() != 0 || held.Load() != 0 {
		t.Errorf("%d bytes still wait, %d copies are held", salvageWaiting.Load(), held.Load())
	}
	// What is healed is not kept, and nothing is where salvage is off.
	if _, err := s.expireSalvage(); err != nil {
		t.Error(err)
	}
	cfg.Salvage = config.Salvage{Off: true}
	if newSalvageRun(s) != nil || newSalvageRun(s).hook() != nil {
		t.Error("a run where salvage is off")
	}
	newSalvageRun(s).close()
	if x, err := s.expireSalvage(); err != nil || x.Left.Entries != 0 {
		t.Errorf("salvage is off, and %+v, %v", x, err)
	}
}

// TestSalvageMakesRoom fills the disk: each look drops some of the salvage, the oldest first.
func TestSalvageMakesRoom(t *testing.T) {
	dir := t.TempDir() + "/x"
	a, err := archive.Create(dir, "x", archive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := &config.Stream{Name: "x", DVR: config.DVR{Dir: dir, Root: dir}, Salvage: config.Salvage{Bytes: 1 << 30, Age: time.Hour}}
	n := New(Options{Config: &config.Config{}, Log: slog.New(slog.DiscardHandler)})
	s := &stream{node: n, cfg: cfg, arc: a, log: n.log, notes: make(chan event.Event, 8)}
	run := a.Salvage().NewRun()
	const each = 1 << 20 / salvage.PacketSize
	keep := func(from, to byte) {
		t.Helper()
		for k := from; k < to; k++ {
			c := packetsOf(k, each)
			c.First = int64(k) * each
			if _, err := run.Keep(c); err != nil {
				t.Fatal(err)
			}
		}
	}
	keep(0, 10)
	if x, err := s.expireSalvage(); err != nil || x.Left.Entries != 10 {
		t.Fatalf("with room: %+v, %v", x, err)
	}
	s.disk = &archive.WriteError{Path: dir, Err: unix.ENOSPC}
	for _, left := range []int{5, 3, 0} {
		before, err := a.Salvage().Entries(0, 0)
		if err != nil {
			t.Fatal(err)
		}
		x, err := s.expireSalvage()
		if err != nil || x.Left.Entries != left {
			t.Fatalf("%d of %d should be left: %+v, %v", left, len(before), x, err)
		}
		after, err := a.Salvage().Entries(0, 0)
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range before[len(before)-len(after):] {
			if after[i].Name != e.Name {
				t.Errorf("%s was dropped, and an older one is left", e.Name)
			}
		}
		if left == 0 {
			break
		}
		// There was room once, and what is kept then stays.
		keep(10, 13)
		if all, err := a.Salvage().Entries(0, 0); err != nil || len(all) != left+3 {
			t.Errorf("%d of %d are left when others are kept: %v", len(all), left+3, err)
		}
	}
}
