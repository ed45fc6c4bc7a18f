package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// keepOptions are the flags of keep.
type keepOptions struct {
	span    spanFlags
	name    string
	release string
	json    bool
}

// AddFlags adds the flags of keep.
func (o *keepOptions) AddFlags(fs *pflag.FlagSet, io IO) {
	o.span.AddFlags(fs, io.Clock)
	fs.StringVar(&o.name, "name", "", "keep the span from --from to --to under this `NAME`")
	fs.StringVar(&o.release, "release", "", "no longer keep the span of this `NAME`")
	fs.BoolVar(&o.json, "json", false, "print one JSON object for each span")
}

func newKeepCmd(io IO) *cobra.Command {
	var o keepOptions
	cmd := &cobra.Command{
		Use:   "keep DIR",
		Short: "Protect a span of an archive from pruning",
		Long: fmt.Sprintf(`keep protects a span of the stream in DIR from pruning: the hours that it touches stay
whole, whatever the limits, until it is released. Without --name it lists the
spans that are kept: name, start, end, time recorded in it, bytes of its hours.

A node that runs on the archive needs not be told. What is kept is told to no
other node: to keep a span on both, run keep on both.

Kept hours stay readable when everything around them has been pruned, for ls,
export, peers and players alike; give --from and --to. They are verified and
healed like any other hour, and count towards the limits on space. A span may
reach into the future, and may begin before what the archive holds: what lies
there is then not refused when it is fetched again (backfill --from --to). A
stream has at most %d of them.

With --json a span is an object with name, from, to, created, duration (seconds
recorded in it) and bytes (of the hours that it touches).

Exit status: 0, 2 trouble.`, archive.MaxKeeps),
		Example: `  twindvr keep /storage/example --from 2026-11-22T19:00:00Z --to 2026-11-22T21:30:00Z --name final
  twindvr keep /storage/example
  twindvr keep /storage/example --release final`,
		Args: wantArgs("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(io, args[0])
		},
	}
	o.AddFlags(cmd.Flags(), io)
	return cmd
}

// check refuses flags that do not fit together.
func (o *keepOptions) check() error {
	span := o.span.From.IsSet || o.span.To.IsSet
	switch {
	case o.release != "" && (o.name != "" || span):
		return errors.New("--release goes with no other flag: it names a span that is kept")
	case o.name != "" && !(o.span.From.IsSet && o.span.To.IsSet):
		return errors.New("--from and --to are missing: what is to be kept, as --from -2h --to now")
	case o.name == "" && span:
		return errors.New("--name is missing: the span is listed and released by it")
	}
	return o.span.check()
}

func (o *keepOptions) run(io IO, dir string) error {
	if err := o.check(); err != nil {
		return err
	}
	loc, err := parseLocation(dir)
	if err != nil {
		return err
	}
	if loc.Peer != nil {
		return fmt.Errorf("%s is a peer's archive; run keep on the machine that holds it, with its directory", dir)
	}
	s, err := archive.Open(dir)
	if err != nil {
		return err
	}
	switch {
	case o.release != "":
		return s.Release(o.release)
	case o.name != "":
		return o.keep(io, s, dir)
	}
	return o.list(io, s)
}

// keep adds a span, and says where the archive has nothing of it.
func (o *keepOptions) keep(io IO, s *archive.Stream, dir string) error {
	k := archive.Keep{Name: o.name, From: o.span.From.UTC, To: o.span.To.UTC, Created: io.Clock.Now()}
	if err := s.Keep(k); err != nil {
		return err
	}
	l, err := keepLineOf(s, &k)
	if err != nil {
		return err
	}
	if l.Duration == "0" && k.From < m4f.UTCOf(io.Clock.Now()) {
		fmt.Fprintf(io.Err, "%s: nothing of the span is in the archive; it is kept all the same\n", dir)
	}
	return nil
}

// keepLine is a line of keep --json.
type keepLine struct {
	Name     string      `json:"name"`
	From     stamp       `json:"from"`
	To       stamp       `json:"to"`
	Created  stamp       `json:"created"`
	Duration json.Number `json:"duration"` // seconds recorded in it
	Bytes    int64       `json:"bytes"`    // of the files of its hours
}

func keepLineOf(s *archive.Stream, k *archive.Keep) (keepLine, error) {
	l := keepLine{Name: k.Name, From: stamp(k.From), To: stamp(k.To), Created: stamp(m4f.UTCOf(k.Created))}
	ivs, err := s.Coverage(k.From, k.To)
	if err != nil {
		return l, err
	}
	var covered m4f.UTC
	for _, iv := range ivs {
		covered += iv.To - iv.From
	}
	l.Duration = seconds(int64(covered))
	l.Bytes, err = s.KeptSize(k)
	return l, err
}

func (o *keepOptions) list(io IO, s *archive.Stream) error {
	kept, err := s.Kept()
	if err != nil {
		return err
	}
	out := newJSONLines(io.Out)
	text := tabwriter.NewWriter(io.Out, 0, 1, 2, ' ', 0)
	for i := range kept {
		l, err := keepLineOf(s, &kept[i])
		if err != nil {
			return err
		}
		if o.json {
			err = out.Write(l)
		} else {
			_, err = fmt.Fprintln(text, strings.Join([]string{l.Name, l.From.String(), l.To.String(), shortSeconds(l.Duration), archive.NearBytes(l.Bytes)}, "\t"))
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(out.Flush(), text.Flush())
}
