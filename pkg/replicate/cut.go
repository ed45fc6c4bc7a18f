package replicate

import (
	"bytes"
	"cmp"
	"math"
	"slices"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/salvage"
	"github.com/twindvr/twindvr/pkg/segment"
)

// cut segments a merged copy, and keeps of it what is better than what either
// archive has packets of.
func (u *unit) cut(m *merged) {
	from, to := u.span()
	known := u.headers()
	var cut []m4f.Header
	for _, seg := range u.recut(m.copy, known) {
		h := &seg.Header
		if min(h.End(), to)-max(h.UTC, from) < sliver {
			continue // of the stretch ahead of what was damaged
		}
		if h.Damaged() {
			m.lost += int64(h.Lost) + int64(h.Errored)
		}
		if !h.Clean() {
			m.left = append(m.left, *h)
		}
		if improves(h, known) {
			m.segs = append(m.segs, seg)
		}
		cut = append(cut, *h)
	}
	if len(m.left) > 0 {
		u.keepUncut(m, cut)
	}
}

// recut is what a merged copy gives, dated and judged by what is known of those who heard it:
// also the segment that it begins in, where all of them joined, and the one that it ends in, where
// the source ended for all of them.
func (u *unit) recut(c *salvage.Copy, known []m4f.Header) (out []*m4f.Segment) {
	cut := segment.Recut(c, u.own[0].Program, u.own[0].Target)
	judged := func(seg *m4f.Segment) *m4f.Segment {
		seg.Header.UTC = dateOf(&u.own[0].Segments[0], seg.Header.MediaTime)
		u.judge(&seg.Header, known)
		return seg
	}
	// Nobody heard what is ahead of the one, or behind the other.
	if j := cut.Joined; j != nil && opened(&j.Header, known) {
		judged(j).Header.Flags |= m4f.Partial
		out = append(out, j)
	}
	for _, seg := range cut.Inside {
		out = append(out, judged(seg))
	}
	for _, seg := range cut.Ended {
		if judged(seg); opened(&seg.Header, known) && ended(&seg.Header, known) {
			seg.Header.Flags |= m4f.Partial
			out = append(out, seg)
		}
	}
	return out
}

// opened says whether a recorder that had just joined, or one that ended there, opened a segment
// at the keyframe of another one.
func opened(h *m4f.Header, known []m4f.Header) bool {
	return slices.ContainsFunc(known, func(k m4f.Header) bool {
		return k.MediaTime == h.MediaTime && k.Partial() && k.Flags&m4f.Keyframe != 0 && !ahead(&k)
	})
}

// ended says whether nobody heard more than what ends with a segment.
func ended(h *m4f.Header, known []m4f.Header) bool {
	last := known[0].End()
	for i := range known {
		last = max(last, known[i].End())
	}
	return distance(last, h.End()) <= edge
}

// keepUncut adds to what is left the own segments of which the merged copy gives none:
// it does not reach beyond their end, and is kept in place of the own copies. So is what
// came ahead of a run's first segment, unless the merged copy gives what is up to there: it
// may have been merged with the segment before alone, and is needed for the one that it is in.
func (u *unit) keepUncut(m *merged, cut []m4f.Header) {
	for i := range u.own {
		for _, h := range u.own[i].Segments {
			h.UTC = dateOf(&u.own[0].Segments[0], h.MediaTime)
			given := slices.ContainsFunc(cut, func(c m4f.Header) bool {
				if ahead(&h) {
					return c.UTC < h.End() && c.End() > h.End()-sliver
				}
				return min(c.End(), h.End())-max(c.UTC, h.UTC) >= sliver
			})
			if h.Clean() || given {
				continue
			}
			m.left = append(m.left, h)
			if h.Damaged() {
				m.lost += int64(lossOf(&h))
			}
		}
	}
	slices.SortStableFunc(m.left, func(a, b m4f.Header) int { return cmp.Compare(a.UTC, b.UTC) })
}

// ahead says whether a header stands for what came ahead of a run's first segment.
func ahead(h *m4f.Header) bool { return h.Lost == math.MaxUint32 }

// headers are the segments that both archives have packets of, dated by the own
// clock.
func (u *unit) headers() []m4f.Header {
	var out []m4f.Header
	for _, l := range [][]salvage.Entry{u.own, u.theirs} {
		for i := range l {
			for _, h := range l[i].Segments {
				h.UTC = dateOf(&u.own[0].Segments[0], h.MediaTime)
				out = append(out, h)
			}
		}
	}
	slices.SortFunc(out, func(a, b m4f.Header) int { return cmp.Or(cmp.Compare(a.UTC, b.UTC), bytes.Compare(a.ID[:], b.ID[:])) })
	return out
}

// edge is within what times of segments that adjoin are the same.
const edge = m4f.Timescale / 100

// judge gives a merged segment the flags that take a recorder to know: it is whole
// where those who recorded it heard it whole, and something went before it where
// one of them heard that.
func (u *unit) judge(h *m4f.Header, known []m4f.Header) {
	at := h.UTC // up to here it was heard whole
	begins, broken := false, true
	for i := range known {
		k := &known[i]
		if !k.Partial() && k.UTC <= at+edge {
			at = max(at, k.End())
		}
		if distance(k.UTC, h.UTC) <= edge {
			begins, broken = true, broken && k.Flags&m4f.Discontinuity != 0
		}
	}
	h.Flags &^= m4f.Partial
	if at < h.End()-edge {
		h.Flags |= m4f.Partial
	}
	if begins {
		h.Flags &^= m4f.Discontinuity
		if broken {
			h.Flags |= m4f.Discontinuity
		}
	}
}

// improves says whether a merged segment is clean, or lacks less than any that was
// recorded of its time, or no more and is longer or known to be whole.
func improves(h *m4f.Header, known []m4f.Header) bool {
	if h.Clean() {
		return true
	}
	for i := range known {
		k := &known[i]
		if min(h.End(), k.End())-max(h.UTC, k.UTC) < sliver {
			continue
		}
		switch {
		case k.Damaged() && !h.Damaged():
		case k.Damaged() && lossOf(h) > lossOf(k):
			return false
		case k.Damaged() && lossOf(h) == lossOf(k) && k.Duration >= h.Duration && (h.Partial() || !k.Partial()):
			return false
		case !k.Damaged() && h.Damaged() && k.UTC <= h.UTC+sliver && k.End() >= h.End()-sliver:
			return false
		case !k.Damaged() && !h.Damaged() && k.Duration >= h.Duration:
			return false
		}
	}
	return true
}

func lossOf(h *m4f.Header) uint64 { return uint64(h.Lost) + uint64(h.Errored) }
