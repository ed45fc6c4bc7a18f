package fsx

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

// TestVolatileKeepsWhatIsSynced publishes and appends at random and cuts the
// power: what was published and synced is there, what was not is old, new, torn
// or gone, and never anything else.
func TestVolatileKeepsWhatIsSynced(t *testing.T) {
	lost, kept := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		root := t.TempDir()
		v, err := NewVolatile(root)
		if err != nil {
			rt.Fatal(err)
		}
		dir := filepath.Join(root, "a", "b")
		if err := MkdirAll(v, dir, 0o750); err != nil {
			rt.Fatal(err)
		}
		var published, tried []byte
		f, err := OpenNew(v, filepath.Join(dir, "log"), os.O_WRONLY|os.O_APPEND, 0o640, Owner{})
		if err != nil {
			rt.Fatal(err)
		}
		defer f.Close()
		var log []byte
		synced, named := 0, false
		v.CutBefore(rapid.IntRange(0, 60).Draw(rt, "cut"))
		for i := 0; !v.IsCut() && i < 40; i++ {
			switch rapid.IntRange(0, 3).Draw(rt, "op") {
			case 0:
				tried = bytes.Repeat([]byte{byte(i + 1)}, 10+i)
				if Publish(v, filepath.Join(dir, "published"), tried, 0o640, Owner{}) == nil {
					published = tried
				}
			case 1:
				b := bytes.Repeat([]byte{byte(i + 1)}, rapid.IntRange(1, 6000).Draw(rt, "bytes"))
				if _, err := f.Write(b); err == nil {
					log = append(log, b...)
				}
			case 2:
				if f.Datasync() == nil {
					synced = len(log)
				}
			case 3:
				if v.SyncDir(dir) == nil {
					named = true
				}
			}
		}
		left := filepath.Join(t.TempDir(), "left")
		pick := rapid.Custom(func(t *rapid.T) int { return rapid.IntRange(0, 1<<20).Draw(t, "pick") })
		if err := v.Cut(left, func(n int) int { return pick.Draw(rt, "pick") % n }); err != nil {
			rt.Fatal(err)
		}
		if _, err := v.Stat(root); !errors.Is(err, ErrCrashed) {
			rt.Errorf("it works without power: %v", err)
		}
		got, err := os.ReadFile(filepath.Join(left, "a", "b", "published"))
		if published != nil && err != nil || err == nil && !bytes.Equal(got, published) && !bytes.Equal(got, tried) {
			rt.Errorf("published: %d bytes, %v", len(got), err)
		}
		got, err = os.ReadFile(filepath.Join(left, "a", "b", "log"))
		switch {
		case err != nil && named:
			rt.Errorf("log: %v", err)
		case err == nil && len(got) < synced || len(got) > len(log):
			rt.Errorf("log: %d bytes, %d synced, %d written", len(got), synced, len(log))
		case err == nil && !bytes.Equal(got[:synced], log[:synced]):
			rt.Errorf("log: what was synced is other bytes")
		}
		if bytes.Equal(got, log) {
			kept++
		} else {
			lost++
		}
	})
	if lost == 0 || kept == 0 {
		t.Errorf("%d lost something, %d nothing", lost, kept)
	}
}
