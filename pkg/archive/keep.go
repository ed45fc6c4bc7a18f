package archive

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// A kept span is a file of its own, keep/NAME.json, so that processes which add
// and release spans at once never undo each other's.
const (
	keepDirName = "keep"
	keepExt     = ".json"
	// MaxKeeps bounds the kept spans of a stream.
	MaxKeeps    = 256
	maxKeepFile = 4096 // bytes
	maxKeepName = 100  // bytes
)

// Keep is a span that pruning leaves. The hours that it touches stay whole.
type Keep struct {
	Name     string
	From, To m4f.UTC // [From, To); To may be in the future
	Created  time.Time
}

// keepFile is a file in keep/.
type keepFile struct {
	From    time.Time `json:"from"`
	To      time.Time `json:"to"`
	Created time.Time `json:"created"`
}

// hours returns the first hour that the span touches and the one behind the last.
func (k *Keep) hours() (from, to hour) { return hourOf(k.From), hourOf(k.To-1) + 1 }

func (k *Keep) touches(h hour) bool {
	from, to := k.hours()
	return from <= h && h < to
}

// keeps are kept spans, sorted by their start.
type keeps []Keep

func (l keeps) touch(h hour) bool {
	for i := range l {
		if l[i].touches(h) {
			return true
		}
	}
	return false
}

// KeepError says why a span cannot be kept or released.
type KeepError struct {
	Dir, Name string
	Reason    string // what is wrong, and what to do
	Err       error  // fs.ErrExist, fs.ErrNotExist, or the disk's
}

func (e *KeepError) Error() string {
	if e.Name == "" {
		return fmt.Sprintf("%s: %s", e.Dir, e.Reason)
	}
	return fmt.Sprintf("%s: kept span %s: %s", e.Dir, e.Name, e.Reason)
}

// Unwrap returns the cause, if there is one.
func (e *KeepError) Unwrap() error { return e.Err }

// ValidKeepName refuses what cannot name a kept span.
func ValidKeepName(name string) error {
	switch {
	case name == "":
		return errors.New("the name of a kept span is empty")
	case len(name) > maxKeepName:
		return fmt.Errorf("the name of a kept span is %d bytes long; %d is the most", len(name), maxKeepName)
	case name[0] == '.':
		return fmt.Errorf("%q is no name of a kept span: it begins with a dot", name)
	}
	for _, r := range name {
		if r < 0x20 || r == 0x7f || r == '/' || r == '\\' || r == 0xFFFD {
			return fmt.Errorf("%q is no name of a kept span: it has a slash, a backslash, a control character or is not UTF-8", name)
		}
	}
	return nil
}

func (s *Stream) keepPath(name string) string {
	return filepath.Join(s.dir, keepDirName, name+keepExt)
}

// Keep protects a span from pruning, durably, from the next pass on, in every
// process. A zero Created is now. A name that is taken, a span that ends before
// it begins, more than MaxKeeps of them: *KeepError.
//
// What lies before the horizon may be gone already; look at what the archive
// has of the span when Keep has returned. What is there then stays: a pass that
// is removing an hour is waited for.
func (s *Stream) Keep(k Keep) error {
	refuse := func(reason string, err error) error {
		return &KeepError{Dir: s.dir, Name: k.Name, Reason: reason, Err: err}
	}
	if err := ValidKeepName(k.Name); err != nil {
		return err
	}
	if k.From < 0 || k.To <= k.From {
		return refuse("it ends before it begins", nil)
	}
	if k.Created.IsZero() {
		k.Created = s.clock.Now()
	}
	have, err := s.Kept()
	if err != nil {
		return err
	}
	if len(have) >= MaxKeeps {
		return refuse(fmt.Sprintf("the stream has %d already and can have no more; release some", len(have)), nil)
	}
	b, err := json.Marshal(keepFile{k.From.Time(), k.To.Time(), k.Created.UTC().Truncate(time.Second)})
	if err != nil {
		return err
	}
	if err := fsx.MkdirAll(s.fs, filepath.Join(s.dir, keepDirName), dirPerm); err != nil {
		return placeError(s.dir, err)
	}
	unlock := s.lockKeeps()
	err = fsx.PublishNew(s.fs, s.keepPath(k.Name), append(b, '\n'), filePerm, s.owner)
	unlock()
	if errors.Is(err, fs.ErrExist) {
		return refuse("there is one of that name already; release it first, or take another name", err)
	}
	if err != nil {
		return placeError(s.keepPath(k.Name), err)
	}
	return nil
}

// lockKeeps keeps whoever adds a span and whoever removes an hour apart, in all
// processes. Where the file system has no such locks (flock), an hour that is
// being removed at that very moment is not waited for.
func (s *Stream) lockKeeps() (unlock func()) {
	d, err := os.Open(s.dir)
	if err != nil {
		return func() {}
	}
	for {
		if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != unix.EINTR {
			return func() { d.Close() }
		}
	}
}

// Release ends the protection of a span: the next pass of pruning treats its
// hours as any other. Where there is no span of the name: *KeepError.
func (s *Stream) Release(name string) error {
	if err := ValidKeepName(name); err != nil {
		return err
	}
	err := s.fs.Remove(s.keepPath(name))
	if isNotExist(err) {
		reason := "there is none of that name"
		if have, err := s.Kept(); err == nil && len(have) > 0 {
			var names []string
			for _, k := range have {
				names = append(names, k.Name)
			}
			slices.Sort(names)
			reason += "; there is " + strings.Join(names, ", ")
		}
		return &KeepError{Dir: s.dir, Name: name, Reason: reason, Err: err}
	}
	if err == nil {
		err = s.fs.SyncDir(filepath.Join(s.dir, keepDirName))
	}
	return placeError(s.keepPath(name), err)
}

// Kept returns the kept spans, sorted by start and name. One that cannot be
// read is an error: whoever prunes must not take it for none.
func (s *Stream) Kept() ([]Keep, error) {
	l, err := s.readKeeps(true)
	return l, err
}

// readKeeps reads the kept spans. Unless strict, those that cannot be read are
// left out.
func (s *Stream) readKeeps(strict bool) (keeps, error) {
	entries, err := readDir(s.fs, filepath.Join(s.dir, keepDirName))
	if err != nil {
		return nil, err
	}
	var out keeps
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), keepExt)
		if !ok || fsx.IsTemp(e.Name()) || ValidKeepName(name) != nil {
			continue
		}
		k, err := s.readKeep(name)
		switch {
		case isNotExist(err): // released meanwhile
		case err == nil:
			out = append(out, k)
		case strict:
			return nil, err
		}
	}
	slices.SortFunc(out, func(a, b Keep) int {
		if a.From != b.From {
			return int(min(max(a.From-b.From, -1), 1))
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out, nil
}

func (s *Stream) readKeep(name string) (Keep, error) {
	path := s.keepPath(name)
	b, err := fsx.ReadFile(s.fs, path, maxKeepFile)
	if err != nil {
		return Keep{}, err
	}
	k, err := parseKeep(name, b)
	if err != nil {
		return k, &KeepError{Dir: s.dir, Name: name, Reason: fmt.Sprintf("%s cannot be read (%v): put it right or release the span; nothing of the stream is pruned until then", path, err), Err: err}
	}
	return k, nil
}

// parseKeep reads the bytes of a file in keep/.
func parseKeep(name string, b []byte) (Keep, error) {
	var f keepFile
	if err := json.Unmarshal(b, &f); err != nil {
		return Keep{}, err
	}
	for _, t := range []time.Time{f.From, f.To} {
		if t.Unix() < 0 || t.Year() > 9999 {
			return Keep{}, errors.New("a time in it is outside the years 1970 to 9999")
		}
	}
	k := Keep{Name: name, From: m4f.UTCOf(f.From), To: m4f.UTCOf(f.To), Created: f.Created}
	if k.To <= k.From {
		return Keep{}, errors.New("it ends before it begins")
	}
	return k, nil
}

// keepCache is what readers remember of the kept spans; pruning reads them
// afresh.
type keepCache struct {
	mu   sync.Mutex
	stat os.FileInfo // nil: nothing is remembered
	list keeps
}

// settled is how long ago the directory must have been changed for its time to
// tell every later change.
const settled = 2 * time.Second

// kept returns the kept spans as readers see them: without those that cannot be
// read.
func (s *Stream) kept() (keeps, error) {
	c := &s.keeps
	c.mu.Lock()
	defer c.mu.Unlock()
	st, err := s.fs.Stat(filepath.Join(s.dir, keepDirName))
	if isNotExist(err) {
		c.stat, c.list = nil, nil
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if c.stat != nil && os.SameFile(st, c.stat) && st.ModTime().Equal(c.stat.ModTime()) {
		return c.list, nil
	}
	list, err := s.readKeeps(false)
	if err != nil {
		return nil, err
	}
	c.stat, c.list = nil, list
	if age := time.Since(st.ModTime()); age > settled { // the file system's own time, not the stream's
		c.stat = st
	}
	return list, nil
}

// reach is which hours exist for readers and writers: those at or after the
// horizon, and those that a kept span touches.
type reach struct {
	first hour // of the horizon
	kept  keeps
}

func (r *reach) has(h hour) bool { return h >= r.first || r.kept.touch(h) }

// reach reads the marker and the kept spans.
func (s *Stream) reach() (reach, error) {
	m, err := s.marker()
	if err != nil {
		return reach{}, err
	}
	r := reach{first: hourOf(m.horizon())}
	if r.first > 0 {
		r.kept, err = s.kept()
	}
	return r, err
}

// Takes says whether every hour of [from, to) exists: it is at or after the
// horizon, or kept.
func (s *Stream) Takes(from, to m4f.UTC) (bool, error) {
	r, err := s.reach()
	if err != nil {
		return false, err
	}
	have := r.within(from, to)
	return len(have) == 1 && have[0] == stretch{from, to}, nil
}

// within returns the parts of [from, to) that are in hours which exist, in
// order.
func (r *reach) within(from, to m4f.UTC) []stretch {
	var out []stretch
	add := func(a, b m4f.UTC) {
		a, b = max(a, from), min(b, to)
		n := len(out)
		switch {
		case a >= b:
		case n > 0 && a <= out[n-1].to:
			out[n-1].to = max(out[n-1].to, b)
		default:
			out = append(out, stretch{a, b})
		}
	}
	for i := range r.kept { // sorted by start
		a, b := r.kept[i].hours()
		add(a.start(), min(b, r.first).start())
	}
	add(r.first.start(), to)
	return out
}

// stretch is [from, to).
type stretch struct{ from, to m4f.UTC }
