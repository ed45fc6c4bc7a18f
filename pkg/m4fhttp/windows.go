package m4fhttp

import (
	"fmt"
	"net/http"
	"net/url"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/salvage"
)

// maxSeconds is how far behind from a range may end: 68 years.
const maxSeconds = 1<<31 - 1

// windows reads from, and ranges of seconds behind it. Without ranges it is the span.
func (q *request) windows() ([]archive.Window, error) {
	from, to, err := q.span()
	if err != nil {
		return nil, err
	}
	text := q.query.Get("ranges")
	switch {
	case text == "":
		return []archive.Window{{From: from, To: to}}, nil
	case from == 0 || to != 0:
		return nil, problemf(http.StatusBadRequest, "ranges are seconds behind from; give from, and no to")
	}
	ranges, err := parseRanges(text, maxSeconds, "seconds")
	if err != nil {
		return nil, err
	}
	if from.Add(int64(ranges[len(ranges)-1].To)*m4f.Timescale) > maxTime {
		return nil, problemf(http.StatusBadRequest, "%s seconds behind from is outside the years 1970 to 9998", clip(text))
	}
	list := make([]archive.Window, len(ranges))
	for i, r := range ranges {
		list[i] = archive.Window{From: from.Add(int64(r.From) * m4f.Timescale), To: from.Add(int64(r.To) * m4f.Timescale)}
	}
	return list, nil
}

// windowed asks about some windows in as many requests as that takes: whole seconds
// after 1970, in order, without overlap. ask makes a request that is about so many of
// them, the first being number at.
func windowed(windows []archive.Window, ask func(query url.Values, at, count int) error) error {
	for at := 0; at < len(windows); {
		from := windows[at].From
		var ranges []salvage.Range
		for _, w := range windows[at:] {
			if w.To > from.Add(maxSeconds*m4f.Timescale) {
				break
			}
			ranges = append(ranges, salvage.Range{From: int((w.From - from) / m4f.Timescale), To: int((w.To - from) / m4f.Timescale)})
		}
		text, n := rangesText(ranges)
		if n == 0 {
			return fmt.Errorf("a window from %s to %s", Time(from), Time(windows[at].To))
		}
		query := url.Values{"from": {Time(from).String()}, "ranges": {text}}
		if err := ask(query, at, n); err != nil {
			return err
		}
		at += n
	}
	return nil
}
