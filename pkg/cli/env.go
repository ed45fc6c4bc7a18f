package cli

import (
	"fmt"
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
			first = usageError{cmd, fmt.Errorf("%s in the environment: %w", envName(f.Name), err)}
		}
	})
	return first
}
