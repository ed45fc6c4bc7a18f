package ingest

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/twindvr/twindvr/pkg/hls"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/testkit"
)

// hlsStage serves playlists of segments in a directory, as far as a test has
// got: what is listed is for it to say.
type hlsStage struct {
	*httptest.Server
	dir string

	mu     sync.Mutex
	listed map[string]int // segments of each playlist
	gone   map[string]bool
	tags   map[string]string // ahead of a segment
	end    bool
}

func newHLSStage(t *testing.T, dir string) *hlsStage {
	s := &hlsStage{dir: dir, listed: map[string]int{}, gone: map[string]bool{}, tags: map[string]string{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *hlsStage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := strings.TrimPrefix(r.URL.Path, "/")
	list, ok := strings.CutSuffix(name, ".m3u8")
	if n, known := s.listed[list]; ok && known {
		fmt.Fprintf(w, "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MAP:URI=\"%s\"\n", "init_"+list[1:]+".mp4")
		for k := range n {
			segment := fmt.Sprintf("%s_%d.m4s", list, k)
			fmt.Fprintf(w, "%s#EXTINF:1,\n%s\n", s.tags[segment], segment)
		}
		if s.end {
			fmt.Fprintln(w, "#EXT-X-ENDLIST")
		}
		return
	}
	if s.gone[name] {
		http.NotFound(w, r)
		return
	}
	http.ServeFile(w, r, filepath.Join(s.dir, name))
}

// list says how many segments are listed from now on.
func (s *hlsStage) list(n int, lists ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range lists {
		s.listed[l] = n
	}
}

func (s *hlsStage) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end = true
}

func (s *hlsStage) url(name string) string {
	return "hls" + strings.TrimPrefix(s.URL, "http") + "/" + name
}

// renditions writes a stream of video with two audio renditions, a second a
// segment: v0, v1 and v2.
func renditions(t *testing.T, n *hlsNginx, seconds int) {
	vod(t, n, "-t", fmt.Sprint(seconds), "-map", "0:v", "-map", "1:a", "-map", "2:a", "-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-sc_threshold", "0", "-c:a", "aac",
		"-var_stream_map", "v:0,agroup:a a:0,agroup:a,language:eng,default:yes a:1,agroup:a,language:fra", "-master_pl_name", "all.m3u8",
		"-f", "hls", "-hls_time", "1", "-hls_list_size", "0", "-hls_segment_type", "fmp4", "-hls_fmp4_init_filename", "init_%v.mp4", "-hls_segment_filename", "v%v_%d.m4s", "v%v.m3u8")
}

// flagged counts segments, and those that are damaged.
func flagged(segs []*m4f.Segment) (all, damaged int) {
	for _, s := range segs {
		if s.Header.Damaged() {
			damaged++
		}
	}
	return len(segs), damaged
}

// toldLost counts what the source itself has told to be lost.
func toldLost(segs []*m4f.Segment) (n uint32) {
	for _, s := range segs {
		n += s.Header.Lost
	}
	return n
}

// A rendition that stops does not stop the stream; what lacks it is damaged.
// Once it comes again, it is recorded again.
func TestHLSLateRendition(t *testing.T) {
	t.Parallel()
	needHLS(t)
	n := newHLSNginx(t, "")
	renditions(t, n, 8)
	s := newHLSStage(t, n.root)
	s.list(3, "v0", "v1", "v2")
	r := recordHLS(t, s.url("all.m3u8"))
	testkit.Await(t, "segments", func() bool { return len(r.all()) >= 1 })
	s.list(6, "v0", "v1")
	testkit.Await(t, "word of the rendition", func() bool { return strings.Contains(r.log.String(), "does not come") })
	s.list(7, "v0", "v1", "v2")
	testkit.Await(t, "return of the rendition", func() bool { return strings.Contains(r.log.String(), "comes again") })
	s.list(8, "v0", "v1", "v2")
	s.finish()
	segs := r.end(t)
	f := hlsFrames(t, segs)
	if len(f) != 3 || len(f[0]) != 200 || len(f[1]) < 374 || len(f[2]) < 200 || len(f[2]) > 340 {
		t.Fatalf("%d, %d and %d frames", len(f[0]), len(f[1]), len(f[2]))
	}
	for k, seg := range segs {
		init, err := m4f.ParseInit(seg.Init)
		if err != nil {
			t.Fatal(err)
		}
		frag, err := m4f.ParseFragment(init, seg.Media)
		if err != nil {
			t.Fatal(err)
		}
		whole := len(frag.Tracks[2].Samples) >= 46
		if seg.Header.Clean() && !whole {
			t.Errorf("segment %d is called clean and has %d frames of a track", k, len(frag.Tracks[2].Samples))
		}
	}
	if all, damaged := flagged(segs); damaged < 2 || damaged > all-2 || toldLost(segs) == 0 {
		t.Errorf("%d of %d segments are damaged, %d packets lost", damaged, all, toldLost(segs))
	}
}

// Segments that are listed and cannot be had, of video and of a rendition:
// what lacks them is damaged, all else clean and the same as without the loss.
func TestHLSMissing(t *testing.T) {
	t.Parallel()
	needHLS(t)
	n := newHLSNginx(t, "")
	renditions(t, n, 8)
	whole := recordHLS(t, n.url("all.m3u8")).end(t)
	for _, gone := range []string{"v0_3.m4s", "v2_3.m4s"} {
		t.Run(gone, func(t *testing.T) {
			s := newHLSStage(t, n.root)
			s.tags[gone] = "#EXT-X-GAP\n"
			s.list(8, "v0", "v1", "v2")
			s.finish()
			r := recordHLS(t, s.url("all.m3u8"))
			segs := r.end(t)
			if _, damaged := flagged(segs); damaged < 1 || damaged > 4 || toldLost(segs) == 0 {
				t.Errorf("%d damaged of %d, %d packets lost", damaged, len(segs), toldLost(segs))
			}
			if c := agreeOnly(t, whole, segs); c < 2 {
				t.Errorf("%d clean segments compared", c)
			}
			if lost := r.src.Stats().Lost; lost != 1 {
				t.Errorf("%d lost", lost)
			}
		})
	}
}

// Where a rendition does not agree about discontinuities, time goes on by
// itself.
func TestHLSDisagreement(t *testing.T) {
	t.Parallel()
	needHLS(t)
	n := newHLSNginx(t, "")
	renditions(t, n, 8)
	s := newHLSStage(t, n.root)
	s.tags["v0_2.m4s"] = "#EXT-X-DISCONTINUITY\n"
	s.list(8, "v0", "v1", "v2")
	s.finish()
	r := recordHLS(t, s.url("all.m3u8"))
	f := hlsFrames(t, r.end(t))
	if len(f) != 3 || len(f[0]) != 200 || len(f[1]) < 374 || len(f[2]) < 374 {
		t.Errorf("%d tracks", len(f))
	}
}

// TestHLSStreamRenditions records audio renditions with playlists of their own
// beside video in a transport stream: transport streams as well, and packed.
func TestHLSStreamRenditions(t *testing.T) {
	t.Parallel()
	needHLS(t)
	n := newHLSNginx(t, "")
	vod(t, n, "-map", "0:v", "-map", "1:a", "-map", "2:a", "-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "25", "-sc_threshold", "0", "-c:a", "aac",
		"-var_stream_map", "v:0,agroup:a a:0,agroup:a,language:eng,default:yes a:1,agroup:a,language:fr", "-master_pl_name", "all.m3u8",
		"-f", "hls", "-hls_time", "1", "-hls_list_size", "0", "-hls_segment_filename", "v%v_%d.ts", "v%v.m3u8")
	vodTS := recordHLS(t, n.url("all.m3u8")).end(t)
	packList(t, n, "v2.m3u8")
	packed := recordHLS(t, n.url("all.m3u8")).end(t)
	for k, segs := range [][]*m4f.Segment{vodTS, packed} {
		init, err := m4f.ParseInit(segs[1].Init)
		if err != nil || len(init.Tracks) != 3 {
			t.Fatalf("%d: %v", k, err)
		}
		if init.Tracks[1].Language != "eng" || init.Tracks[2].Language != "fra" {
			t.Errorf("%d: languages %s and %s", k, init.Tracks[1].Language, init.Tracks[2].Language)
		}
		if _, damaged := flagged(segs); damaged > 0 {
			t.Errorf("%d: %d segments are damaged", k, damaged)
		}
	}
	a, b := hlsFrames(t, vodTS), hlsFrames(t, packed)
	if len(a[0]) != 200 || len(a[1]) < 374 || len(a[2]) < 374 {
		t.Errorf("%d, %d and %d frames", len(a[0]), len(a[1]), len(a[2]))
	}
	sameFrames(t, b, a, 2)
	// The frames of each rendition are those of its own transport stream.
	var all []byte
	for k := 0; exists(n.file(fmt.Sprintf("v1_%d.ts", k)))(); k++ {
		x, err := os.ReadFile(n.file(fmt.Sprintf("v1_%d.ts", k)))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, x...)
	}
	if err := os.WriteFile(n.file("alone.ts"), all, 0o644); err != nil {
		t.Fatal(err)
	}
	alone := hlsFrames(t, segmentFile(t, n.file("alone.ts")))
	sums := map[[32]byte]bool{}
	for _, f := range alone[0] {
		sums[f.sum] = true
	}
	for k, f := range a[1] {
		if !sums[f.sum] {
			t.Errorf("frame %d of a rendition is not one of its own", k)
			break
		}
	}
}

// packList turns the transport stream segments of an audio playlist into packed
// audio with the same times.
func packList(t *testing.T, n *hlsNginx, list string) {
	t.Helper()
	b, err := os.ReadFile(n.file(list))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		name := strings.TrimSpace(line)
		if !strings.HasSuffix(name, ".ts") {
			continue
		}
		ts, err := os.ReadFile(n.file(name))
		if err != nil {
			t.Fatal(err)
		}
		r := newStreamReader()
		got, err := r.read(&hls.Delivery{Data: ts})
		if err != nil {
			t.Fatal(err)
		}
		got.samples = append(got.samples, r.flush()...)
		out := []byte("ID3\x04\x00\x00\x00\x00\x00\x3fPRIV\x00\x00\x00\x35\x00\x00com.apple.streaming.transportStreamTimestamp\x00")
		out = binary.BigEndian.AppendUint64(out, uint64(got.samples[0].dts))
		for _, s := range got.samples {
			u, _ := s.unit(nil)
			out = append(append(out, u.Header[:7]...), u.Data...)
		}
		if err := os.WriteFile(n.file(name), out, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// A segment of a transport stream that cannot be had damages what lacks it, and
// nothing else, though each segment may begin its counters anew.
func TestHLSStreamMissing(t *testing.T) {
	t.Parallel()
	needHLS(t)
	n := newHLSNginx(t, "")
	vod(t, n, append(vodH264, "-f", "hls", "-hls_time", "1", "-hls_list_size", "0", "vod.m3u8")...)
	list, err := os.ReadFile(n.file("vod.m3u8"))
	if err != nil {
		t.Fatal(err)
	}
	with := strings.Replace(string(list), "vod3.ts", "gone.ts", 1)
	if err := os.WriteFile(n.file("gap.m3u8"), []byte(with), 0o644); err != nil {
		t.Fatal(err)
	}
	whole, r := recordHLS(t, n.url("vod.m3u8")).end(t), recordHLS(t, n.url("gap.m3u8"))
	segs := r.end(t)
	if _, damaged := flagged(whole); damaged != 0 {
		t.Errorf("%d segments damaged without a loss", damaged)
	}
	if _, damaged := flagged(segs); damaged < 1 || damaged > 3 || toldLost(segs) == 0 {
		t.Errorf("%d damaged of %d, %d packets lost", damaged, len(segs), toldLost(segs))
	}
	if c := agreeOnly(t, whole, segs); c < 3 {
		t.Errorf("%d clean segments compared", c)
	}
	if st := r.src.Stats(); st.Lost != 1 || st.Errors == 0 {
		t.Errorf("%+v", st)
	}
}
