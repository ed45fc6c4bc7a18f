package replicate

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

const (
	// gatePause is when the archive is tried again that could not be written, and
	// gatePauseMost the longest pause between two tries; each is twice the one
	// before.
	gatePause     = 3 * time.Second
	gatePauseMost = 30 * time.Second
	// gateTrial is after how many segments, one after the other, an archive that
	// could not be written counts as sound again.
	gateTrial = 8
	// gateLook is how often those who wait look.
	gateLook = time.Second
)

// errClosed is why nothing is fetched while the archive cannot be written.
var errClosed = errors.New("the archive cannot be written")

// unwrittenError is the error of a segment that the archive did not take, with the
// segment, so that it need not be fetched again.
type unwrittenError struct {
	want archive.Want
	seg  *m4f.Segment // nil where the media is here
	err  error
}

func (e *unwrittenError) Error() string { return e.err.Error() }
func (e *unwrittenError) Unwrap() error { return e.err }

// unwritten adds the segment to the error of writing it.
func unwritten(w *archive.Want, seg *m4f.Segment, err error) error {
	if err == nil {
		return nil
	}
	return &unwrittenError{want: *w, seg: seg, err: err}
}

// bare is an error without the segment that it is about.
func bare(err error) error {
	if e := (*unwrittenError)(nil); errors.As(err, &e) {
		return e.err
	}
	return err
}

// gate keeps those who fill one archive from fetching what it would not take. It
// closes when a segment cannot be written and keeps that one in memory. Once it
// could be written, the gate opens for one segment at a time, until so many were
// written that the archive counts as sound. A volume with room for little does
// therefore not have the same segments fetched again and again. The zero value
// is open.
type gate struct {
	mu     sync.Mutex
	closed bool
	held   *unwrittenError // what is tried; nil: the next segment is
	trying bool
	pause  time.Duration
	next   time.Time     // of the try; zero: a pause from when it is asked for
	trial  int           // segments that are to be written one after the other
	one    chan struct{} // capacity 1: held by who fetches during a trial
}

// failed takes note of an error of writing to the archive, and says whether it was
// one: then the gate is closed.
func (g *gate) failed(err error) bool {
	if we := (*archive.WriteError)(nil); !errors.As(err, &we) {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if e := (*unwrittenError)(nil); errors.As(err, &e) && g.held == nil {
		g.held = e
	}
	if !g.closed {
		g.closed, g.next = true, time.Time{}
		g.longer()
	}
	g.trial = gateTrial
	return true
}

func (g *gate) longer() { g.pause = min(max(2*g.pause, gatePause), gatePauseMost) }

// wrote takes note of a segment that was written.
func (g *gate) wrote() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.trial == 0 {
		return
	}
	if g.trial--; g.trial == 0 {
		g.pause = 0
	}
}

// shut says whether nothing is to be fetched.
func (g *gate) shut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

// trusted says whether segments may be fetched at once, not one by one.
func (g *gate) trusted() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.closed && g.trial == 0
}

// hurry has the next try made at once, as when others could write. What is tried is
// in memory: that costs no traffic.
func (g *gate) hurry(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held != nil {
		g.next = now
	}
}

// turn waits until a segment may be fetched, and returns what is to be called
// when it is written or has failed. The error is errClosed or the context's.
func (g *gate) turn(ctx context.Context) (done func(), err error) {
	g.mu.Lock()
	closed, trial := g.closed, g.trial
	if g.one == nil {
		g.one = make(chan struct{}, 1)
	}
	g.mu.Unlock()
	switch {
	case closed:
		return nil, errClosed
	case trial == 0:
		return func() {}, ctx.Err()
	}
	select {
	case g.one <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if g.shut() {
		<-g.one
		return nil, errClosed
	}
	return func() { <-g.one }, nil
}

// try writes what is held with put, if it is time for it, and opens the gate where
// that goes well or nothing is held. It returns when to try again; 0: the gate
// is open. An error of put that is not the disk's gives the segment up.
func (g *gate) try(now time.Time, put func(*unwrittenError) error) (wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.closed {
		return 0
	}
	if g.next.IsZero() {
		g.next = now.Add(g.pause)
	}
	if wait := g.next.Sub(now); g.trying || wait > 0 && wait <= gatePauseMost {
		return min(max(wait, gateLook/10), gateLook)
	}
	if held := g.held; held != nil {
		g.trying = true
		g.mu.Unlock()
		err := put(held)
		g.mu.Lock()
		g.trying = false
		if we := (*archive.WriteError)(nil); errors.As(err, &we) {
			g.longer()
			g.next = now.Add(g.pause)
			return gateLook
		}
	}
	g.closed, g.held = false, nil
	return 0
}
