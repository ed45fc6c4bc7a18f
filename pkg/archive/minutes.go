package archive

import (
	"container/list"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"unsafe"

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
	// Digests are the first eight bytes of SHA-256 over the elements that begin in
	// each minute, as Hour has it over all; 0 where none does.
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
	v, vs, err := c.viewed(h)
	if err != nil {
		return nil, err
	}
	_, k := summarize(h, v)
	c.keepSketch(h, vs, k)
	return k, nil
}

func (c *hourCache) keepSketch(h hour, vs cacheVersion, k *sketch) {
	const entry = 200 // of the cache itself
	sketches.put(cacheKey{c, h, kindSketch}, vs, k, int(unsafe.Sizeof(*k))+len(k.rows)*int(unsafe.Sizeof(row{}))+entry)
}

// summarize sums up an hour's view and sketches it.
func summarize(h hour, v hourView) (Hour, *sketch) {
	out, k := Hour{Start: h.start(), Segments: len(v.els)}, &sketch{Minutes: Minutes{Start: h.start()}}
	for i := range v.els {
		e := &v.els[i]
		out.count(e)
		k.Longest = max(k.Longest, int64(e.Duration))
		k.ends = max(k.ends, e.UTC.Add(e.Parts[len(e.Parts)-1].To))
	}
	if len(v.els) > 0 {
		k.begins = v.els[0].UTC.Add(v.els[0].Parts[0].From)
	}
	sum := sha256.New()
	var b []byte
	for els := v.els; len(els) > 0; {
		at := minuteOf(h, els[0].UTC)
		for b = b[:0]; len(els) > 0 && minuteOf(h, els[0].UTC) == at; els = els[1:] {
			b = els[0].appendDigested(b)
		}
		sum.Write(b)
		of := sha256.Sum256(b)
		// Elements may come in another order than their dates, so that a minute is
		// come to again.
		k.Digests[at] = k.Digests[at]*31 + binary.BigEndian.Uint64(of[:])
	}
	sum.Sum(out.Digest[:0])
	if v.plain {
		k.locate(h, v.els)
	}
	return out, k
}

func (o *Hour) count(e *Element) {
	if e.Damaged() {
		o.Damaged++
	}
	if e.Partial() {
		o.Partial++
	}
	o.Bytes += int64(e.Length)
}

// appendDigested appends what digests of hours and minutes tell of an element.
func (e *Element) appendDigested(b []byte) []byte {
	var flags byte
	if e.Damaged() {
		flags |= 1
	}
	if e.Partial() {
		flags |= 2
	}
	return append(append(b, e.ID[:]...), flags)
}

// locate notes where the elements of a view lie, which are in order of time.
func (k *sketch) locate(h hour, els []Element) {
	if len(els) >= 1<<16 {
		return
	}
	minute := 0
	var rows []row
	for i := range els {
		for m := minuteOf(h, els[i].UTC); minute <= m; minute++ {
			k.first[minute] = uint16(i)
		}
		at := &els[i].at
		if n := len(rows); n == 0 || rows[n-1].name != at.name || rows[n-1].number+uint32(i)-uint32(rows[n-1].first) != at.number {
			if n == mostRows {
				return
			}
			rows = append(rows, row{at.name, uint16(i), at.number})
		}
	}
	for ; minute <= MinutesAnHour; minute++ {
		k.first[minute] = uint16(len(els))
	}
	k.rows = slices.Clip(rows)
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
