package segment

import "github.com/twindvr/twindvr/pkg/m4f"

const (
	agree    = m4f.Timescale // offsets this near are taken over
	ppm      = 500           // how fast an offset follows the wall clock at most
	averaged = 16            // segments that the difference is averaged over
)

// dater gives segments their UTC. The first recorder of a timeline sets its
// offset from the clock and follows the encoder's drift in steps too small to
// be a gap; an offset that others have set is taken over where it agrees.
type dater struct {
	unpaced bool
	start   m4f.UTC
	hint    func(media int64, utc m4f.UTC, fresh bool) (m4f.UTC, bool)

	begun        bool
	media        int64   // of the last segment
	utc          m4f.UTC // of the last segment
	end          m4f.UTC
	drift        int64 // average of clock less offset, ticks
	disagreement int64
}

// date returns the UTC of a segment whose opening frame arrived at a time.
func (d *dater) date(media, duration int64, arrived m4f.UTC, jump bool) m4f.UTC {
	fresh := !d.begun || jump
	var utc m4f.UTC
	switch {
	case !d.begun && d.unpaced && d.start != 0:
		utc = d.start
	case !d.begun:
		utc = arrived
	case jump && (d.unpaced || abs(int64(arrived-d.end)) <= agree):
		utc = d.end
	case jump:
		utc = arrived
	default:
		step := m4f.Diff33(media, d.media)
		utc = d.utc.Add(step)
		if !d.unpaced {
			utc = utc.Add(d.follow(int64(arrived-utc), step))
		}
	}
	if d.hint != nil {
		if h, ok := d.hint(media, utc, fresh); ok {
			if diff := int64(h - utc); abs(diff) <= agree {
				utc, d.drift, d.disagreement = h, 0, 0
			} else {
				d.disagreement = diff
			}
		}
	}
	if fresh {
		d.drift = 0
	}
	d.begun, d.media, d.utc, d.end = true, media, utc, utc.Add(duration)
	return utc
}

// follow returns by how much the offset moves over a step of media time.
func (d *dater) follow(diff, step int64) int64 {
	d.drift += (diff - d.drift) / averaged
	limit := max(step, 0) * ppm / 1e6
	return min(max(d.drift, -limit), limit)
}
