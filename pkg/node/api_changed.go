package node

import (
	"context"
	"sync"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

const (
	// changedEvery is how often a stream's changes are passed on at most.
	changedEvery = time.Second
	// liveEdge is how far behind the end of an archive a segment may begin that
	// comes in its turn.
	liveEdge = 15 * m4f.Timescale
)

// changeTeller passes on in which span an archive has changed elsewhere than at
// its end: where it was healed, by whomever.
type changeTeller struct {
	s *stream

	mu       sync.Mutex
	from, to m4f.UTC     // not passed on yet; to 0: nothing
	timer    *time.Timer // set while there is something
	newest   m4f.UTC
}

func (c *changeTeller) String() string { return "changes of " + c.s.cfg.Name }

// Serve implements suture.Service.
func (c *changeTeller) Serve(ctx context.Context) error {
	defer c.stop()
	for {
		a := c.s.archive()
		if info, err := a.Info(); err == nil {
			c.newest = info.Newest
		}
		if cursor, err := a.End(); err == nil {
			_ = a.Changes(ctx, cursor, func(r archive.Record, _ archive.Cursor) error {
				c.take(&r)
				return nil
			}) // whatever ends it: it begins again from the end there is then
		}
		if !c.s.node.pause(ctx, retryOpen) {
			return ctx.Err()
		}
	}
}

// take looks at a segment that was added.
func (c *changeTeller) take(r *archive.Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	behind := r.Origin == archive.Healed || r.UTC < c.newest.Add(-liveEdge)
	c.newest = max(c.newest, r.End())
	if !behind {
		return
	}
	if c.to == 0 {
		c.from = r.UTC
		c.timer = time.AfterFunc(changedEvery, c.tell)
	}
	c.from, c.to = min(c.from, r.UTC), max(c.to, r.End())
}

func (c *changeTeller) tell() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.to != 0 {
		c.s.node.news.Changed(c.s.cfg.Name, c.from, c.to)
	}
	c.to = 0
}

func (c *changeTeller) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
	}
	c.to = 0
}
