package render

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
)

// TSSegment writes pieces of the view that follow each other as a stretch of
// transport stream that stands by itself: a segment of a playlist. Each piece is
// a mpegts.Segment, so that counters and clock go on from piece to piece and from
// one stretch to the next, as long as the media time does. before and after are
// the pieces around them, or nil: where the view shows parts of segments they
// decide which samples are shown where.
func TSSegment(ctx context.Context, a *archive.Stream, out io.Writer, pieces []archive.Piece, before, after *archive.Piece) error {
	p := &plan{}
	first := 0
	if before != nil {
		p.add(*before)
		first = 1
	}
	for _, piece := range pieces {
		p.add(piece)
	}
	if after != nil {
		p.add(*after)
	}
	src := &tsSource{archive: a, plan: p, first: first, end: first + len(pieces)}
	var order []*mapping
	for i := range p.pieces {
		e := p.pieces[i].Element
		if p.inits[e.Init] != nil {
			continue
		}
		open, err := a.OpenElement(e)
		if err != nil {
			return err
		}
		open.Close()
		m, err := p.know(e, open.Init)
		if err != nil {
			return err
		}
		order = append(order, m)
	}
	p.tracks = mergeTracks(order)
	w := &walker{ctx: ctx, plan: p, src: src, rough: true}
	err := w.walk(first, func(i int, c *chunk) error {
		seg, err := newTSPiece(p, c, i > first && !c.joins)
		if err != nil {
			return err
		}
		if err := seg.write(out, c, 0); err != nil {
			return err
		}
		if i+1 == src.end {
			return errEnough
		}
		return nil
	})
	if err == errEnough {
		return nil
	}
	return err
}

// tsSource reads the pieces from first up to end whole, and of others the heads.
type tsSource struct {
	archive    *archive.Stream
	plan       *plan
	first, end int
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

// write writes the piece, in so many packets, or as many as it takes if that is 0.
func (t *tsPiece) write(out io.Writer, c *chunk, packets int) error {
	seg, err := c.file.Read()
	if err != nil {
		return err
	}
	media := seg.Media
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
	_, err = out.Write(buf.Bytes())
	return err
}

// tsSize is how many bytes a piece has in a download.
func (w *downloadWalker) tsSize(i int, c *chunk) (int64, error) {
	t, err := newTSPiece(&w.d.plan, c, i > 0 && !c.joins)
	if err != nil {
		return 0, err
	}
	n, err := t.packets(c)
	if err != nil {
		return 0, unreadable(c.Element, err)
	}
	return int64(n) * mpegts.PacketSize, nil
}

// writeTS writes the bytes [from, to) of a piece that has size bytes.
func (w *downloadWalker) writeTS(out io.Writer, i int, c *chunk, from, to, size int64) error {
	t, err := newTSPiece(&w.d.plan, c, i > 0 && !c.joins)
	if err != nil {
		return err
	}
	var buf bytes.Buffer
	buf.Grow(int(size))
	if err := t.write(&buf, c, int(size/mpegts.PacketSize)); err != nil {
		return err
	}
	if int64(buf.Len()) != size {
		return unreadable(c.Element, fmt.Errorf("it makes %d bytes instead of %d", buf.Len(), size))
	}
	_, err = out.Write(buf.Bytes()[from:min(to, size)])
	return err
}
