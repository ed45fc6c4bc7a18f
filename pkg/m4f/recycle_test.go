package m4f

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// Classes of memory hold what they are for, waste a fifth at most, and are as
// many as there are lists.
func TestClasses(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(0, MaxMedia+1000).Draw(rt, "bytes")
		c, size := classOf(n)
		if n <= leastRecycled || n > mostRecycled {
			if c != -1 || size != n {
				rt.Fatalf("%d bytes: class %d of %d", n, c, size)
			}
			return
		}
		if c < 0 || c >= len(spare) || size < n || 5*(size-n) > size {
			rt.Fatalf("%d bytes: class %d of %d", n, c, size)
		}
		if again, same := classOf(size); again != c || same != size {
			rt.Fatalf("class %d of %d bytes is class %d of %d", c, size, again, same)
		}
		if next, more := classOf(size + 1); size < mostRecycled && (next != c+1 || more <= size) {
			rt.Fatalf("class %d of %d bytes follows class %d of %d", next, more, c, size)
		}
	})
}

// Memory that has held other media changes nothing of what is built or read.
func TestRecycle(t *testing.T) {
	want, err := Build(benchSpec())
	if err != nil {
		t.Fatal(err)
	}
	var stream bytes.Buffer
	if err := NewWriter(&stream).WriteSegment(want); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		dirty := newMedia(len(want.Media))
		for i := range dirty {
			dirty[i] = 0xa5
		}
		(&Segment{Media: dirty}).Recycle()
		built, err := Build(benchSpec())
		if err != nil || !bytes.Equal(built.Media, want.Media) || built.Header != want.Header {
			t.Fatalf("built %s, want %s, %v", built.Header.ID, want.Header.ID, err)
		}
		built.Recycle()
		if built.Media != nil {
			t.Error("the segment still has media")
		}
		read, err := NewReader(bytes.NewReader(stream.Bytes())).Next()
		if err != nil || !bytes.Equal(read.Media, want.Media) {
			t.Fatal(err)
		}
		read.Recycle()
	}
}

// Media of another making is left to the garbage collector.
func TestRecycleForeign(t *testing.T) {
	for _, n := range []int{0, 10, leastRecycled + 1, 3 << 20, MaxMedia + 1} {
		s := &Segment{Media: make([]byte, n)}
		s.Recycle()
		if s.Media != nil {
			t.Errorf("%d bytes: the segment still has media", n)
		}
	}
}
