package segment

import (
	"math"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
)

// isComplete says whether nothing more can come for the segment that the first
// waiting opening ends: every video and audio track has delivered something at
// or past the end, or the leading track has passed it by 5 s.
func (s *Segmenter) isComplete() bool {
	first := s.next[0]
	var jump *opening
	for _, o := range s.next {
		if o.jump {
			jump = o
			break
		}
	}
	if jump == nil {
		return s.passed(first.f.PTS)
	}
	if s.received-jump.f.received >= latest || s.added-jump.at > maxWait {
		return true
	}
	split := s.splits(jump)
	for k := range s.program.Tracks {
		t := &s.program.Tracks[k]
		if t.Kind == mpegts.Data || t.PID == s.lead.PID {
			continue
		}
		if !s.delivered(t.PID, first, jump, split) {
			return false
		}
	}
	return true
}

// passed says whether the tracks have passed a time of the present timeline.
func (s *Segmenter) passed(end int64) bool {
	all := true
	for k := range s.program.Tracks {
		t := &s.program.Tracks[k]
		if t.Kind == mpegts.Data {
			continue
		}
		st := s.tracks[t.PID]
		has := st != nil && st.hasMax
		d := int64(-1)
		if has {
			d = m4f.Diff33(st.max, end)
		}
		if t.PID == s.lead.PID && d >= latest {
			return true
		}
		all = all && d >= 0
	}
	return all
}

// delivered says whether a track has a frame that belongs behind the first
// opening, where a jump of the leading track is pending.
func (s *Segmenter) delivered(pid uint16, first, jump *opening, split map[uint16]int) bool {
	at, jumped := split[pid]
	for k, f := range s.buf {
		if f.Track.PID != pid {
			continue
		}
		behind := jumped && k >= at
		if !jumped && f.orphan {
			behind = nearer(f, jump)
		}
		if behind || !first.jump && m4f.Diff33(f.PTS, first.f.PTS) >= 0 && !(jumped && k >= at) {
			return true
		}
	}
	return false
}

// splits finds, for each track but the leading one, the frame in the buffer at
// which its own time jumps along with the leading track's: by as much, or to
// where the new timeline begins.
func (s *Segmenter) splits(jump *opening) map[uint16]int {
	m := map[uint16]int{}
	for k, f := range s.buf {
		if !f.jump || f.Track.PID == s.lead.PID || !alike(f, jump) && !nearer(f, jump) {
			continue
		}
		if _, ok := m[f.Track.PID]; !ok {
			m[f.Track.PID] = k
		}
	}
	for pid, t := range s.tracks {
		if _, ok := m[pid]; !ok && t.wasAhead(jump) {
			m[pid] = 0
		}
	}
	return m
}

// wasAhead says whether the track has jumped before the leading track did, in
// what has gone into a segment already.
func (t *trackState) wasAhead(jump *opening) bool {
	return t.jumped != nil && t.jumped.taken && alike(t.jumped, jump) && jump.f.received-t.jumped.received <= forget
}

// alike says whether a track's time jumps by as much as the leading track's.
func alike(f *frame, jump *opening) bool { return abs(f.step-jump.step) <= alikeJumps }

// nearer says whether a frame's time is nearer to where the new timeline
// begins than to where the old one ended.
func nearer(f *frame, jump *opening) bool {
	return abs(m4f.Diff33(f.PTS, jump.f.PTS)) < abs(m4f.Diff33(f.PTS, jump.oldEnd))
}

func abs(x int64) int64 {
	if x < 0 {
		return -x
	}
	return x
}

// complete ends the segment being collected at the first waiting opening, and
// begins the next.
func (s *Segmenter) complete() {
	if s.again {
		heard := s.cur != nil && s.isComplete()
		s.inside, s.begun = heard && !s.cur.joining, heard && s.cur.joining
	}
	o := s.next[0]
	s.next = append(s.next[:0], s.next[1:]...)
	if s.cur != nil && s.unheard(o) {
		s.cur.unsure = true
		s.cur.lostAt = min(s.cur.lostAt, s.dropped-1)
	}
	end := o.f.PTS
	var split map[uint16]int
	if o.jump {
		end = o.oldEnd
		split = s.splits(o)
	}
	s.seal(s.take(o), end, o.f.PES, o)
	if o.jump {
		for _, t := range s.tracks {
			if t.wasAhead(o) {
				// Frames of the new timeline have gone into segments of the
				// old: one that has joined since has them where they belong.
				s.swamp(forget)
				o.unsure = true
				break
			}
		}
		s.beginTracks(o, split)
	}
	s.cur = o
	s.forgetLosses(o)
	s.forgetHistory(o)
}

// take removes from the buffer the frames of the segment that o ends.
func (s *Segmenter) take(o *opening) []*frame {
	var jump *opening
	for _, x := range append([]*opening{o}, s.next...) {
		if x.jump {
			jump = x
			break
		}
	}
	var split map[uint16]int
	if jump != nil {
		split = s.splits(jump)
	}
	var out []*frame
	keep := s.buf[:0]
	for k, f := range s.buf {
		if s.belongs(k, f, o, jump, split) {
			f.taken = true
			out = append(out, f)
			s.bufBytes -= f.cost()
		} else {
			keep = append(keep, f)
		}
	}
	clear(s.buf[len(keep):])
	s.buf = keep
	return out
}

// belongs says whether frame k of the buffer lies before opening o. The leading
// track is cut in the order of decoding, so that an open GOP's leading pictures
// stay behind their keyframe; the others by time, across a jump at their own.
func (s *Segmenter) belongs(k int, f *frame, o, jump *opening, split map[uint16]int) bool {
	if f.seq > 0 && f.Track.PID == o.f.Track.PID {
		return f.seq < o.f.seq
	}
	if s.cur != nil {
		if mine, next := s.cur.holds(f.Track), o.holds(f.Track); mine != next {
			return mine // a track that comes or goes with the map
		}
	}
	if jump != nil {
		at, jumped := split[f.Track.PID]
		behind := jumped && k >= at || !jumped && nearer(f, jump)
		return !behind && (o.jump || m4f.Diff33(f.PTS, o.f.PTS) < 0)
	}
	d := m4f.Diff33(f.PTS, o.f.PTS)
	start := o.f.PTS
	if s.cur != nil {
		start = s.cur.f.PTS
	}
	if d < 0 && d >= -(m4f.Diff33(o.f.PTS, start)+forget) {
		return true
	}
	// Dated far off, and no jump has come that would explain it.
	return s.received-f.received > forget
}

// holds says whether a segment has a track: the map of its opening names it, or
// the one before does where it opens at no keyframe.
func (o *opening) holds(t *mpegts.Track) bool {
	if o.program == nil {
		return true
	}
	for k := range o.program.Tracks {
		if same(&o.program.Tracks[k], t) {
			return true
		}
	}
	return false
}

// same says whether a track goes on as another does under a newer map.
func same(a, b *mpegts.Track) bool {
	return a == b || a.PID == b.PID && a.StreamType == b.StreamType && a.Codec == b.Codec
}

// beginTracks starts the tracks' accounts anew behind a jump. A track whose own
// jump was seen counts as heard from the start; of any other a recorder that
// has just joined cannot tell which of its frames lie before the jump.
func (s *Segmenter) beginTracks(o *opening, split map[uint16]int) {
	for pid, t := range s.tracks {
		_, jumped := split[pid]
		t.hasMax, t.jumped = false, nil
		t.seen, t.first, t.deaf = true, (o.f.PTS-1)&(m4f.Wrap-1), !jumped
	}
	for _, f := range s.buf {
		if s.near(f, o.f.DTS) {
			s.track(f.Track.PID).raise(f.PTS)
		}
	}
}

// forgetHistory drops the program maps that were replaced before the opening.
func (s *Segmenter) forgetHistory(o *opening) {
	k := len(s.history) - 1
	for k > 0 && s.history[k].pkt >= o.f.First {
		k--
	}
	if k > 0 {
		s.history = append(s.history[:0], s.history[k:]...)
		s.history[0].afterLoss = false
	}
}

// finish closes the open segment, as partial, where the input ends or the
// leading track does, and forgets the rest.
// The next keyframe opens a segment.
func (s *Segmenter) finish() {
	s.inside, s.begun = false, false
	if s.kept != nil {
		s.kept.marks = nil
	}
	if s.cur != nil {
		s.cur.partial = true
		end := s.leadMax
		if d := s.tail(s.buf); d > 0 {
			end = (end + d) & (m4f.Wrap - 1)
		}
		out := s.buf
		s.buf, s.bufBytes = nil, 0
		s.seal(out, end, math.MaxInt64, nil)
	}
	for _, f := range s.buf {
		f.Release()
	}
	s.buf, s.bufBytes, s.trimAt, s.next, s.cur = nil, 0, 0, nil, nil
	if s.leadPrev != nil {
		s.leadLast = s.leadPrev
	}
	s.prevKey, s.leadPrev, s.awaitKey, s.basePES = nil, nil, true, 0
	if s.kept != nil {
		s.kept.lead = nil
	}
}

// tail is the duration of the last frame of the leading track among frames, as
// these frames alone tell it.
func (s *Segmenter) tail(frames []*frame) int64 {
	var last, before *frame
	for _, f := range frames {
		if f.seq > 0 {
			before, last = last, f
		}
	}
	switch {
	case last == nil:
		return 0
	case last.Duration > 0:
		return last.Duration
	case before != nil:
		return max(m4f.Diff33(last.DTS, before.DTS), 0)
	}
	return 0
}
