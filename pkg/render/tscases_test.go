package render

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/testkit"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

// later moves segments in UTC.
func later(segs []*m4f.Segment, d time.Duration) []*m4f.Segment {
	for _, s := range segs {
		s.Header.UTC = s.Header.UTC.Add(m4f.Ticks(d))
	}
	return segs
}

// TestTSStretches: wraps, gaps, new timelines, pauses and high rates flow through
// a decoder, keep their times, and are recorded again as they were.
func TestTSStretches(t *testing.T) {
	stream := func(from int64, d time.Duration) []*m4f.Segment {
		return record(testkit.Stream(t, testsrc.Options{StartPTS: from & (m4f.Wrap - 1), Duration: d}), 2*second)
	}
	for _, c := range []struct {
		name string
		segs []*m4f.Segment
		runs int
		gone int // segments that are not recorded again
	}{
		{"wrap", stream(-5*m4f.Timescale, 12*time.Second), 1, 0},
		// The last picture ahead of a gap does not last as long as the next
		// segment would have it.
		{"gap", slices.Delete(stream(90000, 16*time.Second), 3, 5), 2, 1},
		{"new timeline", append(stream(90000, 6*time.Second), later(stream(1<<31, 6*time.Second), 6*time.Second)...), 2, 0},
		{"back", append(stream(1<<31, 6*time.Second), later(stream(90000, 6*time.Second), 6*time.Second)...), 2, 0},
		{"restarts", record(testkit.Stream(t, testsrc.Options{StartPTS: 90000, Duration: 20 * second, RestartEvery: 5 * second}), 2*second), 4, 0},
		{"fast", record(testkit.Stream(t, testsrc.Options{StartPTS: 90000, Duration: 6 * second, Bitrate: 40_000_000}), 2*second), 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, res := exportBytes(t, newMemory(c.segs...), Options{Format: TS})
			s := readTS(t, b)
			tracks := stdTracks(t, c.segs)
			if c.name == "fast" { // more than the level of the clip allows
				for pid, x := range tracks {
					if x.codec.IsVideo() {
						x.model.Size, x.model.Rate = 0, 0
						tracks[pid] = x
					}
				}
			}
			r := s.decode(tracks)
			if !r.clean() || s.breaks > 0 || r.runs != c.runs {
				t.Errorf("%d clocks, want %d; %+v, %d counters broken\n%s", r.runs, c.runs, *r, s.breaks, strings.Join(r.notes, "\n"))
			}
			again := record(b, 2*second)
			var missing []int
			for i, s := range c.segs {
				if !slices.Contains(ids(again), s.Header.ID) {
					missing = append(missing, i)
				}
			}
			if len(missing) > c.gone {
				t.Errorf("segments %v of %d are not recorded again (%d are)", missing, len(c.segs), len(again))
			}
			if c, _ := exportBytes(t, newMemory(again...), Options{Format: TS}); !bytes.Equal(b, c) && len(res.Gaps) == 0 {
				t.Error("the export of an export differs")
			}
		})
	}
}

// TestTSDamaged: what loss has left of a stream comes out as it was recorded, and
// a decoder finds it in order.
func TestTSDamaged(t *testing.T) {
	ts := testkit.Stream(t, testsrc.Options{StartPTS: 90000, Duration: 12 * second})
	var lossy []byte
	for k := 0; k*188 < len(ts); k++ {
		if k%97 != 50 && (k < 3000 || k > 3020) {
			lossy = append(lossy, ts[k*188:k*188+188]...)
		}
	}
	segs := record(lossy, 2*second)
	b, res := exportBytes(t, newMemory(segs...), Options{Format: TS})
	if res.Damaged == 0 {
		t.Fatal("nothing is damaged")
	}
	s := readTS(t, b)
	if r := s.decode(stdTracks(t, segs)); !r.clean() || s.breaks > 0 {
		t.Errorf("%+v, %d counters broken\n%s", *r, s.breaks, strings.Join(r.notes, "\n"))
	}
	src, got := readTS(t, lossy), s
	whole := 0
	for pid, c := range map[uint16]m4f.Codec{0x100: m4f.CodecH264, 0x101: m4f.CodecAAC} {
		have := map[[32]byte]bool{}
		for _, p := range src.pieces(pid, c) {
			have[p.hash] = true
		}
		for _, p := range got.pieces(pid, c) {
			if have[p.hash] {
				whole++
			}
		}
	}
	if whole < 300 {
		t.Errorf("%d units of the source came through", whole)
	}
	// A decoder's damage is the same as before: the pieces that are recorded
	// again are those that were.
	x := record(b, 2*second)
	for i := range segs {
		if !slices.Contains(ids(x), segs[i].Header.ID) {
			t.Logf("segment %d is not recorded again", i)
		}
	}
}

// TestTSSpan: a span of an archive has the bytes of the same span elsewhere, and
// opens with tables, a clock and a keyframe.
func TestTSSpan(t *testing.T) {
	segs := record(testkit.Stream(t, testsrc.Options{StartPTS: 90000, Duration: 20 * second}), 2*second)
	whole := newMemory(segs...)
	opt := Options{Format: TS, From: segs[3].Header.UTC, To: segs[6].Header.UTC}
	b, _ := exportBytes(t, whole, opt)
	part := newMemory(segs[3:6]...)
	c, _ := exportBytes(t, part, Options{Format: TS})
	if !bytes.Equal(b, c) {
		t.Error("a span differs from an archive of nothing else")
	}
	s := readTS(t, b)
	if s.packets[0].pid != 0 || s.packets[1].pid != s.pmtPID || !s.packets[2].hasPCR {
		t.Errorf("it opens with PIDs %d, %d, %d", s.packets[0].pid, s.packets[1].pid, s.packets[2].pid)
	}
	for i, u := range s.pes[0x100] {
		if i == 0 && !u.key || u.key && i > 0 && u.pts == s.pes[0x100][0].pts {
			t.Errorf("picture %d: key %v", i, u.key)
		}
	}
}

// unverified hands out segments as they are.
type unverified struct {
	*memory
	seg *m4f.Segment
}

func (u unverified) ReadElement(e *archive.Element) (*m4f.Segment, error) {
	s := *u.seg
	s.Header = e.Header
	return &s, nil
}

var errLong = errors.New("long enough")

// limited is a writer that has enough at some time.
type limited struct{ left int }

func (l *limited) Write(b []byte) (int, error) {
	if l.left -= len(b); l.left < 0 {
		return 0, errLong
	}
	return len(b), nil
}

// FuzzTS: whatever a segment's boxes say, an export ends.
func FuzzTS(f *testing.F) {
	ts := testkit.Stream(f, testsrc.Options{StartPTS: 90000, Duration: 3 * second})
	for _, s := range record(ts[:len(ts)/8], second) {
		f.Add(s.Init, s.Media)
	}
	f.Fuzz(func(t *testing.T, init, media []byte) {
		i, err := m4f.ParseInit(init)
		if err != nil {
			return
		}
		if _, err := m4f.ParseFragment(i, media); err != nil {
			return
		}
		seg := &m4f.Segment{Init: init, Media: media, Header: m4f.Header{Init: m4f.Identify(init, nil), ID: m4f.Identify(init, media),
			MediaTime: 90000, UTC: start, Duration: 360000, Length: uint64(len(media)), Flags: m4f.Keyframe}}
		_, err = Export(context.Background(), unverified{newMemory(seg), seg}, &limited{1 << 21}, Options{Format: TS})
		if errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
	})
}
