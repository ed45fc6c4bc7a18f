package fsx

import (
	"io/fs"
	"os"
	"time"
)

// Timings take how long calls to a file system took.
type Timings struct {
	Write func(time.Duration) // of data to a file
	Sync  func(time.Duration) // fsync and fdatasync, of files and directories
}

// Timed is a file system whose writes and syncs are measured. Files that are opened
// for reading alone are those of fsys.
func Timed(fsys FS, t Timings) FS { return &timedFS{fsys, t} }

type timedFS struct {
	FS
	t Timings
}

func (f *timedFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	file, err := f.FS.OpenFile(name, flag, perm)
	if err != nil || flag&(os.O_WRONLY|os.O_RDWR) == 0 {
		return file, err
	}
	return &timedFile{file, &f.t}, nil
}

func (f *timedFS) SyncDir(name string) error {
	defer since(f.t.Sync, time.Now())
	return f.FS.SyncDir(name)
}

// since tells how long something took that began at a time.
func since(tell func(time.Duration), began time.Time) { tell(time.Since(began)) }

type timedFile struct {
	File
	t *Timings
}

func (f *timedFile) Write(b []byte) (int, error) {
	defer since(f.t.Write, time.Now())
	return f.File.Write(b)
}

func (f *timedFile) WriteAt(b []byte, off int64) (int, error) {
	defer since(f.t.Write, time.Now())
	return f.File.WriteAt(b, off)
}

func (f *timedFile) WriteBuffers(bufs ...[]byte) (int64, error) {
	defer since(f.t.Write, time.Now())
	return f.File.WriteBuffers(bufs...)
}

func (f *timedFile) Sync() error {
	defer since(f.t.Sync, time.Now())
	return f.File.Sync()
}

func (f *timedFile) Datasync() error {
	defer since(f.t.Sync, time.Now())
	return f.File.Datasync()
}
