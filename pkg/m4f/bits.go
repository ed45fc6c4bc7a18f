package m4f

// bitReader reads a header bit by bit, most significant first. Past the end it
// reads zeros and sets bad; no count read from it sizes an allocation or a loop
// without a bound.
type bitReader struct {
	b   []byte
	pos int // bits
	bad bool
}

// rbsp is a NAL unit's payload behind its header of n bytes, without emulation
// prevention bytes (ISO/IEC 14496-10 7.3.1). At most 4 KiB are looked at: more
// than any field read here can need.
func rbsp(nal []byte, n int) *bitReader {
	if len(nal) < n {
		return &bitReader{bad: true}
	}
	nal = nal[n:min(len(nal), 4096)]
	out := make([]byte, 0, len(nal))
	zeros := 0
	for _, c := range nal {
		if zeros >= 2 && c == 3 {
			zeros = 0
			continue
		}
		if c == 0 {
			zeros++
		} else {
			zeros = 0
		}
		out = append(out, c)
	}
	return &bitReader{b: out}
}

// u reads n bits, n ≤ 32.
func (r *bitReader) u(n int) uint32 {
	v := uint32(0)
	for ; n > 0; n-- {
		v <<= 1
		if i := r.pos >> 3; i < len(r.b) {
			v |= uint32(r.b[i]>>(7-r.pos&7)) & 1
		} else {
			r.bad = true
			return 0
		}
		r.pos++
	}
	return v
}

func (r *bitReader) flag() bool { return r.u(1) == 1 }

// skip passes over n bits.
func (r *bitReader) skip(n int) {
	r.pos += n
	if r.pos > 8*len(r.b) {
		r.pos, r.bad = 8*len(r.b), true
	}
}

// ue reads an unsigned Exp-Golomb code (ISO/IEC 14496-10 9.1).
func (r *bitReader) ue() uint32 {
	n := 0
	for !r.bad && !r.flag() {
		if n++; n > 31 {
			r.bad = true
		}
	}
	if r.bad {
		return 0
	}
	return 1<<n - 1 + r.u(n)
}

// se reads a signed Exp-Golomb code.
func (r *bitReader) se() int32 {
	v := r.ue()
	if v&1 == 1 {
		return int32(v/2 + 1)
	}
	return -int32(v / 2)
}
