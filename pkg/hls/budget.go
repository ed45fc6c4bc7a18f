package hls

import (
	"context"
	"errors"
	"sync"
)

const (
	// maxHeld are the bytes of segments that all playlists of one stream hold
	// together: those being fetched, those that wait, and those being read.
	maxHeld = 256 << 20
	// maxAhead of these may be of segments that are fetched while another of
	// the same playlist is yet to be read.
	maxAhead = 64 << 20
	maxNow   = maxHeld - maxAhead
)

// errBudget is why a segment is not taken that has nothing to wait for.
var errBudget = errors.New("the segments of all the stream's playlists together are larger than can be held")

// budget shares maxHeld among the playlists of a stream.
//
// A playlist of which nothing is held may be the one that the reader waits for:
// it never waits itself, and takes of maxNow, where no playlist can have more
// than one segment. Others take of maxAhead, and wait for it: once their own
// segments have been read, they are of the first kind. So nothing waits for
// ever.
type budget struct {
	mu      sync.Mutex
	now     int64
	ahead   int64
	most    int64         // that were held at once
	changed chan struct{} // closed when there is more
}

// claim is what one segment holds.
type claim struct {
	b          *budget
	lane       *lane
	now, ahead int64
	counted    bool // among the lane's
}

// lane counts the segments of a playlist that are yet to be released.
type lane struct{ held int }

func newBudget() *budget { return &budget{changed: make(chan struct{})} }

// claim begins with nothing.
func (b *budget) claim(l *lane) *claim { return &claim{b: b, lane: l} }

// take claims n bytes more. waits is called around a wait, with true and then
// with false.
func (c *claim) take(ctx context.Context, n int64, waits func(bool)) error {
	for waiting := false; ; waiting = true {
		ok, changed, err := c.try(n)
		if ok || err != nil {
			if waiting {
				waits(false)
			}
			return err
		}
		if !waiting {
			waits(true)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *claim) try(n int64) (bool, <-chan struct{}, error) {
	b := c.b
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case c.lane.held == 0 && b.now+n > maxNow:
		return false, nil, errBudget
	case c.lane.held == 0:
		b.now, c.now = b.now+n, c.now+n
	case b.ahead+n > maxAhead:
		return false, b.changed, nil
	default:
		b.ahead, c.ahead = b.ahead+n, c.ahead+n
	}
	b.most = max(b.most, b.now+b.ahead)
	return true, nil, nil
}

// give gives n bytes of the claim back.
func (c *claim) give(n int64) {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	k := min(n, c.ahead)
	c.ahead, c.b.ahead = c.ahead-k, c.b.ahead-k
	n = min(n-k, c.now)
	c.now, c.b.now = c.now-n, c.b.now-n
	c.b.wake()
}

// whole says that the segment is there: until it is released its playlist is
// not waited for.
func (c *claim) whole() {
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	c.lane.held++
	c.counted = true
}

// release gives all back. It may be called again.
func (c *claim) release() {
	c.give(1 << 62)
	c.b.mu.Lock()
	defer c.b.mu.Unlock()
	if c.counted {
		c.counted = false
		c.lane.held--
		c.b.wake()
	}
}

func (b *budget) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}
