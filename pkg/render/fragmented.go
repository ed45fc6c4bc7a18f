package render

import (
	"bytes"
	"fmt"
	"io"

	"github.com/Eyevinn/mp4ff/mp4"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// writeFragmented writes ftyp and moov, then a moof and mdat for each piece.
func writeFragmented(w *walker, out io.Writer) error {
	return w.each(func(i int, c *chunk) error {
		if i == 0 {
			if err := w.writeInit(out); err != nil {
				return err
			}
		}
		f, err := c.fragment(i)
		if err != nil {
			return err
		}
		return f.write(out, c.media)
	})
}

func (w *walker) writeInit(out io.Writer) error {
	return writeBoxes(out, mp4.NewFtyp("iso6", 0, []string{"iso6", "mp42"}), w.initMoov())
}

// initMoov is the moov of a fragmented file. The edit list takes off what
// decoding starts ahead of the first presentation.
func (w *walker) initMoov() *mp4.MoovBox {
	moov := mp4.NewMoovBox()
	moov.AddChild(newMvhd(w.plan.tracks))
	mvex := mp4.NewMvexBox()
	if length := uint64(w.plan.length); !w.plan.jumps {
		mvex.AddChild(&mp4.MehdBox{Version: version(length), FragmentDuration: int64(length)})
	}
	for _, t := range w.plan.tracks {
		var edits []mp4.ElstEntry
		if w.shift > 0 {
			edits = append(edits, edit(0, w.shift))
		}
		moov.AddChild(t.trak(0, 0, edits, []mp4.Box{&mp4.SttsBox{}, &mp4.StscBox{}, &mp4.StszBox{}, &mp4.StcoBox{}}))
		mvex.AddChild(mp4.CreateTrex(t.id))
	}
	moov.AddChild(mvex)
	return moov
}

// Sample flags (ISO/IEC 14496-12 8.8.3.1).
const (
	flagsSync    = 0x02000000
	flagsNonSync = 0x01010000
)

// fragment is one moof and mdat: a head that was made for it, and what follows.
type fragment struct {
	head []byte
	body []stretch
	size int64
}

// stretch is bytes of a segment's media, or others that are put in.
type stretch struct {
	off, len uint32
	data     []byte
}

func (s *stretch) size() int64 {
	if s.data != nil {
		return int64(len(s.data))
	}
	return int64(s.len)
}

// How much longer the fragment of an export is than that of a segment: a track
// fragment has a sample description index, and one without samples gives way to
// as many free bytes, so that the size follows from the length of the segment and
// its init segment alone. Parameter sets that are put in come on top.
const (
	trafGrowth = 4
	emptyTraf  = 8 + 20 + 20 + trafGrowth
)

// fragment makes the fragment of the piece with a number, from 0. What the
// track fragments say of composition offsets is as in the segment.
func (c *chunk) fragment(i int) (*fragment, error) {
	moof := &mp4.MoofBox{}
	if err := moof.AddChild(mp4.CreateMfhd(uint32(i + 1))); err != nil {
		return nil, err
	}
	var parts []*part
	payload := int64(0)
	free := 0
	for k := range c.parts {
		p := &c.parts[k]
		if len(p.samples) == 0 {
			free += emptyTraf
			continue
		}
		traf, err := p.traf()
		if err != nil {
			return nil, err
		}
		if err := moof.AddChild(traf); err != nil {
			return nil, err
		}
		parts = append(parts, p)
		payload += p.size()
	}
	if free > 0 {
		if err := moof.AddChild(mp4.CreateUnknownBox("free", uint64(free), make([]byte, free-8))); err != nil {
			return nil, err
		}
	}
	off := int64(moof.Size()) + 8
	if off+payload > 2*m4f.MaxMedia {
		return nil, fmt.Errorf("fragment of %d bytes", payload)
	}
	f := &fragment{size: off + payload}
	for i, p := range parts {
		moof.Trafs[i].Trun.DataOffset = int32(off)
		off += p.size()
		var err error
		if f.body, err = p.body(f.body); err != nil {
			return nil, err
		}
	}
	var head bytes.Buffer
	if err := writeBoxes(&head, moof); err != nil {
		return nil, err
	}
	if err := mp4.EncodeHeaderWithSize("mdat", uint64(8+payload), false, &head); err != nil {
		return nil, err
	}
	f.head = head.Bytes()
	return f, nil
}

// write writes a fragment of a segment whose media is given.
func (f *fragment) write(out io.Writer, media []byte) error {
	if _, err := out.Write(f.head); err != nil {
		return err
	}
	return writeStretches(out, f.body, media)
}

// traf describes a part's samples.
func (p *part) traf() (*mp4.TrafBox, error) {
	tfhd := &mp4.TfhdBox{
		Flags:   mp4.TfhdDefaultBaseIsMoofFlag | mp4.TfhdDefaultSampleFlagsPresentFlag | mp4.TfhdSampleDescriptionIndexPresentFlag,
		TrackID: p.track.id, SampleDescriptionIndex: p.entry, DefaultSampleFlags: flagsSync,
	}
	tfdt := mp4.CreateTfdt(1 << 32)
	tfdt.SetBaseMediaDecodeTime(uint64(p.samples[0].dts))
	tfdt.Version = 1
	trun := mp4.CreateTrun(0)
	trun.Flags = mp4.TrunDataOffsetPresentFlag | mp4.TrunSampleDurationPresentFlag | mp4.TrunSampleSizePresentFlag
	if p.track.info.Config.Codec.IsVideo() {
		trun.Flags |= mp4.TrunSampleFlagsPresentFlag
	}
	if p.composed {
		trun.Flags |= mp4.TrunSampleCompositionTimeOffsetPresentFlag
	}
	for i := range p.samples {
		s := &p.samples[i]
		o := mp4.Sample{Flags: flagsSync, Dur: s.dur, Size: s.size(), CompositionTimeOffset: s.offset()}
		if !s.sync {
			o.Flags = flagsNonSync
		}
		trun.AddSample(o)
	}
	traf := &mp4.TrafBox{}
	for _, b := range []mp4.Box{tfhd, tfdt, trun} {
		if err := traf.AddChild(b); err != nil {
			return nil, err
		}
	}
	return traf, nil
}

// offset is the composition offset.
func (s *sample) offset() int32 {
	return int32(min(max(s.pts-s.dts, -1<<31), 1<<31-1))
}
