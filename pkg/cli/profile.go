package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
)

// profileEnv names a directory that gets the profiles of a command, for
// go tool pprof: twindvr-PID-cpu.pprof and twindvr-PID-allocs.pprof.
const profileEnv = "TWINDVR_PROFILE"

// startProfile starts to record what the CPU time goes into, if profileEnv asks for
// it. stop writes that, and what was allocated.
func startProfile(io IO) (stop func() error, err error) {
	dir, _ := io.LookupEnv(profileEnv)
	if dir == "" {
		return func() error { return nil }, nil
	}
	cpu, err := os.Create(profilePath(dir, "cpu"))
	if err == nil {
		err = pprof.StartCPUProfile(cpu)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", profileEnv, err)
	}
	return func() error {
		pprof.StopCPUProfile()
		allocs, err := os.Create(profilePath(dir, "allocs"))
		if err == nil {
			err = errors.Join(pprof.Lookup("allocs").WriteTo(allocs, 0), allocs.Close())
		}
		if err = errors.Join(cpu.Close(), err); err != nil {
			return fmt.Errorf("%s: %w", profileEnv, err)
		}
		return nil
	}, nil
}

func profilePath(dir, kind string) string {
	return filepath.Join(dir, fmt.Sprintf("twindvr-%d-%s.pprof", os.Getpid(), kind))
}
