package mpegts

import "github.com/twindvr/twindvr/pkg/m4f"

// NewPicture returns the unit of one picture of H.264 or HEVC that did not come
// in a transport stream: its NAL units without start codes, in their order,
// copied; times of 90 kHz. Parameter sets that the source tells apart from its
// pictures belong ahead of each keyframe. It is no unit, and false, when there
// is no NAL unit in it.
func NewPicture(t *Track, pts, dts int64, nals [][]byte) (Unit, bool) {
	n := 0
	for _, nal := range nals {
		n += len(startCode) + len(nal)
	}
	b := make([]byte, 0, n)
	for _, nal := range nals {
		if len(nal) > 0 {
			b = append(append(b, startCode...), nal...)
		}
	}
	u := Unit{Track: t, PTS: pts & mask33, DTS: dts & mask33, Dated: true, Codec: t.Codec, Data: b}
	if len(b) == 0 {
		return Unit{}, false
	}
	inspectNAL(&u)
	return u, true
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
func NewProgram(number, pcrPID uint16, tracks []Track) *Program {
	p := &Program{Number: number, PCRPID: pcrPID, Tracks: tracks}
	for k := range tracks {
		tracks[k].Kind = kindOfCodec(tracks[k].Codec)
	}
	p.sortTracks()
	return p
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
