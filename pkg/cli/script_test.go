package cli

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/twindvr/twindvr/pkg/testkit"
)

// The tests of this package run twindvr itself: a script's "twindvr" is the
// test binary, which then does what cmd/twindvr does.
func TestMain(m *testing.M) {
	if os.Args[0] == "twindvr-waits" {
		os.Exit(mainThatWaits())
	}
	testscript.Main(leakChecked{m}, map[string]func(){
		"twindvr": func() { os.Exit(Main(os.Args[1:], System())) },
	})
}

type leakChecked struct{ m *testing.M }

func (l leakChecked) Run() int { return testkit.End(l.m.Run(), goleak.Find()) }

// TestScripts runs ../../testdata/script/*.txtar. Beside the commands and
// conditions of testscript itself they have:
//
//	status N COMMAND…   the command must end with exit status N
//	freeport NAME…      sets each variable to a free TCP and UDP port
//	waitport ADDR:PORT  waits until something listens there
//	waitfile GLOB       waits until a file matches
//	[testdata]          $TESTDATA holds real streams
func TestScripts(t *testing.T) {
	t.Parallel()
	const dir = "../../testdata/script"
	scripts, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil || len(scripts) == 0 {
		t.Fatalf("%d scripts in %s, %v", len(scripts), dir, err)
	}
	real := os.Getenv("TWINDVR_TESTDATA")
	if real != "" {
		if real, err = filepath.Abs(real); err != nil {
			t.Fatal(err)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("TESTDATA", real)
			e.Setenv("TZ", "UTC")
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond == "testdata" {
				return real != "", nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":   scriptStatus,
			"freeport": scriptFreePort,
			"waitport": scriptWaitPort,
			"waitfile": scriptWaitFile,
		},
	})
}

func scriptStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

func scriptFreePort(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		ts.Setenv(name, strconv.Itoa(freePort(ts)))
	}
}

// freePort returns a port that neither a TCP nor a UDP socket has just now.
func freePort(ts *testscript.TestScript) int {
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		port := l.Addr().(*net.TCPAddr).Port
		u, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port))
		ts.Check(l.Close())
		if err == nil {
			ts.Check(u.Close())
			return port
		}
	}
	ts.Fatalf("no free port")
	return 0
}

// patience is how long a script waits for something that must come.
const patience = 30 * time.Second

func scriptWaitPort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitport ADDR:PORT")
	}
	await(ts, "a listener at "+args[0], func() bool {
		c, err := net.Dial("tcp", args[0])
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func scriptWaitFile(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitfile GLOB")
	}
	await(ts, args[0], func() bool {
		found, err := filepath.Glob(ts.MkAbs(args[0]))
		ts.Check(err)
		return len(found) > 0
	})
}

func await(ts *testscript.TestScript, what string, come func() bool) {
	for end := time.Now().Add(patience); !come(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("%s did not come within %v", what, patience)
		}
	}
}
