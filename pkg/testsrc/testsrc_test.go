package testsrc

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func generate(t interface{ Fatal(...any) }, opt Options) []byte {
	g, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if _, err := g.WriteTo(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// stream is what a strict reader of the packets finds.
type stream struct {
	pcr      []int64 // 27 MHz, unwrapped by hand where a test needs it
	pcrAt    []int   // packet index of each
	pts, dts map[int][]int64
	es       map[int][]byte
	tables   []int // packet index of each PAT
}

// readStream checks every packet: sync, continuity, PES lengths.
func readStream(t interface{ Fatalf(string, ...any) }, ts []byte) *stream {
	s := &stream{pts: map[int][]int64{}, dts: map[int][]int64{}, es: map[int][]byte{}}
	last := map[int]int{}
	left := map[int]int{}
	if len(ts)%188 != 0 {
		t.Fatalf("%d bytes", len(ts))
	}
	for i := 0; i < len(ts)/188; i++ {
		p := ts[i*188:][:188]
		pid, cc := int(p[1]&0x1f)<<8|int(p[2]), int(p[3]&15)
		hasPayload := p[3]&0x10 != 0
		if p[0] != 0x47 || p[1]&0x80 != 0 || p[3]&0xc0 != 0 {
			t.Fatalf("packet %d: header %x", i, p[:4])
		}
		if prev, seen := last[pid]; seen {
			want := prev
			if hasPayload {
				want = (prev + 1) & 15
			}
			if cc != want {
				t.Fatalf("packet %d, PID %#x: counter %d, want %d", i, pid, cc, want)
			}
		}
		last[pid] = cc
		if pid == 0 {
			s.tables = append(s.tables, i)
		}
		off := 4
		if p[3]&0x20 != 0 {
			off = 5 + int(p[4])
			if off > 188 || !hasPayload && off != 188 {
				t.Fatalf("packet %d: adaptation field of %d", i, p[4])
			}
			if p[4] > 0 && p[5]&0x10 != 0 {
				s.pcrAt = append(s.pcrAt, i)
				s.pcr = append(s.pcr, (int64(p[6])<<25|int64(p[7])<<17|int64(p[8])<<9|int64(p[9])<<1|int64(p[10])>>7)*300+
					int64(p[10]&1)<<8|int64(p[11]))
			}
		}
		if !hasPayload || pid != pidVideo && pid != pidAudio {
			continue
		}
		b := p[off:]
		if p[1]&0x40 != 0 {
			if left[pid] > 0 {
				t.Fatalf("packet %d: %d bytes missing of a PES packet", i, left[pid])
			}
			left[pid] = int(b[4])<<8 | int(b[5])
			if left[pid] > 0 {
				left[pid] += 6
			}
			pts := readTime(b[9:])
			dts := pts
			if b[7]&0x40 != 0 {
				dts = readTime(b[14:])
			}
			s.pts[pid] = append(s.pts[pid], pts)
			s.dts[pid] = append(s.dts[pid], dts)
			n := 9 + int(b[8])
			if left[pid] > 0 {
				left[pid] -= n
			}
			b = b[n:]
		}
		if left[pid] > 0 {
			if left[pid] -= len(b); left[pid] < 0 {
				t.Fatalf("packet %d: a PES packet is longer than it says", i)
			}
		}
		s.es[pid] = append(s.es[pid], b...)
	}
	return s
}

func readTime(b []byte) int64 {
	return int64(b[0]&0xe)<<29 | int64(b[1])<<22 | int64(b[2]&0xfe)<<14 | int64(b[3])<<7 | int64(b[4])>>1
}

// TestStream holds the stream to what the package promises, for random options.
func TestStream(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		opt := Options{
			Bitrate:  rapid.SampledFrom([]int64{0, 520_000, 1_000_000, 3_000_003}).Draw(t, "bitrate"),
			StartPTS: rapid.SampledFrom([]int64{0, 90000, wrap33 - 450_000, wrap33 - 1}).Draw(t, "start"),
			Duration: time.Duration(rapid.IntRange(1, 230).Draw(t, "frames")) * framePeriod,
		}
		frames := int(opt.Duration / framePeriod)
		ts := generate(t, opt)
		s := readStream(t, ts)

		// Times step evenly, across loops and the wrap.
		for _, c := range []struct {
			pid   int
			step  int64
			first int64
		}{{pidVideo, frameTicks, opt.StartPTS - reorder}, {pidAudio, audioTicks, opt.StartPTS}} {
			for i, dts := range s.dts[c.pid] {
				if want := (c.first + int64(i)*c.step) & (wrap33 - 1); dts != want {
					t.Fatalf("PID %#x, frame %d: DTS %d, want %d", c.pid, i, dts, want)
				}
			}
		}
		if n := len(s.dts[pidVideo]); n != frames {
			t.Fatalf("%d pictures, want %d", n, frames)
		}
		// Each picture is shown once: presentation times fill whole GOPs.
		shown := map[int64]bool{}
		for _, pts := range s.pts[pidVideo] {
			n := (pts - opt.StartPTS + wrap33) % wrap33
			if n%frameTicks != 0 || shown[n] || n/frameTicks > int64(frames)+2 {
				t.Fatalf("PTS %d is wrong or repeated", pts)
			}
			shown[n] = true
		}
		// Clock references lead the decoding times, at most 40 ms apart.
		for i := range s.pcr {
			if i > 0 {
				if d := (s.pcr[i] - s.pcr[i-1] + wrap33*300) % (wrap33 * 300); d <= 0 || d > 40*27000 {
					t.Fatalf("clock reference %d follows after %d", i, d)
				}
			}
		}
		lead := ((opt.StartPTS-reorder)*300 - s.pcr[0] + wrap33*300) % (wrap33 * 300)
		if lead < 100*27000 || lead > 300*27000 {
			t.Fatalf("first clock reference %d before the first decoding time", lead)
		}
		numbers := FrameNumbers(s.es[pidVideo])
		for i, n := range numbers {
			if n != uint64(i) {
				t.Fatalf("picture %d has number %d", i, n)
			}
		}
		if len(numbers) != frames {
			t.Fatalf("%d numbers, want %d", len(numbers), frames)
		}
		if opt.Bitrate > 0 && frames >= 200 {
			got := int64(len(ts)) * 8 * 25 / int64(frames)
			if d := got - opt.Bitrate; d > opt.Bitrate/50+4000 || d < -opt.Bitrate/50-4000 {
				t.Fatalf("bit rate %d, want %d", got, opt.Bitrate)
			}
		}
	})
}

// TestDue wants datagrams spread evenly: none more than 3 ms after the one
// before at 6 Mbit/s, and never going back.
func TestDue(t *testing.T) {
	g, err := New(Options{Bitrate: 6_000_000, Duration: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	var last time.Duration
	for p, due, ok := g.Next(); ok; p, due, ok = g.Next() {
		if due < last || due-last > 3*time.Millisecond {
			t.Fatalf("due %v follows %v", due, last)
		}
		if len(p) != 1316 && due != 20*time.Second {
			t.Fatalf("a datagram of %d bytes", len(p))
		}
		last = due
	}
	if last != 20*time.Second || g.Frames() != 500 {
		t.Errorf("ends at %v, %d frames", last, g.Frames())
	}
}

// TestFill wants every length that can be asked for, and no packet of a filled
// picture twice: whoever tells packets apart by their bytes can.
func TestFill(t *testing.T) {
	for n := minFill; n < 3000; n++ {
		b := appendFill(nil, n, uint64(n))
		if len(b) != n || !bytes.HasPrefix(b, []byte{0, 0, 0, 1, fillType}) || bytes.IndexByte(b[4:], 0) >= 0 {
			t.Fatalf("%d bytes of %d: %x", len(b), n, b)
		}
	}
	ts := generate(t, Options{Duration: 10 * time.Second, Bitrate: 6_000_000})
	seen, twice := map[string]bool{}, 0
	for ; len(ts) > 0; ts = ts[packetSize:] {
		if pid := int(ts[1]&0x1f)<<8 | int(ts[2]); pid == pidVideo {
			if seen[string(ts[:packetSize])] {
				twice++
			}
			seen[string(ts[:packetSize])] = true
		}
	}
	if len(seen) < 30_000 || twice > len(seen)/1000 {
		t.Errorf("%d packets, %d of them again", len(seen), twice)
	}
}

// TestSliceAhead wants the slice of each picture to begin in its first packet,
// keyframes and their parameter sets included, and what fills it up behind.
func TestSliceAhead(t *testing.T) {
	ts := generate(t, Options{Duration: 10 * time.Second, Bitrate: 6_000_000})
	pictures := 0
	for _, pes := range pesPackets(ts, pidVideo) {
		es := pes[9+int(pes[8]):]
		slice := max(bytes.Index(es, []byte{0, 0, 1, 0x65}), bytes.Index(es, []byte{0, 0, 1, 0x41}), bytes.Index(es, []byte{0, 0, 1, 0x01}))
		fill := bytes.Index(es, []byte{0, 0, 1, fillType})
		if slice < 0 || slice+4 > packetSize-4-pcrField-len(pes)+len(es) || fill < slice {
			t.Fatalf("picture %d: its slice begins at %d, what fills it at %d", pictures, slice, fill)
		}
		pictures++
	}
	if pictures != 250 {
		t.Errorf("%d pictures", pictures)
	}
}

// TestGolden pins the bytes: tests of other packages may count on them.
func TestGolden(t *testing.T) {
	for want, opt := range map[string]Options{
		"1fb188b8bf782983": {StartPTS: DefaultStartPTS, Duration: 20 * time.Second},
		"d46f351f01055dc5": {StartPTS: DefaultStartPTS, Duration: 20 * time.Second, Bitrate: 6_000_000},
	} {
		sum := sha256.Sum256(generate(t, opt))
		if got := hex.EncodeToString(sum[:8]); got != want {
			t.Errorf("%+v: %s, want %s", opt, got, want)
		}
	}
}

func TestRestart(t *testing.T) {
	const every = 3 * time.Second
	ts := generate(t, Options{Duration: 10 * time.Second, RestartEvery: every, Bitrate: 1_000_000})
	whole := generate(t, Options{Duration: every, Bitrate: 1_000_000})
	var numbers []uint64
	for i := range 3 {
		part := ts[i*len(whole):][:len(whole)]
		s := readStream(t, part)
		if s.dts[pidVideo][0] != wrap33-reorder || len(s.dts[pidVideo]) != 75 {
			t.Errorf("restart %d: %d pictures from %d", i, len(s.dts[pidVideo]), s.dts[pidVideo][0])
		}
		numbers = append(numbers, FrameNumbers(s.es[pidVideo])...)
	}
	if len(numbers) != 225 || !slices.IsSorted(numbers) || numbers[224] != 224 {
		t.Errorf("numbers %v", numbers)
	}
	if bytes.Equal(ts[:len(whole)], ts[len(whole):][:len(whole)]) {
		t.Error("two runs between restarts are equal")
	}
}

func TestOptionErrors(t *testing.T) {
	for _, opt := range []Options{{Bitrate: 1000}, {Bitrate: -1}, {Duration: time.Millisecond}, {Duration: -time.Second},
		{RestartEvery: time.Millisecond}, {RestartEvery: -1}} {
		if _, err := New(opt); err == nil {
			t.Errorf("%+v: no error", opt)
		}
	}
	c, _ := loadClip()
	if _, err := New(Options{Bitrate: c.minBitrate()}); err != nil || c.minBitrate() > 600_000 {
		t.Errorf("minimum %d: %v", c.minBitrate(), err)
	}
}

// TestDecodes lets ffmpeg decode a minute, over seven loops, and wants no
// warning and every frame.
func TestDecodes(t *testing.T) {
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is missing (apt-get install ffmpeg): 3 streams not decoded")
	}
	for name, opt := range map[string]Options{
		"plain":  {StartPTS: DefaultStartPTS, Duration: time.Minute},
		"filled": {StartPTS: DefaultStartPTS, Duration: 20 * time.Second, Bitrate: 6_000_000},
		"wrap":   {StartPTS: wrap33 - 900_000, Duration: 20 * time.Second, Bitrate: 1_000_000},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.ts")
			if err := os.WriteFile(path, generate(t, opt), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("ffmpeg", "-nostdin", "-v", "info", "-hide_banner", "-threads", "1", "-i", path,
				"-map", "0:v", "-map", "0:a", "-f", "framemd5", "-fps_mode", "passthrough", "-")
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Run(); err != nil {
				t.Fatal(err, stderr.String())
			}
			for _, bad := range []string{"error", "corrupt", "discontinuity", "non monot", "non-monot", "invalid", "missing", "conceal", "Queue"} {
				if strings.Contains(strings.ToLower(stderr.String()), strings.ToLower(bad)) {
					t.Errorf("ffmpeg says %q:\n%s", bad, stderr.String())
				}
			}
			count := map[string]int{}
			last := map[string]int64{}
			for _, line := range strings.Split(stdout.String(), "\n") {
				f := strings.Split(line, ",")
				if strings.HasPrefix(line, "#") || len(f) < 6 {
					continue
				}
				pts, _ := strconv.ParseInt(strings.TrimSpace(f[2]), 10, 64)
				d, _ := strconv.ParseInt(strings.TrimSpace(f[3]), 10, 64)
				if n := count[f[0]]; n > 0 && pts-last[f[0]] != d {
					t.Errorf("stream %s: frame %d at %d follows %d", f[0], n, pts, last[f[0]])
				}
				last[f[0]] = pts
				count[f[0]]++
			}
			frames := int(opt.Duration / framePeriod)
			if count["0"] != frames || count["1"] < frames*15/8-1 {
				t.Errorf("decoded %v frames, want %d pictures", count, frames)
			}
		})
	}
}

func TestFrameNumbers(t *testing.T) {
	for _, b := range [][]byte{nil, FrameUUID[:], append(FrameUUID[:], frameText...), append(FrameUUID[:], frameText+"12345"...),
		append(FrameUUID[:], frameText+"12345678x0123456"...)} {
		if got := FrameNumbers(b); got != nil {
			t.Errorf("%q: %v", b, got)
		}
	}
	b := appendFrameSEI(appendFrameSEI([]byte("x"), 7), 1<<50)
	if got := FrameNumbers(b); !slices.Equal(got, []uint64{7, 1 << 50}) {
		t.Errorf("got %v", got)
	}
}

func BenchmarkGenerate(b *testing.B) {
	g, err := New(Options{Bitrate: 6_000_000})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(1316)
	b.ReportAllocs()
	for b.Loop() {
		g.Next()
	}
}
