package ingest

import (
	"time"

	"github.com/pion/rtp"
)

const (
	// rtpAhead is how far ahead of what is delivered a packet may be to belong
	// to the same sequence without a doubt: a second of 120 Mbit/s.
	rtpAhead = 12288
	// rtpBehind is how far behind it may be, where a second path may be late.
	rtpBehind = 16384
	// rtpNear packets off, and the timestamp is not asked.
	rtpNear = 64
	// rtpHeldBytes bounds what waits for missing packets.
	rtpHeldBytes = 32 << 20
	// rtpSilent is how long the sequence at hand must have been silent for a
	// path that never belonged to it to replace it.
	rtpSilent = time.Second
	// rtpDrift is by how much RTP time and the time of arrival may differ
	// before the timestamp is one of another sequence.
	rtpDrift = 5 * time.Second
	// rtpAbsent is how long a path may be silent, beyond the skew, and still
	// be waited for.
	rtpAbsent = 2 * time.Second
	// typeMP2T is the RTP payload type of transport streams (RFC 3551 6).
	typeMP2T = 33
)

// merger puts RTP packets (RFC 3550) into the order of their sequence numbers:
// of one path, of several that carry the same packets (SMPTE 2022-7), and of
// error correction (SMPTE 2022-1). It holds no sockets and asks no clock.
//
// Numbers are the 16-bit ones extended to 63. What is in order is delivered at
// once; behind a gap packets are held until the missing ones come or can come
// no more. A run of numbers ends where the sender begins anew: another SSRC,
// or a jump of the numbers that the timestamps contradict.
type merger struct {
	reorder time.Duration // that a packet may be late
	skew    time.Duration // that a path may be late; 0: there is one
	paths   []rtpPath
	keep    int64 // packets kept after their delivery, for error correction
	depth   int64 // packets after a lost one within which correction comes

	alive    bool
	run      int // number of the run at hand
	ssrc     uint32
	next     int64 // to be delivered
	high     int64 // highest received
	starting bool  // the lowest number is not known yet
	startAt  time.Time
	heard    time.Time // last packet of the run
	ts       uint32    // of the packet numbered high
	tsAt     time.Time
	ring     []*rtpPacket // by number: held from next on, kept before
	held     int
	heldSize int
	puts     int // packets that have come into the ring
	rate     rtpRate

	queue   []queued // the end of the run before, to be delivered first
	lost    int64    // missing ahead of what pop returns next
	gaps    [32]span // given up last
	gap     int
	retired []*rtpPacket // delivered, to be used again with the next batch
	free    []*rtpPacket
	age     int // raised when delivered memory was given away

	pkt   rtp.Packet
	count rtpCounts
}

// rtpCounts are what a merger has seen.
type rtpCounts struct {
	lost, reordered, duplicates, recovered, errors uint64
	late                                           uint64 // came after it had been given up
	runs                                           uint64
	plain                                          uint64 // transport packets without RTP
	strange                                        uint64 // of a path with other numbers
}

// rtpPath is one way that packets come by.
type rtpPath struct {
	run   int // to which it belongs; 0: to none
	ssrc  uint32
	high  int64
	heard time.Time
	marks []rtpMark
	cand  *rtpPacket // may begin a run
}

// rtpMark says that a path had come to a number at a time.
type rtpMark struct {
	at   time.Time
	high int64
}

// span is the numbers from up to before to.
type span struct{ from, to int64 }

// queued is a packet of a run that has ended, and how many are missing before.
type queued struct {
	p    *rtpPacket
	lost int64
}

// rtpPacket is a datagram that is held or kept.
type rtpPacket struct {
	buf       []byte // the datagram
	seq       int64
	payload   span // of buf
	delivered bool
	age       int
	ssrc, ts  uint32
	short     uint16 // its sequence number
	at        time.Time
}

func (p *rtpPacket) bytes() []byte { return p.buf[p.payload.from:p.payload.to] }

// rtpRate is how far apart packets are.
type rtpRate struct {
	at       time.Time
	high     int64
	interval time.Duration // 0: not known
}

func (r *rtpRate) note(high int64, now time.Time) {
	if d := now.Sub(r.at); d >= 500*time.Millisecond || high < r.high {
		if n := high - r.high; n > 0 && d < 10*time.Second {
			r.interval = d / time.Duration(n)
		}
		r.at, r.high = now, high
	}
}

func newMerger(paths int, reorder, skew time.Duration) *merger {
	return &merger{reorder: reorder, skew: skew, paths: make([]rtpPath, paths), ring: make([]*rtpPacket, 256)}
}

// take takes a datagram that came by a path. It returns its payload where that
// is to be delivered now; what has to wait is copied.
func (m *merger) take(path int, d []byte, now time.Time) (payload []byte, ok bool) {
	if len(d) >= 2 && d[0]>>6 == 2 && d[1] >= 192 && d[1] < 224 {
		return nil, false // RTCP on the same port (RFC 5761 4)
	}
	h := &m.pkt
	if len(d) < 12 || d[0]>>6 != 2 || h.Unmarshal(d) != nil || !carriesTS(h) {
		if len(d) >= 188 && d[0] == 0x47 {
			m.count.plain++
		}
		m.count.errors++
		return nil, false
	}
	p := &m.paths[path]
	p.heard = now
	if !m.alive {
		m.begin(p, h.SSRC, h.SequenceNumber, now)
	}
	seq := m.extend(h.SequenceNumber)
	if p.run != m.run && len(m.paths) > 1 && m.near(seq, h.Timestamp, now, h.SSRC == m.ssrc) {
		m.join(p, h.SSRC)
	}
	if p.run != m.run || p.ssrc != h.SSRC || !m.near(seq, h.Timestamp, now, true) {
		m.doubt(p, d, now)
		return nil, false
	}
	if p.cand != nil {
		m.dropCandidate(p)
	}
	return m.accept(p, seq, d, now)
}

// carriesTS says whether a packet carries transport packets: by its payload
// type (RFC 3551), or by their sync byte where the type is a dynamic one.
func carriesTS(h *rtp.Packet) bool {
	return h.PayloadType == typeMP2T || len(h.Payload) > 0 && h.Payload[0] == 0x47
}

// extend returns the number nearest to what is to be delivered next.
func (m *merger) extend(seq uint16) int64 { return m.next + int64(int16(seq-uint16(m.next))) }

// near says whether a number belongs to the run at hand. One that is far off
// must have the timestamp for it, and so must any of an unknown sender. One
// that is behind must be so in time, too: after an outage numbers that have
// gone round look like it.
func (m *merger) near(seq int64, ts uint32, now time.Time, known bool) bool {
	d := seq - m.next
	if d < -rtpBehind || d >= rtpAhead || d < 0 && now.Sub(m.tsAt) >= rtpDrift {
		return false
	}
	if known && d >= -rtpNear && d < rtpNear {
		return true
	}
	return m.follows(ts, now) && (d > 0 || int32(ts-m.ts) < 90000/2)
}

// follows says whether a timestamp belongs to the run at hand: it has gone on
// as the time has, or the sender gives all packets the same.
func (m *merger) follows(ts uint32, now time.Time) bool {
	if ts == m.ts {
		return true
	}
	d := time.Duration(int32(ts-m.ts))*time.Second/90000 - now.Sub(m.tsAt)
	return d > -rtpDrift && d < rtpDrift
}

// begin starts a run with the first packet that a path gives of it.
func (m *merger) begin(p *rtpPath, ssrc uint32, seq uint16, now time.Time) {
	m.endRun()
	m.alive, m.run, m.ssrc = true, m.run+1, ssrc
	// Above all numbers so far, with room below for what came out of order.
	m.next = (m.high/(1<<16)+2)<<16 | int64(seq)
	m.high = m.next - 1
	m.starting, m.startAt = true, now.Add(m.reorder)
	m.heard, m.tsAt = now, time.Time{}
	m.rate = rtpRate{at: now, high: m.high}
	m.depth = 0
	m.count.runs++
	m.join(p, ssrc)
}

// join makes a path one of the run at hand.
func (m *merger) join(p *rtpPath, ssrc uint32) {
	p.run, p.ssrc, p.high, p.marks = m.run, ssrc, m.next-rtpBehind-1, p.marks[:0]
	m.dropCandidate(p)
}

// endRun queues what is held, its gaps given up, and forgets what is kept.
func (m *merger) endRun() {
	for m.held > 0 {
		m.skip()
		p := m.at(m.next)
		m.ring[m.slot(m.next)] = nil
		m.queue = append(m.queue, queued{p, m.lost})
		m.lost = 0
		m.held--
		m.next++
	}
	m.heldSize = 0
	for i, p := range m.ring {
		if p != nil {
			m.ring[i] = nil
			m.retire(p)
		}
	}
}

// doubt takes a packet that does not belong to the run at hand. A second one
// beside it proves that a run has begun, or that a part of one was lost.
func (m *merger) doubt(p *rtpPath, d []byte, now time.Time) {
	h, c := &m.pkt, p.cand
	sure := c != nil && c.ssrc == h.SSRC && h.SequenceNumber != c.short && absInt16(h.SequenceNumber-c.short) <= 16 && now.Sub(c.at) < rtpDrift
	fresh := m.hold(d)
	fresh.ssrc, fresh.short, fresh.ts, fresh.at = h.SSRC, h.SequenceNumber, h.Timestamp, now
	if sure && (p.run == m.run || now.Sub(m.heard) >= rtpSilent) {
		p.cand = nil
		m.restart(p, c, fresh, now)
		return
	}
	if sure {
		m.count.strange++
	}
	m.dropCandidate(p)
	p.cand = fresh
}

func (m *merger) dropCandidate(p *rtpPath) {
	if p.cand != nil {
		m.count.errors++
		m.retire(p.cand)
		p.cand = nil
	}
}

// restart begins a run with two packets. Where it is the old one, as sender
// and timestamp tell, what is between was lost; otherwise nothing is known to
// be missing.
func (m *merger) restart(p *rtpPath, a, b *rtpPacket, now time.Time) {
	lost := int64(0)
	first := a.short
	if int16(b.short-a.short) < 0 {
		first = b.short
	}
	if p.run == m.run && a.ssrc == p.ssrc && m.follows(a.ts, now) {
		lost = int64(first - uint16(m.high+1))
		if lost == 0 {
			lost = 1 << 16
		}
	}
	m.begin(p, a.ssrc, first, now)
	if lost > 0 {
		m.queue = append(m.queue, queued{nil, lost})
		m.count.lost += uint64(lost)
	}
	for _, x := range []*rtpPacket{a, b} {
		if m.pkt.Unmarshal(x.buf) == nil {
			m.accept(p, m.extend(x.short), x.buf, now)
		}
		m.retire(x)
	}
}

// accept takes a packet of the run at hand.
func (m *merger) accept(p *rtpPath, seq int64, d []byte, now time.Time) (payload []byte, ok bool) {
	m.heard = now
	behind := p.high
	m.mark(p, seq, now)
	before := m.high
	if seq > m.high {
		m.high, m.ts, m.tsAt = seq, m.pkt.Timestamp, now
		m.rate.note(seq, now)
	}
	if m.starting && seq < m.next && m.high-seq < rtpAhead {
		m.next = seq
	}
	switch at := m.at(seq); {
	case at != nil:
		m.count.duplicates++
		return nil, false
	case seq < m.next:
		m.countLate(seq)
		return nil, false
	}
	switch {
	case seq >= before:
	case seq < behind:
		m.count.reordered++
	default:
		m.count.recovered++ // by another path than the one that got ahead
	}
	if seq == m.next && !m.starting && len(m.queue) == 0 && m.lost == 0 {
		if m.keep > 0 {
			m.put(seq, d).delivered = true
		}
		m.advance()
		return m.pkt.Payload, true
	}
	m.put(seq, d)
	m.held++
	m.heldSize += len(d)
	return nil, false
}

// countLate counts a packet that is behind what was delivered.
func (m *merger) countLate(seq int64) {
	for _, g := range m.gaps {
		if seq >= g.from && seq < g.to {
			m.count.late++
			return
		}
	}
	m.count.duplicates++
}

// mark notes how far a path has come.
func (m *merger) mark(p *rtpPath, seq int64, now time.Time) {
	if seq <= p.high {
		return
	}
	p.high = seq
	n := 0
	for n < len(p.marks) && p.marks[n].high < m.next {
		n++
	}
	if n > 0 {
		p.marks = append(p.marks[:0], p.marks[n:]...)
	}
	if k := len(p.marks); k > 0 && (p.marks[k-1].at.Equal(now) || k >= 1024) {
		p.marks[k-1].high = seq
		return
	}
	p.marks = append(p.marks, rtpMark{now, seq})
}

// beyond returns when a path had first come beyond a number.
func (p *rtpPath) beyond(seq int64) (time.Time, bool) {
	for _, k := range p.marks {
		if k.high > seq {
			return k.at, true
		}
	}
	return time.Time{}, false
}

// pop returns the next packet that was held, when it is in order: its payload,
// valid until reclaim. Before it looks, m.lost must be taken.
func (m *merger) pop() (payload []byte, ok bool) {
	for len(m.queue) > 0 {
		q := &m.queue[0]
		if q.lost > 0 {
			m.lost += q.lost
			q.lost = 0
			return nil, true
		}
		p := q.p
		m.queue = append(m.queue[:0], m.queue[1:]...)
		if p != nil {
			m.retire(p)
			return p.bytes(), true
		}
	}
	if m.starting || m.held == 0 {
		return nil, false
	}
	if p := m.pull(); p != nil {
		return p.bytes(), true
	}
	return nil, false
}

// pull takes the packet numbered next out of those held.
func (m *merger) pull() *rtpPacket {
	p := m.at(m.next)
	if p == nil {
		return nil
	}
	m.held--
	m.heldSize -= len(p.buf)
	p.delivered = true
	if m.keep == 0 {
		m.ring[m.slot(p.seq)] = nil
		m.retire(p)
	}
	m.advance()
	return p
}

// advance moves on to the next number.
func (m *merger) advance() {
	m.next++
	if m.keep > 0 {
		m.forget(m.next - 1 - m.keep)
	}
}

func (m *merger) forget(seq int64) {
	if p := m.at(seq); p != nil {
		m.ring[m.slot(seq)] = nil
		m.retire(p)
	}
}

// expire gives up the gap ahead of what is held if the time has come, and says
// whether it has. The kernel's buffers must be empty: what waits there came in
// time.
func (m *merger) expire(now time.Time) bool {
	switch {
	case m.held == 0:
		return false
	case m.starting:
		if now.Before(m.startAt) {
			return false
		}
		m.starting = false
		m.next = m.lowest()
		return true
	case m.at(m.next) != nil || !m.due(now):
		return false
	}
	return m.skip()
}

// full says that too much is held, and gives up the first gap then.
func (m *merger) full() bool {
	if m.held < rtpAhead && m.heldSize < rtpHeldBytes {
		return false
	}
	return m.skip()
}

// due says whether the missing packets ahead of those held can come no more:
// every path, and the correction of errors, has gone past them by the time
// that a packet may be late.
func (m *merger) due(now time.Time) bool {
	last := m.lowest() - 1
	waited, live := time.Duration(0), 0
	passed := true
	for i := range m.paths {
		p := &m.paths[i]
		if p.run != m.run {
			continue
		}
		if at, ok := p.beyond(last); ok {
			waited = max(waited, now.Sub(at))
		}
		if now.Sub(p.heard) > rtpAbsent+m.skew {
			continue
		}
		live++
		at, ok := p.beyond(last + m.depth)
		passed = passed && ok && now.Sub(at) >= m.reorder
	}
	return passed && live > 0 || waited >= m.longest()
}

// longest is how long a missing packet is waited for at most.
func (m *merger) longest() time.Duration {
	d := m.reorder
	if len(m.paths) > 1 {
		d = max(d, m.skew)
	}
	if m.depth > 0 {
		wait := time.Second
		if m.rate.interval > 0 {
			wait = 3 * time.Duration(m.depth) * m.rate.interval
		}
		d = max(d, min(m.reorder+wait, fecLongest))
	}
	return d
}

// lowest returns the lowest number held, of which there is one.
func (m *merger) lowest() int64 {
	for seq := m.next; seq <= m.high; seq++ {
		if m.at(seq) != nil {
			return seq
		}
	}
	return m.next
}

// skip gives up what is missing ahead of those held, and says whether anything
// was.
func (m *merger) skip() bool {
	low := m.lowest()
	if low == m.next && !m.starting {
		return false
	}
	if !m.starting {
		m.lost += low - m.next
		m.count.lost += uint64(low - m.next)
		m.gaps[m.gap] = span{m.next, low}
		m.gap = (m.gap + 1) % len(m.gaps)
	}
	if m.keep > 0 {
		for seq := m.next - m.keep; seq < min(low-m.keep, m.next); seq++ {
			m.forget(seq)
		}
	}
	m.next, m.starting = low, false
	return true
}

// slot returns a number's place in the ring.
func (m *merger) slot(seq int64) int { return int(seq & int64(len(m.ring)-1)) }

// at returns the packet of a number, or nil.
func (m *merger) at(seq int64) *rtpPacket {
	if p := m.ring[m.slot(seq)]; p != nil && p.seq == seq {
		return p
	}
	return nil
}

// put copies a datagram, whose header m.pkt is, to its place in the ring.
func (m *merger) put(seq int64, d []byte) *rtpPacket {
	// A run that is starting may have got a lower number since the last.
	for max(seq, m.high)-(m.next-m.keep) >= int64(len(m.ring)) {
		m.grow()
	}
	m.puts++
	p := m.hold(d)
	p.seq, p.ts = seq, m.pkt.Timestamp
	if old := m.ring[m.slot(seq)]; old != nil {
		m.retire(old) // kept for longer than is needed
	}
	m.ring[m.slot(seq)] = p
	return p
}

func (m *merger) grow() {
	old := m.ring
	m.ring = make([]*rtpPacket, 2*len(old))
	for _, p := range old {
		if p != nil {
			m.ring[m.slot(p.seq)] = p
		}
	}
}

// hold copies a datagram, whose header m.pkt is.
func (m *merger) hold(d []byte) *rtpPacket {
	var p *rtpPacket
	if n := len(m.free); n > 0 {
		p = m.free[n-1]
		m.free = m.free[:n-1]
	} else {
		p = &rtpPacket{}
	}
	buf := append(p.buf[:0], d...)
	end := int64(len(d))
	if m.pkt.Padding {
		end -= int64(m.pkt.Header.PaddingSize)
	}
	*p = rtpPacket{buf: buf, payload: span{end - int64(len(m.pkt.Payload)), end}, age: m.age}
	return p
}

// retire puts a packet aside that is needed no more once the batch at hand has
// been read.
func (m *merger) retire(p *rtpPacket) { m.retired = append(m.retired, p) }

// reclaim uses the memory of the last batch again.
func (m *merger) reclaim() {
	for i, p := range m.retired {
		m.retired[i] = nil
		if p.age == m.age && cap(p.buf) <= 4096 && len(m.free) < 4096 {
			m.free = append(m.free, p)
		}
	}
	m.retired = m.retired[:0]
}

// giveAway leaves the memory of the last batch to whoever still reads it.
func (m *merger) giveAway() {
	m.age++
}

func absInt16(d uint16) int {
	if int16(d) < 0 {
		return -int(int16(d))
	}
	return int(int16(d))
}
