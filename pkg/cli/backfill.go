package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	stdio "io"
	"log/slog"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/replicate"
)

type backfillOptions struct {
	span      spanFlags
	peer      peerOptions
	limitRate int64
	jobs      int
	order     string
	dryRun    bool
	json      bool
	noSalvage bool
}

// AddFlags adds the flags of backfill.
func (o *backfillOptions) AddFlags(fs *pflag.FlagSet, io IO) {
	o.span.AddFlags(fs, io.Clock)
	o.peer.AddFlags(fs)
	addRate(fs, &o.limitRate, "limit-rate", "", "fetch at most this many bytes a second, as 50M")
	fs.IntVar(&o.jobs, "jobs", replicate.DefaultJobs, "fetch `N` segments at once; a rate below 8M is kept by one")
	fs.StringVar(&o.order, "order", "oldest", "which hours to fill first, in this `ORDER`: oldest or newest")
	fs.BoolVar(&o.dryRun, "dry-run", false, "only say what would be fetched")
	fs.BoolVar(&o.json, "json", false, "print what was done as a JSON object")
	fs.BoolVar(&o.noSalvage, "no-salvage", false, "do not merge packets of what is damaged in both archives")
}

func newBackfillCmd(io IO) *cobra.Command {
	var o backfillOptions
	cmd := &cobra.Command{
		Use:   "backfill A B [-]",
		Short: "Fill an archive from another one",
		Long: `backfill fetches into archive A what a reader of A would be better off with:
what fills a gap, and what is clean where A's own is damaged or partial. Each
segment is checked against its identity before it enters the archive. It may be
interrupted at any moment and run again; when nothing is left to fetch it
fetches nothing.

What is damaged in both is healed first, where both still keep the packets of
it: the packets that A lacks are fetched, merged with its own and cut into
segments again, and those that are clean, or lack less than either archive's,
are added. --no-salvage leaves that out.

A is the directory of a stream, made if there is nothing. B is another one, or a
peer (m4f://HOST[:PORT]/STREAM). With - as third argument only the spans that
diff-archive --json printed are looked at, read from standard input. Without the
line that ends its list, since diff-archive failed or was cut, what came is
healed and the status is 2.

Nothing older than A keeps is fetched, unless --from says so.

Exit status: 0 nothing is left to heal, 1 something is, 2 trouble.`,
		Example: `  twindvr backfill /storage/example m4f://b:8081/example --limit-rate 50M
  twindvr diff-archive --json /storage/example m4f://b/example |
    twindvr backfill /storage/example m4f://b/example -`,
		Args: wantArgs("A", "B", "[-]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 3 && args[2] != "-" {
				return usageError{cmd, fmt.Errorf("unexpected argument %q; only - can follow the archives", args[2])}
			}
			return runBackfill(cmd.Context(), &o, io, args[0], args[1], len(args) == 3)
		},
	}
	o.AddFlags(cmd.Flags(), io)
	return cmd
}

func runBackfill(ctx context.Context, o *backfillOptions, io IO, a, b string, fromStdin bool) (err error) {
	order, err := replicate.ParseOrder(o.order)
	if err != nil {
		return fmt.Errorf("--order: %w", err)
	}
	if err := o.span.check(); err != nil {
		return err
	}
	if o.jobs < 1 || o.jobs > maxJobs {
		return fmt.Errorf("--jobs %d: it is a number from 1 to %d", o.jobs, maxJobs)
	}
	var spans []replicate.Span
	whole := true
	if fromStdin {
		if spans, whole, err = readDiff(io.In); err != nil {
			return err
		}
		if len(spans) == 0 && !whole {
			return errDiffCut
		}
	}
	src, closeSrc, err := o.peer.side(b)
	if err != nil {
		return err
	}
	defer closeSrc()
	dst, done, err := filled(ctx, a, src, o.dryRun)
	if err != nil {
		return err
	}
	defer done()
	if !o.dryRun {
		if err := lowerHorizon(dst, &o.span); err != nil {
			return err
		}
	}
	var healer *replicate.Healer
	if !o.noSalvage {
		healer = replicate.NewHealer(dst, replicate.HealerOptions{})
		defer func() {
			if cerr := healer.Close(); err == nil {
				err = cerr
			}
		}()
	}
	bar := newProgress(io, -1, "backfill")
	defer bar.Done()
	fetched := int64(0)
	result, err := replicate.Backfill(ctx, dst, src, replicate.BackfillOptions{
		From:   o.span.From.UTC,
		To:     o.span.To.UTC,
		Spans:  spans,
		Limit:  replicate.NewLimiter(o.limitRate),
		Jobs:   o.jobs,
		Order:  order,
		DryRun: o.dryRun,
		Healer: healer,
		Log:    slog.Default(),
		Progress: func(p replicate.Progress) {
			bar.Total(p.Bytes + p.Left)
			bar.Add(p.Bytes - fetched)
			fetched = p.Bytes
		},
	})
	bar.Done()
	err = stoppedAt(ctx, err, "what was fetched is kept, and the same command goes on from there")
	if perr := o.print(io, result); err == nil {
		err = perr
	}
	switch {
	case err != nil:
		return err
	case !whole:
		return errDiffCut
	case result.Left > 0:
		return ErrDiffer
	}
	return nil
}

// maxJobs bounds the connections to a peer and the segments in memory.
const maxJobs = 64

// lowerHorizon takes an explicit --from as the wish to have older hours again,
// unless they are kept anyway.
func lowerHorizon(dst *archive.Stream, span *spanFlags) error {
	if !span.From.IsSet {
		return nil
	}
	info, err := dst.Info()
	if err != nil || span.From.UTC >= info.Horizon {
		return err
	}
	if span.To.IsSet {
		if ok, err := dst.Takes(span.From.UTC, span.To.UTC); ok || err != nil {
			return err
		}
	}
	return dst.SetHorizon(span.From.UTC)
}

// backfillLine is what backfill --json prints.
type backfillLine struct {
	Segments int   `json:"segments"`
	Bytes    int64 `json:"bytes"`
	Copied   int   `json:"copied"`
	Mended   int   `json:"mended"`       // segments made of packets of both archives
	Packets  int64 `json:"mend_packets"` // fetched for them
	MendSize int64 `json:"mend_bytes"`   // of those, and of what was compared to find them
	Left     int   `json:"left"`
	DryRun   bool  `json:"dry_run"`
}

func (o *backfillOptions) print(io IO, r replicate.Result) error {
	if o.json {
		out := newJSONLines(io.Out)
		if err := out.Write(backfillLine{r.Segments, r.Bytes, r.Copied, r.Healed.Segments, r.Healed.Packets, r.Healed.Bytes, r.Left, o.dryRun}); err != nil {
			return err
		}
		return out.Flush()
	}
	verb, mended := "fetched", "healed"
	if o.dryRun {
		verb, mended = "to fetch", "to heal"
	}
	salvage := ""
	if r.Healed.Segments > 0 {
		salvage = fmt.Sprintf("; %s out of packets: %d segments, %d packets", mended, r.Healed.Segments, r.Healed.Packets)
	}
	_, err := fmt.Fprintf(io.Out, "%s: %d segments, %d bytes; improved in place: %d%s; left: %d\n", verb, r.Segments, r.Bytes, r.Copied, salvage, r.Left)
	return err
}

const (
	maxDiffLine = 64 << 10
	maxDiffs    = 1 << 20
)

// errDiffCut says that what diff-archive found may not be all that differs.
var errDiffCut = errors.New("standard input: the list of differences has no end: diff-archive failed or was cut")

// readDiff reads what diff-archive --json printed. whole says whether its list
// came to its end.
func readDiff(in stdio.Reader) (spans []replicate.Span, whole bool, err error) {
	spans = []replicate.Span{}
	cut := false // the last line is one without its end
	s := bufio.NewScanner(in)
	s.Buffer(make([]byte, 4096), maxDiffLine)
	s.Split(func(data []byte, atEOF bool) (int, []byte, error) {
		cut = atEOF && bytes.IndexByte(data, '\n') < 0
		return bufio.ScanLines(data, atEOF)
	})
	for n := 1; s.Scan(); n++ {
		if len(bytes.TrimSpace(s.Bytes())) == 0 {
			continue
		}
		var l diffLine
		if err := json.Unmarshal(s.Bytes(), &l); err != nil && cut {
			return spans, false, nil
		} else if err != nil {
			return nil, false, fmt.Errorf("standard input, line %d: this is not what diff-archive --json prints: %w", n, err)
		}
		if whole = l.Op == opEnd; whole {
			continue
		}
		span, err := l.span()
		if err != nil {
			return nil, false, fmt.Errorf("standard input, line %d: %w", n, err)
		}
		if len(spans) == maxDiffs {
			return nil, false, fmt.Errorf("standard input: more than %d spans; leave - out to compare the archives anew", maxDiffs)
		}
		spans = append(spans, span)
	}
	if err := s.Err(); err != nil {
		return nil, false, fmt.Errorf("standard input: %w", err)
	}
	return spans, whole, nil
}
