package ingest

import "time"

const (
	// srtWindow is how many packets one connection may have on the way: what
	// its peer is told, and the most that wait behind a missing one. 100
	// Mbit/s in messages of 1316 bytes are 9 500 packets a second.
	srtWindow = 1 << 15
	// srtRing is the size that the ring of slots begins with, and goes back to.
	srtRing = 1 << 8
	// srtSeqMask cuts a sequence number to its 31 bits.
	srtSeqMask = 1<<31 - 1
)

// seqDiff is a-b of two sequence numbers, between -2^30 and 2^30-1.
func seqDiff(a, b uint32) int { return int(int32((a-b)<<1) >> 1) }

// srtSlot is a packet that waits for one before it, or a missing one.
type srtSlot struct {
	data []byte        // the payload; its memory is used again
	have bool          // false: missing
	at   time.Duration // when it was missed
	nak  time.Duration // when it is to be asked for again
}

// srtBuffer puts packets into the order of their sequence numbers and gives
// them on as soon as that is complete. Only behind a missing packet do packets
// wait, until it has come again or has been missed for the latency.
//
// Delivery does not follow the sender's timestamps, as a player's would
// (draft-sharabayko-srt 4.5): nothing here plays, and a receiver that keeps
// time by the sender's clock has to follow its drift, or the time that is left
// for retransmission runs out within hours.
type srtBuffer struct {
	next, end uint32 // the first packet not given on, and the one after the last seen
	ring      []srtSlot
	missing   int
	out       *srtOut
}

func newSRTBuffer(first uint32, out *srtOut) srtBuffer {
	return srtBuffer{next: first, end: first, ring: make([]srtSlot, srtRing), out: out}
}

func (b *srtBuffer) slot(seq uint32) *srtSlot { return &b.ring[int(seq)&(len(b.ring)-1)] }

// srtFate is what became of a packet.
type srtFate int

const (
	srtFresh  srtFate = iota // it is the newest
	srtFilled                // it was missing
	srtOld                   // it was there, or had been given up
)

// put takes a packet in. The payload is copied.
func (b *srtBuffer) put(seq uint32, payload []byte, now time.Duration) srtFate {
	ahead := seqDiff(seq, b.next)
	switch {
	case ahead < 0:
		return srtOld
	case ahead == 0 && b.next == b.end:
		b.out.put(payload)
		b.next = (seq + 1) & srtSeqMask
		b.end = b.next
		return srtFresh
	case ahead >= srtWindow:
		b.jump(seq)
		return b.put(seq, payload, now)
	}
	fate := srtFilled
	if seqDiff(seq, b.end) >= 0 {
		fate = srtFresh
		b.grow(ahead + 1)
		for ; b.end != seq; b.end = (b.end + 1) & srtSeqMask {
			s := b.slot(b.end)
			s.have, s.at, s.nak = false, now, now
			b.missing++
		}
		b.end = (seq + 1) & srtSeqMask
		b.missing++
		b.slot(seq).have = false
	}
	s := b.slot(seq)
	if s.have {
		return srtOld
	}
	s.have, s.data = true, append(s.data[:0], payload...)
	b.missing--
	b.deliver()
	return fate
}

// grow makes room for so many slots.
func (b *srtBuffer) grow(slots int) {
	if slots <= len(b.ring) {
		return
	}
	old, n := *b, len(b.ring)
	for n < slots {
		n *= 2
	}
	b.ring = make([]srtSlot, n)
	for seq := b.next; seq != b.end; seq = (seq + 1) & srtSeqMask {
		*b.slot(seq) = *old.slot(seq)
	}
}

// deliver gives on what is in order.
func (b *srtBuffer) deliver() {
	for b.next != b.end && b.slot(b.next).have {
		b.out.put(b.slot(b.next).data)
		b.next = (b.next + 1) & srtSeqMask
	}
	if b.next == b.end && len(b.ring) > 4*srtRing {
		b.ring = make([]srtSlot, srtRing) // what an outage had needed
	}
}

// expire gives up the packets that have been missed for so long.
func (b *srtBuffer) expire(now, latency time.Duration) {
	for b.next != b.end && now-b.slot(b.next).at >= latency {
		b.giveUp()
	}
}

// giveUp counts the first missing packet as lost.
func (b *srtBuffer) giveUp() {
	b.out.lose(1)
	b.missing--
	b.next = (b.next + 1) & srtSeqMask
	b.deliver()
}

// flush gives everything on that is there: the connection is over.
func (b *srtBuffer) flush() {
	for b.next != b.end {
		b.giveUp()
	}
}

// jump goes on at a packet too far ahead to be waited for.
func (b *srtBuffer) jump(seq uint32) {
	b.flush()
	b.out.lose(uint32(seqDiff(seq, b.next)))
	b.next, b.end = seq, seq
}

// drop takes the sender's word that it cannot send these packets any more.
func (b *srtBuffer) drop(first, last uint32, latency time.Duration) {
	if seqDiff(first, b.next) < 0 {
		first = b.next
	}
	for seq := first; seqDiff(seq, b.end) < 0 && seqDiff(seq, last) <= 0; seq = (seq + 1) & srtSeqMask {
		if s := b.slot(seq); !s.have {
			s.at = min(s.at, s.at-latency)
		}
	}
}

// wanted calls each range of missing packets that are to be asked for now,
// and notes that they are asked for again after the interval.
func (b *srtBuffer) wanted(now, again time.Duration, each func(first, last uint32)) {
	if b.missing == 0 {
		return
	}
	open, first, last := false, uint32(0), uint32(0)
	for seq := b.next; seq != b.end; seq = (seq + 1) & srtSeqMask {
		s := b.slot(seq)
		if s.have || s.nak > now {
			continue
		}
		s.nak = now + again
		if open && seq == (last+1)&srtSeqMask {
			last = seq
			continue
		}
		if open {
			each(first, last)
		}
		open, first, last = true, seq, seq
	}
	if open {
		each(first, last)
	}
}
