package main

import (
	"errors"
	"slices"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/segment"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

// margin is how long after a segment's last datagram a node must live to count
// as having completed it: what it salvages is written a second of the stream later, and
// the machine may be busy. A node that died sooner may have it or not.
const margin = 2500 * time.Millisecond

// closes is after how long without source a node closes a segment whose end it
// has not heard: the nodes' source_timeout, and noticing it.
const closes = 6500 * time.Millisecond

// lead is for how long a node must have heard a source before a segment for its
// copy to be whole: audio from before its start.
const lead = 500 * time.Millisecond

// expected is what must come of a segment by the promise: what a node received
// and lived to complete, both end up with.
type expected struct {
	*reference
	clean []bool // by node: nothing of it was lost there, alone
	due   bool   // the nodes that lived until it was complete had all of it between them
	// sure is due, and clean to a receiver of all that any node received: what all
	// nodes lost of the picture before it, or of the beginning of one further
	// ahead, may have been its keyframe, so it may end as damaged.
	sure bool
	// wanted are pictures that must be there, [from, to): all where it is due,
	// those behind a keyframe that a node which had just begun to listen got
	// whole, or none.
	from, to uint64
}

// heard is what one node received of one source.
type heard struct {
	given []bool
	lives []life
}

const (
	// tables is for how long a node that begins to listen can use nothing: until it has
	// heard the tables, which come every 40 ms.
	tables = 80 * time.Millisecond
	// silence is after how long without source a node may begin anew when it comes back:
	// the nodes' source_timeout, or just less.
	silence = 4900 * time.Millisecond
)

// deaf takes away what a node was given while it did not know the tables yet.
func (h *heard) deaf(times []time.Time) {
	var last, until time.Time // of what was given
	for d, at := range times {
		if !h.given[d] {
			continue
		}
		if at.Sub(last) >= silence {
			until = at.Add(tables)
		}
		last = at
		begun := slices.ContainsFunc(h.lives, func(l life) bool { return !at.Before(l.from) && at.Before(l.from.Add(tables)) })
		h.given[d] = !begun && !at.Before(until)
	}
}

// expectations works out what must come of each segment that began after a
// time. Times are those of the datagrams.
func expectations(segs []*reference, times []time.Time, periods []int, nodes []heard, after time.Time) []expected {
	var list []expected
	for _, r := range segs {
		if times[r.from].Before(after) {
			continue
		}
		list = append(list, expect(r, times, periods, nodes))
	}
	return list
}

func expect(r *reference, times []time.Time, periods []int, nodes []heard) expected {
	e := expected{reference: r, clean: make([]bool, len(nodes)), from: r.last + 1, to: r.last + 1}
	any := make([]bool, r.to-r.from)
	for i := range nodes {
		l, ok := lifeOver(nodes[i].lives, times[r.done], completed(r, times, periods, nodes[i].given))
		if !ok {
			continue
		}
		had := func(d int) bool { return nodes[i].given[d] && !times[d].Before(l.from) }
		behind := r.to // from there on everything was had
		for d := r.to - 1; d >= r.from && had(d); d-- {
			behind = d
		}
		for d := range any {
			any[d] = any[d] || had(r.from+d)
		}
		e.clean[i] = behind == r.from && !times[r.from].Add(-lead).Before(l.from)
		if l.from.After(times[r.from]) || e.clean[i] {
			e.from = min(e.from, keyframeBehind(r, periods, behind, times, l.from))
		}
	}
	if e.due = !slices.Contains(any, false); e.due {
		e.from = r.first
	}
	return e
}

// union records what a receiver would that gets each datagram that any node was
// given and kept, and returns the segments that are clean there. What a node
// received of a segment is kept if it lived until that was complete.
func union(opt testsrc.Options, segs []*reference, times []time.Time, periods []int, nodes []heard) (map[m4f.Identity]bool, error) {
	gen, err := testsrc.New(opt)
	if err != nil {
		return nil, err
	}
	clean := map[m4f.Identity]bool{}
	seg := segment.New(segment.Config{TargetDuration: target}, func(sg *m4f.Segment) {
		if !sg.Header.Damaged() {
			clean[sg.Header.ID] = true
		}
	})
	done := make([][]time.Time, len(nodes))
	for i, h := range nodes {
		done[i] = completions(segs, times, periods, h.given)
	}
	for i, at := range times {
		p, _, ok := gen.Next()
		if !ok {
			return nil, errors.New("the test stream ended")
		}
		kept := false
		for n, h := range nodes {
			kept = kept || h.given[i] && lived(h.lives, at, done[n][i].Add(margin))
		}
		if kept {
			seg.Write(p)
		}
	}
	return clean, nil
}

// completions says of each datagram when a node knew that what it holds a part of
// was complete.
func completions(segs []*reference, times []time.Time, periods []int, given []bool) []time.Time {
	done := slices.Clone(times)
	for _, r := range segs {
		at := completed(r, times, periods, given)
		for d := r.from; d < r.to; d++ {
			done[d] = at
		}
	}
	return done
}

// lived says whether a node listened from one time to another.
func lived(lives []life, from, to time.Time) bool {
	return slices.ContainsFunc(lives, func(l life) bool { return !l.from.After(from) && (l.to.IsZero() || l.to.After(to)) })
}

// completed is when a node that lived knew that a segment was complete: it heard
// the beginning of a keyframe behind it, or nothing for long.
func completed(r *reference, times []time.Time, periods []int, given []bool) time.Time {
	latest := times[r.done].Add(closes)
	for n := int(r.last) + 1; n < len(periods); n += gop {
		at := periods[n] + 1 // the tables may be in the datagram before
		if at >= len(times) || times[at].After(latest) {
			break
		}
		if given[at-1] && given[at] {
			return times[max(at, r.done)]
		}
	}
	return latest
}

// lifeOver is the life in which a node saw a segment to its end, and lived on
// when it knew.
func lifeOver(lives []life, done, known time.Time) (life, bool) {
	for _, l := range lives {
		if !l.from.After(done) && (l.to.IsZero() || l.to.After(known.Add(margin))) {
			return l, true
		}
	}
	return life{}, false
}

// keyframeBehind is the first keyframe of a segment of which a node that began
// to listen at a time, and lost nothing from the datagram behind on, has all.
func keyframeBehind(r *reference, periods []int, behind int, times []time.Time, began time.Time) uint64 {
	for n := r.first; n <= r.last; n++ {
		at := periods[n]
		if n%gop == 0 && at >= behind && !times[at].Add(-lead).Before(began) {
			return n
		}
	}
	return r.last + 1
}
