package serve

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/render"
)

// preview answers with one picture as an MP4 file.
func (h *Handler) preview(q *play) error {
	sec, err := strconv.ParseInt(q.parts[1], 10, 64)
	if err != nil || sec < 1 || sec > maxSeconds {
		return m4fhttp.Problemf(http.StatusBadRequest, "UTC is in Unix seconds")
	}
	at := m4f.UTC(sec * m4f.Timescale)
	if err := permitSpan(q.r, at, at); err != nil {
		return err
	}
	if err := h.fetchThrough(q, at, at.Add(m4f.Timescale), previewWait); err != nil {
		return err
	}
	pic, err := render.Preview(q.r.Context(), q.archive, at)
	if errors.Is(err, render.ErrNoPicture) {
		return m4fhttp.Problemf(http.StatusNotFound, "%v", err)
	}
	if err != nil {
		return err
	}
	if err := permitSpan(q.r, pic.UTC, pic.UTC); err != nil { // it may be from long before
		return err
	}
	cache := "private, no-cache"
	if pic.Settled {
		cache = "private, max-age=3600"
	}
	q.w.Header().Set("Last-Modified", pic.UTC.Time().Format(http.TimeFormat))
	h.serveBody(q, bodyOf(pic.MP4), "video/mp4", `"`+pic.Tag+`"`, cache)
	return nil
}
