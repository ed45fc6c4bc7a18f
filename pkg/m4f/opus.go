package m4f

import (
	"encoding/binary"
	"math/bits"

	"github.com/Eyevinn/mp4ff/mp4"
)

// opusRate is the clock of Opus (RFC 6716 2): every decoder can give 48 kHz.
const opusRate = 48000

// opusSound makes an Opus sample entry and its dOps box (Encapsulation of Opus
// in ISO Base Media File Format 4.3). The channels are those of the extension
// descriptor in the PMT; without one, stereo. The pre-skip is 0: a recording
// joins a stream anywhere, and what an encoder wants skipped at its own start
// is in the first packets' control headers alone.
func opusSound(descriptors []byte) sound {
	d := &mp4.DopsBox{OutputChannelCount: 2, InputSampleRate: opusRate}
	if ext := opusExtension(descriptors); len(ext) > 0 {
		opusChannels(d, ext)
	}
	return sound{entry: "Opus", rate: opusRate, channels: uint16(d.OutputChannelCount), config: d}
}

// opusExtension returns what follows the extension tag in the Opus audio
// descriptor of ETSI TS 101 154 (tag 0x7F, extension 0x80); nil without one.
func opusExtension(descriptors []byte) []byte {
	for d := descriptors; len(d) >= 2 && len(d) >= 2+int(d[1]); d = d[2+int(d[1]):] {
		if d[0] == 0x7F && d[1] >= 2 && d[2] == 0x80 {
			return d[3 : 2+int(d[1])]
		}
	}
	return nil
}

// Streams and coupled streams of the channel configurations 1 to 8, and the
// order of their channels (RFC 7845 5.1.1.2).
var (
	opusStreams = [9]byte{1, 1, 1, 2, 2, 3, 4, 4, 5}
	opusCoupled = [9]byte{1, 0, 1, 1, 2, 2, 2, 3, 3}
	opusOrder   = [9]string{3: "\x00\x02\x01", 4: "\x00\x01\x02\x03", 5: "\x00\x04\x01\x02\x03",
		6: "\x00\x04\x01\x02\x03\x05", 7: "\x00\x04\x01\x02\x03\x05\x06", 8: "\x00\x06\x01\x02\x03\x04\x05\x07"}
)

// opusChannels reads a channel configuration code and what belongs to it.
// A code that means nothing leaves d as it is.
func opusChannels(d *mp4.DopsBox, ext []byte) {
	code := ext[0]
	switch {
	case code == 0: // two independent channels
		d.OutputChannelCount, d.ChannelMappingFamily = 2, 255
		d.StreamCount, d.CoupledCount, d.ChannelMapping = 1, 1, []byte{0, 1}
	case code <= 2:
		d.OutputChannelCount = code
	case code <= 8:
		d.OutputChannelCount, d.ChannelMappingFamily = code, 1
		d.StreamCount, d.CoupledCount, d.ChannelMapping = opusStreams[code], opusCoupled[code], []byte(opusOrder[code])
	case code >= 0x82 && code <= 0x88: // as many streams as channels
		n := code & 15
		d.OutputChannelCount, d.ChannelMappingFamily, d.StreamCount = n, 1, n
		for k := range n {
			d.ChannelMapping = append(d.ChannelMapping, k)
		}
	case code == 0x81:
		opusMapping(d, ext[1:])
	}
}

// opusMapping reads a channel mapping that is written out.
func opusMapping(d *mp4.DopsBox, b []byte) {
	r := &bitReader{b: b}
	m := mp4.DopsBox{InputSampleRate: d.InputSampleRate}
	m.OutputChannelCount, m.ChannelMappingFamily = byte(r.u(8)), byte(r.u(8))
	if m.OutputChannelCount == 0 {
		return
	}
	// ceil(log2(n)) bits hold the numbers below n.
	width := func(n int) int { return bits.Len(uint(n - 1)) }
	if m.ChannelMappingFamily > 0 {
		streams := 1 + int(r.u(width(int(m.OutputChannelCount))))
		coupled := int(r.u(width(streams + 1)))
		if streams+coupled > 255 {
			return
		}
		m.StreamCount, m.CoupledCount = byte(streams), byte(coupled)
		for range m.OutputChannelCount {
			m.ChannelMapping = append(m.ChannelMapping, byte(r.u(width(streams+coupled+1))))
		}
	}
	if !r.bad && (m.ChannelMappingFamily > 0 || m.OutputChannelCount <= 2) {
		*d = m
	}
}

// g711Sound makes the sample entry of G.711 out of a channel count in 1 byte
// and a sampling rate in 4; without them, mono at 8 kHz.
func g711Sound(c Codec, h []byte) sound {
	s := sound{entry: "alaw", rate: 8000, channels: 1}
	if c == CodecMuLaw {
		s.entry = "ulaw"
	}
	if len(h) >= 5 && h[0] > 0 {
		if rate := binary.BigEndian.Uint32(h[1:]); rate > 0 && rate <= 0xFFFF {
			s.rate, s.channels = rate, uint16(h[0])
		}
	}
	return s
}
