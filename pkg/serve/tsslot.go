package serve

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/render"
)

// Bounds of segments of transport stream, which are made in memory.
const (
	// keepTS bounds the bytes of those that are remembered: many viewers ask for
	// one at about the same time.
	keepTS = 32 << 20
	// wholeTS is of how many bytes of segments one is made before it is sent. What
	// is larger is sent as it is made, a segment of the archive at a time.
	wholeTS = 16 << 20
	// busyTS bounds the bytes of those that are being made and sent, and streamTS
	// the bytes of those that are sent as they are made.
	busyTS, streamTS = 192 << 20, 64 << 20
	// waitTS is how long a viewer waits for room.
	waitTS = 5 * time.Second
	// longTS is from which length on, in milliseconds, a slot holds few segments:
	// the playlist had an entry of one that was so long.
	longTS, fewTS = 64_000, 4
)

// tsFiles are the segments of playlists of transport streams.
func (h *Handler) tsFiles() []playable {
	t := newTSSlots(h)
	return []playable{fileOf(`hls/ts/(\d{1,15})-(\d{1,7})\.ts`, "", t.serve)}
}

// tsSlots answers with slots as transport streams.
type tsSlots struct {
	*Handler
	made   *recent[string, []byte] // by ETag
	room   *semaphore.Weighted     // bytes, for inUse
	stream *semaphore.Weighted     // bytes, for what is larger

	mu    sync.Mutex
	inUse map[string]*tsText // by ETag
}

func newTSSlots(h *Handler) *tsSlots {
	return &tsSlots{
		Handler: h, made: newRecent[string, []byte](keepTS), inUse: map[string]*tsText{},
		room: semaphore.NewWeighted(busyTS), stream: semaphore.NewWeighted(streamTS),
	}
}

// tsText is a slot that is being made or sent, in memory once for all who get it.
type tsText struct {
	done chan struct{} // closed when it is made
	text []byte
	err  error
	cost int64 // of room
	used int   // by how many
}

func (h *tsSlots) serve(q *play) error {
	slot, cuts, missing, err := h.play.slot(q, q.parts[1], q.parts[2])
	if err != nil {
		return err
	}
	if slot.To-slot.From > longTS && len(cuts) > fewTS {
		return noSlot()
	}
	tag, clean := follows("ts", cuts)
	switch {
	case len(cuts) == 0:
		h.serveBody(q, &body{}, "video/mp2t", tag, changing)
		return nil
	case clean && !missing:
		return pruned(h.send(q, cuts, tag, cleanCache))
	}
	return pruned(h.send(q, cuts, tag, changing))
}

// send answers with cuts.
func (h *tsSlots) send(q *play, cuts []render.Cut, tag, cache string) error {
	all, largest := int64(0), int64(0)
	for i := range cuts {
		n := int64(cuts[i].Piece.Length)
		all, largest = all+n, max(largest, n)
	}
	if all > wholeTS {
		return h.sendLarge(q, cuts, largest, tag, cache)
	}
	t := h.use(q, tag, cuts, min(3*all, busyTS))
	defer h.leave(tag, t)
	if t.err != nil {
		return h.full(q, t.err)
	}
	h.serveBody(q, bodyOf(t.text), "video/mp2t", tag, cache)
	return nil
}

// sendLarge answers with cuts that are sent as they are made.
func (h *tsSlots) sendLarge(q *play, cuts []render.Cut, largest int64, tag, cache string) error {
	cost := min(3*largest, streamTS)
	if err := acquire(q.r.Context(), h.stream, cost); err != nil {
		return h.full(q, err)
	}
	defer h.stream.Release(cost)
	s, err := render.NewTSSlot(q.r.Context(), q.archive, cuts)
	if err != nil {
		return err
	}
	h.serveBody(q, s, "video/mp2t", tag, cache)
	return nil
}

// errFull is the error of those who find no room in time.
var errFull = errors.New("no room")

func (h *tsSlots) full(q *play, err error) error {
	if !errors.Is(err, errFull) {
		return err
	}
	q.w.Header().Set("Retry-After", "2")
	return m4fhttp.Problemf(http.StatusServiceUnavailable, "too many segments of transport stream are being sent; try again in a moment")
}

func acquire(ctx context.Context, s *semaphore.Weighted, n int64) error {
	wait, cancel := context.WithTimeout(ctx, waitTS)
	defer cancel()
	if s.Acquire(wait, n) == nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return errFull
}

// use returns cuts as a transport stream, made once for all who ask for it. It is to
// be left.
func (h *tsSlots) use(q *play, tag string, cuts []render.Cut, cost int64) *tsText {
	h.mu.Lock()
	t := h.inUse[tag]
	if t != nil {
		t.used++
		h.mu.Unlock()
		<-t.done
		return t
	}
	t = &tsText{done: make(chan struct{}), used: 1}
	h.inUse[tag] = t
	h.mu.Unlock()
	defer close(t.done)
	ctx := context.WithoutCancel(q.r.Context()) // others may wait for it
	if t.err = acquire(ctx, h.room, cost); t.err != nil {
		return t
	}
	t.cost = cost
	text, ok := h.made.get(tag)
	if !ok {
		var buf bytes.Buffer
		buf.Grow(int(cost / 3))
		if t.err = render.WriteTS(ctx, q.archive, &buf, cuts); t.err != nil {
			return t
		}
		text = bytes.Clone(buf.Bytes())
		h.made.put(tag, text, len(text))
	}
	t.text = text
	if n := int64(len(text)); n < cost {
		h.room.Release(cost - n)
		t.cost = n
	}
	return t
}

// leave gives back the room of what nobody gets any more.
func (h *tsSlots) leave(tag string, t *tsText) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t.used--; t.used == 0 || t.err != nil {
		if h.inUse[tag] == t {
			delete(h.inUse, tag)
		}
	}
	if t.used == 0 {
		h.room.Release(t.cost)
	}
}

// follows is the ETag of what is made of cuts in some form, and says whether nothing
// can take their place.
func follows(form string, cuts []render.Cut) (tag string, clean bool) {
	var list []byte
	clean = true
	for i := range cuts {
		e := cuts[i].Piece.Element
		clean = clean && e.Clean() && e.Whole()
		list = append(list, e.ID[:]...)
		list = strconv.AppendInt(append(strconv.AppendInt(list, cuts[i].From, 10), '-'), cuts[i].To, 10)
	}
	return etagOf([]byte(form), list), clean
}
