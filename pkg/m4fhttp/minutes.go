package m4fhttp

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// Minutes is a line of the answer to minutes: archive.Minutes as it travels.
type Minutes struct {
	Start   Time   `json:"start"`   // of the hour
	Longest int64  `json:"longest"` // ticks
	Digests []byte `json:"digests"` // 60 of 8 bytes, big-endian; in base64
}

// serveMinutes answers with the digests of the minutes of the hours that overlap some
// windows.
func (h *Handler) serveMinutes(q *request) error {
	windows, err := q.windows()
	if err != nil {
		return err
	}
	hours, err := q.stream.Archive().Minutes(windows...)
	if err != nil {
		return err
	}
	l := newLineWriter(q, true)
	for i := range hours {
		w := Minutes{Start: Time(hours[i].Start), Longest: hours[i].Longest, Digests: make([]byte, 0, archive.MinutesAnHour*8)}
		for _, d := range hours[i].Digests {
			w.Digests = binary.BigEndian.AppendUint64(w.Digests, d)
		}
		err = errors.Join(err, l.line(&w))
	}
	if errors.Join(err, l.end()) != nil {
		cut()
	}
	return nil
}

// Minutes asks for digests of the minutes of the peer's view, of the hours that
// overlap some windows: whole seconds, in order, without overlap. StatusOf the error
// is 404 where the peer knows of none, being of an older version.
func (c *Client) Minutes(ctx context.Context, windows []archive.Window) ([]archive.Minutes, error) {
	var list []archive.Minutes
	err := windowed(windows, func(query url.Values, at, count int) error {
		first, last := windows[at].From, windows[at+count-1].To
		return c.lines(ctx, "minutes", query, maxHours, func(line []byte) error {
			m, err := parseMinutes(line)
			switch n := len(list); {
			case err != nil:
				return err
			case n > 0 && m.Start == list[n-1].Start:
				return nil // two windows are in one hour
			case n > 0 && m.Start < list[n-1].Start:
				return fmt.Errorf("hour %s is not after the one ahead of it", Time(m.Start))
			case m.Start.Add(hourTicks) <= first, m.Start >= last:
				return fmt.Errorf("hour %s was not asked for", Time(m.Start))
			}
			list = append(list, m)
			return nil
		})
	})
	return list, err
}

const hourTicks = 3600 * m4f.Timescale

// parseMinutes checks a line that came from a peer.
func parseMinutes(line []byte) (m archive.Minutes, err error) {
	var w Minutes
	if err := json.Unmarshal(line, &w); err != nil {
		return m, err
	}
	m.Start, m.Longest = m4f.UTC(w.Start), w.Longest
	switch {
	case m.Start%hourTicks != 0:
		return m, fmt.Errorf("hour %s is not a full one", w.Start)
	case m.Longest <= 0 || m.Longest > archive.MaxDuration:
		return m, fmt.Errorf("hour %s with a segment of %d ticks", w.Start, m.Longest)
	case len(w.Digests) != len(m.Digests)*8:
		return m, fmt.Errorf("hour %s with %d bytes of digests", w.Start, len(w.Digests))
	}
	for i := range m.Digests {
		m.Digests[i] = binary.BigEndian.Uint64(w.Digests[i*8:])
	}
	return m, nil
}
