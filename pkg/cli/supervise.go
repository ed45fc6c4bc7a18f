package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/ingest"
	"github.com/twindvr/twindvr/pkg/node"
)

type superviseOptions struct {
	config string
	check  bool
}

// AddFlags adds the command's flags.
func (o *superviseOptions) AddFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&o.check, "check", false, "read the configuration, say what is wrong with it, and end")
}

func newSuperviseCmd(io IO) *cobra.Command {
	var o superviseOptions
	cmd := &cobra.Command{
		Use:   "supervise CONFIG",
		Short: "Run a whole node: record, replicate, fail over, prune and serve",
		Long: `Run a whole node as a configuration file says: record each stream from the first
of its inputs that works, keep its archive equal to those of its peers, prune it
to its depth, and serve it: to its peers, and to viewers as HLS, MPEG-DASH and
downloads, whose addresses twindvr-serve-m4f(1) lists. twindvr.conf(5) describes
the file.

SIGHUP reads the file again and applies what has changed, without touching the
streams that have not; a file with a mistake changes nothing. SIGTERM and SIGINT
close the segments under way as partial and end the node.

Under systemd (Type=notify) it says when it is ready and feeds the watchdog.
Where a control group bounds its memory (MemoryMax= of the unit, a container), it
frees memory before it reaches nine tenths of that, unless GOMEMLIMIT says
otherwise.

Exit status: 0 ended by a signal, 2 trouble.`,
		Example: `  twindvr supervise /etc/twindvr.conf
  twindvr supervise --check /etc/twindvr.conf`,
		Args: wantArgs("CONFIG"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.config = args[0]
			return runSupervise(cmd.Context(), o, io)
		},
	}
	o.AddFlags(cmd.Flags())
	return cmd
}

func runSupervise(ctx context.Context, o superviseOptions, io IO) error {
	c, err := loadConfig(o.config)
	if err != nil {
		return err
	}
	if o.check {
		fmt.Fprintf(io.Err, "%s: %d stream(s), %d source(s), listens on %s\n", o.config, len(c.Streams), len(c.Sources), c.HTTP)
		return nil
	}
	limitMemory()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	n := node.New(node.Options{
		Config: c, Version: version(), Ready: func() { notify(daemon.SdNotifyReady) },
		Load: func() (*config.Config, error) { return loadConfig(o.config) }, Reloading: func() func() { return reloading(ctx) },
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		attend(ctx, n, hup)
	}()
	err = n.Run(ctx)
	if err != nil {
		return err
	}
	<-done
	return nil
}

// loadConfig reads a configuration whose inputs are peers and what ingest opens.
func loadConfig(file string) (*config.Config, error) {
	return config.Load(file, config.Sources{
		Schemes: ingest.Schemes(), Program: ingest.SplitProgram, Check: ingest.Check, Shared: ingest.Shared, Redact: ingest.Redact,
	})
}

// attend reloads on SIGHUP, feeds the service manager's watchdog and says when
// the node begins to end.
func attend(ctx context.Context, n *node.Node, hup <-chan os.Signal) {
	var feed <-chan time.Time
	if every, err := daemon.SdWatchdogEnabled(false); err == nil && every > 0 {
		t := time.NewTicker(every / 3)
		defer t.Stop()
		feed = t.C
	}
	var reloaded chan struct{} // closed when the reload under way is done
	for {
		again := hup
		if reloaded != nil {
			again = nil
		}
		select {
		case <-ctx.Done():
			notify(daemon.SdNotifyStopping)
			if reloaded != nil {
				<-reloaded
			}
			return
		case <-feed:
			n.Alive()
			notify(daemon.SdNotifyWatchdog)
		case <-reloaded:
			reloaded = nil
		case <-again:
			reloaded = make(chan struct{})
			go func(done chan struct{}) {
				defer close(done)
				_, _ = n.Reread(context.WithoutCancel(ctx)) // it has told what was wrong
			}(reloaded)
		}
	}
}

// reloading tells the service manager that the configuration is being read again,
// and then that this is done.
func reloading(ctx context.Context) (done func()) {
	notify(daemon.SdNotifyReloading + fmt.Sprintf("\nMONOTONIC_USEC=%d", monotonic()))
	return func() {
		if ctx.Err() == nil { // else it has been told that the node ends
			notify(daemon.SdNotifyReady)
		}
	}
}

// monotonic is the time that systemd wants with RELOADING, in microseconds.
func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return ts.Nano() / 1000
}

// notify tells the service manager; without one it does nothing.
func notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil && !errors.Is(err, os.ErrNotExist) {
		slog.Debug("service manager cannot be told", "state", state, "err", err)
	}
}
