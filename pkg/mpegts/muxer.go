package mpegts

import (
	"fmt"
	"io"
	"slices"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// Muxer writes one program as a transport stream (13818-1 2.4) of variable rate,
// without null packets.
//
// Time goes in slots of 20 ms. Each begins with a clock reference (PCR), and its
// packets lie evenly in it, so that a decoder that interpolates between
// references dates every byte as the Muxer did. How many packets of a stream a
// slot holds is the least rate at which everything arrives ahead of its decoding
// time, looking ahead by a second for video: the smoothest schedule that keeps
// the deadlines. It fills no buffer of the system target decoder (13818-1
// 2.4.2) that it can help filling; where both cannot be had, the decoding time
// counts.
//
// Each table comes every 80 ms. What is written depends only on the calls: there is no
// clock and no map whose order matters.
type Muxer struct {
	out    io.Writer
	pmtPID uint16
	err    error
	buf    []byte // the slot at hand

	program *Program
	pat     []byte // section in force
	pmt     []byte
	patVer  byte
	pmtVer  byte
	clock   *muxStream // the stream on whose PID the PCR is; nil: none of them
	lead    *muxStream

	pending    []*mapChange // maps that are yet to come into force
	generation int          // of the map in force
	allowed    int          // of the map that a receiver has by now
	written    int          // of the last map set

	streams []*muxStream
	cc      [8192]byte
	keys    []uint64
	tables  []tablePacket

	now      int64 // start of the next slot, on the axis of the units' times
	running  bool  // now holds
	draining bool  // nothing more will come
	begun    bool  // something has been written
	slots    int64 // since tables were due in all of their slots
	leadSeen bool  // a leading unit has been announced since the start or the last jump
	leadTime int64 // its time
	alone    bool  // it writes a segment, in which
	repeats  int64 // each table is to come so often
	repeated int64 // and has come
	length   int64 // in so many slots
	owed     int   // pinned units that may go and have to ahead of the next leading one
}

// mapChange is a program map that comes into force ahead of a leading unit.
type mapChange struct {
	program    *Program
	generation int
	announced  bool // that unit waits
}

const (
	slotTicks  = 20 * m4f.Timescale / 1000
	tableSlots = 4
	// spare is by how much a unit is there ahead of its decoding time, for the
	// way through the transport buffer.
	spare = 10 * m4f.Timescale / 1000
	// mapLead is how far ahead of its first picture's decoding time a new map
	// comes, so that the sound of new tracks is there in time.
	mapLead = 30 * m4f.Timescale / 100
	// startLead is the time from the first byte to the first decoding time.
	startLead = 60 * m4f.Timescale / 100
	// How far ahead of its decoding time a byte is sent at most.
	videoWindow = 95 * m4f.Timescale / 100
	audioWindow = 20 * m4f.Timescale / 100
	dataWindow  = 90 * m4f.Timescale / 100
	// maxPause is the longest time without a unit that is told in clock
	// references; a longer one is a jump.
	maxPause = 3 * m4f.Timescale
)

// NewMuxer returns a Muxer whose program map goes on the given PID.
func NewMuxer(out io.Writer, pmtPID uint16) *Muxer {
	return &Muxer{out: out, pmtPID: pmtPID & 0x1fff}
}

// SetProgram puts a program map in force from the next unit of its leading track
// on. Everything of the map before has been written. Tracks keep their order in
// the map; the first of them that is video, or else audio, leads.
func (m *Muxer) SetProgram(p *Program) error {
	pmt, err := mapSection(p, m.pmtVer)
	if err != nil {
		return err
	}
	old := m.latest()
	if old != nil && sameMap(old, p) {
		return nil
	}
	if old == nil || !sameTrack(old.Leading(), p.Leading()) {
		if err := m.Drain(); err != nil {
			return err
		}
		m.written++
		m.switchTo(p, pmt, m.written)
		return nil
	}
	m.written++
	m.pending = append(m.pending, &mapChange{program: p, generation: m.written})
	return nil
}

// latest is the program set last, or nil.
func (m *Muxer) latest() *Program {
	if n := len(m.pending); n > 0 {
		return m.pending[n-1].program
	}
	return m.program
}

func sameTrack(a, b *Track) bool {
	return a != nil && b != nil && a.PID == b.PID && a.StreamType == b.StreamType && (a.Codec == m4f.CodecSections) == (b.Codec == m4f.CodecSections)
}

// find returns the program's track of a PID, or nil.
func (p *Program) find(pid uint16) *Track {
	for k := range p.Tracks {
		if p.Tracks[k].PID == pid {
			return &p.Tracks[k]
		}
	}
	return nil
}

// switchTo puts a map in force.
func (m *Muxer) switchTo(p *Program, pmt []byte, generation int) {
	if m.program != nil {
		m.pmtVer = (m.pmtVer + 1) & 31
		if m.program.Number != p.Number {
			m.patVer = (m.patVer + 1) & 31
		}
		pmt = withVersion(pmt, m.pmtVer)
	}
	m.program, m.generation = p, generation
	m.pat, m.pmt = associationSection(p, m.pmtPID, m.patVer), pmt
	m.clock, m.lead = nil, nil
	if t := p.Leading(); t != nil {
		m.lead = m.stream(t.PID)
	}
	if p.find(p.PCRPID) != nil {
		m.clock = m.stream(p.PCRPID)
	}
	for _, s := range m.streams {
		if t := p.find(s.pid); t != nil {
			s.setKind(t)
		}
	}
	m.slots = 0
}

// stream returns the state of a PID.
func (m *Muxer) stream(pid uint16) *muxStream {
	k, ok := slices.BinarySearchFunc(m.streams, pid, func(s *muxStream, pid uint16) int { return int(s.pid) - int(pid) })
	if !ok {
		m.streams = slices.Insert(m.streams, k, &muxStream{pid: pid})
	}
	return m.streams[k]
}

// SetModel says which buffers the decoder has for a PID.
func (m *Muxer) SetModel(pid uint16, model BufferModel) { m.stream(pid).model = model }

// Write takes the next unit of a track of the program set last, in the order of
// decoding, and keeps its data until it is sent. Units of other PIDs, and of such
// that cannot carry a track, are passed over.
func (m *Muxer) Write(u *MuxUnit) {
	p := m.latest()
	if p == nil || u.PID < 0x10 || u.PID >= nullPID || u.PID == m.pmtPID || len(u.Data) == 0 {
		return
	}
	t := p.find(u.PID)
	if t == nil {
		return
	}
	s := m.stream(u.PID)
	if len(s.queue) == 0 {
		s.setKind(t)
	}
	q := queued{MuxUnit: u, generation: m.needs(t)}
	if n := len(m.pending); n > 0 && !m.pending[n-1].announced && p.Leading() != nil && p.Leading().PID == u.PID {
		q.change = m.pending[n-1]
		q.change.announced = true
	}
	s.push(q)
}

// needs is the first map from which on a track of the latest is what it is there.
func (m *Muxer) needs(t *Track) int {
	for k := len(m.pending) - 1; k >= 0; k-- {
		before := m.program
		if k > 0 {
			before = m.pending[k-1].program
		}
		if !sameTrack(before.find(t.PID), t) {
			return m.pending[k].generation
		}
	}
	return 0
}

// Advance sends what is due, given that every unit with a time before known has
// been written.
func (m *Muxer) Advance(known int64) error {
	m.start()
	for m.err == nil && m.running && m.now+videoWindow+2*slotTicks < known && m.hasWork() {
		m.slot()
	}
	return m.err
}

// hasWork says whether something waits that may go. Clock references for a time
// without anything are sent when it is known how long that is: a long one is a
// jump. What is pinned goes with what leads.
func (m *Muxer) hasWork() bool {
	return slices.ContainsFunc(m.streams, func(s *muxStream) bool {
		return s.sendable(m.generation) > 0 && m.open(s) && (!s.queue[0].Pinned || m.goes(s) && len(m.lead.queue) > 0)
	})
}

// Drain sends all that is held; what is written next begins with a clock of its
// own (discontinuity_indicator).
func (m *Muxer) Drain() error {
	m.start()
	m.draining = true
	for m.err == nil && m.running && m.holds() {
		m.slot()
	}
	m.draining = false
	if m.running && m.err == nil {
		m.clockPacket(m.now, false)
		m.flush()
	}
	m.apply(len(m.pending)) // those that brought nothing
	m.running = false
	return m.err
}

func (m *Muxer) holds() bool {
	return slices.ContainsFunc(m.streams, func(s *muxStream) bool { return len(s.queue) > 0 })
}

// earliest is the time at which the first of the waiting units is due: of those
// that go by themselves, where there are any.
func (m *Muxer) earliest() (due int64, ok bool) {
	best := 0
	for _, s := range m.streams {
		if len(s.queue) == 0 {
			continue
		}
		rank, at := m.rank(s), s.queue[0].due()
		if !ok || rank < best || rank == best && at < due {
			due, best, ok = at, rank, true
		}
	}
	return due, ok
}

// rank orders what waits by how much its time says of when it goes: data may be
// dated anyhow, pinned data goes with what leads, and what the map in force has
// no track for waits for the next.
func (m *Muxer) rank(s *muxStream) int {
	r := 0
	switch {
	case s.kind == Data && s.queue[0].Pinned:
		r = 2
	case s.kind == Data:
		r = 1
	}
	if s.queue[0].generation > m.generation {
		r += 3
	}
	return r
}

// start sets the clock for what waits.
func (m *Muxer) start() {
	if m.running || m.program == nil || m.err != nil {
		return
	}
	due, ok := m.earliest()
	if !ok {
		return
	}
	m.begin(due)
	if m.begun {
		m.restart()
		return
	}
	m.begun, m.slots = true, 0
	m.sendTables(m.dueTables(), 1)
	m.flush()
	m.slots = 1
}

// begin sets the clock to startLead ahead of a time.
func (m *Muxer) begin(due int64) {
	m.running, m.leadSeen = true, false
	m.now = due - startLead
	for _, s := range m.streams {
		s.restart()
	}
}

// restart sends a slot with a clock of a new origin, and the tables.
func (m *Muxer) restart() {
	m.clockPacket(m.now, true)
	m.slots = 0
	m.sendTables(m.dueTables(), 1)
	m.now += slotTicks
	m.slots = 1
	m.flush()
}

// slot sends the packets of one slot.
func (m *Muxer) slot() {
	if due, ok := m.earliest(); ok && due > m.now+maxPause && !m.alone {
		m.sendPinned(maxOwed)
		m.clockPacket(m.now, false)
		m.begin(due)
		m.restart()
		return
	}
	m.allowed = m.generation
	hold := m.changeMap()
	m.keys = m.keys[:0]
	referred := false
	for k, s := range m.streams {
		s.release(m.now)
		n := 0
		switch {
		case hold && s == m.lead:
		case hold && m.goes(s):
			n = s.remaining(m.allowed) // it goes with the map
		case m.open(s):
			n = s.allot(m.now, m.allowed, s == m.clock && !m.alone)
		}
		if s == m.clock && n > 0 && !m.alone && !m.mustWait(s) {
			m.packet(s, true)
			referred, n = true, n-1
		}
		m.spread(k, n)
	}
	m.send(referred)
	m.now += slotTicks
	m.slots++
	m.flush()
}

// changeMap looks for a map that the next leading unit brings. Until it is in
// force, and has had its slot, leading units wait; it waits itself for the
// tracks that go with the one before.
func (m *Muxer) changeMap() (hold bool) {
	if len(m.pending) == 0 || m.lead == nil {
		return false
	}
	until := len(m.pending) // at the end those, too, that brought no leading unit
	if len(m.lead.queue) > 0 {
		change := m.lead.queue[0].change
		if until = slices.Index(m.pending, change) + 1; until == 0 {
			return false
		}
	} else if !m.draining {
		return false
	}
	if slices.ContainsFunc(m.streams, m.goes) {
		return true
	}
	if len(m.lead.queue) > 0 {
		m.lead.queue[0].change = nil
	}
	m.apply(until)
	return true
}

// apply puts the last of the first n waiting maps in force.
func (m *Muxer) apply(n int) {
	if n == 0 || m.err != nil {
		return
	}
	change := m.pending[n-1]
	m.pending = append(m.pending[:0], m.pending[n:]...)
	pmt, err := mapSection(change.program, m.pmtVer)
	if err != nil {
		m.err = err
		return
	}
	m.switchTo(change.program, pmt, change.generation)
}

// goes says whether a stream has units that the next map has no track for.
func (m *Muxer) goes(s *muxStream) bool {
	return len(m.pending) > 0 && s.sendable(m.generation) > 0 && !sameTrack(m.program.find(s.pid), m.pending[0].program.find(s.pid))
}

// open says whether a stream may send: data waits for the first leading unit,
// without which nobody could tell what its time is worth.
func (m *Muxer) open(s *muxStream) bool {
	return m.leadSeen || s.kind != Data || m.lead == nil || m.draining && len(m.lead.queue) == 0
}

// spread lays n packets of a stream evenly in the slot.
func (m *Muxer) spread(stream, n int) {
	for j := range n {
		at := uint64(2*j+1) << 39 / uint64(2*n)
		m.keys = append(m.keys, (at+1)<<16|uint64(stream))
	}
}

// send sends what has been laid out, and what is pinned between it.
func (m *Muxer) send(referred bool) {
	if !referred && (!m.alone || m.slots%segmentClockSlots == 0) {
		m.clockPacket(m.now, false)
	}
	m.countOwed()
	slices.Sort(m.keys)
	// Tables begin in the middle of the slot, so that their distance does not
	// depend on how many packets there are.
	tables := m.dueTables()
	half := len(m.keys) / 2
	for k, key := range m.keys {
		if k >= half {
			tables = m.sendTables(tables, len(m.keys)-k)
		}
		m.packet(m.streams[key&0xffff], false)
		m.sendPinned(1)
	}
	m.sendTables(tables, 1)
	if m.lead == nil || m.draining && len(m.lead.queue) == 0 { // nothing to wait for
		m.leadTime, m.leadSeen = maxTime, true
		m.countOwed()
		m.sendPinned(maxOwed)
	}
}

// dueTables are the packets of tables that the slot holds: of the association
// table in every fourth, of the program map in the one behind it.
func (m *Muxer) dueTables() []tablePacket {
	m.tables = m.tables[:0]
	if m.alone {
		return m.segmentTables()
	}
	if m.slots%tableSlots == 0 {
		m.tables = appendTable(m.tables, 0, m.pat)
	}
	if m.slots%tableSlots == 1 || m.slots == 0 {
		m.tables = appendTable(m.tables, m.pmtPID, m.pmt)
	}
	return m.tables
}

// sendTables sends as many packets as leave no more than fit evenly between n
// others.
func (m *Muxer) sendTables(tables []tablePacket, n int) []tablePacket {
	for k := (len(tables) + n - 1) / n; k > 0; k-- {
		m.sendTable(tables[0])
		tables = tables[1:]
	}
	return tables
}

const (
	maxTime = 1 << 62
	maxOwed = 1 << 30
)

// countOwed counts the units that are pinned to the last leading unit, and those
// ahead of them on their PIDs.
func (m *Muxer) countOwed() {
	m.owed = 0
	for _, s := range m.streams {
		s.owed = 0
		if s.kind == Data && m.leadSeen {
			s.countOwed(m.leadTime, m.allowed)
			m.owed += s.owed
		}
	}
}

// sendPinned sends up to n packets of units that are owed.
func (m *Muxer) sendPinned(n int) {
	for k := 0; k < len(m.streams) && m.owed > 0 && n > 0; {
		s := m.streams[k]
		if s.owed == 0 {
			k++
			continue
		}
		m.packet(s, false)
		n--
	}
}

// mustWait says whether something is pinned that comes ahead of the next packet
// of a stream.
func (m *Muxer) mustWait(s *muxStream) bool {
	if s != m.lead || !s.tells(m.capacity(s, true)) || !m.leadSeen {
		return false
	}
	last := m.leadTime
	m.leadTime = s.queue[0].anchor - 1
	m.countOwed()
	n := m.owed
	m.leadTime = last
	m.countOwed()
	return n > 0
}

// packet sends the next packet of a stream. One that tells a receiver the time
// of a leading unit comes behind all that is pinned to an earlier one.
func (m *Muxer) packet(s *muxStream, referred bool) {
	if s.sendable(m.allowed) == 0 || s.queue[0].Pinned && s.owed == 0 && !m.goes(s) {
		return
	}
	tells := s == m.lead && s.tells(m.capacity(s, referred))
	anchor := s.queue[0].anchor
	if tells && m.leadSeen {
		m.leadTime = anchor - 1
		m.countOwed()
		m.sendPinned(maxOwed)
	}
	m.payloadPacket(s, referred)
	if tells {
		m.leadSeen, m.leadTime = true, anchor
		m.countOwed()
	}
}

// flush hands the packets at hand to the writer.
func (m *Muxer) flush() {
	if m.err == nil && len(m.buf) > 0 {
		if _, err := m.out.Write(m.buf); err != nil {
			m.err = fmt.Errorf("transport stream: %w", err)
		}
	}
	m.buf = m.buf[:0]
}
