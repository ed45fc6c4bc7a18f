package replicate

import (
	"sync"
	"time"
)

const (
	// A segment that a peer lists and does not give is asked for again after
	// firstAgain, then after twice that, up to lastAgain.
	firstAgain = time.Minute
	lastAgain  = 2 * time.Hour
	// maxRefused bounds what a Refused remembers.
	maxRefused = 1 << 16
)

// Refused remembers segments that a peer lists and does not give (it has lost
// their media, or sends something else), so that they are asked for again less
// and less often. The zero value is ready; a nil one remembers nothing. It may be
// used by many goroutines.
type Refused struct {
	mu   sync.Mutex
	when map[occurrence]refusedUntil
}

type refusedUntil struct {
	until time.Time
	wait  time.Duration
}

// add notes a refusal and says whether it is the first.
func (r *Refused) add(o occurrence, now time.Time) (first bool) {
	if r == nil {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	was, again := r.when[o]
	wait := firstAgain
	if again {
		wait = min(2*was.wait, lastAgain)
	}
	if r.when == nil || len(r.when) >= maxRefused {
		r.when = map[occurrence]refusedUntil{}
	}
	r.when[o] = refusedUntil{now.Add(wait), wait}
	return !again
}

// holds says whether a segment is not to be asked for yet.
func (r *Refused) holds(o occurrence, now time.Time) bool {
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return now.Before(r.when[o].until)
}

// remove forgets a segment that came.
func (r *Refused) remove(o occurrence) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.when, o)
}
