package fsx

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Volatile is a directory of the operating system's on a machine whose power may
// be cut at any moment. It works as OS does below that directory, and remembers
// what the disk is sure to hold: what was synced. Cut then leaves in another
// directory what may be left after a power cut, chosen at random:
//
//   - of a file, each page (4096 bytes) that was written since the file was synced
//     is as it was, as it is, or zeros where the file was shorter then; the file's
//     size is what it was, what it is, or between;
//   - of a directory, each name that was made, replaced or removed since SyncDir is
//     as it was or as it is, whether what it names was synced or not.
//
// That is what POSIX allows, and more than most file systems do: they keep the
// order of some of it.
type Volatile struct {
	root string

	mu    sync.Mutex
	dirs  map[string]map[string]*inode // durable entries of each durable directory, by path below root
	live  map[string]*inode            // what a path names now
	power bool
	calls int
	limit int // cut the power before this call; -1: never
}

// inode is a file or a directory, whatever its names.
type inode struct {
	dir    bool
	path   string // one of its names, while it has one
	synced []byte // content that is durable
	gone   []byte // content when its last name was removed
	unname bool
}

const volatilePage = 4096

// NewVolatile begins with everything below root durable. It makes root's
// content the disk's.
func NewVolatile(root string) (*Volatile, error) {
	v := &Volatile{root: filepath.Clean(root), dirs: map[string]map[string]*inode{}, live: map[string]*inode{}, power: true, limit: -1}
	err := filepath.WalkDir(v.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		n := &inode{dir: d.IsDir(), path: path}
		if d.IsDir() {
			v.dirs[path] = map[string]*inode{}
		} else if n.synced, err = os.ReadFile(path); err != nil {
			return err
		}
		v.live[path] = n
		if path != v.root {
			v.dirs[filepath.Dir(path)][filepath.Base(path)] = n
		}
		return nil
	})
	return v, err
}

// CutBefore cuts the power before the n-th call from now on, 0 being the next.
// From then on every call fails with ErrCrashed.
func (v *Volatile) CutBefore(n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.limit = v.calls + n
}

// IsCut says whether the power has been cut.
func (v *Volatile) IsCut() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return !v.power
}

// call begins a call; the lock is held when it returns nil.
func (v *Volatile) call(op, path string) error {
	v.mu.Lock()
	if v.power && v.limit >= 0 && v.calls >= v.limit {
		v.power = false
	}
	v.calls++
	if !v.power {
		v.mu.Unlock()
		return &fs.PathError{Op: op, Path: path, Err: ErrCrashed}
	}
	return nil
}

// Cut cuts the power and writes what is left to a new directory. pick returns a
// number from 0 to n-1; equal picks leave equal files.
func (v *Volatile) Cut(to string, pick func(n int) int) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.power = false
	return v.leave(v.root, to, pick)
}

func (v *Volatile) leave(dir, to string, pick func(int) int) error {
	if err := os.MkdirAll(to, 0o750); err != nil {
		return err
	}
	now := map[string]*inode{}
	for path, n := range v.live {
		if path != v.root && filepath.Dir(path) == dir {
			now[filepath.Base(path)] = n
		}
	}
	was := v.dirs[dir]
	names := slices.Sorted(maps.Keys(now))
	for name := range was {
		if now[name] == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		n := now[name]
		if was[name] != n && pick(2) == 0 {
			n = was[name]
		}
		if n == nil {
			continue
		}
		path := filepath.Join(to, name)
		if n.dir {
			if err := v.leave(filepath.Join(dir, name), path, pick); err != nil {
				return err
			}
			continue
		}
		b, err := v.content(n)
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, torn(n.synced, b, pick), 0o640); err != nil {
			return err
		}
	}
	return nil
}

// content is what a file holds now.
func (v *Volatile) content(n *inode) ([]byte, error) {
	if n.unname {
		return n.gone, nil
	}
	return os.ReadFile(n.path)
}

// torn is a file of which some pages were not written.
func torn(was, is []byte, pick func(int) int) []byte {
	if bytes.Equal(was, is) {
		return was
	}
	size := len(is)
	switch pick(3) {
	case 0:
		size = len(was)
	case 1:
		lo, hi := min(len(was), len(is)), max(len(was), len(is))
		size = lo + pick(hi-lo+1)
	}
	out := make([]byte, size)
	for at := 0; at < size; at += volatilePage {
		end := min(at+volatilePage, size)
		a, b := page(was, at, end), page(is, at, end)
		src := b
		if !bytes.Equal(a, b) && pick(2) == 0 {
			src = a // zeros, where the file was shorter
		}
		copy(out[at:end], src)
	}
	return out
}

// page is b[at:end], as far as b goes.
func page(b []byte, at, end int) []byte {
	at, end = min(at, len(b)), min(end, len(b))
	return b[at:end]
}

// OpenFile implements FS.
func (v *Volatile) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	name = filepath.Clean(name)
	if err := v.call("open", name); err != nil {
		return nil, err
	}
	defer v.mu.Unlock()
	f, err := OS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	n := v.live[name]
	if n == nil {
		n = &inode{path: name}
		v.live[name] = n
	}
	return &volatileFile{File: f, v: v, n: n}, nil
}

// Mkdir implements FS.
func (v *Volatile) Mkdir(name string, perm fs.FileMode) error {
	name = filepath.Clean(name)
	if err := v.call("mkdir", name); err != nil {
		return err
	}
	defer v.mu.Unlock()
	if err := OS.Mkdir(name, perm); err != nil {
		return err
	}
	v.live[name] = &inode{dir: true, path: name}
	v.dirs[name] = map[string]*inode{}
	return nil
}

// unnamed keeps the content of a file that is about to lose a name.
func (v *Volatile) unnamed(name string) {
	n := v.live[name]
	if n == nil || n.dir {
		return
	}
	for path, other := range v.live {
		if other == n && path != name {
			n.path = path
			return
		}
	}
	n.gone, _ = os.ReadFile(name)
	n.unname = true
}

// Remove implements FS.
func (v *Volatile) Remove(name string) error {
	name = filepath.Clean(name)
	if err := v.call("remove", name); err != nil {
		return err
	}
	defer v.mu.Unlock()
	v.unnamed(name)
	if err := OS.Remove(name); err != nil {
		if n := v.live[name]; n != nil && !n.dir {
			n.unname = false
		}
		return err
	}
	delete(v.live, name)
	return nil
}

// Rename implements FS, for files.
func (v *Volatile) Rename(oldname, newname string) error {
	oldname, newname = filepath.Clean(oldname), filepath.Clean(newname)
	if err := v.call("rename", newname); err != nil {
		return err
	}
	defer v.mu.Unlock()
	n := v.live[oldname]
	if n == nil || n.dir {
		return &fs.PathError{Op: "rename", Path: oldname, Err: errors.ErrUnsupported}
	}
	v.unnamed(newname)
	if err := OS.Rename(oldname, newname); err != nil {
		return err
	}
	delete(v.live, oldname)
	v.live[newname], n.path = n, newname
	return nil
}

// Link implements FS.
func (v *Volatile) Link(oldname, newname string) error {
	oldname, newname = filepath.Clean(oldname), filepath.Clean(newname)
	if err := v.call("link", newname); err != nil {
		return err
	}
	defer v.mu.Unlock()
	if err := OS.Link(oldname, newname); err != nil {
		return err
	}
	v.live[newname] = v.live[oldname]
	return nil
}

// ReadDir implements FS.
func (v *Volatile) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := v.call("readdir", name); err != nil {
		return nil, err
	}
	defer v.mu.Unlock()
	return OS.ReadDir(name)
}

// Stat implements FS.
func (v *Volatile) Stat(name string) (fs.FileInfo, error) {
	if err := v.call("stat", name); err != nil {
		return nil, err
	}
	defer v.mu.Unlock()
	return OS.Stat(name)
}

// Chown implements FS; it changes nothing.
func (v *Volatile) Chown(name string, uid, gid int) error { return nil }

// SyncDir implements FS.
func (v *Volatile) SyncDir(name string) error {
	name = filepath.Clean(name)
	if err := v.call("syncdir", name); err != nil {
		return err
	}
	defer v.mu.Unlock()
	if v.live[name] == nil && !strings.HasPrefix(v.root, name) {
		return &fs.PathError{Op: "syncdir", Path: name, Err: fs.ErrNotExist}
	}
	entries := map[string]*inode{}
	for path, n := range v.live {
		if path != v.root && filepath.Dir(path) == name {
			entries[filepath.Base(path)] = n
		}
	}
	v.dirs[name] = entries
	return nil
}

type volatileFile struct {
	File
	v *Volatile
	n *inode
}

// do runs a call on an open file while the power is on.
func (f *volatileFile) do(op string, call func() error) error {
	if err := f.v.call(op, f.Name()); err != nil {
		return err
	}
	defer f.v.mu.Unlock()
	return call()
}

func (f *volatileFile) Read(p []byte) (n int, err error) {
	err = f.do("read", func() error { n, err = f.File.Read(p); return err })
	return n, err
}

func (f *volatileFile) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.do("read", func() error { n, err = f.File.ReadAt(p, off); return err })
	return n, err
}

func (f *volatileFile) Write(p []byte) (n int, err error) {
	err = f.do("write", func() error { n, err = f.File.Write(p); return err })
	return n, err
}

func (f *volatileFile) WriteAt(p []byte, off int64) (n int, err error) {
	err = f.do("write", func() error { n, err = f.File.WriteAt(p, off); return err })
	return n, err
}

func (f *volatileFile) WriteBuffers(bufs ...[]byte) (n int64, err error) {
	err = f.do("write", func() error { n, err = f.File.WriteBuffers(bufs...); return err })
	return n, err
}

func (f *volatileFile) Truncate(size int64) error {
	return f.do("truncate", func() error { return f.File.Truncate(size) })
}

func (f *volatileFile) PunchHole(off, length int64) error {
	return f.do("punch", func() error { return f.File.PunchHole(off, length) })
}

func (f *volatileFile) Sync() error {
	return f.do("sync", func() (err error) {
		if !f.n.unname {
			f.n.synced, err = os.ReadFile(f.n.path)
		}
		return err
	})
}

func (f *volatileFile) Datasync() error { return f.Sync() }

// Close always closes: a test must not leak descriptors.
func (f *volatileFile) Close() error {
	err := f.File.Close()
	if cerr := f.do("close", func() error { return nil }); cerr != nil {
		return cerr
	}
	return err
}
