package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

const (
	segmentTicks  = 4 * m4f.Timescale
	segmentBytes  = 3_000_000 // of 6 Mbit/s
	hourSegments  = 900
	hourTicks     = 3600 * m4f.Timescale
	indexHeadSize = 64
	indexRecSize  = 96
)

// fake is an archive with indexes as they are and extents that are as long as
// they should be and hold nothing but the init segment and the header of the last
// segment (pkg/archive/FORMAT.md): what reads no media cannot tell. It has one extent an hour, of 900 segments of 4 s.
type fake struct {
	dir   string
	init  []byte    // the init segment, which is in the extents
	first time.Time // on the hour
	hours int
	// odd are numbers of segments, from 0, in which the archive differs from one
	// without: each second is damaged, the others are not there, so that the hour
	// has another extent from there on.
	odd map[int]bool
}

// testInit is the init segment of the test stream.
func (b *bench) testInit() ([]byte, error) {
	input := filepath.Join(b.dir, "init.ts")
	if err := b.makeInput(input, 8); err != nil {
		return nil, err
	}
	out, err := exec.Command(b.twindvr, "ingest", input).Output()
	if err != nil {
		return nil, err
	}
	seg, err := m4f.NewReader(bytes.NewReader(out)).Next()
	if err != nil {
		return nil, err
	}
	return seg.Init, os.Remove(input)
}

// lastHours is the first of so many hours that end a while ago.
func lastHours(hours int) time.Time {
	return time.Now().UTC().Truncate(time.Hour).Add(-time.Duration(hours+1) * time.Hour)
}

// make writes the archive.
func (f *fake) make() error {
	if _, err := archive.Create(f.dir, "", archive.Options{TargetDuration: segmentTicks}); err != nil {
		return err
	}
	for h := range f.hours {
		start := f.first.Add(time.Duration(h) * time.Hour)
		dir := filepath.Join(f.dir, start.Format("2006/01/02/15"))
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return err
		}
		if err := f.makeHour(dir, h, m4f.UTCOf(start)); err != nil {
			return err
		}
	}
	return nil
}

// linked makes another archive of the same files.
func (f *fake) linked(dir string) error {
	if _, err := archive.Create(dir, "", archive.Options{TargetDuration: segmentTicks}); err != nil {
		return err
	}
	return filepath.WalkDir(f.dir, func(path string, d fs.DirEntry, err error) error {
		rel, rerr := filepath.Rel(f.dir, path)
		switch to := filepath.Join(dir, rel); {
		case err != nil || rerr != nil:
			return errors.Join(err, rerr)
		case d.IsDir():
			return os.MkdirAll(to, 0o750)
		case strings.Contains(rel, "/"):
			return os.Link(path, to)
		}
		return nil
	})
}

// makeHour writes the extents of an hour.
func (f *fake) makeHour(dir string, h int, start m4f.UTC) error {
	x := newFakeExtent(f.init, start)
	for i := range hourSegments {
		n := h*hourSegments + i
		at := start.Add(int64(i) * segmentTicks)
		switch {
		case !f.odd[n]:
			x.add(n, at, 0)
		case n%2 == 0:
			x.add(n, at, m4f.Damaged)
		default:
			if err := x.write(dir); err != nil {
				return err
			}
			x = newFakeExtent(f.init, at.Add(segmentTicks))
		}
	}
	return x.write(dir)
}

// fakeExtent is an extent that is being made.
type fakeExtent struct {
	init  []byte
	id    m4f.Identity // of init
	start m4f.UTC
	last  m4f.Header
	index []byte
	count uint32
	end   int64
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newFakeExtent(init []byte, start m4f.UTC) *fakeExtent {
	b := append(make([]byte, 0, indexHeadSize+hourSegments*indexRecSize), "TWDVRIDX"...)
	b = binary.BigEndian.AppendUint16(b, 1)
	b = binary.BigEndian.AppendUint16(b, indexHeadSize)
	b = binary.BigEndian.AppendUint16(b, indexRecSize)
	b = append(b, byte(archive.Live), 0)
	id := m4f.Identify(init, nil)
	b = append(b, id[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(init)))
	b = append(b, make([]byte, 8)...)
	return &fakeExtent{init: init, id: id, start: start, index: sealed(b, 0), end: int64(len(init))}
}

// sealed appends the CRC of all bytes from from on.
func sealed(b []byte, from int) []byte {
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[from:], castagnoli))
}

// add appends the record of segment n of the archive.
func (x *fakeExtent) add(n int, at m4f.UTC, flags m4f.Flags) {
	b, from := x.index, len(x.index)
	h := &x.last
	*h = m4f.Header{
		ID: m4f.Identify(nil, binary.BigEndian.AppendUint64(nil, uint64(n))), Init: x.id,
		MediaTime: int64(n) * segmentTicks & (m4f.Wrap - 1), UTC: at, Duration: segmentTicks, Flags: flags | m4f.Keyframe, Length: segmentBytes,
	}
	if flags&m4f.Damaged != 0 {
		h.Lost = 1
	}
	b = append(b, h.ID[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(h.MediaTime))
	b = binary.BigEndian.AppendUint64(b, uint64(h.UTC))
	b = binary.BigEndian.AppendUint32(b, h.Duration)
	b = binary.BigEndian.AppendUint16(b, uint16(h.Flags))
	b = append(b, byte(archive.Live), 0)
	b = binary.BigEndian.AppendUint32(b, h.Lost)
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(x.end))
	b = binary.BigEndian.AppendUint32(b, uint32(h.Length))
	b = binary.BigEndian.AppendUint32(b, x.count)
	b = binary.BigEndian.AppendUint64(b, uint64(at.Time().UnixMilli()+segmentTicks/90))
	b = append(b, 0, 0, 0, 0)
	x.index = sealed(b, from)
	x.count++
	x.end += m4f.HeaderBoxSize + segmentBytes
}

// write writes the extent, unless it has no segment.
func (x *fakeExtent) write(dir string) error {
	if x.count == 0 {
		return nil
	}
	t := x.start.Time()
	base := filepath.Join(dir, fmt.Sprintf("%02d%02d.%03d", t.Minute(), t.Second(), t.Nanosecond()/1e6))
	if err := os.WriteFile(base+".idx", x.index, 0o640); err != nil {
		return err
	}
	f, err := os.OpenFile(base+".mp4", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	_, err1 := f.Write(x.init)
	_, err2 := f.WriteAt(x.last.AppendBox(nil), x.end-segmentBytes-m4f.HeaderBoxSize)
	return errors.Join(err1, err2, f.Truncate(x.end), f.Close())
}
