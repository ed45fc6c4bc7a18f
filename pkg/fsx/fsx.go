// Package fsx is the file system as the rest of twindvr sees it: a small
// interface over the operating system's calls, a durable publish, and an
// implementation that injects faults, so that every step of a write can be
// made to fail or to be the last one.
package fsx

import (
	"bytes"
	"io"
	"io/fs"
	"os"
)

// FS is a file system. Names are operating system paths. Errors are those of
// package os; callers test them with errors.Is.
type FS interface {
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	Mkdir(name string, perm fs.FileMode) error
	Remove(name string) error
	Rename(oldname, newname string) error
	// Link makes newname another name of oldname; it fails with fs.ErrExist
	// where newname exists, which makes it the atomic "publish if absent".
	Link(oldname, newname string) error
	ReadDir(name string) ([]fs.DirEntry, error)
	Stat(name string) (fs.FileInfo, error)
	Chown(name string, uid, gid int) error
	// SyncDir makes the entries of a directory durable.
	SyncDir(name string) error
}

// File is an open file.
type File interface {
	io.Reader
	io.ReaderAt
	io.Writer
	io.WriterAt
	io.Closer
	Name() string
	Stat() (fs.FileInfo, error)
	Truncate(size int64) error
	Chown(uid, gid int) error
	// WriteBuffers appends the buffers in order, in one call of the operating
	// system where that is possible. It returns the bytes written.
	WriteBuffers(bufs ...[]byte) (int64, error)
	// Sync makes data and metadata durable, Datasync the data and what is
	// needed to read it (fdatasync).
	Sync() error
	Datasync() error
	// PunchHole frees the blocks of a range; the range then reads as zeros and
	// the file's size stays. Not every file system can: errors.ErrUnsupported.
	PunchHole(off, length int64) error
	// OS is the operating system's file, for sendfile.
	OS() *os.File
}

// Open opens a file for reading.
func Open(fsys FS, name string) (File, error) { return fsys.OpenFile(name, os.O_RDONLY, 0) }

// ReadFile reads a file of at most limit bytes; a longer one is an error.
func ReadFile(fsys FS, name string, limit int64) ([]byte, error) {
	var b bytes.Buffer
	err := ReadInto(&b, fsys, name, limit)
	if err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// ReadInto is ReadFile that replaces what is in a buffer.
func ReadInto(b *bytes.Buffer, fsys FS, name string, limit int64) error {
	f, err := Open(fsys, name)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	// As much as it has now, and what it grows by meanwhile.
	b.Reset()
	b.Grow(int(min(st.Size(), limit)) + bytes.MinRead)
	n, err := b.ReadFrom(io.LimitReader(f, limit+1))
	if err != nil {
		return err
	}
	if n > limit {
		return &fs.PathError{Op: "read", Path: name, Err: ErrTooLong}
	}
	return nil
}
