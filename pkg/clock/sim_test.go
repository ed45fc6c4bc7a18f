package clock

import (
	"testing"
	"time"
)

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func TestSimEndsWaitsInOrder(t *testing.T) {
	s := NewSim(start)
	b, a, c := s.After(2*time.Hour), s.After(time.Hour), s.After(3*time.Hour)
	s.Advance(150 * time.Minute)
	if at := <-a; at != start.Add(time.Hour) {
		t.Error(at)
	}
	if at := <-b; at != start.Add(2*time.Hour) {
		t.Error(at)
	}
	select {
	case <-c:
		t.Error("too early")
	default:
	}
	if s.Now() != start.Add(150*time.Minute) {
		t.Error(s.Now())
	}
	s.Advance(30 * time.Minute)
	<-c
	<-s.After(0)
	<-s.After(-time.Second)
}

func TestSimStepKeepsWhatIsLeftOfWaits(t *testing.T) {
	s := NewSim(start)
	c := s.After(time.Minute)
	s.Step(start.AddDate(1, 0, 0))
	select {
	case <-c:
		t.Error("a step ends a wait")
	default:
	}
	s.Advance(time.Minute)
	if at := <-c; at != start.AddDate(1, 0, 0).Add(time.Minute) {
		t.Error(at)
	}
}

func TestSimWaiters(t *testing.T) {
	s := NewSim(start)
	done := make(chan time.Time)
	go func() { done <- <-s.After(time.Hour) }()
	go func() { done <- <-s.After(time.Hour) }()
	s.Waiters(2)
	s.Advance(time.Hour)
	<-done
	<-done
}
