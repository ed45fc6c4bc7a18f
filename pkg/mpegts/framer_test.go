package mpegts_test

import (
	"bytes"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/mpegts"
)

// small is a stream of a table, video and audio.
func small() *mux {
	m := &mux{}
	m.section(0, pat(0, 1, 0x1000))
	m.section(0x1000, pmt(1, 0, es{0x100, 0x1b, nil}, es{0x101, 0x03, nil}))
	for k := range int64(40) {
		m.packets(0x100, pes(0xe0, 90000+3600*k, 90000+3600*k, 0, avc(k%10 == 0, 400)))
		m.packets(0x101, pes(0xc0, 90000+2160*k, 90000+2160*k, -1, mp2()))
	}
	return m
}

// avc is an H.264 picture of a length; a keyframe has its parameter sets.
func avc(key bool, n int) []byte {
	b := []byte{0, 0, 0, 1, 9, 0xf0}
	typ := byte(0x41)
	if key {
		b = append(b, 0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x1e, 0xda, 0x02, 0x80, 0xbf, 0xe5, 0xc0, 0x44)
		b = append(b, 0, 0, 0, 1, 0x68, 0xce, 0x3c, 0x80)
		typ = 0x65
	}
	b = append(b, 0, 0, 1, typ, 0x88)
	return append(b, bytes.Repeat([]byte{0x5a}, n)...)
}

// mp2 is a frame of MPEG-1 layer 2: 64 kbit/s, 48 kHz, 192 bytes.
func mp2() []byte {
	return append([]byte{0xff, 0xfd, 0x44, 0x00}, bytes.Repeat([]byte{0x11}, 188)...)
}

// spread lays packets out with a stride: 192 has four bytes ahead of each, 204
// sixteen behind.
func spread(ts []byte, stride int) (out []byte) {
	for k := 0; k < len(ts); k += mpegts.PacketSize {
		p := ts[k : k+mpegts.PacketSize]
		switch stride {
		case 192:
			out = append(append(out, 1, 2, 3, 4), p...)
		case 204:
			out = append(append(out, p...), make([]byte, 16)...)
		default:
			out = append(out, p...)
		}
	}
	return out
}

func TestStrides(t *testing.T) {
	ts := small().out
	want, stats := demux(0, ts, nil)
	if stats.Packets != int64(len(ts)/188) || stats.Garbage != 0 || stats.Lost != 0 || len(want.units) != 80 || len(want.losses) != 0 {
		t.Fatalf("%+v, %d units, %d losses", stats, len(want.units), len(want.losses))
	}
	for _, stride := range []int{188, 192, 204} {
		for _, piece := range []int{1, 7, 187, 188, 1316, 1 << 20} {
			got, stats := demux(0, spread(ts, stride), func() int { return piece })
			if !slices.Equal(got.log, want.log) {
				t.Errorf("packets of %d bytes in pieces of %d: other units (%+v)", stride, piece, stats)
			}
		}
	}
}

// Any chunking of a stream gives the same packets, whatever is in it.
func TestChunks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ts := small().out
		stride := rapid.SampledFrom([]int{188, 192, 204}).Draw(t, "stride")
		ts = spread(ts, stride)
		for range rapid.IntRange(0, 4).Draw(t, "faults") {
			at := rapid.IntRange(0, len(ts)-1).Draw(t, "at")
			switch rapid.IntRange(0, 2).Draw(t, "fault") {
			case 0: // garbage comes in, in no sense a packet
				junk := rapid.SliceOfN(rapid.ByteRange(0, 0x46), 1, 600).Draw(t, "junk")
				ts = slices.Insert(ts, at/stride*stride, junk...)
			case 1: // a packet's sync byte is wrong
				ts[at/stride*stride] ^= 0x80
			case 2: // bits flip
				ts[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			}
		}
		want, _ := demux(0, ts, nil)
		got, _ := demux(0, ts, func() int { return rapid.IntRange(1, 3000).Draw(t, "piece") })
		// Where a packet runs into garbage, a piece that begins with a packet
		// tells more than bytes that go on: only then may they differ.
		if !slices.Equal(got.log, want.log) && len(want.losses) == 0 {
			t.Fatalf("%d and %d events", len(got.log), len(want.log))
		}
	})
}

// A datagram that lacks its end costs the packets that it lacks, and no other.
func TestCutDatagrams(t *testing.T) {
	m := small()
	for cut := 1; cut < 7*188; cut += 5 {
		f := &found{}
		d := mpegts.NewDemuxer(0, f)
		n := 0
		for k := 0; k < len(m.out); k, n = k+7*188, n+1 {
			dg := m.out[k:min(k+7*188, len(m.out))]
			if n == 5 {
				dg = dg[:cut]
			}
			d.Write(dg)
		}
		d.Close()
		st := d.Stats()
		want := int64(len(m.out)/188 - 7 + cut/188)
		if st.Packets != want || cut%188 != 0 && st.Garbage != int64(cut%188) {
			t.Fatalf("cut to %d bytes: %d packets, want %d; %d bytes of garbage", cut, st.Packets, want, st.Garbage)
		}
		if len(f.losses) == 0 {
			t.Fatalf("cut to %d bytes: no loss", cut)
		}
	}
}

// Packets are found again after garbage of any length.
func TestResync(t *testing.T) {
	ts := small().out
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 4, 100, 187, 188, 189, 1000, 100_000} {
		junk := make([]byte, n)
		for k := range junk {
			junk[k] = byte(rng.IntN(256))
		}
		in := slices.Concat(junk, ts[:30*188], junk, ts[30*188:])
		f, st := demux(0, in, func() int { return 1000 })
		if st.Packets < int64(len(ts)/188)-6 || st.Packets > int64(len(ts)/188)+2 {
			t.Errorf("%d bytes of garbage: %d packets of %d", n, st.Packets, len(ts)/188)
		}
		if len(f.units) < 70 || len(f.losses) == 0 {
			t.Errorf("%d bytes of garbage: %d units, %d losses", n, len(f.units), len(f.losses))
		}
	}
}

func TestNoTransportStream(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	noise := make([]byte, 1<<20)
	for k := range noise {
		noise[k] = byte(rng.IntN(256))
	}
	for name, in := range map[string][]byte{
		"nothing": nil, "text": bytes.Repeat([]byte("Good morning. "), 10000), "G's": bytes.Repeat([]byte("G"), 10000),
		"zeros": make([]byte, 10000), "noise": noise,
	} {
		f, st := demux(0, in, func() int { return 1316 })
		if len(f.programs) > 0 || len(f.units) > 0 {
			t.Errorf("%s: %d programs, %d units", name, len(f.programs), len(f.units))
		}
		if name != "G's" && (st.Packets > 0 || st.Garbage != int64(len(in))) {
			t.Errorf("%s: %d packets, %d bytes of garbage of %d", name, st.Packets, st.Garbage, len(in))
		}
	}
}

// Real streams cut into any pieces give the same units.
func TestCorpusChunks(t *testing.T) {
	for _, path := range corpus(t) {
		ts := read(t, path)
		ts = ts[:min(len(ts), 400_000)]
		want, _ := demux(0, ts, nil)
		for _, piece := range []int{1, 100, 188, 1316, 65536} {
			if got, _ := demux(0, ts, func() int { return piece }); !slices.Equal(got.log, want.log) {
				t.Errorf("%s in pieces of %d: other units", filepath.Base(path), piece)
			}
		}
	}
}

// Nothing is allocated per packet.
func TestAllocations(t *testing.T) {
	m := &mux{}
	m.section(0, pat(0, 1, 0x1000))
	m.section(0x1000, pmt(1, 0, es{0x100, 0x1b, nil}))
	d := mpegts.NewDemuxer(0, drop{})
	d.Write(m.out)
	m.out = nil
	for k := range int64(50) { // 50 pictures of 100 packets
		m.packets(0x100, pes(0xe0, 3600*k, 3600*k, 0, avc(false, 18_000)))
	}
	packets := float64(len(m.out) / 188)
	per := testing.AllocsPerRun(20, func() {
		for k := 0; k < len(m.out); k += 1316 {
			d.Write(m.out[k:min(k+1316, len(m.out))])
		}
	}) / packets
	t.Logf("%.4f allocations a packet, %.2f a picture", per, per*packets/50)
	if per > 0.03 {
		t.Errorf("%.4f allocations a packet: want no more than a few for each picture", per)
	}
}

type drop struct{}

func (drop) Program(*mpegts.Program, int64, bool)    {}
func (drop) VideoHeader(*mpegts.Track, int64, int64) {}
func (drop) Unit(u *mpegts.Unit)                     { u.Release() }
func (drop) Loss(mpegts.Loss)                        {}

func BenchmarkDemuxer(b *testing.B) {
	ts := small().out
	b.SetBytes(int64(len(ts)))
	d := mpegts.NewDemuxer(0, drop{})
	for b.Loop() {
		d.Write(ts)
	}
}
