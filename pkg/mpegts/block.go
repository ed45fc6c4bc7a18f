package mpegts

import "sync"

// Block is a piece of memory that access units are slices of. Each unit holds
// one reference; Release gives it back. Blocks of one Demuxer are used by one
// goroutine at a time.
type Block struct {
	buf  []byte
	refs int
}

const (
	bigBlock   = 512 << 10
	smallBlock = 32 << 10
)

var bigPool, smallPool sync.Pool

func newBlock(size int) *Block {
	pool, n := &smallPool, smallBlock
	if size > smallBlock {
		pool, n = &bigPool, bigBlock
	}
	if size > n {
		return &Block{buf: make([]byte, 0, size), refs: 1}
	}
	if b, _ := pool.Get().(*Block); b != nil {
		b.refs = 1
		return b
	}
	return &Block{buf: make([]byte, 0, n), refs: 1}
}

// Release gives one reference back.
func (b *Block) Release() {
	if b.refs--; b.refs > 0 {
		return
	}
	b.buf = b.buf[:0]
	switch cap(b.buf) {
	case bigBlock:
		bigPool.Put(b)
	case smallBlock:
		smallPool.Put(b)
	}
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
		a.blk = newBlock(max(a.size, len(p)))
		a.start = 0
	}
	if len(a.blk.buf)+len(p) > cap(a.blk.buf) {
		cur := a.bytes()
		size := a.size
		if len(cur)+len(p) > size {
			size = 2 * (len(cur) + len(p))
		}
		nb := newBlock(size)
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
