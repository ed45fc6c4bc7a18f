package testsrc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
)

// FrameUUID marks the SEI message that numbers a picture: user data
// unregistered (ISO/IEC 14496-10 D.1.7), whose payload is this UUID followed by
// "twindvr testsrc frame " and sixteen decimal digits.
var FrameUUID = [16]byte{0xb7, 0xa1, 0xc4, 0xe2, 0x5d, 0x3f, 0x4f, 0x68, 0x9c, 0x1e, 0x2f, 0x6d, 0x8a, 0x90, 0xe3, 0x7b}

const frameText = "twindvr testsrc frame "
const frameDigits = 16

// appendFrameSEI appends the SEI NAL unit with the number of a picture, start
// code included. No byte of it needs emulation prevention.
func appendFrameSEI(dst []byte, n uint64) []byte {
	const size = len(FrameUUID) + len(frameText) + frameDigits
	dst = append(dst, 0, 0, 0, 1, 6, 5, byte(size))
	dst = append(dst, FrameUUID[:]...)
	dst = fmt.Appendf(dst, "%s%0*d", frameText, frameDigits, n)
	return append(dst, 0x80)
}

// FrameNumbers returns the numbers of the pictures in b, in the order found: in
// access units, in whole H.264 elementary streams, in MP4 files, but not in a
// transport stream, whose packets cut the numbers apart. Pictures are numbered
// in decode order, from 0 at the start of the stream, without a gap or a
// repeat, also across loops and restarts.
func FrameNumbers(b []byte) []uint64 {
	mark := append(FrameUUID[:len(FrameUUID):len(FrameUUID)], frameText...)
	var list []uint64
	for {
		i := bytes.Index(b, mark)
		if i < 0 || len(b) < i+len(mark)+frameDigits {
			return list
		}
		b = b[i+len(mark):]
		if n, err := strconv.ParseUint(string(b[:frameDigits]), 10, 64); err == nil {
			list = append(list, n)
		}
	}
}

// fillType is the type of the NAL unit that fills a picture up: one that is left
// to applications (ISO/IEC 14496-10 table 7-1), follows the slices (7.4.1.2.3),
// and is passed over by decoders. Filler data (type 12) could hold nothing but
// equal bytes (7.3.2.7).
const fillType = 30

// minFill is the least that appendFill appends.
const minFill = 5 + 1

// appendFill appends a NAL unit of exactly n bytes, start code included, that
// decoders pass over; n is at least minFill. As coded pictures do, it looks like
// noise, another for each number: its packets are as unlike each other as those
// of an encoder. It goes behind the slices, as the bulk of a coded picture does
// behind its slice header: what is lost of it leaves the picture's type known.
func appendFill(dst []byte, n int, number uint64) []byte {
	dst = append(dst, 0, 0, 0, 1, fillType)
	for x, left := number, n-5; left > 0; left -= 8 {
		x += 0x9e3779b97f4a7c15 // splitmix64
		z := (x ^ x>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], z|0x0101010101010101) // no zeros: no emulation prevention
		dst = append(dst, b[:min(left, 8)]...)
	}
	return dst
}
