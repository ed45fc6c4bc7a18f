package mpegts_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/twindvr/twindvr/pkg/mpegts"
)

// mux writes transport packets.
type mux struct {
	out []byte
	cc  [8192]byte
}

// packets writes a payload unit in as few packets as it takes, stuffed with an
// adaptation field. With most, no packet holds more payload than that.
func (m *mux) packets(pid int, unit []byte, most ...int) {
	limit := mpegts.PacketSize - 4
	if len(most) > 0 {
		limit = most[0]
	}
	for first := true; first || len(unit) > 0; first = false {
		n := min(len(unit), limit)
		start := byte(0)
		if first {
			start = 0x40
		}
		p := []byte{0x47, start | byte(pid>>8), byte(pid), 0x10 | m.cc[pid]}
		m.cc[pid] = (m.cc[pid] + 1) & 15
		if stuff := mpegts.PacketSize - 4 - n; stuff > 0 {
			p[3] |= 0x20
			p = append(p, byte(stuff-1))
			if stuff > 1 {
				p = append(p, 0)
				p = append(p, bytes.Repeat([]byte{0xff}, stuff-2)...)
			}
		}
		m.out = append(m.out, append(p, unit[:n]...)...)
		unit = unit[n:]
	}
}

func (m *mux) section(pid int, sec []byte) { m.packets(pid, append([]byte{0}, sec...)) }

func crc(b []byte) uint32 {
	c := uint32(0xffffffff)
	for _, x := range b {
		c ^= uint32(x) << 24
		for range 8 {
			if c&0x80000000 != 0 {
				c = c<<1 ^ 0x04c11db7
			} else {
				c <<= 1
			}
		}
	}
	return c
}

// table makes a section of a table id, its length and CRC right.
func table(id byte, ext, version, number, last int, body []byte) []byte {
	n := 5 + len(body) + 4
	s := append([]byte{id, 0xb0 | byte(n>>8), byte(n), byte(ext >> 8), byte(ext), 0xc1 | byte(version<<1), byte(number), byte(last)}, body...)
	c := crc(s)
	return append(s, byte(c>>24), byte(c>>16), byte(c>>8), byte(c))
}

// pat makes a program association section of pairs of program and PID.
func pat(version int, pairs ...int) []byte { return patPart(version, 0, 0, pairs...) }

func patPart(version, number, last int, pairs ...int) []byte {
	var body []byte
	for k := 0; k < len(pairs); k += 2 {
		body = append(body, byte(pairs[k]>>8), byte(pairs[k]), 0xe0|byte(pairs[k+1]>>8), byte(pairs[k+1]))
	}
	return table(0, 1, version, number, last, body)
}

// es is a stream of a program map.
type es struct {
	pid  int
	typ  byte
	desc []byte
}

func pmt(program, version int, streams ...es) []byte {
	body := []byte{0xe1, 0x00, 0xf0, 0}
	for _, s := range streams {
		body = append(body, s.typ, 0xe0|byte(s.pid>>8), byte(s.pid), 0xf0|byte(len(s.desc)>>8), byte(len(s.desc)))
		body = append(body, s.desc...)
	}
	return table(2, program, version, 0, 0, body)
}

func stamp(tag byte, t int64) []byte {
	return []byte{tag<<4 | byte(t>>29)&0x0e | 1, byte(t >> 22), byte(t>>14) | 1, byte(t >> 7), byte(t<<1) | 1}
}

// pes makes a PES packet. A negative PTS is none, an equal DTS is left out;
// length 0 is unbounded, below 0 the right one.
func pes(id byte, pts, dts int64, length int, payload []byte) []byte {
	b := []byte{0, 0, 1, id, 0, 0, 0x80, 0, 0}
	switch {
	case pts < 0:
	case pts == dts:
		b[7] = 0x80
		b = append(b, stamp(2, pts)...)
	default:
		b[7] = 0xc0
		b = append(append(b, stamp(3, pts)...), stamp(1, dts)...)
	}
	b[8] = byte(len(b) - 9)
	b = append(b, payload...)
	if length < 0 {
		length = len(b) - 6
	}
	b[4], b[5] = byte(length>>8), byte(length)
	return b
}

// found is what a Demuxer has told.
type found struct {
	programs []*mpegts.Program
	headers  []int64
	units    []mpegts.Unit
	losses   []mpegts.Loss
	log      []string
}

func (f *found) Program(p *mpegts.Program, pkt int64, afterLoss bool) {
	f.programs = append(f.programs, p)
	f.log = append(f.log, fmt.Sprintf("program %d at %d %v", p.Number, pkt, afterLoss))
}

func (f *found) VideoHeader(t *mpegts.Track, dts, pes int64) {
	f.headers = append(f.headers, dts)
	f.log = append(f.log, fmt.Sprintf("header %d %d %d", t.PID, dts, pes))
}

func (f *found) Unit(u *mpegts.Unit) {
	c := *u
	c.Data, c.Header = bytes.Clone(u.Data), bytes.Clone(u.Header)
	f.units = append(f.units, c)
	f.log = append(f.log, fmt.Sprintf("unit %d %d %d %v %v %v %d %d %d %x", u.Track.PID, u.PTS, u.DTS, u.Dated, u.Key, u.Marked, u.Duration, u.First, u.PES, crc(u.Data)))
	u.Release()
}

func (f *found) Loss(l mpegts.Loss) {
	f.losses = append(f.losses, l)
	f.log = append(f.log, fmt.Sprintf("loss %d %d %d", l.Lost, l.Errored, l.PES))
}

// demux reads bytes in pieces of the lengths that next gives; nil: at once.
func demux(program uint16, ts []byte, next func() int) (*found, mpegts.Stats) {
	f := &found{}
	d := mpegts.NewDemuxer(program, f)
	if next == nil {
		next = func() int { return len(ts) }
	}
	for len(ts) > 0 {
		n := min(max(next(), 1), len(ts))
		d.Write(ts[:n])
		ts = ts[n:]
	}
	d.Close()
	return f, d.Stats()
}

// corpus returns the transport streams of TWINDVR_TESTDATA.
func corpus(t testing.TB) []string {
	root := os.Getenv("TWINDVR_TESTDATA")
	if root == "" {
		t.Skip("TWINDVR_TESTDATA is not set: 25 transport streams not tested")
	}
	var files []string
	for _, dir := range []string{"ts", "hard"} {
		m, err := filepath.Glob(filepath.Join(root, dir, "*.ts"))
		if err != nil || len(m) == 0 {
			t.Fatalf("no streams in %s/%s: %v", root, dir, err)
		}
		files = append(files, m...)
	}
	return files
}

func read(t testing.TB, path string) []byte {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
