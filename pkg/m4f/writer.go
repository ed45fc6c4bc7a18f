package m4f

import (
	"bytes"
	"fmt"
	"io"
	"net"
)

// Writer writes segments as a byte stream.
type Writer struct {
	w    io.Writer
	init []byte // last written
	head []byte
	bufs [3][]byte
}

// NewWriter returns a writer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// WriteSegment writes the segment's init segment if it differs from the last
// one written, its header and its media, in one writev where w is a network
// connection. After an error the stream is cut at an unknown byte.
func (w *Writer) WriteSegment(s *Segment) error {
	if n := s.Size(); s.Header.Length != uint64(n) {
		return fmt.Errorf("segment header says %d bytes of media, there are %d", s.Header.Length, n)
	}
	bufs := net.Buffers(w.bufs[:0])
	if !bytes.Equal(w.init, s.Init) {
		w.init = s.Init
		bufs = append(bufs, s.Init)
	}
	w.head = s.Header.AppendBox(w.head[:0])
	bufs = append(append(bufs, w.head), s.Pieces()...)
	_, err := bufs.WriteTo(w.w)
	return err
}
