package segment

import (
	"math"
	"slices"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
	"github.com/twindvr/twindvr/pkg/salvage"
)

const (
	// keepBehind is how much of the stream is kept behind the packet that
	// completed a segment: a loss may have completed it early.
	keepBehind = m4f.Timescale
	// keepAhead is how much of it is kept ahead of the first packet that is known
	// to matter: times follow from earlier ones, and a track may have jumped there.
	// Its beginnings are known to within markEvery.
	keepAhead = m4f.Timescale / 4
	markEvery = m4f.Timescale / 10
	// aheadOf is how long before the first whole picture of a run packets may tell
	// something: of those whose beginning was not heard.
	aheadOf = m4f.Timescale / 2
	// maxKept bounds the packets held, in bytes. What exceeds it is not kept.
	maxKept = 32 << 20
	// chunkSize is what is asked for at a time, of which whole packets are used.
	chunkSize    = 64 << 10
	chunkPackets = chunkSize / salvage.PacketSize
)

// keeper holds the packets of the program for as long as a segment that turns
// out damaged or partial may want them. They are numbered as mpegts.Keeper says,
// from the run's first on.
type keeper struct {
	s      *Segmenter
	hand   func(*salvage.Kept)
	all    bool            // of clean segments too, for tests
	chunks []*mpegts.Block // of chunkPackets each, but for the last
	first  int64           // number of the first packet in chunks
	n      int64           // ... and of the next to come
	holes  []gap
	tables []table
	marks  []mark
	shown  []shown
	due    []*due
	anew   int64 // the program has had its number from this packet on
	lead   *ahead
}

// ahead is what was heard before the first keyframe of a run: no segment has it,
// and it may be the end of one whose beginning another recorder has.
type ahead struct {
	heard bool  // a frame of the leading track has come
	pts   int64 // ... of this time
}

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

// shown is a loss on one PID that packet at showed, since before it packet before
// was the PID's last.
type shown struct{ at, before int64 }

// mark says how much leading time had been received at a packet.
type mark struct{ at, received int64 }

// due is a segment whose packets are to be handed out.
type due struct {
	kept  salvage.Kept
	until int64 // leading time received at which it is time
	end   int64 // number of the packet up to which they go; 0: all that have come
}

// Packet implements mpegts.Keeper.
func (k *keeper) Packet(p []byte) {
	if (k.n-k.first)%chunkPackets == 0 {
		k.trim()
		k.chunks = append(k.chunks, mpegts.NewBlock(chunkSize))
	}
	k.chunks[len(k.chunks)-1].Append(p)
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

// renumber says that the program has got another number: it cannot be found by
// one across this place.
func (k *keeper) renumber() {
	k.look(true)
	k.anew, k.lead = k.n, nil
}

// notice takes note of a loss on one PID that the packet given last shows.
func (k *keeper) notice(before int64) {
	k.shown = append(k.shown, shown{k.n - 1, before})
}

// trim gives up what no segment can want any more, and what is too much.
func (k *keeper) trim() {
	from := k.s.oldest()
	for _, d := range k.due {
		from = min(from, d.kept.First)
	}
	from, _ = k.withTables(k.before(from))
	if len(k.chunks) >= maxKept/chunkSize {
		from = max(from, k.first+chunkPackets)
		for len(k.due) > 0 && k.due[0].kept.First < from {
			k.handOut()
		}
		if at, ok := k.begin(); ok && at < from {
			k.lead = nil
		}
	}
	k.release(int(from-k.first) / chunkPackets)
}

// release gives the first n chunks back.
func (k *keeper) release(n int) {
	for _, c := range k.chunks[:n] {
		c.Release()
	}
	k.chunks = slices.Delete(k.chunks, 0, n)
	k.first += int64(n) * chunkPackets
	k.holes = slices.DeleteFunc(k.holes, func(h gap) bool { return h.at <= k.first })
	k.tables = slices.DeleteFunc(k.tables, func(t table) bool { return t.first < k.first })
	k.shown = slices.DeleteFunc(k.shown, func(l shown) bool { return l.at < k.first })
	k.marks = slices.DeleteFunc(k.marks, func(m mark) bool { return m.at < k.first })
}

// begin is the packet with which the PAT begins that comes ahead of the first map
// that is held, and whether there is one.
func (k *keeper) begin() (int64, bool) {
	for _, t := range k.tables {
		if !t.pmt {
			continue
		}
		if from, ok := k.withTables(t.end + 1); ok {
			return from, true
		}
	}
	return 0, false
}

// wantAhead has the packets handed out that came before the first segment of a
// run, h, and one second of it, so that a merge sees what ends there. They are
// said to be for a segment of their own, as badly damaged as can be.
func (k *keeper) wantAhead(o *opening, h m4f.Header) {
	a := k.lead
	k.lead = nil
	if a == nil || !a.heard {
		return
	}
	from, ok := k.begin()
	d := m4f.Diff33(h.MediaTime, a.pts)
	if !ok || from >= o.f.First || d <= 0 || d > forget {
		return
	}
	end := k.n
	for _, m := range k.marks {
		if m.received >= o.f.received+keepBehind {
			end = m.at
			break
		}
	}
	d += aheadOf
	h.MediaTime, h.UTC, h.Duration = (h.MediaTime-d)&(m4f.Wrap-1), max(h.UTC.Add(-d), 1), uint32(d)
	h.Flags, h.Lost, h.Errored, h.Length = m4f.Damaged|m4f.Partial, math.MaxUint32, 0, 1
	h.ID[0] ^= 0xff // any that no segment has
	k.due = append(k.due, &due{
		kept:  salvage.Kept{Header: h, Program: o.program.Number, Target: k.s.cfg.TargetDuration, First: from},
		until: o.f.received + keepBehind, end: end,
	})
}

// mark notes the time at a leading frame.
func (k *keeper) mark(f *frame) {
	if k.lead != nil && !k.lead.heard {
		k.lead.heard, k.lead.pts = true, f.PTS
	}
	if n := len(k.marks); n == 0 || f.received-k.marks[n-1].received >= markEvery {
		k.marks = append(k.marks, mark{f.First, f.received})
	}
}

// before returns the packet that came keepAhead before another, as near as
// that is known; where the run had not begun then, the first that is of use.
func (k *keeper) before(from int64) int64 {
	if len(k.marks) == 0 {
		return from
	}
	at := int64(-1)
	for _, m := range slices.Backward(k.marks) {
		if m.at > from {
			continue
		}
		if at < 0 {
			at = m.received
		}
		if at-m.received >= keepAhead {
			return m.at
		}
	}
	for _, t := range k.tables {
		if _, ok := k.withTables(t.end + 1); ok && t.end < from {
			return t.end + 1
		}
	}
	return from
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
	from, ok := k.withTables(k.before(from))
	if !ok || from < k.anew {
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

// handOut hands out the packets of the first segment that is due, up to the last
// that has come.
func (k *keeper) handOut() {
	kept, end := &k.due[0].kept, k.due[0].end
	if end == 0 {
		end = k.n
	}
	k.due = slices.Delete(k.due, 0, 1)
	var held []*mpegts.Block
	for at := kept.First; at < end; {
		i, off := int(at-k.first)/chunkPackets, int(at-k.first)%chunkPackets
		count := min(chunkPackets-off, int(end-at))
		kept.Pieces = append(kept.Pieces, k.chunks[i].Bytes()[off*salvage.PacketSize:(off+count)*salvage.PacketSize])
		held = append(held, k.chunks[i])
		at += int64(count)
	}
	kept.Hold = func() func() {
		for _, c := range held {
			c.Hold()
		}
		return func() {
			for _, c := range held {
				c.Release()
			}
		}
	}
	kept.Holes = slices.DeleteFunc(k.holesOf(kept.First), func(h salvage.Hole) bool { return h.At >= kept.Len() })
	k.hand(kept)
}

// holesOf are the holes from packet first on: those that were told, and one for
// each loss that the packets from there on alone do not show.
func (k *keeper) holesOf(first int64) (out []salvage.Hole) {
	i := 0
	for _, h := range k.holes {
		for ; i < len(k.shown) && k.shown[i].at <= h.at; i++ {
			out = k.shown[i].hole(out, first)
		}
		if h.at > first && h.at < k.n {
			out = append(out, salvage.Hole{At: int(h.at - first), Missing: int(h.missing)})
		}
	}
	for ; i < len(k.shown); i++ {
		out = k.shown[i].hole(out, first)
	}
	return out
}

// hole appends the hole of a loss that packets from first on do not show.
func (l shown) hole(out []salvage.Hole, first int64) []salvage.Hole {
	if l.at <= first || l.before >= first {
		return out
	}
	return append(out, salvage.Hole{At: int(l.at - first), Missing: mpegts.Hidden})
}

// close gives all memory back.
func (k *keeper) close() {
	k.look(true)
	for _, c := range k.chunks {
		c.Release()
	}
	k.first, k.chunks, k.holes, k.tables, k.marks, k.shown = k.n, nil, nil, nil, nil, nil
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
	for _, l := range s.losses {
		if !l.lead {
			from = min(from, l.at-1)
		}
	}
	if s.dropped > 0 && s.received < s.dropUntil {
		from = min(from, s.dropped-1)
	}
	if at, ok := s.kept.begin(); ok && s.kept.lead != nil {
		from = min(from, at)
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
	if s.kept != nil && o.joining {
		s.kept.wantAhead(o, h)
	}
	if s.kept == nil || h.Clean() && !s.kept.all {
		return
	}
	s.kept.want(h, o.program.Number, min(earliest(frames, o.from), o.lostAt))
}

var _ mpegts.Keeper = (*keeper)(nil)
