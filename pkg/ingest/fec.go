package ingest

import (
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"time"
)

const (
	// fecLongest is how long correction is waited for at most.
	fecLongest = 4 * time.Second
	// fecReach is how many numbers one packet of correction may span. The
	// standard has 100, some senders have 400.
	fecReach = 2048
	// fecPackets is how many are remembered.
	fecPackets = 512
	// fecSlack is by how many packets correction may come later than it should.
	fecSlack = 8
)

// fecHeader is the header of a packet of correction. The packets that it
// protects are numbered base, base+step and so on.
type fecHeader struct {
	base   uint16
	length uint16 // exclusive or of the lengths behind the 12 bytes of fixed header
	ptype  byte
	ts     uint32
	step   int
	count  int    // number of packets, with gaps where mask says so
	mask   uint32 // bit i: packet base+i is protected; 0: all count are
	column bool
	size   int // of the header
}

var errFEC = errors.New("no packet of SMPTE 2022-1 error correction")

// parseFEC reads the header behind the RTP header: the 16 bytes of
// SMPTE 2022-1 clause 8.4 (E set), or the 12 of RFC 2733 section 6.2, which
// names the packets by a mask.
func parseFEC(b []byte) (fecHeader, error) {
	if len(b) < 12 {
		return fecHeader{}, errFEC
	}
	h := fecHeader{base: binary.BigEndian.Uint16(b), length: binary.BigEndian.Uint16(b[2:]), ptype: b[4] & 0x7f,
		ts: binary.BigEndian.Uint32(b[8:]), step: 1, size: 12}
	if b[4]&0x80 == 0 {
		h.mask = binary.BigEndian.Uint32(b[4:]) & 0xffffff
		for k := range 24 {
			if h.mask>>k&1 != 0 {
				h.count = k + 1
			}
		}
		if h.count == 0 {
			return fecHeader{}, errFEC
		}
		return h, nil
	}
	if len(b) < 16 || b[12]>>3&7 != 0 { // of the types there is only XOR
		return fecHeader{}, errFEC
	}
	h.size, h.column, h.step, h.count = 16, b[12]&0x40 == 0, int(b[13]), int(b[14])
	if h.step == 0 || h.count == 0 || h.step*(h.count-1) >= fecReach {
		return fecHeader{}, errFEC
	}
	return h, nil
}

// protects says whether packet base+k*step is protected.
func (h *fecHeader) protects(k int) bool { return h.mask == 0 || h.mask>>k&1 != 0 }

// after is how many packets after the first protected one the correction may
// come: a column's is sent while the next matrix is.
func (h *fecHeader) after() int64 {
	if h.column {
		return int64(2*h.step*h.count + fecSlack)
	}
	return int64(h.step*h.count + fecSlack)
}

// corrector wins lost packets back (SMPTE 2022-1): each packet of correction
// is the exclusive or of a row or a column of a matrix of packets, and restores
// the one that is missing. A restored packet may complete another row or
// column, and so on.
type corrector struct {
	m     *merger
	run   int
	list  []*fecPacket
	free  []*fecPacket
	heard time.Time
	fresh bool // something has come since the last attempt
	puts  int
	sum   []byte
}

// fecPacket is a packet of correction.
type fecPacket struct {
	fecHeader
	first int64 // extended base
	flags byte  // first byte of the RTP header
	mark  byte  // second byte
	body  []byte
}

// newCorrector returns a corrector for m, which keeps packets from now on.
func newCorrector(m *merger) *corrector {
	m.keep = fecReach / 8
	return &corrector{m: m}
}

// take takes a packet of a port of correction.
func (c *corrector) take(d []byte, now time.Time) {
	m := c.m
	if len(d) >= 2 && d[0]>>6 == 2 && d[1] >= 192 && d[1] < 224 {
		return // RTCP
	}
	// The bits for padding, extension and contributing sources are of what is
	// protected, and nothing of that follows the fixed header (RFC 2733 6.1).
	if len(d) < 12 || d[0]>>6 != 2 {
		m.count.errors++
		return
	}
	h, err := parseFEC(d[12:])
	if err != nil {
		m.count.errors++
		return
	}
	if !m.alive {
		return
	}
	if c.run != m.run {
		c.forget()
	}
	c.heard = now
	m.depth = max(m.depth, h.after())
	m.keep = max(m.keep, m.depth+rtpNear)
	if len(c.list) == fecPackets {
		c.release(0)
		c.list = append(c.list[:0], c.list[1:]...)
	}
	f := &fecPacket{}
	if n := len(c.free); n > 0 {
		f, c.free = c.free[n-1], c.free[:n-1]
	}
	f.fecHeader, f.flags, f.mark = h, d[0], d[1]
	f.first = m.high + int64(int16(h.base-uint16(m.high)))
	f.body = append(f.body[:0], d[12+h.size:]...)
	c.list = append(c.list, f)
	c.fresh = true
}

// forget drops all: another run of packets has begun.
func (c *corrector) forget() {
	for i := range c.list {
		c.release(i)
	}
	c.list, c.run = c.list[:0], c.m.run
}

func (c *corrector) release(i int) {
	f := c.list[i]
	c.list[i] = nil
	if len(c.free) < fecPackets && cap(f.body) <= 4096 {
		c.free = append(c.free, f)
	}
}

// correct restores what can be, and says whether anything was.
func (c *corrector) correct(now time.Time) bool {
	m := c.m
	if now.Sub(c.heard) > 10*time.Second {
		m.depth = 0 // the sender has stopped correcting: wait for nothing
	}
	if c.run != m.run {
		c.forget()
	}
	if !c.fresh && c.puts == m.puts || m.starting {
		return false
	}
	any := false
	for again := true; again; {
		again = false
		keep := c.list[:0]
		for i, f := range c.list {
			lost, n := m.missing(f)
			switch {
			case n == 1 && lost >= m.next && c.restore(f, lost, now):
				again, any = true, true
				fallthrough
			case n == 0, n == 1, f.first+int64(f.step*(f.count-1)) < m.next:
				c.release(i)
			default:
				keep = append(keep, f)
			}
		}
		clear(c.list[len(keep):])
		c.list = keep
	}
	c.fresh, c.puts = false, m.puts
	return any
}

// missing returns how many of the packets that f protects are not there, 2 for
// any more, and the number of one.
func (m *merger) missing(f *fecPacket) (seq int64, n int) {
	for k := range f.count {
		at := f.first + int64(k*f.step)
		if !f.protects(k) || m.at(at) != nil {
			continue
		}
		if seq = at; n == 1 {
			return seq, 2
		}
		n = 1
	}
	return seq, n
}

// restore makes the packet that is missing from those that f protects, and
// says whether the result is one.
func (c *corrector) restore(f *fecPacket, lost int64, now time.Time) bool {
	m := c.m
	if lost >= m.next+rtpAhead {
		return false
	}
	flags, mark, ptype, length, ts := f.flags, f.mark, f.ptype, f.length, f.ts
	c.sum = append(c.sum[:0], make([]byte, 12)...)
	c.sum = append(c.sum, f.body...)
	body := c.sum[12:]
	for k := range f.count {
		p := m.at(f.first + int64(k*f.step))
		if p == nil || !f.protects(k) {
			continue
		}
		flags ^= p.buf[0]
		mark ^= p.buf[1]
		ptype ^= p.buf[1] & 0x7f
		length ^= uint16(len(p.buf) - 12)
		ts ^= binary.BigEndian.Uint32(p.buf[4:])
		n := min(len(body), len(p.buf)-12)
		subtle.XORBytes(body[:n], body[:n], p.buf[12:12+n])
	}
	if int(length) > len(body) {
		m.count.errors++
		return false
	}
	d := c.sum[:12+int(length)]
	d[0], d[1] = 0x80|flags&0x3f, mark&0x80|ptype&0x7f
	binary.BigEndian.PutUint16(d[2:], uint16(lost))
	binary.BigEndian.PutUint32(d[4:], ts)
	binary.BigEndian.PutUint32(d[8:], m.ssrc)
	if m.pkt.Unmarshal(d) != nil || !carriesTS(&m.pkt) || !wholePackets(m.pkt.Payload) || !m.follows(ts, now) {
		m.count.errors++
		return false
	}
	m.restored(lost, d)
	return true
}

// wholePackets says whether b is transport packets and nothing else. What is
// restored from packets that do not belong together is not.
func wholePackets(b []byte) bool {
	size := 188
	if len(b)%188 != 0 && len(b)%204 == 0 {
		size = 204
	}
	for k := 0; k < len(b); k += size {
		if b[k] != 0x47 {
			return false
		}
	}
	return len(b)%size == 0
}

// restored takes a packet that error correction has made, whose header m.pkt is.
func (m *merger) restored(seq int64, d []byte) {
	m.put(seq, d)
	m.held++
	m.heldSize += len(d)
	m.count.recovered++
	if seq > m.high {
		m.high = seq
	}
}
