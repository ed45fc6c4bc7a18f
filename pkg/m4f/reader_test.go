package m4f

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// readAll reads segments to the end and returns them with the final error.
func readAll(r *Reader) ([]*Segment, error) {
	var out []*Segment
	for {
		s, err := r.Next()
		if err != nil {
			return out, err
		}
		out = append(out, s)
	}
}

// twoInits is a stream of four segments with a change of init segment in the
// middle, and the offset behind each segment.
func twoInits(t testing.TB) ([]byte, []*Segment, []int64) {
	segs := buildAll(t, append(shortSpecs(t, CodecH264, CodecAAC, 0), shortSpecs(t, CodecMPEG2Video, CodecAC3, 5*Timescale)...))
	var ends []int64
	for i := range segs {
		ends = append(ends, int64(len(stream(t, segs[:i+1]))))
	}
	return stream(t, segs), segs, ends
}

func TestReaderReadsWhatWriterWrote(t *testing.T) {
	b, want, ends := twoInits(t)
	if n := bytes.Count(b, []byte("moov")); n != 2 {
		t.Errorf("%d init segments written, want 2", n)
	}
	r := NewReader(iotest.OneByteReader(bytes.NewReader(b)))
	for i := range want {
		s, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if s.Header != want[i].Header || !bytes.Equal(s.Init, want[i].Init) || !bytes.Equal(s.Media, want[i].Media) {
			t.Errorf("segment %d differs", i)
		}
		if r.Offset() != ends[i] {
			t.Errorf("segment %d ends at %d, want %d", i, r.Offset(), ends[i])
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

// TestReaderCutAnywhere cuts a stream at every byte: exactly the whole
// segments ahead of the cut are read.
func TestReaderCutAnywhere(t *testing.T) {
	b, _, ends := twoInits(t)
	whole := map[int64]bool{0: true}
	for _, e := range ends {
		whole[e] = true
	}
	for n := range b {
		want := 0
		for want < len(ends) && ends[want] <= int64(n) {
			want++
		}
		got, err := readAll(NewReader(bytes.NewReader(b[:n])))
		if len(got) != want {
			t.Fatalf("cut at %d: %d segments, want %d (%v)", n, len(got), want, err)
		}
		var fe *FormatError
		if whole[int64(n)] {
			if err != io.EOF {
				t.Fatalf("cut at %d, behind a segment: %v", n, err)
			}
		} else if !errors.Is(err, io.ErrUnexpectedEOF) || !errors.As(err, &fe) || err == io.EOF {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

// TestReaderFlippedBits: no flipped bit makes a different segment that passes
// as whole, apart from what the identity does not cover.
func TestReaderFlippedBits(t *testing.T) {
	b, want, _ := twoInits(t)
	seen := 0
	for i := 0; i < len(b); i += 7 {
		c := bytes.Clone(b)
		c[i] ^= 1 << (i % 8)
		got, err := readAll(NewReader(bytes.NewReader(c)))
		if err != io.EOF {
			seen++
		}
		for k, s := range got {
			if s.Header.ID != want[k].Header.ID || !bytes.Equal(s.Media, want[k].Media) || !bytes.Equal(s.Init, want[k].Init) {
				t.Fatalf("byte %d flipped: segment %d is another", i, k)
			}
		}
	}
	if seen < len(b)/7*9/10 {
		t.Errorf("%d flips of %d were noticed", seen, len(b)/7)
	}
}

func TestReaderRefuses(t *testing.T) {
	segs := buildClip(t, CodecH264, CodecAAC, 0)
	good := stream(t, segs[:1])
	init := len(segs[0].Init)
	edit := func(at int, v ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], v)
		if at > init && at < init+130 { // what the checksum does not catch
			b[init+130], b[init+131] = 0, 0
		}
		return b
	}
	length := func(n uint64) []byte {
		return edit(init+108, binary.BigEndian.AppendUint64(nil, n)...)
	}
	moof := good[init+HeaderBoxSize:]
	for _, c := range []struct {
		name, says string
		b          []byte
	}{
		{"text", "not M4F", []byte("this is not a stream at all")},
		{"HTML", "not M4F", []byte("<!DOCTYPE html><html></html>")},
		{"random", "not a box", []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
		{"transport stream", "twindvr ingest", append([]byte{0x47, 0x40, 0, 0x10, 0, 0}, make([]byte, 182)...)},
		{"JSON", "not M4F", []byte(`{"error": "no such stream"}`)},
		{"plain MP4", "twindvr ingest", append(bytes.Clone(segs[0].Init), moof...)},
		{"moov alone", "starts with an ftyp", good[32:]},
		{"length 0", "length 0", length(0)},
		{"length too large", "length", length(1 << 60)},
		{"length short", "inside", length(100)},
		{"length past the end", "cut", length(uint64(len(moof)) + 1)},
		{"other init", "init segment", edit(init+60, 1)},
		{"other media time", "media time", edit(init+92+3, 1)},
		{"other identity", "corrupt", edit(init+28, 1)},
		{"flipped media", "corrupt", edit(len(good)-1, 0xEE)},
		{"box size 0", "size 0", edit(init, 0, 0, 0, 0)},
		{"box size 1", "size 1", edit(init, 0, 0, 0, 1)},
		{"endless ftyp", "ftyp", edit(0, 0x7F, 0xFF)},
		{"endless moov", "moov", edit(24, 0x7F, 0xFF)},
		{"endless unknown box", "passed over", append(edit(0)[:init], "\x7f\xff\xff\xffabcd"...)},
		{"version", "later version", edit(init+24, 9)},
		{"checksum", "checksum", edit(init+130, 1, 2)},
	} {
		got, err := readAll(NewReader(bytes.NewReader(c.b)))
		if len(got) != 0 || err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %d segments, error %q, want one that says %q", c.name, len(got), err, c.says)
		}
		var fe *FormatError
		if !errors.As(err, &fe) {
			t.Errorf("%s: error %v is no *FormatError", c.name, err)
		}
	}
}

// TestReaderPassesOver: boxes that it does not know are no harm between
// segments.
func TestReaderPassesOver(t *testing.T) {
	segs := buildClip(t, CodecH264, CodecAAC, 0)
	free := []byte("\x00\x00\x00\x0Cfreeabcd")
	other := appendBox(nil, uuidBox("00000000-0000-4000-8000-000000000000", []byte("x")))
	b := bytes.Clone(segs[0].Init)
	for _, s := range segs {
		b = append(append(b, free...), other...)
		b = append(s.Header.AppendBox(b), s.Media...)
	}
	got, err := readAll(NewReader(bytes.NewReader(append(b, free...))))
	if len(got) != 2 || err != io.EOF {
		t.Errorf("%d segments, %v", len(got), err)
	}
}

// TestReaderKeepsSourceErrors: an error of the source is not one of the format.
func TestReaderKeepsSourceErrors(t *testing.T) {
	b, _, _ := twoInits(t)
	broken := errors.New("connection reset")
	for _, n := range []int{0, 4, 100, 2000, len(b) / 2, len(b)} {
		_, err := readAll(NewReader(io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(broken))))
		var fe *FormatError
		if !errors.Is(err, broken) || errors.As(err, &fe) {
			t.Errorf("behind %d bytes: %v", n, err)
		}
	}
}

// TestReaderBoundsMemory: a length that the data does not keep allocates no
// more than the first buffer.
func TestReaderBoundsMemory(t *testing.T) {
	segs := buildClip(t, CodecH264, CodecAAC, 0)
	h := segs[0].Header
	h.Length = MaxMedia
	b := append(h.AppendBox(bytes.Clone(segs[0].Init)), segs[0].Media...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := NewReader(bytes.NewReader(b)).Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > firstBuffer+1<<20 {
		t.Errorf("%d bytes allocated for a segment of %d", got, len(segs[0].Media))
	}
}

// shortWriter fails after n bytes.
type shortWriter struct{ n int }

func (w *shortWriter) Write(p []byte) (int, error) {
	if w.n -= len(p); w.n < 0 {
		return 0, io.ErrShortWrite
	}
	return len(p), nil
}

func TestWriterErrors(t *testing.T) {
	seg := buildClip(t, CodecH264, CodecAAC, 0)[0]
	if err := NewWriter(&shortWriter{100}).WriteSegment(seg); err == nil {
		t.Error("a failed write was accepted")
	}
	bad := *seg
	bad.Header.Length++
	if err := NewWriter(io.Discard).WriteSegment(&bad); err == nil {
		t.Error("a wrong length was written")
	}
}
