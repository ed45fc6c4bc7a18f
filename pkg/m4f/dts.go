package m4f

import (
	"encoding/binary"
	"math/bits"
)

// Sync words of DTS (ETSI TS 102 114 5.3, 7.4).
const (
	dtsCoreSync  = 0x7FFE8001
	dtsSubstream = 0x64582025
	dtsUseMask   = 31 // core layout: the channel layout says it
)

// Parts of a DTS access unit (ETSI TS 102 114 table 7-5), as an asset
// descriptor lists them.
const (
	dtsCore     = 1 << iota // in the core substream
	dtsCoreXXCH             // extensions in the core substream
	dtsCoreX96
	dtsCoreXCH
	dtsExtCore // in an extension substream
	dtsExtXBR
	dtsExtXXCH
	dtsExtX96
	dtsExtLBR
	dtsExtXLL

	dtsExtensions = dtsExtCore | dtsExtXBR | dtsExtXXCH | dtsExtX96 | dtsExtLBR | dtsExtXLL
)

// dtsConstructions are ETSI TS 102 114 table E-2: the parts of each
// StreamConstruction, from 1.
var dtsConstructions = [...]uint32{
	1:  dtsCore,
	2:  dtsCore | dtsCoreXCH,
	3:  dtsCore | dtsCoreXXCH,
	4:  dtsCore | dtsCoreX96,
	5:  dtsCore | dtsExtXXCH,
	6:  dtsCore | dtsExtXBR,
	7:  dtsCore | dtsCoreXCH | dtsExtXBR,
	8:  dtsCore | dtsCoreXXCH | dtsExtXBR,
	9:  dtsCore | dtsExtXXCH | dtsExtXBR,
	10: dtsCore | dtsExtX96,
	11: dtsCore | dtsCoreXCH | dtsExtX96,
	12: dtsCore | dtsCoreXXCH | dtsExtX96,
	13: dtsCore | dtsExtXXCH | dtsExtX96,
	14: dtsCore | dtsExtXLL,
	15: dtsCore | dtsCoreXCH | dtsExtXLL,
	16: dtsCore | dtsCoreX96 | dtsExtXLL,
	17: dtsExtXLL,
	18: dtsExtLBR,
	19: dtsExtCore,
	20: dtsExtCore | dtsExtXXCH,
	21: dtsExtCore | dtsExtXLL,
}

// dtsAccessUnit is what the headers of an access unit say.
type dtsAccessUnit struct {
	parts    uint32
	rate     uint32 // Hz
	samples  uint32 // in the access unit, at rate
	depth    uint32 // bits of a sample
	layout   uint32 // speakers, ETSI TS 102 114 table 7-10
	amode    uint32 // arrangement of the core's channels
	lfe      bool   // ... with low frequency effects
	core     uint32 // bytes of the core
	bitRate  uint32 // of the core
	downmix  bool   // stereo is embedded
	assets   int
	extended bool // there are extension substreams
}

// genericDTS is the header of a stereo core at 48 kHz and 768 kbit/s.
var genericDTS = []byte{0x7F, 0xFE, 0x80, 0x01, 0xFC, 0x3C, 0x3F, 0xF0, 0xB5, 0xE0, 0x01, 0x38, 0x00, 0x00, 0x00, 0x00}

// dtsSound reads the core and the extension substreams of an access unit into a
// ddts box (ETSI TS 102 114 E.2.2.3). Bit rates are those of a core that is
// alone, whose frames are of one size, and otherwise 0: not known.
func dtsSound(b []byte) (sound, bool) {
	u, ok := parseDTS(b)
	if !ok {
		return sound{}, false
	}
	construction := 0
	for k, parts := range dtsConstructions {
		// What an extension substream holds and does not say is of no known kind.
		if k > 0 && parts == u.parts && u.extended == (parts&dtsExtensions != 0) {
			construction = k
		}
	}
	entry := "dtsh"
	switch {
	case u.assets > 1:
	case construction == 1 || construction == 2 || construction == 4:
		entry = "dtsc"
	case construction == 17:
		entry = "dtsl"
	case construction == 18:
		entry = "dtse"
	}
	rate := uint32(0)
	if construction >= 1 && construction <= 4 {
		rate = u.bitRate
	}
	depth := uint32(16)
	if u.depth > 16 {
		depth = 24
	}
	core := uint32(0)
	if u.parts&dtsCore != 0 {
		core = dtsUseMask
		if l := u.amode; l == 0 || l == 2 || l >= 4 && l <= 9 {
			core = l
		}
	}
	w := &bitWriter{}
	w.put(u.rate, 32)
	w.put(rate, 32) // maximum
	w.put(rate, 32) // average
	w.put(depth, 8)
	w.put(uint32(min(max(bits.Len32(u.samples/512)-1, 0), 3)), 2)
	w.put(uint32(construction), 5)
	w.put(uint32(b2i(u.lfe)), 1)
	w.put(core, 6)
	w.put(min(u.core, 1<<14-1), 14)
	w.put(uint32(b2i(u.downmix)), 1)
	w.put(0, 3) // representation type
	w.put(u.layout, 16)
	w.put(uint32(b2i(u.assets > 1)), 1)
	w.put(0, 1+1+5) // LBR duration modifier, no reserved box, reserved
	return sound{entry: entry, rate: u.rate, channels: u.channels(), config: rawBox("ddts", w.b)}, true
}

// dtsPairs are the bits of a speaker mask that mean two speakers.
const dtsPairs = 0xAE66

func speakers(mask uint32) int {
	return bits.OnesCount32(mask&0xFFFF) + bits.OnesCount32(mask&dtsPairs)
}

func (u *dtsAccessUnit) channels() uint16 { return uint16(max(speakers(u.layout), 1)) }

// parseDTS reads the substreams at the start of b.
func parseDTS(b []byte) (u dtsAccessUnit, ok bool) {
	if len(b) >= 4 && binary.BigEndian.Uint32(b) == dtsCoreSync {
		if !u.readCore(b) {
			return u, false
		}
		ok = true
		b = b[min(int(u.core), len(b)):]
	}
	for n := 0; n < 4 && len(b) >= 4 && binary.BigEndian.Uint32(b) == dtsSubstream; n++ {
		size := u.readSubstream(b)
		if size == 0 {
			break
		}
		ok = ok || u.rate > 0
		b = b[min(size, len(b)):]
	}
	if u.parts&dtsCore == 0 && u.rate > 0 && u.layout == 0 {
		u.layout = 2 // nothing said: stereo
	}
	return u, ok
}

var dtsRates = [16]uint32{1: 8000, 2: 16000, 3: 32000, 6: 11025, 7: 22050, 8: 44100, 11: 12000, 12: 24000, 13: 48000}

// readCore reads the header of a core (ETSI TS 102 114 5.4.1).
func (u *dtsAccessUnit) readCore(b []byte) bool {
	r := &bitReader{b: b[:min(len(b), 64)], pos: 32}
	r.u(1 + 5) // frame type, deficit of samples
	crc := r.flag()
	blocks, size := r.u(7)+1, r.u(14)+1
	u.amode = r.u(6)
	u.rate = dtsRates[r.u(4)]
	r.u(5)                 // target bit rate
	r.u(1 + 1 + 1 + 1 + 1) // fixed bit, dynamic range, time stamps, auxiliary data, HDCD
	ext, extended := r.u(3), r.flag()
	r.u(1) // sync word in each subframe
	lfe := r.u(2)
	r.u(1)
	if crc {
		r.u(16)
	}
	r.u(1 + 4 + 2) // filter, version, copy history
	resolution := r.u(3)
	if r.bad || u.rate == 0 || blocks < 6 || size < 96 {
		return false
	}
	u.core, u.samples = size, 32*blocks
	u.bitRate = uint32(uint64(size) * 8 * uint64(u.rate) / uint64(u.samples))
	u.depth = [8]uint32{16, 16, 20, 20, 24, 24, 24, 24}[resolution]
	u.lfe = lfe == 1 || lfe == 2
	u.parts = dtsCore
	u.layout = [16]uint32{0: 1, 1: 2, 2: 2, 3: 2, 4: 2, 5: 3, 6: 0x12, 7: 0x13, 8: 6, 9: 7, 10: 0x206, 11: 0x207, 12: 0x56, 13: 0x207, 14: 0x246, 15: 0x217}[min(u.amode, 15)]
	if u.lfe {
		u.layout |= 8
	}
	if extended {
		switch ext {
		case 0:
			u.parts |= dtsCoreXCH
			u.layout |= 0x10
		case 2:
			u.parts |= dtsCoreX96
			u.rate, u.samples = 2*u.rate, 2*u.samples
		case 6:
			u.parts |= dtsCoreXXCH
		}
	}
	return true
}

// dtsStatic are the static fields of an extension substream that asset
// descriptors are read with.
type dtsStatic struct {
	present bool
	mixOuts []int // channels of each mixing output
	mixing  bool
}

// readSubstream reads the header of an extension substream (ETSI TS 102 114
// 7.4.1) and returns its size in bytes; 0: it is none.
func (u *dtsAccessUnit) readSubstream(b []byte) int {
	r := &bitReader{b: b[:min(len(b), 4096)], pos: 32 + 8}
	index := int(r.u(2))
	headerBits, sizeBits := 8, 16
	if r.flag() {
		headerBits, sizeBits = 12, 20
	}
	r.u(headerBits)
	size := int(r.u(sizeBits)) + 1
	if r.bad {
		return 0
	}
	var st dtsStatic
	assets := 1
	if st.present = r.flag(); st.present {
		clock := [4]uint32{32000, 44100, 48000}[r.u(2)]
		frame := 512 * (r.u(3) + 1)
		if u.rate == 0 {
			u.rate, u.samples = clock, frame
		}
		assets = st.read(r, index)
	}
	for range assets {
		r.u(sizeBits)
	}
	u.assets, u.extended = max(u.assets, assets), true
	for range assets {
		at := r.pos
		length := 8 * (int(r.u(9)) + 1)
		u.readAsset(r, &st)
		if r.pos > at+length || r.bad {
			break
		}
		r.skip(at + length - r.pos)
	}
	return size
}

// read reads the static fields behind the frame's duration and returns the
// number of assets.
func (st *dtsStatic) read(r *bitReader, index int) int {
	if r.flag() {
		r.skip(36) // time stamp
	}
	presentations, assets := int(r.u(3))+1, int(r.u(3))+1
	var masks [8]uint32
	for k := range presentations {
		masks[k] = r.u(index + 1)
	}
	for k := range presentations {
		r.skip(8 * bits.OnesCount32(masks[k]))
	}
	if st.mixing = r.flag(); st.mixing {
		r.u(2)
		width, n := int(r.u(2)+1)*4, int(r.u(2)+1)
		for range n {
			st.mixOuts = append(st.mixOuts, speakers(r.u(width)))
		}
	}
	return assets
}

// readAsset reads an asset descriptor (ETSI TS 102 114 7.5) up to the parts of
// the access unit that it lists.
func (u *dtsAccessUnit) readAsset(r *bitReader, st *dtsStatic) {
	r.u(3) // index
	channels, stereo, six := 0, false, false
	if st.present {
		if r.flag() {
			r.u(4)
		}
		if r.flag() {
			r.u(24) // language
		}
		if r.flag() {
			r.skip(8 * (int(r.u(10)) + 1))
		}
		depth := r.u(5) + 1
		rate := [16]uint32{8000, 16000, 32000, 64000, 128000, 22050, 44100, 88200, 176400, 352800, 12000, 24000, 48000, 96000, 192000, 384000}[r.u(4)]
		channels = int(r.u(8)) + 1
		if !r.bad {
			u.depth = max(u.depth, depth)
			if rate > u.rate && u.rate > 0 && rate%u.rate == 0 {
				u.samples, u.rate = u.samples*(rate/u.rate), rate
			}
		}
		if r.flag() {
			stereo, six = u.readSpeakers(r, channels)
		} else {
			r.u(3) // representation type
		}
	}
	skipDynamic(r, st, channels, stereo, six)
	parts := uint32(0)
	switch r.u(2) {
	case 0:
		parts = r.u(12)
	case 1:
		parts = dtsExtXLL
	case 2:
		parts = dtsExtLBR
	}
	if !r.bad {
		u.parts |= parts & (1<<10 - 1)
		u.downmix = u.downmix || stereo
	}
}

// readSpeakers reads the map of channels to speakers.
func (u *dtsAccessUnit) readSpeakers(r *bitReader, channels int) (stereo, six bool) {
	if channels > 2 {
		stereo = r.flag()
	}
	if channels > 6 {
		six = r.flag()
	}
	width := 16
	if r.flag() {
		width = int(r.u(2)+1) * 4
		if mask := r.u(width); !r.bad {
			u.layout |= mask
		}
	}
	var sets [8]int
	n := int(r.u(3))
	for k := range n {
		sets[k] = speakers(r.u(width))
	}
	for k := range n {
		remap := int(r.u(5)) + 1
		for range sets[k] {
			r.skip(5 * bits.OnesCount32(r.u(remap)))
		}
	}
	return stereo, six
}

// skipDynamic passes over the dynamic metadata of an asset descriptor.
func skipDynamic(r *bitReader, st *dtsStatic, channels int, stereo, six bool) {
	drc := r.flag()
	if drc {
		r.u(8)
	}
	if r.flag() {
		r.u(5) // dialogue normalization
	}
	if drc && stereo {
		r.u(8)
	}
	if !st.mixing || !r.flag() {
		return
	}
	r.u(1 + 6)
	if r.u(2) == 3 {
		r.u(8)
	} else {
		r.u(3)
	}
	each := r.flag()
	for _, n := range st.mixOuts {
		if each {
			r.skip(6 * n)
		} else {
			r.skip(6)
		}
	}
	for _, n := range st.mixOuts {
		skipMix(r, channels, n)
		if six {
			skipMix(r, 6, n)
		}
		if stereo {
			skipMix(r, 2, n)
		}
	}
}

// skipMix passes over the coefficients of channels mixed to out channels.
func skipMix(r *bitReader, channels, out int) {
	for range channels {
		r.skip(6 * bits.OnesCount32(r.u(min(out, 32))))
	}
}
