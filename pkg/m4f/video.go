package m4f

import (
	"github.com/Eyevinn/mp4ff/avc"
	"github.com/Eyevinn/mp4ff/hevc"
	"github.com/Eyevinn/mp4ff/mp4"
)

// visualEntry makes the sample entry of a video track and says what it shows.
func visualEntry(c *TrackConfig) (mp4.Box, picture) {
	var name string
	var config mp4.Box
	var p picture
	switch c.Codec {
	case CodecH264:
		name, config, p = h264Entry(c)
	case CodecHEVC:
		name, config, p = hevcEntry(c)
	case CodecMPEG2Video:
		name, config, p = mpeg2Entry(c)
	}
	e := mp4.CreateVisualSampleEntryBox(name, p.width, p.height, config)
	e.CompressorName = ""
	if p.colour {
		e.AddChild(&mp4.ColrBox{
			ColorType:      mp4.ColorTypeOnScreenColors,
			ColorPrimaries: uint16(p.primaries), TransferCharacteristics: uint16(p.transfer),
			MatrixCoefficients: uint16(p.matrix), FullRangeFlag: p.fullRange,
		})
	}
	if p.sarW != 0 && p.sarH != 0 && p.sarW != p.sarH {
		e.AddChild(&mp4.PaspBox{HSpacing: p.sarW, VSpacing: p.sarH})
	}
	return e, p
}

// fitting returns the NAL units that a decoder configuration record holds: at
// most n of at most 65535 bytes each.
func fitting(nals [][]byte, n int) [][]byte {
	var out [][]byte
	for _, nal := range nals {
		if len(nal) <= 0xFFFF && len(out) < n {
			out = append(out, nal)
		}
	}
	return out
}

// h264Entry makes avcC (ISO/IEC 14496-15 5.3.3). Without an SPS it is an avc3
// entry that leaves all to the samples.
func h264Entry(c *TrackConfig) (string, mp4.Box, picture) {
	name := "avc1"
	rec := avc.DecConfRec{SPSnalus: fitting(c.SPS, 31), PPSnalus: fitting(c.PPS, 255), NoTrailingInfo: true, ChromaFormat: 1}
	if c.InBand || len(rec.SPSnalus) == 0 {
		name = "avc3"
	}
	var p picture
	if len(rec.SPSnalus) == 0 || len(rec.SPSnalus[0]) < 4 {
		rec.AVCProfileIndication = 66
		return name, &mp4.AvcCBox{DecConfRec: rec}, p
	}
	sps := rec.SPSnalus[0]
	rec.AVCProfileIndication, rec.ProfileCompatibility, rec.AVCLevelIndication = sps[1], sps[2], sps[3]
	p, _ = parseH264SPS(sps)
	switch sps[1] {
	case 100, 110, 122, 144:
		rec.NoTrailingInfo = false
		rec.ChromaFormat, rec.BitDepthLumaMinus1, rec.BitDepthChromaMinus1 = p.chroma, p.lumaDepth, p.chromaDepth
	}
	return name, &mp4.AvcCBox{DecConfRec: rec}, p
}

// hevcEntry makes hvcC (ISO/IEC 14496-15 8.3.3).
func hevcEntry(c *TrackConfig) (string, mp4.Box, picture) {
	name := "hvc1"
	vps, sps, pps := fitting(c.VPS, 255), fitting(c.SPS, 255), fitting(c.PPS, 255)
	if c.InBand || len(sps) == 0 {
		name = "hev1"
	}
	var p picture
	if len(sps) > 0 {
		p, _ = parseHEVCSPS(sps[0])
	}
	t := p.profileTierLevel
	rec := hevc.DecConfRec{
		ConfigurationVersion: 1,
		GeneralProfileSpace:  t[0] >> 6, GeneralTierFlag: t[0]&0x20 != 0, GeneralProfileIDC: t[0] & 0x1F,
		GeneralProfileCompatibilityFlags: uint32(bigEndian(t[1:5])),
		GeneralConstraintIndicatorFlags:  bigEndian(t[5:11]),
		GeneralLevelIDC:                  t[11],
		ChromaFormatIDC:                  p.chroma,
		BitDepthLumaMinus8:               p.lumaDepth,
		BitDepthChromaMinus8:             p.chromaDepth,
		NumTemporalLayers:                p.subLayers + 1,
		TemporalIDNested:                 byte(b2i(p.temporalNesting)),
		LengthSizeMinusOne:               3,
	}
	for _, a := range []struct {
		typ  hevc.NaluType
		nals [][]byte
	}{{hevc.NALU_VPS, vps}, {hevc.NALU_SPS, sps}, {hevc.NALU_PPS, pps}} {
		if len(a.nals) > 0 {
			rec.NaluArrays = append(rec.NaluArrays, hevc.NewNaluArray(name == "hvc1", a.typ, a.nals))
		}
	}
	return name, &mp4.HvcCBox{DecConfRec: rec}, p
}

func bigEndian(b []byte) (v uint64) {
	for _, c := range b {
		v = v<<8 | uint64(c)
	}
	return v
}

// mpeg2Entry makes the esds of MPEG-1 and MPEG-2 video; the object type
// follows from the profile (ISO/IEC 14496-1 table 5, ISO/IEC 13818-2 table 8-2).
func mpeg2Entry(c *TrackConfig) (string, mp4.Box, picture) {
	p, ok := parseMPEG2Sequence(c.SequenceHeader)
	oti := byte(0x61) // Main
	switch profile := p.profileAndLevel >> 4; {
	case !ok:
	case p.mpeg1:
		oti = otiMPEG1Video
	case p.profileAndLevel&0x80 != 0:
		oti = 0x65 // 4:2:2
	case profile == 5:
		oti = 0x60 // Simple
	case profile == 3:
		oti = 0x62 // SNR
	case profile == 2:
		oti = 0x63 // Spatial
	case profile == 1:
		oti = 0x64 // High
	}
	return "mp4v", esds(oti, visualStream, c.SequenceHeader), p
}
