package m4fhttp

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// endless makes an answer end when the key of its request is accepted no more.
func (h *Handler) endless(serve func(*request) error) func(*request) error {
	return func(q *request) error {
		ctx, release := h.Auth.hold(q.r.Context(), q.key)
		defer release()
		q.r = q.r.WithContext(ctx)
		return serve(q)
	}
}

// serveChanges answers with the records added to the archive behind a cursor,
// for as long as the client listens, and with the state of the stream each
// second.
func (h *Handler) serveChanges(q *request) error {
	a := q.stream.Archive()
	cursor := archive.Cursor(q.query.Get("cursor"))
	if cursor == CursorNow {
		end, err := a.End()
		if err != nil {
			return err
		}
		cursor = end
	}
	// The first are read before the answer begins, so that a cursor that is no
	// good can be answered with a problem.
	recs, next, err := a.ReadChanges(cursor, changesBatch)
	if errors.Is(err, archive.ErrCursorGone) {
		return problemf(http.StatusGone, "the changes behind this cursor are no longer kept; compare by hours, then follow from cursor=%s", CursorNow)
	}
	if err != nil {
		return err
	}
	c := &changes{h: h, q: q, a: a, brief: prefersBrief(q.r), cursor: cursor}
	if c.brief {
		q.w.Header().Set("Preference-Applied", brief)
	}
	c.l = newLineWriter(q, true)
	if q.r.Method == http.MethodHead {
		return nil
	}
	err = c.status(len(recs) == 0)
	for err == nil {
		if err = c.batch(recs, next); err != nil {
			break
		}
		if err = c.wait(len(recs) == 0); err != nil {
			break
		}
		recs, next, err = a.ReadChanges(c.cursor, changesBatch)
	}
	cut()
	return nil
}

// changes is one answer to changes.
type changes struct {
	h      *Handler
	q      *request
	a      *archive.Stream
	l      *lineWriter
	cursor archive.Cursor // behind what has been written
	told   time.Time      // when the last status was
	brief  bool           // what has not changed since is not told again
	last   struct {       // told
		Live
		cursor archive.Cursor
	}
}

// batch writes records; only the last has a cursor.
func (c *changes) batch(recs []archive.Record, next archive.Cursor) error {
	for i := range recs {
		w := RecordOf(&recs[i])
		line := Change{Record: &w}
		if i == len(recs)-1 {
			line.Cursor, c.last.cursor = string(next), next
		}
		if err := c.l.line(line); err != nil {
			return err
		}
	}
	c.cursor = next
	if len(recs) == 0 {
		return nil
	}
	return c.l.flush()
}

func (c *changes) status(idle bool) error {
	c.told = time.Now()
	line := Change{
		Cursor: string(c.cursor),
		Status: &Status{Idle: idle, Now: c.told.UnixMilli(), Live: c.h.live(c.q.stream)},
	}
	now := line.Status.Live
	if c.brief && c.last.Chain != nil {
		if c.cursor == c.last.cursor {
			line.Cursor = ""
		}
		if now.same(&c.last.Live) {
			line.Status.Live = Live{SourceAge: now.SourceAge}
		}
	}
	c.last.Live, c.last.cursor = now, c.cursor
	if err := c.l.line(line); err != nil {
		return err
	}
	return c.l.flush()
}

// brief is the preference (RFC 7240) of a client that takes a status without mode,
// inputs and chain for one in which they are as they were in the line before.
const brief = "m4f-brief"

func prefersBrief(r *http.Request) bool {
	return slices.ContainsFunc(r.Header.Values("Prefer"), func(v string) bool {
		return slices.ContainsFunc(strings.Split(v, ","), func(p string) bool { return strings.EqualFold(strings.TrimSpace(p), brief) })
	})
}

// same says whether all but the age of the source is as it was.
func (l *Live) same(o *Live) bool {
	return l.Mode == o.Mode && slices.Equal(l.Inputs, o.Inputs) && slices.Equal(l.Chain, o.Chain)
}

// wait waits for more changes where there were none, and tells the status when
// it is due.
func (c *changes) wait(idle bool) error {
	ctx := c.q.r.Context()
	if left := statusEvery - time.Since(c.told); idle && left > 0 {
		timeout, cancel := context.WithTimeout(ctx, left)
		err := c.a.WaitChanges(timeout, c.cursor)
		cancel()
		if err != nil && (ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded)) {
			return err
		}
		if err == nil {
			return nil
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if time.Since(c.told) < statusEvery {
		return nil
	}
	return c.status(idle)
}

// overlap is how far a segment may begin before the end of the one ahead of it:
// contiguity is judged in media time, and offsets differ by milliseconds.
const overlap = m4f.Timescale / 4

// serveLive answers with each segment as it is completed, for as long as the
// client listens. What has been sent is never gone back on: a segment that is
// healed later, behind it, is not sent.
func (h *Handler) serveLive(q *request) error {
	a := q.stream.Archive()
	l := &live{q: q, a: a, together: &h.together}
	if text := q.query.Get("after"); text != "" {
		id, err := m4f.ParseIdentity(text)
		if err != nil {
			return problemf(http.StatusBadRequest, "%s; segments lists them", clip(err.Error()))
		}
		m, err := a.OpenMedia(id, 0)
		if errors.Is(err, archive.ErrNoSegment) {
			return problemf(http.StatusNotFound, "there is no segment %s in this stream; leave after out to begin with the newest", id)
		}
		if err != nil {
			return err
		}
		m.Close()
		l.start, l.end = m.UTC, m.End()
	} else {
		info, err := a.Info()
		if err != nil {
			return err
		}
		if info.Newest != 0 {
			last, err := newest(a, info.Newest)
			if err != nil {
				return err
			}
			if last != nil {
				l.start, l.end = last.UTC-1, last.UTC
			}
		}
	}
	cursor, err := a.End()
	if err != nil {
		return err
	}
	q.w.Header().Set("Content-Type", mediaType)
	q.w.WriteHeader(http.StatusOK)
	if q.r.Method == http.MethodHead {
		return nil
	}
	defer h.together.join(a.Dir())()
	if l.send() == nil && l.flush() == nil {
		// It ends when the client or the archive does.
		_ = l.follow(cursor)
	}
	cut()
	return nil
}

// live is one answer to live.
type live struct {
	q          *request
	a          *archive.Stream
	start, end m4f.UTC      // of the segment sent last
	init       m4f.Identity // sent last
	together   *together
}

// follow sends what comes behind the cursor. It returns only with an error.
func (l *live) follow(cursor archive.Cursor) error {
	for {
		if err := l.a.WaitChanges(l.q.r.Context(), cursor); err != nil {
			return err
		}
		recs, next, err := l.a.ReadChanges(cursor, changesBatch)
		if err != nil {
			return err
		}
		cursor = next
		for i := range recs {
			if l.ahead(&recs[i].Header) {
				if err := l.send(); err != nil {
					return err
				}
				break
			}
		}
	}
}

// ahead says whether a segment lies behind what has been sent.
func (l *live) ahead(h *m4f.Header) bool {
	return h.UTC > l.start && h.UTC >= l.end.Add(-overlap)
}

// send sends the segments of the view that lie behind what has been sent.
func (l *live) send() error {
	from := max(l.end.Add(-overlap), 1)
	return l.a.Each(from, 0, func(e *archive.Element) error {
		if !l.ahead(&e.Header) {
			return nil
		}
		if err := l.q.r.Context().Err(); err != nil {
			return err
		}
		if err := l.write(e); err != nil {
			return err
		}
		l.start, l.end = e.UTC, e.End()
		return l.flush()
	})
}

func (l *live) flush() error {
	return http.NewResponseController(l.q.w).Flush()
}

// write sends one segment.
func (l *live) write(e *archive.Element) error {
	m, err := l.a.OpenElement(e)
	if err != nil {
		return err
	}
	defer m.Close()
	var head []byte
	if e.Init != l.init {
		head = append(head, m.Init...)
		l.init = e.Init
	}
	out := timelyWriter{l.q.w}
	if _, err := out.Write(e.AppendBox(head)); err != nil {
		return err
	}
	if media, done := l.together.take(l.a.Dir(), &e.Header, m.Read); media != nil {
		defer done()
		for piece := range slices.Chunk(media, pieceSize) {
			if _, err := out.Write(piece); err != nil {
				return err
			}
		}
		return nil
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{out}, m.Section(), make([]byte, pieceSize))
	return err
}
