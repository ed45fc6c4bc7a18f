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
	// line feed. So neither a line that was cut nor one with a bit turned sets
	// another segment aside.
	badLine = 20
	// maxBad bounds the size of such a list.
	maxBad = 8 << 20
)

func appendBad(dst []byte, number uint32) []byte {
	n := len(dst)
	dst = fmt.Appendf(dst, "%010d", number)
	return fmt.Appendf(dst, " %08x\n", crc(dst[n:]))
}

// parseBad reads the numbers in a list. Lines that are not whole do not count.
func parseBad(b []byte) map[uint32]bool {
	bad := make(map[uint32]bool)
	for line := range bytes.Lines(b) {
		if len(line) != badLine {
			continue
		}
		n, err := strconv.ParseUint(string(line[:10]), 10, 32)
		if err == nil && bytes.Equal(appendBad(nil, uint32(n)), line) {
			bad[uint32(n)] = true
		}
	}
	return bad
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
func (s *Stream) setAside(h hour, name extentName, numbers ...uint32) error {
	var lines []byte
	for _, n := range numbers {
		lines = appendBad(lines, n)
	}
	if err := s.appendLines(s.extentPath(h, name, badExt), lines); err != nil { // 1, 2
		return s.writeError(err)
	}
	if err := s.fs.SyncDir(s.hourDir(h)); err != nil {
		return s.writeError(err)
	}
	return s.announceHour(h, name) // 3
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
	s.cache.doubt(h)
	a := announcer{s: s}
	err := a.announce(change{kind: changeKindHour, hour: h, name: name})
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
// any more: they are other bytes, the file is shorter, or the disk cannot read
// them. Anything else (no descriptors, no permission, a volume that is gone) may
// pass.
func isDamage(err error) bool {
	var other *identityError
	var init *initError
	return errors.As(err, &other) || errors.As(err, &init) || errors.Is(err, errCut) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.EIO)
}

// initError says that the init segment of an extent is not what its identity
// says.
type initError struct{ text string }

func (e *initError) Error() string { return e.text }
