package mpegts_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
)

// ascLC is AAC-LC, stereo, 48 kHz.
var ascLC = []byte{0x11, 0x90}

// bitString writes bits, most significant first.
type bitString struct {
	b []byte
	n int
}

func (w *bitString) put(v uint64, n int) *bitString {
	for n--; n >= 0; n-- {
		if w.n&7 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[w.n>>3] |= byte(v>>n&1) << (7 - w.n&7)
		w.n++
	}
	return w
}

func (w *bitString) bytes(p []byte) *bitString {
	for _, x := range p {
		w.put(uint64(x), 8)
	}
	return w
}

// muxConfig is a StreamMuxConfig of the given version; fixed, if not 0, is the
// size of every frame.
func muxConfig(w *bitString, version, frames, fixed int, asc []byte, bits int) {
	w.put(uint64(version), 1)
	if version == 1 {
		w.put(0, 1).put(1, 2).put(0x1234, 16)
	}
	w.put(1, 1).put(uint64(frames-1), 6).put(0, 4+3)
	if version == 1 {
		w.put(0, 2).put(uint64(bits), 8)
	}
	for k := range bits {
		w.put(uint64(asc[k>>3]>>(7-k&7)&1), 1)
	}
	if fixed > 0 {
		w.put(1, 3).put(uint64(fixed-20), 9)
	} else {
		w.put(0, 3).put(0xff, 8)
	}
	w.put(0, 2)
}

// loas makes an AudioSyncStream element of frames; config writes the mux
// configuration, nil: the last one holds.
func loas(config func(*bitString), fixed bool, frames ...[]byte) []byte {
	w := &bitString{}
	if config == nil {
		w.put(1, 1)
	} else {
		w.put(0, 1)
		config(w)
	}
	for _, f := range frames {
		if !fixed {
			n := len(f)
			for ; n >= 255; n -= 255 {
				w.put(255, 8)
			}
			w.put(uint64(n), 8)
		}
		w.bytes(f)
	}
	return append([]byte{0x56, 0xe0 | byte(len(w.b)>>8), byte(len(w.b))}, w.b...)
}

// payload makes n bytes that no sync word is in.
func payload(seed, n int) []byte {
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	b := make([]byte, n)
	for k := range b {
		b[k] = byte(r.UintN(64))
	}
	return b
}

// sound is a transport stream of PES packets of one audio track.
type sound struct {
	mux
	typ  byte
	desc []byte
}

func newSound(typ byte, desc []byte) *sound {
	s := &sound{typ: typ, desc: desc}
	s.section(0, pat(0, 1, 0x1000))
	s.section(0x1000, pmt(1, 0, es{0x101, typ, desc}))
	return s
}

func (s *sound) pes(pts int64, b ...[]byte) {
	s.packets(0x101, pes(0xbd, pts, pts, -1, slices.Concat(b...)))
}

func TestLATM(t *testing.T) {
	one := func(w *bitString) { muxConfig(w, 0, 1, 0, ascLC, 16) }
	for _, c := range []struct {
		name   string
		config func(*bitString)
		fixed  bool
		frames int
		asc    []byte
	}{
		{"version 0", one, false, 1, ascLC},
		{"version 1", func(w *bitString) { muxConfig(w, 1, 1, 0, ascLC, 16) }, false, 1, ascLC},
		{"several frames in an element", func(w *bitString) { muxConfig(w, 0, 3, 0, ascLC, 16) }, false, 3, ascLC},
		{"frames of a fixed size", func(w *bitString) { muxConfig(w, 1, 2, 300, ascLC, 16) }, true, 2, ascLC},
		{"HE-AAC announced ahead", func(w *bitString) { muxConfig(w, 0, 1, 0, []byte{0x2b, 0x11, 0x88, 0}, 25) }, false, 1, []byte{0x2b, 0x11, 0x88, 0}},
		{"HE-AAC announced behind", func(w *bitString) { muxConfig(w, 1, 1, 0, []byte{0x13, 0x10, 0x56, 0xe5, 0x98}, 40) }, false, 1, []byte{0x13, 0x10, 0x56, 0xe5, 0x98}},
	} {
		m := newSound(0x11, nil)
		var want [][]byte
		for k := range int64(10) {
			config := c.config
			if k == 0 || k%3 != 1 {
				config = nil // the first one cannot be read
			}
			var frames [][]byte
			for j := range c.frames {
				frames = append(frames, payload(int(k)*10+j, 300))
			}
			if k > 0 {
				want = append(want, frames...)
			}
			m.pes(1920*int64(c.frames)*k, loas(config, c.fixed, frames...))
		}
		cfg, ok := m4f.ParseAudioSpecificConfig(c.asc)
		if !ok {
			t.Fatal(c.name)
		}
		f, _ := demux(0, m.out, nil)
		if len(f.units) != len(want) {
			t.Errorf("%s: %d frames, want %d", c.name, len(f.units), len(want))
			continue
		}
		for k, u := range f.units {
			if !bytes.Equal(u.Data, want[k]) || !bytes.Equal(u.Header, c.asc) || u.Codec != m4f.CodecLATM || u.Duration != 1024*m4f.Timescale/int64(cfg.Rate) {
				t.Fatalf("%s: frame %d: %d bytes of %v, %d ticks, configuration %x", c.name, k, len(u.Data), u.Codec, u.Duration, u.Header)
			}
		}
		// A wait for a configuration is told, and nothing else is lost.
		if len(f.losses) != 1 || f.losses[0].Lost != 0 {
			t.Errorf("%s: losses %v", c.name, f.losses)
		}
	}
}

// A configuration counts up to the next loss only: another may be among what
// was lost.
func TestLATMAfterLoss(t *testing.T) {
	config := func(w *bitString) { muxConfig(w, 0, 1, 0, ascLC, 16) }
	m := newSound(0x11, nil)
	for k := range int64(12) {
		if k == 4 {
			m.cc[0x101]++
		}
		c := config
		if k%6 != 0 {
			c = nil
		}
		m.pes(1920*k, loas(c, false, payload(int(k), 100)))
	}
	f, _ := demux(0, m.out, nil)
	var at []int64
	for _, u := range f.units {
		at = append(at, u.PTS/1920)
	}
	if !slices.Equal(at, []int64{0, 1, 2, 3, 6, 7, 8, 9, 10, 11}) || len(f.losses) == 0 {
		t.Errorf("frames %v, losses %v", at, f.losses)
	}
}

// What no MP4 can say of LATM is carried as it is.
func TestForeignLATM(t *testing.T) {
	layers := func(w *bitString) { // two layers
		w.put(0, 1).put(1, 1).put(0, 6+4).put(1, 3).bytes(ascLC).put(0, 3).put(0xff, 8).put(1, 1).put(0, 3).put(0xff, 8).put(0, 2)
	}
	m := newSound(0x11, nil)
	var want [][]byte
	for k := range int64(4) {
		want = append(want, loas(layers, false, payload(int(k), 100)))
		m.pes(1920*k, want[k])
	}
	f, _ := demux(0, m.out, nil)
	if len(f.units) != 4 || len(f.losses) != 0 {
		t.Fatalf("%d units, %v", len(f.units), f.losses)
	}
	for k, u := range f.units {
		if u.Codec != m4f.CodecData || !bytes.Equal(u.Data, pes(0xc0, u.PTS, u.PTS, -1, want[k])) {
			t.Errorf("unit %d: %v, %x", k, u.Codec, u.Data)
		}
	}
}

// opusUnit is an Opus packet behind its control header.
func opusUnit(packet []byte, flags byte, extra []byte) []byte {
	b := []byte{0x7f, 0xe0 | flags}
	n := len(packet)
	for ; n >= 255; n -= 255 {
		b = append(b, 255)
	}
	return slices.Concat(b, []byte{byte(n)}, extra, packet)
}

func TestOpus(t *testing.T) {
	packet := func(toc byte, n, seed int) []byte { return append([]byte{toc}, payload(seed, n)...) }
	m := newSound(0x06, mpegts.OpusDescriptors(2))
	var want [][]byte
	var times []int64
	at := int64(0)
	for k := range 20 {
		first := packet(0xfc, 100+40*k, k)          // 20 ms
		second := packet(0xe1, 30, 1000+k)          // twice 2.5 ms
		third := []byte{0x03, 0x02, byte(k & 0x3f)} // two frames of 10 ms
		fourth := []byte{0x18}                      // 60 ms, nothing sent
		m.pes(at, opusUnit(first, 0x10, []byte{0x01, 0x38}), opusUnit(second, 0x1c, []byte{0, 9, 0, 8, 2, 0x7f, 0xe0}), opusUnit(third, 0, nil), opusUnit(fourth, 0, nil))
		want = append(want, first, second, third, fourth)
		times = append(times, at, at+1800, at+1800+450, at+1800+450+1800)
		at += 1800 + 450 + 1800 + 5400
	}
	f, _ := demux(0, m.out, nil)
	if len(f.units) != len(want) || len(f.losses) > 0 {
		t.Fatalf("%d packets of %d, losses %v", len(f.units), len(want), f.losses)
	}
	for k, u := range f.units {
		if !bytes.Equal(u.Data, want[k]) || u.PTS != times[k] || u.Codec != m4f.CodecOpus {
			t.Fatalf("packet %d: %x at %d, want %x at %d", k, u.Data, u.PTS, want[k], times[k])
		}
	}
}

// dtsCore makes a core of 512 samples at 48 kHz.
func dtsCore(seed, size int) []byte {
	w := &bitString{}
	w.put(0x7ffe8001, 32).put(1, 1).put(31, 5).put(0, 1).put(15, 7).put(uint64(size-1), 14).put(9, 6).put(13, 4).put(15, 5).put(0, 8)
	return append(w.b, payload(seed, size-len(w.b))...)
}

// dtsSubstream makes an extension substream of 4096 samples at 48 kHz.
func dtsSubstream(seed, index, size int, wide bool) []byte {
	w := &bitString{}
	w.put(0x64582025, 32).put(0, 8).put(uint64(index), 2)
	if wide {
		w.put(1, 1).put(31, 12).put(uint64(size-1), 20)
	} else {
		w.put(0, 1).put(31, 8).put(uint64(size-1), 16)
	}
	w.put(1, 1).put(2, 2).put(7, 3).put(0, 8)
	return append(w.b, payload(seed, size-len(w.b))...)
}

func TestDTS(t *testing.T) {
	for _, c := range []struct {
		name string
		unit func(k int) []byte
		step int64
	}{
		{"core", func(k int) []byte { return dtsCore(k, 96+10*k) }, 960},
		{"core and extension", func(k int) []byte { return slices.Concat(dtsCore(k, 1006), dtsSubstream(k, 0, 2000+k, k%2 == 0)) }, 960},
		{"core and two extensions", func(k int) []byte {
			return slices.Concat(dtsCore(k, 1006), dtsSubstream(k, 0, 200, false), dtsSubstream(k, 1, 400, true))
		}, 960},
		{"no core", func(k int) []byte { return dtsSubstream(k, 0, 400, false) }, 7680},
		{"no core, two substreams", func(k int) []byte {
			return slices.Concat(dtsSubstream(k, 0, 400, false), dtsSubstream(k, 2, 300, false))
		}, 7680},
	} {
		for _, many := range []int{1, 3} {
			m := newSound(0x8a, nil)
			var want [][]byte
			for k := 0; k < 24; k += many {
				var b []byte
				for j := range many {
					want = append(want, c.unit(k+j))
					b = append(b, c.unit(k+j)...)
				}
				m.pes(c.step*int64(k), b)
			}
			f, _ := demux(0, m.out, nil)
			if len(f.units) != len(want) || len(f.losses) > 0 {
				t.Errorf("%s, %d in a PES packet: %d access units, losses %v", c.name, many, len(f.units), f.losses)
				continue
			}
			for k, u := range f.units {
				if !bytes.Equal(u.Data, want[k]) || u.PTS != c.step*int64(k) || u.Duration != c.step {
					t.Fatalf("%s: access unit %d: %d bytes at %d of %d ticks", c.name, k, len(u.Data), u.PTS, u.Duration)
				}
			}
		}
	}
}

func TestG711(t *testing.T) {
	for typ, codec := range map[byte]m4f.Codec{0x90: m4f.CodecALaw, 0x91: m4f.CodecMuLaw} {
		m := newSound(typ, nil)
		for k := range int64(10) {
			pts := 3600 * k
			if k%3 == 2 {
				pts = -1
			}
			m.pes(pts, payload(int(k), 320))
		}
		m.cc[0x101]++
		m.pes(36000, payload(10, 320))
		f, _ := demux(0, m.out, nil)
		if len(f.units) != 11 || len(f.losses) != 1 {
			t.Fatalf("%v: %d units, losses %v", codec, len(f.units), f.losses)
		}
		for k, u := range f.units {
			if u.Codec != codec || u.PTS != 3600*int64(k) || u.Duration != 3600 || !bytes.Equal(u.Data, payload(k, 320)) || !bytes.Equal(u.Header, mpegts.G711Header(1, 8000)) {
				t.Fatalf("%v: unit %d: %+v", codec, k, u)
			}
		}
	}
}

// streams of each codec whose frames a search must find again.
func framed() map[string]struct {
	typ  byte
	desc []byte
	unit func(k int) []byte
	step int64
} {
	config := func(w *bitString) { muxConfig(w, 0, 1, 0, ascLC, 16) }
	return map[string]struct {
		typ  byte
		desc []byte
		unit func(k int) []byte
		step int64
	}{
		"latm": {0x11, nil, func(k int) []byte { return loas(config, false, payload(k, 200+k%50)) }, 1920},
		"opus": {0x06, mpegts.OpusDescriptors(2), func(k int) []byte { return opusUnit(append([]byte{0xfc}, payload(k, 200+k%100)...), 0, nil) }, 1800},
		"dts":  {0x82, nil, func(k int) []byte { return dtsCore(k, 300+k%50) }, 960},
		"dtshd": {0x86, registration("DTS3"), func(k int) []byte {
			return slices.Concat(dtsCore(k, 300), dtsSubstream(k, 0, 100+k%50, false))
		}, 960},
	}
}

// However frames are spread over PES packets and whatever packet is lost, each
// frame that comes out is one that went in, at its time; the loss is told; and
// frames come again behind it.
func TestLossesInFrames(t *testing.T) {
	for name, c := range framed() {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				const n = 60
				many := rapid.IntRange(1, 4).Draw(t, "frames in a PES packet")
				m := newSound(c.typ, c.desc)
				want := map[int64][]byte{}
				for k := 0; k < n; k += many {
					var b []byte
					for j := range many {
						want[c.step*int64(k+j)] = c.unit(k + j)
						b = append(b, c.unit(k+j)...)
					}
					m.pes(c.step*int64(k), b)
				}
				full, _ := demux(0, m.out, nil)
				data := map[int64][]byte{}
				for _, u := range full.units {
					data[u.PTS] = u.Data
				}
				if len(full.units) < n || len(full.losses) > 0 {
					t.Fatalf("%d frames, losses %v", len(full.units), full.losses)
				}
				at := rapid.IntRange(4, len(m.out)/188-10).Draw(t, "packet lost") * 188
				lost, _ := demux(0, slices.Concat(m.out[:at], m.out[at+188:]), nil)
				if len(lost.losses) == 0 {
					t.Fatal("no loss")
				}
				for _, u := range lost.units {
					// What is marked may be a part: a DTS core whose extension is lost.
					if want := data[u.PTS]; !bytes.Equal(want, u.Data) && !(u.Marked && bytes.HasPrefix(want, u.Data)) {
						t.Fatalf("a frame at %d that was not sent (marked %v, %d bytes of %d)", u.PTS, u.Marked, len(u.Data), len(want))
					}
				}
				last := full.units[len(full.units)-1].PTS
				if k := len(lost.units); k < len(full.units)-8 || lost.units[k-1].PTS != last {
					t.Fatalf("%d frames of %d", k, len(full.units))
				}
			})
		})
	}
}

// FuzzAudio gives hostile bytes to every audio codec, in PES packets whose
// continuity is right.
func FuzzAudio(f *testing.F) {
	var types []es
	for _, name := range []string{"dts", "dtshd", "latm", "opus"} {
		c := framed()[name]
		types = append(types, es{0x101, c.typ, c.desc})
		f.Add(uint8(len(types)-1), slices.Concat(c.unit(1), c.unit(2), c.unit(3)[:50], c.unit(4)), uint16(200))
	}
	types = append(types, es{0x101, 0x90, nil}, es{0x101, 0x0f, nil}, es{0x101, 0x03, nil}, es{0x101, 0x81, nil})
	f.Add(uint8(4), payload(1, 500), uint16(160))
	f.Add(uint8(2), slices.Concat(loas(func(w *bitString) { muxConfig(w, 1, 2, 0, ascLC, 16) }, false, payload(1, 300), nil), loas(nil, false, payload(1, 3), payload(2, 2))), uint16(300))
	f.Fuzz(func(t *testing.T, which uint8, b []byte, size uint16) {
		e := types[int(which)%len(types)]
		s := newSound(e.typ, e.desc)
		n := int(size) + 1
		for k := 0; k*n < len(b) && k < 200; k++ {
			pts := int64(k) * 3600
			if k%4 == 3 {
				pts = -1
			}
			s.pes(pts, b[k*n:min(k*n+n, len(b))])
		}
		out, _ := demux(0, s.out, nil)
		total := 0
		for _, u := range out.units {
			total += len(u.Data)
			if u.Duration < 0 || u.Codec != m4f.CodecData && u.Duration == 0 || len(u.Data) == 0 {
				t.Fatalf("%d bytes of %v for %d ticks", len(u.Data), u.Codec, u.Duration)
			}
		}
		if total > len(b)+14*len(out.units) {
			t.Fatalf("%d bytes of frames out of %d", total, len(b))
		}
	})
}

// Frames put back into their framing are read as they were.
func TestFraming(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		frames := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 1, 800), 1, 8).Draw(t, "frames")
		asc := rapid.SampledFrom([][]byte{ascLC, {0x12, 0x08}, {0x13, 0x10, 0x56, 0xe5, 0x98}, {0x2b, 0x11, 0x88, 0}, {0x11, 0xb8}}).Draw(t, "configuration")
		m := newSound(0x11, nil)
		for k, fr := range frames {
			b, err := mpegts.AppendLOAS(nil, asc, fr)
			if err != nil {
				t.Fatal(err)
			}
			m.pes(int64(k)*4096, b)
		}
		f, _ := demux(0, m.out, nil)
		if len(f.units) != len(frames) || len(f.losses) > 0 {
			t.Fatalf("%d of %d frames, %v", len(f.units), len(frames), f.losses)
		}
		for k, u := range f.units {
			if !bytes.Equal(u.Data, frames[k]) || !bytes.Equal(u.Header, asc) {
				t.Fatalf("frame %d: %x of %x", k, u.Data, u.Header)
			}
		}
	})
	var adts []byte
	for k := range 5 {
		var err error
		if adts, err = mpegts.AppendADTS(adts, []byte{0x11, 0xb8}, payload(k, 100+k)); err != nil {
			t.Fatal(err)
		}
	}
	m := newSound(0x0f, nil)
	m.pes(0, adts)
	f, _ := demux(0, m.out, nil)
	if len(f.units) != 5 || f.units[0].Header[2] != 0x4d || f.units[0].Header[3]>>6 != 3 {
		t.Errorf("%d frames of ADTS, header %x", len(f.units), f.units[0].Header)
	}
	for k, u := range f.units {
		if !bytes.Equal(u.Data, payload(k, 100+k)) {
			t.Errorf("frame %d", k)
		}
	}
	// Dual mono has no configuration of its channels at all (ARIB STD-B32).
	if b, err := mpegts.AppendADTS(nil, []byte{0x11, 0x80}, []byte{1}); err != nil || b[2] != 0x4c || b[3]>>6 != 0 {
		t.Errorf("dual mono: %x, %v", b, err)
	}
	for _, asc := range [][]byte{nil, {0x2b}, {0xf8, 0x5e, 0x40}, {0x2b, 0x11, 0x88, 0}, {0x11, 0x94}, {0x16, 0x90}} {
		if _, err := mpegts.AppendADTS(nil, asc, []byte{1}); err == nil {
			t.Errorf("ADTS of configuration %x", asc)
		}
	}
	if b, err := mpegts.AppendLOAS([]byte{7}, ascLC, make([]byte, 9000)); err == nil || len(b) != 1 {
		t.Errorf("a frame of 9000 bytes: %v", err)
	}
}

// The times of frames follow their PES packet's, however odd the rate, and do
// not drift from it.
func TestNoDrift(t *testing.T) {
	m := newSound(0x03, nil)
	const frames = 3000 // of layer III at 44.1 kHz: 2351.02 ticks
	frame := append([]byte{0xff, 0xfb, 0x90, 0}, payload(1, 413)...)
	for k := 0; k < frames; k += 5 {
		m.pes(int64(k)*1152*90000/44100, bytes.Repeat(frame, 5))
	}
	f, _ := demux(0, m.out, nil)
	if len(f.units) != frames {
		t.Fatalf("%d frames, losses %v", len(f.units), f.losses)
	}
	for k, u := range f.units {
		if off := u.PTS - int64(k)*1152*90000/44100; off > 1 || off < -1 {
			t.Fatalf("frame %d is off by %d", k, off)
		}
	}
}

// A codec that changes on its PID is told by the frames themselves.
func TestCodecChange(t *testing.T) {
	m := newSound(0x03, nil)
	m.pes(0, mp2(), mp2())
	adts, err := mpegts.AppendADTS(nil, ascLC, payload(1, 200))
	if err != nil {
		t.Fatal(err)
	}
	m.pes(4320, adts, adts)
	m.pes(4320+3840, mp2())
	f, _ := demux(0, m.out, nil)
	var got []string
	for _, u := range f.units {
		got = append(got, fmt.Sprint(u.Codec, u.PTS))
	}
	if want := []string{"mpegaudio 0", "mpegaudio 2160", "aac 4320", "aac 6240", "mpegaudio 8160"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	// AC-3, then E-AC-3.
	m = newSound(0x06, []byte{0x6a, 1, 0})
	ac3 := make([]byte, 768)
	binary.BigEndian.PutUint64(ac3, 0x0b77_0000_1440_4000)
	eac3 := make([]byte, 768)
	binary.BigEndian.PutUint64(eac3, 0x0b77_017f_3480_0000)
	m.pes(0, ac3, ac3)
	m.pes(5760, eac3)
	f, _ = demux(0, m.out, nil)
	if len(f.units) != 3 || f.units[1].Codec != m4f.CodecAC3 || f.units[2].Codec != m4f.CodecEAC3 {
		t.Errorf("%v", f.log)
	}
}

// TestDataWhole has every kind of stream that is not decoded come out as it went
// in: PES packets with their headers, sections one by one.
func TestDataWhole(t *testing.T) {
	section := func(k int) []byte { return table(0x74+byte(k%3), k, k%32, 0, 0, payload(k, 20+150*k)) }
	packet := func(k int) []byte {
		b := pes(0xfc, int64(k)*3600, int64(k)*3600, -1, payload(k, 1+300*k))
		if k%4 == 3 { // no time
			b = pes(0xbf, -1, -1, -1, payload(k, 10+k))
		}
		return b
	}
	for _, c := range []struct {
		name string
		typ  byte
		desc []byte
		unit func(k int) []byte
	}{
		{"KLV", 0x06, registration("KLVA"), packet},
		{"KLV as metadata", 0x15, []byte{0x26, 9, 0x01, 0, 0xff, 'K', 'L', 'V', 'A', 0, 0x0f}, packet},
		{"ID3", 0x15, []byte{0x26, 13, 0xff, 0xff, 'I', 'D', '3', ' ', 0xff, 'I', 'D', '3', ' ', 0, 0x0f}, packet},
		{"teletext", 0x06, []byte{0x56, 5, 'e', 'n', 'g', 9, 0}, packet},
		{"DVB subtitles", 0x06, []byte{0x59, 8, 'e', 'n', 'g', 0x10, 0, 1, 0, 2}, packet},
		{"ARIB captions", 0x06, []byte{0x52, 1, 0x30, 0xfd, 3, 0, 8, 0x3d}, packet},
		{"S302M", 0x06, registration("BSSD"), packet},
		{"AC-4", 0x06, []byte{0x7f, 2, 0x15, 0}, packet},
		{"VC-1", 0xea, registration("VC-1"), packet},
		{"raw AAC", 0x1c, nil, packet},
		{"TrueHD", 0x83, registration("HDMV"), packet},
		{"SCTE 35", 0x86, registration("CUEI"), section},
		{"AIT", 0x05, []byte{0x6f, 3, 0, 0x10, 0xe0}, section},
		{"multiprotocol", 0x0a, nil, section},
		{"DSM-CC U-N", 0x0b, []byte{0x52, 1, 0x0b}, section},
		{"stream descriptors", 0x0c, nil, section},
		{"DSM-CC", 0x0d, nil, section},
		{"metadata sections", 0x16, nil, section},
	} {
		m := newSound(c.typ, c.desc)
		for k := range 25 {
			if u := c.unit(k); u[0] == 0 {
				m.packets(0x101, u)
			} else {
				m.section(0x101, u)
			}
		}
		f, _ := demux(0, m.out, nil)
		if len(f.units) != 25 || len(f.losses) > 0 {
			t.Errorf("%s: %d units, losses %v", c.name, len(f.units), f.losses)
			continue
		}
		for k, u := range f.units {
			if !bytes.Equal(u.Data, c.unit(k)) || u.Track.Kind != mpegts.Data || !bytes.Equal(u.Track.Descriptors, c.desc) {
				t.Errorf("%s: unit %d has %d bytes, want %d", c.name, k, len(u.Data), len(c.unit(k)))
			}
		}
	}
}

// However frames lie in PES packets, each comes out whole and at its time.
func TestFramesAcrossPackets(t *testing.T) {
	for name, c := range framed() {
		if name == "dtshd" {
			continue // an access unit is not cut between its substreams
		}
		for _, size := range []int{40, 100, 184, 333, 1000, 2930, 20000} {
			var stream []byte
			starts := map[int]int64{}
			for k := range 80 {
				starts[len(stream)] = 90000 + c.step*int64(k)
				stream = append(stream, c.unit(k)...)
			}
			f, _ := demux(0, audioTrack(c.typ, c.desc, stream, size, starts), nil)
			if len(f.units) != 80 || len(f.losses) > 0 {
				t.Fatalf("%s in PES packets of %d bytes: %d frames, losses %v", name, size, len(f.units), f.losses)
			}
			whole, _ := demux(0, audioTrack(c.typ, c.desc, stream, len(stream), starts), nil)
			for k, u := range f.units {
				if off := u.PTS - 90000 - c.step*int64(k); off != 0 || !bytes.Equal(u.Data, whole.units[k].Data) {
					t.Fatalf("%s in PES packets of %d bytes: frame %d is off by %d, or differs", name, size, k, off)
				}
			}
		}
	}
}
