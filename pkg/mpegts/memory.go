package mpegts

import (
	"sync"
	"time"

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
	// maxSpare is how many bytes of free blocks of a class keep their pages in
	// any case.
	maxSpare = 1 << 20
	// trimEvery is for how long a block must have been free to lose its pages: more
	// than a segment, with each of which what a stream holds goes up and down.
	trimEvery = 10 * time.Second
)

// memory is where blocks lie: outside the heap, of which the garbage collector
// keeps as much again for what dies until it runs next. What is received lives for seconds
// and is given back by hand. It is never unmapped: a slice that outlives its
// block by mistake reads stale bytes and does not crash the process.
type memory struct {
	mu   sync.Mutex
	free [heap]spares
	used [heap]int // blocks taken
	trim *time.Timer
	due  bool // the timer runs
}

// spares are the free blocks of a class. The one given back last is taken first.
type spares struct {
	list  [][]byte
	empty int // of them, the first, without pages
	least int // free at the same time since pages were given up last
}

var blocks memory

// take returns an empty block of a class; nil where the system gives no memory.
func (m *memory) take(c class) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &m.free[c]
	if len(s.list) == 0 && !s.grow(c) {
		return nil
	}
	n := len(s.list) - 1
	b := s.list[n]
	s.list[n] = nil
	s.list = s.list[:n]
	s.empty, s.least = min(s.empty, n), min(s.least, n)
	m.used[c]++
	return b[:0]
}

// grow adds a slab of free blocks, which have no pages yet.
func (s *spares) grow(c class) bool {
	mem, err := unix.Mmap(-1, 0, slab, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return false
	}
	unix.Madvise(mem, unix.MADV_NOHUGEPAGE) // a kernel without huge pages refuses
	for n := sizes[c]; len(mem) >= n; mem = mem[n:] {
		s.list = append(s.list, mem[:0:n])
	}
	s.empty = len(s.list)
	return true
}

// give takes a block back. Where many stay free their pages go to the system,
// after a while: a page that has gone costs more to get again than to fill.
func (m *memory) give(c class, b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used[c]--
	s := &m.free[c]
	s.list = append(s.list, b[:0])
	if !m.due && (len(s.list)-s.empty)*sizes[c] > maxSpare {
		m.wait()
	}
}

// wait begins a stretch of time whose spare blocks lose their pages.
func (m *memory) wait() {
	for c := range m.free {
		m.free[c].least = len(m.free[c].list)
	}
	m.due = true
	if m.trim == nil {
		m.trim = time.AfterFunc(trimEvery, m.giveUp)
	} else {
		m.trim.Reset(trimEvery)
	}
}

// giveUp gives up the pages of blocks that nobody has wanted for a while.
func (m *memory) giveUp() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.due = false
	again := false
	for c := range m.free {
		s := &m.free[c]
		for ; s.empty < s.least-maxSpare/sizes[c]; s.empty++ {
			b := s.list[s.empty]
			unix.Madvise(b[:cap(b)], unix.MADV_DONTNEED)
		}
		again = again || (len(s.list)-s.empty)*sizes[c] > maxSpare
	}
	if again {
		m.wait()
	}
}
