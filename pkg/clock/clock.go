// Package clock is time as the rest of twindvr sees it, so that tests can run
// a day in a millisecond.
package clock

import "time"

// Clock tells the time. The system clock is System.
type Clock interface {
	Now() time.Time
	// After sends the time on the returned channel once d has passed.
	After(d time.Duration) <-chan time.Time
}

// System is the machine's own clock.
var System Clock = system{}

type system struct{}

func (system) Now() time.Time                         { return time.Now() }
func (system) After(d time.Duration) <-chan time.Time { return time.After(d) }
