package segment

import (
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
)

// loss is a place where packets are missing, or may be. It damages every
// segment between the last whole frame before it and the first after it on its
// PID. Flagging too much does no harm: of several copies of one segment the
// best flags count.
type loss struct {
	pid           uint16
	at            int64 // number of the packet that showed it; see Config.Salvage
	from, to      int64 // PTS of the frames around it
	hasFrom       bool
	hasTo         bool
	jumped        bool // the track's time jumps at to
	lost, errored int
	until         int64 // leading time received at which it ends whatever comes
	// Of the leading video track:
	lead    bool
	pes     int64 // PES headers seen before it
	dated   bool  // there was one
	untyped bool  // the picture it cut may be a keyframe
	judged  bool  // the next PES header has come
	regular bool  // ... and its DTS shows that no picture is missing
	beside  bool  // another track showed it
}

// rhythm watches the DTS steps of the leading video track.
type rhythm struct {
	last    int64
	dated   bool
	step    int64 // smallest step seen, ticks
	regular int   // steps in a row that fit it
	begins  int64 // DTS behind the last step forward that began a timeline
	leapt   bool  // there was one
}

// leapt is how long behind a step forward a loss on another track may lie at it, in ticks:
// each is heard again by then.
const leapt = 2 * m4f.Timescale

// nearLeap says whether a step forward that began a timeline was just before.
func (r *rhythm) nearLeap() bool {
	d := m4f.Diff33(r.last, r.begins)
	return r.leapt && 0 <= d && d <= leapt
}

// Loss implements mpegts.Handler.
func (h *handler) Loss(l mpegts.Loss) {
	s := (*Segmenter)(h)
	if s.lead == nil {
		return
	}
	if s.kept != nil && l.Track != nil {
		s.kept.notice(l.Before)
	}
	if l.Track == nil {
		s.doubt(l.Lost, l.Errored)
		if l.Lost > 0 {
			s.loseAll()
		}
		return
	}
	r := &loss{pid: l.Track.PID, lost: l.Lost, errored: l.Errored, from: l.LastPTS, hasFrom: l.Dated, until: s.received + forget}
	if s.lead.Kind == mpegts.Video && l.Track.PID == s.lead.PID {
		r.lead, r.pes, r.dated, r.untyped = true, l.PES, l.Dated, l.Untyped
	} else if t := s.track(l.Track.PID); t.last != nil {
		r.from, r.hasFrom = t.last.PTS, true
	}
	s.note(r)
	if r.lead {
		s.flagUnfinished(l.Lost, l.Errored)
	} else {
		s.doubt(l.Lost, l.Errored)
	}
}

// note remembers a loss. Where there are too many to tell apart, everything is
// damaged for as long as one of them could reach.
func (s *Segmenter) note(l *loss) {
	if len(s.losses) == maxLosses {
		clear(s.losses)
		s.losses = s.losses[:0]
		s.swamp(2 * forget)
	}
	if s.kept != nil {
		l.at = s.kept.n - 1
	}
	s.losses = append(s.losses, l)
}

// swamp damages what is unfinished and all that opens within a time.
func (s *Segmenter) swamp(ticks int64) {
	s.swamped = max(s.swamped, s.received+ticks)
	s.flagUnfinished(0, 0)
}

// loseAll notes a loss on every track: whole datagrams are missing and it is
// not known whose.
func (s *Segmenter) loseAll() {
	for pid, t := range s.tracks {
		if t.last != nil && (pid != s.lead.PID || s.lead.Kind != mpegts.Video) {
			s.note(&loss{pid: pid, from: t.last.PTS, hasFrom: true, until: s.received + forget})
		}
	}
}

// loseUnheard notes a loss on every track of which nothing has been heard.
func (s *Segmenter) loseUnheard() {
	for k := range s.program.Tracks {
		t := &s.program.Tracks[k]
		if st := s.tracks[t.PID]; t.PID != s.lead.PID && (st == nil || st.last == nil) {
			s.note(&loss{pid: t.PID, until: s.received + forget})
		}
	}
}

// doubt flags what is unfinished, and notes that pictures of the leading track
// may be missing too. Behind a step forward that began a timeline no step to come shows that none
// is: packets may have been lost for as long as the step, and the leading track's counter
// happen to go on.
func (s *Segmenter) doubt(lost, errored int) {
	s.flagUnfinished(lost, errored)
	if s.lead.Kind == mpegts.Video && s.rhythm.dated {
		s.note(&loss{pid: s.lead.PID, lead: true, dated: true, beside: true, judged: s.rhythm.nearLeap(), pes: s.leadPES, until: s.received + forget})
	}
}

// flagUnfinished damages every begun and unfinished segment.
func (s *Segmenter) flagUnfinished(lost, errored int) {
	if s.cur != nil {
		s.cur.unsure = true
		s.cur.lost += lost
		s.cur.errored += errored
	}
	for _, o := range s.next {
		o.unsure = true
		o.lost += lost
		o.errored += errored
	}
}

// unheard says whether packets of the segment that o ends may be missing whose
// PID has not been heard since they were lost, so that its counter could not
// tell. A track that has passed the end was heard behind whatever is missing.
func (s *Segmenter) unheard(o *opening) bool {
	if s.dropped == 0 || s.cur.f.First >= s.dropped && s.received >= s.dropUntil {
		return false
	}
	for k := range s.program.Tracks {
		t := &s.program.Tracks[k]
		st := s.tracks[t.PID]
		passed := t.PID == s.lead.PID || t.Kind != mpegts.Data && !o.jump && st != nil && st.hasMax && m4f.Diff33(st.max, o.f.PTS) >= 0
		if !passed && !s.dmx.Heard(t.PID, s.dropped) {
			return true
		}
	}
	return false
}

// leadHeader judges the losses before a picture by its DTS, and finds losses
// by a step that breaks a rhythm.
func (s *Segmenter) leadHeader(dts int64) {
	r := &s.rhythm
	if r.dated {
		d := m4f.Diff33(dts, r.last)
		fits := d > 0 && 2*d <= 3*r.step
		seen := false // a loss that the counter shows
		for _, l := range s.losses {
			if l.lead && !l.judged {
				l.judged, seen = true, true
				l.regular = l.dated && r.step > 0 && fits && !l.untyped
			}
		}
		if r.step > 0 {
			if fits {
				r.regular++
			} else {
				// A jump begins a timeline and is no loss.
				if r.regular >= regularRun && d >= 0 && d <= jumpAhead {
					if !seen {
						s.hole(mpegts.Hidden) // too few steps may be kept to tell it again
					}
					s.flagUnfinished(0, 0)
					s.note(&loss{pid: s.lead.PID, lead: true, dated: true, judged: true, pes: s.leadPES, until: s.received + forget})
				}
				r.regular = 0
			}
		}
		if d > jumpAhead {
			r.begins, r.leapt = dts, true
		}
		if d > 0 && (r.step == 0 || d < r.step) {
			r.step = d
		}
	}
	r.last, r.dated = dts, true
}

// endLosses closes the losses that f is the first whole frame after.
func (s *Segmenter) endLosses(f *frame) {
	for _, l := range s.losses {
		if l.hasTo || l.pid != f.Track.PID || l.hasFrom && f.PTS == l.from {
			continue
		}
		if l.lead && (f.Marked || l.beside) && !f.Key && f.PES <= l.pes {
			continue // the picture that was cut, or may have been
		}
		l.to, l.hasTo, l.jumped = f.PTS, true, f.jump
	}
}

// hidden says whether a keyframe in f's bucket may have been lost before f.
func (s *Segmenter) hidden(f *frame) bool {
	since := s.basePES
	if s.prevKey != nil {
		since = s.prevKey.PES
	} else if !s.awaitKey {
		return false // the first keyframe seen, of a partial segment
	}
	for _, l := range s.losses {
		if !l.lead || l.pes < since || l.regular {
			continue
		}
		if !l.hasTo || l.to == f.PTS {
			return true
		}
		after := (l.to + margin) & (m4f.Wrap - 1)
		if s.bucket(after) == s.bucket(f.PTS) || m4f.Diff33(after, f.PTS) > 0 {
			return true
		}
	}
	return false
}

// harms says whether a loss damages the segment [start, end) whose leading
// pictures have PES numbers from first up to before last.
func (l *loss) harms(start, end, first, last int64) bool {
	if l.lead {
		if l.regular {
			return l.pes >= first && l.pes < last
		}
		return l.pes < last && l.pes+1 >= first || l.pes+1 == last
	}
	before := !l.hasFrom || m4f.Diff33(l.from, end) < 0
	after := !l.hasTo || m4f.Diff33(l.to, start) >= 0
	if l.jumped { // the two times are of different timelines
		return before || after
	}
	return before && after
}

// forgetLosses drops the losses that can harm nothing from the opening on.
func (s *Segmenter) forgetLosses(o *opening) {
	keep := s.losses[:0]
	for _, l := range s.losses {
		if !l.hasTo && !l.lead && s.received >= l.until {
			l.hasTo, l.to = true, o.f.PTS // it has been waited for long enough
			continue
		}
		if l.lead {
			oldest := o.f.PES
			if s.prevKey != nil {
				oldest = min(oldest, s.prevKey.PES)
			} else {
				oldest = min(oldest, s.basePES)
			}
			if l.judged && l.pes+1 < oldest {
				continue
			}
		} else if l.hasTo {
			if m4f.Diff33(l.to, o.f.PTS) < 0 {
				continue
			}
			if s.received >= l.until+forget && l.until > 0 {
				continue
			}
		}
		keep = append(keep, l)
	}
	clear(s.losses[len(keep):])
	s.losses = keep
}
