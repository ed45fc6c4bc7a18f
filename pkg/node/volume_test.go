package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/node"
)

// smallVolume mounts a volume of some bytes, or skips the test.
func smallVolume(t *testing.T, bytes int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "volume")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("twindvr-test", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		t.Skipf("1 test not run: a small volume cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// past writes a stream with one segment in each of the last hours.
func past(t *testing.T, dir string, hours, bytes int) {
	t.Helper()
	s, err := archive.Create(dir, "", archive.CreateOptions{TargetDuration: m4f.Timescale})
	if err != nil {
		t.Fatal(err)
	}
	w := s.Writer(archive.Replicated, 0, archive.WriterOptions{Sync: archive.SyncOff})
	now := time.Now().Truncate(time.Hour)
	for h := hours; h > 0; h-- {
		at := now.Add(-time.Duration(h) * time.Hour)
		seg := node.DataSegment(t, m4f.UTCOf(at), bytes)
		if err := w.Append(seg); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// hoursOf are the directories of a stream's hours, oldest first.
func hoursOf(t *testing.T, dir string) []string {
	t.Helper()
	l, err := filepath.Glob(filepath.Join(dir, "[0-9]*/*/*/*"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func freeOn(t *testing.T, dir string) int64 {
	t.Helper()
	u, err := archive.UsageOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	return u.Free
}

// TestVolumeRunsFull has two streams on a small volume of their own that other
// files fill, first a little, then to the last byte: the oldest hours of both go,
// kept ones stay, and recording goes on.
func TestVolumeRunsFull(t *testing.T) {
	t.Parallel()
	vol := smallVolume(t, 64<<20)
	const hours, each = 12, 1 << 20
	roots := []string{filepath.Join(vol, "disk1"), filepath.Join(vol, "disk2")}
	live, idle := filepath.Join(roots[0], "live"), filepath.Join(roots[1], "idle")
	past(t, live, hours, each)
	past(t, idle, hours, each)
	oldest := hoursOf(t, idle)
	kept := time.Now().Truncate(time.Hour).Add(-hours * time.Hour)
	if _, errs, status := run(t, "keep", live, "--from", kept.Format(time.RFC3339), "--to", kept.Add(time.Minute).Format(time.RFC3339), "--name", "final"); status != 0 {
		t.Fatal(errs)
	}
	a, b := multicast(), multicast()
	start(t, "source", "testsrc", a)
	n := newNode(t, "node", fmt.Sprintf(`http 127.0.0.1:%%PORT; min_free 8M;
		stream live { url %s; dvr %s 3d; segment_duration 1s; }
		stream idle { url %s; dvr %s 2d; segment_duration 1s; }`, a, roots[0], b, roots[1]))
	n.up()
	within(t, time.Minute, "the node has recorded", func() bool { return wroteWhole(live, n.started) })
	if len(hoursOf(t, idle)) < hours || freeOn(t, vol) < 8<<20 {
		t.Fatalf("hours went before the volume was full: %d, %d bytes free", len(hoursOf(t, idle)), freeOn(t, vol))
	}
	// A little more than there is room for: one hour has to go, the oldest.
	fill(t, filepath.Join(vol, "other1"), freeOn(t, vol)-(8<<20)+each/2)
	within(t, time.Minute, "there is room again", func() bool { return freeOn(t, vol) >= 8<<20 })
	if _, err := os.Stat(oldest[0]); !os.IsNotExist(err) || len(hoursOf(t, live)) < hours-2 {
		t.Errorf("not the oldest hour of both went: %v, %v", hoursOf(t, live), hoursOf(t, idle))
	}
	if _, err := os.Stat(strings.Replace(oldest[0], idle, live, 1)); err != nil {
		t.Errorf("the kept hour is gone: %v", err)
	}
	// Everything: recording must go on, at the cost of no more hours than that takes.
	fill(t, filepath.Join(vol, "other2"), 1<<40)
	full := time.Now()
	within(t, time.Minute, "recording goes on", func() bool { return wroteWhole(live, full.Add(2*time.Second)) })
	within(t, time.Minute, "there is a little room", func() bool { return freeOn(t, vol) >= 2<<20 })
	if l, i := len(hoursOf(t, live)), len(hoursOf(t, idle)); l < hours-6 || i < hours-6 {
		t.Errorf("%d and %d hours are left: more went than recording needed", l, i)
	}
	if text := n.text(); !strings.Contains(text, "pruning is held") || !strings.Contains(text, "twindvr prune "+roots[0]+" "+roots[1]+" --min-free 8M --force") && !strings.Contains(text, "twindvr prune "+roots[1]+" "+roots[0]+" --min-free 8M --force") {
		t.Error("it is not told that pruning waits, and for what")
	}
	st := n.status()
	for _, s := range st.Streams {
		want := 0
		if s.Name == "live" {
			want = 1
		}
		if s.Archive.Kept != want || s.Archive.MinFree != 8<<20 {
			t.Errorf("%s: %d kept spans, %d to be free", s.Name, s.Archive.Kept, s.Archive.MinFree)
		}
	}
	// The other files gone, the node rests; forced, min_free would hold again.
	for _, name := range []string{"other1", "other2"} {
		if err := os.Remove(filepath.Join(vol, name)); err != nil {
			t.Fatal(err)
		}
	}
	if status := n.stop(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if _, errs, status := run(t, "keep", live, "--release", "final"); status != 0 {
		t.Fatal(errs)
	}
	if out, errs, status := run(t, "prune", live, "--depth", "3d"); status != 0 || !strings.Contains(out, "horizon") {
		t.Errorf("the released hour does not go: exit status %d, %s%s", status, out, errs)
	}
}

// fill writes a file of some bytes, or until the volume is full.
func fill(t *testing.T, name string, n int64) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	for n > 0 {
		k, err := f.Write(block[:min(n, int64(len(block)))])
		if err != nil {
			return
		}
		n -= int64(k)
	}
}
