package render

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/testkit"
)

// encode makes a transport stream with ffmpeg.
func encode(t *testing.T, args ...string) (string, []byte) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "clip.ts")
	testkit.Run(t, "ffmpeg", append(append([]string{"-v", "error"}, args...), "-f", "mpegts", name)...)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return name, b
}

// TestConfigurationChanges: a stream whose picture size and sampling rate
// change stays in its tracks, and ffmpeg decodes every picture of it.
func TestConfigurationChanges(t *testing.T) {
	testkit.Need(t, "ffmpeg", "ffprobe")
	for _, codec := range [][]string{
		{"-c:v", "libx264", "-preset", "ultrafast", "-g", "25"},
		{"-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "keyint=25:min-keyint=25:open-gop=0:log-level=none"},
	} {
		t.Run(codec[1], func(t *testing.T) {
			var m *memory
			var want []string
			var segs []*m4f.Segment
			at := start
			for _, size := range []string{"320x180", "192x108", "320x180"} {
				name, ts := encode(t, slices.Concat([]string{
					"-f", "lavfi", "-i", "testsrc2=s=" + size + ":r=25:d=3", "-f", "lavfi", "-i", "sine=r=48000:d=3",
					"-pix_fmt", "yuv420p",
				}, codec, []string{"-c:a", "aac", "-ac", "2"})...)
				part := record(ts, second)
				for _, s := range part {
					s.Header.UTC = s.Header.UTC - start + at
				}
				at = part[len(part)-1].Header.End()
				want = append(want, decoded(t, name)...)
				segs = append(segs, part...)
			}
			m = newMemory(segs...)
			for _, fast := range []bool{false, true} {
				file, res := export(t, m, Options{Faststart: fast})
				if len(res.Gaps) != 0 {
					t.Errorf("gaps %v", res.Gaps)
				}
				if got := decoded(t, file); !slices.Equal(got, want) {
					t.Errorf("faststart %v: %d pictures decoded, want %d, or other ones", fast, len(got), len(want))
				}
				if s := probe(t, file); len(s) != 2 || s[0].Packets != "225" || s[0].Start != "0.000000" && s[1].Start != "0.000000" {
					t.Errorf("faststart %v: %+v", fast, s)
				}
			}
			tracks := bothFormats(t, m, Options{})
			entries := map[uint32]int{}
			for _, s := range tracks[0] {
				entries[s.entry]++
			}
			if entries[1] != 150 || entries[2] != 75 {
				t.Errorf("pictures by sample description: %v, want 150 and 75", entries)
			}
		})
	}
}
