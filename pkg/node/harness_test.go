package node_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/serve"
	"github.com/twindvr/twindvr/pkg/testkit"
)

func TestMain(m *testing.M) {
	// The tests wait for real time to pass far more than they compute.
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(testkit.End(m.Run(), goleak.Find(goleak.IgnoreTopFunction("internal/poll.runtime_pollWait"))))
}

// process is the program running.
type process struct {
	t       *testing.T
	cmd     *exec.Cmd
	log     string
	started time.Time
	done    chan error
}

// start runs the program in the background, its log in a file of the test.
func start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	return startWith(t, nil, name, args...)
}

// startWith is start with more in the environment.
func startWith(t *testing.T, env []string, name string, args ...string) *process {
	t.Helper()
	cmd := exec.Command(testkit.Program(), args...)
	cmd.Env = append(os.Environ(), env...)
	return startCommand(t, name, cmd)
}

// startCommand runs a command in the background, its log in a file of the test.
func startCommand(t *testing.T, name string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, log: filepath.Join(t.TempDir(), name+".log"), started: time.Now(), done: make(chan error, 1)}
	f, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p.cmd.Stdout, p.cmd.Stderr = f, f
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			b, _ := os.ReadFile(p.log)
			t.Logf("log of %s:\n%s", name, b)
		}
	})
	return p
}

// kill ends the process with SIGKILL and waits for it.
func (p *process) kill() {
	if p.done == nil {
		return
	}
	p.cmd.Process.Kill()
	<-p.done
	p.done = nil
}

// stop ends the process with SIGTERM and returns its exit status.
func (p *process) stop() int {
	p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.done
	p.done = nil
	return p.cmd.ProcessState.ExitCode()
}

// text is what the process has logged so far.
func (p *process) text() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

// run runs the program to its end.
func run(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	cmd := exec.Command(testkit.Program(), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if _, ok := err.(*exec.ExitError); !ok {
			t.Fatal(err)
		}
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// freePort is a TCP port that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

var groups atomic.Int32

// multicast is a group of the test's own on the loopback interface.
func multicast() string {
	n := groups.Add(1)
	return fmt.Sprintf("udp://239.%d.%d.%d:%d?interface=127.0.0.1", 64+os.Getpid()%128, os.Getpid()/128%256, n, 20000+os.Getpid()%20000)
}

// node is one node of a test.
type testNode struct {
	t      *testing.T
	name   string
	dir    string
	config string
	port   int
	*process
}

// keptDir is a directory of the test's own; TWINDVR_KEEP names one to keep it in.
func keptDir(t *testing.T, name string) string {
	root := os.Getenv("TWINDVR_KEEP")
	if root == "" {
		return t.TempDir()
	}
	dir := filepath.Join(root, t.Name(), name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// newNode writes a configuration; %PORT and %DIR stand for the node's own.
func newNode(t *testing.T, name, config string) *testNode {
	t.Helper()
	n := &testNode{t: t, name: name, dir: keptDir(t, name), port: freePort(t)}
	n.config = filepath.Join(t.TempDir(), name+".conf")
	n.configure(config)
	return n
}

func (n *testNode) configure(config string) {
	n.t.Helper()
	config = strings.NewReplacer("%PORT", fmt.Sprint(n.port), "%DIR", n.dir).Replace(config)
	if err := os.WriteFile(n.config, []byte(config), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

func (n *testNode) up() {
	n.t.Helper()
	n.upWith()
}

// upWith is up with more in the environment.
func (n *testNode) upWith(env ...string) {
	n.t.Helper()
	n.process = startWith(n.t, env, n.name, "supervise", n.config)
}

func (n *testNode) stream(name string) string { return filepath.Join(n.dir, name) }

// status asks the node; nil: it does not answer.
func (n *testNode) status() *serve.NodeStatus {
	c := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(fmt.Sprintf("http://127.0.0.1:%d/api/v1/streams", n.port))
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
func (n *testNode) mode() string {
	if st := n.status(); st != nil && len(st.Streams) > 0 {
		return st.Streams[0].Mode
	}
	return ""
}

// wroteWhole says whether a whole, clean segment was recorded live after a time.
func wroteWhole(dir string, after time.Time) bool {
	a, err := archive.Open(dir)
	if err != nil {
		return false
	}
	els, err := a.Span(m4f.UTCOf(after.Add(-time.Minute)), 0)
	if err != nil {
		return false
	}
	for _, e := range els {
		if e.Origin == archive.Live && e.Clean() && e.Arrived > after.UnixMilli() {
			return true
		}
	}
	return false
}

// within waits for something to become true.
func within(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(d)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", d, what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// export writes a span of a stream to a file and returns its bytes.
func export(t *testing.T, dir string, to m4f.UTC, wantStatus int) (data []byte, sum string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "export.mp4")
	args := []string{"export", dir, "-o", file}
	if to != 0 {
		args = append(args, "--to", to.Time().Format(time.RFC3339Nano))
	}
	if _, errs, status := run(t, args...); status != wantStatus {
		t.Fatalf("export %s: exit status %d, want %d: %s", dir, status, wantStatus, errs)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data, fmt.Sprintf("%x", sha256.Sum256(data))
}

// newest is the end of a stream's archive.
func newest(t *testing.T, dir string) m4f.UTC {
	t.Helper()
	a, err := archive.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	info, err := a.Info()
	if err != nil {
		t.Fatal(err)
	}
	return info.Newest
}
