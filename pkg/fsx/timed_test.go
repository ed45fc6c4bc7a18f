package fsx

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestTimed(t *testing.T) {
	var writes, syncs int
	f := Timed(OS, Timings{Write: func(time.Duration) { writes++ }, Sync: func(time.Duration) { syncs++ }})
	dir := t.TempDir()
	name := filepath.Join(dir, "x")
	w, err := f.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	for _, do := range []func() error{
		func() error { _, err := w.Write([]byte("a")); return err },
		func() error { _, err := w.WriteBuffers([]byte("b"), []byte("c")); return err },
		func() error { _, err := w.WriteAt([]byte("d"), 0); return err },
		w.Sync, w.Datasync, w.Close,
		func() error { return f.SyncDir(dir) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	if writes != 3 || syncs != 3 {
		t.Errorf("%d writes and %d syncs are measured, want 3 and 3", writes, syncs)
	}
	r, err := Open(f, name)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, measured := r.(*timedFile); measured || r.OS() == nil {
		t.Error("what is only read is measured")
	}
	if b, err := ReadFile(f, name, 10); string(b) != "dbc" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}
