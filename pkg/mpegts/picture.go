package mpegts

import "github.com/twindvr/twindvr/pkg/m4f"

// pictureClock dates pictures whose PES header has no time, and the pictures of
// a PES packet behind its first. It goes by the last dated header and the
// distance of the headers around it, so that a recorder that has just joined
// knows as much as one that has heard all.
type pictureClock struct {
	codec m4f.Codec
	step  int64 // ticks from picture to picture; 0: not known
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

// spread takes note of n pictures from a time on, the next of which has a time
// of its own if dated.
func (c *pictureClock) spread(dts int64, n int, next *pesHeader) {
	if next != nil && next.dated {
		if d := m4f.Diff33(next.dts, dts); d > 0 && d < maxStep {
			c.step = max(d/int64(n), 1)
		}
	}
}

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
	if !s.dated {
		s.buf.reset() // no time to put it at
		return
	}
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
	s.clock.spread(s.dts, len(units), next)
	blk.refs += len(units)
	for k := range units {
		u := &units[k]
		u.DTS = (s.dts + int64(k)*s.clock.step) & mask33
		u.PTS = s.clock.date(&pictures[k], k == 0 && s.timed, s.pts, u.DTS)
		d.h.Unit(u)
	}
	clear(units)
	d.units, d.pictures = units, pictures
}
