package ingest

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twindvr/twindvr/pkg/clock"
)

// srtBacklog is how many bytes may wait for Read: 6 s of 20 Mbit/s. What comes
// beyond them is counted as lost.
const srtBacklog = 16 << 20

// srtChunk is a run of payloads without a loss in it.
type srtChunk struct {
	lost uint32 // packets lost before it
	data []byte
	ends []int // where each payload ends in data
	at   time.Time
}

// srtOut collects what the connection delivers and hands it to Read in chunks.
type srtOut struct {
	clock clock.Clock
	chunk *srtChunk // being filled
	queue srtQueue

	packets, bytes, lost atomic.Uint64
	last                 atomic.Int64 // Unix nanoseconds, 0: never
}

// put takes a payload in. It is copied.
func (o *srtOut) put(payload []byte) {
	if len(payload) == 0 {
		return
	}
	c := o.chunk
	c.data = append(c.data, payload...)
	c.ends = append(c.ends, len(c.data))
}

// lose counts lost packets at this place.
func (o *srtOut) lose(n uint32) {
	if n == 0 {
		return
	}
	o.lost.Add(uint64(n))
	o.mark(n)
}

// mark says that something may be missing at this place.
func (o *srtOut) mark(n uint32) {
	if len(o.chunk.ends) > 0 {
		o.hand(o.clock.Now())
	}
	o.chunk.lost += n
}

// full says whether the chunk is worth a Read.
func (o *srtOut) full() bool { return len(o.chunk.data) >= 64<<10 }

// hand gives the chunk to Read.
func (o *srtOut) hand(now time.Time) {
	c := o.chunk
	if len(c.ends) == 0 {
		return // a loss alone waits for what comes after it
	}
	c.at = now
	packets, bytes := len(c.ends), len(c.data)
	if dropped := o.queue.put(c); dropped {
		o.lost.Add(uint64(packets))
		o.chunk.lost += uint32(packets)
		o.chunk.data, o.chunk.ends = o.chunk.data[:0], o.chunk.ends[:0]
		return
	}
	o.packets.Add(uint64(packets))
	o.bytes.Add(uint64(bytes))
	o.last.Store(now.UnixNano())
	o.chunk = o.queue.fresh()
}

// srtQueue holds chunks between the connection and Read.
type srtQueue struct {
	mu     sync.Mutex
	chunks []*srtChunk
	free   []*srtChunk
	bytes  int
	err    error         // after the chunks
	wake   chan struct{} // holds something when there may be a chunk or an error
}

// put appends a chunk; true: there is no room for it.
func (q *srtQueue) put(c *srtChunk) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.bytes+len(c.data) > srtBacklog {
		return true
	}
	q.bytes += len(c.data)
	q.chunks = append(q.chunks, c)
	q.signal()
	return false
}

// end says what Read returns after the chunks.
func (q *srtQueue) end(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err == nil {
		q.err = err
	}
	q.signal()
}

func (q *srtQueue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// fresh returns an empty chunk.
func (q *srtQueue) fresh() *srtChunk {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := len(q.free)
	if n == 0 {
		return new(srtChunk)
	}
	c := q.free[n-1]
	q.free = q.free[:n-1]
	return c
}

// recycle takes a chunk back that Read is done with. A few are kept.
func (q *srtQueue) recycle(c *srtChunk) {
	if c == nil || cap(c.data) > 256<<10 {
		return
	}
	c.lost, c.data, c.ends = 0, c.data[:0], c.ends[:0]
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.free) < 4 {
		q.free = append(q.free, c)
	}
}

// take waits for the next chunk.
func (q *srtQueue) take(ctx context.Context) (*srtChunk, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		q.mu.Lock()
		if len(q.chunks) > 0 {
			c := q.chunks[0]
			q.chunks[0] = nil
			q.chunks = q.chunks[1:]
			if len(q.chunks) == 0 {
				q.chunks = nil
			}
			q.bytes -= len(c.data)
			q.mu.Unlock()
			return c, nil
		}
		err := q.err
		q.mu.Unlock()
		if err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
		case <-q.wake:
		}
	}
}
