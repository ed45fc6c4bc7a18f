package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/replicate"
)

// verifyOptions are the flags of verify.
type verifyOptions struct {
	span      spanFlags
	limitRate int64
	readOnly  bool
	quiet     bool
	json      bool
}

// AddFlags adds the flags of verify.
func (o *verifyOptions) AddFlags(fs *pflag.FlagSet, io IO) {
	o.span.AddFlags(fs, io.Clock)
	addRate(fs, &o.limitRate, "limit-rate", "", "read at most this many bytes a second, as 20M")
	fs.BoolVar(&o.readOnly, "dry-run", false, "only say what is damaged, change nothing")
	fs.BoolVar(&o.quiet, "quiet", false, "print no line for each damage")
	fs.BoolVar(&o.json, "json", false, "print one JSON object a line")
}

func newVerifyCmd(io IO) *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify PATH",
		Short: "Read an archive again and check every byte",
		Long: `verify reads every byte of an archive and compares it with what guards it: each
segment with its identity, the segment headers, indexes and lists with their
checksums. PATH is the directory of a stream, or one above streams. An archive
may be verified while it is recorded to and served.

A segment that is bad is set aside: no reader is shown it any more, in this
process and every other, and a node or backfill fetches it from a peer again.
One that the disk cannot read is read again some seconds later, when its hour is
over, and set aside if it cannot be read then either, while others of the hour
can. A segment that was set aside before and is good is taken back. What follows
from the rest (an index, a header, an init segment that another file has too) is
written back as it was. Packets kept of damaged segments (salvage) that are bad
are dropped; the archive lacks nothing without them. A second run finds nothing
any more, but for what was left.

It prints a line for each damage: file, byte in the file, what it is and why,
the span it concerns, and what was done: "set aside", "mended", "taken back",
"dropped", "left" where the archive cannot be written, where no segment of an hour can be
read, and with --dry-run, or "left for now: written to lately" where a file is
gone that a node may be writing to: a run ten minutes later sets aside what it
held. The last line, on standard error, sums up; "set aside before" are those
that are bad still and not healed. With --json a damage is an object with type "damage", stream,
file, offset, kind (segment, init segment, segment header, index, extent,
changes, list, salvage, file), why, done, bytes, and id, from, to where they are known;
each stream ends in one with type "summary", stream, hours, files, segments,
bytes, bad (segments), mended, aside (set aside before).

Hours of --from and --to are read whole. supervise does the same by itself (see
verify in twindvr.conf(5)).

Exit status: 0 nothing was found that was not set aside before, 1 damage was
found, 2 trouble.`,
		Example: `  twindvr verify /storage --limit-rate 20M
  twindvr verify /storage/example --from -1d --json`,
		Args: wantArgs("PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), io, args[0])
		},
	}
	o.AddFlags(cmd.Flags(), io)
	return cmd
}

func (o *verifyOptions) run(ctx context.Context, io IO, path string) error {
	if err := o.span.check(); err != nil {
		return err
	}
	if loc, err := parseLocation(path); err != nil {
		return err
	} else if loc.Peer != nil {
		return errors.New("verify reads files: run it on the node itself, with the directory of its archives")
	}
	streams, err := streamsAt(path)
	if err != nil {
		return err
	}
	var total int64
	for _, s := range streams {
		n, err := sizeOf(s.Stream, &o.span)
		if err != nil {
			return err
		}
		total += n
	}
	v := &verifyRun{o: o, io: io, bar: newProgress(io, total, "verify"), out: newJSONLines(io.Out)}
	defer v.bar.Done()
	var sum archive.VerifyResult
	for _, s := range streams {
		res, err := v.stream(ctx, s)
		sum.Hours, sum.Extents, sum.Segments = sum.Hours+res.Hours, sum.Extents+res.Extents, sum.Segments+res.Segments
		sum.Bytes, sum.Bad, sum.Mended = sum.Bytes+res.Bytes, sum.Bad+res.Bad, sum.Mended+res.Mended
		sum.Aside += res.Aside
		if err == nil {
			err = v.err
		}
		if err != nil {
			return stoppedAt(ctx, err, v.goOn(s))
		}
	}
	v.bar.Done()
	fmt.Fprintf(io.Err, "%s in %s verified, %s: %d bad, %s mended or to be, %d set aside before\n",
		count(sum.Segments, "segment"), count(sum.Extents, "file"), archive.NearBytes(sum.Bytes), sum.Bad, count(sum.Mended, "place"), sum.Aside)
	if !sum.Sound() {
		return &StatusError{}
	}
	return nil
}

// namedStream is a stream as it is named below the directory that was given.
type namedStream struct {
	*archive.Stream
	name string
}

// streamsAt opens the stream in a directory, or all below it.
func streamsAt(path string) ([]namedStream, error) {
	s, err := archive.Open(path)
	if err == nil {
		return []namedStream{{s, s.Name()}}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	found, ferr := archive.Find(path)
	if ferr != nil || len(found) == 0 {
		return nil, err
	}
	var out []namedStream
	for _, f := range found {
		s, err := archive.Open(f.Dir)
		if err != nil {
			return nil, err
		}
		out = append(out, namedStream{s, f.Name})
	}
	return out, nil
}

// sizeOf is what a pass will read of a stream, but for what is recorded meanwhile.
func sizeOf(s *archive.Stream, span *spanFlags) (int64, error) {
	if !span.From.IsSet && !span.To.IsSet {
		return s.Size()
	}
	var n int64
	hours, err := s.Hours(span.From.UTC, span.To.UTC)
	for _, h := range hours {
		n += h.Bytes
	}
	return n, err
}

// verifyRun is the output of a run.
type verifyRun struct {
	o   *verifyOptions
	io  IO
	bar *progress
	out *jsonLines
	err error

	read m4f.UTC // of the stream under way: the hours before this are
}

// goOn says how to go on with a run that ended in a stream.
func (v *verifyRun) goOn(s namedStream) string {
	if v.read == 0 {
		return "what was found is set aside; the same command begins anew"
	}
	return fmt.Sprintf("what was found is set aside; %s is verified up to %s: verify %s --from %[2]s goes on there", s.name, stamp(v.read), s.Dir())
}

func (v *verifyRun) stream(ctx context.Context, s namedStream) (archive.VerifyResult, error) {
	v.read = 0
	res, err := s.Verify(ctx, archive.VerifyOptions{
		HourDone: func(h m4f.UTC, _ archive.VerifyResult) { v.read = h.Add(3600 * m4f.Timescale) },
		From:     v.o.span.From.UTC, To: v.o.span.To.UTC,
		Limiter: replicate.NewLimiter(v.o.limitRate), ReadOnly: v.o.readOnly,
		Progress: v.bar.Add,
		Damage:   func(d archive.Damage) { v.damage(s, &d) },
	})
	if err == nil && v.o.json {
		err = v.write(verifySummary{"summary", s.name, res.Hours, res.Extents, res.Segments, res.Bytes, res.Bad, res.Mended, res.Aside})
	}
	return res, err
}

func (v *verifyRun) write(x any) error {
	return v.bar.Beside(func() error {
		if err := v.out.Write(x); err != nil {
			return err
		}
		return v.out.Flush()
	})
}

// damage prints a damage as soon as it is found: a run may take days.
func (v *verifyRun) damage(s namedStream, d *archive.Damage) {
	if v.err != nil || v.o.quiet && !v.o.json {
		return
	}
	if v.o.json {
		v.err = v.write(newVerifyDamage(s, d))
		return
	}
	span := ""
	if d.From != 0 {
		span = fmt.Sprintf(" %s to %s", stamp(d.From), stamp(d.To))
	}
	v.err = v.bar.Beside(func() error {
		_, err := fmt.Fprintf(v.io.Out, "%s: at byte %d: %s: %s%s: %s\n", d.Path, d.Offset, d.Kind, d.Why, span, d.Done)
		return err
	})
}

// verifyDamage is a line of verify --json.
type verifyDamage struct {
	Type   string             `json:"type"`
	Stream string             `json:"stream"`
	File   string             `json:"file"` // below the stream's directory
	Offset int64              `json:"offset"`
	Kind   archive.DamageKind `json:"kind"`
	Why    string             `json:"why"`
	Done   string             `json:"done"`
	Bytes  int64              `json:"bytes"`
	ID     *m4f.Identity      `json:"id,omitempty"`
	From   *stamp             `json:"from,omitempty"`
	To     *stamp             `json:"to,omitempty"`
}

func newVerifyDamage(s namedStream, d *archive.Damage) *verifyDamage {
	out := &verifyDamage{Type: "damage", Stream: s.name, File: d.Path, Offset: d.Offset, Kind: d.Kind, Why: d.Why, Done: d.Done, Bytes: d.Bytes}
	if rel, err := filepath.Rel(s.Dir(), d.Path); err == nil {
		out.File = filepath.ToSlash(rel)
	}
	if !d.ID.IsZero() {
		out.ID = &d.ID
	}
	if d.From != 0 {
		from, to := stamp(d.From), stamp(d.To)
		out.From, out.To = &from, &to
	}
	return out
}

// verifySummary is the last line of a stream in verify --json.
type verifySummary struct {
	Type     string `json:"type"`
	Stream   string `json:"stream"`
	Hours    int    `json:"hours"`
	Files    int    `json:"files"`
	Segments int    `json:"segments"`
	Bytes    int64  `json:"bytes"`
	Bad      int    `json:"bad"`
	Mended   int    `json:"mended"`
	Aside    int    `json:"aside"`
}
