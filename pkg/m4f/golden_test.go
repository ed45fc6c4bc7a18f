package m4f

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
)

const goldenFile = "testdata/golden.m4f"

// TestGolden: the clips still give the bytes of the golden file, FORMAT.md
// still describes them, and the readers still read them. A failure here means
// that the format has changed: twins of different versions would no longer
// write the same segments, so RulesVersion must be raised.
func TestGolden(t *testing.T) {
	specs := append(shortSpecs(t, CodecH264, CodecAAC, Wrap-Timescale/2), shortSpecs(t, CodecHEVC, CodecAC3, 10*Timescale)[:1]...)
	specs[1].Header.Flags |= Damaged
	specs[1].Header.Lost = 3
	b := stream(t, buildAll(t, specs))
	if *update {
		if err := os.WriteFile(goldenFile, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, golden) {
		t.Error("the clips no longer give the golden file")
	}
	format, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	list := describe(t, golden)
	if !strings.Contains(string(format), list) {
		t.Errorf("FORMAT.md does not hold this description of the golden file:\n%s", list)
	}
	segs, err := readAll(NewReader(bytes.NewReader(golden)))
	if len(segs) != 3 {
		t.Fatalf("%d segments: %v", len(segs), err)
	}
	if h := segs[1].Header; h.Flags != Keyframe|Damaged || h.Lost != 3 {
		t.Errorf("second header: %+v", h)
	}
}

// describe lists every box of a stream, and every sample of its fragments.
func describe(t *testing.T, b []byte) string {
	var out strings.Builder
	var init *Init
	off := 0
	for rest := b; len(rest) > 0; {
		c, next, err := nextBox(rest)
		if err != nil {
			t.Fatal(err)
		}
		list(&out, c, off, 0)
		switch c.typ {
		case "ftyp":
			m, _, err := nextBox(next)
			if err != nil {
				t.Fatal(err)
			}
			if init, err = ParseInit(rest[:len(c.raw)+len(m.raw)]); err != nil {
				t.Fatal(err)
			}
		case "moof":
			d, _, err := nextBox(next)
			if err != nil {
				t.Fatal(err)
			}
			f, err := ParseFragment(init, rest[:len(c.raw)+len(d.raw)])
			if err != nil {
				t.Fatal(err)
			}
			for i, tr := range f.Tracks {
				fmt.Fprintf(&out, "              track %d from %d:", i+1, tr.Start)
				for _, s := range tr.Samples {
					fmt.Fprintf(&out, " (%d %d %d %v %d+%d)", s.DTS, s.PTS, s.Duration, s.Sync, s.Off, s.Len)
				}
				fmt.Fprintln(&out)
			}
		case "uuid":
			h, err := ParseHeaderBox(c.raw)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&out, "              %s\n              init %s\n", h.ID, h.Init)
			fmt.Fprintf(&out, "              media time %d, UTC %d, duration %d, flags %#x, lost %d, errored %d, length %d\n",
				h.MediaTime, h.UTC, h.Duration, uint16(h.Flags), h.Lost, h.Errored, h.Length)
		}
		off += len(c.raw)
		rest = next
	}
	return out.String()
}

// fieldsAhead is how many bytes of fields lie ahead of the boxes in a box.
var fieldsAhead = map[string]int{
	"moov": 0, "trak": 0, "mdia": 0, "minf": 0, "dinf": 0, "stbl": 0, "mvex": 0, "moof": 0, "traf": 0,
	"stsd": 8, "dref": 8, "urim": 8, "mp4a": audioFields, "ac-3": audioFields, "avc1": visualFields, "hvc1": visualFields,
}

func list(out *strings.Builder, c box, off, depth int) {
	fmt.Fprintf(out, "%6d %6d %s%s\n", off, len(c.raw), strings.Repeat("  ", depth), c.typ)
	fields, ok := fieldsAhead[c.typ]
	ok = ok && depth == 0 // the diagrams show what is further inside
	if !ok {
		return
	}
	off += 8 + fields
	_ = children(c.body[fields:], func(c box) error {
		list(out, c, off, depth+1)
		off += len(c.raw)
		return nil
	})
}
