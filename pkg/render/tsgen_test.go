package render

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/twindvr/twindvr/pkg/testkit"
)

// TestTSCodecs: streams of every codec that ffmpeg makes flow through a decoder
// and are recorded again as they were.
func TestTSCodecs(t *testing.T) {
	testkit.Need(t, "ffmpeg", "ffprobe")
	video := []string{"-f", "lavfi", "-i", "testsrc2=s=320x180:r=25:d=5"}
	sound := []string{"-f", "lavfi", "-i", "sine=r=48000:d=5"}
	x264 := []string{"-c:v", "libx264", "-preset", "ultrafast", "-bf", "3", "-b_strategy", "0", "-g", "25", "-pix_fmt", "yuv420p"}
	for name, args := range map[string][]string{
		"h264_aac44":   slices.Concat(video, sound, x264, []string{"-c:a", "aac", "-ar", "44100", "-ac", "2"}),
		"h264_mp2_44":  slices.Concat(video, sound, x264, []string{"-c:a", "mp2", "-ar", "44100"}),
		"hevc_opus":    slices.Concat(video, sound, []string{"-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "keyint=25:open-gop=1:bframes=3:log-level=none", "-pix_fmt", "yuv420p", "-c:a", "libopus"}),
		"mpeg2_eac3":   slices.Concat(video, sound, []string{"-c:v", "mpeg2video", "-bf", "2", "-g", "12", "-flags", "+ildct+ilme", "-b:v", "2M", "-c:a", "eac3", "-ac", "2"}),
		"h264_latm":    slices.Concat(video, sound, x264, []string{"-c:a", "aac", "-mpegts_flags", "latm"}),
		"h264_dts":     slices.Concat(video, sound, x264, []string{"-c:a", "dca", "-strict", "-2", "-ac", "2"}),
		"radio_aac":    slices.Concat(sound, []string{"-c:a", "aac", "-ar", "44100"}),
		"radio_many":   slices.Concat(sound, []string{"-map", "0", "-map", "0", "-map", "0", "-c:a:0", "mp2", "-c:a:1", "ac3", "-c:a:2", "aac"}),
		"three_sounds": slices.Concat(video, sound, x264, []string{"-map", "0", "-map", "1", "-map", "1", "-map", "1", "-c:a:0", "aac", "-c:a:1", "ac3", "-c:a:2", "mp2"}),
	} {
		t.Run(name, func(t *testing.T) {
			_, ts := encode(t, args...)
			segs := record(ts, 2*second)
			if len(segs) < 2 {
				t.Fatalf("%d segments", len(segs))
			}
			b, res := exportBytes(t, newMemory(segs...), Options{Format: TS})
			if res.Left > 0 {
				t.Errorf("%d frames left out", res.Left)
			}
			s := readTS(t, b)
			if r := s.decode(stdTracks(t, segs)); !r.clean() || s.breaks > 0 {
				t.Errorf("%+v, %d counters broken\n%s", *r, s.breaks, strings.Join(r.notes, "\n"))
			}
			again := record(b, 2*second)
			for i, id := range ids(segs) {
				if !slices.Contains(ids(again), id) {
					t.Errorf("segment %d of %d is not recorded again", i, len(segs))
				}
			}
			if c, _ := exportBytes(t, newMemory(again...), Options{Format: TS}); !bytes.Equal(b, c) {
				t.Error("the export of an export differs")
			}
		})
	}
}
