package archive

import (
	"io/fs"
	"syscall"

	"golang.org/x/sys/unix"
)

// Usage is how full a volume is, in bytes.
type Usage struct {
	Total int64
	Used  int64
	Free  int64 // that this process may use
	// Device tells volumes apart.
	Device uint64
}

// Percent is how much of what can be used is, as df says it.
func (u Usage) Percent() float64 {
	if u.Used+u.Free <= 0 {
		return 0
	}
	return float64(u.Used) * 100 / float64(u.Used+u.Free)
}

// UsageOf returns how full the volume is on which a directory lies.
func UsageOf(dir string) (Usage, error) {
	fail := func(op string, err error) (Usage, error) {
		return Usage{}, &fs.PathError{Op: op, Path: dir, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fail("stat", err)
	}
	var v unix.Statfs_t
	for {
		err := unix.Statfs(dir, &v)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return fail("statfs", err)
		}
	}
	unit := int64(v.Frsize)
	if unit <= 0 {
		unit = int64(v.Bsize)
	}
	return Usage{
		Total: int64(v.Blocks) * unit, Used: int64(v.Blocks-v.Bfree) * unit, Free: int64(v.Bavail) * unit,
		Device: uint64(st.Dev),
	}, nil
}

// hourSize is what the files of an hour take.
type hourSize struct {
	bytes  int64 // of the files
	blocks int64 // bytes that removing them frees on the volume
	media  bool  // it has an extent
}

// sizeOf looks at the files of an hour.
func (s *Stream) sizeOf(h hour) (hourSize, error) {
	entries, err := readDir(s.fs, s.hourDir(h))
	var out hourSize
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // removed meanwhile
		}
		out.bytes += info.Size()
		out.media = out.media || len(e.Name()) > len(mediaExt) && e.Name()[len(e.Name())-len(mediaExt):] == mediaExt
		// A file with another name elsewhere, as backups of hard links have,
		// frees nothing.
		if st, ok := info.Sys().(*syscall.Stat_t); !ok {
			out.blocks += info.Size()
		} else if st.Nlink <= 1 {
			out.blocks += st.Blocks * 512
		}
	}
	return out, err
}

// Size is the bytes of all files of the stream's hours.
func (s *Stream) Size() (int64, error) {
	hours, err := listHours(s.fs, s.dir)
	if err != nil {
		return 0, err
	}
	var n int64
	for _, h := range hours {
		b, err := s.sizeOf(h)
		if err != nil {
			return n, err
		}
		n += b.bytes
	}
	return n, nil
}

// KeptSize is the bytes of all files of the hours that a span touches.
func (s *Stream) KeptSize(k *Keep) (int64, error) {
	hours, err := listHours(s.fs, s.dir)
	if err != nil {
		return 0, err
	}
	var n int64
	for _, h := range hours {
		if !k.touches(h) {
			continue
		}
		b, err := s.sizeOf(h)
		if err != nil {
			return n, err
		}
		n += b.bytes
	}
	return n, nil
}
