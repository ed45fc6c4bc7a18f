package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"

	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

const (
	// badLine is the length of a line of a list of segments set aside: ten
	// digits, a blank, the CRC of the digits as eight hexadecimal digits, a
	// line feed. With "+" for the blank, and the CRC over that too, the segment
	// is taken back: the last line of a segment counts. So neither a line that
	// was cut nor one with a bit turned sets another segment aside.
	badLine = 20
	// maxBad bounds the size of such a list.
	maxBad = 8 << 20
)

func appendBad(dst []byte, number uint32) []byte {
	n := len(dst)
	dst = fmt.Appendf(dst, "%010d", number)
	return fmt.Appendf(dst, " %08x\n", crc(dst[n:]))
}

// appendBack is appendBad for a segment that is taken back.
func appendBack(dst []byte, number uint32) []byte {
	n := len(dst)
	dst = fmt.Appendf(dst, "%010d+", number)
	return fmt.Appendf(dst, "%08x\n", crc(dst[n:]))
}

// parseBad reads the numbers in a list. Lines that are not whole do not count.
func parseBad(b []byte) map[uint32]bool {
	bad := make(map[uint32]bool)
	for line := range bytes.Lines(b) {
		switch n, back, ok := parseBadLine(line); {
		case !ok:
		case back:
			delete(bad, n)
		default:
			bad[n] = true
		}
	}
	return bad
}

func parseBadLine(line []byte) (number uint32, back, ok bool) {
	if len(line) != badLine {
		return 0, false, false
	}
	n, err := strconv.ParseUint(string(line[:10]), 10, 32)
	if err != nil {
		return 0, false, false
	}
	number = uint32(n)
	back = bytes.Equal(appendBack(nil, number), line)
	return number, back, back || bytes.Equal(appendBad(nil, number), line)
}

// readBad returns the numbers of the segments of an extent that were set aside.
// A list that cannot be read is an empty one: whoever reads a segment checks it.
func (s *Stream) readBad(h hour, name extentName) (map[uint32]bool, error) {
	b, err := fsx.ReadFile(s.fs, s.extentPath(h, name, badExt), maxBad)
	if isNotExist(err) || errors.Is(err, syscall.EIO) || errors.Is(err, fsx.ErrTooLong) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseBad(b), nil
}

// setAside is the numbered steps of setting aside in the package documentation.
// Where the list cannot be made durable, the segments are taken back.
func (s *Stream) setAside(h hour, name extentName, numbers ...uint32) error {
	if err := s.list(h, name, appendBad, numbers); err != nil { // 1, 2
		s.undo(h, name, numbers)
		return err
	}
	return s.announceHour(h, name) // 3
}

// list appends a line for each segment to the list of an extent.
func (s *Stream) list(h hour, name extentName, line func([]byte, uint32) []byte, numbers []uint32) error {
	var lines []byte
	for _, n := range numbers {
		lines = line(lines, n)
	}
	err := s.appendLines(s.extentPath(h, name, badExt), lines)
	if err == nil {
		err = s.fs.SyncDir(s.hourDir(h))
	}
	if err != nil {
		return s.writeError(err)
	}
	return nil
}

// undo takes back what a list says that could not be made durable. It does what
// it can: the disk may refuse this as well.
func (s *Stream) undo(h hour, name extentName, numbers []uint32) {
	bad, err := s.readBad(h, name)
	if err != nil {
		return
	}
	var back []uint32
	for _, n := range numbers {
		if bad[n] {
			back = append(back, n)
		}
	}
	if len(back) > 0 {
		_ = s.list(h, name, appendBack, back)
	}
	s.cache.doubt(h)
}

// takeBack is the numbered steps of taking back in the package documentation.
func (s *Stream) takeBack(h hour, name extentName, number uint32) error {
	if err := s.list(h, name, appendBack, []uint32{number}); err != nil { // 1, 2
		return err
	}
	return s.tell(change{kind: changeKindAdd, hour: h, name: name, number: number}) // 3
}

// appendLines appends whole lines in one write and makes them durable.
func (s *Stream) appendLines(path string, lines []byte) error {
	f, err := s.fs.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, filePerm)
	if err != nil {
		return err
	}
	defer f.Close()
	s.owner.Give(f)
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if size := st.Size(); size > 0 { // a line that was cut ends here
		var last [1]byte
		if _, err := f.ReadAt(last[:], size-1); err != nil || last[0] != '\n' {
			lines = append([]byte{'\n'}, lines...)
		}
	}
	if _, err := f.Write(lines); err != nil {
		return err
	}
	return f.Datasync()
}

// announceHour has every process read an hour afresh, and wakes those who wait
// in OnSetAside.
func (s *Stream) announceHour(h hour, name extentName) error {
	return s.tell(change{kind: changeKindHour, hour: h, name: name})
}

func (s *Stream) tell(c change) error {
	s.cache.doubt(c.hour)
	a := announcer{s: s}
	err := a.announce(c)
	if cerr := a.close(); err == nil {
		err = cerr
	}
	if err != nil {
		return s.writeError(err)
	}
	return nil
}

// OnSetAside calls fn each time that segments of this archive were set aside, by
// any process, since it was called: they are missing now, and a peer may have
// them. It returns fn's error, or ctx's.
func (s *Stream) OnSetAside(ctx context.Context, fn func() error) error {
	w := watchFile(s.changesPath())
	defer w.close()
	off, lineage := int64(-1), uint64(0)
	for {
		changed := w.next()
		r, err := s.openChanges()
		if isNotExist(err) {
			off = 0
		} else if err != nil {
			return err
		} else {
			if off < 0 || off > 0 && r.lineage != lineage || off > r.size {
				off = r.size
			}
			lineage = r.lineage
			var told bool
			off, told, err = s.lookForHours(r, off)
			r.close()
			if err != nil {
				return err
			}
			if told {
				if err := fn(); err != nil {
					return err
				}
			}
		}
		if err := w.wait(ctx, changed); err != nil {
			return err
		}
	}
}

func (s *Stream) lookForHours(r *changesReader, off int64) (int64, bool, error) {
	found := false
	for {
		c, after, ok, err := r.next(off)
		if err != nil || !ok {
			return after, found, err
		}
		off, found = after, found || c.kind == changeKindHour
	}
}

// condemned serializes looks at segments that readers found bad: many readers
// find the same one at once.
var condemned sync.Mutex

// condemn is called by a reader to whom a segment was not what its identity
// says. It reads the segment again and sets it aside if that is so; bad says
// that it is, whether it could be set aside or not.
func (s *Stream) condemn(at location, id m4f.Identity) (bad bool, err error) {
	condemned.Lock()
	defer condemned.Unlock()
	s.cache.doubt(at.hour)
	x, err := s.loadExtent(at.hour, at.name)
	if err != nil {
		return true, err
	}
	for i := range x.records {
		r := &x.records[i]
		if r.number != at.number || r.ID != id {
			continue
		}
		err := s.check(at.hour, at.name, x, r)
		if !isDamage(err) {
			return false, err
		}
		if werr := s.setAside(at.hour, at.name, r.number); werr != nil {
			return true, werr
		}
		s.noteCorrupt(r.UTC, at.hour, at.name, r.offset, r.ID, err.Error())
		return true, nil
	}
	if aside, err := s.readBad(at.hour, at.name); err != nil || aside[at.number] {
		return true, err
	}
	// Its extent is gone or shorter: what the cache held is not what is there.
	return true, s.announceHour(at.hour, at.name)
}

// check reads a segment from the disk and compares it with its identity.
func (s *Stream) check(h hour, name extentName, x *extent, r *indexRecord) error {
	f, err := fsx.Open(s.fs, s.extentPath(h, name, mediaExt))
	if err != nil {
		return err
	}
	defer f.Close()
	init, err := s.inits.read(f, x.initLen, r.Init)
	if err != nil {
		return err
	}
	fsx.DropCache(f, r.offset, r.end()-r.offset)
	return checkBytes(context.Background(), f, init, r, make([]byte, 256<<10), nil)
}

// checkBytes reads the media of a segment through buf and compares its identity;
// take is asked before each read.
func checkBytes(ctx context.Context, f fsx.File, init []byte, r *indexRecord, buf []byte, take func(int) error) error {
	sum := m4f.NewIdentifier(init)
	left := int64(r.Length)
	for off := r.offset + m4f.HeaderBoxSize; left > 0; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := int(min(left, int64(len(buf))))
		if take != nil {
			if err := take(n); err != nil {
				return err
			}
		}
		if _, err := f.ReadAt(buf[:n], off); err != nil {
			if errors.Is(err, io.EOF) {
				err = errCut
			}
			return err
		}
		sum.Write(buf[:n])
		off, left = off+int64(n), left-int64(n)
	}
	if got := sum.Identity(); got != r.ID {
		return &identityError{want: r.ID, got: got}
	}
	return nil
}

// identityError says that bytes are not what their identity says.
type identityError struct{ want, got m4f.Identity }

func (e *identityError) Error() string {
	return fmt.Sprintf("segment %.16s is corrupt: its bytes are those of %.16s", e.want, e.got)
}

var errCut = errors.New("the file ends inside it")

// isDamage says whether an error of reading means that the bytes are not there
// any more: they were read and are others, or the file is shorter. Anything else
// (the disk cannot read them, no descriptors, no permission, a volume that is
// gone) may pass.
func isDamage(err error) bool {
	var other *identityError
	var bytes *bytesError
	var init *initError
	return errors.As(err, &other) || errors.As(err, &bytes) || errors.As(err, &init) || errors.Is(err, errCut) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// isUnreadable says that the disk says that it cannot read a place, which may
// pass, and may not.
func isUnreadable(err error) bool { return errors.Is(err, syscall.EIO) }

// bytesError says that bytes were read and are not a segment's.
type bytesError struct{ err error }

func (e *bytesError) Error() string { return e.err.Error() }
func (e *bytesError) Unwrap() error { return e.err }

// initError says that the init segment of an extent is not what its identity
// says.
type initError struct{ text string }

func (e *initError) Error() string { return e.text }
