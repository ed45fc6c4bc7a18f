package render

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/Eyevinn/mp4ff/mp4"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// Choice says which tracks of a segment a player gets. Timed metadata it never
// gets: browsers refuse a file with a track that they do not know.
type Choice struct {
	Video bool
	// Audio is the name of a rendition, AnyAudio, or empty for none.
	Audio string
	// Keyframes: of the video the first picture of each segment alone.
	Keyframes bool
}

// AnyAudio is the first audio track, whatever it is.
const AnyAudio = "a"

// The choices that need no name of a rendition.
var (
	Muxed     = Choice{Video: true, Audio: AnyAudio}
	VideoOnly = Choice{Video: true}
	Pictures  = Choice{Video: true, Keyframes: true}
)

// ChoicePattern is a regular expression of the choices as String writes them.
const ChoicePattern = `va|v|i|a|[a-z0-9]{2,9}-[a-z]{3}-[1-9][0-9]?`

var renditionPattern = regexp.MustCompile(`^[a-z0-9]{2,9}-[a-z]{3}-[1-9][0-9]?$`)

// ParseChoice reads what String writes.
func ParseChoice(s string) (Choice, error) {
	switch {
	case s == "va":
		return Muxed, nil
	case s == "v":
		return VideoOnly, nil
	case s == "i":
		return Pictures, nil
	case s == AnyAudio:
		return Choice{Audio: AnyAudio}, nil
	case renditionPattern.MatchString(s):
		return Choice{Audio: s}, nil
	}
	return Choice{}, fmt.Errorf("%q names no tracks: va is picture and sound, v the picture, a the sound, i keyframes, and one of several sounds is named like aac-eng-1", s)
}

// String is va, v, i, a, or the name of an audio rendition.
func (c Choice) String() string {
	switch {
	case c.Keyframes:
		return "i"
	case c.Video && c.Audio != "":
		return "va"
	case c.Video:
		return "v"
	}
	return c.Audio
}

// family is how a rendition's name calls a codec: alike where players do not
// tell apart how it was carried.
func family(c m4f.Codec) string {
	if c == m4f.CodecLATM {
		return m4f.CodecAAC.String()
	}
	return c.String()
}

// renditions are the names of an init segment's audio tracks: codec, language, and
// the how manieth of those it is. Tracks that are no sound have an empty name.
func renditions(init *m4f.Init) []string {
	names := make([]string, len(init.Tracks))
	count := map[string]int{}
	for i := range init.Tracks {
		t := &init.Tracks[i]
		if !t.Config.Codec.IsAudio() {
			continue
		}
		language := t.Language
		if !languagePattern.MatchString(language) {
			language = "und"
		}
		name := family(t.Config.Codec) + "-" + language
		count[name]++
		names[i] = name + "-" + strconv.Itoa(min(count[name], 99))
	}
	return names
}

var languagePattern = regexp.MustCompile(`^[a-z]{3}$`)

// tracks are the places of the chosen tracks in an init segment. A rendition that
// it lacks is another of the same codec, where there is one, so that sound goes on
// where a broadcaster names it otherwise.
func (c Choice) tracks(init *m4f.Init) []int {
	var out []int
	if c.Video {
		for i := range init.Tracks {
			if init.Tracks[i].Config.Codec.IsVideo() {
				out = append(out, i)
				break
			}
		}
	}
	if c.Audio == "" {
		return out
	}
	best, rank := -1, 0
	for i, name := range renditions(init) {
		r := 0
		switch {
		case name == "":
		case name == c.Audio:
			r = 4
		case c.Audio == AnyAudio:
			r = 1
		case language(name) == language(c.Audio):
			r = 3 // the same language
		case family(init.Tracks[i].Config.Codec) == audioFamily(c.Audio):
			r = 2
		}
		if r > rank {
			best, rank = i, r
		}
	}
	if best >= 0 {
		out = append(out, best)
	}
	return out
}

// language is a rendition's name without its number, audioFamily the codec of it.
func language(name string) string { return name[:max(strings.LastIndexByte(name, '-'), 0)] }

func audioFamily(name string) string {
	codec, _, _ := strings.Cut(name, "-")
	return codec
}

// Movie is what the init segment of some segments says, for players.
type Movie struct {
	init *m4f.Init

	mu   sync.Mutex
	made map[[2]int]*PlayerInit // by the places of the tracks, -1: none
	seen looks
}

// NewMovie reads an init segment.
func NewMovie(b []byte) (*Movie, error) {
	init, err := m4f.ParseInit(bytes.Clone(b))
	if err != nil {
		return nil, err
	}
	return &Movie{init: init, made: map[[2]int]*PlayerInit{}}, nil
}

// ID is the identity of the init segment.
func (m *Movie) ID() m4f.Identity { return m.init.ID }

// Has says whether there is a track for a choice.
func (m *Movie) Has(c Choice) bool { return len(c.tracks(m.init)) > 0 }

// Choices are the tracks one by one: the picture, and each sound.
func (m *Movie) Choices() []Choice {
	var out []Choice
	if m.Has(VideoOnly) {
		out = append(out, VideoOnly)
	}
	for _, name := range renditions(m.init) {
		if name != "" {
			out = append(out, Choice{Audio: name})
		}
	}
	return out
}

// PlayerInit is an init segment as players get it, and the name of its bytes.
type PlayerInit struct {
	Bytes []byte // ftyp and moov
	Name  string // eight hexadecimal digits that follow from Bytes
}

// Init makes the init segment of a choice: the chosen tracks, numbered from 1, and
// nothing of what only this program reads. nil: there is no such track.
func (m *Movie) Init(c Choice) (*PlayerInit, error) {
	chosen := c.tracks(m.init)
	if len(chosen) == 0 {
		return nil, nil
	}
	key := [2]int{-1, -1} // many names stand for the same tracks
	copy(key[:], chosen)
	m.mu.Lock()
	defer m.mu.Unlock()
	if p, ok := m.made[key]; ok {
		return p, nil
	}
	p, err := m.make(chosen)
	if err == nil {
		m.made[key] = p
	}
	return p, err
}

func (m *Movie) make(chosen []int) (*PlayerInit, error) {
	moov, mvex := mp4.NewMoovBox(), mp4.NewMvexBox()
	mvhd := mp4.CreateMvhd()
	mvhd.Timescale, mvhd.NextTrackID = m4f.Timescale, uint32(len(chosen)+1)
	moov.AddChild(mvhd)
	for i, k := range chosen {
		info := &m.init.Tracks[k]
		t := track{id: uint32(i + 1), info: info, entries: [][]byte{info.SampleEntry}}
		moov.AddChild(t.trak(0, 0, nil, []mp4.Box{&mp4.SttsBox{}, &mp4.StscBox{}, &mp4.StszBox{}, &mp4.StcoBox{}}))
		mvex.AddChild(mp4.CreateTrex(t.id))
	}
	moov.AddChild(mvex)
	b, err := encodeBoxes(mp4.NewFtyp("iso6", 0, []string{"iso6", "mp42"}), moov)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	return &PlayerInit{Bytes: b, Name: hex.EncodeToString(sum[:4])}, nil
}

// everything are all tracks that players get, for comparing.
func everything(init *m4f.Init) []int {
	var out []int
	for i := range init.Tracks {
		if !init.Tracks[i].Config.Codec.IsData() {
			out = append(out, i)
		}
	}
	return out
}

// Same says whether a player that was told of m can play segments of o, all tracks:
// they are coded alike, or one of the two does not say how, because in its segment
// the track has no sample.
func (m *Movie) Same(o *Movie) bool {
	return m == o || sameTracks(m.init, everything(m.init), o.init, everything(o.init))
}

// fits is Same for the tracks of a choice.
func (c Choice) fits(m, o *Movie) bool {
	return m == o || sameTracks(m.init, c.tracks(m.init), o.init, c.tracks(o.init))
}

func sameTracks(a *m4f.Init, as []int, b *m4f.Init, bs []int) bool {
	if len(as) != len(bs) {
		return false
	}
	for i := range as {
		x, y := &a.Tracks[as[i]], &b.Tracks[bs[i]]
		if x.Config.Codec != y.Config.Codec || x.Language != y.Language ||
			!x.Generic && !y.Generic && !bytes.Equal(x.SampleEntry, y.SampleEntry) {
			return false
		}
	}
	return true
}
