package mpegts_test

import (
	"bytes"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// audioTrack muxes an elementary stream in PES packets of a size, each with
// the time of the first frame that begins in it, as starts tells.
func audioTrack(typ byte, desc, stream []byte, size int, starts map[int]int64) []byte {
	m := &mux{}
	m.section(0, pat(0, 1, 0x1000))
	m.section(0x1000, pmt(1, 0, es{0x101, typ, desc}))
	for at := 0; at < len(stream); at += size {
		end := min(at+size, len(stream))
		pts := int64(-1)
		for k := at; k < end && pts < 0; k++ {
			if t, ok := starts[k]; ok {
				pts = t
			}
		}
		m.packets(0x101, pes(0xc0, pts, pts, -1, stream[at:end]))
	}
	return m.out
}

// TestFrameSizes has frames that ffmpeg's encoders wrote, of every rate, cut out
// as ffprobe cuts them.
func TestFrameSizes(t *testing.T) {
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("no ffmpeg in PATH: audio frame sizes not tested")
	}
	for _, c := range []struct {
		format, args string
		typ          byte
		codec        m4f.Codec
		samples      int64
	}{
		{"ac3", "-ar 48000 -b:a 96k", 0x81, m4f.CodecAC3, 1536},
		{"ac3", "-ar 44100 -b:a 128k", 0x81, m4f.CodecAC3, 1536},
		{"ac3", "-ar 32000 -b:a 448k", 0x81, m4f.CodecAC3, 1536},
		{"eac3", "-ar 48000 -b:a 96k", 0x87, m4f.CodecEAC3, 1536},
		{"eac3", "-ar 44100 -b:a 200k", 0x87, m4f.CodecEAC3, 1536},
		{"adts", "-c:a aac -ar 48000 -b:a 64k", 0x0f, m4f.CodecAAC, 1024},
		{"adts", "-c:a aac -ar 22050 -b:a 32k", 0x0f, m4f.CodecAAC, 1024},
		{"adts", "-c:a aac -ar 44100 -b:a 64k", 0x04, m4f.CodecAAC, 1024},
		{"mp2", "-ar 48000 -b:a 192k", 0x03, m4f.CodecMPEGAudio, 1152},
		{"mp2", "-ar 44100 -b:a 64k", 0x03, m4f.CodecMPEGAudio, 1152},
		{"mp2", "-ar 24000 -b:a 64k", 0x04, m4f.CodecMPEGAudio, 1152},
	} {
		t.Run(c.format+" "+c.args, func(t *testing.T) {
			dir := t.TempDir()
			args := strings.Fields("-v error -f lavfi -i anoisesrc=a=0.3:d=2:s=1 " + c.args + " -write_id3v2 0 -f " + c.format)
			if c.format != "adts" {
				args = strings.Fields("-v error -f lavfi -i anoisesrc=a=0.3:d=2:s=1 " + c.args + " -f " + c.format)
			}
			if out, err := exec.Command("ffmpeg", append(args, dir+"/a")...).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			out, err := exec.Command("ffprobe", "-v", "error", "-f", strings.Replace(strings.Replace(c.format, "adts", "aac", 1), "mp2", "mp3", 1),
				"-show_entries", "packet=pos,size", "-of", "csv=p=0", dir+"/a").Output()
			if err != nil {
				t.Fatal(err)
			}
			stream := read(t, dir+"/a")
			var rate int64
			fmt.Sscanf(c.args[strings.Index(c.args, "-ar")+4:], "%d", &rate)
			starts := map[int]int64{}
			var sizes []int
			for line := range strings.Lines(string(out)) {
				f := strings.Split(strings.TrimRight(line, ",\n"), ",")
				size, err1 := strconv.Atoi(f[0])
				pos, err2 := strconv.Atoi(f[1])
				if err1 != nil || err2 != nil {
					t.Fatal(line)
				}
				starts[pos] = 90000 + int64(len(sizes))*c.samples*m4f.Timescale/rate
				sizes = append(sizes, size)
			}
			for _, size := range []int{100, 184, 1000, 2930, 60000} {
				f, _ := demux(0, audioTrack(c.typ, nil, stream, size, starts), nil)
				if len(f.units) != len(sizes) || len(f.losses) > 0 {
					t.Fatalf("PES packets of %d bytes: %d frames of %d, %d losses", size, len(f.units), len(sizes), len(f.losses))
				}
				for k, u := range f.units {
					// A PES packet's time is rounded, and so is what follows from it.
					off := u.PTS - (90000 + int64(k)*c.samples*m4f.Timescale/rate)
					strip := 0
					if c.codec == m4f.CodecAAC {
						strip = 7
					}
					if len(u.Data) != sizes[k]-strip || u.Codec != c.codec || off > 1 || off < -1 {
						t.Fatalf("PES packets of %d bytes: frame %d has %d bytes of %v at %d, want %d", size, k, len(u.Data), u.Codec, u.PTS, sizes[k]-strip)
					}
				}
			}
		})
	}
}

// However audio frames lie in PES packets, a recorder that joins later has the
// same frames at the same times.
func TestAudioJoins(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stream []byte
		starts := map[int]int64{}
		for k := range 60 {
			starts[len(stream)] = 90000 + 2160*int64(k)
			stream = append(stream, mp2()...)
		}
		ts := audioTrack(0x03, nil, stream, rapid.IntRange(60, 3000).Draw(t, "PES"), starts)
		full, _ := demux(0, ts, nil)
		head := ts[:2*188]
		cut := rapid.IntRange(2, len(ts)/188-1).Draw(t, "cut") * 188
		joined, _ := demux(0, slices.Concat(head, ts[cut:]), nil)
		at := map[int64]bool{}
		for _, u := range full.units {
			at[u.PTS] = true
		}
		if len(full.units) != 60 {
			t.Fatalf("%d frames", len(full.units))
		}
		for _, u := range joined.units {
			if !at[u.PTS] {
				t.Fatalf("a frame at %d", u.PTS)
			}
		}
		if n := len(joined.units); n > 0 && joined.units[n-1].PTS != 90000+59*2160 {
			t.Fatalf("%d frames, the last at %d", n, joined.units[n-1].PTS)
		}
	})
}

// Bytes missing between frames are a loss, though no counter tells of it.
func TestAudioResync(t *testing.T) {
	m := &mux{}
	m.section(0, pat(0, 1, 0x1000))
	m.section(0x1000, pmt(1, 0, es{0x101, 0x03, nil}))
	for k := range int64(10) {
		b := slices.Concat(mp2(), mp2())
		if k == 5 {
			b = slices.Concat(mp2()[:100], mp2())
		}
		m.packets(0x101, pes(0xc0, 4320*k, 4320*k, -1, b))
	}
	f, _ := demux(0, m.out, nil)
	if len(f.losses) == 0 {
		t.Error("no loss")
	}
}

// An E-AC-3 frame takes its dependent substreams with it, and a stream of
// nothing else is no endless frame.
func TestSubstreams(t *testing.T) {
	frame := func(kind, id byte) []byte { // 64 bytes
		b := append([]byte{0x0b, 0x77, kind<<6 | id<<3, 31, 0x3f, 0x80, 0, 0}, make([]byte, 56)...)
		return b
	}
	m := &mux{}
	m.section(0, pat(0, 1, 0x1000))
	m.section(0x1000, pmt(1, 0, es{0x101, 0x87, nil}))
	for k := range int64(5) {
		m.packets(0x101, pes(0xbd, 2880*k, 2880*k, -1, slices.Concat(frame(0, 0), frame(1, 0), frame(0, 1))))
	}
	f, _ := demux(0, m.out, nil)
	if len(f.units) != 5 || len(f.units[0].Data) != 192 {
		t.Errorf("%v", f.log)
	}
	m = &mux{}
	m.section(0, pat(0, 1, 0x1000))
	m.section(0x1000, pmt(1, 0, es{0x101, 0x87, nil}))
	for k := range int64(2000) {
		m.packets(0x101, pes(0xbd, 2880*k, 2880*k, -1, bytes.Repeat(frame(1, 0), 10)))
	}
	f, _ = demux(0, m.out, nil)
	for _, u := range f.units {
		if len(u.Data) > 72*64 {
			t.Fatalf("a frame of %d bytes", len(u.Data))
		}
	}
	if len(f.units) < 100 {
		t.Errorf("%d units", len(f.units))
	}
}
