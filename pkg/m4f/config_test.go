package m4f

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/Eyevinn/mp4ff/mp4"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSequenceParameterSets reads SPS that x264 and x265 wrote.
func TestSequenceParameterSets(t *testing.T) {
	for _, c := range []struct {
		name, sps string
		codec     Codec
		want      picture
	}{
		{"H.264, 1080 lines interlaced", "674d4028f403c0227ef011000003000100000300321f162ea0", CodecH264,
			picture{width: 1920, height: 1080, sarW: 1, sarH: 1, chroma: 1}},
		{"H.264, 4:2:2, 10 bits", "677a001eb6cb405017fc4e0220000003002000000641e2c5d4", CodecH264,
			picture{width: 640, height: 360, sarW: 1, sarH: 1, chroma: 2, lumaDepth: 2, chromaDepth: 2}},
		{"H.264, 4:4:4, scaling lists, odd aspect", "67f4000d919b282a10f1f1fff803c80228800000030080000019078a14cb", CodecH264,
			picture{width: 322, height: 242, sarW: 121, sarH: 69, chroma: 3}},
		{"H.264, baseline, full range", "6742c00bd902c4ec05b828282a000003000200000300641e285490", CodecH264,
			picture{width: 176, height: 144, sarW: 1, sarH: 1, chroma: 1, colour: true, primaries: 5, transfer: 5, matrix: 5, fullRange: true}},
		{"HEVC, 10 bits, sub-layers, scaling lists, colours", "420101022000000300900000030000030078a003c08010e4d96566924e5780b5091009040000030004000003006420", CodecHEVC,
			picture{width: 1920, height: 1080, sarW: 1, sarH: 1, chroma: 1, lumaDepth: 2, chromaDepth: 2, colour: true, primaries: 9, transfer: 16, matrix: 9}},
		{"HEVC, cropped", "4201010408000003009d0800000300003cb00a480f9c93e5998a924e57ff803c8022b4040000030004000003006420", CodecHEVC,
			picture{width: 322, height: 242, sarW: 121, sarH: 69, chroma: 2}},
		{"HEVC, full range", "42010101600000030090000003000003003ca0162024596566924caf016e0a0a0a08000003000800000300c840", CodecHEVC,
			picture{width: 176, height: 144, sarW: 1, sarH: 1, chroma: 1, colour: true, primaries: 5, transfer: 5, matrix: 5, fullRange: true}},
	} {
		read := parseH264SPS
		if c.codec == CodecHEVC {
			read = parseHEVCSPS
		}
		nal := unhex(t, c.sps)
		got, ok := read(nal)
		got.profileTierLevel, got.subLayers, got.temporalNesting = [12]byte{}, 0, false
		if !ok || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.name, got, ok, c.want)
		}
		for n := range nal { // any part of it is safe, and never another size
			if p, _ := read(nal[:n]); p.width != 0 && (p.width != c.want.width || p.height != c.want.height) {
				t.Errorf("%s: cut at %d: %dx%d", c.name, n, p.width, p.height)
			}
		}
	}
}

// TestInBand: parameter sets that change are announced by avc3 and hev1, and a
// track without any is one of these.
func TestInBand(t *testing.T) {
	for _, c := range []struct {
		codec  Codec
		inBand bool
		none   bool
		want   string
	}{
		{CodecH264, false, false, "avc1"}, {CodecH264, true, false, "avc3"}, {CodecH264, false, true, "avc3"},
		{CodecHEVC, false, false, "hvc1"}, {CodecHEVC, true, false, "hev1"}, {CodecHEVC, false, true, "hev1"},
	} {
		spec := clipSpecs(t, c.codec, CodecAAC, 0)[0]
		cfg := &spec.Tracks[0].Config
		cfg.InBand = c.inBand
		if c.none {
			cfg.VPS, cfg.SPS, cfg.PPS = nil, nil, nil
		}
		init, err := ParseInit(buildAll(t, []*SegmentSpec{spec})[0].Init)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(init.Tracks[0].SampleEntry[4:8]); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func TestTooManyParameterSets(t *testing.T) {
	spec := clipSpecs(t, CodecH264, CodecAAC, 0)[0]
	cfg := &spec.Tracks[0].Config
	for range 40 {
		cfg.SPS = append(cfg.SPS, cfg.SPS[0])
	}
	cfg.PPS = append(cfg.PPS, make([]byte, 1<<16))
	init, err := ParseInit(buildAll(t, []*SegmentSpec{spec})[0].Init)
	if err != nil {
		t.Fatal(err)
	}
	if s, p := init.Tracks[0].Config.SPS, init.Tracks[0].Config.PPS; len(s) != 31 || len(p) != 1 {
		t.Errorf("%d SPS and %d PPS, want 31 and 1", len(s), len(p))
	}
}

func TestAudioConfigs(t *testing.T) {
	for _, c := range []struct {
		name     string
		codec    Codec
		header   string
		entry    string
		rate     uint32
		channels uint16
		config   string // decoder config, "-": not looked at
	}{
		{"AAC-LC stereo 48 kHz", CodecAAC, "fff14c80000000", "mp4a", 48000, 2, "1190"},
		{"AAC-LC 5.1 44.1 kHz, CRC", CodecAAC, "fff05180000000aabb", "mp4a", 44100, 6, "1230"},
		{"AAC 7.1", CodecAAC, "fff14dc0000000", "mp4a", 48000, 8, "11b8"},
		{"AAC with an unknown rate", CodecAAC, "fff17c80000000", "mp4a", 48000, 2, "1190"},
		{"AAC, no header", CodecAAC, "", "mp4a", 48000, 2, "1190"},
		{"AAC dual mono", CodecAAC, "fff14c0000000000", "mp4a", 48000, 2, "1180"},
		{"MPEG-1 layer II", CodecMPEGAudio, "fffda400", "mp4a", 48000, 2, ""},
		{"MPEG-1 layer III mono 44.1 kHz", CodecMPEGAudio, "fffb90c0", "mp4a", 44100, 1, ""},
		{"MPEG-2 layer II 24 kHz", CodecMPEGAudio, "fff5a400", "mp4a", 24000, 2, ""},
		{"MPEG audio, broken", CodecMPEGAudio, "00010203", "mp4a", 48000, 2, ""},
		{"AC-3 5.1", CodecAC3, "0b7700001440e100", "ac-3", 48000, 6, "-"},
		{"AC-3, broken", CodecAC3, "ffff", "ac-3", 48000, 2, "-"},
		{"E-AC-3, none", CodecEAC3, "", "ec-3", 48000, 2, "-"},
	} {
		s := soundOf(&Track{Config: TrackConfig{Codec: c.codec, FrameHeader: unhex(t, c.header)}})
		if s.entry != c.entry || s.rate != c.rate || s.channels != c.channels {
			t.Errorf("%s: %s, %d Hz, %d channels", c.name, s.entry, s.rate, s.channels)
		}
		if c.entry == "mp4a" {
			raw := appendBox(nil, s.config)
			dsi, err := parseESDS(raw[8:])
			if err != nil || hex.EncodeToString(dsi) != c.config {
				t.Errorf("%s: config %x, %v; want %s", c.name, dsi, err, c.config)
			}
			e, err := decode[*mp4.EsdsBox](box{typ: "esds", raw: raw, body: raw[8:]})
			if err != nil {
				t.Errorf("%s: mp4ff: %v", c.name, err)
			} else if d := e.DecConfigDescriptor.DecSpecificInfo; d != nil && !bytes.Equal(d.DecConfig, dsi) {
				t.Errorf("%s: mp4ff reads %x", c.name, d.DecConfig)
			}
		}
	}
}

// TestProgramConfig: a program config element of two front pairs and an LFE is
// carried into the AudioSpecificConfig, aligned anew.
func TestProgramConfig(t *testing.T) {
	w := &bitWriter{}
	w.put(5, 3) // ID_PCE
	body := func(w *bitWriter) {
		w.put(0, 4) // tag
		w.put(1, 2)
		w.put(3, 4)
		for _, n := range [][2]uint32{{2, 4}, {0, 4}, {0, 4}, {1, 2}, {0, 3}, {0, 4}, {0, 1}, {0, 1}, {0, 1}} {
			w.put(n[0], int(n[1]))
		}
		w.put(0x10, 5) // a channel pair
		w.put(0x11, 5) // another
		w.put(0, 4)    // LFE
		w.align()
		w.put(2, 8)
		w.put('h', 8)
		w.put('i', 8)
	}
	body(w)
	want := &bitWriter{}
	body(want)
	got, channels := programConfig(w.b)
	if !bytes.Equal(got, want.b) || channels != 5 {
		t.Errorf("%x with %d channels, want %x with 5", got, channels, want.b)
	}
	s, ok := aacSound(append([]byte{0xFF, 0xF1, 0x4C, 0, 0, 0, 0}, w.b...))
	if raw := appendBox(nil, s.config); !ok || s.channels != 5 || !bytes.Contains(raw, append([]byte{0x11, 0x80}, want.b...)) {
		t.Errorf("%d channels, esds %x", s.channels, raw)
	}
	for n := range w.b {
		if pce, _ := programConfig(w.b[:n]); pce != nil {
			t.Errorf("cut at %d: %x", n, pce)
		}
	}
}

// eac3 makes the head of a sync frame of 64 bytes.
func eac3(strmtyp, id, acmod, lfe uint32, chanmap int) []byte {
	w := &bitWriter{}
	w.put(0x0B77, 16)
	w.put(strmtyp, 2)
	w.put(id, 3)
	w.put(31, 11)
	w.put(0, 2) // 48 kHz
	w.put(3, 2) // 6 blocks
	w.put(acmod, 3)
	w.put(lfe, 1)
	w.put(16, 5)
	w.put(27, 5)
	w.put(0, 1)
	if strmtyp == 1 {
		w.put(uint32(b2i(chanmap >= 0)), 1)
		if chanmap >= 0 {
			w.put(uint32(chanmap), 16)
		}
	}
	return append(w.b, make([]byte, 64-len(w.b))...)
}

// TestEAC3Substreams: 5.1 with a dependent substream that adds a pair of rear
// surrounds, then the next frame, is 7.1 of one independent substream.
func TestEAC3Substreams(t *testing.T) {
	rear := 1 << (15 - 6) // Lrs/Rrs
	au := append(eac3(0, 0, 7, 1, -1), eac3(1, 0, 2, 0, rear)...)
	s, ok := eac3Sound(append(au, eac3(0, 0, 7, 1, -1)...))
	d := s.config.(*mp4.Dec3Box)
	if !ok || s.channels != 8 || len(d.EC3Subs) != 1 || d.EC3Subs[0].NumDepSub != 1 || d.EC3Subs[0].ChanLoc != 1<<1 || d.DataRate != 32 {
		t.Errorf("%d channels, %+v", s.channels, d)
	}
	if n, _ := d.ChannelInfo(); n != 8 {
		t.Errorf("mp4ff counts %d channels", n)
	}
	two, _ := eac3Sound(append(eac3(0, 0, 7, 1, -1), eac3(0, 1, 2, 0, -1)...))
	if d := two.config.(*mp4.Dec3Box); len(d.EC3Subs) != 2 || d.NumIndSub != 1 {
		t.Errorf("two independent substreams: %+v", d)
	}
}

func TestLanguage(t *testing.T) {
	for _, c := range []struct{ descriptors, want string }{
		{"", "und"},
		{"\x0a\x04fra\x00", "fra"},
		{"\x52\x01\x00\x0a\x04ENG\x01", "eng"},
		{"\x59\x08deu\x10\x00\x01\x00\x02", "deu"},
		{"\x0a\x02fr", "und"},
		{"\x0a\x04f\xffa\x00\x56\x05ces\x09\x00", "ces"},
		{"\x0a\x50eng", "und"},
		{"\x0a", "und"},
	} {
		if got := (&TrackConfig{Descriptors: []byte(c.descriptors)}).language(); got != c.want {
			t.Errorf("%x: %s, want %s", c.descriptors, got, c.want)
		}
	}
}
