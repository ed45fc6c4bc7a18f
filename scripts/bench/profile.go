package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// recordProfile records UDP streams with twindvr supervise, and leaves in
// b.profile what its CPU time and its allocations went into; the functions with the
// most go to w.
func (b *bench) recordProfile(ctx context.Context, w io.Writer) error {
	if err := os.MkdirAll(b.profile, 0o755); err != nil {
		return err
	}
	n := b.streams[0]
	var pid int
	s, err := b.udp(ctx, "twindvr", func(dir string, first, n int) ([]*process, error) {
		os.Setenv("TWINDVR_PROFILE", b.dir)
		defer os.Unsetenv("TWINDVR_PROFILE") // the sender's is not wanted
		list, err := b.supervise("")(dir, first, n)
		if err == nil {
			pid = list[0].Process.Pid
		}
		return list, err
	}, false, n)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "twindvr supervise, %s of %.1f Mbit/s for %v: %s\n", many(n, "stream"), float64(b.bitrate)/1e6, b.duration, s)
	for _, p := range []struct{ kind, index, what string }{
		{"cpu", "cpu", "CPU time"},
		{"allocs", "alloc_space", "memory allocated"},
	} {
		path := filepath.Join(b.profile, p.kind+".pprof")
		if err := os.Rename(filepath.Join(b.dir, fmt.Sprintf("twindvr-%d-%s.pprof", pid, p.kind)), path); err != nil {
			return err
		}
		text, err := top(ctx, path, p.index)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "\n%s (%s)\n\n%s", p.what, path, text)
	}
	return nil
}

// top is what go tool pprof says of a profile: the functions that cost the most
// themselves, then those of twindvr with all that they call.
func top(ctx context.Context, path, index string) (string, error) {
	var text string
	for _, args := range [][]string{{"-nodecount=15"}, {"-nodecount=30", "-cum", "-show=twindvr/pkg/"}} {
		cmd := exec.CommandContext(ctx, "go", append(append([]string{"tool", "pprof", "-top", "-sample_index=" + index}, args...), path)...)
		var errs strings.Builder
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("go tool pprof: %w", errors.Join(err, errors.New(strings.TrimSpace(errs.String()))))
		}
		_, table, _ := strings.Cut(string(out), "Showing nodes")
		text += "Showing nodes" + table + "\n"
	}
	return text, nil
}
