package m4fhttp

import (
	"context"
	"io"
	"path/filepath"
	"testing"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// large makes number n of a stream: four seconds, so many bytes.
func large(b *testing.B, n, size int) *m4f.Segment {
	b.Helper()
	const d = 4 * second
	data := make([]byte, size)
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
		segs = append(segs, large(b, n, 3_000_000))
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

// BenchmarkLive adds segments of 300 kB to a stream that fifty clients follow over
// loopback, each when all have the one before.
func BenchmarkLive(b *testing.B) {
	const followers, size = 50, 300_000
	root := b.TempDir()
	a, err := archive.Create(filepath.Join(root, "x"), "", archive.CreateOptions{TargetDuration: 4 * second})
	if err != nil {
		b.Fatal(err)
	}
	w := a.Writer(archive.Live, 0, archive.WriterOptions{Sync: archive.SyncOff})
	add := func(n int) {
		if err := w.Append(large(b, n, size)); err != nil {
			b.Fatal(err)
		}
	}
	add(0)
	addr := bounded(b, NewHandler(Options{Provider: NewRoot(root), Log: quiet}), ServeOptions{})
	ctx, cancel := context.WithCancel(b.Context())
	got, done := make(chan int64, followers), make(chan error, followers)
	for range followers {
		c := clientOf(b, "http://"+addr, "x")
		go func() {
			done <- c.Live(ctx, m4f.Identity{}, func(s *m4f.Segment) error { got <- s.Header.MediaTime; return nil })
		}()
	}
	all := func(n int) {
		for range followers {
			select {
			case at := <-got:
				if at != int64(n)*4*second {
					b.Fatal(at, n)
				}
			case err := <-done:
				b.Fatal(err)
			}
		}
	}
	all(0)
	b.SetBytes(followers * size)
	b.ReportAllocs()
	for n := 1; b.Loop(); n++ {
		add(n)
		all(n)
	}
	cancel()
	for range followers {
		<-done
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
}
