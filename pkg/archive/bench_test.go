package archive

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// month makes an archive of days × 24 hours of 4 s segments whose extents hold
// no media (they are as long as they should be): what reads indexes cannot tell.
func month(b testing.TB, days int) *Stream {
	s := newStream(b, Options{})
	var r indexRecord
	r.Init = m4f.Identity{1}
	first := hourOf(noon)
	for h := first; h < first+hour(days*24); h++ {
		head := indexHeader{init: r.Init, initLength: 1000, origin: Live}
		idx := head.append(nil)
		at := int64(1000)
		for i := range int64(900) {
			u := h.start().Add(i * 4 * sec)
			r.ID = m4f.Identify(nil, []byte{byte(i), byte(i >> 8), byte(h), byte(h >> 8)})
			r.MediaTime, r.UTC, r.Duration, r.Length = int64(u)&(m4f.Wrap-1), u, 4*sec, 3e6
			r.number, r.offset, r.Origin = uint32(i), at, Live
			at = r.end()
			idx = r.append(idx)
		}
		if err := os.MkdirAll(s.hourDir(h), 0o750); err != nil {
			b.Fatal(err)
		}
		name := extentNameOf(h.start())
		if err := os.WriteFile(s.extentPath(h, name, indexExt), idx, 0o640); err != nil {
			b.Fatal(err)
		}
		f, err := os.Create(s.extentPath(h, name, mediaExt))
		if err != nil {
			b.Fatal(err)
		}
		if err := f.Truncate(at); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
	return s
}

// coldAndWarm measures what a question costs an archive that has just been opened, and
// one that was asked before.
func coldAndWarm(b *testing.B, name string, s *Stream, ask func(*testing.B, *Stream)) {
	b.Run(name+"cold", func(b *testing.B) {
		for b.Loop() {
			ask(b, reopen(b, s))
		}
	})
	b.Run(name+"warm", func(b *testing.B) {
		ask(b, s)
		b.ReportAllocs()
		for b.Loop() {
			ask(b, s)
		}
	})
}

func BenchmarkMonth(b *testing.B) {
	s := month(b, 30)
	hours := func(b *testing.B, s *Stream) {
		h, err := s.Hours(0, 0)
		if err != nil || len(h) != 30*24 || h[0].Segments != 900 {
			b.Fatal(len(h), err)
		}
	}
	coldAndWarm(b, "hours-", s, hours)
	b.Run("first-answer", func(b *testing.B) {
		for b.Loop() {
			if info, err := reopen(b, s).Info(); err != nil || info.Newest == 0 {
				b.Fatal(err)
			}
		}
	})
	coldAndWarm(b, "hour-", s, func(b *testing.B, s *Stream) {
		els, err := s.Span(noon.Add(100*hourTicks), noon.Add(101*hourTicks))
		if err != nil || len(els) != 900 {
			b.Fatal(len(els), err)
		}
	})
	stretches := func(b *testing.B, s *Stream) {
		x, err := s.Stretches(0, 0)
		if err != nil || len(x) != 1 || x[0].Segments != 30*24*900 {
			b.Fatal(len(x), err)
		}
	}
	coldAndWarm(b, "stretches-", s, stretches)
	b.Run("coverage", func(b *testing.B) {
		for b.Loop() {
			ivs, err := s.Coverage(0, 0)
			if err != nil || len(ivs) != 1 {
				b.Fatal(len(ivs), err)
			}
		}
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapAlloc)/1e6, "MB-heap")
	})
}

func BenchmarkAppend(b *testing.B) {
	s := newStream(b, Options{})
	seg := spec{media: 0, utc: noon, duration: 4 * sec, size: 3_000_000}.build(b)
	w := s.Writer(Live, 0, WriterOptions{Sync: SyncOff})
	b.SetBytes(3_000_000)
	b.ReportAllocs()
	for b.Loop() {
		if err := w.Append(seg); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		seg.Header.MediaTime = (seg.Header.MediaTime + 4*sec) & (m4f.Wrap - 1)
		seg.Header.UTC = seg.Header.UTC.Add(4 * sec)
		if names, _ := filepath.Glob(filepath.Join(s.Dir(), "*/*/*/*/*.mp4")); len(names) > 1 {
			os.Remove(names[0])
		}
		b.StartTimer()
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
}
