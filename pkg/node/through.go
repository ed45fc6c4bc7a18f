package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/replicate"
	"github.com/twindvr/twindvr/pkg/serve"
)

var _ serve.Healer = (*Node)(nil)

// through fetches what is played and is not here: from the peers, into the
// archive. What it fetches is fetched once, however many wait for it, and goes on
// for as long as somebody does. Recording goes first, as for all filling.
type through struct {
	s      *stream
	fill   func(context.Context, spanKey) error
	places chan struct{} // for fetches under way

	mu      sync.Mutex
	ctx     context.Context // of the stream while it runs; nil: it does not
	work    sync.WaitGroup
	fetches map[spanKey]*playFetch
	offers  map[spanKey]*offer
	// Fetched since that was told last.
	segments int
	bytes    int64
	told     time.Time
}

type spanKey struct{ from, to m4f.UTC }

// playFetch is a span that is being fetched.
type playFetch struct {
	cancel  context.CancelFunc
	waiting int           // how many wait for it
	done    chan struct{} // closed at its end
	err     error
}

// offer is what peers have of a span.
type offer struct {
	once    chan struct{} // closed when it is known
	records []archive.Record
	err     error     // serve.ErrUnasked, or nil
	at      time.Time // when it was asked for
}

const (
	// playFetches is how many spans of a stream are fetched at once, and
	// waitingFetches how many there are in all.
	playFetches    = 4
	waitingFetches = 64
	// offerFor is for how long what peers have said is believed, and offerTime how
	// long they have to say it.
	offerFor  = time.Second
	offerTime = 2 * time.Second
	// mostOffers bounds what is remembered of that.
	mostOffers = 256
)

func newThrough(s *stream) *through {
	t := &through{s: s, places: make(chan struct{}, playFetches), fetches: map[spanKey]*playFetch{}, offers: map[spanKey]*offer{}}
	t.fill = t.fromPeers
	return t
}

func (t *through) String() string { return "fetching what is played of " + t.s.cfg.Name }

// Serve implements suture.Service: while it runs, something may be fetched.
func (t *through) Serve(ctx context.Context) error {
	t.mu.Lock()
	t.ctx = ctx
	t.mu.Unlock()
	<-ctx.Done()
	t.mu.Lock()
	t.ctx = nil
	t.mu.Unlock()
	t.work.Wait()
	return ctx.Err()
}

// Offered implements serve.Healer.
func (n *Node) Offered(ctx context.Context, stream string, from, to m4f.UTC) ([]archive.Record, error) {
	s := n.find(stream)
	if s == nil {
		return nil, m4fhttp.ErrNoStream
	}
	from, err := s.keepsFrom(from, to)
	if err != nil || from >= to {
		return nil, err
	}
	return s.through.offered(ctx, spanKey{from, to})
}

// Heal implements serve.Healer.
func (n *Node) Heal(ctx context.Context, stream string, from, to m4f.UTC) error {
	s := n.find(stream)
	if s == nil {
		return m4fhttp.ErrNoStream
	}
	from, err := s.keepsFrom(from, to)
	if err != nil {
		return err
	}
	if from >= to {
		return fmt.Errorf("the span is older than what the archive of %s keeps", stream)
	}
	return s.through.fetch(ctx, spanKey{from, to})
}

// keepsFrom is from when on something of a span that is fetched would be kept:
// the rest is older than the archive's depth.
func (s *stream) keepsFrom(from, to m4f.UTC) (m4f.UTC, error) {
	a := s.archive()
	if a == nil {
		return to, nil
	}
	oldest := m4f.UTCOf(s.node.now()).Add(-m4f.Ticks(s.cfg.DVR.Depth))
	horizon, err := a.Horizon()
	if err != nil {
		return to, err
	}
	if from >= max(oldest, horizon) {
		return from, nil
	}
	if kept, err := a.Takes(from, to); err != nil || kept && horizon > from {
		return from, err // a span that is kept
	}
	return max(from, oldest, horizon), nil
}

// offered asks the peers what they have of a span, or remembers.
func (t *through) offered(ctx context.Context, key spanKey) ([]archive.Record, error) {
	now := t.s.node.now()
	t.mu.Lock()
	o := t.offers[key]
	if o == nil || now.Sub(o.at) > offerFor || now.Before(o.at) {
		if t.ctx == nil || t.ctx.Err() != nil {
			t.mu.Unlock()
			return nil, nil
		}
		o = &offer{once: make(chan struct{}), at: now}
		t.forget(now)
		t.offers[key] = o
		t.work.Add(1)
		go t.ask(t.ctx, key, o)
	}
	t.mu.Unlock()
	select {
	case <-o.once:
		return o.records, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// forget drops what is no longer believed. The caller holds the lock.
func (t *through) forget(now time.Time) {
	if len(t.offers) < mostOffers {
		return
	}
	for k, o := range t.offers {
		if now.Sub(o.at) > offerFor {
			delete(t.offers, k)
		}
	}
	if len(t.offers) >= mostOffers {
		clear(t.offers)
	}
}

// ask asks all peers at once.
func (t *through) ask(ctx context.Context, key spanKey, o *offer) {
	defer t.work.Done()
	defer close(o.once)
	ctx, cancel := context.WithTimeout(ctx, offerTime)
	defer cancel()
	peers, all := t.peers()
	lists := make([][]archive.Element, len(peers))
	failed := make([]bool, len(peers))
	var wg sync.WaitGroup
	for i, p := range peers {
		wg.Go(func() {
			list, err := p.Client.Segments(ctx, key.from, key.to)
			if err != nil {
				t.s.log.Debug("a peer does not say what it has of what is played", "peer", p.URL, "err", err)
				failed[i] = true
				return
			}
			lists[i] = list
		})
	}
	wg.Wait()
	if !all || slices.Contains(failed, true) {
		o.err = serve.ErrUnasked
	}
	for _, list := range lists {
		for i := range list {
			o.records = append(o.records, list[i].Record)
		}
	}
}

// peers are those that answer, each once; all: no other is configured.
func (t *through) peers() (list []serve.Peer, all bool) {
	all = true
	for _, l := range t.s.allLinks() {
		if !l.reachable() {
			all = false
			continue
		}
		l.mu.Lock()
		p := serve.Peer{URL: l.url(), Client: l.client}
		l.mu.Unlock()
		if p.Client != nil && !slices.ContainsFunc(list, func(q serve.Peer) bool { return q.URL == p.URL }) {
			list = append(list, p)
		}
	}
	return list, all
}

// errManyFetches is the error of those who ask for more while too much is fetched.
var errManyFetches = errors.New("too much is being fetched from peers for those who play; try again in a moment")

// fetch has a span fetched and waits for that.
func (t *through) fetch(ctx context.Context, key spanKey) error {
	t.mu.Lock()
	f := t.fetches[key]
	switch {
	case f != nil:
	case t.ctx == nil || t.ctx.Err() != nil:
		t.mu.Unlock()
		return errors.New("the stream is not running")
	case len(t.fetches) >= waitingFetches:
		t.mu.Unlock()
		return errManyFetches
	default:
		fctx, cancel := context.WithCancel(t.ctx)
		f = &playFetch{cancel: cancel, done: make(chan struct{})}
		t.fetches[key] = f
		t.work.Add(1)
		go t.run(fctx, key, f)
	}
	f.waiting++
	t.mu.Unlock()
	defer t.leave(key, f)
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// leave ends a fetch for which nobody waits any more.
func (t *through) leave(key spanKey, f *playFetch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.waiting--; f.waiting > 0 {
		return
	}
	f.cancel()
	if t.fetches[key] == f {
		delete(t.fetches, key) // who comes now begins anew
	}
}

func (t *through) run(ctx context.Context, key spanKey, f *playFetch) {
	defer t.work.Done()
	select {
	case t.places <- struct{}{}:
		f.err = t.fill(ctx, key)
		<-t.places
	case <-ctx.Done():
		f.err = ctx.Err()
	}
	t.mu.Lock()
	if t.fetches[key] == f {
		delete(t.fetches, key)
	}
	t.mu.Unlock()
	close(f.done)
}

// tellEvery is how often it is told that something was fetched.
const tellEvery = time.Minute

// tell tells of what was fetched, and of what was since it did so last.
func (t *through) tell(peer string, key spanKey, res *replicate.Result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.segments += res.Segments + res.Copied
	t.bytes += res.Bytes
	now := t.s.node.now()
	if t.segments == 0 || now.Sub(t.told) < tellEvery && now.After(t.told) {
		return
	}
	t.s.log.Info("fetched what is played", "peer", peer, "from", key.from.Time(), "to", key.to.Time(), "segments", t.segments, "bytes", t.bytes)
	t.segments, t.bytes, t.told = 0, 0, now
}

// fromPeers fetches a span from one peer after the other until it is there.
func (t *through) fromPeers(ctx context.Context, key spanKey) error {
	a := t.s.archive()
	if a == nil {
		return errors.New("the archive is not open")
	}
	peers, all := t.peers()
	if !all && len(peers) == 0 {
		return fmt.Errorf("%w: none can be reached", serve.ErrUnasked)
	}
	if len(peers) == 0 {
		return errors.New("no peer can be reached")
	}
	var failed []error
	for _, p := range peers {
		res, err := replicate.Backfill(ctx, a, replicate.Peer{Client: p.Client}, replicate.BackfillOptions{
			From: key.from, To: key.to, Spans: []replicate.Span{{Op: replicate.OnlyB, From: key.from, To: key.to}},
			Share: t.s.share, OnTaken: func(archive.Record) { t.s.wrote(nil) }, Log: t.s.log,
		})
		if err == nil && res.Left > 0 {
			err = fmt.Errorf("%s did not give %d segments", p.URL, res.Left)
		}
		if err != nil {
			failed = append(failed, err)
		}
		t.tell(p.URL, key, &res)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		have, err := a.Coverage(key.from, key.to)
		if err == nil && len(have) == 1 && have[0].From-key.from < m4f.Timescale/4 && key.to-have[0].To < m4f.Timescale/4 {
			return nil
		}
	}
	if len(failed) > 0 {
		failed = append(failed, serve.ErrUnasked)
	}
	return errors.Join(failed...)
}
