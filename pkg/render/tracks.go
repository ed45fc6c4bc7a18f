package render

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// track is a track of the export: one elementary stream, whatever became of its
// configuration.
type track struct {
	id      uint32
	info    *m4f.TrackInfo // of the first init segment that knows it
	entries [][]byte       // sample entries, different ones
	// repeat: parameter sets change, so every sync sample carries its own.
	repeat bool
}

// mapping says what the tracks of an init segment are in the export.
type mapping struct {
	init   *m4f.Init
	tracks []mapped
}

type mapped struct {
	track *track
	entry uint32 // sample description index, from 1
	// sets are the parameter sets to put into every sync sample, each behind
	// its length; nil: none.
	sets []byte
}

type trackKey struct {
	pid   uint16
	codec m4f.Codec
}

// mergeTracks makes the tracks of the export, video first and then by PID, and
// fills in the mappings.
func mergeTracks(inits []*mapping) []*track {
	found := map[trackKey]*track{}
	var tracks []*track
	// Real configurations come ahead of generic ones, since many players look
	// at the first alone.
	for _, generic := range []bool{false, true} {
		for _, m := range inits {
			for i := range m.init.Tracks {
				t := &m.init.Tracks[i]
				if t.Generic != generic {
					continue
				}
				key := trackKey{t.Config.PID, t.Config.Codec}
				if found[key] == nil {
					found[key] = &track{info: t}
					tracks = append(tracks, found[key])
				}
				found[key].add(t.SampleEntry)
			}
		}
	}
	slices.SortFunc(tracks, func(a, b *track) int {
		x, y := &a.info.Config, &b.info.Config
		if x.Codec.IsVideo() != y.Codec.IsVideo() {
			return cmp.Or(-cmp.Compare(boolInt(x.Codec.IsVideo()), boolInt(y.Codec.IsVideo())))
		}
		return cmp.Or(cmp.Compare(x.PID, y.PID), cmp.Compare(x.Codec, y.Codec))
	})
	for i, t := range tracks {
		t.id = uint32(i + 1)
		t.repeat = t.hasSets() && len(t.entries) > 1
	}
	for _, m := range inits {
		for i := range m.init.Tracks {
			info := &m.init.Tracks[i]
			t := found[trackKey{info.Config.PID, info.Config.Codec}]
			to := mapped{track: t, entry: uint32(t.index(info.SampleEntry) + 1)}
			if t.repeat && !info.Config.InBand {
				to.sets = parameterSets(&info.Config)
			}
			m.tracks = append(m.tracks, to)
		}
	}
	for _, t := range tracks {
		t.announce()
	}
	return tracks
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (t *track) hasSets() bool {
	c := t.info.Config.Codec
	return c == m4f.CodecH264 || c == m4f.CodecHEVC
}

func (t *track) index(entry []byte) int {
	return slices.IndexFunc(t.entries, func(e []byte) bool { return bytes.Equal(e, entry) })
}

func (t *track) add(entry []byte) {
	if t.index(entry) < 0 {
		t.entries = append(t.entries, entry)
	}
}

// announce makes every entry of a track that repeats its parameter sets say so.
// Entries must be of one type: players drop the samples of others.
func (t *track) announce() {
	if !t.repeat {
		return
	}
	name := "avc3"
	if t.info.Config.Codec == m4f.CodecHEVC {
		name = "hev1"
	}
	for i, e := range t.entries {
		e = bytes.Clone(e)
		copy(e[4:8], name)
		t.entries[i] = e
	}
}

// parameterSets is the parameter sets of a configuration as samples hold them.
func parameterSets(c *m4f.TrackConfig) []byte {
	var b []byte
	for _, sets := range [][][]byte{c.VPS, c.SPS, c.PPS} {
		for _, nal := range sets {
			b = binary.BigEndian.AppendUint32(b, uint32(len(nal)))
			b = append(b, nal...)
		}
	}
	return b
}

// delimiterHead is how much of a sample delimiter looks at.
const delimiterHead = 5

// delimiter is how many bytes an access unit delimiter takes at the start of a
// sample of the given size. Parameter sets go behind it.
func (t *track) delimiter(head []byte, size uint32) uint32 {
	if len(head) < delimiterHead {
		return 0
	}
	n := uint64(binary.BigEndian.Uint32(head))
	aud := head[4]&0x1F == 9
	if t.info.Config.Codec == m4f.CodecHEVC {
		aud = head[4]>>1&0x3F == 35
	}
	if !aud || n+4 > uint64(size) {
		return 0
	}
	return uint32(n + 4)
}
