package m4fhttp

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// TestTogether reads a segment once for all followers, also for one that comes to it
// when the others are done, and keeps nothing when all have left.
func TestTogether(t *testing.T) {
	var tog together
	var leave []func()
	for range 8 {
		leave = append(leave, tog.join("a"))
	}
	var reads atomic.Int64
	h := &m4f.Header{ID: m4f.Identity{1}, Length: 4}
	take := func() {
		media, done := tog.take("a", h, func() (*m4f.Segment, error) {
			reads.Add(1)
			return &m4f.Segment{Media: []byte("moof")}, nil
		})
		if string(media) != "moof" {
			t.Errorf("got %q", media)
			return
		}
		done()
	}
	var all sync.WaitGroup
	for range 7 {
		all.Go(take)
	}
	all.Wait()
	take()
	if n := reads.Load(); n != 1 || tog.bytes != 4 {
		t.Errorf("%d readings, %d bytes are kept", n, tog.bytes)
	}
	h.ID[0] = 2 // the next one takes its place
	take()
	if n := reads.Load(); n != 2 || tog.bytes != 4 {
		t.Errorf("%d readings, %d bytes are kept", n, tog.bytes)
	}
	for _, f := range leave {
		f()
	}
	if len(tog.streams) != 0 || tog.bytes != 0 {
		t.Errorf("%d streams and %d bytes are left", len(tog.streams), tog.bytes)
	}
}

// TestTogetherIsBounded sends whoever would take too much memory, is alone, or asks
// for what cannot be read, to the file.
func TestTogetherIsBounded(t *testing.T) {
	var tog together
	read := func() (*m4f.Segment, error) { return &m4f.Segment{Media: []byte("x")}, nil }
	take := func(id byte, size uint64, read func() (*m4f.Segment, error)) func() {
		media, done := tog.take("a", &m4f.Header{ID: m4f.Identity{id}, Length: size}, read)
		if (media == nil) != (done == nil) {
			t.Fatal("media without its end, or an end without media")
		}
		return done
	}
	defer tog.join("a")()
	if take(1, 1, read) != nil {
		t.Error("one that is alone shares")
	}
	defer tog.join("a")()
	if take(2, 1, func() (*m4f.Segment, error) { return nil, errors.New("unreadable") }) != nil {
		t.Error("what cannot be read is given")
	}
	big := take(3, maxTogether-1, read)
	if big == nil {
		t.Fatal("a large one is not taken")
	}
	if take(4, 2, read) != nil {
		t.Error("more than there is room for")
	}
	small := take(5, 1, read)
	if small == nil {
		t.Fatal("there was room")
	}
	big()
	small()
}
