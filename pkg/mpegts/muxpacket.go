package mpegts

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// clockField is an adaptation field with a clock reference, in bytes.
const clockField = 8

// capacity is how many bytes of its next unit a stream's next packet holds at
// most.
func (m *Muxer) capacity(s *muxStream, referred bool) int {
	q := &s.queue[0]
	n := packetPayload
	switch {
	case referred:
		n -= clockField
	case q.Key && s.off == 0:
		n -= 2
	}
	if q.Section && s.off == 0 {
		n--
	}
	return n
}

// payloadPacket sends a stream's next packet, with a clock reference if referred.
func (m *Muxer) payloadPacket(s *muxStream, referred bool) {
	q := &s.queue[0]
	left := len(q.Data) - s.off
	n := min(m.capacity(s, referred), left)
	singles := 0
	if q.split > 0 && s.off == 0 {
		n = min(n, left-q.split-1)
		singles = q.singles(left - n)
	}
	m.emit(s, n, referred)
	for range singles {
		m.emit(s, 1, false)
	}
}

// emit sends a packet with n bytes of a stream's first unit.
func (m *Muxer) emit(s *muxStream, n int, referred bool) {
	q := s.queue[0]
	first := s.off == 0
	start, flags := byte(0), byte(0)
	if first {
		start = 0x40
		if q.Key {
			flags = 0x40
		}
	}
	p := append(m.buf, syncByte, start|byte(s.pid>>8), byte(s.pid), 0x10|m.count(s.pid))
	at := len(p) - 4
	if referred {
		p = append(p, 7, flags|0x10)
		p = appendClock(p, m.now)
	} else if flags != 0 {
		p = append(p, 1, flags)
	}
	used := len(p) - at
	if used > 4 {
		p[at+3] |= 0x20
	}
	point := 0
	if q.Section && first {
		point = 1
	}
	if room := PacketSize - used - point - n; room > 0 && (!q.Section || s.off+n < len(q.Data)) {
		p = stuffing(p, at, room)
	}
	if point > 0 {
		p = append(p, 0)
	}
	p = append(p, s.take(n)...)
	m.buf = append(p, fill[:at+PacketSize-len(p)]...) // behind a section
	if s.owed > 0 && s.off == 0 {
		s.owed--
		m.owed--
	}
}

// count returns the next continuity counter of a PID.
func (m *Muxer) count(pid uint16) byte {
	c := m.cc[pid]
	m.cc[pid] = (c + 1) & 15
	return c
}

// stuffing makes the adaptation field of the packet at p[at:] n bytes longer.
func stuffing(p []byte, at, n int) []byte {
	if p[at+3]&0x20 == 0 {
		p[at+3] |= 0x20
		p = append(p, byte(n-1))
		if n--; n > 0 {
			p, n = append(p, 0), n-1
		}
	} else {
		p[at+4] += byte(n)
	}
	return append(p, fill[:n]...)
}

// fill is stuffing.
var fill = bytes.Repeat([]byte{0xff}, PacketSize)

// clockPID is the PID that carries the clock reference.
func (m *Muxer) clockPID() uint16 {
	pid := m.program.PCRPID
	if pid < 0x10 || pid >= nullPID || pid == m.pmtPID {
		return nullPID
	}
	return pid
}

// clockPacket sends a packet that carries a clock reference and no payload, so
// that the continuity counter stays (13818-1 2.4.3.3). jump sets
// discontinuity_indicator.
func (m *Muxer) clockPacket(t int64, jump bool) {
	pid := m.clockPID()
	if pid == nullPID {
		return
	}
	flags := byte(0x10)
	if jump {
		flags |= 0x80
	}
	p := append(m.buf, syncByte, byte(pid>>8), byte(pid), 0x20|(m.cc[pid]-1)&15, PacketSize-5, flags)
	p = appendClock(p, t)
	m.buf = append(p, fill[:PacketSize-12]...)
}

// appendClock writes a clock reference (13818-1 2.4.2.2) of a time in ticks.
func appendClock(p []byte, t int64) []byte {
	t &= mask33
	return append(p, byte(t>>25), byte(t>>17), byte(t>>9), byte(t>>1), byte(t<<7)|0x7e, 0)
}

// tablePacket is a packet of a section.
type tablePacket struct {
	pid   uint16
	first bool
	part  []byte
}

// appendTable adds the packets of a section.
func appendTable(list []tablePacket, pid uint16, sec []byte) []tablePacket {
	for first := true; len(sec) > 0; first = false {
		n := packetPayload
		if first {
			n--
		}
		n = min(n, len(sec))
		list = append(list, tablePacket{pid, first, sec[:n]})
		sec = sec[n:]
	}
	return list
}

func (m *Muxer) sendTable(t tablePacket) {
	start := byte(0)
	if t.first {
		start = 0x40
	}
	p := append(m.buf, syncByte, start|byte(t.pid>>8), byte(t.pid), 0x10|m.count(t.pid))
	at := len(p) - 4
	if t.first {
		p = append(p, 0) // pointer_field
	}
	p = append(p, t.part...)
	m.buf = append(p, fill[:at+PacketSize-len(p)]...)
}

// associationSection makes a program association section of one program
// (13818-1 2.4.4.3).
func associationSection(p *Program, pmtPID uint16, version byte) []byte {
	return withCRC([]byte{tablePAT, 0xb0, 13, 0, 1, 0xc1 | version<<1, 0, 0,
		byte(p.Number >> 8), byte(p.Number), 0xe0 | byte(pmtPID>>8), byte(pmtPID)})
}

// Errors of a program that no map can tell of.
var (
	errMapSize    = errors.New("program map: its descriptors do not fit a section")
	errMapNumber  = errors.New("program map: program number 0 is the network information table's")
	errDescriptor = errors.New("program map: descriptors of more than 1023 bytes")
)

// mapSection makes a program map section (13818-1 2.4.4.8).
func mapSection(p *Program, version byte) ([]byte, error) {
	if p.Number == 0 {
		return nil, errMapNumber
	}
	if len(p.Descriptors) > 1023 {
		return nil, errDescriptor
	}
	b := []byte{tablePMT, 0xb0, 0, byte(p.Number >> 8), byte(p.Number), 0xc1 | version<<1, 0, 0,
		0xe0 | byte(p.PCRPID>>8&31), byte(p.PCRPID), 0xf0 | byte(len(p.Descriptors)>>8), byte(len(p.Descriptors))}
	b = append(b, p.Descriptors...)
	for k := range p.Tracks {
		t := &p.Tracks[k]
		if len(t.Descriptors) > 1023 {
			return nil, fmt.Errorf("PID %d: %w", t.PID, errDescriptor)
		}
		b = append(b, t.StreamType, 0xe0|byte(t.PID>>8&31), byte(t.PID), 0xf0|byte(len(t.Descriptors)>>8), byte(len(t.Descriptors)))
		b = append(b, t.Descriptors...)
	}
	n := len(b) - 3 + 4
	if n > 1021 {
		return nil, errMapSize
	}
	b[1] |= byte(n >> 8)
	b[2] = byte(n)
	return withCRC(b), nil
}

// withVersion returns the section with another version_number.
func withVersion(sec []byte, version byte) []byte {
	b := bytes.Clone(sec[:len(sec)-4])
	b[5] = b[5]&^0x3e | version<<1
	return withCRC(b)
}

// sameMap says whether two programs have the same map.
func sameMap(a, b *Program) bool {
	x, err := mapSection(a, 0)
	if err != nil {
		return false
	}
	y, err := mapSection(b, 0)
	return err == nil && bytes.Equal(x, y)
}

// PESHeader returns the header (13818-1 2.4.3.6) of a PES packet that begins with
// an access unit: its stream id, how many bytes of payload follow (-1, or more
// than the length field can tell: unbounded), and the times of that access unit.
func PESHeader(id byte, payload int, pts, dts int64) []byte {
	h := []byte{0, 0, 1, id, 0, 0, 0x84, 0x80, 5}
	h = appendTime(h, 2, pts)
	if dts&mask33 != pts&mask33 {
		h[7], h[8], h[9] = 0xc0, 10, h[9]|0x10
		h = appendTime(h, 1, dts)
	}
	if n := len(h) - 6 + payload; payload >= 0 && n <= 0xffff {
		binary.BigEndian.PutUint16(h[4:], uint16(n))
	}
	return h
}

func appendTime(b []byte, prefix byte, t int64) []byte {
	t &= m4f.Wrap - 1
	return append(b, prefix<<4|byte(t>>29)&0xe|1, byte(t>>22), byte(t>>14)|1, byte(t>>7), byte(t<<1)|1)
}
