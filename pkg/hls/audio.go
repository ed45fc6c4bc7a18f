package hls

import (
	"errors"

	"github.com/Eyevinn/mp4ff/mp4"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// esds reads an elementary stream descriptor (ISO/IEC 14496-14 5.6): the object
// type (14496-1 table 5) tells the codec.
func (t *MovieTrack) esds(c box) error {
	e, err := decodeBox[*mp4.EsdsBox](c)
	if err != nil {
		return err
	}
	d := e.DecConfigDescriptor
	if d == nil {
		return errors.New("no decoder configuration")
	}
	switch d.ObjectType {
	case 0x40, 0x66, 0x67, 0x68:
		if d.DecSpecificInfo == nil || len(d.DecSpecificInfo.DecConfig) < 2 {
			t.bare = true // as ffmpeg writes where it copies AAC out of a transport stream
			return nil
		}
		t.aac(d.DecSpecificInfo.DecConfig)
	case 0x6b:
		t.Codec, t.StreamType = m4f.CodecMPEGAudio, 0x03
	case 0x69:
		t.Codec, t.StreamType = m4f.CodecMPEGAudio, 0x04
	case 0xa5:
		t.Codec, t.StreamType, t.Descriptors = m4f.CodecAC3, 0x81, registration("AC-3")
	case 0xa6:
		t.Codec, t.StreamType, t.Descriptors = m4f.CodecEAC3, 0x87, registration("EAC3")
	case 0xa9, 0xaa, 0xab, 0xac:
		t.Codec, t.StreamType = m4f.CodecDTS, 0x82
	}
	return nil
}

// aac takes an AudioSpecificConfig (ISO/IEC 14496-3 1.6.2.1). What the header of
// ADTS can say is AAC in ADTS; anything else (HE-AAC with its extension named,
// 960 samples, channels by a program config element) keeps its configuration.
func (t *MovieTrack) aac(asc []byte) {
	object, index, channels := asc[0]>>3, asc[0]&7<<1|asc[1]>>7, asc[1]>>3&15
	plain := object >= 1 && object <= 4 && index < 13 && channels >= 1 && channels <= 7 && asc[1]&7 == 0
	if plain && !extended(asc[2:]) {
		t.Codec, t.StreamType = m4f.CodecAAC, 0x0f
		t.header = []byte{0xff, 0xf1, (object-1)<<6 | index<<2 | channels>>2, channels << 6, 0, 0x1f, 0xfc}
		return
	}
	t.Codec, t.StreamType, t.header = m4f.CodecLATM, 0x11, asc
}

// extended says whether what follows a configuration of two bytes says more
// than that there is no spectral band replication: sync extension type 0x2b7,
// object type 5, and a flag.
func extended(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	return len(b) < 3 || b[0] != 0x56 || b[1] != 0xe5 || b[2]&0x80 != 0
}

// opus reads a dOps box ("Encapsulation of Opus in ISO Base Media File Format"
// 4.3.2) and says the same in descriptors (ETSI TS 101 154 annex, as written by
// "Encapsulation of Opus in MPEG-TS": extension tag 0x80, channel_config_code).
// Channels that no such code stands for are not recorded.
func (t *MovieTrack) opus(c box) error {
	d, err := decodeBox[*mp4.DopsBox](c)
	if err != nil {
		return err
	}
	if n := d.OutputChannelCount; n >= 1 && n <= 8 && (d.ChannelMappingFamily == 1 || d.ChannelMappingFamily == 0 && n <= 2) {
		t.Codec, t.StreamType = m4f.CodecOpus, 0x06
		t.Descriptors = append(registration("Opus"), 0x7f, 2, 0x80, n)
	}
	return nil
}
