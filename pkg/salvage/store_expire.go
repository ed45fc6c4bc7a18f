package salvage

import (
	"cmp"
	"errors"
	"path/filepath"
	"slices"
	"time"

	"github.com/twindvr/twindvr/pkg/fsx"
)

// Limits say what a Store keeps at most. The zero value keeps nothing.
type Limits struct {
	Bytes int64         // of packets; those that entries share count once
	Age   time.Duration // since they were kept
	// Room is how many bytes have to go this once, the oldest first, whatever the
	// limit: the volume has none for what is more important.
	Room int64
}

// StaleAfter is for how long a directory that is no entry is left alone: another
// process may be making or removing it.
const StaleAfter = 10 * time.Minute

// Usage is what a store holds.
type Usage struct {
	Entries int
	Bytes   int64 // of packets; those that entries share count once
}

// Expired is what Expire dropped, and what is left.
type Expired struct {
	Covered int // a clean whole segment is there
	Aged    int // older than the limit, or from a clock that was wrong
	Over    int // beyond the limit of bytes, or of MaxEntries
	Broken  int // unreadable, or never finished
	Left    Usage
}

// Usage looks at what the store holds.
func (s *Store) Usage() (Usage, error) {
	all, err := s.list()
	if err != nil {
		return Usage{}, err
	}
	return newTally(all).usage(), nil
}

// Expire drops the entries that covered says to be healed, those kept longer ago
// than the limit of age (or that much later than now: by a clock that was
// wrong), and the oldest beyond the limit of bytes. Now is Store.Now, unless a test
// says otherwise. It also removes what cannot be read and what was left unfinished.
// covered may be nil. Keep holds the limit of bytes in between. Entries that
// cannot be removed are left, and the first error returned at the end.
func (s *Store) Expire(now time.Time, limits Limits, covered func(*Entry) bool) (Expired, error) {
	s.mu.Lock()
	s.limit = Limits{Bytes: limits.Bytes, Age: limits.Age}
	s.mu.Unlock()
	x, err := s.expire(now, limits, covered)
	broken, berr := s.sweep(now)
	x.Broken += broken
	return x, errors.Join(err, berr)
}

func (s *Store) expire(now time.Time, limits Limits, covered func(*Entry) bool) (x Expired, err error) {
	all, err := s.list()
	if err != nil {
		return x, err
	}
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b *Entry) int { return cmp.Compare(a.Kept.UnixMilli(), b.Kept.UnixMilli()) })
	left := newTally(all)
	most := min(limits.Bytes, max(left.bytes-limits.Room, 0))
	drop := func(e *Entry, count *int) {
		if rerr := s.remove(e.Name); rerr != nil {
			err = cmp.Or(err, rerr)
			return
		}
		left.remove(e)
		*count++
	}
	var rest []*Entry
	for _, e := range all {
		switch age := now.Sub(e.Kept); {
		case covered != nil && covered(e):
			drop(e, &x.Covered)
		case age > limits.Age || -age > limits.Age:
			drop(e, &x.Aged)
		default:
			rest = append(rest, e)
		}
	}
	for _, e := range rest {
		if left.bytes > most || left.entries > MaxEntries {
			drop(e, &x.Over)
		}
	}
	x.Left = left.usage()
	s.mu.Lock()
	s.bytes = left.bytes
	s.mu.Unlock()
	return x, err
}

// tally counts bytes of packets, those that entries share once.
type tally struct {
	entries int
	bytes   int64
	files   map[fileID]*fileUse
}

// fileID names a file of packets over all entries.
type fileID struct {
	run   uint64
	first int64
}

type fileUse struct {
	entries int
	bytes   int64
}

func newTally(all []*Entry) *tally {
	t := &tally{entries: len(all), files: make(map[fileID]*fileUse)}
	for _, e := range all {
		for _, p := range e.parts {
			u := t.files[fileID{e.Run, p.file}]
			if u == nil {
				u = new(fileUse)
				t.files[fileID{e.Run, p.file}] = u
			}
			u.entries++
			if n := int64(p.size) * PacketSize; n > u.bytes {
				t.bytes += n - u.bytes
				u.bytes = n
			}
		}
	}
	return t
}

func (t *tally) remove(e *Entry) {
	t.entries--
	for _, p := range e.parts {
		u := t.files[fileID{e.Run, p.file}]
		if u.entries--; u.entries == 0 {
			t.bytes -= u.bytes
		}
	}
}

func (t *tally) usage() Usage { return Usage{t.entries, t.bytes} }

// Remove drops entries, as Put and Expire do. That one has gone already is no
// error.
func (s *Store) Remove(entries ...Entry) error {
	var first error
	for i := range entries {
		if err := s.remove(entries[i].Name); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// remove is the numbered steps of Remove in the doc of Store.
func (s *Store) remove(name string) error {
	if !ValidName(name) {
		return goneError(s.dir, name)
	}
	tmp := filepath.Join(s.dir, tempPrefix+name+"-gone")
	err := s.fs.Rename(filepath.Join(s.dir, name), tmp) // 1
	if gone(err) {
		return nil
	}
	if err != nil {
		return s.fail(err)
	}
	if err := s.empty(tmp); err != nil { // 2
		return s.fail(err)
	}
	return nil
}

// empty removes a directory and the files in it.
func (s *Store) empty(dir string) error {
	entries, err := s.fs.ReadDir(dir)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := s.fs.Remove(filepath.Join(dir, e.Name())); err != nil && !gone(err) {
			return err
		}
	}
	if err := s.fs.Remove(dir); err != nil && !gone(err) {
		return err
	}
	return nil
}

// sweep removes directories that are no entry (they were never finished, or
// cannot be read) and that nothing has touched for StaleAfter.
func (s *Store) sweep(now time.Time) (removed int, err error) {
	dir, err := s.fs.ReadDir(s.dir)
	if gone(err) {
		return 0, nil
	}
	if err != nil {
		return 0, &StoreError{Path: s.dir, Err: err}
	}
	s.mu.Lock()
	known := s.known
	s.mu.Unlock()
	for _, d := range dir {
		name := d.Name()
		entry := ValidName(name)
		if !d.IsDir() || entry && known[name] != nil || !entry && !fsx.IsTemp(name) {
			continue
		}
		info, ierr := d.Info()
		if ierr != nil {
			continue // it has gone
		}
		if age := now.Sub(info.ModTime()); age < StaleAfter && -age < StaleAfter {
			continue
		}
		rerr := error(nil)
		if entry {
			rerr = s.remove(name)
		} else if rerr = s.empty(filepath.Join(s.dir, name)); rerr != nil {
			rerr = s.fail(rerr)
		}
		if rerr != nil {
			err = cmp.Or(err, rerr)
			continue
		}
		removed++
	}
	return removed, err
}
