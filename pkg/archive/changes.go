package archive

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/twindvr/twindvr/pkg/fsx"
)

// Cursor is a place in the list of changes of one archive. It is opaque and
// needs no escaping in a URL. "" is the beginning of what is kept.
type Cursor string

// change is one record of changes.
type change struct {
	kind   uint8
	hour   hour
	name   extentName
	number uint32
}

func (c *change) append(dst []byte) []byte {
	n := len(dst)
	dst = append(dst, changeMagic, c.kind)
	dst = binary.BigEndian.AppendUint16(dst, c.name.n)
	dst = binary.BigEndian.AppendUint32(dst, uint32(c.hour))
	dst = binary.BigEndian.AppendUint32(dst, c.name.ms)
	dst = binary.BigEndian.AppendUint32(dst, c.number)
	dst = append(dst, 0, 0, 0, 0)
	return binary.BigEndian.AppendUint32(dst, crc(dst[n:]))
}

func parseChange(b []byte) (c change, ok bool) {
	if len(b) < changeSize || b[0] != changeMagic || binary.BigEndian.Uint32(b[20:]) != crc(b[:20]) {
		return c, false
	}
	c.kind = b[1]
	c.name = extentName{ms: binary.BigEndian.Uint32(b[8:]), n: binary.BigEndian.Uint16(b[2:])}
	c.hour = hour(binary.BigEndian.Uint32(b[4:]))
	c.number = binary.BigEndian.Uint32(b[12:])
	return c, c.name.ms < 3600_000 && c.name.n > 0
}

// changesHeader opens the file.
type changesHeader struct {
	lineage uint64 // random, made with the file: cursors of another file are not ours
	base    int64  // records before this offset of the file have been pruned
}

func (h *changesHeader) encode() []byte {
	b := append(make([]byte, 0, changesHeadSize), changesMagic...)
	b = binary.BigEndian.AppendUint16(b, formatVersion)
	b = binary.BigEndian.AppendUint16(b, changesHeadSize)
	b = binary.BigEndian.AppendUint16(b, changeSize)
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint64(b, h.lineage)
	b = binary.BigEndian.AppendUint64(b, uint64(h.base))
	b = append(b, make([]byte, 28)...)
	return binary.BigEndian.AppendUint32(b, crc(b))
}

// parseChangesHeader reads a header. A broken one gives lineage 0 and no base:
// its records are found all the same, and every cursor is refused once.
func parseChangesHeader(b []byte) changesHeader {
	h := changesHeader{base: changesHeadSize}
	if len(b) < changesHeadSize || string(b[:8]) != changesMagic || binary.BigEndian.Uint32(b[60:]) != crc(b[:60]) {
		return h
	}
	h.lineage = binary.BigEndian.Uint64(b[16:])
	h.base = max(h.base, int64(binary.BigEndian.Uint64(b[24:])))
	return h
}

func (s *Stream) changesPath() string { return filepath.Join(s.dir, changesName) }

// changesReader reads changes up to the size that the file had when it was
// opened.
type changesReader struct {
	changesHeader
	f    fsx.File
	size int64

	buf   []byte
	bufAt int64
}

func (s *Stream) openChanges() (*changesReader, error) {
	f, err := fsx.Open(s.fs, s.changesPath())
	if err != nil {
		return nil, err
	}
	r := &changesReader{f: f}
	st, err := f.Stat()
	if err == nil {
		r.size = st.Size()
		var b [changesHeadSize]byte
		var n int
		if n, err = f.ReadAt(b[:], 0); errors.Is(err, io.EOF) {
			err = nil
		}
		r.changesHeader = parseChangesHeader(b[:n])
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return r, nil
}

func (r *changesReader) close() { r.f.Close() }

// next returns the first record at or after off and the offset behind it.
// Without one, ok is false and the offset is where to look when the file has
// grown. Bytes that are no record, of a write that was cut, are passed over.
func (r *changesReader) next(off int64) (c change, after int64, ok bool, err error) {
	for off = max(off, r.base); off+changeSize <= r.size; {
		b, err := r.at(off)
		if err != nil {
			return c, off, false, err
		}
		if c, ok = parseChange(b); ok {
			return c, off + changeSize, true, nil
		}
		// A record begins with its magic byte: go there.
		i := bytes.IndexByte(b[1:], changeMagic)
		if i < 0 {
			i = len(b) - 1
		}
		off += min(int64(i)+1, r.size-changeSize+1-off)
	}
	return c, off, false, nil
}

// at returns the bytes at off: at least changeSize of them.
func (r *changesReader) at(off int64) ([]byte, error) {
	if i := off - r.bufAt; i >= 0 && i+changeSize <= int64(len(r.buf)) {
		return r.buf[i:], nil
	}
	n := min(r.size-off, 64<<10)
	if int64(cap(r.buf)) < n {
		r.buf = make([]byte, n)
	}
	r.buf, r.bufAt = r.buf[:n], off
	got, err := r.f.ReadAt(r.buf, off)
	if err != nil && !errors.Is(err, io.EOF) {
		r.buf = r.buf[:0]
		return nil, err
	}
	if r.buf = r.buf[:got]; got < changeSize {
		return nil, &CorruptError{Path: r.f.Name(), Offset: off, Err: io.ErrUnexpectedEOF}
	}
	return r.buf, nil
}

func (r *changesReader) cursor(off int64) Cursor {
	return Cursor(fmt.Sprintf("%016x-%d", r.lineage, off))
}

// offset returns the place in the file that a cursor names.
func (r *changesReader) offset(c Cursor) (int64, error) {
	if c == "" {
		return r.base, nil
	}
	lineage, off, ok := strings.Cut(string(c), "-")
	l, err1 := strconv.ParseUint(lineage, 16, 64)
	o, err2 := strconv.ParseInt(off, 10, 64)
	if !ok || err1 != nil || err2 != nil || len(lineage) != 16 || l != r.lineage || o < r.base || o > max(r.size, r.base) {
		return 0, ErrCursorGone
	}
	return o, nil
}

// ReadChanges returns the segments added after cursor, at most limit of them,
// in order of arrival, and the cursor behind them. It does not wait; without
// anything new it returns none and the cursor to ask with next. Segments that
// have been pruned or set aside since are left out; one may come twice.
func (s *Stream) ReadChanges(cursor Cursor, limit int) ([]Record, Cursor, error) {
	t := tail{s: s}
	defer t.close()
	return t.read(cursor, limit)
}

// End returns the cursor behind everything that the archive holds now.
func (s *Stream) End() (Cursor, error) {
	r, err := s.openChanges()
	if isNotExist(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer r.close()
	return r.cursor(r.size), nil
}

// Changes calls fn with each segment added after cursor, in order of arrival,
// live and healed alike, and then with each that any process adds, until ctx
// ends or fn returns an error; it returns that error. The cursor given to fn
// goes on behind that record. ErrCursorGone says that the cursor is no longer
// (or not yet) one of this archive.
func (s *Stream) Changes(ctx context.Context, cursor Cursor, fn func(Record, Cursor) error) error {
	w := watchFile(s.changesPath())
	defer w.close()
	t := tail{s: s}
	defer t.close()
	for {
		changed := w.next() // before looking, so that no wake-up is lost
		recs, next, err := t.read(cursor, 256)
		if err != nil {
			return err
		}
		for i := range recs {
			if err := ctx.Err(); err != nil {
				return err
			}
			at := t.cursors[i]
			if err := fn(recs[i], at); err != nil {
				return err
			}
		}
		more := next != cursor
		cursor = next
		if more {
			continue
		}
		if err := w.wait(ctx, changed); err != nil {
			return err
		}
	}
}

// WaitChanges returns nil as soon as there is a segment after cursor.
func (s *Stream) WaitChanges(ctx context.Context, cursor Cursor) error {
	w := watchFile(s.changesPath())
	defer w.close()
	for {
		changed := w.next()
		recs, next, err := s.ReadChanges(cursor, 1)
		if err != nil || len(recs) > 0 {
			return err
		}
		if next != cursor {
			cursor = next
			continue
		}
		if err := w.wait(ctx, changed); err != nil {
			return err
		}
	}
}

// tail turns changes into records. It keeps the last extent's index open, since
// what follows is mostly from the same one.
type tail struct {
	s       *Stream
	cursors []Cursor // of the records that read returned last

	hour  hour
	name  extentName
	index fsx.File
	head  indexHeader
}

func (t *tail) read(cursor Cursor, limit int) ([]Record, Cursor, error) {
	r, err := t.s.openChanges()
	if isNotExist(err) {
		if cursor != "" {
			return nil, "", ErrCursorGone
		}
		return nil, "", nil
	}
	if err != nil {
		return nil, cursor, err
	}
	defer r.close()
	off, err := r.offset(cursor)
	if err != nil {
		return nil, "", err
	}
	exists, err := t.s.reach()
	if err != nil {
		return nil, cursor, err
	}
	var out []Record
	t.cursors = t.cursors[:0]
	// Where nothing but other entries come, the limit on looks lets the caller
	// go on from a new cursor.
	for looks := 0; len(out) < limit && looks < 16*limit; looks++ {
		c, after, ok, err := r.next(off)
		if err != nil {
			return nil, cursor, err
		}
		off = after
		if !ok {
			break
		}
		if c.kind != changeKindAdd || !exists.has(c.hour) {
			continue
		}
		rec, ok, err := t.record(&c)
		if err != nil {
			return nil, cursor, err
		}
		if ok {
			out = append(out, rec)
			t.cursors = append(t.cursors, r.cursor(off))
		}
	}
	return out, r.cursor(off), nil
}

// record reads what a change announces; ok is false where it is gone.
func (t *tail) record(c *change) (rec Record, ok bool, err error) {
	if t.index == nil || t.hour != c.hour || t.name != c.name {
		if err := t.open(c.hour, c.name); err != nil {
			return rec, false, err
		}
	}
	if t.index != nil {
		var b [indexRecordSize]byte
		_, err := t.index.ReadAt(b[:], indexHeaderSize+int64(c.number)*indexRecordSize)
		if err != nil && !errors.Is(err, io.EOF) {
			return rec, false, err
		}
		r, good := parseIndexRecord(b[:], t.head.init)
		if err == nil && good && r.number == c.number && hourOf(r.UTC) == c.hour {
			bad, err := t.s.readBad(c.hour, c.name)
			return r.Record, err == nil && !bad[c.number], err
		}
	}
	x, err := t.s.loadExtent(c.hour, c.name)
	if err != nil {
		return rec, false, err
	}
	for i := range x.records {
		if x.records[i].number == c.number {
			return x.records[i].Record, true, nil
		}
	}
	return rec, false, nil
}

// open opens an extent's index; t.index is nil where it has no good one.
func (t *tail) open(h hour, name extentName) error {
	t.close()
	f, err := fsx.Open(t.s.fs, t.s.extentPath(h, name, indexExt))
	if isNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var b [indexHeaderSize]byte
	if _, err := f.ReadAt(b[:], 0); err != nil && !errors.Is(err, io.EOF) {
		f.Close()
		return err
	}
	head, err := parseIndexHeader(b[:])
	if err != nil {
		f.Close()
		return nil
	}
	t.hour, t.name, t.index, t.head = h, name, f, head
	return nil
}

func (t *tail) close() {
	if t.index != nil {
		t.index.Close()
		t.index = nil
	}
}

// announcer appends to changes.
type announcer struct {
	s *Stream
	f fsx.File
}

// announce adds one record in one write. The file may have been removed since
// it was opened; then a new one takes the record too.
func (a *announcer) announce(c change) error {
	b := c.append(make([]byte, 0, changeSize))
	for try := 0; ; try++ {
		if err := a.open(); err != nil {
			return err
		}
		if _, err := a.f.Write(b); err != nil {
			return err
		}
		st, err := a.f.Stat()
		if err != nil {
			return err
		}
		if sys, ok := st.Sys().(*syscall.Stat_t); !ok || sys.Nlink > 0 || try > 8 {
			return nil
		}
		a.close()
	}
}

func (a *announcer) open() error {
	for try := 0; a.f == nil; try++ {
		f, err := a.s.fs.OpenFile(a.s.changesPath(), os.O_WRONLY|os.O_APPEND, 0)
		if err == nil {
			a.f = f
			return nil
		}
		if !isNotExist(err) || try > 8 {
			return err
		}
		if err := a.s.makeChanges(); err != nil {
			return err
		}
	}
	return nil
}

func (a *announcer) close() error {
	if a.f == nil {
		return nil
	}
	err := a.f.Close()
	a.f = nil
	return err
}

func (s *Stream) makeChanges() error {
	var b [8]byte
	rand.Read(b[:])
	h := changesHeader{lineage: binary.BigEndian.Uint64(b[:]), base: changesHeadSize}
	err := fsx.PublishNew(s.fs, s.changesPath(), h.encode(), filePerm, s.owner)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// punchUnit is the size below which freeing blocks is not worth a call.
const punchUnit = 64 << 10

// dropChanges forgets the records ahead of the first one that is not before
// the horizon. Offsets never move, so that writers append and followers read
// on as if nothing had happened: the header learns where the file begins, then
// the blocks before that are freed. Where the file system cannot free them
// they stay, 24 bytes a segment.
func (s *Stream) dropChanges(horizon hour) error {
	r, err := s.openChanges()
	if isNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer r.close()
	base := r.base
	for {
		c, after, ok, err := r.next(base)
		if err != nil {
			return err
		}
		if !ok || c.hour >= horizon {
			break
		}
		base = after
	}
	if base == r.base || r.lineage == 0 {
		return nil
	}
	// Not O_APPEND: Linux appends on such a descriptor wherever pwrite says.
	f, err := s.fs.OpenFile(s.changesPath(), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	h := changesHeader{lineage: r.lineage, base: base}
	if _, err := f.WriteAt(h.encode(), 0); err != nil {
		return err
	}
	if err := f.Datasync(); err != nil {
		return err
	}
	const page = 4096
	if end := base / page * page; end-page >= punchUnit {
		if err := f.PunchHole(page, end-page); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	return nil
}
