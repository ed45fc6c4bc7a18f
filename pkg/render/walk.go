package render

import (
	"context"
	"fmt"
	"io"
	"math"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// walker reads the pieces of a plan one after the other and hands out their
// samples with their times in the export. It holds two segments at a time, or
// what is known of them.
type walker struct {
	ctx  context.Context
	plan *plan
	src  source
	// prepare is called with each piece, and the one behind it or nil, before its
	// samples have file times.
	prepare func(i int, cur, next *chunk)
	// rough: samples keep their times on the plan's axis.
	rough bool

	moved int64 // how much later than planned the pieces are by now
	base  int64 // time on the plan's axis that is presented at 0
	shift int64 // added to decode times so that none is negative
	// recent has, of each of the last pieces, the decode times of its tracks' last
	// samples, on the plan's axis.
	recent []map[*track]int64
}

// source is where a walker has its pieces from.
type source interface {
	count() int
	piece(i int) (*placed, error)
	// open reads what is known of a piece's segment. The samples' bytes are in
	// the chunk's media, or at its file.
	open(p *placed, init *m4f.Init, c *chunk) (*m4f.Fragment, error)
}

// whole is the source of an export: it reads segments whole and verifies them.
type whole struct {
	archive  Archive
	plan     *plan
	progress func(int64)
}

func (s *whole) count() int                   { return len(s.plan.pieces) }
func (s *whole) piece(i int) (*placed, error) { return &s.plan.pieces[i], nil }

func (s *whole) open(p *placed, init *m4f.Init, c *chunk) (*m4f.Fragment, error) {
	seg, err := s.archive.ReadElement(p.Element)
	if err != nil {
		return nil, err
	}
	f, err := m4f.ParseFragment(init, seg.Media)
	if err != nil {
		return nil, unreadable(p.Element, err)
	}
	if s.progress != nil {
		s.progress(int64(len(seg.Media)))
	}
	c.media = seg.Media
	return f, nil
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
	samples  []sample
	composed bool // the segment gives composition offsets
}

// chunk is one piece of the plan, read.
type chunk struct {
	*placed
	start int64 // on the plan's axis
	move  int64 // what was added to the fragment's times for that
	media []byte
	file  *archive.Media // instead of media
	parts []part
}

// close closes the file of a chunk that has one; c may be nil.
func (c *chunk) close() {
	if c != nil && c.file != nil {
		c.file.Close()
		c.file = nil
	}
}

// head is the first n bytes of a sample, or all of a shorter one.
func (c *chunk) head(s *m4f.FragmentSample, n uint32) ([]byte, error) {
	n = min(n, s.Len)
	if c.file == nil {
		return c.media[s.Off : s.Off+n], nil
	}
	b := make([]byte, n)
	_, err := c.file.File.ReadAt(b, c.file.Offset+int64(s.Off))
	return b, err
}

// lookBack is for how many pieces the decode times of a track's last sample are
// remembered. What is made of a piece depends on no more than twice as many ahead
// of it, so that a reader can begin anywhere.
const lookBack = 4

// each calls fn with every piece and its number, and finds the times at which they
// go. It can be called again from the start.
func (w *walker) each(fn func(int, *chunk) error) error {
	w.prepare = func(i int, cur, next *chunk) {
		if i == 0 {
			w.setBase(cur)
		}
		w.makeRoom(cur, next)
	}
	return w.walk(0, fn)
}

// walk calls fn with the pieces from a number on.
func (w *walker) walk(first int, fn func(int, *chunk) error) (err error) {
	w.recent, w.moved = nil, 0
	begin, err := w.ahead(first)
	if err != nil {
		return err
	}
	next, err := w.load(begin)
	if err != nil {
		return err
	}
	defer func() { next.close() }()
	for i := begin; i < w.src.count(); i++ {
		cur := next
		next = nil
		if i+1 < w.src.count() {
			next, err = w.load(i + 1)
		}
		if err == nil {
			err = w.step(i, first, cur, next, fn)
		}
		cur.close()
		if err != nil {
			return err
		}
	}
	return nil
}

// ahead is the piece to begin with so that all is known that the first one
// depends on.
func (w *walker) ahead(first int) (int, error) {
	for i := max(first-2*lookBack, 0); i > 0; i-- {
		p, err := w.src.piece(i)
		if err != nil || p.From == 0 {
			return i, err
		}
	}
	return 0, nil
}

func (w *walker) step(i, first int, cur, next *chunk, fn func(int, *chunk) error) error {
	w.trim(cur, next)
	if w.prepare != nil {
		w.prepare(i, cur, next)
	}
	ends := cur.ends()
	if i >= first {
		if !w.rough {
			w.settle(cur, next)
		}
		if err := fn(i, cur); err != nil {
			return err
		}
	}
	w.remember(ends)
	return nil
}

// ends are the decode times of the last samples of the tracks of a chunk that is
// not settled.
func (c *chunk) ends() map[*track]int64 {
	ends := make(map[*track]int64, len(c.parts))
	for k := range c.parts {
		if p := &c.parts[k]; len(p.samples) > 0 {
			ends[p.track] = p.samples[len(p.samples)-1].dts
		}
	}
	return ends
}

func (w *walker) remember(ends map[*track]int64) {
	if len(w.recent) == lookBack {
		w.recent = w.recent[:copy(w.recent, w.recent[1:])]
	}
	w.recent = append(w.recent, ends)
}

// last is the decode time of a track's last sample, and furthest the greatest of
// its last ones.
func (w *walker) last(t *track) (last, furthest int64, known bool) {
	for _, ends := range w.recent {
		if at, ok := ends[t]; ok {
			if !known {
				furthest = at
			}
			last, furthest, known = at, max(furthest, at), true
		}
	}
	return last, furthest, known
}

// load reads a piece. The samples' times are on the plan's axis.
func (w *walker) load(i int) (*chunk, error) {
	if err := w.ctx.Err(); err != nil {
		return nil, err
	}
	p, err := w.src.piece(i)
	if err != nil {
		return nil, err
	}
	m := w.plan.inits[p.Init]
	c := &chunk{placed: p, start: p.start + w.moved}
	f, err := w.src.open(p, m.init, c)
	if err == nil {
		err = c.fill(m, f)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// fill takes over the samples of a fragment.
func (c *chunk) fill(m *mapping, f *m4f.Fragment) error {
	// The segment's opening on the fragment's axis and on the plan's.
	ref := f.Tracks[0].Start
	opening := ref + m4f.Diff33(c.MediaTime, ref)
	move := c.start - c.From - opening
	c.move = move
	for k, t := range f.Tracks {
		q := part{mapped: m.tracks[k], samples: make([]sample, len(t.Samples))}
		for j, s := range t.Samples {
			o := sample{dts: s.DTS + move, pts: s.PTS + move, dur: s.Duration, sync: s.Sync, off: s.Off, len: s.Len}
			if s.Sync && q.sets != nil {
				head, err := c.head(&s, delimiterHead)
				if err != nil {
					return unreadable(c.Element, err)
				}
				o.sets, o.ahead = q.sets, q.track.delimiter(head, s.Len)
			}
			q.composed = q.composed || o.pts != o.dts
			q.samples[j] = o
		}
		c.parts = append(c.parts, q)
	}
	return nil
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
			last, _, known := w.last(p.track)
			p.from(from, last, known && cur.joins && !p.track.info.Config.Codec.IsData())
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
	room := roomBetween(cur, next)
	w.moved += room
	next.start += room
	for k := range next.parts {
		for j := range next.parts[k].samples {
			next.parts[k].samples[j].dts += room
			next.parts[k].samples[j].pts += room
		}
	}
}

func roomBetween(cur, next *chunk) int64 {
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
	return min(room, maxRoom)
}

// settle moves a chunk's samples to file times. Decode times of a track never go
// back, and a sample ends at the latest where the next one starts.
func (w *walker) settle(c, next *chunk) {
	for k := range c.parts {
		p := &c.parts[k]
		last := int64(0)
		if _, at, known := w.last(p.track); known {
			last = max(at-w.base+w.shift, 0)
		}
		for j := range p.samples {
			s := &p.samples[j]
			s.dts, s.pts = max(s.dts-w.base+w.shift, last), max(s.pts-w.base+w.shift, w.shift)
			if last = s.dts; !p.composed {
				s.pts = s.dts
			}
			if j > 0 {
				p.samples[j-1].dur = uint32(min(s.dts-p.samples[j-1].dts, math.MaxUint32))
			}
		}
		n := len(p.samples)
		if n == 0 || next == nil {
			continue
		}
		if first, ok := next.first(p.track); ok {
			first = max(first-w.base+w.shift, last)
			p.samples[n-1].dur = uint32(min(int64(p.samples[n-1].dur), first-last))
		}
	}
}

// body adds what the samples of a part are made of.
func (p *part) body(list []stretch) ([]stretch, error) {
	for i := 0; i < len(p.samples); {
		s := &p.samples[i]
		if s.sets != nil {
			list = append(list, stretch{off: s.off, len: s.ahead}, stretch{data: s.sets}, stretch{off: s.off + s.ahead, len: s.len - s.ahead})
			i++
			continue
		}
		// Samples of a track lie one behind the other.
		end := s.off
		for i < len(p.samples) && p.samples[i].sets == nil {
			if p.samples[i].off != end {
				return nil, fmt.Errorf("PID %d: samples do not lie one behind the other", p.track.info.Config.PID)
			}
			end += p.samples[i].len
			i++
		}
		if n := len(list); n > 0 && list[n-1].data == nil && list[n-1].off+list[n-1].len == s.off {
			list[n-1].len += end - s.off
			continue
		}
		list = append(list, stretch{off: s.off, len: end - s.off})
	}
	return list, nil
}

func writeStretches(w io.Writer, list []stretch, media []byte) error {
	for i := range list {
		b := list[i].data
		if b == nil {
			b = media[list[i].off : list[i].off+list[i].len]
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// size is how many bytes body tells of.
func (p *part) size() int64 {
	n := int64(0)
	for i := range p.samples {
		n += int64(p.samples[i].size())
	}
	return n
}
