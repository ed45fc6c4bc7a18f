package mpegts

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// SegmentLead is the time from a segment's first byte to the first decoding time
// in it, in ticks.
const SegmentLead = startLead

// In a segment there is a clock reference every 40 ms, and a table at least every
// 400 ms.
const (
	segmentClockSlots = 2
	segmentTableSlots = 20
)

// Segment is a stretch of transport stream that stands by itself, and that any
// other may come before or behind: it begins with the tables, and the packets of
// each PID are a multiple of 16 in number, so that continuity counters begin at 0
// and go on from any to the next. (Those of a PID that has only a
// few bytes end as they come.) Clock references have packets of their own, so that how many
// packets there are follows from the sizes of the units.
type Segment struct {
	Program *Program
	PMTPID  uint16
	// From and To are the clock references at its start and at its end, in
	// ticks: those of the next go on where To is that one's From.
	From, To int64
	// Jump: the clock does not go on from what came before.
	Jump bool
	// Packets, if not 0, is how many packets there are, null packets at the end
	// included.
	Packets int
}

// SegmentPackets is how many packets a segment of a length in ticks needs at most
// whose PIDs need so many for their units.
func SegmentPackets(p *Program, ticks int64, units []int) (int, error) {
	pmt, err := mapSection(p, 0)
	if err != nil {
		return 0, err
	}
	slots, repeats := segmentSlots(ticks)
	n := int(slots+3)/segmentClockSlots + 3
	n += int(repeats) * (1 + len(appendTable(nil, 0, pmt)))
	for _, u := range units {
		n += upTo16(u)
	}
	return n, nil
}

// segmentSlots is how many slots a segment has, and how often each table comes in
// it.
func segmentSlots(ticks int64) (slots, repeats int64) {
	slots = max(ticks, 0)/slotTicks + 1
	return slots, int64(upTo16(int(slots/segmentTableSlots) + 1))
}

// segmentTables are the packets of tables that the slot of a segment holds: all
// lie evenly in it.
func (m *Muxer) segmentTables() []tablePacket {
	for m.repeated < min(m.repeats*m.slots/m.length+1, m.repeats) {
		m.repeated++
		m.tables = appendTable(m.tables, 0, m.pat)
		m.tables = appendTable(m.tables, m.pmtPID, m.pmt)
	}
	return m.tables
}

func upTo16(n int) int { return (n + 15) &^ 15 }

// UnitPackets is how many packets a unit of a size takes, at most where it is
// that of a keyframe.
func UnitPackets(size int) int { return packets(size + 2) }

// Write writes the segment: all units of its tracks, on each track in the order
// of decoding. Whatever is due when, all of it is there at To.
func (g *Segment) Write(out io.Writer, units []*MuxUnit) error {
	count := &packetCounter{w: out}
	m := NewMuxer(count, g.PMTPID)
	m.alone = true
	if err := m.SetProgram(g.Program); err != nil {
		return err
	}
	for _, u := range units {
		m.Write(u)
	}
	for _, s := range m.streams {
		s.alone = true
		s.fill16()
		s.restart()
	}
	m.running, m.begun, m.draining, m.now = true, true, true, g.From
	m.length, m.repeats = segmentSlots(g.To - g.From)
	if g.Jump {
		m.clockPacket(m.now, true)
		m.now += slotTicks
	}
	m.sendTables(m.dueTables(), 1)
	for m.err == nil && m.holds() {
		m.slot()
	}
	m.slots = m.length
	m.sendTables(m.dueTables(), 1)
	m.clockPacket(min(m.now, max(g.To, g.From)), false)
	m.flush()
	return errors.Join(m.err, g.pad(count))
}

// pad adds null packets.
func (g *Segment) pad(count *packetCounter) error {
	if g.Packets == 0 {
		return nil
	}
	n := g.Packets - count.n/PacketSize
	if n < 0 {
		return fmt.Errorf("transport stream: a segment takes %d packets more than the %d that were told", -n, g.Packets)
	}
	null := append([]byte{syncByte, nullPID >> 8, nullPID & 0xff, 0x10}, fill[:packetPayload]...)
	_, err := count.Write(bytes.Repeat(null, n))
	return err
}

type packetCounter struct {
	w io.Writer
	n int
}

func (c *packetCounter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += n
	return n, err
}

// Schedule makes units that are due from first to end due inside the segment,
// so that they are there at its end: evenly earlier, the later they are due.
func (g *Segment) Schedule(units []*MuxUnit, first, end int64) {
	length := max(end-first, 1)
	from := g.From + min(SegmentLead, (g.To-g.From)/2)
	least := max(g.To, from)
	for k := len(units) - 1; k >= 0; k-- {
		for i := len(units[k].Marks) - 1; i >= 0; i-- {
			m := &units[k].Marks[i]
			due := from + (min(max(m.Due, first), end)-first)*(g.To-from)/length
			least = max(min(least, due), from)
			m.Due = least
		}
	}
}

// fill16 has units of a stream take as many packets more as make all of them a
// multiple of 16.
func (s *muxStream) fill16() {
	total := 0
	for k := range s.queue {
		total += packets(s.queue[k].size())
	}
	more := upTo16(total) - total
	for k := range s.queue {
		q := &s.queue[k]
		head := 20 // of a PES packet, which is to be in its first packet
		if q.Section {
			head = 3
		}
		q.split = min(more, max(len(q.Data)-head-2, 0))
		more -= q.split
	}
}

// singles is how many packets of one byte come behind the first packet of a unit
// that leaves so many bytes.
func (q *queued) singles(rest int) int {
	want := packets(q.size()) - 1 + q.split
	for k := range rest {
		if k+packets(rest-k) == want {
			return k
		}
	}
	return 0
}
