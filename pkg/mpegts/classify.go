package mpegts

import (
	"slices"

	"github.com/asticode/go-astits"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// Format identifiers of registration descriptors (ISO/IEC 13818-1 2.6.8) that
// say how a stream is coded.
const (
	formatHDMV = 0x48444d56
	formatGA94 = 0x47413934 // ATSC
	formatSCTE = 0x53435445
	formatAC3  = 0x41432d33
	formatEAC3 = 0x45414333
	formatDTS1 = 0x44545331
	formatDTS2 = 0x44545332
	formatDTS3 = 0x44545333
	formatDTSH = 0x44545348
	formatOpus = 0x4f707573
	formatHEVC = 0x48455643
)

// Descriptor tags of EN 300 468 table 12, and extension tags of its table 109
// and of ETSI TS 101 154 annex H (Opus).
const (
	tagDTS       = 0x7b
	extensionDTS = 0x0e // DTS-HD
	extOpus      = 0x80
)

// classify tells a track's codec from its stream type (13818-1 table 2-34,
// ATSC A/53-3, ETSI TS 101 154, Blu-ray where the program or the stream is
// registered as HDMV, GB/T 28181 annex C) and, for private data, its
// descriptors (EN 300 468 annex D).
func classify(st uint8, program, desc []*astits.Descriptor) (m4f.Codec, Kind) {
	c := codecOf(st, program, desc)
	return c, kindOfCodec(c)
}

func codecOf(st uint8, program, desc []*astits.Descriptor) m4f.Codec {
	switch st {
	case 0x01, 0x02:
		return m4f.CodecMPEG2Video
	case 0x1b:
		return m4f.CodecH264
	case 0x24:
		return m4f.CodecHEVC
	case 0x03, 0x04:
		return m4f.CodecMPEGAudio
	case 0x0f:
		return m4f.CodecAAC
	case 0x11:
		return m4f.CodecLATM
	case 0x81:
		return m4f.CodecAC3
	case 0x87:
		return m4f.CodecEAC3
	case 0x8a:
		return m4f.CodecDTS
	case 0x06:
		return privateCodec(desc)
	}
	if registered(program, formatHDMV) || registered(desc, formatHDMV) {
		return hdmvCodec(st)
	}
	switch st {
	case 0x82: // ffmpeg writes it without descriptors; in cable networks, SCTE 27 subtitles
		if isDTS(desc) || !registered(program, formatGA94, formatSCTE) && !registered(desc, formatGA94, formatSCTE) {
			return m4f.CodecDTS
		}
	case 0x85, 0x86: // also program identifiers, and SCTE 35
		if isDTS(desc) {
			return m4f.CodecDTS
		}
	case 0x90:
		return m4f.CodecALaw
	case 0x91:
		return m4f.CodecMuLaw
	}
	if slices.Contains(sectionTypes, st) {
		return m4f.CodecSections
	}
	return m4f.CodecData
}

// sectionTypes are the stream types of tables: of 13818-1, ATSC A/90 and SCTE.
var sectionTypes = []uint8{0x05, 0x0a, 0x0b, 0x0c, 0x0d, 0x13, 0x14, 0x16, 0x17, 0x18, 0x19, 0x82, 0x86, 0x95, 0xc0}

// hdmvCodec is what stream types mean on Blu-ray discs. LPCM, TrueHD and
// subtitles are data.
func hdmvCodec(st uint8) m4f.Codec {
	switch st {
	case 0x84, 0xa1:
		return m4f.CodecEAC3
	case 0x82, 0x85, 0x86, 0xa2:
		return m4f.CodecDTS
	}
	return m4f.CodecData
}

// privateCodec is the codec of private PES packets. The first descriptor that
// says it counts.
func privateCodec(desc []*astits.Descriptor) m4f.Codec {
	for k, d := range desc {
		one := desc[k : k+1]
		switch {
		case d.Tag == astits.DescriptorTagAC3 || registered(one, formatAC3):
			return m4f.CodecAC3
		case d.Tag == astits.DescriptorTagEnhancedAC3 || registered(one, formatEAC3):
			return m4f.CodecEAC3
		case isDTS(one):
			return m4f.CodecDTS
		case registered(one, formatOpus) || extended(d, extOpus):
			return m4f.CodecOpus
		case registered(one, formatHEVC):
			return m4f.CodecHEVC
		}
	}
	return m4f.CodecData
}

func isDTS(desc []*astits.Descriptor) bool {
	return registered(desc, formatDTS1, formatDTS2, formatDTS3, formatDTSH) ||
		slices.ContainsFunc(desc, func(d *astits.Descriptor) bool { return d.Tag == tagDTS || extended(d, extensionDTS) })
}

func extended(d *astits.Descriptor, tag uint8) bool {
	return d.Extension != nil && d.Extension.Tag == tag
}

// registered says whether a registration descriptor has one of the formats.
func registered(desc []*astits.Descriptor, formats ...uint32) bool {
	return slices.ContainsFunc(desc, func(d *astits.Descriptor) bool {
		return d.Registration != nil && slices.Contains(formats, d.Registration.FormatIdentifier)
	})
}

// largeTypes are the stream types of video that is carried as data: its PES
// packets may be of any length (13818-1 2.4.3.7). MPEG-4 part 2, auxiliary and
// layered video, stereoscopic views, JPEG 2000, layers of HEVC, JPEG XS, VVC,
// EVC, LCEVC, AVS, Dirac, AVS2, AVS3, VC-1.
var largeTypes = []uint8{0x10, 0x1e, 0x1f, 0x20, 0x21, 0x22, 0x23, 0x25, 0x28, 0x29, 0x2a, 0x2b, 0x31, 0x32, 0x33, 0x34, 0x35, 0x36,
	0x42, 0xd1, 0xd2, 0xd4, 0xea}

// large says whether a PES packet of the track may be as large as a picture.
func (t *Track) large() bool {
	return t.Kind == Video || t.Codec == m4f.CodecData && slices.Contains(largeTypes, t.StreamType)
}
