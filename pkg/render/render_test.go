package render

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/testkit"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

const frameTicks = 3600 // of a picture of the test source

// checkUnbroken wants pictures n to n+count-1, each shown 40 ms after another
// from time 0 on, and sound beside them.
func checkUnbroken(t *testing.T, tracks [][]exported, n, count uint64) {
	t.Helper()
	if len(tracks) != 2 {
		t.Fatalf("%d tracks, want 2", len(tracks))
	}
	got := pictures(tracks[0])
	if uint64(len(got)) != count {
		t.Errorf("%d pictures, want %d", len(got), count)
	}
	for i, p := range got {
		if p != n+uint64(i) {
			t.Fatalf("picture %d at place %d", p, i)
		}
	}
	var pts []int64
	for _, s := range tracks[0] {
		pts = append(pts, s.pts)
	}
	slices.Sort(pts)
	for i, p := range pts {
		if p != int64(i)*frameTicks {
			t.Fatalf("picture %d is shown at %d, want %d", i, p, i*frameTicks)
		}
	}
	for i, s := range tracks[1] {
		if i > 0 && s.pts-tracks[1][i-1].pts != 1920 {
			t.Fatalf("sound frame %d comes %d ticks after the one before", i, s.pts-tracks[1][i-1].pts)
		}
	}
}

func bothFormats(t *testing.T, a Archive, opt Options) [][]exported {
	t.Helper()
	opt.Faststart = false
	b, res := exportBytes(t, a, opt)
	fragmented := readExport(t, b)
	opt.Faststart = true
	b, fast := exportBytes(t, a, opt)
	plain := readExport(t, b)
	if res.Segments != fast.Segments || res.Duration != fast.Duration || !slices.Equal(res.Gaps, fast.Gaps) || res.Damaged != fast.Damaged {
		t.Errorf("results %+v and %+v", res, fast)
	}
	if len(plain) != len(fragmented) {
		t.Fatalf("%d tracks fragmented, %d plain", len(fragmented), len(plain))
	}
	for i := range plain {
		if !slices.Equal(plain[i], fragmented[i]) {
			t.Errorf("track %d: %d samples fragmented, %d plain, or other ones", i+1, len(fragmented[i]), len(plain[i]))
		}
	}
	return fragmented
}

func TestExportIsUnbroken(t *testing.T) {
	for name, at := range map[string]int64{
		"plain": 90000, "across the wrap": m4f.Wrap - 10*m4f.Timescale, "the wrap inside the first segment": m4f.Wrap - 7200, "from 0": 0,
	} {
		t.Run(name, func(t *testing.T) {
			segs := record(testkit.Stream(t, testsrc.Options{StartPTS: at, Duration: 20 * second}), 4*second)
			tracks := bothFormats(t, newMemory(segs...), Options{})
			checkUnbroken(t, tracks, 0, 500)
		})
	}
}

// TestTwinsExportAlike: nodes that date the same segments some milliseconds
// apart, with drift, flags and order of arrival of their own, write the same
// bytes.
func TestTwinsExportAlike(t *testing.T) {
	segs := record(testkit.Stream(t, testsrc.Options{StartPTS: m4f.Wrap - 10*m4f.Timescale, Duration: 40 * second, RestartEvery: 17 * second}), 4*second)
	gap := slices.Delete(slices.Clone(segs), 3, 5)
	for _, segs := range [][]*m4f.Segment{segs, gap} {
		for _, fast := range []bool{false, true} {
			want, _ := exportBytes(t, newMemory(segs...), Options{Faststart: fast})
			r := rand.New(rand.NewPCG(1, 2))
			for range 10 {
				twin := newMemory()
				for i := range segs {
					h := segs[i].Header
					h.UTC = h.UTC.Add(1000 + int64(r.IntN(900)) + int64(i)*100)
					h.Flags &^= m4f.Discontinuity
					twin.add(segs[i], h)
				}
				r.Shuffle(len(twin.recs), func(i, j int) { twin.recs[i], twin.recs[j] = twin.recs[j], twin.recs[i] })
				got, _ := exportBytes(t, twin, Options{Faststart: fast})
				if !bytes.Equal(got, want) {
					t.Fatal("a twin writes other bytes")
				}
			}
		}
	}
}

// TestGapStandsStill: what is missing inside a timeline takes its time.
func TestGapStandsStill(t *testing.T) {
	for _, at := range []int64{90000, m4f.Wrap - 9*m4f.Timescale} {
		segs := record(testkit.Stream(t, testsrc.Options{StartPTS: at, Duration: 24 * second}), 4*second)
		lost := segs[2].Header
		without := slices.Delete(slices.Clone(segs), 2, 3)
		_, res := exportBytes(t, newMemory(without...), Options{})
		if want := []Gap{{lost.UTC, lost.End()}}; !slices.Equal(res.Gaps, want) {
			t.Errorf("gaps %v, want %v", res.Gaps, want)
		}
		whole, holed := bothFormats(t, newMemory(segs...), Options{}), bothFormats(t, newMemory(without...), Options{})
		for i := range holed {
			for _, s := range holed[i] {
				if !slices.Contains(whole[i], s) {
					t.Fatalf("track %d: the sample at %d is not where it is without the gap", i+1, s.pts)
				}
			}
		}
		if n := len(holed[0]); n != 600-int(lost.Duration)/frameTicks {
			t.Errorf("%d pictures", n)
		}
	}
}

// TestNewTimelineFollows: after a restart of the encoder the new timeline begins
// where the old one ended, whatever the clock says of the pause.
func TestNewTimelineFollows(t *testing.T) {
	const restart = 250 // pictures
	segs := record(testkit.Stream(t, testsrc.Options{StartPTS: 5 * m4f.Wrap / 7, Duration: 20 * second, RestartEvery: 10 * second}), 4*second)
	want, res := exportBytes(t, newMemory(segs...), Options{})
	if len(res.Gaps) != 0 {
		t.Errorf("gaps %v where one timeline follows the other", res.Gaps)
	}
	apart := newMemory()
	late := false
	var pause Gap
	for _, s := range segs {
		h := s.Header
		if late = late || h.Flags&m4f.Discontinuity != 0; late {
			if pause.To == 0 {
				pause = Gap{h.UTC, h.UTC.Add(3 * 3600 * m4f.Timescale)}
			}
			h.UTC = h.UTC.Add(3 * 3600 * m4f.Timescale)
		}
		apart.add(s, h)
	}
	got, res := exportBytes(t, apart, Options{})
	if !bytes.Equal(got, want) {
		t.Error("a pause between timelines changes the bytes")
	}
	if !slices.Equal(res.Gaps, []Gap{pause}) {
		t.Errorf("gaps %v, want %v", res.Gaps, pause)
	}
	tracks := bothFormats(t, apart, Options{})
	if got := pictures(tracks[0]); len(got) != 500 || got[499] != 499 {
		t.Errorf("%d pictures", len(got))
	}
	// The pictures go on where they ended, and at most as much later as the
	// sound of the old timeline lasts.
	step := tracks[0][restart].dts - tracks[0][restart-1].dts
	if step < frameTicks || step > frameTicks+2*1920 {
		t.Errorf("the new timeline's first picture comes %d ticks after the last of the old one", step)
	}
	for i := 1; i < len(tracks[1]); i++ {
		if d := tracks[1][i].pts - tracks[1][i-1].pts; d < 1920 {
			t.Errorf("sound frame %d comes %d ticks after the one before", i, d)
		}
	}
}

// TestLoopedSource: a source that repeats itself has the same segments again.
func TestLoopedSource(t *testing.T) {
	segs := record(testkit.Stream(t, testsrc.Options{StartPTS: 90000, Duration: 12 * second}), 4*second)
	m := newMemory()
	for round := range int64(3) {
		for _, s := range segs {
			h := s.Header
			h.UTC = h.UTC.Add(round * 12 * m4f.Timescale)
			m.add(s, h)
		}
	}
	tracks := bothFormats(t, m, Options{})
	if got := pictures(tracks[0]); len(got) != 900 || got[899] != 299 || got[300] != 0 {
		t.Errorf("%d pictures", len(got))
	}
}

// TestPartsJoin: where the view shows parts of segments, each picture and each
// frame of sound is there once.
func TestPartsJoin(t *testing.T) {
	ts := testkit.Stream(t, testsrc.Options{StartPTS: 4 * m4f.Timescale, Duration: 24 * second})
	whole := record(ts, 8*second)
	want := bothFormats(t, newMemory(whole...), Options{})
	damaged, begun, ended := torn(ts, whole)
	for _, c := range []struct {
		name string
		segs [][]*m4f.Segment
	}{
		{"a damaged one and one that begins inside", [][]*m4f.Segment{damaged(0.2), begun(0.3)}},
		{"a damaged one and one that ends inside", [][]*m4f.Segment{damaged(0.75), ended(0.65)}},
		{"all three", [][]*m4f.Segment{damaged(0.65), begun(0.72), ended(0.58)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMemory(slices.Concat(c.segs...)...)
			parts := 0
			els, _ := m.Span(0, 0)
			for i := range els {
				if !els[i].Whole() {
					parts++
				}
			}
			if parts == 0 {
				t.Fatalf("the view shows no parts: %d elements", len(els))
			}
			got := bothFormats(t, m, Options{})
			if !slices.Equal(got[0], want[0]) {
				t.Errorf("%d pictures, want %d, or at other times", len(got[0]), len(want[0]))
				for i := range got[0] {
					if g, w := got[0][i], want[0][i]; g != w {
						t.Logf("picture %d: dts %d %d pts %d %d sync %v entry %d", i, g.dts, w.dts, g.pts, w.pts, g.sync, g.entry)
					}
				}
			}
			// Up to two packets' sound is lost, and nothing is there twice.
			missing := 0
			for _, s := range want[1] {
				if !slices.Contains(got[1], s) {
					missing++
				}
			}
			if extra := len(got[1]) - len(want[1]) + missing; missing > 30 || extra != 0 {
				t.Errorf("%d frames of sound are missing and %d too many", missing, extra)
			}
		})
	}
}

// torn makes recordings of a stream that lack something of it, at a part of it.
func torn(ts []byte, whole []*m4f.Segment) (damaged, begun, ended func(at float64) []*m4f.Segment) {
	packets := len(ts) / 188
	// damaged has all that whole has but for one packet of sound, at the given
	// part of the stream.
	damaged = func(at float64) []*m4f.Segment {
		k := int(at * float64(packets))
		for ; ; k++ {
			if p := ts[k*188:]; (int(p[1]&0x1F)<<8 | int(p[2])) == 0x101 {
				break
			}
		}
		return record(slices.Concat(ts[:k*188], ts[(k+1)*188:]), 8*second)
	}
	// begun and ended have a part of the stream without loss.
	begun = func(at float64) []*m4f.Segment {
		return redate(whole, record(ts[int(at*float64(packets))*188:], 8*second))
	}
	ended = func(at float64) []*m4f.Segment { // between two pictures
		k := int(at * float64(packets))
		for ts[k*188+1]&0x40 == 0 || int(ts[k*188+1]&0x1F)<<8|int(ts[k*188+2]) != 0x100 {
			k++
		}
		return record(ts[:k*188], 8*second)
	}
	return damaged, begun, ended
}

// redate gives segments the UTC that their media time has in others.
func redate(as, segs []*m4f.Segment) []*m4f.Segment {
	for _, s := range segs {
		s.Header.UTC = as[0].Header.UTC.Add(m4f.Diff33(s.Header.MediaTime, as[0].Header.MediaTime))
	}
	return segs
}

func TestSpan(t *testing.T) {
	segs := record(testkit.Stream(t, testsrc.Options{StartPTS: 4 * m4f.Timescale, Duration: 24 * second}), 4*second)
	m := newMemory(segs...)
	at := func(sec float64) m4f.UTC { return start.Add(int64(sec * m4f.Timescale)) }
	for _, c := range []struct {
		name     string
		from, to m4f.UTC
		first, n uint64
		gaps     int
	}{
		{"everything", 0, 0, 0, 600, 0},
		{"to the segment", at(4), at(12), 100, 200, 0},
		{"some milliseconds off", at(4.02), at(11.99), 100, 200, 0},
		{"the other way", at(3.98), at(12.02), 100, 200, 0},
		{"inside", at(5), at(6), 100, 100, 0},
		{"over a boundary", at(7), at(9), 100, 200, 0},
		{"from before the beginning", at(-100), at(4), 0, 100, 0},
		{"to after the end", at(20), at(100), 500, 100, 0},
		{"open start", 0, at(8), 0, 200, 0},
		{"open end", at(16), 0, 400, 200, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			tracks := bothFormats(t, m, Options{From: c.from, To: c.to})
			checkUnbroken(t, tracks, c.first, c.n)
			if _, res := exportBytes(t, m, Options{From: c.from, To: c.to}); len(res.Gaps) != c.gaps {
				t.Errorf("gaps %v", res.Gaps)
			}
		})
	}
	t.Run("gaps at the ends", func(t *testing.T) {
		m := newMemory(segs[0], segs[2], segs[5])
		_, res := exportBytes(t, m, Options{From: at(5), To: at(18)})
		if want := []Gap{{at(5), at(8)}, {at(12), at(18)}}; !slices.Equal(res.Gaps, want) || res.Segments != 1 {
			t.Errorf("%d segments, gaps %v, want 1 and %v", res.Segments, res.Gaps, want)
		}
	})
	t.Run("nothing", func(t *testing.T) {
		for _, opt := range []Options{{From: at(100), To: at(200)}, {To: at(-5)}} {
			var buf bytes.Buffer
			if _, err := Export(context.Background(), m, &buf, opt); !errors.Is(err, ErrEmpty) || buf.Len() != 0 {
				t.Errorf("%v and %d bytes, want ErrEmpty and none", err, buf.Len())
			}
		}
		if _, err := Export(context.Background(), newMemory(), io.Discard, Options{}); !errors.Is(err, ErrEmpty) {
			t.Errorf("empty archive: %v", err)
		}
	})
}

func TestDamageIsCounted(t *testing.T) {
	segs := record(testkit.Stream(t, testsrc.Options{StartPTS: 4 * m4f.Timescale, Duration: 16 * second}), 4*second)
	m := newMemory()
	for i, s := range segs {
		h := s.Header
		if i == 1 || i == 2 {
			h.Flags |= m4f.Damaged
		}
		m.add(s, h)
	}
	if _, res := exportBytes(t, m, Options{}); res.Damaged != 2 || len(res.Gaps) != 0 || res.Duration != 16*second {
		t.Errorf("%+v", res)
	}
}

// faulty fails to read after some segments.
type faulty struct {
	*memory
	after int
	err   error
}

func (f *faulty) ReadElement(e *archive.Element) (*m4f.Segment, error) {
	if f.after--; f.after < 0 {
		return nil, f.err
	}
	return f.memory.ReadElement(e)
}

type fullWriter struct{ n int }

func (w *fullWriter) Write(b []byte) (int, error) {
	if w.n -= len(b); w.n < 0 {
		return 0, io.ErrShortWrite
	}
	return len(b), nil
}

func TestErrorsEndTheExport(t *testing.T) {
	segs := record(testkit.Stream(t, testsrc.Options{StartPTS: 4 * m4f.Timescale, Duration: 16 * second}), 4*second)
	gone := errors.New("the disk is gone")
	for _, fast := range []bool{false, true} {
		for n := range 6 {
			_, err := Export(context.Background(), &faulty{newMemory(segs...), n, gone}, io.Discard, Options{Faststart: fast})
			if !errors.Is(err, gone) && n < 5 {
				t.Errorf("read %d fails: %v", n, err)
			}
		}
		if _, err := Export(context.Background(), newMemory(segs...), &fullWriter{300_000}, Options{Faststart: fast}); !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("a full disk: %v", err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		read := int64(0)
		opt := Options{Faststart: fast, Progress: func(n int64) { read += n; cancel() }}
		if _, err := Export(ctx, newMemory(segs...), io.Discard, opt); !errors.Is(err, context.Canceled) || read == 0 {
			t.Errorf("cancelled: %v after %d bytes", err, read)
		}
	}
}

func TestProgressAddsUp(t *testing.T) {
	segs := record(testkit.Stream(t, testsrc.Options{StartPTS: 4 * m4f.Timescale, Duration: 16 * second}), 4*second)
	for _, fast := range []bool{false, true} {
		total, read := int64(0), int64(0)
		exportBytes(t, newMemory(segs...), Options{Faststart: fast, Start: func(n int64) { total = n }, Progress: func(n int64) { read += n }})
		if read != total || total == 0 {
			t.Errorf("%d bytes read of %d", read, total)
		}
	}
}
