package mpegts

// pesHeader is what the header of a PES packet says (13818-1 2.4.3.6).
type pesHeader struct {
	length   int // of the packet behind its first 6 bytes; 0: unbounded
	size     int // bytes of the header
	dated    bool
	pts, dts int64
}

// pesState says what parsePES found.
type pesState int

const (
	pesGood  pesState = iota
	pesShort          // the header goes on behind the bytes at hand
	pesBad
)

// parsePES reads the header of a PES packet.
func parsePES(b []byte) (h pesHeader, _ pesState) {
	for k, want := range [...]byte{0, 0, 1} {
		if k < len(b) && b[k] != want {
			return h, pesBad
		}
	}
	if len(b) < 6 {
		return h, pesShort
	}
	h.length, h.size = int(b[4])<<8|int(b[5]), 6
	if !hasPESHeader(b[3]) {
		return h, pesGood
	}
	if len(b) < 9 {
		return h, pesShort
	}
	if b[6]&0xc0 != 0x80 {
		return h, pesBad
	}
	fields := int(b[8])
	h.size = 9 + fields
	if len(b) < h.size {
		return h, pesShort
	}
	if b[7]&0x80 != 0 && fields >= 5 {
		h.dated = true
		h.pts = timestamp(b[9:])
		h.dts = h.pts
		if b[7]&0x40 != 0 && fields >= 10 {
			h.dts = timestamp(b[14:])
		}
	}
	return h, pesGood
}

// payload is how many bytes follow the header; -1: it does not say. A length
// that does not hold the header itself is that of a picture of 64 KiB or more,
// cut to 16 bits.
func (h *pesHeader) payload() int {
	if h.length == 0 || h.length < h.size-6 {
		return -1
	}
	return h.length - (h.size - 6)
}

// hasPESHeader says whether a stream id has the optional header (table 2-21).
func hasPESHeader(id byte) bool {
	switch id {
	case 0xbc, 0xbe, 0xbf, 0xf0, 0xf1, 0xff, 0xf2, 0xf8:
		return false
	}
	return true
}

func timestamp(b []byte) int64 {
	return int64(b[0]>>1&7)<<30 | int64(b[1])<<22 | int64(b[2]>>1)<<15 | int64(b[3])<<7 | int64(b[4]>>1)
}
