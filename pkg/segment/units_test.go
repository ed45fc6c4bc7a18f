package segment_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
	"github.com/twindvr/twindvr/pkg/segment"
)

// delivery is what a source of access units delivers: one of three things.
type delivery struct {
	program *mpegts.Program
	unit    mpegts.Unit
	lost    int // units missing; of every track where pid is 0
	pid     uint16
}

// feeder turns a transport stream into a feed.
type feeder struct {
	feed    []delivery
	undated bool // there is data without a time, or dated wildly
	lastDTS int64
	pending []mpegts.Loss // whose place among the units is not known yet
	maps    []int         // where in feed the maps are
	again   bool          // a loss is to be told again behind the next picture
	doubted bool          // a map came behind a loss, which units do not know
	since   int64         // packet that the last one came with
}

func (f *feeder) Program(p *mpegts.Program, pkt int64, afterLoss bool) {
	f.doubted = f.doubted || afterLoss
	f.maps, f.since = append(f.maps, len(f.feed)), pkt
	f.feed = append(f.feed, delivery{program: p})
}

func (f *feeder) VideoHeader(_ *mpegts.Track, dts, _ int64) { f.lastDTS = dts }

func (f *feeder) Unit(u *mpegts.Unit) {
	one := *u
	switch {
	case u.NALs != nil:
		var nals [][]byte
		for _, r := range u.NALs {
			nals = append(nals, u.Data[r.Off:r.Off+r.Len])
		}
		one, _ = mpegts.NewPicture(u.Track, u.PTS, u.DTS, nals)
	case u.Track.Kind == mpegts.Audio:
		one = mpegts.NewFrame(u.Track, u.PTS, u.Duration, bytes.Clone(u.Header), bytes.Clone(u.Data))
		one.Codec = u.Codec
	default:
		one = mpegts.Unit{Track: u.Track, PTS: u.PTS, DTS: u.DTS, Dated: u.Dated, Codec: u.Codec, Key: u.Key, Data: bytes.Clone(u.Data), Header: bytes.Clone(u.Header)}
		if d := m4f.Diff33(u.PTS, f.lastDTS); u.Track.Kind == mpegts.Data && (!u.Dated || d > 4*m4f.Timescale || d < -4*m4f.Timescale) {
			f.undated = true
		}
	}
	one.Marked = u.Marked
	e := delivery{unit: one}
	if n := len(f.maps); n > 1 && u.First < f.since {
		// Begun before the map that came while it was received.
		at := f.maps[n-1]
		if t := f.feed[f.maps[n-2]].program.Track(u.Track.PID); t != nil && !slices.ContainsFunc(f.pending, func(l mpegts.Loss) bool { return l.Track.PID == t.PID }) {
			e.unit.Track = t
			f.feed = slices.Insert(f.feed, at, e)
			f.maps[n-1]++
			u.Release()
			return
		}
	}
	// A unit that a loss has cut short comes ahead of it.
	cut := func(l mpegts.Loss) bool { return l.Track.PID == u.Track.PID && u.PES <= l.PES }
	if slices.ContainsFunc(f.pending, cut) {
		f.feed = append(f.feed, e)
		f.place(u.Track.PID)
	} else {
		f.place(u.Track.PID)
		f.feed = append(f.feed, e)
	}
	if f.again && u.Track.Kind == mpegts.Video {
		f.feed, f.again = append(f.feed, delivery{lost: 1}), false
	}
	u.Release()
}

// place puts the pending losses of a track here.
func (f *feeder) place(pid uint16) {
	f.pending = slices.DeleteFunc(f.pending, func(l mpegts.Loss) bool {
		if l.Track.PID == pid {
			f.feed = append(f.feed, delivery{lost: max(l.Lost, 1), pid: pid})
		}
		return l.Track.PID == pid
	})
}

func (f *feeder) Loss(l mpegts.Loss) {
	if l.Track != nil {
		f.pending = append(f.pending, l)
		return
	}
	// A picture that has been received by then is handed out only after it.
	f.feed = append(f.feed, delivery{lost: max(l.Lost, 1)})
	f.again = true
}

func feedOf(ts []byte) *feeder {
	f := &feeder{}
	d := mpegts.NewDemuxer(0, f)
	d.Write(ts)
	d.Close()
	return f
}

// runFeed segments a feed. It uses none of its memory.
func runFeed(feed []delivery, d time.Duration) ([]*m4f.Segment, *segmenter) {
	var out []*m4f.Segment
	s := segment.New(segment.Config{TargetDuration: m4f.Ticks(d), Clock: clock.System, Unpaced: true, Start: 1},
		func(seg *m4f.Segment) { out = append(out, seg) })
	for _, e := range feed {
		switch {
		case e.program != nil:
			s.SetProgram(e.program)
		case e.lost > 0:
			s.LostUnits(e.pid, e.lost)
		default:
			u := e.unit
			s.WriteUnit(&u, time.Unix(1, 0))
		}
	}
	s.Close()
	return out, s
}

// frame is a sample of a track of segments.
type sampleOf struct {
	dts  int64
	data string
}

// samplesOf returns the samples of each PID, those of data by their bytes
// alone where they have no time of their own.
func samplesOf(t *testing.T, segs []*m4f.Segment, times bool) map[uint16][]sampleOf {
	all := map[uint16][]sampleOf{}
	for _, s := range segs {
		init, err := m4f.ParseInit(s.Init)
		if err != nil {
			t.Fatal(err)
		}
		frag, err := m4f.ParseFragment(init, s.Media)
		if err != nil {
			t.Fatal(err)
		}
		for k := range init.Tracks {
			c := &init.Tracks[k].Config
			for _, x := range frag.Tracks[k].Samples {
				one := sampleOf{x.DTS, string(x.Data(s.Media))}
				if !times && c.Codec.IsData() {
					one.dts = 0
				}
				all[c.PID] = append(all[c.PID], one)
			}
		}
	}
	return all
}

// TestUnitsAreBytes wants the segments of a transport stream to be the same
// when it comes as access units: byte for byte, but where data without a time
// takes that of a picture whose header a demultiplexer has read before its end.
func TestUnitsAreBytes(t *testing.T) {
	for _, path := range corpus(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			ts := read(t, path)
			for _, d := range []time.Duration{time.Second, 4 * time.Second} {
				want, _ := run(ts, d, 0, len(ts)/packet, nil)
				f := feedOf(ts)
				got, _ := runFeed(f.feed, d)
				if err := sameSegments(t, got, want, !f.undated, !f.doubted); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// sameSegments wants segments of units to be those of bytes.
// sameSegments compares the segments of units with those of bytes. Where a
// source pauses, the header of the next picture comes earlier than the picture,
// and what is flagged for the pause may reach further: flags says to compare it.
func sameSegments(t *testing.T, got, want []*m4f.Segment, identical, flags bool) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d segments of units, %d of bytes", len(got), len(want))
	}
	same := 0
	for k := range got {
		g, w := got[k].Header, want[k].Header
		if g.ID == w.ID {
			same++
		}
		if identical && g.ID != w.ID || g.MediaTime != w.MediaTime || g.Duration != w.Duration || flags && w.Damaged() && !g.Damaged() || g.Partial() != w.Partial() {
			return fmt.Errorf("segment %d: %s of units, %s of bytes", k, describe(got[k]), describe(want[k]))
		}
	}
	g, w := samplesOf(t, got, identical), samplesOf(t, want, identical)
	for pid := range w {
		if pid == 0x200 && !identical {
			// Data ahead of the first picture has none to be dated by.
			byData := func(a, b sampleOf) int { return strings.Compare(a.data, b.data) }
			slices.SortFunc(g[pid], byData)
			slices.SortFunc(w[pid], byData)
			w[pid] = slices.DeleteFunc(w[pid], func(x sampleOf) bool {
				_, ok := slices.BinarySearchFunc(g[pid], x, byData)
				return !ok && len(g[pid]) > len(w[pid])-3
			})
		}
		if !slices.Equal(g[pid], w[pid]) {
			return fmt.Errorf("PID %d: %d samples of units, %d of bytes, not the same", pid, len(g[pid]), len(w[pid]))
		}
	}
	t.Logf("%d segments, %d byte for byte", len(got), same)
	return nil
}

// TestUnitsAreBytesRandom is the same for made-up streams.
func TestUnitsAreBytesRandom(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64Range(0, 1000).Draw(rt, "stream"), 77))
		ts := randomStream(rng)
		f := feedOf(ts)
		want, _ := run(ts, time.Second, 0, len(ts)/packet, nil)
		got, _ := runFeed(f.feed, time.Second)
		if err := sameSegments(t, got, want, !f.undated, false); err != nil {
			rt.Fatal(err)
		}
	})
}

// TestUnitTwins joins a feed of units at any place, and loses units of it: what
// is whole and clean is what a recorder of all of it has.
func TestUnitTwins(t *testing.T) {
	compared, clean := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64Range(0, 1000).Draw(rt, "stream"), 77))
		f := feedOf(randomStream(rng))
		d := rapid.SampledFrom([]time.Duration{500 * time.Millisecond, time.Second, 4 * time.Second}).Draw(rt, "D")
		full, _ := runFeed(f.feed, d)
		ids := identities(full)
		at := rapid.IntRange(0, len(f.feed)-1).Draw(rt, "join")
		joined, _ := runFeed(from(f.feed, at), d)
		for _, s := range joined {
			if !s.Header.Partial() {
				if compared++; !ids[s.Header.ID] {
					rt.Fatalf("joined at %d of %d: %s is whole and differs", at, len(f.feed), describe(s))
				}
			}
		}
		// Where times jump, what is lost beside the jump is not always told from
		// what lies on either side of it: a known limit.
		if slices.ContainsFunc(full, func(s *m4f.Segment) bool { return s.Header.Flags&m4f.Discontinuity != 0 }) {
			return
		}
		known := rapid.Bool().Draw(rt, "it is known of which track")
		lossy, _ := runFeed(from(lose(f.feed, rng, rapid.IntRange(1, 30).Draw(rt, "losses"), known), at/4), d)
		for _, s := range lossy {
			if s.Header.Clean() {
				if clean++; !ids[s.Header.ID] {
					rt.Fatalf("with losses: %s is called clean and differs", describe(s))
				}
			}
		}
	})
	t.Logf("%d whole segments compared, %d clean ones beside losses", compared, clean)
	if compared == 0 || clean == 0 {
		t.Error("nothing compared")
	}
}

// from is what a recorder hears that joins at a place: the map in force, and
// what comes.
func from(all []delivery, at int) []delivery {
	for k := at; k >= 0; k-- {
		if all[k].program != nil {
			return append([]delivery{all[k]}, all[at:]...)
		}
	}
	return all[at:]
}

// lose leaves out units, a few in a row, and says so; of pictures it may cut
// one short instead.
func lose(all []delivery, rng *rand.Rand, n int, known bool) []delivery {
	gone := map[int]bool{}
	for range n {
		at, run := rng.IntN(len(all)), 1+rng.IntN(20)
		if known {
			run = 1
		}
		for k := at; k < min(at+run, len(all)); k++ {
			// The time of data that is lost is not known.
			gone[k] = all[k].program == nil && all[k].unit.Track.Kind != mpegts.Data
		}
	}
	var out []delivery
	for k, e := range all {
		if !gone[k] {
			out = append(out, e)
			continue
		}
		l := delivery{lost: 1}
		if known {
			l.pid = e.unit.Track.PID
		}
		out = append(out, l)
		if u := e.unit; u.NALs != nil && rng.IntN(2) == 0 {
			// What is left of a picture of which its first packets are lost.
			var nals [][]byte
			for _, r := range u.NALs[rng.IntN(len(u.NALs)):] {
				nals = append(nals, u.Data[r.Off:r.Off+r.Len])
			}
			if torn, ok := mpegts.NewPicture(u.Track, u.PTS, u.DTS, nals); ok {
				torn.Marked = true
				out = append(out, delivery{unit: torn})
			}
		}
	}
	return out
}

// TestUnitsOfOthers has units that are none of the program's, or have no time,
// passed over, and says why nothing could be recorded.
func TestUnitsOfOthers(t *testing.T) {
	p := mpegts.NewProgram(1, 0x100, []mpegts.Track{{PID: 0x100, StreamType: 0x1b, Codec: m4f.CodecH264}})
	other := &mpegts.Track{PID: 0x101, Codec: m4f.CodecAAC, Kind: mpegts.Audio}
	var out []*m4f.Segment
	s := segment.New(segment.Config{}, func(seg *m4f.Segment) { out = append(out, seg) })
	key := func(pts int64) *mpegts.Unit {
		u, ok := mpegts.NewPicture(p.Track(0x100), pts, pts, [][]byte{{0x67, 0x42, 0xc0, 0x1e, 0xda, 2, 0x80, 0xbf, 0xe5, 0xc0, 0x44}, {0x68, 0xce, 0x3c, 0x80}, {0x65, 0x88, 0x5a}, {}, {0}})
		if !ok || !u.Key || !u.Sets || len(u.NALs) != 3 {
			t.Fatalf("a keyframe is not seen as one: %+v", u)
		}
		return &u
	}
	s.WriteUnit(key(1), time.Now()) // no program
	s.SetProgram(p)
	for name, u := range map[string]mpegts.Unit{
		"of no track":       {Dated: true},
		"of another track":  {Track: other, Dated: true},
		"without a time":    {Track: p.Track(0x100)},
		"without data":      {Track: p.Track(0x100), Dated: true, PTS: 3},
		"a picture, no key": {Track: p.Track(0x100), Dated: true, PTS: 4, DTS: 4, Data: []byte{0, 0, 1, 0x41}, NALs: []m4f.Range{{Off: 3, Len: 1}}},
	} {
		s.WriteUnit(&u, time.Now())
		if len(out) > 0 {
			t.Fatalf("a unit %s made a segment", name)
		}
	}
	if err := s.Diagnose(); err == nil {
		t.Error("nothing is said of what cannot be recorded")
	} else {
		t.Log(err)
	}
	for k := range int64(4) {
		s.WriteUnit(key(5*m4f.Timescale*(k+1)/2), time.Now())
	}
	if s.Close(); len(out) == 0 || s.Diagnose() != nil {
		t.Errorf("%d segments: %v", len(out), s.Diagnose())
	}
	fmt.Fprintln(t.Output(), len(out), "segments")
}
