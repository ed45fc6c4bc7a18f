package segment_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
)

// surround is a tone on six channels.
const surround = "-f lavfi -i sine=f=440:r=48000:d=10,aformat=channel_layouts=5.1 "

// sounds are the audio codecs that ffmpeg can encode, each beside pictures.
var sounds = []generated{
	{name: "latm", args: x264 + "-bf 2 -g 25 -c:a aac -aac_pns 0 -b:a 48k -mpegts_flags latm", d: time.Second, least: 12},
	{name: "latm 5.1", in: pictures + surround, args: x264 + "-bf 2 -g 25 -c:a aac -aac_pns 0 -mpegts_flags latm", d: time.Second, least: 12},
	{name: "latm at 22050 Hz", args: x264 + "-bf 2 -g 25 -ar 22050 -c:a aac -aac_pns 0 -mpegts_flags latm", d: time.Second, least: 12},
	{name: "latm alone", args: "-map 1:a -c:a aac -aac_pns 0 -b:a 48k -mpegts_flags latm", d: time.Second, least: 12},
	{name: "aac 5.1", in: pictures + surround, args: x264 + "-bf 2 -g 25 -c:a aac", d: time.Second, least: 12},
	{name: "dts 5.1", in: pictures + surround, args: x264 + "-bf 2 -g 25 -strict -2 -c:a dca -b:a 768k", d: time.Second, least: 12},
	{name: "dts alone", args: "-map 1:a -strict -2 -c:a dca -ac 2 -b:a 384k", d: time.Second, least: 12},
	{name: "opus", args: x264 + "-bf 2 -g 25 -c:a libopus -ac 2", d: time.Second, least: 12},
	{name: "opus 5.1", in: pictures + surround, args: x264 + "-bf 2 -g 25 -c:a libopus -mapping_family 1", d: time.Second, least: 12},
	{name: "opus of 60 ms alone", args: "-map 1:a -c:a libopus -ac 1 -frame_duration 60", d: time.Second, least: 12},
	{name: "opus of 2.5 ms", args: x264 + "-bf 2 -g 25 -c:a libopus -application lowdelay -frame_duration 2.5", d: time.Second, least: 12},
	{name: "eac3 5.1", in: pictures + surround, args: x264 + "-bf 2 -g 25 -c:a eac3", d: time.Second, least: 12},
	{name: "mp2 at 44100 Hz", args: x264 + "-bf 2 -g 25 -ar 44100 -c:a mp2", d: time.Second, least: 12},
	{name: "mp2 at 32000 Hz", args: x264 + "-bf 2 -g 25 -ar 32000 -c:a mp2", d: time.Second, least: 12},
	{name: "mp3 at 44100 Hz", args: x264 + "-bf 2 -g 25 -ar 44100 -c:a libmp3lame", d: time.Second, least: 12},
}

// TestCodecs has every codec's frames whole in segments, and segments alike
// wherever a recorder joins and whatever it loses.
func TestCodecs(t *testing.T) {
	needFFmpeg(t, fmt.Sprintf("%d audio codecs", len(sounds)))
	for k, g := range sounds {
		if (testing.Short() || less > 1) && k%3 != 0 {
			continue
		}
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			path := generate(t, g)
			ts := read(t, path)
			full, compared := cuts(t, ts, packet, g.d, 25/min(less, 5))
			if compared*min(less, 5) < g.least {
				t.Errorf("%d whole segments compared, want %d or more", compared, g.least)
			}
			losses(t, ts, g.d, identities(full), max(9/less, 2))
			for _, s := range full {
				if s.Header.Damaged() {
					t.Errorf("%s is damaged, and nothing is missing", describe(s))
				}
			}
			checkFrames(t, path, full, 2)
		})
	}
}

// hand is a stream made by hand: pictures of 25 in a second, a keyframe each
// second, and audio that unit makes.
type hand struct {
	mux
	typ     byte
	desc    []byte
	step    int64 // ticks of an audio PES packet
	unit    func(k int) []byte
	seconds int
}

func (h *hand) make() []byte {
	tables := func() {
		h.section(0, pat(0, 1, 0x1000))
		h.section(0x1000, pmt(1, 0, es{0x100, 0x1b, nil}, es{0x101, h.typ, h.desc}))
	}
	audio := 0
	for k := range 25 * h.seconds {
		if k%5 == 0 {
			tables()
		}
		at := int64(k) * 3600
		h.packets(0x100, pes(0xe0, at+90000, at+90000, -1, avc(k%25 == 0, 500)))
		for ; int64(audio)*h.step <= at+20000; audio++ {
			pts := int64(audio)*h.step + 90000
			h.packets(0x101, pes(0xbd, pts, pts, -1, h.unit(audio)))
		}
	}
	return h.out
}

func noise(seed, n int) []byte {
	r := rand.New(rand.NewPCG(uint64(seed), 2))
	b := make([]byte, n)
	for k := range b {
		b[k] = byte(r.UintN(64))
	}
	return b
}

// sameASC makes a LATM element that refers to the configuration before it.
func sameASC(frame []byte) []byte {
	b := append([]byte{byte(len(frame))}, frame...)
	out := make([]byte, len(b)+1)
	out[0] = 0x80
	for k, x := range b {
		out[k] |= x >> 1
		out[k+1] |= x << 7
	}
	return append([]byte{0x56, 0xe0, byte(len(out))}, out...)
}

func withASC(t testing.TB, asc, frame []byte) []byte {
	b, err := mpegts.AppendLOAS(nil, asc, frame)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// golden is the identities of named streams; see TestIdentities.
type goldenFile struct {
	name string
	want map[string]string
}

func newGolden(t *testing.T, name string) *goldenFile {
	g := &goldenFile{name: name, want: map[string]string{}}
	b, err := os.ReadFile(name)
	if err != nil && !*update {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if id, stream, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			g.want[stream] = id
		}
	}
	return g
}

// compare wants the identities of a stream's segments, hashed together, to be
// those of the file.
func (g *goldenFile) compare(t *testing.T, stream string, segs []*m4f.Segment) {
	t.Helper()
	h := sha256.New()
	for _, s := range segs {
		h.Write(s.Header.ID[:])
	}
	stream = fmt.Sprintf("rules %d, %s", m4f.RulesVersion, stream)
	id := fmt.Sprintf("%x", h.Sum(nil))
	if *update {
		g.want[stream] = id
		var b strings.Builder
		for _, k := range slices.Sorted(maps.Keys(g.want)) {
			fmt.Fprintf(&b, "%s %s\n", g.want[k], k)
		}
		if err := os.WriteFile(g.name, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if g.want[stream] != id {
		t.Errorf("%s: the identities are not those of %s", stream, g.name)
	}
}

// TestHandMadeCodecs has what no encoder at hand writes: G.711, DTS with
// extension substreams, LATM whose configuration comes now and then, seldom,
// and changes.
func TestHandMadeCodecs(t *testing.T) {
	stereo, mono := []byte{0x11, 0x90}, []byte{0x11, 0x88}
	core := func(k int) []byte {
		// 512 samples at 48 kHz, 3/2, 96 bytes.
		return append([]byte{0x7f, 0xfe, 0x80, 0x01, 0xfc, 0x3c, 0x05, 0xf2, 0x75, 0xe0, 0, 0}, noise(k, 84)...)
	}
	substream := func(k int) []byte {
		// 100 bytes, 24 bits, 96 kHz, 7.1, lossless.
		head := []byte{0x64, 0x58, 0x20, 0x25, 0, 0x03, 0xe0, 0x0c, 0x78, 0, 0, 0x10, 0xc1, 0x20, 0x5f, 0x41, 0xe7, 0, 0x4f, 0x02, 0, 0, 0, 0}
		return append(head, noise(k, 100-len(head))...)
	}
	opus := mpegts.OpusDescriptors(2)
	golden := newGolden(t, "testdata/codecs.golden")
	for _, c := range []struct {
		name  string
		h     hand
		codec m4f.Codec
		entry string
		inits int // different ones
		least int
	}{
		{"A-law", hand{typ: 0x90, step: 3600, unit: func(k int) []byte { return noise(k, 320) }}, m4f.CodecALaw, "alaw", 1, 50},
		{"mu-law", hand{typ: 0x91, step: 1800, unit: func(k int) []byte { return noise(k, 160) }}, m4f.CodecMuLaw, "ulaw", 1, 50},
		{"DTS core and extension", hand{typ: 0x85, desc: []byte{5, 4, 'H', 'D', 'M', 'V'}, step: 960, unit: func(k int) []byte {
			return slices.Concat(core(k), substream(k))
		}}, m4f.CodecDTS, "dtsh", 1, 50},
		{"Opus", hand{typ: 0x06, desc: opus, step: 1800, unit: func(k int) []byte {
			return append([]byte{0x7f, 0xe0, 101, 0xfc}, noise(k, 100)...)
		}}, m4f.CodecOpus, "Opus", 1, 50},
		{"LATM, a configuration each half second", hand{typ: 0x11, step: 1920, unit: func(k int) []byte {
			if k%24 == 0 {
				return withASC(t, stereo, noise(k, 100))
			}
			return sameASC(noise(k, 100))
		}}, m4f.CodecLATM, "mp4a", 1, 50},
		{"LATM, a configuration each 14 s", hand{typ: 0x11, step: 1920, seconds: 45, unit: func(k int) []byte {
			if k%656 == 0 {
				return withASC(t, stereo, noise(k, 100))
			}
			return sameASC(noise(k, 100))
		}}, m4f.CodecLATM, "mp4a", 1, 100},
		{"LATM, a configuration that changes", hand{typ: 0x11, step: 1920, unit: func(k int) []byte {
			switch {
			case k%10 == 0 && k/100%2 == 0:
				return withASC(t, stereo, noise(k, 100))
			case k%10 == 0:
				return withASC(t, mono, noise(k, 100))
			}
			return sameASC(noise(k, 100))
		}}, m4f.CodecLATM, "mp4a", 2, 50},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.h.seconds == 0 {
				c.h.seconds = 16
			}
			ts := c.h.make()
			full, compared := cleanCuts(t, ts, 40/min(less, 5))
			if compared*min(less, 5) < c.least {
				t.Errorf("%d whole segments compared, want %d or more", compared, c.least)
			}
			golden.compare(t, c.name, full)
			losses(t, ts, time.Second, identities(full), max(30/less, 2))
			inits := map[m4f.Identity]bool{}
			var got [][]byte
			for _, s := range full {
				inits[s.Header.Init] = true
				init, err := m4f.ParseInit(s.Init)
				if err != nil {
					t.Fatal(err)
				}
				f, err := m4f.ParseFragment(init, s.Media)
				if err != nil {
					t.Fatal(err)
				}
				if tr := &init.Tracks[1]; tr.Config.Codec != c.codec || string(tr.SampleEntry[4:8]) != c.entry {
					t.Fatalf("%s of %v", tr.SampleEntry[4:8], tr.Config.Codec)
				}
				for i := range f.Tracks[1].Samples {
					got = append(got, f.Tracks[1].Samples[i].Data(s.Media))
				}
			}
			if len(inits) != c.inits {
				t.Errorf("%d init segments, want %d", len(inits), c.inits)
			}
			for k, b := range got {
				want := c.h.unit(k)
				switch c.codec {
				case m4f.CodecLATM:
					want = noise(k, 100)
				case m4f.CodecOpus:
					want = want[3:]
				}
				if !bytes.Equal(b, want) {
					t.Fatalf("sample %d has %d bytes, want %d", k, len(b), len(want))
				}
			}
			if want := int(int64(c.h.seconds) * 90000 / c.h.step); len(got) < want {
				t.Errorf("%d samples, want %d", len(got), want)
			}
		})
	}
}

// cleanCuts is cuts for streams that a recorder may know not to have all of.
func cleanCuts(t *testing.T, ts []byte, n int) (full []*m4f.Segment, compared int) {
	t.Helper()
	full, _ = runBytes(ts, time.Second)
	ids := identities(full)
	for k := range n {
		cut := (1 + k*(len(ts)/packet-1)/n) * packet
		segs, _ := runBytes(ts[cut:], time.Second)
		for _, seg := range segs {
			if !seg.Header.Clean() {
				continue
			}
			if compared++; !ids[seg.Header.ID] {
				t.Fatalf("joined at packet %d of %d: %s is clean and differs", cut/packet, len(ts)/packet, describe(seg))
			}
		}
	}
	for _, s := range full[1:] {
		if s.Header.Damaged() {
			t.Errorf("%s is damaged, and nothing is missing", describe(s))
		}
	}
	return full, compared
}

// A codec that changes within a segment takes the sample entry of the frame
// that the segment begins with; the next segment has the other.
func TestCodecChangesInSegment(t *testing.T) {
	adts, err := mpegts.AppendADTS(nil, []byte{0x11, 0x90}, noise(1, 200))
	if err != nil {
		t.Fatal(err)
	}
	h := hand{typ: 0x03, step: 2160, seconds: 12, unit: func(k int) []byte {
		if k < 230 { // 5.5 s
			return mp2()
		}
		return adts
	}}
	full, _ := cuts(t, h.make(), packet, time.Second, 30)
	var codecs []string
	for _, s := range full {
		init, err := m4f.ParseInit(s.Init)
		if err != nil {
			t.Fatal(err)
		}
		if c := init.Tracks[1].Config.Codec.String(); len(codecs) == 0 || codecs[len(codecs)-1] != c {
			codecs = append(codecs, c)
		}
	}
	if !slices.Equal(codecs, []string{"mpegaudio", "aac"}) {
		t.Errorf("codecs %v", codecs)
	}
}

// TestG711Decodes has ffmpeg read what the segments hold.
func TestG711Decodes(t *testing.T) {
	needFFmpeg(t, "G.711")
	for typ, format := range map[byte]string{0x90: "alaw", 0x91: "mulaw"} {
		h := hand{typ: typ, step: 3600, seconds: 10, unit: func(k int) []byte { return noise(k, 320) }}
		full, _ := runBytes(h.make(), time.Second)
		var want []byte
		for _, name := range writeMP4(t, full) {
			out, err := exec.Command("ffmpeg", "-v", "error", "-nostdin", "-i", name, "-map", "0:a", "-c", "copy", "-f", format, "-").Output()
			if err != nil {
				t.Fatal(err)
			}
			for k := range len(out) / 320 {
				want = append(want, noise(k, 320)...)
			}
			if !bytes.Equal(out, want) || len(out) < 240*320 {
				t.Errorf("%s: %d bytes, want %d", format, len(out), len(want))
			}
			probe, err := exec.Command("ffprobe", "-v", "error", "-select_streams", "a", "-show_entries", "stream=codec_name,sample_rate,channels:format=duration", "-of", "csv=p=0", name).Output() // what it says of the made-up pictures is no matter
			if err != nil || !strings.HasPrefix(string(probe), "pcm_"+format+",8000,1") {
				t.Errorf("ffprobe says %s (%v)", probe, err)
			}
		}
	}
}
