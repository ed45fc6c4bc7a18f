package hls

import "time"

const (
	maxSharpening = 6 * time.Second
	// resharpen is how often the time of publishing is narrowed down again,
	// where nothing but the playlist's own growing tells it: an encoder's clock
	// drifts by far less than a second meanwhile.
	resharpen = 10 * time.Minute
	// sharp is how well it is known else, from headers of seconds.
	sharp = 1500 * time.Millisecond
	// maxSkew is by how much a server's clock may differ from this machine's
	// and is still believed as it is.
	maxSkew = 2 * time.Second
)

// step is how often a playlist is loaded while it is looked at closely.
func step(target time.Duration) time.Duration {
	return min(max(target/16, 100*time.Millisecond), 500*time.Millisecond)
}

// sightings tell when segments became available.
type sightings struct {
	seen    map[uint64][2]time.Time // not before, not after
	byList  bool                    // only the playlist's growing tells
	began   time.Time               // when it was looked at closely last
	looking bool
}

// first takes the first list, loaded between two times.
func (s *sightings) first(m *Media, from, to time.Time) {
	s.forget()
	if m.Ended {
		return
	}
	// A live playlist grows by a target duration at a time at most; twice that
	// allows for what the server takes.
	s.note(m, from.Add(-2*m.Target), to, func(uint64) bool { return true })
}

// see takes a list in the place of one that ended before a number and whose
// load began at before.
func (s *sightings) see(m *Media, end uint64, before, from, to time.Time) {
	grown := m.Sequence+uint64(len(m.Segments)) > end
	if grown {
		s.looking = false
	}
	s.note(m, before, to, func(n uint64) bool { return n >= end })
	if s.byList && !s.looking && from.Sub(s.began) >= resharpen {
		s.sharpen(from)
	}
}

// note records the segments that are new: published after a time, and so long
// before another as those behind it last.
func (s *sightings) note(m *Media, after, before time.Time, isNew func(uint64) bool) {
	var later time.Duration
	for k := len(m.Segments) - 1; k >= 0 && later < 2*maxBacklog; k-- {
		seg := &m.Segments[k]
		if !isNew(seg.Number) {
			break
		}
		if s.seen == nil {
			s.seen = map[uint64][2]time.Time{}
		}
		s.seen[seg.Number] = [2]time.Time{after.Add(-later), before.Add(-later)}
		later += seg.Duration
	}
}

// of returns when a segment was published, taking into account what the server
// said with it.
func (s *sightings) of(n uint64, got *fetched, now time.Time) [2]time.Time {
	iv, ok := s.seen[n]
	if !ok || got.modified.IsZero() {
		return iv
	}
	at := got.modified
	if skew := now.Sub(got.date); !got.date.IsZero() && (skew > maxSkew || skew < -maxSkew) {
		at = at.Add(skew)
	}
	// Servers that make things up say "just now" of everything.
	if at.Before(iv[0].Add(-time.Second)) || at.After(iv[1].Add(time.Second)) {
		return iv
	}
	return [2]time.Time{at, at.Add(time.Second)}
}

// taken forgets the segments up to n.
func (s *sightings) taken(n uint64) {
	for k := range s.seen {
		if k <= n {
			delete(s.seen, k)
		}
	}
}

func (s *sightings) forget() { s.seen = nil }

// blunt says whether it is worth while to look closely for when segments are
// published.
func (s *sightings) blunt(d *Delivery, m *Media) bool {
	return d.Live && d.Date.IsZero() && !m.Ended && !d.Published[1].IsZero() && d.Published[1].Sub(d.Published[0]) > sharp
}

func (s *sightings) sharpen(now time.Time) { s.byList, s.looking, s.began = true, true, now }

// sharpening says whether the playlist is being looked at closely.
func (s *sightings) sharpening(now time.Time) bool {
	return s.looking && now.Sub(s.began) < maxSharpening
}

// backdate corrects what is known of a segment by what was seen of the last.
func (s *sightings) backdate(d *Delivery, m *Media, now time.Time) {
	var later time.Duration
	for k := len(m.Segments) - 1; k >= 0; k-- {
		seg := &m.Segments[k]
		if seg.Number == d.Number || seg.Number < d.Number {
			break
		}
		later += seg.Duration
	}
	if len(m.Segments) == 0 {
		return
	}
	last := &m.Segments[len(m.Segments)-1]
	iv, ok := s.seen[last.Number]
	switch {
	case last.Number == d.Number:
		iv = d.Published
	case !ok:
		return
	}
	if s.looking {
		// None has come since: the next is yet to, a segment's time after it.
		s.looking = false
		if early := now.Add(-last.Duration); early.After(iv[0]) {
			iv[0] = early
		}
		if iv[0].After(iv[1]) {
			iv[0] = iv[1]
		}
	}
	d.Published = [2]time.Time{iv[0].Add(-later), iv[1].Add(-later)}
}
