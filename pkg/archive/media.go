package archive

import (
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
	Record        // of the copy; an element's flags may be better
	Init   []byte // ftyp and moov; shared, not to be modified
	File   *os.File
	Offset int64 // of the moof in File; Length bytes from there are the media

	f    fsx.File
	path string
}

// Close closes the file.
func (m *Media) Close() error { return m.f.Close() }

// Section returns a reader of moof and mdat.
func (m *Media) Section() *io.SectionReader {
	return io.NewSectionReader(m.f, m.Offset, int64(m.Length))
}

// Read returns the segment with its identities verified, or a *CorruptError.
func (m *Media) Read() (*m4f.Segment, error) {
	seg := &m4f.Segment{Header: m.Header, Init: m.Init, Media: make([]byte, m.Length)}
	if _, err := m.f.ReadAt(seg.Media, m.Offset); err != nil {
		return nil, &CorruptError{Path: m.path, Offset: m.Offset, Err: err}
	}
	if err := seg.Verify(); err != nil {
		return nil, &CorruptError{Path: m.path, Offset: m.Offset, Err: err}
	}
	return seg, nil
}

// OpenMedia opens the segment of an identity. near is a UTC at about which it
// begins, or 0 where that is not known: then hours are searched from the newest
// to the oldest. ErrNoSegment says that there is none.
func (s *Stream) OpenMedia(id m4f.Identity, near m4f.UTC) (*Media, error) {
	r, err := s.lookup(id, near)
	if err != nil {
		return nil, err
	}
	return s.openAt(&r.Record, r.at)
}

// OpenElement opens an element that this Stream returned.
func (s *Stream) OpenElement(e *Element) (*Media, error) {
	m, err := s.openAt(&e.Record, e.at)
	if errors.Is(err, ErrNoSegment) {
		return s.OpenMedia(e.ID, e.UTC) // that copy is gone; there may be another
	}
	return m, err
}

// ReadSegment reads the segment of an identity and verifies it. The header is
// that of the copy that was read. Errors: ErrNoSegment, *CorruptError.
func (s *Stream) ReadSegment(id m4f.Identity, near m4f.UTC) (*m4f.Segment, error) {
	m, err := s.OpenMedia(id, near)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	return m.Read()
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
	if err == nil {
		seg.Header = e.Header
	}
	return seg, err
}

// Has says whether the archive holds a segment, at any time near (0: at all).
func (s *Stream) Has(id m4f.Identity, near m4f.UTC) (bool, error) {
	_, err := s.lookup(id, near)
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

// lookup finds a copy of a segment.
func (s *Stream) lookup(id m4f.Identity, near m4f.UTC) (stored, error) {
	hours, err := s.hours(0, 0)
	if err != nil {
		return stored{}, err
	}
	if near != 0 {
		h := hourOf(near)
		for _, h := range []hour{h, h - 1, h + 1} {
			if r, ok, err := s.lookupIn(h, id); ok || err != nil {
				return r, err
			}
		}
	}
	for _, h := range slices.Backward(hours) {
		if r, ok, err := s.lookupIn(h, id); ok || err != nil {
			return r, err
		}
	}
	return stored{}, fmt.Errorf("%w: %s", ErrNoSegment, id)
}

func (s *Stream) lookupIn(h hour, id m4f.Identity) (stored, bool, error) {
	recs, err := s.recordsIn(h)
	for i := range recs {
		if recs[i].ID == id {
			return recs[i], true, err
		}
	}
	return stored{}, false, err
}

// openAt opens a copy at a place that is known. The header there must be that
// segment's: it is read again.
func (s *Stream) openAt(r *Record, at location) (*Media, error) {
	path := s.extentPath(at.hour, at.name, mediaExt)
	f, err := fsx.Open(s.fs, path)
	if isNotExist(err) {
		return nil, fmt.Errorf("%w: %s", ErrNoSegment, r.ID)
	}
	if err != nil {
		return nil, err
	}
	m := &Media{Record: *r, File: f.OS(), Offset: at.offset + m4f.HeaderBoxSize, f: f, path: path}
	if m.Header, err = readHeaderAt(f, at.offset); err == nil && m.ID != r.ID {
		err = fmt.Errorf("segment %s is there, not %s", m.ID, r.ID)
	}
	if err == nil {
		m.Init, err = s.inits.read(f, at.initLength, m.Header.Init)
	}
	if err != nil {
		f.Close()
		return nil, &CorruptError{Path: path, Offset: at.offset, Err: err}
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
	c.mu.Lock()
	for _, x := range c.last {
		if x.id == id {
			c.mu.Unlock()
			return x.bytes, nil
		}
	}
	c.mu.Unlock()
	if length == 0 || length > m4f.MaxInit {
		return nil, fmt.Errorf("init segment of %d bytes", length)
	}
	b := make([]byte, length)
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, err
	}
	if got := m4f.Identify(b, nil); got != id {
		return nil, fmt.Errorf("init segment %s is there, not %s", got, id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.last) >= keepInits {
		c.last = c.last[1:]
	}
	c.last = append(c.last, cachedInit{id, b})
	return b, nil
}
