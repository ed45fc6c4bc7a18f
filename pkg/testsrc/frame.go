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

// fillUUID marks the SEI message that fills a picture up.
var fillUUID = [16]byte{0x3d, 0x52, 0x7e, 0x91, 0x0f, 0xc8, 0x4b, 0x26, 0xae, 0x75, 0xd4, 0x18, 0x60, 0xbb, 0x93, 0xf2}

// minFill is the least that appendFill appends.
const minFill = 4 + 3 + len(fillUUID) + 1

// appendFill appends an SEI NAL unit (user data unregistered) of exactly n bytes,
// start code included, that decoders pass over; n is at least minFill. As coded
// pictures do, it looks like noise, another for each number: its packets are as
// unlike each other as those of an encoder.
func appendFill(dst []byte, n int, number uint64) []byte {
	size, code := seiSize(n), 4
	if size < 0 { // a start code of three bytes instead of four
		size, code = seiSize(n+1), 3
	}
	dst = append(dst, []byte{0, 0, 0, 1}[4-code:]...)
	dst = append(dst, 6, 5)
	left := size
	for ; left >= 255; left -= 255 {
		dst = append(dst, 255)
	}
	dst = append(dst, byte(left))
	dst = append(dst, fillUUID[:]...)
	for x, left := number, size-len(fillUUID); left > 0; left -= 8 {
		x += 0x9e3779b97f4a7c15 // splitmix64
		z := (x ^ x>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], z|0x0101010101010101) // no zeros: no emulation prevention
		dst = append(dst, b[:min(left, 8)]...)
	}
	return append(dst, 0x80)
}

// seiSize is the size of the payload of an SEI message that is alone in a NAL
// unit of n bytes, with a start code of four; -1: there is none.
func seiSize(n int) int {
	const around = 4 + 1 + 1 + 1 // start code, header, type, end
	for sizes := 1; sizes <= n/255+1; sizes++ {
		if size := n - around - sizes; size >= 0 && size/255+1 == sizes {
			return size
		}
	}
	return -1
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
