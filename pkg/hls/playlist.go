package hls

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/url"
	"strings"
	"time"

	"github.com/Eyevinn/hls-m3u8/m3u8"
)

// Playlist is a playlist of one of the two kinds: one of its fields is set.
type Playlist struct {
	Master *Master
	Media  *Media
}

// Master is a multivariant playlist (RFC 8216 4.3.4).
type Master struct {
	Variants []Variant // in the playlist's order, without those of I-frames alone
}

// Variant is a variant stream.
type Variant struct {
	URL        *url.URL
	Bandwidth  int    // peak, bit/s
	Resolution string // WIDTHxHEIGHT, or empty
	Codecs     string // RFC 6381
	// Audio are the renditions of its audio group that have a playlist of
	// their own; the others lie in the variant's.
	Audio []Rendition
	// Others names the types of renditions with playlists of their own that
	// are no audio: VIDEO, SUBTITLES.
	Others []string
}

// Rendition is an alternative rendition (RFC 8216 4.3.4.1).
type Rendition struct {
	URL      *url.URL
	Name     string
	Language string // RFC 5646, or empty
}

// Media is a media playlist (RFC 8216 4.3.3).
type Media struct {
	Target   time.Duration
	Ended    bool // nothing will be added
	Sequence uint64
	Segments []Segment
	// PreloadHint and parts of low-latency streams are passed over: their
	// segments come whole a little later.
}

// Segment is a media segment as a playlist lists it.
type Segment struct {
	Number   uint64 // media sequence number
	URL      *url.URL
	Range    *Range // nil: all of the resource
	Duration time.Duration
	// Discontinuity is the discontinuity sequence number: times may jump and
	// tracks change where it does.
	Discontinuity uint64
	Gap           bool // the server has not got it
	Key           *Key // nil: in the clear
	Init          *Init
	// Date is the time of the first sample, by EXT-X-PROGRAM-DATE-TIME of this
	// segment or one before it without a discontinuity between; zero if there
	// is none.
	Date time.Time
}

// Range is a sub-range of a resource, in bytes.
type Range struct{ Offset, Length int64 }

// Init is a media initialization section (EXT-X-MAP).
type Init struct {
	URL   *url.URL
	Range *Range
	Key   *Key
}

// Key is a key of METHOD=AES-128 (EXT-X-KEY).
type Key struct {
	URL *url.URL
	// IV is the initialization vector; nil: the media sequence number.
	IV []byte
}

// Errors of playlists.
var (
	// ErrNoPlaylist is a document that is something else.
	ErrNoPlaylist = errors.New("it is no playlist: it does not begin with #EXTM3U; does the URL name an .m3u8 file?")
	// ErrEncrypted is media that cannot be decrypted with a key from the server alone.
	ErrEncrypted = errors.New("it is encrypted")
)

// Parse reads a playlist that came from a URL. Any input is safe.
func Parse(b []byte, base *url.URL) (*Playlist, error) {
	p, err := parse(b, base)
	if err != nil {
		return nil, &PlaylistError{Show(base), err}
	}
	return p, nil
}

func parse(b []byte, base *url.URL) (p *Playlist, err error) {
	text, err := prepare(b, base)
	if err != nil {
		return nil, err
	}
	// The bytes are a stranger's: a fault of the library is theirs too.
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, fmt.Errorf("reading it: %v", r)
		}
	}()
	s := &scope{}
	list, _, err := m3u8.DecodeWith(bytes.NewReader(text), false, s.decoders())
	switch l := list.(type) {
	case *m3u8.MasterPlaylist:
		m, err := master(l, base)
		return &Playlist{Master: m}, err
	case *m3u8.MediaPlaylist:
		m, err := media(l, base)
		return &Playlist{Media: m}, err
	}
	if errors.Is(err, m3u8.ErrCannotDetectPlaylistType) {
		// A stream that has just begun lists nothing yet.
		return nil, errors.New("it lists neither variants nor segments")
	}
	return nil, err
}

// resolve makes a URL of a playlist's line absolute (RFC 3986 5). User and
// password go on to the same server.
func resolve(base *url.URL, ref string) (*url.URL, error) {
	u, err := base.Parse(strings.TrimSpace(ref))
	switch {
	case err != nil:
		return nil, fmt.Errorf("address %.200q: %w", ref, errors.Unwrap(err))
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("address %.200q: scheme %q is neither http nor https", ref, u.Scheme)
	case u.Host == "":
		return nil, fmt.Errorf("address %.200q: no host", ref)
	}
	if u.User == nil && u.Scheme == base.Scheme && u.Host == base.Host {
		u.User = base.User
	}
	return u, nil
}

func master(l *m3u8.MasterPlaylist, base *url.URL) (*Master, error) {
	m := &Master{}
	for _, v := range l.Variants {
		if v.Iframe {
			continue
		}
		u, err := resolve(base, v.URI)
		if err != nil {
			return nil, err
		}
		w := Variant{URL: u, Bandwidth: int(v.Bandwidth), Resolution: v.Resolution, Codecs: v.Codecs}
		for _, a := range v.Alternatives {
			switch {
			case a.URI == "":
			case a.Type != "AUDIO":
				w.Others = append(w.Others, a.Type)
			default:
				u, err := resolve(base, a.URI)
				if err != nil {
					return nil, err
				}
				w.Audio = append(w.Audio, Rendition{URL: u, Name: a.Name, Language: a.Language})
			}
		}
		m.Variants = append(m.Variants, w)
	}
	if len(m.Variants) == 0 {
		return nil, errors.New("it lists no variant to play")
	}
	return m, nil
}

func media(l *m3u8.MediaPlaylist, base *url.URL) (*Media, error) {
	if l.Iframe {
		return nil, errors.New("it lists I-frames alone; name the playlist of the whole stream")
	}
	if l.TargetDuration > maxTarget {
		return nil, fmt.Errorf("target duration %d s", l.TargetDuration)
	}
	m := &Media{Target: time.Duration(max(l.TargetDuration, 1)) * time.Second, Ended: l.Closed, Sequence: l.SeqNo}
	w := walk{base: base, discontinuity: l.DiscontinuitySeq}
	for _, s := range l.Segments {
		if s == nil {
			continue
		}
		seg, err := w.segment(s)
		if err != nil {
			return nil, err
		}
		seg.Number = m.Sequence + uint64(len(m.Segments))
		if seg.Number < m.Sequence {
			return nil, fmt.Errorf("media sequence number %d is too large", m.Sequence)
		}
		m.Segments = append(m.Segments, seg)
	}
	return m, nil
}

// walk carries from segment to segment what holds until it is changed.
type walk struct {
	base          *url.URL
	discontinuity uint64
	keys          *keyTag
	init          *Init
	date          time.Time
	ranged        *url.URL // resource of the last sub-range
	end           int64    // ... and where it ended
}

func (w *walk) segment(s *m3u8.MediaSegment) (seg Segment, err error) {
	if s.Discontinuity {
		// The first segment's own tag counts too (RFC 8216 3).
		w.discontinuity++
		w.date = time.Time{}
	}
	if k, ok := s.Custom[keyName].(*keyTag); ok {
		w.keys = k
	}
	if t, ok := s.Custom[mapName].(*mapTag); ok {
		if w.init, err = t.resolve(w.base); err != nil {
			return seg, err
		}
	}
	seg = Segment{Gap: s.Gap, Discontinuity: w.discontinuity, Init: w.init, Duration: seconds(s.Duration)}
	if seg.URL, err = resolve(w.base, s.URI); err != nil {
		return seg, err
	}
	if seg.Key, err = w.keys.key(w.base); err != nil {
		return seg, err
	}
	if r, ok := s.Custom[rangeName].(*rangeTag); ok {
		if seg.Range, err = w.sub(r, seg.URL); err != nil {
			return seg, err
		}
	}
	if !s.ProgramDateTime.IsZero() {
		w.date = s.ProgramDateTime
	}
	seg.Date = w.date
	if !w.date.IsZero() {
		w.date = w.date.Add(seg.Duration)
	}
	return seg, nil
}

// sub is the sub-range of a segment: without an offset it follows the one
// before, of the same resource (RFC 8216 4.3.2.2).
func (w *walk) sub(r *rangeTag, u *url.URL) (*Range, error) {
	if r.err != nil {
		return nil, r.err
	}
	out := r.Range
	if out.Offset < 0 {
		if w.ranged == nil || *w.ranged != *u {
			return nil, errors.New("EXT-X-BYTERANGE without an offset follows no other of its resource")
		}
		out.Offset = w.end
	}
	if out.Length > maxSegment || out.Offset > math.MaxInt64-maxSegment {
		return nil, fmt.Errorf("segment of %d bytes, at most %d are taken", out.Length, maxSegment)
	}
	w.ranged, w.end = u, out.Offset+out.Length
	return &out, nil
}

// seconds converts the duration of a segment; what makes no sense is none.
func seconds(s float64) time.Duration {
	if !(s > 0 && s <= maxTarget) {
		return 0
	}
	return time.Duration(s * float64(time.Second))
}
