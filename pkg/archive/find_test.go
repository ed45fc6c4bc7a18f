package archive

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/twindvr/twindvr/pkg/fsx"
)

// TestFindTellsWhatMayNotBeRead: streams below a directory that may not be read are
// an error and not passed over, but for lost+found.
func TestFindTellsWhatMayNotBeRead(t *testing.T) {
	for _, name := range []string{"t", "deep/t", "lost+found"} {
		root := t.TempDir()
		for _, dir := range []string{name, "seen"} {
			if _, err := Create(filepath.Join(root, dir), dir, Options{}); err != nil {
				t.Fatal(err)
			}
		}
		closed := filepath.Join(root, name)
		faults := fsx.NewFaults(fsx.OS, func(o fsx.Op) error {
			if o.Path == closed && o.Name != "stat" || strings.HasPrefix(o.Path, closed+"/") {
				return syscall.EACCES
			}
			return nil
		})
		found, err := find(faults, root, "", 0)
		_, oerr := OpenWith(root, Options{FS: faults})
		if name == "lost+found" {
			if err != nil || len(found) != 1 || found[0].Name != "seen" || errors.Is(oerr, fs.ErrPermission) {
				t.Errorf("%s: %+v, %v, %v", name, found, err, oerr)
			}
			continue
		}
		for _, err := range []error{err, oerr} {
			if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), closed) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
