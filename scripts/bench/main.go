// Command bench measures what recording costs: CPU time per recorded gigabyte,
// memory per stream and losses, of twindvr, of ffmpeg -c copy, and of the floor
// (receive and write, nothing else), on the same input in the same run. README.md
// beside it says how to read the figures and keeps some.
//
// It runs real processes on real sockets and files and takes their CPU time,
// kernel time included, from the operating system's accounting.
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
	"strconv"
	"strings"
	"syscall"
	"time"
)

// bench is one run of the command.
type bench struct {
	twindvr  string
	ffmpeg   string // empty: it is missing
	dir      string // for what is recorded; removed afterwards
	streams  []int
	duration time.Duration // of each UDP measurement
	bitrate  int64         // of each stream, bits per second
	fileSize int64         // bytes of the file recorded
	runs     int
	only     string
}

func main() {
	if len(os.Args) > 1 && (os.Args[1] == "floor" || os.Args[1] == "floor-file") {
		os.Exit(floorMain(os.Args[1:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
}

func run(ctx context.Context, args []string) error {
	b, out, err := parseFlags(args)
	if err != nil {
		return err
	}
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp(b.dir, "work-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)

	r := newReport(b)
	for _, n := range b.streams {
		var list []measurement
		for _, rec := range b.udpRecorders() {
			list = append(list, measurement{rec.name, func() (row, error) { return b.udp(ctx, rec, n) }})
		}
		if err := b.rounds(ctx, r, list); err != nil {
			return fmt.Errorf("%d streams: %w", n, err)
		}
	}
	if b.fileSize > 0 {
		if err := b.files(ctx, r); err != nil {
			return err
		}
	}
	r.print(os.Stdout)
	return r.save(out)
}

// warmUp writes and removes size bytes: the first use of a page of memory costs
// a virtual machine more than the next, and should cost no recorder.
func (b *bench) warmUp(size int64) error {
	path := filepath.Join(b.dir, "warm")
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for ; size > 0 && err == nil; size -= int64(len(block)) {
		_, err = f.Write(block)
	}
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(path))
}

// measurement is one recorder on one input.
type measurement struct {
	name string
	run  func() (row, error)
}

// rounds runs all measurements of one input in turn, so many times, and reports
// the median of each.
func (b *bench) rounds(ctx context.Context, r *report, list []measurement) error {
	rows := make([][]row, len(list))
	for range b.runs {
		for i, m := range list {
			x, err := m.run()
			if err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			fmt.Fprintln(os.Stderr, x)
			rows[i] = append(rows[i], x)
		}
	}
	for _, x := range rows {
		r.add(x)
	}
	return nil
}

func parseFlags(args []string) (*bench, string, error) {
	b := &bench{}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.StringVar(&b.twindvr, "twindvr", "bin/twindvr", "the program to measure")
	fs.StringVar(&b.dir, "dir", "bench", "directory for what is recorded, and for the results")
	streams := fs.String("streams", "1,20,100", "numbers of UDP streams")
	fs.DurationVar(&b.duration, "duration", 20*time.Second, "time to record UDP for")
	fs.Int64Var(&b.bitrate, "bitrate", 6_000_000, "bits per second of a stream")
	fs.Int64Var(&b.fileSize, "file", 1<<30, "bytes of the file to record; 0: none")
	fs.IntVar(&b.runs, "runs", 1, "times to measure each; the median counts")
	fs.StringVar(&b.only, "only", "", "measure only recorders whose name holds this")
	if err := fs.Parse(args); err != nil {
		return nil, "", err
	}
	for _, s := range strings.Split(*streams, ",") {
		if s == "" {
			continue
		}
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > 1000 {
			return nil, "", fmt.Errorf("-streams %s: %q is not a number from 1 to 1000", *streams, s)
		}
		b.streams = append(b.streams, n)
	}
	if fs.NArg() > 0 || b.runs < 1 || b.duration < 5*time.Second {
		return nil, "", errors.New("no arguments are taken, -runs is at least 1 and -duration at least 5s")
	}
	path, err := filepath.Abs(b.twindvr)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return nil, "", fmt.Errorf("%w (build it with make)", err)
	}
	b.twindvr = path
	if b.ffmpeg, err = exec.LookPath("ffmpeg"); err != nil {
		fmt.Fprintln(os.Stderr, "ffmpeg is missing (apt-get install ffmpeg): nothing to compare with")
	}
	return b, filepath.Join(b.dir, "results.json"), nil
}

// wanted says whether -only lets a recorder through.
func (b *bench) wanted(name string) bool { return strings.Contains(name, b.only) }
