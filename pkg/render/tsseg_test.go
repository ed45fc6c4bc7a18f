package render

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/testkit"
	"github.com/twindvr/twindvr/pkg/testsrc"
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
		if g, w := got.pieces(pid, c), want.pieces(pid, c); !slices.EqualFunc(g, w, func(a, b piece) bool {
			// Which frame of sound begins a PES packet is not told by the source.
			return a == b || a.hash == b.hash && c.IsAudio() && a.dated != b.dated
		}) {
			t.Errorf("PID %d (%s): %d units, an export has %d, or others", pid, c, len(g), len(w))
		}
	}
}

// TestTSSlots: slots that cut segments anywhere have each picture and each sound
// once, and go on from each other.
func TestTSSlots(t *testing.T) {
	segs := record(testkit.Stream(t, testsrc.Options{StartPTS: m4f.Wrap - 10*m4f.Timescale, Duration: 24 * second}), 4*second)
	a := stored(t, segs...)
	els, err := a.Span(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	plain, _ := exportBytes(t, bounded{a}, Options{Format: TS})
	first := int64(segs[0].Header.UTC) / ticksPerMS
	for _, length := range []int64{4000, 1700, 9000} {
		var all bytes.Buffer
		for at := first; at < first+24_000; at += length {
			cuts := Slot{at, at + length}.Cuts(els)
			if len(cuts) == 0 { // what is left of the end is in the one before
				continue
			}
			var b bytes.Buffer
			if err := WriteTS(context.Background(), a, &b, cuts); err != nil {
				t.Fatal(err)
			}
			if s := readTS(t, b.Bytes()); s.breaks > 0 || len(s.maps) == 0 || s.packets[0].pid != 0 {
				t.Fatalf("slot at %d ms: %d counters broken, %d maps, and the first packet has PID %d", at-first, s.breaks, len(s.maps), s.packets[0].pid)
			}
			checkTSSlot(t, a, cuts, b.Bytes())
			all.Write(b.Bytes())
		}
		checkTS(t, segs, all.Bytes(), plain)
	}
	if err := WriteTS(context.Background(), a, io.Discard, nil); !errors.Is(err, ErrEmpty) {
		t.Errorf("nothing: %v, want ErrEmpty", err)
	}
}

// checkTSSlot wants what is made piece by piece to have the length that was told and
// the units of a slot, and each part of it to be that part.
func checkTSSlot(t *testing.T, a *archive.Stream, cuts []Cut, slot []byte) {
	t.Helper()
	s, err := NewTSSlot(context.Background(), a, cuts)
	if err != nil {
		t.Fatal(err)
	}
	part := func(from, to int64) []byte {
		var b bytes.Buffer
		if err := s.WriteRange(context.Background(), &b, from, to); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	n := s.Size()
	all := part(0, n)
	if int64(len(all)) != n {
		t.Fatalf("%d bytes, %d were told", len(all), n)
	}
	for _, p := range [][2]int64{{0, 1}, {n / 3, n / 2}, {n - 1, n}, {n / 2, n}} {
		if !bytes.Equal(part(p[0], p[1]), all[p[0]:p[1]]) {
			t.Errorf("bytes %d to %d are others", p[0], p[1])
		}
	}
	got, want := readTS(t, all), readTS(t, slot)
	if got.breaks > 0 || len(got.pes) != len(want.pes) {
		t.Errorf("%d breaks, %d PIDs, want %d", got.breaks, len(got.pes), len(want.pes))
	}
	for pid, u := range want.pes {
		if !slices.EqualFunc(got.pes[pid], u, func(g, w tsPES) bool { return g.pts == w.pts && g.dts == w.dts && bytes.Equal(g.payload, w.payload) }) {
			t.Errorf("PID %d has %d units, want %d, or others", pid, len(got.pes[pid]), len(u))
		}
	}
}

// FuzzTSSegment: whatever a segment's boxes say, it has as many packets as were
// told before its samples were looked at.
func FuzzTSSegment(f *testing.F) {
	seeds := 0
	for _, opt := range []testsrc.Options{{StartPTS: 90000, Duration: 3 * second}, {StartPTS: m4f.Wrap - 90000, Duration: 3 * second}} {
		ts := testkit.Stream(f, opt)
		for _, s := range record(ts[:len(ts)/8/188*188], second) {
			f.Add(s.Init, s.Media)
			seeds++
		}
	}
	if seeds == 0 {
		f.Fatal("no seeds")
	}
	f.Fuzz(func(t *testing.T, init, media []byte) {
		if len(media) > 1<<20 {
			return
		}
		h := m4f.Header{Init: m4f.Identify(init, nil), ID: m4f.Identify(init, media), MediaTime: 90000, UTC: start, Duration: 360000, Length: uint64(len(media))}
		e := &archive.Element{Record: archive.Record{Header: h}, Parts: []archive.Part{{To: 360000}}}
		p := &plan{}
		m, err := p.know(e, init)
		if err != nil {
			return
		}
		p.tracks = mergeTracks([]*mapping{m})
		frag, err := m4f.ParseFragment(m.init, media)
		if err != nil || len(frag.Tracks) == 0 {
			return
		}
		c := &chunk{placed: &placed{Piece: archive.Piece{Element: e, Part: e.Parts[0]}}, media: media}
		if err := c.fill(m, frag); err != nil {
			return
		}
		seg, err := newTSPiece(p, c, true)
		if err != nil {
			t.Fatal(err)
		}
		n, err := seg.packets(c)
		if err != nil || n > 1<<16 {
			return
		}
		var b bytes.Buffer
		if err := seg.write(&b, c, media, n); err != nil || b.Len() != n*188 {
			t.Fatalf("%d bytes for %d packets (%v)", b.Len(), n, err)
		}
	})
}
