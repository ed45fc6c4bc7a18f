package segment_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// generated is a stream made by ffmpeg from its own test sources.
type generated struct {
	name string
	args string // between the inputs and the name of the output
	in   string // inputs; empty: a picture and a tone
	d    time.Duration
	// least is how many whole segments at least must be compared over all cuts.
	least int
	// apart says that pictures lean on others that lie in another file, so
	// that they cannot be decoded in their own.
	apart bool
}

const (
	pictures = "-f lavfi -i testsrc2=s=176x144:r=25:d=10 "
	tone     = "-f lavfi -i sine=f=440:r=48000:d=10 "
	x264     = "-c:v libx264 -preset veryfast -threads 1 -b:v 150k "
	x265     = "-c:v libx265 -preset ultrafast -x265-params log-level=error:pools=1:frame-threads=1:"
	aac      = " -c:a aac -b:a 48k "
)

// streams are the cases that segmentation must make twins of.
var streams = []generated{
	{name: "h264 without B-frames", args: x264 + "-bf 0 -g 25" + aac, d: time.Second, least: 12},
	{name: "h264 one B-frame", args: x264 + "-bf 1 -g 25" + aac, d: time.Second, least: 12},
	{name: "h264 three B-frames", args: x264 + "-bf 3 -b_strategy 0 -g 25 -x264-params b-pyramid=none" + aac, d: time.Second, least: 12},
	{name: "h264 strict pyramid", args: x264 + "-bf 5 -b_strategy 0 -g 30 -x264-params b-pyramid=strict" + aac, d: time.Second, least: 12},
	{name: "h264 normal pyramid", args: x264 + "-bf 7 -b_strategy 0 -g 40 -x264-params b-pyramid=normal" + aac, d: time.Second, least: 12},
	{name: "h264 open GOP", args: x264 + "-bf 3 -b_strategy 0 -g 25 -x264-params open-gop=1" + aac, d: time.Second, least: 12},
	{name: "h264 interlaced", args: x264 + "-bf 2 -g 25 -flags +ildct+ilme -x264-params tff=1" + aac, d: time.Second, least: 12},
	{name: "h264 intra refresh", args: x264 + "-bf 0 -g 25 -x264-params intra-refresh=1" + aac, d: time.Second, least: 0},
	{name: "hevc", args: x265 + "keyint=25" + aac, d: time.Second, least: 12},
	{name: "hevc open GOP", args: x265 + "keyint=25:open-gop=1:bframes=4:b-adapt=0" + aac, d: time.Second, least: 12},
	{name: "mpeg2", args: "-c:v mpeg2video -b:v 300k -bf 2 -g 15 -c:a mp2 -b:a 64k", d: time.Second, least: 12},
	{name: "mpeg2 interlaced", args: "-c:v mpeg2video -b:v 300k -bf 2 -g 15 -flags +ildct+ilme -c:a mp2 -b:a 64k", d: time.Second, least: 12},
	{name: "mpeg2 intra", args: "-c:v mpeg2video -b:v 900k -intra_vlc 1 -g 1 -c:a mp2 -b:a 64k", d: time.Second, least: 12},
	{name: "wrap", args: x264 + "-bf 3 -g 25 -output_ts_offset 95436" + aac, d: time.Second, least: 12},
	{name: "wrap mpeg2", args: "-c:v mpeg2video -b:v 300k -bf 2 -g 15 -output_ts_offset 95436 -c:a mp2 -b:a 64k", d: time.Second, least: 12, apart: true},
	{name: "wrap of audio", args: "-map 1:a -output_ts_offset 95436 -c:a mp2 -b:a 64k", d: time.Second, least: 12},
	{name: "GOP of 0.5 s", args: x264 + "-bf 2 -g 12" + aac, d: time.Second, least: 12},
	{name: "GOP of 2 s", args: x264 + "-bf 2 -g 50" + aac, d: time.Second, least: 12},
	{name: "GOP of 7 s", args: x264 + "-bf 2 -g 175" + aac, d: time.Second, least: 2},
	{name: "GOP of 7 s, long segments", args: x264 + "-bf 2 -g 175" + aac, d: 4 * time.Second},
	{name: "no keyframe but the first", args: x264 + "-bf 2 -g 1000 -x264-params scenecut=0" + aac, d: time.Second},
	{name: "23.976 frames a second", args: "-r 24000/1001 " + x264 + "-bf 2 -g 24" + aac, d: time.Second, least: 12},
	{name: "29.97 frames a second", args: "-r 30000/1001 " + x264 + "-bf 2 -g 30" + aac, d: time.Second, least: 12},
	{name: "50 frames a second", args: "-r 50 " + x264 + "-bf 2 -g 50" + aac, d: time.Second, least: 12},
	{name: "variable frame rate", args: "-vf select='not(mod(n\\,3))+gt(random(1)\\,0.6)' -fps_mode vfr " + x264 + "-bf 2 -g 20" + aac, d: time.Second, least: 12},
	{name: "aac alone", args: "-map 1:a" + aac, d: time.Second, least: 12},
	{name: "mp2 alone", args: "-map 1:a -c:a mp2 -b:a 64k", d: time.Second, least: 12},
	{name: "ac3 alone", args: "-map 1:a -c:a ac3 -b:a 96k", d: time.Second, least: 12},
	{name: "ac3 at 44100 Hz", args: "-map 1:a -ar 44100 -c:a ac3 -b:a 96k", d: time.Second, least: 12},
	{name: "eac3 alone", args: "-map 1:a -c:a eac3 -b:a 96k", d: time.Second, least: 12},
	{name: "h264 alone", args: "-map 0:v " + x264 + "-bf 2 -g 25", d: time.Second, least: 12},
	{name: "hevc alone", args: "-map 0:v " + x265 + "keyint=25", d: time.Second, least: 12},
	{name: "four tracks", args: "-map 0:v -map 1:a -map 1:a -map 1:a " + x264 + "-bf 2 -g 25 -c:a:0 aac -c:a:1 ac3 -c:a:2 mp2 -b:a 64k", d: time.Second, least: 12},
	{name: "two pictures", args: "-map 0:v -map 0:v -map 1:a " + x264 + "-g 25 -bf 0 -b:v:1 80k" + aac, d: time.Second, least: 12},
	{name: "two pictures with GOPs of their own", args: "-map 0:v -map 0:v -map 1:a " + x264 + "-g:v:0 25 -g:v:1 40" + aac, d: time.Second, least: 12, apart: true},
	{name: "PES of audio without alignment", args: x264 + "-g 25 -c:a mp2 -b:a 64k -pes_payload_size 1500", d: time.Second, least: 12},
	{name: "192-byte packets", args: x264 + "-g 25 -mpegts_m2ts_mode 1" + aac, d: time.Second, least: 12},
}

// generate makes a stream, or takes the one that an earlier run made.
func generate(t testing.TB, g generated) string {
	in := g.in
	if in == "" {
		in = pictures + tone
	}
	args := append(strings.Fields("-v error -nostdin -y -fflags +bitexact "+in), strings.Fields(g.args+" -flags:v +bitexact -flags:a +bitexact -f mpegts")...)
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("twindvr-streams-%d", os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(strings.Join(args, "\x00")))
	name := filepath.Join(dir, fmt.Sprintf("%x.ts", sum[:8]))
	if _, err := os.Stat(name); err == nil {
		return name
	}
	made, err := os.CreateTemp(dir, "made-*.ts")
	if err != nil {
		t.Fatal(err)
	}
	made.Close()
	cmd := exec.Command("ffmpeg", append(args, made.Name())...)
	if out, err := cmd.CombinedOutput(); err != nil {
		os.Remove(made.Name())
		t.Fatalf("ffmpeg %s: %v\n%s", g.args, err, out)
	}
	if err := os.Rename(made.Name(), name); err != nil {
		t.Fatal(err)
	}
	return name
}

// cuts segments a stream from n packets throughout it and wants every whole
// segment to be one of those made of all of it. It returns those, and how many
// were compared.
func cuts(t *testing.T, ts []byte, size int, d time.Duration, n int) (full []*m4f.Segment, compared int) {
	t.Helper()
	full, s := runBytes(ts, d)
	if len(full) == 0 {
		t.Fatalf("no segment: %v", s.Diagnose())
	}
	ids := identities(full)
	damaged := map[int64]bool{} // where the recorder of all of it cannot be sure
	for _, s := range full {
		damaged[s.Header.MediaTime] = damaged[s.Header.MediaTime] || s.Header.Damaged()
	}
	for k := range n {
		cut := (1 + k*(len(ts)/size-1)/n) * size
		segs, _ := runBytes(ts[cut:], d)
		for _, seg := range segs {
			if seg.Header.Partial() {
				continue
			}
			compared++
			if !ids[seg.Header.ID] && !damaged[seg.Header.MediaTime] {
				t.Fatalf("joined at packet %d of %d: %s is whole and differs", cut/size, len(ts)/size, describe(seg))
			}
		}
	}
	return full, compared
}

// losses drops datagrams of a stream at random, and wants what is clean and
// whole to be among ids.
func losses(t *testing.T, ts []byte, d time.Duration, ids map[m4f.Identity]bool, seeds int) {
	n := len(ts) / packet
	pids := packetsByPID(ts)
	for seed := range seeds {
		rng := rand.New(rand.NewPCG(uint64(seed), uint64(n)))
		gone := map[int]bool{}
		for k := 0; k < n; k += 7 {
			if rng.Float64() < []float64{0.0005, 0.003, 0.02}[seed%3] {
				for j := k; j < min(k+7*(1+rng.IntN(3)), n); j++ {
					// Nothing shows the loss of data before its next packet.
					gone[j] = pidOf(ts[j*packet:]) != 0x200
				}
			}
		}
		if wraps(pids, gone) {
			continue
		}
		segs, _ := run(ts, d, rng.IntN(n/3), n, func(k int) bool { return gone[k] })
		for _, s := range segs {
			if s.Header.Clean() && !ids[s.Header.ID] {
				t.Errorf("losses of seed %d: %s is called clean and differs", seed, describe(s))
			}
		}
	}
}

// runBytes segments bytes in pieces that end anywhere.
func runBytes(ts []byte, d time.Duration) ([]*m4f.Segment, *segmenter) {
	return run188(ts, d, 0, len(ts), 100_003, nil)
}

func TestGenerated(t *testing.T) {
	needFFmpeg(t, fmt.Sprintf("%d generated streams", len(streams)))
	for k, g := range streams {
		if (testing.Short() || less > 1) && k%6 != 0 {
			continue
		}
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			path := generate(t, g)
			ts := read(t, path)
			size := packet
			if strings.HasPrefix(g.name, "192") {
				size = 192
			}
			full, compared := cuts(t, ts, size, g.d, 25/min(less, 5))
			if testing.Verbose() {
				for _, s := range full {
					t.Log(describe(s))
				}
			}
			if compared*min(less, 5) < g.least {
				t.Errorf("%d whole segments compared, want %d or more", compared, g.least)
			}
			if size == packet {
				losses(t, ts, g.d, identities(full), max(9/less, 2))
			}
			for _, s := range full {
				if s.Header.Damaged() {
					t.Errorf("%s is damaged, and nothing is missing", describe(s))
				}
			}
			if !g.apart {
				checkFrames(t, path, full, 2)
			}
		})
	}
}

// TestLongGOP has the rule of four buckets: a GOP longer than D is one segment
// up to there, and is cut at the first frame of each bucket from there on.
func TestLongGOP(t *testing.T) {
	needFFmpeg(t, "segments without keyframes")
	ts := read(t, generate(t, streams[slices.IndexFunc(streams, func(g generated) bool { return strings.HasPrefix(g.name, "no keyframe") })]))
	full, _ := runBytes(ts, time.Second)
	for k, s := range full {
		key := s.Header.Flags&m4f.Keyframe != 0
		first := s.Header.MediaTime / m4f.Timescale
		switch {
		case key != (k == 0):
			t.Errorf("segment %d: opens at a keyframe: %v", k, key)
		case k == 1 && first != full[0].Header.MediaTime/m4f.Timescale+4:
			t.Errorf("the first cut is %d s behind the keyframe, want 4 buckets", first-full[0].Header.MediaTime/m4f.Timescale)
		case k > 1 && first != full[k-1].Header.MediaTime/m4f.Timescale+1:
			t.Errorf("segment %d opens at %d s, the one before at %d s", k, first, full[k-1].Header.MediaTime/m4f.Timescale)
		case !bytes.Equal(s.Init, full[0].Init):
			t.Errorf("segment %d has another init segment", k)
		}
	}
	if len(full) < 6 {
		t.Errorf("%d segments", len(full))
	}
}
