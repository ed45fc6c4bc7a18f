package fsx

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

var errNotDir = errors.New("exists and is not a directory")

func ownerOf(st fs.FileInfo) Owner {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return Owner{}
	}
	return Owner{UID: int(sys.Uid), GID: int(sys.Gid), set: true}
}

// MountPoint returns the directory at which the volume that holds path is
// mounted. Path need not exist; its nearest existing ancestor decides.
func MountPoint(path string) (string, error) {
	dir, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	var st os.FileInfo
	for {
		if st, err = os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) || dir == "/" {
			break
		}
		dir = filepath.Dir(dir)
	}
	if err != nil {
		return "", err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", err
	}
	dev := st.Sys().(*syscall.Stat_t).Dev
	for dir != "/" {
		up := filepath.Dir(dir)
		st, err := os.Stat(up)
		if err != nil {
			return "", err
		}
		if st.Sys().(*syscall.Stat_t).Dev != dev {
			return dir, nil
		}
		dir = up
	}
	return dir, nil
}

// CheckMounted refuses a path that lies on the root volume: the disk that
// should be there is not mounted, and writing would fill the system's own.
func CheckMounted(path string) error {
	mp, err := MountPoint(path)
	if err != nil {
		return err
	}
	if mp == "/" {
		return &NotMountedError{Path: path}
	}
	return nil
}

// NotMountedError says that a path is on the root volume.
type NotMountedError struct{ Path string }

func (e *NotMountedError) Error() string {
	return fmt.Sprintf("%s lies on the root volume, not on one of its own: mount its disk, or leave out \"mounted\"", e.Path)
}
