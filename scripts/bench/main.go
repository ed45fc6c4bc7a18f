// Command bench measures what twindvr costs, side by side with the programs that
// do the same or a part of it, and with the least that has to be done: CPU time,
// memory, time and bytes, of real processes on real sockets and files. README.md
// beside it says how to read the figures and keeps some.
//
// CPU time is taken from the operating system's accounting of whole processes,
// kernel time included.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// bench is one run of the command.
type bench struct {
	twindvr  string
	peers    map[string]string // programs to compare with: paths; empty: missing
	dir      string            // for what is recorded; removed afterwards
	results  string            // directory of the results
	figures  string            // directory that also gets RESULTS.md and the plots; empty: none
	profile  string            // directory of the profiles that are made instead of measurements; empty: none
	short    bool              // see only that everything works
	only     []string          // measurements; empty: all
	who      []string          // contenders; empty: all
	runs     int               // of the measurement that runs
	allRuns  int               // -runs; 0: as each measurement has it
	streams  []int
	duration time.Duration // of each UDP measurement
	asked    time.Duration // -duration; 0: as each measurement has it
	long     time.Duration // of that of many streams
	many     int           // streams of that
	bitrate  int64         // of each stream, bits per second
	fileSize int64         // bytes of the file recorded
}

// errFailed says that a measurement could not be made; what it was has been said.
var errFailed = errors.New("not everything could be measured")

func main() {
	if len(os.Args) > 1 && (os.Args[1] == "floor" || os.Args[1] == "floor-file") {
		os.Exit(floorMain(os.Args[1:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	switch err := run(ctx, os.Args[1:]); {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errFailed):
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
}

func run(ctx context.Context, args []string) error {
	b, err := parseFlags(args)
	if err != nil {
		return err
	}
	if err := b.workIn(b.results); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	defer killAll() // what an error left running
	defer context.AfterFunc(ctx, killAll)()
	if b.profile != "" {
		return b.recordProfile(ctx, os.Stdout)
	}
	b.findPeers()

	r := newReport(b)
	r.head(os.Stdout)
	r.keep(filepath.Join(b.results, "results.json"))
	failed := b.measure(ctx, r)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	r.summary(os.Stdout)
	if b.figures != "" {
		failed = errors.Join(r.write(filepath.Join(b.figures, "RESULTS.md")), r.plots(b.figures), failed)
	}
	return failed
}

// workIn makes a directory for what is recorded, and removes those of earlier
// runs that were killed.
func (b *bench) workIn(dir string) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(dir, "work-*-*"))
	if err != nil {
		return err
	}
	for _, path := range old {
		pid := strings.Split(filepath.Base(path), "-")[1]
		if _, err := os.Stat("/proc/" + pid); err != nil {
			os.RemoveAll(path)
		}
	}
	b.dir, err = os.MkdirTemp(dir, fmt.Sprintf("work-%d-", os.Getpid()))
	return err
}

// measure makes the measurements that are wanted. One that fails does not keep
// the others from being made.
func (b *bench) measure(ctx context.Context, r *report) error {
	revision, err := exec.CommandContext(ctx, b.twindvr, "--version").Output()
	if err != nil {
		return fmt.Errorf("%s --version: %w", b.twindvr, err)
	}
	var failed error
	others := busy(ctx, pick(b, 3*time.Second, 10*time.Millisecond))
	for _, m := range measurements {
		if len(b.only) > 0 && !slices.Contains(b.only, m.name) {
			continue
		}
		if b.runs = pick(b, m.runs, 1); b.allRuns > 0 {
			b.runs = b.allRuns
		}
		t := &table{Name: m.name, About: m.about, At: time.Now(), Runs: b.runs, Short: b.short, Busy: others,
			Revision: strings.TrimPrefix(strings.TrimSpace(string(revision)), "twindvr ")}
		err := m.run(b, ctx, t)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", m.name, err)
			t.Failed, failed = err.Error(), errFailed
		}
		t.Took = time.Since(t.At).Seconds()
		t.print(os.Stdout)
		r.put(t)
		if len(b.who) > 0 {
			continue // only a part
		}
		if err := errors.Join(r.save(b.results), r.plots(b.results)); err != nil {
			return err
		}
	}
	return failed
}

func parseFlags(args []string) (*bench, error) {
	b := &bench{}
	var names []string
	for _, m := range measurements {
		names = append(names, m.name)
	}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.StringVar(&b.twindvr, "twindvr", "bin/twindvr", "the `program` to measure")
	fs.StringVar(&b.results, "dir", "", "`directory` for what is recorded, and for the results (default bench, with -short bench/short)")
	fs.StringVar(&b.figures, "figures", "", "`directory` that also gets RESULTS.md and the plots")
	only := fs.String("only", "", "measure only these, separated by commas: "+strings.Join(names, ", "))
	who := fs.String("who", "", "of those measured side by side only these, such as twindvr,floor")
	fs.StringVar(&b.profile, "profile", "", "measure nothing; leave profiles of supervise with 20 streams in this `directory`")
	fs.IntVar(&b.allRuns, "runs", 0, "times to measure each; 0: as each measurement has it")
	fs.BoolVar(&b.short, "short", false, "small and once: to see that everything works")
	streams := fs.String("streams", "", "numbers of UDP streams (default 1,5,20,100,250)")
	fs.DurationVar(&b.duration, "duration", 0, "time to record UDP for (default 20s, 20 streams 1m)")
	fs.DurationVar(&b.long, "long", 0, "time to record many streams for (default 10m)")
	fs.IntVar(&b.many, "many", 0, "how many streams are many (default 250)")
	fs.Int64Var(&b.bitrate, "bitrate", 6_000_000, "bits per second of a stream")
	fs.Int64Var(&b.fileSize, "file", 0, "bytes of the file to record (default 1 GiB)")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if b.results == "" {
		b.results = pick(b, "bench", "bench/short")
	}
	if b.figures != "" && (b.short || *who != "") {
		return nil, errors.New("-figures takes whole results, and neither -short nor -who gives them")
	}
	if *streams == "" {
		*streams = pick(b, "1,5,20,100,250", "2")
		if b.profile != "" {
			*streams = pick(b, "20", "2")
		}
	}
	if b.asked = b.duration; b.duration == 0 {
		b.duration = pick(b, 20*time.Second, 2*time.Second)
	}
	if b.long == 0 {
		b.long = pick(b, 10*time.Minute, b.duration)
	}
	if b.many == 0 {
		b.many = pick(b, 250, 4)
	}
	if b.fileSize == 0 {
		b.fileSize = pick(b, int64(1<<30), 16<<20)
	}
	b.only, b.who = list(*only), list(*who)
	for _, name := range b.only {
		if !slices.Contains(names, name) {
			return nil, fmt.Errorf("-only %s: there are %s", name, strings.Join(names, ", "))
		}
	}
	for _, s := range list(*streams) {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 1000 {
			return nil, fmt.Errorf("-streams %s: %q is not a number from 1 to 1000", *streams, s)
		}
		b.streams = append(b.streams, n)
	}
	if b.many < 1 || b.many > 1000 {
		return nil, fmt.Errorf("-many %d is not from 1 to 1000", b.many)
	}
	if fs.NArg() > 0 || b.allRuns < 0 || b.duration < pick(b, 5*time.Second, time.Second) {
		return nil, errors.New("no arguments are taken, -runs is not negative and -duration at least 5s")
	}
	return b, b.absolute()
}

// absolute makes the paths absolute, and sees that the program is there.
func (b *bench) absolute() error {
	var err1, err2 error
	b.twindvr, err1 = filepath.Abs(b.twindvr)
	b.results, err2 = filepath.Abs(b.results)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if _, err := os.Stat(b.twindvr); err != nil {
		return fmt.Errorf("%w (build it with make)", err)
	}
	return nil
}

// list splits a flag's value at its commas.
func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}
