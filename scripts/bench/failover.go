package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

// How long after the first input was lost the archive had the next segment: since
// that happened, and since the node noticed.
var (
	nextSegment = newMetric("next segment", "s", 2)
	sinceNotice = newMetric("since it was noticed", "s", 2)
)

// measureFailover kills the node that another has as its first input. The other
// hears the source as well.
func (b *bench) measureFailover(ctx context.Context, t *table) error {
	found, err := b.compare(ctx, t, "the first input is killed", 0, []contender{{name: "twindvr", run: b.failover}})
	if err != nil {
		return err
	}
	t.atMost("next segment in the archive, since the loss was noticed", found.values("twindvr", sinceNotice), 4, "s")
	t.atMost("pictures lost", highest(found.values("twindvr", lost)), 0, "")
	t.note("Segments last 4 s. What came before the loss was noticed counts as 0 s since then.")
	return nil
}

func (b *bench) failover(ctx context.Context) (s sample, err error) {
	p, err := b.startTwins(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	killed := time.Now()
	kill(p.procs[:1])
	p.procs = p.procs[1:]
	if err := pause(ctx, pick(b, 20*time.Second, 6*time.Second)); err != nil { // to notice takes 10 s
		return nil, err
	}
	_, err = stopAll(p.procs[1:])
	time.Sleep(time.Second) // for what is still on its way
	_, serr := stopAll(p.procs[:1])
	p.procs = nil
	if err := errors.Join(err, serr, ctx.Err()); err != nil {
		return nil, err
	}
	s = sample{}
	if err := p.takenOver(killed, s); err != nil {
		return nil, err
	}
	s[lost], err = p.missing(1)
	return s, err
}

// takenOver measures when the next segment came.
func (p *twins) takenOver(killed time.Time, s sample) error {
	came, err := p.arrivals(1)
	if err != nil {
		return err
	}
	var next time.Time
	for _, at := range came {
		if at.After(killed) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	if next.IsZero() {
		return errors.New("no segment came after the other node was killed")
	}
	noticed, err := p.events(1, killed, event.Switch)
	if err != nil {
		return err
	}
	s[nextSegment], s[sinceNotice] = next.Sub(killed).Seconds(), 0
	if len(noticed) > 0 {
		s[sinceNotice] = max(next.Sub(noticed[0]).Seconds(), 0)
	}
	return nil
}

// missing is how many pictures are not in an archive, of those up to the last that
// is: each carries its number.
func (p *twins) missing(i int) (float64, error) {
	seen := map[uint64]bool{}
	last := uint64(0)
	err := eachMedia(p.root(i), func(path string) error {
		b, err := os.ReadFile(path)
		for _, n := range testsrc.FrameNumbers(b) {
			seen[n], last = true, max(last, n)
		}
		return err
	})
	return float64(last) + 1 - float64(len(seen)), err
}
