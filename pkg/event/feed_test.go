package event

import (
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFeed(t *testing.T) {
	var f Feed
	f.Publish(Event{Kind: "before"})
	a, b := f.Subscribe(10), f.Subscribe(0)
	for _, kind := range []string{"1", "2", "3"} {
		f.Publish(Event{Kind: kind})
	}
	a.Close()
	a.Close()
	f.Publish(Event{Kind: "after"})
	var got string
	for e := range a.C {
		got += e.Kind
	}
	if got != "123" || a.Dropped() != 0 {
		t.Errorf("%q, %d dropped", got, a.Dropped())
	}
	if e := <-b.C; e.Kind != "1" || b.Dropped() != 3 || b.Dropped() != 0 {
		t.Errorf("a slow reader: %q", e.Kind)
	}
	b.Close()
}

// Readers that come and go while events are published.
func TestFeedAtOnce(t *testing.T) {
	var f Feed
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				s := f.Subscribe(4)
				f.Publish(Event{Kind: "x"})
				if e := <-s.C; e.Kind != "x" {
					t.Errorf("%+v", e)
				}
				s.Close()
			}
		})
	}
	wg.Wait()
}
