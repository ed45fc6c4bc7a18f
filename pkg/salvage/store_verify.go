package salvage

import (
	"errors"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// Verify reads the packets of each entry that is for segments of [from, to), and
// calls bad with each that is damaged (*CorruptError) or cannot be read
// (*StoreError). Of an entry whose own file is damaged nothing but the name is
// known, and it is read whatever the span. take is called with a number of bytes
// before they are read. An error of either function ends it.
func (s *Store) Verify(from, to m4f.UTC, take func(bytes int) error, bad func(e *Entry, err error) error) error {
	names, err := s.names()
	if err != nil {
		return err
	}
	for _, name := range names {
		e, err := s.readEntry(name) // from the disk, whatever is known of it
		switch {
		case errors.Is(err, ErrGone):
			continue
		case err != nil:
			e = &Entry{Name: name}
		case e.End() <= from || to != 0 && e.Start() >= to:
			continue
		default:
			if err := take(e.Len() * PacketSize); err != nil {
				return err
			}
			_, err = s.Read(*e)
		}
		if err == nil || errors.Is(err, ErrGone) {
			continue
		}
		if err := bad(e, err); err != nil {
			return err
		}
	}
	return nil
}
