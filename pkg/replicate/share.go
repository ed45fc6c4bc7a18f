package replicate

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// Share is what those have in common who fill one archive, one for each peer:
// none of them fetches what another is fetching, all keep to one rate, and what
// is live comes first. The zero value, and nil, share nothing but that. It may be
// used by many goroutines; the fields are set before its first use.
type Share struct {
	// Limit bounds the rate of filling, of all together; nil: it is not bounded.
	Limit *rate.Limiter
	// Slots bound how many segments are in memory while filling, of several
	// archives together perhaps; nil: the number of jobs does.
	Slots Slots
	// Behind says that recording is late, as on a slow disk: filling then slows
	// down to a trickle. It is called often and should be cheap; nil: never.
	Behind func() bool

	gate    gate         // shut while the archive cannot be written
	urgent  atomic.Int64 // fetches of live segments under way
	mu      sync.Mutex
	flights map[m4f.Identity]*flight
}

// Slots are places for segments that are in memory while archives are filled.
type Slots chan struct{}

// NewSlots makes n of them.
func NewSlots(n int) Slots { return make(Slots, n) }

// take waits for a slot.
func (s Slots) take(ctx context.Context) error {
	if s == nil {
		return ctx.Err()
	}
	select {
	case s <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// give gives back a slot that was taken.
func (s Slots) give() {
	if s != nil {
		<-s
	}
}

// flight is a segment that is being fetched.
type flight struct {
	done  chan struct{} // closed when it is in the archive, or has failed
	began time.Time
	moved atomic.Int64 // when a byte last came, Unix nanoseconds
	live  atomic.Bool  // somebody waits for it whom filling gives way to
}

const (
	// stuckAfter is how long a fetch may bring nothing until another peer is
	// asked for the same segment, and slowAfter how long it may take in all.
	stuckAfter = 2 * time.Second
	slowAfter  = 20 * time.Second
	// stuckStep is how often those who wait look.
	stuckStep = 100 * time.Millisecond
)

// join waits until nobody else is fetching a segment, or whoever does gets
// nowhere, and returns a flight of the caller's own, which it must land. waited
// says that there was another: the segment may be here now.
func (s *Share) join(ctx context.Context, id m4f.Identity, live bool) (own *flight, waited bool, err error) {
	if s == nil {
		return nil, false, ctx.Err()
	}
	for {
		s.mu.Lock()
		other := s.flights[id]
		if other == nil || other.stuck() {
			own = &flight{done: make(chan struct{}), began: time.Now()}
			own.moved.Store(own.began.UnixNano())
			if s.flights == nil {
				s.flights = map[m4f.Identity]*flight{}
			}
			s.flights[id] = own
			s.mu.Unlock()
			return own, waited, ctx.Err()
		}
		s.mu.Unlock()
		waited = true
		if live {
			other.live.Store(true)
		}
		select {
		case <-ctx.Done():
			return nil, waited, ctx.Err()
		case <-other.done:
		case <-time.After(stuckStep):
		}
	}
}

func (f *flight) stuck() bool {
	now := time.Now()
	return now.Sub(time.Unix(0, f.moved.Load())) > stuckAfter || now.Sub(f.began) > slowAfter
}

// flow notes that bytes have come.
func (f *flight) flow() {
	if f != nil {
		f.moved.Store(time.Now().UnixNano())
	}
}

// land ends a flight.
func (s *Share) land(id m4f.Identity, f *flight) {
	if f == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.flights[id] == f {
		delete(s.flights, id)
	}
	close(f.done)
}

// hurry says that live segments are being fetched, until the function that it
// returns is called.
func (s *Share) hurry() (done func()) {
	if s == nil {
		return func() {}
	}
	s.urgent.Add(1)
	return func() { s.urgent.Add(-1) }
}

const (
	// yieldStep is how often filling looks whether it may go on, yieldRead how long
	// each read waits at most where it may not, and yieldSegment each segment.
	yieldStep    = 10 * time.Millisecond
	yieldRead    = 250 * time.Millisecond
	yieldSegment = 3 * time.Second
)

// yield waits for what is live, but no longer than most: filling slows down and
// never stops. A flight that is waited for does not wait.
func (s *Share) yield(ctx context.Context, fl *flight, most time.Duration) error {
	if s == nil {
		return ctx.Err()
	}
	for began := time.Now(); s.pressed() && time.Since(began) < most && (fl == nil || !fl.live.Load()); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(yieldStep):
		}
	}
	return ctx.Err()
}

// turn waits for the turn to fetch a segment, see gate.turn.
func (s *Share) turn(ctx context.Context) (done func(), err error) {
	if s == nil {
		return func() {}, ctx.Err()
	}
	return s.gate.turn(ctx)
}

// failed takes note of an error, which is perhaps that the archive could not be
// written.
func (s *Share) failed(err error) {
	if s != nil {
		s.gate.failed(err)
	}
}

// wrote takes note of a segment that was written.
func (s *Share) wrote() {
	if s != nil {
		s.gate.wrote()
	}
}

// pressed says whether what is live is to go first.
func (s *Share) pressed() bool {
	return s.urgent.Load() > 0 || s.Behind != nil && s.Behind()
}
