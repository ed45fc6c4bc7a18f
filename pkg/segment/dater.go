package segment

import "github.com/twindvr/twindvr/pkg/m4f"

const (
	agree    = m4f.Timescale // offsets this near are taken over
	ppm      = 500           // how fast an offset follows the wall clock at most
	averaged = 16            // segments that the difference is averaged over
	// reconsider is for how long the offset of others is compared again with the
	// clock where it did not agree at first: a recorder that starts on a busy
	// machine reads its first datagrams late, and what comes late is dated late.
	reconsider = 60 * m4f.Timescale
)

// dater gives segments their UTC. The first recorder of a timeline sets its
// offset from the clock and follows the encoder's drift in steps too small to
// be a gap; an offset that others have set is taken over where it agrees.
type dater struct {
	unpaced bool
	start   m4f.UTC
	hint    func(media int64, utc m4f.UTC, fresh bool) (m4f.UTC, bool)
	resume  func(media int64, arrived m4f.UTC) (m4f.UTC, bool)

	begun        bool
	media        int64   // of the last segment
	utc          m4f.UTC // of the last segment
	end          m4f.UTC
	drift        int64 // average of clock less offset, ticks
	disagreement int64
	other        m4f.UTC // what the offset that did not agree gives to the last segment
	left         int64   // ticks of media time for which it may still be taken
}

// date returns the UTC of a segment whose opening frame arrived at a time.
func (d *dater) date(media, duration int64, arrived m4f.UTC, jump bool) m4f.UTC {
	fresh := !d.begun || jump
	clocked := false // the clock alone dates it
	var utc m4f.UTC
	switch {
	case !d.begun && d.unpaced && d.start != 0:
		utc = d.start
	case !d.begun:
		utc, clocked = arrived, !d.unpaced
	case jump && (d.unpaced || abs(int64(arrived-d.end)) <= agree):
		utc = d.end
	case jump:
		utc, clocked = arrived, true
	default:
		step := m4f.Diff33(media, d.media)
		utc = d.utc.Add(step)
		if !d.unpaced {
			utc = d.again(utc.Add(d.follow(int64(arrived-utc), step)), arrived, step)
		}
	}
	if fresh {
		d.left, d.disagreement = 0, 0
	}
	if clocked {
		utc = d.resumed(media, utc)
	}
	if d.hint != nil {
		if h, ok := d.hint(media, utc, fresh); ok {
			if diff := int64(h - utc); abs(diff) <= agree {
				utc, d.drift, d.disagreement, d.left = h, 0, 0, 0
			} else {
				d.disagreement = diff
				if fresh {
					d.other, d.left = h, reconsider
				}
			}
		}
	}
	if fresh {
		d.drift = 0
	}
	d.begun, d.media, d.utc, d.end = true, media, utc, utc.Add(duration)
	return utc
}

// resumed returns the time that a timeline which was recorded a moment ago gives to
// one that begins now, if it goes on with it; else the time at which it arrived.
func (d *dater) resumed(media int64, arrived m4f.UTC) m4f.UTC {
	if d.resume == nil {
		return arrived
	}
	if utc, ok := d.resume(media, arrived); ok {
		return utc
	}
	return arrived
}

// again returns the time that others gave, where the clock did not agree with it
// when the timeline began and does now; else utc.
func (d *dater) again(utc, arrived m4f.UTC, step int64) m4f.UTC {
	if d.left <= 0 {
		return utc
	}
	d.other = d.other.Add(step)
	d.left -= step
	if step < 0 || abs(int64(arrived-d.other)) > agree {
		return utc
	}
	d.left, d.drift, d.disagreement = 0, 0, 0
	return d.other
}

// follow returns by how much the offset moves over a step of media time. A clock
// that is wrong by more than encoders drift counts no more than one that is off
// by a second: it may soon be right again.
func (d *dater) follow(diff, step int64) int64 {
	diff = min(max(diff, -agree), agree)
	d.drift += (diff - d.drift) / averaged
	limit := max(step, 0) * ppm / 1e6
	return min(max(d.drift, -limit), limit)
}
