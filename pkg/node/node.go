// Package node is a whole node: it records the streams of a configuration from
// the first of their inputs that works, keeps their archives equal to those of
// their peers, prunes and serves them.
//
// Each stream has a supervisor of its own, below it one for every part: a fault
// or a panic in one restarts that part alone.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/thejerf/suture/v4"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/ingest"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/replicate"
	"github.com/twindvr/twindvr/pkg/serve"
)

// stopWithin is how long the parts of a node may take to end.
const stopWithin = 4 * time.Second

// Options are what a node is made with.
type Options struct {
	Config  *config.Config
	Version string
	Log     *slog.Logger // nil: slog.Default()
	// Ready is called once the node listens.
	Ready func()
	// Load reads the configuration again; nil: it cannot be read again. Reloading is
	// told that this begins, and what it returns that it has ended; it may be nil.
	Load      func() (*config.Config, error)
	Reloading func() (done func())
	// FS is what the archives are kept on; nil: the operating system's.
	FS fsx.FS
	// Clock is what the node goes by, but for what the system measures itself:
	// sources of packets, connections; nil: clock.System.
	Clock clock.Clock
}

// Node is a running node.
type Node struct {
	opt     Options
	id      string
	log     *slog.Logger
	auth    *m4fhttp.Auth
	access  *serve.Access
	sup     *suture.Supervisor
	clock   *clockWatch
	started time.Time

	reload sync.Mutex // held by Run's start and by Reload
	// Guarded by reload:
	cfg      *config.Config
	cert     *m4fhttp.Certificate // nil: plain HTTP
	listener *listener
	sources  []*sourced // in force; written under mu, too

	keys     atomic.Pointer[[]string] // cluster keys in force
	roots    authorities              // of peers
	hub      ingest.Hub               // of the streams' sources
	verifies *verifies                // of the streams' archives
	fill     replicate.Slots          // for segments that fill archives from peers
	vols     volumes                  // that the archives lie on
	sinks    sinks                    // that events are sent to
	counts   eventCounts
	measures *measures
	sums     chan struct{} // a token for each archive that is being summed up
	news     *serve.Feed   // what happens to the streams

	merge  replicate.Slots // for merging packets of damaged segments
	gather replicate.Slots // for fetching them

	mu      sync.Mutex
	streams map[string]*running
	retired map[string]*running // no longer configured: served and pruned
	via     map[string][]string // of streams of source blocks: the nodes that they come through
	up      bool                // all streams of the file are known
	life    context.Context     // that the node runs in; nil: it has not begun to listen
}

// running is a stream with its place below the supervisor.
type running struct {
	*stream
	token suture.ServiceToken
}

// listener is the HTTP side on one address.
type listener struct {
	addr   string
	cert   *m4fhttp.Certificate // nil: plain HTTP
	cancel context.CancelFunc
	done   chan error
}

// New returns a node that does nothing yet.
func New(opt Options) *Node {
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	if opt.Clock == nil {
		opt.Clock = clock.System
	}
	n := &Node{
		opt: opt, news: serve.NewFeed(), sums: make(chan struct{}, summing), id: m4fhttp.NewNodeID(), log: opt.Log, started: opt.Clock.Now(), cfg: opt.Config,
		fill: replicate.NewSlots(filling), merge: replicate.NewSlots(merging), gather: replicate.NewSlots(gathering), streams: map[string]*running{}, retired: map[string]*running{}, via: map[string][]string{},
	}
	n.keys.Store(&opt.Config.ClusterKeys)
	n.verifies = newVerifies(opt.Config.Verify)
	n.auth = m4fhttp.NewAuth(opt.Config.ClusterKeys, opt.Clock, opt.Log)
	n.access = serve.NewAccess(&opt.Config.Access, opt.Clock, opt.Log)
	n.vols.node, n.sinks.node = n, n
	n.measures = newMeasures()
	n.clock = newClockWatch(n)
	n.sup = suture.New("node", n.spec(opt.Log))
	return n
}

// spec is how a supervisor restarts what it watches: at once, and every two
// seconds what goes on failing. The same fault is told once in a while only.
func (n *Node) spec(log *slog.Logger) suture.Spec {
	var mu sync.Mutex
	told := map[string]time.Time{}
	again := func(what string) bool {
		mu.Lock()
		defer mu.Unlock()
		if n.since(told[what]) < tellAgain {
			return false
		}
		told[what] = n.now()
		return true
	}
	return suture.Spec{
		FailureBackoff:   2 * time.Second,
		FailureThreshold: 1,
		FailureDecay:     10,
		Timeout:          stopWithin,
		EventHook: func(e suture.Event) {
			switch e := e.(type) {
			case suture.EventServicePanic:
				if again(e.ServiceName + e.PanicMsg) {
					log.Error("a part of the node has failed and is started again", "part", e.ServiceName, "fault", e.PanicMsg, "stack", e.Stacktrace)
				}
			case suture.EventServiceTerminate:
				if err := fmt.Sprint(e.Err); again(e.ServiceName + err) {
					log.Warn("a part of the node has ended and is started again", "part", e.ServiceName, "err", err)
				}
			case suture.EventStopTimeout:
				log.Warn("a part of the node does not end", "part", e.ServiceName)
			}
		},
	}
}

// tellAgain is how often the same fault is told.
const tellAgain = 5 * time.Minute

// Run runs the node until the context ends. It returns an error only when it
// cannot listen.
func (n *Node) Run(ctx context.Context) error {
	if err := n.start(ctx); err != nil {
		return err
	}
	supErr := n.sup.ServeBackground(ctx)
	if n.opt.Ready != nil {
		n.opt.Ready()
	}
	<-ctx.Done()
	n.log.Info("node is stopping", "node", n.id)
	over := time.AfterFunc(stopWithin/2, n.sinks.end)
	<-supErr
	over.Stop()
	n.sinks.end()
	n.reload.Lock()
	defer n.reload.Unlock()
	<-n.listener.done
	n.log.Info("node has stopped", "node", n.id)
	return nil
}

func (n *Node) start(ctx context.Context) error {
	n.reload.Lock()
	defer n.reload.Unlock()
	if err := n.startTLS(); err != nil {
		return err
	}
	l, err := n.listen(ctx, n.cfg.HTTP, n.cert)
	if err != nil {
		return err
	}
	n.listener = l
	n.sinks.trust()
	if err := n.sinks.apply(n.cfg); err != nil {
		return err
	}
	for _, c := range n.cfg.Streams {
		n.add(c)
	}
	for _, c := range n.cfg.Sources {
		n.addSource(c, nil)
	}
	n.sup.Add(n.clock)
	n.mu.Lock()
	n.up, n.life = true, ctx
	n.mu.Unlock()
	n.log.Info("node is up", "node", n.id, "http", n.cfg.HTTP, "streams", len(n.cfg.Streams), "sources", len(n.cfg.Sources))
	return nil
}

// listen starts the HTTP side on an address.
func (n *Node) listen(ctx context.Context, addr string, cert *m4fhttp.Certificate) (*listener, error) {
	ln, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("listen on %s: another program does already; stop it, or give another address in the http line", addr)
	}
	if err != nil {
		return nil, err
	}
	opt := m4fhttp.ServeOptions{Log: n.log, PlainLocal: true}
	if cert != nil {
		opt.TLS = cert.Config()
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &listener{addr: addr, cert: cert, cancel: cancel, done: make(chan error, 1)}
	h := serve.NewHandler(serve.Options{Node: n, Auth: n.auth, Access: n.access, NodeID: n.id, Log: n.log})
	go func() {
		if cert != nil {
			go cert.Watch(ctx)
		}
		err := m4fhttp.Serve(ctx, ln, h, opt)
		defer cancel()
		if err != nil && ctx.Err() == nil {
			n.log.Error("HTTP has ended: nothing is served any more", "http", addr, "err", err)
		}
		l.done <- err
	}()
	return l, nil
}

// moveListener listens on another address. Where the port stays the same, the
// old listener must go first; it comes back if the new one cannot be had.
func (n *Node) moveListener(ctx context.Context, addr string, cert *m4fhttp.Certificate) error {
	old := n.listener
	_, oldPort, _ := net.SplitHostPort(old.addr)
	_, port, _ := net.SplitHostPort(addr)
	if oldPort == port {
		old.cancel()
		<-old.done
	}
	l, err := n.listen(ctx, addr, cert)
	if err == nil {
		old.cancel()
		n.listener = l
		return nil
	}
	if oldPort == port {
		again, back := n.listen(ctx, old.addr, old.cert)
		if back != nil {
			return errors.Join(err, back)
		}
		n.listener = again
	}
	return err
}

// check refuses streams whose archive cannot be recorded to as they are
// configured: a change that would end a recording is a mistake.
func (n *Node) check(c *config.Config, names []string) error {
	for _, name := range names {
		s := c.Stream(name)
		a, err := archive.Open(s.DVR.Dir)
		if err != nil {
			continue // not there yet, or not usable: said when it is opened
		}
		info, err := a.Info()
		if d := m4f.Ticks(s.SegmentDuration); err == nil && info.TargetDuration != 0 && info.TargetDuration != d {
			return c.Errorf(s.Pos, "stream %s: its archive %s has segments of %v and is configured for %v; keep %[3]v, or give the stream another name or dvr path",
				name, s.DVR.Dir, m4f.Duration(info.TargetDuration), s.SegmentDuration)
		}
	}
	return nil
}

// add starts a stream.
func (n *Node) add(c *config.Stream) {
	n.mu.Lock()
	old := n.retired[c.Name]
	delete(n.retired, c.Name)
	n.mu.Unlock()
	n.stop(old)
	s := newStream(n, c)
	r := &running{s, n.sup.Add(s)}
	n.mu.Lock()
	n.streams[c.Name] = r
	n.mu.Unlock()
}

// remove stops a stream and waits for its end.
func (n *Node) remove(name string) *running {
	n.mu.Lock()
	r := n.streams[name]
	delete(n.streams, name)
	n.mu.Unlock()
	n.stop(r)
	return r
}

func (n *Node) stop(r *running) {
	if r == nil {
		return
	}
	if err := n.sup.RemoveAndWait(r.token, stopWithin+time.Second); err != nil {
		n.log.Warn("stream does not stop in time", "stream", r.cfg.Name, "err", err)
	}
}

// retire stops recording a stream that is no longer configured, and goes on
// serving and pruning it.
func (n *Node) retire(name string) {
	r := n.remove(name)
	r.stream.retire()
	r.token = n.sup.Add(r.stream)
	n.mu.Lock()
	n.retired[name] = r
	n.mu.Unlock()
}

// Reload applies a changed configuration. Streams that did not change are not
// touched; one that is gone is served and pruned on. Where the new address
// cannot be listened on, nothing is changed.
func (n *Node) Reload(ctx context.Context, c *config.Config) error {
	_, err := n.change(ctx, c)
	return err
}

// change is Reload, and says what it has changed.
func (n *Node) change(ctx context.Context, c *config.Config) (config.Changes, error) {
	n.reload.Lock()
	defer n.reload.Unlock()
	if n.cert != nil {
		_ = n.cert.Check() // it tells what is wrong itself
	}
	rooted, err := n.roots.load(c)
	if err != nil {
		return config.Changes{}, err
	}
	diff := config.Compare(n.cfg, c)
	if diff.Empty() && !rooted {
		n.log.Info("configuration read again: nothing changes", "file", c.File)
		return diff, nil
	}
	if err := n.check(c, slices.Concat(diff.Added, diff.Changed)); err != nil {
		return config.Changes{}, err
	}
	if err := n.reloadTLS(ctx, c, diff.HTTP); err != nil {
		return config.Changes{}, err
	}
	if diff.Keys && len(c.ClusterKeys) == 0 {
		n.log.Warn("M4F is open from now on to everybody who reaches this port; a cluster key closes it")
	}
	n.cfg = c
	n.keys.Store(&c.ClusterKeys)
	n.verifies.cfg.Store(&c.Verify)
	n.auth.SetKeys(c.ClusterKeys)
	if diff.Access {
		n.access.Set(&c.Access)
	}
	if rooted {
		n.sinks.trust()
	}
	if err := n.sinks.apply(c); err != nil {
		return config.Changes{}, err
	}
	for _, name := range diff.Removed {
		n.retire(name)
	}
	for _, name := range diff.Changed {
		n.remove(name)
		n.add(c.Stream(name))
	}
	for _, name := range diff.Added {
		n.release(name)
		n.add(c.Stream(name))
	}
	n.reloadSources()
	if diff.Keys || rooted {
		for _, s := range n.all() {
			s.restartLinks()
		}
	}
	n.log.Info("configuration applied", "file", c.File, "added", diff.Added, "removed", diff.Removed, "changed", diff.Changed,
		"http", diff.HTTP, "keys", diff.Keys, "access", diff.Access, "events", diff.Events, "sources", diff.Sources)
	return diff, nil
}

// find returns a stream that runs or is retired, or nil.
func (n *Node) find(name string) *stream {
	n.mu.Lock()
	defer n.mu.Unlock()
	if r := n.streams[name]; r != nil {
		return r.stream
	}
	if r := n.retired[name]; r != nil {
		return r.stream
	}
	return nil
}

func (n *Node) all() []*stream {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []*stream
	for _, r := range n.streams {
		out = append(out, r.stream)
	}
	for _, r := range n.retired {
		out = append(out, r.stream)
	}
	slices.SortFunc(out, func(a, b *stream) int { return strings.Compare(a.cfg.Name, b.cfg.Name) })
	return out
}

// Streams implements m4fhttp.Provider.
func (n *Node) Streams() ([]string, error) {
	var names []string
	for _, s := range n.all() {
		if s.archive() != nil {
			names = append(names, s.cfg.Name)
		}
	}
	return names, nil
}

// Stream implements m4fhttp.Provider.
func (n *Node) Stream(name string) (m4fhttp.Stream, error) {
	s := n.find(name)
	if s == nil {
		return nil, m4fhttp.ErrNoStream
	}
	a := s.archive()
	if a == nil {
		// What cannot be recorded to may still be read.
		var err error
		if a, err = archive.Open(s.cfg.DVR.Dir); err != nil {
			return nil, fmt.Errorf("%w yet: its archive could not be opened: %v", m4fhttp.ErrNoStream, err)
		}
	}
	return served{s, a}, nil
}

// served is a stream as M4F over HTTP serves it.
type served struct {
	s *stream
	a *archive.Stream
}

func (s served) Archive() *archive.Stream { return s.a }
func (s served) Live() m4fhttp.Live       { return s.s.live() }

// Alive returns when the node can still be asked something, whatever its disks
// and peers do.
func (n *Node) Alive() { n.all() }

// Status implements serve.Node. A disk that hangs holds up its own stream's answer
// alone, for a moment.
func (n *Node) Status() serve.NodeStatus {
	st := serve.NodeStatus{
		Node: n.id, Host: serve.HostName(), Version: n.opt.Version, Started: n.started.UTC().Truncate(time.Millisecond), Supervised: true, Healthy: true,
	}
	all := n.all()
	st.Streams = make([]serve.StreamStatus, len(all))
	var asked sync.WaitGroup
	for i, s := range all {
		asked.Go(func() { st.Streams[i] = s.status() })
	}
	asked.Wait()
	for i := range st.Streams {
		st.Healthy = st.Healthy && st.Streams[i].Healthy
	}
	for _, s := range n.sourceList() {
		one := s.status()
		st.Healthy = st.Healthy && len(one.Problems) == 0
		st.Sources = append(st.Sources, one)
	}
	return st
}
