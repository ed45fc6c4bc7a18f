package replicate

import (
	"errors"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// sink adds segments of another archive to the own one. It belongs to one
// goroutine.
type sink struct {
	dst     *archive.Stream
	newest  m4f.UTC // end of the archive: what begins before it is healed, not replicated
	options archive.WriterOptions
	writers map[archive.Origin]*archive.Writer
}

func newSink(dst *archive.Stream, o archive.WriterOptions) *sink {
	return &sink{dst: dst, options: o, writers: map[archive.Origin]*archive.Writer{}}
}

// put adds a segment that the view wants; seg is nil where its media is here.
// Errors: *unwrittenError.
func (s *sink) put(w *archive.Want, seg *m4f.Segment) error {
	if w.Local {
		return unwritten(w, nil, s.writer(archive.Copied).Copy(w.Header))
	}
	origin := archive.Replicated
	if w.UTC < s.newest {
		origin = archive.Healed
	}
	return unwritten(w, seg, s.writer(origin).Append(seg))
}

func (s *sink) writer(o archive.Origin) *archive.Writer {
	w := s.writers[o]
	if w == nil {
		w = s.dst.Writer(o, 0, s.options)
		s.writers[o] = w
	}
	return w
}

// close makes everything durable.
func (s *sink) close() error {
	var err error
	for o, w := range s.writers {
		err = errors.Join(err, w.Close())
		delete(s.writers, o)
	}
	return err
}
