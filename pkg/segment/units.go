package segment

import (
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
)

// SetProgram puts a program map in force whose access units come by WriteUnit,
// as those of a source do that is no transport stream. A Segmenter takes either
// bytes or units, not both.
func (s *Segmenter) SetProgram(p *mpegts.Program) {
	s.unitNumber++
	(*handler)(s).Program(p, s.unitNumber, false)
}

// WriteUnit takes the next access unit of the program set, whole, in the order
// of decoding; u.Track is one of the program's, First and PES are filled in.
func (s *Segmenter) WriteUnit(u *mpegts.Unit, arrived time.Time) {
	s.now = m4f.UTCOf(arrived)
	if s.program == nil {
		return
	}
	s.unitNumber++
	pid := u.Track.PID
	s.unitPES[pid]++
	u.First, u.PES = s.unitNumber, s.unitPES[pid]
	if u.Track.Kind == mpegts.Video {
		(*handler)(s).VideoHeader(u.Track, u.DTS, u.PES)
	}
	(*handler)(s).Unit(u)
}

// Splice says that what was written so far is whole and what follows begins
// anew: continuity counters are not compared across this place.
func (s *Segmenter) Splice() { s.dmx.Splice() }
