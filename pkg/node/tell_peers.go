package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/m4f"
)

const (
	// peersEvery is how often it is looked at what peers do.
	peersEvery = 5 * time.Second
	// peerGone is for how long a peer must be out of reach before it is an event.
	peerGone = 15 * time.Second
	// healsQuiet is how long nothing must be healed before it is told what was, and
	// healsMost how long that is put off at most.
	healsQuiet = time.Minute
	healsMost  = 10 * time.Minute
)

// peerTeller tells of a stream's peers that are lost and come back, and of what was
// healed from them, as events.
type peerTeller struct {
	s     *stream
	gone  map[*link]time.Time // since when peers have been out of reach; zero: it was told
	heals heals
}

func newPeerTeller(s *stream) *peerTeller {
	return &peerTeller{s: s, gone: map[*link]time.Time{}}
}

func (t *peerTeller) String() string { return "peers of " + t.s.cfg.Name }

// Serve implements suture.Service.
func (t *peerTeller) Serve(ctx context.Context) error {
	for t.s.node.pause(ctx, peersEvery) {
		now := t.s.node.now()
		for _, l := range t.s.replicas() {
			t.look(l, l.reachable(), now)
		}
		t.tellHeals(now, false)
	}
	t.tellHeals(t.s.node.now(), true)
	return ctx.Err()
}

// look judges a peer once.
func (t *peerTeller) look(l *link, reachable bool, now time.Time) {
	since, gone := t.gone[l]
	switch {
	case reachable && gone:
		delete(t.gone, l)
		if since.IsZero() {
			t.s.note(event.Event{Kind: event.PeerBack, Msg: "the peer " + l.url() + " can be reached again", Attrs: map[string]any{"peer": l.url()}})
		}
	case reachable:
	case !gone:
		t.gone[l] = now
	case !since.IsZero() && now.Sub(since) >= peerGone:
		t.gone[l] = time.Time{}
		t.s.note(event.Event{Kind: event.PeerLost, Msg: "the peer " + l.url() + " is out of reach: the archive is not replicated with it", Attrs: map[string]any{"peer": l.url()}})
	}
}

func (t *peerTeller) tellHeals(now time.Time, end bool) {
	h, ok := t.heals.done(now, end)
	if !ok {
		return
	}
	t.s.note(event.Event{
		Kind: event.Heal, Msg: fmt.Sprintf("%d segments between %s and %s were healed from peers, %s", h.segments, h.from.Time().Format(time.RFC3339), h.to.Time().Format(time.RFC3339), archive.NearBytes(h.bytes)),
		Attrs: map[string]any{"segments": h.segments, "bytes": h.bytes, "from": h.from.Time(), "to": h.to.Time()},
	})
}

// healSum is what was healed in a while.
type healSum struct {
	segments  int
	bytes     int64
	from, to  m4f.UTC
	first, at time.Time // when that began, and when it went on last
}

// heals sums up what is healed until it is told.
type heals struct {
	mu  sync.Mutex
	sum healSum
}

// add takes a segment that was added to the archive.
func (h *heals) add(r *archive.Record, now time.Time) {
	if r.Origin != archive.Healed {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &h.sum
	if s.segments == 0 {
		*s = healSum{from: r.UTC, first: now}
	}
	s.segments++
	s.bytes += int64(r.Length)
	s.from, s.to, s.at = min(s.from, r.UTC), max(s.to, r.End()), now
}

// done returns what is to be told now.
func (h *heals) done(now time.Time, end bool) (healSum, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.sum
	if s.segments == 0 || !end && now.Sub(s.at) < healsQuiet && now.Sub(s.first) < healsMost {
		return healSum{}, false
	}
	h.sum = healSum{}
	return s, true
}
