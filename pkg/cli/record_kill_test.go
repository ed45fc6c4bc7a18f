package cli

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/testkit"
)

// twindvr is a command line of the program as it is shipped, in a process of its own.
func twindvr(args ...string) *exec.Cmd {
	return &exec.Cmd{Path: testkit.Program(), Args: append([]string{"twindvr"}, args...), Stderr: os.Stderr}
}

// sampleM4F is M4F of the test source's clip, and where each of its segments
// ends.
func sampleM4F(t *testing.T) (data []byte, ids []m4f.Identity, ends []int64) {
	t.Helper()
	ts, err := twindvr("testsrc", "--realtime=false", "--duration", "40s", "--log-level", "error").Output()
	if err != nil {
		t.Fatal(err)
	}
	ingest := twindvr("ingest", "--start", "2026-11-22T11:59:50Z", "--log-level", "error", "-")
	ingest.Stdin = bytes.NewReader(ts)
	if data, err = ingest.Output(); err != nil {
		t.Fatal(err)
	}
	r := m4f.NewReader(bytes.NewReader(data))
	for {
		seg, err := r.Next()
		if errors.Is(err, io.EOF) {
			return data, ids, ends
		}
		if err != nil {
			t.Fatal(err)
		}
		ids, ends = append(ids, seg.Header.ID), append(ends, r.Offset())
	}
}

// TestKillRecord kills record with SIGKILL at random bytes of its input. What
// was complete by then is in the archive, byte for byte, and nothing else; a new
// run goes on; every file plays.
func TestKillRecord(t *testing.T) {
	t.Parallel()
	data, ids, ends := sampleM4F(t)
	kills := 200
	if testing.Short() {
		kills = 20
	}
	ffprobe, err := exec.LookPath("ffprobe")
	if err != nil {
		t.Logf("ffprobe is not installed: %d archives are not opened with it", kills)
	}
	files := 0
	for range kills {
		at := rand.Int64N(int64(len(data)))
		whole := 0
		for whole < len(ends) && ends[whole] <= at {
			whole++
		}
		dir := filepath.Join(t.TempDir(), "s")
		killRecordAt(t, dir, data[:at], whole)
		checkSegments(t, dir, ids[:whole], at)
		if whole > 0 && ffprobe != "" {
			files += playAll(t, ffprobe, dir)
		}
		again := twindvr("record", dir, "--sync", "off")
		again.Stdin = bytes.NewReader(data)
		if out, err := again.Output(); err != nil || len(out) > 0 {
			t.Fatalf("recorded again after a kill at byte %d: %q, %v", at, out, err)
		}
		checkSegments(t, dir, ids, at)
	}
	t.Logf("%d kills, %d files opened in ffprobe", kills, files)
}

// killRecordAt writes input to record, waits until what is complete of it is in
// the archive, and kills it.
func killRecordAt(t *testing.T, dir string, input []byte, whole int) {
	t.Helper()
	cmd := twindvr("record", dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write(input); err != nil {
		t.Error(err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if s, err := archive.Open(dir); err == nil {
			if els, err := s.Span(0, 0); err == nil && len(els) >= whole {
				break
			}
		}
		if whole == 0 {
			break
		}
		if time.Now().After(end) {
			t.Errorf("%d segments did not come into the archive", whole)
			break
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	cmd.Wait()
}

func checkSegments(t *testing.T, dir string, want []m4f.Identity, at int64) {
	t.Helper()
	s, err := archive.Open(dir)
	if len(want) == 0 && errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	els, err := s.Span(0, 0)
	if err != nil || len(els) != len(want) {
		t.Fatalf("killed at byte %d: %d segments, want %d, %v", at, len(els), len(want), err)
	}
	for i := range els {
		if _, err := s.ReadElement(&els[i]); err != nil || els[i].ID != want[i] {
			t.Fatalf("killed at byte %d: segment %d: %v", at, i, err)
		}
	}
}

// playAll opens every extent in ffprobe.
func playAll(t *testing.T, ffprobe, dir string) int {
	t.Helper()
	n := 0
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".mp4") {
			n++
			if out, err := exec.Command(ffprobe, "-v", "error", "-show_entries", "stream=codec_name", "-of", "csv", path).CombinedOutput(); err != nil || !bytes.Contains(out, []byte("h264")) {
				t.Errorf("ffprobe %s: %s, %v", path, out, err)
			}
		}
		return err
	})
	return n
}
