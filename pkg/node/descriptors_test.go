package node_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twindvr/twindvr/pkg/testkit"
)

// upLimited starts the node with few files that it may have open.
func (n *testNode) upLimited(files int) {
	n.t.Helper()
	n.process = startCommand(n.t, n.name, exec.Command("bash", "-c", fmt.Sprintf(`ulimit -n %d; exec "$0" "$@"`, files), testkit.Program(), "supervise", n.config))
}

// TestDescriptors has a node with 64 descriptors that strangers and slow readers
// connect to as often as they can: it goes on recording, and serves again when
// they have gone.
func TestDescriptors(t *testing.T) {
	t.Parallel()
	source := multicast()
	n := newNode(t, "node", fmt.Sprintf("http 127.0.0.1:%%PORT; stream x { url %s; dvr %%DIR 1d; segment_duration 1s; }", source))
	start(t, "source", "testsrc", source, "--bitrate", "2M")
	n.upLimited(64)
	within(t, time.Minute, "it records", func() bool { return wroteWhole(n.stream("x"), n.started) })
	began := newest(t, n.stream("x"))
	addr := fmt.Sprintf("127.0.0.1:%d", n.port)
	var conns []net.Conn
	flood := func() {
		for i := range 100 {
			c, err := net.DialTimeout("tcp", addr, time.Second)
			if err != nil {
				continue // the queue of those not accepted is full
			}
			switch i % 3 {
			case 0: // asks, and does not read
				c.(*net.TCPConn).SetReadBuffer(1 << 10)
				io.WriteString(c, "GET /x/m4f/media HTTP/1.1\r\nHost: x\r\n\r\n")
			case 1: // never comes to its end
				io.WriteString(c, "GET /x/m4f/info HTTP/1.1\r\nX-Slow: ")
			}
			conns = append(conns, c)
		}
	}
	for range 3 {
		flood()
		at := time.Now()
		within(t, time.Minute, "it records on", func() bool { return wroteWhole(n.stream("x"), at) })
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.cmd.Process.Pid))
	if err != nil || len(open) > 64 {
		t.Errorf("%d descriptors, %v", len(open), err)
	}
	t.Logf("%d connections, %d descriptors in use", len(conns), len(open))
	for _, c := range conns {
		c.Close()
	}
	within(t, time.Minute, "it answers again", func() bool { st := n.status(); return st != nil && st.Healthy })
	if lines := strings.Count(n.text(), "\n"); lines > 20 {
		t.Errorf("it logged %d lines", lines)
	}
	if out, errs, status := run(t, "ls", n.stream("x"), "--from", began.Time().Format(time.RFC3339Nano)); status != 0 {
		t.Errorf("gaps: %d\n%s%s", status, out, errs)
	}
}

// TestDescriptorsUsedUp takes all descriptors away while a recording begins anew:
// that is told once, and recording resumes by itself.
func TestDescriptorsUsedUp(t *testing.T) {
	t.Parallel()
	source := multicast()
	n := newNode(t, "node", fmt.Sprintf("http 127.0.0.1:%%PORT; stream x { url %s; dvr %%DIR 1d; segment_duration 1s; source_timeout 1; }", source))
	src := start(t, "source", "testsrc", source, "--bitrate", "2M")
	n.up()
	within(t, time.Minute, "it records", func() bool { return wroteWhole(n.stream("x"), n.started) })
	limit := func(files uint64) {
		t.Helper()
		if err := unix.Prlimit(n.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: files, Max: 4096}, nil); err != nil {
			t.Fatal(err)
		}
	}
	limit(3)
	src.kill() // what comes next is a new run, in a new file
	within(t, time.Minute, "the source is missed", func() bool { return strings.Contains(n.text(), "input is lost") })
	start(t, "source again", "testsrc", source, "--bitrate", "2M")
	within(t, time.Minute, "it is told why nothing is recorded", func() bool { return strings.Contains(n.text(), "too many open files") })
	time.Sleep(3 * time.Second) // it does not go on telling
	limit(1024)
	at := time.Now()
	within(t, time.Minute, "it records again", func() bool { return wroteWhole(n.stream("x"), at) })
	within(t, time.Minute, "it answers again and is healthy", func() bool { st := n.status(); return st != nil && st.Healthy })
	within(t, 10*time.Second, "the archive says why there is a gap", func() bool {
		events, _ := filepath.Glob(filepath.Join(n.stream("x"), "*/*/*/*/events.jsonl"))
		for _, path := range events {
			if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), "too many open files") {
				return true
			}
		}
		return false
	})
	if told := strings.Count(n.text(), "too many open files"); told > 4 {
		t.Errorf("it is told %d times", told)
	}
}
