package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// lab is what one scenario runs in: nodes, their network, and a source of each
// stream.
type lab struct {
	opt      *options
	scenario *scenario
	dir      string
	seed     uint64
	rng      *rand.Rand // for the scenario's goroutine alone
	length   time.Duration
	net      network
	nodes    []*node
	streams  []string
	sources  []*source
	log      *log.Logger

	stopSources context.CancelFunc
	sending     sync.WaitGroup
	expected    map[int][]expected    // by stream
	before      map[m4f.Identity]bool // segments that were there before
	exportFrom  m4f.UTC               // exports begin here; 0: at the beginning
	begin       time.Time             // from when on all nodes recorded
	calm        time.Time             // when the last fault was over

	mu     sync.Mutex
	faults []string // what must not have happened
	counts map[string]int
	notes  []string
}

// target is the target duration of segments.
const target = 4 * m4f.Timescale

func newLab(opt *options, sc *scenario, dir string) (*lab, error) {
	l := &lab{
		opt: opt, scenario: sc, dir: dir, seed: opt.seed, length: opt.length(sc),
		rng: rand.New(rand.NewPCG(opt.seed, hash(sc.name))), counts: map[string]int{}, expected: map[int][]expected{},
		log: log.New(os.Stderr, sc.name+": ", log.Ltime),
	}
	n, why, err := newNetwork(sc.nodes, opt.loopback)
	if err != nil {
		return nil, err
	}
	l.net = n
	if why != nil {
		l.log.Printf("network namespaces are not permitted, going by loopback: %v", why)
	}
	for i := range sc.nodes {
		name := string(rune('a' + i))
		nd := &node{lab: l, i: i, name: name, dir: filepath.Join(dir, name), config: filepath.Join(dir, name+".conf"),
			log: filepath.Join(dir, name+".log"), clocked: sc.clocked}
		if err := os.MkdirAll(nd.dir, 0o755); err != nil {
			return nil, err
		}
		if sc.volume > 0 && i == 0 {
			if nd.disk, err = newVolume(nd.dir, sc.volume); err != nil {
				n.close()
				return nil, err
			}
		}
		l.nodes = append(l.nodes, nd)
	}
	for s := range sc.streams {
		l.streams = append(l.streams, fmt.Sprintf("stream%d", s+1))
		var paths []*path
		for i := range l.nodes {
			out, err := n.output(i, s)
			if err != nil {
				return nil, err
			}
			paths = append(paths, newPath(out, opt.seed, hash(fmt.Sprintf("%s %d %d", sc.name, i, s))))
		}
		src, err := newSource(target, opt.bitrate, int64(s+1)*1_000_000_000, paths)
		if err != nil {
			return nil, err
		}
		l.sources = append(l.sources, src)
	}
	return l, nil
}

// hash turns a name into a seed.
func hash(s string) (h uint64) {
	h = 14695981039346656037 // FNV-1a
	for _, c := range []byte(s) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// close ends everything; volumes are kept if they are to be looked at.
func (l *lab) close(keep bool) {
	if l.stopSources != nil {
		l.stopSources()
	}
	l.sending.Wait()
	for _, n := range l.nodes {
		if n.alive() {
			n.kill()
		}
	}
	for _, s := range l.sources {
		for _, p := range s.paths {
			p.out.Close()
		}
	}
	for _, n := range l.nodes {
		if n.disk != nil {
			n.disk.close(keep)
		}
	}
	l.net.close()
}

// fault notes what must not happen: the scenario has failed.
func (l *lab) fault(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	l.log.Print("FAULT: " + text)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = append(l.faults, text)
}

// inject counts a fault that was made on purpose.
func (l *lab) inject(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[what]++
}

// note adds a sentence to the figures.
func (l *lab) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.notes = append(l.notes, fmt.Sprintf(format, args...))
}

// inputs are the inputs of a node in their order, as lines of a configuration.
type inputs func(l *lab, node, stream int) []string

// crossed is the order of the cross-replication example: the first node has the
// source first, the others their peers.
func crossed(l *lab, node, s int) []string {
	src := "url " + l.net.sourceURL(node, s) + ";"
	list := peersOnly(l, node, s)
	if node == 0 {
		return append([]string{src}, list...)
	}
	return append(list, src)
}

// peersOnly are inputs without a source.
func peersOnly(l *lab, node, s int) (list []string) {
	for other := range l.nodes {
		if other != node {
			list = append(list, fmt.Sprintf("url m4f://%s/%s;", l.net.peer(node, other), l.streams[s]))
		}
	}
	return list
}

// configure writes the nodes' configurations; extra lines go to each stream.
func (l *lab) configure(in inputs, extra ...string) error {
	for i, n := range l.nodes {
		var b strings.Builder
		fmt.Fprintf(&b, "http %s;\n", l.net.http(i))
		if n.disk != nil {
			fmt.Fprintln(&b, "min_free 1M;")
		}
		for _, line := range l.opt.top {
			fmt.Fprintln(&b, line)
		}
		for s, name := range l.streams {
			fmt.Fprintf(&b, "stream %s {\n", name)
			lines := append(in(l, i, s), fmt.Sprintf("dvr %s 3d replicate;", n.dir), "source_timeout 5s;", "return_after 3s;")
			for _, line := range append(lines, extra...) {
				fmt.Fprintln(&b, "  "+line)
			}
			fmt.Fprintln(&b, "}")
		}
		if err := os.WriteFile(n.config, []byte(b.String()), 0o644); err != nil {
			return err
		}
		if out, err := exec.Command(l.opt.twindvr, "supervise", "--check", n.config).CombinedOutput(); err != nil {
			return fmt.Errorf("the configuration of %s is refused: %w\n%s", n.name, err, out)
		}
	}
	return nil
}

// bound says whether a process listens for all sources of its node.
func (l *lab) bound(pid, node int) bool {
	have := boundPorts(pid)
	for s := range l.sources {
		if !have[l.net.sourcePort(node, s)] {
			return false
		}
	}
	return true
}

// start brings all nodes up, begins to send, and waits until each node has
// recorded a whole segment of each stream.
func (l *lab) start(ctx context.Context) error {
	for _, n := range l.nodes {
		if err := n.up(); err != nil {
			return err
		}
	}
	if err := l.wait(ctx, 30*time.Second, "all nodes listen", l.allListen); err != nil {
		return err
	}
	sctx, stop := context.WithCancel(ctx)
	l.stopSources = stop
	for i, s := range l.sources {
		l.sending.Go(func() {
			if err := s.run(sctx); err != nil {
				l.fault("source of %s: %v", l.streams[i], err)
			}
		})
	}
	if err := l.wait(ctx, time.Minute, "each node has recorded a whole segment", func() bool {
		for _, n := range l.nodes {
			for _, s := range l.streams {
				if !recordedWhole(n.stream(s), time.Time{}) {
					return false
				}
			}
		}
		return true
	}); err != nil {
		return err
	}
	l.begin = time.Now()
	return nil
}

func (l *lab) allListen() bool {
	for _, n := range l.nodes {
		if !n.listens() {
			return false
		}
	}
	return true
}

// listens says whether a life of the node is under way.
func (n *node) listens() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.lives) > 0 && n.lives[len(n.lives)-1].to.IsZero()
}

// recordedWhole says whether a node has recorded a whole segment of a stream
// after a time.
func recordedWhole(dir string, after time.Time) bool {
	for _, r := range records(dir) {
		if r.Origin == archive.Live && r.Clean() && time.UnixMilli(r.Arrived).After(after) {
			return true
		}
	}
	return false
}

// errNotInTime says what was waited for.
var errNotInTime = errors.New("not in time")

// wait waits for something to become true.
func (l *lab) wait(ctx context.Context, d time.Duration, what string, ok func() bool) error {
	until := time.Now().Add(d * time.Duration(l.opt.patience))
	for !ok() {
		if time.Now().After(until) {
			return fmt.Errorf("%w (%v): %s", errNotInTime, d, what)
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// between is a random duration of [from, to).
func (l *lab) between(from, to time.Duration) time.Duration {
	return from + time.Duration(l.rng.Int64N(int64(to-from)))
}

// lose sets what the paths of a node lose from now on.
func (l *lab) lose(node int, rate float64, every, burst time.Duration) {
	for _, s := range l.sources {
		s.paths[node].lose(rate, every, burst)
	}
}

// block takes the source from a node, or gives it back.
func (l *lab) block(node int, on bool) {
	for _, s := range l.sources {
		s.paths[node].block(on)
	}
}

// program runs the program to its end, at a node.
func (l *lab) program(ctx context.Context, at int, args ...string) (stdout, stderr string, status int) {
	cmd := exec.CommandContext(ctx, l.opt.twindvr, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	var err error
	if nerr := l.net.on(at, func() { err = cmd.Start() }); nerr != nil || err != nil {
		return "", fmt.Sprint(nerr, err), -1
	}
	cmd.Wait()
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}
