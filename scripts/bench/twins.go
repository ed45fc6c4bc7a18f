package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// betweenTwins is what went between two nodes, of what one of them recorded.
var betweenTwins = newMetric("moved of the media", "%", 3)

// measureTwins has two nodes record one source that both hear, and counts what goes
// between them.
func (b *bench) measureTwins(ctx context.Context, t *table) error {
	found, err := b.compare(ctx, t, fmt.Sprintf("%.0f Mbit/s", float64(b.bitrate)/1e6), float64(b.bitrate), []contender{
		{name: "twindvr", run: b.twins},
	})
	if err != nil {
		return err
	}
	t.atMost("bytes between twins", found.values("twindvr", betweenTwins), 0.1, "%")
	t.note("All of both ways, HTTP headers included, while %v are recorded, after both nodes have found each other.", pick(b, time.Minute, 4*time.Second))
	return nil
}

func (b *bench) twins(ctx context.Context) (s sample, err error) {
	p, err := b.startTwins(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	before := p.moved()
	from, err := p.recorded(0)
	if err != nil {
		return nil, err
	}
	if err := pause(ctx, pick(b, time.Minute, 4*time.Second)); err != nil {
		return nil, err
	}
	after := p.moved()
	to, err := p.recorded(0)
	media := to - from
	if err == nil && media <= 0 {
		err = errors.New("nothing was recorded")
	}
	return sample{betweenTwins: 100 * float64(after-before) / float64(media), moved: float64(after-before) / 1e3}, err
}

// twins are two nodes that replicate one stream, each hearing the source on a port
// of its own and reaching the other through a relay. The second has the first as
// its first input, and hears the source all the time.
type twins struct {
	dir    string
	ports  int // first of two
	addrs  [2]string
	relays [2]*relay
	procs  []*process // the nodes, then the source
}

// startTwins starts the nodes and the source, and waits until both nodes have recorded
// of it and follow each other.
func (b *bench) startTwins(ctx context.Context) (*twins, error) {
	dir, err := os.MkdirTemp(b.dir, "twins-")
	if err != nil {
		return nil, err
	}
	p := &twins{dir: dir, ports: freePorts(2)}
	if err := p.start(ctx, b); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

func (p *twins) start(ctx context.Context, b *bench) (err error) {
	for i := range 2 {
		if p.addrs[i], err = freeAddr(); err != nil {
			return err
		}
		if p.relays[i], err = newRelay(p.addrs[i]); err != nil {
			return err
		}
	}
	for i := range 2 {
		if err := p.node(b, i); err != nil {
			return err
		}
	}
	if err := waitBound(ctx, p.procs, p.ports, 2); err != nil {
		return err
	}
	if err := p.send(b); err != nil {
		return err
	}
	return p.settled(ctx, pick(b, 3, 1))
}

// node starts a node.
func (p *twins) node(b *bench, i int) error {
	source := fmt.Sprintf("url udp://127.0.0.1:%d;", p.ports+i)
	peer := fmt.Sprintf("url m4f://%s/s;", p.relays[1-i].addr())
	if i == 1 {
		source, peer = peer, source
	}
	conf := fmt.Sprintf("http %s;\nstream s {\n  %s\n  %s\n  dvr %s 1d replicate;\n}\n", p.addrs[i], source, peer, p.root(i))
	path := filepath.Join(p.dir, fmt.Sprintf("%d.conf", i))
	err := errors.Join(os.MkdirAll(p.root(i), 0o755), os.WriteFile(path, []byte(conf), 0o600))
	if err != nil {
		return err
	}
	return p.run(b, "supervise", path)
}

// run starts twindvr, which ends when it is asked to.
func (p *twins) run(b *bench, args ...string) error {
	proc, err := start(syscall.SIGTERM, b.twindvr, args...)
	if err == nil {
		p.procs = append(p.procs, proc)
	}
	return err
}

func (p *twins) root(i int) string { return filepath.Join(p.dir, fmt.Sprint(i)) }

// send starts the source.
func (p *twins) send(b *bench) error {
	return p.run(b, "testsrc", "--json", "--bitrate", fmt.Sprint(b.bitrate), "--count", "2", fmt.Sprintf("udp://127.0.0.1:%d", p.ports))
}

// settled waits until each node has so many segments and follows the other.
func (p *twins) settled(ctx context.Context, segments int) error {
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if p.follows(0, segments) && p.follows(1, segments) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("the nodes do not follow each other after two minutes: %s", p.procs[0].stderr.String())
		}
	}
}

// follows says whether a node has so many segments and follows the other.
func (p *twins) follows(i, segments int) bool {
	body, err := get("http://" + p.addrs[i] + "/api/v1/streams")
	var st struct {
		Streams []struct {
			Archive struct{ Segments int }
			Peers   []struct{ Reachable bool }
		}
	}
	return err == nil && json.Unmarshal(body, &st) == nil && len(st.Streams) == 1 && st.Streams[0].Archive.Segments >= segments &&
		len(st.Streams[0].Peers) == 1 && st.Streams[0].Peers[0].Reachable
}

// moved is what has gone between the nodes.
func (p *twins) moved() int64 { return p.relays[0].moved.Load() + p.relays[1].moved.Load() }

// recorded is how many bytes of media an archive has.
func (p *twins) recorded(i int) (int64, error) {
	s, err := archive.Open(filepath.Join(p.root(i), "s"))
	if err != nil {
		return 0, err
	}
	hours, err := s.Hours(0, 0)
	var sum int64
	for _, h := range hours {
		sum += h.Bytes
	}
	return sum, err
}

// arrivals are when the segments of an archive came to it.
func (p *twins) arrivals(i int) ([]time.Time, error) {
	s, err := archive.Open(filepath.Join(p.root(i), "s"))
	if err != nil {
		return nil, err
	}
	var list []time.Time
	err = s.Each(0, 0, func(e *archive.Element) error {
		list = append(list, time.UnixMilli(e.Arrived))
		return nil
	})
	return list, err
}

// events are those of an archive since a time, of one kind.
func (p *twins) events(i int, since time.Time, kind string) ([]time.Time, error) {
	s, err := archive.Open(filepath.Join(p.root(i), "s"))
	if err != nil {
		return nil, err
	}
	all, err := s.Events(m4f.UTCOf(since), 0)
	var list []time.Time
	for _, e := range all {
		if e.Kind == kind {
			list = append(list, e.Time)
		}
	}
	return list, err
}

// stop ends all processes, and removes what they recorded.
func (p *twins) stop() error {
	_, err := stopAll(p.procs)
	for _, r := range p.relays {
		if r != nil {
			err = errors.Join(err, r.close())
		}
	}
	return errors.Join(err, os.RemoveAll(p.dir))
}
