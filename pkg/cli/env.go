package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// envName is the environment variable of a flag: TWINDVR_LIMIT_RATE for
// --limit-rate.
func envName(flag string) string {
	return "TWINDVR_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// flagsFromEnv sets every flag that the command line did not set and the
// environment has. An empty variable counts as absent.
func flagsFromEnv(cmd *cobra.Command, lookup func(string) (string, bool)) error {
	var first error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if first != nil || f.Changed || f.Name == "help" || f.Name == "version" {
			return
		}
		value, ok := lookup(envName(f.Name))
		if !ok || value == "" {
			return
		}
		if err := cmd.Flags().Set(f.Name, value); err != nil {
			first = usageError{cmd, fmt.Errorf("%s: %w", envName(f.Name), valueProblem(err))}
		}
	})
	return first
}

// flagProblem says what is wrong with a flag on the command line.
func flagProblem(err error) error {
	var bad *pflag.InvalidValueError
	if errors.As(err, &bad) {
		return fmt.Errorf("--%s: %w", bad.GetFlag().Name, valueProblem(err))
	}
	return err
}

// valueProblem says what is wrong with the value of a flag, in words instead of
// those of package strconv.
func valueProblem(err error) error {
	var bad *pflag.InvalidValueError
	if !errors.As(err, &bad) {
		return err
	}
	var number *strconv.NumError
	switch {
	case bad.GetFlag().Value.Type() == "bool":
		return fmt.Errorf("%q is no boolean; write true or false", bad.GetValue())
	case errors.As(err, &number) && errors.Is(number.Err, strconv.ErrRange):
		return fmt.Errorf("%q is out of range", bad.GetValue())
	case errors.As(err, &number):
		return fmt.Errorf("%q is no number", bad.GetValue())
	}
	return bad.Unwrap()
}
