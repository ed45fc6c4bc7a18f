package archive

import (
	"io/fs"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// unannounced is a file system on which a write to changes fails, while it is
// told to, behind a look at the archive.
type unannounced struct {
	fsx.FS
	look func() // nil: writes go well
}

func (u *unannounced) OpenFile(name string, flag int, perm fs.FileMode) (fsx.File, error) {
	f, err := u.FS.OpenFile(name, flag, perm)
	if err != nil || filepath.Base(name) != changesName {
		return f, err
	}
	return &unannouncedFile{f, u}, nil
}

type unannouncedFile struct {
	fsx.File
	u *unannounced
}

func (f *unannouncedFile) Write(p []byte) (int, error) {
	if f.u.look == nil {
		return f.File.Write(p)
	}
	f.u.look()
	return 0, &fs.PathError{Op: "write", Path: f.Name(), Err: syscall.ENOSPC}
}

// TestTakenBack: a segment that could not be announced, and that a reader saw
// before it was taken back, is not remembered: it is wanted again.
func TestTakenBack(t *testing.T) {
	u := &unannounced{FS: fsx.OS}
	s := newStream(t, Options{FS: u})
	segs := run(t, noon, 0, 2)
	w := s.Writer(Replicated, 0, WriterOptions{Sync: SyncOff})
	defer w.Close()
	if err := w.Append(segs[0]); err != nil {
		t.Fatal(err)
	}
	seen := 0
	u.look = func() { seen = len(span(t, s)) }
	if err := w.Append(segs[1]); err == nil {
		t.Fatal("a segment that could not be announced is no error")
	}
	u.look = nil
	if seen != 2 {
		t.Fatalf("the reader saw %d segments, want 2: it was too early or too late", seen)
	}
	if got := ids(span(t, s)); !slices.Equal(got, idsOf(segs[:1])) {
		t.Errorf("%d segments are shown, want the first alone", len(got))
	}
	wants, err := s.Wants([]Record{{Header: segs[1].Header}})
	if err != nil || len(wants) != 1 || wants[0].Local {
		t.Errorf("wanted: %+v, %v", wants, err)
	}
	if err := w.Append(segs[1]); err != nil {
		t.Fatal(err)
	}
	if got := ids(span(t, s)); !slices.Equal(got, []m4f.Identity{segs[0].Header.ID, segs[1].Header.ID}) {
		t.Errorf("%d segments are shown at last, want 2", len(got))
	}
}
