package mpegts

import "github.com/twindvr/twindvr/pkg/m4f"

// pictureClock dates pictures whose PES header has no time, and the pictures of
// a PES packet behind its first. It goes by the last dated header and the
// distance of the last two, with the pictures counted between them, so that a
// recorder that has just joined knows as much as one that has heard all.
type pictureClock struct {
	codec m4f.Codec
	step  int64 // ticks from picture to picture; 0: not known
	base  int64 // DTS of the last dated header
	n     int   // pictures since; 0: there was no dated header
	torn  bool  // pictures may be missing between the headers that step is of, or since
	lost  bool  // ... since the last dated header
	last  int64 // DTS of the last picture
	delay int64 // PTS less DTS of the last dated picture
	// Of the last dated MPEG-2 picture, while its group goes on:
	pts   int64
	tr    int
	known bool
}

// maxStep is the longest that one picture is followed by the next.
const maxStep = 3 * m4f.Timescale

// next returns the DTS of the picture after the last.
func (c *pictureClock) next() (int64, bool) {
	return (c.last + c.step) & mask33, c.step > 0
}

// count takes note of n pictures, the first of a header with a time if dated;
// the next picture's header is next, nil if it is not known.
func (c *pictureClock) count(dated bool, dts int64, n int, next *pesHeader) {
	if dated {
		c.base, c.n = dts, 0
	}
	if dated || c.n > 0 {
		c.n += n
	}
	if next == nil || !next.dated || c.n == 0 {
		return
	}
	d := m4f.Diff33(next.dts, c.base)
	if d <= 0 || d >= maxStep*int64(c.n) {
		return
	}
	if !c.lost {
		c.step, c.torn = max(d/int64(c.n), 1), false
	}
	c.lost = false
}

// lose takes note that pictures may be missing.
func (c *pictureClock) lose() { c.torn, c.lost = true, true }

// date returns the PTS of a picture: of one whose header has a time, pts; of
// another, what follows from the pictures before it.
func (c *pictureClock) date(pic *picture, dated bool, pts, dts int64) int64 {
	c.last = dts
	if !dated {
		pts = (dts + c.delay) & mask33
		c.known = c.known && !pic.gop
		if c.known && pic.tr >= 0 {
			// temporal_reference counts pictures in the order of display,
			// modulo 1024 (H.262 6.3.9).
			n := (pic.tr - c.tr + 512) & 1023
			pts = (c.pts + int64(n-512)*c.step) & mask33
		}
		return pts
	}
	c.delay = m4f.Diff33(pts, dts)
	c.pts, c.tr, c.known = pts, pic.tr, pic.tr >= 0
	return pts
}

// maxPictures bounds the pictures that a PES packet is cut into.
const maxPictures = 256

// flushVideo hands out the pictures of a PES packet.
func (d *Demuxer) flushVideo(s *stream, next *pesHeader) {
	b, blk := s.buf.take()
	units, pictures := d.units[:0], d.pictures[:0]
	for len(b) > 0 {
		u := Unit{Track: s.t, Dated: true, Marked: s.marked, Codec: s.t.Codec, First: s.first, PES: s.pes, Data: b, block: blk}
		pic := inspect(&u)
		n := len(b)
		if pic.next > 0 && len(units) < maxPictures {
			n = pic.next
		}
		u.Data, b = b[:n:n], b[n:]
		units, pictures = append(units, u), append(pictures, pic)
	}
	torn := s.clock.torn
	s.clock.count(s.timed, s.dts, len(units), next)
	d.units, d.pictures = units, pictures
	if s.timed {
		s.forget()
	}
	if !s.dated {
		d.hold(s, blk)
		clear(units)
		return
	}
	blk.hold(len(units))
	for k := range units {
		u := &units[k]
		u.DTS = (s.dts + int64(k)*s.clock.step) & mask33
		timed := k == 0 && s.timed
		u.PTS = s.clock.date(&pictures[k], timed, s.pts, u.DTS)
		u.Marked = u.Marked || !timed && torn
		d.h.Unit(u)
	}
	clear(units)
}

// heldPicture waits for its time.
type heldPicture struct {
	Unit
	picture
}

// hold keeps the pictures at hand, behind the first dated header, until the
// second tells their time. Those that no time can be told for are dropped, and
// that is a loss where others were lost before.
func (d *Demuxer) hold(s *stream, blk *Block) {
	switch {
	case s.clock.torn:
		d.h.Loss(Loss{Track: s.t, LastPTS: s.headPTS, Dated: s.headDated, PES: s.pes, Before: s.first})
		return
	case s.clock.n == 0 || len(s.held)+len(d.units) > maxPictures:
		s.forget()
		return
	}
	blk.hold(len(d.units))
	for k := range d.units {
		s.held = append(s.held, heldPicture{d.units[k], d.pictures[k]})
	}
	if s.clock.step == 0 {
		return
	}
	first := s.clock.n - len(s.held)
	for k := range s.held {
		u := &s.held[k]
		u.DTS = (s.clock.base + int64(first+k)*s.clock.step) & mask33
		u.PTS = s.clock.date(&u.picture, false, 0, u.DTS)
		d.h.VideoHeader(s.t, u.DTS, u.Unit.PES)
		d.h.Unit(&u.Unit)
	}
	clear(s.held)
	s.held = s.held[:0]
}

// forget drops the pictures that wait for their time.
func (s *stream) forget() {
	for k := range s.held {
		s.held[k].Release()
	}
	clear(s.held)
	s.held = s.held[:0]
}
