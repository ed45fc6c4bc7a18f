package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// Media is a stored copy of a segment, open for reading.
type Media struct {
	Record        // as it was asked for
	Init   []byte // ftyp and moov; shared, not to be modified
	File   *os.File
	Offset int64 // of the moof in File; Length bytes from there are the media

	s    *Stream
	at   location
	f    fsx.File
	path string
}

// Close closes the file.
func (m *Media) Close() error { return m.f.Close() }

// Section returns a reader of moof and mdat.
func (m *Media) Section() *io.SectionReader {
	return io.NewSectionReader(m.f, m.Offset, int64(m.Length))
}

// Read returns the segment with its identities verified, or a *CorruptError. A
// segment whose bytes are wrong, twice, is set aside where the archive can be
// written: nobody is offered it again, and a peer heals it. One that the disk
// cannot read is not: it may be read later.
func (m *Media) Read() (*m4f.Segment, error) {
	seg := &m4f.Segment{Header: m.Header, Init: m.Init, Media: make([]byte, m.Length)}
	_, err := m.f.ReadAt(seg.Media, m.Offset)
	if err == nil {
		if err = seg.Verify(); err == nil {
			return seg, nil
		}
		err = &bytesError{err}
	}
	return nil, m.s.corrupt(err, m.at, m.ID)
}

// Check reads the segment and compares it with its identity, as Read does, in
// little memory. Errors: *CorruptError.
func (m *Media) Check() error {
	r := indexRecord{Record: m.Record, number: m.at.number, offset: m.at.offset}
	if err := checkBytes(context.Background(), m.f, m.Init, &r, make([]byte, 256<<10), nil); err != nil {
		return m.s.corrupt(err, m.at, m.ID)
	}
	return nil
}

// corrupt looks into a segment that did not read well, and returns the error for
// the reader.
func (s *Stream) corrupt(err error, at location, id m4f.Identity) error {
	if isDamage(err) {
		_, _ = s.condemn(at, id) // where it cannot be set aside the reader is told all the same
	}
	return &CorruptError{Path: s.extentPath(at.hour, at.name, mediaExt), Offset: at.offset, Err: err}
}

// OpenMedia opens the segment of an identity. near is a UTC at about which it
// begins, or 0 where that is not known: then hours are searched from the newest
// to the oldest. ErrNoSegment says that there is none.
func (s *Stream) OpenMedia(id m4f.Identity, near m4f.UTC) (*Media, error) {
	return s.openCopy(id, near, make(map[location]bool))
}

// openCopy opens a copy that was not tried yet, the first that can be opened, and
// notes which were. Where there is none more it returns ErrNoSegment, or why the
// last one could not be opened.
func (s *Stream) openCopy(id m4f.Identity, near m4f.UTC, tried map[location]bool) (*Media, error) {
	for last := error(nil); ; {
		r, err := s.lookup(id, near, tried)
		if err != nil {
			if last != nil && errors.Is(err, ErrNoSegment) {
				err = last
			}
			return nil, err
		}
		m, err := s.openAt(&r.Record, r.at)
		tried[r.at] = true
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) && !errors.Is(err, ErrNoSegment) {
			return m, err
		}
		last = err
	}
}

// OpenElement opens an element that this Stream returned.
func (s *Stream) OpenElement(e *Element) (*Media, error) {
	m, err := s.openAt(&e.Record, e.at)
	if err == nil {
		return m, nil
	}
	var corrupt *CorruptError
	if errors.Is(err, ErrNoSegment) || errors.As(err, &corrupt) { // there may be another copy
		if again, aerr := s.openCopy(e.ID, e.UTC, map[location]bool{e.at: true}); aerr == nil {
			return again, nil
		}
	}
	return m, err
}

// ReadSegment reads the segment of an identity and verifies it. The header is
// that of the copy that was read. Errors: ErrNoSegment, *CorruptError.
func (s *Stream) ReadSegment(id m4f.Identity, near m4f.UTC) (*m4f.Segment, error) {
	tried := make(map[location]bool)
	for bad := error(nil); ; {
		m, err := s.openCopy(id, near, tried)
		if err != nil {
			if bad != nil && errors.Is(err, ErrNoSegment) {
				err = bad
			}
			return nil, err
		}
		seg, err := m.Read()
		m.Close()
		if err == nil {
			return seg, nil
		}
		bad = err // there may be another copy
	}
}

// ReadElement reads and verifies an element that this Stream returned. The
// header has the element's flags, counts and UTC.
func (s *Stream) ReadElement(e *Element) (*m4f.Segment, error) {
	m, err := s.OpenElement(e)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	seg, err := m.Read()
	if err != nil { // there may be another copy, such as one that a peer has healed
		if again, aerr := s.ReadSegment(e.ID, e.UTC); aerr == nil {
			seg, err = again, nil
		}
	}
	if err == nil {
		seg.Header = e.Header
	}
	return seg, err
}

// Has says whether the archive holds a segment, at any time near (0: at all).
func (s *Stream) Has(id m4f.Identity, near m4f.UTC) (bool, error) {
	_, err := s.lookup(id, near, nil)
	if errors.Is(err, ErrNoSegment) {
		return false, nil
	}
	return err == nil, err
}

// Present says whether the archive holds this occurrence of a segment already,
// and knows it to be as good: adding it would change nothing.
func (s *Stream) Present(h *m4f.Header) (bool, error) {
	if _, err := s.hours(h.UTC, h.UTC.Add(1)); err != nil { // takes note of changes
		return false, err
	}
	var mine judgement
	found := false
	for at := hourOf(h.UTC) - 1; at <= hourOf(h.UTC)+1; at++ {
		recs, err := s.recordsIn(at)
		if err != nil {
			return false, err
		}
		for i := range recs {
			r := &recs[i]
			if r.ID != h.ID || r.UTC-h.UTC >= occurrence || h.UTC-r.UTC >= occurrence {
				continue
			}
			if !found {
				mine, found = judge(&r.Header), true
			}
			mine.improve(&r.Header)
		}
	}
	return found && judge(h).compare(mine) >= 0, nil
}

func (s *Stream) recordsIn(h hour) ([]stored, error) {
	c := &s.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	v, err := c.versionOf(h)
	if err != nil {
		return nil, err
	}
	return c.recordsOf(h, v)
}

// lookup finds a copy of a segment that is not one of those tried.
func (s *Stream) lookup(id m4f.Identity, near m4f.UTC, tried map[location]bool) (stored, error) {
	hours, err := s.hours(0, 0)
	if err != nil {
		return stored{}, err
	}
	if near != 0 {
		h := hourOf(near)
		for _, h := range []hour{h, h - 1, h + 1} {
			if r, ok, err := s.lookupIn(h, id, tried); ok || err != nil {
				return r, err
			}
		}
	}
	for _, h := range slices.Backward(hours) {
		if r, ok, err := s.lookupIn(h, id, tried); ok || err != nil {
			return r, err
		}
	}
	return stored{}, fmt.Errorf("%w: %s", ErrNoSegment, id)
}

func (s *Stream) lookupIn(h hour, id m4f.Identity, tried map[location]bool) (stored, bool, error) {
	recs, err := s.recordsIn(h)
	for i := range recs {
		if recs[i].ID == id && !tried[recs[i].at] {
			return recs[i], true, err
		}
	}
	return stored{}, false, err
}

// openAt opens a copy at a place that is known. The header there must be that
// segment's; where it is not, the bytes behind it decide.
func (s *Stream) openAt(r *Record, at location) (*Media, error) {
	path := s.extentPath(at.hour, at.name, mediaExt)
	f, err := fsx.Open(s.fs, path)
	if isNotExist(err) {
		s.cache.doubt(at.hour)
		return nil, fmt.Errorf("%w: %s", ErrNoSegment, r.ID)
	}
	if err != nil {
		return nil, err
	}
	m := &Media{Record: *r, File: f.OS(), Offset: at.offset + m4f.HeaderBoxSize, s: s, at: at, f: f, path: path}
	if m.Init, err = s.inits.read(f, at.initLength, r.Init); err != nil {
		f.Close()
		return nil, s.corrupt(err, at, r.ID)
	}
	if h, err := readHeaderAt(f, at.offset); err != nil || h.ID != r.ID || h.Length != r.Length {
		if err := m.Check(); err != nil {
			f.Close()
			return nil, err
		}
	}
	return m, nil
}

func readHeaderAt(f fsx.File, off int64) (m4f.Header, error) {
	var b [m4f.HeaderBoxSize]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		return m4f.Header{}, err
	}
	return m4f.ParseHeaderBox(b[:])
}

// initCache keeps the last init segments of a stream, which change seldom.
type initCache struct {
	mu   sync.Mutex
	last []cachedInit
}

type cachedInit struct {
	id    m4f.Identity
	bytes []byte
}

const keepInits = 4

// read returns the init segment at the start of an extent, verified.
func (c *initCache) read(f fsx.File, length uint32, id m4f.Identity) ([]byte, error) {
	if b, ok := c.get(id); ok {
		return b, nil
	}
	b, err := readInit(f, length, id)
	if err != nil {
		return nil, err
	}
	c.put(b, id)
	return b, nil
}

func (c *initCache) get(id m4f.Identity) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.last {
		if x.id == id {
			return x.bytes, true
		}
	}
	return nil, false
}

// readInit reads and verifies the init segment at the start of an extent.
func readInit(f fsx.File, length uint32, id m4f.Identity) ([]byte, error) {
	if length == 0 || length > m4f.MaxInit {
		return nil, &initError{fmt.Sprintf("init segment of %d bytes", length)}
	}
	b := make([]byte, length)
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, err
	}
	if got := m4f.Identify(b, nil); got != id {
		return nil, &initError{fmt.Sprintf("init segment %.16s is corrupt: its bytes are those of %.16s", id, got)}
	}
	return b, nil
}

func (c *initCache) put(b []byte, id m4f.Identity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.last) >= keepInits {
		c.last = c.last[1:]
	}
	c.last = append(c.last, cachedInit{id, b})
}
