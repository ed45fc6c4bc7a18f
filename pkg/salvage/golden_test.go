package salvage

import (
	"bytes"
	"flag"
	"hash/crc32"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden is the entry in testdata/golden: packets 3 to 9 of run 255, of which 3
// and 4 lie in the file of packet 1.
func golden() (*Entry, *Copy) {
	k := kept(0, 3, 10, Hole{2, 7}, Hole{7, 1})
	e := &Entry{
		Run: 255, From: 3, To: 10, Program: 260, Target: 4 * sec, Segments: []m4f.Header{k.Header},
		Holes: k.Holes, Kept: time.UnixMilli(1795348805123).UTC(), Gained: 5,
	}
	e.add(k.pieces(), part{file: 1, size: 4, from: 3, to: 5})
	e.add(k.pieces(), part{file: 5, size: 5, from: 5, to: 10})
	e.Name = e.name()
	return e, &k.Copy
}

// TestGolden reads the golden entry as FORMAT.md describes it, without this
// package, and as this package does.
func TestGolden(t *testing.T) {
	want, c := golden()
	store := filepath.Join("testdata", "golden")
	dir := filepath.Join(store, "20261122T120000.000-00000000000000ff-3")
	files := map[string][]byte{"entry": want.encode(), "000000000001.ts": packets(1, 5), "000000000005.ts": packets(5, 10)}
	if *update {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, b := range files {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, b := range files {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, b) {
			t.Fatalf("%s: %d bytes that this program would not write, %v", name, len(got), err)
		}
	}
	b := files["entry"]
	at := func(off, size int) (v uint64) {
		for _, c := range b[off : off+size] {
			v = v<<8 | uint64(c)
		}
		return v
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	for _, f := range []struct {
		what      string
		off, size int
		want      uint64
	}{
		{"format", 8, 2, 1}, {"program_number", 10, 2, 260}, {"segments", 12, 2, 1}, {"parts", 14, 2, 2}, {"holes", 16, 4, 2},
		{"gained", 20, 4, 5}, {"run", 24, 8, 255}, {"first packet", 32, 8, 3}, {"behind the last", 40, 8, 10},
		{"target duration", 48, 8, 360000}, {"kept", 56, 8, 1795348805123}, {"nothing", 64, 8, 0}, {"nothing", 72, 8, 0},
		{"file of the first part", 80 + m4f.HeaderBoxSize, 8, 1}, {"its first packet", 88 + m4f.HeaderBoxSize, 8, 3},
		{"behind its last", 96 + m4f.HeaderBoxSize, 8, 5}, {"packets in the file", 104 + m4f.HeaderBoxSize, 4, 4},
		{"CRC of its packets", 108 + m4f.HeaderBoxSize, 4, uint64(crc32.Checksum(files["000000000001.ts"][2*188:], table))},
		{"file of the second part", 112 + m4f.HeaderBoxSize, 8, 5},
		{"packets ahead of the first hole", 144 + m4f.HeaderBoxSize, 4, 2}, {"missing in it", 148 + m4f.HeaderBoxSize, 4, 7},
		{"CRC", len(b) - 4, 4, uint64(crc32.Checksum(b[:len(b)-4], table))},
	} {
		if got := at(f.off, f.size); got != f.want {
			t.Errorf("%s, %d bytes at %d: %d, want %d", f.what, f.size, f.off, got, f.want)
		}
	}
	if string(b[:8]) != "TWDVRSAL" || len(b) != 80+m4f.HeaderBoxSize+2*32+2*8+4 {
		t.Errorf("%q, %d bytes", b[:8], len(b))
	}
	if h, err := m4f.ParseHeaderBox(b[80:]); err != nil || h != want.Segments[0] {
		t.Errorf("segment: %v", err)
	}
	s := NewStore(store, StoreOptions{})
	got, err := s.Entries(0, 0)
	if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], *want) {
		t.Fatalf("%+v, %v", got, err)
	}
	if r, err := s.Read(got...); err != nil || !bytes.Equal(r.Packets, c.Packets) || !reflect.DeepEqual(r.Holes, c.Holes) {
		t.Errorf("read: %v", err)
	}
}
