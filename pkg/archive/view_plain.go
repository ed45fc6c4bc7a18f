package archive

import "github.com/twindvr/twindvr/pkg/m4f"

// plainView returns what view would return of the records that begin in an hour,
// where all records are in order, each is of another segment, and none has time that
// another one shows: the view is then the records as they are. Most hours are so.
// Otherwise ok is false, and view tells.
func plainView(recs []stored, h hour) (els []Element, ok bool) {
	first, end := len(recs), 0
	for i := range recs {
		if !plainAt(recs, i) {
			return nil, false
		}
		if hourOf(recs[i].UTC) == h {
			first, end = min(first, i), i+1
		}
	}
	if first >= end {
		return []Element{}, true
	}
	els, parts := make([]Element, end-first), make([]Part, end-first) // shared backing
	for i := range els {
		r := &recs[first+i]
		parts[i] = Part{0, int64(r.Duration)}
		els[i] = Element{Record: r.Record, Parts: parts[i : i+1 : i+1], at: r.at}
	}
	return els, true
}

// plainAt says whether a record is plain among those behind it: it begins before
// them, is no copy of one, has no time that one has, and is played before the next.
func plainAt(recs []stored, i int) bool {
	x := Element{Record: recs[i].Record}
	until := max(x.UTC+occurrence, x.End()+utcSlack)
	for j := i + 1; j < len(recs) && (j == i+1 || recs[j].UTC < until); j++ {
		y := Element{Record: recs[j].Record}
		switch {
		case y.UTC <= recs[j-1].UTC,
			y.ID == x.ID && y.UTC < x.UTC+occurrence,
			y.UTC < x.End()+utcSlack && overlap(&x, &y),
			j == i+1 && playsBefore(&y, 0, &x, 0):
			return false
		}
	}
	return true
}

// near returns the records of an hour, and those of its neighbours that are not too
// far from it to overlap, or be a copy of, anything that begins in it.
func near(around [3][]stored, h hour) []stored {
	const slack = 10 * m4f.Timescale // more than occurrence, and than clocks that agree differ by
	var longest m4f.UTC
	for _, recs := range around {
		for i := range recs {
			longest = max(longest, m4f.UTC(recs[i].Duration))
		}
	}
	from, to := h.start()-longest-slack, (h+1).start()+longest+slack
	out := make([]stored, 0, len(around[1])+len(around[1])/16+16)
	for _, recs := range around {
		for i := range recs {
			if r := &recs[i]; from < r.UTC && r.UTC < to {
				out = append(out, *r)
			}
		}
	}
	return out
}
