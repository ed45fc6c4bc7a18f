package main

import (
	"bytes"
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

func TestReport(t *testing.T) {
	r := &report{Machine: "M", CPUs: 2, Runs: 3}
	r.add([]row{
		{What: "udp", Recorder: "x", Streams: 2, Seconds: 10, Bytes: 1e9, User: 3, Unit: "pictures"},
		{What: "udp", Recorder: "x", Streams: 2, Seconds: 10, Bytes: 1e9, User: 1, Unit: "pictures", Lost: 7},
		{What: "udp", Recorder: "x", Streams: 2, Seconds: 10, Bytes: 2e9, User: 3, System: 1, Unit: "pictures", PeakBytes: 20e6},
	})
	if m := r.Rows[0]; m.CPUPerGB != 2 || m.Lowest != 1 || m.Highest != 3 || m.Lost != 7 {
		t.Errorf("%+v", m)
	}
	var out bytes.Buffer
	r.print(&out)
	if s := out.String(); !strings.Contains(s, "2.00") || !strings.Contains(s, "1.00–3.00") || !strings.Contains(s, "7 pictures") {
		t.Error(s)
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
	for _, args := range [][]string{{"-streams", "x"}, {"-streams", "0"}, {"-duration", "1s"}, {"-runs", "0"}, {"more"},
		{"-twindvr", "/nonexistent/twindvr"}} {
		if _, _, err := parseFlags(args); err == nil {
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
