package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/ingest"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/segment"
)

const (
	// sourceLost is how long a live source may deliver nothing.
	sourceLost = 10 * time.Second
	// retryFirst and retryAtMost are the shortest and the longest wait before a
	// source is opened anew. A source that delivers for less than the longest is
	// none that has come back: the wait goes on growing.
	retryFirst  = time.Second
	retryAtMost = 10 * time.Second
)

// ingestOptions are the flags of ingest.
type ingestOptions struct {
	url      string // without program=
	program  uint16
	target   time.Duration
	duration time.Duration
	netif    string
	start    timeFlag
	realtime bool
	retry    bool
	peer     peerOptions
	into     recordOptions // with a directory, that of --record
}

// AddFlags adds the flags of ingest.
func (o *ingestOptions) AddFlags(fs *pflag.FlagSet, io IO) {
	fs.Uint16Var(&o.program, "program", 0, "record the program with this `NUMBER`; 0 is the lowest of the stream")
	addDuration(fs, &o.target, "segment-duration", "4s", "target `DURATION` of a segment, 200ms to 1m; the same on every node")
	addDuration(fs, &o.duration, "duration", "", "stop after this `DURATION`: of time for a live source, of media, in whole segments, for a file")
	fs.StringVar(&o.netif, "interface", "", "hear multicast on the network interface with this `NAME` or address")
	addTime(fs, &o.start, io.Clock, "start", "date the first segment of a file with this `TIME`, instead of now")
	fs.BoolVar(&o.realtime, "realtime", false, "read a file, or an HTTP live stream that has ended, at the speed of its clock references, as if it were live")
	fs.BoolVar(&o.retry, "retry", false, "wait for a source that is lost or does not open yet, instead of ending")
	fs.StringVar(&o.into.dir, "record", "", "write into the archive of the stream in `DIR`, as twindvr record does, instead of to standard output")
	o.into.AddFlags(fs)
	o.peer.AddFlags(fs)
}

func newIngestCmd(io IO) *cobra.Command {
	var o ingestOptions
	cmd := &cobra.Command{
		Use:   "ingest URL",
		Short: "Cut a source into segments, as M4F on standard output",
		Long: `ingest reads a stream and writes it to standard output as M4F, plain fragmented
MP4 that record takes and that players play.

URL is one of these; twindvr.conf(5) says more of each and of its options:

  udp://ADDRESS:PORT           a transport stream in datagrams, unicast or
                               multicast; interface=, source=, buffer_size=
  rtp://ADDRESS:PORT           in RTP; further reorder=, fec=on
  rtp://A:PORT,B:PORT          the same packets by two paths; further skew=
  srt://HOST:PORT              SRT, called; mode=listener (or srt://:PORT) to be
                               called; latency=, passphrase=, pbkeylen=,
                               streamid=, connect_timeout=, interface=
  http://HOST/PATH, https://   an endless transport stream; USER:PASSWORD@ before
                               the host where it asks for them
  http://HOST/PATH.m3u8        an HTTP live stream, also as hls:// and hlss://;
                               variant=
  rtsp://HOST/PATH, rtsps://   a camera, USER:PASSWORD@ before the host;
                               transport=tcp|udp|multicast|auto, fingerprint=,
                               insecure=1
  file:PATH, PATH              a file, or a FIFO that another program writes to
  -                            standard input
  m4f://HOST:PORT/STREAM       the live stream of a peer, whose segments are
                               passed on as they are

Options stand behind a ? in the URL, with & between them; quote them for the
shell. An IPv6 address stands in brackets. In udp, rtp and srt URLs program=
chooses a program as --program does.

A file is read as fast as it can be, and its first segment is dated now or with
--start; with --realtime it is paced by its clock references. A live source that
delivers nothing for ten seconds is lost. With --retry it is opened again, after
pauses of one second at first and ten at most, and a FIFO's next writer is
waited for. On SIGINT or SIGTERM the open segment is closed, written as partial,
and the status is 0.

With --record the segments go into an archive, without a pipe in between: what
twindvr record DIR writes of them, at less cost. --sync, --mounted and --name are
those of record, and only go with it.

Exit status: 0 the source has ended, 1 it was lost, 2 trouble, also where it was
never reached.`,
		Example: `  twindvr ingest udp://239.1.2.3:1234 | twindvr record /storage/example
  twindvr ingest --retry 'srt://encoder:9000?passphrase=ten%20or%20more' | twindvr record /storage/example
  twindvr ingest --record /storage/example --start 2026-11-22T12:00:00Z recording.ts
  twindvr ingest --program 3 https://user:secret@example.com/live.ts | ffplay -
  mkfifo live.ts; ffmpeg … -f mpegts live.ts & twindvr ingest --retry live.ts | twindvr record /storage/example`,
		Args: wantArgs("URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.readURL(args[0]); err != nil {
				return err
			}
			if err := o.checkFlags(cmd, io); err != nil {
				return err
			}
			return o.run(cmd.Context(), io)
		},
	}
	o.AddFlags(cmd.Flags(), io)
	return cmd
}

// shown is the URL as others may see it.
func (o *ingestOptions) shown() string { return ingest.Redact(o.url) }

// readURL takes the program out of the URL and refuses what no source is.
func (o *ingestOptions) readURL(url string) error {
	o.url = url
	if config.IsPeerURL(url) {
		return nil
	}
	rest, program, err := ingest.SplitProgram(url)
	switch {
	case err != nil:
		return err
	case program != 0 && o.program != 0 && program != o.program:
		return fmt.Errorf("the URL says program %d and --program %d; give one of them", program, o.program)
	case program != 0:
		o.program = program
	}
	o.url = rest
	return nil
}

// live says whether the source delivers in real time whatever is done.
func (o *ingestOptions) live() bool {
	_, isFile := ingest.Path(o.url)
	return !isFile
}

// returns says whether a source that has ended may come back: a live one, or a
// FIFO that another program writes to.
func (o *ingestOptions) returns() bool { return o.live() || ingest.Listens(o.url) }

func (o *ingestOptions) check() error {
	switch {
	case o.target < config.MinSegmentDuration || o.target > config.MaxSegmentDuration:
		return fmt.Errorf("--segment-duration %s: it is from %s to %s", config.FormatDuration(o.target),
			config.FormatDuration(config.MinSegmentDuration), config.FormatDuration(config.MaxSegmentDuration))
	case o.start.IsSet && (o.live() || o.realtime):
		return errors.New("--start dates a file that is read as fast as it can be; live and --realtime input is dated by the clock")
	case o.realtime && o.live() && !strings.HasPrefix(o.url, "h"): // an HTTP live stream that has ended is like a file
		return errors.New("--realtime is for files; a live source paces itself")
	case o.into.dir != "":
		return o.into.check()
	}
	return nil
}

// checkFlags refuses flags that say how an archive is written where none is. In the
// environment they may be meant for the record command behind this one.
func (o *ingestOptions) checkFlags(cmd *cobra.Command, io IO) error {
	if o.into.dir != "" {
		return nil
	}
	for _, name := range []string{"sync", "mounted", "name"} {
		if _, env := io.LookupEnv(envName(name)); cmd.Flags().Changed(name) && !env {
			return fmt.Errorf("--%s says how an archive is written: give --record DIR with it, or give it to the record command behind the pipe", name)
		}
	}
	return nil
}

// run is the command.
func (o *ingestOptions) run(ctx context.Context, io IO) error {
	if err := o.check(); err != nil {
		return err
	}
	into := &recorder{o: &o.into, io: io}
	put := into.take
	if o.into.dir == "" {
		widen(io.Out)
		put = m4f.NewWriter(io.Out).WriteSegment
	}
	out := startOutput(put)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out.failed = cancel
	if o.duration > 0 && (o.live() || o.realtime) {
		stop := time.AfterFunc(o.duration, func() { cancel(errDuration) })
		defer stop.Stop()
	}
	var err error
	r := &sourceRun{o: o, io: io, out: out}
	if config.IsPeerURL(o.url) {
		err = o.runPeer(ctx, out)
	} else {
		err = r.run(ctx)
	}
	if e := out.close(); e != nil && o.into.dir == "" {
		return fmt.Errorf("writing M4F: %w", e)
	} else if e = into.close(e); e != nil {
		return e
	}
	r.logEnd()
	if errors.Is(err, context.Canceled) || errors.Is(err, errDuration) {
		return nil // as the user wanted
	}
	return err
}

// errDuration ends the context once --duration is over.
var errDuration = errors.New("the duration is over")

// run ingests a source, again and again with --retry.
func (r *sourceRun) run(ctx context.Context) error {
	o := r.o
	src, err := r.open(ctx)
	if err != nil && o.retry && o.live() && ctx.Err() == nil && ingest.Check(o.url) == nil {
		slog.Warn("source does not open, waiting for it", "source", o.shown(), "reason", err)
		src, err = r.reopen(ctx, err)
	}
	if err != nil {
		return err
	}
	defer func() { src.Close() }()
	for {
		began := r.io.Clock.Now()
		err := r.once(ctx, src)
		var silent *ingest.SilentError
		switch {
		case ctx.Err() != nil || err == nil && !(o.retry && o.returns()):
			return r.result(err)
		case err != nil && !errors.As(err, &silent) && !o.live():
			return err
		case !o.retry:
			return r.lost(err)
		}
		r.logEnd()
		if err == nil {
			slog.Warn("source has ended, waiting for it", "source", o.shown())
		} else {
			slog.Warn("source lost, waiting for it", "source", o.shown(), "reason", err)
		}
		if errors.As(err, &silent) {
			r.waiting = true
			continue
		}
		src.Close()
		if r.io.Clock.Now().Sub(began) > retryAtMost {
			r.wait = 0
		}
		next, err := r.reopen(ctx, err)
		if err != nil {
			return err
		}
		src = next
	}
}

// sourceRun is what outlives a source that comes back.
type sourceRun struct {
	o       *ingestOptions
	io      IO
	out     *output
	waiting bool          // the source was silent: it may be for as long as it likes
	wait    time.Duration // the last one before the source was opened anew
	last    *m4f.Header   // of the last segment: the next run's are dated alike
	media   int64         // ticks written
	written int
	cause   error // why nothing could be written
	heard   bool  // media has come
	silent  bool  // not a byte has come from a live source
	end     []any // what is to be logged of the run that has ended; nil: nothing
}

func (r *sourceRun) open(ctx context.Context) (ingest.Source, error) {
	return ingest.Open(ctx, r.o.url, ingest.Options{
		Interface: r.o.netif, Realtime: r.o.realtime, Stdin: r.io.In, Clock: r.io.Clock,
		OtherSchemes: []string{"m4f", "m4fs"},
	})
}

// reopen opens the source, with longer and longer waits in between. What is in
// the way is told when it changes; before is known.
func (r *sourceRun) reopen(ctx context.Context, before error) (ingest.Source, error) {
	for {
		r.wait = min(max(2*r.wait, retryFirst), retryAtMost)
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-r.io.Clock.After(r.wait):
		}
		src, err := r.open(ctx)
		if err == nil {
			return src, nil
		}
		if before == nil || before.Error() != err.Error() {
			slog.Warn("source does not open, waiting for it", "source", r.o.shown(), "reason", err)
		}
		before = err
	}
}

// errEnough ends a file of which enough has been read.
var errEnough = errors.New("enough media")

// once ingests until the source ends, fails or is silent, and closes the open
// segment.
func (r *sourceRun) once(ctx context.Context, src ingest.Source) error {
	o := r.o
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	paced := o.live() || o.realtime
	enough := m4f.Ticks(o.duration)
	seg := segment.New(segment.Config{
		TargetDuration: m4f.Ticks(o.target), Program: o.program, Clock: r.io.Clock,
		Unpaced: !paced, Start: r.start(), Hint: r.hint(), Lend: o.into.dir != "",
	}, func(s *m4f.Segment) {
		if paced || enough == 0 || r.media < enough {
			r.take(s)
		} else {
			cancel(errEnough)
		}
	})
	opt := ingest.PumpOptions{GiveUp: !o.live(), Clock: r.io.Clock, First: func() {
		if r.heard = true; r.waiting {
			slog.Info("source is back", "source", o.shown())
		}
	}}
	if o.live() {
		opt.Silence = sourceLost
		if !r.waiting && ingest.Listens(o.url) {
			called := make(chan struct{})
			first, over := opt.First, sync.OnceFunc(func() { close(called) })
			opt.First = func() { over(); first() }
			defer over()
			go r.tellUncalled(called)
		} else if !r.waiting {
			opt.FirstSilence = sourceLost
		}
	}
	err := ingest.Pump(ctx, src, seg, opt)
	ingest.Finish(seg, src, err)
	if errors.Is(err, errEnough) {
		err = nil
	}
	if r.cause = seg.Diagnose(); r.cause == nil {
		r.sum(seg, src)
	}
	r.silent = o.live() && src.Stats().Bytes == 0
	return err
}

// tellUncalled says, once, that a listener waits, unless somebody calls soon.
func (r *sourceRun) tellUncalled(called <-chan struct{}) {
	select {
	case <-called:
	case <-r.io.Clock.After(sourceLost):
		slog.Info("nobody has called yet, waiting for a caller", "source", r.o.shown())
	}
}

func (r *sourceRun) take(s *m4f.Segment) {
	r.last = &s.Header
	r.written++
	r.media += int64(s.Header.Duration)
	r.out.write(s)
}

// start is when the first segment of input that is not paced begins: a FIFO's
// that has come back, not before the end of what came before.
func (r *sourceRun) start() m4f.UTC {
	if r.last == nil {
		return r.o.start.UTC
	}
	end := r.last.UTC.Add(int64(r.last.Duration))
	if r.o.start.IsSet {
		return end
	}
	return max(end, m4f.UTCOf(r.io.Clock.Now()))
}

// hint returns what continues the offset of media time to UTC of the run
// before, where there was one.
func (r *sourceRun) hint() func(int64, m4f.UTC, bool) (m4f.UTC, bool) {
	last := r.last
	return func(media int64, _ m4f.UTC, _ bool) (m4f.UTC, bool) {
		if last == nil {
			return 0, false
		}
		utc := last.UTC.Add(m4f.Diff33(media, last.MediaTime))
		last = nil // only the first segment is dated so
		return utc, true
	}
}

// sum notes what a run has done.
func (r *sourceRun) sum(seg *segment.Segmenter, src ingest.Source) {
	st, in := seg.Stats(), src.Stats()
	r.end = []any{"source", r.o.shown(), "segments", st.Segments, "damaged", st.Damaged, "partial", st.Partial,
		"packets", st.Packets, "lost", st.Lost, "errored", st.Errored, "scrambled", st.Scrambled,
		"garbage", st.Garbage, "dropped", in.Dropped}
	if !r.o.live() {
		return
	}
	r.end = append(r.end, "datagrams", in.Packets, "bytes", in.Bytes)
	for _, c := range []struct {
		name string
		n    uint64
	}{
		{"truncated", in.Truncated}, {"datagrams_lost", in.Lost}, {"reordered", in.Reordered},
		{"duplicates", in.Duplicates}, {"recovered", in.Recovered}, {"errors", in.Errors}, {"reconnects", in.Reconnects},
	} {
		if c.n > 0 {
			r.end = append(r.end, c.name, c.n)
		}
	}
}

// logEnd says what the run that has ended has done, once: where nobody takes
// what it wrote, nothing is said of it.
func (r *sourceRun) logEnd() {
	if r.end != nil {
		slog.Info("source ended", r.end...)
	}
	r.end = nil
}

// result is the command's, when the source has ended or the user has.
func (r *sourceRun) result(err error) error {
	if r.written > 0 || err != nil && !errors.Is(err, errDuration) {
		return err
	}
	if r.cause == nil {
		r.cause = errors.New("no segment in it")
	}
	if errors.Is(err, errDuration) && r.silent {
		return r.lost(&ingest.SilentError{For: r.o.duration})
	}
	if errors.Is(err, errDuration) && !r.heard {
		return fmt.Errorf("nothing was recorded within %v from %s, which has begun to send; give it a longer --duration", r.o.duration, r.o.shown())
	}
	return fmt.Errorf("source %s: %w", r.o.shown(), r.cause)
}

// lost tells a live source that was lost from one that answers and has never
// delivered anything, which is trouble.
func (r *sourceRun) lost(err error) error {
	var silent *ingest.SilentError
	switch {
	case errors.As(err, &silent):
		return statusf("the source is lost: %v from %s", err, r.o.shown())
	case !r.heard:
		return r.of(err)
	}
	return statusf("the source is lost: %v", r.of(err))
}

// of names the live source in an error, where it is not named yet.
func (r *sourceRun) of(err error) error {
	if strings.Contains(err.Error(), r.o.shown()) {
		return err
	}
	return fmt.Errorf("source %s: %w", r.o.shown(), err)
}
