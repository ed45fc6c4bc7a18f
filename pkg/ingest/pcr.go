package ingest

// pcrWrap is the modulus of the program clock reference: a 33-bit base of
// 90 kHz, times 300 (ISO/IEC 13818-1 2.4.3.5). Its unit is 1/27 000 000 s.
const (
	pcrWrap   = 300 << 33
	pcrSecond = 27_000_000
)

// pcrMark is a program clock reference in a stream of bytes.
type pcrMark struct {
	off  int    // where its packet begins in the block, or 0 if before it
	pid  uint16 // of its packet
	pcr  int64  // 1/27 000 000 s
	jump bool   // discontinuity_indicator
}

// pcrScanner finds program clock references in a byte stream that comes in
// blocks cut anywhere, with packets of 188, 192 or 204 bytes. It passes over
// what is no transport stream.
type pcrScanner struct {
	size int // bytes from one packet to the next; 0: not synchronised
	at   int // offset of the next packet in the block; below 0: it began in the block before
	held int // then, of head the bytes already seen
	head [12]byte
}

// next returns the first mark at or past the scanner's place in the block.
// When there is none, the scanner stands ready for the block that follows.
func (s *pcrScanner) next(block []byte) (pcrMark, bool) {
	for {
		if s.size == 0 && !s.sync(block) {
			s.at = 0
			return pcrMark{}, false
		}
		if s.at >= len(block) {
			s.at -= len(block)
			return pcrMark{}, false
		}
		head, whole := s.header(block)
		if !whole {
			return pcrMark{}, false
		}
		off := max(s.at, 0)
		if head[0] != 0x47 {
			s.size, s.at = 0, off
			continue
		}
		s.at += s.size
		if m, ok := parsePCR(head); ok {
			m.off = off
			return m, true
		}
	}
}

// header returns the first bytes of the packet at s.at. It is false when they
// reach past the block; what is there is kept for the next.
func (s *pcrScanner) header(block []byte) (head []byte, whole bool) {
	if s.at >= 0 && s.at+len(s.head) <= len(block) {
		return block[s.at : s.at+len(s.head)], true
	}
	n := copy(s.head[s.held:], block[max(s.at, 0):])
	s.held += n
	if s.held < len(s.head) {
		s.at -= len(block)
		return nil, false
	}
	s.held = 0
	return s.head[:], true
}

// sync looks from s.at for three packets in a row.
func (s *pcrScanner) sync(block []byte) bool {
	s.held = 0
	for at := max(s.at, 0); at < len(block); at++ {
		if block[at] != 0x47 {
			continue
		}
		for _, size := range [...]int{188, 192, 204} {
			if at+2*size < len(block) && block[at+size] == 0x47 && block[at+2*size] == 0x47 {
				s.size, s.at = size, at
				return true
			}
		}
	}
	return false
}

// parsePCR reads the program clock reference of a packet, if it has one
// (ISO/IEC 13818-1 2.4.3.4), from its first 12 bytes.
func parsePCR(p []byte) (pcrMark, bool) {
	const errorBit, adaptation, discontinuity, pcrFlag = 0x80, 0x20, 0x80, 0x10
	if p[1]&errorBit != 0 || p[3]&adaptation == 0 || p[4] < 7 || p[5]&pcrFlag == 0 {
		return pcrMark{}, false
	}
	base := int64(p[6])<<25 | int64(p[7])<<17 | int64(p[8])<<9 | int64(p[9])<<1 | int64(p[10])>>7
	ext := int64(p[10]&1)<<8 | int64(p[11])
	return pcrMark{
		pid:  uint16(p[1]&0x1f)<<8 | uint16(p[2]),
		pcr:  base*300 + ext,
		jump: p[5]&discontinuity != 0,
	}, true
}
