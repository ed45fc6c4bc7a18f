package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// newGenerateCmd makes the files that are built from the commands themselves.
func newGenerateCmd(IO) *cobra.Command {
	cmd := &cobra.Command{
		Use:    "generate",
		Short:  "Write man pages or shell completions",
		Hidden: true,
		Args:   wantArgs("man|completions", "DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return usageError{cmd, fmt.Errorf("unknown kind %q; it is man or completions", args[0])}
		},
	}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "man DIR",
			Short: "Write a man page for each command into a directory",
			Args:  wantArgs("DIR"),
			RunE:  func(cmd *cobra.Command, args []string) error { return generateMan(cmd.Root(), args[0]) },
		},
		&cobra.Command{
			Use:   "completions DIR",
			Short: "Write completions for bash, zsh and fish into a directory",
			Args:  wantArgs("DIR"),
			RunE:  func(cmd *cobra.Command, args []string) error { return generateCompletions(cmd.Root(), args[0]) },
		},
	)
	return cmd
}

func generateMan(root *cobra.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	pages := []*cobra.Command{root}
	for _, cmd := range root.Commands() {
		if documented(cmd) {
			pages = append(pages, cmd)
		}
	}
	for _, cmd := range pages {
		cmd.InitDefaultHelpFlag()
		cmd.InitDefaultVersionFlag()
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(manPage(cmd)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func generateCompletions(root *cobra.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, shell := range []struct {
		file  string
		write func(path string) error
	}{
		{"twindvr.bash", func(path string) error { return root.GenBashCompletionFileV2(path, true) }},
		{"_twindvr", root.GenZshCompletionFile},
		{"twindvr.fish", func(path string) error { return root.GenFishCompletionFile(path, true) }},
	} {
		if err := shell.write(filepath.Join(dir, shell.file)); err != nil {
			return err
		}
	}
	return nil
}
