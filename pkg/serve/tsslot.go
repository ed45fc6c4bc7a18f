package serve

import (
	"bytes"
	"errors"
	"net/http"
	"regexp"
	"strconv"

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
	made *recent[string, []byte] // by ETag
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
	text, ok := h.made.get(tag)
	if !ok && len(cuts) > 0 {
		var buf bytes.Buffer
		if err := render.WriteTS(q.r.Context(), q.archive, &buf, cuts); err != nil {
			if gone(err) {
				return m4fhttp.Problemf(http.StatusNotFound, "this is being pruned")
			}
			return errors.Join(q.r.Context().Err(), err)
		}
		text = buf.Bytes()
		h.made.put(tag, text, len(text))
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
