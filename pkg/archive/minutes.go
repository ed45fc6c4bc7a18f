package archive

import (
	"container/list"
	"crypto/sha256"
	"hash"
	"slices"
	"unsafe"

	"github.com/cespare/xxhash/v2"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// MinutesAnHour is how many digests an hour has.
const MinutesAnHour = 60

// Minutes is a digest of each minute of an hour of the view: what tells, of two hours
// with different digests, where they differ.
type Minutes struct {
	Start m4f.UTC // of the hour
	// Longest is the duration of the longest segment that begins in the hour, ticks.
	Longest int64
	// Digests are XXH64 (seed 0) over the elements that begin in each minute, as Hour has
	// SHA-256 over all; 0 where none does. What they are of are identities, which are
	// digests themselves.
	Digests [MinutesAnHour]uint64
}

const minuteTicks = hourTicks / MinutesAnHour

// minuteOf is the minute of an hour that a time is in, as a number from 0.
func minuteOf(h hour, at m4f.UTC) int { return int(int64(at-h.start()) / minuteTicks) }

// Window is a span of time, [From, To).
type Window struct{ From, To m4f.UTC }

// Minutes returns the minutes of each hour that holds segments and touches one of
// some windows, which are in order.
func (s *Stream) Minutes(windows ...Window) ([]Minutes, error) {
	hours, err := s.hoursOf(windows)
	if err != nil {
		return nil, err
	}
	var out []Minutes
	for _, w := range windows {
		from := hourOf(w.From)
		if n := len(out); n > 0 {
			from = max(from, hourOf(out[n-1].Start)+1)
		}
		for _, h := range within(hours, from, w.To) {
			k, err := s.cache.sketch(h)
			if err != nil {
				return nil, err
			}
			if k.Longest > 0 {
				out = append(out, k.Minutes)
			}
		}
	}
	return out, nil
}

// hoursOf is hours for windows that are in order.
func (s *Stream) hoursOf(windows []Window) ([]hour, error) {
	if len(windows) == 0 {
		return nil, nil
	}
	return s.hours(windows[0].From, windows[len(windows)-1].To)
}

// within returns, of hours in order, those from first on that begin before to; to 0
// is the end.
func within(hours []hour, first hour, to m4f.UTC) []hour {
	i, _ := slices.BinarySearch(hours, first)
	n := len(hours)
	if to != 0 {
		n, _ = slices.BinarySearch(hours, hourOf(to-1)+1)
	}
	return hours[i:max(i, n)]
}

// sketch is what is remembered of an hour of the view after its records are
// forgotten: the digests of its minutes and, where the view is its records as they
// are (plainView), where those of each minute lie.
type sketch struct {
	Minutes
	begins, ends m4f.UTC // of what the view shows of the hour; 0: nothing
	// first are the places in the view of the first element of each minute, and of
	// none.
	first [MinutesAnHour + 1]uint16
	rows  []row // nil: the view is not the records as they are
}

// row are elements that follow each other in one extent.
type row struct {
	name   extentName
	first  uint16 // place of its first element in the view
	number uint32 // of that segment in the extent
}

const (
	// sketchBytes bounds what all streams of the process remember of sketches:
	// those of half a year of one stream.
	sketchBytes = 4 << 20
	// mostRows bounds the rows of an hour; one that has more is read whole.
	mostRows = 64
)

const kindSketch = kindStrip + 1

var sketches = &lru{limit: sketchBytes, at: make(map[cacheKey]*list.Element)}

// sketch returns that of an hour. The result is shared.
func (c *hourCache) sketch(h hour) (*sketch, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	vs, err := c.versions(h)
	if err != nil {
		return nil, err
	}
	if k, ok := sketches.get(cacheKey{c, h, kindSketch}, vs); ok {
		return k.(*sketch), nil
	}
	_, k, err := c.sumUp(h, vs)
	if err != nil {
		return nil, err
	}
	c.keepSketch(h, vs, k)
	return k, nil
}

func (c *hourCache) keepSketch(h hour, vs cacheVersion, k *sketch) {
	const entry = 200 // of the cache itself
	sketches.put(cacheKey{c, h, kindSketch}, vs, k, int(unsafe.Sizeof(*k))+len(k.rows)*int(unsafe.Sizeof(row{}))+entry)
}

// sumUp sums up an hour's view and sketches it, if it can without making the view.
func (c *hourCache) sumUp(h hour, vs cacheVersion) (Hour, *sketch, error) {
	v, ok := shared.get(cacheKey{c, h, kindView}, vs)
	if !ok {
		var around [3]*hourRecords
		for i := range around {
			var err error
			if around[i], err = c.records(h-1+hour(i), vs[i]); err != nil {
				return Hour{}, nil, err
			}
		}
		if plainHour(&around, h) {
			sum, k := summarizePlain(h, around[1].recs)
			return sum, k, nil
		}
		var err error
		if v, _, err = c.viewed(h); err != nil {
			return Hour{}, nil, err
		}
	}
	sum, k := summarize(h, v.(hourView))
	return sum, k, nil
}

// summarize is sumUp of a view.
func summarize(h hour, v hourView) (Hour, *sketch) {
	x := newSummary(h, v.plain)
	for i := range v.els {
		e := &v.els[i]
		x.add(&e.Header, e.UTC.Add(e.Parts[0].From), e.UTC.Add(e.Parts[len(e.Parts)-1].To), &e.at)
	}
	return x.done()
}

// summarizePlain is sumUp of a view that is the hour's records as they are.
func summarizePlain(h hour, recs []stored) (Hour, *sketch) {
	x := newSummary(h, true)
	for i := range recs {
		r := &recs[i]
		x.add(&r.Header, r.UTC, r.End(), &r.at)
	}
	return x.done()
}

// summary is an hour's sum and sketch in the making.
type summary struct {
	hour   hour
	sum    Hour
	sketch *sketch
	digest hash.Hash
	minute int    // that the last element begins in
	open   []byte // of that minute, as digests have it
	rows   []row
	placed bool // it is known where all elements so far lie
}

func newSummary(h hour, plain bool) *summary {
	return &summary{
		hour:   h,
		sum:    Hour{Start: h.start()},
		sketch: &sketch{Minutes: Minutes{Start: h.start()}},
		digest: sha256.New(),
		open:   make([]byte, 0, 1024),
		placed: plain,
	}
}

// add takes the next element, which shows something from begins to ends at most.
func (x *summary) add(e *m4f.Header, begins, ends m4f.UTC, at *location) {
	k := x.sketch
	minute := minuteOf(x.hour, e.UTC)
	if minute != x.minute {
		x.flush()
	}
	x.place(minute, at)
	x.minute = minute
	var flags byte
	if e.Damaged() {
		x.sum.Damaged++
		flags |= 1
	}
	if e.Partial() {
		x.sum.Partial++
		flags |= 2
	}
	x.open = append(append(x.open, e.ID[:]...), flags)
	if x.sum.Segments == 0 {
		k.begins = begins
	}
	x.sum.Segments++
	x.sum.Bytes += int64(e.Length)
	k.Longest = max(k.Longest, int64(e.Duration))
	k.ends = max(k.ends, ends)
}

// flush takes what has come of a minute into the digests. Elements may come in another
// order than their dates, so that a minute is come to again.
func (x *summary) flush() {
	if len(x.open) == 0 {
		return
	}
	x.digest.Write(x.open)
	d := &x.sketch.Digests[x.minute]
	*d = *d*31 + xxhash.Sum64(x.open)
	x.open = x.open[:0]
}

// place notes where the next element lies.
func (x *summary) place(minute int, at *location) {
	n := x.sum.Segments
	if !x.placed || n >= 1<<16-1 {
		x.placed = false
		return
	}
	first := &x.sketch.first
	for m := x.minute + 1; n > 0 && m <= minute; m++ {
		first[m] = uint16(n)
	}
	if r := len(x.rows) - 1; r >= 0 && x.rows[r].name == at.name && x.rows[r].number+uint32(n)-uint32(x.rows[r].first) == at.number {
		return
	}
	x.placed = len(x.rows) < mostRows
	x.rows = append(x.rows, row{at.name, uint16(n), at.number})
}

func (x *summary) done() (Hour, *sketch) {
	x.flush()
	x.digest.Sum(x.sum.Digest[:0])
	if x.placed {
		for m := x.minute + 1; m <= MinutesAnHour; m++ {
			x.sketch.first[m] = uint16(x.sum.Segments)
		}
		x.sketch.rows = slices.Clip(x.rows)
	}
	return x.sum, x.sketch
}

// places returns the places in the view, [lo, hi), of elements among which are all
// that show something of [from, to).
func (k *sketch) places(from, to m4f.UTC) (lo, hi int) {
	h := hourOf(k.Start)
	end := k.Start.Add(hourTicks)
	if from = from.Add(-k.Longest); from >= end || to <= k.Start {
		return 0, 0
	}
	lo, hi = 0, int(k.first[MinutesAnHour])
	if from > k.Start {
		lo = int(k.first[minuteOf(h, from)])
	}
	if to < end {
		hi = int(k.first[minuteOf(h, to-1)+1])
	}
	return lo, hi
}
