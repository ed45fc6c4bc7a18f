package m4fhttp

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/fsx"
)

// Root is a Provider of the streams below a directory, or of the one that the
// directory is, found anew with each request. Nothing is recorded by it.
type Root struct {
	Log *slog.Logger // nil: slog.Default()

	dir string
	fs  fsx.FS

	mu     sync.Mutex
	open   map[string]*archive.Stream // by directory
	closed map[string]bool            // directories that could not be read the last time
}

// NewRoot returns a Provider of the streams below dir.
func NewRoot(dir string) *Root {
	return &Root{dir: dir, fs: fsx.OS, open: map[string]*archive.Stream{}}
}

// Streams implements Provider. A directory below the root that cannot be read is
// left out and logged, once until it can be.
func (r *Root) Streams() ([]string, error) {
	closed := map[string]error{}
	found, err := archive.FindWith(r.dir, archive.FindOptions{FS: r.fs, Unreadable: func(dir string, err error) { closed[dir] = err }})
	if err != nil {
		return nil, err
	}
	r.tell(closed)
	names := make([]string, len(found))
	for i, f := range found {
		names[i] = f.Name
	}
	slices.Sort(names)
	return names, nil
}

// tell logs the directories that cannot be read and could the last time.
func (r *Root) tell(closed map[string]error) {
	log := r.Log
	if log == nil {
		log = slog.Default()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.closed
	r.closed = make(map[string]bool, len(closed))
	for dir, err := range closed {
		r.closed[dir] = true
		if !before[dir] {
			log.Error("a directory cannot be read; streams in it are not listed", "dir", dir, "err", err)
		}
	}
}

// Stream implements Provider.
func (r *Root) Stream(name string) (Stream, error) {
	if err := archive.ValidName(name); err != nil {
		return nil, errors.Join(ErrNoStream, err)
	}
	if r.linked(name) {
		return nil, ErrNoStream
	}
	s, err := r.at(filepath.Join(r.dir, filepath.FromSlash(name)))
	if errors.Is(err, ErrNoStream) {
		if abs, aerr := filepath.Abs(r.dir); aerr == nil && filepath.Base(abs) == name {
			s, err = r.at(r.dir)
		}
	}
	if err != nil {
		return nil, err
	}
	return rootStream{s}, nil
}

// linked says whether a symbolic link leads to where a stream would lie. Only
// the stream itself may be one, as for archive.Find: its directory may have been
// moved to another disk.
func (r *Root) linked(name string) bool {
	for i, c := range name {
		if c != '/' {
			continue
		}
		st, err := os.Lstat(filepath.Join(r.dir, filepath.FromSlash(name[:i])))
		if err == nil && st.Mode()&fs.ModeSymlink != 0 {
			return true
		}
	}
	return false
}

// at opens the stream in a directory. What was opened before is used again, as
// long as it is there.
func (r *Root) at(dir string) (*archive.Stream, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.open[dir]; s != nil {
		if _, err := s.Horizon(); err == nil {
			return s, nil
		}
		delete(r.open, dir)
	}
	s, err := archive.Open(dir)
	var not *archive.NotStreamError
	if errors.As(err, &not) || errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(ErrNoStream, err)
	}
	if err == nil {
		r.open[dir] = s
	}
	return s, err
}

// rootStream is a stream of which no more is known than its archive.
type rootStream struct{ a *archive.Stream }

func (s rootStream) Archive() *archive.Stream { return s.a }
func (s rootStream) Live() Live               { return Live{} }
