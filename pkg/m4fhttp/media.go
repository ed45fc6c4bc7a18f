package m4fhttp

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

const (
	mediaType = "video/mp4"
	// writeTimeout is how long a reader may take over one piece, of at most
	// pieceSize bytes, before it is cut off.
	writeTimeout = 60 * time.Second
	pieceSize    = 256 << 10
)

// section is a part of an answer: bytes in memory, or a segment's media, which
// goes from its file to the socket without passing through the program.
type section struct {
	data  []byte
	media *archive.Element // whose Length bytes of media, where data is nil
}

func (s *section) size() int64 {
	if s.media != nil {
		return int64(s.media.Length)
	}
	return int64(len(s.data))
}

// serveMedia answers with one segment.
func (h *Handler) serveMedia(q *request, text string) error {
	id, err := m4f.ParseIdentity(text)
	if err != nil {
		return problemf(http.StatusBadRequest, "%s; segments lists them", clip(err.Error()))
	}
	a := q.stream.Archive()
	m, err := a.OpenMedia(id, 0)
	if err == nil && q.r.Method == http.MethodGet && q.r.Header.Get("Range") == "" && h.asked.again(id) {
		m, err = sound(a, m)
	}
	if errors.Is(err, archive.ErrNoSegment) {
		return noSegment(id)
	}
	if err != nil {
		return err
	}
	e := &archive.Element{Record: m.Record}
	body := &mediaBody{archive: a, open: m, opened: e}
	defer body.close()
	body.add(e, m.Init)
	return body.serve(q)
}

// sound looks at a segment before it is sent. One that is bad is set aside by that,
// and another copy looked for.
func sound(a *archive.Stream, m *archive.Media) (*archive.Media, error) {
	err := m.Check()
	if err == nil {
		return m, nil
	}
	m.Close()
	again, aerr := a.OpenMedia(m.ID, m.UTC)
	if aerr != nil {
		return nil, aerr
	}
	if again.Check() != nil { // it cannot be set aside
		again.Close()
		return nil, err
	}
	return again, nil
}

func noSegment(id m4f.Identity) error {
	return problemf(http.StatusNotFound, "there is no segment %s in this stream; it may have been pruned", id)
}

// serveSpan answers with the segments of the view that overlap a span, whole.
func (h *Handler) serveSpan(q *request) error {
	from, to, err := q.span()
	if err != nil {
		return err
	}
	a := q.stream.Archive()
	body := &mediaBody{archive: a}
	defer body.close()
	var last m4f.Identity
	err = a.Each(from, to, func(e *archive.Element) error {
		if e.Init == last {
			body.add(e, nil)
			return nil
		}
		m, err := a.OpenElement(e)
		if err != nil {
			return err
		}
		defer m.Close()
		last = e.Init
		body.add(e, m.Init)
		return nil
	})
	if err != nil {
		return err
	}
	if len(body.sections) == 0 {
		return problemf(http.StatusNotFound, "nothing is recorded in this span; hours lists what is")
	}
	return body.serve(q)
}

// mediaBody is a stream of M4F whose length is known before any of it is read.
type mediaBody struct {
	archive  *archive.Stream
	open     *archive.Media   // the last that was opened
	opened   *archive.Element // of which
	sections []section
	size     int64
}

// add puts a segment at the end, behind its init segment if that is given.
func (b *mediaBody) add(e *archive.Element, init []byte) {
	head := make([]byte, 0, len(init)+m4f.HeaderBoxSize)
	head = e.AppendBox(append(head, init...))
	b.sections = append(b.sections, section{data: head}, section{media: e})
	b.size += int64(len(head)) + int64(e.Length)
}

func (b *mediaBody) close() {
	if b.open != nil {
		b.open.Close()
		b.open, b.opened = nil, nil
	}
}

// etag names the bytes of the answer: identities, and what the headers say.
func (b *mediaBody) etag() string {
	h := sha256.New()
	for _, s := range b.sections {
		h.Write(s.data)
	}
	return `"` + hex.EncodeToString(h.Sum(nil)[:16]) + `"`
}

// serve answers with the body, or the one range of it that is asked for (RFC
// 9110 14.2).
func (b *mediaBody) serve(q *request) error {
	head, tag := q.w.Header(), b.etag()
	head.Set("ETag", tag)
	if inm := q.r.Header.Get("If-None-Match"); inm == tag || inm == "*" {
		q.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	first, end, status := int64(0), b.size, http.StatusOK
	if r := q.r.Header.Get("Range"); r != "" && q.r.Method == http.MethodGet {
		if cond := q.r.Header.Get("If-Range"); cond == "" || cond == tag {
			from, to, err := parseRange(r, b.size)
			switch {
			case errors.Is(err, errUnsatisfiable):
				head.Set("Content-Range", fmt.Sprintf("bytes */%d", b.size))
				return problemf(http.StatusRequestedRangeNotSatisfiable, "the answer has %d bytes; ask for a range inside it", b.size)
			case err == nil:
				first, end, status = from, to, http.StatusPartialContent
				head.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, end-1, b.size))
			}
		}
	}
	head.Set("Content-Type", mediaType)
	head.Set("Accept-Ranges", "bytes")
	head.Set("Content-Length", strconv.FormatInt(end-first, 10))
	q.w.WriteHeader(status)
	if q.r.Method == http.MethodHead {
		return nil
	}
	if b.copy(q.w, first, end) != nil {
		cut()
	}
	return nil
}

// cut ends an answer that has begun in a way that the client cannot take for
// its end.
func cut() { panic(http.ErrAbortHandler) }

// copy writes the bytes from first up to end.
func (b *mediaBody) copy(w http.ResponseWriter, first, end int64) error {
	at := int64(0)
	for i := range b.sections {
		s := &b.sections[i]
		size := s.size()
		from, to := max(first-at, 0), min(end-at, size)
		at += size
		if from >= to {
			continue
		}
		if s.media == nil {
			if err := timely(w); err != nil {
				return err
			}
			if _, err := w.Write(s.data[from:to]); err != nil {
				return err
			}
			continue
		}
		if err := b.copyMedia(w, s.media, from, to); err != nil {
			return err
		}
	}
	return nil
}

// copyMedia writes a part of a segment's media, with sendfile where w has it.
func (b *mediaBody) copyMedia(w http.ResponseWriter, e *archive.Element, from, to int64) error {
	if b.opened != e {
		b.close()
		m, err := b.archive.OpenElement(e)
		if err != nil {
			return err
		}
		b.open, b.opened = m, e
	}
	if _, err := b.open.File.Seek(b.open.Offset+from, io.SeekStart); err != nil {
		return err
	}
	for from < to {
		if err := timely(w); err != nil {
			return err
		}
		n, err := io.CopyN(w, b.open.File, min(to-from, pieceSize))
		if err != nil {
			return err
		}
		from += n
	}
	return nil
}

// timely gives the client until writeTimeout for what is written next.
func timely(w http.ResponseWriter) error {
	err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}

var (
	errUnsatisfiable = errors.New("range outside the answer")
	errRangeIgnored  = errors.New("range not understood")
)

// parseRange reads a Range header of one range of bytes and returns it as
// [from, to). A header with several ranges or another unit is to be ignored,
// as RFC 9110 14.2 allows.
func parseRange(header string, size int64) (from, to int64, err error) {
	spec, ok := strings.CutPrefix(header, "bytes=")
	first, last, dash := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok || !dash || strings.Contains(last, ",") {
		return 0, 0, errRangeIgnored
	}
	if first == "" { // the last bytes
		n, err := strconv.ParseInt(last, 10, 64)
		switch {
		case err != nil || n < 0:
			return 0, 0, errRangeIgnored
		case n == 0 || size == 0:
			return 0, 0, errUnsatisfiable
		}
		return max(size-n, 0), size, nil
	}
	if from, err = strconv.ParseInt(first, 10, 64); err != nil || from < 0 {
		return 0, 0, errRangeIgnored
	}
	to = size
	if last != "" {
		if to, err = strconv.ParseInt(last, 10, 64); err != nil || to < from {
			return 0, 0, errRangeIgnored
		}
		if to = min(to, size-1) + 1; to <= from {
			return 0, 0, errUnsatisfiable
		}
	}
	if from >= size {
		return 0, 0, errUnsatisfiable
	}
	return from, to, nil
}
