package fsx

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ErrTooLong is returned by ReadFile.
var ErrTooLong = errors.New("file is longer than it may be")

// OS is the operating system's file system.
var OS FS = osFS{}

type osFS struct{}

func (osFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Mkdir(name string, perm fs.FileMode) error  { return os.Mkdir(name, perm) }
func (osFS) Remove(name string) error                   { return os.Remove(name) }
func (osFS) Rename(oldname, newname string) error       { return os.Rename(oldname, newname) }
func (osFS) Link(oldname, newname string) error         { return os.Link(oldname, newname) }
func (osFS) ReadDir(name string) ([]fs.DirEntry, error) { return os.ReadDir(name) }
func (osFS) Stat(name string) (fs.FileInfo, error)      { return os.Stat(name) }
func (osFS) Chown(name string, uid, gid int) error      { return os.Chown(name, uid, gid) }

func (osFS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	// Some network file systems cannot sync a directory; there is nothing to do.
	if errors.Is(err, unix.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return err
}

type osFile struct{ *os.File }

func (f osFile) OS() *os.File { return f.File }

func (f osFile) Datasync() error {
	return f.control("fdatasync", func(fd int) error { return unix.Fdatasync(fd) })
}

func (f osFile) PunchHole(off, length int64) error {
	err := f.control("fallocate", func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length)
	})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	return err
}

// DropCache has the operating system forget what it holds of a range of a file,
// so that the next read is of the disk, and memory is left to other uses. What is
// not written back yet stays. Nothing happens where that cannot be done.
func DropCache(f File, off, length int64) {
	x := osFile{f.OS()}
	if x.File == nil {
		return
	}
	_ = x.control("fadvise", func(fd int) error { return unix.Fadvise(fd, off, length, unix.FADV_DONTNEED) })
}

// maxBuffers is how many pieces of memory one writev takes (IOV_MAX of limits.h).
const maxBuffers = 1024

func (f osFile) WriteBuffers(bufs ...[]byte) (int64, error) {
	left := make([][]byte, 0, len(bufs))
	for _, b := range bufs {
		if len(b) > 0 {
			left = append(left, b)
		}
	}
	var total int64
	for len(left) > 0 {
		var n int
		err := f.control("writev", func(fd int) (err error) {
			n, err = unix.Writev(fd, left[:min(len(left), maxBuffers)])
			return err
		})
		if err != nil {
			return total, err
		}
		if n <= 0 {
			return total, &fs.PathError{Op: "writev", Path: f.Name(), Err: io.ErrShortWrite}
		}
		total += int64(n)
		for n > 0 && len(left) > 0 {
			k := min(n, len(left[0]))
			left[0] = left[0][k:]
			n -= k
			if len(left[0]) == 0 {
				left = left[1:]
			}
		}
	}
	return total, nil
}

// control runs a system call on the descriptor, again after EINTR.
func (f osFile) control(op string, call func(fd int) error) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var callErr error
	err = c.Control(func(fd uintptr) {
		for {
			if callErr = call(int(fd)); !errors.Is(callErr, unix.EINTR) {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	if callErr != nil {
		return &fs.PathError{Op: op, Path: f.Name(), Err: callErr}
	}
	return nil
}
