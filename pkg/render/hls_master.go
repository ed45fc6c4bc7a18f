package render

import (
	"fmt"
	"strings"
)

// Master is an HLS multivariant playlist (RFC 8216 4.3.4).
type Master struct {
	Entries []Entry // of the media playlists, or as many as tell what there is
	// Playlist returns the address of a choice's media playlist.
	Playlist func(Choice) string
}

// Text is the playlist. Where there is one sound at most, it comes with the
// picture; where there are several, each is a rendition of its own, grouped by
// codec. Where browsers know none of the codecs, there is a variant without sound.
func (m *Master) Text() []byte {
	movies := Movies(m.Entries)
	sounds := Sounds(movies)
	w := masterWriter{m: m, movies: movies}
	w.average, w.peak = rates(m.Entries)
	fmt.Fprintf(&w.b, "#EXTM3U\n#EXT-X-VERSION:7\n")
	video := codecs(movies, VideoOnly) != ""
	switch {
	case len(sounds) == 0:
		w.variant(VideoOnly, codecs(movies, VideoOnly), "")
	case len(sounds) == 1 && video:
		w.variant(Muxed, codecs(movies, Muxed), "")
	case len(sounds) == 1:
		w.variant(Choice{Audio: AnyAudio}, codecs(movies, Choice{Audio: AnyAudio}), "")
	default:
		w.groups(sounds, video)
	}
	silent := len(sounds) > 0 && video
	for _, s := range sounds {
		silent = silent && !everywhere(audioFamily(s))
	}
	if silent {
		w.variant(VideoOnly, codecs(movies, VideoOnly), "")
	}
	if video {
		w.pictures()
	}
	return []byte(w.b.String())
}

type masterWriter struct {
	m             *Master
	b             strings.Builder
	movies        []*Movie
	average, peak int64
}

// groups lists the renditions, a group for each codec, and a variant for each
// group.
func (w *masterWriter) groups(sounds []string, video bool) {
	var groups []string
	of := map[string][]string{}
	for _, s := range sounds {
		g := audioFamily(s)
		if of[g] == nil {
			groups = append(groups, g)
		}
		of[g] = append(of[g], s)
	}
	for _, g := range groups {
		for i, s := range of[g] {
			w.rendition(g, s, i == 0)
		}
	}
	for _, g := range groups {
		c, first := VideoOnly, Choice{Audio: of[g][0]}
		names := codecs(w.movies, VideoOnly)
		if !video {
			c, names = first, ""
		}
		w.variant(c, joinCodecs(names, codecs(w.movies, first)), g)
	}
}

func joinCodecs(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "," + b
}

func (w *masterWriter) rendition(group, name string, first bool) {
	f := strings.Split(name, "-")
	label := f[1]
	if f[2] != "1" {
		label += " " + f[2]
	}
	fmt.Fprintf(&w.b, `#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="%s",NAME="%s"`, group, label)
	if f[1] != "und" {
		fmt.Fprintf(&w.b, `,LANGUAGE="%s"`, f[1])
	}
	if first {
		w.b.WriteString(",DEFAULT=YES")
	}
	w.b.WriteString(",AUTOSELECT=YES")
	if n := w.channels(Choice{Audio: name}); n > 0 {
		fmt.Fprintf(&w.b, `,CHANNELS="%d"`, n)
	}
	fmt.Fprintf(&w.b, ",URI=\"%s\"\n", w.m.Playlist(Choice{Audio: name}))
}

func (w *masterWriter) channels(c Choice) uint16 {
	for _, m := range w.movies {
		for _, k := range c.tracks(m.init) {
			return m.init.Tracks[k].Channels
		}
	}
	return 0
}

func (w *masterWriter) variant(c Choice, codecs, group string) {
	fmt.Fprintf(&w.b, "#EXT-X-STREAM-INF:BANDWIDTH=%d,AVERAGE-BANDWIDTH=%d", w.peak, w.average)
	if codecs != "" {
		fmt.Fprintf(&w.b, `,CODECS="%s"`, codecs)
	}
	if c.Video {
		w.picture(true)
	}
	if group != "" {
		fmt.Fprintf(&w.b, `,AUDIO="%s"`, group)
	}
	fmt.Fprintf(&w.b, "\n%s\n", w.m.Playlist(c))
}

// picture adds the size and rate of the pictures, of the first movie that has some.
func (w *masterWriter) picture(rate bool) {
	for _, m := range w.movies {
		t := m.picture()
		if t == nil {
			continue
		}
		if width, height := displaySize(t); width > 0 && height > 0 {
			fmt.Fprintf(&w.b, ",RESOLUTION=%dx%d", width, height)
		}
		if r := m.frameRate(); rate && r > 0 {
			fmt.Fprintf(&w.b, ",FRAME-RATE=%.3f", r)
		}
		return
	}
}

// pictures is the variant of keyframes. No more is known of its rate than that it
// is less than that of the stream.
func (w *masterWriter) pictures() {
	fmt.Fprintf(&w.b, "#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=%d", max(w.average, 1))
	if c := codecs(w.movies, VideoOnly); c != "" {
		fmt.Fprintf(&w.b, `,CODECS="%s"`, c)
	}
	w.picture(false)
	fmt.Fprintf(&w.b, ",URI=\"%s\"\n", w.m.Playlist(Pictures))
}
