package mpegts

import (
	"bytes"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// startCode opens every NAL unit and every MPEG-2 header (H.264 annex B,
// H.262 6.2.1).
var startCode = []byte{0, 0, 1}

// eachUnit calls fn for each stretch between start codes, without the start
// code and without trailing zero bytes, with its offset in b.
func eachUnit(b []byte, fn func(off int, unit []byte) bool) {
	pos := bytes.Index(b, startCode)
	for pos >= 0 {
		off := pos + 3
		next := bytes.Index(b[off:], startCode)
		end := len(b)
		if next >= 0 {
			end = off + next
		}
		unit := b[off:end]
		for len(unit) > 0 && unit[len(unit)-1] == 0 {
			unit = unit[:len(unit)-1]
		}
		if len(unit) > 0 && !fn(off, unit) {
			return
		}
		if next < 0 {
			return
		}
		pos = end
	}
}

// The NAL unit types that matter here: H.264 table 7-1, H.265 table 7-1.
const (
	avcIDR, avcSEI, avcSPS, avcPPS = 5, 6, 7, 8
	hevcVPS, hevcSPS, hevcPPS      = 32, 33, 34
)

// ParameterSet says which parameter set a NAL unit is: 'V', 'S', 'P', or 0.
func ParameterSet(c m4f.Codec, nal []byte) byte {
	if len(nal) == 0 {
		return 0
	}
	if c == m4f.CodecH264 {
		switch nal[0] & 31 {
		case avcSPS:
			return 'S'
		case avcPPS:
			return 'P'
		}
	}
	if c == m4f.CodecHEVC {
		switch nal[0] >> 1 & 63 {
		case hevcVPS:
			return 'V'
		case hevcSPS:
			return 'S'
		case hevcPPS:
			return 'P'
		}
	}
	return 0
}

// inspect finds a picture's NAL units and whether it is a keyframe.
func inspect(u *Unit) {
	switch u.Codec {
	case m4f.CodecMPEG2Video:
		inspectMPEG2(u)
	default:
		inspectNAL(u)
	}
}

func inspectNAL(u *Unit) {
	var random, s, p, v bool
	nals := make([]m4f.Range, 0, 12)
	eachUnit(u.Data, func(off int, nal []byte) bool {
		nals = append(nals, m4f.Range{Off: uint32(off), Len: uint32(len(nal))})
		switch ParameterSet(u.Codec, nal) {
		case 'V':
			v = true
		case 'S':
			s = true
		case 'P':
			p = true
		}
		if u.Codec == m4f.CodecHEVC {
			t := nal[0] >> 1 & 63
			random = random || t >= 16 && t <= 21
		} else {
			t := nal[0] & 31
			random = random || t == avcIDR || t == avcSEI && hasRecoveryPoint(nal)
		}
		return true
	})
	u.NALs = nals
	u.Sets = v || s || p
	u.Key = random && s && p && (v || u.Codec == m4f.CodecH264)
}

// hasRecoveryPoint looks for a recovery point message (H.264 D.1.8) in a SEI
// NAL unit.
func hasRecoveryPoint(nal []byte) bool {
	b := nal[1:]
	for len(b) > 2 && b[0] != 0x80 {
		typ, size := 0, 0
		for len(b) > 0 && b[0] == 0xff {
			typ, b = typ+255, b[1:]
		}
		if len(b) == 0 {
			return false
		}
		typ, b = typ+int(b[0]), b[1:]
		for len(b) > 0 && b[0] == 0xff {
			size, b = size+255, b[1:]
		}
		if len(b) == 0 {
			return false
		}
		size, b = size+int(b[0]), b[1:]
		if typ == 6 {
			return true
		}
		if size = escaped(b, size); size > len(b) {
			return false
		}
		b = b[size:]
	}
	return false
}

// escaped returns how many bytes of b hold n bytes of payload, counting the
// emulation prevention bytes among them (H.264 7.4.1).
func escaped(b []byte, n int) int {
	k, zeros := 0, 0
	for ; n > 0 && k < len(b); k++ {
		if zeros >= 2 && b[k] == 3 {
			zeros = 0
			continue
		}
		if b[k] == 0 {
			zeros++
		} else {
			zeros = 0
		}
		n--
	}
	return k + n
}

// inspectMPEG2 finds the sequence header with its extensions (H.262 6.2.2) and
// the type of the first picture.
func inspectMPEG2(u *Unit) {
	start, end := -1, -1
	intra := false
	eachUnit(u.Data, func(off int, b []byte) bool {
		switch {
		case b[0] == 0xb3:
			start, end = off-3, len(u.Data)
		case b[0] == 0x00: // picture_start_code; coding type behind 10 bits
			if start >= 0 && end == len(u.Data) {
				end = off - 3
			}
			intra = len(b) >= 3 && b[2]>>3&7 == 1
			return false
		case b[0] == 0xb8 && start >= 0 && end == len(u.Data): // group of pictures
			end = off - 3
		}
		return true
	})
	if start >= 0 {
		u.Header = u.Data[start:end:end]
		u.Key = intra
	}
}

// hasSlice says whether a picture's bytes hold the start of a slice.
func hasSlice(c m4f.Codec, b []byte) bool {
	found := false
	eachUnit(b, func(_ int, nal []byte) bool {
		switch c {
		case m4f.CodecH264:
			t := nal[0] & 31
			found = t >= 1 && t <= 5
		case m4f.CodecHEVC:
			found = nal[0]>>1&63 < 32
		default:
			found = nal[0] >= 1 && nal[0] <= 0xaf
		}
		return !found
	})
	return found
}
