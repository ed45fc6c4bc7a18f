package m4f

import "github.com/Eyevinn/mp4ff/mp4"

// AudioConfig is what an AudioSpecificConfig (ISO/IEC 14496-3 1.6.2.1) says.
type AudioConfig struct {
	ObjectType int    // of the core: 2 is AAC-LC
	Rate       uint32 // Hz, of the core; of USAC, of the output
	OutputRate uint32 // Hz, with spectral band replication where it is announced
	Channels   uint16 // of the core
	Layout     int    // channelConfiguration; 0: a program config element says it
	SBR, PS    bool   // announced: what comes unannounced shows in the frames alone
	Samples    int    // in a frame, at Rate
	// Bits is the length of the configuration without an extension behind it; 0
	// for object types that do not tell it (ER AAC ELD, USAC).
	Bits int
}

// Audio object types (ISO/IEC 14496-3 table 1.17).
const (
	aotSBR    = 5
	aotERBSAC = 22
	aotERLD   = 23
	aotPS     = 29
	aotERELD  = 39
	aotUSAC   = 42
)

// ParseAudioSpecificConfig reads an AudioSpecificConfig of AAC in any of its
// forms; false for other codecs and for what makes no sense. Bytes behind it
// are passed over. Any input is safe.
func ParseAudioSpecificConfig(b []byte) (AudioConfig, bool) {
	r := &bitReader{b: b[:min(len(b), 4096)]}
	var c AudioConfig
	c.ObjectType = objectType(r)
	c.Rate = samplingRate(r)
	layout := r.u(4)
	if c.ObjectType == aotSBR || c.ObjectType == aotPS {
		c.SBR, c.PS = true, c.ObjectType == aotPS
		c.OutputRate = samplingRate(r)
		if c.ObjectType = objectType(r); c.ObjectType == aotERBSAC {
			r.u(4)
		}
	}
	c.Channels, c.Layout = channelsOf(layout), int(layout)
	if !c.readSpecific(r, layout) || r.bad || c.Rate == 0 || c.Samples == 0 || c.Channels == 0 {
		return AudioConfig{}, false
	}
	if c.Bits > 0 && !c.SBR {
		c.readExtension(r)
	}
	if c.OutputRate == 0 {
		c.OutputRate = c.Rate
	}
	return c, true
}

func objectType(r *bitReader) int {
	if t := r.u(5); t != 31 {
		return int(t)
	}
	return 32 + int(r.u(6))
}

func samplingRate(r *bitReader) uint32 {
	i := r.u(4)
	switch {
	case i == 15:
		return r.u(24)
	case int(i) < len(aacRates):
		return aacRates[i]
	}
	return 0
}

// channelsOf is the number of channels of a channelConfiguration (ISO/IEC
// 23001-8 table 8); 0: not known from it.
func channelsOf(layout uint32) uint16 {
	return [16]uint16{1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 8, 8: 2, 9: 3, 10: 4, 11: 7, 12: 8, 13: 24, 14: 8}[layout&15]
}

// readSpecific reads the part that belongs to the object type.
func (c *AudioConfig) readSpecific(r *bitReader, layout uint32) bool {
	resilient := false
	switch t := c.ObjectType; {
	case t >= 1 && t <= 4 || t == 6 || t == 7:
	case t == 17 || t >= 19 && t <= aotERLD:
		resilient = true
	case t == aotERELD:
		c.Samples = 512
		if r.flag() {
			c.Samples = 480
		}
		return true
	case t == aotUSAC:
		return c.readUSAC(r)
	default:
		return false
	}
	c.readGA(r, layout)
	if resilient && r.u(2) > 1 { // epConfig with an error protection of its own
		return false
	}
	c.Bits = r.pos
	return true
}

// readGA reads a GASpecificConfig (ISO/IEC 14496-3 4.4.1).
func (c *AudioConfig) readGA(r *bitReader, layout uint32) {
	short := r.flag()
	switch {
	case c.ObjectType == aotERLD && short:
		c.Samples = 480
	case c.ObjectType == aotERLD:
		c.Samples = 512
	case short:
		c.Samples = 960
	default:
		c.Samples = 1024
	}
	if r.flag() {
		r.u(14) // core coder delay
	}
	extended := r.flag()
	if layout == 0 {
		c.Channels = copyPCE(r, &bitWriter{})
	}
	if c.ObjectType == 6 || c.ObjectType == 20 {
		r.u(3) // layer
	}
	if !extended {
		return
	}
	switch c.ObjectType {
	case aotERBSAC:
		r.u(16)
	case 17, 19, 20, aotERLD:
		r.u(3)
	}
	r.u(1)
}

// readUSAC reads the head of a UsacConfig (ISO/IEC 23003-3 5.2).
func (c *AudioConfig) readUSAC(r *bitReader) bool {
	rates := [32]uint32{15: 57600, 51200, 40000, 38400, 34150, 28800, 25600, 20000, 19200, 17075, 14400, 12800, 9600}
	copy(rates[:], aacRates[:])
	i := r.u(5)
	if c.Rate = rates[i]; i == 31 {
		c.Rate = r.u(24)
	}
	length := r.u(3)
	c.Samples = [8]int{768, 1024, 2048, 2048, 4096}[length]
	c.SBR = length > 1
	c.OutputRate = c.Rate
	if layout := r.u(5); layout < 16 && c.Channels == 0 {
		c.Channels = channelsOf(layout)
	}
	return true
}

// readExtension reads the announcement of SBR and PS that decoders of AAC-LC
// pass over (ISO/IEC 14496-3 1.6.5.2).
func (c *AudioConfig) readExtension(r *bitReader) {
	x := *r
	if x.u(11) != 0x2B7 || x.u(5) != aotSBR || !x.flag() {
		return
	}
	rate := samplingRate(&x)
	if x.bad {
		return
	}
	c.SBR, c.OutputRate = true, rate
	if x.u(11) == 0x548 && x.flag() {
		c.PS = true
	}
}

// latmSound puts an AudioSpecificConfig into an esds box as it is.
func latmSound(asc []byte) (sound, bool) {
	c, ok := ParseAudioSpecificConfig(asc)
	if !ok {
		return sound{}, false
	}
	s := sound{entry: "mp4a", rate: c.OutputRate, channels: c.Channels, config: mp4.Box(esds(otiAAC, audioStream, asc))}
	if c.PS && c.Channels == 1 {
		s.channels = 2
	}
	return s, true
}
