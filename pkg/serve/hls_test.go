package serve

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Eyevinn/hls-m3u8/m3u8"
	"github.com/Eyevinn/mp4ff/mp4"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/testkit"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

// samples counts those of each track of some segments, data left out.
func samples(t testing.TB, segs []*m4f.Segment) []int {
	t.Helper()
	var out []int
	for _, s := range segs {
		init, err := m4f.ParseInit(s.Init)
		if err != nil {
			t.Fatal(err)
		}
		f, err := m4f.ParseFragment(init, s.Media)
		if err != nil {
			t.Fatal(err)
		}
		k := 0
		for i := range f.Tracks {
			if init.Tracks[i].Config.Codec.IsData() {
				continue
			}
			for len(out) <= k {
				out = append(out, 0)
			}
			out[k] += len(f.Tracks[i].Samples)
			k++
		}
	}
	return out
}

func packets(streams []played) []int {
	var out []int
	for _, s := range streams {
		n := 0
		_, _ = fmt.Sscan(s.Packets, &n) // ffprobe writes none where there is none
		out = append(out, n)
	}
	return out
}

// length is how long segments reach, in seconds.
func length(segs []*m4f.Segment) int {
	return int(segs[len(segs)-1].Header.End()-segs[0].Header.UTC)/m4f.Timescale + 1
}

// over is a theatre of a recording that is over, and the name of its playlist.
func over(t testing.TB, segs []*m4f.Segment) (x *theatre, list string) {
	t.Helper()
	if len(segs) == 0 {
		t.Fatal("no segments")
	}
	x = newTheatre(t, segs...)
	x.clock.Advance(time.Duration(length(segs)+100) * time.Second)
	return x, spanName(0, length(segs), ".m3u8")
}

// TestPlaysAcross: gaps, new timelines and the wrap of the clock are breaks of the
// playlist, and every sample of the archive is played.
func TestPlaysAcross(t *testing.T) {
	testkit.Need(t, "ffprobe")
	plain := func(at int64) []*m4f.Segment {
		return cutUp(testkit.Stream(t, testsrc.Options{StartPTS: at, Duration: 20 * time.Second}), 4*time.Second, 0)
	}
	for name, c := range map[string]struct {
		segs   []*m4f.Segment
		breaks int
	}{
		"a gap":                  {slices.Delete(plain(90000), 2, 3), 1},
		"new timelines":          {cutUp(testkit.Stream(t, testsrc.Options{StartPTS: 90000, Duration: 20 * time.Second, RestartEvery: 7 * time.Second}), 4*time.Second, 0), 2},
		"the wrap in a segment":  {plain(m4f.Wrap - 10*m4f.Timescale), 1},
		"the wrap at a segment":  {plain(m4f.Wrap - 8*m4f.Timescale), 1},
		"the wrap and a picture": {plain(m4f.Wrap - 8*m4f.Timescale + 3600), 1},
		// The first segment has a sample from before 0, and so all of it is behind
		// the wrap.
		"from 0": {plain(0), 1},
	} {
		t.Run(name, func(t *testing.T) {
			x, list := over(t, c.segs)
			text := x.get(t, "/example/hls/va/"+list)
			if n := strings.Count(text, "#EXT-X-DISCONTINUITY\n"); n != c.breaks {
				t.Errorf("%d breaks, want %d", n, c.breaks)
			}
			if want, got := samples(t, c.segs), packets(x.play(t, "/example/hls/va/"+list)); !slices.Equal(got, want) {
				t.Errorf("%v samples played, %v are there", got, want)
			}
		})
	}
}

// TestSoundsPlay: sounds in several languages and codecs are renditions, each of
// which is played whole.
func TestSoundsPlay(t *testing.T) {
	testkit.Need(t, "ffmpeg", "ffprobe")
	ts := encoded(t, "-f lavfi -i testsrc2=s=96x64:r=25:d=8 -f lavfi -i sine=440:r=48000:d=8 -map 0 -map 1 -map 1 -map 1"+
		" -c:v libx264 -preset ultrafast -g 25 -c:a:0 aac -c:a:1 aac -c:a:2 ac3 -metadata:s:a:0 language=deu -metadata:s:a:1 language=eng -metadata:s:a:2 language=deu")
	segs := cutUp(ts, 2*time.Second, 0)
	x, list := over(t, segs)
	master := x.get(t, "/example/"+list)
	for _, want := range []string{
		`TYPE=AUDIO,GROUP-ID="aac",NAME="deu",LANGUAGE="deu",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="1",URI="hls/aac-deu-1/` + list + `"`,
		`TYPE=AUDIO,GROUP-ID="aac",NAME="eng",LANGUAGE="eng",AUTOSELECT=YES`,
		`TYPE=AUDIO,GROUP-ID="ac3",NAME="deu",LANGUAGE="deu",DEFAULT=YES`,
		`CODECS="avc1.42C00A,mp4a.40.2",RESOLUTION=96x64,FRAME-RATE=25.000,AUDIO="aac"` + "\nhls/v/" + list,
		`CODECS="avc1.42C00A,ac-3",RESOLUTION=96x64,FRAME-RATE=25.000,AUDIO="ac3"` + "\nhls/v/" + list,
		`#EXT-X-I-FRAME-STREAM-INF:`,
	} {
		if !strings.Contains(master, want) {
			t.Errorf("no %s in\n%s", want, master)
		}
	}
	x.play(t, "/example/"+list)
	want := samples(t, segs)
	for i, c := range []string{"v", "aac-deu-1", "aac-eng-1", "ac3-deu-1"} {
		if got := packets(x.play(t, "/example/hls/"+c+"/"+list)); len(got) != 1 || got[0] != want[i] {
			t.Errorf("%s: %v samples played, %d are there", c, got, want[i])
		}
	}
	if got := x.play(t, "/example/"+strings.Replace(list, "m3u8", "mpd", 1)); len(got) != 4 || got[2].Tags["language"] != "eng" {
		t.Errorf("the manifest has %+v", got)
	}
	// A sound that is not there is another of its codec, or nothing at all.
	if got := packets(x.play(t, "/example/hls/aac-fra-1/"+list)); !slices.Equal(got, want[1:2]) {
		t.Errorf("another sound: %v samples", got)
	}
	if text := x.get(t, "/example/hls/opus-deu-1/"+list); strings.Count(text, "#EXT-X-GAP") != len(segs) || strings.Contains(text, "EXT-X-MAP") {
		t.Errorf("no such sound:\n%s", text)
	}
}

// TestCodecsPlay: players are told what each codec is, and play it.
func TestCodecsPlay(t *testing.T) {
	testkit.Need(t, "ffmpeg", "ffprobe")
	video, sound := "-f lavfi -i testsrc2=s=96x64:r=25:d=6 ", "-f lavfi -i sine=440:r=48000:d=6 "
	for _, c := range []struct{ name, args, says string }{
		{"hevc", video + sound + "-c:v libx265 -preset ultrafast -x265-params keyint=25:open-gop=1:bframes=3:log-level=none -pix_fmt yuv420p -c:a libopus", `CODECS="hvc1.1.6.L30.90,opus",RESOLUTION=96x64,FRAME-RATE=25.000`},
		{"mpeg2", video + sound + "-c:v mpeg2video -bf 2 -g 12 -c:a mp2", `CODECS="mp4v.61,mp4a.40.33"`},
		{"radio", sound + "-c:a aac", `CODECS="mp4a.40.2"` + "\nhls/a/"},
		{"silent", video + "-c:v libx264 -preset ultrafast -g 25", `CODECS="avc1.42C00A"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			segs := cutUp(encoded(t, c.args), 2*time.Second, 0)
			x, list := over(t, segs)
			if master := x.get(t, "/example/"+list); !strings.Contains(master, c.says) {
				t.Errorf("no %s in\n%s", c.says, master)
			}
			choice := "va"
			if c.name == "radio" {
				choice = "a"
			}
			want := samples(t, segs)
			if got := packets(x.play(t, "/example/hls/"+choice+"/"+list)); !slices.Equal(got, want) {
				t.Errorf("%v samples played, %v are there", got, want)
			}
			// One track at a time: ffmpeg ends with the first that does.
			for i := range want {
				got := packets(x.play(t, "/example/"+strings.Replace(list, "m3u8", "mpd", 1), "-select_streams", fmt.Sprint(i)))
				if !slices.Equal(got, want[i:i+1]) {
					t.Errorf("DASH: %v samples of track %d, %d are there", got, i, want[i])
				}
			}
		})
	}
}

// TestInitChanges: what is coded otherwise has an init segment of its own, and each
// is good for the segments behind it. (ffmpeg does not read a second one; it plays transport stream
// segments.)
func TestInitChanges(t *testing.T) {
	testkit.Need(t, "ffmpeg", "ffprobe")
	var segs []*m4f.Segment
	for i, size := range []string{"96x64", "128x96"} {
		ts := encoded(t, "-f lavfi -i testsrc2=s="+size+":r=25:d=6 -f lavfi -i sine=440:r=48000:d=6 -c:v libx264 -preset ultrafast -g 25 -c:a aac")
		segs = append(segs, cutUp(ts, 2*time.Second, time.Duration(i)*6200*time.Millisecond)...)
	}
	x, list := over(t, segs)
	text := x.get(t, "/example/hls/va/"+list)
	if strings.Count(text, "#EXT-X-MAP") != 2 || strings.Count(text, "#EXT-X-DISCONTINUITY\n#EXT-X-MAP") != 1 {
		t.Fatalf("two init segments, and a break between them:\n%s", text)
	}
	if n := strings.Count(x.get(t, "/example/"+strings.Replace(list, "m3u8", "mpd", 1)), "<Period"); n != 2 {
		t.Errorf("%d periods", n)
	}
	out, _ := testkit.Run(t, "ffprobe", "-v", "error", "-select_streams", "v", "-count_frames", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0", x.URL+"/example/"+list+"?format=ts")
	if f := strings.Fields(out); len(f) == 0 || f[0] != "300" {
		t.Errorf("as a transport stream: %s pictures", out)
	}
	for i, part := range strings.Split(text, "#EXT-X-MAP")[1:] {
		var b bytes.Buffer
		for _, uri := range uris(part) {
			b.WriteString(x.get(t, "/example/hls/va/"+uri))
		}
		name := filepath.Join(t.TempDir(), "part.mp4")
		if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		out, says := testkit.Run(t, "ffprobe", "-v", "warning", "-select_streams", "v", "-count_frames", "-show_entries", "stream=width,nb_read_frames", "-of", "csv=p=0", name)
		if want := []string{"96,150", "128,150"}[i]; strings.TrimSpace(out) != want || says != "" {
			t.Errorf("part %d: %s, want %s; %s", i, out, want, says)
		}
	}
}

// TestDecodedWhenShown: the first picture of a fragment is decoded when it is
// presented. Browsers leave holes behind breaks otherwise, as long as pictures are
// reordered.
func TestDecodedWhenShown(t *testing.T) {
	segs := recorded(t, 16*time.Second, 4*time.Second)
	x, list := over(t, segs)
	for _, choice := range []string{"va", "v"} {
		for i, uri := range uris(x.get(t, "/example/hls/"+choice+"/"+list))[1:] {
			f, err := mp4.DecodeFile(strings.NewReader(x.get(t, "/example/hls/"+choice+"/"+uri)))
			if err != nil {
				t.Fatal(err)
			}
			traf := f.Segments[0].Fragments[0].Moof.Trafs[0]
			if at, shown := int64(traf.Tfdt.BaseMediaDecodeTime()), segs[i].Header.MediaTime; at != shown || traf.Trun.Samples[0].CompositionTimeOffset != 0 {
				t.Errorf("%s: decoded at %d, shown %d later; the segment opens at %d", uri, at, traf.Trun.Samples[0].CompositionTimeOffset, shown)
			}
		}
	}
}

// uris are the addresses in a playlist, or in a part of one.
func uris(text string) []string {
	var out []string
	for l := range strings.Lines(text) {
		l = strings.TrimSuffix(l, "\n")
		if _, quoted, ok := strings.Cut(l, `URI="`); ok {
			l, _, _ = strings.Cut(quoted, `"`)
		} else if l == "" || strings.HasPrefix(l, "#") || strings.HasPrefix(l, ":") {
			continue
		}
		out = append(out, l)
	}
	return out
}

// TestDataStaysOut: browsers refuse a file with a track that they do not know, so
// timed metadata is in nothing that players get.
func TestDataStaysOut(t *testing.T) {
	dir := os.Getenv("TWINDVR_TESTDATA")
	if dir == "" {
		t.Skip("1 test needs TWINDVR_TESTDATA")
	}
	ts, err := os.ReadFile(filepath.Join(dir, "ts", "media3-sample_scte35.ts"))
	if err != nil {
		t.Fatal(err)
	}
	segs := cutUp(ts, 2*time.Second, 0)
	x, list := over(t, segs)
	var b bytes.Buffer
	for _, uri := range uris(x.get(t, "/example/hls/va/"+list)) {
		b.WriteString(x.get(t, "/example/hls/va/"+uri))
	}
	f, err := mp4.DecodeFile(&b)
	if err != nil {
		t.Fatal(err)
	}
	if init, err := m4f.ParseInit(segs[0].Init); err != nil || len(init.Tracks) < 3 {
		t.Fatalf("%d tracks recorded (%v)", len(init.Tracks), err)
	}
	if n, m := len(f.Init.Moov.Traks), len(f.Segments[0].Fragments[0].Moof.Trafs); n != 2 || m != 2 {
		t.Errorf("%d tracks announced, %d sent, want picture and sound", n, m)
	}
}

// TestLists: each kind of live playlist plays, and says what it is.
func TestLists(t *testing.T) {
	testkit.Need(t, "ffmpeg")
	segs := recorded(t, 80*time.Second, 4*time.Second)
	x := newTheatre(t, segs...)
	x.clock.Advance(81 * time.Second)
	begin := begins.Unix()
	for name, want := range map[string]struct {
		entries     int
		first, kind string
	}{
		"index":                                {8, "12:00:48", ""},
		"rewind-60":                            {15, "12:00:20", ""},
		"timeshift_rel-30":                     {8, "12:00:16", ""},
		fmt.Sprintf("archive-%d-now", begin+9): {18, "12:00:08", "EVENT"},
		fmt.Sprintf("archive-%d-500", begin):   {20, "12:00:00", "EVENT"},
		fmt.Sprintf("archive-%d-40", begin):    {10, "12:00:00", "VOD"},
	} {
		text := x.get(t, "/example/hls/va/"+name+".m3u8")
		if _, _, err := m3u8.DecodeFrom(strings.NewReader(text), true); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_, kind, _ := strings.Cut(text, "#EXT-X-PLAYLIST-TYPE:")
		kind, _, _ = strings.Cut(kind, "\n")
		_, first, _ := strings.Cut(text, "DATE-TIME:2026-11-22T")
		if n := strings.Count(text, "#EXTINF"); n != want.entries || kind != want.kind || !strings.HasPrefix(first, want.first) {
			t.Errorf("%s: %d entries from %.8s, %q, want %+v", name, n, first, kind, want)
		}
		if ended := strings.Contains(text, "#EXT-X-ENDLIST"); ended != (kind == "VOD") {
			t.Errorf("%s: ended %v", name, ended)
		}
		master := x.get(t, "/example/"+name+".m3u8")
		if _, _, err := m3u8.DecodeFrom(strings.NewReader(master), true); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !strings.Contains(master, "\nhls/va/"+name+".m3u8\n") {
			t.Errorf("%s: %s", name, master)
		}
	}
	if master := x.get(t, fmt.Sprintf("/example/timeshift_abs-%d.m3u8", begin+51)); !strings.Contains(master, "\nhls/va/timeshift_rel-30.m3u8\n") {
		t.Errorf("%s", master)
	}
	// ffmpeg begins three entries before the end.
	_, says := testkit.Run(t, "ffmpeg", "-v", "warning", "-nostdin", "-i", x.URL+"/example/index.m3u8", "-t", "8", "-f", "null", "-")
	if says != "" {
		t.Errorf("ffmpeg says of the live playlist: %s", says)
	}
}

// TestAnswers: what is not there is told of, HEAD is like GET, and what may change
// is not kept.
func TestAnswers(t *testing.T) {
	segs := recorded(t, 24*time.Second, 4*time.Second)
	segs[3].Header.Flags |= m4f.Damaged
	x, list := over(t, segs)
	media := uris(x.get(t, "/example/hls/va/"+list))
	at := begins.Unix()
	for path, says := range map[string]string{
		"/nothing/index.m3u8": "there is no stream nothing here; there is example",
		"/example/":           "name a file of the stream; it has index.m3u8",
		"/example/indx.m3u8":  "a stream has no indx.m3u8; it has index.m3u8, archive-FROM-DURATION.m3u8",
		"/example/hls/va/" + strings.Replace(media[0], "init", "in", 1): "a stream has no",
		"/example/archive-1-10.m3u8":                                    "the archive of this stream is from 2026-11-22T12:00:00Z",
		"/example/archive-999999999999-9.m3u8":                          "the archive of this stream is from 2026-11-22T12:00:00Z",
		fmt.Sprintf("/example/archive-%d-0.m3u8", at):                   "shows nothing",
		fmt.Sprintf("/example/archive-%d-99999999.m3u8", at):            "at most 604800 seconds",
		"/example/archive-1-now.m3u8":                                   "at most 604800 seconds",
		"/example/rewind-99999999.m3u8":                                 "at most 604800 seconds",
		"/example/timeshift_rel-99999999.m3u8":                          "the archive of this stream is from",
		"/example/timeshift_abs-999999999999.m3u8":                      "still to come",
		"/example/hls/va/999999999999999-9999999-00000000.m4s":          "load the playlist again",
		"/example/hls/va/1-1-00000000.m4s":                              "the archive of this stream is from",
		"/example/hls/va/init-999999999999999-00000000.mp4":             "load the playlist again",
		"/example/dash/v/999999999999999-1-99999999999-00000000.m4s":    "load the manifest again",
		"/example/dash/v/1-1-17179869184-00000000.m4s":                  "the archive of this stream is from",
		"/example/hls/xx/index.m3u8":                                    "there is no stream example/hls/xx here",
	} {
		code, body, head := x.ask(t, http.MethodGet, path)
		if code != http.StatusNotFound || !strings.Contains(body, says) || head.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s; want %s", path, code, body, says)
		}
	}
	if code, body, _ := x.ask(t, http.MethodGet, "/example/"+list+"?format=avi"); code != http.StatusBadRequest {
		t.Errorf("a format that is none: %d %s", code, body)
	}
	if code, _, head := x.ask(t, http.MethodPost, "/example/index.m3u8"); code != http.StatusMethodNotAllowed || head.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d", code)
	}
	for path, cache := range map[string]string{
		"/example/" + list:                    open,
		"/example/hls/va/" + list:             open, // one is damaged
		"/example/hls/va/" + media[0]:         initCache,
		"/example/hls/va/" + media[2]:         cleanCache,
		"/example/hls/va/" + media[1]:         changing, // begun inside it
		"/example/hls/va/" + media[4]:         changing,
		"/example/hls/i/" + media[2]:          cleanCache,
		"/example/" + spanName(4, 8, ".m3u8"): closed,
		"/example/" + spanName(4, 8, ".mpd"):  closed,
	} {
		code, body, head := x.ask(t, http.MethodGet, path)
		if code != http.StatusOK || head.Get("Cache-Control") != cache || head.Get("ETag") == "" {
			t.Errorf("%s: %d, %s, want %s", path, code, head.Get("Cache-Control"), cache)
		}
		if code, none, again := x.ask(t, http.MethodHead, path); code != http.StatusOK || none != "" || again.Get("Content-Length") != fmt.Sprint(len(body)) {
			t.Errorf("HEAD %s: %d, %s of %d bytes", path, code, again.Get("Content-Length"), len(body))
		}
		if code, none, _ := x.ask(t, http.MethodGet, path, "If-None-Match", head.Get("ETag")); code != http.StatusNotModified || none != "" {
			t.Errorf("%s asked again: %d", path, code)
		}
		if !strings.HasSuffix(path, ".m4s") {
			continue
		}
		code, part, _ := x.ask(t, http.MethodGet, path, "Range", "bytes=100-299")
		if code != http.StatusPartialContent || part != body[100:300] {
			t.Errorf("%s: a part is %d bytes, %d", path, len(part), code)
		}
	}
	long := x.get(t, "/example/hls/va/"+spanName(0, 24, ".m3u8"))
	if _, zipped, head := x.ask(t, http.MethodGet, "/example/hls/va/"+spanName(0, 24, ".m3u8"), "Accept-Encoding", "gzip"); len(long) < zipFrom && head.Get("Content-Encoding") != "" || len(zipped) == 0 {
		t.Error("a short list is compressed")
	}
}

// TestShiftedFarBack: whatever time a playlist is to be late by, the answer says what
// there is.
func TestShiftedFarBack(t *testing.T) {
	x := inTheatre(t)
	x.clock.Advance(time.Minute)
	for _, at := range []int64{0, 1, 1_300_000_000, 1_500_000_000, begins.Unix() - 100_000_000, begins.Unix() - 3600} {
		code, body, _ := x.ask(t, http.MethodGet, fmt.Sprintf("/example/timeshift_abs-%d.m3u8", at))
		if code != http.StatusNotFound || !strings.Contains(body, "the archive of this stream is from 2026-11-22T12:00:00Z to 2026-11-22T12:00:30Z") {
			t.Errorf("%d: %d %s", at, code, body)
		}
	}
}
