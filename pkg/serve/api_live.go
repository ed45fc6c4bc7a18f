package serve

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

const (
	// maxFollowers is how many clients follow the events at once.
	maxFollowers = 64
	// heartbeat is how often a comment is sent while nothing happens, for those on
	// the way who give up on silent connections.
	heartbeat = 10 * time.Second
	// slowest is how long a client may take what is sent at once.
	slowest = 10 * time.Second
	// resumed bounds the events that a client gets which comes back.
	resumed = 1000
)

// eventsLive sends events as they happen: server-sent events (WHATWG HTML 9.2).
func (h *Handler) eventsLive(w http.ResponseWriter, r *http.Request) {
	c := &call{r: r, w: w}
	if err := h.followEvents(c); err != nil {
		h.refuse(c, err)
	}
}

func (h *Handler) followEvents(c *call) error {
	s, err := h.supervised()
	if err == nil {
		err = c.parse([]string{"stream"})
	}
	if err == nil && c.query.Get("stream") != "" {
		_, err = h.archiveOf(c.query.Get("stream"))
	}
	if err != nil {
		return err
	}
	if h.followers.Add(1) > maxFollowers {
		h.followers.Add(-1)
		c.w.Header().Set("Retry-After", "10")
		return m4fhttp.Problemf(http.StatusServiceUnavailable, "%d clients follow the events already; close one, or ask for events every few seconds", maxFollowers)
	}
	defer h.followers.Add(-1)
	f := &eventFollower{feed: s.Feed(), node: h.nodeID, only: c.query.Get("stream"), w: c.w, out: http.NewResponseController(c.w)}
	began := f.feed.end()
	missed, err := h.missed(c, f, began)
	if err != nil {
		return err
	}
	header := c.w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Accel-Buffering", "no") // for nginx
	f.run(c.r.Context(), missed, began)
	return nil
}

// missed returns what happened since the event that the client has seen last.
func (h *Handler) missed(c *call, f *eventFollower, now feedPlace) ([]numbered, error) {
	id, ok := parseEventID(c.r.Header.Get("Last-Event-ID"))
	if !ok {
		return nil, nil
	}
	known := f.feed.after(feedPlace{event: id.number})
	if id.node == f.node && id.number <= now.event && !known.lost {
		return f.number(known.events, known.first, now), nil
	}
	// From before this process, or from longer ago than it remembers: archives keep
	// events, with those that are about to be written still missing.
	known = f.feed.after(feedPlace{})
	names, err := h.names(c)
	if err != nil {
		return nil, err
	}
	since := m4f.UTCOf(time.UnixMilli(id.ms + 1))
	var old []event.Event
	err = h.reading(c.r.Context(), func() (err error) {
		if end := m4f.UTCOf(time.Now().Add(time.Minute)); since < end {
			old, err = h.lastEvents(c, names, max(since, end.Add(-m4f.Ticks(eventsFor))), end, resumed)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	recent := slices.DeleteFunc(f.number(known.events, known.first, now), func(n numbered) bool { return n.Time.UnixMilli() <= id.ms })
	var out []numbered
	for _, e := range old[max(0, len(old)-resumed):] {
		if !slices.ContainsFunc(recent, func(n numbered) bool { return sameEvent(&n.Event, &e) }) {
			out = append(out, numbered{Event: e})
		}
	}
	return append(out, recent...), nil
}

func sameEvent(a, b *event.Event) bool {
	return a.Time.UnixMilli() == b.Time.UnixMilli() && a.Stream == b.Stream && a.Kind == b.Kind && a.Msg == b.Msg
}

// numbered is an event with its number in the feed; 0: it is from an archive.
type numbered struct {
	event.Event
	n uint64
}

// eventFollower is a client that follows the events.
type eventFollower struct {
	feed *Feed
	node string
	only string // stream; empty: all
	w    http.ResponseWriter
	out  *http.ResponseController
}

// number numbers events and leaves out those behind a place.
func (f *eventFollower) number(events []event.Event, first uint64, until feedPlace) (out []numbered) {
	for i, e := range events {
		if n := first + uint64(i); n <= until.event {
			out = append(out, numbered{e, n})
		}
	}
	return out
}

// run sends events until the client or the server goes.
func (f *eventFollower) run(ctx context.Context, missed []numbered, at feedPlace) {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	var text strings.Builder
	text.WriteString("retry: 2000\n: events follow as they happen\n\n")
	for i := range missed {
		f.write(&text, &missed[i])
	}
	for {
		n := f.feed.after(at)
		if n.lost {
			text.WriteString(": some events were too many to keep; the archive has them\n\n")
		}
		for i, e := range n.events {
			f.write(&text, &numbered{e, n.first + uint64(i)})
		}
		for i := range n.spans {
			f.writeSpan(&text, &n.spans[i])
		}
		at = n.place
		if text.Len() > 0 && !f.send(text.String()) {
			return
		}
		text.Reset()
		select {
		case <-ctx.Done():
			return
		case <-n.more:
		case <-beat.C:
			text.WriteString(":\n\n")
		}
	}
}

// send sends text; false: the client has gone, or is too slow.
func (f *eventFollower) send(text string) bool {
	if f.out.SetWriteDeadline(time.Now().Add(slowest)) != nil {
		return false
	}
	_, err := f.w.Write([]byte(text))
	return err == nil && f.out.Flush() == nil
}

func (f *eventFollower) write(text *strings.Builder, e *numbered) {
	if f.only != "" && e.Stream != f.only {
		return
	}
	data, err := json.Marshal(&e.Event)
	if err != nil {
		return // it could not be kept in the archive either
	}
	fmt.Fprintf(text, "id: %s\ndata: %s\n\n", eventID{e.Time.UnixMilli(), e.n, f.node}, data)
}

func (f *eventFollower) writeSpan(text *strings.Builder, s *ChangedSpan) {
	if f.only != "" && s.Stream != f.only {
		return
	}
	data, err := json.Marshal(s)
	if err != nil {
		return
	}
	fmt.Fprintf(text, "event: coverage\ndata: %s\n\n", data)
}

// eventID is the place behind an event: its time for any process, and its number for
// the one that sent it.
type eventID struct {
	ms     int64 // Unix milliseconds
	number uint64
	node   string
}

func (id eventID) String() string { return fmt.Sprintf("%d-%d-%s", id.ms, id.number, id.node) }

func parseEventID(s string) (id eventID, ok bool) {
	parts := strings.SplitN(s, "-", 3)
	if len(parts) != 3 || len(s) > 100 {
		return id, false
	}
	var err1, err2 error
	id.ms, err1 = strconv.ParseInt(parts[0], 10, 64)
	id.number, err2 = strconv.ParseUint(parts[1], 10, 64)
	id.node = parts[2]
	return id, err1 == nil && err2 == nil && id.ms >= 0 && id.ms < maxMS
}
