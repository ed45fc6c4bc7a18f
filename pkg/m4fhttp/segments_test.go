package m4fhttp

import (
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/m4f"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// epoch is when the streams of these tests begin: half an hour before a full
// hour.
var epoch = m4f.UTCOf(time.Date(2026, 11, 22, 12, 30, 0, 0, time.UTC))

const (
	second = m4f.Timescale
	length = 2 * second // of a segment
)

var aac []byte // frames of clip.aac, ADTS headers included

// segment makes number n of an audio stream: two seconds of AAC that ffprobe
// reads. Variants have the same times and other bytes.
func segment(t testing.TB, n int, variant byte, flags m4f.Flags) *m4f.Segment {
	t.Helper()
	if aac == nil {
		b, err := os.ReadFile("../m4f/testdata/clip.aac")
		if err != nil {
			t.Fatal(err)
		}
		aac = b
	}
	start := int64(n) * length
	track := m4f.Track{Config: m4f.TrackConfig{PID: 257, StreamType: 0x0F, Codec: m4f.CodecAAC, FrameHeader: aac[:64]}}
	data := aac
	for at := start; at < start+length; at += 1920 {
		if len(data) < 7 {
			data = aac
		}
		size := int(data[3]&3)<<11 | int(data[4])<<3 | int(data[5])>>5
		frame := append([]byte{}, data[7:size]...)
		if variant > 0 && at == start {
			frame[len(frame)-1] ^= variant
		}
		data = data[size:]
		track.Samples = append(track.Samples, m4f.Sample{PTS: at, DTS: at, Duration: 1920, Sync: true, Data: frame})
	}
	seg, err := m4f.Build(&m4f.SegmentSpec{
		Header: m4f.Header{
			MediaTime: start,
			UTC:       epoch.Add(start),
			Duration:  length,
			Flags:     m4f.Keyframe | flags,
		},
		TargetDuration: length,
		Program:        1,
		PCRPID:         257,
		Tracks:         []m4f.Track{track},
	})
	if err != nil {
		t.Fatal(err)
	}
	return seg
}

const framesPerSegment = (length + 1919) / 1920

func newArchive(t testing.TB, dir string) *archive.Stream {
	t.Helper()
	a, err := archive.Create(dir, "", archive.CreateOptions{TargetDuration: length})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func appendAll(t testing.TB, a *archive.Stream, segs ...*m4f.Segment) {
	t.Helper()
	w := a.Writer(archive.Live, 0, archive.WriterOptions{Sync: archive.SyncOff})
	for _, s := range segs {
		if err := w.Append(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func numbers(t testing.TB, from, to int) []*m4f.Segment {
	var segs []*m4f.Segment
	for n := from; n < to; n++ {
		segs = append(segs, segment(t, n, 0, 0))
	}
	return segs
}

// node is a root with streams, served.
type node struct {
	root string
	srv  *httptest.Server
	keys []string
}

func serve(t testing.TB, keys ...string) *node {
	t.Helper()
	n := &node{root: t.TempDir(), keys: keys}
	h := NewHandler(Options{Provider: NewRoot(n.root), Auth: NewAuth(keys, nil, quiet), Log: quiet})
	n.srv = httptest.NewServer(h)
	t.Cleanup(n.srv.Close)
	return n
}

func (n *node) stream(t testing.TB, name string) *archive.Stream {
	return newArchive(t, filepath.Join(n.root, filepath.FromSlash(name)))
}

func (n *node) client(t testing.TB, name string) *Client {
	t.Helper()
	return clientOf(t, n.srv.URL, name, n.keys...)
}

func clientOf(t testing.TB, url, name string, keys ...string) *Client {
	t.Helper()
	peer, err := config.ParsePeer("m4f" + url[len("http"):] + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	c := NewClient(ClientOptions{Peer: peer, Keys: keys})
	t.Cleanup(c.Close)
	return c
}

func readM4F(t testing.TB, r io.Reader) []*m4f.Segment {
	t.Helper()
	var segs []*m4f.Segment
	for reader := m4f.NewReader(r); ; {
		s, err := reader.Next()
		if err == io.EOF {
			return segs
		}
		if err != nil {
			t.Fatal(err)
		}
		segs = append(segs, s)
	}
}
