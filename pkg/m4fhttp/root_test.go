package m4fhttp

import (
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/fsx"
)

// A directory below the root that cannot be read hides no stream but its own, and
// is told once until it can be read again.
func TestRootWithAnUnreadableDirectory(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "deep/b", "z"} {
		if _, err := archive.Create(filepath.Join(dir, name), name, archive.Options{}); err != nil {
			t.Fatal(err)
		}
	}
	var log strings.Builder
	r := NewRoot(dir)
	r.Log = slog.New(slog.NewTextHandler(&log, nil))
	broken := ""
	r.fs = fsx.NewFaults(fsx.OS, func(o fsx.Op) error {
		if o.Name == "readdir" && o.Path == broken {
			return syscall.EACCES
		}
		return nil
	})
	want := func(told int, names ...string) {
		t.Helper()
		if got, err := r.Streams(); err != nil || !slices.Equal(got, names) {
			t.Errorf("%v, %v, want %v", got, err, names)
		}
		if n := strings.Count(log.String(), "cannot be read"); n != told {
			t.Errorf("told %d times, want %d:\n%s", n, told, &log)
		}
	}
	want(0, "a", "deep/b", "z")
	broken = filepath.Join(dir, "deep")
	want(1, "a", "z")
	want(1, "a", "z")
	if !strings.Contains(log.String(), broken) {
		t.Errorf("it is not said which:\n%s", &log)
	}
	broken = ""
	want(1, "a", "deep/b", "z")
	broken = filepath.Join(dir, "deep")
	want(2, "a", "z")
	broken = dir
	if _, err := r.Streams(); err == nil {
		t.Error("a root that cannot be read has streams")
	}
}
