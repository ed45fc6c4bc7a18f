package main

import (
	"context"
	"fmt"
	"time"
)

// scenario is a row of the table of faults and what they must end with.
type scenario struct {
	name    string // as -scenario names it
	fault   string // a sentence
	must    string // what it must end with
	nodes   int
	streams int
	volume  int64         // bytes of a volume of the first node's own; 0: none
	clocked bool          // the nodes have wall clocks of their own
	time    time.Duration // how long faults are made
	short   time.Duration // the same in CI; 0: it does not run there
	long    bool          // runs only when named
	run     func(context.Context, *lab) (*outcome, error)
}

const nothingMissing = "no picture missing on any node"

var scenarios = []*scenario{
	{name: "main-killed", fault: "the main node is killed 50 times", must: nothingMissing,
		nodes: 2, streams: 1, time: 200 * time.Second, short: 16 * time.Second, run: killing(0)},
	{name: "standby-killed", fault: "the standby is killed 50 times", must: nothingMissing,
		nodes: 2, streams: 1, time: 200 * time.Second, short: 16 * time.Second, run: killing(1)},
	{name: "source-lost", fault: "the source is lost at the main node only, at the standby only, at both in turn",
		must: "no picture missing that one received", nodes: 2, streams: 1, time: 3 * time.Minute, short: 18 * time.Second, run: sourceLost},
	{name: "cut", fault: "the network between the nodes is cut, both record", must: "equal views, no overlap, no picture missing",
		nodes: 2, streams: 2, time: 5 * time.Minute, short: 25 * time.Second, run: cutOff},
	{name: "loss-0.1%", fault: "0.1 % of the datagrams are lost at each node, independently",
		must:  "99 % of the segments that the nodes together received are clean on both, none wrong",
		nodes: 2, streams: 4, time: 5 * time.Minute, short: 20 * time.Second, run: losing(0.001)},
	{name: "loss-1%", fault: "1 % of the datagrams are lost at each node, independently",
		must:  "99 % of the segments that the nodes together received are clean on both, none wrong",
		nodes: 2, streams: 4, time: 5 * time.Minute, run: losing(0.01)},
	{name: "bursts", fault: "200 ms are lost at one node every 10 s, at the other every 7 s", must: nothingMissing,
		nodes: 2, streams: 2, time: 5 * time.Minute, short: 24 * time.Second, run: bursts},
	{name: "disk-full", fault: "the disk of one node is full for 3 minutes", must: "healed, the other node unaffected, memory bounded",
		nodes: 2, streams: 2, volume: 512 << 20, time: 3 * time.Minute, run: diskFull},
	{name: "bit-flips", fault: "1000 random bits are flipped in extents and indexes of one node",
		must:  "all found by verify, all healed, none served as good",
		nodes: 2, streams: 4, time: 3 * time.Minute, run: bitFlips},
	{name: "clock", fault: "the clock of one node is a year ahead for a time", must: "nothing pruned",
		nodes: 2, streams: 1, clocked: true, time: 90 * time.Second, run: clockAhead},
	{name: "everything", fault: "all of it at once", must: "no picture missing but for what no living node had complete",
		nodes: 2, streams: 2, volume: 4 << 30, clocked: true, time: time.Hour, long: true, run: everything},
	{name: "three-nodes", fault: "three nodes, restarted and killed in turn", must: nothingMissing,
		nodes: 3, streams: 1, time: 3 * time.Minute, run: rolling},
	{name: "loop", fault: "the inputs of each node are the other only", must: "both offline, no storm of traffic, an event that says why",
		nodes: 2, streams: 1, time: time.Minute, short: 15 * time.Second, run: circle},
}

func find(name string) (*scenario, error) {
	for _, s := range scenarios {
		if s.name == name {
			return s, nil
		}
	}
	return nil, fmt.Errorf("there is no scenario %q; -list shows all", name)
}

// times is how often something is done that is done n times in the scenario's
// own time.
func (l *lab) times(n int) int {
	return max(3, int(int64(n)*int64(l.length)/int64(l.scenario.time)))
}

// until says when the faults end.
func (l *lab) until() time.Time { return time.Now().Add(l.length) }

// over notes that the last fault is over.
func (l *lab) over() { l.calm = time.Now() }

// begun configures the usual nodes and starts them.
func (l *lab) begun(ctx context.Context) error {
	if err := l.configure(crossed); err != nil {
		return err
	}
	return l.start(ctx)
}

// want makes a figure a condition.
func (l *lab) want(ok bool, format string, args ...any) {
	if !ok {
		l.fault(format, args...)
	}
}

// wantNothingMissing is the end state of most scenarios.
func (l *lab) wantNothingMissing(o *outcome) {
	l.want(o.missing == 0, "%d pictures are missing that a node received", o.missing)
	l.want(o.excused == 0 || o.stalls > 0, "%d pictures are missing that no node had", o.excused)
	l.want(o.segments > 0 && o.pictures > 0, "nothing was recorded")
}
