package mpegts

import "github.com/twindvr/twindvr/pkg/m4f"

// NewPicture returns the unit of one picture of H.264 or HEVC that did not come
// in a transport stream: its NAL units without start codes, in their order,
// copied; times of 90 kHz. All of them are one unit, whatever they hold. What
// a source tells apart from its pictures, their parameter sets, belongs ahead
// of each keyframe: one without its own is no keyframe here. It is no unit, and
// false, when there is no NAL unit in it.
func NewPicture(t *Track, pts, dts int64, nals [][]byte) (Unit, bool) {
	n := 0
	for _, nal := range nals {
		n += len(startCode) + len(nal)
	}
	u := Unit{Track: t, PTS: pts & mask33, DTS: dts & mask33, Dated: true, Codec: t.Codec}
	var types nalTypes
	b := make([]byte, 0, n)
	for _, nal := range nals {
		// Zero bytes behind a NAL unit are no part of it (H.264 annex B).
		for len(nal) > 0 && nal[len(nal)-1] == 0 {
			nal = nal[:len(nal)-1]
		}
		if len(nal) == 0 {
			continue
		}
		b = append(b, startCode...)
		u.NALs = append(u.NALs, m4f.Range{Off: uint32(len(b)), Len: uint32(len(nal))})
		b = append(b, nal...)
		types.add(t.Codec, nal)
	}
	u.Data = b
	u.Sets, u.Key = types.sets(), types.key(t.Codec)
	return u, len(u.NALs) > 0
}

// NewFrame returns the unit of one audio frame that did not come in a transport
// stream: its bytes as a sample holds them, kept; the header that the codec's
// sample entry is made from (see m4f.TrackConfig.FrameHeader); time and duration
// of 90 kHz.
func NewFrame(t *Track, pts, duration int64, header, data []byte) Unit {
	return Unit{Track: t, PTS: pts & mask33, DTS: pts & mask33, Dated: true, Codec: t.Codec, Duration: duration, Header: header, Data: data}
}

// NewProgram returns a program map of the tracks of a source that is no
// transport stream: their codecs, PIDs, stream types and descriptors are given.
// It puts them in order; units name those of the map that it returns.
func NewProgram(number, pcrPID uint16, tracks []Track) *Program {
	p := &Program{Number: number, PCRPID: pcrPID, Tracks: tracks}
	for k := range tracks {
		tracks[k].Kind = kindOfCodec(tracks[k].Codec)
	}
	p.sortTracks()
	return p
}

// Track returns the track with a PID, or nil.
func (p *Program) Track(pid uint16) *Track {
	for k := range p.Tracks {
		if p.Tracks[k].PID == pid {
			return &p.Tracks[k]
		}
	}
	return nil
}

func kindOfCodec(c m4f.Codec) Kind {
	switch {
	case c.IsVideo():
		return Video
	case c.IsAudio():
		return Audio
	}
	return Data
}
