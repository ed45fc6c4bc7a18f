package fsx

import (
	"fmt"
	"path/filepath"
)

// Stop is the place at which a Faults stops the process that a test plays: in one
// of the calls made after Arm. It is used by one goroutine.
type Stop struct {
	call  int    // its number, from 0
	how   string // before the call; half or all of a write
	armed bool
	calls int
	name  string
}

// Arm begins the count of calls.
func (s *Stop) Arm() { s.armed = true }

// String names the place, once it was reached.
func (s *Stop) String() string { return s.name }

func (s *Stop) hook(o Op) error {
	if !s.armed {
		return nil
	}
	if s.calls++; s.calls != s.call+1 {
		return nil
	}
	s.name = fmt.Sprintf("%d %s %s %s", s.call, s.how, o.Name, filepath.Base(o.Path))
	switch {
	case s.how == "before":
		return ErrCrashed
	case o.Name != "write":
		return nil
	case s.how == "half":
		return &ShortWrite{N: o.Size / 2}
	}
	return &ShortWrite{N: o.Size}
}

// EachStop calls try with a file system that stops at each of the calls that try
// makes after Arm, in turn: before the call, and for writes also in the middle
// and at the end. It returns how often it stopped.
func EachStop(try func(f *Faults, at *Stop)) (stops int) {
	for n := 0; ; n++ {
		reached := false
		for _, how := range []string{"before", "half", "all"} {
			at := &Stop{call: n, how: how}
			f := NewFaults(OS, at.hook)
			try(f, at)
			reached = reached || at.name != ""
			if f.Fired() > 0 {
				stops++
			}
		}
		if !reached {
			return stops
		}
	}
}
