package node

import (
	"context"
	"crypto/tls"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/event"
)

// happened tells whoever wants to know of what happens that it did. It returns at
// once.
func (n *Node) happened(e event.Event) {
	n.counts.add(e.Stream, e.Kind)
	n.sinks.put(e)
	n.news.Add(e)
}

// sinks are where the events of a node are sent.
type sinks struct {
	node      *Node
	transport swapped
	running   sync.WaitGroup

	mu   sync.Mutex
	log  bool // to the node's log, too
	list []*runningSink
	over bool // the node ends
}

// runningSink is a sink with how to end it.
type runningSink struct {
	*event.Sink
	end context.CancelFunc
}

// put sends an event everywhere.
func (s *sinks) put(e event.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.log {
		s.node.log.Info("event", "event", logged(e))
	}
	for _, r := range s.list {
		r.Put(e)
	}
}

// logged is an event in a line of the log: a group, which is an object in JSON.
type logged event.Event

// LogValue implements slog.LogValuer.
func (e logged) LogValue() slog.Value {
	a := []slog.Attr{slog.Time("time", e.Time.UTC().Truncate(time.Millisecond))}
	if e.Stream != "" {
		a = append(a, slog.String("stream", e.Stream))
	}
	a = append(a, slog.String("kind", e.Kind), slog.String("msg", e.Msg))
	if len(e.Attrs) > 0 {
		a = append(a, slog.Any("attrs", e.Attrs))
	}
	return slog.GroupValue(a...)
}

// apply sends events to where a configuration says from now on. What waits for a
// receiver that has another URL now goes to that one.
func (s *sinks) apply(c *config.Config) error {
	urls := slices.DeleteFunc(slices.Clone(c.EventSinks), func(u string) bool { return u == config.EventLog })
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return nil
	}
	s.log = len(urls) < len(c.EventSinks)
	kept := s.list[:min(len(s.list), len(urls))]
	for i, r := range kept {
		if err := r.Retarget(urls[i]); err != nil {
			return err
		}
	}
	for _, r := range s.list[len(kept):] {
		r.end() // it sends what waits, for a while
	}
	s.list = kept
	for _, url := range urls[len(kept):] {
		if err := s.start(url); err != nil {
			return err
		}
	}
	return nil
}

// start begins to send to a URL. Callers hold mu.
func (s *sinks) start(url string) error {
	host, _ := os.Hostname() // without it, lines name none
	sink, err := event.NewSink(event.SinkOptions{
		URL: url, Host: host, Source: s.node.id, Agent: "twindvr/" + s.node.opt.Version,
		Transport: &s.transport, Log: s.node.log,
	})
	if err != nil {
		return err
	}
	ctx, end := context.WithCancel(context.Background())
	s.list = append(s.list, &runningSink{sink, end})
	s.running.Go(func() {
		defer end()
		sink.Run(ctx)
	})
	return nil
}

// end sends what waits, for two seconds at most, and returns when that is over.
func (s *sinks) end() {
	s.mu.Lock()
	s.over = true
	for _, r := range s.list {
		r.end()
	}
	s.mu.Unlock()
	s.running.Wait()
	s.transport.closeIdle()
}

// stats says what has become of the events.
func (s *sinks) stats() (out []event.SinkStats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.list {
		out = append(out, r.Stats())
	}
	return out
}

// trust has receivers that speak TLS vouched for by the node's authorities in
// force.
func (s *sinks) trust() {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 1
	if pool := s.node.roots.pool.Load(); pool != nil {
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	s.transport.swap(t)
}

// swapped is a transport that another can take the place of.
type swapped struct {
	now atomic.Pointer[http.Transport]
}

// RoundTrip implements http.RoundTripper.
func (s *swapped) RoundTrip(r *http.Request) (*http.Response, error) {
	return s.now.Load().RoundTrip(r)
}

func (s *swapped) swap(t *http.Transport) {
	if old := s.now.Swap(t); old != nil {
		old.CloseIdleConnections()
	}
}

func (s *swapped) closeIdle() {
	if t := s.now.Load(); t != nil {
		t.CloseIdleConnections()
	}
}

// CloseIdleConnections is what http.Client asks a transport for.
func (s *swapped) CloseIdleConnections() { s.closeIdle() }

// eventCounts counts events.
type eventCounts struct {
	mu sync.Mutex
	by map[countKey]int64
}

type countKey struct{ stream, kind string }

func (c *eventCounts) add(stream, kind string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = map[countKey]int64{}
	}
	c.by[countKey{stream, kind}]++
}

func (c *eventCounts) all() map[countKey]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.by)
}
