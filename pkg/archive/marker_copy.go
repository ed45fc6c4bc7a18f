package archive

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/twindvr/twindvr/pkg/fsx"
)

// markerCopyName is a second copy of the marker. Without it one bad sector would
// make an archive of days unreadable, and one bit turned in the horizon empty it.
const markerCopyName = "stream.copy.json"

// markerCRC is what a marker has where its checksum will be, while that is made.
const noCRC = "00000000"

// encode is the marker as JSON, with a CRC over all of it.
func (m *marker) encode() ([]byte, error) {
	c := *m
	c.CRC = noCRC
	b, err := json.MarshalIndent(&c, "", "  ")
	if err != nil {
		return nil, err
	}
	b = append(b, '\n')
	i := bytes.LastIndex(b, []byte(`"`+noCRC+`"`))
	copy(b[i+1:], fmt.Sprintf("%08x", crc(b)))
	return b, nil
}

// checkCRC says whether the bytes of a marker are what they were. Those of earlier
// versions have no CRC.
func (m *marker) checkCRC(b []byte) error {
	if m.CRC == "" {
		return nil
	}
	b = bytes.Clone(b)
	i := bytes.LastIndex(b, []byte(`"`+m.CRC+`"`))
	if len(m.CRC) != len(noCRC) || i < 0 {
		return errors.New("its checksum is damaged")
	}
	copy(b[i+1:], noCRC)
	if got := fmt.Sprintf("%08x", crc(b)); got != m.CRC {
		return fmt.Errorf("its checksum is %s, its bytes have %s", m.CRC, got)
	}
	return nil
}

// damagedError says that a marker cannot be understood, or is not what it was.
type damagedError struct{ err error }

func (e *damagedError) Error() string { return e.err.Error() }
func (e *damagedError) Unwrap() error { return e.err }

// readMarker reads and checks stream.json, and its copy where it is damaged. Where
// there is no stream.json the error is fs.ErrNotExist's.
func readMarker(fsys fsx.FS, dir string) (*marker, error) {
	m, err := readMarkerFile(fsys, dir, markerName)
	var damaged *damagedError
	if errors.As(err, &damaged) || errors.Is(err, syscall.EIO) {
		if c, cerr := readMarkerFile(fsys, dir, markerCopyName); cerr == nil {
			return c, nil
		}
	}
	if damaged != nil {
		return nil, damaged.err
	}
	return m, err
}

// copyMarker writes the copy. The archive is as good without it.
func (s *Stream) copyMarker(b []byte) error {
	err := fsx.Publish(s.fs, filepath.Join(s.dir, markerCopyName), b, filePerm, s.owner)
	if errors.Is(err, fsx.ErrCrashed) {
		return err
	}
	return nil
}

// restoreMarker makes stream.json of its copy, where it was deleted: nothing else
// ever makes the copy alone. It says whether stream.json is there.
func restoreMarker(fsys fsx.FS, dir string) bool {
	m, err := readMarkerFile(fsys, dir, markerCopyName)
	if err != nil {
		return false
	}
	b, err := m.encode()
	if err != nil {
		return false
	}
	err = fsx.PublishNew(fsys, filepath.Join(dir, markerName), b, filePerm, fsx.OwnerOf(fsys, dir))
	return err == nil || errors.Is(err, fs.ErrExist) // another was quicker
}

// marker verifies stream.json and its copy.
func (v *verifier) marker() error {
	s := v.s
	m, err := s.marker()
	if err != nil {
		return err
	}
	want, err := m.encode()
	if err != nil {
		return err
	}
	for _, name := range []string{markerName, markerCopyName} {
		path := filepath.Join(s.dir, name)
		b, err := fsx.ReadFile(s.fs, path, maxMarker)
		if err == nil && bytes.Equal(b, want) {
			continue
		}
		if err != nil && !isNotExist(err) && !isDamage(err) && !isUnreadable(err) && !errors.Is(err, fsx.ErrTooLong) {
			return err
		}
		done := Left
		if !v.o.ReadOnly {
			s.changing.Lock()
			if now, lerr := s.marker(); lerr == nil && *now == *m && fsx.Publish(s.fs, path, want, filePerm, s.owner) == nil {
				done = Mended
			}
			s.changing.Unlock()
		}
		_, ferr := readMarkerFile(s.fs, s.dir, name)
		was := &marker{}
		if json.Unmarshal(b, was) == nil && was.CRC == "" || was.checkCRC(b) == nil && ferr == nil || isNotExist(err) && name == markerCopyName {
			continue // an earlier version's, or a copy that is a little old or missing
		}
		v.found(Damage{Path: path, Kind: BadOther, Why: "it is damaged", Bytes: int64(len(b)), Done: done})
	}
	return nil
}
