package render

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/testkit"
)

// TestPreview: the picture at a time is the last keyframe up to it, decodes to the
// same as in the stream, and is little else.
func TestPreview(t *testing.T) {
	testkit.Need(t, "ffmpeg", "ffprobe")
	for _, codec := range [][]string{
		{"-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-bf", "2"},
		{"-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "keyint=25:min-keyint=25:log-level=none"},
		{"-c:v", "mpeg2video", "-g", "25", "-bf", "2", "-b:v", "1M"},
	} {
		t.Run(codec[1], func(t *testing.T) {
			_, ts := encode(t, slices.Concat([]string{"-f", "lavfi", "-i", "testsrc2=s=192x108:r=25:d=8", "-f", "lavfi", "-i", "sine=r=48000:d=8", "-pix_fmt", "yuv420p"},
				codec, []string{"-c:a", "aac"})...)
			segs := record(ts, 4*second)
			a := stored(t, segs...)
			file, _ := export(t, bounded{a}, Options{})
			pictures := decoded(t, file)
			whole, _ := exportBytes(t, bounded{a}, Options{})
			shown := func(at int64) (pts int64) { // the last keyframe up to a time
				for _, s := range readExport(t, whole)[0] {
					if s.sync && s.pts <= at {
						pts = max(pts, s.pts)
					}
				}
				return pts
			}
			first := segs[0].Header.UTC
			for _, ms := range []int64{0, 1000, 5500, 7990} {
				at, want := first.Add(ms*90), shown(ms*90)
				pic, err := Preview(context.Background(), a, at)
				if err != nil {
					t.Fatal(err)
				}
				if pic.UTC != first.Add(want) || !pic.Settled {
					t.Errorf("at %d ms: the picture of %d ms, settled %v", ms, (pic.UTC-first)/90, pic.Settled)
				}
				name := filepath.Join(t.TempDir(), "preview.mp4")
				if err := os.WriteFile(name, pic.MP4, 0o600); err != nil {
					t.Fatal(err)
				}
				if got := decoded(t, name); !slices.Equal(got, pictures[want/frameTicks:want/frameTicks+1]) {
					t.Errorf("at %d ms: %d pictures, or another one", ms, len(got))
				}
				if ms > 0 {
					continue
				}
				if s := probe(t, name); len(s) != 1 || s[0].Start != "0.000000" {
					t.Errorf("at %d ms: %+v", ms, s)
				}
			}
			last := segs[len(segs)-1].Header.End()
			pic, err := Preview(context.Background(), a, last.Add(20*60*m4f.Timescale))
			if err != nil || pic.Settled || pic.UTC != first.Add(shown(8*m4f.Timescale)) {
				t.Errorf("after the end: %v, or another picture", err)
			}
			for _, at := range []m4f.UTC{first - 1, last.Add(3 * 3600 * m4f.Timescale)} {
				if _, err := Preview(context.Background(), a, at); !errors.Is(err, ErrNoPicture) {
					t.Errorf("%v, want ErrNoPicture", err)
				}
			}
		})
	}
	if _, err := Preview(context.Background(), radio(t, 2), start.Add(m4f.Timescale)); !errors.Is(err, ErrNoPicture) {
		t.Errorf("sound alone: %v, want ErrNoPicture", err)
	}
}
