package archive

import (
	"bytes"
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
	return s.loadExtentIn(new(extentBuffers), h, name)
}

// extentBuffers are what an extent is read into. What is read is good until the next is.
type extentBuffers struct {
	index   bytes.Buffer
	records []indexRecord
}

// loadExtentIn is loadExtent that uses buffers.
func (s *Stream) loadExtentIn(b *extentBuffers, h hour, name extentName) (*extent, error) {
	media, err := fsx.Open(s.fs, s.extentPath(h, name, mediaExt))
	if isNotExist(err) {
		return &extent{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer media.Close()
	index, err := s.readIndexIn(&b.index, h, name)
	if err != nil {
		return nil, err
	}
	st, err := media.Stat() // after the index: its records' data is in the file by now
	if err != nil {
		return nil, err
	}
	x := &extent{records: b.records[:0]}
	if err := x.parse(media, st, index); err != nil {
		return nil, err
	}
	b.records = x.records
	bad, err := s.readBad(h, name)
	if err != nil {
		return nil, err
	}
	begins, ends := h.start(), (h + 1).start()
	aside := func(r *indexRecord) bool { return r.UTC < begins || r.UTC >= ends || bad[r.number] }
	kept := 0
	for i := range x.records {
		if r := &x.records[i]; !aside(r) {
			if kept < i {
				x.records[kept] = *r
			}
			kept++
		}
	}
	x.records = x.records[:kept]
	return x, nil
}

// parseExtent returns the records of all whole segments.
func parseExtent(media fsx.File, st fs.FileInfo, index []byte) (*extent, error) {
	x := &extent{}
	return x, x.parse(media, st, index)
}

// parse is parseExtent, into an extent that may have memory for records.
func (x *extent) parse(media fsx.File, st fs.FileInfo, index []byte) error {
	if head, err := parseIndexHeader(index); err == nil {
		return x.parseAs(media, st, index[indexHeaderSize:], head)
	}
	n, err := findInit(media, st.Size())
	if err != nil || n == 0 {
		x.initLen, x.size = n, st.Size()
		return err
	}
	return x.parseAs(media, st, nil, indexHeader{initLength: n})
}

// parseExtentAs is parseExtent with an index header that is known; index are the
// records behind it.
func parseExtentAs(media fsx.File, st fs.FileInfo, index []byte, head indexHeader) (*extent, error) {
	x := &extent{}
	return x, x.parseAs(media, st, index, head)
}

func (x *extent) parseAs(media fsx.File, st fs.FileInfo, index []byte, head indexHeader) error {
	x.init, x.initLen, x.size = head.init, head.initLength, st.Size()
	return x.fill(index, &headerScan{f: media, size: st.Size(), arrived: st.ModTime().UnixMilli(), origin: head.origin, input: head.input})
}

func (s *Stream) readIndex(h hour, name extentName) ([]byte, error) {
	return s.readIndexIn(new(bytes.Buffer), h, name)
}

// readIndexIn is readIndex into a buffer.
func (s *Stream) readIndexIn(b *bytes.Buffer, h hour, name extentName) ([]byte, error) {
	const limit = indexHeaderSize + maxRecordsExtent*indexRecordSize
	err := fsx.ReadInto(b, s.fs, s.extentPath(h, name, indexExt), limit)
	if isNotExist(err) || errors.Is(err, fsx.ErrTooLong) || errors.Is(err, syscall.EIO) {
		return nil, nil // the extent tells the same
	}
	return b.Bytes(), err
}

// fill takes the good records of the index, and scans the extent for what is
// between them and behind the last.
func (x *extent) fill(index []byte, sc *headerScan) error {
	x.records = slices.Grow(x.records, len(index)/indexRecordSize)
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
