package hls

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/Eyevinn/hls-m3u8/m3u8"
)

// known are the tags that matter here. Others are left out before the library
// reads a playlist: it refuses whole playlists for an EXT-X-DATERANGE at the
// end, and parts of low-latency streams are most of their bytes.
var known = []string{
	"#EXTINF:", "#EXT-X-VERSION:", "#EXT-X-TARGETDURATION:", "#EXT-X-MEDIA-SEQUENCE:", "#EXT-X-DISCONTINUITY-SEQUENCE:",
	"#EXT-X-DISCONTINUITY", "#EXT-X-GAP", "#EXT-X-ENDLIST", "#EXT-X-PLAYLIST-TYPE:", "#EXT-X-I-FRAMES-ONLY", "#EXT-X-PROGRAM-DATE-TIME:",
	keyName, mapName, rangeName, "#EXT-X-MEDIA:", "#EXT-X-STREAM-INF:", "#EXT-X-I-FRAME-STREAM-INF:",
}

// prepare checks that b is a playlist, puts in the values of its variables and
// leaves out what does not matter. The number of lines that make something is
// bounded.
func prepare(b []byte, base *url.URL) ([]byte, error) {
	if len(b) > maxPlaylist {
		return nil, fmt.Errorf("%d bytes, at most %d are taken", len(b), maxPlaylist)
	}
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	if !bytes.HasPrefix(b, []byte("#EXTM3U")) {
		return nil, ErrNoPlaylist
	}
	out := make([]byte, 0, len(b)+1)
	vars := map[string]string{}
	segments, variants, pending := 0, 0, false
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if strings.Contains(line, "{$") && len(vars) > 0 {
			line = substitute(line, vars)
		}
		switch {
		case strings.HasPrefix(line, defineName):
			if err := define(vars, line[len(defineName):], base); err != nil {
				return nil, err
			}
			continue
		case line == "#EXTM3U":
		case line[0] != '#':
			if !pending {
				continue // it belongs to nothing
			}
			pending = false
		case !isKnown(line):
			continue
		case strings.HasPrefix(line, "#EXTINF:"):
			segments++
			pending = true
		case strings.HasPrefix(line, "#EXT-X-STREAM-INF:"):
			variants++
			pending = true
		case strings.HasPrefix(line, "#EXT-X-MEDIA:"), strings.HasPrefix(line, "#EXT-X-I-FRAME-STREAM-INF:"):
			variants++
		}
		if segments > maxSegments || variants > maxVariants {
			return nil, fmt.Errorf("more than %d segments or %d variants", maxSegments, maxVariants)
		}
		out = append(append(out, line...), '\n')
	}
	return out, nil
}

func isKnown(line string) bool {
	for _, t := range known {
		if strings.HasPrefix(line, t) && (strings.HasSuffix(t, ":") || len(line) == len(t)) {
			return true
		}
	}
	return false
}

const defineName = "#EXT-X-DEFINE:"

// define takes note of a variable (rfc8216bis 4.4.2.3). One imported from the
// multivariant playlist must have come to the URL by its query here.
func define(vars map[string]string, list string, base *url.URL) error {
	a := attributes(list)
	if len(vars) >= maxAttributes {
		return fmt.Errorf("more than %d variables", maxAttributes)
	}
	switch {
	case a["NAME"] != "":
		vars[a["NAME"]] = a["VALUE"]
	case a["QUERYPARAM"] != "":
		v, ok := base.Query()[a["QUERYPARAM"]]
		if !ok {
			return fmt.Errorf("it wants %s= in the query of its URL", a["QUERYPARAM"])
		}
		vars[a["QUERYPARAM"]] = v[0]
	case a["IMPORT"] != "":
		return fmt.Errorf("it takes the variable %q from another playlist, which is not supported", a["IMPORT"])
	}
	return nil
}

// substitute puts in the values of variables, once: values are not looked
// through again.
func substitute(line string, vars map[string]string) string {
	var out strings.Builder
	for {
		before, rest, ok := strings.Cut(line, "{$")
		out.WriteString(before)
		if !ok {
			return out.String()
		}
		name, after, ok := strings.Cut(rest, "}")
		v, defined := vars[name]
		if !ok || !defined || out.Len() > maxPlaylist {
			out.WriteString("{$")
			line = rest
			continue
		}
		out.WriteString(v)
		line = after
	}
}

// attributes reads an attribute list (RFC 8216 4.2); quotes are taken off.
func attributes(list string) map[string]string {
	m := map[string]string{}
	for list != "" && len(m) < maxAttributes {
		name, rest, ok := strings.Cut(list, "=")
		if !ok {
			break
		}
		var value string
		if quoted, is := strings.CutPrefix(rest, `"`); is {
			value, list, _ = strings.Cut(quoted, `"`)
			list = strings.TrimPrefix(strings.TrimLeft(list, " "), ",")
		} else {
			value, list, _ = strings.Cut(rest, ",")
			value = strings.TrimSpace(value)
		}
		m[strings.TrimSpace(name)] = value
	}
	return m
}

// The tags that are read here and not by the library: it takes the range of an
// EXT-X-MAP only without its quotes, does not know which key holds for which,
// and makes no difference between an offset of 0 and none.
const (
	keyName   = "#EXT-X-KEY:"
	mapName   = "#EXT-X-MAP:"
	rangeName = "#EXT-X-BYTERANGE:"
)

// scope is what holds at the line being read.
type scope struct{ keys *keyTag }

func (s *scope) decoders() []m3u8.CustomDecoder {
	return []m3u8.CustomDecoder{
		&tagDecoder{keyName, func(list string) m3u8.CustomTag {
			s.keys = s.keys.with(attributes(list))
			return s.keys
		}},
		&tagDecoder{mapName, func(list string) m3u8.CustomTag { return &mapTag{attributes(list), s.keys} }},
		&tagDecoder{rangeName, func(list string) m3u8.CustomTag {
			r, err := parseRange(list)
			return &rangeTag{r, err}
		}},
	}
}

// tagDecoder implements m3u8.CustomDecoder.
type tagDecoder struct {
	name string
	read func(list string) m3u8.CustomTag
}

func (d *tagDecoder) TagName() string  { return d.name }
func (d *tagDecoder) SegmentTag() bool { return true }
func (d *tagDecoder) Decode(line string) (m3u8.CustomTag, error) {
	return d.read(strings.TrimPrefix(line, d.name)), nil
}

// keyTag are the keys in force: one for each KEYFORMAT, without METHOD=NONE.
// It is never changed.
type keyTag struct{ formats map[string]map[string]string }

func (*keyTag) TagName() string       { return keyName }
func (*keyTag) Encode() *bytes.Buffer { return nil }
func (*keyTag) String() string        { return "" }

// with returns the keys after another EXT-X-KEY. Several of one segment have
// different formats; a new one of a format takes the old one's place.
func (k *keyTag) with(a map[string]string) *keyTag {
	n := &keyTag{map[string]map[string]string{}}
	if a["METHOD"] == "NONE" || a["METHOD"] == "" {
		return n
	}
	if k != nil && len(k.formats) < maxAttributes {
		for f, x := range k.formats {
			n.formats[f] = x
		}
	}
	n.formats[formatOf(a)] = a
	return n
}

const identity = "identity" // the key itself, RFC 8216 4.3.2.4

func formatOf(a map[string]string) string {
	if f := a["KEYFORMAT"]; f != "" {
		return f
	}
	return identity
}

// key returns the key for a segment, or nil when there is none.
func (k *keyTag) key(base *url.URL) (*Key, error) {
	if k == nil || len(k.formats) == 0 {
		return nil, nil
	}
	a, ok := k.formats[identity]
	if !ok {
		return nil, fmt.Errorf("%w for players of a digital rights system; ask for the stream in the clear, or with METHOD=AES-128", ErrEncrypted)
	}
	if a["METHOD"] != "AES-128" {
		return nil, fmt.Errorf("%w with METHOD=%.40s, which is not supported: NONE and AES-128 are", ErrEncrypted, a["METHOD"])
	}
	out := &Key{}
	var err error
	if out.URL, err = resolve(base, a["URI"]); err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	if iv := a["IV"]; iv != "" {
		digits := strings.TrimPrefix(strings.ToLower(iv), "0x")
		if len(digits) > 2*keySize {
			return nil, fmt.Errorf("IV of %d digits, want 32", len(digits))
		}
		if out.IV, err = hex.DecodeString(strings.Repeat("0", 2*keySize-len(digits)) + digits); err != nil {
			return nil, fmt.Errorf("IV: %w", err)
		}
	}
	return out, nil
}

// mapTag is an EXT-X-MAP with the keys in force at its line.
type mapTag struct {
	attributes map[string]string
	keys       *keyTag
}

func (*mapTag) TagName() string       { return mapName }
func (*mapTag) Encode() *bytes.Buffer { return nil }
func (*mapTag) String() string        { return "" }

func (t *mapTag) resolve(base *url.URL) (*Init, error) {
	u, err := resolve(base, t.attributes["URI"])
	if err != nil {
		return nil, fmt.Errorf("EXT-X-MAP: %w", err)
	}
	i := &Init{URL: u}
	if text := t.attributes["BYTERANGE"]; text != "" {
		r, err := parseRange(text)
		if err != nil {
			return nil, fmt.Errorf("EXT-X-MAP: %w", err)
		}
		r.Offset = max(r.Offset, 0)
		if r.Length > maxInit {
			return nil, fmt.Errorf("EXT-X-MAP of %d bytes, at most %d are taken", r.Length, maxInit)
		}
		i.Range = &r
	}
	i.Key, err = t.keys.key(base)
	return i, err
}

// rangeTag is an EXT-X-BYTERANGE; an offset below 0 is none.
type rangeTag struct {
	Range
	err error
}

func (*rangeTag) TagName() string       { return rangeName }
func (*rangeTag) Encode() *bytes.Buffer { return nil }
func (*rangeTag) String() string        { return "" }

// parseRange reads LENGTH[@OFFSET].
func parseRange(text string) (Range, error) {
	length, offset, has := strings.Cut(strings.TrimSpace(text), "@")
	n, err := strconv.ParseInt(length, 10, 64)
	o := int64(-1)
	if err == nil && has {
		o, err = strconv.ParseInt(offset, 10, 64)
	}
	if err != nil || n <= 0 || has && o < 0 {
		return Range{}, errors.New("byte range " + strconv.Quote(text[:min(len(text), 60)]) + ": want LENGTH@OFFSET")
	}
	return Range{o, n}, nil
}
