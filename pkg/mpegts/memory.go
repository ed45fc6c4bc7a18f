package mpegts

import (
	"sync"

	"golang.org/x/sys/unix"
)

// class is a size of block.
type class int

const (
	small class = iota
	medium
	big
	heap // any other size: the garbage collector's
)

var sizes = [heap]int{smallBlock, mediumBlock, bigBlock}

func classOf(size int) class {
	for c, n := range sizes {
		if size <= n {
			return class(c)
		}
	}
	return heap
}

const (
	// slab is how much memory is asked for at a time, in bytes.
	slab = 2 << 20
	// maxSpare is how many bytes of free blocks of a class keep their pages.
	maxSpare = 8 << 20
)

// memory is where blocks lie: outside the heap, of which the garbage collector
// keeps as much again for what dies until it runs next. What is received lives for seconds
// and is given back by hand. It is never unmapped: a slice that outlives its
// block by mistake reads stale bytes and does not crash the process.
type memory struct {
	mu   sync.Mutex
	free [heap][][]byte
	used [heap]int // blocks taken
}

var blocks memory

// take returns an empty block of a class; nil where the system gives no memory.
func (m *memory) take(c class) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.free[c]) == 0 && !m.grow(c) {
		return nil
	}
	n := len(m.free[c]) - 1
	b := m.free[c][n]
	m.free[c][n] = nil
	m.free[c] = m.free[c][:n]
	m.used[c]++
	return b[:0]
}

// grow adds a slab of free blocks.
func (m *memory) grow(c class) bool {
	mem, err := unix.Mmap(-1, 0, slab, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return false
	}
	unix.Madvise(mem, unix.MADV_NOHUGEPAGE) // a kernel without huge pages refuses
	for n := sizes[c]; len(mem) >= n; mem = mem[n:] {
		m.free[c] = append(m.free[c], mem[:0:n])
	}
	return true
}

// give takes a block back. Where many are free its pages go to the system.
func (m *memory) give(c class, b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used[c]--
	b = b[:cap(b)]
	if len(m.free[c])*len(b) >= maxSpare {
		unix.Madvise(b, unix.MADV_DONTNEED)
	}
	m.free[c] = append(m.free[c], b[:0])
}
