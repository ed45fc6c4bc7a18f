package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// segments is how many segments a stream's view has.
func segments(t *testing.T, dir string) int {
	t.Helper()
	a, err := archive.Open(dir)
	if err != nil {
		return 0
	}
	els, err := a.Span(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return len(els)
}

func (n *testNode) problems() string {
	st := n.status()
	if st == nil {
		return ""
	}
	var all []string
	for _, s := range st.Streams {
		all = append(all, s.Problems...)
		for _, p := range s.Peers {
			all = append(all, p.Error)
		}
		for _, in := range s.Inputs {
			all = append(all, in.Error)
		}
	}
	return strings.Join(all, "\n")
}

// TestOneWayReplication has a secondary with a peer as its only input, begun
// when the peer has an archive already.
func TestOneWayReplication(t *testing.T) {
	t.Parallel()
	source := multicast()
	main := newNode(t, "main", fmt.Sprintf("http 127.0.0.1:%%PORT; stream sport/hd { url %s; dvr %%DIR 1d; segment_duration 1s; }", source))
	start(t, "source", "testsrc", source)
	main.up()
	within(t, time.Minute, "the main node has recorded", func() bool { return segments(t, main.stream("sport/hd")) >= 4 })
	second := newNode(t, "second", fmt.Sprintf("http 127.0.0.1:%%PORT; stream sport/hd { url m4f://127.0.0.1:%d/sport/hd; dvr %%DIR 1d replicate; segment_duration 1s; }", main.port))
	second.up()
	before := newest(t, main.stream("sport/hd"))
	within(t, time.Minute, "the secondary follows live", func() bool {
		return segments(t, second.stream("sport/hd")) > 0 && newest(t, second.stream("sport/hd")) > before.Add(4*m4f.Timescale)
	})
	to := before.Time().Format(time.RFC3339Nano)
	if out, errs, status := run(t, "diff-archive", main.stream("sport/hd"), second.stream("sport/hd"), "--to", to); status != 0 {
		t.Errorf("the archives differ: exit status %d\n%s%s", status, out, errs)
	}
	if st := main.status(); st.Streams[0].Unreplicated || !st.Streams[0].Healthy {
		t.Errorf("the main node does not replicate and is healthy: %+v", st.Streams[0])
	}
	main.kill()
	within(t, time.Minute, "the secondary says that it is offline and unreplicated", func() bool {
		st := second.status()
		return st != nil && st.Streams[0].Mode == "offline" && st.Streams[0].Unreplicated && !st.Healthy
	})
	if _, _, status := run(t, "status", fmt.Sprintf(":%d", second.port)); status != 1 {
		t.Errorf("status of an offline node: exit status %d, want 1", status)
	}
}

// TestLoopIsOffline has two nodes that have nothing but each other.
func TestLoopIsOffline(t *testing.T) {
	t.Parallel()
	a, b := newNode(t, "a", ""), newNode(t, "b", "")
	conf := "http 127.0.0.1:%%PORT; stream x { url m4f://127.0.0.1:%d/x; dvr %%DIR 1d replicate; }"
	a.configure(fmt.Sprintf(conf, b.port))
	b.configure(fmt.Sprintf(conf, a.port))
	a.up()
	b.up()
	within(t, 30*time.Second, "both have reached each other", func() bool {
		x, y := a.status(), b.status()
		return x != nil && y != nil && x.Streams[0].Peers[0].Reachable && y.Streams[0].Peers[0].Reachable
	})
	time.Sleep(5 * time.Second)
	for _, n := range []*testNode{a, b} {
		st := n.status().Streams[0]
		if st.Mode != "offline" || st.Healthy {
			t.Errorf("%s is in mode %s, healthy %v", n.name, st.Mode, st.Healthy)
		}
		if !strings.Contains(st.Inputs[0].Error, "no source") {
			t.Errorf("%s does not say why: %q", n.name, st.Inputs[0].Error)
		}
		p := st.Peers[0]
		if p.TrafficIn+p.TrafficOut > 64<<10 {
			t.Errorf("%s exchanged %d bytes with its peer in a few seconds", n.name, p.TrafficIn+p.TrafficOut)
		}
		if lines := strings.Count(n.text(), "\n"); lines > 12 {
			t.Errorf("%s logged %d lines about nothing:\n%s", n.name, lines, n.text())
		}
		within(t, 10*time.Second, n.name+" says in an event that there is a circle", func() bool {
			a, err := archive.Open(n.stream("x"))
			if err != nil {
				return false
			}
			events, err := a.Events(0, 0)
			return err == nil && slices.ContainsFunc(events, func(e event.Event) bool { return strings.Contains(e.Msg, "other nodes only") })
		})
	}
}

// TestReload changes the configuration of a running node.
func TestReload(t *testing.T) {
	t.Parallel()
	one, two := multicast(), multicast()
	first := fmt.Sprintf("http 127.0.0.1:%%PORT; stream one { url %s; dvr %%DIR 1d; segment_duration 1s; }\n", one)
	n := newNode(t, "node", first)
	start(t, "source", "testsrc", one, two)
	n.up()
	within(t, time.Minute, "one is recorded", func() bool { return wroteWhole(n.stream("one"), n.started) })

	n.configure(first + fmt.Sprintf("stream two { url %s; dvr %%DIR 1d; segment_duration 1s; }\n", two))
	n.cmd.Process.Signal(syscall.SIGHUP)
	within(t, time.Minute, "two is recorded", func() bool { return wroteWhole(n.stream("two"), n.started) })

	n.configure(first + "stream three { url udp://239.1.1.1:1; dvr %DIR 1 week; }\n")
	n.cmd.Process.Signal(syscall.SIGHUP)
	within(t, 10*time.Second, "the mistake is told with its place", func() bool {
		return strings.Contains(n.text(), "node.conf:2:")
	})
	if st := n.status(); len(st.Streams) != 2 {
		t.Errorf("after a broken file the node has %d streams, want 2", len(st.Streams))
	}

	n.configure(first)
	n.cmd.Process.Signal(syscall.SIGHUP)
	within(t, 20*time.Second, "two is retired", func() bool {
		st := n.status()
		return st != nil && len(st.Streams) == 2 && st.Streams[1].Retired
	})
	url := fmt.Sprintf("m4f://127.0.0.1:%d/two", n.port)
	if out, errs, status := run(t, "ls", url); status != 0 || !strings.Contains(out, "span") {
		t.Errorf("a retired stream is not served: exit status %d\n%s%s", status, out, errs)
	}
	if c := strings.Count(n.text(), `msg="input delivers" stream=one`); c != 1 {
		t.Errorf("the unchanged stream was opened %d times:\n%s", c, n.text())
	}
	a, err := archive.Open(n.stream("one"))
	if err != nil {
		t.Fatal(err)
	}
	if g, err := a.Gaps(0, 0); err != nil || len(g) != 0 {
		t.Errorf("the unchanged stream has gaps: %v %v", g, err)
	}
}

// TestTermination wants the open segment written, as partial, and an exit
// status of 0 within 5 s.
func TestTermination(t *testing.T) {
	t.Parallel()
	source := multicast()
	n := newNode(t, "node", fmt.Sprintf("http 127.0.0.1:%%PORT; stream x { url %s; dvr %%DIR 1d; }", source))
	start(t, "source", "testsrc", source)
	n.up()
	within(t, time.Minute, "something is recorded", func() bool { return segments(t, n.stream("x")) >= 2 })
	before := segments(t, n.stream("x"))
	time.Sleep(time.Second)
	began := time.Now()
	if status := n.stop(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	a, err := archive.Open(n.stream("x"))
	if err != nil {
		t.Fatal(err)
	}
	els, err := a.Span(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if last := els[len(els)-1]; len(els) <= before || !last.Partial() {
		t.Errorf("%d segments before, %d after; the last is partial: %v", before, len(els), last.Partial())
	}
}

// TestOneFaultStaysAlone runs a stream that cannot be recorded beside one that
// can.
func TestOneFaultStaysAlone(t *testing.T) {
	t.Parallel()
	source := multicast()
	n := newNode(t, "node", "")
	blocked := filepath.Join(n.dir, "blocked")
	if err := os.MkdirAll(filepath.Join(blocked, "bad"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(blocked, "bad", "precious"), []byte("not a stream"), 0o644); err != nil {
		t.Fatal(err)
	}
	n.configure(fmt.Sprintf(`http 127.0.0.1:%%PORT;
stream bad { url %[1]s; dvr %%DIR/blocked 1d; segment_duration 1s; }
stream good { url %[1]s; dvr %%DIR 1d; segment_duration 1s; }
`, source))
	start(t, "source", "testsrc", source)
	n.up()
	within(t, time.Minute, "the good stream is recorded", func() bool { return wroteWhole(n.stream("good"), n.started) })
	st := n.status()
	if st.Healthy || st.Streams[0].Healthy || !st.Streams[1].Healthy {
		t.Errorf("health: node %v, bad %v, good %v", st.Healthy, st.Streams[0].Healthy, st.Streams[1].Healthy)
	}
	if !strings.Contains(n.problems(), "not a twindvr stream") && !strings.Contains(n.problems(), "no stream.json") {
		t.Errorf("the reason is not told: %q", n.problems())
	}
	entries, err := os.ReadDir(filepath.Join(blocked, "bad"))
	if err != nil || len(entries) != 1 {
		t.Errorf("something was left in a directory that is no stream: %v %v", entries, err)
	}
	// When the directory is made good, recording begins.
	if err := os.Remove(filepath.Join(blocked, "bad", "precious")); err != nil {
		t.Fatal(err)
	}
	within(t, time.Minute, "the other stream is recorded too", func() bool { return wroteWhole(filepath.Join(blocked, "bad"), n.started) })
}

// TestPeerOfAnotherName pairs streams whose names differ, as a slip in a
// configuration does, and nodes whose keys differ.
func TestPeerOfAnotherName(t *testing.T) {
	t.Parallel()
	source := multicast()
	main := newNode(t, "main", fmt.Sprintf("http 127.0.0.1:%%PORT; cluster_key s3cret; stream example_stream { url %s; dvr %%DIR 1d; segment_duration 1s; }", source))
	conf := `http 127.0.0.1:%%PORT; cluster_key %s;
stream example_stream { url %s; url m4f://127.0.0.1:%d/%s; dvr %%DIR 1d replicate; segment_duration 1s; }`
	slip := newNode(t, "slip", fmt.Sprintf(conf, "s3cret", source, main.port, "example"))
	wrong := newNode(t, "wrong", fmt.Sprintf(conf, "other", source, main.port, "example_stream"))
	right := newNode(t, "right", fmt.Sprintf(conf, "s3cret", source, main.port, "example_stream"))
	start(t, "source", "testsrc", source)
	for _, n := range []*testNode{main, slip, wrong, right} {
		n.up()
	}
	within(t, time.Minute, "the node records all the same and says which streams the peer has", func() bool {
		return wroteWhole(slip.stream("example_stream"), slip.started) && strings.Contains(slip.problems(), "example_stream")
	})
	within(t, time.Minute, "a wrong key is told", func() bool { return strings.Contains(wrong.problems(), "key") })
	if strings.Contains(wrong.text(), "it has example_stream") {
		t.Error("a node without the key learns the names of streams")
	}
	within(t, time.Minute, "the right key works", func() bool {
		st := right.status()
		return st != nil && st.Streams[0].Peers[0].Reachable && st.Streams[0].Healthy
	})
}

// TestNothingRecordedIsNotHealthy has an input that delivers and gives no segment.
func TestNothingRecordedIsNotHealthy(t *testing.T) {
	t.Parallel()
	source := multicast()
	n := newNode(t, "node", fmt.Sprintf("http 127.0.0.1:%%PORT; stream x { url %s; dvr %%DIR 1d; segment_duration 1s; program 7; }", source))
	start(t, "source", "testsrc", source)
	n.up()
	within(t, time.Minute, "the node says that nothing is recorded, and why", func() bool {
		st := n.status()
		return st != nil && !st.Healthy && strings.Contains(n.problems(), "program")
	})
}

// TestArchiveGoneIsBegunAnew takes the directory away under a running node.
func TestArchiveGoneIsBegunAnew(t *testing.T) {
	t.Parallel()
	source := multicast()
	n := newNode(t, "node", fmt.Sprintf("http 127.0.0.1:%%PORT; stream x { url %s; dvr %%DIR 1d; segment_duration 1s; }", source))
	start(t, "source", "testsrc", source)
	n.up()
	within(t, time.Minute, "it records", func() bool { return wroteWhole(n.stream("x"), n.started) })
	if err := os.RemoveAll(n.stream("x")); err != nil {
		t.Fatal(err)
	}
	gone := time.Now()
	within(t, time.Minute, "it records again", func() bool { return wroteWhole(n.stream("x"), gone) })
	within(t, time.Minute, "it is healthy again", func() bool { st := n.status(); return st != nil && st.Healthy })
}

// TestReloadRefusesAnotherDuration changes what an archive cannot follow, and
// the address within a port.
func TestReloadRefusesAnotherDuration(t *testing.T) {
	t.Parallel()
	source := multicast()
	conf := "http %s:%%PORT; stream x { url %s; dvr %%DIR 1d; segment_duration %s; }"
	n := newNode(t, "node", fmt.Sprintf(conf, "127.0.0.1", source, "1s"))
	start(t, "source", "testsrc", source)
	n.up()
	within(t, time.Minute, "it records", func() bool { return wroteWhole(n.stream("x"), n.started) })
	n.configure(fmt.Sprintf(conf, "127.0.0.1", source, "2s"))
	n.cmd.Process.Signal(syscall.SIGHUP)
	within(t, 10*time.Second, "the change is refused", func() bool { return strings.Contains(n.text(), "is configured for 2s") })
	after := time.Now()
	within(t, time.Minute, "it goes on recording", func() bool { return wroteWhole(n.stream("x"), after) })
	n.configure(fmt.Sprintf(conf, "", source, "1s"))
	n.cmd.Process.Signal(syscall.SIGHUP)
	within(t, 10*time.Second, "the address is changed", func() bool { return strings.Contains(n.text(), "configuration applied") })
	within(t, 10*time.Second, "the node answers", func() bool { return n.status() != nil })
}
