package event

import "sync"

// Feed passes events on to whoever wants them as they happen. The zero value is
// ready; it is safe for concurrent use.
type Feed struct {
	mu   sync.Mutex
	subs map[*Subscription]struct{}
}

// Subscription is one reader of a Feed.
type Subscription struct {
	// C gives the events, in order. It is closed by Close.
	C <-chan Event

	feed    *Feed
	c       chan Event
	dropped int64 // guarded by feed.mu
}

// Publish passes an event on. It waits for nobody: a reader that is behind by as
// many events as it wanted to have held for it misses the event.
func (f *Feed) Publish(e Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.subs {
		select {
		case s.c <- e:
		default:
			s.dropped++
		}
	}
}

// Subscribe returns the events from now on. Up to hold of them, at least one, wait
// for the reader.
func (f *Feed) Subscribe(hold int) *Subscription {
	s := &Subscription{feed: f, c: make(chan Event, max(hold, 1))}
	s.C = s.c
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.subs == nil {
		f.subs = make(map[*Subscription]struct{})
	}
	f.subs[s] = struct{}{}
	return s
}

// Dropped is how many events the reader has missed since it was asked last.
func (s *Subscription) Dropped() int64 {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	n := s.dropped
	s.dropped = 0
	return n
}

// Close ends the subscription; once is enough, and again does nothing.
func (s *Subscription) Close() {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	if _, ok := s.feed.subs[s]; ok {
		delete(s.feed.subs, s)
		close(s.c)
	}
}
