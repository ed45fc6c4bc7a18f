package node_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

// pair is two nodes configured as the cross-replication example has it.
func pair(t *testing.T, source, extra string) (main, standby *testNode) {
	main = newNode(t, "main", "")
	standby = newNode(t, "standby", "")
	main.configure(fmt.Sprintf(`http 127.0.0.1:%%PORT;
stream example_stream {
  url %s;
  url m4f://127.0.0.1:%d/example_stream;
  dvr %%DIR 3d replicate;
  %s
}
`, source, standby.port, extra))
	standby.configure(fmt.Sprintf(`http 127.0.0.1:%%PORT;
stream example_stream {
  url m4f://127.0.0.1:%d/example_stream;
  url %s;
  dvr %%DIR 3d replicate;
  %s
}
`, main.port, source, extra))
	return main, standby
}

const example = "example_stream"

// kills is how often each node of a pair is killed.
func kills() int {
	if n, err := strconv.Atoi(os.Getenv("TWINDVR_KILLS")); err == nil {
		return n
	}
	if testing.Short() {
		return 1
	}
	return 5
}

func seed(t *testing.T) *rand.Rand {
	n := uint64(time.Now().UnixNano())
	if v, err := strconv.ParseUint(os.Getenv("TWINDVR_SEED"), 10, 64); err == nil {
		n = v
	}
	t.Logf("seed %d; TWINDVR_SEED=%d runs the same choices again", n, n)
	return rand.New(rand.NewPCG(n, n))
}

// killInTurn kills each node at random moments, each only after the other has
// written a whole segment since its own start.
func killInTurn(t *testing.T, rng *rand.Rand, nodes [2]*testNode) {
	for k := range 2 * kills() {
		victim, other := nodes[k%2], nodes[1-k%2]
		within(t, time.Minute, other.name+" has written a whole segment since its start", func() bool {
			return wroteWhole(other.stream(example), other.started)
		})
		time.Sleep(time.Duration(rng.IntN(4000)) * time.Millisecond)
		victim.kill()
		down := time.Duration(300+rng.IntN(5000)) * time.Millisecond
		time.Sleep(down)
		victim.up()
		t.Logf("%s was killed and down for %v", victim.name, down)
	}
}

// TestPairLosesNothing runs the pair of the example on one multicast source,
// kills both nodes again and again, and wants both archives whole and equal.
func TestPairLosesNothing(t *testing.T) {
	t.Parallel()
	rng := seed(t)
	source := multicast()
	main, standby := pair(t, source, "")
	start(t, "source", "testsrc", source, "--bitrate", "6M")
	main.up()
	standby.up()
	killInTurn(t, rng, [2]*testNode{main, standby})
	for _, n := range []*testNode{main, standby} {
		within(t, time.Minute, n.name+" has written a whole segment since its last start", func() bool {
			return wroteWhole(n.stream(example), n.started)
		})
	}
	checkPair(t, main, standby)
}

// TestPairWithStallingSource has a source that stalls again and again and then
// sends in a burst what it is behind, while the nodes are killed.
func TestPairWithStallingSource(t *testing.T) {
	t.Parallel()
	rng := seed(t)
	source := multicast()
	main, standby := pair(t, source, "segment_duration 2s;")
	src := start(t, "source", "testsrc", source, "--bitrate", "2M")
	main.up()
	standby.up()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 10 {
			time.Sleep(2 * time.Second)
			src.cmd.Process.Signal(syscall.SIGSTOP)
			time.Sleep(600 * time.Millisecond)
			src.cmd.Process.Signal(syscall.SIGCONT)
		}
	}()
	killInTurn(t, rng, [2]*testNode{main, standby})
	<-done
	for _, n := range []*testNode{main, standby} {
		within(t, time.Minute, n.name+" has written a whole segment since its last start", func() bool {
			return wroteWhole(n.stream(example), n.started)
		})
	}
	checkPair(t, main, standby)
}

// checkPair wants two archives that are equal, unbroken and complete.
func checkPair(t *testing.T, main, standby *testNode) {
	a, b := main.stream(example), standby.stream(example)
	within(t, time.Minute, "diff-archive is silent in both directions", func() bool {
		_, _, ab := run(t, "diff-archive", a, b)
		_, _, ba := run(t, "diff-archive", b, a)
		return ab == 0 && ba == 0
	})
	to := min(newest(t, a), newest(t, b)).Add(-8 * m4f.Timescale)
	for _, dir := range []string{a, b} {
		out, errs, status := run(t, "ls", dir, "--to", to.Time().Format(time.RFC3339Nano))
		if spans := strings.Count(out, "\n"); status != 0 || spans != 1 {
			t.Errorf("ls %s: exit status %d, %d lines, want 0 and one unbroken span:\n%s%s", dir, status, spans, out, errs)
		}
	}
	dataA, sumA := export(t, a, to, 0)
	_, sumB := export(t, b, to, 0)
	if sumA != sumB {
		t.Errorf("the exports differ: %s and %s", sumA, sumB)
	}
	if missing := missingFrames(t, dataA); missing > 0 {
		t.Errorf("%d pictures are missing", missing)
	}
	decode(t, dataA)
}

// missingFrames counts the numbers missing between the first and the last
// picture of an export.
func missingFrames(t *testing.T, data []byte) int {
	t.Helper()
	frames := testsrc.FrameNumbers(data)
	if len(frames) == 0 {
		t.Fatal("the export holds no numbered picture")
	}
	seen := map[uint64]bool{}
	first, last := frames[0], frames[0]
	for _, f := range frames {
		if seen[f] {
			t.Errorf("picture %d is there twice", f)
		}
		seen[f] = true
		first, last = min(first, f), max(last, f)
	}
	t.Logf("pictures %d to %d, %d of them", first, last, len(frames))
	return int(last-first) + 1 - len(seen)
}

// decode has ffmpeg read an export, and wants no complaint.
func decode(t *testing.T, data []byte) {
	t.Helper()
	ffmpeg, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Log("ffmpeg is missing: the export is not decoded")
		return
	}
	file := filepath.Join(t.TempDir(), "decode.mp4")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(ffmpeg, "-v", "warning", "-i", file, "-f", "null", "-").CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("ffmpeg complains of the export: %v\n%s", err, out)
	}
}

// TestPairColdStandby is the same with a standby that opens the source only at
// failover: it may lose source_timeout and a segment each time.
func TestPairColdStandby(t *testing.T) {
	t.Parallel()
	rng := seed(t)
	source := multicast()
	main, standby := pair(t, source, "standby cold; source_timeout 3s; return_after 2s;")
	start(t, "source", "testsrc", source, "--bitrate", "6M")
	main.up()
	within(t, time.Minute, "the main node records", func() bool { return wroteWhole(main.stream(example), main.started) })
	standby.up()
	within(t, time.Minute, "the standby records from the main node", func() bool { return standby.mode() == "normal" })
	failovers := 2
	if testing.Short() {
		failovers = 1
	}
	for range failovers {
		main.kill()
		within(t, time.Minute, "the standby records from the source", func() bool { return standby.mode() == "emergency" })
		after := time.Now()
		within(t, time.Minute, "the standby has a whole segment of its own", func() bool { return wroteWhole(standby.stream(example), after) })
		time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
		main.up()
		within(t, time.Minute, "the standby is back at the main node", func() bool { return standby.mode() == "normal" })
		within(t, time.Minute, "the main node records", func() bool { return wroteWhole(main.stream(example), main.started) })
	}
	a, b := main.stream(example), standby.stream(example)
	within(t, time.Minute, "diff-archive is silent in both directions", func() bool {
		_, _, ab := run(t, "diff-archive", a, b)
		_, _, ba := run(t, "diff-archive", b, a)
		return ab == 0 && ba == 0
	})
	to := min(newest(t, a), newest(t, b)).Add(-8 * m4f.Timescale)
	status := 1 // there are gaps
	if gaps(t, a, to) == 0 {
		status = 0
	}
	dataA, sumA := export(t, a, to, status)
	_, sumB := export(t, b, to, status)
	if sumA != sumB {
		t.Errorf("the exports differ: %s and %s", sumA, sumB)
	}
	lost := float64(missingFrames(t, dataA)) / 25
	most := float64(failovers) * (3 + 4)
	t.Logf("%d failovers of a cold standby lost %.2f s; allowed are source_timeout and a segment each, %.0f s", failovers, lost, most)
	if lost > most {
		t.Errorf("lost %.2f s, more than %.0f s", lost, most)
	}
}

func gaps(t *testing.T, dir string, to m4f.UTC) int {
	t.Helper()
	a, err := archive.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	g, err := a.Gaps(0, to)
	if err != nil {
		t.Fatal(err)
	}
	return len(g)
}

// TestTwinsExchangeNames runs a pair that hears the source clean and measures
// what goes between the nodes.
func TestTwinsExchangeNames(t *testing.T) {
	t.Parallel()
	source := multicast()
	main, standby := pair(t, source, "")
	main.up()
	standby.up()
	within(t, 20*time.Second, "both nodes follow each other", func() bool {
		a, b := main.status(), standby.status()
		return a != nil && b != nil && a.Streams[0].Peers[0].Reachable && b.Streams[0].Peers[0].Reachable
	})
	start(t, "source", "testsrc", source, "--bitrate", "6M")
	within(t, 2*time.Minute, "30 s are recorded", func() bool {
		st := main.status()
		return st != nil && st.Streams[0].Archive.Segments >= 8
	})
	var moved, media int64
	for _, n := range []*testNode{main, standby} {
		s := n.status().Streams[0]
		moved += s.Peers[0].TrafficIn + s.Peers[0].TrafficOut
		media = max(media, s.Archive.Bytes)
		if s.Peers[0].Segments != 0 {
			t.Errorf("%s fetched %d segments that it heard itself", n.name, s.Peers[0].Segments)
		}
	}
	t.Logf("%d bytes between the nodes for %d bytes of media: %.3f %%", moved, media, 100*float64(moved)/float64(media))
	if moved*100 > media {
		t.Error("more than 1 %")
	}
}
