package mpegts_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/twindvr/twindvr/pkg/mpegts"
)

// seeds are the heads of real streams, kept small.
const seedDir = "testdata/fuzz/FuzzDemuxer"

func TestSeeds(t *testing.T) {
	m, err := filepath.Glob(filepath.Join(seedDir, "*"))
	if err != nil || len(m) < 10 {
		t.Fatalf("%d seeds in %s, %v: the fuzz target begins with real streams", len(m), seedDir, err)
	}
}

// FuzzDemuxer wants no input to do harm, and every chunking of it to end in the
// same packets.
func FuzzDemuxer(f *testing.F) {
	f.Add(small().out)
	f.Add([]byte("<html>"))
	f.Fuzz(func(t *testing.T, ts []byte) {
		_, st := demux(0, ts, nil)
		if used := st.Packets*188 + st.Garbage; used > int64(len(ts))+188 {
			t.Fatalf("%d packets and %d bytes of garbage in %d bytes", st.Packets, st.Garbage, len(ts))
		}
		demux(1, ts, func() int { return 100 })
		d := mpegts.NewDemuxer(0, &found{})
		for len(ts) > 0 {
			n := min(2*188, len(ts))
			d.WriteDatagram(ts[:n])
			if ts[0]&1 != 0 {
				d.WriteDatagram(ts[:n])
			}
			ts = ts[n:]
		}
		d.Close()
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
		var out bytes.Buffer
		writeSeed(&out, ts[:min(len(ts), 60*188)])
		name := "seed-" + filepath.Base(filepath.Dir(path)) + "-" + filepath.Base(path)
		if err := os.WriteFile(filepath.Join(seedDir, name), out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// writeSeed writes bytes as go test reads a seed.
func writeSeed(w *bytes.Buffer, b []byte) {
	fmt.Fprintf(w, "go test fuzz v1\n[]byte(%q)\n", b)
}
