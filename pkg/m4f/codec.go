package m4f

import "fmt"

// Codec says how an elementary stream is coded and carried.
type Codec uint8

// The codecs of M4F. Their numbers are part of the format (the track box).
const (
	CodecH264       Codec = 1 // ISO/IEC 14496-10; avc1, avc3
	CodecHEVC       Codec = 2 // ISO/IEC 23008-2; hvc1, hev1
	CodecMPEG2Video Codec = 3 // ISO/IEC 13818-2 and 11172-2; mp4v
	CodecAAC        Codec = 4 // ISO/IEC 14496-3 from ADTS; mp4a
	CodecMPEGAudio  Codec = 5 // ISO/IEC 13818-3 and 11172-3; mp4a
	CodecAC3        Codec = 6 // ETSI TS 102 366; ac-3
	CodecEAC3       Codec = 7 // ETSI TS 102 366 annex E; ec-3
	CodecData       Codec = 8 // whole PES packets; urim
	CodecSections   Codec = 9 // whole sections; urim

	// CodecLATM is raw AAC frames (ISO/IEC 14496-3) whose configuration is an
	// AudioSpecificConfig: from LATM, RTP or MP4; mp4a.
	CodecLATM  Codec = 10
	CodecDTS   Codec = 11 // ETSI TS 102 114; dtsc, dtsh, dtsl, dtse
	CodecOpus  Codec = 12 // RFC 6716, packets without control header; Opus
	CodecALaw  Codec = 13 // ITU-T G.711; alaw
	CodecMuLaw Codec = 14 // ITU-T G.711; ulaw
)

var codecNames = [...]string{
	CodecH264: "h264", CodecHEVC: "hevc", CodecMPEG2Video: "mpeg2video", CodecAAC: "aac",
	CodecMPEGAudio: "mpegaudio", CodecAC3: "ac3", CodecEAC3: "eac3", CodecData: "data", CodecSections: "sections",
	CodecLATM: "latm", CodecDTS: "dts", CodecOpus: "opus", CodecALaw: "alaw", CodecMuLaw: "mulaw",
}

// String returns a short lower-case name.
func (c Codec) String() string {
	if c.Valid() {
		return codecNames[c]
	}
	return fmt.Sprintf("codec-%d", uint8(c))
}

// Valid says whether c is a codec of this format.
func (c Codec) Valid() bool { return c >= CodecH264 && c <= CodecMuLaw }

// IsVideo says whether c is a video codec.
func (c Codec) IsVideo() bool { return c >= CodecH264 && c <= CodecMPEG2Video }

// IsAudio says whether c is an audio codec.
func (c Codec) IsAudio() bool {
	return c >= CodecAAC && c <= CodecEAC3 || c >= CodecLATM && c <= CodecMuLaw
}

// IsData says whether samples of c are carried whole in a timed-metadata track.
func (c Codec) IsData() bool { return c == CodecData || c == CodecSections }

// TrackConfig is what an init segment says of one elementary stream.
type TrackConfig struct {
	PID         uint16 // 13 bits
	StreamType  uint8  // of the PMT, ISO/IEC 13818-1 table 2-34
	Descriptors []byte // raw ES descriptors of the PMT, at most 1023 bytes
	Codec       Codec

	// VPS, SPS and PPS are the parameter sets of H.264 and HEVC: NAL units
	// without start codes. At most 31 SPS and 255 PPS of 65535 bytes each fit
	// an init segment; those beyond are left out, so a segment with more must
	// keep them in its samples (InBand).
	VPS, SPS, PPS [][]byte
	// InBand says that parameter sets change inside the segment and are kept
	// in its samples: avc3, hev1.
	InBand bool
	// SequenceHeader is the sequence header of MPEG-1 and MPEG-2 video with
	// its extensions as in the stream, start codes included.
	SequenceHeader []byte
	// FrameHeader says how the first audio frame of the segment is coded. Nil
	// gives the generic sample entry of the codec. It is the first bytes of the
	// frame, up to 64 (of CodecAAC with its ADTS header), but for
	//   - CodecLATM, the AudioSpecificConfig (ISO/IEC 14496-3 1.6.2.1);
	//   - CodecOpus, whose configuration is in Descriptors: anything;
	//   - CodecALaw and CodecMuLaw, the number of channels in 1 byte and the
	//     sampling rate in Hz in 4 bytes, big-endian.
	FrameHeader []byte
}

// language is the ISO 639-2 code of the first descriptor that carries one, or
// "und".
func (c *TrackConfig) language() string {
	for d := c.Descriptors; len(d) >= 2 && len(d) >= 2+int(d[1]); d = d[2+int(d[1]):] {
		switch d[0] {
		case 0x0A, 0x56, 0x59: // ISO_639_language, teletext, subtitling
			if d[1] >= 3 {
				if l, ok := languageCode(d[2:5]); ok {
					return l
				}
			}
		}
	}
	return "und"
}

func languageCode(b []byte) (string, bool) {
	var l [3]byte
	for i, c := range b[:3] {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c < 'a' || c > 'z' {
			return "", false
		}
		l[i] = c
	}
	return string(l[:]), true
}
