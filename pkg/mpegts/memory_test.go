package mpegts

import (
	"bytes"
	"runtime"
	"testing"
)

// taken is how many blocks of each class are in use.
func taken() [heap]int {
	blocks.mu.Lock()
	defer blocks.mu.Unlock()
	return blocks.used
}

// Blocks come back when they are released, and when they are forgotten; those in use
// share nothing.
func TestBlocks(t *testing.T) {
	before := taken()
	var all []*Block
	for k := range 300 {
		size := []int{1, smallBlock, mediumBlock, bigBlock, bigBlock + 1}[k%5]
		b := NewBlock(size)
		if cap(b.Bytes()) < size || len(b.Bytes()) != 0 {
			t.Fatalf("a block of %d bytes, %d of them used, for %d", cap(b.Bytes()), len(b.Bytes()), size)
		}
		b.Append(bytes.Repeat([]byte{byte(k)}, size))
		all = append(all, b)
	}
	for k, b := range all {
		for _, x := range b.Bytes() {
			if x != byte(k) {
				t.Fatalf("block %d holds %d", k, x)
			}
		}
	}
	for _, b := range all[:150] {
		b.Release()
	}
	clear(all)
	for range 1000 {
		runtime.GC()
		// What other tests have forgotten comes back, too.
		if now := taken(); now[small] <= before[small] && now[medium] <= before[medium] && now[big] <= before[big] {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("%v blocks in use, want %v", taken(), before)
}
