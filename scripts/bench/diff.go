package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// moved is what went over the network, both ways.
	moved = newMetric("moved", "kB", 1)
	// spent is the CPU time of diff-archive and of the nodes.
	spent = newMetric("CPU", "ms", 0)
)

// scattered is in how many segments archives differ here and there.
func (b *bench) scattered() int { return pick(b, 1000, 20) }

// measureDiff compares two archives with diff-archive: between two nodes that have
// been asked before, as those are that replicate, between a directory and a node,
// and between two directories.
func (b *bench) measureDiff(ctx context.Context, t *table) error {
	init, err := b.testInit()
	if err != nil {
		return err
	}
	month := pick(b, 30, 1)
	for _, days := range pick(b, []int{1, 7, month, 90, 365}, []int{month}) {
		p, err := b.newPair(init, days, 0)
		if err != nil {
			return err
		}
		err = b.diffEqual(ctx, t, p, days == month)
		if err := errors.Join(err, p.remove()); err != nil {
			return err
		}
	}
	p, err := b.newPair(init, month, b.scattered())
	if err != nil {
		return err
	}
	return errors.Join(b.diffScattered(ctx, t, p), p.remove())
}

// archives are two of one stream.
type archives struct {
	dir  string
	days int
	odd  int
}

// newPair makes two archives that differ in so many segments.
func (b *bench) newPair(init []byte, days, odd int) (*archives, error) {
	p := &archives{dir: filepath.Join(b.dir, "diff"), days: days, odd: odd}
	hours := days * 24
	differ := map[int]bool{}
	rng := rand.New(rand.NewPCG(1, 1))
	for len(differ) < min(odd, hours*hourSegments/4) {
		differ[rng.IntN(hours*hourSegments)] = true
	}
	first := lastHours(hours)
	err := errors.Join((&fake{dir: p.archive("a"), init: init, first: first, hours: hours}).make(),
		(&fake{dir: p.archive("b"), init: init, first: first, hours: hours, odd: differ}).make())
	unix.Sync()
	return p, err
}

func (p *archives) archive(of string) string { return filepath.Join(p.dir, of, "s") }
func (p *archives) remove() error            { return os.RemoveAll(p.dir) }
func (p *archives) String() string {
	if p.odd > 0 {
		return fmt.Sprintf("%d days, %d segments differ", p.days, p.odd)
	}
	return many(p.days, "day")
}

// diffEqual compares archives that are equal.
func (b *bench) diffEqual(ctx context.Context, t *table, p *archives, judged bool) error {
	n, err := b.newNodes(ctx, p)
	if err != nil {
		return err
	}
	defer n.stop()
	list := []contender{
		{name: "nodes", run: func(ctx context.Context) (sample, error) { return b.diff(ctx, p, n.peer(0), n.peer(1)) }},
		{name: "directory, node", run: func(ctx context.Context) (sample, error) { return b.diff(ctx, p, p.archive("a"), n.peer(1)) }},
		{name: "directories", run: func(ctx context.Context) (sample, error) { return b.diff(ctx, p, p.archive("a"), p.archive("b")) }},
	}
	if judged {
		list = append(list,
			contender{name: "directories, cold", run: func(ctx context.Context) (sample, error) {
				if err := p.forget(); err != nil {
					return nil, err
				}
				return b.diff(ctx, p, p.archive("a"), p.archive("b"))
			}},
			contender{name: "nodes, cold", run: func(ctx context.Context) (sample, error) {
				if err := p.forget(); err != nil {
					return nil, err
				}
				fresh, err := b.startNodes(ctx, p)
				if err != nil {
					return nil, err
				}
				s, err := b.diff(ctx, p, fresh.peer(0), fresh.peer(1))
				return s, errors.Join(err, fresh.stop())
			}})
	}
	found, err := b.compare(ctx, t, p.String(), float64(p.days), list)
	if err != nil || !judged {
		return err
	}
	t.atMost("nodes, equal, warm", found.values("nodes", wall), 50, "ms")
	t.atMost("directory and node, equal, warm", found.values("directory, node", wall), 50, "ms")
	t.atMost("directories, equal, cold", found.values("directories, cold", wall), 1000, "ms")
	t.atMost("nodes, equal, cold", found.values("nodes, cold", wall), 1000, "ms")
	t.atMost("moved between nodes, equal", found.values("nodes", moved), 100, "kB")
	t.note("Cold: what the archives' files hold is not in the page cache, but what directories hold may be; the nodes have just been started. " +
		"What is moved is that of both nodes together.")
	return nil
}

// diffScattered compares archives that differ here and there.
func (b *bench) diffScattered(ctx context.Context, t *table, p *archives) error {
	n, err := b.newNodes(ctx, p)
	if err != nil {
		return err
	}
	defer n.stop()
	found, err := b.compare(ctx, t, p.String(), float64(p.days), []contender{
		{name: "nodes", run: func(ctx context.Context) (sample, error) { return b.diff(ctx, p, n.peer(0), n.peer(1)) }},
		{name: "directory, node", run: func(ctx context.Context) (sample, error) { return b.diff(ctx, p, p.archive("a"), n.peer(1)) }},
		{name: "directories", run: func(ctx context.Context) (sample, error) { return b.diff(ctx, p, p.archive("a"), p.archive("b")) }},
	})
	if err != nil {
		return err
	}
	t.atMost("nodes, scattered differences, warm", found.values("nodes", wall), 200, "ms")
	t.atMost("directory and node, scattered differences, warm", found.values("directory, node", wall), 200, "ms")
	return nil
}

// forget takes the files of both archives out of the page cache.
func (p *archives) forget() error {
	return filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED), f.Close())
	})
}

// nodes serve two archives, each through a relay that counts.
type nodes struct {
	servers [2]*server
	relays  [2]*relay
}

// startNodes starts a node for each archive.
func (b *bench) startNodes(ctx context.Context, p *archives) (*nodes, error) {
	n := &nodes{}
	for i, of := range []string{"a", "b"} {
		var err error
		if n.servers[i], err = b.serveM4F(ctx, filepath.Dir(p.archive(of))); err != nil {
			return nil, errors.Join(err, n.stop())
		}
		if n.relays[i], err = newRelay(n.servers[i].addr); err != nil {
			return nil, errors.Join(err, n.stop())
		}
	}
	return n, nil
}

// newNodes are nodes that have compared their archives before.
func (b *bench) newNodes(ctx context.Context, p *archives) (*nodes, error) {
	n, err := b.startNodes(ctx, p)
	if err != nil {
		return nil, err
	}
	if _, err := b.diff(ctx, p, n.peer(0), n.peer(1)); err != nil {
		return nil, errors.Join(err, n.stop())
	}
	return n, nil
}

// peer is a node of two.
type peer struct {
	*server
	relay *relay // where it is reached
}

func (n *nodes) peer(i int) peer { return peer{n.servers[i], n.relays[i]} }

func (n *nodes) stop() error {
	var errs error
	for i := range n.servers {
		if n.relays[i] != nil {
			errs = errors.Join(errs, n.relays[i].close())
		}
		if n.servers[i] != nil {
			errs = errors.Join(errs, n.servers[i].stop())
		}
	}
	return errs
}

// diff runs diff-archive on two directories (string) or nodes (peer).
func (b *bench) diff(ctx context.Context, p *archives, sides ...any) (sample, error) {
	args := []string{"diff-archive", "--json", "--no-salvage"}
	var peers []peer
	for _, s := range sides {
		if n, ok := s.(peer); ok {
			peers = append(peers, n)
			s = "m4f://" + n.relay.addr() + "/s"
		}
		args = append(args, s.(string))
	}
	used := func() (bytes int64, cpu time.Duration) {
		for _, n := range peers {
			bytes += n.relay.moved.Load()
			cpu += cpuOf(n.Process.Pid)
		}
		return bytes, cpu
	}
	bytes, cpu := used()
	began := time.Now()
	cmd := exec.CommandContext(ctx, b.twindvr, args...)
	out, err := cmd.CombinedOutput()
	took := time.Since(began)
	var exit *exec.ExitError
	if err != nil && (p.odd == 0 || !errors.As(err, &exit) || exit.ExitCode() != 1) {
		return nil, fmt.Errorf("diff-archive: %w: %.500s", err, out)
	}
	allBytes, allCPU := used()
	s := sample{wall: ms(took), spent: ms(allCPU - cpu + cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime())}
	if len(peers) > 0 {
		s[moved] = float64(allBytes-bytes) / 1e3
	}
	return s, nil
}
