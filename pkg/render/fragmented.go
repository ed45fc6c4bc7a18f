package render

import (
	"fmt"
	"io"

	"github.com/Eyevinn/mp4ff/mp4"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// writeFragmented writes ftyp and moov, then a moof and mdat for each piece.
func writeFragmented(w *walker, out io.Writer) error {
	number := uint32(0)
	return w.each(func(c *chunk) error {
		if number == 0 {
			if err := writeBoxes(out, mp4.NewFtyp("iso6", 0, []string{"iso6", "mp42"}), w.initMoov()); err != nil {
				return err
			}
		}
		number++
		return c.writeFragment(out, number)
	})
}

// initMoov is the moov of a fragmented file. The edit list takes off what
// decoding starts ahead of the first presentation.
func (w *walker) initMoov() *mp4.MoovBox {
	moov := mp4.NewMoovBox()
	moov.AddChild(newMvhd(w.plan.tracks))
	mvex := mp4.NewMvexBox()
	if length := uint64(w.plan.length); w.plan.oneTimeline() {
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

// writeFragment writes one moof and mdat with the tracks that have samples.
func (c *chunk) writeFragment(out io.Writer, number uint32) error {
	moof := &mp4.MoofBox{}
	if err := moof.AddChild(mp4.CreateMfhd(number)); err != nil {
		return err
	}
	var parts []*part
	payload := int64(0)
	for k := range c.parts {
		p := &c.parts[k]
		if len(p.samples) == 0 {
			continue
		}
		traf, err := p.traf()
		if err != nil {
			return err
		}
		if err := moof.AddChild(traf); err != nil {
			return err
		}
		parts = append(parts, p)
		payload += p.size()
	}
	if len(parts) == 0 {
		return nil
	}
	off := int64(moof.Size()) + 8
	if off+payload > 2*m4f.MaxMedia {
		return fmt.Errorf("fragment of %d bytes", payload)
	}
	for i, p := range parts {
		moof.Trafs[i].Trun.DataOffset = int32(off)
		off += p.size()
	}
	if err := writeBoxes(out, moof); err != nil {
		return err
	}
	if err := mp4.EncodeHeaderWithSize("mdat", uint64(8+payload), false, out); err != nil {
		return err
	}
	for _, p := range parts {
		if err := p.write(out, c.media); err != nil {
			return err
		}
	}
	return nil
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
	for i := range p.samples {
		s := &p.samples[i]
		o := mp4.Sample{Flags: flagsSync, Dur: s.dur, Size: s.size(), CompositionTimeOffset: s.offset()}
		if !s.sync {
			o.Flags = flagsNonSync
		}
		if o.CompositionTimeOffset != 0 {
			trun.Flags |= mp4.TrunSampleCompositionTimeOffsetPresentFlag
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
