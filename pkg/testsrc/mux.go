package testsrc

import "encoding/binary"

const (
	packetSize = 188
	pidPMT     = 0x1000
	pidVideo   = 0x100
	pidAudio   = 0x101
	wrap33     = 1 << 33
	noPCR      = -1
)

// muxer makes transport stream packets (ISO/IEC 13818-1 2.4.3.2).
type muxer struct{ cc map[uint16]byte }

func newMuxer() *muxer { return &muxer{cc: map[uint16]byte{}} }

// counter returns the PID's continuity counter and moves it on.
func (m *muxer) counter(pid uint16) byte {
	c := m.cc[pid]
	m.cc[pid] = (c + 1) & 15
	return c
}

// tables returns the packets of PAT and PMT.
func (m *muxer) tables() [][]byte {
	pat := []byte{0, 1, 0xc1, 0, 0, 0, 1, 0xe0 | pidPMT>>8, pidPMT & 0xff}
	pmt := []byte{0, 1, 0xc1, 0, 0, 0xe0 | pidVideo>>8, pidVideo & 0xff, 0xf0, 0,
		0x1b, 0xe0 | pidVideo>>8, pidVideo & 0xff, 0xf0, 0,
		0x0f, 0xe0 | pidAudio>>8, pidAudio & 0xff, 0xf0, 6, 0x0a, 4, 'e', 'n', 'g', 0}
	return [][]byte{m.section(0, 0, pat), m.section(pidPMT, 2, pmt)}
}

// section returns the packet of a section: its table id and what stands
// between its length and its CRC.
func (m *muxer) section(pid uint16, table byte, body []byte) []byte {
	s := []byte{table, 0xb0, byte(len(body) + 4)}
	s = append(s, body...)
	s = binary.BigEndian.AppendUint32(s, crc32(s))
	p := make([]byte, 0, packetSize)
	p = append(p, 0x47, 0x40|byte(pid>>8), byte(pid), 0x10|m.counter(pid), 0)
	p = append(p, s...)
	for len(p) < packetSize {
		p = append(p, 0xff)
	}
	return p
}

// crc32 is the CRC of sections (ISO/IEC 13818-1 annex A).
func crc32(b []byte) uint32 {
	crc := ^uint32(0)
	for _, c := range b {
		crc ^= uint32(c) << 24
		for range 8 {
			if crc&(1<<31) != 0 {
				crc = crc<<1 ^ 0x04c11db7
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}

// pesHeader returns the header of a PES packet of that many bytes of payload
// (ISO/IEC 13818-1 2.4.3.6). A packet too long for its length field has none.
func pesHeader(streamID byte, payload int, pts, dts int64) []byte {
	h := []byte{0, 0, 1, streamID, 0, 0, 0x84, 0x80, 5}
	h = appendTime(h, 2, pts)
	if dts != pts {
		h[7], h[8], h[9] = 0xc0, 10, h[9]|0x10
		h = appendTime(h, 1, dts)
	}
	if n := len(h) - 6 + payload; n <= 0xffff {
		binary.BigEndian.PutUint16(h[4:], uint16(n))
	}
	return h
}

func appendTime(b []byte, prefix byte, t int64) []byte {
	t &= wrap33 - 1
	return append(b, prefix<<4|byte(t>>29)&0xe|1, byte(t>>22), byte(t>>14)|1, byte(t>>7), byte(t<<1)|1)
}

// packetsFor is how many packets a PES packet of n bytes takes when its first
// carries a clock reference.
func packetsFor(n int) int { return (n + pcrField + 183) / 184 }

// pcrField is the adaptation field with a clock reference, in bytes.
const pcrField = 8

// packets cuts a PES packet into packets, with the clock reference (unless
// noPCR) and the random access indicator in the first.
func (m *muxer) packets(pid uint16, pes []byte, pcr int64, key bool) [][]byte {
	var list [][]byte
	for first := true; first || len(pes) > 0; first = false {
		p := make([]byte, 4, packetSize)
		p[0], p[1], p[2], p[3] = 0x47, byte(pid>>8), byte(pid), 0x10|m.counter(pid)
		if first {
			p[1] |= 0x40
		}
		if first && pcr != noPCR {
			p = appendPCR(p, pcr, key)
		}
		n := min(len(pes), packetSize-len(p))
		p = append(stuff(p, packetSize-len(p)-n), pes[:n]...)
		pes = pes[n:]
		list = append(list, p)
	}
	return list
}

// appendPCR adds an adaptation field with a clock reference.
func appendPCR(p []byte, pcr int64, key bool) []byte {
	p[3] |= 0x20
	flags := byte(0x10)
	if key {
		flags |= 0x40
	}
	p = append(p, 7, flags)
	return append(p, pcrBytes(pcr)...)
}

// pcrBytes writes a clock reference in units of 1/27 000 000 s.
func pcrBytes(pcr int64) []byte {
	base, ext := pcr/300&(wrap33-1), pcr%300
	return []byte{byte(base >> 25), byte(base >> 17), byte(base >> 9), byte(base >> 1),
		byte(base<<7) | 0x7e | byte(ext>>8), byte(ext)}
}

// stuff makes the adaptation field n bytes longer.
func stuff(p []byte, n int) []byte {
	if n == 0 {
		return p
	}
	if p[3]&0x20 == 0 {
		p[3] |= 0x20
		p = append(p, byte(n-1))
		if n--; n > 0 {
			p, n = append(p, 0), n-1
		}
	} else {
		p[4] += byte(n)
	}
	for ; n > 0; n-- {
		p = append(p, 0xff)
	}
	return p
}

// clockPacket carries a clock reference and no payload, so it repeats the
// continuity counter of the PID's packet before it; left packets of it, made
// already, are to follow.
func (m *muxer) clockPacket(pid uint16, pcr int64, left int) []byte {
	p := make([]byte, 4, packetSize)
	p[0], p[1], p[2] = 0x47, byte(pid>>8), byte(pid)
	p[3] = (m.cc[pid] - 1 - byte(left)) & 15
	p = appendPCR(p, pcr, false)
	return stuff(p, packetSize-len(p))
}
