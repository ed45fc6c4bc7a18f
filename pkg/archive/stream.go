package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/salvage"
)

// Options are what a stream is opened or made with. The zero value will do.
type Options struct {
	TargetDuration int64       // of a new stream, D in ticks; 0: taken from the first live segment
	Clock          clock.Clock // nil: the system's
	FS             fsx.FS      // nil: the operating system's
	// OnEvent is called with the events that the archive notes by itself: of writers,
	// of pruning, of bytes that went bad. It must not wait; nil: nobody wants to know.
	OnEvent func(event.Event)
	// OnAdd is called with each segment that is added. It must not wait, nor keep the
	// record; nil: nobody wants to know.
	OnAdd func(*Record)
}

// CreateOptions is another name of Options.
type CreateOptions = Options

// Stream is the archive of one stream. It is safe for concurrent use, also by
// other processes on the same directory, holds no descriptor and needs no
// closing.
type Stream struct {
	dir   string
	fs    fsx.FS
	clock clock.Clock
	owner fsx.Owner
	event func(event.Event) // or nil
	added func(*Record)     // or nil

	changing sync.Mutex             // held while stream.json is changed; a disk that hangs keeps it, so readers never take it
	mark     atomic.Pointer[marked] // what was read of it last; nil: nothing

	keeps keepCache
	sizes sizeCache
	cache hourCache
	inits initCache

	salvageOnce sync.Once
	salvage     *salvage.Store
}

// Create opens the stream in dir and makes it where there is nothing yet:
// missing directories too, each owned as the one above it. Name is the stream's
// name, with slashes where it has parts; "" takes the directory's. It refuses a
// directory that holds something else (*NotStreamError), one below or above
// another stream (*NestedError), another format version (*VersionError), another
// target duration (*TargetDurationError) and what cannot be written
// (*WriteError).
func Create(dir, name string, opt Options) (*Stream, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s, err := create(abs, name, opt)
	return s, asGiven(err, abs, dir)
}

func create(dir, name string, opt Options) (*Stream, error) {
	fsys := opt.fs()
	if name == "" {
		name = filepath.Base(dir)
	}
	if err := ValidName(name); err != nil {
		return nil, err
	}
	_, err := readMarker(fsys, dir)
	if isNotExist(err) && restoreMarker(fsys, dir) {
		_, err = readMarker(fsys, dir)
	}
	if isNotExist(err) {
		m := &marker{Format: formatVersion, Name: name, Timescale: m4f.Timescale, Created: opt.clock().Now().UTC().Truncate(time.Millisecond)}
		if opt.TargetDuration > 0 {
			m.TargetDuration, m.Rules = opt.TargetDuration, m4f.RulesVersion
		}
		err = makeMarker(fsys, dir, m)
	}
	if err != nil {
		return nil, err
	}
	s, err := OpenWith(dir, opt)
	if err != nil {
		return nil, err
	}
	if opt.TargetDuration > 0 {
		if err := s.adopt(opt.TargetDuration, m4f.RulesVersion); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Open opens the stream in dir for reading, and for writing where the
// directory allows it.
func Open(dir string) (*Stream, error) { return OpenWith(dir, Options{}) }

// OpenWith is Open with options.
func OpenWith(dir string, opt Options) (*Stream, error) {
	fsys := opt.fs()
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &Stream{dir: abs, fs: fsys, clock: opt.clock(), owner: fsx.OwnerOf(fsys, abs), event: opt.OnEvent, added: opt.OnAdd}
	s.cache.init(s)
	if _, err := s.marker(); err != nil {
		return nil, asGiven(s.explainMissing(err), abs, dir)
	}
	return s, nil
}

// asGiven makes an error name a directory as the operator did.
func asGiven(err error, abs, given string) error {
	var not *NotStreamError
	var version *VersionError
	var nested *NestedError
	switch {
	case errors.As(err, &not) && not.Dir == abs:
		not.Dir = given
	case errors.As(err, &version) && version.Dir == abs:
		version.Dir = given
	case errors.As(err, &nested) && nested.Dir == abs:
		nested.Dir = given
	}
	return err
}

// explainMissing says what is in a directory that has no marker.
func (s *Stream) explainMissing(err error) error {
	if !isNotExist(err) {
		return err
	}
	st, serr := s.fs.Stat(s.dir)
	switch {
	case isNotExist(serr):
		return &NotStreamError{Dir: s.dir, Reason: "there is no such directory", Err: fs.ErrNotExist}
	case serr != nil:
		return serr
	case !st.IsDir():
		return &NotStreamError{Dir: s.dir, Reason: "it is a file; name the directory of a stream", Err: err}
	}
	found, ferr := find(s.fs, s.dir, "", 8)
	if errors.Is(ferr, fs.ErrPermission) {
		return ferr
	}
	if len(found) > 0 {
		return &NotStreamError{Dir: s.dir, Reason: fmt.Sprintf("it holds streams: %s; name one of them", names(found)), Err: err}
	}
	return &NotStreamError{Dir: s.dir, Reason: "it has no " + markerName, Err: err}
}

func names(found []Found) string {
	var l []string
	for _, f := range found {
		l = append(l, f.Name)
	}
	return strings.Join(l, ", ")
}

func (o Options) fs() fsx.FS {
	if o.FS == nil {
		return fsx.OS
	}
	return o.FS
}

func (o Options) clock() clock.Clock {
	if o.Clock == nil {
		return clock.System
	}
	return o.Clock
}

// Dir is the stream's directory, an absolute path.
func (s *Stream) Dir() string { return s.dir }

// Name is the stream's name: that which it was made with, or its directory's
// after a move.
func (s *Stream) Name() string {
	m, err := s.marker()
	if err != nil {
		return filepath.Base(s.dir)
	}
	return nameOf(s.dir, m.Name)
}

// marked is a version of stream.json.
type marked struct {
	marker *marker
	stat   os.FileInfo
}

// is says whether it is the version of that stat.
func (m *marked) is(st os.FileInfo) bool {
	return m != nil && os.SameFile(st, m.stat) && st.ModTime().Equal(m.stat.ModTime()) && st.Size() == m.stat.Size()
}

// marker returns what stream.json says now; another process may have changed
// it, or a change be under way that the disk does not take. The result is shared
// and not to be modified.
func (s *Stream) marker() (*marker, error) {
	last := s.mark.Load()
	st, err := statMarker(s.fs, s.dir)
	if isNotExist(err) && restoreMarker(s.fs, s.dir) {
		st, err = statMarker(s.fs, s.dir)
	}
	if err != nil {
		return nil, err
	}
	if last.is(st) {
		return last.marker, nil
	}
	m, err := readMarker(s.fs, s.dir)
	if err != nil {
		return nil, err
	}
	s.mark.CompareAndSwap(last, &marked{m, st}) // else another has looked since
	return m, nil
}

// changeMarker publishes stream.json with what fn changes in it. Where fn
// returns false nothing is written.
func (s *Stream) changeMarker(fn func(m *marker) bool) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	old, err := s.marker()
	if err != nil {
		return err
	}
	m := *old
	if !fn(&m) {
		return nil
	}
	b, err := m.encode()
	if err != nil {
		return err
	}
	if err := fsx.Publish(s.fs, filepath.Join(s.dir, markerName), b, filePerm, s.owner); err != nil {
		return placeError(s.dir, err)
	}
	if err := s.copyMarker(b); err != nil {
		return placeError(s.dir, err)
	}
	s.mark.Store(nil)
	_, err = s.marker()
	return err
}

// adopt gives a stream that has none a target duration, and refuses another
// than it has.
func (s *Stream) adopt(d int64, rules int) error {
	m, err := s.marker()
	if err != nil {
		return err
	}
	if m.TargetDuration == 0 {
		err = s.changeMarker(func(m *marker) bool {
			if m.TargetDuration != 0 {
				return false
			}
			m.TargetDuration, m.Rules = d, rules
			return true
		})
		if err != nil {
			return err
		}
		if m, err = s.marker(); err != nil {
			return err
		}
	}
	if m.TargetDuration != d || m.Rules != rules {
		return &TargetDurationError{Dir: s.dir, Stream: m4f.Duration(m.TargetDuration), Segment: m4f.Duration(d), RulesHere: m.Rules, RulesSeg: rules}
	}
	return nil
}

// Info is what a stream says of itself.
type Info struct {
	Name           string
	TargetDuration int64   // D in ticks; 0: no live segment yet
	Rules          int     // version of the segmentation rules; 0: no live segment yet
	Horizon        m4f.UTC // nothing before it is kept or wanted; 0: never pruned
	// Oldest is the start of the first element of the view at or after the horizon
	// (of all, where there is none) and Newest the end of the last; 0: empty.
	Oldest, Newest m4f.UTC
	Created        time.Time
}

// Info reads the marker and both ends of the archive.
func (s *Stream) Info() (Info, error) {
	m, err := s.marker()
	if err != nil {
		return Info{}, err
	}
	info := Info{Name: nameOf(s.dir, m.Name), TargetDuration: m.TargetDuration, Rules: m.Rules, Horizon: m.horizon(), Created: m.Created}
	hours, err := s.hours(0, 0)
	if err != nil {
		return info, err
	}
	first, _ := slices.BinarySearch(hours, hourOf(info.Horizon)) // kept hours before it
	if info.Oldest, err = s.beginsIn(hours[first:]); info.Oldest == 0 && err == nil {
		info.Oldest, err = s.beginsIn(hours[:first])
	}
	if err != nil {
		return info, err
	}
	for _, h := range slices.Backward(hours) {
		sum, _, ends, err := s.cache.summaryAndEnds(h)
		if err != nil {
			return info, err
		}
		if info.Newest = ends; sum.Segments > 0 {
			break
		}
	}
	return info, nil
}

// beginsIn returns the start of the first element of the view in some hours, or
// 0.
func (s *Stream) beginsIn(hours []hour) (m4f.UTC, error) {
	for _, h := range hours {
		sum, begins, _, err := s.cache.summaryAndEnds(h)
		if err != nil {
			return 0, err
		}
		if sum.Segments > 0 {
			return begins, nil
		}
	}
	return 0, nil
}

// Horizon is the point before which the archive has been pruned: nothing
// before it is shown, added or wanted, but for the hours of kept spans. 0: never
// pruned.
func (s *Stream) Horizon() (m4f.UTC, error) {
	m, err := s.marker()
	if err != nil {
		return 0, err
	}
	return m.horizon(), nil
}

// TargetDuration is D in ticks; 0: there is no live segment yet. It costs no look at
// what the archive holds.
func (s *Stream) TargetDuration() (int64, error) {
	m, err := s.marker()
	if err != nil {
		return 0, err
	}
	return m.TargetDuration, nil
}

// SetHorizon moves the horizon to the start of the hour of h, back too: an
// explicit wish to fill older hours again. 0 takes it away.
func (s *Stream) SetHorizon(h m4f.UTC) error {
	if h != 0 {
		h = hourOf(h).start()
	}
	return s.changeMarker(func(m *marker) bool {
		if m.horizon() == h {
			return false
		}
		m.setHorizon(h)
		return true
	})
}

// Found is a stream below a root.
type Found struct {
	Name string // path below the root, with slashes
	Dir  string
}

// Find returns the streams below root, sorted by name. Root itself may be one;
// its name is then its directory's. A directory that may not be read is an error
// (fs.ErrPermission), unless it is named lost+found.
func Find(root string) ([]Found, error) { return FindWith(root, FindOptions{}) }

// FindOptions say how streams are looked for.
type FindOptions struct {
	FS fsx.FS // nil: the operating system's
	// Unreadable is told each directory below the root that may not or cannot be
	// read, and why; the streams in it are left out. Nil: that is an error.
	Unreadable func(dir string, err error)
}

// FindWith is Find with options.
func FindWith(root string, o FindOptions) ([]Found, error) {
	if o.FS == nil {
		o.FS = fsx.OS
	}
	given := root
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	st, err := o.FS.Stat(root)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		return nil, &NotStreamError{Dir: given, Reason: "it is a file; name a directory of streams"}
	}
	if _, err := statMarker(o.FS, root); err == nil {
		return []Found{{filepath.Base(root), root}}, nil
	}
	return (&finder{fs: o.FS, unreadable: o.Unreadable}).below(root, "")
}

// maxNameDepth is how many parts the name of a stream can have.
const maxNameDepth = 8

// find looks for streams in the directories below dir, at most limit (0: all).
func find(fsys fsx.FS, dir, name string, limit int) ([]Found, error) {
	return (&finder{fs: fsys, limit: limit}).below(dir, name)
}

// finder looks for streams.
type finder struct {
	fs         fsx.FS
	limit      int // of streams; 0: all
	unreadable func(dir string, err error)
}

// below returns the streams in the directories below dir, whose name is name. A
// symbolic link to a stream is one; links are not followed further.
func (f *finder) below(dir, name string) ([]Found, error) {
	if strings.Count(name, "/") >= maxNameDepth {
		return nil, nil
	}
	entries, err := f.read(dir, name)
	if err != nil {
		return nil, err
	}
	var out []Found
	for _, e := range entries {
		sub, path := e.Name(), filepath.Join(dir, e.Name())
		link := e.Type()&fs.ModeSymlink != 0
		if !e.IsDir() && !link || ValidName(sub) != nil {
			continue
		}
		if name != "" {
			sub = name + "/" + sub
		}
		if _, err := statMarker(f.fs, path); err == nil {
			out = append(out, Found{sub, path})
		} else if !link {
			below, err := f.below(path, sub)
			if err != nil {
				return out, err
			}
			out = append(out, below...)
		}
		if f.limit > 0 && len(out) >= f.limit {
			return out[:f.limit], nil
		}
	}
	slices.SortFunc(out, func(a, b Found) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// read reads a directory; none but the root need be readable where that is to be
// told.
func (f *finder) read(dir, name string) ([]fs.DirEntry, error) {
	entries, err := readDir(f.fs, dir)
	switch {
	case err == nil:
		return entries, nil
	case errors.Is(err, fs.ErrPermission):
		if name != "" && filepath.Base(dir) == "lost+found" {
			return nil, nil // a file system's own
		}
		err = fmt.Errorf("%w: it may be a stream, or hold some: run this as the user that records, or as root", err)
	}
	if name == "" || f.unreadable == nil {
		return nil, err
	}
	f.unreadable(dir, err)
	return nil, nil
}

// ValidName refuses what cannot name a stream below a root: *NameError.
func ValidName(name string) error {
	bad := func(reason string) error {
		if len(name) > 80 {
			name = strings.ToValidUTF8(name[:80], "") + "…"
		}
		return &NameError{Name: name, Reason: reason}
	}
	switch {
	case name == "":
		return bad("it is empty")
	case len(name) > 255:
		return bad("it is longer than 255 bytes")
	case strings.HasPrefix(name, "/"):
		return bad("it begins with a slash; names are relative to the storage")
	case strings.Count(name, "/") >= maxNameDepth:
		return bad(fmt.Sprintf("it has more than %d parts", maxNameDepth))
	}
	for _, r := range name {
		if r < 0x20 || r == 0x7f || r == '\\' || r == 0xFFFD {
			return bad("it has a control character, a backslash or is not UTF-8")
		}
	}
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "":
			return bad("it has an empty part; take out the double or last slash")
		case part[0] == '.':
			return bad("a part of it begins with a dot")
		case part == "m4f" && part != name:
			return bad(`"m4f" is a part of the addresses of the protocol`)
		}
	}
	return nil
}
