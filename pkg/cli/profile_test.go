package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twindvr/twindvr/pkg/clock"
)

// A command that is asked to leaves profiles behind, as gzip that is whole, and
// the error of a command that fails is told first.
func TestProfile(t *testing.T) {
	dir := t.TempDir()
	run := func(dir string, args ...string) (int, string) {
		var out, errs bytes.Buffer
		status := Main(args, IO{In: strings.NewReader(""), Out: &out, Err: &errs, Clock: clock.System,
			LookupEnv: func(name string) (string, bool) { return dir, name == profileEnv }})
		return status, errs.String()
	}
	if status, errs := run(dir, "testsrc", "--realtime=false", "--duration", "1s"); status != 0 {
		t.Fatal(status, errs)
	}
	for _, kind := range []string{"cpu", "allocs"} {
		b, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("twindvr-%d-%s.pprof", os.Getpid(), kind)))
		if err != nil || len(b) < 100 || b[0] != 0x1F || b[1] != 0x8B {
			t.Errorf("%s: %d bytes, %v", kind, len(b), err)
		}
	}
	if status, errs := run(dir, "ls", "/nonexistent/x"); status != exitTrouble || !strings.Contains(errs, "/nonexistent/x") {
		t.Error(status, errs)
	}
	if status, errs := run("/nonexistent", "testsrc"); status != exitTrouble || !strings.HasPrefix(errs, "twindvr: TWINDVR_PROFILE: open /nonexistent/") {
		t.Error(status, errs)
	}
}
