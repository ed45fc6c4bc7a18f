package node

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/thejerf/suture/v4"

	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/serve"
)

const (
	// listEvery is how often another node is asked for its streams, and
	// relistEvery how often while it does not answer.
	listEvery   = 5 * time.Second
	relistEvery = 2 * time.Second
	// goneAfter is how many lists in a row a stream must be missing from before
	// it counts as gone: what a node says once may be its mistake.
	goneAfter = 2
	// mostSourced is how many streams a source block takes, those included that
	// the other node has no more.
	mostSourced = 1000
	// mostTold is how many streams that are not taken are named.
	mostTold = 5
)

// sourced has the streams of another node recorded from there, as a source
// block says. What it knows of them is kept in a file beside them, so that a
// node that starts while the other is down goes on with them.
type sourced struct {
	n   *Node
	cfg *config.Source

	token suture.ServiceToken
	ended bool // the block is not in force any more; guarded by Node.reload

	mu    sync.Mutex
	taken map[string]*takenStream
	err   error // why there is no list
	heard time.Time
	count int      // of streams in the last list
	left  []string // why streams are not taken, a sentence each
	told  string

	// Guarded by Node.reload:
	saved   string // what the file holds
	unsaved string // why it could not be written, as told
}

// takenStream is a stream of another node.
type takenStream struct {
	Name           string   `json:"name"`
	TargetDuration int64    `json:"target_duration"`
	Via            []string `json:"via"`
	// Gone says since when the other node has it no more, Unix seconds; 0: it
	// has it. What is gone is served and pruned.
	Gone int64 `json:"gone,omitempty"`

	missing int // from so many lists in a row
}

func newSourced(n *Node, c *config.Source) *sourced {
	return &sourced{n: n, cfg: c, taken: map[string]*takenStream{}}
}

func (s *sourced) String() string { return "list of streams of " + s.cfg.String() }

// Serve implements suture.Service.
func (s *sourced) Serve(ctx context.Context) error {
	for {
		every := listEvery
		list, refused, err := s.ask(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.tell(err)
		if err != nil {
			every = relistEvery
		} else if err := s.locked(ctx, func() { s.apply(list, refused) }); err != nil {
			return err
		}
		if !s.n.pause(ctx, every) {
			return ctx.Err()
		}
	}
}

// ask gets the list of the other node's streams.
func (s *sourced) ask(ctx context.Context) ([]m4fhttp.Listed, int, error) {
	c := m4fhttp.NewClient(s.n.clientOptions(s.cfg.ListPeer(), s.cfg.SourceTimeout))
	defer c.Close()
	list, refused, err := c.Streams(ctx)
	if m4fhttp.StatusOf(err) == 404 {
		err = fmt.Errorf("%w; it may be of a version that lists no streams", err)
	}
	return list, refused, err
}

// locked runs f while nothing else changes the node's streams, unless the
// context ends or the block is no longer in force.
func (s *sourced) locked(ctx context.Context, f func()) error {
	for !s.n.reload.TryLock() {
		if !s.n.pause(ctx, 20*time.Millisecond) {
			return ctx.Err()
		}
	}
	defer s.n.reload.Unlock()
	if ctx.Err() != nil || s.ended {
		return context.Canceled
	}
	f()
	return nil
}

// tell takes the outcome of asking, and logs when it changes.
func (s *sourced) tell(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	switch {
	case err == nil:
		s.heard = s.n.now()
		if s.told != "" {
			s.n.log.Info("source lists its streams again", "source", s.cfg.String())
		}
		s.told = ""
	case s.told != err.Error():
		s.told = err.Error()
		s.n.log.Warn("source does not list its streams; trying again", "source", s.cfg.String(), "err", err)
	}
}

// apply takes what is new in a list, and retires what is gone. The caller holds
// Node.reload.
func (s *sourced) apply(list []m4fhttp.Listed, refused int) {
	var left []string
	have := map[string]bool{}
	through := 0
	for i := range list {
		l := &list[i]
		if slices.Contains(l.Via, s.n.id) {
			through++
			continue
		}
		if len(l.Via) == 0 || !s.cfg.Takes(l.Name) || s.n.cfg.Stream(l.Name) != nil {
			continue
		}
		have[l.Name] = true
		if why := s.take(l); why != "" {
			left = append(left, fmt.Sprintf("stream %s is not taken: %s", l.Name, why))
		}
	}
	for name, t := range s.taken {
		if t.Gone != 0 {
			s.forget(t)
			continue
		}
		if have[name] {
			continue
		}
		if t.missing++; t.missing >= goneAfter {
			s.n.log.Info("stream is gone from its source; it is served and pruned", "stream", name, "source", s.cfg.String())
			s.drop(t)
		}
	}
	if refused > 0 {
		left = append(left, fmt.Sprintf("%d streams are not taken: their names or durations make no sense", refused))
	}
	left = append(left, s.unmet(list)...)
	s.mu.Lock()
	if fmt.Sprint(left) != fmt.Sprint(s.left) {
		for _, why := range left[:min(len(left), mostTold)] {
			s.n.log.Warn("source: "+why, "source", s.cfg.String())
		}
	}
	s.left, s.count = left, len(list)-through
	s.mu.Unlock()
	s.save()
}

// unmet says which streams of the block's only the other node does not have.
func (s *sourced) unmet(list []m4fhttp.Listed) []string {
	var out []string
	for _, name := range s.cfg.Only {
		if s.n.cfg.Stream(name) == nil && !slices.ContainsFunc(list, func(l m4fhttp.Listed) bool { return l.Name == name }) {
			out = append(out, fmt.Sprintf("it has no stream %s", name))
		}
	}
	return out
}

// take begins with a stream, or goes on with it. It says why it does not.
func (s *sourced) take(l *m4fhttp.Listed) string {
	t := s.taken[l.Name]
	if t != nil && t.Gone == 0 {
		t.missing, t.Via = 0, l.Via
		s.n.setVia(t.Name, t.Via)
		return ""
	}
	d := m4f.Duration(l.TargetDuration)
	switch {
	case l.TargetDuration == 0:
		return "its segments' duration is not known yet"
	case d < config.MinSegmentDuration || d > config.MaxSegmentDuration:
		return fmt.Sprintf("its segments of %v are outside %v to %v", d, config.MinSegmentDuration, config.MaxSegmentDuration)
	case t == nil && len(s.taken) >= mostSourced:
		return fmt.Sprintf("a source block takes %d at most; name those that you want with only", mostSourced)
	}
	if why := s.n.blocked(s, s.cfg.Stream(l.Name, d)); why != "" {
		return why
	}
	t = &takenStream{Name: l.Name, TargetDuration: l.TargetDuration, Via: l.Via}
	s.n.log.Info("stream is taken from its source", "stream", l.Name, "source", s.cfg.String())
	s.begin(t)
	return ""
}

// begin records a stream.
func (s *sourced) begin(t *takenStream) {
	s.mu.Lock()
	s.taken[t.Name] = t
	s.mu.Unlock()
	c := s.cfg.Stream(t.Name, m4f.Duration(t.TargetDuration))
	if t.Gone != 0 {
		s.n.addRetired(c)
		return
	}
	s.n.setVia(t.Name, t.Via)
	s.n.add(c)
}

// drop stops recording a stream.
func (s *sourced) drop(t *takenStream) {
	s.mu.Lock()
	t.Gone, t.missing = s.n.now().Unix(), 0
	s.mu.Unlock()
	s.n.retire(t.Name)
	s.n.setVia(t.Name, nil)
}

// forget lets go of a stream that is gone once nothing is kept of it. Those that
// come and go are not forgotten sooner: they count until then.
func (s *sourced) forget(t *takenStream) {
	if s.n.since(time.Unix(t.Gone, 0)) < s.cfg.DVR.Depth {
		return
	}
	st := s.n.find(t.Name)
	if st != nil && st.archive() != nil {
		if info, err := st.archive().Info(); err != nil || info.Newest != 0 {
			return
		}
	}
	s.n.dismiss(t.Name)
	s.mu.Lock()
	delete(s.taken, t.Name)
	s.mu.Unlock()
}

// addRetired serves and prunes a stream, and records nothing.
func (n *Node) addRetired(c *config.Stream) {
	n.dismiss(c.Name)
	st := newStream(n, c)
	st.retire()
	r := &running{st, n.sup.Add(st)}
	n.mu.Lock()
	n.retired[c.Name] = r
	n.mu.Unlock()
}

// dismiss ends a retired stream.
func (n *Node) dismiss(name string) {
	n.mu.Lock()
	r := n.retired[name]
	delete(n.retired, name)
	n.mu.Unlock()
	n.stop(r)
}

// owns says whether the block has the stream, gone or not.
func (s *sourced) owns(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken[name] != nil
}

// status is what the API says of the source.
func (s *sourced) status() serve.SourceStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := serve.SourceStatus{URL: s.cfg.String(), Reachable: s.err == nil && !s.heard.IsZero(), Heard: stamp(s.heard), Listed: s.count, Problems: []string{}, Streams: []string{}}
	for name, t := range s.taken {
		if t.Gone == 0 {
			st.Streams = append(st.Streams, name)
		}
	}
	slices.Sort(st.Streams)
	switch {
	case s.err != nil:
		st.Problems = append(st.Problems, fmt.Sprintf("its streams are not known: %v", s.err))
	case s.heard.IsZero():
		st.Problems = append(st.Problems, "its streams are not known yet")
	}
	st.Problems = append(st.Problems, s.left[:min(len(s.left), mostTold)]...)
	if more := len(s.left) - mostTold; more > 0 {
		st.Problems = append(st.Problems, fmt.Sprintf("and %d streams more are not taken", more))
	}
	return st
}

// setVia keeps how a stream of a source block came here.
func (n *Node) setVia(name string, via []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if via == nil {
		delete(n.via, name)
		return
	}
	n.via[name] = via
}

// blocked says why a stream of a source block cannot be recorded beside those
// that there are.
func (n *Node) blocked(s *sourced, c *config.Stream) string {
	for _, other := range n.sources {
		if other != s && other.owns(c.Name) {
			return "it is taken from " + other.cfg.String()
		}
	}
	if s.cfg.DVR.Mounted {
		if err := fsx.CheckMounted(s.cfg.DVR.Root); err != nil {
			return err.Error()
		}
	}
	for _, other := range n.all() {
		dir := other.cfg.DVR.Dir
		switch {
		case other.cfg.Name == c.Name && dir != c.DVR.Dir:
			return fmt.Sprintf("a stream of that name is still kept in %s", dir)
		case dir != c.DVR.Dir && (within(dir, c.DVR.Dir) || within(c.DVR.Dir, dir)):
			return fmt.Sprintf("its directory %s and that of stream %s, %s, would lie inside one another", c.DVR.Dir, other.cfg.Name, dir)
		case dir == c.DVR.Dir && other.cfg.Name != c.Name:
			return fmt.Sprintf("its directory is that of stream %s", other.cfg.Name)
		}
	}
	return ""
}

// within says whether a directory lies below another.
func within(outer, inner string) bool {
	return strings.HasPrefix(inner, strings.TrimSuffix(outer, "/")+"/")
}

// addSource puts a source block in force. taken are the streams that it has
// already; nil: those of the block's file.
func (n *Node) addSource(c *config.Source, taken map[string]*takenStream) {
	s := newSourced(n, c)
	for _, t := range s.resume(taken) {
		if !c.Takes(t.Name) || n.cfg.Stream(t.Name) != nil {
			continue
		}
		if why := n.blocked(s, c.Stream(t.Name, m4f.Duration(t.TargetDuration))); why != "" {
			n.log.Warn("stream of a source is not taken", "stream", t.Name, "source", c.String(), "why", why)
			continue
		}
		s.begin(t)
	}
	n.enforce(s)
}

// enforce puts a block in force.
func (n *Node) enforce(s *sourced) {
	n.mu.Lock()
	n.sources = append(n.sources, s)
	n.mu.Unlock()
	s.token = n.sup.Add(s)
}

// sourceList are the blocks in force.
func (n *Node) sourceList() []*sourced {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.sources)
}

// resume returns what a block begins with: taken, or what its file says.
func (s *sourced) resume(taken map[string]*takenStream) []*takenStream {
	var list []*takenStream
	for _, t := range taken {
		list = append(list, t)
	}
	if taken == nil {
		var err error
		if list, err = s.load(); err != nil {
			s.n.log.Warn("the streams taken from a source so far are not known; waiting for its list", "source", s.cfg.String(), "file", s.file(), "err", err)
		}
	}
	slices.SortFunc(list, func(a, b *takenStream) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// endSource takes a source block out of force; its streams run on for the
// caller to judge.
func (n *Node) endSource(s *sourced) {
	s.ended = true
	// It is not waited for: it may wait for the reload that ends it.
	if err := n.sup.Remove(s.token); err != nil {
		n.log.Warn("source does not stop", "source", s.cfg.String(), "err", err)
	}
	n.mu.Lock()
	n.sources = slices.DeleteFunc(n.sources, func(o *sourced) bool { return o == s })
	n.mu.Unlock()
}

// reloadSources applies the source blocks of a changed file. n.cfg is the new
// one already.
func (n *Node) reloadSources() {
	for _, s := range slices.Clone(n.sources) {
		i := slices.IndexFunc(n.cfg.Sources, func(c *config.Source) bool { return c.Peer.Addr() == s.cfg.Peer.Addr() })
		if i >= 0 && n.cfg.Sources[i].Equal(s.cfg) {
			continue
		}
		n.endSource(s)
		if i < 0 {
			for _, t := range s.taken {
				if t.Gone == 0 {
					s.drop(t)
				}
			}
			continue
		}
		n.changeSource(s, n.cfg.Sources[i])
	}
	for _, c := range n.cfg.Sources {
		if !slices.ContainsFunc(n.sources, func(s *sourced) bool { return s.cfg.Peer.Addr() == c.Peer.Addr() }) {
			n.addSource(c, nil)
		}
	}
}

// changeSource replaces a block by a changed one for the same node. Streams
// that it does not change are not touched.
func (n *Node) changeSource(old *sourced, c *config.Source) {
	s := newSourced(n, c)
	for name, t := range old.taken {
		one := *t
		s.taken[name] = &one
	}
	s.err, s.heard = old.err, old.heard
	for _, t := range s.taken {
		d := m4f.Duration(t.TargetDuration)
		was, will := old.cfg.Stream(t.Name, d), c.Stream(t.Name, d)
		switch {
		case !c.Takes(t.Name) && t.Gone == 0:
			s.drop(t)
		case was.DVR.Dir != will.DVR.Dir: // what is kept stays where it is
			if t.Gone == 0 {
				s.drop(t)
			}
			delete(s.taken, t.Name)
		case !was.Equal(will):
			n.remove(t.Name)
			s.begin(t)
		}
	}
	n.enforce(s)
}

// release takes a stream from the source block that has it: the file has a
// stream block for it now.
func (n *Node) release(name string) {
	for _, s := range n.sources {
		s.mu.Lock()
		t := s.taken[name]
		delete(s.taken, name)
		s.mu.Unlock()
		if t != nil && t.Gone == 0 {
			n.remove(name)
		}
	}
	n.setVia(name, nil)
}

// file is where a block keeps what it has taken.
func (s *sourced) file() string {
	return filepath.Join(s.cfg.DVR.Root, ".twindvr-source-"+strings.NewReplacer("/", "_", ":", "_").Replace(s.cfg.Peer.Addr())+".json")
}

// List implements m4fhttp.Lister.
func (n *Node) List() ([]m4fhttp.Listed, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.up {
		return nil, m4fhttp.ErrStarting
	}
	var out []m4fhttp.Listed
	for name, r := range n.streams {
		out = append(out, m4fhttp.Listed{Name: name, TargetDuration: r.target(), Via: append(slices.Clone(n.via[name]), n.id)})
	}
	for name, r := range n.retired {
		out = append(out, m4fhttp.Listed{Name: name, TargetDuration: r.target(), Via: []string{}})
	}
	slices.SortFunc(out, func(a, b m4fhttp.Listed) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// clientOptions are how this node talks to a peer.
func (n *Node) clientOptions(p config.Peer, silence time.Duration) m4fhttp.ClientOptions {
	return m4fhttp.ClientOptions{Peer: p, Keys: *n.keys.Load(), RootCAs: n.roots.pool.Load(), Silence: silence}
}
