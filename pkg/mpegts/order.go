package mpegts

import "bytes"

const (
	// maxDatagram is the most that a datagram holds, in bytes.
	maxDatagram = 64 << 10
	// maxRepeat is how many datagrams behind the first one a repeat may come.
	maxRepeat = 4
	// maxOrdered bounds the PIDs of a datagram whose place is looked at.
	maxOrdered = 32
)

// order puts datagrams right that networks repeat or swap.
type order struct {
	held []byte // the last datagram, if it waits
	// again: it is one of the last again.
	again bool
	last  [maxRepeat][]byte
	next  int // in last
	pids  []counter
}

// counter is how far the continuity counter of a PID would have come.
type counter struct {
	pid  uint16
	cc   int
	last []byte // payload
	n    int    // packets with payload
}

// WriteDatagram is Write for a datagram, of a network that may repeat and swap
// them. One whose packets do not go on where those before ended, and that is one of
// the last four again, is dropped. Any other that does not go on waits for
// the next: where that goes on here and this one behind it, they change places. One
// that is one of the last four again and goes on by chance waits, too: it is
// dropped unless the next goes on with it alone.
func (d *Demuxer) WriteDatagram(p []byte) {
	if d.program == nil || !d.fr.holds(p) {
		d.Settle()
		d.fr.write(p, d.packet)
		return
	}
	o := &d.order
	again := o.has(p) && d.distinct(p)
	here, moves := d.goesOn(p)
	if again && (!here || !moves) {
		d.repeated(p)
		return
	}
	if len(o.held) > 0 {
		ahead, _ := d.goesOn(o.held, p)
		behind, _ := d.goesOn(p, o.held)
		switch {
		case o.again && (here || !ahead):
			d.repeated(o.held)
			o.held = o.held[:0]
		case here && behind && !d.many():
			d.stats.Reordered++
			d.place(p)
			d.Settle()
			return
		default:
			d.Settle()
			here, _ = d.goesOn(p)
		}
	}
	if here && !again {
		d.place(p)
		return
	}
	o.held, o.again = append(o.held[:0], p...), again
}

// Settle reads a datagram that waits for the next, in the place where it came.
func (d *Demuxer) Settle() {
	if o := &d.order; len(o.held) > 0 {
		p := o.held
		o.held = o.held[:0]
		d.place(p)
	}
}

func (d *Demuxer) place(p []byte) {
	o := &d.order
	o.last[o.next] = append(o.last[o.next][:0], p...)
	o.next = (o.next + 1) % maxRepeat
	d.fr.write(p, d.packet)
}

func (o *order) has(p []byte) bool {
	for _, x := range o.last {
		if bytes.Equal(x, p) { // others differ in their first counter already
			return true
		}
	}
	return false
}

// repeated counts the packets of a datagram that is dropped.
func (d *Demuxer) repeated(p []byte) {
	d.stats.Duplicates += int64(len(p) / d.fr.stride)
}

// eachOwn calls fn for the payload of each packet of the program in a datagram.
func (d *Demuxer) eachOwn(p []byte, fn func(pid uint16, cc int, disc bool, pay []byte) bool) {
	for ; len(p) >= d.fr.stride; p = p[d.fr.stride:] {
		pid := uint16(p[1]&0x1f)<<8 | uint16(p[2])
		if p[3]&0x10 == 0 || p[1]&0x80 != 0 || pid == nullPID || !d.own(pid) {
			continue
		}
		off, disc := 4, false
		if p[3]&0x20 != 0 {
			off += 1 + int(p[4])
			disc = p[4] > 0 && p[5]&0x80 != 0
		}
		if off <= PacketSize && !fn(pid, int(p[3]&15), disc, p[off:PacketSize]) {
			return
		}
	}
}

// goesOn says whether the counters of the program's packets in datagrams, one
// behind the other, go on from those that have been read, and whether any of them is more
// than a repeat.
func (d *Demuxer) goesOn(datagrams ...[]byte) (ok, moves bool) {
	o := &d.order
	o.pids = o.pids[:0]
	ok = true
	for _, p := range datagrams {
		d.eachOwn(p, func(pid uint16, cc int, disc bool, pay []byte) bool {
			c := d.counterOf(pid)
			if c == nil {
				return true
			}
			if c.cc == cc && bytes.Equal(pay, c.last) {
				return true
			}
			ok = ok && (c.cc < 0 || disc || cc == (c.cc+1)&15)
			c.cc, c.last, moves = cc, pay, true
			c.n++
			return ok
		})
	}
	return ok, moves
}

// many says whether the datagrams that goesOn was called for hold so many packets
// of one PID that their order tells nothing: where one of two is missing, they
// look as if they had changed places.
func (d *Demuxer) many() bool {
	for _, c := range d.order.pids {
		if c.n >= Hidden {
			return true
		}
	}
	return false
}

// counterOf is how far a PID's counter has come in the datagrams looked at; nil
// where there are too many PIDs.
func (d *Demuxer) counterOf(pid uint16) *counter {
	o := &d.order
	for k := range o.pids {
		if o.pids[k].pid == pid {
			return &o.pids[k]
		}
	}
	if len(o.pids) == maxOrdered {
		return nil
	}
	c := counter{pid: pid, cc: -1}
	switch s := d.byPID[pid]; {
	case pid == 0:
		c.cc, c.last = d.pat.cc, d.pat.last[:d.pat.lastLen]
	case pid == d.pmtPID:
		c.cc, c.last = d.pmt.cc, d.pmt.last[:d.pmt.lastLen]
	case s != nil:
		c.cc, c.last = s.cc, s.last[:s.lastLen]
	}
	o.pids = append(o.pids, c)
	return &o.pids[len(o.pids)-1]
}

// distinct says whether a datagram holds something of the program that is no
// mere filling, which may well come again with the same counters.
func (d *Demuxer) distinct(p []byte) bool {
	found := false
	d.eachOwn(p, func(_ uint16, _ int, _ bool, pay []byte) bool {
		for _, b := range pay {
			found = found || b != pay[0]
		}
		return !found
	})
	return found
}

// holds says whether p is a run of whole packets where one may begin.
func (f *framer) holds(p []byte) bool {
	return f.stride > 0 && len(f.carry) == 0 && len(p) > 0 && len(p) <= maxDatagram && len(p)%f.stride == 0 &&
		p[0] == syncByte && p[len(p)-f.stride] == syncByte
}
