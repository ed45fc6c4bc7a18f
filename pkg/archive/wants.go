package archive

import (
	"cmp"
	"slices"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// Want is a segment of a peer that this archive's view would take.
type Want struct {
	// Record is the peer's. Where the archive has the segment already, its
	// header says what Writer.Copy is to write.
	Record
	// Local says that the segment's bytes are here: the peer knows it to be
	// better than this archive does, or broadcast once more. Writer.Copy adds
	// it and nothing is fetched.
	Local bool
}

// Wants returns which of a peer's records this archive's view would take if it
// had them all, sorted by UTC. It is a function of the records present and
// those given; what lies before the horizon (and is not kept) or cannot be
// stored is left out.
// Give it the peer's view, or its changes.
func (s *Stream) Wants(recs []Record) ([]Want, error) {
	exists, err := s.reach()
	if err != nil {
		return nil, err
	}
	if _, err := s.hours(0, 0); err != nil { // takes note of changes
		return nil, err
	}
	offered := make([]stored, 0, len(recs))
	for i := range recs {
		if exists.has(hourOf(recs[i].UTC)) && checkHeader(&recs[i].Header) == nil {
			offered = append(offered, stored{Record: recs[i], remote: true})
		}
	}
	slices.SortStableFunc(offered, func(a, b stored) int { return cmp.Compare(a.UTC, b.UTC) })
	var out []Want
	for lo, at := 0, 0; at < len(offered); {
		// The hours before and after are offered too, as neighbours.
		h := hourOf(offered[at].UTC)
		for hourOf(offered[lo].UTC) < h-1 {
			lo++
		}
		next, hi := at, at
		for ; hi < len(offered) && hourOf(offered[hi].UTC) <= h+1; hi++ {
			if hourOf(offered[hi].UTC) == h {
				next = hi + 1
			}
		}
		here, err := s.recordsAround(h)
		if err != nil {
			return nil, err
		}
		out = append(out, wantsIn(here, offered[lo:hi], h)...)
		at = next
	}
	return out, nil
}

func (s *Stream) recordsAround(h hour) ([]stored, error) {
	c := &s.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	vs, err := c.versions(h)
	if err != nil {
		return nil, err
	}
	all, err := c.around(h, vs)
	return slices.Concat(all[:]...), err
}

// wantsIn returns the wants that begin in an hour.
func wantsIn(here, offered []stored, h hour) []Want {
	all := append(slices.Clone(here), offered...)
	have := make(map[m4f.Identity]bool, len(here))
	for i := range here {
		have[here[i].ID] = true
	}
	var out []Want
	for _, e := range candidates(all) {
		if e.offered == nil || hourOf(e.offered.UTC) != h {
			continue
		}
		w := Want{Record: e.offered.Record, Local: have[e.ID]}
		switch {
		case e.local && judge(&e.Header).compare(e.mine) >= 0:
			continue
		case e.local: // the same occurrence, better known: keep this archive's date
			w.Header = e.Header
			w.UTC = e.mine.utc
		default:
			w.Flags, w.Lost, w.Errored = e.Flags, e.Lost, e.Errored
		}
		out = append(out, w)
	}
	slices.SortFunc(out, func(a, b Want) int { return cmp.Compare(a.UTC, b.UTC) })
	return out
}
