package segment_test

import "bytes"

// mux writes transport packets.
type mux struct {
	out []byte
	cc  [8192]byte
}

// packets writes a payload unit in as few packets as it takes, stuffed with an
// adaptation field.
func (m *mux) packets(pid int, unit []byte) {
	for first := true; first || len(unit) > 0; first = false {
		n := min(len(unit), packet-4)
		start := byte(0)
		if first {
			start = 0x40
		}
		p := []byte{0x47, start | byte(pid>>8), byte(pid), 0x10 | m.cc[pid]}
		m.cc[pid] = (m.cc[pid] + 1) & 15
		if stuff := packet - 4 - n; stuff > 0 {
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
func table(id byte, ext, version int, body []byte) []byte {
	n := 5 + len(body) + 4
	s := append([]byte{id, 0xb0 | byte(n>>8), byte(n), byte(ext >> 8), byte(ext), 0xc1 | byte(version<<1), 0, 0}, body...)
	c := crc(s)
	return append(s, byte(c>>24), byte(c>>16), byte(c>>8), byte(c))
}

// pat makes a program association section of pairs of program and PID.
func pat(version int, pairs ...int) []byte {
	var body []byte
	for k := 0; k < len(pairs); k += 2 {
		body = append(body, byte(pairs[k]>>8), byte(pairs[k]), 0xe0|byte(pairs[k+1]>>8), byte(pairs[k+1]))
	}
	return table(0, 1, version, body)
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
	return table(2, program, version, body)
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

// recount numbers the packets of every PID anew, so that streams laid end to
// end show no loss.
func recount(ts []byte) []byte {
	var cc [8192]byte
	ts = bytes.Clone(ts)
	for k := 0; k+packet <= len(ts); k += packet {
		p := ts[k:]
		pid := pidOf(p)
		if p[3]&0x10 != 0 {
			cc[pid] = (cc[pid] + 1) & 15
		}
		p[3] = p[3]&0xf0 | cc[pid]
	}
	return ts
}
