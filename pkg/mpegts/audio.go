package mpegts

import "github.com/twindvr/twindvr/pkg/m4f"

// frameHeader is what an audio frame's own header says of it.
type frameHeader struct {
	size    int // bytes in all
	strip   int // bytes of framing that a sample does not hold (ADTS, Opus)
	samples int // 0: in the frame (LATM)
	rate    int // Hz
	codec   m4f.Codec
	joins   bool // belongs to the frame before it (E-AC-3 substreams)
	part    int  // DTS: 0 a core, from 1 an extension substream
}

// headerState says what parseFrame found.
type headerState int

const (
	headerNone headerState = iota
	headerGood
	headerShort // the header goes on behind the bytes at hand
)

func found(ok bool) headerState {
	if ok {
		return headerGood
	}
	return headerNone
}

// headerLen is how many bytes parseFrame wants to see at least of all but Opus.
const headerLen = 8

// parseFrame reads the frame header at the start of b. The track's codec
// chooses the family; within MPEG audio the layer bits tell AAC in ADTS from
// layers 1 to 3.
func parseFrame(c m4f.Codec, b []byte) (h frameHeader, _ headerState) {
	if c == m4f.CodecOpus {
		return parseOpus(b)
	}
	if len(b) < headerLen {
		return h, headerShort
	}
	ok := false
	switch {
	case c == m4f.CodecAC3 || c == m4f.CodecEAC3:
		h, ok = parseAC3(b)
	case c == m4f.CodecDTS:
		return parseDTS(b)
	case c == m4f.CodecLATM:
		h, ok = parseLOAS(b)
	case b[0] != 0xff:
	case b[1]&0xf6 == 0xf0:
		h, ok = parseADTS(b)
	default:
		h, ok = parseMPA(b)
	}
	return h, found(ok)
}

var adtsRates = [16]int{96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350}

// parseADTS reads an ADTS header (ISO/IEC 14496-3 1.A.2.2).
func parseADTS(b []byte) (frameHeader, bool) {
	h := frameHeader{
		size:    int(b[3]&3)<<11 | int(b[4])<<3 | int(b[5]>>5),
		strip:   7,
		rate:    adtsRates[b[2]>>2&15],
		samples: 1024 * (1 + int(b[6]&3)),
		codec:   m4f.CodecAAC,
	}
	if b[1]&1 == 0 {
		h.strip = 9
	}
	return h, h.rate > 0 && h.size > h.strip
}

// Bit rates in kbit/s by [MPEG-1?][layer][index] (ISO/IEC 11172-3 2.4.2.3,
// 13818-3 2.4.2.3).
var (
	mpaRates1 = [3][16]int{
		{0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448},
		{0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384},
		{0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320},
	}
	mpaRates2 = [3][16]int{
		{0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256},
		{0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160},
		{0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160},
	}
)

func parseMPA(b []byte) (frameHeader, bool) {
	h := frameHeader{codec: m4f.CodecMPEGAudio}
	if b[1]&0xe0 != 0xe0 {
		return h, false
	}
	version, layer := b[1]>>3&3, 4-int(b[1]>>1&3)
	rateIndex := b[2] >> 2 & 3
	if version == 1 || layer == 4 || rateIndex == 3 {
		return h, false
	}
	h.rate = [3]int{44100, 48000, 32000}[rateIndex]
	kbps := mpaRates1[layer-1][b[2]>>4]
	switch version {
	case 2:
		h.rate /= 2
	case 0:
		h.rate /= 4
	}
	if version != 3 {
		kbps = mpaRates2[layer-1][b[2]>>4]
	}
	if kbps == 0 {
		return h, false
	}
	pad := int(b[2] >> 1 & 1)
	switch {
	case layer == 1:
		h.samples = 384
		h.size = (12*kbps*1000/h.rate + pad) * 4
	case layer == 3 && version != 3:
		h.samples = 576
		h.size = 72*kbps*1000/h.rate + pad
	default:
		h.samples = 1152
		h.size = 144*kbps*1000/h.rate + pad
	}
	return h, true
}

var ac3Rates = [19]int{32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640}

// parseAC3 reads a syncframe of AC-3 or E-AC-3 (ETSI TS 102 366 4.3, E.1.2).
func parseAC3(b []byte) (frameHeader, bool) {
	h := frameHeader{codec: m4f.CodecAC3, samples: 1536}
	if b[0] != 0x0b || b[1] != 0x77 {
		return h, false
	}
	fscod := b[4] >> 6
	if bsid := b[5] >> 3; bsid <= 10 {
		code := int(b[4] & 63)
		if fscod == 3 || code >= 38 {
			return h, false
		}
		h.rate = [3]int{48000, 44100, 32000}[fscod]
		kbps := ac3Rates[code/2]
		words := kbps * 2 // 48 kHz
		switch fscod {
		case 1:
			words = kbps*1000*1536/44100/16 + code&1
		case 2:
			words = kbps * 3
		}
		h.size = 2 * words
		return h, true
	} else if bsid > 16 {
		return h, false
	}
	h.codec = m4f.CodecEAC3
	h.size = 2 * (1 + (int(b[2]&7)<<8 | int(b[3])))
	blocks := 6
	if fscod == 3 {
		half := b[4] >> 4 & 3
		if half == 3 {
			return h, false
		}
		h.rate = [3]int{24000, 22050, 16000}[half]
	} else {
		h.rate = [3]int{48000, 44100, 32000}[fscod]
		blocks = [4]int{1, 2, 3, 6}[b[4]>>4&3]
	}
	h.samples = 256 * blocks
	h.joins = b[2]>>6 == 1 || b[2]>>3&7 != 0
	return h, h.size >= headerLen
}

// audioState is what an audio track carries from one PES packet to the next.
type audioState struct {
	left   []byte // a frame begun in the last PES packet
	first  int64  // packet in which it began
	held   int    // how much of the arena's unit is left
	base   int64  // time of sample 0 of the count below
	n      int64  // samples since
	rate   int64  // ... of so many in a second
	timed  bool   // base and n hold
	synced bool   // the next byte opens a frame
	latm   latm
}

func (a *audioState) lose() {
	a.left = a.left[:0]
	a.timed, a.synced = false, false
	a.latm.forget()
}

// rebase counts time from a PES packet's on.
func (a *audioState) rebase(pts int64) { a.base, a.n, a.timed = pts, 0, true }

// step returns the time of a frame of so many samples, and goes past it.
func (a *audioState) step(samples, rate int64) (pts, duration int64) {
	if a.rate != rate {
		if a.rate > 0 {
			a.base += a.n * m4f.Timescale / a.rate
		}
		a.n, a.rate = 0, rate
	}
	pts = (a.base + a.n*m4f.Timescale/rate) & mask33
	a.n += samples
	return pts, samples * m4f.Timescale / rate
}

// flushAudio cuts the frames out of a PES packet. The first frame that begins
// in it has its PTS (13818-1 2.4.3.7); a frame begun before has the time that
// follows from the one before.
func (d *Demuxer) flushAudio(s *stream) {
	a := &s.audio
	held := a.held
	a.held = 0
	b, blk := s.buf.take()
	begun := a.first
	a.left = a.left[:0]
	pos, rebased := 0, false
	for pos < len(b) {
		if pos >= held && !rebased {
			rebased, begun = true, s.first
			if s.dated {
				a.rebase(s.pts)
			}
		}
		h, state := parseFrame(s.t.Codec, b[pos:])
		if state == headerShort {
			break
		}
		if state == headerNone || !a.synced && !confirmed(s.t.Codec, b, pos, held, h) {
			if a.synced {
				// Frames lie end to end: bytes are missing that the
				// continuity counter did not tell of.
				d.audioLoss(s)
			}
			pos++
			continue
		}
		size, whole := group(s.t.Codec, b[pos:], h)
		if !whole {
			break
		}
		a.synced = true
		if h.codec == m4f.CodecLATM {
			d.flushLATM(s, b[pos:pos+size:pos+size], blk, begun)
		} else if a.timed {
			d.emitFrame(s, h, b[pos:pos+size:pos+size], blk, begun)
		}
		pos += size
	}
	if s.torn {
		a.lose()
		return
	}
	if pos < len(b) {
		a.left = append(a.left, b[pos:]...)
		a.first = begun
	}
}

// audioLoss takes note of bytes missing between frames or of a frame.
func (d *Demuxer) audioLoss(s *stream) {
	d.h.Loss(Loss{Track: s.t, Lost: 1, LastPTS: s.headPTS, Dated: s.headDated, PES: s.pes, Before: s.first})
	s.marked, s.audio.synced = true, false
}

// emitFrame hands out a frame whose header says all of it.
func (d *Demuxer) emitFrame(s *stream, h frameHeader, frame []byte, blk *Block, begun int64) {
	u := Unit{Track: s.t, Dated: true, Marked: s.marked, Codec: h.codec, First: begun, PES: s.pes}
	u.PTS, u.Duration = s.audio.step(int64(h.samples), int64(h.rate))
	u.DTS = u.PTS
	u.Data, u.Header = frame[h.strip:], frame[:min(len(frame), 64)]
	u.block = blk
	blk.Hold()
	d.h.Unit(&u)
}

// confirmed says whether a header found by searching is believed: it opens the
// PES payload, or another frame or the end follows it.
func confirmed(c m4f.Codec, b []byte, pos, held int, h frameHeader) bool {
	next := pos + h.size
	if pos == held || next >= len(b) {
		return true
	}
	_, state := parseFrame(c, b[next:])
	return state != headerNone // where it is cut, told when more has come, or by the end
}

// maxSubstreams is how many syncframes an E-AC-3 frame has at most: eight
// programs with eight dependent substreams each (TS 102 366 E.1.3.1.2).
const maxSubstreams = 72

// group returns the length of the frame at the start of b together with the
// substreams that belong to it, and whether all of it is there.
func group(c m4f.Codec, b []byte, h frameHeader) (int, bool) {
	if c == m4f.CodecDTS {
		return groupDTS(b, h)
	}
	size := h.size
	for n := 1; n < maxSubstreams && size < len(b) && h.codec == m4f.CodecEAC3; n++ {
		next, state := parseFrame(c, b[size:])
		if state != headerGood || !next.joins {
			break
		}
		size += next.size
	}
	return size, size <= len(b)
}
