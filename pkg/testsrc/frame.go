package testsrc

import (
	"bytes"
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

// appendFiller appends a filler data NAL unit (type 12, ISO/IEC 14496-10
// 7.3.2.7) of exactly n bytes, start code included; n is at least minFiller.
func appendFiller(dst []byte, n int) []byte {
	dst = append(dst, 0, 0, 0, 1, 12)
	for range n - minFiller {
		dst = append(dst, 0xff)
	}
	return append(dst, 0x80)
}

const minFiller = 6
