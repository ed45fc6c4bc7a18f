package segment_test

import (
	"bytes"
	"slices"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// The PIDs that ffmpeg gives to the map and the first tracks.
const (
	mapPID   = 0x1000
	videoPID = 0x100
	audioPID = 0x101
)

// each returns a copy of ts whose packets fn has changed; those for which it is
// false are left out.
func each(ts []byte, fn func(k int, p []byte) bool) []byte {
	out := make([]byte, 0, len(ts))
	for k := 0; (k+1)*packet <= len(ts); k++ {
		p := bytes.Clone(ts[k*packet : (k+1)*packet])
		if fn(k, p) {
			out = append(out, p...)
		}
	}
	return out
}

// payloadOf returns a packet's payload, nil if it has none.
func payloadOf(p []byte) []byte {
	off := 4
	if p[3]&0x20 != 0 {
		off += 1 + int(p[4])
	}
	if p[3]&0x10 == 0 || off >= packet {
		return nil
	}
	return p[off:]
}

// headerOf returns the PES header that begins in a packet of an elementary
// stream, nil if there is none.
func headerOf(p []byte) []byte {
	b := payloadOf(p)
	if p[1]&0x40 == 0 || len(b) < 19 || !bytes.HasPrefix(b, []byte{0, 0, 1}) {
		return nil
	}
	return b
}

// stampsOf are where the PTS and DTS of a PES header lie.
func stampsOf(h []byte) (at []int) {
	if h[7]&0x80 != 0 {
		at = append(at, 9)
	}
	if h[7]&0xc0 == 0xc0 {
		at = append(at, 14)
	}
	return at
}

func getStamp(b []byte) int64 {
	return int64(b[0]>>1&7)<<30 | int64(b[1])<<22 | int64(b[2]>>1)<<15 | int64(b[3])<<7 | int64(b[4]>>1)
}

func putStamp(b []byte, t int64) { copy(b, stamp(b[0]>>4, t&(m4f.Wrap-1))) }

// shift moves the PTS and DTS of PES packets by ticks; of all PIDs if none is
// given.
func shift(ts []byte, ticks int64, pids ...int) []byte {
	return each(ts, func(_ int, p []byte) bool {
		if h := headerOf(p); h != nil && (len(pids) == 0 || slices.Contains(pids, pidOf(p))) {
			for _, at := range stampsOf(h) {
				putStamp(h[at:], getStamp(h[at:])+ticks)
			}
		}
		return true
	})
}

// shiftPCR moves the program clock reference of the packets from number on by
// ticks, and sets the discontinuity indicator of the first if flag.
func shiftPCR(ts []byte, from int, ticks int64, flag bool) []byte {
	return each(ts, func(k int, p []byte) bool {
		if k < from || p[3]&0x20 == 0 || p[4] < 7 || p[5]&0x10 == 0 {
			return true
		}
		base := int64(p[6])<<25 | int64(p[7])<<17 | int64(p[8])<<9 | int64(p[9])<<1 | int64(p[10]>>7)
		base = (base + ticks) & (m4f.Wrap - 1)
		p[6], p[7], p[8], p[9] = byte(base>>25), byte(base>>17), byte(base>>9), byte(base>>1)
		p[10] = p[10]&0x7f | byte(base<<7)
		if flag {
			p[5] |= 0x80
			flag = false
		}
		return true
	})
}

// sectionOf returns the section in a packet of a table, without its CRC; the
// whole of it must lie in the packet.
func sectionOf(p []byte) []byte {
	b := payloadOf(p)
	b = b[1+int(b[0]):]
	return b[: 3+(int(b[1]&15)<<8|int(b[2]))-4 : 3+(int(b[1]&15)<<8|int(b[2]))-4]
}

// setSection writes a section without its CRC into a packet of a table.
func setSection(p, sec []byte) {
	n := len(sec) - 3 + 4
	sec[1], sec[2] = sec[1]&0xf0|byte(n>>8), byte(n)
	c := crc(sec)
	sec = append(sec, byte(c>>24), byte(c>>16), byte(c>>8), byte(c))
	p[3] = p[3]&0x0f | 0x10
	p[4] = 0
	n = 5 + copy(p[5:], sec)
	for k := n; k < packet; k++ {
		p[k] = 0xff
	}
}

// editMaps changes the program maps in the packets from number on; fn gets the
// section without its CRC and returns what becomes of it.
func editMaps(ts []byte, from int, fn func(sec []byte) []byte) []byte {
	return each(ts, func(k int, p []byte) bool {
		if k >= from && pidOf(p) == mapPID && p[1]&0x40 != 0 {
			setSection(p, fn(bytes.Clone(sectionOf(p))))
		}
		return true
	})
}

// nextVersion raises the version of a section.
func nextVersion(sec []byte) []byte {
	sec[5] = sec[5]&0xc1 | (sec[5]>>1&31+1)&31<<1
	return sec
}

// withoutTrack takes a PID out of a program map.
func withoutTrack(sec []byte, pid int) []byte {
	n := 12 + int(sec[10]&15)<<8 + int(sec[11])
	out := bytes.Clone(sec[:n])
	for b := sec[n:]; len(b) >= 5; {
		size := 5 + int(b[3]&15)<<8 + int(b[4])
		if int(b[1]&31)<<8|int(b[2]) != pid {
			out = append(out, b[:size]...)
		}
		b = b[size:]
	}
	return out
}

// move gives the packets of a PID another one.
func move(ts []byte, from, to int) []byte {
	return each(ts, func(_ int, p []byte) bool {
		if pidOf(p) == from {
			p[1], p[2] = p[1]&0xe0|byte(to>>8), byte(to)
		}
		return true
	})
}
