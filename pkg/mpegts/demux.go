package mpegts

import (
	"bytes"
	"maps"
	"slices"

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
	First    int64     // number of the packet in which the unit begins, see Keeper
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
	// Before is the number of the last packet of the track ahead of the loss; -1:
	// none had come, or it is not known whose packets are missing.
	Before int64
	// Untyped says that a picture was being received and no slice of it had
	// come, so that it may have been a keyframe.
	Untyped bool
}

// Handler takes what a Demuxer finds, in the order of the packets.
type Handler interface {
	// Program is a new program map, in force from packet number pkt on (see
	// Keeper for what is counted).
	// afterLoss says that packets of the map's PID were lost before it.
	Program(p *Program, pkt int64, afterLoss bool)
	// VideoHeader is the dated PES header, number pes on its track, of a
	// picture that is yet to come.
	VideoHeader(t *Track, dts, pes int64)
	Unit(u *Unit)
	Loss(l Loss)
}

// Keeper takes the packets of the program themselves, in the order in which they
// are read: those of the PAT, of the PID of the program's map, of its elementary
// streams and of its PCR, as far as they are known by then, and without those in
// which a bit is wrong (transport_error_indicator). These alone are numbered,
// from 0.
type Keeper interface {
	// Packet is the next packet; it is valid during the call.
	Packet(p []byte)
	// Table says that a section of the PAT, or of the program's map, that is in
	// force was whole with the packet given last. All that is needed to believe
	// it anew, other sections of it included, begins in packet first.
	Table(pmt bool, first int64)
	// Missing says that so many packets at most are missing ahead of the next,
	// whatever the continuity counters show.
	Missing(packets int64)
}

// Stats counts what a Demuxer has seen. All but Garbage and Reordered are transport packets;
// Errored, Scrambled, Lost and Duplicates are those of the program's own PIDs,
// once it is known.
type Stats struct {
	Packets, Errored, Scrambled, Lost, Duplicates, Null int64
	Reordered                                           int64 // datagrams put back ahead of the one before
	Garbage                                             int64 // bytes
	Tables                                              int64 // program maps taken
	BadTables                                           int64
}

// Demuxer reads one program of a transport stream.
type Demuxer struct {
	h       Handler
	keep    Keeper // nil: none
	want    uint16 // program number; 0: the lowest
	fr      framer
	order   order
	n       int64 // packets of the program so far, which is the number of the next
	stats   Stats
	byPID   [8192]*stream
	pat     psiStream
	pmt     psiStream
	pmtPID  uint16 // 0: none yet
	program *Program
	number  uint16
	pmtLost bool
	missing int64    // packets that may be missing, as told by Missing
	seen    []uint16 // program numbers of the last PAT
	limit   int      // bytes of a picture
	packet  func([]byte, int64)
	// The pictures of the PES packet at hand, kept to be used again.
	units    []Unit
	pictures []picture
}

// psiStream is the state of the PID of a table.
type psiStream struct {
	sections sections
	tables   tables
	cc       int // -1: none yet
	last     [PacketSize]byte
	lastLen  int
	begin    int64   // packet in which the section being collected begins
	suspect  int64   // where the last section whose CRC does not hold began
	places   []int64 // where the sections in force began last
}

// stream is the state of one elementary stream's PID.
type stream struct {
	t         *Track
	cc        int
	last      [PacketSize]byte // the last payload, to tell a duplicate
	lastLen   int
	errored   int   // since the last good packet
	heard     int64 // number of the packet after the last
	missing   int64 // Demuxer.missing when that came
	sections  sections
	buf       arena
	head      []byte // of a PES packet whose header goes on in the next packet
	active    bool   // a PES packet is being received
	torn      bool   // it is cut
	marked    bool   // it was touched by a loss
	tainted   bool   // the next PES packet follows a loss
	need      int    // bytes of payload to come in all; -1: unknown
	first     int64  // packet in which it began
	pes       int64
	pts, dts  int64
	dated     bool
	timed     bool  // ... by its own header
	headPTS   int64 // of the last dated PES header
	headDated bool
	clock     pictureClock
	held      []heldPicture // behind the first dated header
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

// Keep has k take the packets of the program from now on.
func (d *Demuxer) Keep(k Keeper) { d.keep = k }

// Write takes the next bytes of the stream, cut anywhere.
func (d *Demuxer) Write(p []byte) {
	d.Settle()
	d.fr.write(p, d.packet)
}

// WritePackets takes whole packets, of PacketSize bytes each. What does not begin
// with a sync byte is a missing packet.
func (d *Demuxer) WritePackets(p []byte) {
	d.Settle()
	for ; len(p) >= PacketSize; p = p[PacketSize:] {
		if p[0] == syncByte {
			d.onPacket(p[:PacketSize:PacketSize], 0)
		} else {
			d.miss(1)
		}
	}
}

// Close hands out what is still held: the stream is over.
func (d *Demuxer) Close() {
	d.Settle()
	d.fr.flush(d.packet)
	d.finish(true)
}

// Abandon drops what is still held: the stream goes on, and what has come of
// a picture is not all of it.
func (d *Demuxer) Abandon() {
	d.Settle()
	d.finish(false)
}

func (d *Demuxer) finish(flush bool) {
	if d.program == nil {
		return
	}
	for k := range d.program.Tracks {
		if s := d.byPID[d.program.Tracks[k].PID]; s != nil {
			if s.active && flush {
				d.flush(s, nil)
			}
			s.forget()
			s.buf.close()
		}
	}
}

// Splice says that what was written is whole to its end and that what follows
// begins anew: continuity counters are not compared across this place.
func (d *Demuxer) Splice() {
	d.Settle()
	d.fr.flush(d.packet)
	d.pat.cc, d.pmt.cc = -1, -1
	if d.program == nil {
		return
	}
	for k := range d.program.Tracks {
		if s := d.byPID[d.program.Tracks[k].PID]; s != nil {
			s.cc = -1
		}
	}
}

// Hidden is how many packets in a row of one PID must be missing for its
// continuity counter not to show it.
const Hidden = 16

// Missing says that up to so many packets are missing just here, of which PIDs
// is not known: the continuity counters will tell, unless Hidden or more are
// missing between two packets of a PID. It returns the number of the next packet.
func (d *Demuxer) Missing(packets int) int64 {
	d.Settle()
	d.miss(int64(packets))
	return d.n + int64(len(d.fr.carry)/PacketSize)
}

func (d *Demuxer) miss(packets int64) {
	d.missing += packets
	d.gone(packets)
}

// gone tells the keeper of missing packets.
func (d *Demuxer) gone(packets int64) {
	if d.keep != nil && packets > 0 {
		d.keep.Missing(packets)
	}
}

// Heard says whether a packet of that number or a later one has come on the PID
// of a track.
func (d *Demuxer) Heard(pid uint16, pkt int64) bool {
	s := d.byPID[pid&0x1fff]
	return s == nil || s.heard > pkt
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

func (d *Demuxer) onPacket(p []byte, garbage int64) {
	d.stats.Packets++
	switch missing := (garbage + PacketSize - 1) / PacketSize; {
	case garbage == 0 || d.stats.Packets == 1:
	case len(d.seen) > 1 && missing < Hidden:
		// It may have been another program's: the counters will tell.
		d.miss(missing)
	default:
		d.gone(missing)
		d.h.Loss(Loss{Before: -1})
	}
	pid := uint16(p[1]&0x1f)<<8 | uint16(p[2])
	if pid == nullPID {
		d.stats.Null++
		return
	}
	s := d.byPID[pid]
	if p[1]&0x80 != 0 {
		d.unusable(p, pid)
		if d.own(pid) || d.program == nil {
			d.gone(1)
		}
		return
	}
	n := d.n
	if d.own(pid) {
		d.n++
		if d.keep != nil {
			d.keep.Packet(p)
		}
	}
	if p[3]&0xc0 != 0 {
		d.unusable(p, pid)
		return
	}
	off, disc := 4, false
	if p[3]&0x20 != 0 {
		off += 1 + int(p[4])
		disc = p[4] > 0 && p[5]&0x80 != 0
	}
	if p[3]&0x10 == 0 || off > PacketSize {
		if disc && s != nil && off <= PacketSize { // 13818-1 2.4.3.5: the next counts from here on
			s.cc = int(p[3] & 15)
		}
		return
	}
	pay, pusi, cc := p[off:], p[1]&0x40 != 0, int(p[3]&15)
	switch {
	case pid == 0:
		d.onPAT(n, pay, pusi, cc)
	case pid == d.pmtPID && d.pmtPID != 0:
		d.onPMT(n, pay, pusi, cc)
	case s != nil:
		d.onStream(s, n, pay, pusi, cc, disc)
	}
}

// own says whether packets of a PID are the program's, as far as it is known.
func (d *Demuxer) own(pid uint16) bool {
	return pid == 0 || d.byPID[pid] != nil || pid == d.pmtPID || d.program != nil && pid == d.program.PCRPID
}

// unusable takes note of a packet with transport_error_indicator, or a scrambled
// one. Those of other programs are no concern, once it is known which they are.
func (d *Demuxer) unusable(p []byte, pid uint16) {
	s := d.byPID[pid]
	if s == nil && pid != 0 && pid != d.pmtPID && d.program != nil {
		return
	}
	if p[1]&0x80 != 0 {
		d.stats.Errored++
	} else {
		d.stats.Scrambled++
	}
	if s != nil {
		s.errored++
	}
}

// count checks the continuity counter of a table's PID. It says whether the
// packet is a repeat, and whether packets are missing before it. Some
// multiplexers never count the packets of tables: a repeat has the same bytes.
func (s *psiStream) count(cc int, pay []byte) (repeat bool, lost int) {
	last := s.cc
	s.cc = cc
	if last == cc && bytes.Equal(pay, s.last[:s.lastLen]) {
		return true, 0
	}
	s.lastLen = copy(s.last[:], pay)
	if last < 0 {
		return false, 0
	}
	return false, (cc - last - 1) & 15
}

// gap takes note of missing packets of a table.
func (d *Demuxer) gap(s *psiStream, lost int) {
	d.stats.Lost += int64(lost)
	s.sections.reset()
	d.h.Loss(Loss{Lost: lost, Before: -1})
}

func (d *Demuxer) onPAT(n int64, pay []byte, pusi bool, cc int) {
	repeat, lost := d.pat.count(cc, pay)
	if repeat {
		d.stats.Duplicates++
		return
	}
	if lost > 0 {
		d.pmtLost = true // it may have named another PID
		d.gap(&d.pat, lost)
	}
	d.pat.sections.write(pay, pusi, func(sec []byte, begun bool) {
		first := d.pat.place(n, pusi, begun)
		if !current(sec, tablePAT) {
			return
		}
		verdict := d.pat.tables.accept(sec)
		d.tell(&d.pat, sec, verdict, first)
		if verdict != tableNew {
			return
		}
		sections, whole := d.pat.tables.whole()
		if !whole {
			return
		}
		m, err := parsePAT(sections)
		if err != nil {
			d.stats.BadTables++
			return
		}
		d.takePAT(m)
	})
}

func (d *Demuxer) takePAT(m map[uint16]uint16) {
	d.seen = slices.Sorted(maps.Keys(m))
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
	repeat, lost := d.pmt.count(cc, pay)
	if repeat {
		d.stats.Duplicates++
		return
	}
	if lost > 0 {
		d.pmtLost = true
		d.gap(&d.pmt, lost)
	}
	d.pmt.sections.write(pay, pusi, func(sec []byte, begun bool) {
		first := d.pmt.place(n, pusi, begun)
		// Several programs may share a PID for their maps.
		if !current(sec, tablePMT) || uint16(sec[3])<<8|uint16(sec[4]) != d.number {
			return
		}
		doubtful := false
		verdict := d.pmt.tables.accept(sec)
		d.tell(&d.pmt, sec, verdict, first)
		switch verdict {
		case tableSame:
			d.pmtLost = false
			return
		case tableDoubtful:
			if d.program != nil {
				return
			}
			doubtful = true // better than to lose what comes before the next
		}
		p, err := parsePMT(d.pmtPID, sec)
		if err != nil {
			d.stats.BadTables++
			return
		}
		afterLoss := d.pmtLost && d.program != nil
		d.pmtLost = false
		p.Doubtful = doubtful
		d.takeProgram(p, n, afterLoss)
	})
}

// place is the packet in which a section begins that is whole with packet n:
// one begins in a packet with payload_unit_start_indicator (13818-1 2.4.3.3).
func (s *psiStream) place(n int64, pusi, begun bool) int64 {
	first := s.begin
	if begun {
		first = n
	}
	if pusi {
		s.begin = n // of the section behind
	}
	return first
}

// tell tells the keeper of a section that is in force: nothing to do with its
// meaning.
func (d *Demuxer) tell(s *psiStream, sec []byte, v verdict, first int64) {
	if d.keep == nil {
		return
	}
	if s == &d.pat && crc32MPEG(sec) != 0 { // believed when it comes twice
		first, s.suspect = s.suspect, first
	}
	// A map is used at once where there is none yet.
	if v == tableDoubtful && (s == &d.pat || d.program != nil) {
		return
	}
	number := int(sec[6])
	if n := len(s.tables.last); len(s.places) != n {
		s.places = make([]int64, n)
	}
	if number < len(s.places) {
		s.places[number] = first
		first = slices.Min(s.places)
	}
	d.keep.Table(s == &d.pmt, first)
}

// takeProgram puts a map in force. A track that keeps its PID and codec goes
// on undisturbed; a unit of one that does not is handed out as it is.
func (d *Demuxer) takeProgram(p *Program, n int64, afterLoss bool) {
	d.stats.Tables++
	old := d.program
	d.program = p
	d.limit = maxUnit / max(1, (p.countLarge()+3)/4)
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
		s := &stream{t: t, cc: -1, clock: pictureClock{codec: t.Codec}}
		s.buf.size = smallBlock
		if t.large() {
			s.buf.size = bigBlock
		}
		next[t.PID] = s
	}
	if old != nil {
		for k := range old.Tracks {
			if s := d.byPID[old.Tracks[k].PID]; s != nil && !kept[old.Tracks[k].PID] {
				if s.active {
					d.flush(s, nil)
				}
				s.forget()
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
		case d.missing-s.missing >= Hidden:
			d.lose(s, 0, pusi)
		}
	} else if s.errored > 0 {
		d.lose(s, 0, pusi)
	}
	s.errored = 0
	s.heard, s.missing = n+1, d.missing
	s.cc = cc
	s.lastLen = copy(s.last[:], pay)
	if s.t.Codec == m4f.CodecSections {
		d.onSections(s, n, pay, pusi)
		return
	}
	if pusi || len(s.head) > 0 {
		if pay = d.begin(s, n, pay, pusi); pay == nil {
			return
		}
	} else if !s.active {
		return
	}
	if s.buf.len()+len(pay) > d.most(s) {
		d.lose(s, 0, false)
		return
	}
	s.buf.write(pay)
	d.whole(s)
}

// most is how many bytes of a PES packet are collected.
func (d *Demuxer) most(s *stream) int {
	if s.t.large() {
		return d.limit
	}
	return maxOther
}

// whole hands out a PES packet that is whole by its length. One of video is
// ended by the next: its picture may go on there, and some multiplexers cut
// the length of a large picture to 16 bits.
func (d *Demuxer) whole(s *stream) {
	got := s.buf.len() - s.audio.held
	switch {
	case s.need < 0 || got < s.need:
	case s.t.Kind != Video:
		s.buf.truncate(s.audio.held + s.need)
		d.flush(s, nil)
	case got > s.need:
		s.need = -1
	}
}

// lose takes note of packets missing on s ahead of the packet at hand. What
// was received of the unit is handed out at once, the rest of it dropped.
func (d *Demuxer) lose(s *stream, lost int, pusi bool) {
	d.stats.Lost += int64(max(lost-s.errored, 0))
	l := Loss{Track: s.t, Lost: max(lost-s.errored, 0), Errored: s.errored, LastPTS: s.headPTS, Dated: s.headDated, PES: s.pes, Before: s.heard - 1}
	if s.t.Kind == Video && s.active {
		l.Untyped = !hasSlice(s.t.Codec, s.buf.bytes())
	}
	d.h.Loss(l)
	s.head = s.head[:0]
	if s.t.Codec == m4f.CodecSections {
		s.sections.reset()
		s.tainted = true
		return
	}
	if s.active {
		s.torn, s.marked = true, true
		if !pusi {
			d.flush(s, nil)
		}
	}
	s.audio.lose()
	s.clock.lose()
	s.forget()
	s.tainted = true
}

// begin takes the head of a PES packet (13818-1 2.4.3.6), which may be spread
// over several transport packets, and returns the part of the payload behind
// it; nil when there is nothing to collect.
func (d *Demuxer) begin(s *stream, n int64, pay []byte, pusi bool) []byte {
	first := n
	if pusi {
		s.head = s.head[:0]
	} else {
		pay = append(s.head, pay...)
		s.head, first = pay[:0], s.first
	}
	h, state := parsePES(pay)
	if state == pesShort {
		if len(s.head) == 0 && s.active {
			d.end(s, nil)
		}
		s.head, s.first = append(s.head[:0], pay...), first
		return nil
	}
	if s.active && state == pesGood && d.continues(s, &h, pay[h.size:]) {
		return pay[h.size:]
	}
	if s.active {
		d.end(s, &h)
	}
	if state != pesGood {
		return nil
	}
	s.active, s.torn = true, false
	s.marked, s.tainted = s.tainted, false
	s.first = first
	s.need = h.payload()
	s.pes++
	s.dated, s.timed = h.dated, h.dated
	if h.dated {
		s.pts, s.dts = h.pts, h.dts
		s.headPTS, s.headDated = s.pts, true
	}
	switch s.t.Kind {
	case Video:
		d.beginPicture(s)
	case Audio:
		s.buf.write(s.audio.left)
		s.audio.held = len(s.audio.left)
	}
	if s.t.Codec == m4f.CodecData { // whole
		if s.need >= 0 {
			s.need += h.size
		}
		return pay
	}
	if s.need == 0 { // nothing but a header
		s.active = false
		s.buf.reset()
		s.audio.held = 0
		return nil
	}
	return pay[h.size:]
}

// end ends the PES packet being received, where the next begins.
func (d *Demuxer) end(s *stream, next *pesHeader) {
	if s.need >= 0 && s.buf.len()-s.audio.held < s.need && !s.torn {
		s.torn, s.marked = true, true
		l := Loss{Track: s.t, LastPTS: s.headPTS, Dated: s.headDated, PES: s.pes, Lost: 1, Before: s.first}
		if s.t.Kind == Video {
			l.Untyped = !hasSlice(s.t.Codec, s.buf.bytes())
		}
		d.h.Loss(l)
		s.clock.lose()
	}
	d.flush(s, next)
}

// continues says whether a PES packet goes on with the picture of the one
// before: it has no time and no picture begins in it.
func (d *Demuxer) continues(s *stream, h *pesHeader, pay []byte) bool {
	if s.t.Kind != Video || h.dated || s.torn || s.need >= 0 && s.buf.len() < s.need || beginsPicture(s.t.Codec, pay) {
		return false
	}
	if s.need = h.payload(); s.need >= 0 {
		s.need += s.buf.len()
	}
	return true
}

// beginPicture dates a picture whose header has no time, and announces it.
func (d *Demuxer) beginPicture(s *stream) {
	if !s.dated {
		s.dts, s.dated = s.clock.next()
	}
	if s.dated {
		d.h.VideoHeader(s.t, s.dts, s.pes)
	}
}

// flush hands out the PES packet being received; next, where it is known, is
// the header of the one that follows.
func (d *Demuxer) flush(s *stream, next *pesHeader) {
	s.active = false
	switch {
	case s.t.Codec == m4f.CodecALaw || s.t.Codec == m4f.CodecMuLaw:
		d.flushG711(s)
		return
	case s.t.Kind == Audio:
		d.flushAudio(s)
		return
	case s.buf.len() == 0:
		return
	case s.t.Kind == Video:
		d.flushVideo(s, next)
		return
	}
	u := Unit{Track: s.t, PTS: s.pts, DTS: s.dts, Dated: s.dated, Marked: s.marked, Codec: s.t.Codec, First: s.first, PES: s.pes}
	u.Data, u.block = s.buf.take()
	u.block.Hold()
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
		u.block.Hold()
		s.tainted = false
		d.h.Unit(&u)
	})
}
