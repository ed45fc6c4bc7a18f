package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/twindvr/twindvr/pkg/testsrc"
)

type testsrcOptions struct {
	loss         lossFlag
	burst        int
	seed         uint64
	iface        string
	ttl          int
	count        int
	bitrate      int64
	startPTS     uint64
	restartEvery time.Duration
	duration     time.Duration
	realtime     bool
	json         bool
}

// AddFlags adds the command's flags.
func (o *testsrcOptions) AddFlags(fs *pflag.FlagSet) {
	addQuantity(fs, &quantity[int64]{p: &o.bitrate, kind: "BITS", parse: parseBitrate}, "bitrate", "",
		"fill the stream up to this many `BITS` a second, such as 6M")
	addDuration(fs, &o.duration, "duration", "", "stop after this `DURATION`")
	addDuration(fs, &o.restartEvery, "restart-every", "", "begin anew each `DURATION`, timestamps too, as an encoder that restarts")
	fs.Var(&o.loss, "loss", "leave out this `SHARE` of the datagrams, such as 0.1%")
	fs.IntVar(&o.burst, "burst", 1, "leave out this `NUMBER` of datagrams in a row each time")
	fs.Uint64Var(&o.seed, "seed", 1, "choose with this `NUMBER` which datagrams are left out; each further output adds one")
	fs.StringVar(&o.iface, "interface", "", "multicast on the network interface with this `NAME` or address")
	fs.IntVar(&o.ttl, "ttl", 1, "time to live of multicast, a `NUMBER` of hops")
	fs.IntVar(&o.count, "count", 1, "send to this `NUMBER` of consecutive ports from each URL's on")
	fs.Uint64Var(&o.startPTS, "start-pts", testsrc.DefaultStartPTS, "begin at this PTS, in `TICKS` of 1/90000 s modulo 2^33")
	fs.BoolVar(&o.realtime, "realtime", true, "send in real time; false is as fast as it can")
	fs.BoolVar(&o.json, "json", false, "print what was sent as a JSON object")
}

func newTestsrcCmd(io IO) *cobra.Command {
	var opts testsrcOptions
	cmd := &cobra.Command{
		Use:   "testsrc [URL...]",
		Short: "Send an endless test stream to UDP or standard output",
		Long: `testsrc makes a transport stream of H.264 and AAC with a visible clock, in real
time and without end: a clip of 8 s looped without a seam. The same options make
the same bytes. Every picture carries its number in an SEI message.

Each URL is udp://ADDRESS:PORT, unicast or multicast; without one the stream
goes to standard output. A URL's own ?loss=, burst=, seed=, interface= and ttl=
win over the flags, so that receivers of one stream can be given different losses:

  twindvr testsrc --bitrate 6M 'udp://127.0.0.1:5001?loss=0.1%&seed=1' \
      'udp://127.0.0.1:5002?loss=0.1%&seed=2'

When it ends, by --duration or a signal, it tells how much was sent and left out:
on standard error, or with --json as an object on standard output (on standard
error where standard output has the stream).

Exit status: 0 when ended by --duration or a signal, 2 trouble.`,
		Args: wantArgs("[URL...]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runTestsrc(cmd.Context(), &opts, args, io)
		},
	}
	opts.AddFlags(cmd.Flags())
	return cmd
}

func runTestsrc(ctx context.Context, o *testsrcOptions, urls []string, io IO) error {
	switch {
	case o.burst < 1:
		return fmt.Errorf("--burst %d is less than 1", o.burst)
	case o.count < 1:
		return fmt.Errorf("--count %d is less than 1", o.count)
	case o.ttl < 1 || o.ttl > 255:
		return fmt.Errorf("--ttl %d is not from 1 to 255", o.ttl)
	case !o.realtime && o.duration == 0 && len(urls) > 0:
		return errors.New("--realtime=false to UDP needs a --duration: it would flood the network")
	case len(urls) == 0 && terminal(io.Out):
		return errors.New("standard output is a terminal; name a URL, or pipe the stream: twindvr testsrc | ffplay -")
	}
	gen, err := testsrc.New(testsrc.Options{Bitrate: o.bitrate, StartPTS: int64(o.startPTS & (1<<33 - 1)),
		RestartEvery: o.restartEvery, Duration: o.duration})
	if err != nil {
		return err
	}
	outputs, err := o.open(urls, io)
	if err != nil {
		return err
	}
	err = testsrc.Send(ctx, gen, outputs, testsrc.SendOptions{Unpaced: !o.realtime, Clock: io.Clock})
	for _, out := range outputs {
		err = errors.Join(err, out.Close())
	}
	return errors.Join(err, o.report(gen, outputs, len(urls) > 0, io))
}

// open opens the outputs; each has a seed of its own.
func (o *testsrcOptions) open(urls []string, io IO) ([]*testsrc.Output, error) {
	opt := testsrc.OutputOptions{Loss: testsrc.Loss{Rate: float64(o.loss), Burst: o.burst, Seed: o.seed}, Interface: o.iface, TTL: o.ttl}
	if len(urls) == 0 {
		return []*testsrc.Output{testsrc.NewOutput("-", io.Out, opt.Loss)}, nil
	}
	var outputs []*testsrc.Output
	for _, url := range urls {
		list, err := testsrc.OpenOutputs(url, opt, o.count)
		if err != nil {
			for _, out := range outputs {
				err = errors.Join(err, out.Close())
			}
			return nil, err
		}
		outputs = append(outputs, list...)
		opt.Loss.Seed += uint64(o.count)
	}
	return outputs, nil
}

// testsrcReport is what --json prints.
type testsrcReport struct {
	Frames  uint64                `json:"frames"`
	Outputs []testsrc.OutputStats `json:"outputs"`
}

// report tells what was sent. Standard output is free for it when the stream
// went elsewhere.
func (o *testsrcOptions) report(gen *testsrc.Generator, outputs []*testsrc.Output, free bool, io IO) error {
	r := testsrcReport{Frames: gen.Frames()}
	for _, out := range outputs {
		r.Outputs = append(r.Outputs, out.Stats())
	}
	if !o.json {
		for _, st := range r.Outputs {
			fmt.Fprintf(io.Err, "%s: %d pictures, %d datagrams sent, %d left out\n", st.URL, r.Frames, st.Sent, st.Dropped)
		}
		return nil
	}
	w := io.Out
	if !free {
		w = io.Err
	}
	out := newJSONLines(w)
	return errors.Join(out.Write(r), out.Flush())
}

// lossFlag is a share of datagrams.
type lossFlag float64

func (v *lossFlag) String() string { return strconv.FormatFloat(float64(*v)*100, 'g', -1, 64) + "%" }
func (v *lossFlag) Type() string   { return "SHARE" }
func (v *lossFlag) Set(s string) error {
	r, err := testsrc.ParseRate(s)
	*v = lossFlag(r)
	return err
}

// parseBitrate reads bits per second, with k, M or G for powers of 1000.
func parseBitrate(s string) (int64, error) {
	digits, unit := strings.TrimRight(s, "kKMG"), 1.0
	switch s[len(digits):] {
	case "":
	case "k", "K":
		unit = 1e3
	case "M":
		unit = 1e6
	case "G":
		unit = 1e9
	default:
		unit = 0
	}
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || unit == 0 || !(n > 0) || n*unit > 10e9 {
		return 0, fmt.Errorf("bit rate %q is not a number of bits per second such as 6M", s)
	}
	return int64(n * unit), nil
}
