package m4f

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/Eyevinn/mp4ff/bits"
	"github.com/Eyevinn/mp4ff/mp4"
)

const (
	// HeaderBoxSize is the size of the segment header box in bytes.
	HeaderBoxSize = 132
	// HeaderVersion is the version of the segment header box that this
	// package writes, and the only one that it reads.
	HeaderVersion = 1

	allFlags = Damaged | Partial | Discontinuity | Keyframe
)

// The extended types (ISO/IEC 14496-12 4.2) of this format's own boxes.
const (
	uuidHeader  = "3c6f2b0e-8e5d-4d4f-9a41-6d3466736567" // segment header
	uuidProgram = "3c6f2b0e-8e5d-4d4f-9a41-6d346670726f" // program, in moov
	uuidTrack   = "3c6f2b0e-8e5d-4d4f-9a41-6d346674726b" // elementary stream, in trak
)

var (
	headerType  = mustUUID(uuidHeader)
	programType = mustUUID(uuidProgram)
	trackType   = mustUUID(uuidTrack)
)

func mustUUID(s string) []byte {
	u, err := mp4.NewUUIDFromString(s)
	if err != nil {
		panic(err)
	}
	return u
}

// uuidBox makes a box of one of this format's extended types.
func uuidBox(typ string, payload []byte) *mp4.UUIDBox {
	b := &mp4.UUIDBox{UnknownPayload: payload}
	if err := b.SetUUID(typ); err != nil {
		panic(err)
	}
	return b
}

// appendBox encodes one box behind dst.
func appendBox(dst []byte, b mp4.Box) []byte {
	n := len(dst)
	dst = append(dst, make([]byte, b.Size())...)
	sw := bits.NewFixedSliceWriterFromSlice(dst[n:])
	if err := b.EncodeSW(sw); err != nil || sw.Offset() != len(dst)-n {
		panic(fmt.Sprintf("m4f: box %s wrote %d of %d bytes: %v", b.Type(), sw.Offset(), len(dst)-n, err))
	}
	return dst
}

// AppendBox appends the segment header box, HeaderBoxSize bytes, to dst.
func (h *Header) AppendBox(dst []byte) []byte {
	p := make([]byte, 0, HeaderBoxSize-24)
	p = append(p, HeaderVersion, 0, 0, 0)
	p = append(p, h.ID[:]...)
	p = append(p, h.Init[:]...)
	p = binary.BigEndian.AppendUint64(p, uint64(h.MediaTime))
	p = binary.BigEndian.AppendUint64(p, uint64(h.UTC))
	p = binary.BigEndian.AppendUint64(p, h.Length)
	p = binary.BigEndian.AppendUint32(p, h.Duration)
	p = binary.BigEndian.AppendUint32(p, h.Lost)
	p = binary.BigEndian.AppendUint32(p, h.Errored)
	p = binary.BigEndian.AppendUint16(p, uint16(h.Flags))
	p = append(p, 0, 0)
	dst = appendBox(dst, uuidBox(uuidHeader, p))
	binary.BigEndian.PutUint16(dst[len(dst)-2:], headerSum(dst[len(dst)-HeaderBoxSize:]))
	return dst
}

// headerSum is the checksum of a segment header box, over its bytes before the
// checksum: CRC-16 with polynomial 0x1021, started with 0xFFFF (ITU-T V.41 has
// the polynomial). It finds every burst of up to 16 bits. What would be 0 is
// 0xFFFF: 0 says that there is none, as boxes of earlier versions do.
func headerSum(box []byte) uint16 {
	sum := uint16(0xFFFF)
	for _, b := range box[:HeaderBoxSize-2] {
		sum ^= uint16(b) << 8
		for range 8 {
			carry := sum & 0x8000
			sum <<= 1
			if carry != 0 {
				sum ^= 0x1021
			}
		}
	}
	if sum == 0 {
		return 0xFFFF
	}
	return sum
}

// IsHeaderBox says whether b starts with a segment header box of any version.
func IsHeaderBox(b []byte) bool {
	return len(b) >= 24 && string(b[4:8]) == "uuid" && bytes.Equal(b[8:24], headerType)
}

// ErrVersion is wrapped when data was written in a later version of the format.
var ErrVersion = errors.New("written by a later version of twindvr")

// ParseHeaderBox reads a segment header box. Bytes behind the box are ignored.
// It refuses values that no writer produces.
func ParseHeaderBox(box []byte) (Header, error) {
	var h Header
	if !IsHeaderBox(box) {
		return h, errors.New("not a segment header box")
	}
	if len(box) > 24 && box[24] != HeaderVersion {
		return h, fmt.Errorf("segment header version %d, this program reads version %d: %w", box[24], HeaderVersion, ErrVersion)
	}
	size := binary.BigEndian.Uint32(box)
	if size != HeaderBoxSize || len(box) < HeaderBoxSize {
		return h, fmt.Errorf("segment header box of %d bytes (%d present), want %d", size, len(box), HeaderBoxSize)
	}
	b := box[28:]
	copy(h.ID[:], b)
	copy(h.Init[:], b[32:])
	h.MediaTime = int64(binary.BigEndian.Uint64(b[64:]))
	h.UTC = UTC(binary.BigEndian.Uint64(b[72:]))
	h.Length = binary.BigEndian.Uint64(b[80:])
	h.Duration = binary.BigEndian.Uint32(b[88:])
	h.Lost = binary.BigEndian.Uint32(b[92:])
	h.Errored = binary.BigEndian.Uint32(b[96:])
	h.Flags = Flags(binary.BigEndian.Uint16(b[100:]))
	sum := binary.BigEndian.Uint16(b[102:])
	switch {
	case box[25]|box[26]|box[27] != 0:
		return h, errors.New("segment header: reserved bytes are not 0")
	case h.MediaTime < 0 || h.MediaTime >= Wrap:
		return h, fmt.Errorf("segment header: media time %d is not a 33-bit time", h.MediaTime)
	case h.Flags&^allFlags != 0:
		return h, fmt.Errorf("segment header: unknown flags %#x", uint16(h.Flags))
	case h.Length == 0 || h.Length > MaxMedia:
		return h, fmt.Errorf("segment header: length %d, want 1 to %d", h.Length, MaxMedia)
	case sum != 0 && sum != headerSum(box):
		return h, fmt.Errorf("segment header: its checksum is %04x, its bytes have %04x", sum, headerSum(box))
	}
	return h, h.CheckTimes()
}

// maxUTC bounds wall-clock times to the years 1970 ± 10 000, far from
// overflow in sums and in time.Time.
const maxUTC = UTC(10_000 * 366 * 24 * 3600 * Timescale)

// CheckTimes refuses a wall-clock time that arithmetic could overflow on.
func (h *Header) CheckTimes() error {
	if h.UTC > maxUTC || h.UTC < -maxUTC {
		return fmt.Errorf("segment header: wall-clock time %d ticks is out of range", h.UTC)
	}
	return nil
}
