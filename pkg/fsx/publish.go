package fsx

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const tempPrefix = ".tmp-"

// IsTemp says whether a name is that of a file which Publish has not published
// yet, or was stopped before doing so. Readers leave such files out.
func IsTemp(name string) bool { return strings.HasPrefix(filepath.Base(name), tempPrefix) }

// Publish writes a whole file durably, replacing one of that name: temporary
// name, write, size check, sync, rename, sync of the directory. Whoever reads
// the name sees the old bytes or the new ones.
func Publish(fsys FS, name string, data []byte, perm fs.FileMode, own Owner) error {
	return publish(fsys, name, data, perm, own, fsys.Rename)
}

// PublishNew is Publish for a name that must not exist yet: it fails with
// fs.ErrExist, and changes nothing, where it does.
func PublishNew(fsys FS, name string, data []byte, perm fs.FileMode, own Owner) error {
	return publish(fsys, name, data, perm, own, func(tmp, name string) error {
		err := fsys.Link(tmp, name)
		if rerr := fsys.Remove(tmp); err == nil && rerr != nil {
			return rerr
		}
		return err
	})
}

func publish(fsys FS, name string, data []byte, perm fs.FileMode, own Owner, put func(tmp, name string) error) error {
	dir := filepath.Dir(name)
	tmp := filepath.Join(dir, tempPrefix+filepath.Base(name)+"-"+randomHex())
	if err := writeWhole(fsys, tmp, data, perm, own); err != nil {
		fsys.Remove(tmp)
		return err
	}
	if err := put(tmp, name); err != nil {
		fsys.Remove(tmp)
		return err
	}
	return fsys.SyncDir(dir)
}

func writeWhole(fsys FS, name string, data []byte, perm fs.FileMode, own Owner) error {
	f, err := fsys.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	own.Give(f)
	_, err = f.Write(data)
	if err == nil {
		var st fs.FileInfo
		if st, err = f.Stat(); err == nil && st.Size() != int64(len(data)) {
			err = fmt.Errorf("%s: %d bytes written, %d in the file", name, len(data), st.Size())
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func randomHex() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// Owner says to whom new files and directories go. The zero Owner leaves them
// with the process.
type Owner struct {
	UID, GID int
	set      bool
}

// OwnerOf is the owner of an existing file or directory.
func OwnerOf(fsys FS, name string) Owner {
	st, err := fsys.Stat(name)
	if err != nil {
		return Owner{}
	}
	return ownerOf(st)
}

// Give hands a new file to the owner. Only root may, and only root needs to;
// the attempt failing changes nothing for whoever may read the directory.
func (o Owner) Give(f File) {
	if o.set && os.Geteuid() == 0 {
		f.Chown(o.UID, o.GID)
	}
}

// OpenNew makes a file that must not exist (O_EXCL) and hands it to the owner.
func OpenNew(fsys FS, name string, flag int, perm fs.FileMode, own Owner) (File, error) {
	f, err := fsys.OpenFile(name, flag|os.O_CREATE|os.O_EXCL, perm)
	if err == nil {
		own.Give(f)
	}
	return f, err
}

// MkdirAll makes a directory and the missing ones above it, each owned like
// the directory that it is made in, and makes the new entries durable. Another
// process may be making the same ones.
func MkdirAll(fsys FS, name string, perm fs.FileMode) error {
	st, err := fsys.Stat(name)
	if err == nil {
		if !st.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: name, Err: errNotDir}
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(name)
	if parent == name {
		return err
	}
	if err := MkdirAll(fsys, parent, perm); err != nil {
		return err
	}
	if err := fsys.Mkdir(name, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if own := OwnerOf(fsys, parent); own.set && os.Geteuid() == 0 {
		fsys.Chown(name, own.UID, own.GID)
	}
	return fsys.SyncDir(parent)
}
