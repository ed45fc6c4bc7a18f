package cli

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/pflag"
)

// logOptions say what the log holds and how it is written.
type logOptions struct {
	level string
	json  bool
}

// AddFlags adds the flags of the log, which every command has.
func (o *logOptions) AddFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.level, "log-level", "info", "log events of this `LEVEL` and above: debug, info, warn or error")
	fs.BoolVar(&o.json, "log-json", false, "log JSON objects, one a line")
}

// setUp makes the process's log write to w.
func (o *logOptions) setUp(w io.Writer) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.level)); err != nil {
		return fmt.Errorf("--log-level %s: unknown level; it is debug, info, warn or error", o.level)
	}
	w = newBesideBar(w)
	opts := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewTextHandler(w, opts)
	if o.json {
		h = slog.NewJSONHandler(w, opts)
	}
	slog.SetDefault(slog.New(h))
	return nil
}
