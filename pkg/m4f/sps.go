package m4f

// picture is what a sample entry says of the pictures of a video track. Zero
// values mean unknown: a sequence header that cannot be read never fails a
// segment.
type picture struct {
	width, height    uint16 // luma samples after cropping
	sarW, sarH       uint32 // sample aspect ratio; 0: unknown
	colour           bool   // the next four are present
	primaries        uint8  // ISO/IEC 23091-2 code points
	transfer, matrix uint8
	fullRange        bool
	chroma           uint8 // chroma_format_idc
	lumaDepth        uint8 // bit depth - 8
	chromaDepth      uint8
	subLayers        uint8 // HEVC: sps_max_sub_layers_minus1
	temporalNesting  bool  // HEVC
	profileTierLevel [12]byte
	mpeg1            bool  // MPEG-1 video: no sequence extension
	profileAndLevel  uint8 // MPEG-2 video
}

func (p *picture) setSize(w, h int64) {
	if w > 0 && h > 0 && w <= 0xFFFF && h <= 0xFFFF {
		p.width, p.height = uint16(w), uint16(h)
	}
}

// sarTable is ISO/IEC 14496-10 table E-1 and ISO/IEC 23008-2 table E.1.
var sarTable = [...][2]uint32{
	{}, {1, 1}, {12, 11}, {10, 11}, {16, 11}, {40, 33}, {24, 11}, {20, 11}, {32, 11},
	{80, 33}, {18, 11}, {15, 11}, {64, 33}, {160, 99}, {4, 3}, {3, 2}, {2, 1},
}

// readVUI reads the part of the VUI that H.264 and HEVC share (ISO/IEC
// 14496-10 E.1.1, ISO/IEC 23008-2 E.2.1) up to the colour description.
func (p *picture) readVUI(r *bitReader) {
	if r.flag() { // aspect_ratio_info_present_flag
		if idc := r.u(8); idc == 255 {
			p.sarW, p.sarH = r.u(16), r.u(16)
		} else if int(idc) < len(sarTable) {
			p.sarW, p.sarH = sarTable[idc][0], sarTable[idc][1]
		}
	}
	if r.flag() { // overscan_info_present_flag
		r.flag()
	}
	if r.flag() { // video_signal_type_present_flag
		r.u(3)
		full := r.flag()
		if r.flag() { // colour_description_present_flag
			p.primaries, p.transfer, p.matrix = uint8(r.u(8)), uint8(r.u(8)), uint8(r.u(8))
			p.fullRange = full
			p.colour = !r.bad
		}
	}
	if r.bad {
		p.sarW, p.sarH = 0, 0
	}
}

// parseH264SPS reads a sequence parameter set (ISO/IEC 14496-10 7.3.2.1.1).
// ok is false if it cannot be read up to the picture size.
func parseH264SPS(nal []byte) (p picture, ok bool) {
	r := rbsp(nal, 1)
	profile := r.u(8)
	r.skip(16)
	r.ue()
	p.chroma = 1
	switch profile {
	case 100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135:
		p.readH264Chroma(r)
	}
	r.ue() // log2_max_frame_num_minus4
	switch r.ue() {
	case 0:
		r.ue()
	case 1:
		r.u(1)
		r.ue()
		r.ue()
		for n := r.ue(); n > 0 && !r.bad; n-- {
			r.ue()
		}
	}
	r.ue() // max_num_ref_frames
	r.u(1)
	w, h := 16*(int64(r.ue())+1), 16*(int64(r.ue())+1)
	cropX, cropY := int64(1), int64(1)
	if p.chroma == 1 || p.chroma == 2 {
		cropX = 2
	}
	if p.chroma == 1 {
		cropY = 2
	}
	if !r.flag() { // frame_mbs_only_flag
		h *= 2
		cropY *= 2
		r.u(1)
	}
	r.u(1)
	if r.flag() { // frame_cropping_flag
		w -= cropX * (int64(r.ue()) + int64(r.ue()))
		h -= cropY * (int64(r.ue()) + int64(r.ue()))
	}
	vui := r.flag()
	if r.bad {
		return picture{}, false
	}
	p.setSize(w, h)
	if vui {
		p.readVUI(r)
	}
	return p, true
}

// readH264Chroma reads what the high profiles have ahead of the rest.
func (p *picture) readH264Chroma(r *bitReader) {
	p.chroma = uint8(min(r.ue(), 3))
	if p.chroma == 3 {
		r.u(1)
	}
	p.lumaDepth, p.chromaDepth = uint8(r.ue()&7), uint8(r.ue()&7)
	r.u(1)
	if !r.flag() { // seq_scaling_matrix_present_flag
		return
	}
	lists := 8
	if p.chroma == 3 {
		lists = 12
	}
	for i := 0; i < lists && !r.bad; i++ {
		if !r.flag() {
			continue
		}
		size := 16
		if i >= 6 {
			size = 64
		}
		last, next := int32(8), int32(8)
		for j := 0; j < size && next != 0; j++ {
			next = (last + r.se() + 256) & 255
			if next != 0 {
				last = next
			}
		}
	}
}

// parseHEVCSPS reads a sequence parameter set (ISO/IEC 23008-2 7.3.2.2.1). ok
// is false if it cannot be read up to the bit depths.
func parseHEVCSPS(nal []byte) (p picture, ok bool) {
	r := rbsp(nal, 2)
	r.skip(4)
	p.subLayers = uint8(r.u(3))
	p.temporalNesting = r.flag()
	for i := range p.profileTierLevel {
		p.profileTierLevel[i] = uint8(r.u(8))
	}
	skipSubLayers(r, p.subLayers)
	r.ue()
	p.chroma = uint8(min(r.ue(), 3))
	subW, subH := int64(1), int64(1)
	switch p.chroma {
	case 1:
		subW, subH = 2, 2
	case 2:
		subW = 2
	case 3:
		r.u(1)
	}
	w, h := int64(r.ue()), int64(r.ue())
	if r.flag() { // conformance_window_flag
		w -= subW * (int64(r.ue()) + int64(r.ue()))
		h -= subH * (int64(r.ue()) + int64(r.ue()))
	}
	p.lumaDepth, p.chromaDepth = uint8(r.ue()&7), uint8(r.ue()&7)
	if r.bad {
		return picture{}, false
	}
	p.setSize(w, h)
	if skipHEVCCoding(r, p.subLayers) && r.flag() {
		p.readVUI(r)
	}
	return p, true
}

// skipSubLayers passes over the sub-layers of profile_tier_level (7.3.3).
func skipSubLayers(r *bitReader, n uint8) {
	if n == 0 {
		return
	}
	var profile, level [8]bool
	for i := uint8(0); i < n; i++ {
		profile[i], level[i] = r.flag(), r.flag()
	}
	r.skip(2 * (8 - int(n)))
	for i := uint8(0); i < n; i++ {
		if profile[i] {
			r.skip(88)
		}
		if level[i] {
			r.skip(8)
		}
	}
}

// skipHEVCCoding passes over the coding tools between the bit depths and the
// VUI and says whether it got there.
func skipHEVCCoding(r *bitReader, subLayers uint8) bool {
	pocBits := int(r.ue()) + 4
	from := subLayers
	if r.flag() {
		from = 0
	}
	for i := from; i <= subLayers; i++ {
		r.ue()
		r.ue()
		r.ue()
	}
	for range 6 {
		r.ue()
	}
	if r.flag() { // scaling_list_enabled_flag
		if r.flag() { // sps_scaling_list_data_present_flag
			skipScalingLists(r)
		}
	}
	r.u(2)
	if r.flag() { // pcm_enabled_flag
		r.skip(8)
		r.ue()
		r.ue()
		r.u(1)
	}
	if !skipRefPicSets(r) {
		return false
	}
	if r.flag() { // long_term_ref_pics_present_flag
		n := r.ue()
		if n > 32 || pocBits > 16 {
			return false
		}
		r.skip(int(n) * (pocBits + 1))
	}
	r.u(2)
	return !r.bad
}

// skipScalingLists passes over scaling_list_data (7.3.4).
func skipScalingLists(r *bitReader) {
	for size := range 4 {
		step := 1
		if size == 3 {
			step = 3
		}
		for i := 0; i < 6; i += step {
			if !r.flag() {
				r.ue()
				continue
			}
			if size > 1 {
				r.se()
			}
			for n := min(64, 1<<(4+2*size)); n > 0 && !r.bad; n-- {
				r.se()
			}
		}
	}
}

// skipRefPicSets passes over the short-term reference picture sets (7.3.7).
func skipRefPicSets(r *bitReader) bool {
	sets := r.ue()
	if sets > 64 {
		return false
	}
	prev := uint32(0) // NumDeltaPocs of the set before
	for i := uint32(0); i < sets && !r.bad; i++ {
		if i > 0 && r.flag() { // inter_ref_pic_set_prediction_flag
			r.u(1)
			r.ue()
			n := uint32(0)
			for range prev + 1 {
				used := r.flag()
				if used || r.flag() { // use_delta_flag, 1 where used
					n++
				}
			}
			prev = n
		} else {
			neg, pos := r.ue(), r.ue()
			if neg > 16 || pos > 16 {
				return false
			}
			for range neg + pos {
				r.ue()
				r.u(1)
			}
			prev = neg + pos
		}
		if prev > 32 {
			return false
		}
	}
	return !r.bad
}

// parseMPEG2Sequence reads a sequence header and its extensions (ISO/IEC
// 13818-2 6.2.2.1, 6.2.2.3, 6.2.2.4), start codes included.
func parseMPEG2Sequence(b []byte) (p picture, ok bool) {
	b = b[:min(len(b), 4096)]
	if len(b) < 12 || b[0] != 0 || b[1] != 0 || b[2] != 1 || b[3] != 0xB3 {
		return p, false
	}
	p.mpeg1 = true
	w, h := int64(b[4])<<4|int64(b[5])>>4, int64(b[5]&15)<<8|int64(b[6])
	aspect := b[7] >> 4
	for i := 8; i+4 < len(b); i++ {
		if b[i] != 0 || b[i+1] != 0 || b[i+2] != 1 || b[i+3] != 0xB5 {
			continue
		}
		r := &bitReader{b: b[i+4:]}
		switch r.u(4) {
		case 1: // sequence_extension
			p.mpeg1 = false
			p.profileAndLevel = uint8(r.u(8))
			r.u(1)
			p.chroma = uint8(r.u(2))
			w |= int64(r.u(2)) << 12
			h |= int64(r.u(2)) << 12
		case 2: // sequence_display_extension
			r.u(3)
			if r.flag() {
				p.primaries, p.transfer, p.matrix = uint8(r.u(8)), uint8(r.u(8)), uint8(r.u(8))
				p.colour = !r.bad
			}
		}
	}
	p.setSize(w, h)
	p.setMPEG2Aspect(aspect, w, h)
	return p, true
}

// setMPEG2Aspect turns aspect_ratio_information into a sample aspect ratio.
func (p *picture) setMPEG2Aspect(code uint8, w, h int64) {
	var dar [2]int64
	switch {
	case p.mpeg1 || w == 0 || h == 0:
		return
	case code == 1:
		p.sarW, p.sarH = 1, 1
		return
	case code == 2:
		dar = [2]int64{4, 3}
	case code == 3:
		dar = [2]int64{16, 9}
	case code == 4:
		dar = [2]int64{221, 100}
	default:
		return
	}
	n, d := dar[0]*h, dar[1]*w
	g := gcd(n, d)
	p.sarW, p.sarH = uint32(n/g), uint32(d/g)
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
