package node_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager stands for systemd: it hears what a service of Type=notify says
// (sd_notify(3)).
type manager struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		os.RemoveAll(dir)
	})
	return &manager{t, conn, path}
}

// hear returns the next message but WATCHDOG=1, and how many of those came
// before it.
func (m *manager) hear(within time.Duration) (message string, fed int) {
	m.t.Helper()
	buf := make([]byte, 4096)
	m.conn.SetReadDeadline(time.Now().Add(within))
	for {
		n, err := m.conn.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return "", fed
		}
		if err != nil {
			m.t.Fatal(err)
		}
		if text := strings.TrimRight(string(buf[:n]), "\n"); text != "WATCHDOG=1" {
			return text, fed
		}
		fed++
	}
}

// fed waits for so many WATCHDOG=1 in a row.
func (m *manager) fed(times int) {
	m.t.Helper()
	buf := make([]byte, 4096)
	m.conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	for i := range times {
		n, err := m.conn.Read(buf)
		if err != nil {
			m.t.Fatalf("after %d of %d: %v", i, times, err)
		}
		if text := string(buf[:n]); text != "WATCHDOG=1" {
			m.t.Fatalf("heard %q instead of the watchdog's food", text)
		}
	}
}

// TestServiceManager has a node tell systemd when it is ready, that it lives,
// when it reloads and when it ends.
func TestServiceManager(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	n := newNode(t, "node", "http 127.0.0.1:%PORT; stream one { url udp://127.0.0.1:9; dvr %DIR 1d; }")
	n.upWith("NOTIFY_SOCKET="+m.path, "WATCHDOG_USEC=600000")
	expect := func(want string) string {
		t.Helper()
		got, _ := m.hear(30 * time.Second)
		if !strings.HasPrefix(got, want) {
			t.Fatalf("heard %q, want %s; log:\n%s", got, want, n.text())
		}
		return got
	}
	expect("READY=1")
	if n.status() == nil {
		t.Error("it says that it is ready and does not answer")
	}
	m.fed(3)

	reload := func(what string) {
		t.Helper()
		before := monotonic(t)
		n.cmd.Process.Signal(syscall.SIGHUP)
		// The time of CLOCK_MONOTONIC stands in the same message and is not
		// before the signal, as Type=notify-reload wants it, too.
		text := expect("RELOADING=1\nMONOTONIC_USEC=")
		_, number, _ := strings.Cut(text, "MONOTONIC_USEC=")
		at, err := strconv.ParseInt(number, 10, 64)
		if err != nil || at < before || at > monotonic(t) {
			t.Errorf("%s: reloading at %q, signalled at %d, now %d: %v", what, number, before, monotonic(t), err)
		}
		expect("READY=1")
	}
	reload("an unchanged file")
	n.configure("http 127.0.0.1:%PORT; stream one { url udp://127.0.0.1:9; dvr %DIR 1d; } stream two { url udp://127.0.0.1:10; dvr %DIR 1d; }")
	reload("a changed file")
	if st := n.status(); st == nil || len(st.Streams) != 2 {
		t.Errorf("ready again, and the change is not applied: %+v", st)
	}
	n.configure("http 127.0.0.1:%PORT; stream one { ur udp://127.0.0.1:9; }")
	reload("a file with a mistake")
	m.fed(2)

	n.cmd.Process.Signal(syscall.SIGTERM)
	expect("STOPPING=1")
	<-n.done
	n.done = nil
	if code := n.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if rest, _ := m.hear(10 * time.Millisecond); rest != "" {
		t.Errorf("after STOPPING=1 it says %q", rest)
	}
}

// monotonic is the time of CLOCK_MONOTONIC in microseconds.
func monotonic(t *testing.T) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(fmt.Errorf("CLOCK_MONOTONIC: %w", err))
	}
	return ts.Nano() / 1000
}
