package replicate

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp(memory(), "replicate-test-"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(status int) {
		os.RemoveAll(scratch)
		os.Exit(status)
	}))
}

// scratch is where the archives of these tests lie: in memory where that can
// be, for they are many.
var scratch string

func memory() string {
	const shm = "/dev/shm"
	if st, err := os.Stat(shm); err == nil && st.IsDir() {
		return shm
	}
	return ""
}

func scratchDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// templates are archives that are made once and copied.
var templates = struct {
	sync.Mutex
	dirs map[string]string
}{dirs: map[string]string{}}

var quiet = slog.New(slog.DiscardHandler)

// epoch is when the streams of these tests begin: half an hour before a full
// hour.
var epoch = m4f.UTCOf(time.Date(2026, 11, 22, 12, 30, 0, 0, time.UTC))

const (
	second = m4f.Timescale
	length = 4 * second // of a segment
)

// spec is a segment that a test wants.
type spec struct {
	n        int   // begins n lengths after epoch
	late     int64 // ticks later than that
	short    int64 // ticks shorter than a segment
	variant  byte  // other bytes for the same times
	flags    m4f.Flags
	moved    int64 // UTC is off by this
	size     int   // bytes of its one sample; 0: some
	duration int64 // D; 0: length
}

func (s spec) make(t testing.TB) *m4f.Segment {
	t.Helper()
	d := s.duration
	if d == 0 {
		d = length
	}
	start := int64(s.n)*d + s.late
	data := make([]byte, max(s.size, 16))
	data[0] = s.variant
	binary.BigEndian.PutUint64(data[8:], uint64(start))
	seg, err := m4f.Build(&m4f.SegmentSpec{
		Header: m4f.Header{
			MediaTime: start & (m4f.Wrap - 1),
			UTC:       epoch.Add(start + s.moved),
			Duration:  uint32(d - s.late - s.short),
			Flags:     m4f.Keyframe | s.flags,
			Lost:      uint32(s.flags&m4f.Damaged) * 7,
		},
		TargetDuration: d,
		Program:        1,
		PCRPID:         257,
		Tracks: []m4f.Track{{
			Config:  m4f.TrackConfig{PID: 257, StreamType: 0x0F, Codec: m4f.CodecAAC},
			Samples: []m4f.Sample{{PTS: start, DTS: start, Duration: uint32(d - s.late - s.short), Sync: true, Data: data}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return seg
}

func clean(from, to int) []spec {
	var l []spec
	for n := from; n < to; n++ {
		l = append(l, spec{n: n})
	}
	return l
}

func newArchive(t testing.TB, specs ...spec) *archive.Stream {
	t.Helper()
	dir := filepath.Join(scratchDir(t), "x")
	if len(specs) < 100 {
		return makeArchive(t, dir, specs)
	}
	templates.Lock()
	defer templates.Unlock()
	key := fmt.Sprint(specs)
	if templates.dirs[key] == "" {
		made := filepath.Join(scratch, fmt.Sprint("template-", len(templates.dirs)))
		makeArchive(t, made, specs)
		templates.dirs[key] = made
	}
	if err := os.CopyFS(dir, os.DirFS(templates.dirs[key])); err != nil {
		t.Fatal(err)
	}
	a, err := archive.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func makeArchive(t testing.TB, dir string, specs []spec) *archive.Stream {
	t.Helper()
	d := int64(length)
	if len(specs) > 0 && specs[0].duration != 0 {
		d = specs[0].duration
	}
	a, err := archive.Create(dir, "", archive.CreateOptions{TargetDuration: d})
	if err != nil {
		t.Fatal(err)
	}
	appendAll(t, a, specs...)
	return a
}

func appendAll(t testing.TB, a *archive.Stream, specs ...spec) {
	t.Helper()
	w := a.Writer(archive.Live, 0, archive.WriterOptions{Sync: archive.SyncOff})
	for _, s := range specs {
		if err := w.Append(s.make(t)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// peerNode serves an archive, over a handler that a test can put in between.
type peerNode struct {
	archive *archive.Stream
	srv     *httptest.Server
	client  *m4fhttp.Client

	mu    sync.Mutex
	media map[string]int // how often each path of media was asked for
}

func servePeer(t testing.TB, a *archive.Stream, between ...func(http.Handler) http.Handler) *peerNode {
	t.Helper()
	p := &peerNode{archive: a, media: map[string]int{}}
	var h http.Handler = m4fhttp.NewHandler(m4fhttp.Options{Provider: m4fhttp.NewRoot(filepath.Dir(a.Dir())), Log: quiet})
	for _, b := range between {
		h = b(h)
	}
	p.srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/media/") {
			p.mu.Lock()
			p.media[r.URL.Path]++
			p.mu.Unlock()
		}
		h.ServeHTTP(w, r)
	}))
	peer, err := config.ParsePeer("m4f" + p.srv.URL[len("http"):] + "/x")
	if err != nil {
		t.Fatal(err)
	}
	p.client = m4fhttp.NewClient(m4fhttp.ClientOptions{Peer: peer, Silence: time.Minute})
	t.Cleanup(func() {
		p.client.Close()
		p.srv.CloseClientConnections()
		p.srv.Close()
	})
	return p
}

// asked is how often media was asked for.
func (p *peerNode) asked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, k := range p.media {
		n += k
	}
	return n
}

func view(t testing.TB, a *archive.Stream) []archive.Element {
	t.Helper()
	v, err := a.Span(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// shownBy is what a view shows, without what the nodes may have different.
func shownBy(t testing.TB, a *archive.Stream) []string {
	var l []string
	for _, e := range view(t, a) {
		l = append(l, e.ID.String()[:8]+" "+flagsOf(e.Flags))
	}
	return l
}

func flagsOf(f m4f.Flags) string {
	s := "clean"
	if f&m4f.Damaged != 0 {
		s += "-damaged"
	}
	if f&m4f.Partial != 0 {
		s += "-partial"
	}
	return s
}

func sameView(t testing.TB, a, b *archive.Stream) {
	t.Helper()
	if va, vb := shownBy(t, a), shownBy(t, b); !slices.Equal(va, vb) {
		t.Errorf("views differ:\n%v\n%v", va, vb)
	}
}

func diff(t testing.TB, a, b Side, o DiffOptions) []Span {
	t.Helper()
	spans, err := Diff(context.Background(), a, b, o)
	if err != nil {
		t.Fatal(err)
	}
	return spans
}
