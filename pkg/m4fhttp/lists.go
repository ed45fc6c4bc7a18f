package m4fhttp

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
)

const linesType = "application/x-ndjson"

// lineWriter writes JSON objects, one a line, compressed where the client takes
// that.
type lineWriter struct {
	w   http.ResponseWriter
	buf *bufio.Writer
	gz  *gzip.Writer // nil: plain
	enc *json.Encoder
}

// newLineWriter starts an answer. Plain ones are not compressed: endless ones, of which
// each line goes out at once, and those of digests, of which compressing takes more
// time than it saves.
func newLineWriter(q *request, plain bool) *lineWriter {
	h := q.w.Header()
	h.Set("Content-Type", linesType)
	l := &lineWriter{w: q.w}
	out := io.Writer(timelyWriter{q.w})
	if !plain {
		h.Set("Vary", "Accept-Encoding")
		if TakesGzip(q.r) {
			h.Set("Content-Encoding", "gzip")
			l.gz = gzips.Get().(*gzip.Writer)
			l.gz.Reset(out)
			out = l.gz
		}
	}
	l.buf = bufio.NewWriterSize(out, 32<<10)
	l.enc = json.NewEncoder(l.buf)
	l.enc.SetEscapeHTML(false)
	return l
}

// TakesGzip says whether an answer may be compressed with gzip (RFC 9110 12.5.3).
func TakesGzip(r *http.Request) bool {
	return slices.ContainsFunc(strings.Split(r.Header.Get("Accept-Encoding"), ","), func(s string) bool {
		name, weight, _ := strings.Cut(strings.TrimSpace(s), ";")
		return strings.EqualFold(strings.TrimSpace(name), "gzip") && strings.ReplaceAll(weight, " ", "") != "q=0"
	})
}

// timelyWriter gives each write its own deadline.
type timelyWriter struct{ w http.ResponseWriter }

func (t timelyWriter) Write(p []byte) (int, error) {
	if err := timely(t.w); err != nil {
		return 0, err
	}
	return t.w.Write(p)
}

func (l *lineWriter) line(v any) error { return l.enc.Encode(v) }

// flush sends what has been written.
func (l *lineWriter) flush() error {
	if err := l.buf.Flush(); err != nil {
		return err
	}
	return http.NewResponseController(l.w).Flush()
}

// end ends an answer that is complete.
func (l *lineWriter) end() error {
	if err := l.buf.Flush(); err != nil || l.gz == nil {
		return err
	}
	err := l.gz.Close()
	gzips.Put(l.gz)
	l.gz = nil
	return err
}

// gzips are used again: each has 800 kB, which is more than most lists.
var gzips = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}

// serveHours answers with the hours of the view that overlap a span.
func (h *Handler) serveHours(q *request) error {
	from, to, err := q.span()
	if err != nil {
		return err
	}
	hours, err := q.stream.Archive().Hours(from, to)
	if err != nil {
		return err
	}
	l := newLineWriter(q, false)
	for i := range hours {
		hour := &hours[i]
		err = errors.Join(err, l.line(Hour{
			Start:    Time(hour.Start),
			Segments: hour.Segments,
			Bytes:    hour.Bytes,
			Damaged:  hour.Damaged,
			Partial:  hour.Partial,
			Digest:   hour.Digest,
		}))
	}
	if errors.Join(err, l.end()) != nil {
		cut()
	}
	return nil
}

// serveSegments answers with the elements of the view that overlap a span.
func (h *Handler) serveSegments(q *request) error {
	from, to, err := q.span()
	if err != nil {
		return err
	}
	var l *lineWriter
	err = q.stream.Archive().Each(from, to, func(e *archive.Element) error {
		if l == nil {
			l = newLineWriter(q, false)
		}
		return l.line(ElementOf(e))
	})
	switch {
	case err != nil && l == nil:
		return err
	case err != nil:
		h.Log.Error("list of segments cut short", "stream", q.name, "err", err)
		cut()
	case l == nil:
		l = newLineWriter(q, false)
	}
	if l.end() != nil {
		cut()
	}
	return nil
}

const (
	// statusEvery is how often the changes tell the state of the stream.
	statusEvery = time.Second
	// changesBatch is how many changes are read at once.
	changesBatch = 512
)
