package clock

import (
	"sync"
	"time"
)

// Sim is a clock that stands still until it is told to move. It is safe for
// concurrent use.
type Sim struct {
	mu    sync.Mutex
	now   time.Time
	wait  []waiter
	moved chan struct{} // closed and replaced whenever a waiter is added
}

type waiter struct {
	at time.Time
	c  chan time.Time
}

// NewSim returns a simulated clock that shows now.
func NewSim(now time.Time) *Sim { return &Sim{now: now, moved: make(chan struct{})} }

// Now implements Clock.
func (s *Sim) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// After implements Clock.
func (s *Sim) After(d time.Duration) <-chan time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := make(chan time.Time, 1)
	if d <= 0 {
		c <- s.now
		return c
	}
	s.wait = append(s.wait, waiter{s.now.Add(d), c})
	close(s.moved)
	s.moved = make(chan struct{})
	return c
}

// Advance moves the clock forward and lets every wait that ends by then end,
// in order of time, each seeing the time at which it was due.
func (s *Sim) Advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	end := s.now.Add(d)
	for {
		next := -1
		for i, w := range s.wait {
			if !w.at.After(end) && (next < 0 || w.at.Before(s.wait[next].at)) {
				next = i
			}
		}
		if next < 0 {
			break
		}
		w := s.wait[next]
		s.wait = append(s.wait[:next], s.wait[next+1:]...)
		if w.at.After(s.now) {
			s.now = w.at
		}
		w.c <- s.now
	}
	s.now = end
}

// Step sets the clock, forward or back, as an operator or NTP does: waits that
// are under way keep the time that is left of them.
func (s *Sim) Step(to time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := to.Sub(s.now)
	s.now = to
	for i := range s.wait {
		s.wait[i].at = s.wait[i].at.Add(d)
	}
}

// Waiters blocks until at least n waits are under way, so that a test can
// advance the clock only when whoever it tests has come to rest.
func (s *Sim) Waiters(n int) {
	for {
		s.mu.Lock()
		have, moved := len(s.wait), s.moved
		s.mu.Unlock()
		if have >= n {
			return
		}
		<-moved
	}
}
