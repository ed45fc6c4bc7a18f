package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// actor makes one kind of fault again and again, until its context ends, and
// leaves nothing broken.
type actor struct {
	rng *rand.Rand
	l   *lab
}

// between is a random duration of [from, to) seconds.
func (a *actor) between(from, to float64) time.Duration {
	return time.Duration((from + a.rng.Float64()*(to-from)) * float64(time.Second))
}

// every does something after random pauses of [from, to) seconds.
func (a *actor) every(ctx context.Context, from, to float64, fn func() error) error {
	for sleep(ctx, a.between(from, to)) == nil {
		if err := fn(); err != nil {
			return err
		}
	}
	return nil
}

// everything makes all faults at once.
func everything(ctx context.Context, l *lab) (*outcome, error) {
	if err := l.begun(ctx); err != nil {
		return nil, err
	}
	fctx, cancel := context.WithTimeout(ctx, l.length)
	defer cancel()
	var all sync.WaitGroup
	var mu sync.Mutex
	var errs error
	for _, act := range []func(*actor, context.Context) error{
		func(a *actor, ctx context.Context) error { return a.kill(ctx, l.nodes[0]) },
		func(a *actor, ctx context.Context) error { return a.kill(ctx, l.nodes[1]) },
		(*actor).takeSource, (*actor).freeze, (*actor).cut, (*actor).lose, (*actor).fillDisk, (*actor).flip, (*actor).setClock,
	} {
		a := &actor{rand.New(rand.NewPCG(l.rng.Uint64(), l.rng.Uint64())), l}
		all.Go(func() {
			if err := act(a, fctx); err != nil {
				mu.Lock()
				errs = errors.Join(errs, err)
				mu.Unlock()
				cancel()
			}
		})
	}
	all.Wait()
	if errs != nil {
		return nil, errs
	}
	l.over()
	o, err := l.finish(ctx)
	if err != nil {
		return nil, err
	}
	for _, what := range []string{"kills", "source losses", "cuts", "full disks", "freezes", "bit flips", "clocks a year ahead"} {
		l.want(l.counts[what] > 0 || l.length < 5*time.Minute, "there were no %s", what)
	}
	l.want(o.cleanOne > 0, "no segment was clean on exactly one node")
	l.want(o.missing == 0, "%d pictures are missing that a node received and lived to complete", o.missing)
	l.wantHealed(o)
	return o, nil
}

func (a *actor) kill(ctx context.Context, n *node) error {
	return a.every(ctx, 5, 40, func() error {
		what, end := "kills", n.kill
		if a.rng.IntN(4) == 0 {
			what, end = "restarts", n.stop
		}
		if err := end(); err != nil {
			a.l.fault("%v", err)
		}
		a.l.inject(what)
		sleep(ctx, a.between(0, 15))
		return n.up()
	})
}

func (a *actor) takeSource(ctx context.Context) error {
	return a.every(ctx, 5, 40, func() error {
		n := a.rng.IntN(len(a.l.nodes))
		a.l.block(n, true)
		a.l.inject("source losses")
		sleep(ctx, a.between(0.1, 12))
		a.l.block(n, false)
		return nil
	})
}

// freeze stops a process for a time, as a machine that swaps does.
func (a *actor) freeze(ctx context.Context) error {
	return a.every(ctx, 30, 200, func() error {
		n := a.l.nodes[a.rng.IntN(len(a.l.nodes))]
		n.halt(true)
		n.signal(syscall.SIGSTOP)
		a.l.inject("freezes")
		sleep(ctx, a.between(1, 60))
		n.signal(syscall.SIGCONT)
		n.halt(false)
		return nil
	})
}

func (a *actor) cut(ctx context.Context) error {
	return a.every(ctx, 15, 90, func() error {
		n := a.rng.IntN(len(a.l.nodes))
		if err := a.l.net.isolate(n, true); err != nil {
			return err
		}
		a.l.inject("cuts")
		sleep(ctx, a.between(1, 40))
		return a.l.net.isolate(n, false)
	})
}

// lose changes what is lost by chance, now and then.
func (a *actor) lose(ctx context.Context) error {
	err := a.every(ctx, 0, 60, func() error {
		rate := []float64{0, 0.001, 0.001, 0.01}[a.rng.IntN(4)]
		for i, every := range []time.Duration{10 * time.Second, 7 * time.Second} {
			a.l.lose(i, rate, every, 200*time.Millisecond)
		}
		return nil
	})
	for i := range a.l.nodes {
		a.l.lose(i, 0, 0, 0)
	}
	return err
}

func (a *actor) fillDisk(ctx context.Context) error {
	n := a.l.nodes[0]
	return a.every(ctx, 20, 150, func() error {
		n.halt(true)
		n.disk.fill()
		a.l.inject("full disks")
		sleep(ctx, a.between(5, 60))
		if err := n.disk.free(); err != nil {
			return err
		}
		time.Sleep(5 * time.Second) // it tries again once a second
		n.halt(false)
		return nil
	})
}

// flip flips bits of the second node in segments that the first has clean.
func (a *actor) flip(ctx context.Context) error {
	return a.every(ctx, 30, 90, func() error {
		for _, name := range a.l.streams {
			have := cleanIdentities(a.l.nodes[0].stream(name))
			err := a.l.flipAndVerify(context.WithoutCancel(ctx), a.l.nodes[1], name, 10, a.rng, func(id m4f.Identity) bool { return have[id] })
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (a *actor) setClock(ctx context.Context) error {
	n := a.l.nodes[0]
	return a.every(ctx, 30, 200, func() error {
		if n.setClock(year) != nil {
			return nil // it is down
		}
		a.l.inject("clocks a year ahead")
		sleep(ctx, time.Minute)
		n.setClock(0) // one that was restarted has the right clock already
		return nil
	})
}
