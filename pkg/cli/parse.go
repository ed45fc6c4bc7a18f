package cli

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// timeFlag is a flag that holds an instant. Set tells whether it was given.
type timeFlag struct {
	UTC   m4f.UTC
	IsSet bool
	text  string
	clock clock.Clock
}

// addTime adds a flag of an instant; times relative to now are read with c.
func addTime(fs *pflag.FlagSet, v *timeFlag, c clock.Clock, name, usage string) {
	v.clock = c
	fs.Var(v, name, usage)
}

func (v *timeFlag) String() string { return v.text }
func (v *timeFlag) Type() string   { return "TIME" }
func (v *timeFlag) Set(s string) error {
	u, err := config.ParseTime(s, v.clock.Now())
	if err != nil {
		return err
	}
	v.UTC, v.IsSet, v.text = u, true, s
	return nil
}

// spanFlags are --from and --to, which commands over a span of an archive take.
type spanFlags struct{ From, To timeFlag }

// AddFlags adds --from and --to.
func (o *spanFlags) AddFlags(fs *pflag.FlagSet, c clock.Clock) {
	addTime(fs, &o.From, c, "from", "begin at this `TIME`")
	addTime(fs, &o.To, c, "to", "end at this `TIME`")
}

// check refuses a span that ends before it begins.
func (o *spanFlags) check() error {
	if o.From.IsSet && o.To.IsSet && o.To.UTC <= o.From.UTC {
		return fmt.Errorf("--to %s is not after --from %s", o.To.text, o.From.text)
	}
	return nil
}

// quantity is a flag of a number with a unit.
type quantity[T any] struct {
	p     *T
	text  string
	kind  string
	parse func(string) (T, error)
}

func (v *quantity[T]) String() string { return v.text }
func (v *quantity[T]) Type() string   { return v.kind }
func (v *quantity[T]) Set(s string) error {
	n, err := v.parse(s)
	if err != nil {
		return err
	}
	*v.p, v.text = n, s
	return nil
}

// addDuration adds a flag of a duration as config.ParseDuration reads it. def
// is its default as it would be written, or empty for zero.
func addDuration(fs *pflag.FlagSet, p *time.Duration, name, def, usage string) {
	addQuantity(fs, &quantity[time.Duration]{p: p, kind: "DURATION", parse: config.ParseDuration}, name, def, usage)
}

// addSize adds a flag of a number of bytes.
func addSize(fs *pflag.FlagSet, p *int64, name, def, usage string) {
	addQuantity(fs, &quantity[int64]{p: p, kind: "SIZE", parse: config.ParseSize}, name, def, usage)
}

// addRate adds a flag of a rate in bytes a second, as of curl's --limit-rate.
func addRate(fs *pflag.FlagSet, p *int64, name, def, usage string) {
	addQuantity(fs, &quantity[int64]{p: p, kind: "RATE", parse: config.ParseRate}, name, def, usage)
}

// addParsed adds a flag of anything else that is written in one word.
func addParsed[T any](fs *pflag.FlagSet, p *T, name, kind string, parse func(string) (T, error), usage string) {
	addQuantity(fs, &quantity[T]{p: p, kind: kind, parse: parse}, name, "", usage)
}

func addQuantity[T any](fs *pflag.FlagSet, v *quantity[T], name, def, usage string) {
	if def != "" {
		if err := v.Set(def); err != nil {
			panic(fmt.Sprintf("default of --%s: %v", name, err))
		}
	}
	fs.Var(v, name, usage)
}

// Location is where an archive lies: a stream's directory, or a peer.
type Location struct {
	Dir  string       // empty when Peer is set
	Peer *config.Peer // nil for a directory
}

// parseLocation reads an archive location: a stream's directory, or
// m4f://HOST[:PORT]/STREAM (m4fs:// over TLS).
func parseLocation(s string) (Location, error) {
	if config.IsPeerURL(s) {
		p, err := config.ParsePeer(s)
		if err != nil {
			return Location{}, err
		}
		return Location{Peer: &p}, nil
	}
	switch {
	case s == "":
		return Location{}, errors.New("an archive location is empty; it is a stream's directory or m4f://HOST[:PORT]/STREAM")
	case strings.Contains(s, "://"):
		return Location{}, fmt.Errorf("%q is no archive; it is a stream's directory or m4f://HOST[:PORT]/STREAM", s)
	case strings.ContainsRune(s, 0):
		return Location{}, fmt.Errorf("%q is no directory", s)
	}
	return Location{Dir: s}, nil
}

// String returns the location as it is written on a command line.
func (l Location) String() string {
	if l.Peer != nil {
		return l.Peer.String()
	}
	return l.Dir
}
