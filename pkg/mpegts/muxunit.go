package mpegts

import (
	"encoding/binary"
	"errors"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// MuxFrame is a sample of an M4F segment whose time is on a Muxer's axis: any
// origin, unwrapped, the 33 bits of it those of the source.
type MuxFrame struct {
	PTS, DTS int64
	Duration uint32
	Key      bool
	Data     []byte
}

// Stream ids of PES packets (13818-1 table 2-22).
const (
	idVideo   = 0xe0
	idAudio   = 0xc0
	idPrivate = 0xbd
)

// PictureUnit makes the unit of a picture. H.264 and HEVC get their start codes
// back (annex B of each), ahead of everything an access unit delimiter where there
// is none (13818-1 2.14.1, 2.17.1), and a keyframe without parameter sets those of
// its track's configuration.
func PictureUnit(c *m4f.TrackConfig, f *MuxFrame) *MuxUnit {
	sets := 0
	for _, list := range [][][]byte{c.VPS, c.SPS, c.PPS} {
		for _, nal := range list {
			sets += len(nal) + 4
		}
	}
	b := make([]byte, 0, len(f.Data)+32+sets)
	b = append(b, PESHeader(idVideo, -1, f.PTS, f.DTS)...)
	if c.Codec == m4f.CodecMPEG2Video {
		b = append(b, f.Data...)
	} else {
		b = appendAnnexB(b, c, f)
	}
	return &MuxUnit{PID: c.PID, Data: b, Key: f.Key, Marks: []Mark{{len(b), f.DTS}}, Last: f.DTS}
}

// appendAnnexB turns NAL units behind their lengths into a byte stream.
func appendAnnexB(b []byte, c *m4f.TrackConfig, f *MuxFrame) []byte {
	delimiter := []byte{9, 0xf0}
	if c.Codec == m4f.CodecHEVC {
		delimiter = []byte{hevcAUD << 1, 1, 0x50}
	}
	nal, rest := nextNAL(f.Data)
	if isDelimiter(c.Codec, nal) {
		delimiter = nal
	} else {
		rest = f.Data
	}
	b = appendNAL(b, delimiter, true)
	if f.Key && !holdsSet(c.Codec, f.Data) {
		for _, list := range [][][]byte{c.VPS, c.SPS, c.PPS} {
			for _, set := range list {
				b = appendNAL(b, set, true)
			}
		}
	}
	for len(rest) > 0 {
		nal, rest = nextNAL(rest)
		b = appendNAL(b, nal, ParameterSet(c.Codec, nal) != 0)
	}
	return b
}

// appendNAL adds a NAL unit behind its start code, with the zero_byte of those
// that want it (H.264 B.1.2, H.265 B.2.2).
func appendNAL(b, nal []byte, zero bool) []byte {
	if len(nal) == 0 {
		return b
	}
	if zero {
		b = append(b, 0)
	}
	return append(append(b, startCode...), nal...)
}

// nextNAL splits the first NAL unit off a sample; one that is cut is all there
// is.
func nextNAL(b []byte) (nal, rest []byte) {
	if len(b) < 4 {
		return nil, nil
	}
	n := uint64(binary.BigEndian.Uint32(b))
	b = b[4:]
	if n > uint64(len(b)) {
		return b, nil
	}
	return b[:n], b[n:]
}

func isDelimiter(c m4f.Codec, nal []byte) bool {
	switch {
	case len(nal) == 0:
		return false
	case c == m4f.CodecHEVC:
		return nal[0]>>1&63 == hevcAUD
	}
	return nal[0]&31 == avcAUD
}

// holdsSet says whether a sample holds a sequence parameter set.
func holdsSet(c m4f.Codec, b []byte) bool {
	var nal []byte
	for len(b) > 0 {
		if nal, b = nextNAL(b); ParameterSet(c, nal) == 'S' {
			return true
		}
	}
	return false
}

// DataUnit makes the unit of a PES packet or section of a data stream, which goes
// as it is.
func DataUnit(c *m4f.TrackConfig, f *MuxFrame) *MuxUnit {
	u := &MuxUnit{PID: c.PID, Data: f.Data, Section: c.Codec == m4f.CodecSections, Last: f.PTS, Pinned: true}
	if h, state := parsePES(f.Data); !u.Section && state == pesGood && h.dated && h.pts == f.PTS&mask33 {
		u.Pinned = false
	}
	u.Marks = []Mark{{len(u.Data), f.PTS}}
	return u
}

// How much sound a PES packet holds at most.
const (
	maxPESTime  = 9000 // ticks
	maxPESBytes = 16*packetPayload - 14
	maxPESFrame = 0xffff - 8
)

// FrameUnits makes the units of a track's audio frames: those that follow each
// other to the tick share a PES packet, so that a receiver that counts from its
// PTS gives each frame the PTS that it has here. A frame that cut tells of is
// the last of its packet. left is how many frames its framing could not hold.
func FrameUnits(t *m4f.TrackInfo, frames []MuxFrame, cut func(pts int64) bool) (units []*MuxUnit, left int) {
	var p framePacker
	p.track = t
	for k := range frames {
		f := &frames[k]
		at := len(p.buf)
		b, err := appendFrame(p.buf, t, f)
		if err != nil {
			left++
			continue
		}
		size := b[at:]
		samples, rate := lengthOf(t, size)
		if at > 0 && !p.follows(f, len(size), samples, rate) {
			rest := append([]byte(nil), size...)
			p.buf = b[:at]
			units = p.flush(units)
			b = rest
		}
		p.add(f, b, samples, rate)
		if cut != nil && cut(f.PTS) {
			units = p.flush(units)
		}
	}
	return p.flush(units), left
}

// appendFrame adds a frame as its stream carries it.
func appendFrame(b []byte, t *m4f.TrackInfo, f *MuxFrame) ([]byte, error) {
	c := &t.Config
	switch {
	case len(f.Data) == 0:
		return b, errors.New("an empty frame")
	case c.Codec == m4f.CodecAAC, c.Codec == m4f.CodecLATM && c.StreamType == 0x0f:
		at := len(b)
		b, err := AppendADTS(b, t.DecoderConfig, f.Data)
		if asc, ok := m4f.ParseAudioSpecificConfig(t.DecoderConfig); ok && err == nil {
			blocks := (int64(f.Duration)*int64(asc.Rate)/m4f.Timescale + 512) / 1024
			b[at+6] |= byte(min(max(blocks-1, 0), 3))
		}
		return b, err
	case c.Codec == m4f.CodecLATM:
		return AppendLOAS(b, t.DecoderConfig, f.Data)
	case c.Codec == m4f.CodecOpus:
		b = append(b, 0x7f, 0xe0)
		n := len(f.Data)
		for ; n >= 255; n -= 255 {
			b = append(b, 255)
		}
		b = append(b, byte(n))
	}
	return append(b, f.Data...), nil
}

// lengthOf is the length in time of a frame as its stream carries it; 0: not
// known.
func lengthOf(t *m4f.TrackInfo, b []byte) (samples, rate int64) {
	switch t.Config.Codec {
	case m4f.CodecALaw, m4f.CodecMuLaw:
		return 0, 0
	case m4f.CodecLATM:
		if asc, ok := m4f.ParseAudioSpecificConfig(t.DecoderConfig); ok {
			return int64(asc.Samples), int64(asc.Rate)
		}
		return 0, 0
	}
	h, state := parseFrame(t.Config.Codec, b)
	if state != headerGood || h.size > len(b) {
		return 0, 0
	}
	return int64(h.samples), int64(h.rate)
}

// framePacker collects the frames of a PES packet.
type framePacker struct {
	track      *m4f.TrackInfo
	buf        []byte
	marks      []Mark
	base, last int64 // PTS of the first and the last frame
	n, rate    int64 // samples since base
}

// follows says whether a frame may go behind those collected.
func (p *framePacker) follows(f *MuxFrame, size int, samples, rate int64) bool {
	return samples > 0 && rate > 0 && rate == p.rate &&
		f.PTS == p.base+p.n*m4f.Timescale/p.rate &&
		f.PTS-p.base < maxPESTime && len(p.buf)+size <= maxPESBytes
}

func (p *framePacker) add(f *MuxFrame, b []byte, samples, rate int64) {
	if len(p.buf) == 0 {
		p.base, p.n, p.rate = f.PTS, 0, rate
	}
	p.buf = b
	p.last = f.PTS
	p.n += samples
	p.marks = append(p.marks, Mark{len(b), f.PTS})
}

// flush makes a PES packet of what is collected, or several of one frame that is
// too large for a length field.
func (p *framePacker) flush(units []*MuxUnit) []*MuxUnit {
	if len(p.buf) == 0 {
		return units
	}
	c := &p.track.Config
	id := byte(idPrivate)
	switch c.Codec {
	case m4f.CodecAAC, m4f.CodecMPEGAudio, m4f.CodecLATM:
		id = idAudio
	}
	head := PESHeader(id, min(len(p.buf), maxPESFrame), p.base, p.base)
	u := &MuxUnit{PID: c.PID, Data: make([]byte, 0, len(head)+len(p.buf)), Marks: p.marks, Last: p.last}
	u.Data = append(append(u.Data, head...), p.buf[:min(len(p.buf), maxPESFrame)]...)
	for k := range u.Marks {
		u.Marks[k].End = min(u.Marks[k].End+len(head), len(u.Data))
	}
	units = append(units, u)
	for rest := p.buf[min(len(p.buf), maxPESFrame):]; len(rest) > 0; {
		n := min(len(rest), maxPESFrame)
		h := []byte{0, 0, 1, id, byte((n + 3) >> 8), byte(n + 3), 0x80, 0, 0}
		more := append(h, rest[:n]...)
		units = append(units, &MuxUnit{PID: c.PID, Data: more, Marks: []Mark{{len(more), p.last}}, Last: p.last})
		rest = rest[n:]
	}
	p.buf, p.marks = p.buf[:0], nil
	return units
}
