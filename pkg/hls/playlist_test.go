package hls

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var base = &url.URL{Scheme: "http", Host: "a:8080", Path: "/live/x.m3u8", RawQuery: "token=1", User: url.UserPassword("u", "p")}

func parsed(t *testing.T, text string) *Playlist {
	t.Helper()
	p, err := Parse([]byte(text), base)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// What a media playlist says of its segments, with everything that carries
// over from one to the next.
func TestMediaPlaylist(t *testing.T) {
	m := parsed(t, "\xef\xbb\xbf#EXTM3U\r\n#EXT-X-VERSION:9\r\n#EXT-X-TARGETDURATION:6\r\n#EXT-X-MEDIA-SEQUENCE:1700000000000\r\n#EXT-X-DISCONTINUITY-SEQUENCE:3\r\n"+`
#EXT-X-DEFINE:NAME="path",VALUE="seg/ments"
#EXT-X-DEFINE:QUERYPARAM="token"
stray
#EXT-X-MAP:URI="init.mp4",BYTERANGE="720@0"
#EXT-X-KEY:METHOD=AES-128,URI="key",IV=0xFF
#EXT-X-PROGRAM-DATE-TIME:2026-11-22T12:00:00.500Z
#EXTINF:5.76,a title, with a comma
{$path}/1.m4s?t={$token}&{$other}
#EXT-X-PART:DURATION=1,URI="part"
#EXT-X-DATERANGE:ID="x",START-DATE="nonsense",SCTE35-OUT=0xFC
#EXTINF:6
#EXT-X-BYTERANGE:100@720
../all.m4s
#EXTINF:6.0,
#EXT-X-BYTERANGE:50
../all.m4s
#EXT-X-DISCONTINUITY
#EXT-X-GAP
#EXT-X-KEY:METHOD=NONE
#EXT-X-MAP:URI="init2.mp4"
#EXTINF:5,
https://b/2.m4s
#EXT-X-PROGRAM-DATE-TIME:2026-11-22T13:00:00+0100
#EXTINF:5,
//a:8080/3.m4s
#EXT-X-DATERANGE:ID="y",SCTE35-IN=0xFC`).Media
	var got strings.Builder
	for _, s := range m.Segments {
		fmt.Fprintf(&got, "%d %s %v %v %d %t", s.Number, s.URL, s.Range, s.Duration, s.Discontinuity, s.Gap)
		if s.Key != nil {
			fmt.Fprintf(&got, " key %s %x", s.Key.URL, s.Key.IV)
		}
		fmt.Fprintf(&got, " init %s %v %t %s\n", s.Init.URL, s.Init.Range, s.Init.Key != nil, s.Date.UTC().Format("15:04:05.000"))
	}
	const key = " key http://u:p@a:8080/live/key 000000000000000000000000000000ff"
	want := "1700000000000 http://u:p@a:8080/live/seg/ments/1.m4s?t=1&{$other} <nil> 5.76s 3 false" + key + " init http://u:p@a:8080/live/init.mp4 &{0 720} false 12:00:00.500\n" +
		"1700000000001 http://u:p@a:8080/all.m4s &{720 100} 6s 3 false" + key + " init http://u:p@a:8080/live/init.mp4 &{0 720} false 12:00:06.260\n" +
		"1700000000002 http://u:p@a:8080/all.m4s &{820 50} 6s 3 false" + key + " init http://u:p@a:8080/live/init.mp4 &{0 720} false 12:00:12.260\n" +
		"1700000000003 https://b/2.m4s <nil> 5s 4 true init http://u:p@a:8080/live/init2.mp4 <nil> false 00:00:00.000\n" +
		"1700000000004 http://u:p@a:8080/3.m4s <nil> 5s 4 false init http://u:p@a:8080/live/init2.mp4 <nil> false 12:00:00.000\n"
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &got, want)
	}
	if m.Target != 6*time.Second || m.Ended || m.Sequence != 1700000000000 {
		t.Errorf("%+v", m)
	}
	if p := parsed(t, "#EXTM3U\n#EXT-X-TARGETDURATION:6\n"); p.Media == nil || len(p.Media.Segments) != 0 {
		t.Errorf("%+v: a live playlist may list nothing yet", p)
	}
}

func TestMediaPlaylistErrors(t *testing.T) {
	for text, want := range map[string]string{
		"#EXT-X-BYTERANGE:5\n#EXTINF:1,\nx":                                        "follows no other",
		"#EXT-X-BYTERANGE:x@1\n#EXTINF:1,\nx":                                      "want LENGTH@OFFSET",
		"#EXT-X-BYTERANGE:999999999999@1\n#EXTINF:1,\nx":                           "at most",
		"#EXT-X-MAP:URI=\"i\",BYTERANGE=\"99999999@0\"\n#EXTINF:1,\nx":             "at most",
		"#EXT-X-KEY:METHOD=AES-128,URI=\"k\",IV=0xXY\n#EXTINF:1,\nx":               "IV",
		"#EXT-X-KEY:METHOD=AES-128,URI=\"ftp://k\"\n#EXTINF:1,\nx":                 "neither http nor https",
		"#EXT-X-DEFINE:IMPORT=\"v\"\n#EXTINF:1,\nx":                                "another playlist",
		"#EXT-X-DEFINE:QUERYPARAM=\"v\"\n#EXTINF:1,\nx":                            "in the query",
		"#EXTINF:1,\nhttp://[::1":                                                  "address",
		"#EXT-X-MEDIA-SEQUENCE:18446744073709551615\n#EXTINF:1,\nx\n#EXTINF:1,\ny": "too large",
	} {
		_, err := Parse([]byte("#EXTM3U\n#EXT-X-TARGETDURATION:6\n"+text+"\n"), base)
		var pe *PlaylistError
		if !errors.As(err, &pe) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

const multivariant = `#EXTM3U
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="English",LANGUAGE="en-GB",URI="en.m3u8"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="within",LANGUAGE="de"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="b",NAME="other",URI="b.m3u8"
#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="s",NAME="x",URI="s.m3u8"
#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=9000000,URI="i.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=2000000,RESOLUTION=1280x720,AUDIO="a",SUBTITLES="s",CODECS="avc1.64001f,mp4a.40.2"
one.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=5000000,RESOLUTION=1920x1080,AUDIO="a"
two.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=3000000,RESOLUTION=1280x720
three.m3u8
#EXT-X-STREAM-INF:BANDWIDTH=5000000,RESOLUTION=1920x1080
backup.m3u8
`

func TestMasterPlaylist(t *testing.T) {
	m := parsed(t, multivariant).Master
	if len(m.Variants) != 4 {
		t.Fatalf("%d variants", len(m.Variants))
	}
	v := m.Variants[0]
	if len(v.Audio) != 1 || v.Audio[0].Language != "en-GB" || v.Audio[0].URL.Path != "/live/en.m3u8" || len(v.Others) != 1 || v.Others[0] != "SUBTITLES" {
		t.Errorf("%+v", v)
	}
	for choice, want := range map[string]string{
		"": "two", "0": "one", "3": "backup", "1280x720": "three", "1920x1080": "two", "2500000": "one", "99999999": "two",
		"4": "", "999": "", "1000": "", "640x360": "",
	} {
		v, err := m.Choose(choice)
		switch {
		case want == "" && (err == nil || !strings.Contains(err.Error(), "1: 5000000 bit/s 1920x1080")):
			t.Errorf("%q: %v", choice, err)
		case want != "" && (err != nil || v.URL.Path != "/live/"+want+".m3u8"):
			t.Errorf("%q: %v, %v", choice, v, err)
		}
	}
	for _, bad := range []string{"best", "-1", "1280", "x720", "0x0", "1280x720p", "99999999999999999999"} {
		if err := CheckChoice(bad); (err == nil) != (bad == "1280") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestLanguage(t *testing.T) {
	for tag, want := range map[string]string{"en": "eng", "EN-us": "eng", "de": "deu", "zh-Hant": "zho", "zu": "zul", "aa": "aar", "fra": "fra", "und": "", "": "", "x-klingon": "", "qq": ""} {
		if got := Language(tag); got != want {
			t.Errorf("%q: %q, want %q", tag, got, want)
		}
	}
	for k := 0; k < len(alpha3); k += 6 {
		if len(alpha3) < k+6 || alpha3[k+5] != ' ' || strings.Contains(alpha3[k:k+5], " ") {
			t.Fatalf("the table is crooked at %q", alpha3[k:])
		}
	}
}

// seeds adds the files of a folder of testdata as seeds.
func seeds(f *testing.F, folder string) {
	files, err := filepath.Glob(filepath.Join("testdata", folder, "*"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds in %s: %v", folder, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

// FuzzPlaylist: no bytes bring the reader down, and what it accepts is whole:
// numbers that follow one another, addresses of http, ranges within bounds.
func FuzzPlaylist(f *testing.F) {
	seeds(f, "playlists")
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b, base)
		if err != nil {
			return
		}
		switch {
		case p.Media != nil:
			for k, s := range p.Media.Segments {
				if s.Number != p.Media.Sequence+uint64(k) || s.URL == nil || s.URL.Host == "" || s.Duration < 0 {
					t.Fatalf("%+v", s)
				}
				if r := s.Range; r != nil && (r.Offset < 0 || r.Length <= 0 || r.Length > maxSegment) {
					t.Fatalf("%+v", r)
				}
				if k := s.Key; k != nil && k.IV != nil && len(k.IV) != keySize {
					t.Fatalf("%+v", k)
				}
			}
		case p.Master != nil:
			if v, err := p.Master.Choose(""); err != nil || v.URL.Host == "" {
				t.Fatalf("%+v, %v", v, err)
			}
		default:
			t.Fatal("neither kind")
		}
	})
}
