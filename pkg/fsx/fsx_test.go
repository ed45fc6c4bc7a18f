package fsx

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestPublishIsAllOrNothing stops Publish at each of its calls: the name holds
// the old bytes or the new ones, and nothing else lies about but temporary files.
func TestPublishIsAllOrNothing(t *testing.T) {
	for _, c := range []struct {
		name    string
		publish func(FS, string, []byte, fs.FileMode, Owner) error
		old     string
	}{{"replace", Publish, "old"}, {"new", PublishNew, ""}} {
		for n := 0; ; n++ {
			dir := t.TempDir()
			name := filepath.Join(dir, "file")
			if c.old != "" {
				if err := os.WriteFile(name, []byte(c.old), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			f := NewFaults(OS, func(o Op) error {
				if o.N != n {
					return nil
				}
				if o.Name == "write" {
					return &ShortWrite{N: 2}
				}
				return ErrCrashed
			})
			err := c.publish(f, name, []byte("fresh"), 0o640, OwnerOf(OS, dir))
			got, rerr := os.ReadFile(name)
			if f.Fired() == 0 {
				if err != nil || string(got) != "fresh" {
					t.Fatalf("%s: %q, %v, %v", c.name, got, err, rerr)
				}
				if n < 5 {
					t.Errorf("%s: %d calls only", c.name, n)
				}
				break
			}
			if err == nil {
				t.Errorf("%s, stopped at call %d: no error", c.name, n)
			}
			if s := string(got); s != c.old && s != "fresh" || rerr != nil && c.old != "" {
				t.Errorf("%s, stopped at call %d: %q, %v", c.name, n, got, rerr)
			}
			entries, _ := os.ReadDir(dir)
			for _, e := range entries {
				if e.Name() != "file" && !IsTemp(e.Name()) {
					t.Errorf("%s, stopped at call %d: %s lies about", c.name, n, e.Name())
				}
			}
			if c.old == "" && rerr == nil {
				continue // it was linked before it stopped
			}
			if err := c.publish(OS, name, []byte("again"), 0o640, Owner{}); err != nil {
				t.Errorf("%s after a stop at call %d: %v", c.name, n, err)
			}
		}
	}
}

func TestPublishNewKeepsWhatIsThere(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := PublishNew(OS, name, []byte("first"), 0o640, Owner{}); err != nil {
		t.Fatal(err)
	}
	if err := PublishNew(OS, name, []byte("second"), 0o640, Owner{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("%v", err)
	}
	if b, err := ReadFile(OS, name, 5); err != nil || string(b) != "first" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := ReadFile(OS, name, 4); !errors.Is(err, ErrTooLong) {
		t.Errorf("%v", err)
	}
	if l, _ := os.ReadDir(filepath.Dir(name)); len(l) != 1 {
		t.Errorf("%v", l)
	}
}

func TestWriteBuffers(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		bufs := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 100), 0, 8).Draw(rt, "buffers")
		if rapid.Bool().Draw(rt, "many") { // more than one system call takes
			for k := range 1100 {
				bufs = append(bufs, []byte{byte(k), byte(k >> 8)})
			}
		}
		name := filepath.Join(t.TempDir(), "file")
		f, err := OS.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_TRUNC, 0o600)
		if err != nil {
			rt.Fatal(err)
		}
		defer f.Close()
		want := bytes.Join(bufs, nil)
		n, err := f.WriteBuffers(bufs...)
		if err != nil || n != int64(len(want)) {
			rt.Fatalf("%d of %d, %v", n, len(want), err)
		}
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
			rt.Fatalf("%q, want %q, %v", got, want, err)
		}
	})
	f, err := Open(OS, os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteBuffers([]byte("x")); !errors.Is(err, syscall.EBADF) {
		t.Errorf("on a file open for reading: %v", err)
	}
}

func TestShortWriteAndErrors(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	f := NewFaults(OS, func(o Op) error {
		switch o.Name {
		case "write":
			return &ShortWrite{N: 5, Err: syscall.ENOSPC}
		case "datasync":
			return syscall.EIO
		}
		return nil
	})
	x, err := f.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := x.WriteBuffers([]byte("abc"), []byte("defg")); n != 5 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%d, %v", n, err)
	}
	if err := x.Datasync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("%v", err)
	}
	if err := x.Sync(); err != nil {
		t.Errorf("not stopped: %v", err)
	}
	if err := x.Close(); err != nil || f.Fired() != 2 {
		t.Errorf("%v, %d faults", err, f.Fired())
	}
	if b, _ := os.ReadFile(name); string(b) != "abcde" {
		t.Errorf("%q", b)
	}
}

func TestPunchHole(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, bytes.Repeat([]byte{1}, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := OS.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.PunchHole(4096, 1<<19); errors.Is(err, errors.ErrUnsupported) {
		t.Skip("1 test not run: the file system cannot free blocks inside a file")
	} else if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(name)
	if err != nil || len(b) != 1<<20 || b[4095] != 1 || b[4096] != 0 || b[4096+1<<19-1] != 0 || b[4096+1<<19] != 1 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestMkdirAll(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "a", "b", "c")
	for range 2 {
		if err := MkdirAll(OS, dir, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := os.Stat(filepath.Join(root, "a", "b")); err != nil || st.Mode().Perm() != 0o750 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	file := filepath.Join(root, "file")
	os.WriteFile(file, nil, 0o600)
	if err := MkdirAll(OS, file, 0o750); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("%v", err)
	}
}

func TestMounted(t *testing.T) {
	mp, err := MountPoint("/proc/self")
	if err != nil || mp != "/proc" {
		t.Errorf("%s, %v", mp, err)
	}
	if err := CheckMounted("/proc/self/nothing/there"); err != nil {
		t.Errorf("a path below a mount point that does not exist yet: %v", err)
	}
	var not *NotMountedError
	if err := CheckMounted("/storage-that-is-not-there/x"); !errors.As(err, &not) {
		t.Errorf("%v", err)
	}
}
