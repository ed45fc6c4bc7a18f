package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/twindvr/twindvr/pkg/testsrc"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "floor-file" {
		os.Exit(floorMain(os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
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
	for _, want := range []string{"| 2 streams | one ", " 2.00 (1.00–3.00) |", " 7 (3–7) |", "nothing is missing |", "| ≤ 1.5 s/GB | 2 (1–3) s/GB ", "A note."} {
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
	if b, err := exec.Command(os.Args[0], "floor-file", in, out).CombinedOutput(); err != nil {
		t.Fatal(err, string(b))
	}
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
