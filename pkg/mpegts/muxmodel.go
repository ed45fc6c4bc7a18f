package mpegts

import (
	"github.com/twindvr/twindvr/pkg/m4f"
)

// BufferModel is what the system target decoder (13818-1 2.4.2) has for a stream
// behind its transport buffer of 512 bytes.
type BufferModel struct {
	Size int // bytes of all its buffers; 0: not known, not bounded
	Rate int // bits per second that leave the transport buffer
}

// most is how many packets the transport buffer lets through in a slot.
func (b *BufferModel) most() int {
	if b.Rate <= 0 {
		return 1 << 30
	}
	return max(b.Rate/8*slotTicks/m4f.Timescale/PacketSize, 1)
}

// room is how many packets more fit with so many bytes held, in a slot.
func (b *BufferModel) room(held int) int {
	if b.Size <= 0 {
		return b.most()
	}
	return min(max(b.Size-held, 0)/packetPayload, b.most())
}

// ModelOf returns the buffers for a track by its codec, level and channels.
func ModelOf(t *m4f.TrackInfo) BufferModel {
	switch c := &t.Config; c.Codec {
	case m4f.CodecH264:
		return h264Model(c.SPS)
	case m4f.CodecHEVC:
		return hevcModel(c.SPS)
	case m4f.CodecMPEG2Video:
		return mpeg2Model(c.SequenceHeader)
	case m4f.CodecAAC, m4f.CodecLATM: // 13818-1 2.4.2.4, 2.11.2
		switch {
		case t.Channels <= 2:
			return BufferModel{3584, 2_000_000}
		case t.Channels <= 8:
			return BufferModel{8976, 5_529_600}
		}
		return BufferModel{12804, 8_294_400}
	case m4f.CodecAC3, m4f.CodecEAC3: // ETSI TS 101 154, ATSC A/52 annex A
		return BufferModel{5696, 2_000_000}
	case m4f.CodecDTS: // ETSI TS 101 154 annex G
		return BufferModel{9088, 2_000_000}
	case m4f.CodecSections:
		return BufferModel{1536, 1_000_000}
	case m4f.CodecData:
		return BufferModel{0, 2_000_000}
	}
	return BufferModel{3584, 2_000_000}
}

// videoModel has the buffers of MPEG-2, H.264 and HEVC in common: the one of the
// elementary stream, and those for the multiplex and its overhead (2.4.2.4,
// 2.14.3.1, 2.17.2): 4 ms and 1/750 s at the highest rate.
func videoModel(size, rate int) BufferModel {
	most := max(rate, 2_000_000)
	return BufferModel{(size + most/250 + most/750) / 8, rate}
}

// levelLimit is a level's highest rate and buffer in kbit.
type levelLimit struct{ level, rate, size int }

// h264Levels is H.264 table A-1.
var h264Levels = []levelLimit{{9, 128, 350}, {10, 64, 175}, {11, 192, 500}, {12, 384, 1000}, {13, 768, 2000}, {20, 2000, 2000},
	{21, 4000, 4000}, {22, 4000, 4000}, {30, 10000, 10000}, {31, 14000, 14000}, {32, 20000, 20000}, {40, 20000, 25000},
	{41, 50000, 62500}, {42, 50000, 62500}, {50, 135000, 135000}, {51, 240000, 240000}, {52, 240000, 240000},
	{60, 240000, 240000}, {61, 480000, 480000}, {62, 800000, 800000}}

func h264Model(sets [][]byte) BufferModel {
	if len(sets) == 0 || len(sets[0]) < 4 {
		return BufferModel{}
	}
	for _, l := range h264Levels {
		if l.level == int(sets[0][3]) {
			return videoModel(l.size*1200, max(l.rate*1200, 2_000_000))
		}
	}
	return BufferModel{}
}

// hevcLevels is H.265 table A.9, main tier and high tier.
var hevcLevels = [2][]levelLimit{
	{{30, 128, 350}, {60, 1500, 1500}, {63, 3000, 3000}, {90, 6000, 6000}, {93, 10000, 10000}, {120, 12000, 12000}, {123, 20000, 20000},
		{150, 25000, 25000}, {153, 40000, 40000}, {156, 60000, 60000}, {180, 60000, 60000}, {183, 120000, 120000}, {186, 240000, 240000}},
	{{120, 30000, 30000}, {123, 50000, 50000}, {150, 100000, 100000}, {153, 160000, 160000}, {156, 240000, 240000},
		{180, 240000, 240000}, {183, 480000, 480000}, {186, 800000, 800000}},
}

func hevcModel(sets [][]byte) BufferModel {
	if len(sets) == 0 {
		return BufferModel{}
	}
	b := unescape(sets[0], 15)
	if len(b) < 15 {
		return BufferModel{}
	}
	for _, l := range hevcLevels[b[3]>>5&1] {
		if l.level == int(b[14]) {
			return videoModel(l.size*1100, max(l.rate*1100, 2_000_000))
		}
	}
	return BufferModel{}
}

// unescape returns the first n bytes of a NAL unit without its emulation
// prevention bytes.
func unescape(nal []byte, n int) []byte {
	b := make([]byte, 0, n)
	zeros := 0
	for _, c := range nal {
		if len(b) == n {
			break
		}
		if zeros >= 2 && c == 3 {
			zeros = 0
			continue
		}
		if zeros++; c != 0 {
			zeros = 0
		}
		b = append(b, c)
	}
	return b
}

// mpeg2Model goes by profile and level (H.262 tables 8-12, 8-13), or for MPEG-1 by
// the constrained parameters.
func mpeg2Model(seq []byte) BufferModel {
	if len(seq) < 12 {
		return BufferModel{}
	}
	for k := 12; k+6 <= len(seq); k++ {
		if seq[k] != 0 || seq[k+1] != 0 || seq[k+2] != 1 || seq[k+3] != mpegExtension || seq[k+4]>>4 != 1 {
			continue
		}
		profile, level := seq[k+4]&7, seq[k+5]>>4
		if seq[k+4]&8 != 0 { // escape: 4:2:2
			if level == 5 {
				return videoModel(9_437_184, 50_000_000)
			}
			return videoModel(47_185_920, 300_000_000)
		}
		switch level {
		case 10:
			return videoModel(475_136, 4_000_000)
		case 8:
			if profile == 1 { // high: 20 Mbit/s
				return videoModel(2_441_216, 20_000_000)
			}
			return videoModel(1_835_008, 15_000_000)
		case 6:
			return videoModel(7_340_032, 60_000_000)
		}
		return videoModel(9_781_248, 80_000_000)
	}
	return videoModel(1_835_008, 15_000_000)
}
