package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/render"
)

// downloadKinds are the files that hold a span whole.
func (h *Handler) downloadKinds() []playable {
	d := &downloads{Handler: h}
	return []playable{
		{regexp.MustCompile(`^archive-(\d{1,10})-(\d{1,10})\.(mp4|ts)$`), "archive-FROM-DURATION.mp4, archive-FROM-DURATION.ts", d.download},
		{regexp.MustCompile(`^preview-(\d{1,10})\.mp4$`), "preview-UTC.mp4", h.preview},
	}
}

// spanOf is the span that a file's name gives: its start in Unix seconds and its
// length in seconds, both of digits.
func spanOf(from, duration string) (m4f.UTC, m4f.UTC, error) {
	f, ferr := strconv.ParseInt(from, 10, 64)
	d, derr := strconv.ParseInt(duration, 10, 64)
	if ferr != nil || derr != nil || f < 1 || d < 1 || f > maxSeconds || d > maxSeconds {
		return 0, 0, m4fhttp.Problemf(http.StatusBadRequest, "the span of %s seconds from %s on makes no sense; FROM is in Unix seconds and DURATION at least a second",
			m4fhttp.Clip(duration), m4fhttp.Clip(from))
	}
	return m4f.UTC(f * m4f.Timescale), m4f.UTC((f + d) * m4f.Timescale), nil
}

// maxSeconds bounds the times of a request: the year 2286.
const maxSeconds = 9_999_999_999

// downloads answers with spans as files.
type downloads struct {
	*Handler
	last downloadStore
}

func (h *downloads) download(q *play) error {
	from, to, err := spanOf(q.parts[1], q.parts[2])
	if err != nil {
		return err
	}
	if err := permitSpan(q.r, from, to); err != nil {
		return err
	}
	format, err := render.ParseFormat(q.parts[3])
	if err != nil {
		return err
	}
	d, err := h.last.find(q, render.Options{From: from, To: to, Format: format}, func() (render.Offer, error) {
		if format == render.TS { // its length follows from all of the segments
			return render.Offer{}, h.fetchThrough(q, from, to, downloadWait)
		}
		return h.offered(q, from, to)
	})
	if errors.Is(err, render.ErrEmpty) {
		return m4fhttp.Problemf(http.StatusNotFound, "nothing is recorded in this span; /api/v1/coverage says what is")
	}
	if err != nil {
		return err
	}
	head := q.w.Header()
	head.Set("Content-Type", map[render.Format]string{render.MP4: "video/mp4", render.TS: "video/mp2t"}[format])
	head.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": fileName(q.name, from, to, q.parts[3])}))
	head.Set("Cache-Control", "private, no-cache") // it may be healed
	head.Set("ETag", `"`+d.Tag()+`"`)
	h.serveBody(q, &rangedBody{ctx: q.r.Context(), from: d.WriteRange, size: d.Size()})
	return nil
}

// fileName is what a download is called: the stream, when it begins, and for how
// long it lasts.
func fileName(stream string, from, to m4f.UTC, ext string) string {
	return fmt.Sprintf("%s_%s_%ds.%s", strings.ReplaceAll(stream, "/", "-"), from.Time().Format("2006-01-02T15-04-05Z"), (to-from)/m4f.Timescale, ext)
}

// downloadStore keeps the last downloads for those who ask for more of them: a
// player that seeks asks for range after range, and goes on in the file that it
// began with.
type downloadStore struct {
	mu   sync.Mutex
	last map[downloadKey]*keptDownload
}

type downloadKey struct {
	stream   string
	from, to m4f.UTC
	format   render.Format
}

type keptDownload struct {
	*render.Download
	used time.Time
}

const (
	keepDownloads = 64
	keepDownload  = 2 * time.Minute // after it was asked for
)

// find returns what a request asks for. One for all of a file gets it as the
// archive has it now, with what peers offer.
func (s *downloadStore) find(q *play, opt render.Options, offer func() (render.Offer, error)) (*render.Download, error) {
	key := downloadKey{q.name, opt.From, opt.To, opt.Format}
	if q.r.Header.Get("Range") != "" {
		if d := s.get(key, q.r.Header.Get("If-Range")); d != nil {
			return d, nil
		}
	}
	o, err := offer()
	if err != nil {
		return nil, err
	}
	d, err := render.NewDownloadWith(q.r.Context(), q.archive, opt, o)
	if err == nil {
		s.put(key, d)
	}
	return d, err
}

// get returns a download that is kept, if it is the one of the tag, or any if
// that is empty.
func (s *downloadStore) get(key downloadKey, tag string) *render.Download {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.last[key]
	if k == nil || time.Since(k.used) > keepDownload || tag != "" && tag != `"`+k.Tag()+`"` {
		return nil
	}
	k.used = time.Now()
	return k.Download
}

func (s *downloadStore) put(key downloadKey, d *render.Download) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		s.last = map[downloadKey]*keptDownload{}
	}
	s.last[key] = &keptDownload{d, time.Now()}
	for len(s.last) > keepDownloads {
		oldest := key
		for k, v := range s.last {
			if v.used.Before(s.last[oldest].used) {
				oldest = k
			}
		}
		delete(s.last, oldest)
	}
}

// serveBody answers with a body, or the one range of it that is asked for, and to
// conditions on its ETag (RFC 9110 13 and 14).
func (h *Handler) serveBody(q *play, b *rangedBody) {
	if r := q.r.Header.Get("Range"); r != "" {
		q.r.Header.Del("Range")
		if r = oneRange(r, b.size); r != "" {
			q.r.Header.Set("Range", r)
		}
	}
	w := &bodyWriter{ResponseWriter: q.w, size: b.size, failed: func(err error) {
		switch {
		case q.r.Context().Err() != nil:
		case clientGone(err):
			h.log.Debug("a client did not take all of an answer", "stream", q.name, "file", q.file, "to", q.r.RemoteAddr, "err", err)
		default:
			h.log.Warn("an answer ended early", "stream", q.name, "file", q.file, "to", q.r.RemoteAddr, "err", err)
		}
	}}
	http.ServeContent(w, q.r, "", time.Time{}, b)
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

// rangedBody is a body of a known length, of which any part can be written. It is
// read by http.ServeContent.
type rangedBody struct {
	ctx  context.Context
	from func(ctx context.Context, w io.Writer, from, to int64) error
	size int64
	at   int64
}

// Seek implements io.Seeker.
func (b *rangedBody) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += b.at
	case io.SeekEnd:
		offset += b.size
	}
	if offset < 0 {
		return 0, errors.New("seek to before the start")
	}
	b.at = offset
	return offset, nil
}

// Read implements io.Reader.
func (b *rangedBody) Read(p []byte) (int, error) {
	n := min(int64(len(p)), b.size-b.at)
	if n <= 0 {
		return 0, io.EOF
	}
	buf := bytes.NewBuffer(p[:0])
	if err := b.from(b.ctx, buf, b.at, b.at+n); err != nil {
		return 0, err
	}
	b.at += n
	return copy(p, buf.Bytes()), nil
}

// bodyWriter sends a rangedBody without a copy where it comes from files.
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
	b, ok := part.R.(*rangedBody)
	if !ok {
		return io.Copy(w.ResponseWriter, r)
	}
	if err := b.from(b.ctx, &pacedWriter{w.ResponseWriter}, b.at, b.at+part.N); err != nil {
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
