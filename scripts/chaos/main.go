// Command chaos makes the faults that a pair of nodes meets and checks that
// nothing is lost by them: real processes of twindvr, in network namespaces
// where that is permitted and on loopback otherwise, record a source that the
// command itself sends, so that it knows every datagram that each node was
// given. In the end it decodes the exports of all nodes and compares the numbers
// of the pictures with what was sent. CHAOS.md keeps the figures.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// options are those of a run of the command.
type options struct {
	twindvr  string
	dir      string
	seed     uint64
	limit    time.Duration // of the faults of each scenario; 0: its own
	short    bool
	bitrate  int64
	loopback bool
	keep     bool
	jobs     int
	figures  string
	patience int
	top      []string // lines of every configuration
}

// length is how long faults are made in a scenario.
func (o *options) length(s *scenario) time.Duration {
	switch {
	case o.limit > 0:
		return o.limit
	case o.short:
		return s.short
	}
	return s.time
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

var errFailed = errors.New("not every scenario ended as it must")

func run(ctx context.Context, args []string) error {
	o, list, err := parse(args)
	if err != nil || list == nil {
		return err
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "chaos: %d scenarios, seed %d (SEED=%d makes the same choices again)\n", len(list), o.seed, o.seed)
	results := make([]*result, len(list))
	var all sync.WaitGroup
	slots := make(chan struct{}, o.jobs)
	for i, sc := range list {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			results[i] = runScenario(ctx, o, sc)
		})
	}
	all.Wait()
	fmt.Print(table(results))
	for _, r := range results {
		fmt.Printf("%s: %s\n", r.name, r.summary())
	}
	if o.figures != "" {
		if err := keepFigures(o.figures, results); err != nil {
			return err
		}
	}
	for _, r := range results {
		if r.failed() {
			return errFailed
		}
	}
	return nil
}

// runScenario runs a scenario in a lab of its own.
func runScenario(ctx context.Context, o *options, sc *scenario) *result {
	began := time.Now()
	r := &result{scenario: sc, seed: o.seed, length: o.length(sc), bitrate: o.bitrate}
	dir, err := os.MkdirTemp(o.dir, sc.name+"-")
	if err != nil {
		r.err = err
		return r
	}
	l, err := newLab(o, sc, dir)
	if err != nil {
		r.err = err
		return r
	}
	r.network = l.net.kind()
	l.log.Printf("%s (%v)", sc.fault, r.length)
	r.outcome, r.err = sc.run(ctx, l)
	r.faults = l.faults
	l.close(o.keep || r.failed())
	r.took = time.Since(began)
	r.counts, r.notes, r.faults = l.counts, l.notes, l.faults
	if r.failed() {
		for _, n := range l.nodes {
			fmt.Fprintf(os.Stderr, "-- the end of the log of %s in %s:\n%s\n", n.name, sc.name, n.logTail(25))
		}
	}
	if o.keep || r.failed() {
		l.log.Printf("kept in %s", dir)
	} else {
		os.RemoveAll(dir)
	}
	l.log.Print(r.summary())
	return r
}

func parse(args []string) (*options, []*scenario, error) {
	o := &options{patience: 1}
	fs := flag.NewFlagSet("chaos", flag.ContinueOnError)
	fs.StringVar(&o.twindvr, "twindvr", "bin/twindvr", "the program to run")
	fs.StringVar(&o.dir, "dir", "chaos", "directory for archives and logs")
	names := fs.String("scenario", "", "the scenarios to run, with commas between; all but the long ones unless given")
	fs.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "chooses the moments of all faults")
	fs.DurationVar(&o.limit, "time", 0, "for how long faults are made in each scenario, instead of its own time")
	fs.BoolVar(&o.short, "short", false, "the short part that runs in CI")
	fs.Int64Var(&o.bitrate, "bitrate", 2_000_000, "bits per second of each stream")
	fs.BoolVar(&o.loopback, "loopback", false, "use no network namespaces")
	fs.BoolVar(&o.keep, "keep", false, "keep archives and logs also of what ended well")
	fs.IntVar(&o.jobs, "jobs", 2, "how many scenarios run at once")
	fs.StringVar(&o.figures, "figures", "", "the page that keeps the figures; they are replaced there")
	list := fs.Bool("list", false, "list the scenarios")
	if err := fs.Parse(args); err != nil {
		return nil, nil, err
	}
	if fs.NArg() > 0 || o.jobs < 1 || o.limit < 0 {
		return nil, nil, errors.New("no arguments are taken, -jobs is at least 1")
	}
	if *list {
		for _, s := range scenarios {
			fmt.Printf("%-16s %8v  %s\n", s.name, s.time, s.fault)
		}
		return nil, nil, nil
	}
	var err error
	if o.twindvr, err = filepath.Abs(o.twindvr); err == nil {
		_, err = os.Stat(o.twindvr)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w (build it with make)", err)
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return nil, nil, err
	}
	chosen, err := choose(*names, o.short)
	return o, chosen, err
}

func choose(names string, short bool) (list []*scenario, err error) {
	for _, s := range scenarios {
		if names == "" && (short && s.short > 0 || !short && !s.long) {
			list = append(list, s)
		}
	}
	for _, name := range strings.FieldsFunc(names, func(r rune) bool { return r == ',' || r == ' ' }) {
		s, err := find(name)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}
