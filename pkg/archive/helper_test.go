package archive

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/m4f"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		os.Exit(childMain(dir))
	}
	goleak.VerifyTestMain(m)
}

const sec = m4f.Timescale

var fixedClock = clock.NewSim(time.Date(2026, 11, 22, 12, 30, 0, 0, time.UTC))

// noon is where the tests' archives begin.
var noon = m4f.UTCOf(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))

// spec is what a test segment is made of: one data track.
type spec struct {
	media    int64 // also seeds the bytes, so that equal spans are equal segments
	utc      m4f.UTC
	duration int64
	flags    m4f.Flags
	lost     uint32
	size     int
	content  uint64
	pid      uint16 // other PIDs are other init segments
	target   int64
}

func (s spec) build(t testing.TB) *m4f.Segment {
	t.Helper()
	if s.size == 0 {
		s.size = 64
	}
	if s.pid == 0 {
		s.pid = 0x100
	}
	if s.target == 0 {
		s.target = 4 * sec
	}
	s.media &= m4f.Wrap - 1
	data := make([]byte, s.size)
	binary.BigEndian.PutUint64(data, uint64(s.media)<<8^s.content)
	for i := 8; i < len(data); i++ {
		data[i] = byte(i) * 7
	}
	seg, err := m4f.Build(&m4f.SegmentSpec{
		Header:         m4f.Header{MediaTime: s.media, UTC: s.utc, Duration: uint32(s.duration), Flags: s.flags, Lost: s.lost},
		TargetDuration: s.target, Program: 1, PCRPID: s.pid,
		Tracks: []m4f.Track{{
			Config:  m4f.TrackConfig{PID: s.pid, StreamType: 6, Codec: m4f.CodecData},
			Samples: []m4f.Sample{{PTS: s.media, DTS: s.media, Duration: uint32(s.duration), Sync: true, Data: data}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return seg
}

// run builds n contiguous segments of 4 s from a UTC and a media time on.
func run(t testing.TB, utc m4f.UTC, media int64, n int) []*m4f.Segment {
	var out []*m4f.Segment
	for i := range int64(n) {
		out = append(out, spec{media: media + i*4*sec, utc: utc.Add(i * 4 * sec), duration: 4 * sec, flags: m4f.Keyframe}.build(t))
	}
	return out
}

func newStream(t testing.TB, opt Options) *Stream {
	t.Helper()
	s, err := Create(filepath.Join(t.TempDir(), "storage", "example"), "", opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func write(t testing.TB, s *Stream, origin Origin, segs ...*m4f.Segment) {
	t.Helper()
	w := s.Writer(origin, 0, WriterOptions{Sync: SyncOff})
	for _, seg := range segs {
		if err := w.Append(seg); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// reopen is a reader that remembers nothing.
func reopen(t testing.TB, s *Stream) *Stream {
	t.Helper()
	r, err := Open(s.Dir())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func span(t testing.TB, s *Stream) []Element {
	t.Helper()
	els, err := s.Span(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return els
}

func ids(els []Element) []m4f.Identity {
	out := []m4f.Identity{}
	for _, e := range els {
		out = append(out, e.ID)
	}
	return out
}

func idsOf(segs []*m4f.Segment) []m4f.Identity {
	out := []m4f.Identity{}
	for _, s := range segs {
		out = append(out, s.Header.ID)
	}
	return out
}

func glob(t testing.TB, s *Stream, pattern string) []string {
	t.Helper()
	l, err := filepath.Glob(filepath.Join(s.Dir(), pattern))
	if err != nil {
		t.Fatal(err)
	}
	return l
}
