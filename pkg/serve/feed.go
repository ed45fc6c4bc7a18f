package serve

import (
	"sync"

	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/m4f"
)

const (
	// feedEvents is how many events a Feed remembers.
	feedEvents = 2048
	// feedSpans is how many changed spans it remembers.
	feedSpans = 512
)

// Feed is what happens to the streams of a node, as it happens: whoever follows it
// reads at its own pace, and holds up nobody.
type Feed struct {
	mu      sync.Mutex
	events  ring[event.Event]
	spans   ring[ChangedSpan]
	changed chan struct{} // closed and replaced with each addition; nil: nobody waits
}

// ChangedSpan tells that an archive has changed elsewhere than at its end.
type ChangedSpan struct {
	Stream string `json:"stream"`
	From   Time   `json:"from"`
	To     Time   `json:"to"`
}

// ring remembers the last of what was added, which is numbered from 1.
type ring[T any] struct {
	list []T
	most int
	last uint64 // number of the newest
}

func (r *ring[T]) add(v T) {
	r.last++
	if len(r.list) < r.most {
		r.list = append(r.list, v)
		return
	}
	r.list[(r.last-1)%uint64(r.most)] = v
}

// after returns what was added behind a number; lost says that some of it is no
// longer known.
func (r *ring[T]) after(n uint64) (out []T, lost bool) {
	first := r.last - uint64(len(r.list)) // the number before the oldest
	if lost = n < first; lost {
		n = first
	}
	for ; n < r.last; n++ {
		out = append(out, r.list[n%uint64(r.most)])
	}
	return out, lost
}

// NewFeed returns an empty Feed.
func NewFeed() *Feed {
	return &Feed{events: ring[event.Event]{most: feedEvents}, spans: ring[ChangedSpan]{most: feedSpans}}
}

// Add adds an event.
func (f *Feed) Add(e event.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events.add(e)
	f.wake()
}

// Changed adds a span in which a stream's archive has changed.
func (f *Feed) Changed(stream string, from, to m4f.UTC) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.spans.add(ChangedSpan{stream, Time(from), Time(to)})
	f.wake()
}

func (f *Feed) wake() {
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// feedPlace is how far somebody has read.
type feedPlace struct{ event, span uint64 }

// end is the place behind all that was added.
func (f *Feed) end() feedPlace {
	f.mu.Lock()
	defer f.mu.Unlock()
	return feedPlace{f.events.last, f.spans.last}
}

// news is what was added behind a place.
type news struct {
	place  feedPlace // behind it
	first  uint64    // number of the first event
	events []event.Event
	spans  []ChangedSpan
	lost   bool            // events before the first are no longer known
	more   <-chan struct{} // closed when something follows
}

// after returns what was added behind a place.
func (f *Feed) after(p feedPlace) news {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := news{place: feedPlace{f.events.last, f.spans.last}}
	n.events, n.lost = f.events.after(p.event)
	n.first = f.events.last - uint64(len(n.events)) + 1
	n.spans, _ = f.spans.after(p.span)
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	n.more = f.changed
	return n
}
