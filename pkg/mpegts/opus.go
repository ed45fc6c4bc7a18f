package mpegts

import "github.com/twindvr/twindvr/pkg/m4f"

// opusRate is the clock that the length of Opus packets is told in.
const opusRate = 48000

// OpusDescriptors are the descriptors that say in a program map that private
// data are Opus of so many channels, 1 to 8: a registration and the Opus audio
// descriptor.
func OpusDescriptors(channels int) []byte {
	return []byte{0x05, 4, 'O', 'p', 'u', 's', 0x7f, 2, extOpus, byte(min(max(channels, 1), 8))}
}

// OpusSamples is the length of an Opus packet (RFC 6716 3.1) in samples at 48
// kHz; 0: it is none.
func OpusSamples(packet []byte) int {
	if len(packet) == 0 {
		return 0
	}
	config, count := int(packet[0]>>3), 1
	switch packet[0] & 3 {
	case 1, 2:
		count = 2
	case 3:
		if len(packet) < 2 {
			return 0
		}
		count = int(packet[1] & 63)
	}
	size := 120 << (config & 3)
	switch {
	case config < 12:
		size = [4]int{480, 960, 1920, 2880}[config&3]
	case config < 16:
		size = 480 << (config & 1)
	}
	if n := count * size; n <= 5760 {
		return n
	}
	return 0
}

// parseOpus reads the control header ahead of an Opus packet (Opus in MPEG-2
// transport streams, 4.1): a prefix of eleven bits, flags, the packet's length, and
// by the flags how much to leave out at its ends and an extension.
func parseOpus(b []byte) (h frameHeader, _ headerState) {
	if len(b) >= 1 && b[0] != 0x7f || len(b) >= 2 && b[1]&0xe0 != 0xe0 {
		return h, headerNone
	}
	size, pos := 0, 2
	for {
		if pos >= len(b) {
			return h, headerShort
		}
		size += int(b[pos])
		pos++
		if b[pos-1] != 0xff {
			break
		}
		if size > maxOther {
			return h, headerNone
		}
	}
	flags := b[1]
	pos += 2*int(flags>>4&1) + 2*int(flags>>3&1)
	if flags&4 != 0 {
		if pos >= len(b) {
			return h, headerShort
		}
		pos += 1 + int(b[pos])
	}
	if pos+min(size, 2) > len(b) { // what its length is told in
		return h, headerShort
	}
	h = frameHeader{size: pos + size, strip: pos, rate: opusRate, codec: m4f.CodecOpus}
	h.samples = OpusSamples(b[pos:min(pos+size, len(b))])
	return h, found(h.samples > 0)
}
