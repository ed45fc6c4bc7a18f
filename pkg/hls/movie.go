package hls

import (
	"errors"
	"fmt"

	"github.com/Eyevinn/mp4ff/mp4"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// maxTracks are the tracks of a media initialization section that are read.
const maxTracks = 64

// Movie is what the media initialization section of fragmented MP4 says (ISO/IEC
// 14496-12; RFC 8216 3.3).
type Movie struct {
	Tracks []MovieTrack // those that can be recorded, in the file's order
	// Skipped names the sample entries of the others.
	Skipped []string
	// Bare counts tracks of AAC without an AudioSpecificConfig, which nobody
	// can decode.
	Bare int
}

// MovieTrack is one track.
type MovieTrack struct {
	Codec       m4f.Codec
	StreamType  uint8  // what a program map calls it
	Descriptors []byte // what a program map says of it, without its language
	Language    string // ISO 639-2, or empty

	id    uint32
	scale uint32 // units in a second
	shift int64  // what an edit list takes off presentation and decoding times, units
	trex  *mp4.TrexBox
	// Of H.264 and HEVC:
	lengthSize int
	sets       [][]byte // parameter sets
	// header says how audio frames are coded, where it is the same for all.
	header []byte
	bare   bool // AAC, and nothing says how it is coded
}

// IsMP4 says whether the bytes of a segment look like boxes.
func IsMP4(b []byte) bool {
	if len(b) < 8 {
		return false
	}
	switch string(b[4:8]) {
	case "ftyp", "styp", "moov", "moof", "mdat", "sidx", "emsg", "prft", "free", "skip":
		return true
	}
	return false
}

// ParseMovie reads a media initialization section. Any input is safe. Slices of
// the result share b's memory.
func ParseMovie(b []byte) (*Movie, error) {
	m := &Movie{}
	found := false
	trex := map[uint32]*mp4.TrexBox{}
	movieScale := uint32(0)
	err := walkBoxes(b, 0, func(c box) error {
		if c.typ != "moov" || found {
			return nil
		}
		found = true
		return walkBoxes(c.body, 0, func(c box) error {
			switch c.typ {
			case "mvhd":
				h, err := decodeBox[*mp4.MvhdBox](c)
				if err == nil {
					movieScale = h.Timescale
				}
				return err
			case "trak":
				return m.addTrack(c.body, movieScale)
			case "mvex":
				return walkBoxes(c.body, 0, func(c box) error {
					if c.typ != "trex" {
						return nil
					}
					x, err := decodeBox[*mp4.TrexBox](c)
					if err == nil && len(trex) < maxTracks {
						trex[x.TrackID] = x
					}
					return err
				})
			}
			return nil
		})
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("media initialization section: %w", err)
	case !found:
		return nil, errors.New("media initialization section: no moov box")
	}
	for k := range m.Tracks {
		m.Tracks[k].trex = trex[m.Tracks[k].id]
	}
	return m, nil
}

// addTrack reads a track and keeps it if it can be recorded.
func (m *Movie) addTrack(b []byte, movieScale uint32) error {
	if len(m.Tracks)+len(m.Skipped)+m.Bare == maxTracks {
		return fmt.Errorf("more than %d tracks", maxTracks)
	}
	t := MovieTrack{}
	entry := ""
	var edits *mp4.ElstBox
	var visit func(c box) error
	visit = func(c box) (err error) {
		switch c.typ {
		case "mdia", "minf", "stbl", "edts":
			return walkBoxes(c.body, 0, visit)
		case "tkhd":
			h, err := decodeBox[*mp4.TkhdBox](c)
			if err == nil {
				t.id = h.TrackID
			}
			return err
		case "mdhd":
			h, err := decodeBox[*mp4.MdhdBox](c)
			if err == nil {
				t.scale = h.Timescale
				t.Language = languageOf(h.GetLanguage())
			}
			return err
		case "elst":
			edits, err = decodeBox[*mp4.ElstBox](c)
		case "stsd":
			entry, err = t.describe(c.body)
		}
		return err
	}
	if err := walkBoxes(b, 0, visit); err != nil {
		return err
	}
	switch {
	case entry == "":
		return errors.New("a track without a sample description")
	case t.bare:
		m.Bare++
		return nil
	case t.Codec == 0:
		m.Skipped = append(m.Skipped, entry)
		return nil
	case t.scale == 0 || t.id == 0:
		return fmt.Errorf("track %d has timescale %d", t.id, t.scale)
	}
	for _, x := range m.Tracks {
		if x.id == t.id {
			return fmt.Errorf("two tracks with ID %d", t.id)
		}
	}
	if edits != nil {
		t.edit(edits, movieScale)
	}
	m.Tracks = append(m.Tracks, t)
	return nil
}

// edit takes over from an edit list where presentation begins: behind an empty
// edit, and at a time of the media (14496-12 8.6.6).
func (t *MovieTrack) edit(e *mp4.ElstBox, movieScale uint32) {
	for _, x := range e.Entries {
		if x.MediaTime >= 0 {
			if x.MediaTime < 1<<40 {
				t.shift += x.MediaTime
			}
			return
		}
		if movieScale > 0 && x.SegmentDuration < 1<<32 {
			t.shift -= int64(x.SegmentDuration * uint64(t.scale) / uint64(movieScale))
		}
	}
}

// describe reads a sample description, of which the first entry counts, and
// returns its name.
func (t *MovieTrack) describe(b []byte) (entry string, err error) {
	if len(b) < 8 {
		return "", errors.New("too short")
	}
	err = walkBoxes(b[8:], 0, func(c box) error {
		if entry != "" {
			return nil
		}
		entry = c.typ
		return t.entry(c)
	})
	return entry, err
}

// entry reads a sample entry (14496-12 8.5.2). Of a codec that is not recorded
// it takes nothing.
func (t *MovieTrack) entry(c box) error {
	const visual, audio = 78, 28 // bytes ahead of the boxes inside
	switch c.typ {
	case "encv", "enca", "enct", "encs":
		return fmt.Errorf("%w (%s), and with a method that is not supported: EXT-X-KEY with METHOD=AES-128 is", ErrEncrypted, c.typ)
	case "avc1", "avc2", "avc3", "avc4", "dva1", "dvav":
		return t.inside(c, visual, "avcC", t.avc)
	case "hvc1", "hev1", "dvh1", "dvhe":
		return t.inside(c, visual, "hvcC", t.hevc)
	case "mp4a":
		return t.inside(c, audio, "esds", t.esds)
	case "ac-3":
		t.Codec, t.StreamType, t.Descriptors = m4f.CodecAC3, 0x81, registration("AC-3")
	case "ec-3":
		t.Codec, t.StreamType, t.Descriptors = m4f.CodecEAC3, 0x87, registration("EAC3")
	case "dtsc", "dtse", "dtsh", "dtsl":
		t.Codec, t.StreamType = m4f.CodecDTS, 0x82
	case ".mp3":
		t.Codec, t.StreamType = m4f.CodecMPEGAudio, 0x03
	case "Opus":
		return t.inside(c, audio, "dOps", t.opus)
	}
	return nil
}

// inside calls fn for the box of a type in a sample entry whose own fields take
// n bytes.
func (t *MovieTrack) inside(c box, n int, typ string, fn func(box) error) error {
	if len(c.body) < n {
		return errors.New("too short")
	}
	found := false
	err := walkBoxes(c.body[n:], 0, func(c box) error {
		if c.typ != typ || found {
			return nil
		}
		found = true
		return fn(c)
	})
	if found || err != nil {
		return err
	}
	return fmt.Errorf("no %s box", typ)
}

// avc reads an AVCDecoderConfigurationRecord (ISO/IEC 14496-15 5.3.3.1).
func (t *MovieTrack) avc(c box) error {
	b := c.body
	if len(b) < 7 {
		return errors.New("too short")
	}
	t.Codec, t.StreamType = m4f.CodecH264, 0x1b
	t.lengthSize = int(b[4]&3) + 1
	n, b := int(b[5]&31), b[6:]
	for k := range 2 {
		var err error
		if b, err = t.takeSets(b, n); err != nil {
			return err
		}
		if k == 0 {
			if len(b) == 0 {
				return nil // no picture parameter sets: they come in the samples
			}
			n, b = int(b[0]), b[1:]
		}
	}
	return nil
}

// hevc reads an HEVCDecoderConfigurationRecord (14496-15 8.3.3.1).
func (t *MovieTrack) hevc(c box) error {
	b := c.body
	if len(b) < 23 {
		return errors.New("too short")
	}
	t.Codec, t.StreamType = m4f.CodecHEVC, 0x24
	t.lengthSize = int(b[21]&3) + 1
	arrays, b := int(b[22]), b[23:]
	for range arrays {
		if len(b) < 3 {
			return errors.New("too short")
		}
		n := int(b[1])<<8 | int(b[2])
		var err error
		if b, err = t.takeSets(b[3:], n); err != nil {
			return err
		}
	}
	return nil
}

// takeSets reads n NAL units with lengths of two bytes.
func (t *MovieTrack) takeSets(b []byte, n int) ([]byte, error) {
	for range n {
		if len(b) < 2 || len(b)-2 < int(b[0])<<8|int(b[1]) {
			return nil, errors.New("a parameter set runs past the end")
		}
		size := int(b[0])<<8 | int(b[1])
		if size > 0 {
			t.sets = append(t.sets, b[2:2+size:2+size])
		}
		b = b[2+size:]
	}
	return b, nil
}

func registration(format string) []byte { return append([]byte{0x05, 4}, format...) }

// languageOf returns a language of ISO 639-2, or nothing where it is none or
// undetermined.
func languageOf(l string) string {
	if len(l) != 3 || l == "und" {
		return ""
	}
	for _, c := range []byte(l) {
		if c < 'a' || c > 'z' {
			return ""
		}
	}
	return l
}
