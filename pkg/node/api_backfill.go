package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/replicate"
	"github.com/twindvr/twindvr/pkg/serve"
)

// asked are the backfills of a stream that the API was asked for: one at a time.
type asked struct {
	orders chan fillOrder // capacity 1

	mu   sync.Mutex
	last *serve.Backfill // nil: none was asked for yet
}

func newAsked() asked { return asked{orders: make(chan fillOrder, 1)} }

// fillOrder is a span to be filled, and from whom.
type fillOrder struct {
	from, to m4f.UTC
	peers    []serve.Peer
}

// status returns a copy of how the last backfill stands.
func (b *asked) status() *serve.Backfill {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last == nil {
		return nil
	}
	out := *b.last
	return &out
}

// update changes how the last backfill stands.
func (b *asked) update(fn func(*serve.Backfill)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fn(b.last)
}

// Backfill implements serve.Supervised.
func (n *Node) Backfill(o serve.BackfillOrder) (*serve.Backfill, error) {
	s := n.find(o.Stream)
	if s == nil {
		return nil, m4fhttp.ErrNoStream
	}
	peers, err := n.fillers(&o)
	if err != nil {
		return nil, err
	}
	order, err := s.fillOrder(&o, peers)
	if err != nil {
		return nil, err
	}
	return s.asked.take(order, n.now(), o.Stream)
}

// take has an order carried out, unless another one is under way.
func (b *asked) take(order fillOrder, now time.Time, stream string) (*serve.Backfill, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.last; l != nil && l.Ended == nil {
		return nil, m4fhttp.Problemf(http.StatusConflict, "a backfill of %s from %v to %v is under way; wait for its end, GET /api/v1/streams shows how far it is", stream, l.From, l.To)
	}
	l := &serve.Backfill{
		Stream: stream, From: serve.Time(order.from), To: serve.Time(order.to), State: serve.BackfillWaiting, Began: *stamp(now), Peers: []string{},
	}
	for _, p := range order.peers {
		l.Peers = append(l.Peers, p.URL)
	}
	select {
	case b.orders <- order:
	default: // one was taken back by a stream that began anew
		return nil, m4fhttp.Problemf(http.StatusConflict, "a backfill of %s is about to begin; ask again in a moment", stream)
	}
	b.last = l
	out := *l
	return &out, nil
}

// fillers are the peers that an order is to be filled from.
func (n *Node) fillers(o *serve.BackfillOrder) ([]serve.Peer, error) {
	peers := n.Peers(o.Stream)
	if len(peers) == 0 {
		return nil, m4fhttp.Problemf(http.StatusConflict, "the stream %s has no peers to fetch from; give it an m4f:// input", o.Stream)
	}
	if o.Peer == "" {
		return peers, nil
	}
	i := slices.IndexFunc(peers, func(p serve.Peer) bool { return p.URL == o.Peer })
	if i < 0 {
		var urls []string
		for _, p := range peers {
			urls = append(urls, p.URL)
		}
		return nil, m4fhttp.Problemf(http.StatusNotFound, "%s is no peer of the stream %s; its peers are %s", m4fhttp.Clip(o.Peer), o.Stream, strings.Join(urls, ", "))
	}
	return peers[i : i+1], nil
}

// fillOrder checks a span against what the archive keeps. One that is older than
// its depth would be fetched and pruned again.
func (s *stream) fillOrder(o *serve.BackfillOrder, peers []serve.Peer) (fillOrder, error) {
	now := m4f.UTCOf(s.node.now())
	order := fillOrder{from: o.From, to: o.To, peers: peers}
	if order.to == 0 {
		order.to = now
	}
	a := s.archive()
	if a == nil {
		return order, m4fhttp.Problemf(http.StatusServiceUnavailable, "the archive of %s is not open; GET /api/v1/streams says why", o.Stream)
	}
	oldest := now.Add(-m4f.Ticks(s.cfg.DVR.Depth))
	if order.from == 0 {
		horizon, err := a.Horizon()
		if err != nil {
			return order, err
		}
		order.from = max(oldest, horizon)
	}
	if order.from >= order.to {
		return order, m4fhttp.Problemf(http.StatusUnprocessableEntity, "the span ends before what the archive keeps begins: %v; keep it first (POST /api/v1/keeps)", serve.Time(oldest))
	}
	takes, err := a.Takes(order.from, order.to)
	if err != nil || takes {
		return order, err
	}
	if order.from < oldest {
		return order, m4fhttp.Problemf(http.StatusUnprocessableEntity, "the span begins before what the archive keeps, %v, and what is fetched would be pruned again; keep it first (POST /api/v1/keeps), or begin later", serve.Time(oldest))
	}
	// It was pruned when the depth was less: that it is asked for is the wish to
	// have it again.
	return order, a.SetHorizon(order.from)
}

// orderly carries out the backfills that were asked for.
type orderly struct{ s *stream }

func (b *orderly) String() string { return "backfill of " + b.s.cfg.Name }

// Serve implements suture.Service.
func (b *orderly) Serve(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case o := <-b.s.asked.orders:
			b.run(ctx, &o)
		}
	}
}

// run fetches from one peer after the other.
func (b *orderly) run(ctx context.Context, o *fillOrder) {
	st := &b.s.asked
	var failed []error
	defer func() {
		now := b.s.node.now()
		st.update(func(l *serve.Backfill) {
			l.State, l.Ended, l.LeftBytes, l.ETA = serve.BackfillDone, stamp(now), 0, nil
			if err := errors.Join(failed...); err != nil {
				l.State, l.Error = serve.BackfillFailed, err.Error()
			}
		})
		b.tell()
	}()
	for _, p := range o.peers {
		if err := b.from(ctx, o, p); err != nil {
			failed = append(failed, err)
		}
		if ctx.Err() != nil {
			failed = []error{errors.New("the stream was stopped meanwhile")}
			return
		}
	}
}

// from fetches from one peer.
func (b *orderly) from(ctx context.Context, o *fillOrder, p serve.Peer) error {
	s := b.s
	var before serve.Backfill // what the peers before have given
	began := s.node.now()
	s.asked.update(func(l *serve.Backfill) {
		l.State, l.Peer, l.LeftBytes, l.ETA = serve.BackfillRunning, p.URL, 0, nil
		before = *l
	})
	a := s.archive()
	if a == nil {
		return errors.New("the archive is not open")
	}
	res, err := replicate.Backfill(ctx, a, replicate.Peer{Client: p.Client}, replicate.BackfillOptions{
		From: o.from, To: o.to, Healer: s.healer(), Limit: s.share.Limit, Share: s.share, Order: replicate.Oldest,
		Writer: archive.WriterOptions{}, Log: s.log,
		Progress: func(p replicate.Progress) {
			took := s.node.since(began).Seconds()
			s.asked.update(func(l *serve.Backfill) {
				l.Segments, l.Bytes, l.LeftBytes, l.ETA = before.Segments+p.Segments, before.Bytes+p.Bytes, p.Left, nil
				if p.Bytes > 0 && took > 0 {
					eta := float64(p.Left) / (float64(p.Bytes) / took)
					l.ETA = &eta
				}
			})
		},
	})
	s.asked.update(func(l *serve.Backfill) {
		l.Segments, l.Bytes = before.Segments+res.Segments+res.Copied+res.Healed.Segments, before.Bytes+res.Bytes
		l.Left = res.Left // of the last peer: what none of them had
	})
	return err
}

// tell says what came of a backfill.
func (b *orderly) tell() {
	l := b.s.asked.status()
	b.s.log.Info("a backfill that was asked for has ended", "from", l.From, "to", l.To, "segments", l.Segments, "bytes", l.Bytes, "left", l.Left, "err", l.Error)
	if e, ok := backfilled(l); ok {
		b.s.note(e)
	}
}

// backfilled is the event of a backfill. One that brought nothing has healed nothing:
// there is none.
func backfilled(l *serve.Backfill) (e event.Event, ok bool) {
	if l.Segments == 0 {
		return e, false
	}
	msg := fmt.Sprintf("a backfill that was asked for, of %v to %v, brought %d segments", l.From, l.To, l.Segments)
	if l.Error != "" {
		msg += ", and then failed: " + l.Error
	} else if l.Left > 0 {
		msg += fmt.Sprintf("; %d could not be had", l.Left)
	}
	return event.Event{Kind: event.Heal, Msg: msg, Attrs: map[string]any{"segments": l.Segments, "bytes": l.Bytes, "left": l.Left}}, true
}
