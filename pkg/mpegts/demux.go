package mpegts

import (
	"bytes"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// Unit is one access unit (an audio frame, a picture, a PES packet or section
// of a data stream). It is valid until Release.
type Unit struct {
	Track    *Track
	PTS, DTS int64 // 33 bits; meaningless unless Dated
	Dated    bool  // false: a section, or a data PES without PTS
	Key      bool  // video: a random access point with its own parameter sets
	Sets     bool  // H.264, HEVC: parameter sets are among the NAL units
	Marked   bool  // touched by a loss
	// Data is what a sample holds: a raw AAC frame, an audio frame, a whole
	// PES packet or section of a data stream, or a picture as it was received.
	Data []byte
	NALs []m4f.Range // H.264, HEVC: the NAL units in Data
	// Header is the codec's own header, for the sample entry: of audio the
	// frame's first bytes (at most 64), of MPEG-2 video the sequence header.
	Header   []byte
	Codec    m4f.Codec // as the frame's own header says it
	Duration int64     // audio: ticks
	First    int64     // number of the packet in which the unit begins
	PES      int64     // number of the PES packet on its track, from 1
	block    *Block
}

// Release gives the unit's memory back.
func (u *Unit) Release() {
	if u.block != nil {
		u.block.Release()
		u.block = nil
	}
}

// Loss is transport packets known to be missing or unreadable.
type Loss struct {
	Track   *Track // nil: PAT, PMT, or not known which
	Lost    int    // packets missing, as far as the counter tells (modulo 16)
	Errored int    // packets received with transport_error_indicator or scrambled
	// LastPTS is the time of the last PES header before the loss.
	LastPTS int64
	Dated   bool
	// PES is how many PES headers the track has had.
	PES int64
	// Untyped says that a picture was being received and no slice of it had
	// come, so that it may have been a keyframe.
	Untyped bool
}

// Handler takes what a Demuxer finds, in the order of the packets.
type Handler interface {
	// Program is a new program map, in force from packet number pkt on.
	// afterLoss says that packets of the map's PID were lost before it.
	Program(p *Program, pkt int64, afterLoss bool)
	// VideoHeader is the dated PES header, number pes on its track, of a
	// picture that is yet to come.
	VideoHeader(t *Track, dts, pes int64)
	Unit(u *Unit)
	Loss(l Loss)
}

// Stats counts what a Demuxer has seen. All but Garbage are transport packets.
type Stats struct {
	Packets, Errored, Scrambled, Lost, Duplicates, Null int64
	Garbage                                             int64 // bytes
	Tables                                              int64 // program maps taken
	BadTables                                           int64
}

// Demuxer reads one program of a transport stream.
type Demuxer struct {
	h       Handler
	want    uint16 // program number; 0: the lowest
	fr      framer
	n       int64 // number of the packet at hand
	stats   Stats
	byPID   [8192]*stream
	pat     psiStream
	pmt     psiStream
	pmtPID  uint16 // 0: none yet
	program *Program
	number  uint16
	pmtLost bool
	seenPAT bool
	seen    []uint16 // program numbers of the last PAT
	packet  func([]byte, bool)
}

// psiStream is the state of the PID of a table.
type psiStream struct {
	sections sections
	table    table
	cc       int // -1: none yet
}

// stream is the state of one elementary stream's PID.
type stream struct {
	t         *Track
	cc        int
	last      [PacketSize]byte // the last payload, to tell a duplicate
	lastLen   int
	errored   int // since the last good packet
	sections  sections
	buf       arena
	active    bool  // a PES packet is being received
	torn      bool  // it is cut
	marked    bool  // it was touched by a loss
	tainted   bool  // the next PES packet follows a loss
	need      int   // bytes of payload to come in all; -1: unknown
	first     int64 // packet in which it began
	pes       int64
	pts, dts  int64
	dated     bool
	headPTS   int64 // of the last dated PES header
	headDated bool
	lastDTS   int64 // video: to date a picture without a time
	step      int64
	audio     audioState
}

// NewDemuxer returns a Demuxer for a program number, or, with 0, for the
// program with the lowest number.
func NewDemuxer(program uint16, h Handler) *Demuxer {
	d := &Demuxer{h: h, want: program}
	d.pat.cc, d.pmt.cc = -1, -1
	d.packet = d.onPacket
	return d
}

// Write takes the next bytes of the stream, cut anywhere.
func (d *Demuxer) Write(p []byte) { d.fr.write(p, d.packet) }

// Close hands out what is still held: the stream is over.
func (d *Demuxer) Close() {
	d.fr.flush(d.packet)
	if d.program != nil {
		for k := range d.program.Tracks {
			if s := d.byPID[d.program.Tracks[k].PID]; s != nil {
				if s.active {
					d.flush(s)
				}
				s.buf.close()
			}
		}
	}
}

// Stats returns the counts so far.
func (d *Demuxer) Stats() Stats {
	s := d.stats
	s.Garbage = d.fr.garbage
	return s
}

// Programs returns the program numbers of the last program association table,
// ascending; nil before there was one.
func (d *Demuxer) Programs() []uint16 { return d.seen }

// Program returns the program map in force, or nil.
func (d *Demuxer) Program() *Program { return d.program }

func (d *Demuxer) onPacket(p []byte, afterGarbage bool) {
	n := d.n
	d.n++
	d.stats.Packets++
	if afterGarbage && n > 0 {
		d.h.Loss(Loss{})
	}
	pid := uint16(p[1]&0x1f)<<8 | uint16(p[2])
	if pid == nullPID {
		d.stats.Null++
		return
	}
	s := d.byPID[pid]
	if p[1]&0x80 != 0 {
		d.stats.Errored++
		if s != nil {
			s.errored++
		}
		return
	}
	if p[3]&0xc0 != 0 {
		d.stats.Scrambled++
		if s != nil {
			s.errored++
		}
		return
	}
	off, disc := 4, false
	if p[3]&0x20 != 0 {
		off += 1 + int(p[4])
		disc = p[4] > 0 && p[5]&0x80 != 0
	}
	if p[3]&0x10 == 0 || off >= PacketSize {
		return
	}
	pay, pusi, cc := p[off:], p[1]&0x40 != 0, int(p[3]&15)
	switch {
	case pid == 0:
		d.onPAT(pay, pusi, cc)
	case pid == d.pmtPID && d.pmtPID != 0:
		d.onPMT(n, pay, pusi, cc)
	case s != nil:
		d.onStream(s, n, pay, pusi, cc, disc)
	}
}

// count checks the continuity counter of a table's PID. It says whether the
// packet is a repeat, and whether packets are missing before it.
func (s *psiStream) count(cc int) (repeat bool, lost int) {
	last := s.cc
	s.cc = cc
	if last < 0 {
		return false, 0
	}
	if cc == last {
		return true, 0
	}
	return false, (cc - last - 1) & 15
}

func (d *Demuxer) onPAT(pay []byte, pusi bool, cc int) {
	repeat, lost := d.pat.count(cc)
	if lost > 0 {
		d.stats.Lost += int64(lost)
		d.pat.sections.reset()
		d.h.Loss(Loss{Lost: lost})
	}
	if repeat {
		d.stats.Duplicates++
		return
	}
	d.pat.sections.write(pay, pusi, func(sec []byte, _ bool) {
		if sec[0] != 0 || !d.pat.table.accept(sec) {
			return
		}
		m, err := parsePAT(sec)
		if err != nil {
			d.stats.BadTables++
			return
		}
		d.takePAT(m)
	})
}

func (d *Demuxer) takePAT(m map[uint16]uint16) {
	d.seenPAT = true
	d.seen = sortedKeys(m)
	number := d.want
	if number == 0 && len(d.seen) > 0 {
		number = d.seen[0]
	}
	pid, ok := m[number]
	if !ok || pid == 0 || pid >= nullPID || (pid == d.pmtPID && number == d.number) {
		return
	}
	d.number, d.pmtPID = number, pid
	d.pmt = psiStream{cc: -1}
}

func (d *Demuxer) onPMT(n int64, pay []byte, pusi bool, cc int) {
	repeat, lost := d.pmt.count(cc)
	if repeat {
		d.stats.Duplicates++
		return
	}
	if lost > 0 {
		d.stats.Lost += int64(lost)
		d.pmtLost = true
		d.pmt.sections.reset()
		d.h.Loss(Loss{Lost: lost})
	}
	d.pmt.sections.write(pay, pusi, func(sec []byte, _ bool) {
		// Several programs may share a PID for their maps.
		if len(sec) < 12 || sec[0] != 2 || uint16(sec[3])<<8|uint16(sec[4]) != d.number {
			return
		}
		if !d.pmt.table.accept(sec) {
			if bytes.Equal(sec, d.pmt.table.last) {
				d.pmtLost = false
			}
			return
		}
		p, err := parsePMT(d.pmtPID, sec)
		if err != nil {
			d.stats.BadTables++
			return
		}
		afterLoss := d.pmtLost && d.program != nil
		d.pmtLost = false
		d.takeProgram(p, n, afterLoss)
	})
}

// takeProgram puts a map in force. A track that keeps its PID and codec goes
// on undisturbed; a unit of one that does not is handed out as it is.
func (d *Demuxer) takeProgram(p *Program, n int64, afterLoss bool) {
	d.stats.Tables++
	old := d.program
	d.program = p
	kept := map[uint16]bool{}
	var next [8192]*stream
	for k := range p.Tracks {
		t := &p.Tracks[k]
		if t.PID == 0 || t.PID == d.pmtPID || t.PID == nullPID {
			continue
		}
		if s := d.byPID[t.PID]; s != nil && s.t.StreamType == t.StreamType && s.t.Codec == t.Codec {
			s.t, kept[t.PID] = t, true
			next[t.PID] = s
			continue
		}
		s := &stream{t: t, cc: -1}
		s.buf.size = smallBlock
		if t.Kind == Video {
			s.buf.size = bigBlock
		}
		next[t.PID] = s
	}
	if old != nil {
		for k := range old.Tracks {
			if s := d.byPID[old.Tracks[k].PID]; s != nil && !kept[old.Tracks[k].PID] {
				if s.active {
					d.flush(s)
				}
				s.buf.close()
			}
		}
	}
	d.byPID = next
	d.h.Program(p, n, afterLoss)
}

func (d *Demuxer) onStream(s *stream, n int64, pay []byte, pusi bool, cc int, disc bool) {
	if s.cc >= 0 && !disc {
		switch {
		case cc == s.cc && s.errored == 0 && bytes.Equal(pay, s.last[:s.lastLen]):
			d.stats.Duplicates++
			return
		case cc != (s.cc+1)&15 || s.errored > 0:
			d.lose(s, (cc-s.cc-1)&15, pusi)
		}
	} else if s.errored > 0 {
		d.lose(s, 0, pusi)
	}
	s.errored = 0
	s.cc = cc
	s.lastLen = copy(s.last[:], pay)
	if s.t.Codec == m4f.CodecSections {
		d.onSections(s, n, pay, pusi)
		return
	}
	if pusi {
		if pay = d.begin(s, n, pay); pay == nil {
			return
		}
	} else if !s.active {
		return
	}
	if s.buf.len()+len(pay) > maxUnit {
		d.lose(s, 0, false)
		return
	}
	s.buf.write(pay)
	if got := s.buf.len() - s.audio.held; s.need >= 0 && got >= s.need {
		s.buf.truncate(s.audio.held + s.need)
		d.flush(s)
	}
}

// lose takes note of packets missing on s ahead of the packet at hand. What
// was received of the unit is handed out at once, the rest of it dropped.
func (d *Demuxer) lose(s *stream, lost int, pusi bool) {
	d.stats.Lost += int64(max(lost-s.errored, 0))
	l := Loss{Track: s.t, Lost: max(lost-s.errored, 0), Errored: s.errored, LastPTS: s.headPTS, Dated: s.headDated, PES: s.pes}
	if s.t.Kind == Video && s.active {
		l.Untyped = !hasSlice(s.t.Codec, s.buf.bytes())
	}
	d.h.Loss(l)
	if s.t.Codec == m4f.CodecSections {
		s.sections.reset()
		s.tainted = true
		return
	}
	if s.active {
		s.torn, s.marked = true, true
		if !pusi {
			d.flush(s)
		}
	}
	s.audio.lose()
	s.tainted = true
}

// begin takes the head of a PES packet (13818-1 2.4.3.6) and returns the part
// of the payload behind its header; nil when there is nothing to collect.
func (d *Demuxer) begin(s *stream, n int64, pay []byte) []byte {
	if s.active {
		if s.need >= 0 && s.buf.len()-s.audio.held < s.need && !s.torn {
			s.torn, s.marked = true, true
			l := Loss{Track: s.t, LastPTS: s.headPTS, Dated: s.headDated, PES: s.pes, Lost: 1}
			if s.t.Kind == Video {
				l.Untyped = !hasSlice(s.t.Codec, s.buf.bytes())
			}
			d.h.Loss(l)
		}
		d.flush(s)
	}
	if len(pay) < 6 || pay[0] != 0 || pay[1] != 0 || pay[2] != 1 {
		return nil
	}
	s.active, s.torn = true, false
	s.marked, s.tainted = s.tainted, false
	s.first = n
	s.need = int(pay[4])<<8 | int(pay[5])
	s.dated = false
	s.pes++
	hdr := 6
	if hasPESHeader(pay[3]) {
		if len(pay) < 9 || 9+int(pay[8]) > len(pay) || pay[6]&0xc0 != 0x80 {
			s.active = false
			return nil
		}
		hdr = 9 + int(pay[8])
		d.date(s, pay)
	}
	whole := s.t.Codec == m4f.CodecData
	switch {
	case s.need == 0, s.t.Kind == Video && s.need <= hdr-6:
		// Unbounded, as video may be. A length that does not hold the header
		// is that of a picture of 64 KiB or more, cut to 16 bits.
		s.need = -1
	case whole:
		s.need += 6
	default:
		s.need = max(s.need-(hdr-6), 0)
	}
	if s.t.Kind == Audio {
		s.buf.write(s.audio.left)
		s.audio.held = len(s.audio.left)
	}
	if whole {
		return pay
	}
	if s.need == 0 { // nothing but a header
		s.active = false
		s.buf.reset()
		s.audio.held = 0
		return nil
	}
	return pay[hdr:]
}

// hasPESHeader says whether a stream id has the optional header (table 2-21).
func hasPESHeader(id byte) bool {
	switch id {
	case 0xbc, 0xbe, 0xbf, 0xf0, 0xf1, 0xff, 0xf2, 0xf8:
		return false
	}
	return true
}

// date reads PTS and DTS from a PES header.
func (d *Demuxer) date(s *stream, pay []byte) {
	n := int(pay[8])
	if pay[7]&0x80 != 0 && n >= 5 {
		s.dated = true
		s.pts = timestamp(pay[9:])
		s.dts = s.pts
		if pay[7]&0x40 != 0 && n >= 10 {
			s.dts = timestamp(pay[14:])
		}
		s.headPTS, s.headDated = s.pts, true
	} else if s.t.Kind == Video && s.step > 0 {
		// A picture without a time follows the one before it.
		s.dated = true
		s.dts = (s.lastDTS + s.step) & mask33
		s.pts = s.dts
	}
	if s.dated && s.t.Kind == Video {
		if st := m4f.Diff33(s.dts, s.lastDTS); st > 0 && st < 3*m4f.Timescale {
			s.step = st
		}
		s.lastDTS = s.dts
		d.h.VideoHeader(s.t, s.dts, s.pes)
	}
}

func timestamp(b []byte) int64 {
	return int64(b[0]>>1&7)<<30 | int64(b[1])<<22 | int64(b[2]>>1)<<15 | int64(b[3])<<7 | int64(b[4]>>1)
}

// flush hands out the PES packet being received.
func (d *Demuxer) flush(s *stream) {
	s.active = false
	switch {
	case s.t.Kind == Audio:
		d.flushAudio(s)
		return
	case s.buf.len() == 0:
		return
	case s.t.Kind == Video && !s.dated:
		s.buf.reset() // no time to put it at
		return
	}
	u := Unit{Track: s.t, PTS: s.pts, DTS: s.dts, Dated: s.dated, Marked: s.marked, Codec: s.t.Codec, First: s.first, PES: s.pes}
	u.Data, u.block = s.buf.take()
	u.block.refs++
	if s.t.Kind == Video {
		inspect(&u)
	}
	d.h.Unit(&u)
}

func (d *Demuxer) onSections(s *stream, n int64, pay []byte, pusi bool) {
	if pusi && !s.sections.open {
		s.first = n
	}
	s.sections.write(pay, pusi, func(sec []byte, begun bool) {
		if begun {
			s.first = n
		}
		s.pes++
		s.buf.write(sec)
		u := Unit{Track: s.t, Marked: s.tainted, Codec: s.t.Codec, First: s.first, PES: s.pes}
		u.Data, u.block = s.buf.take()
		u.block.refs++
		s.tainted = false
		d.h.Unit(&u)
	})
}
