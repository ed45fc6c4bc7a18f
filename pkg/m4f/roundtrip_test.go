package m4f

import (
	"bytes"
	"math"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func drawHeader(t *rapid.T) Header {
	id := func(name string) (v Identity) {
		copy(v[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, name))
		return v
	}
	return Header{
		ID: id("id"), Init: id("init"),
		MediaTime: rapid.Int64Range(0, Wrap-1).Draw(t, "media time"),
		UTC:       UTC(rapid.Int64Range(-int64(maxUTC), int64(maxUTC)).Draw(t, "utc")),
		Duration:  rapid.Uint32().Draw(t, "duration"),
		Flags:     Flags(rapid.Uint16().Draw(t, "flags")) & allFlags,
		Lost:      rapid.Uint32().Draw(t, "lost"),
		Errored:   rapid.Uint32().Draw(t, "errored"),
		Length:    rapid.Uint64Range(1, MaxMedia).Draw(t, "length"),
	}
}

func TestHeaderBoxRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHeader(t)
		b := h.AppendBox([]byte("ahead"))
		if len(b) != 5+HeaderBoxSize || !IsHeaderBox(b[5:]) {
			t.Fatalf("box of %d bytes", len(b)-5)
		}
		got, err := ParseHeaderBox(b[5:])
		if err != nil || got != h {
			t.Fatalf("read back %+v, %v; want %+v", got, err, h)
		}
	})
}

// TestHeaderBoxSum: a box with any one bit turned is refused, and one that has no
// checksum is read.
func TestHeaderBoxSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHeader(t)
		b := h.AppendBox(nil)
		for bit := range 8 * len(b) {
			b[bit/8] ^= 1 << (bit % 8)
			if got, err := ParseHeaderBox(b); err == nil && got != h {
				t.Fatalf("bit %d turned: %+v was accepted for %+v", bit, got, h)
			}
			b[bit/8] ^= 1 << (bit % 8)
		}
		b[130], b[131] = 0, 0
		if got, err := ParseHeaderBox(b); err != nil || got != h {
			t.Fatalf("without a checksum: %+v, %v", got, err)
		}
	})
}

func TestHeaderBoxRefusals(t *testing.T) {
	h := Header{Length: 1, MediaTime: 5}
	good := h.AppendBox(nil)
	for _, c := range []struct {
		name string
		at   int
		to   byte
	}{
		{"size", 3, 131}, {"type", 4, 'x'}, {"uuid", 8, 0}, {"version", 24, 2}, {"reserved", 25, 1},
		{"media time", 92, 1}, {"utc", 100, 0x7F}, {"length 0", 115, 0}, {"length", 108, 1}, {"flags", 128, 0x80}, {"reserved", 131, 1},
	} {
		b := bytes.Clone(good)
		b[c.at] = c.to
		if _, err := ParseHeaderBox(b); err == nil {
			t.Errorf("%s: byte %d = %#x was accepted", c.name, c.at, c.to)
		}
	}
	for n := range good {
		if _, err := ParseHeaderBox(good[:n]); err == nil {
			t.Errorf("%d bytes of %d were accepted", n, len(good))
		}
	}
}

// drawSpec draws a segment with valid times and arbitrary contents.
func drawSpec(t *rapid.T) *SegmentSpec {
	bytesOf := func(name string, n int) []byte { return rapid.SliceOfN(rapid.Byte(), 0, n).Draw(t, name) }
	spec := &SegmentSpec{
		Header:             Header{MediaTime: rapid.Int64Range(0, Wrap-1).Draw(t, "media time"), Duration: 360000, Flags: Keyframe},
		TargetDuration:     rapid.Int64Range(1, math.MaxUint32).Draw(t, "D"),
		Program:            rapid.Uint16().Draw(t, "program"),
		PCRPID:             rapid.Uint16Range(0, 0x1FFF).Draw(t, "pcr"),
		ProgramDescriptors: bytesOf("program descriptors", 40),
	}
	for range rapid.IntRange(1, 5).Draw(t, "tracks") {
		c := TrackConfig{
			PID:         rapid.Uint16Range(0, 0x1FFF).Draw(t, "pid"),
			StreamType:  rapid.Byte().Draw(t, "stream type"),
			Descriptors: bytesOf("descriptors", 40),
			Codec:       Codec(rapid.Uint8Range(1, 9).Draw(t, "codec")),
		}
		switch {
		case c.Codec == CodecMPEG2Video:
			c.SequenceHeader = append([]byte{0, 0, 1, 0xB3}, bytesOf("sequence", 300)...)
		case c.Codec.IsVideo():
			nals := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 1, 60), 1, 3)
			c.SPS, c.PPS = nals.Draw(t, "sps"), nals.Draw(t, "pps")
			c.InBand = rapid.Bool().Draw(t, "in band")
			if c.Codec == CodecHEVC {
				c.VPS = nals.Draw(t, "vps")
			}
		case c.Codec.IsAudio():
			c.FrameHeader = bytesOf("frame header", 64)
		}
		tr := Track{Config: c}
		dts := spec.Header.MediaTime + rapid.Int64Range(-Wrap/2, Wrap/2-1).Draw(t, "dts")
		for range rapid.IntRange(0, 20).Draw(t, "samples") {
			s := Sample{
				DTS: dts, PTS: dts + rapid.Int64Range(-1000, 100000).Draw(t, "offset"),
				Duration: rapid.Uint32Range(0, 1<<20).Draw(t, "duration"),
				Sync:     !c.Codec.IsVideo() || rapid.Bool().Draw(t, "sync"),
				Data:     bytesOf("data", 100),
			}
			if n := uint32(len(s.Data)); c.Codec <= CodecHEVC && n > 0 {
				cut := rapid.Uint32Range(0, n).Draw(t, "cut")
				s.NALs = []Range{{0, cut}, {cut, n - cut}}
			}
			dts += int64(s.Duration)
			tr.Samples = append(tr.Samples, s)
		}
		spec.Tracks = append(spec.Tracks, tr)
	}
	return spec
}

// written is the sample as mdat holds it.
func written(s *Sample) []byte {
	if s.NALs == nil {
		return s.Data
	}
	var out []byte
	for _, r := range s.NALs {
		out = append(out, byte(r.Len>>24), byte(r.Len>>16), byte(r.Len>>8), byte(r.Len))
		out = append(out, s.Data[r.Off:r.Off+r.Len]...)
	}
	return out
}

// TestBuildParse: what ParseInit and ParseFragment say of a built segment is
// what it was built from.
func TestBuildParse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spec := drawSpec(t)
		seg, err := Build(spec)
		if err != nil {
			t.Fatal(err)
		}
		if err := seg.Verify(); err != nil {
			t.Fatal(err)
		}
		again, err := Build(spec)
		if err != nil || !reflect.DeepEqual(seg, again) {
			t.Fatal("a second build differs", err)
		}
		init, err := ParseInit(seg.Init)
		if err != nil {
			t.Fatal(err)
		}
		checkInit(t, spec, seg, init)
		f, err := ParseFragment(init, seg.Media)
		if err != nil {
			t.Fatal(err)
		}
		if f.Sequence != SequenceNumber(spec.Header.MediaTime) || f.Sequence == 0 {
			t.Errorf("sequence number %d", f.Sequence)
		}
		shift := wrapShift(spec)
		for i, tr := range f.Tracks {
			checkTrack(t, &spec.Tracks[i], tr, seg, spec.Header.MediaTime, shift)
		}
	})
}

func checkInit(t *rapid.T, spec *SegmentSpec, seg *Segment, init *Init) {
	if init.ID != seg.Header.Init || init.TargetDuration != spec.TargetDuration || init.Rules != RulesVersion ||
		init.Program != spec.Program || init.PCRPID != spec.PCRPID || !bytes.Equal(init.ProgramDescriptors, spec.ProgramDescriptors) ||
		len(init.Tracks) != len(spec.Tracks) {
		t.Fatalf("init segment reads back as %+v", init)
	}
	for i, got := range init.Tracks {
		want := spec.Tracks[i].Config
		if got.Config.PID != want.PID || got.Config.StreamType != want.StreamType || got.Config.Codec != want.Codec ||
			got.Config.InBand != want.InBand || !bytes.Equal(got.Config.Descriptors, want.Descriptors) ||
			!bytes.Equal(got.Config.SequenceHeader, want.SequenceHeader) ||
			!equalSets(got.Config.VPS, want.VPS) || !equalSets(got.Config.SPS, want.SPS) || !equalSets(got.Config.PPS, want.PPS) {
			t.Fatalf("track reads back as %+v, want %+v", got.Config, want)
		}
	}
}

func equalSets(a, b [][]byte) bool {
	return len(a) == len(b) && (len(a) == 0 || reflect.DeepEqual(a, b))
}

func checkTrack(t *rapid.T, want *Track, got FragmentTrack, seg *Segment, mediaTime, shift int64) {
	if len(got.Samples) != len(want.Samples) {
		t.Fatalf("%d samples, want %d", len(got.Samples), len(want.Samples))
	}
	if len(got.Samples) == 0 && got.Start != mediaTime+shift {
		t.Fatalf("empty track at %d, want %d", got.Start, mediaTime+shift)
	}
	for i := range got.Samples {
		g, w := &got.Samples[i], &want.Samples[i]
		if g.DTS != w.DTS+shift || g.PTS != w.PTS+shift || g.Duration != w.Duration || g.Sync != w.Sync {
			t.Fatalf("sample %d: %+v, want %+v and %d", i, g, w, shift)
		}
		if g.DTS < 0 {
			t.Fatalf("sample %d: DTS %d", i, g.DTS)
		}
		if !bytes.Equal(g.Data(seg.Media), written(w)) {
			t.Fatalf("sample %d: other bytes", i)
		}
	}
}

// TestDecodeTimesNeverGoBack: a track whose DTS steps back keeps its PTS.
func TestDecodeTimesNeverGoBack(t *testing.T) {
	spec := &SegmentSpec{
		Header: Header{MediaTime: 1000}, TargetDuration: 360000,
		Tracks: []Track{{TrackConfig{PID: 300, Codec: CodecData}, []Sample{
			{PTS: 5000, DTS: 5000, Sync: true, Data: []byte("a")},
			{PTS: 2000, DTS: 2000, Sync: true, Data: []byte("b")},
			{PTS: 6000, DTS: 6000, Sync: true, Data: []byte("c"), Duration: 10},
		}}},
	}
	seg, err := Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	init, err := ParseInit(seg.Init)
	if err != nil {
		t.Fatal(err)
	}
	f, err := ParseFragment(init, seg.Media)
	if err != nil {
		t.Fatal(err)
	}
	var got [][2]int64
	for _, s := range f.Tracks[0].Samples {
		got = append(got, [2]int64{s.DTS, s.PTS})
	}
	if want := [][2]int64{{5000, 5000}, {5000, 2000}, {6000, 6000}}; !reflect.DeepEqual(got, want) {
		t.Errorf("DTS, PTS %v, want %v", got, want)
	}
	if end := f.Tracks[0].End(); end != 6010 {
		t.Errorf("end %d, want 6010", end)
	}
}

// TestWrap: across the 33-bit wrap decode times stay unbroken inside a segment.
func TestWrap(t *testing.T) {
	for _, base := range []int64{0, Wrap - 2*frameTicks, Wrap - 1, Wrap - 10*frameTicks} {
		for i, seg := range buildClip(t, CodecH264, CodecAAC, base) {
			init, err := ParseInit(seg.Init)
			if err != nil {
				t.Fatal(err)
			}
			f, err := ParseFragment(init, seg.Media)
			if err != nil {
				t.Fatal(err)
			}
			open := f.Tracks[0].Samples[0].PTS
			if open&(Wrap-1) != seg.Header.MediaTime {
				t.Errorf("base %d, segment %d: opens at %d, media time %d", base, i, open, seg.Header.MediaTime)
			}
			for _, tr := range f.Tracks {
				if d := tr.Start - open; d < -Timescale || d > Timescale {
					t.Errorf("base %d, segment %d: a track starts %d ticks from the opening", base, i, d)
				}
			}
		}
	}
}

func TestSequenceNumber(t *testing.T) {
	last := uint32(0)
	for _, at := range []int64{0, 4, 90000, Wrap / 2, Wrap - 4, Wrap - 1} {
		n := SequenceNumber(at)
		if n == 0 || n < last {
			t.Errorf("media time %d: sequence number %d after %d", at, n, last)
		}
		last = n
	}
}

func TestBuildRefuses(t *testing.T) {
	ok := func() *SegmentSpec {
		return &SegmentSpec{TargetDuration: 1, Tracks: []Track{{Config: TrackConfig{Codec: CodecData}}}}
	}
	if _, err := Build(ok()); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*SegmentSpec){
		"media time":   func(s *SegmentSpec) { s.Header.MediaTime = Wrap },
		"negative":     func(s *SegmentSpec) { s.Header.MediaTime = -1 },
		"no track":     func(s *SegmentSpec) { s.Tracks = nil },
		"tracks":       func(s *SegmentSpec) { s.Tracks = make([]Track, MaxTracks+1) },
		"D":            func(s *SegmentSpec) { s.TargetDuration = 0 },
		"codec":        func(s *SegmentSpec) { s.Tracks[0].Config.Codec = 0 },
		"utc":          func(s *SegmentSpec) { s.Header.UTC = math.MaxInt64 },
		"large":        func(s *SegmentSpec) { s.Tracks[0].Samples = []Sample{{Data: make([]byte, MaxMedia)}} },
		"large init":   func(s *SegmentSpec) { s.Tracks[0].Config.Descriptors = make([]byte, MaxInit) },
		"far from now": func(s *SegmentSpec) { s.Tracks[0].Samples = []Sample{{DTS: -3 * Wrap}} },
	} {
		s := ok()
		change(s)
		if _, err := Build(s); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestUTC(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u := UTC(rapid.Int64Range(-int64(maxUTC), int64(maxUTC)).Draw(t, "u"))
		if got := UTCOf(u.Time()); got != u {
			t.Fatalf("%d → %s → %d", u, u.Time(), got)
		}
	})
	if u := UTCOf(time.Unix(10, 500_000_000)); u != 10*Timescale+Timescale/2 {
		t.Errorf("10.5 s is %d ticks", u)
	}
}
