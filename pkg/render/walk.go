package render

import (
	"context"
	"fmt"
	"io"
	"math"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// walker reads the pieces of a plan one after the other and hands out their
// samples with their times in the export. It holds two segments at a time.
type walker struct {
	ctx      context.Context
	archive  Archive
	plan     *plan
	progress func(int64)

	moved int64 // how much later than planned the pieces are by now
	base  int64 // time on the plan's axis that is presented at 0
	shift int64 // added to decode times so that none is negative
	last  map[*track]int64
}

// sample is one sample of the export. Decode times are file times: presentation
// of the first frame at shift.
type sample struct {
	dts, pts int64
	dur      uint32
	sync     bool
	off, len uint32 // in the segment's media
	ahead    uint32 // bytes of it that stay ahead of the parameter sets
	sets     []byte // put in
}

func (s *sample) size() uint32 { return s.len + uint32(len(s.sets)) }

// part is one track's share of a chunk.
type part struct {
	mapped
	samples []sample
}

// chunk is one piece of the plan, read.
type chunk struct {
	*placed
	start int64 // on the plan's axis
	move  int64 // what was added to the fragment's times for that
	media []byte
	parts []part
}

// each calls fn with every piece. It can be called again from the start.
func (w *walker) each(fn func(*chunk) error) error {
	w.last, w.moved = map[*track]int64{}, 0
	next, err := w.load(0)
	if err != nil {
		return err
	}
	for i := range w.plan.pieces {
		cur := next
		next = nil
		if i+1 < len(w.plan.pieces) {
			if next, err = w.load(i + 1); err != nil {
				return err
			}
		}
		w.trim(cur, next)
		if i == 0 {
			w.setBase(cur)
		}
		w.makeRoom(cur, next)
		w.settle(cur, next)
		if err := fn(cur); err != nil {
			return err
		}
	}
	return nil
}

// load reads a piece. The samples' times are on the plan's axis.
func (w *walker) load(i int) (*chunk, error) {
	if err := w.ctx.Err(); err != nil {
		return nil, err
	}
	p := &w.plan.pieces[i]
	seg, err := w.archive.ReadElement(p.Element)
	if err != nil {
		return nil, err
	}
	m := w.plan.inits[p.Init]
	f, err := m4f.ParseFragment(m.init, seg.Media)
	if err != nil {
		return nil, unreadable(p.Element, err)
	}
	if w.progress != nil {
		w.progress(int64(len(seg.Media)))
	}
	c := &chunk{placed: p, start: p.start + w.moved, media: seg.Media}
	// The segment's opening on the fragment's axis and on the plan's.
	ref := f.Tracks[0].Start
	opening := ref + m4f.Diff33(p.MediaTime, ref)
	move := p.start + w.moved - p.From - opening
	c.move = move
	for k, t := range f.Tracks {
		q := part{mapped: m.tracks[k], samples: make([]sample, len(t.Samples))}
		for j, s := range t.Samples {
			o := sample{dts: s.DTS + move, pts: s.PTS + move, dur: s.Duration, sync: s.Sync, off: s.Off, len: s.Len}
			if s.Sync && q.sets != nil {
				o.sets, o.ahead = q.sets, q.track.delimiter(s.Data(seg.Media))
			}
			q.samples[j] = o
		}
		c.parts = append(c.parts, q)
	}
	return c, nil
}

// trim leaves the samples that belong to the part of the segment that the view
// shows. Where pieces join, the sample that one of them has last, or first in a
// segment shown from its start, decides in decode order: both have the same
// samples there, and a picture may be needed by others that are shown before it.
func (w *walker) trim(cur, next *chunk) {
	from, to := cur.start, cur.start+cur.To-cur.From
	for k := range cur.parts {
		p := &cur.parts[k]
		if cur.From > 0 {
			last, known := w.last[p.track]
			p.from(from, last-w.shift+w.base, known && cur.joins && !p.track.info.Config.Codec.IsData())
		}
		if cur.To < int64(cur.Duration) {
			first, known := int64(0), false
			if next != nil && next.joins && next.From == 0 && !p.track.info.Config.Codec.IsData() {
				first, known = next.first(p.track)
			}
			p.to(to, first, known)
		}
	}
}

// first is the decode time of a chunk's first sample of a track.
func (c *chunk) first(t *track) (int64, bool) {
	for k := range c.parts {
		if c.parts[k].track == t && len(c.parts[k].samples) > 0 {
			return c.parts[k].samples[0].dts, true
		}
	}
	return 0, false
}

// from drops the samples ahead of a part's start: those decoded up to last if it
// is known, and those presented before start otherwise. Video that does not
// join anything begins at a sync sample.
func (p *part) from(start, last int64, known bool) {
	n := 0
	for n < len(p.samples) {
		s := &p.samples[n]
		if known && s.dts > last {
			break
		}
		if !known && s.pts >= start && (s.sync || !p.track.info.Config.Codec.IsVideo()) {
			break
		}
		n++
	}
	p.samples = p.samples[n:]
}

// to drops the samples behind a part's end: those decoded from first on if it
// is known, and those behind the last that is presented before end otherwise.
func (p *part) to(end, first int64, known bool) {
	n := len(p.samples)
	for n > 0 {
		s := &p.samples[n-1]
		if known && s.dts < first || !known && s.pts < end {
			break
		}
		n--
	}
	p.samples = p.samples[:n]
}

// setBase finds what is presented first, which is time 0 of the export, and how
// much earlier decoding starts.
func (w *walker) setBase(c *chunk) {
	pts, dts := int64(math.MaxInt64), int64(math.MaxInt64)
	for k := range c.parts {
		for _, s := range c.parts[k].samples {
			dts = min(dts, s.dts)
			if !c.parts[k].track.info.Config.Codec.IsData() {
				pts = min(pts, s.pts)
			}
		}
	}
	w.base, w.shift = 0, 0
	if pts != math.MaxInt64 {
		w.base = pts
	}
	if dts < w.base {
		w.shift = w.base - dts
	}
}

// maxRoom is how far at most a new timeline is put off, in ticks.
const maxRoom = m4f.Timescale

// makeRoom puts off a new timeline, and all behind it, until every track of the
// one before it has ended: they do not end together, and the sound of two
// timelines must not overlap.
func (w *walker) makeRoom(cur, next *chunk) {
	if next == nil || !next.fresh {
		return
	}
	room := int64(0)
	for k := range cur.parts {
		p := &cur.parts[k]
		n := len(p.samples)
		if n == 0 || p.track.info.Config.Codec.IsData() {
			continue
		}
		if first, ok := next.first(p.track); ok {
			room = max(room, p.samples[n-1].dts+int64(p.samples[n-1].dur)-first)
		}
	}
	room = min(room, maxRoom)
	w.moved += room
	next.start += room
	for k := range next.parts {
		for j := range next.parts[k].samples {
			next.parts[k].samples[j].dts += room
			next.parts[k].samples[j].pts += room
		}
	}
}

// settle moves a chunk's samples to file times. Decode times of a track never go
// back, and a sample ends at the latest where the next one starts.
func (w *walker) settle(c, next *chunk) {
	for k := range c.parts {
		p := &c.parts[k]
		last, known := w.last[p.track]
		if !known {
			last = 0
		}
		for j := range p.samples {
			s := &p.samples[j]
			s.dts, s.pts = max(s.dts-w.base+w.shift, last), max(s.pts-w.base+w.shift, w.shift)
			last = s.dts
			if j > 0 {
				p.samples[j-1].dur = uint32(min(s.dts-p.samples[j-1].dts, math.MaxUint32))
			}
		}
		n := len(p.samples)
		if n == 0 {
			continue
		}
		w.last[p.track] = last
		if next == nil {
			continue
		}
		if first, ok := next.first(p.track); ok {
			first = max(first-w.base+w.shift, last)
			p.samples[n-1].dur = uint32(min(int64(p.samples[n-1].dur), first-last))
		}
	}
}

// write writes the samples of a part.
func (p *part) write(w io.Writer, media []byte) error {
	for i := 0; i < len(p.samples); {
		s := &p.samples[i]
		if s.sets != nil {
			for _, b := range [][]byte{media[s.off : s.off+s.ahead], s.sets, media[s.off+s.ahead : s.off+s.len]} {
				if _, err := w.Write(b); err != nil {
					return err
				}
			}
			i++
			continue
		}
		// Samples of a track lie one behind the other.
		end := s.off
		for i < len(p.samples) && p.samples[i].sets == nil {
			if p.samples[i].off != end {
				return fmt.Errorf("PID %d: samples do not lie one behind the other", p.track.info.Config.PID)
			}
			end += p.samples[i].len
			i++
		}
		if _, err := w.Write(media[s.off:end]); err != nil {
			return err
		}
	}
	return nil
}

// size is how many bytes write writes.
func (p *part) size() int64 {
	n := int64(0)
	for i := range p.samples {
		n += int64(p.samples[i].size())
	}
	return n
}
