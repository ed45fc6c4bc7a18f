package serve

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/segment"
	"github.com/twindvr/twindvr/pkg/testkit"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

// begins is when the recordings of playback's tests begin.
var begins = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// theatre is a node with one stream, example, and a server for players.
type theatre struct {
	*httptest.Server
	h      *Handler
	stream *archive.Stream
	clock  *clock.Sim
}

func newTheatre(t testing.TB, segs ...*m4f.Segment) *theatre {
	t.Helper()
	return newTheatreAt(t, t.TempDir(), segs...)
}

// newTheatreAt is newTheatre in a directory.
func newTheatreAt(t testing.TB, root string, segs ...*m4f.Segment) *theatre {
	t.Helper()
	s, err := archive.Create(filepath.Join(root, "example"), "", archive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	x := &theatre{stream: s, clock: clock.NewSim(begins)}
	x.add(t, archive.Live, segs...)
	x.open(t, fake{m4fhttp.NewRoot(root)})
	return x
}

func (x *theatre) open(t testing.TB, n Node) {
	x.h = handlerOf(n)
	x.h.play.clock = x.clock
	x.Server = httptest.NewServer(x.h)
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		x.Close()
	})
}

func (x *theatre) add(t testing.TB, o archive.Origin, segs ...*m4f.Segment) {
	t.Helper()
	w := x.stream.Writer(o, 0, archive.WriterOptions{Sync: archive.SyncOff})
	for _, s := range segs {
		if err := w.Append(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// handlerOf is a handler that asks for no cluster key and logs nothing.
func handlerOf(n Node) *Handler {
	return NewHandler(Options{Node: n, Auth: m4fhttp.NewAuth(nil, nil, quiet()), Log: quiet()})
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// get asks and wants an answer.
func (x *theatre) get(t testing.TB, path string) string {
	t.Helper()
	code, body, _ := x.ask(t, http.MethodGet, path)
	if code != http.StatusOK {
		t.Fatalf("%s: %d %s", path, code, body)
	}
	return body
}

func (x *theatre) ask(t testing.TB, method, path string, header ...string) (int, string, http.Header) {
	t.Helper()
	return testkit.Ask(t, method, x.URL+path, header...)
}

// spanName is the name of a playlist of some seconds of the recording.
func spanName(from, length int, ext string) string {
	return fmt.Sprintf("archive-%d-%d%s", begins.Unix()+int64(from), length, ext)
}

// cutUp segments a transport stream that begins at begins.
func cutUp(ts []byte, target time.Duration, after time.Duration) []*m4f.Segment {
	var out []*m4f.Segment
	s := segment.New(segment.Config{TargetDuration: m4f.Ticks(target), Clock: clock.System, Unpaced: true, Start: m4f.UTCOf(begins.Add(after))},
		func(seg *m4f.Segment) { out = append(out, seg) })
	_, _ = s.Write(ts)
	s.Close()
	return out
}

// recorded is a recording of some length that begins at begins.
func recorded(t testing.TB, length, target time.Duration) []*m4f.Segment {
	t.Helper()
	return cutUp(testkit.Stream(t, testsrc.Options{StartPTS: 90000, Duration: length}), target, 0)
}

// encoded makes a transport stream with ffmpeg.
func encoded(t testing.TB, args string) []byte {
	t.Helper()
	name := filepath.Join(t.TempDir(), "x.ts")
	testkit.Run(t, "ffmpeg", strings.Fields("-v error -nostdin -y "+args+" -threads 1 -f mpegts "+name)...)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// played is a track as ffprobe finds it.
type played struct {
	Type    string            `json:"codec_type"`
	Codec   string            `json:"codec_name"`
	Packets string            `json:"nb_read_packets"`
	Frames  string            `json:"nb_read_frames"`
	Width   int               `json:"width"`
	Tags    map[string]string `json:"tags"`
}

func (p *played) frames() int {
	n, _ := strconv.Atoi(p.Frames)
	return n
}

// play decodes all of an address, and wants no complaint.
func (x *theatre) play(t testing.TB, path string, args ...string) []played {
	t.Helper()
	var p struct{ Streams []played }
	args = append([]string{"-v", "warning", "-count_packets", "-count_frames", "-show_streams", "-of", "json"}, append(args, x.URL+path)...)
	out, says := testkit.Run(t, "ffprobe", args...)
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		t.Fatal(err)
	}
	if says != "" {
		t.Errorf("ffprobe says of %s: %s", path, says)
	}
	return p.Streams
}

// TestPlays: ffmpeg plays every kind of playlist, and finds all pictures and
// sounds of the archive.
func TestPlays(t *testing.T) {
	testkit.Need(t, "ffprobe")
	x := newTheatre(t, recorded(t, 24*time.Second, 4*time.Second)...)
	x.clock.Advance(25 * time.Second)
	name := spanName(0, 24, ".m3u8")
	for path, want := range map[string][2]int{
		"/example/" + name:                     {600, 1125},
		"/example/hls/va/" + name:              {600, 1125},
		"/example/hls/v/" + name:               {600},
		"/example/hls/i/" + name:               {6},
		"/example/" + spanName(0, 24, ".mpd"):  {600, 1125},
		"/example/hls/a/" + name:               {0, 1125},
		"/example/" + spanName(9, 10, ".m3u8"): {300, 562},
	} {
		var got [2]int
		for _, s := range x.play(t, path) {
			if s.Type == "video" {
				got[0] = s.frames()
			} else {
				got[1] = s.frames()
			}
		}
		if got[0] != want[0] || max(got[1]-want[1], want[1]-got[1]) > 1 {
			t.Errorf("%s: %v frames of video and sound, want %v", path, got, want)
		}
	}
}
