// Package cli is the command line of twindvr: one file a command, each with a
// constructor newXxxCmd, an options struct with AddFlags, and one
// run(ctx, opts, io) that calls the package that does the work.
//
// Results go to IO.Out and everything else to IO.Err. A command returns its
// error; the exit status is decided in exit.go and nowhere else.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/twindvr/twindvr/pkg/clock"
)

// commands are the sub-commands in the order of the help text.
var commands = []func(IO) *cobra.Command{
	newIngestCmd,
	newRecordCmd,
	newServeM4FCmd,
	newDiffArchiveCmd,
	newBackfillCmd,
	newExportCmd,
	newLsCmd,
	newPruneCmd,
	newVerifyCmd,
	newKeepCmd,
	newSuperviseCmd,
	newStatusCmd,
	newTokenCmd,
	newTestsrcCmd,
	newGenerateCmd,
}

// IO is what a command reads and writes, and how it tells the time.
type IO struct {
	In       io.Reader
	Out, Err io.Writer
	Clock    clock.Clock
	// LookupEnv reads the environment, as os.LookupEnv does.
	LookupEnv func(name string) (string, bool)
}

// System is the process's own standard streams, clock and environment.
func System() IO {
	return IO{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Clock: clock.System, LookupEnv: os.LookupEnv}
}

// terminal says whether w is a terminal: only there are progress bars drawn.
func terminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Main runs the command that args (without the program's name) ask for and
// returns the exit status: 0, 1 for a well-run command whose answer is no, 2
// for trouble. SIGINT and SIGTERM cancel the command's context; a second one
// ends the process at once.
func Main(args []string, io IO) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	stopProfile, err := startProfile(io)
	if err != nil {
		return exitStatus(ctx, err, io.Err)
	}
	root := newRootCmd(io)
	root.SetArgs(append([]string{}, args...))
	err = root.ExecuteContext(ctx)
	return exitStatus(ctx, errors.Join(err, stopProfile()), io.Err)
}

// Commands are listed in the order in which they are added.
func init() { cobra.EnableCommandSorting = false }

func newRootCmd(io IO) *cobra.Command {
	var log logOptions
	root := &cobra.Command{
		Use:   "twindvr",
		Short: "Keep the DVR archive of live streams whole on two servers",
		Long: `twindvr records live streams into a DVR archive and keeps that archive equal on
two servers, so that neither an outage of one of them nor packet loss leaves a
hole in it. Its commands work alone in a pipeline or a cron job; supervise
combines them into a whole node.

Every flag can be given in the environment: --limit-rate is TWINDVR_LIMIT_RATE.
The command line wins. Results go to standard output, everything else to
standard error; on a terminal, backfill, export and verify show there how far they
are, in colours unless NO_COLOR is set. Times are written in RFC 3339, as Unix
seconds, as "now", or relative to it (-90m, -3d). An archive is a stream's
directory (/storage/example) or a peer (m4f://host:8081/example). With
TWINDVR_PROFILE=DIR, a command leaves in DIR what its CPU time and its memory
went into, as go tool pprof reads it.

Exit status: 0 done, 1 done and the answer is no (archives differ, gaps found,
the source was lost, a node is not healthy), 2 trouble.`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          unknownCommand,
		RunE: func(cmd *cobra.Command, args []string) error {
			return usageError{cmd, fmt.Errorf("a command is missing")}
		},
		PersistentPreRunE: func(cmd *cobra.Command, args []string) error {
			if err := flagsFromEnv(cmd, io.LookupEnv); err != nil {
				return err
			}
			return log.setUp(io.Err)
		},
	}
	root.SetIn(io.In)
	root.SetOut(io.Out)
	root.SetErr(io.Err)
	root.SetVersionTemplate("twindvr {{.Version}}\n")
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError{cmd, flagProblem(err)} })
	log.AddFlags(root.PersistentFlags())
	for _, construct := range commands {
		root.AddCommand(construct(io))
	}
	wrapArgs(root)
	addCompletions(root, io)
	return root
}

// unknownCommand refuses words after the program's name that are no command.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return fmt.Errorf("unknown command %q; did you mean %s?", args[0], strings.Join(near, " or "))
	}
	return fmt.Errorf("unknown command %q", args[0])
}

// wrapArgs makes every refusal of positional arguments a usageError.
func wrapArgs(cmd *cobra.Command) {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError{cmd, err}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		wrapArgs(sub)
	}
}

// wantArgs checks the number of positional arguments against their names: NAME
// must be there, [NAME] may be left out, NAME... stands for one or more. Only
// the last may be one of the latter two kinds. An empty argument is refused: it
// is a variable of a script that is not set, and as a path it would stand for
// the working directory.
func wantArgs(names ...string) cobra.PositionalArgs {
	least, most := 0, len(names)
	for _, n := range names {
		if !strings.HasPrefix(n, "[") {
			least++
		}
		if strings.HasSuffix(strings.TrimSuffix(n, "]"), "...") {
			most = -1
		}
	}
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return fmt.Errorf("%s is missing", strings.TrimSuffix(names[len(args)], "..."))
		case most >= 0 && len(args) > most && most == 0:
			return fmt.Errorf("unexpected argument %q", args[0])
		case most >= 0 && len(args) > most:
			return fmt.Errorf("unexpected argument %q after %s", args[most], names[most-1])
		}
		for i, a := range args {
			if a == "" {
				return fmt.Errorf("%s is empty", strings.Trim(names[min(i, len(names)-1)], "[.]"))
			}
		}
		return nil
	}
}

// release is set at build time with -ldflags -X.
var release = ""

// version is the release, or what the Go tool knows of the build.
func version() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
