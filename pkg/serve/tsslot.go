package serve

import (
	"bytes"
	"context"
	"net/http"
	"regexp"
	"strconv"

	"golang.org/x/sync/singleflight"

	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/render"
)

// keepTS bounds the bytes of transport stream segments that are remembered: many
// viewers ask for one at about the same time.
const keepTS = 32 << 20

// tsFiles are the segments of playlists of transport streams.
func (h *Handler) tsFiles() []playable {
	t := &tsSlots{Handler: h, made: newRecent[string, []byte](keepTS)}
	return []playable{{regexp.MustCompile(`^hls/ts/(\d{1,15})-(\d{1,7})\.ts$`), "", t.serve}}
}

// tsSlots answers with slots as transport streams.
type tsSlots struct {
	*Handler
	made   *recent[string, []byte] // by ETag
	making singleflight.Group      // by ETag
}

func (h *tsSlots) serve(q *play) error {
	from, _ := strconv.ParseInt(q.parts[1], 10, 64)
	length, _ := strconv.ParseInt(q.parts[2], 10, 64)
	slot := render.Slot{From: from, To: from + length}
	if slot.To > maxMS || length < 1 || length > render.MaxSlot {
		return m4fhttp.Problemf(http.StatusNotFound, "there is no such slot; load the playlist again")
	}
	cuts, missing, err := h.play.cuts(q, slot)
	if err != nil {
		return err
	}
	if len(cuts) == 0 {
		if err := outside(q.archive, slot); err != nil {
			return err
		}
	}
	tag, clean := follows("ts", cuts)
	var text []byte
	if len(cuts) > 0 {
		text, err = h.text(q, tag, cuts)
		if gone(err) {
			return m4fhttp.Problemf(http.StatusNotFound, "this is being pruned")
		}
		if err != nil {
			return err
		}
	}
	cache := changing
	if clean && !missing && len(text) > 0 {
		cache = cleanCache
	}
	b := &body{}
	b.bytes(text)
	h.serveParts(q, b, "video/mp2t", tag, cache)
	return nil
}

// text is cuts as a transport stream, made once for all who ask for it.
func (h *tsSlots) text(q *play, tag string, cuts []render.Cut) ([]byte, error) {
	if text, ok := h.made.get(tag); ok {
		return text, nil
	}
	text, err, _ := h.making.Do(tag, func() (any, error) {
		var buf bytes.Buffer
		err := render.WriteTS(context.WithoutCancel(q.r.Context()), q.archive, &buf, cuts)
		if err == nil {
			h.made.put(tag, buf.Bytes(), buf.Len())
		}
		return buf.Bytes(), err
	})
	return text.([]byte), err
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
