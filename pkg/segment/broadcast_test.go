package segment_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/segment"
)

// twelvePrograms is twelve programs of pictures and sound.
func twelvePrograms(seconds int64) []byte {
	m := &mux{}
	var pairs []int
	for k := 1; k <= 12; k++ {
		pairs = append(pairs, k, 0x1000+k)
	}
	for n := range 25 * seconds {
		if n%5 == 0 {
			m.section(0, pat(0, pairs...))
		}
		for k := 1; k <= 12; k++ {
			if n%5 == 0 {
				m.section(0x1000+k, pmt(k, 0, es{16 * k, 0x1b, nil}, es{16*k + 1, 0x03, nil}))
			}
			at := 90000*int64(k) + 3600*n
			m.packets(16*k, pes(0xe0, at, at, 0, append(avc(n%25 == 0, 900), byte(k), byte(n))))
			for a := (3600*n + 2159) / 2160 * 2160; a < 3600*(n+1); a += 2160 {
				m.packets(16*k+1, pes(0xc0, 90000*int64(k)+a, 90000*int64(k)+a, -1, mp2()))
			}
		}
	}
	return m.out
}

func program(ts []byte, number uint16) ([]*m4f.Segment, segment.Stats) {
	var out []*m4f.Segment
	s := segment.New(segment.Config{TargetDuration: m4f.Timescale, Program: number, Unpaced: true, Start: 1}, func(seg *m4f.Segment) { out = append(out, seg) })
	s.Write(ts)
	s.Close()
	return out, s.Stats()
}

// Of a multiplex, a program's segments are damaged by what is missing of it and
// of the PAT alone: not by lost, broken or scrambled packets of other programs,
// nor by a packet of theirs that is none any more.
func TestTwelvePrograms(t *testing.T) {
	ts := twelvePrograms(6)
	const hurt = 5
	n := 0
	bad := each(ts, func(_ int, p []byte) bool {
		pid := pidOf(p)
		if pid != 16*hurt && pid != 16*hurt+1 && pid != 0x1000+hurt {
			return true
		}
		switch n++; {
		case n < 40:
		case n%11 == 0:
			return false
		case n%13 == 0:
			p[1] |= 0x80
		case n%17 == 0:
			p[3] |= 0x80
		case n%101 == 0:
			p[0] = 0x46
		}
		return true
	})
	for number := uint16(1); number <= 12; number++ {
		want, _ := program(ts, number)
		got, st := program(bad, number)
		if number == hurt {
			damaged := 0
			for _, s := range got {
				if s.Header.Damaged() {
					damaged++
				}
			}
			if damaged < 5 || st.Lost == 0 || st.Errored == 0 || st.Scrambled == 0 {
				t.Errorf("program %d: %d of %d segments damaged, %+v", number, damaged, len(got), st.Stats)
			}
			continue
		}
		if len(want) < 6 || len(got) != len(want) || st.Lost+st.Errored+st.Scrambled+st.Damaged != 0 {
			t.Fatalf("program %d: %d segments, want %d; %+v, %d damaged", number, len(got), len(want), st.Stats, st.Damaged)
		}
		for k := range got {
			if got[k].Header.ID != want[k].Header.ID {
				t.Errorf("program %d: segment %d differs: %s", number, k, describe(got[k]))
			}
		}
	}
	// A lost PAT is every program's.
	pats := 0
	for _, number := range []uint16{1, 12} {
		pats = 0
		_, st := program(each(ts, func(_ int, p []byte) bool {
			if pidOf(p) == 0 {
				pats++
			}
			return pidOf(p) != 0 || pats != 9
		}), number)
		if st.Damaged == 0 {
			t.Errorf("program %d: nothing damaged by a lost PAT", number)
		}
	}
}

// A stream of 100 Mbit/s is segmented in bounded memory.
func TestHundredMegabits(t *testing.T) {
	seconds := 12
	if testing.Short() || less > 1 {
		seconds = 3
	}
	noise := bytes.Repeat([]byte{0xa5, 0x5a, 0x3c}, 165_000) // 495 kB a picture
	start := time.Now()
	size := 0
	headers, most, st := feed(t, 4*time.Second, 25*seconds, func(m *mux, k int64) {
		m.packets(0x100, pes(0xe0, 3600*k, 3600*k, 0, append(avc(k%25 == 0, 0), noise...)))
		for a := (3600*k + 2159) / 2160 * 2160; a < 3600*(k+1); a += 2160 {
			m.packets(0x101, pes(0xc0, a, a, -1, mp2()))
		}
		size += len(m.out)
	})
	took := time.Since(start)
	t.Logf("%d segments of %.0f Mbit/s, %d MiB in use at most, %.0f Mbit/s with the making of it", len(headers),
		float64(size)*8/1e6/float64(seconds), most>>20, float64(size)*8/1e6/took.Seconds())
	// What is open, what waits, the segment being built.
	if most > 256<<20 || st.Damaged != 0 {
		t.Errorf("%d MiB in use, %d segments damaged", most>>20, st.Damaged)
	}
	var sum int64
	for _, h := range headers {
		sum += int64(h.Duration)
	}
	if want := int64(seconds) * m4f.Timescale; sum != want {
		t.Errorf("segments of %d ticks, want %d", sum, want)
	}
}

// bits writes bits, and unsigned Exp-Golomb codes of H.264.
type bits struct {
	b []byte
	n int
}

func (w *bits) u(n int, v uint32) *bits {
	for n--; n >= 0; n-- {
		if w.n%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[len(w.b)-1] |= byte(v>>n&1) << (7 - w.n%8)
		w.n++
	}
	return w
}

func (w *bits) ue(v uint32) *bits {
	n := 0
	for (v+1)>>n > 1 {
		n++
	}
	return w.u(n, 0).u(n+1, v+1)
}

// nal ends a NAL unit: a start code, a header byte, emulation prevention.
func (w *bits) nal(header byte) []byte {
	w.u(1, 1)
	out, zeros := []byte{0, 0, 1, header}, 0
	for _, x := range w.b {
		if zeros >= 2 && x <= 3 {
			out, zeros = append(out, 3), 0
		}
		if zeros++; x != 0 {
			zeros = 0
		}
		out = append(out, x)
	}
	return out
}

// avcField is a field of 32 by 16 samples of a frame, coded by itself (PAFF):
// macroblocks of PCM. Every twelfth frame is an IDR with parameter sets.
func avcField(frame int, bottom bool) (b []byte) {
	k := frame % 12
	idr := k == 0 && !bottom
	b = []byte{0, 0, 1, 9, 0x10}
	if idr {
		sps := (&bits{}).u(8, 77).u(16, 0x001e).ue(0).ue(0).ue(0).ue(0).ue(1).u(1, 0).ue(1).ue(0).u(1, 0).u(1, 0).u(1, 1).u(2, 0)
		pps := (&bits{}).ue(0).ue(0).u(2, 0).ue(0).ue(0).ue(0).u(3, 0).ue(0).ue(0).ue(0).u(3, 0)
		b = append(append(b, sps.nal(0x67)...), pps.nal(0x68)...)
	}
	field := uint32(0)
	if bottom {
		field = 1
	}
	w := (&bits{}).ue(0).ue(7).ue(0).u(4, uint32(k)).u(1, 1).u(1, field)
	header := byte(0x61)
	if idr {
		header = 0x65
		w.ue(uint32(frame / 12 % 2))
	}
	w.u(4, (2*uint32(k)+field)%16)
	if w.u(1, 0); idr {
		w.u(1, 0)
	}
	w.ue(0)
	for mb := range 2 {
		w.ue(25)
		for w.n%8 != 0 {
			w.u(1, 0)
		}
		for j := range 384 {
			w.u(8, 16+uint32(7*frame+31*int(field)+13*mb+j)%200)
		}
	}
	return append(b, w.nal(header)...)
}

// mpeg2Field is a field picture of MPEG-2: 32 by 16 samples, all intra.
func mpeg2Field(frame int, bottom bool) (b []byte) {
	k := frame % 12
	if k == 0 && !bottom {
		b = append(b, (&bits{}).u(32, 0x1b3).u(12, 32).u(12, 32).u(4, 1).u(4, 3).u(18, 2500).u(1, 1).u(10, 20).u(3, 0).b...)
		b = append(b, (&bits{}).u(32, 0x1b5).u(4, 1).u(8, 0x48).u(1, 0).u(2, 1).u(16, 0).u(1, 1).u(16, 0).b...)
		b = append(b, (&bits{}).u(32, 0x1b8).u(25, 1<<12).u(1, 1).u(1, 0).b...)
	}
	structure := uint32(1)
	if bottom {
		structure = 2
	}
	b = append(b, (&bits{}).u(32, 0x100).u(10, uint32(k)).u(3, 1).u(16, 0xffff).u(1, 0).b...)
	b = append(b, (&bits{}).u(32, 0x1b5).u(4, 8).u(16, 0xffff).u(2, 0).u(2, structure).u(10, 0).b...)
	w := (&bits{}).u(32, 0x101).u(5, 1).u(1, 0)
	for mb := range 2 {
		w.u(2, 3) // the next macroblock, intra
		w.u(4, 14).u(5, 16+uint32(frame+3*mb)%16).u(2, 2)
		for range 3 {
			w.u(3, 4).u(2, 2)
		}
		w.u(2, 0).u(2, 2).u(2, 0).u(2, 2)
	}
	return append(b, w.b...)
}

// TestFieldPictures records pictures whose fields are coded one by one, in one
// PES packet a frame, in one a field, and in one a field of which the second
// has no time.
func TestFieldPictures(t *testing.T) {
	needFFmpeg(t, "streams of field pictures")
	for _, c := range []struct {
		name  string
		typ   byte
		field func(int, bool) []byte
	}{{"PAFF", 0x1b, avcField}, {"MPEG-2", 0x02, mpeg2Field}} {
		for _, way := range []string{"a PES packet a frame", "a PES packet a field", "the second field without a time"} {
			t.Run(c.name+", "+way, func(t *testing.T) {
				m := &mux{}
				for k := range 150 {
					if k%4 == 0 {
						m.section(0, pat(0, 1, mapPID))
						m.section(mapPID, pmt(1, 0, es{0x100, c.typ, nil}))
					}
					at := 90000 + 3600*int64(k)
					top, bottom := c.field(k, false), c.field(k, true)
					switch way {
					case "a PES packet a frame":
						m.packets(0x100, pes(0xe0, at, at, 0, append(top, bottom...)))
					case "a PES packet a field":
						m.packets(0x100, pes(0xe0, at, at, 0, top))
						m.packets(0x100, pes(0xe0, at+1800, at+1800, 0, bottom))
					default:
						m.packets(0x100, pes(0xe0, at, at, 0, top))
						m.packets(0x100, pes(0xe0, -1, -1, 0, bottom))
					}
				}
				keep(t, c.name+way, m.out)
				path := filepath.Join(t.TempDir(), "fields.ts")
				if err := os.WriteFile(path, m.out, 0o644); err != nil {
					t.Fatal(err)
				}
				full, compared := cuts(t, m.out, packet, time.Second, 12)
				for _, s := range full {
					if s.Header.Damaged() {
						t.Errorf("%s is damaged, and nothing is missing", describe(s))
					}
				}
				if len(full) < 6 || compared < 10 {
					t.Errorf("%d segments, %d compared", len(full), compared)
				}
				checkFrames(t, path, full, 0)
			})
		}
	}
}

// TestCaptions wants captions in SEI messages to be where they were.
func TestCaptions(t *testing.T) {
	needFFmpeg(t, "captions")
	raw, err := exec.Command("ffmpeg", strings.Fields("-v error -f lavfi -i testsrc2=s=176x144:r=25:d=5 "+x264+"-bf 0 -g 25 -bsf h264_metadata=aud=insert -f h264 -")...).Output()
	if err != nil {
		t.Fatal(err)
	}
	m := &mux{}
	m.section(0, pat(0, 1, mapPID))
	m.section(mapPID, pmt(1, 0, es{0x100, 0x1b, nil}))
	pictures := bytes.Split(raw, []byte{0, 0, 0, 1, 9})[1:]
	for k, p := range pictures {
		// ATSC A/53-4 6.2.3.1: one pair of CEA-608, the rest of it a number.
		sei := []byte{0, 0, 1, 6, 4, 14, 0xb5, 0, 0x31, 'G', 'A', '9', '4', 3, 0x41, 0xff, 0xfc, 0x80 | byte(k), 0x20, 0xff, 0x80}
		aud := append([]byte{0, 0, 0, 1, 9}, p[0])
		at := 90000 + 3600*int64(k)
		m.packets(0x100, pes(0xe0, at, at, 0, append(append(aud, sei...), p[1:]...)))
	}
	full, _ := runBytes(m.out, time.Second)
	n := 0
	for _, name := range writeMP4(t, full) {
		out, err := exec.Command("ffprobe", "-v", "error", "-show_frames", "-show_entries", "frame_side_data=side_data_type", "-of", "csv", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		n += strings.Count(string(out), "Closed Captions")
	}
	if n != len(pictures) {
		t.Errorf("captions in %d pictures, want %d", n, len(pictures))
	}
	at := 0
	for _, s := range full {
		init, err := m4f.ParseInit(s.Init)
		if err != nil {
			t.Fatal(err)
		}
		fragment, err := m4f.ParseFragment(init, s.Media)
		if err != nil {
			t.Fatal(err)
		}
		for _, sample := range fragment.Tracks[0].Samples {
			if !bytes.Contains(sample.Data(s.Media), []byte{'G', 'A', '9', '4', 3, 0x41, 0xff, 0xfc, 0x80 | byte(at), 0x20}) {
				t.Fatalf("picture %d has not the captions that it had", at)
			}
			at++
		}
	}
}
