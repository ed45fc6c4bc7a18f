package m4fhttp

import (
	"io"
	"path/filepath"
	"testing"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// large makes number n of a stream of 6 Mbit/s: four seconds, 3 MB.
func large(b *testing.B, n int) *m4f.Segment {
	b.Helper()
	const d = 4 * second
	data := make([]byte, 3_000_000)
	for i := range data {
		data[i] = byte(i * i >> 8)
	}
	seg, err := m4f.Build(&m4f.SegmentSpec{
		Header:         m4f.Header{MediaTime: int64(n) * d, UTC: epoch.Add(int64(n) * d), Duration: d, Flags: m4f.Keyframe},
		TargetDuration: d,
		Program:        1,
		PCRPID:         257,
		Tracks: []m4f.Track{{
			Config:  m4f.TrackConfig{PID: 257, StreamType: 0x0F, Codec: m4f.CodecAAC, FrameHeader: make([]byte, 64)},
			Samples: []m4f.Sample{{PTS: int64(n) * d, DTS: int64(n) * d, Duration: d, Sync: true, Data: data}},
		}},
	})
	if err != nil {
		b.Fatal(err)
	}
	return seg
}

// BenchmarkMedia fetches segments of 3 MB over loopback: their bytes alone, and
// with what a client verifies.
func BenchmarkMedia(b *testing.B) {
	root := b.TempDir()
	a, err := archive.Create(filepath.Join(root, "x"), "", archive.CreateOptions{TargetDuration: 4 * second})
	if err != nil {
		b.Fatal(err)
	}
	var segs []*m4f.Segment
	for n := range 8 {
		segs = append(segs, large(b, n))
	}
	appendAll(b, a, segs...)
	addr := bounded(b, NewHandler(Options{Provider: NewRoot(root), Log: quiet}), ServeOptions{})
	c := clientOf(b, "http://"+addr, "x")
	els, err := c.Segments(b.Context(), 0, 0)
	if err != nil || len(els) != len(segs) {
		b.Fatal(len(els), err)
	}
	b.Run("bytes", func(b *testing.B) {
		b.SetBytes(3_000_000)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			res, err := c.get(b.Context(), false, "media/"+els[i%len(els)].ID.String(), nil)
			if err != nil {
				b.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, res.Body); n < 3_000_000 || err != nil {
				b.Fatal(n, err)
			}
			res.Body.Close()
		}
	})
	b.Run("verified", func(b *testing.B) {
		b.SetBytes(3_000_000)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, err := c.Media(b.Context(), &els[i%len(els)].Record, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("span", func(b *testing.B) {
		b.SetBytes(int64(len(segs)) * 3_000_000)
		b.ReportAllocs()
		for b.Loop() {
			n := 0
			if err := c.MediaSpan(b.Context(), 0, 0, func(*m4f.Segment) error { n++; return nil }); n != len(segs) || err != nil {
				b.Fatal(n, err)
			}
		}
	})
}
