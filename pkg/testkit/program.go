package testkit

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// Program is the path of twindvr, built as users build it: with what -race adds, archives
// of days and hundreds of starts would take minutes. It is built once in a test binary,
// which calls End when its tests have run.
var Program = sync.OnceValue(func() string {
	dir, err := os.MkdirTemp("", "twindvr-test")
	if err != nil {
		panic(err)
	}
	builtIn = dir
	path := filepath.Join(dir, "twindvr")
	if out, err := exec.Command("go", "build", "-o", path, "github.com/twindvr/twindvr/cmd/twindvr").CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v\n%s", err, out))
	}
	return path
})

// builtIn is the directory of Program; empty: it was not built.
var builtIn string

// End removes what Program has built, and returns the exit status of a test binary: that of
// its tests, and 1 where leaked says that they passed and left goroutines.
func End(status int, leaked error) int {
	if builtIn != "" {
		_ = os.RemoveAll(builtIn)
	}
	if status == 0 && leaked != nil {
		fmt.Fprintln(os.Stderr, leaked)
		return 1
	}
	return status
}
