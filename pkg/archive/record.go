package archive

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// Origin says how a segment came into the archive.
type Origin uint8

// The origins of a segment.
const (
	Unknown    Origin = iota // its index record is lost; the extent's headers do not say
	Live                     // recorded from a source
	Imported                 // read by record from a pipe
	Replicated               // fetched from a peer as the peer listed it
	Healed                   // fetched from a peer to fill a gap or replace damage
	Copied                   // made locally: a better flag, or a repeat, of a segment that was there
	numOrigins
)

var originNames = [numOrigins]string{"unknown", "live", "imported", "replicated", "healed", "copied"}

// String returns the origin's name, as JSON has it.
func (o Origin) String() string {
	if o < numOrigins {
		return originNames[o]
	}
	return fmt.Sprintf("origin-%d", uint8(o))
}

// ParseOrigin reads a name that String returned; any other word is Unknown.
func ParseOrigin(s string) Origin {
	for i, n := range originNames {
		if n == s {
			return Origin(i)
		}
	}
	return Unknown
}

// MarshalText implements encoding.TextMarshaler.
func (o Origin) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. An origin that a later
// version has added reads as Unknown.
func (o *Origin) UnmarshalText(b []byte) error {
	*o = ParseOrigin(string(b))
	return nil
}

// Record is what the archive knows of one segment.
type Record struct {
	m4f.Header
	Origin  Origin
	Input   uint8 // which input of the stream it was recorded from, from 0
	Arrived int64 // when it was added to this archive, Unix milliseconds
}

// MaxDuration bounds the duration of a segment, in ticks: one hour. A segment
// can so only touch the hour that it begins in and the one after.
const MaxDuration = 3600 * m4f.Timescale

// Bounds of a segment's UTC: the names of hours have four digits for the year.
const (
	minUTC m4f.UTC = 0
	maxUTC m4f.UTC = 253370764800 * m4f.Timescale // 9999-01-01
)

// The fixed sizes of index and changes records. FORMAT.md has the bytes.
const (
	indexHeaderSize  = 64
	indexRecordSize  = 96
	indexMagic       = "TWDVRIDX"
	changesHeadSize  = 64
	changeSize       = 24
	changesMagic     = "TWDVRCHG"
	formatVersion    = 1
	changeMagic      = 0xC7
	changeKindAdd    = 1 // a segment was added
	changeKindHour   = 2 // something else in that hour changed: read it again
	maxRecordsExtent = 1 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func crc(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// indexHeader opens an index file.
type indexHeader struct {
	init       m4f.Identity
	initLength uint32
	origin     Origin
	input      uint8
}

func (h *indexHeader) append(dst []byte) []byte {
	n := len(dst)
	dst = append(dst, indexMagic...)
	dst = binary.BigEndian.AppendUint16(dst, formatVersion)
	dst = binary.BigEndian.AppendUint16(dst, indexHeaderSize)
	dst = binary.BigEndian.AppendUint16(dst, indexRecordSize)
	dst = append(dst, byte(h.origin), h.input)
	dst = append(dst, h.init[:]...)
	dst = binary.BigEndian.AppendUint32(dst, h.initLength)
	dst = append(dst, make([]byte, 8)...)
	return binary.BigEndian.AppendUint32(dst, crc(dst[n:]))
}

func parseIndexHeader(b []byte) (indexHeader, error) {
	var h indexHeader
	if len(b) < indexHeaderSize {
		return h, fmt.Errorf("index header cut after %d of %d bytes", len(b), indexHeaderSize)
	}
	b = b[:indexHeaderSize]
	switch {
	case string(b[:8]) != indexMagic:
		return h, fmt.Errorf("no index: it begins with %q, not %q", b[:8], indexMagic)
	case binary.BigEndian.Uint16(b[8:]) != formatVersion:
		return h, fmt.Errorf("index format %d, this program reads %d", binary.BigEndian.Uint16(b[8:]), formatVersion)
	case binary.BigEndian.Uint16(b[10:]) != indexHeaderSize || binary.BigEndian.Uint16(b[12:]) != indexRecordSize:
		return h, fmt.Errorf("index sizes %d and %d, want %d and %d",
			binary.BigEndian.Uint16(b[10:]), binary.BigEndian.Uint16(b[12:]), indexHeaderSize, indexRecordSize)
	case binary.BigEndian.Uint32(b[60:]) != crc(b[:60]):
		return h, fmt.Errorf("index header checksum is wrong")
	}
	h.origin, h.input = Origin(b[14]), b[15]
	copy(h.init[:], b[16:])
	h.initLength = binary.BigEndian.Uint32(b[48:])
	if h.origin >= numOrigins {
		h.origin = Unknown
	}
	return h, nil
}

// indexRecord is a record and its place in the extent.
type indexRecord struct {
	Record
	number uint32 // of the segment in its extent, from 0
	offset int64  // of the segment header box in the extent
}

// end is the offset of the first byte after the segment.
func (r *indexRecord) end() int64 { return r.offset + m4f.HeaderBoxSize + int64(r.Length) }

func (r *indexRecord) append(dst []byte) []byte {
	n := len(dst)
	dst = append(dst, r.ID[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.MediaTime))
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.UTC))
	dst = binary.BigEndian.AppendUint32(dst, r.Duration)
	dst = binary.BigEndian.AppendUint16(dst, uint16(r.Flags))
	dst = append(dst, byte(r.Origin), r.Input)
	dst = binary.BigEndian.AppendUint32(dst, r.Lost)
	dst = binary.BigEndian.AppendUint32(dst, r.Errored)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.offset))
	dst = binary.BigEndian.AppendUint32(dst, uint32(r.Length))
	dst = binary.BigEndian.AppendUint32(dst, r.number)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Arrived))
	dst = append(dst, 0, 0, 0, 0)
	return binary.BigEndian.AppendUint32(dst, crc(dst[n:]))
}

// parseIndexRecord reads one record; init names the extent's init segment.
func parseIndexRecord(b []byte, init m4f.Identity) (r indexRecord, ok bool) {
	if len(b) < indexRecordSize || binary.BigEndian.Uint32(b[92:]) != crc(b[:92]) {
		return r, false
	}
	copy(r.ID[:], b)
	r.Init = init
	r.MediaTime = int64(binary.BigEndian.Uint64(b[32:]))
	r.UTC = m4f.UTC(binary.BigEndian.Uint64(b[40:]))
	r.Duration = binary.BigEndian.Uint32(b[48:])
	r.Flags = m4f.Flags(binary.BigEndian.Uint16(b[52:]))
	r.Origin, r.Input = Origin(b[54]), b[55]
	r.Lost = binary.BigEndian.Uint32(b[56:])
	r.Errored = binary.BigEndian.Uint32(b[60:])
	r.offset = int64(binary.BigEndian.Uint64(b[64:]))
	r.Length = uint64(binary.BigEndian.Uint32(b[72:]))
	r.number = binary.BigEndian.Uint32(b[76:])
	r.Arrived = int64(binary.BigEndian.Uint64(b[80:]))
	if r.Origin >= numOrigins {
		r.Origin = Unknown
	}
	return r, r.offset > 0 && r.offset < math.MaxInt64/2 && checkHeader(&r.Header) == nil
}

// checkHeader refuses what an archive cannot hold, whoever says it.
func checkHeader(h *m4f.Header) error {
	switch {
	case h.Duration == 0:
		return fmt.Errorf("segment %.8s has no duration", h.ID)
	case int64(h.Duration) > MaxDuration:
		return fmt.Errorf("segment %.8s lasts %v, longer than an hour", h.ID, m4f.Duration(int64(h.Duration)))
	case h.UTC < minUTC || h.UTC >= maxUTC:
		return fmt.Errorf("segment %.8s is dated outside the years 1970 to 9998", h.ID)
	case h.MediaTime < 0 || h.MediaTime >= m4f.Wrap:
		return fmt.Errorf("segment %.8s has media time %d, outside 33 bits", h.ID, h.MediaTime)
	case h.Length == 0 || h.Length > m4f.MaxMedia:
		return fmt.Errorf("segment %.8s has %d bytes of media, more than %d or none", h.ID, h.Length, int64(m4f.MaxMedia))
	}
	return nil
}
