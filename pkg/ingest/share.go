package ingest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// shareMost is how many bytes wait for a reader that does not keep up. What
// comes beyond is lost to it, as it is where a socket's buffer is full.
const shareMost = defaultBuffer

// Hub opens sources so that those of one address are heard from one socket:
// the streams of a multiplex, or a stream that is recorded twice. The zero
// value is ready to use, by any number of goroutines.
//
// A source with one reader is read by it directly, as Open's is. With several,
// whichever reader finds nothing waiting for it reads the socket for all, and
// each gets the batches in a queue of its own: a slow one loses what its queue
// cannot hold, told as Dropped, and delays nobody.
type Hub struct {
	mu   sync.Mutex
	open map[string]*shared
}

// Open opens a source as the function Open does. Where the same URL, but for
// its program (see SplitProgram), is open in this Hub with the same interface,
// it is heard from there: Clock, Log and Arrived are the first opener's. That
// goes for sources that are datagrams (see Shared); others are opened each
// time. Stats count from when the reader came.
func (h *Hub) Open(ctx context.Context, url string, opt Options) (Source, error) {
	url, _, err := SplitProgram(url)
	if err != nil {
		return nil, err
	}
	if !Shared(url) {
		return Open(ctx, url, opt)
	}
	key := shareKey(url, opt)
	for {
		s, mine := h.entry(key)
		if mine {
			s.src, s.failed = Open(ctx, url, opt)
			if s.failed != nil {
				h.drop(s)
				close(s.ready)
				return nil, s.failed
			}
			s.detacher, _ = s.src.(detacher)
			close(s.ready)
		} else {
			select {
			case <-s.ready:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		if r := h.join(s); r != nil {
			return r, nil
		}
		// It could not be opened, has failed or was closed meanwhile.
	}
}

// shareKey is equal for URLs that say the same.
func shareKey(url string, opt Options) string {
	scheme, rest := splitScheme(url)
	base, query, _ := strings.Cut(strings.TrimPrefix(rest, "//"), "?")
	options := strings.Split(query, "&")
	slices.Sort(options)
	base = strings.ReplaceAll(strings.TrimSuffix(","+base, "/"), ",@", ",")
	return strings.Join(append([]string{scheme, base, opt.Interface}, options...), "&")
}

// entry returns the source of a key; mine says that the caller has to open it.
func (h *Hub) entry(key string) (s *shared, mine bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.open[key]; s != nil {
		return s, false
	}
	s = &shared{hub: h, key: key, ready: make(chan struct{})}
	if h.open == nil {
		h.open = map[string]*shared{}
	}
	h.open[key] = s
	return s, true
}

// drop takes a source out, so that the next Open opens it anew.
func (h *Hub) drop(s *shared) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropLocked(s)
}

func (h *Hub) dropLocked(s *shared) {
	if h.open[s.key] == s {
		delete(h.open, s.key)
	}
}

// join adds a reader, or returns nil if the source is no more.
func (h *Hub) join(s *shared) *shareReader {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open[s.key] != s {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &shareReader{s: s, wake: make(chan struct{}, 1), base: s.src.Stats()}
	s.readers = append(s.readers, r)
	return r
}

// detacher is a source that can leave its last batch, with its memory, to
// whoever still reads it, until that calls done.
type detacher interface {
	detach() (done func(), err error)
}

// shared is a source that readers have in common.
type shared struct {
	hub      *Hub
	key      string
	ready    chan struct{} // closed when it is open or has failed to
	src      Source
	detacher detacher // src, or nil

	mu      sync.Mutex
	readers []*shareReader
	reading bool         // somebody reads src
	holder  *shareReader // has the last batch of src as it was delivered, or nil
	failed  error        // of src, for good
	free    []*shareBlock
}

// shareBlock is a batch that several readers have.
type shareBlock struct {
	Batch
	buf  []byte
	size int // bytes
	refs int // readers that have it; guarded by shared.mu
}

// cost is what a block adds to a queue.
func (k *shareBlock) cost() int { return k.size + 256 }

// shareReader is one reader's Source.
type shareReader struct {
	s     *shared
	wake  chan struct{} // something has changed for it
	base  Stats         // of the source when it came
	batch Batch

	// guarded by s.mu:
	queue   []shareItem
	size    int
	missed  uint32      // datagrams dropped since the last item of the queue
	splice  bool        // ... and there was a splice among them
	block   *shareBlock // that its last batch lies in
	done    func()      // gives back the memory that its last batch lies in
	closed  bool
	dropped atomic.Uint64
}

// shareItem is a block in a reader's queue.
type shareItem struct {
	block  *shareBlock
	missed uint32 // dropped before it
	splice bool
}

// Read implements Source.
func (r *shareReader) Read(ctx context.Context) (*Batch, error) {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	r.letGo()
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		switch {
		case r.closed:
			return nil, fmt.Errorf("source %q is closed", s.key)
		case len(r.queue) > 0:
			return r.pop(), nil
		case s.failed != nil:
			return nil, s.failed
		case !s.reading && s.available():
			if b, err := s.read(ctx, r); b != nil || err != nil {
				return b, err
			}
			continue
		}
		s.mu.Unlock()
		select {
		case <-r.wake:
		case <-ctx.Done():
		}
		s.mu.Lock()
	}
}

// available says whether the source can be read. A batch that a reader has as
// the source delivered it is left to that.
func (s *shared) available() bool {
	if s.holder == nil {
		return true
	}
	if s.detacher == nil {
		return false
	}
	done, err := s.detacher.detach()
	if err != nil {
		return false // no memory: the holder will read on
	}
	s.holder.done, s.holder = done, nil
	return true
}

// read reads the source for all readers, called and returning with s.mu held.
// Both results are nil when somebody else should.
func (s *shared) read(ctx context.Context, r *shareReader) (*Batch, error) {
	s.reading = true
	s.mu.Unlock()
	b, err := s.src.Read(ctx)
	s.mu.Lock()
	s.reading = false
	defer s.wakeAll(r)
	if err != nil {
		if ctx.Err() == nil {
			s.failed = err
			s.mu.Unlock()
			s.hub.drop(s)
			s.mu.Lock()
		}
		return nil, err
	}
	if len(s.readers) == 1 && s.readers[0] == r && s.detacher != nil {
		s.holder = r
		r.batch = *b
		return &r.batch, nil
	}
	k := s.block(b)
	for _, o := range s.readers {
		o.push(k)
	}
	s.unref(k)
	if len(r.queue) == 0 {
		return nil, nil // it is closed
	}
	return r.pop(), nil
}

// wakeAll lets the readers that wait look again.
func (s *shared) wakeAll(but *shareReader) {
	for _, o := range s.readers {
		if o == but {
			continue
		}
		select {
		case o.wake <- struct{}{}:
		default:
		}
	}
}

// block copies a batch, with one reference.
func (s *shared) block(b *Batch) *shareBlock {
	k := &shareBlock{}
	if n := len(s.free); n > 0 {
		k, s.free = s.free[n-1], s.free[:n-1]
	}
	size := 0
	for _, d := range b.Datagrams {
		size += len(d)
	}
	if cap(k.buf) < size {
		k.buf = make([]byte, 0, size)
	}
	list := k.Datagrams[:0]
	buf := k.buf[:0]
	for _, d := range b.Datagrams {
		at := len(buf)
		buf = append(buf, d...)
		list = append(list, buf[at:len(buf):len(buf)])
	}
	k.Batch, k.buf, k.size, k.refs = *b, buf, size, 1
	k.Datagrams = list
	return k
}

func (s *shared) unref(k *shareBlock) {
	if k.refs--; k.refs == 0 && len(s.free) < 8 {
		s.free = append(s.free, k)
	}
}

// push gives a block to a reader, or counts it as dropped where too much waits.
func (r *shareReader) push(k *shareBlock) {
	if len(r.queue) > 0 && r.size+k.cost() > shareMost {
		r.missed += uint32(len(k.Datagrams)) + k.Dropped + k.Lost
		r.splice = r.splice || k.Splice
		r.dropped.Add(uint64(len(k.Datagrams)))
		return
	}
	k.refs++
	r.queue = append(r.queue, shareItem{k, r.missed, r.splice})
	r.size += k.cost()
	r.missed, r.splice = 0, false
}

// pop makes a batch of the first block of the queue.
func (r *shareReader) pop() *Batch {
	it := r.queue[0]
	r.queue[0] = shareItem{}
	r.queue = append(r.queue[:0], r.queue[1:]...)
	r.size -= it.block.cost()
	r.block = it.block
	r.batch = it.block.Batch
	r.batch.Dropped += it.missed
	r.batch.Splice = r.batch.Splice || it.splice
	return &r.batch
}

// letGo gives back what the last batch lay in.
func (r *shareReader) letGo() {
	if r.block != nil {
		r.s.unref(r.block)
		r.block = nil
	}
	if r.done != nil {
		r.done()
		r.done = nil
	}
	if r.s.holder == r {
		r.s.holder = nil
	}
}

// Close implements Source. The last reader closes the source.
func (r *shareReader) Close() error {
	s := r.s
	s.hub.mu.Lock() // nobody opens the address before it is closed
	defer s.hub.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	r.letGo()
	for _, it := range r.queue {
		s.unref(it.block)
	}
	r.queue = nil
	s.readers = slices.DeleteFunc(s.readers, func(o *shareReader) bool { return o == r })
	if len(s.readers) > 0 {
		s.wakeAll(r)
		return nil
	}
	s.hub.dropLocked(s)
	return s.src.Close()
}

// Stats implements Source: of the shared source since this reader came, with
// what its own queue could not hold.
func (r *shareReader) Stats() Stats {
	st, base := r.s.src.Stats(), r.base
	st.Packets -= base.Packets
	st.Bytes -= base.Bytes
	st.Dropped += r.dropped.Load() - base.Dropped
	st.Truncated -= base.Truncated
	st.Lost -= base.Lost
	st.Reordered -= base.Reordered
	st.Duplicates -= base.Duplicates
	st.Recovered -= base.Recovered
	st.Errors -= base.Errors
	st.Reconnects -= base.Reconnects
	if st.LastArrival.Equal(base.LastArrival) {
		st.LastArrival = time.Time{}
	}
	return st
}
