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

// plainAt says whether a record is plain among those behind it.
func plainAt(recs []stored, i int) bool { return plainBefore(&recs[i].Header, recs[i+1:]) }

// plainBefore says whether a segment is plain among those behind it, which may be in
// several lists: it begins before them, is no copy of one, has no time that one has, and
// is played before the next.
func plainBefore(x *m4f.Header, behind ...[]stored) bool {
	until := max(x.UTC+occurrence, x.End()+utcSlack)
	last := x
	for _, recs := range behind {
		for j := range recs {
			y := &recs[j].Header
			switch {
			case last != x && y.UTC >= until:
				return true
			case y.UTC <= last.UTC,
				y.UTC < x.UTC+occurrence && y.ID == x.ID,
				y.UTC < x.End()+utcSlack && overlap(x, y),
				last == x && playsBefore(y, 0, x, 0):
				return false
			}
			last = y
		}
	}
	return true
}

// plainHour says whether the view of an hour is its records as they are, as plainView
// does; where one of the hours is not in order it does not know.
func plainHour(around *[3]*hourRecords, h hour) bool {
	var longest m4f.UTC
	for _, r := range around {
		if !r.sorted {
			return false
		}
		longest = max(longest, r.longest)
	}
	from, to := h.start()-longest-nearSlack, (h+1).start()+longest+nearSlack
	before, here, after := around[0].recs, around[1].recs, around[2].recs
	for i := len(before); i > 0 && before[i-1].UTC > from; i-- {
		if !plainBefore(&before[i-1].Header, before[i:], here, after) {
			return false
		}
	}
	for i := range here {
		if !plainBefore(&here[i].Header, here[i+1:], after) {
			return false
		}
	}
	for i := 0; i < len(after) && after[i].UTC < to; i++ {
		if !plainBefore(&after[i].Header, after[i+1:]) {
			return false
		}
	}
	return true
}

// nearSlack is more than occurrence, and than clocks that agree differ by.
const nearSlack = 10 * m4f.Timescale

// near returns the records of an hour, and those of its neighbours that are not too
// far from it to overlap, or be a copy of, anything that begins in it.
func near(around [3][]stored, h hour) []stored {
	var longest m4f.UTC
	for _, recs := range around {
		for i := range recs {
			longest = max(longest, m4f.UTC(recs[i].Duration))
		}
	}
	from, to := h.start()-longest-nearSlack, (h+1).start()+longest+nearSlack
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
