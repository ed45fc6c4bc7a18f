package render

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/segment"
	"github.com/twindvr/twindvr/pkg/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start is when test recordings begin.
const start = m4f.UTC(1_764_000_000 * m4f.Timescale)

// memory is an archive of segments in memory; its view is the real one.
type memory struct {
	segs  map[m4f.Identity]*m4f.Segment
	recs  []archive.Record
	reads int
}

func newMemory(segs ...*m4f.Segment) *memory {
	m := &memory{segs: map[m4f.Identity]*m4f.Segment{}}
	for _, s := range segs {
		m.add(s, s.Header)
	}
	return m
}

func (m *memory) add(s *m4f.Segment, h m4f.Header) {
	m.segs[h.ID] = s
	m.recs = append(m.recs, archive.Record{Header: h})
}

func (m *memory) Span(from, to m4f.UTC) ([]archive.Element, error) {
	var out []archive.Element
	for _, e := range archive.View(m.recs) {
		for _, p := range e.Parts {
			if e.UTC.Add(p.To) > from && (to == 0 || e.UTC.Add(p.From) < to) {
				out = append(out, e)
				break
			}
		}
	}
	return out, nil
}

func (m *memory) ReadElement(e *archive.Element) (*m4f.Segment, error) {
	m.reads++
	s := *m.segs[e.ID]
	s.Header = e.Header
	return &s, s.Verify()
}

func (m *memory) Bounds() (oldest, newest m4f.UTC, err error) {
	for i, r := range m.recs {
		if i == 0 || r.UTC < oldest {
			oldest = r.UTC
		}
		newest = max(newest, r.End())
	}
	return oldest, newest, nil
}

// record segments a transport stream.
func record(ts []byte, target time.Duration) []*m4f.Segment {
	var out []*m4f.Segment
	s := segment.New(segment.Config{TargetDuration: m4f.Ticks(target), Clock: clock.System, Unpaced: true, Start: start},
		func(seg *m4f.Segment) { out = append(out, seg) })
	_, _ = s.Write(ts)
	s.Close()
	return out
}

// export writes a span to a file and returns its name.
func export(t testing.TB, a Archive, opt Options) (string, Result) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "export.mp4")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	res, err := Export(context.Background(), a, f, opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(name); err != nil || info.Size() != res.Bytes {
		t.Fatalf("%d bytes written, the result says %d (%v)", info.Size(), res.Bytes, err)
	}
	return name, res
}

// decoded is the hash of each decoded picture of a file.
func decoded(t testing.TB, file string) []string {
	t.Helper()
	out, says := testkit.Run(t, "ffmpeg", "-v", "error", "-i", file, "-map", "0:v", "-fps_mode", "passthrough", "-autoscale", "0", "-f", "framemd5", "-")
	if says != "" {
		t.Errorf("ffmpeg says of %s: %s", file, says)
	}
	var sums []string
	for _, l := range strings.Split(out, "\n") {
		if f := strings.Split(l, ","); len(f) >= 6 && !strings.HasPrefix(l, "#") {
			sums = append(sums, strings.TrimSpace(f[5]))
		}
	}
	return sums
}

type stream struct {
	Index     int
	CodecType string `json:"codec_type"`
	CodecName string `json:"codec_name"`
	Tag       string `json:"codec_tag_string"`
	ID        string
	Packets   string `json:"nb_read_packets"`
	Start     string `json:"start_time"`
	Duration  string
}

func probe(t testing.TB, file string) []stream {
	t.Helper()
	var p struct{ Streams []stream }
	out, says := testkit.Run(t, "ffprobe", "-v", "error", "-count_packets", "-show_streams", "-of", "json", file)
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		t.Fatal(err)
	}
	if says != "" && strings.HasSuffix(file, ".mp4") {
		t.Errorf("ffprobe says: %s", says)
	}
	return p.Streams
}
