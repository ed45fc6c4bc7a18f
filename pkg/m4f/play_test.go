package m4f

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/Eyevinn/mp4ff/mp4"

	"github.com/twindvr/twindvr/pkg/testkit"
)

// run returns a command's output and fails the test if it says anything on
// stderr.
func run(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	out, says := testkit.Run(t, name, args...)
	if says != "" {
		t.Fatalf("%s %s: %s", name, strings.Join(args, " "), says)
	}
	return []byte(out)
}

type probed struct {
	Streams []struct {
		CodecType string `json:"codec_type"`
		CodecName string `json:"codec_name"`
		Tag       string `json:"codec_tag_string"`
		Packets   string `json:"nb_read_packets"`
		Frames    string `json:"nb_read_frames"`
		Width     int
		Height    int
		SAR       string `json:"sample_aspect_ratio"`
		Rate      string `json:"sample_rate"`
		Channels  int
		Tags      map[string]string
	}
}

func probe(t *testing.T, file string) probed {
	t.Helper()
	var p probed
	out := run(t, "ffprobe", "-v", "error", "-count_packets", "-count_frames", "-show_streams", "-of", "json", file)
	if err := json.Unmarshal(out, &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// frames is the MD5 of each decoded frame, or of each packet as coded.
func frames(t *testing.T, file, kind string, asCoded bool) string {
	t.Helper()
	args := []string{"-v", "error", "-i", file, "-map", "0:" + kind}
	if asCoded {
		args = append(args, "-c", "copy")
	}
	out := run(t, "ffmpeg", append(args, "-f", "framemd5", "-")...)
	var sums []string
	for _, l := range strings.Split(string(out), "\n") {
		if f := strings.Split(l, ","); len(f) == 6 {
			sums = append(sums, strings.TrimSpace(f[5]))
		}
	}
	return strings.Join(sums, "\n")
}

// TestPlays writes each codec as a stream and has ffmpeg and mp4ff read it.
func TestPlays(t *testing.T) {
	testkit.Need(t, "ffmpeg", "ffprobe")
	clips := map[Codec]string{
		CodecH264: "clip.h264", CodecHEVC: "clip.hevc", CodecMPEG2Video: "clip.m2v",
		CodecAAC: "clip.aac", CodecMPEGAudio: "clip.mp2", CodecAC3: "clip.ac3", CodecEAC3: "clip.eac3",
	}
	for _, c := range []struct {
		video, audio           Codec
		vname, vtag, aname, at string
	}{
		{CodecH264, CodecAAC, "h264", "avc1", "aac", "mp4a"},
		{CodecHEVC, CodecMPEGAudio, "hevc", "hvc1", "mp3", "mp4a"},
		{CodecMPEG2Video, CodecAC3, "mpeg2video", "mp4v", "ac3", "ac-3"},
		{CodecH264, CodecEAC3, "h264", "avc1", "eac3", "ec-3"},
	} {
		t.Run(fmt.Sprintf("%s-%s", c.video, c.audio), func(t *testing.T) {
			segs := buildClip(t, c.video, c.audio, 10*Timescale)
			b := stream(t, segs)
			file := filepath.Join(t.TempDir(), "clip.mp4")
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			checkProbe(t, probe(t, file), c.vname, c.vtag, c.aname, c.at)
			if got, want := frames(t, file, "v", false), frames(t, filepath.Join("testdata", clips[c.video]), "v", false); got != want {
				t.Errorf("decoded video frames differ:\n%s\nwant\n%s", got, want)
			}
			// ffmpeg decodes object type 0x6B with its layer III decoder,
			// which rounds layer II otherwise than its own.
			coded := c.audio == CodecMPEGAudio
			if got, want := frames(t, file, "a", coded), frames(t, filepath.Join("testdata", clips[c.audio]), "a", coded); len(got) < 1000 || !strings.HasPrefix(want, got) {
				t.Errorf("decoded audio frames differ:\n%s\nwant\n%s", got, want)
			}
			checkMP4FF(t, b, segs)
		})
	}
}

func checkProbe(t *testing.T, p probed, vname, vtag, aname, atag string) {
	t.Helper()
	if len(p.Streams) != 4 {
		t.Fatalf("ffprobe sees %d streams, want 4: %+v", len(p.Streams), p)
	}
	v, a := p.Streams[0], p.Streams[1]
	if v.CodecName != vname || v.Tag != vtag || v.Frames != "50" || v.Packets != "50" || v.Width != 96 || v.Height != 64 || v.SAR != "32:27" {
		t.Errorf("video: %+v", v)
	}
	if a.CodecName != aname || a.Tag != atag || a.Packets == "0" || a.Rate != "48000" || a.Channels != 2 || a.Tags["language"] != "deu" {
		t.Errorf("audio: %+v", a)
	}
	if d := p.Streams[2]; d.CodecType != "data" || d.Tag != "urim" || d.Packets != "2" || d.Tags["language"] != "fra" {
		t.Errorf("data: %+v", d)
	}
}

// checkMP4FF decodes the stream with mp4ff and counts samples.
func checkMP4FF(t *testing.T, b []byte, segs []*Segment) {
	t.Helper()
	f, err := mp4.DecodeFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	n, ticks := 0, uint64(0)
	for _, s := range f.Segments {
		for _, frag := range s.Fragments {
			for i, traf := range frag.Moof.Trafs {
				if traf.Trun == nil {
					continue
				}
				if i == 0 {
					n += int(traf.Trun.SampleCount())
					ticks += traf.Trun.Duration(0)
				}
			}
		}
	}
	if n != 50 || ticks != 50*frameTicks {
		t.Errorf("mp4ff counts %d video samples and %d ticks, want 50 and %d", n, ticks, 50*frameTicks)
	}
	for _, s := range segs {
		var out bytes.Buffer
		init, err := mp4.DecodeFile(bytes.NewReader(s.Init))
		if err != nil {
			t.Fatal(err)
		}
		if err := init.Init.Encode(&out); err != nil || !bytes.Equal(out.Bytes(), s.Init) {
			t.Errorf("mp4ff does not write the init segment back as it was: %v", err)
		}
	}
}
