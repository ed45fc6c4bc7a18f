package main

import (
	"context"
	"strings"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
)

// killing kills one node at random moments, also while it starts.
func killing(victim int) func(context.Context, *lab) (*outcome, error) {
	return func(ctx context.Context, l *lab) (*outcome, error) {
		if err := l.begun(ctx); err != nil {
			return nil, err
		}
		n := l.nodes[victim]
		kills := l.times(50)
		for range kills {
			if err := sleep(ctx, l.between(0, 5*time.Second)); err != nil {
				return nil, err
			}
			if err := n.kill(); err != nil {
				return nil, err
			}
			l.inject("kills")
			if err := sleep(ctx, l.between(0, 3*time.Second)); err != nil {
				return nil, err
			}
			if err := n.up(); err != nil {
				return nil, err
			}
		}
		l.over()
		o, err := l.finish(ctx)
		if err != nil {
			return nil, err
		}
		l.want(n.starts == kills+1, "%s was started %d times, not %d", n.name, n.starts, kills+1)
		l.want(o.cleanOne > 0, "no segment was lost by the kills of %s", n.name)
		l.wantNothingMissing(o)
		return o, nil
	}
}

// rolling restarts three nodes in turn: each goes when the one before has
// recorded a whole segment again. Half of them are killed.
func rolling(ctx context.Context, l *lab) (*outcome, error) {
	if err := l.begun(ctx); err != nil {
		return nil, err
	}
	restarts := 0
	for end := l.until(); time.Now().Before(end) || restarts < 3; restarts++ {
		n := l.nodes[restarts%3]
		what, end := "kills", n.kill
		if l.rng.IntN(2) == 0 {
			what, end = "restarts", n.stop
		}
		if err := end(); err != nil {
			l.fault("%v", err)
		}
		l.inject(what)
		if err := sleep(ctx, l.between(0, 4*time.Second)); err != nil {
			return nil, err
		}
		if err := n.up(); err != nil {
			return nil, err
		}
		since := time.Now()
		if err := l.wait(ctx, 30*time.Second, n.name+" has recorded a whole segment", func() bool {
			return recordedWhole(n.stream(l.streams[0]), since)
		}); err != nil {
			return nil, err
		}
		if err := sleep(ctx, l.between(0, 4*time.Second)); err != nil {
			return nil, err
		}
	}
	l.over()
	o, err := l.finish(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range l.nodes {
		l.want(n.starts > 1, "%s was never restarted", n.name)
	}
	l.wantNothingMissing(o)
	return o, nil
}

// circle has two nodes whose only inputs are each other.
func circle(ctx context.Context, l *lab) (*outcome, error) {
	if err := l.configure(peersOnly); err != nil {
		return nil, err
	}
	// No source: nothing to listen for, nothing is sent.
	for _, s := range l.sources {
		for _, p := range s.paths {
			p.out.Close()
		}
	}
	l.sources = nil
	for _, n := range l.nodes {
		if err := n.up(); err != nil {
			return nil, err
		}
	}
	offline := func() bool {
		for _, n := range l.nodes {
			if n.mode(ctx) != "offline" {
				return false
			}
		}
		return true
	}
	if err := l.wait(ctx, 30*time.Second, "both nodes are offline", offline); err != nil {
		return nil, err
	}
	before, err := l.net.between()
	if err != nil {
		return nil, err
	}
	for end := l.until(); time.Now().Before(end); {
		if err := sleep(ctx, time.Second); err != nil {
			return nil, err
		}
		l.want(offline(), "a node is not offline: %q and %q", l.nodes[0].mode(ctx), l.nodes[1].mode(ctx))
	}
	after, err := l.net.between()
	if err != nil {
		return nil, err
	}
	l.inject("loops")
	o := &outcome{between: after - before}
	rate := float64(o.between) / l.length.Seconds()
	l.note("%.0f bytes a second between the nodes", rate)
	l.want(rate < 10_000, "%.0f bytes a second go between two nodes that have nothing to tell each other", rate)
	for _, n := range l.nodes {
		why := told(n, l.streams[0], "no input works")
		l.want(why != "", "no event of %s says why it is offline", n.name)
		l.log.Printf("%s: %s", n.name, why)
	}
	for _, n := range l.nodes {
		if err := n.stop(); err != nil {
			l.fault("%v", err)
		}
		o.peak = max(o.peak, n.peak)
	}
	return o, nil
}

// told is the first event of a stream whose text holds some words.
func told(n *node, stream, words string) string {
	a, err := archive.Open(n.stream(stream))
	if err != nil {
		return ""
	}
	events, err := a.Events(0, 0)
	if err != nil {
		return ""
	}
	for _, e := range events {
		if strings.Contains(e.Msg, words) {
			return e.Msg
		}
	}
	return ""
}
