package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// errSkip is why a scenario cannot run on this machine.
type errSkip struct{ why error }

func (e *errSkip) Error() string { return "it cannot run here: " + e.why.Error() }

// volume is a file system of a node's own, in memory.
type volume struct {
	dir string
	end chan struct{} // closed to let it be filled no more; nil: it is not
	out chan error
}

func newVolume(dir string, size int64) (*volume, error) {
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0755", size))
	if err != nil {
		return nil, &errSkip{fmt.Errorf("mounting a volume: %w", err)}
	}
	return &volume{dir: dir}, nil
}

// fill takes all space that is or becomes free, until free is called.
func (v *volume) fill() {
	v.end, v.out = make(chan struct{}), make(chan error, 1)
	go func() {
		f, err := os.Create(v.file())
		if err != nil {
			v.out <- err
			return
		}
		defer f.Close()
		full := 0
		for block := make([]byte, 1<<20); ; {
			n, err := f.Write(block)
			if err == nil {
				continue
			}
			if !errors.Is(err, unix.ENOSPC) {
				v.out <- err
				return
			}
			if n == 0 && len(block) > 4096 {
				block = block[:4096]
				continue
			}
			full++
			select {
			case <-v.end:
				v.out <- nil
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
}

// free gives the space back.
func (v *volume) free() error {
	close(v.end)
	err := <-v.out
	v.end = nil
	return errors.Join(err, os.Remove(v.file()))
}

func (v *volume) file() string { return filepath.Join(v.dir, "filler") }

// close takes the volume away; what is on it is kept in the directory below if
// it is to be looked at.
func (v *volume) close(keep bool) {
	if v.end != nil {
		v.free()
	}
	aside := v.dir + "-kept"
	if keep {
		os.CopyFS(aside, os.DirFS(v.dir))
	}
	for range 50 { // the last of a process may still be going
		if unix.Unmount(v.dir, 0) == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if keep {
		os.Remove(v.dir)
		os.Rename(aside, v.dir)
	}
}
