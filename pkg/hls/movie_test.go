package hls

import (
	"bytes"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
)

func movie(t *testing.T, name string) (*Movie, []Sample, []byte) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "movies", name))
	if err != nil {
		t.Fatal(err)
	}
	m, err := ParseMovie(b)
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return m, s, b
}

// What files of ffmpeg hold: tracks, their configuration, and so many samples.
func TestMovies(t *testing.T) {
	for _, v := range []struct {
		file    string
		codecs  []m4f.Codec
		types   []uint8
		samples []int
		skipped string
	}{
		{"h264-aac.mp4", []m4f.Codec{m4f.CodecH264, m4f.CodecAAC}, []uint8{0x1b, 0x0f}, []int{10, 16}, ""},
		{"hevc-ac3.mp4", []m4f.Codec{m4f.CodecHEVC, m4f.CodecAC3}, []uint8{0x24, 0x81}, []int{10, 10}, ""},
		{"h264-opus.mp4", []m4f.Codec{m4f.CodecH264, m4f.CodecOpus}, []uint8{0x1b, 0x06}, []int{10, 16}, ""},
		{"eac3.mp4", []m4f.Codec{m4f.CodecEAC3}, []uint8{0x87}, []int{10}, ""},
		{"mp3.mp4", []m4f.Codec{m4f.CodecMPEGAudio}, []uint8{0x03}, []int{14}, ""},
		{"flac.mp4", []m4f.Codec{m4f.CodecH264}, []uint8{0x1b}, []int{10}, "fLaC"},
	} {
		t.Run(v.file, func(t *testing.T) {
			m, samples, b := movie(t, v.file)
			if strings.Join(m.Skipped, " ") != v.skipped || len(m.Tracks) != len(v.codecs) {
				t.Fatalf("%d tracks, skipped %v", len(m.Tracks), m.Skipped)
			}
			if !IsMP4(b) {
				t.Error("it does not look like boxes")
			}
			counts := make([]int, len(m.Tracks))
			for k, s := range samples {
				counts[s.Track]++
				if k > 0 && s.DTS < samples[k-1].DTS {
					t.Errorf("sample %d is out of order", k)
				}
				if s.Duration <= 0 || s.PTS < s.DTS && !m.Tracks[s.Track].Codec.IsVideo() || len(s.Data) == 0 {
					t.Errorf("sample %d: %+v", k, s)
				}
			}
			for k, x := range m.Tracks {
				if x.Codec != v.codecs[k] || x.StreamType != v.types[k] || counts[k] != v.samples[k] {
					t.Errorf("track %d: %v, stream type %#x, %d samples; want %v, %#x, %d", k, x.Codec, x.StreamType, counts[k], v.codecs[k], v.types[k], v.samples[k])
				}
			}
		})
	}
	// What ffmpeg writes that copies AAC out of a transport stream without
	// aac_adtstoasc.
	if m, _, _ := movie(t, "bare-aac-init.mp4"); len(m.Tracks) != 1 || m.Tracks[0].Codec != m4f.CodecH264 || m.Bare != 1 || len(m.Skipped) != 0 {
		t.Errorf("%d tracks, %d without configuration, skipped %v", len(m.Tracks), m.Bare, m.Skipped)
	}
	if m, _, _ := movie(t, "hevc-ac3.mp4"); m.Tracks[1].Language != "deu" {
		t.Errorf("language %q", m.Tracks[1].Language)
	}
	if m, _, _ := movie(t, "h264-opus.mp4"); !bytes.Equal(m.Tracks[1].Descriptors, []byte("\x05\x04Opus\x7f\x02\x80\x01")) {
		t.Errorf("descriptors %x", m.Tracks[1].Descriptors)
	}
}

// Keyframes, and nothing else, carry parameter sets, behind a delimiter, and
// none twice.
func TestParameterSets(t *testing.T) {
	for _, name := range []string{"h264-aac.mp4", "hevc-ac3.mp4"} {
		m, samples, _ := movie(t, name)
		p := mpegts.NewProgram(1, 0x100, []mpegts.Track{{PID: 0x100, Codec: m.Tracks[0].Codec}})
		keys := 0
		for k := range samples {
			s := &samples[k]
			if s.Track != 0 {
				continue
			}
			u, ok := m.Unit(s, &p.Tracks[0])
			if !ok || u.Key != s.Sync || u.Key != u.Sets || u.PTS != s.PTS&(m4f.Wrap-1) || u.DTS != s.DTS&(m4f.Wrap-1) {
				t.Errorf("%s: sample %d, sync %t: key %t, sets %t, at %d", name, k, s.Sync, u.Key, u.Sets, u.PTS)
			}
			if u.Key {
				keys++
			}
		}
		if keys == 0 {
			t.Errorf("%s: no keyframe", name)
		}
	}
	avc := MovieTrack{Codec: m4f.CodecH264, lengthSize: 2, sets: [][]byte{{0x67, 1}, {0x68, 2}}}
	for _, v := range []struct{ in, want string }{
		{"\x00\x02\x65a", "\x67\x01|\x68\x02|ea"},
		{"\x00\x02\x09a\x00\x02\x65b", "\ta|\x67\x01|\x68\x02|eb"},
		{"\x00\x02\x67x\x00\x02\x65b", "gx|eb"},
		{"\x00\x02\x41a", "Aa"},
		{"\x00\x00\x00\x05\x41a", "Aa"},
		{"\x00", ""},
	} {
		if got := string(bytes.Join(avc.nals(&Sample{Data: []byte(v.in)}), []byte("|"))); got != v.want {
			t.Errorf("%q: %q, want %q", v.in, got, v.want)
		}
	}
}

func TestAAC(t *testing.T) {
	for _, v := range []struct {
		asc    string
		codec  m4f.Codec
		header string
	}{
		{"\x11\x90", m4f.CodecAAC, "\xff\xf1\x4c\x80\x00\x1f\xfc"},             // LC, 48 kHz, stereo
		{"\x12\x08\x56\xe5\x00", m4f.CodecAAC, "\xff\xf1\x50\x40\x00\x1f\xfc"}, // 44.1 kHz, mono, no SBR by name
		{"\x11\x90\x56\xe5\x98", m4f.CodecLATM, ""},                            // SBR by name
		{"\x2b\x11\x88\x00", m4f.CodecLATM, ""},                                // HE-AAC
		{"\x11\x94", m4f.CodecLATM, ""},                                        // 960 samples
		{"\x11\x80\x04\x00", m4f.CodecLATM, ""},                                // channels by an element
		{"\x17\x80\x5d\xc0\x10", m4f.CodecLATM, ""},                            // a rate by its value
	} {
		var x MovieTrack
		x.aac([]byte(v.asc))
		want := v.header
		if v.codec == m4f.CodecLATM {
			want = v.asc
		}
		if x.Codec != v.codec || string(x.header) != want {
			t.Errorf("%x: %v with %x", v.asc, x.Codec, x.header)
		}
	}
}

// Times are converted as exact arithmetic does, rounded down.
func TestTicks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := MovieTrack{scale: rapid.Uint32Min(1).Draw(t, "scale"), shift: rapid.Int64Range(-1<<40, 1<<40).Draw(t, "shift")}
		at := rapid.Int64Range(0, 1<<45).Draw(t, "at")
		n := new(big.Int).Mul(big.NewInt(at-x.shift), big.NewInt(m4f.Timescale))
		want, _ := new(big.Int).DivMod(n, big.NewInt(int64(x.scale)), new(big.Int)) // Euclidean: down, for a divisor above 0
		if got := x.ticks(at); want.IsInt64() && want.Int64() < 1<<61 && want.Int64() > -1<<61 && got != want.Int64() {
			t.Fatalf("%d, want %v", got, want)
		}
	})
}

// A movie of which a byte is changed or missing is read or refused; encrypted
// ones are refused in words.
func TestMovieErrors(t *testing.T) {
	_, _, b := movie(t, "h264-aac.mp4")
	for _, from := range []string{"avc1", "mp4a"} {
		to := map[string]string{"avc1": "encv", "mp4a": "enca"}[from]
		if _, err := ParseMovie(bytes.Replace(b, []byte(from), []byte(to), 1)); !errors.Is(err, ErrEncrypted) {
			t.Errorf("%s: %v", to, err)
		}
	}
	for k := range min(len(b), 2000) {
		if m, err := ParseMovie(b[:k]); err == nil && k < 1000 {
			t.Errorf("%d bytes: %+v", k, m)
		}
		c := bytes.Clone(b)
		c[k] ^= 0xff
		if m, err := ParseMovie(c); err == nil {
			m.Read(c)
		}
	}
	if IsMP4([]byte("G@\x00\x10 a transport stream")) || IsMP4(nil) {
		t.Error("taken for boxes")
	}
}

// FuzzMovie: no bytes bring the reader of fragmented MP4 down. A file is its
// own media initialization section here.
func FuzzMovie(f *testing.F) {
	seeds(f, "movies")
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMovie(b)
		if err != nil {
			return
		}
		samples, _ := m.Read(b)
		p := mpegts.NewProgram(1, 0, nil)
		for _, x := range m.Tracks {
			p.Tracks = append(p.Tracks, mpegts.Track{Codec: x.Codec})
		}
		total := 0
		for k := range samples {
			s := &samples[k]
			if k > 0 && s.DTS < samples[k-1].DTS || s.Track >= len(m.Tracks) {
				t.Fatalf("%+v", s)
			}
			if total += len(s.Data); total < 1<<20 {
				m.Unit(s, &p.Tracks[s.Track])
			}
		}
	})
}
