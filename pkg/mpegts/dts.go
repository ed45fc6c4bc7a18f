package mpegts

import (
	"encoding/binary"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// Sync words of DTS (ETSI TS 102 114 5.3, 7.4.1), and how many bytes of a header
// are read.
const (
	dtsCore      = 0x7ffe8001
	dtsSubstream = 0x64582025
	dtsHeader    = 11
)

var dtsRates = [16]int{1: 8000, 2: 16000, 3: 32000, 6: 11025, 7: 22050, 8: 44100, 11: 12000, 12: 24000, 13: 48000}

// parseDTS reads the header of a core (ETSI TS 102 114 5.4.1) or of an extension
// substream (7.4.1).
func parseDTS(b []byte) (h frameHeader, _ headerState) {
	h.codec = m4f.CodecDTS
	sync := binary.BigEndian.Uint32(b)
	switch {
	case sync != dtsCore && sync != dtsSubstream:
		return h, headerNone
	case len(b) < dtsHeader:
		return h, headerShort
	case sync == dtsSubstream:
		return parseSubstream(b)
	}
	blocks := int(b[4]&1)<<6 | int(b[5]>>2)
	h.size = 1 + (int(b[5]&3)<<12 | int(b[6])<<4 | int(b[7]>>4))
	h.rate = dtsRates[b[8]>>2&15]
	h.samples = 32 * (blocks + 1)
	return h, found(blocks >= 5 && h.size >= 96 && h.rate > 0)
}

// parseSubstream reads the header of an extension substream. Its duration is
// among the static fields; where they are left out, 512 samples at 48 kHz.
func parseSubstream(b []byte) (h frameHeader, _ headerState) {
	h.codec, h.samples, h.rate = m4f.CodecDTS, 512, 48000
	h.part = 1 + int(b[5]>>6)
	h.joins = h.part > 1
	bits := binary.BigEndian.Uint64(b[3:]) << 18 // from bit 42 on
	header, size := 8, 16
	if bits>>63 != 0 {
		header, size = 12, 20
	}
	bits <<= 1
	least := 1 + int(bits>>(64-header))
	bits <<= header
	h.size = 1 + int(bits>>(64-size))
	bits <<= size
	if bits>>63 != 0 && bits>>61&3 != 3 {
		h.rate = [3]int{32000, 44100, 48000}[bits>>61&3]
		h.samples = 512 * (1 + int(bits>>58&7))
	}
	return h, found(h.size >= least && least >= dtsHeader-1)
}

// groupDTS returns the length of the access unit at the start of b: a core or an
// extension substream with the substreams of higher numbers behind it, and
// whether all of it is there. Which those are shows in the PES packet that it
// ends in: access units are not cut between their substreams.
func groupDTS(b []byte, h frameHeader) (int, bool) {
	size, last := h.size, h.part
	for size < len(b) {
		next, state := b[size:], headerShort
		var n frameHeader
		if len(next) >= headerLen {
			n, state = parseDTS(next)
		}
		if state == headerShort {
			return size, false
		}
		if state != headerGood || n.part <= last {
			break
		}
		size, last = size+n.size, n.part
	}
	return size, size <= len(b)
}
