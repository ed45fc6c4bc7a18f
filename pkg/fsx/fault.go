package fsx

import (
	"errors"
	"io/fs"
	"os"
	"sync"
)

// Op is one call on a file system, as a fault hook sees it before it happens.
type Op struct {
	N    int    // number of the call, from 0
	Name string // open, create, mkdir, remove, rename, link, readdir, stat, chown, syncdir, read, write, truncate, sync, datasync, punch, close
	Path string // what it is done to
	Size int64  // bytes, of a write
}

// ErrCrashed is what every call returns after a hook has stopped the process
// that the test plays.
var ErrCrashed = errors.New("stopped by the test")

// ShortWrite is returned by a hook to let a write go as far as N bytes and
// then fail with Err. With Err nil it fails with ErrCrashed and so does every
// later call: the process was killed in the middle of the write.
type ShortWrite struct {
	N   int64
	Err error
}

func (e *ShortWrite) Error() string { return "short write injected" }

// Stall is returned by a hook to let the call wait until the channel is closed, and
// then happen: a slow disk.
type Stall struct{ Until <-chan struct{} }

func (e *Stall) Error() string { return "stall injected" }

// Faults is a file system that asks a hook before each call. A nil answer lets
// the call happen; ErrCrashed makes it and every later one fail without an
// effect; any other error is returned instead of the call's.
type Faults struct {
	fs   FS
	hook func(Op) error

	mu      sync.Mutex
	n       int
	crashed bool
	fired   int
}

// NewFaults wraps a file system.
func NewFaults(fsys FS, hook func(Op) error) *Faults { return &Faults{fs: fsys, hook: hook} }

// Fired is how many faults were injected; a test that injects faults asserts
// that they happened.
func (f *Faults) Fired() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fired
}

// Ops is how many calls were made.
func (f *Faults) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

func (f *Faults) ask(name, path string, size int64) error {
	err := f.askHook(name, path, size)
	if stall := (*Stall)(nil); errors.As(err, &stall) {
		<-stall.Until
		return nil
	}
	return err
}

func (f *Faults) askHook(name, path string, size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.crashed {
		return &fs.PathError{Op: name, Path: path, Err: ErrCrashed}
	}
	err := f.hook(Op{N: f.n, Name: name, Path: path, Size: size})
	f.n++
	if err == nil {
		return nil
	}
	f.fired++
	if stall := (*Stall)(nil); errors.As(err, &stall) {
		return err
	}
	if short := (*ShortWrite)(nil); errors.As(err, &short) {
		f.crashed = f.crashed || short.Err == nil
		return err
	}
	f.crashed = f.crashed || errors.Is(err, ErrCrashed)
	return &fs.PathError{Op: name, Path: path, Err: err}
}

// OpenFile implements FS.
func (f *Faults) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	op := "open"
	if flag&os.O_CREATE != 0 {
		op = "create"
	}
	if err := f.ask(op, name, 0); err != nil {
		return nil, err
	}
	file, err := f.fs.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &faultFile{File: file, f: f}, nil
}

// Mkdir implements FS.
func (f *Faults) Mkdir(name string, perm fs.FileMode) error {
	if err := f.ask("mkdir", name, 0); err != nil {
		return err
	}
	return f.fs.Mkdir(name, perm)
}

// Remove implements FS.
func (f *Faults) Remove(name string) error {
	if err := f.ask("remove", name, 0); err != nil {
		return err
	}
	return f.fs.Remove(name)
}

// Rename implements FS.
func (f *Faults) Rename(oldname, newname string) error {
	if err := f.ask("rename", newname, 0); err != nil {
		return err
	}
	return f.fs.Rename(oldname, newname)
}

// Link implements FS.
func (f *Faults) Link(oldname, newname string) error {
	if err := f.ask("link", newname, 0); err != nil {
		return err
	}
	return f.fs.Link(oldname, newname)
}

// ReadDir implements FS.
func (f *Faults) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := f.ask("readdir", name, 0); err != nil {
		return nil, err
	}
	return f.fs.ReadDir(name)
}

// Stat implements FS.
func (f *Faults) Stat(name string) (fs.FileInfo, error) {
	if err := f.ask("stat", name, 0); err != nil {
		return nil, err
	}
	return f.fs.Stat(name)
}

// Chown implements FS.
func (f *Faults) Chown(name string, uid, gid int) error {
	if err := f.ask("chown", name, 0); err != nil {
		return err
	}
	return f.fs.Chown(name, uid, gid)
}

// SyncDir implements FS.
func (f *Faults) SyncDir(name string) error {
	if err := f.ask("syncdir", name, 0); err != nil {
		return err
	}
	return f.fs.SyncDir(name)
}

type faultFile struct {
	File
	f *Faults
}

func (x *faultFile) Read(p []byte) (int, error) {
	if err := x.f.ask("read", x.Name(), int64(len(p))); err != nil {
		return 0, err
	}
	return x.File.Read(p)
}

func (x *faultFile) ReadAt(p []byte, off int64) (int, error) {
	if err := x.f.ask("read", x.Name(), int64(len(p))); err != nil {
		return 0, err
	}
	return x.File.ReadAt(p, off)
}

func (x *faultFile) Write(p []byte) (int, error) {
	n, err := x.WriteBuffers(p)
	return int(n), err
}

func (x *faultFile) WriteAt(p []byte, off int64) (int, error) {
	if err := x.f.ask("write", x.Name(), int64(len(p))); err != nil {
		return 0, err
	}
	return x.File.WriteAt(p, off)
}

func (x *faultFile) WriteBuffers(bufs ...[]byte) (int64, error) {
	var size int64
	for _, b := range bufs {
		size += int64(len(b))
	}
	err := x.f.ask("write", x.Name(), size)
	short := (*ShortWrite)(nil)
	if !errors.As(err, &short) {
		if err != nil {
			return 0, err
		}
		return x.File.WriteBuffers(bufs...)
	}
	var part [][]byte
	for left := short.N; left > 0 && len(bufs) > 0; bufs = bufs[1:] {
		k := min(left, int64(len(bufs[0])))
		part = append(part, bufs[0][:k])
		left -= k
	}
	n, err := x.File.WriteBuffers(part...)
	if err != nil {
		return n, err
	}
	if short.Err == nil {
		return n, &fs.PathError{Op: "write", Path: x.Name(), Err: ErrCrashed}
	}
	return n, &fs.PathError{Op: "write", Path: x.Name(), Err: short.Err}
}

func (x *faultFile) Truncate(size int64) error {
	if err := x.f.ask("truncate", x.Name(), 0); err != nil {
		return err
	}
	return x.File.Truncate(size)
}

func (x *faultFile) Sync() error {
	if err := x.f.ask("sync", x.Name(), 0); err != nil {
		return err
	}
	return x.File.Sync()
}

func (x *faultFile) Datasync() error {
	if err := x.f.ask("datasync", x.Name(), 0); err != nil {
		return err
	}
	return x.File.Datasync()
}

func (x *faultFile) PunchHole(off, length int64) error {
	if err := x.f.ask("punch", x.Name(), length); err != nil {
		return err
	}
	return x.File.PunchHole(off, length)
}

// Close always closes: a test must not leak descriptors. The fault is what it
// returns.
func (x *faultFile) Close() error {
	err := x.File.Close()
	if ferr := x.f.ask("close", x.Name(), 0); ferr != nil {
		return ferr
	}
	return err
}
