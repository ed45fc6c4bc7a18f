package segment_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
	"github.com/twindvr/twindvr/pkg/segment"
)

const seedDir = "testdata/fuzz/FuzzSegmenter"

func TestSeeds(t *testing.T) {
	m, err := filepath.Glob(filepath.Join(seedDir, "*"))
	if err != nil || len(m) < 10 {
		t.Fatalf("%d seeds in %s, %v: the fuzz target begins with real streams", len(m), seedDir, err)
	}
}

// FuzzSegmenter wants no input to do harm, and all that it writes to be read.
func FuzzSegmenter(f *testing.F) {
	m := &mux{}
	m.section(0, pat(0, 1, 0x1000))
	m.section(0x1000, pmt(1, 0, es{0x100, 0x1b, nil}, es{0x101, 0x03, nil}, es{0x200, 0x06, nil}))
	for k := range int64(20) {
		m.packets(0x100, pes(0xe0, 9000*k, 9000*k, -1, avc(k%4 == 0, 100)))
		m.packets(0x101, pes(0xc0, 9000*k, 9000*k, -1, mp2()))
		m.packets(0x200, pes(0xbd, -1, -1, -1, []byte{1}))
	}
	f.Add(m.out)
	f.Fuzz(func(t *testing.T, ts []byte) {
		var all bytes.Buffer
		w := m4f.NewWriter(&all)
		n := 0
		s := segment.New(segment.Config{TargetDuration: 45000, Unpaced: true, Start: 1}, func(seg *m4f.Segment) {
			n++
			if err := w.WriteSegment(seg); err != nil {
				t.Fatal(err)
			}
			init, err := m4f.ParseInit(seg.Init)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m4f.ParseFragment(init, seg.Media); err != nil {
				t.Fatal(err)
			}
		})
		s.Write(ts)
		s.Close()
		if st := s.Stats(); st.Err != nil {
			t.Log(st.Err)
		}
		r := m4f.NewReader(&all)
		for range n {
			if _, err := r.Next(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// unitMaps are the maps that FuzzUnits chooses from.
var unitMaps = [][]mpegts.Track{
	{{PID: 1, StreamType: 0x1b, Codec: m4f.CodecH264}, {PID: 2, StreamType: 0x11, Codec: m4f.CodecLATM}, {PID: 3, StreamType: 6, Codec: m4f.CodecData}},
	{{PID: 1, StreamType: 0x24, Codec: m4f.CodecHEVC}, {PID: 2, StreamType: 0x90, Codec: m4f.CodecALaw}},
	{{PID: 1, StreamType: 0x1b, Codec: m4f.CodecH264}, {PID: 2, StreamType: 0x0f, Codec: m4f.CodecAAC}, {PID: 4, StreamType: 0x81, Codec: m4f.CodecAC3}},
	{{PID: 2, StreamType: 0x11, Codec: m4f.CodecLATM}},
	{},
}

// FuzzUnits wants no access units to do harm, and all that is written of them
// to be read. Every four bytes are one: what it is, of which track, and by how
// much its time differs from the last.
func FuzzUnits(f *testing.F) {
	var seed []byte
	for k := range byte(60) {
		seed = append(seed, k%12&1, 0, 40, 0, 2, 1, 40, 0)
	}
	f.Add(seed)
	f.Add(append([]byte{7, 2, 0, 0}, seed...))
	f.Add(slices.Concat(seed, []byte{7, 1, 0, 0}, seed, []byte{6, 1, 0, 0}, seed, []byte{7, 3, 0, 0}, seed))
	f.Fuzz(fuzzUnits)
}

func fuzzUnits(t *testing.T, feed []byte) {
	var all bytes.Buffer
	w := m4f.NewWriter(&all)
	n := 0
	s := segment.New(segment.Config{TargetDuration: 45000, Unpaced: true, Start: 1}, func(seg *m4f.Segment) {
		n++
		if err := w.WriteSegment(seg); err != nil {
			t.Fatal(err)
		}
	})
	var p *mpegts.Program
	use := func(k byte) {
		p = mpegts.NewProgram(1, 1, slices.Clone(unitMaps[int(k)%len(unitMaps)]))
		s.SetProgram(p)
	}
	use(0)
	var at int64
	for ; len(feed) >= 4; feed = feed[4:] {
		what, which, payload := feed[0], feed[1], feed[1:4]
		at += int64(int8(feed[2]))*90 + int64(feed[3])*m4f.Timescale/4
		if what == 7 {
			use(which)
		}
		if len(p.Tracks) == 0 {
			continue
		}
		track := &p.Tracks[int(which)%len(p.Tracks)]
		switch {
		case what == 6:
			s.LostUnits(uint16(which%5), int(feed[2]))
		case what == 7:
		case track.Kind == mpegts.Video:
			nals := [][]byte{{0x41, 0x9a, payload[0]}}
			if what&1 == 0 {
				nals = [][]byte{{0x67, 0x42, 0xc0, 0x1e, 0xda, 0x02, 0x80, 0xbf, 0xe5, 0xc0, 0x44}, {0x68, 0xce, 0x3c, 0x80}, {0x65, 0x88, payload[0]}}
			}
			if u, ok := mpegts.NewPicture(track, at+int64(what>>4)*3600, at, nals); ok {
				s.WriteUnit(&u, time.Unix(0, 0))
			}
		default:
			u := mpegts.NewFrame(track, at, int64(what)*90, bytes.Clone(payload), bytes.Clone(payload))
			u.Dated = what != 5
			s.WriteUnit(&u, time.Unix(0, 0))
		}
	}
	s.Close()
	r := m4f.NewReader(&all)
	for range n {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMakeSeeds writes the seeds anew from TWINDVR_TESTDATA when asked to.
func TestMakeSeeds(t *testing.T) {
	if os.Getenv("TWINDVR_MAKE_SEEDS") == "" {
		t.Skip("TWINDVR_MAKE_SEEDS is not set: seeds are left as they are")
	}
	if err := os.MkdirAll(seedDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range corpus(t) {
		ts := read(t, path)
		seed := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", ts[:min(len(ts), 60*packet)])
		name := "seed-" + filepath.Base(filepath.Dir(path)) + "-" + filepath.Base(path)
		if err := os.WriteFile(filepath.Join(seedDir, name), []byte(seed), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
