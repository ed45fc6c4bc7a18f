package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/replicate"
)

type diffArchiveOptions struct {
	span spanFlags
	peer peerOptions
	json bool

	noSalvage bool
}

// AddFlags adds the flags of diff-archive.
func (o *diffArchiveOptions) AddFlags(fs *pflag.FlagSet, io IO) {
	o.span.AddFlags(fs, io.Clock)
	o.peer.AddFlags(fs)
	fs.BoolVar(&o.json, "json", false, "print one JSON object a line, as backfill reads it")
	fs.BoolVar(&o.noSalvage, "no-salvage", false, "do not look for what packets of both archives would heal")
}

func newDiffArchiveCmd(io IO) *cobra.Command {
	var o diffArchiveOptions
	cmd := &cobra.Command{
		Use:   "diff-archive A B",
		Short: "Show where two archives of a stream differ",
		Long: `diff-archive compares what a reader of each archive sees and prints one line
for each span in which they differ: an operator, start, end, duration, segments
and bytes.

  >  only B has it
  <  only A has it
  !  A's is damaged or partial, B's is clean
  ?  A's is clean, B's is damaged or partial
  ~  both differ otherwise
  +  neither is clean, and the packets that both still keep make something
     better than either has; bytes are those of the packets that A lacks for it

The last stands beside the others and also where the archives are equal. What
backfill would make is tried for it, so it is exact, and takes its time where
much is damaged in both; at least one of A and B must be a directory, and where A
is a peer the bytes are those that B lacks. --no-salvage leaves it out.

A and B are directories of a stream or peers (m4f://HOST[:PORT]/STREAM). Hours
are compared first, then minutes of those that differ, then their segments.
Without --from it begins where both archives have not been pruned yet. Segments
that came to an archive within the last seconds are given a moment to come to
the other.

With --json each span is an object with op, from, to, duration (seconds),
segments and bytes. The last line, {"op":"end","spans":N}, says that the
comparison went to its end: without it diff-archive failed or was cut. Keep it
where you choose from the list for backfill:

  jq -c 'select(.op == ">" or .op == "end")'

Exit status: 0 the same and nothing to heal, 1 they differ, or have something
that packets would heal, 2 trouble.`,
		Example: `  twindvr diff-archive /storage/example m4f://b:8081/example
  twindvr diff-archive --json /storage/example m4f://b/example |
    twindvr backfill /storage/example m4f://b/example -`,
		Args: wantArgs("A", "B"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runDiffArchive(cmd.Context(), &o, io, args[0], args[1])
		},
	}
	o.AddFlags(cmd.Flags(), io)
	return cmd
}

// settle is how long two nodes that record one source may take until both have
// a segment: the two seconds that a standby gives itself, and the fetching.
const settle = 5 * time.Second

func runDiffArchive(ctx context.Context, o *diffArchiveOptions, io IO, a, b string) error {
	if err := o.span.check(); err != nil {
		return err
	}
	sideA, closeA, err := o.peer.side(a)
	if err != nil {
		return err
	}
	defer closeA()
	sideB, closeB, err := o.peer.side(b)
	if err != nil {
		return err
	}
	defer closeB()
	spans, err := replicate.Diff(ctx, sideA, sideB, replicate.DiffOptions{
		From:   o.span.From.UTC,
		To:     o.span.To.UTC,
		Settle: settle,

		NoSalvage: o.noSalvage,
	})
	if err != nil {
		return err
	}
	if !o.noSalvage && isPeer(sideA) && isPeer(sideB) {
		fmt.Fprintln(io.Err, "twindvr: both archives are peers, so what packets would heal was not looked for; give a directory for one of them, or --no-salvage")
	}
	if err := printDiff(io, spans, o.json); err != nil {
		return err
	}
	if len(spans) > 0 {
		return ErrDiffer
	}
	return nil
}

// isPeer says whether an archive is read from a node.
func isPeer(s replicate.Side) bool {
	_, ok := s.(replicate.Peer)
	return ok
}

func printDiff(io IO, spans []replicate.Span, asJSON bool) error {
	if asJSON {
		out := newJSONLines(io.Out)
		for i := range spans {
			if err := out.Write(diffLineOf(&spans[i])); err != nil {
				return err
			}
		}
		if err := out.Write(diffEnd{opEnd, len(spans)}); err != nil {
			return err
		}
		return out.Flush()
	}
	for i := range spans {
		l := diffLineOf(&spans[i])
		_, err := fmt.Fprintf(io.Out, "%s %s %s %ss %d %d\n", l.Op, l.From, l.To, l.Duration, l.Segments, l.Bytes)
		if err != nil {
			return err
		}
	}
	return nil
}

// opEnd stands in the last line of diff-archive --json, so that a list that was
// cut, or was never begun, is told from one that is whole.
const opEnd = "end"

// diffEnd is that line.
type diffEnd struct {
	Op    string `json:"op"`    // opEnd
	Spans int    `json:"spans"` // how many lines are ahead of it
}

// diffLine is one span as diff-archive --json prints and backfill reads it.
type diffLine struct {
	Op       string       `json:"op"`
	From     m4fhttp.Time `json:"from"`
	To       m4fhttp.Time `json:"to"`
	Duration json.Number  `json:"duration"` // seconds
	Segments int          `json:"segments"`
	Bytes    int64        `json:"bytes"`
}

func diffLineOf(s *replicate.Span) diffLine {
	seconds := strconv.FormatFloat(float64(s.To-s.From)/m4f.Timescale, 'f', 3, 64)
	return diffLine{string(s.Op), m4fhttp.Time(s.From), m4fhttp.Time(s.To), json.Number(seconds), s.Segments, s.Bytes}
}

// span checks a line that was read and returns what it says.
func (l *diffLine) span() (replicate.Span, error) {
	if len(l.Op) != 1 {
		return replicate.Span{}, fmt.Errorf("%q is no operator of diff-archive", l.Op)
	}
	s := replicate.Span{
		Op:       replicate.Op(l.Op[0]),
		From:     m4f.UTC(l.From),
		To:       m4f.UTC(l.To),
		Segments: l.Segments,
		Bytes:    l.Bytes,
	}
	switch s.Op {
	case replicate.OnlyA, replicate.OnlyB, replicate.ABetter, replicate.BBetter, replicate.Differs, replicate.Mergeable:
	default:
		return s, fmt.Errorf("%q is no operator of diff-archive", l.Op)
	}
	if s.To <= s.From {
		return s, fmt.Errorf("a span from %s that ends at %s", l.From, l.To)
	}
	return s, nil
}
