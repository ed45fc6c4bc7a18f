package render

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strings"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// looks is what the samples of one segment tell beyond its init segment.
type looks struct {
	rate  float64 // pictures a second, 0: unknown
	layer []byte  // of each track of MPEG audio: 1 to 3, 0: unknown
	bits  []int64 // of each track, a second, 0: unknown
}

// Look learns from the media of a segment how many pictures a second there are,
// and of which layer MPEG audio is. What cannot be read is left open.
func (m *Movie) Look(h *m4f.Header, media io.ReaderAt) error {
	l, err := ReadLayout(m, h, media)
	if err != nil {
		return err
	}
	found := looks{layer: make([]byte, len(m.init.Tracks)), bits: make([]int64, len(m.init.Tracks))}
	for i := range m.init.Tracks {
		t := &l.frag.Tracks[i]
		n := len(t.Samples)
		if n == 0 {
			continue
		}
		if length := t.End() - t.Start; length > 0 {
			last := t.Samples[n-1]
			found.bits[i] = int64(last.Off+last.Len-t.Samples[0].Off) * 8 * m4f.Timescale / length
		}
		switch c := m.init.Tracks[i].Config.Codec; {
		case c.IsVideo() && found.rate == 0 && t.End() > t.Start:
			found.rate = float64(n) * m4f.Timescale / float64(t.End()-t.Start)
		case c == m4f.CodecMPEGAudio:
			var b [2]byte
			if _, err := media.ReadAt(b[:], int64(t.Samples[0].Off)); err == nil && b[0] == 0xFF {
				found.layer[i] = (4 - b[1]>>1&3) & 3 // ISO/IEC 11172-3 2.4.2.3
			}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen = found
	return nil
}

// codec is how RFC 6381 names the coding of a track.
func (m *Movie) codec(k int) string {
	t := &m.init.Tracks[k]
	if len(t.SampleEntry) < 8 {
		return ""
	}
	entry, config := string(t.SampleEntry[4:8]), t.DecoderConfig
	switch t.Config.Codec {
	case m4f.CodecH264:
		if len(config) >= 4 {
			return fmt.Sprintf("%s.%02X%02X%02X", entry, config[1], config[2], config[3])
		}
	case m4f.CodecHEVC:
		return hevcCodec(entry, config)
	case m4f.CodecAAC, m4f.CodecLATM:
		return fmt.Sprintf("mp4a.40.%d", audioObject(config))
	case m4f.CodecMPEG2Video:
		return fmt.Sprintf("mp4v.%02X", objectType(t.SampleEntry))
	case m4f.CodecMPEGAudio:
		m.mu.Lock()
		defer m.mu.Unlock()
		if k < len(m.seen.layer) && (m.seen.layer[k] == 1 || m.seen.layer[k] == 2) {
			return fmt.Sprintf("mp4a.40.%d", 31+m.seen.layer[k]) // ISO/IEC 14496-3 table 1.1
		}
		return fmt.Sprintf("mp4a.%02X", objectType(t.SampleEntry))
	case m4f.CodecOpus:
		return "opus"
	}
	return entry
}

// hevcCodec is ISO/IEC 14496-15 annex E.3.
func hevcCodec(entry string, c []byte) string {
	if len(c) < 13 {
		return entry
	}
	space := []string{"", "A", "B", "C"}[c[1]>>6]
	tier := "L"
	if c[1]&0x20 != 0 {
		tier = "H"
	}
	s := fmt.Sprintf("%s.%s%d.%X.%s%d", entry, space, c[1]&0x1F, bits.Reverse32(binary.BigEndian.Uint32(c[2:])), tier, c[12])
	for _, b := range bytes.TrimRight(c[6:12], "\x00") {
		s += fmt.Sprintf(".%X", b)
	}
	return s
}

// audioObject is the audio object type of an AudioSpecificConfig (ISO/IEC 14496-3
// 1.6.2.1), AAC-LC where there is none.
func audioObject(config []byte) int {
	if len(config) < 2 {
		return 2
	}
	object := int(config[0] >> 3)
	if object == 31 {
		object = 32 + int(config[0]&7)<<3 + int(config[1]>>5)
	}
	return object
}

// objectType is the object type indication in the esds of a sample entry (ISO/IEC
// 14496-1 7.2.6.6), as package m4f writes it.
func objectType(entry []byte) byte {
	if i := bytes.Index(entry, []byte("esds")); i >= 0 && i+21 < len(entry) {
		return entry[i+21]
	}
	return 0
}

// codecs are those of the tracks that a choice has in some movies, each once.
func codecs(movies []*Movie, c Choice) string {
	var out []string
	for _, m := range movies {
		for _, k := range c.tracks(m.init) {
			if s := m.codec(k); s != "" && !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return strings.Join(out, ",")
}

// everywhere says whether what plays video in a browser plays sound of a codec.
func everywhere(family string) bool {
	return family == m4f.CodecAAC.String() || family == m4f.CodecOpus.String()
}

// picture is the video track of a movie, or nil.
func (m *Movie) picture() *m4f.TrackInfo {
	if k := VideoOnly.tracks(m.init); len(k) > 0 {
		return &m.init.Tracks[k[0]]
	}
	return nil
}

// size is the size in square pixels of a video track.
func displaySize(t *m4f.TrackInfo) (width, height uint32) {
	width, height = (t.DisplayWidth+1<<15)>>16, (t.DisplayHeight+1<<15)>>16
	if width == 0 || height == 0 {
		width, height = uint32(t.Width), uint32(t.Height)
	}
	return width, height
}

// frameRate is how many pictures a second there are, 0 where that is not known.
func (m *Movie) frameRate() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen.rate
}

// bandwidth is a track's rate in bits a second: half as much again as that of the
// segment that was looked at, or what the stream has at most.
func (m *Movie) bandwidth(k int, most int64) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if k < len(m.seen.bits) && m.seen.bits[k] > 0 {
		return min(m.seen.bits[k]*3/2, most)
	}
	return most
}

// Movies are those of some entries, each once, in order.
func Movies(entries []Entry) []*Movie {
	var out []*Movie
	for i := range entries {
		if m := entries[i].Movie; len(out) == 0 || out[len(out)-1] != m && !slices.Contains(out, m) {
			out = append(out, m)
		}
	}
	return out
}

// Sounds are the names of the audio renditions of some movies, in order. Where none
// has more than one, one name stands for all of them.
func Sounds(movies []*Movie) []string {
	var out []string
	several := false
	for _, m := range movies {
		n := 0
		for _, name := range renditions(m.init) {
			if name == "" {
				continue
			}
			if n++; !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
		several = several || n > 1
	}
	if !several && len(out) > 1 {
		return out[:1]
	}
	return out
}
