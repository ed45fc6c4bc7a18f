package segment

import (
	"slices"
	"sync"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
	"github.com/twindvr/twindvr/pkg/salvage"
)

const (
	// keepBehind is how much of the stream is kept behind the packet that
	// completed a segment: a loss may have completed it early.
	keepBehind = m4f.Timescale
	// maxKept bounds the packets held, in bytes. What exceeds it is not kept.
	maxKept = 32 << 20
	// chunkPackets is how many packets a chunk holds: 64 KiB.
	chunkPackets = (64 << 10) / salvage.PacketSize
)

// keeper holds the packets of the program for as long as a segment that turns
// out damaged or partial may want them. They are numbered as mpegts.Keeper says,
// from the run's first on.
type keeper struct {
	s      *Segmenter
	hand   func(*salvage.Kept)
	all    bool // of clean segments too, for tests
	chunks []*chunk
	first  int64 // number of the first packet in chunks
	n      int64 // ... and of the next to come
	holes  []gap
	tables []table
	due    []*due
}

// chunk is a piece of memory for packets. Those that nobody uses are shared by
// all streams.
type chunk [chunkPackets * salvage.PacketSize]byte

var chunks = sync.Pool{New: func() any { return new(chunk) }}

// gap is a salvage.Hole ahead of a packet of the run.
type gap struct {
	at      int64
	missing int64
}

// table is a section of the PAT or the map in force that was whole with packet
// end and can be believed anew from packet first on.
type table struct {
	pmt        bool
	first, end int64
}

// due is a segment whose packets are to be handed out.
type due struct {
	kept  salvage.Kept
	until int64 // leading time received at which it is time
}

// Packet implements mpegts.Keeper.
func (k *keeper) Packet(p []byte) {
	at := int(k.n-k.first) % chunkPackets
	if at == 0 {
		k.trim()
		k.chunks = append(k.chunks, chunks.Get().(*chunk))
	}
	copy(k.chunks[len(k.chunks)-1][at*salvage.PacketSize:], p)
	k.n++
}

// Table implements mpegts.Keeper.
func (k *keeper) Table(pmt bool, first int64) {
	k.tables = append(k.tables, table{pmt, first, k.n - 1})
}

// Missing implements mpegts.Keeper.
func (k *keeper) Missing(packets int64) {
	if n := len(k.holes); n > 0 && k.holes[n-1].at == k.n {
		k.holes[n-1].missing += packets
	} else if k.n > k.first {
		k.holes = append(k.holes, gap{k.n, packets})
	}
}

// trim gives up what no segment can want any more, and what is too much.
func (k *keeper) trim() {
	from := k.s.oldest()
	for _, d := range k.due {
		from = min(from, d.kept.First)
	}
	from, _ = k.withTables(from)
	if len(k.chunks) >= maxKept/len(chunk{}) {
		from = max(from, k.first+chunkPackets)
		for len(k.due) > 0 && k.due[0].kept.First < from {
			k.handOut()
		}
	}
	k.release(int(from-k.first) / chunkPackets)
}

// release gives the first n chunks back.
func (k *keeper) release(n int) {
	for _, c := range k.chunks[:n] {
		chunks.Put(c)
	}
	k.chunks = slices.Delete(k.chunks, 0, n)
	k.first += int64(n) * chunkPackets
	k.holes = slices.DeleteFunc(k.holes, func(h gap) bool { return h.at <= k.first })
	k.tables = slices.DeleteFunc(k.tables, func(t table) bool { return t.first < k.first })
}

// withTables returns the packet with which the PAT and the map begin that are in
// force at packet from, and whether they are still there.
func (k *keeper) withTables(from int64) (int64, bool) {
	found := false
	for _, pmt := range []bool{true, false} {
		found = false
		for _, t := range slices.Backward(k.tables) {
			if t.pmt == pmt && t.end < from {
				from, found = t.first, true
				break
			}
		}
		if !found {
			break
		}
	}
	return from, found
}

// want has the packets of a segment handed out: from the one given on, or
// from the tables in force there.
func (k *keeper) want(h m4f.Header, program uint16, from int64) {
	from, ok := k.withTables(from)
	if !ok {
		return
	}
	k.due = append(k.due, &due{
		kept:  salvage.Kept{Header: h, Program: program, Target: k.s.cfg.TargetDuration, First: from},
		until: k.s.received + keepBehind,
	})
}

// look hands out what is due.
func (k *keeper) look(all bool) {
	for len(k.due) > 0 && (all || k.s.received >= k.due[0].until) {
		k.handOut()
	}
}

var copies = sync.Pool{New: func() any { return new([]byte) }}

// handOut hands out the packets of the first segment that is due, up to the last
// that has come.
func (k *keeper) handOut() {
	kept := &k.due[0].kept
	k.due = slices.Delete(k.due, 0, 1)
	buf := copies.Get().(*[]byte)
	defer copies.Put(buf)
	b := slices.Grow((*buf)[:0], int(k.n-kept.First)*salvage.PacketSize)
	for at := kept.First; at < k.n; {
		i, off := int(at-k.first)/chunkPackets, int(at-k.first)%chunkPackets
		count := min(chunkPackets-off, int(k.n-at))
		b = append(b, k.chunks[i][off*salvage.PacketSize:(off+count)*salvage.PacketSize]...)
		at += int64(count)
	}
	*buf, kept.Packets = b, b
	for _, h := range k.holes {
		if h.at > kept.First && h.at < k.n {
			kept.Holes = append(kept.Holes, salvage.Hole{At: int(h.at - kept.First), Missing: int(h.missing)})
		}
	}
	k.hand(kept)
}

// close gives all memory back.
func (k *keeper) close() {
	k.look(true)
	for _, c := range k.chunks {
		chunks.Put(c)
	}
	k.first, k.chunks, k.holes, k.tables = k.n, nil, nil, nil
}

// hole notes packets that are missing just here.
func (s *Segmenter) hole(packets int) {
	if s.kept != nil {
		s.kept.Missing(int64(packets))
	}
}

// endKeeping hands out what is due and gives all memory back.
func (s *Segmenter) endKeeping() {
	if s.kept != nil {
		s.kept.close()
	}
}

// oldest is the first packet that a segment which is not yet complete wants.
func (s *Segmenter) oldest() int64 {
	from := s.kept.n
	if s.cur != nil {
		from = s.cur.from
	}
	for _, o := range s.next {
		from = min(from, o.from)
	}
	if s.cur != nil && s.lastKey >= 0 {
		from = min(from, s.lastKey)
	}
	return earliest(s.buf, from)
}

// earliest is the first packet of frames, or from where that comes before.
func earliest(frames []*frame, from int64) int64 {
	for _, f := range frames {
		from = min(from, f.First)
	}
	return from
}

// keepFor has the packets of a segment kept that is not clean.
func (s *Segmenter) keepFor(o *opening, frames []*frame, h m4f.Header) {
	if s.kept == nil || h.Clean() && !s.kept.all {
		return
	}
	s.kept.want(h, o.program.Number, earliest(frames, o.from))
}

var _ mpegts.Keeper = (*keeper)(nil)
