package replicate

import (
	"context"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// minuter is a Side that can tell in which minutes an hour differs from another, and
// what is in some of them. Windows are whole seconds, in order, without overlap.
type minuter interface {
	// Minutes returns the digests of the minutes of the hours that overlap windows.
	Minutes(ctx context.Context, windows []archive.Window) ([]archive.Minutes, error)
	// Outline is Segments for each of some windows. It may leave out what a
	// comparison does not look at.
	Outline(ctx context.Context, windows []archive.Window) ([][]archive.Element, error)
}

// Minutes implements minuter.
func (d Dir) Minutes(_ context.Context, windows []archive.Window) ([]archive.Minutes, error) {
	return d.Stream.Minutes(windows...)
}

// Outline implements minuter.
func (d Dir) Outline(_ context.Context, windows []archive.Window) ([][]archive.Element, error) {
	list := make([][]archive.Element, len(windows))
	err := d.Stream.EachIn(windows, func(i int, e *archive.Element) error {
		list[i] = append(list[i], *e)
		return nil
	})
	return list, err
}

const (
	minute = hour / archive.MinutesAnHour
	// apart is how long views have to be equal between two stretches of an hour for that
	// time not to be listed: it costs less to list some more segments.
	apart = 2 * minute
	// mostNarrowed bounds the hours whose minutes are asked for: two years. Where more
	// than that differs, whole hours are listed.
	mostNarrowed = 2 * 366 * 24
)

// stretch is time in which views may differ: an hour, or some minutes of one.
type stretch struct {
	from, to m4f.UTC
	reach    int64 // how far behind it something may be shown that begins in it
}

// narrow narrows hours down to the minutes whose digests differ. ok is false where that
// is not to be, or a side cannot tell of minutes.
func (d *differ) narrow(ctx context.Context, hours []hourPair) (list []window, ok bool) {
	if d.Known != nil || len(hours) > mostNarrowed { // it remembers hours that were looked at as a whole
		return nil, false
	}
	a, b, ok := d.minutes(ctx, hours)
	if !ok {
		return nil, false
	}
	s := stretches(hours, a, b)
	for i := range s {
		w := window{from: s[i].from, to: s[i].to}
		if i == 0 || s[i-1].to < w.from {
			w.from = w.from.Add(-sameWithin)
		}
		if i == len(s)-1 || w.to < s[i+1].from {
			w.to = w.to.Add(s[i].reach)
		}
		w.from, w.to = max(d.From, w.from), min(d.To, w.to)
		list = append(list, w)
	}
	return list, true
}

// minutes asks both sides for the minutes of some hours. ok is false where one cannot
// tell, or fails: why, listing the segments tells, if it still matters.
func (d *differ) minutes(ctx context.Context, hours []hourPair) (a, b map[m4f.UTC]*archive.Minutes, ok bool) {
	_, okA := d.a.(minuter)
	_, okB := d.b.(minuter)
	if !okA || !okB {
		return nil, nil, false
	}
	var windows []archive.Window
	for _, h := range hours {
		if n := len(windows); n > 0 && windows[n-1].To == h.start {
			windows[n-1].To = h.start.Add(hour)
			continue
		}
		windows = append(windows, archive.Window{From: h.start, To: h.start.Add(hour)})
	}
	listA, listB, err := both(ctx, d.a, d.b, func(ctx context.Context, s Side) ([]archive.Minutes, error) {
		return s.(minuter).Minutes(ctx, windows)
	})
	if err != nil {
		return nil, nil, false
	}
	return byStart(listA), byStart(listB), true
}

func byStart(list []archive.Minutes) map[m4f.UTC]*archive.Minutes {
	m := make(map[m4f.UTC]*archive.Minutes, len(list))
	for i := range list {
		m[list[i].Start] = &list[i]
	}
	return m
}

// stretches returns what of some hours may differ, in order and without overlap. Where
// they do not touch a minute is between them, so that what one shows beyond its end
// does not reach the next: where segments are longer than reach, that hour and the one
// behind it are whole.
func stretches(hours []hourPair, a, b map[m4f.UTC]*archive.Minutes) []stretch {
	var list []stretch
	for i, h := range hours {
		long := longestOf(a, b, h.start) > reach
		if i > 0 && hours[i-1].start.Add(hour) == h.start {
			long = long || longestOf(a, b, hours[i-1].start) > reach
		}
		x, y := a[h.start], b[h.start]
		some := []stretch(nil)
		if !long && x != nil && y != nil {
			some = differing(x, y)
		}
		if len(some) == 0 { // or it has changed meanwhile
			some = []stretch{{h.start, h.start.Add(hour), reach}}
		}
		list = append(list, some...)
	}
	return list
}

// longestOf is the duration of the longest segment of an hour, on either side.
func longestOf(a, b map[m4f.UTC]*archive.Minutes, start m4f.UTC) int64 {
	longest := int64(0)
	for _, m := range []*archive.Minutes{a[start], b[start]} {
		if m != nil {
			longest = max(longest, m.Longest)
		}
	}
	return longest
}

// differing returns the minutes of an hour whose digests differ.
func differing(x, y *archive.Minutes) []stretch {
	var list []stretch
	for i := range x.Digests {
		if x.Digests[i] == y.Digests[i] {
			continue
		}
		s := stretch{x.Start.Add(int64(i) * minute), x.Start.Add(int64(i+1) * minute), max(x.Longest, y.Longest) + sameWithin}
		if n := len(list); n > 0 && s.from-list[n-1].to < apart {
			list[n-1].to = s.to
			continue
		}
		list = append(list, s)
	}
	return list
}
