package archive

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"slices"
	"syscall"

	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// location is where a segment's bytes are.
type location struct {
	hour       hour
	name       extentName
	number     uint32 // in its extent
	initLength uint32 // bytes of the init segment, at the start of the extent
	offset     int64  // of the segment header box
}

// extent is what an extent's files say.
type extent struct {
	init    m4f.Identity
	initLen uint32
	records []indexRecord // whole segments, in order of place
	size    int64         // of the media file
}

// loadExtent reads the records of an extent: its index, made good by the
// headers in the extent itself where it is absent, short or broken, without
// those that were set aside. It stops at the last whole segment. An extent that
// is not there is an empty one.
func (s *Stream) loadExtent(h hour, name extentName) (*extent, error) {
	media, err := fsx.Open(s.fs, s.extentPath(h, name, mediaExt))
	if isNotExist(err) {
		return &extent{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer media.Close()
	index, err := s.readIndex(h, name)
	if err != nil {
		return nil, err
	}
	st, err := media.Stat() // after the index: its records' data is in the file by now
	if err != nil {
		return nil, err
	}
	x, err := parseExtent(media, st, index)
	if err != nil {
		return nil, err
	}
	bad, err := s.readBad(h, name)
	if err != nil {
		return nil, err
	}
	x.records = slices.DeleteFunc(x.records, func(r indexRecord) bool {
		return bad[r.number] || hourOf(r.UTC) != h
	})
	return x, nil
}

// parseExtent returns the records of all whole segments.
func parseExtent(media fsx.File, st fs.FileInfo, index []byte) (*extent, error) {
	if head, err := parseIndexHeader(index); err == nil {
		return parseExtentAs(media, st, index[indexHeaderSize:], head)
	}
	n, err := findInit(media, st.Size())
	if err != nil || n == 0 {
		return &extent{initLen: n, size: st.Size()}, err
	}
	return parseExtentAs(media, st, nil, indexHeader{initLength: n})
}

// parseExtentAs is parseExtent with an index header that is known; index are the
// records behind it.
func parseExtentAs(media fsx.File, st fs.FileInfo, index []byte, head indexHeader) (*extent, error) {
	x := &extent{init: head.init, initLen: head.initLength, size: st.Size()}
	return x, x.fill(index, &headerScan{f: media, size: st.Size(), arrived: st.ModTime().UnixMilli(), origin: head.origin, input: head.input})
}

func (s *Stream) readIndex(h hour, name extentName) ([]byte, error) {
	const limit = indexHeaderSize + maxRecordsExtent*indexRecordSize
	index, err := fsx.ReadFile(s.fs, s.extentPath(h, name, indexExt), limit)
	if isNotExist(err) || errors.Is(err, fsx.ErrTooLong) || errors.Is(err, syscall.EIO) {
		return nil, nil // the extent tells the same
	}
	return index, err
}

// fill takes the good records of the index, and scans the extent for what is
// between them and behind the last.
func (x *extent) fill(index []byte, sc *headerScan) error {
	x.records = make([]indexRecord, 0, len(index)/indexRecordSize)
	at := int64(x.initLen)
	var number uint32
	for i := 0; len(index) >= indexRecordSize; i++ {
		r, ok := parseIndexRecord(index, x.init)
		index = index[indexRecordSize:]
		if !ok || int(r.number) != i || r.offset < at || r.end() > sc.size {
			continue
		}
		if r.offset > at {
			if err := x.scan(sc, at, r.offset, number, r.number); err != nil {
				return err
			}
		}
		x.records = append(x.records, r)
		at, number = r.end(), r.number+1
	}
	return x.scan(sc, at, sc.size, number, maxRecordsExtent)
}

// scan appends the segments whose headers are at [at, to), numbered from
// number and at most up to limit.
func (x *extent) scan(sc *headerScan, at, to int64, number, limit uint32) error {
	for number < limit && at+m4f.HeaderBoxSize <= to {
		r, ok, err := sc.at(at)
		if err != nil {
			return err
		}
		if !ok || r.end() > to || !x.init.IsZero() && r.Init != x.init {
			return nil
		}
		x.init = r.Init
		r.number = number
		x.records = append(x.records, r)
		at, number = r.end(), number+1
	}
	return nil
}

// headerScan reads segment headers out of an extent.
type headerScan struct {
	f       fsx.File
	size    int64
	arrived int64
	origin  Origin
	input   uint8
	buf     [m4f.HeaderBoxSize]byte
}

func (sc *headerScan) at(off int64) (r indexRecord, ok bool, err error) {
	if _, err := sc.f.ReadAt(sc.buf[:], off); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.EIO) {
			return r, false, nil
		}
		return r, false, err
	}
	r.Header, err = m4f.ParseHeaderBox(sc.buf[:])
	if err != nil || checkHeader(&r.Header) != nil {
		return r, false, nil
	}
	r.Origin, r.Input, r.Arrived, r.offset = sc.origin, sc.input, sc.arrived, off
	return r, true, nil
}

// findInit returns the length of the boxes ahead of the first segment header,
// 0 where there is no whole init segment and header.
func findInit(f fsx.File, size int64) (uint32, error) {
	var b [24]byte
	for off := int64(0); off+int64(len(b)) <= size && off <= m4f.MaxInit; {
		if _, err := f.ReadAt(b[:], off); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, syscall.EIO) {
				return 0, nil
			}
			return 0, err
		}
		if m4f.IsHeaderBox(b[:]) {
			return uint32(off), nil
		}
		n := int64(binary.BigEndian.Uint32(b[:]))
		if typ := string(b[4:8]); n < 8 || typ != "ftyp" && typ != "moov" {
			return 0, nil
		}
		off += n
	}
	return 0, nil
}
