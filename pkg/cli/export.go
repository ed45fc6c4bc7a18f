package cli

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	stdio "io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/render"
	"github.com/twindvr/twindvr/pkg/replicate"
)

type exportOptions struct {
	span      spanFlags
	duration  time.Duration
	peer      peerOptions
	output    string
	format    string
	faststart bool
	json      bool
}

// AddFlags adds the flags of export.
func (o *exportOptions) AddFlags(fs *pflag.FlagSet, io IO) {
	o.span.AddFlags(fs, io.Clock)
	addDuration(fs, &o.duration, "duration", "", "export this much, as 10m: from --from or the beginning, or up to --to")
	o.peer.AddFlags(fs)
	fs.StringVarP(&o.output, "output", "o", "-", "write to `FILE`, which appears when it is whole; - is standard output")
	fs.StringVar(&o.format, "format", "mp4", "write `FORMAT`: mp4, or ts, an MPEG transport stream")
	fs.BoolVar(&o.faststart, "faststart", false, "write a plain MP4 file with its tables first, instead of a fragmented one; the archive is read twice")
	fs.BoolVar(&o.json, "json", false, "print what was exported as a JSON object; --output must name a file")
}

func newExportCmd(io IO) *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use:   "export ARCHIVE",
		Short: "Write a span of an archive as MP4 or as a transport stream",
		Long: `export writes what a reader of the archive sees as one file: the whole archive,
or the span that --from, --to and --duration say. The span grows to whole
segments, so that it begins at a keyframe. Two nodes with the same segments write
the same bytes.

In MP4, time starts at 0 and is unbroken where the source's clock wraps or starts
anew. Where something is missing, it stands still for as long.

With --format ts it is an MPEG transport stream of one program, rebuilt: program
number, PIDs, stream types, descriptors and the PID of the clock (PCR) as they
were; PTS and DTS the source's own, 33 bits that wrap where its did. Sections and
the PES packets of teletext, subtitles and other data are the recorded bytes,
pictures the recorded NAL units, sound the recorded frames. New are the packets
themselves: PCR every 20 ms and tables every 80 ms; access unit delimiters and
parameter sets are put in where a decoder wants them; the program map has a PID
of its own (0x1000, or the next lower one that is free); AAC gets a new ADTS or
LATM header. The rate varies and there are no null packets; a multiplexer for a
channel of fixed rate adds them. At a gap and where the source's clock starts
anew the PCR jumps, marked by discontinuity_indicator. A program whose map names
no PID for its clock gets that of its leading track.

ARCHIVE is the directory of a stream, or a peer (m4f://HOST[:PORT]/STREAM).

With --json the object has segments, bytes, duration (seconds), damaged (the
number of segments recorded with loss) and gaps, each with from and to.

Exit status: 0 done, 1 done but there are gaps or damage inside the span, or
nothing is recorded there, 2 trouble.`,
		Example: `  twindvr export /storage/example --from 2026-11-22T12:00:00Z --duration 10m > clip.mp4
  twindvr export m4f://b:8081/example --from -1h --faststart --output last-hour.mp4
  twindvr export /storage/example --from -10m --format ts | ffplay -`,
		Args: wantArgs("ARCHIVE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runExport(cmd.Context(), &o, io, args[0])
		},
	}
	o.AddFlags(cmd.Flags(), io)
	return cmd
}

func runExport(ctx context.Context, o *exportOptions, io IO, location string) error {
	if err := o.check(io); err != nil {
		return err
	}
	side, closeSide, err := o.peer.side(location)
	if err != nil {
		return err
	}
	defer closeSide()
	a := exported{ctx, side}
	opt := render.Options{Faststart: o.faststart}
	opt.Format, _ = render.ParseFormat(o.format) // checked
	if opt.From, opt.To, err = o.times(a); err != nil {
		return err
	}
	bar := newProgress(io, -1, "export")
	defer bar.Done()
	opt.Start, opt.Progress = bar.Total, bar.Add
	var result render.Result
	write := func() error {
		return writeOutput(o.output, io.Out, func(w stdio.Writer) error {
			var err error
			result, err = render.Export(ctx, a, w, opt)
			return err
		})
	}
	err = write()
	if setAside(ctx, side, err, opt.From, opt.To) {
		if o.output == "-" { // what has been written cannot be taken back
			err = fmt.Errorf("%w; it was set aside: run export again, which leaves it out, or fetch it from a peer first (backfill)", err)
		} else {
			err = write()
		}
	}
	bar.Done()
	if o.output != "-" {
		err = stoppedAt(ctx, err, "nothing was written to "+o.output)
	}
	if errors.Is(err, render.ErrEmpty) {
		return statusf("%s: %v", location, err)
	}
	if err != nil {
		return err
	}
	if o.json {
		if err := printExport(io.Out, &result); err != nil {
			return err
		}
	}
	return judgeExport(&result)
}

// setAside says whether an export failed for a segment that went bad on the disk,
// and all such segments of the span are set aside now.
func setAside(ctx context.Context, side replicate.Side, err error, from, to m4f.UTC) bool {
	var corrupt *archive.CorruptError
	dir, local := side.(replicate.Dir)
	if !local || !errors.As(err, &corrupt) {
		return false
	}
	slog.Warn("a segment went bad on the disk; the span is verified, and exported without what is bad", "err", err)
	_, err = dir.Stream.Verify(ctx, archive.VerifyOptions{From: from, To: to})
	return err == nil
}

// check refuses flags that do not go together.
func (o *exportOptions) check(io IO) error {
	format, err := render.ParseFormat(o.format)
	switch {
	case err != nil:
		return fmt.Errorf("--format: %w", err)
	case o.faststart && format != render.MP4:
		return errors.New("--faststart is for MP4: a transport stream has no tables to put first; leave it out")
	case o.duration != 0 && o.span.From.IsSet && o.span.To.IsSet:
		return errors.New("--from, --to and --duration together say too much; leave one out")
	case o.output == "-" && o.json:
		return errors.New("--json prints to standard output, where the export goes; name a file with --output")
	case o.output == "-" && terminal(io.Out):
		return errors.New("standard output is a terminal; redirect it, or name a file with --output")
	case o.output == "":
		return errors.New("--output names no file")
	}
	return o.span.check()
}

// times are the ends of the span, 0 where the archive's own are meant.
func (o *exportOptions) times(a exported) (from, to m4f.UTC, err error) {
	from, to = o.span.From.UTC, o.span.To.UTC
	switch d := m4f.Ticks(o.duration); {
	case d == 0:
	case o.span.To.IsSet:
		from = max(0, to.Add(-d))
	case o.span.From.IsSet:
		to = from.Add(d)
	default:
		oldest, _, err := a.Bounds()
		if err != nil {
			return 0, 0, err
		}
		to = oldest.Add(d)
	}
	return from, to, nil
}

// exported is an archive or a peer as render reads it.
type exported struct {
	ctx  context.Context
	side replicate.Side
}

// Span leaves out kept spans before the horizon unless they are asked for: an
// export from the beginning has no gap where the archive has none.
func (a exported) Span(from, to m4f.UTC) ([]archive.Element, error) {
	els, err := a.side.Segments(a.ctx, from, to)
	if err != nil || from != 0 {
		return els, err
	}
	info, err := a.side.Info(a.ctx)
	return slices.DeleteFunc(els, func(e archive.Element) bool { return e.UTC < info.Horizon }), err
}

func (a exported) ReadElement(e *archive.Element) (*m4f.Segment, error) {
	return a.side.Fetch(a.ctx, &e.Record, nil)
}

func (a exported) Bounds() (oldest, newest m4f.UTC, err error) {
	info, err := a.side.Info(a.ctx)
	return info.Oldest, info.Newest, err
}

// writeOutput has fn write to a file, or to stdout for "-". A regular file gets
// its name only when all of it is on the disk; after an error nothing is left.
func writeOutput(name string, stdout stdio.Writer, fn func(stdio.Writer) error) error {
	if name == "-" {
		return fn(stdout)
	}
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() { // a pipe, a device
		if info.IsDir() {
			return fmt.Errorf("--output %s is a directory; name a file in it", name)
		}
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return outputError(name, name, err)
		}
		return outputError(name, name, errors.Join(fn(f), f.Close()))
	}
	temp := filepath.Join(filepath.Dir(name), ".tmp-"+filepath.Base(name)+"-"+rand.Text()[:8])
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return outputError(name, temp, err)
	}
	err = fn(f)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(outputError(name, temp, err), os.Remove(temp))
	}
	return nil
}

// outputError names the file that was asked for where an error is about the one
// that is written in its place.
func outputError(name, temp string, err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path) && path.Path == temp:
		return fmt.Errorf("--output %s: %w", name, path.Err)
	case errors.As(err, &link) && link.Old == temp:
		return fmt.Errorf("--output %s: %w", name, link.Err)
	}
	return err
}

type exportGap struct {
	From m4fhttp.Time `json:"from"`
	To   m4fhttp.Time `json:"to"`
}

func printExport(w stdio.Writer, r *render.Result) error {
	line := struct {
		Segments int         `json:"segments"`
		Bytes    int64       `json:"bytes"`
		Duration json.Number `json:"duration"`
		Damaged  int         `json:"damaged"`
		Gaps     []exportGap `json:"gaps"`
	}{r.Segments, r.Bytes, json.Number(strconv.FormatFloat(r.Duration.Seconds(), 'f', 3, 64)), r.Damaged, []exportGap{}}
	for _, g := range r.Gaps {
		line.Gaps = append(line.Gaps, exportGap{m4fhttp.Time(g.From), m4fhttp.Time(g.To)})
	}
	out := newJSONLines(w)
	if err := out.Write(line); err != nil {
		return err
	}
	return out.Flush()
}

// maxGapsLogged bounds what a span with many gaps says.
const maxGapsLogged = 20

// judgeExport says what is missing from what was exported.
func judgeExport(r *render.Result) error {
	missing := time.Duration(0)
	for i, g := range r.Gaps {
		d := m4f.Duration(int64(g.To - g.From))
		missing += d
		if i < maxGapsLogged {
			slog.Warn("gap", "from", m4fhttp.Time(g.From), "to", m4fhttp.Time(g.To), "duration", d.Round(time.Millisecond))
		}
	}
	var what []string
	if n := len(r.Gaps); n > 0 {
		what = append(what, fmt.Sprintf("%s (%v)", counted(n, "gap"), missing.Round(time.Millisecond)))
	}
	if r.Left > 0 {
		slog.Warn("audio frames left out: a transport stream has no framing for them", "frames", r.Left)
	}
	if r.Damaged > 0 {
		what = append(what, counted(r.Damaged, "damaged segment"))
	}
	if len(what) == 0 {
		return nil
	}
	return statusf("the span has %s", strings.Join(what, " and "))
}

// counted is a number and its noun.
func counted(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
