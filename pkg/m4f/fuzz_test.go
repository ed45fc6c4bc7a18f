package m4f

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

var update = flag.Bool("update", false, "write golden files and fuzz seeds")

// fuzzSeeds are real inputs for each fuzz target.
func fuzzSeeds(t testing.TB) map[string][][]byte {
	seeds := map[string][][]byte{}
	add := func(target string, b []byte) { seeds[target] = append(seeds[target], b) }
	for _, c := range [][2]Codec{
		{CodecH264, CodecAAC}, {CodecHEVC, CodecMPEGAudio}, {CodecMPEG2Video, CodecAC3}, {CodecH264, CodecEAC3},
	} {
		specs := shortSpecs(t, c[0], c[1], Wrap-Timescale/2)
		segs := buildAll(t, specs)
		for _, seg := range segs {
			add("FuzzParseFragment", seg.Media)
			add("FuzzParseHeaderBox", seg.Header.AppendBox(nil))
		}
		add("FuzzReader", stream(t, segs))
		add("FuzzParseInit", segs[0].Init)
		vc := specs[0].Tracks[0].Config
		for _, b := range append(append(vc.SPS, vc.SequenceHeader), specs[0].Tracks[1].Config.FrameHeader) {
			if len(b) > 0 {
				add("FuzzConfig", b)
			}
		}
	}
	dts := append(append(bytes.Clone(genericDTS), make([]byte, 1008)...), dtsSubstreamXLL(1, 0)...)
	asc := []byte{0xEB, 0x09, 0x88, 0}
	opus := []byte{0x7F, 7, 0x80, 0x81, 4, 0xFF, 0xC0, 0x29, 0x80}
	for _, b := range [][]byte{dts, dtsSubstreamXLL(0, dtsCore|dtsExtXBR), asc, opus} {
		add("FuzzConfig", b)
	}
	spec := &SegmentSpec{TargetDuration: 1}
	for c, h := range map[Codec][]byte{CodecLATM: asc, CodecDTS: dts[:64], CodecOpus: nil, CodecALaw: nil, CodecMuLaw: {2, 0, 0, 0x3E, 0x80}} {
		spec.Tracks = append(spec.Tracks, Track{Config: TrackConfig{PID: uint16(c), Codec: c, FrameHeader: h, Descriptors: opus}})
	}
	slices.SortFunc(spec.Tracks, func(a, b Track) int { return int(a.Config.PID) - int(b.Config.PID) })
	add("FuzzParseInit", buildAll(t, []*SegmentSpec{spec})[0].Init)
	return seeds
}

func seedFile(target string, i int) string {
	return filepath.Join("testdata", "fuzz", target, fmt.Sprintf("seed-%02d", i))
}

// TestSeeds: every fuzz target has seeds on disk, and they are those that the
// clips give.
func TestSeeds(t *testing.T) {
	for target, seeds := range fuzzSeeds(t) {
		for i, b := range seeds {
			want := []byte("go test fuzz v1\n[]byte(" + strconv.Quote(string(b)) + ")\n")
			name := seedFile(target, i)
			if *update {
				if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, want, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := os.ReadFile(name)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s is not what the clips give (%v): run with -update", name, err)
			}
		}
	}
	for _, target := range []string{"FuzzReader", "FuzzParseInit", "FuzzParseFragment", "FuzzParseHeaderBox", "FuzzConfig"} {
		files, err := filepath.Glob(filepath.Join("testdata", "fuzz", target, "*"))
		if err != nil || len(files) == 0 {
			t.Errorf("%s has no seeds (%v)", target, err)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b))
		last := int64(0)
		for {
			s, err := r.Next()
			if err != nil {
				return
			}
			if s.Verify() != nil || r.Offset() <= last || r.Offset() > int64(len(b)) {
				t.Fatalf("segment %+v ends at %d of %d: %v", s.Header, r.Offset(), len(b), s.Verify())
			}
			last = r.Offset()
			if init, err := ParseInit(s.Init); err == nil {
				_, _ = ParseFragment(init, s.Media)
			}
		}
	})
}

func FuzzParseInit(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		init, err := ParseInit(b)
		if err == nil && (len(init.Tracks) == 0 || len(init.Tracks) > MaxTracks || init.TargetDuration <= 0) {
			t.Fatalf("%+v", init)
		}
	})
}

func FuzzParseFragment(f *testing.F) {
	inits := []*Init{{}, {Tracks: make([]TrackInfo, 1)}, {Tracks: make([]TrackInfo, 4)}}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, init := range inits {
			frag, err := ParseFragment(init, b)
			if err != nil {
				continue
			}
			if len(frag.Tracks) != len(init.Tracks) {
				t.Fatal("other tracks")
			}
			for _, tr := range frag.Tracks {
				for i := range tr.Samples {
					_ = tr.Samples[i].Data(b)
				}
			}
		}
	})
}

func FuzzParseHeaderBox(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeaderBox(b)
		if err != nil {
			return
		}
		again := h.AppendBox(nil)
		if b[130]|b[131] == 0 { // an earlier version's, without a checksum
			again[130], again[131] = 0, 0
		}
		if !bytes.Equal(again, b[:HeaderBoxSize]) {
			t.Fatalf("%+v is written otherwise than read", h)
		}
	})
}

// FuzzConfig gives hostile sequence headers and frame headers to every codec.
// Whatever they are, the segment is built and reads back.
func FuzzConfig(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		spec := &SegmentSpec{TargetDuration: 1}
		for c := CodecH264; c <= CodecMuLaw; c++ {
			spec.Tracks = append(spec.Tracks, Track{
				Config: TrackConfig{
					Codec: c, Descriptors: b[:min(len(b), 1023)], VPS: [][]byte{b}, SPS: [][]byte{b}, PPS: [][]byte{b},
					SequenceHeader: b, FrameHeader: b[:min(64, len(b))],
				},
				Samples: []Sample{{Data: b, Sync: true}},
			})
		}
		seg, err := Build(spec)
		if len(b) > 100_000 {
			return // may not fit an init segment
		}
		if err != nil {
			t.Fatal(err)
		}
		init, err := ParseInit(seg.Init)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseFragment(init, seg.Media); err != nil {
			t.Fatal(err)
		}
	})
}
