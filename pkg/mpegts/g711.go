package mpegts

// g711Header is the header of units of G.711 (see m4f.TrackConfig.FrameHeader):
// what a transport stream carries has one channel and 8000 samples in a second.
var g711Header = []byte{1, 0, 0, 0x1f, 0x40}

// G711Header is the header that the sample entry of G.711 is made from.
func G711Header(channels uint8, rate uint32) []byte {
	return []byte{channels, byte(rate >> 24), byte(rate >> 16), byte(rate >> 8), byte(rate)}
}

// flushG711 hands out what a PES packet of G.711 holds: it has no frames.
func (d *Demuxer) flushG711(s *stream) {
	a := &s.audio
	a.held = 0
	b, blk := s.buf.take()
	if s.dated {
		a.rebase(s.pts)
	}
	if a.timed && len(b) > 0 {
		h := frameHeader{samples: len(b), rate: 8000, codec: s.t.Codec}
		u := Unit{Track: s.t, Dated: true, Marked: s.marked, Codec: h.codec, First: s.first, PES: s.pes, Data: b, Header: g711Header}
		u.PTS, u.Duration = a.step(int64(h.samples), int64(h.rate))
		u.DTS = u.PTS
		u.block = blk
		blk.Hold()
		d.h.Unit(&u)
	}
	if s.torn {
		a.lose()
	}
}
