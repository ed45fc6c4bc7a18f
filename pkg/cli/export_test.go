package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// nothingToKeep are the streams of the corpus without a keyframe or frame of a
// codec that is recorded.
var nothingToKeep = []string{"media3-sample_latm", "tsduck-012", "tsduck-044.pes", "tsduck-101"}

// missed is what cannot be recorded: the first frames of tracks that a second
// map adds in pmt2, up to the next segment; sound that lies three seconds ahead
// of the first map in the other one.
var missed = map[string]late{"pmt2": {audio: true}, "gop05_ahead3": {audio: true}}

type late struct {
	video int  // pictures
	audio bool // any number of frames of sound
}

// TestPipelineKeepsEveryFrame runs ingest, record and export over the corpus.
// What ffmpeg reads from an export is what it reads from the source from the
// first keyframe on: the pictures decoded, the sound as coded.
func TestPipelineKeepsEveryFrame(t *testing.T) {
	t.Parallel()
	files := pipelineCorpus(t)
	for _, path := range files {
		name := strings.TrimSuffix(filepath.Base(path), ".ts")
		if slices.Contains(nothingToKeep, name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			src := source{path: path, tracks: pipelineRecord(t, path, filepath.Join(dir, "stream")), frames: map[int][]mediaFrame{}}
			for _, format := range []string{"--format=mp4", "--faststart", "--format=ts"} {
				out := filepath.Join(dir, "export"+format)
				pipelineRun(t, nil, nil, "export", filepath.Join(dir, "stream"), "-o", out, format)
				src.compare(t, out, missed[name], format == "--format=ts")
			}
		})
	}
}

func pipelineCorpus(t *testing.T) []string {
	root := os.Getenv("TWINDVR_TESTDATA")
	if root == "" {
		t.Skip("TWINDVR_TESTDATA is not set: 25 transport streams not tested")
	}
	for _, p := range []string{"ffmpeg", "ffprobe"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("25 tests need %s", p)
		}
	}
	var files []string
	for _, dir := range []string{"ts", "hard"} {
		m, err := filepath.Glob(filepath.Join(root, dir, "*.ts"))
		if err != nil || len(m) == 0 {
			t.Fatalf("no streams in %s: %v", filepath.Join(root, dir), err)
		}
		files = append(files, m...)
	}
	return files
}

// pipelineRun runs a command as its process would; its status may be 0 or 1.
func pipelineRun(t *testing.T, in io.Reader, out io.Writer, args ...string) {
	t.Helper()
	var errs bytes.Buffer
	sys := System()
	sys.In, sys.Out, sys.Err = in, out, &errs
	if out == nil {
		sys.Out = io.Discard
	}
	if status := Main(append(args, "--log-level", "error"), sys); status == exitTrouble {
		t.Fatalf("twindvr %s: status %d\n%s", strings.Join(args, " "), status, &errs)
	}
}

// pipelineRecord records a file and returns its tracks as an export has them.
func pipelineRecord(t *testing.T, path, dir string) []m4f.TrackConfig {
	t.Helper()
	var stream bytes.Buffer
	pipelineRun(t, nil, &stream, "ingest", path)
	pipelineRun(t, bytes.NewReader(stream.Bytes()), nil, "record", dir)
	return tracksOf(t, stream.Bytes())
}

// tracksOf are the tracks of all segments of a stream of M4F, as an export has
// them: video first, then by PID.
func tracksOf(t *testing.T, stream []byte) []m4f.TrackConfig {
	t.Helper()
	var tracks []m4f.TrackConfig
	for r := m4f.NewReader(bytes.NewReader(stream)); ; {
		seg, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		init, err := m4f.ParseInit(seg.Init)
		if err != nil {
			t.Fatal(err)
		}
		for _, tr := range init.Tracks {
			if !slices.ContainsFunc(tracks, func(c m4f.TrackConfig) bool { return c.PID == tr.Config.PID }) {
				tracks = append(tracks, tr.Config)
			}
		}
	}
	slices.SortStableFunc(tracks, func(a, b m4f.TrackConfig) int {
		if a.Codec.IsVideo() != b.Codec.IsVideo() {
			if a.Codec.IsVideo() {
				return -1
			}
			return 1
		}
		return int(a.PID) - int(b.PID)
	})
	return tracks
}

// mediaFrame is a frame as framemd5 lists it.
type mediaFrame struct {
	pts  int64
	hash string
}

func mediaFrames(t *testing.T, file, stream string, args ...string) []mediaFrame {
	t.Helper()
	args = append([]string{"-v", "fatal", "-copyts", "-probesize", "100M", "-analyzeduration", "100M", "-i", file, "-map", "0:" + stream}, args...)
	cmd := exec.Command("ffmpeg", append(args, "-f", "framemd5", "-")...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	var frames []mediaFrame
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), ",")
		if len(f) < 6 || strings.HasPrefix(line, "#") {
			continue
		}
		pts, err := strconv.ParseInt(strings.TrimSpace(f[2]), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, mediaFrame{pts, strings.TrimSpace(f[5])})
	}
	return frames
}

// source is a transport stream and what ffmpeg reads from it.
type source struct {
	path    string
	tracks  []m4f.TrackConfig
	frames  map[int][]mediaFrame // by track, as far as read
	opening *int64               // PTS of the first picture that an export has
}

// read returns the frames of a track: pictures decoded, sound as coded.
func (s *source) read(t *testing.T, i int) []mediaFrame {
	t.Helper()
	if s.frames[i] == nil {
		c := s.tracks[i]
		args := []string{"-fps_mode", "passthrough"}
		if c.Codec.IsAudio() {
			args = []string{"-c", "copy"}
		}
		if c.Codec == m4f.CodecAAC {
			args = append(args, "-bsf:a", "aac_adtstoasc")
		}
		s.frames[i] = mediaFrames(t, s.path, fmt.Sprintf("i:%d", c.PID), args...)
	}
	return s.frames[i]
}

// compare compares an export with the source. A transport stream has its times,
// too, and ffmpeg has to say of it.
func (s *source) compare(t *testing.T, export string, missed late, ts bool) {
	t.Helper()
	if n := streamCount(t, export); n != len(s.tracks) {
		t.Errorf("%d tracks, want %d", n, len(s.tracks))
	}
	for i, c := range s.tracks {
		if c.Codec.IsData() {
			continue
		}
		args := []string{"-fps_mode", "passthrough"}
		if c.Codec.IsAudio() {
			args = []string{"-c", "copy"}
		}
		src := s.read(t, i)
		stream := strconv.Itoa(i)
		if ts {
			stream = fmt.Sprintf("i:%d", c.PID)
			if c.Codec == m4f.CodecAAC {
				args = append(args, "-bsf:a", "aac_adtstoasc")
			}
		}
		got := mediaFrames(t, export, stream, args...)
		skipped := compareFrames(t, c, got, src)
		if ts && skipped >= 0 {
			compareTimes(t, c, got, src[skipped:])
		}
		switch {
		case skipped < 0:
		case c.Codec.IsVideo():
			if skipped != missed.video {
				t.Errorf("PID %d: %d pictures ahead of the first one kept, want %d", c.PID, skipped, missed.video)
			}
			if s.opening == nil {
				s.opening = &mediaFrames(t, s.path, fmt.Sprintf("i:%d", c.PID), "-c", "copy")[skipped].pts
			}
		case s.opening == nil && skipped > 1, // the first one may be cut
			// ffmpeg rounds times inside a PES packet up.
			s.opening != nil && !missed.audio && skipped > 0 && src[skipped-1].pts > *s.opening,
			s.opening != nil && src[skipped].pts < *s.opening:
			t.Errorf("PID %d: %d frames ahead of the first one kept, at %d", c.PID, skipped, src[skipped].pts)
		}
	}
}

// compareFrames wants got to be the end of src, but for a last frame that the
// source does not hold whole. It returns how many of src are ahead of it, -1 if
// it is not.
func compareFrames(t *testing.T, c m4f.TrackConfig, got, src []mediaFrame) int {
	t.Helper()
	hashes := func(f []mediaFrame) []string {
		var out []string
		for _, x := range f {
			out = append(out, x.hash)
		}
		return out
	}
	g, s := hashes(got), hashes(src)
	if len(g) == 0 {
		t.Errorf("PID %d: no frames, the source has %d", c.PID, len(s))
		return -1
	}
	for cut := 0; cut <= 1; cut++ {
		if n := len(s) - cut - len(g); n >= 0 && slices.Equal(s[n:n+len(g)], g) {
			return n
		}
	}
	i := slices.Index(s, g[0])
	k := 0
	for i >= 0 && k < len(g) && i+k < len(s) && g[k] == s[i+k] {
		k++
	}
	t.Errorf("PID %d (%s): %d frames of the source's %d; the first is its number %d, from there %d are equal", c.PID, c.Codec, len(g), len(s), i, k)
	return -1
}

// compareTimes wants the PTS of frames to be those of the source. ffmpeg counts
// them itself inside a PES packet, and rounds; where a source begins with the end
// of a frame it gives that the PTS of the frame behind it.
func compareTimes(t *testing.T, c m4f.TrackConfig, got, src []mediaFrame) {
	t.Helper()
	for k := range got {
		if k == 0 && c.Codec.IsAudio() {
			continue
		}
		if d := got[k].pts - src[k].pts; d < -1 || d > 1 || c.Codec.IsVideo() && d != 0 {
			t.Errorf("PID %d (%s): frame %d of %d has PTS %d, in the source %d", c.PID, c.Codec, k, len(got), got[k].pts, src[k].pts)
			return
		}
	}
}

func streamCount(t *testing.T, file string) int {
	t.Helper()
	out, err := exec.Command("ffprobe", "-v", "error", "-show_streams", "-of", "json", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	var p struct{ Streams []struct{} }
	if err := json.Unmarshal(out, &p); err != nil {
		t.Fatal(err)
	}
	return len(p.Streams)
}
