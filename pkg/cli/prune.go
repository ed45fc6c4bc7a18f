package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/twindvr/twindvr/pkg/archive"
)

// pruneOptions are the flags of prune.
type pruneOptions struct {
	depth  time.Duration
	dryRun bool
	force  bool
	json   bool
}

// AddFlags adds the flags of prune.
func (o *pruneOptions) AddFlags(fs *pflag.FlagSet) {
	addDuration(fs, &o.depth, "depth", "", "keep this `DURATION`, as 12h or 3d; whole hours before it go")
	fs.BoolVar(&o.dryRun, "dry-run", false, "remove nothing, print what would go")
	fs.BoolVar(&o.force, "force", false, "remove also what the passing of time does not explain")
	fs.BoolVar(&o.json, "json", false, "print one JSON object for each hour")
}

func newPruneCmd(io IO) *cobra.Command {
	var o pruneOptions
	cmd := &cobra.Command{
		Use:   "prune DIR",
		Short: "Remove what is older than an archive is to keep",
		Long: `prune removes the whole hours of the stream in DIR that are older than --depth,
and prints each. Nothing before that point is replicated back.

A wrong clock does not empty an archive: now is taken to be at most one hour
after the newest recorded segment, and a pass that would remove more than a
tenth of the stream beyond what the time passed since the last one explains
removes only that much, and asks for --force.

Exit status: 0 done, 2 trouble, also when --force is asked for.`,
		Example: `  twindvr prune /storage/example --depth 3d`,
		Args:    wantArgs("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(io, args[0])
		},
	}
	o.AddFlags(cmd.Flags())
	return cmd
}

func (o *pruneOptions) run(io IO, dir string) error {
	if o.depth == 0 {
		return errors.New("--depth is missing: how much is to be kept, as --depth 3d")
	}
	s, err := archive.Open(dir)
	if err != nil {
		return err
	}
	res, err := s.Prune(io.Clock.Now(), archive.PruneOptions{Depth: o.depth, DryRun: o.dryRun, Force: o.force})
	if perr := o.print(io, res); err == nil {
		err = perr
	}
	if !o.dryRun {
		if nerr := s.NotePrune(res, err); err == nil {
			err = nerr
		}
	}
	return err
}

// print prints a line for each hour that went.
func (o *pruneOptions) print(io IO, res archive.PruneResult) error {
	if o.json {
		out := newJSONLines(io.Out)
		for _, h := range res.Hours {
			if err := out.Write(prunedHour{stamp(h), !o.dryRun}); err != nil {
				return err
			}
		}
		return out.Flush()
	}
	for _, h := range res.Hours {
		if _, err := fmt.Fprintln(io.Out, stamp(h)); err != nil {
			return err
		}
	}
	return nil
}

// prunedHour is a line of prune --json.
type prunedHour struct {
	Hour    stamp `json:"hour"`
	Removed bool  `json:"removed"` // false: it would be
}
