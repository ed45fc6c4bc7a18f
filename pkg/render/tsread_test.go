package render

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/asticode/go-astits"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// tsPacket is a transport packet as go-astits reads it.
type tsPacket struct {
	pid     uint16
	start   bool // payload_unit_start_indicator
	cc      uint8
	disc    bool // discontinuity_indicator
	random  bool // random_access_indicator
	pcr     int64
	hasPCR  bool
	payload []byte
}

// tsPES is a PES packet or a section, and where in the stream its packets are.
type tsPES struct {
	packets  []int
	data     []byte // with its header
	payload  []byte
	pts, dts int64
	dated    bool
	key      bool
}

// tsStream is a transport stream taken apart without this project's own reader.
type tsStream struct {
	packets  []tsPacket
	maps     []tsMap
	pmtPID   uint16
	sections map[uint16][]tsPES
	pes      map[uint16][]tsPES
	breaks   int // of continuity counters
}

func readTS(t testing.TB, b []byte) *tsStream {
	t.Helper()
	s := &tsStream{sections: map[uint16][]tsPES{}, pes: map[uint16][]tsPES{}}
	d := astits.NewDemuxer(context.Background(), bytes.NewReader(b), astits.DemuxerOptPacketSize(188))
	for {
		p, err := d.NextPacket()
		if errors.Is(err, astits.ErrNoMorePackets) || errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		q := tsPacket{pid: p.Header.PID, start: p.Header.PayloadUnitStartIndicator, cc: p.Header.ContinuityCounter}
		if a := p.AdaptationField; p.Header.HasAdaptationField && a != nil {
			q.disc, q.random = a.DiscontinuityIndicator, a.RandomAccessIndicator
			if a.HasPCR {
				q.hasPCR, q.pcr = true, a.PCR.Base*300+a.PCR.Extension
			}
		}
		if p.Header.HasPayload {
			q.payload = bytes.Clone(p.Payload)
		}
		s.packets = append(s.packets, q)
	}
	s.readMaps()
	s.assemble()
	return s
}

// tsMap is a program map, its streams by PID.
type tsMap struct {
	number, pcrPID uint16
	descriptors    string
	streams        []tsMapStream
	version        byte
}

type tsMapStream struct {
	pid         uint16
	kind        byte
	descriptors string
}

// readMaps reads the tables of the first program, which fit a packet in all of
// the streams here; some have no CRC.
func (s *tsStream) readMaps() {
	for k := range s.packets {
		p := &s.packets[k]
		switch {
		case p.pid == 0 && p.start && s.pmtPID == 0:
			b := p.payload[1+int(p.payload[0]):][8:]
			if b[0] == 0 && b[1] == 0 { // the network information table
				b = b[4:]
			}
			s.pmtPID = uint16(b[2]&31)<<8 | uint16(b[3])
		case p.pid == s.pmtPID && p.start && s.pmtPID != 0:
			s.readMap(p.payload[1+int(p.payload[0]):])
		}
	}
}

func (s *tsStream) readMap(b []byte) {
	n := int(b[1]&15)<<8 | int(b[2])
	if b[0] != 2 || n+3 > len(b) {
		return
	}
	b = b[:n+3-4]
	m := tsMap{number: uint16(b[3])<<8 | uint16(b[4]), pcrPID: uint16(b[8]&31)<<8 | uint16(b[9]), version: b[5] >> 1 & 31}
	n = int(b[10]&15)<<8 | int(b[11])
	m.descriptors, b = string(b[12:12+n]), b[12+n:]
	for len(b) >= 5 {
		n = int(b[3]&15)<<8 | int(b[4])
		es := tsMapStream{uint16(b[1]&31)<<8 | uint16(b[2]), b[0], string(b[5 : 5+n])}
		m.streams, b = append(m.streams, es), b[5+n:]
		switch es.kind {
		case 0x05, 0x0b, 0x0c, 0x86:
			s.sections[es.pid] = s.sections[es.pid][:0:0]
		}
	}
	slices.SortFunc(m.streams, func(a, b tsMapStream) int { return int(a.pid) - int(b.pid) })
	s.maps = append(s.maps, m)
}

// assemble puts packets together (13818-1 2.4.3.6, 2.4.4).
func (s *tsStream) assemble() {
	open := map[uint16]*tsPES{}
	last := map[uint16]int{}
	for k := range s.packets {
		p := &s.packets[k]
		if p.payload == nil || p.pid == 0x1fff {
			continue
		}
		if cc, ok := last[p.pid]; ok && int(p.cc) != (cc+1)&15 && !p.disc {
			if int(p.cc) == cc {
				continue // a repeat
			}
			s.breaks++
		}
		last[p.pid] = int(p.cc)
		if p.pid == 0 || p.pid == s.pmtPID {
			continue
		}
		pay := p.payload
		if _, ok := s.sections[p.pid]; ok {
			s.section(p, k, open)
			continue
		}
		if p.start {
			if u := open[p.pid]; u != nil {
				s.add(p.pid, u)
			}
			open[p.pid] = &tsPES{key: p.random}
		}
		if u := open[p.pid]; u != nil {
			u.data = append(u.data, pay...)
			u.packets = append(u.packets, k)
		}
	}
	for pid, u := range open {
		if _, ok := s.sections[pid]; !ok {
			s.add(pid, u)
		}
	}
}

func (s *tsStream) section(p *tsPacket, k int, open map[uint16]*tsPES) {
	pay := p.payload
	take := func(b []byte) {
		u := open[p.pid]
		if u == nil {
			return
		}
		u.packets = append(u.packets, k)
		for u.data = append(u.data, b...); len(u.data) >= 3 && u.data[0] != 0xff; {
			n := 3 + int(u.data[1]&15)<<8 + int(u.data[2])
			if len(u.data) < n {
				return
			}
			s.sections[p.pid] = append(s.sections[p.pid], tsPES{data: u.data[:n:n], packets: u.packets})
			u.data, u.packets = bytes.Clone(u.data[n:]), []int{k}
		}
	}
	if !p.start {
		take(pay)
		return
	}
	n := int(pay[0])
	take(pay[1 : 1+n])
	open[p.pid] = &tsPES{}
	take(pay[1+n:])
}

// add takes in a PES packet.
func (s *tsStream) add(pid uint16, u *tsPES) {
	b := u.data
	if len(b) < 9 || b[0] != 0 || b[1] != 0 || b[2] != 1 {
		return
	}
	if n := int(b[4])<<8 | int(b[5]); n > 0 && len(b) > n+6 && b[3]>>4 != 0xe {
		b = b[:n+6]
		u.data = b
	}
	u.payload = b[min(9+int(b[8]), len(b)):]
	stamp := func(b []byte) int64 {
		return int64(b[0]>>1&7)<<30 | int64(b[1])<<22 | int64(b[2]>>1)<<15 | int64(b[3])<<7 | int64(b[4]>>1)
	}
	if b[7]&0x80 != 0 && len(b) >= 14 {
		u.dated, u.pts = true, stamp(b[9:])
		u.dts = u.pts
		if b[7]&0x40 != 0 && len(b) >= 19 {
			u.dts = stamp(b[14:])
		}
	}
	s.pes[pid] = append(s.pes[pid], *u)
}

// near33 unwraps b near a.
func near33(b, a int64) int64 { return a + m4f.Diff33(b, a) }
