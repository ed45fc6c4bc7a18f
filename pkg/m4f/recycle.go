package m4f

import (
	"math/bits"
	"sync"
)

const (
	// leastRecycled is the smallest piece of memory that is worth keeping, in
	// bytes, and mostRecycled the largest.
	leastRecycled = 64 << 10
	mostRecycled  = MaxMedia
)

// spare is memory for the media of segments to come, by class of size (classOf).
// What is not wanted for two collections, the garbage collector takes.
var spare [4 * (28 - 16)]sync.Pool

// Recycle leaves the memory of the segment's media to segments to come: memory
// that has its pages is cheaper than new. Nobody may read the media, or a part
// of it, from then on; the segment has none any more. Where nobody calls it, the
// garbage collector does as always.
func (s *Segment) Recycle() {
	if s.done != nil {
		s.done()
	}
	b := s.Media
	s.Media, s.pieces, s.done = nil, nil, nil
	if c, size := classOf(cap(b)); c >= 0 && size == cap(b) {
		spare[c].Put(&b)
	}
}

// classOf returns the class of memory that n bytes lie in, and its size: four
// sizes in each power of two, so that at most a fifth is of no use. Class -1 is no
// class: memory of exactly n bytes.
func classOf(n int) (class, size int) {
	if n <= leastRecycled || n > mostRecycled {
		return -1, n
	}
	k := bits.Len(uint(n-1)) - 1 // 2^k < n <= 2^(k+1)
	step := 1 << (k - 2)
	quarter := (n - 1 - 1<<k) / step
	return 4*(k-16) + quarter, 1<<k + (quarter+1)*step
}

// newMedia returns memory for n bytes of media, which may hold anything.
func newMedia(n int) []byte {
	if b := recycled(n); b != nil {
		return b
	}
	_, size := classOf(n)
	return make([]byte, n, size)
}

// recycled is newMedia of memory that there is already, or nil.
func recycled(n int) []byte {
	c, _ := classOf(n)
	if c < 0 {
		return nil
	}
	if b, ok := spare[c].Get().(*[]byte); ok {
		return (*b)[:n]
	}
	return nil
}
