package render

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
	"github.com/twindvr/twindvr/pkg/segment"
	"github.com/twindvr/twindvr/pkg/testkit"
)

// TestCodecsPlay exports every audio codec that ffmpeg can encode, in both
// forms, and has ffprobe and ffmpeg read what comes out: the codec, rate,
// channels and duration are those of the source, and it decodes without an
// error to as much sound.
func TestCodecsPlay(t *testing.T) {
	testkit.Need(t, "ffmpeg", "ffprobe")
	dir := t.TempDir()
	for _, c := range []struct {
		name, args string
		tag        string
		want       string // codec, rate, channels
	}{
		{"latm51", "-c:a aac -ac 6 -mpegts_flags latm", "mp4a", "aac,48000,6"},
		{"aac71", "-c:a aac -channel_layout 7.1 -ac 8", "mp4a", "aac,48000,8"},
		{"dts", "-strict -2 -c:a dca -channel_layout 5.1(side) -b:a 768k", "dtsc", "dts,48000,6"},
		{"opus", "-c:a libopus -ac 2", "Opus", "opus,48000,2"},
		{"opus51", "-c:a libopus -ac 6 -mapping_family 1", "Opus", "opus,48000,6"},
		{"eac3", "-c:a eac3 -ac 6", "ec-3", "eac3,48000,6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := filepath.Join(dir, c.name+".ts")
			args := "-v error -nostdin -y -f lavfi -i testsrc2=s=96x64:r=25:d=4 -f lavfi -i sine=440:r=48000:d=4 -c:v libx264 -preset ultrafast -g 25 -threads 1 " + c.args + " -f mpegts " + name
			testkit.Run(t, "ffmpeg", strings.Fields(args)...)
			ts, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			a := newMemory(record(ts, 2*second)...)
			for _, fast := range []bool{false, true} {
				file, _ := export(t, a, Options{Faststart: fast})
				out, says := testkit.Run(t, "ffprobe", "-v", "error", "-select_streams", "a:0", "-show_entries", "stream=codec_name,sample_rate,channels,duration", "-of", "csv=p=0", file)
				f := strings.Split(strings.Trim(strings.Split(out, "\n")[0], ","), ",")
				if says != "" || len(f) != 4 || strings.Join(f[:3], ",") != c.want {
					t.Fatalf("faststart %v: ffprobe reads %s, want %s; it says %q", fast, out, c.want, says)
				}
				if d, err := strconv.ParseFloat(f[3], 64); err != nil || d < 3.9 || d > 4.1 {
					t.Errorf("faststart %v: %s s", fast, f[3])
				}
				if s := probe(t, file); s[1].Tag != c.tag {
					t.Errorf("sample entry %s, want %s", s[1].Tag, c.tag)
				}
				rate, _ := strconv.Atoi(f[1])
				channels, _ := strconv.Atoi(f[2])
				pcm, says := testkit.Run(t, "ffmpeg", "-v", "error", "-nostdin", "-i", file, "-map", "0:a:0", "-f", "s16le", "-c:a", "pcm_s16le", "-")
				if n := len(pcm) / 2 / channels; says != "" || n < rate*39/10 || n > rate*41/10 {
					t.Errorf("faststart %v: %d samples decoded at %d Hz; ffmpeg says %q", fast, n, rate, says)
				}
			}
		})
	}
}

// TestLayoutChanges exports a stream whose sound turns from stereo to 5.1 on the
// same PID: the track has both sample entries, and each segment its own. Frames
// of the segment in which it changes have the entry of its first. (Of several
// entries in a fragmented file ffmpeg uses one.)
func TestLayoutChanges(t *testing.T) {
	testkit.Need(t, "ffmpeg", "ffprobe")
	dir := t.TempDir()
	var ts []byte
	for k, channels := range []int{2, 6} {
		name := filepath.Join(dir, fmt.Sprint(k))
		args := fmt.Sprintf("-v error -nostdin -y -f lavfi -i testsrc2=s=96x64:r=25:d=4 -f lavfi -i sine=440:r=48000:d=4 -c:v libx264 -preset ultrafast -g 25 -threads 1 -c:a aac -ac %d -mpegts_flags latm+initial_discontinuity -output_ts_offset %d -f mpegts %s", channels, 4*k, name)
		testkit.Run(t, "ffmpeg", strings.Fields(args)...)
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		ts = append(ts, b...)
	}
	a := newMemory(record(ts, 2*second)...)
	for _, fast := range []bool{false, true} {
		file, _ := export(t, a, Options{Faststart: fast})
		out, err := exec.Command("ffprobe", "-v", "quiet", "-select_streams", "a:0", "-count_packets", "-show_entries", "stream=nb_read_packets", "-of", "csv=p=0", file).Output()
		if n, _ := strconv.Atoi(strings.TrimSpace(string(out))); err != nil || n < 370 {
			t.Errorf("faststart %v: %d frames (%v)", fast, n, err)
		}
		if !fast {
			continue
		}
		out, err = exec.Command("ffprobe", "-v", "quiet", "-select_streams", "a:0", "-show_entries", "frame=channels", "-of", "csv=p=0", file).Output()
		if n, m := strings.Count(string(out), "2"), strings.Count(string(out), "6"); err != nil || n < 180 || m < 90 {
			t.Errorf("%d frames of stereo, %d of 5.1 (%v)", n, m, err)
		}
	}
}

// TestG711Plays exports G.711 that came as access units, of two channels and 16
// kHz, and has ffmpeg read every byte of it.
func TestG711Plays(t *testing.T) {
	testkit.Need(t, "ffmpeg", "ffprobe")
	for codec, format := range map[m4f.Codec]string{m4f.CodecALaw: "alaw", m4f.CodecMuLaw: "mulaw"} {
		p := mpegts.NewProgram(1, 0x101, []mpegts.Track{{PID: 0x101, StreamType: 0x90, Codec: codec}})
		var segs []*m4f.Segment
		s := segment.New(segment.Config{TargetDuration: m4f.Timescale, Clock: clock.System, Unpaced: true, Start: start},
			func(seg *m4f.Segment) { segs = append(segs, seg) })
		s.SetProgram(p)
		var want []byte
		for k := range 200 { // 20 ms each
			b := make([]byte, 640)
			for i := range b {
				b[i] = byte(k + i)
			}
			want = append(want, b...)
			u := mpegts.NewFrame(p.Track(0x101), 90000+1800*int64(k), 1800, mpegts.G711Header(2, 16000), b)
			s.WriteUnit(&u, clock.System.Now())
		}
		s.Close()
		for _, fast := range []bool{false, true} {
			file, _ := export(t, newMemory(segs...), Options{Faststart: fast})
			out, says := testkit.Run(t, "ffprobe", "-v", "error", "-show_entries", "stream=codec_name,sample_rate,channels,duration", "-of", "csv=p=0", file)
			if got := "pcm_" + format + ",16000,2,4.000000"; says != "" || strings.TrimSpace(out) != got {
				t.Errorf("faststart %v: ffprobe reads %s, want %s; it says %q", fast, out, got, says)
			}
			raw, says := testkit.Run(t, "ffmpeg", "-v", "error", "-nostdin", "-i", file, "-map", "0:a", "-c", "copy", "-f", format, "-")
			if raw != string(want) || says != "" {
				t.Errorf("faststart %v: %d bytes of %d; ffmpeg says %q", fast, len(raw), len(want), says)
			}
		}
	}
}
