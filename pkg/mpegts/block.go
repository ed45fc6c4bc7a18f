package mpegts

import (
	"runtime"
	"sync/atomic"
)

// Block is a piece of memory that access units are slices of. Each unit holds
// one reference; Release gives it back, on whatever goroutine. All else is one
// goroutine's at a time; bytes that are in it do not change.
type Block struct {
	buf   []byte
	refs  atomic.Int32
	class class
}

const (
	bigBlock    = 512 << 10
	mediumBlock = 64 << 10
	smallBlock  = 32 << 10
)

// NewBlock returns a Block that holds so many bytes, empty, with one reference.
func NewBlock(size int) *Block {
	b := &Block{class: classOf(size)}
	b.refs.Store(1)
	if b.class < heap {
		b.buf = blocks.take(b.class)
	}
	if b.buf == nil {
		b.buf, b.class = make([]byte, 0, size), heap
		return b
	}
	// A stream that fails half-way releases nothing.
	runtime.SetFinalizer(b, (*Block).free)
	return b
}

// Append adds bytes; they must fit.
func (b *Block) Append(p []byte) { b.buf = append(b.buf, p...) }

// Bytes are those of the Block.
func (b *Block) Bytes() []byte { return b.buf }

// Hold takes one more reference.
func (b *Block) Hold() { b.hold(1) }

func (b *Block) hold(n int) { b.refs.Add(int32(n)) }

// Release gives one reference back.
func (b *Block) Release() {
	if b.refs.Add(-1) > 0 {
		return
	}
	if b.class < heap {
		runtime.SetFinalizer(b, nil)
		b.free()
	}
}

func (b *Block) free() {
	blocks.give(b.class, b.buf)
	b.buf = nil
}

// arena collects the bytes of one PID. The unit being collected is the tail
// of the current block; it moves to a new one when it outgrows it.
type arena struct {
	blk   *Block
	start int
	size  int // usual block size
}

func (a *arena) len() int {
	if a.blk == nil {
		return 0
	}
	return len(a.blk.buf) - a.start
}

func (a *arena) bytes() []byte {
	if a.blk == nil {
		return nil
	}
	return a.blk.buf[a.start:]
}

func (a *arena) write(p []byte) {
	if a.blk == nil {
		a.blk = NewBlock(max(a.size, len(p)))
		a.start = 0
	}
	if len(a.blk.buf)+len(p) > cap(a.blk.buf) {
		cur := a.bytes()
		size := a.size
		if len(cur)+len(p) > size {
			size = 2 * (len(cur) + len(p))
		}
		nb := NewBlock(size)
		nb.buf = append(nb.buf, cur...)
		a.blk.buf = a.blk.buf[:a.start]
		a.blk.Release()
		a.blk, a.start = nb, 0
	}
	a.blk.buf = append(a.blk.buf, p...)
}

// truncate drops bytes of the collected unit behind n.
func (a *arena) truncate(n int) {
	if a.blk != nil && n < a.len() {
		a.blk.buf = a.blk.buf[:a.start+n]
	}
}

// take ends the unit: it returns the bytes and their block, with no reference
// added: see hold.
func (a *arena) take() ([]byte, *Block) {
	if a.blk == nil {
		return nil, nil
	}
	end := len(a.blk.buf)
	b := a.blk.buf[a.start:end:end]
	a.start = end
	return b, a.blk
}

// reset forgets the unit being collected.
func (a *arena) reset() {
	if a.blk != nil {
		a.blk.buf = a.blk.buf[:a.start]
	}
}

func (a *arena) close() {
	if a.blk != nil {
		a.blk.Release()
		a.blk = nil
	}
}
