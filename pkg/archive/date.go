package archive

import (
	"slices"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// agree is how far, in ticks, a date and the archive's own timeline may be
// apart for the archive's to be taken over.
const agree = m4f.Timescale

// DateOf returns the UTC that the archive's own timeline gives to a media time:
// the offset of the segment recorded last before near (and within half of the
// 33-bit wrap of it) carries over, if what it gives agrees with near to within
// a second. ok is false where the archive has no such timeline.
func (s *Stream) DateOf(media int64, near m4f.UTC) (utc m4f.UTC, ok bool, err error) {
	err = s.backward(near.Add(-m4f.Wrap/2), near.Add(agree), func(e *Element) bool {
		utc = e.UTC.Add(m4f.Diff33(media, e.MediaTime))
		ok = -agree <= utc-near && utc-near <= agree
		return false
	})
	return utc, ok, err
}

// backward calls fn with the elements of the view that begin at to or before, the
// latest first, back to the hour of from, until it returns false.
func (s *Stream) backward(from, to m4f.UTC, fn func(*Element) bool) error {
	hours, err := s.hours(from, to)
	if err != nil {
		return err
	}
	for _, h := range slices.Backward(hours) {
		els, err := s.viewOf(h)
		if err != nil {
			return err
		}
		for i := range slices.Backward(els) {
			if e := &els[i]; e.UTC <= to && !fn(e) {
				return nil
			}
		}
	}
	return nil
}

const (
	// mostLate is how much later than by the archive's timeline a source may be
	// heard that goes on with it.
	mostLate = 10 * m4f.Timescale
	// live is for how long an offset stays what it is: an encoder drifts.
	live = 5 * 60 * m4f.Timescale
)

// Resume returns the UTC that the archive's last timeline before near gives to a
// media time at which it goes on: not before the end of some segment of it that
// ended within the five minutes before near, so that one that begins anew with the
// same media times does not; and with near up to ten seconds after that UTC, or a
// second before. ok is false where none goes on so.
func (s *Stream) Resume(media int64, near m4f.UTC) (utc m4f.UTC, ok bool, err error) {
	var last m4f.UTC
	err = s.backward(near.Add(-live), near.Add(agree), func(e *Element) bool {
		at := e.UTC.Add(m4f.Diff33(media, e.MediaTime))
		if last == 0 {
			last = at
		}
		late, moved := int64(near-at), int64(at-last)
		if e.End() < near.Add(-live) || late < -agree || late > mostLate || moved < -agree || moved > agree {
			return false
		}
		if at >= e.End().Add(-contiguous) {
			utc, ok = at, true
		}
		return !ok
	})
	return utc, ok, err
}

// Redater dates a run of segments by the timeline of the archive that they go
// to, so that a recorder that was restarted goes on without a gap or overlap in
// UTC. Only headers change, never identities.
type Redater struct {
	s     *Stream
	began bool
	last  m4f.Header // as it came
	shift int64      // ticks added to what comes
}

// NewRedater returns a Redater for one run of segments.
func (s *Stream) NewRedater() *Redater { return &Redater{s: s} }

// Apply sets the UTC of the next segment of the run. Where a timeline begins it
// looks whether the archive has it already; from there on the run's own steps
// are kept.
func (r *Redater) Apply(h *m4f.Header) error {
	came := *h
	if !r.began || !sameTimeline(h.UTC, m4f.Diff33(h.MediaTime, r.last.MediaTime), r.last.UTC) {
		utc, ok, err := r.s.DateOf(h.MediaTime, h.UTC)
		if err != nil {
			return err
		}
		r.shift = 0
		if ok {
			r.shift = int64(utc - h.UTC)
		}
	}
	r.began, r.last = true, came
	h.UTC = h.UTC.Add(r.shift)
	return nil
}
