package m4f

import (
	"github.com/Eyevinn/mp4ff/mp4"
)

// sound is what a sample entry says of an audio track.
type sound struct {
	entry    string // sample entry type
	rate     uint32 // Hz
	channels uint16
	config   mp4.Box // esds, dac3, dec3, ddts or dOps; nil: none
}

// soundOf reads the configuration out of the first frame's first bytes. A
// header that is absent or cannot be read gives the codec's generic entry:
// stereo at 48 kHz (AAC-LC; MPEG-1 layer II; AC-3 and E-AC-3 at 192 kbit/s; DTS
// at 768 kbit/s; Opus), or mono at 8 kHz (G.711).
func soundOf(t *Track) sound {
	h := t.Config.FrameHeader
	var s sound
	var ok bool
	switch t.Config.Codec {
	case CodecAAC:
		if s, ok = aacSound(h); !ok {
			s, _ = aacSound([]byte{0xFF, 0xF1, 0x4C, 0x80, 0, 0, 0})
		}
	case CodecMPEGAudio:
		if s, ok = mpegSound(h); !ok {
			s, _ = mpegSound([]byte{0xFF, 0xFD, 0xA4, 0})
		}
	case CodecAC3:
		if s, ok = ac3Sound(h); !ok {
			s, _ = ac3Sound([]byte{0x0B, 0x77, 0, 0, 0x14, 0x40, 0x40, 0})
		}
	case CodecEAC3:
		if len(t.Samples) > 0 && len(h) > 0 {
			h = t.Samples[0].Data // the substreams behind the first
		}
		if s, ok = eac3Sound(h); !ok {
			s, _ = eac3Sound([]byte{0x0B, 0x77, 0x01, 0x7F, 0x34, 0x80, 0, 0})
		}
	case CodecLATM:
		if s, ok = latmSound(h); !ok {
			s, _ = latmSound([]byte{0x11, 0x90})
		}
	case CodecDTS:
		if len(t.Samples) > 0 && len(h) > 0 {
			h = t.Samples[0].Data // the extension substreams behind the core
		}
		if s, ok = dtsSound(h); !ok {
			s, _ = dtsSound(genericDTS)
		}
	case CodecOpus:
		s = opusSound(t.Config.Descriptors)
	case CodecALaw, CodecMuLaw:
		s = g711Sound(t.Config.Codec, h)
	}
	return s
}

func (s *sound) box() mp4.Box {
	rate := s.rate
	if rate > 0xFFFF { // the field has 16 bits; the configuration has the rate
		rate = 0
	}
	e := mp4.CreateAudioSampleEntryBox(s.entry, s.channels, 16, uint16(rate), nil)
	if s.config != nil {
		e.Children = append(e.Children, s.config)
	}
	return e
}

// Object type indications (ISO/IEC 14496-1 table 5).
const (
	otiAAC        = 0x40
	otiMPEG2Audio = 0x69
	otiMPEG1Audio = 0x6B
	otiMPEG1Video = 0x6A
)

// Stream types of a DecoderConfigDescriptor (ISO/IEC 14496-1 table 6), with
// upStream 0 and the reserved bit.
const (
	visualStream = 0x04<<2 | 1
	audioStream  = 0x05<<2 | 1
)

var aacRates = [...]uint32{96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350}

// aacSound turns an ADTS header (ISO/IEC 14496-3 1.A.2.2) into an
// AudioSpecificConfig. Channel configuration 0 takes the program config
// element that opens the frame, where there is one.
func aacSound(h []byte) (sound, bool) {
	if len(h) < 7 || h[0] != 0xFF || h[1]&0xF6 != 0xF0 {
		return sound{}, false
	}
	object, index, conf := h[2]>>6+1, h[2]>>2&15, h[2]&1<<2|h[3]>>6
	if int(index) >= len(aacRates) {
		return sound{}, false
	}
	channels := uint16(conf)
	if conf == 7 {
		channels = 8
	}
	asc := []byte{object<<3 | index>>1, index<<7 | conf<<3}
	if conf == 0 {
		head := 7
		if h[1]&1 == 0 {
			head = 9
		}
		var pce []byte
		if pce, channels = programConfig(h[min(head, len(h)):]); pce != nil {
			asc = append(asc, pce...)
		} else {
			channels = 2 // dual mono (ARIB STD-B32)
		}
	}
	return sound{entry: "mp4a", rate: aacRates[index], channels: channels, config: esds(otiAAC, audioStream, asc)}, true
}

// programConfig copies the program_config_element (ISO/IEC 14496-3 4.4.1.1)
// that opens a raw data block into the byte-aligned form that follows a
// GASpecificConfig of 16 bits, and counts its channels.
func programConfig(b []byte) ([]byte, uint16) {
	r, w := &bitReader{b: b}, &bitWriter{}
	if r.u(3) != 5 { // ID_PCE
		return nil, 0
	}
	channels := copyPCE(r, w)
	if r.bad || channels == 0 {
		return nil, 0
	}
	return w.b, channels
}

// copyPCE copies a program_config_element behind its ID and counts its
// channels.
func copyPCE(r *bitReader, w *bitWriter) uint16 {
	put := func(n int) uint32 { v := r.u(n); w.put(v, n); return v }
	put(10) // element_instance_tag, object_type, sampling_frequency_index
	front, side, back, lfe, assoc, cc := put(4), put(4), put(4), put(2), put(3), put(4)
	if put(1) == 1 { // mono mixdown
		put(4)
	}
	if put(1) == 1 { // stereo mixdown
		put(4)
	}
	if put(1) == 1 { // matrix mixdown
		put(3)
	}
	channels := uint16(lfe)
	for range front + side + back {
		channels += 1 + uint16(put(1))
		put(4)
	}
	for range lfe + assoc {
		put(4)
	}
	for range cc {
		put(5)
	}
	// byte_alignment is relative to the start of the element's container: the
	// raw data block or the AudioSpecificConfig.
	r.skip(-r.pos & 7)
	w.align()
	for n := put(8); n > 0 && !r.bad; n-- {
		put(8)
	}
	return channels
}

// bitWriter writes bit by bit, most significant first.
type bitWriter struct {
	b []byte
	n int
}

func (w *bitWriter) put(v uint32, n int) {
	for n--; n >= 0; n-- {
		if w.n&7 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[w.n>>3] |= byte(v>>n&1) << (7 - w.n&7)
		w.n++
	}
}

func (w *bitWriter) align() { w.n = len(w.b) * 8 }

// mpegSound reads an MPEG audio frame header (ISO/IEC 11172-3 2.4.1.3,
// 13818-3; version 2.5 as MPEG-2).
func mpegSound(h []byte) (sound, bool) {
	if len(h) < 4 || h[0] != 0xFF || h[1]&0xE0 != 0xE0 {
		return sound{}, false
	}
	version, layer, index := h[1]>>3&3, h[1]>>1&3, h[2]>>2&3
	if version == 1 || layer == 0 || index == 3 {
		return sound{}, false
	}
	rate := [...]uint32{44100, 48000, 32000}[index]
	oti := byte(otiMPEG1Audio)
	if version != 3 {
		rate, oti = rate/2, otiMPEG2Audio
	}
	if version == 0 {
		rate /= 2
	}
	channels := uint16(2)
	if h[3]>>6 == 3 {
		channels = 1
	}
	return sound{entry: "mp4a", rate: rate, channels: channels, config: esds(oti, audioStream, nil)}, true
}

var ac3Rates = [...]uint32{48000, 44100, 32000}

// acmodChannels is ETSI TS 102 366 table 4.3.
var acmodChannels = [...]uint16{2, 1, 2, 3, 3, 4, 4, 5}

// ac3Sound reads a sync frame (ETSI TS 102 366 4.3.1, 4.3.2) into a dac3 box
// (F.4).
func ac3Sound(h []byte) (sound, bool) {
	if len(h) < 8 || h[0] != 0x0B || h[1] != 0x77 {
		return sound{}, false
	}
	r := &bitReader{b: h, pos: 32}
	fscod, frmsizecod := r.u(2), r.u(6)
	bsid, bsmod, acmod := r.u(5), r.u(3), r.u(3)
	if fscod == 3 || frmsizecod > 37 || bsid > 10 {
		return sound{}, false
	}
	if acmod&1 == 1 && acmod != 1 {
		r.u(2)
	}
	if acmod&4 == 4 {
		r.u(2)
	}
	if acmod == 2 {
		r.u(2)
	}
	lfe := r.u(1)
	rate := ac3Rates[fscod]
	if bsid > 8 {
		rate >>= bsid - 8
	}
	return sound{entry: "ac-3", rate: rate, channels: acmodChannels[acmod] + uint16(lfe), config: &mp4.Dac3Box{
		FSCod: byte(fscod), BSID: byte(bsid), BSMod: byte(bsmod), ACMod: byte(acmod),
		LFEOn: byte(lfe), BitRateCode: byte(frmsizecod >> 1),
	}}, true
}

// eac3Frame is the head of an E-AC-3 sync frame (ETSI TS 102 366 E.1.2.1,
// E.1.2.2).
type eac3Frame struct {
	strmtyp, id, fscod, acmod, lfe, bsid byte
	size, blocks                         int // bytes, audio blocks
	rate                                 uint32
	chanmap                              uint16 // of a dependent substream
	objects                              bool   // joint object coding (Atmos)
	complexity                           byte   // ... and its complexity index
}

func parseEAC3(b []byte) (f eac3Frame, ok bool) {
	if len(b) < 6 || b[0] != 0x0B || b[1] != 0x77 {
		return f, false
	}
	r := &bitReader{b: b[:min(len(b), 256)], pos: 16}
	f.strmtyp, f.id = byte(r.u(2)), byte(r.u(3))
	f.size = 2 * (int(r.u(11)) + 1)
	f.fscod = byte(r.u(2))
	f.blocks = 6
	if f.fscod == 3 {
		i := r.u(2)
		if i == 3 {
			return f, false
		}
		f.rate = ac3Rates[i] / 2
	} else {
		f.rate = ac3Rates[f.fscod]
		f.blocks = [...]int{1, 2, 3, 6}[r.u(2)]
	}
	f.acmod, f.lfe, f.bsid = byte(r.u(3)), byte(r.u(1)), byte(r.u(5))
	if f.bsid < 11 || f.bsid > 16 || f.strmtyp == 3 {
		return f, false
	}
	for range 1 + b2i(f.acmod == 0) {
		r.u(5)
		if r.flag() {
			r.u(8)
		}
	}
	if f.strmtyp == 1 && r.flag() {
		f.chanmap = uint16(r.u(16))
	}
	f.readObjects(r)
	return f, true
}

// optional passes over a field of n bits that a flag announces.
func (r *bitReader) optional(n int) {
	if r.flag() {
		r.u(n)
	}
}

// readObjects reads on behind the channel map (ETSI TS 102 366 E.1.2.2), up to
// the additional bit stream information that announces joint object coding
// (ETSI TS 103 420 8.3).
func (f *eac3Frame) readObjects(r *bitReader) {
	if r.flag() {
		f.skipMixing(r)
	}
	if r.flag() {
		f.skipInformation(r)
	}
	if f.strmtyp == 0 && f.blocks != 6 {
		r.u(1) // converter synchronization
	}
	if f.strmtyp == 2 && (f.blocks == 6 || r.flag()) {
		r.u(6)
	}
	if r.flag() && r.u(6) > 0 { // two bytes at least
		r.u(7)
		objects, complexity := r.flag(), byte(r.u(8))
		if f.objects = objects && !r.bad; f.objects {
			f.complexity = complexity
		}
	}
}

// skipMixing passes over the metadata for mixing.
func (f *eac3Frame) skipMixing(r *bitReader) {
	if f.acmod > 2 {
		r.u(2)
		if f.acmod&1 == 1 {
			r.u(6)
		}
		if f.acmod&4 != 0 {
			r.u(6)
		}
	}
	if f.lfe == 1 {
		r.optional(5)
	}
	if f.strmtyp != 0 {
		return
	}
	r.optional(6)
	if f.acmod == 0 {
		r.optional(6)
	}
	r.optional(6)
	switch r.u(2) {
	case 1:
		r.u(5)
	case 2:
		r.u(12)
	case 3:
		r.skip(8 * (int(r.u(5)) + 2))
	}
	if f.acmod < 2 {
		r.optional(14)
		if f.acmod == 0 {
			r.optional(14)
		}
	}
	if r.flag() {
		if f.blocks == 1 {
			r.u(5)
			return
		}
		for range f.blocks {
			r.optional(5)
		}
	}
}

// skipInformation passes over the informational metadata.
func (f *eac3Frame) skipInformation(r *bitReader) {
	r.u(3 + 1 + 1)
	if f.acmod == 2 {
		r.u(4)
	}
	if f.acmod >= 6 {
		r.u(2)
	}
	r.optional(8)
	if f.acmod == 0 {
		r.optional(8)
	}
	if f.fscod < 3 {
		r.u(1)
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// chanLoc turns a chanmap (E.1.3.1.8) into the chan_loc of a dec3 box (F.6).
func chanLoc(m uint16) (loc uint16) {
	for i := range 8 {
		loc |= m >> (10 - i) & 1 << i
	}
	return loc | m>>1&1<<8
}

// eac3Sound reads the substreams of one access unit into a dec3 box (ETSI TS
// 102 366 F.6), with the extension of ETSI TS 103 420 D.2 where it holds objects.
// bsmod is written as 0: no player needs it.
func eac3Sound(b []byte) (sound, bool) {
	first, ok := parseEAC3(b)
	if !ok || first.strmtyp == 1 {
		return sound{}, false
	}
	dec3 := &mp4.Dec3Box{}
	bits := 0
	channels := acmodChannels[first.acmod] + uint16(first.lfe)
	for f := first; ok; f, ok = parseEAC3(b) {
		if len(dec3.EC3Subs) > 0 && f.strmtyp != 1 && f.id == 0 {
			break // the next frame's
		}
		bits += f.size * 8
		if f.strmtyp == 1 {
			sub := &dec3.EC3Subs[len(dec3.EC3Subs)-1]
			if sub.NumDepSub < 15 {
				sub.NumDepSub++
			}
			sub.ChanLoc |= chanLoc(f.chanmap)
		} else if len(dec3.EC3Subs) < 8 {
			dec3.EC3Subs = append(dec3.EC3Subs, mp4.EC3Sub{FSCod: f.fscod, BSID: f.bsid, ACMod: f.acmod, LFEOn: f.lfe})
		}
		if f.size >= len(b) {
			break
		}
		b = b[f.size:]
	}
	dec3.NumIndSub = uint16(len(dec3.EC3Subs) - 1)
	if first.objects { // flag_ec3_extension_type_a, complexity_index_type_a
		dec3.Reserved = []byte{1, first.complexity}
	}
	dec3.DataRate = uint16(min(bits*int(first.rate)/(first.blocks*256)/1000, 0x1FFF))
	for i := range 9 {
		if loc := dec3.EC3Subs[0].ChanLoc; loc>>i&1 == 1 {
			channels++
			if i != 2 && i != 3 && i < 7 { // all but Cs, Ts, Cvh and LFE2 are pairs
				channels++
			}
		}
	}
	return sound{entry: "ec-3", rate: first.rate, channels: channels, config: dec3}, true
}

// esds makes an elementary stream descriptor box (ISO/IEC 14496-14 5.6) with
// sizes of four bytes, so that decoder configuration of any length fits.
func esds(oti, streamType byte, config []byte) mp4.Box {
	dcd := []byte{oti, streamType, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	if config != nil {
		dcd = appendDescriptor(dcd, 0x05, config) // DecSpecificInfo
	}
	es := []byte{0, 0, 0} // ES_ID 0, no flags
	es = appendDescriptor(es, 0x04, dcd)
	es = appendDescriptor(es, 0x06, []byte{2}) // SLConfig: MP4
	return rawBox("esds", appendDescriptor([]byte{0, 0, 0, 0}, 0x03, es))
}

func appendDescriptor(dst []byte, tag byte, body []byte) []byte {
	n := len(body)
	dst = append(dst, tag, 0x80|byte(n>>21), 0x80|byte(n>>14), 0x80|byte(n>>7), byte(n)&0x7F)
	return append(dst, body...)
}

// rawBox makes a box out of its body.
func rawBox(typ string, body []byte) mp4.Box {
	return mp4.CreateUnknownBox(typ, uint64(8+len(body)), body)
}
