package m4f

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/Eyevinn/mp4ff/mp4"
)

func TestAudioSpecificConfigs(t *testing.T) {
	for _, c := range []struct {
		name string
		asc  string
		want AudioConfig
	}{
		{"AAC-LC, stereo, 48 kHz", "1190", AudioConfig{ObjectType: 2, Rate: 48000, OutputRate: 48000, Channels: 2, Layout: 2, Samples: 1024, Bits: 16}},
		{"AAC-LC of 960 samples", "1194", AudioConfig{ObjectType: 2, Rate: 48000, OutputRate: 48000, Channels: 2, Layout: 2, Samples: 960, Bits: 16}},
		{"AAC-LC 7.1, 44.1 kHz", "1238", AudioConfig{ObjectType: 2, Rate: 44100, OutputRate: 44100, Channels: 8, Layout: 7, Samples: 1024, Bits: 16}},
		{"HE-AAC, announced ahead", "2b118800", AudioConfig{ObjectType: 2, Rate: 24000, OutputRate: 48000, Channels: 2, Layout: 2, SBR: true, Samples: 1024, Bits: 25}},
		{"HE-AAC v2, announced ahead", "eb098800", AudioConfig{ObjectType: 2, Rate: 24000, OutputRate: 48000, Channels: 1, Layout: 1, SBR: true, PS: true, Samples: 1024, Bits: 25}},
		{"HE-AAC, announced behind", "131056e598", AudioConfig{ObjectType: 2, Rate: 24000, OutputRate: 48000, Channels: 2, Layout: 2, SBR: true, Samples: 1024, Bits: 16}},
		{"HE-AAC v2, announced behind", "130856e59d4880", AudioConfig{ObjectType: 2, Rate: 24000, OutputRate: 48000, Channels: 1, Layout: 1, SBR: true, PS: true, Samples: 1024, Bits: 16}},
		{"a rate of its own", "17803e8010", AudioConfig{ObjectType: 2, Rate: 32000, OutputRate: 32000, Channels: 2, Layout: 2, Samples: 1024, Bits: 40}},
		{"AAC-LD", "b98800", AudioConfig{ObjectType: 23, Rate: 48000, OutputRate: 48000, Channels: 1, Layout: 1, Samples: 512, Bits: 18}},
		{"AAC-ELD", "f8e63000", AudioConfig{ObjectType: 39, Rate: 48000, OutputRate: 48000, Channels: 1, Layout: 1, Samples: 480}},
		{"cut", "11", AudioConfig{}},
		{"none", "", AudioConfig{}},
		{"CELP", "4190", AudioConfig{}},
		{"no rate", "1690", AudioConfig{}},
	} {
		got, ok := ParseAudioSpecificConfig(unhex(t, c.asc))
		if got != c.want || ok != (c.want.Samples > 0) {
			t.Errorf("%s: %+v, %v; want %+v", c.name, got, ok, c.want)
		}
	}
}

// A program config element lies at a place of its own in the configuration.
func TestConfigWithProgram(t *testing.T) {
	w := &bitWriter{}
	w.put(2, 5)
	w.put(3, 4)
	w.put(0, 4)
	w.put(0, 3)
	for _, n := range [][2]uint32{{1, 10}, {1, 4}, {0, 4}, {1, 4}, {1, 2}, {0, 3}, {0, 4}, {0, 3}, {0x10, 5}, {0x11, 5}, {0, 4}} {
		w.put(n[0], int(n[1]))
	}
	w.align()
	w.put(0, 8)
	n := w.n
	c, ok := ParseAudioSpecificConfig(w.b)
	if !ok || c.Channels != 5 || c.Layout != 0 || c.Bits != n {
		t.Errorf("%+v, %v, want 5 channels in %d bits", c, ok, n)
	}
	s := soundOf(&Track{Config: TrackConfig{Codec: CodecLATM, FrameHeader: w.b}})
	if s.channels != 5 || !bytes.Contains(appendBox(nil, s.config), w.b) {
		t.Errorf("sample entry of %d channels", s.channels)
	}
}

func TestOpusConfigs(t *testing.T) {
	for _, c := range []struct {
		name, descriptors, dops string
		channels                uint16
	}{
		{"no descriptor", "05044f707573", "00020000" + "0000bb80" + "000000", 2},
		{"mono", "05044f7075737f028001", "00010000" + "0000bb80" + "000000", 1},
		{"stereo", "05044f7075737f028002", "00020000" + "0000bb80" + "000000", 2},
		{"dual mono", "7f028000", "00020000" + "0000bb80" + "0000" + "ff" + "0101" + "0001", 2},
		{"5.1", "7f028006", "00060000" + "0000bb80" + "0000" + "01" + "0402" + "000401020305", 6},
		{"7.1", "7f028008", "00080000" + "0000bb80" + "0000" + "01" + "0503" + "0006010203040507", 8},
		{"uncoupled", "7f028083", "00030000" + "0000bb80" + "0000" + "01" + "0300" + "000102", 3},
		{"written out", "7f07808104ffc02980", "00040000" + "0000bb80" + "0000" + "ff" + "0400" + "00010203", 4},
		{"cut", "7f03808104", "00020000" + "0000bb80" + "000000", 2},
		{"unknown", "7f0280f0", "00020000" + "0000bb80" + "000000", 2},
	} {
		s := soundOf(&Track{Config: TrackConfig{Codec: CodecOpus, Descriptors: unhex(t, c.descriptors)}})
		if got := hex.EncodeToString(appendBox(nil, s.config)[8:]); got != c.dops || s.channels != c.channels || s.rate != 48000 {
			t.Errorf("%s: %s of %d channels, want %s", c.name, got, s.channels, c.dops)
		}
	}
}

func TestG711Configs(t *testing.T) {
	for _, c := range []struct {
		codec    Codec
		header   string
		entry    string
		rate     uint32
		channels uint16
	}{
		{CodecALaw, "", "alaw", 8000, 1},
		{CodecMuLaw, "", "ulaw", 8000, 1},
		{CodecMuLaw, "0200003e80", "ulaw", 16000, 2},
		{CodecALaw, "0000003e80", "alaw", 8000, 1},
		{CodecALaw, "0100000000", "alaw", 8000, 1},
	} {
		s := soundOf(&Track{Config: TrackConfig{Codec: c.codec, FrameHeader: unhex(t, c.header)}})
		if s.entry != c.entry || s.rate != c.rate || s.channels != c.channels || s.config != nil {
			t.Errorf("%v %s: %+v", c.codec, c.header, s)
		}
	}
}

// dtsSubstreamXLL is an extension substream whose asset descriptor says: 24 bits,
// 96 kHz, 8 channels, lossless.
func dtsSubstreamXLL(mode, parts uint32) []byte {
	d := &bitWriter{} // asset descriptor behind its length
	for _, n := range [][2]uint32{{0, 3}, {0, 3}, {23, 5}, {13, 4}, {7, 8}, {1, 1}, {0, 2}, {1, 1}, {3, 2}, {0x4F, 16}, {0, 3}, {0, 2}, {mode, 2}, {parts, 12}} {
		d.put(n[0], int(n[1]))
	}
	size := (9 + d.n + 7) / 8
	w := &bitWriter{}
	w.put(0x64582025, 32)
	w.put(0, 8+2+1)
	w.put(31, 8)
	w.put(99, 16)
	w.put(1, 1)
	w.put(2, 2) // 48 kHz
	w.put(0, 3) // 512 samples
	w.put(0, 1+3+3+1+1)
	w.put(67, 16)
	w.put(uint32(size-1), 9)
	for k := range d.n {
		w.put(uint32(d.b[k>>3]>>(7-k&7)&1), 1)
	}
	return append(w.b, make([]byte, 100-len(w.b))...)
}

func TestDTSConfigs(t *testing.T) {
	core := append(unhex(t, "7ffe8001fc3c3ff275e0000a0000"), make([]byte, 1010)...) // 3/2, 48 kHz, 1024 bytes
	lfe := bytes.Clone(core)
	lfe[10] |= 2 << 1 // LFF
	xch := bytes.Clone(core)
	xch[10] |= 0x10 // EXT_AUDIO: XCh
	for _, c := range []struct {
		name     string
		b        []byte
		entry    string
		rate     uint32
		channels uint16
		ddts     string
	}{
		{"generic", nil, "dtsc", 48000, 2, "0000bb80" + "000bb800" + "000bb800" + "10" + "0208" + "4000" + "000200"},
		{"core", core, "dtsc", 48000, 5, "0000bb80000bb800000bb8001002244000000700"},
		{"core with LFE", lfe, "dtsc", 48000, 6, "0000bb80000bb800000bb8001003244000000f00"},
		{"core with XCh", xch, "dtsc", 48000, 6, "0000bb80000bb800000bb8001004244000001700"},
		{"core and XLL", append(bytes.Clone(core), dtsSubstreamXLL(1, 0)...), "dtsh", 96000, 8, "000177000000000000000000185c244000004f00"},
		{"core and XBR", append(bytes.Clone(core), dtsSubstreamXLL(0, dtsCore|dtsExtXBR)...), "dtsh", 96000, 8, "000177000000000000000000184c244000004f00"},
		{"XLL alone", dtsSubstreamXLL(1, 0), "dtsl", 96000, 8, "0001770000000000000000001862000000004f00"},
		{"low bit rate alone", dtsSubstreamXLL(2, 0), "dtse", 96000, 8, "0001770000000000000000001864000000004f00"},
		{"core and what says nothing", append(bytes.Clone(core), dtsSubstreamXLL(3, 0)...), "dtsh", 96000, 8, "0001770000000000000000001840244000004f00"},
	} {
		tr := &Track{Config: TrackConfig{Codec: CodecDTS, FrameHeader: c.b[:min(len(c.b), 64)]}}
		if c.b != nil {
			tr.Samples = []Sample{{Data: c.b}}
		}
		s := soundOf(tr)
		body := appendBox(nil, s.config)[8:]
		if s.entry != c.entry || s.rate != c.rate || s.channels != c.channels || hex.EncodeToString(body) != c.ddts {
			t.Errorf("%s: %s, %d Hz, %d channels, %x", c.name, s.entry, s.rate, s.channels, body)
		}
	}
}

// TestObjects: the additional bit stream information of an E-AC-3 frame says
// that it holds objects, and so does dec3.
func TestObjects(t *testing.T) {
	frame := func(objects uint32) []byte {
		w := &bitWriter{}
		w.put(0x0B77, 16)
		w.put(0, 5)
		w.put(63, 11)
		w.put(0, 2)
		w.put(3, 2)
		w.put(7, 3)
		w.put(1, 1)
		w.put(16, 5)
		w.put(27, 5)
		w.put(0, 1) // no compression
		w.put(1, 1) // mixing
		w.put(0, 2+6+6)
		w.put(0, 1)         // LFE
		w.put(0, 1+1)       // scales
		w.put(3, 2)         // mixing data of
		w.put(1, 5)         // 3 bytes
		w.put(0x123456, 24) //
		w.put(1, 1)         // a configuration for each of
		for range 6 {       // blocks
			w.put(1, 1)
			w.put(9, 5)
		}
		w.put(1, 1)         // information
		w.put(0, 3+1+1+2)   //
		w.put(1, 1)         // production
		w.put(0x55, 8)      //
		w.put(0, 1)         // sampling frequency
		w.put(1, 1)         // additional
		w.put(1, 6)         // 2 bytes
		w.put(0, 7)         //
		w.put(objects, 1+8) //
		return append(w.b, make([]byte, 128-len(w.b))...)
	}
	with, ok := eac3Sound(frame(1<<8 | 16))
	if d := with.config.(*mp4.Dec3Box); !ok || !bytes.Equal(d.Reserved, []byte{1, 16}) {
		t.Errorf("%+v", d)
	}
	if b := appendBox(nil, with.config); len(b) != 8+5+2 || !bytes.HasSuffix(b, []byte{1, 16}) {
		t.Errorf("dec3 %x", b)
	}
	if without, _ := eac3Sound(frame(16)); without.config.(*mp4.Dec3Box).Reserved != nil {
		t.Error("no objects, and dec3 says some")
	}
}
