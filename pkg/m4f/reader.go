package m4f

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	// maxSkip bounds a box that the reader does not know and passes over.
	maxSkip = 1 << 20
	// firstBuffer is how much of a segment's announced length is allocated
	// before any of it has arrived.
	firstBuffer = 4 << 20
)

// Reader reads a byte stream of segments.
type Reader struct {
	r    *bufio.Reader
	off  int64
	init []byte
	id   Identity // of init
	head [HeaderBoxSize]byte
}

// NewReader returns a reader of r. It reads ahead up to 64 KiB.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 64<<10)}
}

// Offset is the number of bytes up to the end of the last segment returned.
func (r *Reader) Offset() int64 { return r.off }

// Next returns the next segment with its identities verified. Segments of one
// init segment share its memory. The error is io.EOF at the end of the stream
// behind a whole segment (or of an empty stream), a *FormatError where the
// stream breaks the format, one that wraps io.ErrUnexpectedEOF where it is cut
// inside a segment, and the source's own otherwise. After an error the reader
// is of no more use.
//
// Boxes that it does not know are passed over between segments.
func (r *Reader) Next() (*Segment, error) {
	fresh := false // an init segment has come for this segment
	for {
		typ, size, err := r.peek()
		if err == io.EOF && fresh {
			err = errCut
		}
		if err == io.EOF {
			return nil, err
		}
		if err != nil {
			return nil, r.fail(err)
		}
		switch typ {
		case "ftyp":
			if err := r.readInit(size); err != nil {
				return nil, r.fail(err)
			}
			fresh = true
		case "moov":
			return nil, r.fail(errors.New("moov without ftyp ahead of it"))
		case "moof", "mdat":
			return nil, r.fail(errors.New("media without a segment header: this is MP4, but not M4F (twindvr ingest makes it from a transport stream)"))
		case "uuid":
			if b, _ := r.r.Peek(24); IsHeaderBox(b) {
				return r.readSegment()
			}
			fallthrough
		default:
			if err := r.skip(typ, size); err != nil {
				return nil, r.fail(err)
			}
		}
	}
}

// fail says where in the stream an error is. Errors of the source pass
// through.
func (r *Reader) fail(err error) error {
	var src *sourceError
	if errors.As(err, &src) {
		return src.err
	}
	return &FormatError{Offset: r.off, Err: err}
}

// errCut is the end of the source inside a segment. It is io.ErrUnexpectedEOF in
// words for an operator.
var errCut error = cutError{}

type cutError struct{}

func (cutError) Error() string { return "the stream is cut inside a segment" }
func (cutError) Unwrap() error { return io.ErrUnexpectedEOF }

// sourceError is an error of the underlying reader other than its end.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }

// ended turns the end of the source inside a segment into ErrUnexpectedEOF and
// marks other errors as the source's.
func ended(err error) error {
	switch err {
	case nil:
		return nil
	case io.EOF, io.ErrUnexpectedEOF:
		return errCut
	}
	return &sourceError{err}
}

// peek returns the type and size of the next box. The error is io.EOF if there
// is none.
func (r *Reader) peek() (typ string, size int64, err error) {
	b, err := r.r.Peek(8)
	if len(b) == 0 && err == io.EOF {
		return "", 0, io.EOF
	}
	if err := r.recognize(b); err != nil {
		return "", 0, err
	}
	if err != nil {
		return "", 0, ended(err)
	}
	typ, size = string(b[4:8]), int64(binary.BigEndian.Uint32(b))
	if size < 8 {
		return "", 0, fmt.Errorf("box %q of size %d", typ, size)
	}
	return typ, size, nil
}

// recognize refuses what is no box, and names what it looks like.
func (r *Reader) recognize(b []byte) error {
	for _, c := range b[min(4, len(b)):] {
		if c < 0x20 || c > 0x7E {
			if r.off == 0 && b[0] == 0x47 {
				return errors.New("this looks like an MPEG transport stream, not M4F: pipe it through twindvr ingest -")
			}
			return errors.New("not a box: this is not M4F")
		}
	}
	if r.off == 0 && len(b) == 8 && string(b[4:]) != "ftyp" {
		return fmt.Errorf("not M4F: a stream starts with an ftyp box, here is %q", b)
	}
	return nil
}

func (r *Reader) skip(typ string, size int64) error {
	if size > maxSkip {
		return fmt.Errorf("unknown box %q of %d bytes, at most %d are passed over", typ, size, maxSkip)
	}
	n, err := r.r.Discard(int(size))
	r.off += int64(n)
	return ended(err)
}

// readInit reads ftyp, whose size is known, and the moov box behind it.
func (r *Reader) readInit(size int64) error {
	if size > 4096 {
		return fmt.Errorf("ftyp of %d bytes", size)
	}
	init := make([]byte, size, size+1024)
	if _, err := io.ReadFull(r.r, init); err != nil {
		return ended(err)
	}
	head, err := r.r.Peek(8)
	if err != nil {
		return ended(err)
	}
	n := int64(binary.BigEndian.Uint32(head))
	if string(head[4:]) != "moov" || n < 8 || size+n > MaxInit {
		return fmt.Errorf("box %q of %d bytes behind ftyp, want moov of at most %d", head[4:], n, MaxInit-size)
	}
	if init, err = r.readGrow(init, n, 64<<10); err != nil {
		return err
	}
	r.off += int64(len(init))
	r.init, r.id = init, Identify(init, nil)
	return nil
}

// readGrow appends n bytes to b. It allocates first bytes at once, and more
// only as they arrive.
func (r *Reader) readGrow(b []byte, n, first int64) ([]byte, error) {
	end := int64(len(b)) + n
	for int64(len(b)) < end {
		have := int64(len(b))
		if int64(cap(b)) == have {
			next := max(2*have, have+first)
			if next >= end {
				_, size := classOf(int(end))
				next = int64(size)
			}
			grown := make([]byte, have, next)
			copy(grown, b)
			b = grown
		}
		b = b[:min(end, int64(cap(b)))]
		if _, err := io.ReadFull(r.r, b[have:]); err != nil {
			return nil, ended(err)
		}
	}
	return b, nil
}

// readMedia reads n bytes of media, into memory that Segment.Recycle has left
// where there is some.
func (r *Reader) readMedia(n int) ([]byte, error) {
	b := recycled(n)
	if b == nil && n <= firstBuffer {
		b = newMedia(n)
	}
	if b == nil {
		return r.readGrow(nil, int64(n), firstBuffer)
	}
	if _, err := io.ReadFull(r.r, b); err != nil {
		return nil, ended(err)
	}
	return b, nil
}

// readSegment reads a segment header and the media behind it.
func (r *Reader) readSegment() (*Segment, error) {
	if _, err := io.ReadFull(r.r, r.head[:]); err != nil {
		return nil, r.fail(ended(err))
	}
	h, err := ParseHeaderBox(r.head[:])
	if err != nil {
		return nil, r.fail(err)
	}
	if r.init == nil || h.Init != r.id {
		return nil, r.fail(fmt.Errorf("segment %s belongs to init segment %s, which is not the one ahead of it", h.ID, h.Init))
	}
	media, err := r.readMedia(int(h.Length))
	if err != nil {
		return nil, r.fail(err)
	}
	if err := checkMedia(&h, media); err != nil {
		return nil, r.fail(err)
	}
	if got := Identify(r.init, media); got != h.ID {
		return nil, r.fail(fmt.Errorf("segment %s is corrupt: its bytes are those of %s", h.ID, got))
	}
	r.off += HeaderBoxSize + int64(len(media))
	return &Segment{Header: h, Init: r.init, Media: media}, nil
}

// checkMedia wants one moof and one mdat, and the media time to be that of the
// header.
func checkMedia(h *Header, media []byte) error {
	moof, rest, err := nextBox(media)
	if err != nil {
		return err
	}
	mdat, rest, err := nextBox(rest)
	if err != nil {
		return err
	}
	if moof.typ != "moof" || mdat.typ != "mdat" || len(rest) != 0 {
		return fmt.Errorf("box %q and box %q behind a segment header, want one moof and one mdat", moof.typ, mdat.typ)
	}
	mfhd, _, err := nextBox(moof.body)
	if err != nil {
		return fmt.Errorf("moof: %w", err)
	}
	if mfhd.typ != "mfhd" || len(mfhd.body) != 8 {
		return fmt.Errorf("moof begins with box %q of %d bytes, want mfhd", mfhd.typ, len(mfhd.raw))
	}
	if n := binary.BigEndian.Uint32(mfhd.body[4:]); n != SequenceNumber(h.MediaTime) {
		return fmt.Errorf("segment header says media time %d, the segment has sequence number %d", h.MediaTime, n)
	}
	return nil
}

// Verify checks a segment's identities against its bytes.
func (s *Segment) Verify() error {
	if got := Identify(s.Init, nil); got != s.Header.Init {
		return fmt.Errorf("init segment %s is corrupt: its bytes are those of %s", s.Header.Init, got)
	}
	if got := Identify(s.Init, s.Pieces()...); got != s.Header.ID {
		return fmt.Errorf("segment %s is corrupt: its bytes are those of %s", s.Header.ID, got)
	}
	if n := s.Size(); s.Header.Length != uint64(n) {
		return fmt.Errorf("segment %s: header says %d bytes of media, there are %d", s.Header.ID, s.Header.Length, n)
	}
	media := s.Media
	if s.pieces != nil {
		media = bytes.Join(s.pieces, nil)
	}
	return checkMedia(&s.Header, media)
}
