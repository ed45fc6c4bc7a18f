package m4f

import (
	"encoding/binary"
	"fmt"

	"github.com/Eyevinn/mp4ff/mp4"
)

// buildInit writes ftyp and moov. They follow from the target duration, the
// program and the tracks' configurations alone.
func buildInit(spec *SegmentSpec) ([]byte, error) {
	moov := mp4.NewMoovBox()
	mvhd := mp4.CreateMvhd()
	mvhd.Timescale = Timescale
	mvhd.NextTrackID = uint32(len(spec.Tracks) + 1)
	moov.AddChild(mvhd)
	moov.AddChild(programBox(spec))
	mvex := mp4.NewMvexBox()
	for i := range spec.Tracks {
		moov.AddChild(trakBox(uint32(i+1), &spec.Tracks[i]))
		mvex.AddChild(&mp4.TrexBox{TrackID: uint32(i + 1), DefaultSampleDescriptionIndex: 1})
	}
	moov.AddChild(mvex)
	b := appendBox(nil, mp4.NewFtyp("iso6", 0, []string{"iso6", "mp42"}))
	if n := uint64(len(b)) + moov.Size(); n > MaxInit {
		return nil, fmt.Errorf("init segment of %d bytes, at most %d are allowed", n, MaxInit)
	}
	return appendBox(b, moov), nil
}

const (
	programVersion = 1
	trackVersion   = 1
)

// programBox carries D, the rules version and what the PMT says of the program.
func programBox(spec *SegmentSpec) mp4.Box {
	p := []byte{programVersion, 0, 0, 0}
	p = binary.BigEndian.AppendUint32(p, uint32(spec.TargetDuration))
	p = binary.BigEndian.AppendUint16(p, RulesVersion)
	p = binary.BigEndian.AppendUint16(p, spec.Program)
	p = binary.BigEndian.AppendUint16(p, spec.PCRPID)
	p = append(p, 0, 0)
	return uuidBox(uuidProgram, append(p, spec.ProgramDescriptors...))
}

// trackBox carries what the PMT says of an elementary stream.
func trackBox(c *TrackConfig) mp4.Box {
	p := []byte{trackVersion, 0, 0, 0}
	p = binary.BigEndian.AppendUint16(p, c.PID)
	p = append(p, c.StreamType, byte(c.Codec))
	return uuidBox(uuidTrack, append(p, c.Descriptors...))
}

func trakBox(id uint32, t *Track) *mp4.TrakBox {
	c := &t.Config
	tkhd := mp4.CreateTkhd()
	tkhd.TrackID = id
	hdlr := &mp4.HdlrBox{}
	minf := mp4.NewMinfBox()
	stsd := mp4.NewStsdBox()
	switch {
	case c.Codec.IsVideo():
		entry, p := visualEntry(c)
		stsd.AddChild(entry)
		tkhd.Width, tkhd.Height = p.displaySize()
		hdlr.HandlerType, hdlr.Name = "vide", "video"
		minf.AddChild(mp4.CreateVmhd())
	case c.Codec.IsAudio():
		s := soundOf(t)
		stsd.AddChild(s.box())
		tkhd.Volume, tkhd.AlternateGroup = 0x0100, 1
		hdlr.HandlerType, hdlr.Name = "soun", "audio"
		minf.AddChild(mp4.CreateSmhd())
	default:
		stsd.AddChild(dataEntry(c))
		hdlr.HandlerType, hdlr.Name = "meta", "data"
		minf.AddChild(&mp4.NmhdBox{})
	}
	dinf := &mp4.DinfBox{}
	dinf.AddChild(mp4.CreateDref())
	minf.AddChild(dinf)
	stbl := mp4.NewStblBox()
	for _, b := range []mp4.Box{stsd, &mp4.SttsBox{}, &mp4.StscBox{}, &mp4.StszBox{}, &mp4.StcoBox{}} {
		stbl.AddChild(b)
	}
	minf.AddChild(stbl)
	mdhd := &mp4.MdhdBox{Timescale: Timescale}
	mdhd.SetLanguage(c.language())
	mdia := &mp4.MdiaBox{}
	mdia.AddChild(mdhd)
	mdia.AddChild(hdlr)
	mdia.AddChild(minf)
	trak := mp4.NewTrakBox()
	trak.AddChild(tkhd)
	trak.AddChild(mdia)
	trak.AddChild(trackBox(c))
	return trak
}

// displaySize is the size in square pixels, 16.16 fixed point.
func (p *picture) displaySize() (w, h mp4.Fixed32) {
	width := uint64(p.width) << 16
	if p.sarW != 0 && p.sarH != 0 {
		if d := width * uint64(p.sarW) / uint64(p.sarH); d < 1<<32 {
			width = d
		}
	}
	return mp4.Fixed32(width), mp4.Fixed32(uint32(p.height) << 16)
}

// The URIs that name the form of a data track's samples.
const (
	uriPES     = "tag:twindvr.github.io,2026:m4f/pes"
	uriSection = "tag:twindvr.github.io,2026:m4f/section"
)

// dataEntry is a URI metadata sample entry (ISO/IEC 14496-12 12.3.3.2) whose
// initialization data are stream type, PID and descriptors.
func dataEntry(c *TrackConfig) mp4.Box {
	uri := uriPES
	if c.Codec == CodecSections {
		uri = uriSection
	}
	b := []byte{0, 0, 0, 0, 0, 0, 0, 1}
	b = appendBox(b, rawBox("uri ", append(append([]byte{0, 0, 0, 0}, uri...), 0)))
	init := append([]byte{0, 0, 0, 0, c.StreamType, byte(c.PID >> 8), byte(c.PID)}, c.Descriptors...)
	return rawBox("urim", appendBox(b, rawBox("uriI", init)))
}
