package render

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// tsDownload is a download of all of an archive as a transport stream.
func tsDownload(t *testing.T, a *archive.Stream) (*Download, []byte) {
	t.Helper()
	d, err := NewDownload(context.Background(), a, Options{Format: TS})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := d.WriteRange(context.Background(), &b, 0, d.Size()); err != nil {
		t.Fatal(err)
	}
	return d, b.Bytes()
}

// TestTSDownloadOfRealStreams: the length is known and any part can be had; a
// receiver sees counters and a clock without a break, everything that an export
// has, and in time; and what is recorded of it are the segments.
func TestTSDownloadOfRealStreams(t *testing.T) {
	for name, ts := range tsCorpus(t) {
		t.Run(name, func(t *testing.T) {
			segs := record(ts, 4*second)
			a := stored(t, segs...)
			d, b := tsDownload(t, a)
			checkRanges(t, d, b)
			plain, _ := exportBytes(t, bounded{a}, Options{Format: TS})
			checkTS(t, segs, b, plain)
			have := map[m4f.Identity]bool{}
			for _, id := range ids(record(b, 4*second)) {
				have[id] = true
			}
			for i, id := range ids(record(plain, 4*second)) {
				if !have[id] {
					t.Errorf("segment %d is not recorded again", i)
				}
			}
			t.Logf("%d bytes, an export %d, the source %d", len(b), len(plain), len(ts))
		})
	}
}

func checkTS(t *testing.T, segs []*m4f.Segment, b, plain []byte) {
	t.Helper()
	got, want := readTS(t, b), readTS(t, plain)
	if got.breaks != 0 {
		t.Errorf("continuity counters break %d times", got.breaks)
	}
	r := got.decode(stdTracks(t, segs))
	wr := want.decode(stdTracks(t, segs))
	if r.order > wr.order || r.pcrGap > 0.1 {
		t.Errorf("the clock goes back %d times, and its largest step is %.3f s %q", r.order, r.pcrGap, r.notes)
	}
	if r.latest < 0 && r.latest < wr.latest-0.2 {
		t.Errorf("something comes %f s too late, in an export %f", -r.latest, -wr.latest)
	}
	codecs, _ := tracksOf(t, segs)
	for pid, c := range codecs {
		if g, w := got.pieces(pid, c), want.pieces(pid, c); !slices.Equal(g, w) {
			t.Errorf("PID %d (%s): %d units, an export has %d, or others", pid, c, len(g), len(w))
		}
	}
}
