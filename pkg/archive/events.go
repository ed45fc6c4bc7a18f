package archive

import (
	"os"
	"path/filepath"
	"slices"

	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// maxEvents bounds how much of an hour's events is read, in bytes. A flood
// beyond it is not written either.
const maxEvents = 16 << 20

// Note adds an event to those of the hour of its time: one line, in one write.
// A zero Time is now. Events before the horizon are left out.
func (s *Stream) Note(e event.Event) error {
	if e.Time.IsZero() {
		e.Time = s.clock.Now()
	}
	if e.Stream == "" {
		e.Stream = s.Name()
	}
	line, err := e.AppendLine(nil)
	if err != nil {
		return err
	}
	exists, err := s.reach()
	if err != nil {
		return err
	}
	h := hourOf(m4f.UTCOf(e.Time))
	if h < 0 || !exists.has(h) {
		return nil
	}
	if err := fsx.MkdirAll(s.fs, s.hourDir(h), dirPerm); err != nil {
		return s.writeError(err)
	}
	s.cache.know(h)
	name := filepath.Join(s.hourDir(h), eventsName)
	f, err := s.fs.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, filePerm)
	if err != nil {
		return &WriteError{Path: name, Err: err}
	}
	s.owner.Give(f)
	if st, serr := f.Stat(); serr == nil && st.Size()+int64(len(line)) > maxEvents {
		return f.Close()
	}
	_, err = f.Write(line)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return &WriteError{Path: name, Err: err}
	}
	return nil
}

// report notes an event that the archive itself tells of.
func (s *Stream) report(e event.Event) error {
	if s.event != nil {
		if e.Time.IsZero() {
			e.Time = s.clock.Now()
		}
		e.Stream = s.Name()
		s.event(e)
	}
	return s.Note(e)
}

// Events returns the events of [from, to) in order of time; to 0 is the end.
func (s *Stream) Events(from, to m4f.UTC) ([]event.Event, error) {
	hours, err := s.hours(from, to)
	if err != nil {
		return nil, err
	}
	var out []event.Event
	for _, h := range hours {
		b, err := fsx.ReadFile(s.fs, filepath.Join(s.hourDir(h), eventsName), maxEvents)
		if isNotExist(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, e := range event.Parse(b) {
			if u := m4f.UTCOf(e.Time); u >= from && (to == 0 || u < to) {
				out = append(out, e)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b event.Event) int { return a.Time.Compare(b.Time) })
	return out, nil
}
