package segment_test

import (
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/salvage"
	"github.com/twindvr/twindvr/pkg/segment"
)

// feed segments what more writes, again and again, and returns the segments'
// headers and the most memory that was in use. The stream begins with the maps
// of three tracks: H.264, MPEG audio and private data.
func feed(t testing.TB, d time.Duration, times int, more func(m *mux, k int64)) (headers []m4f.Header, most uint64, _ segment.Stats) {
	m := &mux{}
	m.section(0, pat(0, 1, 0x1000))
	m.section(0x1000, pmt(1, 0, es{0x100, 0x1b, nil}, es{0x101, 0x03, nil}, es{0x200, 0x06, nil}))
	s := segment.New(segment.Config{TargetDuration: m4f.Ticks(d), Unpaced: true, Start: 1}, func(seg *m4f.Segment) {
		headers = append(headers, seg.Header)
	})
	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	for k := range times {
		more(m, int64(k))
		s.Write(m.out)
		m.out = m.out[:0]
		if k%(times/20+1) == 0 {
			runtime.GC()
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapAlloc-min(now.HeapAlloc, before.HeapAlloc))
		}
	}
	s.Close()
	return headers, most, s.Stats()
}

// Streams that are made to do harm are segmented in bounded memory.
func TestHostile(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	big := make([]byte, 60_000)
	for _, c := range []struct {
		name  string
		times int
		most  uint64 // MiB
		more  func(m *mux, k int64)
	}{
		{"time goes back with each picture", 8_000, 64, func(m *mux, k int64) {
			m.packets(0x100, pes(0xe0, 1<<32-5*k, 1<<32-5*k, -1, avc(k%2 == 0, 50)))
			m.packets(0x101, pes(0xc0, 2160*k, 2160*k, -1, mp2()))
		}},
		{"time leaps with each picture", 10_000, 64, func(m *mux, k int64) {
			m.packets(0x100, pes(0xe0, 400_000*k, 400_000*k, -1, avc(true, 50)))
		}},
		{"random times", 10_000, 64, func(m *mux, k int64) {
			at := rng.Int64N(m4f.Wrap)
			m.packets(0x100, pes(0xe0, at, at, -1, avc(k%3 == 0, 50)))
			at = rng.Int64N(m4f.Wrap)
			m.packets(0x101, pes(0xc0, at, at, -1, mp2()))
			m.packets(0x200, pes(0xbd, at, at, -1, []byte{1}))
		}},
		{"the leading track never comes", 300_000, 64, func(m *mux, k int64) {
			m.packets(0x101, pes(0xc0, 2160*k, 2160*k, -1, mp2()))
		}},
		{"the leading track never comes, and the time of the other stands", 300_000, 256, func(m *mux, k int64) {
			m.packets(0x101, pes(0xc0, 90000, 90000, -1, mp2()))
		}},
		{"the leading track stops, data goes on", 6_000, 320, func(m *mux, k int64) {
			if k < 100 {
				m.packets(0x100, pes(0xe0, 3600*k, 3600*k, -1, avc(k%25 == 0, 500)))
			}
			m.packets(0x200, pes(0xbd, 3600*k, 3600*k, -1, big))
		}},
		{"the leading track stops, small data goes on", 800_000, 320, func(m *mux, k int64) {
			if k < 100 {
				m.packets(0x100, pes(0xe0, 3600*k, 3600*k, -1, avc(k%25 == 0, 500)))
			}
			m.packets(0x200, pes(0xbd, -1, -1, -1, []byte{1}))
		}},
		{"a time that stands", 600_000, 400, func(m *mux, k int64) {
			m.packets(0x100, pes(0xe0, 90000, 90000, -1, avc(k == 0, 1)))
		}},
		{"every packet follows a loss", 200_000, 64, func(m *mux, k int64) {
			m.packets(0x100, pes(0xe0, 3600*k, 3600*k, -1, avc(false, 10)))
			m.packets(0x101, pes(0xc0, 3600*k, 3600*k, -1, mp2()[:50]))
			m.cc[0x100] += 3
			m.cc[0x101] += 5
		}},
		{"a map with each picture", 20_000, 64, func(m *mux, k int64) {
			m.section(0x1000, pmt(1, int(k)&31, es{0x100, 0x1b, []byte{0xfe, 2, byte(k >> 8), byte(k)}}))
			m.packets(0x100, pes(0xe0, 3600*k, 3600*k, -1, avc(false, 10)))
		}},
		{"another leading track with each picture", 10_000, 64, func(m *mux, k int64) {
			pid := 0x100 + int(k)%100
			m.section(0x1000, pmt(1, int(k)&31, es{pid, 0x1b, nil}))
			m.packets(pid, pes(0xe0, 3600*k, 3600*k, -1, avc(true, 10)))
		}},
		{"audio that is dated anyhow", 50_000, 64, func(m *mux, k int64) {
			m.packets(0x100, pes(0xe0, 3600*k, 3600*k, -1, avc(k%25 == 0, 100)))
			at := rng.Int64N(m4f.Wrap)
			m.packets(0x101, pes(0xc0, at, at, -1, mp2()))
		}},
		{"a jump that the audio does not follow", 50_000, 64, func(m *mux, k int64) {
			at := 3600 * (k % 50)
			m.packets(0x100, pes(0xe0, at, at, -1, avc(k%25 == 0, 100)))
			m.packets(0x101, pes(0xc0, 3600*k, 3600*k, -1, mp2()))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			times := c.times
			if testing.Short() || less > 1 {
				times /= 20
			}
			headers, most, st := feed(t, time.Second, times, c.more)
			t.Logf("%d segments, %d MiB in use at most; %+v", len(headers), most>>20, st.Stats)
			if most > c.most<<20 {
				t.Errorf("%d MiB in use, want %d at most", most>>20, c.most)
			}
			if st.Err != nil {
				t.Errorf("a segment could not be built: %v", st.Err)
			}
		})
	}
}

// A segment is cut at 64 MiB of the source's bytes, at a keyframe or not.
func TestLargeSegments(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: 200 MB of pictures not segmented")
	}
	for _, keys := range []int64{1, 1000} {
		headers, _, st := feed(t, time.Hour, 200, func(m *mux, k int64) {
			m.packets(0x100, pes(0xe0, 3600*k, 3600*k, 0, avc(k%keys == 0, 1<<20)))
		})
		if len(headers) != 4 || st.Err != nil {
			t.Fatalf("%d segments: %v", len(headers), st.Err)
		}
		for k, h := range headers {
			if key := h.Flags&m4f.Keyframe != 0; key != (k == 0 || keys == 1) || h.Length > 66<<20 || k < 3 && h.Length < 62<<20 {
				t.Errorf("keyframe every %d: segment %d has %d bytes, at a keyframe: %v", keys, k, h.Length, key)
			}
		}
	}
}

// Nothing is allocated per packet, and little per picture.
func TestSegmenterAllocations(t *testing.T) {
	m := &mux{}
	m.section(0, pat(0, 1, 0x1000))
	m.section(0x1000, pmt(1, 0, es{0x100, 0x1b, nil}))
	s := segment.New(segment.Config{TargetDuration: 90000, Unpaced: true, Start: 1}, func(*m4f.Segment) {})
	s.Write(m.out)
	var at int64
	second := func() []byte {
		m.out = nil
		for k := range int64(25) {
			m.packets(0x100, pes(0xe0, at, at, 0, avc(k == 0, 30_000)))
			at += 3600
		}
		return m.out
	}
	seconds := make([][]byte, 22)
	for k := range seconds {
		seconds[k] = second()
	}
	next := 0
	per := testing.AllocsPerRun(20, func() {
		s.Write(seconds[next])
		next++
	})
	t.Logf("%.0f allocations a second of 25 pictures, %.4f a packet", per, per/float64(len(seconds[0])/packet))
	if per > 25*8 {
		t.Errorf("%.0f allocations a second of 25 pictures", per)
	}
}

// BenchmarkSegmenter cuts 20 s of 6 Mbit/s: as a file is read, and as a node
// records datagrams.
func BenchmarkSegmenter(b *testing.B) {
	m := &mux{}
	m.section(0, pat(0, 1, 0x1000))
	m.section(0x1000, pmt(1, 0, es{0x100, 0x1b, nil}, es{0x101, 0x03, nil}))
	const seconds = 20
	rng := rand.NewChaCha8([32]byte{1})
	noise := make([]byte, 30_000)
	rng.Read(noise)
	for k := range int64(25 * seconds) { // 6 Mbit/s
		m.packets(0x100, pes(0xe0, 3600*k, 3600*k, 0, append(avc(k%50 == 0, 0), noise...)))
		for j := range int64(2) {
			at := 3600*k + 2160*j
			m.packets(0x101, pes(0xc0, at, at, -1, mp2()))
		}
	}
	run := func(name string, cfg segment.Config, write func(s *segmenter, p []byte)) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(m.out)))
			b.ReportAllocs()
			for b.Loop() {
				s := segment.New(cfg, (*m4f.Segment).Recycle)
				for k := 0; k < len(m.out); k += 7 * packet {
					write(s, m.out[k:min(k+7*packet, len(m.out))])
				}
				s.Close()
			}
		})
	}
	run("bytes", segment.Config{Unpaced: true, Start: 1}, func(s *segmenter, p []byte) { s.Write(p) })
	run("datagrams", segment.Config{Unpaced: true, Start: 1, Lend: true, Salvage: func(*salvage.Kept) {}},
		func(s *segmenter, p []byte) { s.WriteAt(p, time.Unix(1, 0)) })
}
