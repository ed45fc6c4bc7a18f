package segment_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/segment"
)

const packet = 188

// corpus returns the transport streams of TWINDVR_TESTDATA.
func corpus(t testing.TB) []string {
	root := os.Getenv("TWINDVR_TESTDATA")
	if root == "" {
		t.Skip("TWINDVR_TESTDATA is not set: 25 transport streams not tested")
	}
	var files []string
	for _, dir := range []string{"ts", "hard"} {
		m, err := filepath.Glob(filepath.Join(root, dir, "*.ts"))
		if err != nil || len(m) == 0 {
			t.Fatalf("no streams in %s/%s: %v", root, dir, err)
		}
		files = append(files, m...)
	}
	return files
}

func read(t testing.TB, path string) []byte {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type segmenter = segment.Segmenter

// run segments packets [from, to) of ts, but for those that drop names.
func run(ts []byte, d time.Duration, from, to int, drop func(int) bool) ([]*m4f.Segment, *segmenter) {
	return run188(ts, d, from*packet, to*packet, packet, drop)
}

// run188 segments bytes [from, to) of ts in pieces of a length, but for those
// that drop names by their number.
func run188(ts []byte, d time.Duration, from, to, length int, drop func(int) bool) ([]*m4f.Segment, *segmenter) {
	var out []*m4f.Segment
	s := segment.New(segment.Config{TargetDuration: m4f.Ticks(d), Clock: clock.System, Unpaced: true, Start: 1},
		func(seg *m4f.Segment) { out = append(out, seg) })
	if drop == nil && length == packet {
		length = to - from
	}
	for at := from; at < to; at += length {
		if drop == nil || !drop(at/packet) {
			s.Write(ts[at:min(at+length, to)])
		}
	}
	s.Close()
	return out, s
}

func identities(segs []*m4f.Segment) map[m4f.Identity]bool {
	m := map[m4f.Identity]bool{}
	for _, s := range segs {
		m[s.Header.ID] = true
	}
	return m
}

func describe(s *m4f.Segment) string {
	h := s.Header
	return fmt.Sprintf("[%.3f +%.3f) flags %04b lost %d bytes %d %s", float64(h.MediaTime)/m4f.Timescale, float64(h.Duration)/m4f.Timescale, h.Flags, h.Lost, h.Length, h.ID.String()[:8])
}

// TestTwinsFromAnyCut joins each stream at many packets: every segment that is
// whole there is one of those that a recorder from the start writes.
func TestTwinsFromAnyCut(t *testing.T) {
	for _, path := range corpus(t) {
		for _, d := range []time.Duration{500 * time.Millisecond, time.Second, 4 * time.Second} {
			t.Run(fmt.Sprintf("%s/%v", filepath.Base(path), d), func(t *testing.T) {
				ts := read(t, path)
				n := len(ts) / packet
				full, s := run(ts, d, 0, n, nil)
				if len(full) == 0 {
					t.Logf("no segment: %v", s.Diagnose())
				}
				if testing.Verbose() {
					for _, seg := range full {
						t.Log(describe(seg))
					}
				}
				ids := identities(full)
				whole := 0
				const joins = 80 / less
				for k := range joins {
					cut := 1 + k*(n-1)/joins
					if cut >= n {
						break
					}
					segs, _ := run(ts, d, cut, n, nil)
					for _, seg := range segs {
						if seg.Header.Partial() {
							continue
						}
						whole++
						if !ids[seg.Header.ID] {
							t.Fatalf("joined at packet %d of %d: %s is whole and differs", cut, n, describe(seg))
						}
					}
				}
				t.Logf("%d segments, %d whole ones compared", len(full), whole)
			})
		}
	}
}
