package serve

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/render"
)

// body is an answer whose length is known before any of it is read: bytes in
// memory, and stretches of segments that go from their files to the socket without
// passing through the program.
type body struct {
	archive *archive.Stream
	parts   []bodyPart
	size    int64
}

// bodyPart is bytes, or a stretch of an element's media.
type bodyPart struct {
	data    []byte
	element *archive.Element
	off     int64 // in the media, of which Length bytes are there
	size    int64
}

// bodyOf is a body of bytes.
func bodyOf(data []byte) *body {
	b := &body{}
	b.bytes(data)
	return b
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

// Size implements ranged.
func (b *body) Size() int64 { return b.size }

// WriteRange implements ranged.
func (b *body) WriteRange(_ context.Context, w io.Writer, from, to int64) error {
	var media *archive.Media
	var of *archive.Element
	defer func() {
		if media != nil {
			media.Close()
		}
	}()
	at := int64(0)
	for i := range b.parts {
		p := &b.parts[i]
		first, end := max(from-at, 0), min(to-at, p.size)
		at += p.size
		if first >= end {
			continue
		}
		if p.element == nil {
			if _, err := w.Write(p.data[first:end]); err != nil {
				return err
			}
			continue
		}
		if of != p.element {
			m, err := b.archive.OpenElement(p.element)
			if err != nil {
				return err
			}
			if media != nil {
				media.Close()
			}
			media, of = m, p.element
		}
		if _, err := media.File.Seek(media.Offset+p.off+first, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(w, media.File, end-first); err != nil {
			return err
		}
	}
	return nil
}

// etagOf names bytes by what they follow from.
func etagOf(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	return `"` + hex.EncodeToString(h.Sum(nil)[:12]) + `"`
}
