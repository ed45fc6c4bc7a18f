package cli

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// mainThatWaits is twindvr with a command that works until it is told to stop,
// and then goes on for ever if it is stubborn. It prints a line when it begins
// and one when it is told.
func mainThatWaits() int {
	commands = append(commands, func(io IO) *cobra.Command {
		return &cobra.Command{Use: "wait", RunE: func(cmd *cobra.Command, args []string) error {
			fmt.Fprintln(io.Out, "working")
			<-cmd.Context().Done()
			if len(args) == 0 {
				return cmd.Context().Err()
			}
			for ; ; time.Sleep(10 * time.Millisecond) {
				fmt.Fprintln(io.Out, "told")
			}
		}}
	})
	return Main(append([]string{"wait"}, os.Args[1:]...), System())
}

// A signal cancels what a command is doing; the next one does not wait for it.
func TestSignals(t *testing.T) {
	for _, v := range []struct {
		name   string
		signal syscall.Signal
		args   []string
		want   string
	}{
		{"INT", syscall.SIGINT, nil, "exit status 2"},
		{"TERM", syscall.SIGTERM, nil, "exit status 2"},
		{"again", syscall.SIGINT, []string{"stubborn"}, "signal: interrupt"},
	} {
		t.Run(v.name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0])
			cmd.Args = append([]string{"twindvr-waits"}, v.args...)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			var stderr strings.Builder
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			for lines.Scan() { // a signal for each line, until it ends
				if err := cmd.Process.Signal(v.signal); err != nil {
					t.Fatal(err)
				}
			}
			err = cmd.Wait()
			if err == nil || err.Error() != v.want {
				t.Errorf("%v, want %s", err, v.want)
			}
			if v.args == nil && stderr.String() != "twindvr: interrupted\n" {
				t.Errorf("stderr %q", stderr.String())
			}
		})
	}
}
