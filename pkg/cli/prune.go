package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/config"
)

// pruneOptions are the flags of prune.
type pruneOptions struct {
	depth   time.Duration
	size    int64
	percent int
	minFree config.Free
	dryRun  bool
	force   bool
	json    bool
}

// AddFlags adds the flags of prune.
func (o *pruneOptions) AddFlags(fs *pflag.FlagSet) {
	addDuration(fs, &o.depth, "depth", "", "keep this `DURATION`, as 12h or 3d; whole hours before it go")
	addSize(fs, &o.size, "size", "", "keep each stream within this `SIZE`, as 500G; its oldest hours go")
	addParsed(fs, &o.percent, "percent", "PERCENT", config.ParsePercent, "keep the use of the volume within this `PERCENT`age; the oldest hours of all streams go")
	addParsed(fs, &o.minFree, "min-free", "FREE", config.ParseFree, "leave this size or percentage of the volume `FREE`, as 10G or 5%; the oldest hours of all streams go")
	fs.BoolVar(&o.dryRun, "dry-run", false, "remove nothing, print what would go")
	fs.BoolVar(&o.force, "force", false, "remove also what the passing of time does not explain")
	fs.BoolVar(&o.json, "json", false, "print one JSON object for each hour")
}

func newPruneCmd(io IO) *cobra.Command {
	var o pruneOptions
	cmd := &cobra.Command{
		Use:   "prune PATH...",
		Short: "Remove the oldest hours of archives",
		Long: `prune removes whole hours, the oldest first, until what is left keeps to the limits
given, and prints each with its size and the limit that it went for. PATH is the
directory of a stream, or one above streams. Nothing that was pruned is
replicated back.

  --depth     hours that are older go
  --size      of a stream that is larger, its own oldest hours go
  --percent   of a volume that is fuller, the oldest hours of all the streams go
  --min-free  the same as long as less is free

For --percent and --min-free only the streams below the PATHs are looked at; those
on different volumes are kept apart. Kept spans stay (see keep), and for --size,
--percent and --min-free the newest two hours of each stream.

A wrong clock does not empty an archive: now is taken to be at most one hour
after the newest recorded segment, and a pass that would remove more than a
tenth of a stream beyond what the time passed since the last one explains
removes only that much, and asks for --force. So does one for a limit that was
mistyped, or on a volume that other files have filled.

With --json an hour is an object with stream, hour, bytes, why (depth, size,
percent, min_free, or horizon for what an earlier pass or a released span left)
and removed.

Exit status: 0 done, 1 a limit is not met though nothing is left that may go, 2
trouble, also when --force is asked for.`,
		Example: `  twindvr prune /storage/example --depth 3d
  twindvr prune /storage --percent 90% --dry-run`,
		Args: wantArgs("PATH..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(io, args)
		},
	}
	o.AddFlags(cmd.Flags())
	return cmd
}

func (o *pruneOptions) run(io IO, paths []string) error {
	if o.depth == 0 && o.size == 0 && o.percent == 0 && o.minFree == (config.Free{}) {
		return errors.New("--depth is missing: how much is to be kept, as --depth 3d (or --size, --percent, --min-free)")
	}
	streams, names, err := pruned(paths)
	if err != nil {
		return err
	}
	out := o.printer(io, len(streams) > 1)
	var errs []error
	unmet := false
	for _, members := range volumes(streams, o) {
		res, err := archive.PruneVolume(io.Clock.Now(), members, archive.VolumeOptions{
			MinFree: o.minFree.Bytes, MinFreePercent: o.minFree.Percent, DryRun: o.dryRun, Force: o.force, Where: strings.Join(paths, " "),
		})
		errs = append(errs, err)
		for i, r := range res.Streams {
			errs = append(errs, out.print(names[members[i].Stream], r), o.note(members[i].Stream, r))
			errs = append(errs, asError(r.Held))
			unmet = o.tell(io, r.Unmet) || unmet
		}
		if res.Held != nil && !heldAlready(res) {
			errs = append(errs, res.Held)
		}
		unmet = o.tell(io, res.Unmet) || unmet
	}
	if err := errors.Join(append(errs, out.flush())...); err != nil {
		return err
	}
	if unmet {
		return &StatusError{}
	}
	return nil
}

// asError makes no error of none.
func asError(held *archive.PruneHeldError) error {
	if held == nil {
		return nil
	}
	return held
}

// heldAlready says whether what holds the volume is told of a stream.
func heldAlready(res archive.VolumeResult) bool {
	for _, r := range res.Streams {
		if r.Held == res.Held {
			return true
		}
	}
	return false
}

// tell tells of a limit that is not met.
func (o *pruneOptions) tell(io IO, unmet *archive.LimitError) bool {
	if unmet != nil {
		printError(io.Err, unmet)
	}
	return unmet != nil
}

// note writes down in the archive what was done.
func (o *pruneOptions) note(s *archive.Stream, r archive.PruneResult) error {
	if o.dryRun {
		return nil
	}
	return s.NotePrune(r, asError(r.Held))
}

// pruned returns the streams at or below some directories, each once, and their
// names below these.
func pruned(paths []string) (out []*archive.Stream, names map[*archive.Stream]string, err error) {
	seen := map[string]bool{}
	names = map[*archive.Stream]string{}
	add := func(s *archive.Stream, name string) {
		if !seen[s.Dir()] {
			seen[s.Dir()] = true
			out = append(out, s)
			names[s] = name
		}
	}
	for _, path := range paths {
		loc, err := parseLocation(path)
		if err != nil {
			return nil, nil, err
		}
		if loc.Peer != nil {
			return nil, nil, fmt.Errorf("%s is a peer's archive; run prune on the machine that holds it, with its directory", path)
		}
		s, err := archive.Open(path)
		if err == nil {
			add(s, s.Name())
			continue
		}
		below, ferr := archive.Find(path)
		if !errors.Is(err, fs.ErrNotExist) || ferr != nil || len(below) == 0 {
			return nil, nil, err
		}
		for _, f := range below {
			if s, err = archive.Open(f.Dir); err != nil {
				return nil, nil, err
			}
			add(s, f.Name)
		}
	}
	return out, names, nil
}

// volumes groups streams by the volume that they lie on.
func volumes(streams []*archive.Stream, o *pruneOptions) [][]archive.Member {
	var out [][]archive.Member
	at := map[uint64]int{}
	for _, s := range streams {
		u, err := archive.UsageOf(s.Dir())
		i, ok := at[u.Device]
		if !ok || err != nil {
			i = len(out)
			out = append(out, nil)
			at[u.Device] = i
		}
		out[i] = append(out[i], archive.Member{Stream: s, Depth: o.depth, Size: o.size, Percent: o.percent})
	}
	return out
}

// prunePrinter prints a line for each hour that went.
type prunePrinter struct {
	json    *jsonLines
	text    *tabwriter.Writer
	named   bool // with the stream's name
	removed bool
}

func (o *pruneOptions) printer(io IO, named bool) *prunePrinter {
	p := &prunePrinter{named: named, removed: !o.dryRun}
	if o.json {
		p.json = newJSONLines(io.Out)
	} else {
		p.text = tabwriter.NewWriter(io.Out, 0, 1, 2, ' ', 0)
	}
	return p
}

func (p *prunePrinter) print(name string, r archive.PruneResult) error {
	for _, h := range r.Hours {
		var err error
		switch {
		case p.json != nil:
			err = p.json.Write(prunedHour{name, stamp(h.Start), h.Bytes, h.Why, p.removed})
		case p.named:
			_, err = fmt.Fprintf(p.text, "%s\t%s\t%s\t%s\n", name, stamp(h.Start), archive.NearBytes(h.Bytes), h.Why)
		default:
			_, err = fmt.Fprintf(p.text, "%s\t%s\t%s\n", stamp(h.Start), archive.NearBytes(h.Bytes), h.Why)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *prunePrinter) flush() error {
	if p.json != nil {
		return p.json.Flush()
	}
	return p.text.Flush()
}

// prunedHour is a line of prune --json.
type prunedHour struct {
	Stream  string         `json:"stream"`
	Hour    stamp          `json:"hour"`
	Bytes   int64          `json:"bytes"`
	Why     archive.Reason `json:"why"`
	Removed bool           `json:"removed"` // false: it would be
}
