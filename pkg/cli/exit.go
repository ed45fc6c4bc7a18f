package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// The exit statuses of every command.
const (
	exitOK      = 0
	exitNo      = 1 // the command ran well and its answer is no
	exitTrouble = 2
)

// StatusError is the answer "no" of a command that ran well: archives differ,
// gaps were found, the source was lost, something is left to heal. It makes the
// exit status 1. An empty Msg prints nothing, for commands whose output already
// says it.
type StatusError struct{ Msg string }

func (e *StatusError) Error() string { return e.Msg }

// ErrDiffer is the StatusError without words, as of diff.
var ErrDiffer error = &StatusError{}

// statusf returns a StatusError with a message for the operator.
func statusf(format string, args ...any) error {
	return &StatusError{Msg: fmt.Sprintf(format, args...)}
}

// usageError is a command line that cannot be understood; its line ends with a
// hint at the help text.
type usageError struct {
	cmd *cobra.Command
	err error
}

func (e usageError) Error() string {
	return fmt.Sprintf("%v (see '%s --help')", e.err, e.cmd.CommandPath())
}

func (e usageError) Unwrap() error { return e.err }

// exitStatus prints an error once and decides the exit status.
func exitStatus(ctx context.Context, err error, stderr io.Writer) int {
	var no *StatusError
	var hint *stopped
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &no):
		if err.Error() != "" {
			printError(stderr, err)
		}
		return exitNo
	case errors.As(err, &hint) && errors.Is(err, context.Canceled) && ctx.Err() != nil:
		printError(stderr, errors.New("interrupted; "+hint.hint))
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		printError(stderr, errors.New("interrupted"))
	default:
		printError(stderr, err)
	}
	return exitTrouble
}

// printError writes "twindvr: " and the error. Errors with several lines, as of
// a configuration file with several mistakes, keep one a line.
func printError(w io.Writer, err error) {
	for line := range strings.SplitSeq(strings.TrimRight(err.Error(), "\n"), "\n") {
		fmt.Fprintf(w, "twindvr: %s\n", line)
	}
}
