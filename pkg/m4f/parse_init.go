package m4f

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/Eyevinn/mp4ff/avc"
	"github.com/Eyevinn/mp4ff/mp4"
)

// Init is what an init segment says.
type Init struct {
	ID                 Identity
	TargetDuration     int64 // D in ticks
	Rules              int   // version of the segmentation rules
	Program            uint16
	PCRPID             uint16
	ProgramDescriptors []byte
	Tracks             []TrackInfo // in track order
}

// TrackInfo is what an init segment says of one track.
type TrackInfo struct {
	ID uint32 // track ID
	// Config has all but FrameHeader, which the sample entry's own
	// configuration takes the place of.
	Config   TrackConfig
	Handler  string // vide, soun, meta
	Language string // ISO 639-2
	// Width and Height are those of a video sample entry in luma samples, 0
	// if unknown; DisplayWidth and DisplayHeight those of the track header,
	// 16.16 fixed point.
	Width, Height               uint16
	DisplayWidth, DisplayHeight uint32
	SampleRate                  uint16 // of an audio sample entry, Hz; 0 above 65535
	Channels                    uint16 // of an audio sample entry
	// DecoderConfig is the body of the sample entry's configuration: the
	// decoder specific info of an esds, or the body of avcC, hvcC, dac3, dec3,
	// ddts, dOps.
	DecoderConfig []byte
	// SampleEntry is the whole sample entry box.
	SampleEntry []byte
	// Generic says that the sample entry follows from nothing in the stream:
	// an audio codec's generic entry, video without parameter sets. A track
	// with samples may have it too, by chance or for want of better.
	Generic bool
}

// ParseInit reads an init segment as Build writes it. Slices of the result
// share b's memory. Any input is safe: what is allocated is bounded by len(b).
func ParseInit(b []byte) (*Init, error) {
	if len(b) > MaxInit {
		return nil, fmt.Errorf("init segment of %d bytes, at most %d are allowed", len(b), MaxInit)
	}
	ftyp, rest, err := nextBox(b)
	if err != nil {
		return nil, err
	}
	moov, rest, err := nextBox(rest)
	if err != nil {
		return nil, err
	}
	if ftyp.typ != "ftyp" || moov.typ != "moov" || len(rest) != 0 {
		return nil, errors.New("an init segment is one ftyp and one moov box")
	}
	init := &Init{ID: Identify(b, nil)}
	program := false
	err = children(moov.body, func(c box) error {
		switch {
		case c.typ == "trak":
			if len(init.Tracks) == MaxTracks {
				return fmt.Errorf("more than %d tracks", MaxTracks)
			}
			t, err := parseTrak(c.body)
			if err != nil {
				return err
			}
			if t.ID != uint32(len(init.Tracks)+1) {
				return fmt.Errorf("track ID %d, want %d", t.ID, len(init.Tracks)+1)
			}
			init.Tracks = append(init.Tracks, t)
		case isUUID(c, programType):
			program = true
			return init.parseProgram(c.body[16:])
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("moov: %w", err)
	case !program:
		return nil, errors.New("moov has no program box: this is MP4, but not M4F (twindvr ingest makes it from a transport stream)")
	case len(init.Tracks) == 0:
		return nil, errors.New("moov has no track")
	}
	return init, nil
}

func isUUID(c box, typ []byte) bool {
	return c.typ == "uuid" && len(c.body) >= 16 && bytes.Equal(c.body[:16], typ)
}

func (init *Init) parseProgram(b []byte) error {
	if len(b) < 4 || b[0] != programVersion {
		return fmt.Errorf("program box: %w", versionOf(b))
	}
	if len(b) < 16 {
		return fmt.Errorf("program box of %d bytes", len(b))
	}
	init.TargetDuration = int64(binary.BigEndian.Uint32(b[4:]))
	init.Rules = int(binary.BigEndian.Uint16(b[8:]))
	init.Program = binary.BigEndian.Uint16(b[10:])
	init.PCRPID = binary.BigEndian.Uint16(b[12:])
	init.ProgramDescriptors = b[16:]
	if init.TargetDuration == 0 {
		return errors.New("program box: target duration 0")
	}
	return nil
}

func versionOf(b []byte) error {
	if len(b) == 0 {
		return errors.New("empty")
	}
	return fmt.Errorf("version %d: %w", b[0], ErrVersion)
}

// parseTrak reads the boxes of a track that matter and passes over the others.
func parseTrak(b []byte) (t TrackInfo, err error) {
	known := false
	err = children(b, func(c box) error {
		switch {
		case c.typ == "tkhd":
			tkhd, err := decode[*mp4.TkhdBox](c)
			if err != nil {
				return err
			}
			t.ID, t.DisplayWidth, t.DisplayHeight = tkhd.TrackID, uint32(tkhd.Width), uint32(tkhd.Height)
		case c.typ == "mdia":
			return children(c.body, t.parseMdia)
		case isUUID(c, trackType):
			known = true
			return t.parseTrack(c.body[16:])
		}
		return nil
	})
	switch {
	case err != nil:
		return t, err
	case !known:
		return t, errors.New("no track box")
	case t.SampleEntry == nil:
		return t, errors.New("no sample entry")
	}
	return t, t.parseEntry()
}

func (t *TrackInfo) parseTrack(b []byte) error {
	if len(b) < 4 || b[0] != trackVersion {
		return fmt.Errorf("track box: %w", versionOf(b))
	}
	if len(b) < 8 {
		return fmt.Errorf("track box of %d bytes", len(b))
	}
	t.Config.PID = binary.BigEndian.Uint16(b[4:])
	t.Config.StreamType = b[6]
	t.Config.Codec = Codec(b[7])
	t.Config.Descriptors = b[8:]
	if !t.Config.Codec.Valid() {
		return fmt.Errorf("track box: unknown codec %d", b[7])
	}
	return nil
}

func (t *TrackInfo) parseMdia(c box) error {
	switch c.typ {
	case "mdhd":
		mdhd, err := decode[*mp4.MdhdBox](c)
		if err != nil {
			return err
		}
		if mdhd.Timescale != Timescale {
			return fmt.Errorf("timescale %d, want %d", mdhd.Timescale, Timescale)
		}
		t.Language = mdhd.GetLanguage()
	case "hdlr":
		hdlr, err := decode[*mp4.HdlrBox](c)
		if err != nil {
			return err
		}
		t.Handler = hdlr.HandlerType
	case "minf", "stbl":
		return children(c.body, t.parseMdia)
	case "stsd":
		if len(c.body) < 8 || binary.BigEndian.Uint32(c.body[4:]) != 1 {
			return errors.New("want one sample entry")
		}
		e, rest, err := nextBox(c.body[8:])
		if err != nil {
			return err
		}
		if len(rest) != 0 || t.SampleEntry != nil {
			return errors.New("want one sample entry")
		}
		t.SampleEntry = e.raw
	}
	return nil
}

// Sizes of the fields of a sample entry ahead of its boxes (ISO/IEC 14496-12
// 8.5.2.2, 12.1.3.2, 12.2.3.2).
const (
	visualFields = 78
	audioFields  = 28
)

// entryTypes are the sample entry types that each codec has; of video, the one
// with parameter sets in band last.
var entryTypes = [...][]string{
	CodecH264: {"avc1", "avc3"}, CodecHEVC: {"hvc1", "hev1"}, CodecMPEG2Video: {"mp4v"},
	CodecAAC: {"mp4a"}, CodecMPEGAudio: {"mp4a"}, CodecAC3: {"ac-3"}, CodecEAC3: {"ec-3"},
	CodecData: {"urim"}, CodecSections: {"urim"},
	CodecLATM: {"mp4a"}, CodecDTS: {"dtsc", "dtsh", "dtsl", "dtse"}, CodecOpus: {"Opus"}, CodecALaw: {"alaw"}, CodecMuLaw: {"ulaw"},
}

// parseEntry reads the sample entry by the codec that the track box names.
func (t *TrackInfo) parseEntry() error {
	e, _, err := nextBox(t.SampleEntry)
	if err != nil {
		return err
	}
	types, i := entryTypes[t.Config.Codec], 0
	for i < len(types) && types[i] != e.typ {
		i++
	}
	if i == len(types) {
		return fmt.Errorf("sample entry %q of codec %s", e.typ, t.Config.Codec)
	}
	t.Config.InBand = i == 1 && t.Config.Codec.IsVideo()
	fields := 8
	switch {
	case t.Config.Codec.IsVideo():
		fields = visualFields
	case t.Config.Codec.IsAudio():
		fields = audioFields
	}
	if len(e.body) < fields {
		return fmt.Errorf("sample entry of %d bytes", len(e.raw))
	}
	if t.Config.Codec.IsVideo() {
		t.Width, t.Height = binary.BigEndian.Uint16(e.body[24:]), binary.BigEndian.Uint16(e.body[26:])
	} else if t.Config.Codec.IsAudio() {
		t.Channels, t.SampleRate = binary.BigEndian.Uint16(e.body[16:]), binary.BigEndian.Uint16(e.body[24:])
	}
	if err := children(e.body[fields:], t.parseConfig); err != nil {
		return err
	}
	t.Generic = t.isGeneric()
	return nil
}

func (t *TrackInfo) isGeneric() bool {
	c := t.Config.Codec
	switch {
	case c == CodecMPEG2Video:
		return len(t.Config.SequenceHeader) == 0
	case c.IsVideo():
		return len(t.Config.SPS) == 0
	case c.IsAudio():
		s := soundOf(&Track{Config: TrackConfig{Codec: c}})
		return bytes.Equal(appendBox(nil, s.box()), t.SampleEntry)
	}
	return false
}

func (t *TrackInfo) parseConfig(c box) (err error) {
	switch c.typ {
	case "esds":
		t.DecoderConfig, err = parseESDS(c.body)
		if t.Config.Codec == CodecMPEG2Video {
			t.Config.SequenceHeader = t.DecoderConfig
		}
	case "avcC":
		var rec avc.DecConfRec
		if rec, err = avc.DecodeAVCDecConfRec(c.body); err != nil {
			return err
		}
		t.DecoderConfig, t.Config.SPS, t.Config.PPS = c.body, rec.SPSnalus, rec.PPSnalus
	case "hvcC":
		t.DecoderConfig = c.body
		return t.parseHVCC(c.body)
	case "dac3", "dec3", "ddts", "dOps":
		t.DecoderConfig = c.body
	}
	return err
}

// parseHVCC reads the parameter sets of an HEVCDecoderConfigurationRecord
// (ISO/IEC 14496-15 8.3.3.1.2). mp4ff's reader takes the counts in it on
// trust.
func (t *TrackInfo) parseHVCC(b []byte) error {
	cut := errors.New("cut inside a parameter set")
	if len(b) < 23 || b[0] != 1 || b[21]&3 != 3 {
		return errors.New("not a version 1 record with 4-byte lengths")
	}
	arrays, b := int(b[22]), b[23:]
	for range arrays {
		if len(b) < 3 {
			return cut
		}
		typ, n := b[0]&0x3F, int(binary.BigEndian.Uint16(b[1:]))
		b = b[3:]
		for range n {
			if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
				return cut
			}
			nal := b[2 : 2+int(binary.BigEndian.Uint16(b))]
			b = b[2+len(nal):]
			switch typ {
			case 32:
				t.Config.VPS = append(t.Config.VPS, nal)
			case 33:
				t.Config.SPS = append(t.Config.SPS, nal)
			case 34:
				t.Config.PPS = append(t.Config.PPS, nal)
			}
		}
	}
	return nil
}

// parseESDS returns the decoder specific info of an esds box, nil if it has
// none.
func parseESDS(b []byte) ([]byte, error) {
	bad := errors.New("not an ES descriptor")
	if len(b) < 4 {
		return nil, bad
	}
	es, _, ok := nextDescriptor(b[4:], 0x03)
	if !ok || len(es) < 3 || es[2]&0xE0 != 0 {
		return nil, bad
	}
	dcd, _, ok := nextDescriptor(es[3:], 0x04)
	if !ok || len(dcd) < 13 {
		return nil, bad
	}
	if len(dcd) == 13 {
		return nil, nil
	}
	dsi, _, ok := nextDescriptor(dcd[13:], 0x05)
	if !ok {
		return nil, bad
	}
	return dsi, nil
}

// nextDescriptor splits the first descriptor off b (ISO/IEC 14496-1 8.3.3)
// and wants it to have the given tag.
func nextDescriptor(b []byte, tag byte) (body, rest []byte, ok bool) {
	if len(b) < 2 || b[0] != tag {
		return nil, nil, false
	}
	n, i := 0, 1
	for more := true; more; i++ {
		if i == len(b) || i > 4 {
			return nil, nil, false
		}
		n, more = n<<7|int(b[i]&0x7F), b[i]&0x80 != 0
	}
	if n > len(b)-i {
		return nil, nil, false
	}
	return b[i : i+n], b[i+n:], true
}
