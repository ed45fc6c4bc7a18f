package render

import (
	"fmt"
	"io"

	"github.com/Eyevinn/mp4ff/bits"
	"github.com/Eyevinn/mp4ff/mp4"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// writeBoxes encodes boxes to w.
func writeBoxes(w io.Writer, boxes ...mp4.Box) error {
	b, err := encodeBoxes(boxes...)
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}

func encodeBoxes(boxes ...mp4.Box) ([]byte, error) {
	size := uint64(0)
	for _, b := range boxes {
		size += b.Size()
	}
	sw := bits.NewFixedSliceWriter(int(size))
	for _, b := range boxes {
		if err := b.EncodeSW(sw); err != nil {
			return nil, fmt.Errorf("box %s: %w", b.Type(), err)
		}
	}
	return sw.Bytes(), nil
}

func newMvhd(tracks []*track) *mp4.MvhdBox {
	mvhd := mp4.CreateMvhd()
	mvhd.Timescale = m4f.Timescale
	mvhd.NextTrackID = uint32(len(tracks) + 1)
	return mvhd
}

// version is 1 for boxes with times that need 64 bits.
func version(times ...uint64) byte {
	for _, t := range times {
		if t > 0xFFFFFFFF {
			return 1
		}
	}
	return 0
}

// trak makes a track with its sample descriptions. duration is that of the
// media; tables come behind stsd.
func (t *track) trak(duration, presented uint64, edits []mp4.ElstEntry, tables []mp4.Box) *mp4.TrakBox {
	tkhd := mp4.CreateTkhd()
	tkhd.TrackID = t.id
	tkhd.Version, tkhd.Duration = version(presented), presented
	tkhd.Width, tkhd.Height = mp4.Fixed32(t.info.DisplayWidth), mp4.Fixed32(t.info.DisplayHeight)
	minf := mp4.NewMinfBox()
	hdlr := &mp4.HdlrBox{HandlerType: t.info.Handler}
	switch c := t.info.Config.Codec; {
	case c.IsVideo():
		hdlr.HandlerType, hdlr.Name = "vide", "video"
		minf.AddChild(mp4.CreateVmhd())
	case c.IsAudio():
		tkhd.Volume, tkhd.AlternateGroup = 0x0100, 1
		hdlr.HandlerType, hdlr.Name = "soun", "audio"
		minf.AddChild(mp4.CreateSmhd())
	default:
		hdlr.HandlerType, hdlr.Name = "meta", "data"
		minf.AddChild(&mp4.NmhdBox{})
	}
	dinf := &mp4.DinfBox{}
	dinf.AddChild(mp4.CreateDref())
	minf.AddChild(dinf)
	stsd := mp4.NewStsdBox()
	for _, e := range t.entries {
		// Opaque: AddChild would want it to be of mp4ff's own type.
		stsd.Children = append(stsd.Children, mp4.CreateUnknownBox(string(e[4:8]), uint64(len(e)), e[8:]))
		stsd.SampleCount++
	}
	stbl := mp4.NewStblBox()
	for _, b := range append([]mp4.Box{stsd}, tables...) {
		stbl.AddChild(b)
	}
	minf.AddChild(stbl)
	mdhd := &mp4.MdhdBox{Timescale: m4f.Timescale, Duration: duration, Version: version(duration)}
	mdhd.SetLanguage(t.info.Language)
	mdia := &mp4.MdiaBox{}
	for _, b := range []mp4.Box{mdhd, hdlr, minf} {
		mdia.AddChild(b)
	}
	trak := mp4.NewTrakBox()
	trak.AddChild(tkhd)
	if len(edits) > 0 {
		trak.AddChild(editList(edits))
	}
	trak.AddChild(mdia)
	return trak
}

func editList(edits []mp4.ElstEntry) mp4.Box {
	elst := &mp4.ElstBox{Entries: edits}
	for _, e := range edits {
		if version(e.SegmentDuration, uint64(max(e.MediaTime, 0))) == 1 {
			elst.Version = 1
		}
	}
	edts := &mp4.EdtsBox{}
	edts.AddChild(elst)
	return edts
}

func edit(duration uint64, mediaTime int64) mp4.ElstEntry {
	return mp4.ElstEntry{SegmentDuration: duration, MediaTime: mediaTime, MediaRateInteger: 1}
}
