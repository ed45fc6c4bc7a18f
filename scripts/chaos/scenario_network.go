package main

import (
	"context"
	"slices"
	"time"
)

// sourceLost takes the source from one node, from the other, and from both in
// turn, for longer and shorter than it takes to notice.
func sourceLost(ctx context.Context, l *lab) (*outcome, error) {
	if err := l.begun(ctx); err != nil {
		return nil, err
	}
	third := l.length / 3
	for _, turn := range []func(int) int{
		func(int) int { return 0 }, func(int) int { return 1 }, func(i int) int { return i % 2 },
	} {
		for i, end := 0, time.Now().Add(third); time.Now().Before(end) || i < 2; i++ {
			n := turn(i)
			l.block(n, true)
			l.inject("source losses")
			err := sleep(ctx, l.between(100*time.Millisecond, 8*time.Second))
			l.block(n, false)
			if err != nil {
				return nil, err
			}
			if err := sleep(ctx, l.between(0, 3*time.Second)); err != nil {
				return nil, err
			}
		}
	}
	l.over()
	o, err := l.finish(ctx)
	if err != nil {
		return nil, err
	}
	l.want(o.blocked[0] > 0 && o.blocked[1] > 0, "the source was not lost: %d datagrams", o.blocked)
	l.want(o.cleanOne > 0, "no segment was lost by any node")
	l.wantNothingMissing(o)
	return o, nil
}

// cutOff parts the nodes; one of them is also without source for a part of that
// time, so that there is something to heal.
func cutOff(ctx context.Context, l *lab) (*outcome, error) {
	if err := l.begun(ctx); err != nil {
		return nil, err
	}
	if err := l.net.isolate(1, true); err != nil {
		return nil, err
	}
	l.inject("cuts")
	before, _ := l.net.between()
	for n, part := range []time.Duration{l.length / 3, l.length / 3, l.length / 3} {
		if n < 2 {
			l.block(n, true)
			l.inject("source losses")
			if err := sleep(ctx, part/4); err != nil {
				return nil, err
			}
			l.block(n, false)
			part -= part / 4
		}
		if err := sleep(ctx, part); err != nil {
			return nil, err
		}
	}
	for _, n := range l.nodes {
		st := n.status(ctx)
		l.want(st != nil && st.Streams[0].Unreplicated, "%s did not notice that its peer was gone", n.name)
	}
	during, err := l.net.between()
	if err != nil {
		return nil, err
	}
	// What the first node still sends into the void is counted too.
	l.want(float64(during-before) < 0.01*float64(l.opt.bitrate)/8*l.length.Seconds(), "%d bytes went between the nodes while they were cut off", during-before)
	if err := l.net.isolate(1, false); err != nil {
		return nil, err
	}
	l.over()
	o, err := l.finish(ctx)
	if err != nil {
		return nil, err
	}
	l.want(o.cleanOne > 0, "no segment was lost by any node")
	l.wantNothingMissing(o)
	return o, nil
}

// losing loses single datagrams at both nodes, independently.
func losing(rate float64) func(context.Context, *lab) (*outcome, error) {
	return func(ctx context.Context, l *lab) (*outcome, error) {
		if err := l.begun(ctx); err != nil {
			return nil, err
		}
		l.note("%.1f %% of the datagrams at each node", 100*rate)
		for i := range l.nodes {
			l.lose(i, rate, 0, 0)
		}
		if err := sleep(ctx, l.length); err != nil {
			return nil, err
		}
		for i := range l.nodes {
			l.lose(i, 0, 0, 0)
		}
		l.over()
		o, err := l.finish(ctx)
		if err != nil {
			return nil, err
		}
		for i, n := range o.lost {
			l.want(n > 0, "%s has lost nothing", l.nodes[i].name)
		}
		l.want(o.cleanOne+o.cleanNone > 0, "every segment was clean on both nodes")
		l.want(rate > 0.005 || o.cleanOne > 0, "no segment was clean on exactly one node")
		l.want(rate < 0.005 || o.cleanNone > 0, "no segment was damaged on both nodes")
		l.wantHealed(o)
		return o, nil
	}
}

// wantHealed wants what independent losses must end with.
func (l *lab) wantHealed(o *outcome) {
	l.want(o.due > 0, "nothing was recorded")
	l.want(100*o.healed >= 99*o.due, "of %d segments that the nodes together received, %d are clean on all", o.due, o.healed)
	l.want(o.wrong == 0, "%d segments are wrong and called clean", o.wrong)
}

// bursts loses 200 ms now and then at each node, never at both at once.
func bursts(ctx context.Context, l *lab) (*outcome, error) {
	if err := l.begun(ctx); err != nil {
		return nil, err
	}
	l.lose(0, 0, 10*time.Second, 200*time.Millisecond)
	// 10 i = 7 j + 1/2 has no solution: half a second stays between any two.
	if err := sleep(ctx, 500*time.Millisecond); err != nil {
		return nil, err
	}
	l.lose(1, 0, 7*time.Second, 200*time.Millisecond)
	if err := sleep(ctx, l.length); err != nil {
		return nil, err
	}
	for i := range l.nodes {
		l.lose(i, 0, 0, 0)
	}
	l.over()
	o, err := l.finish(ctx)
	if err != nil {
		return nil, err
	}
	var n int64
	for _, s := range l.sources {
		for _, p := range s.paths {
			n += p.counts.bursts
		}
	}
	l.note("%d bursts", n)
	l.want(slices.Min(o.lost) > 0, "a node has lost nothing: %d datagrams", o.lost)
	l.wantNothingMissing(o)
	return o, nil
}
