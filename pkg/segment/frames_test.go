package segment_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// needFFmpeg skips a test where there is no ffmpeg.
func needFFmpeg(t testing.TB, what string) {
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skipf("no ffmpeg in PATH: %s not tested", what)
	}
}

// ffmpegHashes returns the hashes of what ffmpeg makes of one track of a file:
// decoded pictures, or audio frames as they are coded.
func ffmpegHashes(t testing.TB, path, track string, video, adts bool) []string {
	args := []string{"-v", "error", "-nostdin", "-fflags", "+genpts", "-analyzeduration", "60M", "-probesize", "100M", "-i", path, "-map", track, "-fps_mode", "passthrough"}
	switch {
	case video:
	case adts:
		args = append(args, "-c", "copy", "-bsf", "aac_adtstoasc")
	default:
		args = append(args, "-c", "copy")
	}
	cmd := exec.Command("ffmpeg", append(args, "-f", "framemd5", "-")...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("ffmpeg %s %s: %v\n%s", path, track, err, &stderr)
	}
	var hashes []string
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "#") {
			fields := strings.Split(line, ",")
			hashes = append(hashes, strings.TrimSpace(fields[5]))
		}
	}
	return hashes
}

// newFile says whether a file ends before segment k, as one of an archive does:
// at a new init segment, a new timeline, and where the clock wraps.
func newFile(segs []*m4f.Segment, k int) bool {
	h := &segs[k].Header
	return k == 0 || h.Init != segs[k-1].Header.Init || h.Flags&m4f.Discontinuity != 0 ||
		h.MediaTime < segs[k-1].Header.MediaTime
}

// writeMP4 writes segments to files and returns their names.
func writeMP4(t testing.TB, segs []*m4f.Segment) []string {
	var names []string
	var w *m4f.Writer
	var file *os.File
	closeFile := func() {
		if file != nil {
			if err := file.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for k, s := range segs {
		if newFile(segs, k) {
			closeFile()
			name := filepath.Join(t.TempDir(), fmt.Sprintf("%d.mp4", k))
			f, err := os.Create(name)
			if err != nil {
				t.Fatal(err)
			}
			file, w, names = f, m4f.NewWriter(f), append(names, name)
		}
		if err := w.WriteSegment(s); err != nil {
			t.Fatal(err)
		}
	}
	closeFile()
	return names
}

// hole is a run of pictures that cannot be decoded in a file of their own: a
// timeline that does not begin at a keyframe.
type hole struct{ at, n int }

// framesOf returns the hashes of a track's frames in all segments. A file in
// which it has none, or that lacks it, gives none.
func framesOf(t testing.TB, segs []*m4f.Segment, pid uint16) (hashes []string, holes []hole) {
	from, before := 0, 0
	for _, name := range writeMP4(t, segs) {
		init, err := m4f.ParseInit(segs[from].Init)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		index := slices.IndexFunc(init.Tracks, func(tr m4f.TrackInfo) bool { return tr.Config.PID == pid })
		for first := from; from < len(segs) && (from == first || !newFile(segs, from)); from++ {
			fragment, err := m4f.ParseFragment(init, segs[from].Media)
			if err != nil {
				t.Fatal(err)
			}
			if index < 0 {
				continue
			}
			frames := len(fragment.Tracks[index].Samples)
			if from == first && segs[from].Header.Flags&m4f.Keyframe == 0 && init.Tracks[index].Handler == "vide" {
				holes = append(holes, hole{before, frames})
			} else {
				n += frames
			}
			before += frames
		}
		if n > 0 {
			tr := &init.Tracks[index]
			decode := tr.Handler == "vide" || tr.Config.Codec == m4f.CodecLATM // its framing differs
			hashes = append(hashes, ffmpegHashes(t, name, fmt.Sprintf("0:%d", index), decode, tr.Config.Codec == m4f.CodecAAC)...)
		}
	}
	return hashes, holes
}

// sameFrames wants got to be want but for what lies before the first keyframe,
// for holes, and for a last frame that the source holds in part.
func sameFrames(t testing.TB, what string, got, want []string, cut int, holes []hole) {
	t.Helper()
	for head := 0; head <= cut; head++ {
		left := slices.Clone(want[min(head, len(want)):])
		for _, h := range slices.Backward(holes) {
			left = slices.Delete(left, min(h.at, len(left)), min(h.at+h.n, len(left)))
		}
		for tail := range 2 {
			if len(got)+tail == len(left) && slices.Equal(got, left[:len(got)]) {
				t.Logf("%s: %d frames, the first %d and the last %d of the source's not among them", what, len(got), head, tail)
				return
			}
		}
	}
	k := 0
	for k < min(len(got), len(want)) && got[k] == want[k] {
		k++
	}
	t.Errorf("%s: %d frames, the source has %d; frame %d is the first that differs; holes %v", what, len(got), len(want), k, holes)
}

// TestFrames wants the frames of every stream in its segments: pictures as they
// are decoded, audio as it is coded.
func TestFrames(t *testing.T) {
	needFFmpeg(t, "frames of 25 streams")
	// Audio frames before the first keyframe are not recorded, nor are those of
	// a track that a map adds, up to the next keyframe that opens a segment.
	cut := map[string]int{"gop05_ahead3": 150, "pmt2": 160}
	for _, path := range corpus(t) {
		name := strings.TrimSuffix(filepath.Base(path), ".ts")
		if testing.Short() && strings.HasPrefix(name, "tsduck") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ts := read(t, path)
			segs, s := run(ts, 4*time.Second, 0, len(ts)/packet, nil)
			if len(segs) == 0 {
				t.Skipf("nothing to record: %v", s.Diagnose())
			}
			checkFrames(t, path, segs, max(cut[name], 2))
		})
	}
}

// checkFrames compares every video and audio track of a stream's segments with
// the stream.
func checkFrames(t *testing.T, path string, segs []*m4f.Segment, cut int) {
	type track struct {
		decode bool
		codec  m4f.Codec
	}
	tracks := map[uint16]track{}
	for _, s := range segs {
		init, err := m4f.ParseInit(s.Init)
		if err != nil {
			t.Fatal(err)
		}
		for _, tr := range init.Tracks {
			if tr.Handler == "vide" || tr.Handler == "soun" {
				tracks[tr.Config.PID] = track{tr.Handler == "vide" || tr.Config.Codec == m4f.CodecLATM, tr.Config.Codec}
			}
		}
	}
	for _, pid := range slices.Sorted(maps.Keys(tracks)) {
		tr := tracks[pid]
		got, holes := framesOf(t, segs, pid)
		want := ffmpegHashes(t, path, fmt.Sprintf("0:i:%d", pid), tr.decode, tr.codec == m4f.CodecAAC)
		if tr.codec == m4f.CodecLATM && len(got) > 0 && got[0] != want[0] {
			got, cut = got[1:], cut+1 // a decoder laps each frame over the one before
		}
		sameFrames(t, fmt.Sprintf("PID %d, %v", pid, tr.codec), got, want, cut, holes)
	}
}
