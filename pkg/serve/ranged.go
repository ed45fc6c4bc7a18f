package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// ranged is a body of a known length, of which any part can be written.
type ranged interface {
	Size() int64
	WriteRange(ctx context.Context, w io.Writer, from, to int64) error
}

// serveBody answers with a body, or the one range of it that is asked for, and to
// conditions on its ETag (RFC 9110 13 and 14).
func (h *Handler) serveBody(q *play, b ranged, kind, etag, cache string) {
	head := q.w.Header()
	head.Set("Content-Type", kind)
	head.Set("Cache-Control", cache)
	head.Set("ETag", etag)
	if r := q.r.Header.Get("Range"); r != "" {
		q.r.Header.Del("Range")
		if r = oneRange(r, b.Size()); r != "" {
			q.r.Header.Set("Range", r)
		}
	}
	w := &bodyWriter{ResponseWriter: q.w, size: b.Size(), failed: func(err error) {
		switch {
		case q.r.Context().Err() != nil:
		case clientGone(err):
			h.log.Debug("a client did not take all of an answer", "stream", q.name, "file", q.file, "to", q.r.RemoteAddr, "err", err)
		default:
			h.log.Warn("an answer ended early", "stream", q.name, "file", q.file, "to", q.r.RemoteAddr, "err", err)
		}
	}}
	http.ServeContent(w, q.r, "", time.Time{}, &rangedReader{ranged: b, ctx: q.r.Context()})
}

var rangeSpec = regexp.MustCompile(`^(?i:bytes)=[ \t]*(\d*)-(\d*)[ \t]*$`)

// oneRange is a Range header in a form that http.ServeContent takes, empty if it is
// to be ignored: several ranges, units that are not bytes, and what is none (RFC
// 9110 14.2).
func oneRange(header string, size int64) string {
	m := rangeSpec.FindStringSubmatch(header)
	if m == nil || m[1] == "" && m[2] == "" {
		return ""
	}
	number := func(s string) int64 {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil { // digits, but too many
			return math.MaxInt64
		}
		return n
	}
	first, last := number(m[1]), number(m[2])
	switch {
	case m[1] == "" && last == 0:
		return fmt.Sprintf("bytes=%d-", size) // the last 0 bytes: there are none
	case m[1] == "":
		return fmt.Sprintf("bytes=-%d", last)
	case m[2] == "":
		return fmt.Sprintf("bytes=%d-", first)
	case last < first:
		return ""
	}
	return fmt.Sprintf("bytes=%d-%d", first, last)
}

// clientError is an error of sending to a client.
type clientError struct{ error }

func (e clientError) Unwrap() error { return e.error }

// clientGone says whether an error of sending a body is of the client, who has
// closed the connection or is too slow, and not of what is sent.
func clientGone(err error) bool {
	var c clientError
	return errors.As(err, &c) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded)
}

// rangedReader is a ranged as http.ServeContent reads it.
type rangedReader struct {
	ranged
	ctx context.Context
	at  int64
}

// Seek implements io.Seeker.
func (b *rangedReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += b.at
	case io.SeekEnd:
		offset += b.Size()
	}
	if offset < 0 {
		return 0, errors.New("seek to before the start")
	}
	b.at = offset
	return offset, nil
}

// Read implements io.Reader.
func (b *rangedReader) Read(p []byte) (int, error) {
	n := min(int64(len(p)), b.Size()-b.at)
	if n <= 0 {
		return 0, io.EOF
	}
	buf := bytes.NewBuffer(p[:0])
	if err := b.WriteRange(b.ctx, buf, b.at, b.at+n); err != nil {
		return 0, err
	}
	b.at += n
	return copy(p, buf.Bytes()), nil
}

// bodyWriter sends a ranged without a copy where it comes from files.
type bodyWriter struct {
	http.ResponseWriter
	size    int64
	failed  func(error)
	refused bool
}

// WriteHeader implements http.ResponseWriter. That there is no such range is said as
// a problem.
func (w *bodyWriter) WriteHeader(status int) {
	if w.refused = status == http.StatusRequestedRangeNotSatisfiable; !w.refused {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.Header().Del("Content-Disposition")
	w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", w.size))
	m4fhttp.WriteProblem(w.ResponseWriter, status, "the answer has %d bytes; ask for a range inside it", w.size)
}

// Write implements io.Writer.
func (w *bodyWriter) Write(b []byte) (int, error) {
	if w.refused {
		return len(b), nil
	}
	return w.ResponseWriter.Write(b)
}

// ReadFrom implements io.ReaderFrom. A body that ends early ends the connection:
// the client cannot take that for the end of the file.
func (w *bodyWriter) ReadFrom(r io.Reader) (int64, error) {
	part, ok := r.(*io.LimitedReader)
	if !ok {
		return io.Copy(w.ResponseWriter, r)
	}
	b, ok := part.R.(*rangedReader)
	if !ok {
		return io.Copy(w.ResponseWriter, r)
	}
	if err := b.WriteRange(b.ctx, &pacedWriter{w.ResponseWriter}, b.at, b.at+part.N); err != nil {
		w.failed(err)
		panic(http.ErrAbortHandler)
	}
	b.at += part.N
	return part.N, nil
}

// Unwrap is for http.ResponseController.
func (w *bodyWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// pacedWriter gives a client a minute for each piece of what is sent to it, and
// sends what comes from a file without a copy.
type pacedWriter struct{ w http.ResponseWriter }

const (
	pieceTimeout = time.Minute
	pieceSize    = 256 << 10
)

func (p *pacedWriter) timely() error {
	err := http.NewResponseController(p.w).SetWriteDeadline(time.Now().Add(pieceTimeout))
	if err == nil || errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return clientError{err}
}

// client writes to the client and marks the errors of that.
type client struct{ io.Writer }

func (c client) Write(b []byte) (int, error) {
	n, err := c.Writer.Write(b)
	if err != nil {
		err = clientError{err}
	}
	return n, err
}

// Write implements io.Writer.
func (p *pacedWriter) Write(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		if err := p.timely(); err != nil {
			return n, err
		}
		m, err := client{p.w}.Write(b[n:min(n+pieceSize, len(b))])
		if n += m; err != nil {
			return n, err
		}
	}
	return n, nil
}

// ReadFrom implements io.ReaderFrom.
func (p *pacedWriter) ReadFrom(r io.Reader) (int64, error) {
	var to io.Writer = p.w
	if _, ok := to.(io.ReaderFrom); !ok {
		to = client{p.w}
	}
	total := int64(0)
	for {
		if err := p.timely(); err != nil {
			return total, err
		}
		var src io.Reader = &io.LimitedReader{R: r, N: pieceSize}
		if l, ok := r.(*io.LimitedReader); ok { // sendfile wants the file in one reader
			src = &io.LimitedReader{R: l.R, N: min(l.N, pieceSize)}
		}
		n, err := io.Copy(to, src)
		total += n
		if l, ok := r.(*io.LimitedReader); ok {
			if l.N -= n; l.N <= 0 {
				return total, err
			}
		}
		if n == 0 || err != nil {
			return total, err
		}
	}
}
