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
	avcIDR, avcSEI, avcSPS, avcPPS, avcAUD      = 5, 6, 7, 8, 9
	hevcVPS, hevcSPS, hevcPPS, hevcAUD, hevcSEI = 32, 33, 34, 35, 39
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

// picture is what inspect learns of a picture beside its Unit.
type picture struct {
	next int  // offset of the picture that follows in the same bytes; 0: none
	tr   int  // MPEG-2: temporal_reference; -1: not known
	gop  bool // MPEG-2: a group of pictures begins
}

// inspect finds the first picture in u.Data, its NAL units, and whether it is a
// keyframe.
func inspect(u *Unit) picture {
	if u.Codec == m4f.CodecMPEG2Video {
		return inspectMPEG2(u)
	}
	return inspectNAL(u)
}

// nalKind is what a NAL unit means for where a picture begins (H.264 7.4.1.2.3,
// H.265 7.4.2.4.4).
type nalKind int

const (
	nalOther nalKind = iota
	nalLead          // comes ahead of a picture's slices only
	nalFirst         // the first slice of a picture
	nalSlice
)

func kindOf(c m4f.Codec, nal []byte) nalKind {
	if c == m4f.CodecH264 {
		switch t := nal[0] & 31; {
		case t >= avcSEI && t <= avcAUD:
			return nalLead
		case t >= 1 && t <= avcIDR:
			// first_mb_in_slice is 0: a single 1 bit.
			if (t <= 2 || t == avcIDR) && len(nal) > 1 && nal[1]&0x80 != 0 {
				return nalFirst
			}
			return nalSlice
		}
		return nalOther
	}
	switch t := nal[0] >> 1 & 63; {
	case t < hevcVPS && len(nal) > 2 && nal[1]&0xf8 == 0 && nal[0]&1 == 0 && nal[2]&0x80 != 0:
		return nalFirst
	case t < hevcVPS:
		return nalSlice
	case t <= hevcAUD || t == hevcSEI:
		return nalLead
	}
	return nalOther
}

func inspectNAL(u *Unit) picture {
	pic := picture{tr: -1}
	var types nalTypes
	slice := false
	nals := make([]m4f.Range, 0, 12)
	eachUnit(u.Data, func(off int, nal []byte) bool {
		switch k := kindOf(u.Codec, nal); {
		case slice && (k == nalLead || k == nalFirst):
			pic.next = off - len(startCode)
			return false
		case k >= nalFirst:
			slice = true
		}
		nals = append(nals, m4f.Range{Off: uint32(off), Len: uint32(len(nal))})
		types.add(u.Codec, nal)
		return true
	})
	u.NALs = nals
	u.Sets, u.Key = types.sets(), types.key(u.Codec)
	return pic
}

// nalTypes is what the types of a picture's NAL units say of it.
type nalTypes struct{ random, v, s, p bool }

func (t *nalTypes) add(c m4f.Codec, nal []byte) {
	switch ParameterSet(c, nal) {
	case 'V':
		t.v = true
	case 'S':
		t.s = true
	case 'P':
		t.p = true
	}
	if c == m4f.CodecHEVC {
		typ := nal[0] >> 1 & 63
		t.random = t.random || typ >= 16 && typ <= 21
	} else {
		typ := nal[0] & 31
		t.random = t.random || typ == avcIDR || typ == avcSEI && hasRecoveryPoint(nal)
	}
}

func (t *nalTypes) sets() bool { return t.v || t.s || t.p }

// key says whether the picture is a random access point with parameter sets.
func (t *nalTypes) key(c m4f.Codec) bool {
	return t.random && t.s && t.p && (t.v || c == m4f.CodecH264)
}

// beginsPicture says whether a picture begins with the bytes, rather than going
// on in them.
func beginsPicture(c m4f.Codec, b []byte) bool {
	for len(b) > len(startCode) && b[0] == 0 && b[2] == 0 { // leading zero bytes
		b = b[1:]
	}
	if len(b) <= len(startCode) || !bytes.HasPrefix(b, startCode) {
		return false
	}
	b = b[len(startCode):]
	if c == m4f.CodecMPEG2Video {
		return b[0] == mpegPicture || b[0] == mpegSequence || b[0] == mpegGroup
	}
	k := kindOf(c, b)
	return k == nalLead || k == nalFirst
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

// The start codes that matter here (H.262 table 6-1).
const (
	mpegPicture   = 0x00
	mpegLastSlice = 0xaf
	mpegSequence  = 0xb3
	mpegExtension = 0xb5
	mpegGroup     = 0xb8
)

// inspectMPEG2 finds the sequence header with its extensions (H.262 6.2.2) and
// the type of the first picture. The two fields of a frame are one picture.
func inspectMPEG2(u *Unit) picture {
	pic := picture{tr: -1}
	start, end := -1, -1
	fields, slice, intra := 0, false, false
	eachUnit(u.Data, func(off int, b []byte) bool {
		code := b[0]
		if start >= 0 && end < 0 && code != mpegExtension {
			end = off - len(startCode)
		}
		second := code == mpegPicture && fields == 1
		if slice && !second && (code == mpegPicture || code == mpegSequence || code == mpegGroup) {
			pic.next = off - len(startCode)
			return false
		}
		switch {
		case second:
			fields = 2
		case code == mpegSequence: // one that comes again replaces the first
			start, end = off-len(startCode), -1
		case code == mpegGroup:
			pic.gop = true
		case code == mpegPicture && len(b) >= 3: // coding type behind 10 bits
			pic.tr = int(b[1])<<2 | int(b[2]>>6)
			intra = b[2]>>3&7 == 1
		case code == mpegExtension && !slice && len(b) >= 4 && b[1]>>4 == 8 && b[3]&3 != 3:
			fields = 1 // picture_structure: a field (H.262 6.3.10)
		case code >= 1 && code <= mpegLastSlice:
			slice = true
		}
		return true
	})
	if start >= 0 {
		if end < 0 {
			end = len(u.Data)
		}
		u.Header = u.Data[start:end:end]
		u.Key = intra
	}
	return pic
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
