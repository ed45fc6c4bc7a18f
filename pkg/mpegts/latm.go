package mpegts

import "github.com/twindvr/twindvr/pkg/m4f"

// latm is what a LATM stream's last StreamMuxConfig (ISO/IEC 14496-3 1.7.3)
// said. Without one nothing can be read: a recorder that joins, or that has lost
// packets among which there may have been another, waits for the next.
type latm struct {
	known   bool
	foreign bool // several programs or layers, or no AAC: carried as it is
	config  m4f.AudioConfig
	asc     []byte // AudioSpecificConfig; never written to again
	ascBits int
	told    bool // its length stands ahead of it
	frames  int  // in an element
	fixed   int  // bytes of each frame; -1: its length stands ahead of it

	places []place // of the frames of the element at hand
	waits  int64   // time of the PES packet at which the wait was last told
	waited bool
}

// place is where a frame lies in an element.
type place struct{ bit, size int }

func (l *latm) forget() { l.known, l.foreign = false, false }

// loasHeader is the length of what is ahead of an AudioMuxElement.
const loasHeader = 3

// parseLOAS reads the header of an AudioSyncStream element (14496-3 1.7.2).
func parseLOAS(b []byte) (frameHeader, bool) {
	h := frameHeader{codec: m4f.CodecLATM, size: loasHeader + (int(b[1]&0x1f)<<8 | int(b[2]))}
	return h, b[0] == 0x56 && b[1]&0xe0 == 0xe0 && h.size > loasHeader
}

// latmWait is how often a wait for a configuration is told, in ticks.
const latmWait = 2 * m4f.Timescale

// flushLATM hands out the frames of an element.
func (d *Demuxer) flushLATM(s *stream, element []byte, blk *Block, begun int64) {
	a := &s.audio
	switch a.latm.read(element[loasHeader:]) {
	case latmWaits:
		// How long it lasts is not known either: the next dated PES packet says.
		a.timed = false
		a.latm.wait(d, s)
		return
	case latmBroken:
		a.timed = false
		a.latm.forget()
		d.audioLoss(s)
		return
	case latmForeign:
		if a.timed {
			d.emitForeign(s, element, begun)
		}
		return
	}
	if !a.timed {
		return
	}
	l := &a.latm
	for _, p := range l.places {
		u := Unit{Track: s.t, Dated: true, Marked: s.marked, Codec: m4f.CodecLATM, First: begun, PES: s.pes, Header: l.asc}
		u.PTS, u.Duration = a.step(int64(l.config.Samples), int64(l.config.Rate))
		u.DTS = u.PTS
		if p.size == 0 {
			continue
		}
		u.Data = align(element[loasHeader:], p)
		u.block = blk
		blk.Hold()
		d.h.Unit(&u)
	}
}

// wait says that frames cannot be read, every latmWait: what is recorded of this
// time is not all that a recorder has that has heard the configuration.
func (l *latm) wait(d *Demuxer, s *stream) {
	if !s.headDated || l.waited && (s.headPTS-l.waits)&mask33 < latmWait {
		return
	}
	l.waited, l.waits = true, s.headPTS
	d.h.Loss(Loss{Track: s.t, LastPTS: s.headPTS, Dated: true, PES: s.pes, Before: s.first})
}

// emitForeign hands out an element as a PES packet of its own.
func (d *Demuxer) emitForeign(s *stream, element []byte, begun int64) {
	u := Unit{Track: s.t, Dated: true, Marked: s.marked, Codec: m4f.CodecData, First: begun, PES: s.pes}
	a := &s.audio
	u.PTS = (a.base + a.n*m4f.Timescale/max(a.rate, 1)) & mask33
	u.DTS = u.PTS
	t := u.PTS
	n := 8 + len(element)
	u.Data = append([]byte{0, 0, 1, 0xc0, byte(n >> 8), byte(n), 0x80, 0x80, 5,
		0x21 | byte(t>>29)&0x0e, byte(t >> 22), 1 | byte(t>>14), byte(t >> 7), 1 | byte(t<<1)}, element...)
	d.h.Unit(&u)
}

// align moves the bits of a frame so that they begin on a byte. Bytes are read
// ahead of where they are written, and nothing reads them again.
func align(b []byte, p place) []byte {
	first, shift := p.bit>>3, p.bit&7
	out := b[first : first+p.size : first+p.size]
	if shift == 0 {
		return out
	}
	for k := range out {
		out[k] = b[first+k]<<shift | b[first+k+1]>>(8-shift)
	}
	return out
}

// latmState says what an element holds.
type latmState int

const (
	latmFrames  latmState = iota
	latmWaits             // no configuration has come yet
	latmForeign           // a configuration that is not for us
	latmBroken
)

// read reads an AudioMuxElement and finds its frames.
func (l *latm) read(b []byte) latmState {
	r := &latmReader{b: b}
	if r.u(1) == 0 {
		l.known, l.foreign = true, false
		if !l.readConfig(r) {
			l.foreign = true
		}
		if r.bad {
			return latmBroken
		}
	}
	switch {
	case !l.known:
		return latmWaits
	case l.foreign:
		return latmForeign
	}
	l.places = l.places[:0]
	for range l.frames {
		size := l.fixed
		for more := size < 0; more; {
			n := int(r.u(8))
			size, more = max(size, 0)+n, n == 255 && !r.bad
		}
		l.places = append(l.places, place{r.pos, size})
		r.skip(8 * size)
	}
	if r.bad {
		return latmBroken
	}
	return latmFrames
}

// readConfig reads a StreamMuxConfig (14496-3 1.7.3.1); false if it says more
// than one layer of AAC.
func (l *latm) readConfig(r *latmReader) bool {
	version := r.u(1)
	if version == 1 {
		if r.u(1) == 1 {
			return false // audioMuxVersionA
		}
		r.value() // taraBufferFullness
	}
	same := r.u(1)
	l.frames = 1 + int(r.u(6))
	programs, layers := r.u(4), r.u(3)
	if same == 0 || programs > 0 || layers > 0 {
		return false
	}
	bits := 0
	if version == 1 {
		if bits = r.value(); bits > 8*maxASC {
			r.bad = true
		}
	}
	if !l.readASC(r, bits) {
		return false
	}
	switch r.u(3) {
	case 0:
		r.u(8) // latmBufferFullness
		l.fixed = -1
	case 1:
		l.fixed = 20 + int(r.u(9))
	default:
		return false
	}
	if r.u(1) == 1 { // other data, behind the frames
		if version == 1 {
			r.value()
		} else {
			for r.u(1) == 1 && !r.bad {
				r.u(8)
			}
			r.u(8)
		}
	}
	if r.u(1) == 1 {
		r.u(8) // CRC
	}
	return true
}

// maxASC bounds an AudioSpecificConfig: one with a program config element and
// its comment has at most 300 bytes.
const maxASC = 1024

// readASC takes an AudioSpecificConfig of so many bits, or, with 0, of as many as
// it tells itself.
func (l *latm) readASC(r *latmReader, bits int) bool {
	if l.ascBits > 0 && l.told == (bits > 0) && (bits == 0 || bits == l.ascBits) && r.same(l.asc, l.ascBits) {
		r.skip(l.ascBits)
		return true
	}
	n := bits
	if n == 0 {
		n = min(r.left(), 8*maxASC)
	}
	if n > r.left() {
		r.bad = true
		return false
	}
	asc := r.copy(n)
	c, ok := m4f.ParseAudioSpecificConfig(asc)
	if !ok || bits == 0 && c.Bits == 0 {
		return false
	}
	if bits == 0 {
		// What lies behind it is no extension of it.
		n = c.Bits
		asc = r.copy(n)
		c, _ = m4f.ParseAudioSpecificConfig(asc)
	}
	r.skip(n)
	l.asc, l.ascBits, l.told, l.config = asc, n, bits > 0, c
	return true
}

// latmReader reads bits; past the end it reads zeros and sets bad.
type latmReader struct {
	b   []byte
	pos int
	bad bool
}

func (r *latmReader) left() int { return 8*len(r.b) - r.pos }

func (r *latmReader) skip(n int) {
	if n > r.left() {
		r.pos, r.bad = 8*len(r.b), true
		return
	}
	r.pos += n
}

func (r *latmReader) u(n int) (v uint32) {
	if n > r.left() {
		r.pos, r.bad = 8*len(r.b), true
		return 0
	}
	for ; n > 0; n-- {
		v = v<<1 | uint32(r.b[r.pos>>3]>>(7-r.pos&7)&1)
		r.pos++
	}
	return v
}

// value is a LatmGetValue.
func (r *latmReader) value() (v int) {
	for n := r.u(2); ; n-- {
		v = v<<8 | int(r.u(8))
		if n == 0 {
			return v
		}
	}
}

// same says whether the next n bits are the first ones of p. It does not go past
// them.
func (r *latmReader) same(p []byte, n int) bool {
	at := *r
	for k := 0; 8*k < n; k++ {
		w := min(n-8*k, 8)
		if byte(at.u(w))<<(8-w) != p[k] {
			return false
		}
	}
	return !at.bad
}

// copy returns the next n bits, moved to the start of a byte and filled up with
// zeros. It does not go past them.
func (r *latmReader) copy(n int) []byte {
	out := make([]byte, (n+7)/8)
	at := *r
	for k := range out {
		w := min(n-8*k, 8)
		out[k] = byte(at.u(w)) << (8 - w)
	}
	return out
}
