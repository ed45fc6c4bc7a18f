package serve

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twindvr/twindvr/pkg/render"
	"github.com/twindvr/twindvr/pkg/testkit"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

// TestLongTSSlots: a slot of more than a playlist lists as one is refused.
func TestLongTSSlots(t *testing.T) {
	x := newTheatre(t, recorded(t, 90*time.Second, 2*time.Second)...)
	x.clock.Advance(2 * time.Minute)
	ms := begins.UnixMilli()
	for length, want := range map[int]int{2000: 200, 60_000: 200, 64_000: 200, 64_001: 404, 80_000: 404, 3600_000: 404, 3600_001: 404} {
		if code, body, _ := x.ask(t, http.MethodGet, fmt.Sprintf("/example/hls/ts/%d-%d.ts", ms, length)); code != want {
			t.Errorf("%d ms: %d, %d bytes, want %d", length, code, len(body), want)
		}
	}
}

// cutsOf are those of a theatre's first seconds.
func (x *theatre) cutsOf(t *testing.T, seconds int64) (cuts []render.Cut, bytes int64) {
	t.Helper()
	slot := render.Slot{From: begins.UnixMilli(), To: begins.UnixMilli() + 1000*seconds}
	els, err := x.stream.Span(slot.Around())
	if err != nil {
		t.Fatal(err)
	}
	cuts = slot.Cuts(els)
	for i := range cuts {
		bytes += int64(cuts[i].Piece.Length)
	}
	return cuts, bytes
}

// TestLargeTSSlot: a slot that is sent as it is made has a length, and ranges.
func TestLargeTSSlot(t *testing.T) {
	segs := cutUp(testkit.Stream(t, testsrc.Options{StartPTS: 90000, Duration: 40 * time.Second, Bitrate: 6_000_000}), 2*time.Second, 0)
	x := newTheatre(t, segs...)
	x.clock.Advance(2 * time.Minute)
	if _, n := x.cutsOf(t, 38); n <= wholeTS {
		t.Fatalf("%d bytes are not large", n)
	}
	path := fmt.Sprintf("/example/hls/ts/%d-38000.ts", begins.UnixMilli())
	code, body, head := x.ask(t, http.MethodGet, path)
	if code != http.StatusOK || head.Get("Content-Length") != strconv.Itoa(len(body)) || len(body) < wholeTS || len(body)%188 != 0 || head.Get("Content-Type") != "video/mp2t" {
		t.Fatalf("%d, %d bytes, %v", code, len(body), head)
	}
	code, part, _ := x.ask(t, http.MethodGet, path, "Range", "bytes=9000000-9000999", "If-Range", head.Get("ETag"))
	if code != http.StatusPartialContent || part != body[9_000_000:9_001_000] {
		t.Errorf("a part: %d, %d bytes, or others", code, len(part))
	}
}

// TestTSRoom: what is made and sent of transport streams is bounded; one slot takes
// its room once, whoever gets it.
func TestTSRoom(t *testing.T) {
	x := inTheatre(t)
	cuts, n := x.cutsOf(t, 4)
	x.Close()
	synctest.Test(t, func(t *testing.T) {
		h := newTSSlots(x.h)
		q := &play{r: (&http.Request{}).WithContext(t.Context()), archive: x.stream}
		var held []*tsText
		for range 50 {
			s := h.use(q, "one", cuts, 3*n)
			if s.err != nil {
				t.Fatal(s.err)
			}
			held = append(held, s)
		}
		if free := int64(busyTS) - int64(len(held[0].text)); !h.room.TryAcquire(free) || h.room.TryAcquire(1) {
			t.Error("one slot takes room more than once, or none")
		} else {
			began := time.Now()
			if s := h.use(q, "other", cuts, 3*n); s.err != errFull || time.Since(began) != waitTS {
				t.Errorf("without room: %v after %s", s.err, time.Since(began))
			} else {
				h.leave("other", s)
			}
			h.room.Release(free)
		}
		for _, s := range held {
			h.leave("one", s)
		}
		if !h.room.TryAcquire(busyTS) || len(h.inUse) > 0 {
			t.Error("room is not given back")
		}
		h.room.Release(busyTS)
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				tag := strconv.Itoa(i % 7)
				s := h.use(q, tag, cuts, busyTS)
				time.Sleep(time.Millisecond)
				h.leave(tag, s)
			})
		}
		wg.Wait()
		if !h.room.TryAcquire(busyTS) {
			t.Error("room is not given back")
		}
	})
}
