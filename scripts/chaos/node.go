package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twindvr/twindvr/pkg/serve"
)

// node is one node of a lab: a configuration, an archive and, while it is up, a
// process.
type node struct {
	lab     *lab
	i       int
	name    string
	dir     string  // its volume
	config  string  // file
	log     string  // file
	disk    *volume // nil: that of the lab's directory
	clocked bool    // the process has a wall clock of its own

	mu     sync.Mutex
	cmd    *exec.Cmd // nil: down
	clock  *wallClock
	ended  chan struct{} // closed when the process has
	asked  bool          // it was told to end
	hears  bool          // it listens for all its sources
	halts  int           // faults that keep it from recording, though it may hear
	lives  []life
	peak   int64 // most memory seen, bytes
	starts int
}

// life is a time in which a node heard what it was sent and wrote what it
// completed. A zero to means that it goes on.
type life struct{ from, to time.Time }

// stream is the directory of a stream.
func (n *node) stream(name string) string { return filepath.Join(n.dir, name) }

// up starts the process.
func (n *node) up() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd != nil {
		return fmt.Errorf("%s is up already", n.name)
	}
	f, err := os.OpenFile(n.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := exec.Command(n.lab.opt.twindvr, "supervise", n.config)
	cmd.Stdout, cmd.Stderr = f, f
	n.clock = nil
	oerr := n.lab.net.on(n.i, func() {
		if n.clocked {
			n.clock, err = startWithClock(cmd)
		} else {
			err = cmd.Start()
		}
	})
	if err := errors.Join(oerr, err); err != nil {
		return fmt.Errorf("starting %s: %w", n.name, err)
	}
	n.cmd, n.ended, n.asked = cmd, make(chan struct{}), false
	n.starts++
	go n.wait(cmd, n.ended)
	go n.listen(cmd.Process.Pid, n.ended)
	return nil
}

func (n *node) wait(cmd *exec.Cmd, ended chan struct{}) {
	cmd.Wait()
	n.mu.Lock()
	if !n.asked {
		n.lab.fault("%s ended by itself: %v", n.name, cmd.ProcessState)
		n.endLife(time.Now().Add(-5 * time.Second))
		n.hears = false
	}
	n.cmd = nil
	n.mu.Unlock()
	close(ended)
}

// listen begins a life once the process hears all its sources, and watches its
// memory.
func (n *node) listen(pid int, ended chan struct{}) {
	heard := false
	for tick := 20 * time.Millisecond; ; {
		select {
		case <-ended:
			return
		case <-time.After(tick):
		}
		if !heard && n.lab.bound(pid, n.i) {
			heard, tick = true, 250*time.Millisecond
			n.mu.Lock()
			if n.cmd != nil && n.cmd.Process.Pid == pid && !n.asked {
				n.hears = true
				n.beginLife()
			}
			n.mu.Unlock()
		}
		n.mu.Lock()
		n.peak = max(n.peak, residentPeak(pid))
		n.mu.Unlock()
	}
}

// residentPeak is the most memory that a process has had, in bytes; 0: it has
// ended.
func residentPeak(pid int) int64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	if f := strings.Fields(rest); len(f) > 0 {
		kb, _ := strconv.ParseInt(f[0], 10, 64)
		return kb << 10
	}
	return 0
}

// boundPorts are the UDP ports that something listens on where a process is.
func boundPorts(pid int) map[int]bool {
	have := map[int]bool{}
	for _, name := range []string{"udp", "udp6"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, name))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 1 {
				_, hex, _ := strings.Cut(f[1], ":")
				if port, err := strconv.ParseUint(hex, 16, 16); err == nil {
					have[int(port)] = true
				}
			}
		}
	}
	return have
}

// beginLife begins a life if nothing is in the way, under the lock.
func (n *node) beginLife() {
	if n.hears && n.halts == 0 {
		n.lives = append(n.lives, life{from: time.Now()})
	}
}

// endLife ends the life under way, under the lock.
func (n *node) endLife(at time.Time) {
	if i := len(n.lives) - 1; i >= 0 && n.lives[i].to.IsZero() {
		n.lives[i].to = at
	}
}

// halt says that a fault keeps the node from recording from now on, or does no
// more: one that leaves its process alive. There may be several at once.
func (n *node) halt(on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if on {
		n.halts++
		n.endLife(time.Now())
		return
	}
	n.halts--
	n.beginLife()
}

// kill ends the process with SIGKILL.
func (n *node) kill() error { return n.end(syscall.SIGKILL) }

// stop ends it with SIGTERM.
func (n *node) stop() error { return n.end(syscall.SIGTERM) }

func (n *node) end(sig syscall.Signal) error {
	n.mu.Lock()
	if n.cmd == nil {
		n.mu.Unlock()
		return fmt.Errorf("%s is down already", n.name)
	}
	n.endLife(time.Now())
	n.asked, n.hears = true, false
	cmd, ended := n.cmd, n.ended
	n.mu.Unlock()
	cmd.Process.Signal(sig)
	cmd.Process.Signal(syscall.SIGCONT) // one that is stopped would not end
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		cmd.Process.Kill()
		<-ended
		return fmt.Errorf("%s did not end within 30 s of %v", n.name, sig)
	}
	if sig == syscall.SIGTERM {
		if code := cmd.ProcessState.ExitCode(); code != 0 {
			return fmt.Errorf("%s ended with status %d on SIGTERM", n.name, code)
		}
	}
	return nil
}

// signal sends a signal that does not end the process.
func (n *node) signal(sig syscall.Signal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd != nil {
		n.cmd.Process.Signal(sig)
	}
}

// setClock puts the node's wall clock ahead of the machine's.
func (n *node) setClock(ahead time.Duration) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil || n.clock == nil {
		return fmt.Errorf("%s has no clock of its own", n.name)
	}
	return n.clock.set(ahead)
}

// alive says whether the process is there.
func (n *node) alive() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cmd != nil
}

// status asks the node; nil: it does not answer.
func (n *node) status(ctx context.Context) *serve.NodeStatus {
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return n.lab.net.dial(ctx, n.i) },
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1/api/v1/streams", nil)
	if err != nil {
		return nil
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	var st serve.NodeStatus
	if json.NewDecoder(resp.Body).Decode(&st) != nil {
		return nil
	}
	return &st
}

// mode is the mode of the first stream, or "".
func (n *node) mode(ctx context.Context) string {
	if st := n.status(ctx); st != nil && len(st.Streams) > 0 {
		return st.Streams[0].Mode
	}
	return ""
}

// logged says how often the log holds a text.
func (n *node) logged(text string) int {
	b, _ := os.ReadFile(n.log)
	return bytes.Count(b, []byte(text))
}

// logTail is the end of the log, for a failure.
func (n *node) logTail(lines int) string {
	b, _ := os.ReadFile(n.log)
	l := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(l[max(0, len(l)-lines):], "\n")
}
