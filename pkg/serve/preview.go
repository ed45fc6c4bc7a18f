package serve

import (
	"bytes"
	"context"
	"errors"
	"io"
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
	pic, err := render.Preview(q.r.Context(), q.archive, at)
	if errors.Is(err, render.ErrNoPicture) {
		return m4fhttp.Problemf(http.StatusNotFound, "%v", err)
	}
	if err != nil {
		return err
	}
	head := q.w.Header()
	head.Set("Content-Type", "video/mp4")
	head.Set("ETag", `"`+pic.Tag+`"`)
	head.Set("Last-Modified", pic.UTC.Time().UTC().Format(http.TimeFormat))
	head.Set("Cache-Control", "private, no-cache")
	if pic.Settled {
		head.Set("Cache-Control", "private, max-age=3600")
	}
	h.serveBody(q, &rangedBody{ctx: q.r.Context(), size: int64(len(pic.MP4)),
		from: func(_ context.Context, w io.Writer, from, to int64) error {
			_, err := io.Copy(w, bytes.NewReader(pic.MP4[from:to]))
			return err
		}})
	return nil
}
