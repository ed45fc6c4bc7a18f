package segment

import (
	"fmt"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
)

// SetProgram puts a program map in force whose access units come by WriteUnit,
// as those of a source do that is no transport stream. A Segmenter takes either
// bytes or units, not both. The map is kept and must not change.
func (s *Segmenter) SetProgram(p *mpegts.Program) {
	s.unitNumber++
	(*handler)(s).Program(p, s.unitNumber, false)
}

// WriteUnit takes the next access unit of the program set, whole, in the order
// of decoding; u.Track is one of the program's, First and PES are filled in. A
// unit of a track that the program does not have is passed over, and so is one
// of audio or video without a time.
func (s *Segmenter) WriteUnit(u *mpegts.Unit, arrived time.Time) {
	s.now = m4f.UTCOf(arrived)
	if s.program == nil || u.Track == nil || !hasPID(s.program, u.Track.PID) {
		u.Release()
		return
	}
	s.unitNumber++
	pid := u.Track.PID
	s.unitPES[pid]++
	u.First, u.PES = s.unitNumber, s.unitPES[pid]
	if u.Track.Kind == mpegts.Video && u.Dated {
		(*handler)(s).VideoHeader(u.Track, u.DTS, u.PES)
	}
	(*handler)(s).Unit(u)
}

// LostUnits says that access units of a track may be missing just here, or
// that the next of it lacks its beginning; one that lacks its end comes first.
// n packets or units of the source are known to be missing. PID 0 is every
// track: it is not known which. Units that are not whole are Marked.
func (s *Segmenter) LostUnits(pid uint16, n int) {
	if s.lead == nil {
		return
	}
	l := mpegts.Loss{Lost: max(n, 1)}
	if pid != s.lead.PID || s.lead.Kind != mpegts.Video {
		if pid != 0 {
			if l.Track = s.program.Track(pid); l.Track == nil {
				return
			}
		}
		(*handler)(s).Loss(l)
	} else {
		s.flagUnfinished(l.Lost, 0)
	}
	if pid == 0 || pid == s.lead.PID {
		s.loseLead()
	}
}

// loseLead notes that pictures may be missing behind the last, a keyframe
// among them: a rhythm that goes on says nothing of what the next lacks.
func (s *Segmenter) loseLead() {
	if s.lead.Kind == mpegts.Video && s.rhythm.dated {
		s.note(&loss{pid: s.lead.PID, lead: true, dated: true, untyped: true, pes: s.leadPES, until: s.received + forget})
	}
}

// Splice says that what was written so far is whole and what follows begins
// anew: continuity counters are not compared across this place.
func (s *Segmenter) Splice() { s.dmx.Splice() }

// diagnoseUnits is Diagnose for access units.
func (s *Segmenter) diagnoseUnits() error {
	switch {
	case s.lead == nil:
		return fmt.Errorf("%w of a known type (stream types %s)", ErrNoTrack, streamTypes(s.program))
	case s.unitPES[s.lead.PID] == 0:
		return fmt.Errorf("%w: no picture or frame has come on PID %d, the leading track", ErrNoKeyframe, s.lead.PID)
	}
	return fmt.Errorf("%w with its own parameter sets on PID %d in %d pictures", ErrNoKeyframe, s.lead.PID, s.unitPES[s.lead.PID])
}
