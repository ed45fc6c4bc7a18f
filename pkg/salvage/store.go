package salvage

import (
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// DirName is the name of a Store's directory in the directory of a stream.
const DirName = "salvage"

const (
	dirPerm  = 0o750
	filePerm = 0o640

	tempPrefix = ".tmp-" // see fsx.IsTemp
)

// MaxEntries is how many entries a Store keeps at most: 36 hours of segments of
// 4 s that are all damaged.
const MaxEntries = 32 << 10

// StoreOptions are what a Store works with. The zero value will do.
type StoreOptions struct {
	FS    fsx.FS      // nil: the operating system's
	Clock clock.Clock // nil: the system's
	Owner fsx.Owner   // of new files and directories
}

// Store keeps copies in a directory. FORMAT.md describes its files to the byte.
// Any number of processes read, write and drop at once, without a lock. A Store
// is safe for concurrent use, holds no descriptor and needs no closing.
//
// # What always holds
//
//   - An entry is a directory of its own with everything that it needs. It comes
//     into being and goes by one rename each, so it is whole or not there.
//   - Nothing in an entry is ever changed.
//   - Packets are written once: entries that share a file are further names (hard
//     links) of it, so no entry needs another. Where the file system has none, or
//     the other entry has just gone, the packets are written again.
//   - Directories under a temporary name are nobody's; readers pass over them, and
//     Expire removes those that nothing has touched for StaleAfter.
//   - Nothing is made durable (no fsync): salvage lives for an hour or so, the
//     archive needs none of it, and what a power cut leaves half written does not
//     pass its checksum and is dropped.
//
// # Steps
//
// Each list is in order. Stopping after any step leaves what is said behind it.
//
// Keep and Put:
//
//  1. make the directory of the store, where it is missing: an empty store
//  2. make the entry's directory under a temporary name: nothing for readers
//  3. link the files that earlier entries of the run have of its packets
//  4. write the other packets
//  5. write the file "entry", which says which packets, with checksums
//  6. rename the directory to the entry's name: readers see the entry
//  7. Put only: remove the entries that it replaces. Until then both are there;
//     they heal the same segments
//
// Remove, of each entry:
//
//  1. rename its directory to a temporary name: readers do not see it. Who has
//     listed it before is told ErrGone
//  2. remove its files, then the directory: their bytes go with the last entry
//     that shares them
type Store struct {
	dir   string
	fs    fsx.FS
	clock clock.Clock
	owner fsx.Owner
	began time.Time // with the reading of a clock that is not stepped, if there is one

	mu     sync.Mutex
	known  map[string]*Entry // by name, as far as they have been read
	listed listing
	bytes  int64  // of all entries, as of the last look and what was kept since
	limit  Limits // those given last
}

// NewStore returns the store in a directory, which is made when something is
// first kept. archive.Stream.Salvage is the store of a stream.
func NewStore(dir string, opt StoreOptions) *Store {
	if opt.FS == nil {
		opt.FS = fsx.OS
	}
	if opt.Clock == nil {
		opt.Clock = clock.System
	}
	return &Store{dir: dir, fs: opt.FS, clock: opt.Clock, owner: opt.Owner, began: opt.Clock.Now(), known: make(map[string]*Entry)}
}

// Dir is the store's directory.
func (s *Store) Dir() string { return s.dir }

// Entries returns the entries that are for segments of [from, to), by start and
// name; from 0 is the beginning and to 0 the end. An entry whose directory
// cannot be read is left out; Expire removes it.
func (s *Store) Entries(from, to m4f.UTC) ([]Entry, error) {
	all, err := s.list()
	if err != nil {
		return nil, err
	}
	out := make([]Entry, 0, len(all))
	for _, e := range all {
		if e.End() > from && (to == 0 || e.Start() < to) {
			out = append(out, *e)
		}
	}
	return out, nil
}

// list reads the directory, unless it has not changed since. The result is
// shared and not to be modified.
func (s *Store) list() ([]*Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	looked := time.Now() // as files are dated, whatever the store's clock
	var changed time.Time
	if st, err := s.fs.Stat(s.dir); err == nil {
		changed = st.ModTime()
		if s.listed.holds(changed) {
			return s.listed.entries, nil
		}
	}
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	known := make(map[string]*Entry, len(names))
	var out []*Entry
	var disk *StoreError
	for _, name := range names {
		e := s.known[name]
		if e == nil {
			if e, err = s.readEntry(name); err != nil {
				if errors.As(err, &disk) {
					looked = time.Time{} // it may be read the next time
				}
				continue // it has gone, or Expire will find it
			}
		}
		known[name] = e
		out = append(out, e)
	}
	s.known = known
	slices.SortFunc(out, func(a, b *Entry) int {
		return cmp.Or(cmp.Compare(a.Start(), b.Start()), strings.Compare(a.Name, b.Name))
	})
	s.listed = listing{changed, looked, out}
	return out, nil
}

// listing is what a directory held when it was looked at.
type listing struct {
	changed, looked time.Time
	entries         []*Entry
}

// timeStep is more than the steps in which file systems date changes.
const timeStep = 2 * time.Second

// holds says whether a listing is still that of a directory which was changed
// last at a time: it was looked at well after that.
func (l *listing) holds(changed time.Time) bool {
	return !l.looked.IsZero() && changed.Equal(l.changed) && l.looked.Sub(changed) > timeStep
}

// names lists the names of entries, the oldest of more than twice MaxEntries
// left out.
func (s *Store) names() ([]string, error) {
	dir, err := s.fs.ReadDir(s.dir)
	if err != nil && !gone(err) {
		return nil, &StoreError{Path: s.dir, Err: err}
	}
	var out []string
	for _, d := range dir {
		if d.IsDir() && ValidName(d.Name()) {
			out = append(out, d.Name())
		}
	}
	return out[max(len(out)-2*MaxEntries, 0):], nil
}

// gone says whether an error is that of a name which is not there.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// Entry returns the entry of a name. Its error wraps ErrGone where there is
// none.
func (s *Store) Entry(name string) (Entry, error) {
	if !ValidName(name) {
		return Entry{}, goneError(s.dir, name)
	}
	e, err := s.readEntry(name)
	if err != nil {
		return Entry{}, err
	}
	return *e, nil
}

func (s *Store) readEntry(name string) (*Entry, error) {
	path := filepath.Join(s.dir, name, entryName)
	b, err := fsx.ReadFile(s.fs, path, maxEntrySize)
	switch {
	case gone(err):
		return nil, goneError(s.dir, name)
	case err != nil:
		return nil, &StoreError{Path: path, Err: err}
	}
	e, err := parseEntry(b)
	if err == nil && e.Name != name {
		err = fmt.Errorf("it is that of %s", e.Name)
	}
	if err != nil {
		return nil, &CorruptError{Entry: name, Path: path, Err: err}
	}
	return e, nil
}

// Read reads the packets of an entry, or of several that follow each other (see
// Adjoin) as one Copy without doubled packets. Every byte is checked. Errors:
// ErrGone (wrapped), *CorruptError, ErrApart, *StoreError.
func (s *Store) Read(entries ...Entry) (*Copy, error) {
	from, to, err := stretch(entries)
	if err != nil {
		return nil, err
	}
	for i := range entries {
		if entries[i].parts == nil { // a peer's
			return nil, goneError(s.dir, entries[i].Name)
		}
	}
	c := &Copy{Packets: make([]byte, (to-from)*PacketSize), Holes: joinHoles(entries)}
	for i := range entries {
		e := &entries[i]
		if err := s.readParts(e, c.Packets[(e.From-from)*PacketSize:(e.To-from)*PacketSize]); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (s *Store) readParts(e *Entry, dst []byte) error {
	for _, p := range e.parts {
		b := dst[(p.from-e.From)*PacketSize : (p.to-e.From)*PacketSize]
		path := filepath.Join(s.dir, e.Name, packetName(p.file))
		err := s.readAt(path, (p.from-p.file)*PacketSize, b)
		switch {
		case gone(err):
			return s.goneOrCorrupt(e, path)
		case errors.Is(err, io.EOF):
			return &CorruptError{Entry: e.Name, Path: path, Err: errors.New("it is too short")}
		case err != nil:
			return &StoreError{Path: path, Err: err}
		case crc32.Checksum(b, castagnoli) != p.crc:
			return &CorruptError{Entry: e.Name, Path: path, Err: errChecksum}
		}
	}
	return nil
}

// goneOrCorrupt tells an entry that was removed from one that lacks a file.
func (s *Store) goneOrCorrupt(e *Entry, path string) error {
	if _, err := s.fs.Stat(filepath.Join(s.dir, e.Name)); err == nil {
		return &CorruptError{Entry: e.Name, Path: path, Err: errors.New("it is missing")}
	}
	return goneError(s.dir, e.Name)
}

func (s *Store) readAt(path string, off int64, b []byte) error {
	f, err := fsx.Open(s.fs, path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.ReadAt(b, off)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		// A file that ends with the part may say so together with its bytes.
		if st, serr := f.Stat(); serr == nil && st.Size() >= off+int64(len(b)) {
			return nil
		}
		return io.EOF
	}
	return err
}

// StoreError says that a store could not be read or written.
type StoreError struct {
	Path string
	Err  error
}

func (e *StoreError) Error() string {
	var pe *fs.PathError
	err := e.Err
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Sprintf("%s: %v", e.Path, err)
}

// Unwrap returns the operating system's error.
func (e *StoreError) Unwrap() error { return e.Err }

// Full says whether the volume or the quota is used up.
func (e *StoreError) Full() bool {
	return errors.Is(e.Err, syscall.ENOSPC) || errors.Is(e.Err, syscall.EDQUOT)
}

// fail names the file that an error is about, or the store.
func (s *Store) fail(err error) error {
	e := &StoreError{Path: s.dir, Err: err}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		e.Path = pe.Path
	}
	return e
}

// Now is the time by which entries are kept and expire: that of the clock when
// the Store was made, and what has passed since. So a clock that is stepped
// drops nothing.
func (s *Store) Now() time.Time {
	return s.began.Add(s.clock.Now().Sub(s.began)).UTC().Truncate(time.Millisecond)
}
