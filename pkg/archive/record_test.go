package archive

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/m4f"
)

var update = flag.Bool("update", false, "write the golden files anew")

func recordDraw(t *rapid.T) indexRecord {
	var r indexRecord
	copy(r.ID[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "id"))
	copy(r.Init[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "init"))
	r.MediaTime = rapid.Int64Range(0, m4f.Wrap-1).Draw(t, "media")
	r.UTC = m4f.UTC(rapid.Int64Range(0, int64(maxUTC)-1).Draw(t, "utc"))
	r.Duration = uint32(rapid.Int64Range(1, MaxDuration).Draw(t, "duration"))
	r.Flags = m4f.Flags(rapid.IntRange(0, 15).Draw(t, "flags"))
	r.Lost, r.Errored = rapid.Uint32().Draw(t, "lost"), rapid.Uint32().Draw(t, "errored")
	r.Length = rapid.Uint64Range(1, m4f.MaxMedia).Draw(t, "length")
	r.Origin = Origin(rapid.IntRange(0, int(numOrigins)-1).Draw(t, "origin"))
	r.Input = rapid.Byte().Draw(t, "input")
	r.Arrived = rapid.Int64().Draw(t, "arrived")
	r.number = rapid.Uint32().Draw(t, "number")
	r.offset = rapid.Int64Range(1, 1<<50).Draw(t, "offset")
	return r
}

func TestIndexRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := recordDraw(t)
		b := r.append(nil)
		if len(b) != indexRecordSize {
			t.Fatalf("%d bytes", len(b))
		}
		got, ok := parseIndexRecord(b, r.Init)
		if !ok || !reflect.DeepEqual(got, r) {
			t.Fatalf("%v %+v, want %+v", ok, got, r)
		}
		i, bit := rapid.IntRange(0, len(b)-1).Draw(t, "byte"), rapid.IntRange(0, 7).Draw(t, "bit")
		b[i] ^= 1 << bit
		if _, ok := parseIndexRecord(b, r.Init); ok {
			t.Fatalf("bit %d of byte %d flipped, and the record is taken", bit, i)
		}
	})
}

func TestHeadersRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := recordDraw(t)
		h := indexHeader{init: r.Init, initLength: r.Lost, origin: r.Origin, input: r.Input}
		b := h.append(nil)
		if got, err := parseIndexHeader(b); len(b) != indexHeaderSize || err != nil || got != h {
			t.Fatalf("%d bytes, %+v, %v", len(b), got, err)
		}
		b[rapid.IntRange(0, len(b)-1).Draw(t, "byte")] ^= 1
		if _, err := parseIndexHeader(b); err == nil {
			t.Fatal("a flipped bit in the index header is not seen")
		}
		c := changesHeader{lineage: uint64(r.MediaTime) | 1, base: changesHeadSize + int64(r.Lost)}
		b = c.encode()
		if got := parseChangesHeader(b); len(b) != changesHeadSize || got != c {
			t.Fatalf("%d bytes, %+v", len(b), got)
		}
		x := change{kind: r.Input, hour: hour(r.Errored), name: extentName{r.Lost % 3600_000, uint16(r.number)%60000 + 1}, number: r.number}
		b = x.append(nil)
		if got, ok := parseChange(b); len(b) != changeSize || !ok || got != x {
			t.Fatalf("%d bytes, %+v", len(b), got)
		}
	})
}

func TestExtentNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := extentName{uint32(rapid.IntRange(0, 3599_999).Draw(t, "ms")), uint16(rapid.IntRange(1, 65535).Draw(t, "n"))}
		if got, ok := parseExtentName(x.String()); !ok || got != x {
			t.Fatalf("%v is read as %v, %v", x, got, ok)
		}
	})
	if got := extentNameOf(noon.Add(m4f.Timescale * 12 / 100)).String(); got != "0000.120" {
		t.Error(got)
	}
	for _, s := range []string{"", "0000.12", "0000.1200", "6000.000", "0060.000", "0000.000-", "0000.000-1", "0000.000-01", "0000,000", "0000.000-2-3", "-100.000", "0000.000-65536"} {
		if x, ok := parseExtentName(s); ok {
			t.Errorf("%q is read as %v", s, x)
		}
	}
}

func TestOriginText(t *testing.T) {
	for o := range numOrigins {
		b, err := o.MarshalText()
		var got Origin
		if err != nil || got.UnmarshalText(b) != nil || got != o {
			t.Errorf("%v: %s, %v", o, b, got)
		}
	}
	if ParseOrigin("what a later version adds") != Unknown {
		t.Error("an unknown word is an origin")
	}
}

// TestGolden writes a small stream and compares it with the golden files, which
// FORMAT.md describes; then it reads those.
func TestGolden(t *testing.T) {
	const dir = "testdata/golden"
	s := newStream(t, Options{Clock: fixedClock})
	segs := run(t, noon.Add(sec*12/100), m4f.Wrap-10*sec, 4)
	segs[1].Header.Flags |= m4f.Damaged
	segs[1].Header.Lost, segs[1].Header.Errored = 3, 1
	w := s.Writer(Live, 1, WriterOptions{Sync: SyncOff})
	for _, seg := range segs {
		if err := w.Append(seg); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	files := []string{"2026/11/22/12/0000.120.mp4", "2026/11/22/12/0000.120.idx", "2026/11/22/12/0012.120.mp4",
		"2026/11/22/12/0012.120.idx", "2026/11/22/12/events.jsonl", "changes", "stream.json"}
	for _, name := range files {
		got, err := os.ReadFile(filepath.Join(s.Dir(), name))
		if err != nil {
			t.Fatal(err)
		}
		if name == "changes" { // its lineage is random
			h := changesHeader{lineage: 0x0123456789abcdef, base: changesHeadSize}
			got = append(h.encode(), got[changesHeadSize:]...)
		}
		golden := filepath.Join(dir, strings.ReplaceAll(name, "/", "-"))
		if *update {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is written otherwise than the golden file, which is format 1", name)
		}
		if err := os.WriteFile(filepath.Join(s.Dir(), name), want, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	r := reopen(t, s)
	els := span(t, r)
	if !reflect.DeepEqual(ids(els), idsOf(segs)) {
		t.Fatalf("%d elements", len(els))
	}
	e := els[1]
	if e.Origin != Live || e.Input != 1 || e.Lost != 3 || e.Errored != 1 || e.Header != segs[1].Header {
		t.Errorf("%+v", e.Record)
	}
	recs, _, err := r.ReadChanges("", 100)
	if err != nil || len(recs) != len(segs) {
		t.Errorf("%d changes, %v", len(recs), err)
	}
}

func FuzzIndex(f *testing.F) {
	s := newStream(f, Options{})
	segs := run(f, noon, 0, 3)
	write(f, s, Live, segs...)
	idx := glob(f, s, "*/*/*/*/*.idx")[0]
	good, err := os.ReadFile(idx)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:indexHeaderSize+50])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(idx, b, 0o640); err != nil {
			t.Fatal(err)
		}
		x, err := s.loadExtent(hourOf(noon), extentNameOf(noon))
		if err != nil {
			t.Fatal(err)
		}
		// Whatever the index says, no record lies outside the extent, and none
		// overlaps another.
		at := int64(x.initLen)
		for _, r := range x.records {
			if r.offset < at || r.end() > x.size {
				t.Fatalf("segment at [%d,%d) of %d", r.offset, r.end(), x.size)
			}
			at = r.end()
		}
		if _, err := parseIndexHeader(b); err != nil && len(x.records) != len(segs) {
			t.Fatalf("%d segments without an index, want %d", len(x.records), len(segs))
		}
	})
}

func FuzzChanges(f *testing.F) {
	s := newStream(f, Options{})
	write(f, s, Live, run(f, noon, 0, 3)...)
	good, err := os.ReadFile(s.changesPath())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:changesHeadSize+10])
	f.Add(append(append([]byte{}, good[:changesHeadSize+10]...), good[changesHeadSize:]...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(s.changesPath(), b, 0o640); err != nil {
			t.Fatal(err)
		}
		var cursor Cursor
		for range len(b)/changeSize + 3 {
			_, next, err := s.ReadChanges(cursor, 1)
			if err != nil {
				t.Fatal(err)
			}
			if next == cursor {
				return
			}
			cursor = next
		}
		t.Fatal("no end")
	})
}
