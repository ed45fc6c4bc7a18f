package render

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
)

// WriteTS writes what a slot shows as a stretch of transport stream that stands by
// itself. Each cut is a mpegts.Segment, so that counters and the clock go on from
// cut to cut and from one slot to the next, for as long as media time does.
func WriteTS(ctx context.Context, a *archive.Stream, out io.Writer, cuts []Cut) error {
	return eachTSPiece(ctx, a, cuts, func(_ int, t *tsPiece, c *chunk) error {
		media, err := c.read()
		if err != nil {
			return err
		}
		return t.write(out, c, media, 0)
	})
}

// eachTSPiece calls fn with what each cut is as a transport stream. Of the segments
// it reads the heads.
func eachTSPiece(ctx context.Context, a *archive.Stream, cuts []Cut, fn func(i int, t *tsPiece, c *chunk) error) error {
	if len(cuts) == 0 {
		return ErrEmpty
	}
	p, first := planOf(cuts)
	order, err := p.findInits(a)
	if err != nil {
		return err
	}
	p.tracks = mergeTracks(order)
	w := &walker{ctx: ctx, plan: p, src: &tsSource{a, p}, rough: true}
	err = w.walk(first, func(i int, c *chunk) error {
		t, err := newTSPiece(p, c, i > first && !c.joins)
		if err == nil {
			err = fn(i-first, t, c)
		}
		if err == nil && i+1 == first+len(cuts) {
			err = errEnough
		}
		return err
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// TSSlot is what WriteTS writes, but in packets whose number follows from the
// segments' tables, so that its length is known before any of it is made. It takes
// the memory of one segment at a time.
type TSSlot struct {
	archive *archive.Stream
	cuts    []Cut
	sizes   []int64
	size    int64
}

// NewTSSlot reads the heads of the segments of cuts.
func NewTSSlot(ctx context.Context, a *archive.Stream, cuts []Cut) (*TSSlot, error) {
	s := &TSSlot{archive: a, cuts: cuts}
	err := eachTSPiece(ctx, a, cuts, func(_ int, t *tsPiece, c *chunk) error {
		n, err := t.bytes(c)
		s.sizes = append(s.sizes, n)
		s.size += n
		return err
	})
	return s, err
}

// Size is its length in bytes.
func (s *TSSlot) Size() int64 { return s.size }

// WriteRange writes the bytes [from, to), as of a Download.
func (s *TSSlot) WriteRange(ctx context.Context, w io.Writer, from, to int64) error {
	at := int64(0)
	return eachTSPiece(ctx, s.archive, s.cuts, func(i int, t *tsPiece, c *chunk) error {
		first, end := max(from-at, 0), min(to-at, s.sizes[i])
		at += s.sizes[i]
		if first < end {
			if err := t.writePart(w, c, first, end, s.sizes[i]); err != nil {
				return err
			}
		}
		if at >= to {
			return errEnough
		}
		return nil
	})
}

// planOf is a plan of cuts, of which the first one has a number, and of what lies
// around them: it decides which samples are on which side.
func planOf(cuts []Cut) (p *plan, first int) {
	p = &plan{}
	part := func(c *Cut, from, to int64) {
		p.add(archive.Piece{Element: c.Piece.Element, Part: archive.Part{From: from, To: to}})
	}
	switch c := &cuts[0]; {
	case c.From > c.Piece.Part.From:
		part(c, c.Piece.Part.From, c.From)
	case c.Prev != nil:
		p.add(*c.Prev)
	}
	first = len(p.pieces)
	for i := range cuts {
		part(&cuts[i], cuts[i].From, cuts[i].To)
	}
	switch c := &cuts[len(cuts)-1]; {
	case c.To < c.Piece.Part.To:
		part(c, c.To, c.Piece.Part.To)
	case c.Next != nil:
		p.add(*c.Next)
	}
	return p, first
}

// findInits takes note of the init segments of a plan, without reading segments.
func (p *plan) findInits(a *archive.Stream) (order []*mapping, err error) {
	for i := range p.pieces {
		e := p.pieces[i].Element
		if p.inits[e.Init] != nil {
			continue
		}
		m, err := p.findInit(a, e)
		if err != nil {
			return nil, err
		}
		order = append(order, m)
	}
	return order, nil
}

func (p *plan) findInit(a *archive.Stream, e *archive.Element) (*mapping, error) {
	open, err := a.OpenElement(e)
	if err != nil {
		return nil, err
	}
	defer open.Close()
	return p.know(e, open.Init)
}

// tsSource has the pieces of a plan. It reads their heads.
type tsSource struct {
	archive *archive.Stream
	plan    *plan
}

func (s *tsSource) count() int                   { return len(s.plan.pieces) }
func (s *tsSource) piece(i int) (*placed, error) { return &s.plan.pieces[i], nil }

func (s *tsSource) open(p *placed, init *m4f.Init, c *chunk) (*m4f.Fragment, error) {
	return openHead(s.archive, p.Element, init, c)
}

// tsPiece is a piece as a transport stream.
type tsPiece struct {
	mpegts.Segment
	init       *m4f.Init
	first, end int64 // of the leading track: its first decoding time, and behind its last
}

// newTSPiece plans the transport stream of a trimmed chunk. Times are those of the
// source. jump: the clock does not go on from the piece before.
func newTSPiece(p *plan, c *chunk, jump bool) (*tsPiece, error) {
	init := p.inits[c.Init].init
	t := &tsPiece{init: init}
	t.Program, t.PMTPID, t.Jump = programOf(init), p.mapPID(), jump
	t.first = c.start - c.move
	t.end = t.first + c.To - c.Part.From
	lead := t.Program.Leading()
	for k := range c.parts {
		s := c.parts[k].samples
		if n := len(s); lead != nil && n > 0 && init.Tracks[k].Config.PID == lead.PID {
			t.first, t.end = s[0].dts-c.move, max(s[n-1].dts+int64(s[n-1].dur), s[0].dts+1)-c.move
		}
	}
	t.end = min(t.end, t.first+c.To-c.Part.From+maxAside)
	t.From, t.To = t.first-mpegts.SegmentLead, t.end-mpegts.SegmentLead
	return t, nil
}

// How much longer the unit of a sample is at most than the sample: the header of a
// PES packet with two times, an access unit delimiter with its start code, and
// whatever goes around a frame of sound.
const (
	pictureHead = 19 + 7
	soundHead   = 14 + 16
)

// packets is how many packets the piece has, as its samples' sizes tell.
func (t *tsPiece) packets(c *chunk) (int, error) {
	units := make([]int, len(c.parts))
	for k := range c.parts {
		config := &t.init.Tracks[k].Config
		sets := len(parameterSets(config))
		asc := 2 * len(t.init.Tracks[k].DecoderConfig)
		for j := range c.parts[k].samples {
			s := &c.parts[k].samples[j]
			n := int(s.len)
			switch {
			case config.Codec.IsVideo():
				n += pictureHead
				if s.sync {
					n += sets
				}
			case config.Codec.IsAudio():
				n += soundHead + asc + n/255 + n/1000
			default:
				n++
			}
			units[k] += mpegts.UnitPackets(n)
		}
	}
	return mpegts.SegmentPackets(t.Program, t.To-t.From, units)
}

// read reads a chunk's media from its file and compares it with its identity.
func (c *chunk) read() ([]byte, error) {
	seg, err := c.file.Read()
	if err != nil {
		return nil, err
	}
	return seg.Media, nil
}

// write writes the piece, in so many packets, or as many as it takes if that is 0.
func (t *tsPiece) write(out io.Writer, c *chunk, media []byte, packets int) error {
	t.Packets = packets
	pinned := map[int64]bool{}
	var units []*mpegts.MuxUnit
	for _, data := range []bool{true, false} {
		for k := range c.parts {
			info := &t.init.Tracks[k]
			if info.Config.Codec.IsData() != data {
				continue
			}
			list, _ := unitsOf(info, c.frames(k, -c.move, media), pinned)
			t.Schedule(list, t.first, t.end)
			units = append(units, list...)
		}
	}
	var buf bytes.Buffer
	buf.Grow(len(media) + len(media)/16)
	if err := t.Segment.Write(&buf, units); err != nil {
		return unreadable(c.Element, err)
	}
	_, err := out.Write(buf.Bytes())
	return err
}

// bytes is how many bytes the piece has where that is to be known beforehand.
func (t *tsPiece) bytes(c *chunk) (int64, error) {
	n, err := t.packets(c)
	if size := int64(n) * mpegts.PacketSize; err == nil && size <= 2*m4f.MaxMedia {
		return size, nil
	}
	return 0, unreadable(c.Element, cmp.Or(err, fmt.Errorf("its samples take %d packets", n)))
}

// writePart writes the bytes [from, to) of the piece, which has size bytes.
func (t *tsPiece) writePart(out io.Writer, c *chunk, from, to, size int64) error {
	var buf bytes.Buffer
	buf.Grow(int(size))
	media, err := c.read()
	if err == nil {
		err = t.write(&buf, c, media, int(size/mpegts.PacketSize))
	}
	if err != nil {
		return err
	}
	if int64(buf.Len()) != size {
		return unreadable(c.Element, fmt.Errorf("it makes %d bytes instead of %d", buf.Len(), size))
	}
	_, err = out.Write(buf.Bytes()[from:min(to, size)])
	return err
}

// tsSize is how many bytes a piece has in a download.
func (w *downloadWalker) tsSize(i int, c *chunk) (int64, error) {
	t, err := newTSPiece(&w.d.plan, c, i > 0 && !c.joins)
	if err != nil {
		return 0, err
	}
	return t.bytes(c)
}

// writeTS writes the bytes [from, to) of a piece that has size bytes.
func (w *downloadWalker) writeTS(out io.Writer, i int, c *chunk, from, to, size int64) error {
	t, err := newTSPiece(&w.d.plan, c, i > 0 && !c.joins)
	if err != nil {
		return err
	}
	return t.writePart(out, c, from, to, size)
}
