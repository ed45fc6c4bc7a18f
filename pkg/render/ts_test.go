package render

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
)

// tsCorpus is the transport streams of TWINDVR_TESTDATA from which something is
// recorded, by name.
func tsCorpus(t *testing.T) map[string][]byte {
	t.Helper()
	root := os.Getenv("TWINDVR_TESTDATA")
	if root == "" {
		t.Skip("TWINDVR_TESTDATA is not set: 22 transport streams not tested")
	}
	out := map[string][]byte{}
	for _, dir := range []string{"ts", "hard"} {
		files, err := filepath.Glob(filepath.Join(root, dir, "*.ts"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no streams in %s: %v", filepath.Join(root, dir), err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			out[strings.TrimSuffix(filepath.Base(f), ".ts")] = b
		}
	}
	for _, name := range []string{"tsduck-012", "tsduck-044.pes", "tsduck-101"} { // nothing to decode in them
		delete(out, name)
	}
	return out
}

// stdTracks is what a decoder has for the tracks of segments.
func stdTracks(t testing.TB, segs []*m4f.Segment) map[uint16]stdTrack {
	t.Helper()
	tracks := map[uint16]stdTrack{}
	for _, seg := range segs {
		init, err := m4f.ParseInit(seg.Init)
		if err != nil {
			t.Fatal(err)
		}
		f, err := m4f.ParseFragment(init, seg.Media)
		if err != nil {
			t.Fatal(err)
		}
		for k := range init.Tracks {
			info := &init.Tracks[k]
			x := stdTrack{codec: info.Config.Codec, model: mpegts.ModelOf(info)}
			if s := f.Tracks[k].Samples; info.Config.Codec.IsAudio() && len(s) > 1 {
				x.frame = float64(s[0].Duration)
				for _, f := range s {
					x.size += float64(f.Len) / float64(len(s))
				}
			}
			if old, ok := tracks[info.Config.PID]; !ok || old.frame == 0 {
				tracks[info.Config.PID] = x
			}
		}
	}
	return tracks
}

// TestTSDecoder: what is exported flows through a system target decoder.
func TestTSDecoder(t *testing.T) {
	for name, ts := range tsCorpus(t) {
		t.Run(name, func(t *testing.T) {
			segs := record(ts, 4*second)
			b, _ := exportBytes(t, newMemory(segs...), Options{Format: TS})
			s := readTS(t, b)
			r := s.decode(stdTracks(t, segs))
			t.Logf("%d bytes, %d runs; PCR %.1f ms, PAT %.1f ms, PMT %.1f ms; earliest %.3f s, latest %.3f s", len(b), r.runs, r.pcrGap*1e3, r.patGap*1e3, r.pmtGap*1e3, r.earliest, r.latest)
			if name == "pmt2" {
				// Two seconds of the sound that its second map adds are dated ahead of the
				// keyframe that brings the map: they come late, and the decoder's buffers with
				// them.
				if r.late > 160 || r.main > 160 {
					t.Errorf("%d late, %d overflows of a main buffer", r.late, r.main)
				}
				r.late, r.main = 0, 0
			}
			if !r.clean() || s.breaks > 0 {
				t.Errorf("%d overflows of a transport buffer, %d of a main buffer, %d late, %d early, %d clocks out of order, %d counters broken\n%s",
					r.transport, r.main, r.late, r.early, r.order, s.breaks, strings.Join(r.notes, "\n"))
			}
		})
	}
}
