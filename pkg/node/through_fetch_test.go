package node

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/testkit"
)

// runThrough runs a through whose fetches are fill.
func runThrough(t *testing.T, fill func(context.Context, spanKey) error) (th *through, stop func()) {
	t.Helper()
	th = newThrough(&stream{cfg: &config.Stream{Name: "example"}})
	th.fill = fill
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = th.Serve(ctx) // ends with the context's error
	}()
	stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(stop)
	testkit.Await(t, "it runs", func() bool {
		th.mu.Lock()
		defer th.mu.Unlock()
		return th.ctx != nil
	})
	return th, stop
}

func (t *through) waiting(key spanKey) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.fetches[key]; f != nil {
		return f.waiting
	}
	return 0
}

// TestFetchedOnce: many who ask for one span have it fetched once, and get the
// same answer.
func TestFetchedOnce(t *testing.T) {
	var fills atomic.Int32
	release := make(chan struct{})
	failed := errors.New("no such segment")
	th, _ := runThrough(t, func(context.Context, spanKey) error {
		fills.Add(1)
		<-release
		return failed
	})
	key := spanKey{1, 2}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := th.fetch(context.Background(), key); !errors.Is(err, failed) {
				t.Errorf("%v, want %v", err, failed)
			}
		})
	}
	testkit.Await(t, "20 waiting", func() bool { return th.waiting(key) == 20 })
	close(release)
	wg.Wait()
	if n := fills.Load(); n != 1 {
		t.Errorf("fetched %d times", n)
	}
	if err := th.fetch(context.Background(), key); !errors.Is(err, failed) || fills.Load() != 2 {
		t.Errorf("asked for again: %v, fetched %d times in all", err, fills.Load())
	}
}

// TestFetchEndsWithItsViewers: when nobody waits any more it is given up.
func TestFetchEndsWithItsViewers(t *testing.T) {
	ended := make(chan error, 2)
	th, stop := runThrough(t, func(ctx context.Context, _ spanKey) error {
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	})
	key := spanKey{1, 2}
	var leave []context.CancelFunc
	var wg sync.WaitGroup
	for range 2 {
		ctx, cancel := context.WithCancel(context.Background())
		leave = append(leave, cancel)
		wg.Go(func() {
			if err := th.fetch(ctx, key); !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
		})
	}
	testkit.Await(t, "2 waiting", func() bool { return th.waiting(key) == 2 })
	leave[0]()
	testkit.Await(t, "1 waiting", func() bool { return th.waiting(key) == 1 })
	select {
	case <-ended:
		t.Error("given up while somebody waits")
	default:
	}
	leave[1]()
	<-ended
	wg.Wait()

	// The stream's end is that of its fetches.
	wg.Go(func() {
		if err := th.fetch(context.Background(), key); err == nil {
			t.Error("a fetch of a stream that has stopped has succeeded")
		}
	})
	testkit.Await(t, "1 waiting", func() bool { return th.waiting(key) == 1 })
	stop()
	wg.Wait()
	if err := th.fetch(context.Background(), key); err == nil {
		t.Error("a stream that does not run fetches")
	}
}

// TestFetchesAreBounded: few at once, and not more than some wait.
func TestFetchesAreBounded(t *testing.T) {
	var now, most atomic.Int32
	release := make(chan struct{})
	th, _ := runThrough(t, func(context.Context, spanKey) error {
		n := now.Add(1)
		defer now.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		<-release
		return nil
	})
	var wg sync.WaitGroup
	for i := range waitingFetches {
		wg.Go(func() {
			if err := th.fetch(context.Background(), spanKey{m4f.UTC(i), m4f.UTC(i + 1)}); err != nil {
				t.Error(err)
			}
		})
	}
	testkit.Await(t, "as many fetches as there may be", func() bool {
		th.mu.Lock()
		defer th.mu.Unlock()
		return len(th.fetches) == waitingFetches && now.Load() == playFetches
	})
	if err := th.fetch(context.Background(), spanKey{1000, 1001}); !errors.Is(err, errManyFetches) {
		t.Errorf("%v, want %v", err, errManyFetches)
	}
	close(release)
	wg.Wait()
	if n := most.Load(); n != playFetches {
		t.Errorf("%d at once, want %d", n, playFetches)
	}
}
