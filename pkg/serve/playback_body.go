package serve

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/render"
)

const (
	// sendTimeout is how long a client may take over one piece, of at most
	// sendPiece bytes, before it is cut off.
	sendTimeout = 60 * time.Second
	sendPiece   = 256 << 10
)

// body is an answer whose length is known before any of it is read: bytes in
// memory, and stretches of segments that go from their files to the socket without
// passing through the program. It is an io.ReadSeeker for http.ServeContent.
type body struct {
	archive *archive.Stream
	parts   []bodyPart
	size    int64

	at     int64            // where the next byte is read
	open   *archive.Media   // the last that was opened
	opened *archive.Element // of which
}

// bodyPart is bytes, or a stretch of an element's media.
type bodyPart struct {
	data    []byte
	element *archive.Element
	off     int64 // in the media, of which Length bytes are there
	size    int64
}

func (b *body) bytes(data []byte) {
	if len(data) > 0 {
		b.parts = append(b.parts, bodyPart{data: data, size: int64(len(data))})
		b.size += int64(len(data))
	}
}

func (b *body) fragment(f *render.Fragment) {
	b.bytes(f.Header)
	for _, r := range f.Ranges {
		b.parts = append(b.parts, bodyPart{element: f.Element, off: r.Off, size: r.Len})
		b.size += r.Len
	}
}

// Close closes the file that is open.
func (b *body) Close() {
	if b.open != nil {
		b.open.Close()
		b.open, b.opened = nil, nil
	}
}

// Seek implements io.Seeker.
func (b *body) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += b.at
	case io.SeekEnd:
		offset += b.size
	}
	if offset < 0 {
		return 0, errors.New("seek ahead of the start")
	}
	b.at = offset
	return offset, nil
}

// Read implements io.Reader, for answers of several ranges.
func (b *body) Read(p []byte) (int, error) {
	part, off, ok := b.find()
	if !ok {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), part.size-off)]
	var n int
	var err error
	if part.data != nil {
		n = copy(p, part.data[off:])
	} else if err = b.media(part.element); err == nil {
		n, err = b.open.File.ReadAt(p, b.open.Offset+part.off+off)
	}
	b.at += int64(n)
	return n, err
}

// find is the part where the next byte is, and which of its bytes that is.
func (b *body) find() (*bodyPart, int64, bool) {
	at := b.at
	for i := range b.parts {
		if at < b.parts[i].size {
			return &b.parts[i], at, true
		}
		at -= b.parts[i].size
	}
	return nil, 0, false
}

// media opens an element's media.
func (b *body) media(e *archive.Element) error {
	if b.opened == e {
		return nil
	}
	b.Close()
	m, err := b.archive.OpenElement(e)
	if err != nil {
		return err
	}
	b.open, b.opened = m, e
	return nil
}

// send writes n bytes, those of media with sendfile where w has it.
func (b *body) send(w http.ResponseWriter, n int64) (sent int64, err error) {
	for sent < n {
		part, off, ok := b.find()
		if !ok {
			return sent, io.ErrUnexpectedEOF
		}
		if err := inTime(w); err != nil {
			return sent, err
		}
		size := min(n-sent, part.size-off, sendPiece)
		var done int64
		if part.data != nil {
			k, werr := w.Write(part.data[off : off+size])
			done, err = int64(k), werr
		} else if err = b.media(part.element); err == nil {
			if _, err = b.open.File.Seek(b.open.Offset+part.off+off, io.SeekStart); err == nil {
				done, err = io.CopyN(w, b.open.File, size)
			}
		}
		sent += done
		b.at += done
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// inTime gives the client until sendTimeout for what is written next.
func inTime(w http.ResponseWriter) error {
	err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(sendTimeout))
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}

// answerWriter is what http.ServeContent copies a body to.
type answerWriter struct {
	http.ResponseWriter
	body *body
}

// Unwrap is for http.ResponseController.
func (w answerWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// ReadFrom implements io.ReaderFrom.
func (w answerWriter) ReadFrom(r io.Reader) (int64, error) {
	if l, ok := r.(*io.LimitedReader); ok && l.R == io.Reader(w.body) {
		n, err := w.body.send(w.ResponseWriter, l.N)
		l.N -= n
		return n, err
	}
	return io.Copy(struct{ io.Writer }{w.ResponseWriter}, r)
}

// serve answers with the body, or with the ranges of it that are asked for.
func (b *body) serve(q *play, kind, etag, cache string) {
	defer b.Close()
	head := q.w.Header()
	head.Set("Content-Type", kind)
	head.Set("Cache-Control", cache)
	head.Set("ETag", etag)
	http.ServeContent(answerWriter{q.w, b}, q.r, "", time.Time{}, b)
}

// etagOf names bytes by what they follow from.
func etagOf(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	return `"` + hex.EncodeToString(h.Sum(nil)[:12]) + `"`
}
