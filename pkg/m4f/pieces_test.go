package m4f

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// Media in pieces is the same bytes as media in one, of any samples, and its
// memory is given back once.
func TestPieces(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		spec := benchSpec()
		sizes := rapid.SampledFrom([]int{0, 1, 7, leastPiece - 1, leastPiece, leastPiece + 1, 5000})
		for i := range spec.Tracks {
			tr := &spec.Tracks[i]
			tr.Samples = tr.Samples[:rapid.IntRange(0, 6).Draw(rt, "samples")]
			for j := range tr.Samples {
				s := &tr.Samples[j]
				s.NALs, s.Data = nil, bytes.Repeat([]byte{byte(i), byte(j)}, sizes.Draw(rt, "size"))
				for left := uint32(len(s.Data)); rapid.Bool().Draw(rt, "nal"); {
					n := min(left, uint32(sizes.Draw(rt, "length")))
					s.NALs = append(s.NALs, Range{uint32(len(s.Data)) - left, n})
					left -= n
				}
			}
		}
		want, err := Build(spec)
		if err != nil {
			rt.Fatal(err)
		}
		done := 0
		spec.Done = func() { done++ }
		got, err := Build(spec)
		if err != nil {
			rt.Fatal(err)
		}
		if joined := bytes.Join(got.Pieces(), nil); !bytes.Equal(joined, want.Media) || !bytes.Equal(joined, bytes.Join(want.Pieces(), nil)) ||
			got.Header != want.Header || got.Size() != want.Size() || got.Media != nil {
			rt.Fatalf("%d bytes in %d pieces, want %d", len(joined), len(got.Pieces()), len(want.Media))
		}
		var a, b bytes.Buffer
		if err := NewWriter(&a).WriteSegment(want); err != nil {
			rt.Fatal(err)
		}
		if err := NewWriter(&b).WriteSegment(got); err != nil || !bytes.Equal(a.Bytes(), b.Bytes()) {
			rt.Fatalf("written differently, %v", err)
		}
		if err := got.Verify(); err != nil || done != 0 {
			rt.Fatal(err, done)
		}
		got.Recycle()
		if got.Recycle(); done != 1 || got.Size() != 0 {
			rt.Fatalf("%d times done, %d bytes left", done, got.Size())
		}
	})
}
