package m4fhttp

import (
	"sync"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// maxTogether bounds the media in memory that followers are sent, in bytes. Where
// there is no room a follower gets its segment from the file, as one that is alone
// does.
const maxTogether = 64 << 20

// together gives the followers of a stream each segment out of one reading. The
// newest stays in memory while there are two, for those that come to it later.
type together struct {
	mu      sync.Mutex
	streams map[string]*followed // by directory
	bytes   int64                // in memory, or on their way there
}

// followed is a stream that somebody follows. Its fields are guarded by
// together.mu.
type followed struct {
	followers int
	reading   map[m4f.Identity]*reading
	newest    *reading // also in reading; nil: none
}

// reading is a segment that is being read, or was.
type reading struct {
	id    m4f.Identity
	size  int64
	users int           // those that send it, and followed.newest; guarded by together.mu
	done  chan struct{} // closed when it has been read
	media []byte        // nil: it could not be
}

// join takes note of a follower of the stream in dir, until leave is called.
func (t *together) join(dir string) (leave func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.streams[dir]
	if f == nil {
		f = &followed{reading: map[m4f.Identity]*reading{}}
		if t.streams == nil {
			t.streams = map[string]*followed{}
		}
		t.streams[dir] = f
	}
	f.followers++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if f.followers--; f.followers < 2 && f.newest != nil {
			t.release(f, f.newest)
			f.newest = nil
		}
		if f.followers == 0 {
			delete(t.streams, dir)
		}
	}
}

// take returns the media of a segment, read by this call or another one, until done
// is called. It is nil for a follower that is alone, where there is no room, and
// where read returns an error. The media is shared, not to be modified.
func (t *together) take(dir string, h *m4f.Header, read func() (*m4f.Segment, error)) (media []byte, done func()) {
	t.mu.Lock()
	f := t.streams[dir]
	if f == nil || f.followers < 2 {
		t.mu.Unlock()
		return nil, nil
	}
	r := f.reading[h.ID]
	mine := r == nil
	if mine {
		size := int64(h.Length)
		if t.bytes > 0 && t.bytes+size > maxTogether {
			t.mu.Unlock()
			return nil, nil
		}
		r = &reading{id: h.ID, size: size, users: 1, done: make(chan struct{})}
		t.bytes += size
		f.reading[h.ID] = r
		if f.newest != nil {
			t.release(f, f.newest)
		}
		f.newest = r
	}
	r.users++
	t.mu.Unlock()
	if mine {
		if seg, err := read(); err == nil {
			r.media = seg.Media
		}
		close(r.done)
	}
	<-r.done // a disk that hangs holds up whoever reads the file, too
	done = func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.release(f, r)
	}
	if r.media == nil {
		done()
		return nil, nil
	}
	return r.media, done
}

// release ends a use of a reading. The caller holds the lock.
func (t *together) release(f *followed, r *reading) {
	if r.users--; r.users == 0 {
		delete(f.reading, r.id)
		t.bytes -= r.size
	}
}
