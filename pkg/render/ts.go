package render

import (
	"fmt"
	"io"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
)

// writeTS writes the pieces as a transport stream with the times, PIDs and
// descriptors of the source.
func writeTS(w *walker, out io.Writer) error {
	x := &tsWriter{walker: w, mux: mpegts.NewMuxer(out, w.plan.mapPID())}
	next, err := w.load(0)
	if err != nil {
		return err
	}
	for i := range w.src.count() {
		cur := next
		next = nil
		if i+1 < w.src.count() {
			if next, err = w.load(i + 1); err != nil {
				return err
			}
		}
		w.trim(cur, next)
		w.remember(cur.ends())
		if err := x.write(cur); err != nil {
			return err
		}
	}
	return x.mux.Drain()
}

// tsWriter hands the samples of pieces to a multiplexer.
type tsWriter struct {
	*walker
	mux *mpegts.Muxer
	// axis is what is added to times on the plan's axis: the sum is the source's
	// time modulo 2^33, and goes on from piece to piece where they join.
	axis int64
}

// behind is how much later than the leading track another one's pictures may
// still come in the order of decoding, in ticks.
const behind = m4f.Timescale

// maxAside is how far outside a piece's span a sample is taken at its word.
const maxAside = 10 * m4f.Timescale

func (x *tsWriter) write(c *chunk) error {
	if !c.joins {
		if err := x.mux.Drain(); err != nil {
			return err
		}
	}
	x.axis += m4f.Diff33(-c.move, x.axis)
	init := x.plan.inits[c.Init].init
	program := programOf(init)
	if err := x.mux.SetProgram(program); err != nil {
		return unreadable(c.Element, err)
	}
	pinned := map[int64]bool{}
	for k := range c.parts {
		info := &init.Tracks[k]
		x.mux.SetModel(info.Config.PID, mpegts.ModelOf(info))
	}
	// Data first: sound that leads is cut where data is pinned to it.
	var units []*mpegts.MuxUnit
	for _, data := range []bool{true, false} {
		for k := range c.parts {
			info := &init.Tracks[k]
			if info.Config.Codec.IsData() != data {
				continue
			}
			list, left := unitsOf(info, c.frames(k, x.axis, c.media), pinned)
			x.plan.result.Left += left
			x.settleDue(c, list)
			units = append(units, list...)
		}
	}
	for _, u := range units {
		x.mux.Write(u)
	}
	known, ok := x.leadEnd(c, program)
	if !ok {
		return nil
	}
	return x.mux.Advance(known - behind)
}

// frames are the samples of a part, with axis added to their times.
func (c *chunk) frames(k int, axis int64, media []byte) []mpegts.MuxFrame {
	p := &c.parts[k]
	frames := make([]mpegts.MuxFrame, len(p.samples))
	for j := range p.samples {
		s := &p.samples[j]
		frames[j] = mpegts.MuxFrame{PTS: s.pts + axis, DTS: s.dts + axis, Duration: s.dur, Key: s.sync, Data: media[s.off : s.off+s.len]}
	}
	return frames
}

// unitsOf makes units of frames. Data adds the times that it is pinned to; sound
// is cut there.
func unitsOf(info *m4f.TrackInfo, frames []mpegts.MuxFrame, pinned map[int64]bool) (units []*mpegts.MuxUnit, left int) {
	switch c := info.Config.Codec; {
	case c.IsAudio():
		return mpegts.FrameUnits(info, frames, func(pts int64) bool { return pinned[pts] })
	case c.IsVideo():
		for j := range frames {
			units = append(units, mpegts.PictureUnit(&info.Config, &frames[j]))
		}
	default:
		for j := range frames {
			u := mpegts.DataUnit(&info.Config, &frames[j])
			pinned[u.Last] = pinned[u.Last] || u.Pinned
			units = append(units, u)
		}
	}
	return units, 0
}

// settleDue makes units due in their order: one that is dated far off is sent
// with its neighbours.
func (x *tsWriter) settleDue(c *chunk, units []*mpegts.MuxUnit) {
	from := c.start + x.axis - maxAside
	least := c.start + x.axis + c.To - c.From + maxAside
	for j := len(units) - 1; j >= 0; j-- {
		for i := len(units[j].Marks) - 1; i >= 0; i-- {
			m := &units[j].Marks[i]
			m.Due = max(min(m.Due, least), from)
			least = m.Due
		}
	}
}

// leadEnd is the decoding time of the piece's last sample of the leading track.
func (x *tsWriter) leadEnd(c *chunk, p *mpegts.Program) (int64, bool) {
	lead := p.Leading()
	for k := range c.parts {
		info := c.parts[k].track.info
		if n := len(c.parts[k].samples); lead != nil && info.Config.PID == lead.PID && n > 0 {
			return c.parts[k].samples[n-1].dts + x.axis, true
		}
	}
	return 0, false
}

// programOf is the program map that an init segment was made under. A program
// without a PID for its clock gets that of its leading track.
func programOf(init *m4f.Init) *mpegts.Program {
	tracks := make([]mpegts.Track, len(init.Tracks))
	for k := range init.Tracks {
		c := &init.Tracks[k].Config
		tracks[k] = mpegts.Track{PID: c.PID, StreamType: c.StreamType, Descriptors: c.Descriptors, Codec: c.Codec}
	}
	p := mpegts.NewProgram(max(init.Program, 1), init.PCRPID, tracks)
	p.Descriptors = init.ProgramDescriptors
	if lead := p.Leading(); lead != nil && !usablePID(p.PCRPID) {
		p.PCRPID = lead.PID
	}
	return p
}

// usablePID says whether a PID may carry anything of a program (ISO/IEC 13818-1
// table 2-3).
func usablePID(pid uint16) bool { return pid >= 0x10 && pid < 0x1FFF }

// mapPID is a PID for the program maps that no track of the export has: the
// original's is not part of a segment.
func (p *plan) mapPID() uint16 {
	used := map[uint16]bool{}
	for _, m := range p.inits {
		used[m.init.PCRPID] = true
		for k := range m.init.Tracks {
			used[m.init.Tracks[k].Config.PID] = true
		}
	}
	pid := uint16(0x1000)
	for used[pid] {
		pid--
	}
	return pid
}

// Format is what an export is written as.
type Format uint8

// The formats of an export.
const (
	MP4 Format = iota
	TS         // an MPEG transport stream
)

// ParseFormat reads the name of a format.
func ParseFormat(s string) (Format, error) {
	switch s {
	case "mp4":
		return MP4, nil
	case "ts":
		return TS, nil
	}
	return 0, fmt.Errorf("unknown format %q; want mp4 or ts", s)
}
