package ingest

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// slotSize holds the longest UDP datagram (65 527 bytes over IPv6).
	slotSize = 64 << 10
	// slotStride spreads the beginnings of the slots over the cache.
	slotStride = slotSize + 2<<10
)

// region is the memory that one source receives into: a slot of 64 KiB for
// each datagram of a system call, outside the heap, so that the pages a
// datagram does not reach (with 1316 bytes, nearly all) are never there.
type region struct{ mem []byte }

// freeRegions are those given back. They are never unmapped: a slice that
// outlives its batch by mistake reads stale bytes and does not crash the
// process.
var freeRegions struct {
	sync.Mutex
	list []*region
}

// takeRegion returns a region that nobody uses.
func takeRegion() (*region, error) {
	freeRegions.Lock()
	defer freeRegions.Unlock()
	if n := len(freeRegions.list); n > 0 {
		r := freeRegions.list[n-1]
		freeRegions.list = freeRegions.list[:n-1]
		return r, nil
	}
	mem, err := unix.Mmap(-1, 0, slots*slotStride, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("mapping memory to receive into: %w", err)
	}
	unix.Madvise(mem, unix.MADV_NOHUGEPAGE) // a kernel without huge pages refuses
	return &region{mem}, nil
}

// slot returns the memory of datagram i of a system call.
func (r *region) slot(i int) []byte {
	return r.mem[i*slotStride : i*slotStride+slotSize : i*slotStride+slotSize]
}

// give returns the region's pages to the system and the region to the list.
func (r *region) give() {
	unix.Madvise(r.mem, unix.MADV_DONTNEED)
	freeRegions.Lock()
	defer freeRegions.Unlock()
	freeRegions.list = append(freeRegions.list, r)
}
