package segment_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/twindvr/twindvr/pkg/m4f"
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
