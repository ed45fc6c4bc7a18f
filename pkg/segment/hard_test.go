package segment_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// hardStream is a stream in which something happens that broadcasters do.
type hardStream struct {
	name string
	// parts are the generated streams whose frames, end to end, it holds.
	parts []generated
	// edit makes the stream of its parts; nil: they lie end to end, their
	// counters going on.
	edit func(t *testing.T, parts [][]byte) []byte
	// gone says which frames of a PID the edit takes away: from, to.
	gone map[int][2]int
	// jumps is how many segments begin a timeline; -1: not looked at.
	jumps int
	// lossy: it looks as if something were missing, and is damaged where.
	lossy func(h m4f.Header) bool
	// both: frames are compared at both durations of segments.
	both  bool
	least int // whole segments compared over all cuts
	// head is how many frames of a track lie ahead of the first keyframe.
	head int
	// seam is how many frames of sound a change of the leading track costs.
	seam int
}

var (
	plain   = generated{name: "h264", args: x264 + "-bf 2 -b_strategy 0 -g 25" + aac}
	later   = generated{name: "h264 from 20 s", args: x264 + "-bf 2 -b_strategy 0 -g 25 -output_ts_offset 20" + aac}
	muchLat = generated{name: "h264 from 9 h", args: x264 + "-bf 2 -b_strategy 0 -g 25 -output_ts_offset 32400" + aac}
	large   = generated{name: "h264 320x240", in: "-f lavfi -i testsrc2=s=320x240:r=25:d=10 " + tone, args: x264 + "-bf 2 -b_strategy 0 -g 25" + aac}
	round   = generated{name: "h264 and 5.1", args: x264 + "-bf 2 -b_strategy 0 -g 25 -c:a aac -ac 6 -b:a 128k"}
	dolby   = generated{name: "h264 and AC-3", args: x264 + "-bf 2 -b_strategy 0 -g 25 -c:a ac3 -b:a 96k"}
	hevc    = generated{name: "hevc", args: x265 + "keyint=25" + aac}
	twoLang = generated{name: "two languages", args: "-map 0:v -map 1:a -map 1:a " + x264 + "-bf 2 -b_strategy 0 -g 25 -c:a:0 aac -c:a:1 mp2 -b:a 64k -pes_payload_size 0"}
	slow    = generated{name: "a keyframe every 20 s", in: "-f lavfi -i testsrc2=s=176x144:r=25:d=50 -f lavfi -i sine=f=440:r=48000:d=50 ", args: x264 + "-bf 2 -g 500 -keyint_min 500 -x264-params scenecut=0" + aac}
	intra   = generated{name: "all keyframes", args: x264 + "-g 1 -bf 0" + aac}
	refresh = generated{name: "intra refresh", in: "-f lavfi -i testsrc2=s=176x144:r=25:d=66 -f lavfi -i sine=f=440:r=48000:d=66 ", args: x264 + "-bf 0 -g 50 -x264-params intra-refresh=1" + aac}
	mbaff   = generated{name: "MBAFF and CABAC, pyramid", args: x264 + "-bf 5 -b_strategy 0 -g 25 -flags +ildct+ilme -x264-params tff=1:b-pyramid=normal:open-gop=1" + aac}
)

// at is the number of the first packet from a PID's nth PES packet on.
func at(ts []byte, pid, n int) int {
	for k := 0; (k+1)*packet <= len(ts); k++ {
		p := ts[k*packet:]
		if pidOf(p) == pid && p[1]&0x40 != 0 {
			if n--; n < 0 {
				return k
			}
		}
	}
	return len(ts) / packet
}

func concat(_ *testing.T, parts [][]byte) []byte { return recount(bytes.Join(parts, nil)) }

// maps of the second of two parts, changed.
func withMaps(fn func(sec []byte) []byte) func(*testing.T, [][]byte) []byte {
	return func(t *testing.T, parts [][]byte) []byte {
		parts[1] = editMaps(shift(parts[1], 10*m4f.Timescale), 0, fn)
		return concat(t, parts)
	}
}

// follows lays the second part behind the first, its times going on.
func follows(t *testing.T, parts [][]byte) []byte {
	return withMaps(func(sec []byte) []byte { return sec })(t, parts)
}

func edited(fn func(ts []byte) []byte) func(*testing.T, [][]byte) []byte {
	return func(_ *testing.T, parts [][]byte) []byte { return fn(parts[0]) }
}

var hardStreams = []hardStream{
	{name: "restart with equal times", parts: []generated{plain, plain}, jumps: 1},
	{name: "restart backward", parts: []generated{later, plain}, jumps: 1},
	{name: "restart forward", parts: []generated{plain, muchLat}, jumps: 1},
	{name: "restart forward by 4 s", parts: []generated{plain, plain}, jumps: 1, edit: func(t *testing.T, p [][]byte) []byte {
		return concat(t, [][]byte{p[0], shift(p[1], 14*m4f.Timescale)})
	}},
	{name: "restart forward by 1 s", parts: []generated{plain, plain}, jumps: 0, lossy: around(12), edit: func(t *testing.T, p [][]byte) []byte {
		return concat(t, [][]byte{p[0], shift(p[1], 11*m4f.Timescale)})
	}},
	{name: "restart without a gap", parts: []generated{plain, plain}, jumps: 0, edit: func(t *testing.T, p [][]byte) []byte {
		return concat(t, [][]byte{p[0], shift(p[1], 10*m4f.Timescale)})
	}},
	{name: "restart back by a picture", parts: []generated{plain, plain}, jumps: 1, edit: func(t *testing.T, p [][]byte) []byte {
		return concat(t, [][]byte{p[0], shift(p[1], 10*m4f.Timescale-3600-3600)})
	}},
	{name: "restart whose counters begin anew, told", parts: []generated{plain, later}, jumps: 1, edit: func(_ *testing.T, p [][]byte) []byte {
		seen := map[int]bool{}
		p[1] = each(p[1], func(_ int, b []byte) bool {
			pid := pidOf(b)
			if pid != videoPID && pid != audioPID || seen[pid] {
				return true
			}
			seen[pid] = true
			if b[3]&0x20 == 0 || b[4] == 0 {
				panic("no adaptation field to set the indicator in")
			}
			b[5] |= 0x80
			return true
		})
		// The tables' counters go on: no indicator is defined for them.
		return recountOnly(bytes.Join(p, nil), 0, mapPID)
	}},
	{name: "PCR jumps forward", parts: []generated{plain}, edit: edited(func(ts []byte) []byte { return shiftPCR(ts, len(ts)/packet/2, 50*m4f.Timescale, false) })},
	{name: "PCR jumps forward, told", parts: []generated{plain}, edit: edited(func(ts []byte) []byte { return shiftPCR(ts, len(ts)/packet/2, 50*m4f.Timescale, true) })},
	{name: "PCR jumps back", parts: []generated{plain}, edit: edited(func(ts []byte) []byte { return shiftPCR(ts, len(ts)/packet/2, -50*m4f.Timescale, false) })},
	{name: "PCR jumps back, told", parts: []generated{plain}, edit: edited(func(ts []byte) []byte { return shiftPCR(ts, len(ts)/packet/2, -50*m4f.Timescale, true) })},
	{name: "another resolution", parts: []generated{plain, large}, edit: follows},
	{name: "another resolution, another map", parts: []generated{plain, large}, edit: withMaps(nextVersion)},
	{name: "stereo to 5.1", parts: []generated{plain, round}, edit: follows},
	{name: "stereo to 5.1, another map", parts: []generated{plain, round}, edit: withMaps(nextVersion)},
	{name: "AAC to AC-3, the version stays", parts: []generated{plain, dolby}, edit: follows},
	{name: "AAC to AC-3", parts: []generated{plain, dolby}, edit: withMaps(nextVersion)},
	{name: "H.264 to HEVC, the version stays", seam: 1, parts: []generated{plain, hevc}, edit: follows, jumps: -1},
	{name: "H.264 to HEVC", seam: 1, parts: []generated{plain, hevc}, jumps: -1, edit: withMaps(nextVersion)},
	{name: "a track stops and comes back", parts: []generated{twoLang}, gone: map[int][2]int{0x102: {120, 260}}, edit: edited(func(ts []byte) []byte { return withoutFrames(ts, 0x102, 120, 260) })},
	{name: "a track stops and comes back, the map says so", parts: []generated{twoLang}, gone: map[int][2]int{0x102: {120, 260}}, edit: edited(func(ts []byte) []byte {
		from, to := at(ts, 0x102, 120), at(ts, 0x102, 260)
		return withoutFrames(mapsWithout(ts, 0x102, from, to), 0x102, 120, 260)
	})},
	{name: "a track that begins late", parts: []generated{twoLang}, gone: map[int][2]int{0x102: {0, 150}}, edit: edited(func(ts []byte) []byte {
		return withoutFrames(mapsWithout(ts, 0x102, 0, at(ts, 0x102, 150)), 0x102, 0, 150)
	})},
	{name: "the map moves", parts: []generated{plain, plain}, edit: func(t *testing.T, p [][]byte) []byte {
		return concat(t, [][]byte{p[0], withPAT(move(shift(p[1], 10*m4f.Timescale), mapPID, 0x1234), pat(1, 1, 0x1234))})
	}},
	{name: "the program's number changes", parts: []generated{plain, plain}, edit: func(t *testing.T, p [][]byte) []byte {
		b := editMaps(shift(p[1], 10*m4f.Timescale), 0, func(sec []byte) []byte {
			sec[3], sec[4] = 0, 77
			return nextVersion(sec)
		})
		return concat(t, [][]byte{p[0], withPAT(b, pat(1, 77, mapPID))})
	}},
	{name: "audio 3 s ahead", parts: []generated{plain}, edit: edited(func(ts []byte) []byte { return shift(ts, 3*m4f.Timescale, audioPID) })},
	{name: "audio 2 s behind", head: 95, parts: []generated{plain}, edit: edited(func(ts []byte) []byte { return shift(ts, -2*m4f.Timescale, audioPID) })},
	{name: "pictures without times", head: 1, parts: []generated{plain}, edit: edited(undated)},
	{name: "a keyframe every 20 s", parts: []generated{slow}},
	{name: "all keyframes", parts: []generated{intra}},
	{name: "intra refresh, no IDR but the first", parts: []generated{refresh}, least: 12},
	{name: "MBAFF", parts: []generated{mbaff}},
	{name: "nine null packets in ten", parts: []generated{plain}, edit: edited(func(ts []byte) []byte {
		null := append([]byte{0x47, 0x1f, 0xff, 0x10}, bytes.Repeat([]byte{0xff}, packet-4)...)
		var out []byte
		for k := 0; k < len(ts); k += packet {
			out = append(append(out, ts[k:k+packet]...), bytes.Repeat(null, 9)...)
		}
		return out
	})},
}

// around says of a segment whether it lies within a second of a media time.
func around(at float64) func(m4f.Header) bool {
	return func(h m4f.Header) bool {
		from, to := float64(h.MediaTime)/m4f.Timescale, float64(h.MediaTime+int64(h.Duration))/m4f.Timescale
		return from < at+0.5 && to > at-0.5
	}
}

// recountOnly numbers the packets of some PIDs anew.
func recountOnly(ts []byte, pids ...int) []byte {
	n := recount(ts)
	return each(ts, func(k int, p []byte) bool {
		if slices.Contains(pids, pidOf(p)) {
			copy(p, n[k*packet:(k+1)*packet])
		}
		return true
	})
}

// withPAT puts a program association section in the place of every one.
func withPAT(ts, sec []byte) []byte {
	return each(ts, func(_ int, p []byte) bool {
		if pidOf(p) == 0 {
			setSection(p, bytes.Clone(sec[:len(sec)-4]))
		}
		return true
	})
}

// mapsWithout takes a track out of the maps of packets [from, to), and raises
// the version there and behind.
func mapsWithout(ts []byte, pid, from, to int) []byte {
	for from > 0 && pidOf(ts[from*packet:]) != mapPID {
		from++ // the map follows what is taken away, and comes ahead of what is given back
	}
	to = lastMap(ts, to)
	head := ts[:from*packet]
	gap := editMaps(ts[from*packet:to*packet], 0, func(sec []byte) []byte { return nextVersion(withoutTrack(sec, pid)) })
	tail := editMaps(ts[to*packet:], 0, func(sec []byte) []byte { return nextVersion(nextVersion(sec)) })
	return slices.Concat(head, gap, tail)
}

// lastMap is the number of the last packet of a map up to packet k.
func lastMap(ts []byte, k int) int {
	for k > 0 && pidOf(ts[k*packet:]) != mapPID {
		k--
	}
	return k
}

// withoutFrames takes the PES packets [from, to) of a PID out of a stream.
func withoutFrames(ts []byte, pid, from, to int) []byte {
	n := -1
	out := each(ts, func(_ int, p []byte) bool {
		if pidOf(p) != pid {
			return true
		}
		if p[1]&0x40 != 0 {
			n++
		}
		return n < from || n >= to
	})
	return recountOnly(out, pid)
}

// undated takes the times out of the PES headers of pictures that are none of
// every third, but for those with another DTS than PTS.
func undated(ts []byte) []byte {
	n := 0
	return each(ts, func(_ int, p []byte) bool {
		h := headerOf(p)
		if h == nil || pidOf(p) != videoPID {
			return true
		}
		if n++; n%3 != 1 {
			h[7] &^= 0xc0
			for k := range h[9 : 9+int(h[8])] {
				h[9+k] = 0xff
			}
		}
		return true
	})
}

// TestHardStreams wants every frame from the first keyframe on in exactly one
// segment, nothing called damaged that is not, and the same from every cut.
func TestHardStreams(t *testing.T) {
	needFFmpeg(t, fmt.Sprintf("%d hard streams", len(hardStreams)))
	for n, h := range hardStreams {
		if (testing.Short() || less > 1) && n%4 != 0 {
			continue
		}
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			var paths []string
			var parts [][]byte
			for _, g := range h.parts {
				paths = append(paths, generate(t, g))
				parts = append(parts, read(t, paths[len(paths)-1]))
			}
			edit := h.edit
			if edit == nil {
				edit = concat
			}
			ts := edit(t, parts)
			keep(t, h.name, ts)
			for _, d := range []time.Duration{time.Second, 4 * time.Second} {
				full, compared := cuts(t, ts, packet, d, 15/min(less, 5))
				if testing.Verbose() {
					for _, s := range full {
						t.Log(describe(s))
					}
				}
				if least := max(h.least, 5); d == time.Second && compared*min(less, 5) < least {
					t.Errorf("%d whole segments compared, want %d or more", compared, least)
				}
				checkRow(t, h, full)
				if d == time.Second || h.both {
					checkParts(t, h, full, paths)
				}
			}
		})
	}
}

// checkRow wants segments to follow one another without a gap or an overlap.
func checkRow(t *testing.T, h hardStream, segs []*m4f.Segment) {
	t.Helper()
	jumps := 0
	for k, s := range segs {
		if s.Header.Damaged() != (h.lossy != nil && h.lossy(s.Header)) {
			t.Errorf("%s: damaged: %v", describe(s), s.Header.Damaged())
		}
		if s.Header.Duration == 0 || s.Header.Duration > 70*m4f.Timescale {
			t.Errorf("%s has no end", describe(s))
		}
		switch {
		case k == 0:
		case s.Header.Flags&m4f.Discontinuity != 0:
			jumps++
		default:
			before := segs[k-1].Header
			if end := (before.MediaTime + int64(before.Duration)) & (m4f.Wrap - 1); end != s.Header.MediaTime {
				t.Errorf("%s does not follow %s", describe(s), describe(segs[k-1]))
			}
		}
	}
	if h.jumps >= 0 && jumps != h.jumps {
		t.Errorf("%d timelines begin, want %d", jumps, h.jumps)
	}
}

// checkParts wants the frames of each track to be those of the parts, end to
// end.
func checkParts(t *testing.T, h hardStream, segs []*m4f.Segment, parts []string) {
	t.Helper()
	want := map[uint16][]string{}
	for _, path := range parts {
		own, _ := runBytes(read(t, path), time.Hour)
		init, err := m4f.ParseInit(own[0].Init)
		if err != nil {
			t.Fatal(err)
		}
		for _, tr := range init.Tracks {
			pid, video := tr.Config.PID, tr.Handler == "vide"
			want[pid] = append(want[pid], sourceHashes(t, path, pid, video, tr.Config.Codec == m4f.CodecAAC)...)
		}
	}
	for _, pid := range slices.Sorted(maps.Keys(want)) {
		w := want[pid]
		if g, ok := h.gone[int(pid)]; ok {
			w = slices.Delete(w, g[0], g[1])
		}
		if h.seam > 0 && pid == audioPID {
			w = slices.Delete(w, len(w)/2, len(w)/2+h.seam)
		}
		got, holes := framesOf(t, segs, pid)
		if len(holes) > 0 {
			t.Logf("PID %d: holes %v", pid, holes)
		}
		sameFrames(t, fmt.Sprintf("PID %d", pid), got, w, max(h.head, 1), holes)
	}
}

var sourceFrames sync.Map

// sourceHashes is ffmpegHashes of a track of a source, read once.
func sourceHashes(t *testing.T, path string, pid uint16, video, adts bool) []string {
	read, _ := sourceFrames.LoadOrStore(fmt.Sprint(path, pid), sync.OnceValue(func() []string {
		return ffmpegHashes(t, path, fmt.Sprintf("0:i:%d", pid), video, adts)
	}))
	return read.(func() []string)()
}

// keep writes a stream to where TWINDVR_KEEP says, to be looked at.
func keep(t *testing.T, name string, ts []byte) {
	if dir := os.Getenv("TWINDVR_KEEP"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, strings.ReplaceAll(name, " ", "-")+".ts"), ts, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
