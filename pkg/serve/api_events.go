package serve

import (
	"errors"
	"slices"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// Events are what happened.
type Events struct {
	From   Time          `json:"from"`
	To     Time          `json:"to"`
	More   bool          `json:"more"`
	Events []event.Event `json:"events"`
}

const (
	// eventsFor is how far back events are told where from is not given.
	eventsFor = 24 * time.Hour
	// eventsWindow is how much is read first, from the end; each window before it is
	// twice as long.
	eventsWindow = 2 * time.Hour
)

// events answers with what happened in a span, the newest.
func (h *Handler) events(c *call) (any, error) {
	names, err := h.names(c)
	if err != nil {
		return nil, err
	}
	from, to, err := c.span()
	if err != nil {
		return nil, err
	}
	limit, err := c.number("limit", 500, 1, 5000)
	if err != nil {
		return nil, err
	}
	if to == 0 {
		to = m4f.UTCOf(time.Now())
	}
	if from == 0 {
		from = max(to.Add(-m4f.Ticks(eventsFor)), 1)
	}
	out := &Events{From: Time(from), To: Time(to), Events: []event.Event{}}
	err = h.reading(c.r.Context(), func() error {
		found, err := h.lastEvents(c, names, from, to, limit)
		if len(found) > limit {
			found, out.More = found[len(found)-limit:], true
		}
		out.Events = append(out.Events, found...)
		return err
	})
	return out, err
}

// lastEvents returns events of some streams in order of time: all, or the newest,
// which are more than limit.
func (h *Handler) lastEvents(c *call, names []string, from, to m4f.UTC, limit int) ([]event.Event, error) {
	var archives []*archive.Stream
	for _, name := range names {
		s, err := h.node.Stream(name)
		if errors.Is(err, m4fhttp.ErrNoStream) {
			continue // gone meanwhile
		}
		if err != nil {
			return nil, err
		}
		archives = append(archives, s.Archive())
	}
	var all []event.Event
	for window := m4f.Ticks(eventsWindow); from < to && len(all) <= limit; window *= 2 {
		begin := max(from, to.Add(-window))
		var some []event.Event
		for _, a := range archives {
			if err := c.r.Context().Err(); err != nil {
				return nil, err
			}
			got, err := a.Events(begin, to)
			if err != nil {
				return nil, err
			}
			some = append(some, got...)
		}
		slices.SortStableFunc(some, func(a, b event.Event) int { return a.Time.Compare(b.Time) })
		all = append(some, all...)
		to = begin
	}
	return all, nil
}
