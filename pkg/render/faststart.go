package render

import (
	"fmt"
	"io"
	"math"

	"github.com/Eyevinn/mp4ff/mp4"
)

// writeFaststart reads the archive once for the tables and once for the media:
// ftyp, moov, and one mdat with the samples of each piece track by track.
func writeFaststart(w *walker, out io.Writer) error {
	tables := map[*track]*table{}
	for _, t := range w.plan.tracks {
		tables[t] = &table{}
	}
	payload := uint64(0)
	err := w.each(func(_ int, c *chunk) error {
		for k := range c.parts {
			p := &c.parts[k]
			if len(p.samples) == 0 {
				continue
			}
			if err := tables[p.track].add(p, payload); err != nil {
				return fmt.Errorf("PID %d: %w", p.track.info.Config.PID, err)
			}
			payload += uint64(p.size())
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := w.writeHead(out, tables, payload); err != nil {
		return err
	}
	written := uint64(0)
	err = w.each(func(_ int, c *chunk) error {
		for k := range c.parts {
			list, err := c.parts[k].body(nil)
			if err != nil {
				return err
			}
			if err := writeStretches(out, list, c.media); err != nil {
				return err
			}
			written += uint64(c.parts[k].size())
		}
		return nil
	})
	if err == nil && written != payload {
		err = fmt.Errorf("the archive changed while it was read: %d bytes of media, then %d", payload, written)
	}
	return err
}

// writeHead writes everything ahead of the payload of mdat.
func (w *walker) writeHead(out io.Writer, tables map[*track]*table, payload uint64) error {
	ftyp := mp4.NewFtyp("isom", 0x200, []string{"isom", "iso2", "mp41", "mp42"})
	large := payload+8 > math.MaxUint32
	head := uint64(8)
	if large {
		head = 16
	}
	// The size of moov does not depend on the offsets in it, only on their
	// width.
	moov, err := w.moov(tables, 0, large)
	if err != nil {
		return err
	}
	at := ftyp.Size() + moov.Size() + head
	if !large && at+payload > math.MaxUint32 {
		if moov, err = w.moov(tables, 0, true); err != nil {
			return err
		}
		at = ftyp.Size() + moov.Size() + head
		large = true
	}
	if moov, err = w.moov(tables, at, large); err != nil {
		return err
	}
	if err := writeBoxes(out, ftyp, moov); err != nil {
		return err
	}
	return mp4.EncodeHeaderWithSize("mdat", head+payload, head == 16, out)
}

// moov makes the moov box of a file whose media begins at byte base.
func (w *walker) moov(tables map[*track]*table, base uint64, large bool) (*mp4.MoovBox, error) {
	moov := mp4.NewMoovBox()
	mvhd := newMvhd(w.plan.tracks)
	moov.AddChild(mvhd)
	for _, t := range w.plan.tracks {
		b := tables[t]
		trak, err := b.trak(t, w.shift, base, large)
		if err != nil {
			return nil, err
		}
		mvhd.Duration = max(mvhd.Duration, trak.Tkhd.Duration)
		moov.AddChild(trak)
	}
	mvhd.Version = version(mvhd.Duration)
	return moov, nil
}

// table is the sample table of one track as it grows.
type table struct {
	first    int64 // decode time of the first sample
	dts      int64 // of the last sample
	dur      uint32
	minPTS   int64
	end      int64 // of presentation
	samples  uint32
	stts     mp4.SttsBox
	ctts     mp4.CttsBox
	composed bool // an offset is not 0
	stss     mp4.StssBox
	stsz     mp4.StszBox
	stsc     mp4.StscBox
	chunks   []uint64 // offsets in the payload
	perChunk uint32   // of the last entry of stsc
	entry    uint32
}

// add takes in a part that begins at byte off of the payload.
func (b *table) add(p *part, off uint64) error {
	b.chunks = append(b.chunks, off)
	if n := uint32(len(p.samples)); n != b.perChunk || p.entry != b.entry {
		b.perChunk, b.entry = n, p.entry
		if err := b.stsc.AddEntry(uint32(len(b.chunks)), n, p.entry); err != nil {
			return err
		}
	}
	for i := range p.samples {
		if err := b.sample(&p.samples[i]); err != nil {
			return err
		}
	}
	return nil
}

func (b *table) sample(s *sample) error {
	if b.samples == 0 {
		b.first, b.minPTS = s.dts, s.pts
	} else {
		d := s.dts - b.dts
		if d > math.MaxUint32 {
			return fmt.Errorf("a pause of more than 13 hours does not fit a plain MP4 file; leave out --faststart")
		}
		b.duration(uint32(d))
	}
	b.samples++
	b.dts, b.dur = s.dts, s.dur
	b.minPTS, b.end = min(b.minPTS, s.pts), max(b.end, s.pts+int64(s.dur))
	b.offset(s.offset())
	b.stsz.SampleSize = append(b.stsz.SampleSize, s.size())
	if s.sync {
		b.stss.SampleNumber = append(b.stss.SampleNumber, b.samples)
	}
	return nil
}

func (b *table) duration(d uint32) {
	if n := len(b.stts.SampleTimeDelta); n > 0 && b.stts.SampleTimeDelta[n-1] == d {
		b.stts.SampleCount[n-1]++
		return
	}
	b.stts.SampleCount = append(b.stts.SampleCount, 1)
	b.stts.SampleTimeDelta = append(b.stts.SampleTimeDelta, d)
}

func (b *table) offset(o int32) {
	if o != 0 {
		b.composed = true
	}
	c := &b.ctts
	if len(c.EndSampleNr) == 0 {
		c.EndSampleNr = append(c.EndSampleNr, 0)
	}
	if n := len(c.SampleOffset); n > 0 && c.SampleOffset[n-1] == o {
		c.EndSampleNr[n] = b.samples
		return
	}
	c.SampleOffset = append(c.SampleOffset, o)
	c.EndSampleNr = append(c.EndSampleNr, b.samples)
}

// trak closes the table. Presentation of the export begins at file time shift.
func (b *table) trak(t *track, shift int64, base uint64, large bool) (*mp4.TrakBox, error) {
	if b.samples == 0 {
		return t.trak(0, 0, nil, []mp4.Box{&mp4.SttsBox{}, &mp4.StscBox{}, &mp4.StszBox{}, &mp4.StcoBox{}}), nil
	}
	stts := b.stts
	last := &table{stts: mp4.SttsBox{
		SampleCount:     append([]uint32(nil), stts.SampleCount...),
		SampleTimeDelta: append([]uint32(nil), stts.SampleTimeDelta...),
	}}
	last.duration(b.dur)
	tables := []mp4.Box{&last.stts}
	if b.composed {
		b.ctts.Version = 1
		tables = append(tables, &b.ctts)
	}
	b.stsz.SampleNumber = b.samples
	tables = append(tables, &b.stsc, &b.stsz)
	if large {
		co64 := &mp4.Co64Box{}
		for _, c := range b.chunks {
			co64.ChunkOffset = append(co64.ChunkOffset, base+c)
		}
		tables = append(tables, co64)
	} else {
		stco := &mp4.StcoBox{}
		for _, c := range b.chunks {
			stco.ChunkOffset = append(stco.ChunkOffset, uint32(base+c))
		}
		tables = append(tables, stco)
	}
	if uint32(len(b.stss.SampleNumber)) != b.samples {
		tables = append(tables, &b.stss)
	}
	var edits []mp4.ElstEntry
	start, length := b.minPTS-shift, uint64(b.end-b.minPTS)
	if start > 0 { // an empty edit
		edits = append(edits, edit(uint64(start), -1))
	}
	if ahead := max(b.minPTS-b.first, 0); ahead > 0 || start > 0 {
		edits = append(edits, edit(length, ahead))
	}
	duration := uint64(b.dts - b.first + int64(b.dur))
	return t.trak(duration, uint64(max(start, 0))+length, edits, tables), nil
}
