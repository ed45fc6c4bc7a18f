package m4fhttp

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/twindvr/twindvr/pkg/archive"
)

// Root is a Provider of the streams below a directory, or of the one that the
// directory is, found anew with each request. Nothing is recorded by it.
type Root struct {
	dir string

	mu   sync.Mutex
	open map[string]*archive.Stream // by directory
}

// NewRoot returns a Provider of the streams below dir.
func NewRoot(dir string) *Root {
	return &Root{dir: dir, open: map[string]*archive.Stream{}}
}

// Streams implements Provider.
func (r *Root) Streams() ([]string, error) {
	found, err := archive.Find(r.dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(found))
	for i, f := range found {
		names[i] = f.Name
	}
	slices.Sort(names)
	return names, nil
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
