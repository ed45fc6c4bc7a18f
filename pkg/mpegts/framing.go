package mpegts

import (
	"errors"
	"fmt"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// maxFramed is what the 13 bits of a length in ADTS and LOAS can say.
const maxFramed = 1<<13 - 1

// ErrFraming is wrapped by the errors of AppendADTS and AppendLOAS: the frame or
// its configuration cannot be said in that framing.
var ErrFraming = errors.New("no framing for this audio frame")

// AppendADTS appends a raw AAC frame behind an ADTS header (ISO/IEC 14496-3
// 1.A.2.2) without CRC, made of the track's AudioSpecificConfig. ADTS can say
// object types 1 to 4 with frames of 1024 samples, the sampling rates of the
// table, and the channel configurations 0 to 7; with 0 the frame itself says
// what its channels are. A frame that has such a header already, since it says
// something else than the track's configuration, keeps it: no raw frame begins
// with twelve bits of 1.
func AppendADTS(dst, asc, frame []byte) ([]byte, error) {
	if len(frame) >= headerLen && frame[0] == 0xff && frame[1]&0xf6 == 0xf0 {
		if h, ok := parseADTS(frame); ok && h.size == len(frame) {
			return append(dst, frame...), nil
		}
	}
	size := 7 + len(frame)
	if len(asc) < 2 || size > maxFramed {
		return dst, fmt.Errorf("%w: ADTS, %d bytes with configuration %x", ErrFraming, len(frame), asc)
	}
	object, rate, layout, short := asc[0]>>3, asc[0]&7<<1|asc[1]>>7, asc[1]>>3&15, asc[1]&4 != 0
	if object < 1 || object > 4 || adtsRates[rate] == 0 || layout > 7 || short {
		return dst, fmt.Errorf("%w: ADTS, configuration %x", ErrFraming, asc)
	}
	dst = append(dst, 0xff, 0xf1, (object-1)<<6|rate<<2|layout>>2,
		layout<<6|byte(size>>11), byte(size>>3), byte(size&7)<<5|0x1f, 0xfc)
	return append(dst, frame...), nil
}

// AppendLOAS appends a raw AAC frame as an AudioSyncStream element (ISO/IEC
// 14496-3 1.7.2) that carries its configuration, the track's
// AudioSpecificConfig, so that a decoder can begin with any frame.
func AppendLOAS(dst, asc, frame []byte) ([]byte, error) {
	c, ok := m4f.ParseAudioSpecificConfig(asc)
	if !ok {
		return dst, fmt.Errorf("%w: LATM, configuration %x", ErrFraming, asc)
	}
	head := len(dst)
	dst = append(dst, 0x56, 0xe0, 0)
	w := &bitAppender{b: dst}
	w.put(0, 1) // useSameStreamMux
	if c.Bits > 0 && (c.Bits+7)/8 >= len(asc) {
		w.put(0, 1) // audioMuxVersion: the configuration tells its own length
		w.muxHead()
		w.bits(asc, c.Bits)
	} else {
		w.put(1, 1)
		w.put(0, 1) // audioMuxVersionA
		w.value(0xff)
		w.muxHead()
		w.value(8 * len(asc))
		w.bits(asc, 8*len(asc))
	}
	w.put(0, 3)    // frameLengthType: the length stands ahead of the frame
	w.put(0xff, 8) // latmBufferFullness: not told
	w.put(0, 2)    // no other data, no CRC
	for n := len(frame); ; n -= 255 {
		w.put(uint32(min(n, 255)), 8)
		if n < 255 {
			break
		}
	}
	w.bits(frame, 8*len(frame))
	size := len(w.b) - head - 3
	if size > maxFramed {
		return dst[:head], fmt.Errorf("%w: LATM, %d bytes", ErrFraming, len(frame))
	}
	w.b[head+1] |= byte(size >> 8)
	w.b[head+2] = byte(size)
	return w.b, nil
}

// bitAppender appends bits to bytes, most significant first.
type bitAppender struct {
	b    []byte
	free int // bits left in the last byte
}

func (w *bitAppender) put(v uint32, n int) {
	for n > 0 {
		if w.free == 0 {
			w.b, w.free = append(w.b, 0), 8
		}
		k := min(n, w.free)
		w.free, n = w.free-k, n-k
		w.b[len(w.b)-1] |= byte(v>>n&(1<<k-1)) << w.free
	}
}

// bits appends the first n bits of p; those behind its end are 0.
func (w *bitAppender) bits(p []byte, n int) {
	for ; n >= 8 && len(p) > 0; n -= 8 {
		w.put(uint32(p[0]), 8)
		p = p[1:]
	}
	if n > 0 && len(p) > 0 {
		w.put(uint32(p[0])>>(8-n), n)
	}
}

// muxHead is one program of one layer, one frame in an element, all of the same
// time.
func (w *bitAppender) muxHead() { w.put(1<<13, 1+6+4+3) }

// value is a LatmGetValue (ISO/IEC 14496-3 1.7.3.1).
func (w *bitAppender) value(v int) {
	n := 1
	for n < 4 && v>>(8*n) != 0 {
		n++
	}
	w.put(uint32(n-1), 2)
	w.put(uint32(v), 8*n)
}
