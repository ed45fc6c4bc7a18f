package mpegts

// framer finds 188-byte packets in a byte stream whose packets are 188, 192
// (a 4-byte time ahead, Blu-ray) or 204 bytes (16 Reed-Solomon bytes behind)
// apart, and finds them again after garbage.
type framer struct {
	stride int    // distance of sync bytes; 0 while searching
	carry  []byte // the tail of the last chunk that was no whole packet
	// Garbage counts bytes that belonged to no packet.
	garbage int64
	skipped int64 // ... since the last packet
}

var strides = [...]int{188, 204, 192}

// syncRun is how many sync bytes in a row make a searching framer believe.
const syncRun = 4

// write calls fn for each packet of p, in order. garbage is how many bytes were
// thrown away ahead of the packet. The packet is valid during the call.
func (f *framer) write(p []byte, fn func(pkt []byte, garbage int64)) {
	switch {
	case len(f.carry) == 0:
	case f.stride == 0:
		p = append(f.carry[:len(f.carry):len(f.carry)], p...)
	default:
		need := f.stride - len(f.carry)
		if need > len(p) {
			f.carry = append(f.carry, p...)
			return
		}
		if need < len(p) && p[need] != syncByte && aligned(p, f.stride) {
			// A packet without its tail, and a chunk that starts afresh.
			f.skip(len(f.carry))
			break
		}
		f.carry = append(f.carry, p[:need]...)
		f.emit(f.carry, fn)
		p = p[need:]
	}
	n := f.scan(p, fn)
	f.carry = append(f.carry[:0], p[n:]...)
}

// flush hands out the whole packets still held, at the end of the stream.
func (f *framer) flush(fn func([]byte, int64)) {
	p := f.carry
	if f.stride == 0 && f.garbage == 0 && len(p) > 0 && p[0] == syncByte {
		f.stride = PacketSize // too short a stream to be sure
	}
	for f.stride > 0 && len(p) >= PacketSize && p[0] == syncByte {
		f.emit(p, fn)
		p = p[min(f.stride, len(p)):]
	}
	f.skip(len(p))
	f.carry, f.stride = f.carry[:0], 0
}

func (f *framer) emit(p []byte, fn func([]byte, int64)) {
	n := f.skipped
	f.skipped = 0
	fn(p[:PacketSize:PacketSize], n)
}

// aligned says whether p holds sync bytes at its start and one stride on.
func aligned(p []byte, stride int) bool {
	return len(p) > stride && p[0] == syncByte && p[stride] == syncByte
}

// scan consumes packets from p and returns how many bytes it used.
func (f *framer) scan(p []byte, fn func([]byte, int64)) int {
	pos := 0
	for {
		if f.stride == 0 {
			n, ok := f.search(p[pos:])
			pos += n
			if !ok {
				return pos
			}
		}
		for pos+f.stride <= len(p) && p[pos] == syncByte {
			f.emit(p[pos:], fn)
			pos += f.stride
		}
		if pos >= len(p) || p[pos] == syncByte {
			return pos
		}
		f.stride = 0
	}
}

// search drops bytes until sync bytes recur at a stride. It returns how many
// bytes it dropped and whether it found a stride; with too few bytes to tell
// it leaves them.
func (f *framer) search(p []byte) (int, bool) {
	for pos := 0; pos < len(p); pos++ {
		if p[pos] != syncByte {
			continue
		}
		rest := p[pos:]
		for _, s := range strides {
			if run(rest, s) {
				f.skip(pos)
				f.stride = s
				return pos, true
			}
		}
		if len(rest) < (syncRun-1)*strides[1]+1 && maybe(rest) {
			f.skip(pos)
			return pos, false
		}
	}
	f.skip(len(p))
	return len(p), false
}

func (f *framer) skip(n int) {
	f.garbage += int64(n)
	f.skipped += int64(n)
}

// run says whether p opens with syncRun sync bytes at the stride.
func run(p []byte, stride int) bool {
	if len(p) < (syncRun-1)*stride+1 {
		return false
	}
	for k := 1; k < syncRun; k++ {
		if p[k*stride] != syncByte {
			return false
		}
	}
	return true
}

// maybe says whether p, too short for run, contradicts no stride.
func maybe(p []byte) bool {
	for _, s := range strides {
		ok := true
		for k := s; k < len(p); k += s {
			ok = ok && p[k] == syncByte
		}
		if ok {
			return true
		}
	}
	return false
}
