package mpegts_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twindvr/twindvr/pkg/mpegts"
)

func video() *mux {
	m := &mux{}
	m.section(0, pat(0, 1, 0x1000))
	m.section(0x1000, pmt(1, 0, es{0x100, 0x1b, nil}, es{0x200, 0x06, nil}, es{0x300, 0x86, nil}))
	return m
}

func pictures(f *found) (out []string) {
	for _, u := range f.units {
		out = append(out, fmt.Sprintf("%d/%d", u.PTS, u.DTS))
	}
	return out
}

// A header may be spread over any number of packets.
func TestHeaderAcrossPackets(t *testing.T) {
	want, _ := demux(0, func() []byte {
		m := video()
		for k := range int64(5) {
			m.packets(0x100, pes(0xe0, 7200+3600*k, 3600*k, 0, avc(k == 0, 300)))
		}
		return m.out
	}(), nil)
	for most := 1; most < 30; most++ {
		m := video()
		for k := range int64(5) {
			m.packets(0x100, pes(0xe0, 7200+3600*k, 3600*k, 0, avc(k == 0, 300)), most)
		}
		f, st := demux(0, m.out, nil)
		if !slices.Equal(pictures(f), pictures(want)) || len(f.losses) > 0 || !bytes.Equal(f.units[3].Data, want.units[3].Data) {
			t.Errorf("%d bytes a packet: %v, want %v (%+v)", most, pictures(f), pictures(want), st)
		}
	}
}

// A PES packet that is shorter than it says is damaged; one of video that is
// longer was cut to 16 bits by the multiplexer.
func TestLengths(t *testing.T) {
	for _, c := range []struct {
		name   string
		length int
		loss   bool
	}{{"unbounded", 0, false}, {"right", -1, false}, {"longer", 5000, true}, {"shorter", 50, false}, {"within the header", 3, false}} {
		m := video()
		for k := range int64(3) {
			m.packets(0x100, pes(0xe0, 3600*k, 3600*k, c.length, avc(k == 0, 1000)))
		}
		f, _ := demux(0, m.out, nil)
		if len(f.units) != 3 || len(f.units[1].Data) != 1011 {
			t.Errorf("%s: %d units", c.name, len(f.units))
		}
		if (len(f.losses) > 0) != c.loss || f.units[1].Marked != c.loss {
			t.Errorf("%s: %d losses", c.name, len(f.losses))
		}
	}
}

// A PES packet that never ends is cut, whatever it is of.
func TestEndless(t *testing.T) {
	for _, pid := range []int{0x100, 0x200, 0x300} {
		m := video()
		m.packets(pid, pes(0xe0, 0, 0, 0, avc(true, 100)))
		f := &found{}
		d := mpegts.NewDemuxer(0, f)
		d.Write(m.out)
		m.out = nil
		m.packets(pid, bytes.Repeat([]byte{0x55}, 16*184))
		for k := 0; k < len(m.out); k += 188 {
			m.out[k+1] &^= 0x40
		}
		m.cc[pid] = 0
		for range 64 << 20 / len(m.out) {
			d.Write(m.out)
		}
		total := 0
		for _, u := range f.units {
			total += len(u.Data)
		}
		if total > 32<<20 {
			t.Errorf("PID %#x: %d bytes in %d units", pid, total, len(f.units))
		}
	}
}

// Losses, errors and repeats.
func TestCounters(t *testing.T) {
	ts := func() []byte {
		m := video()
		for k := range int64(4) {
			m.packets(0x100, pes(0xe0, 3600*k, 3600*k, 0, avc(k == 0, 1500)))
		}
		return m.out
	}()
	packet := func(k int) []byte { return ts[188*k : 188*k+188] } // 0 PAT, 1 PMT, 9 a picture
	n := len(ts) / 188
	for _, c := range []struct {
		name         string
		edit         func(k int) [][]byte
		lost, marked int
	}{
		{"nothing", func(k int) [][]byte { return [][]byte{packet(k)} }, 0, 0},
		{"a repeat", func(k int) [][]byte {
			if k == 14 {
				return [][]byte{packet(k), packet(k)}
			}
			return [][]byte{packet(k)}
		}, 0, 0},
		{"one lost within a picture", func(k int) [][]byte {
			if k == 14 {
				return nil
			}
			return [][]byte{packet(k)}
		}, 1, 2},
		{"a transport error", func(k int) [][]byte {
			p := bytes.Clone(packet(k))
			if k == 14 {
				p[1] |= 0x80
			}
			return [][]byte{p}
		}, 0, 2},
		{"scrambled", func(k int) [][]byte {
			p := bytes.Clone(packet(k))
			if k == 14 {
				p[3] |= 0x80
			}
			return [][]byte{p}
		}, 0, 2},
		{"sixteen lost less one, like a repeat", func(k int) [][]byte {
			if k >= 12 && k < 12+15 {
				return nil
			}
			return [][]byte{packet(k)}
		}, 15, 1},
	} {
		var in []byte
		for k := range n {
			in = append(in, bytes.Join(c.edit(k), nil)...)
		}
		f, st := demux(0, in, nil)
		marked := 0
		for _, u := range f.units {
			if u.Marked {
				marked++
			}
		}
		if int(st.Lost) != c.lost || marked < c.marked || c.marked == 0 && (marked > 0 || len(f.losses) > 0 || len(f.units) != 4) {
			t.Errorf("%s: %d lost, %d of %d units marked, %d losses", c.name, st.Lost, marked, len(f.units), len(f.losses))
		}
		if c.marked > 0 && len(f.losses) == 0 {
			t.Errorf("%s: no loss told", c.name)
		}
	}
}

// Several pictures in one PES packet are as many units; their times lie evenly
// up to the next header.
func TestPicturesInAPacket(t *testing.T) {
	m := video()
	for k := range int64(4) {
		both := append(avc(k == 0, 200), avc(false, 300)...)
		m.packets(0x100, pes(0xe0, 7200*k+3600, 7200*k, -1, append(both, avc(false, 100)...)))
	}
	f, _ := demux(0, m.out, nil)
	want := strings.Fields("3600/0 6000/2400 8400/4800 10800/7200 13200/9600 15600/12000 18000/14400 20400/16800 22800/19200 25200/21600 27600/24000 30000/26400")
	if !slices.Equal(pictures(f), want) || len(f.losses) > 0 {
		t.Errorf("%v, want %v", pictures(f), want)
	}
	if !f.units[0].Key || f.units[1].Key {
		t.Errorf("keyframes %v %v", f.units[0].Key, f.units[1].Key)
	}
}

// A picture may go on in PES packets without a time.
func TestPictureOverPackets(t *testing.T) {
	m := video()
	for k := range int64(4) {
		b := avc(k == 0, 3000)
		m.packets(0x100, pes(0xe0, 3600*k, 3600*k, -1, b[:1000]))
		m.packets(0x100, pes(0xe0, -1, -1, -1, b[1000:2000]))
		m.packets(0x100, pes(0xe0, -1, -1, -1, b[2000:]))
	}
	f, _ := demux(0, m.out, nil)
	if len(f.units) != 4 || !bytes.Equal(f.units[2].Data, avc(false, 3000)) || len(f.losses) > 0 {
		t.Errorf("%d units, %d losses", len(f.units), len(f.losses))
	}
}

// Pictures without a time follow the ones before.
func TestPicturesWithoutTime(t *testing.T) {
	m := video()
	for k := range int64(12) {
		pts := 3600*k + 1800
		if k%4 > 1 {
			pts = -1
		}
		m.packets(0x100, pes(0xe0, pts, 3600*k, 0, avc(k%4 == 0, 200)))
	}
	f, _ := demux(0, m.out, nil)
	var want []string
	for k := range 12 {
		want = append(want, fmt.Sprintf("%d/%d", 3600*k+1800, 3600*k))
	}
	if !slices.Equal(pictures(f), want) {
		t.Errorf("%v, want %v", pictures(f), want)
	}
}

// mpeg2 is an MPEG-2 picture: its place in the order of display, its type (1 I,
// 2 P, 3 B), and its structure (1 top field, 2 bottom field, 3 frame).
func mpeg2(gop bool, tr, typ, structure int) (b []byte) {
	if gop {
		b = append(b, 0, 0, 1, 0xb3, 0x16, 0x01, 0x20, 0x33, 0xff, 0xff, 0xe0, 0x18)
		b = append(b, 0, 0, 1, 0xb5, 0x14, 0x8a, 0, 1, 0, 0)
		b = append(b, 0, 0, 1, 0xb2, 'u', 's', 'e', 'r')
		b = append(b, 0, 0, 1, 0xb8, 0, 8, 0, 0x40)
	}
	b = append(b, 0, 0, 1, 0, byte(tr>>2), byte(tr<<6|typ<<3|7), 0xff, 0xf8)
	b = append(b, 0, 0, 1, 0xb5, 0x8f, 0xff, 0xf0|byte(structure), 0x80, 0)
	return append(b, 0, 0, 1, 1, 0x22, 0x33, 0x44, 0, 0, 1, 2, 0x55)
}

// MPEG-2 pictures without a time are dated by their temporal reference, and
// the two fields of a frame are one picture.
func TestMPEG2Pictures(t *testing.T) {
	m := &mux{}
	m.section(0, pat(0, 1, 0x1000))
	m.section(0x1000, pmt(1, 0, es{0x100, 0x02, nil}))
	// In the order of decoding: I2 B0 B1 P5 B3 B4; the times are those of display.
	order := []struct{ tr, typ int }{{2, 1}, {0, 3}, {1, 3}, {5, 2}, {3, 3}, {4, 3}}
	var want []string
	for g := range int64(3) {
		for k, p := range order {
			dts := 3600 * (6*g + int64(k))
			pts := 3600 * (6*g + int64(p.tr) + 1)
			want = append(want, fmt.Sprintf("%d/%d", pts, dts))
			if k > 1 {
				pts = -1
			}
			b := mpeg2(k == 0, p.tr, p.typ, 3)
			if g == 1 {
				b = append(mpeg2(k == 0, p.tr, p.typ, 1), mpeg2(false, p.tr, p.typ, 2)...)
			}
			m.packets(0x100, pes(0xe0, pts, dts, 0, b))
		}
	}
	f, _ := demux(0, m.out, nil)
	if !slices.Equal(pictures(f), want) {
		t.Errorf("%v\nwant %v", pictures(f), want)
	}
	if u := f.units[6]; !u.Key || len(u.Header) != 22 {
		t.Errorf("key %v, sequence header and extension of %d bytes, want 22", u.Key, len(u.Header))
	}
}

// A recovery point makes a keyframe where the parameter sets come with it,
// whatever SEI messages lie ahead of it.
func TestRecoveryPoint(t *testing.T) {
	sets := avc(true, 0)[6:]
	sets = sets[:bytes.Index(sets, []byte{0, 0, 1, 0x65})]
	slice := []byte{0, 0, 1, 0x41, 0x88, 0x12}
	for _, c := range []struct {
		name string
		nals []byte
		key  bool
	}{
		{"recovery point", slices.Concat(sets, []byte{0, 0, 1, 6, 6, 1, 0xc4, 0x80}, slice), true},
		{"without parameter sets", slices.Concat([]byte{0, 0, 1, 6, 6, 1, 0xc4, 0x80}, slice), false},
		{"behind another message", slices.Concat(sets, []byte{0, 0, 1, 6, 1, 2, 0x33, 0x44, 6, 1, 0xc4, 0x80}, slice), true},
		{"behind escaped bytes", slices.Concat(sets, []byte{0, 0, 1, 6, 5, 4, 0, 0, 3, 1, 0xff, 6, 1, 0xc4, 0x80}, slice), true},
		{"behind a long message", slices.Concat(sets, []byte{0, 0, 1, 6, 5, 0xff, 1}, bytes.Repeat([]byte{7}, 256), []byte{6, 1, 0xc4, 0x80}, slice), true},
		{"its bytes inside another", slices.Concat(sets, []byte{0, 0, 1, 6, 5, 3, 6, 1, 0xc4, 0x80}, slice), false},
		{"a message that lies about its size", slices.Concat(sets, []byte{0, 0, 1, 6, 5, 0xf0, 6, 1, 0x80}, slice), false},
		{"cut", slices.Concat(sets, []byte{0, 0, 1, 6, 0xff, 0xff, 0xff}, slice), false},
	} {
		m := video()
		m.packets(0x100, pes(0xe0, 0, 0, 0, c.nals))
		if f, _ := demux(0, m.out, nil); len(f.units) != 1 || f.units[0].Key != c.key {
			t.Errorf("%s: key %v, want %v", c.name, len(f.units) == 1 && f.units[0].Key, c.key)
		}
	}
}

// Data streams are handed out whole, PES header and all; sections one by one.
func TestData(t *testing.T) {
	m := video()
	p := pes(0xbd, 9000, 9000, -1, bytes.Repeat([]byte{9}, 500))
	m.packets(0x200, p)
	m.packets(0x200, pes(0xbd, -1, -1, -1, []byte{1, 2, 3}))
	splice := table(0xfc, 0, 0, 0, 0, bytes.Repeat([]byte{4}, 300))
	m.section(0x300, splice)
	f, _ := demux(0, m.out, nil)
	if len(f.units) != 3 || !bytes.Equal(f.units[0].Data, p) || f.units[0].PTS != 9000 || f.units[1].Dated || !bytes.Equal(f.units[2].Data, splice) {
		t.Errorf("%v", f.log)
	}
}
