package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/twindvr/twindvr/pkg/testkit"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

func TestMain(m *testing.M) {
	testscript.Main(leakChecked{m}, map[string]func(){"bench": main})
}

type leakChecked struct{ m *testing.M }

func (l leakChecked) Run() int { return testkit.End(l.m.Run(), goleak.Find()) }

// benchIn is the command, to run with results in dir.
func benchIn(dir string, args ...string) *exec.Cmd {
	return exec.Command("bench", append([]string{"-twindvr", testkit.Program(), "-dir", dir}, args...)...)
}

// TestShort makes every measurement, small, of all but ffmpeg, which takes its
// time, and all at once: most of it is waiting.
func TestShort(t *testing.T) {
	type started struct {
		cmd  *exec.Cmd
		dir  string
		said bytes.Buffer
	}
	var list []*started
	for _, m := range measurements {
		s := &started{dir: t.TempDir()}
		s.cmd = benchIn(s.dir, "-short", "-duration", "1s", "-only", m.name)
		// Whatever ffmpeg is there is not found.
		s.cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(s.cmd.Path))
		s.cmd.Stdout, s.cmd.Stderr = &s.said, &s.said
		if err := s.cmd.Start(); err != nil {
			t.Error(err)
			break
		}
		list = append(list, s)
	}
	for i, s := range list {
		err := s.cmd.Wait()
		t.Run(measurements[i].name, func(t *testing.T) {
			if err != nil {
				t.Fatalf("%v\n%s", err, s.said.Bytes())
			}
			if !strings.Contains(s.said.String(), "ffmpeg is missing") {
				t.Errorf("a program that is missing is not named:\n%s", s.said.Bytes())
			}
			looksDone(t, s.dir, measurements[i].name)
		})
	}
}

// looksDone looks at what a measurement has left behind.
func looksDone(t *testing.T, dir, name string) {
	t.Helper()
	r := &report{}
	b, err := os.ReadFile(filepath.Join(dir, "results.json"))
	if err == nil {
		err = json.Unmarshal(b, r)
	}
	if err != nil || len(r.Tables) != 1 || len(r.Tables[0].Rows) == 0 || r.Tables[0].Failed != "" {
		t.Fatalf("%v; %s", err, b)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "work-*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	for _, c := range charts {
		if c.table == name {
			drawn(t, filepath.Join(dir, c.file))
		}
	}
}

// drawn looks at whether a plot is XML that is whole.
func drawn(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = xml.Unmarshal(b, new(struct{}))
	}
	if err != nil {
		t.Errorf("%s: %v", path, err)
	}
}

// TestInterrupt interrupts a run, and looks for what it has left behind.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := benchIn(dir, "-short", "-only", "udp", "-who", "twindvr", "-duration", "1m")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var children []int // the recorder and the sender
	for end := time.Now().Add(time.Minute); len(children) < 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			cmd.Process.Kill()
			t.Fatal("nothing is recorded")
		}
		children = childrenOf(t, cmd.Process.Pid)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 2 {
		t.Errorf("ended with %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
	for _, pid := range children {
		if !zombie(pid) {
			t.Errorf("process %d lives", pid)
		}
	}
}

func childrenOf(t *testing.T, pid int) (list []int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range tasks {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // a thread that has ended
		}
		for _, f := range strings.Fields(string(b)) {
			child, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, child)
		}
	}
	return list
}

// TestStale removes what a killed run has left, and not what another is using.
func TestStale(t *testing.T) {
	dir := t.TempDir()
	used := filepath.Join(dir, fmt.Sprintf("work-%d-1", os.Getpid()))
	for _, path := range []string{used, filepath.Join(dir, "work-999999999-1", "archive"), filepath.Join(dir, "other")} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b := &bench{}
	if err := b.workIn(dir); err != nil {
		t.Fatal(err)
	}
	got, err := filepath.Glob(filepath.Join(dir, "*"))
	if want := slices.Sorted(slices.Values([]string{filepath.Join(dir, "other"), used, b.dir})); err != nil || !slices.Equal(got, want) {
		t.Errorf("%q and not %q", got, want)
	}
}

// TestCompare runs two contenders and a missing one in turn, and looks at what is
// reported of them.
func TestCompare(t *testing.T) {
	b := &bench{runs: 3}
	tab := &table{Name: "udp", About: "something", Runs: 3}
	var order []string
	given := func(name string, cpu, gone float64) contender {
		return contender{name: name, run: func(context.Context) (sample, error) {
			order = append(order, name)
			n := float64(len(order)+1) / 2 // 1, 1.5, 2, …
			return sample{cpuPerGB: cpu * float64(int(n)), lost: gone * n}, nil
		}}
	}
	c, err := b.compare(t.Context(), tab, "2 streams", 2, []contender{given("one", 1, 0), given("two", 2, 2), b.peer("three", "nothing", nil)})
	if err != nil || strings.Join(order, " ") != "one two one two one two" {
		t.Fatal(order, err)
	}
	tab.atMost("cost", c.values("one", cpuPerGB), 1.5, "s/GB")
	tab.atLeast("cost", c.ratio("two", "one", cpuPerGB), 2, "times")
	tab.atMost("cost of three", c.above("three", "one", cpuPerGB), 2, "s/GB")
	tab.note("A note.")
	if g := tab.Targets; g[0].Verdict != "missed" || g[1].Verdict != "met" || g[2].Verdict != "not judged: nothing is missing" {
		t.Errorf("%+v", g)
	}
	r := &report{Tables: []*table{tab}}
	dir := t.TempDir()
	if err := r.save(dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "results.md"))
	for _, want := range []string{"| 2 streams | one ", " 2.00 (1.00–3.00) |", " 7 (3–7) |", "reached: 1 met, 1 missed, 1 not judged.\n\n- udp: cost: 2 (1–3) s/GB, and not ≤ 1.5 s/GB\n", "nothing is missing |", "| ≤ 1.5 s/GB | 2 (1–3) s/GB ", "A note."} {
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	again := &report{}
	again.keep(filepath.Join(dir, "results.json"))
	if err := again.save(dir); err != nil {
		t.Fatal(err)
	}
	if read, err := os.ReadFile(filepath.Join(dir, "results.md")); err != nil || !bytes.Equal(read, text) {
		t.Errorf("not the same when read from a file: %v\n%s", err, read)
	}
}

// TestCount finds what is missing of two streams, one in an archive's
// directory of several files and one in a single file.
func TestCount(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	es := numbered(t, 0, 100)
	write("archive/s0/a.mp4", es[:len(es)/2])
	write("archive/s0/b.mp4", es[len(es)/2:])
	write("000.mp4", numbered(t, 10, 100))
	size, lost, err := count(dir, false, &sending{Frames: 100}, 2)
	if err != nil || lost != 10 || size == 0 {
		t.Errorf("%d bytes, %d lost, %v", size, lost, err)
	}
	one := sending{Outputs: []testsrc.OutputStats{{Bytes: uint64(size) + 3*1316}}}
	if _, lost, _ := count(dir, true, &one, 1); lost != 3 {
		t.Errorf("%d datagrams lost", lost)
	}
}

// numbered holds the numbers of pictures from first up to end, as they stand in
// an elementary stream.
func numbered(t *testing.T, first, end int) []byte {
	t.Helper()
	var b []byte
	for i := first; i < end; i++ {
		b = append(b, testsrc.FrameUUID[:]...)
		b = fmt.Appendf(b, "twindvr testsrc frame %016d", i)
	}
	return b
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"-streams", "x"}, {"-streams", "0"}, {"-duration", "1s"}, {"-runs", "-1"}, {"more"}, {"-only", "nothing"},
		{"-twindvr", "/nonexistent/twindvr"}} {
		if _, err := parseFlags(args); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}

func TestFloorFile(t *testing.T) {
	in, out := filepath.Join(t.TempDir(), "in"), filepath.Join(t.TempDir(), "out")
	want := bytes.Repeat([]byte("0123456789"), 300_000)
	if err := os.WriteFile(in, want, 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := exec.Command("bench", "floor-file", in, out).CombinedOutput(); err != nil {
		t.Fatal(err, string(b))
	}
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
