// Package m4f is the format that twindvr writes, stores, sends and plays:
// plain fragmented MP4 (ISO/IEC 14496-12) with one uuid box, the segment
// header, ahead of each fragment. FORMAT.md beside this file describes every
// box to the byte.
package m4f

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"time"
)

const (
	// Timescale is the unit of every time in an M4F stream: ticks of 1/90000 s,
	// the system clock of ISO/IEC 13818-1.
	Timescale = 90000
	// RulesVersion numbers the segmentation rules. Two nodes with different
	// rules versions do not write equal segments. Every init segment carries it.
	RulesVersion = 1
	// Wrap is the modulus of PTS and DTS (33 bits, ISO/IEC 13818-1 2.4.3.7).
	Wrap = 1 << 33
)

// Identity names a segment: SHA-256 over its init segment, moof and mdat.
type Identity [32]byte

// Identify returns the identity of a segment whose init segment (ftyp, moov)
// and media (moof, mdat, in any pieces) are given. Without media it names an init
// segment.
func Identify(init []byte, media ...[]byte) Identity {
	h := sha256.New()
	h.Write(init)
	for _, b := range media {
		h.Write(b)
	}
	var id Identity
	h.Sum(id[:0])
	return id
}

// Identifier computes an identity of media that comes in pieces.
type Identifier struct{ sum hash.Hash }

// NewIdentifier returns an Identifier of a segment with this init segment.
func NewIdentifier(init []byte) *Identifier {
	sum := sha256.New()
	sum.Write(init)
	return &Identifier{sum}
}

// Write adds media; it never fails.
func (d *Identifier) Write(media []byte) (int, error) { return d.sum.Write(media) }

// Identity is that of the init segment and the media so far.
func (d *Identifier) Identity() (id Identity) {
	d.sum.Sum(id[:0])
	return id
}

// String returns the identity as 64 lower-case hexadecimal digits.
func (id Identity) String() string { return hex.EncodeToString(id[:]) }

// IsZero says whether the identity is unset.
func (id Identity) IsZero() bool { return id == Identity{} }

// MarshalText implements encoding.TextMarshaler: lower-case hexadecimal.
func (id Identity) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, id[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler; it wants 64 lower-case
// hexadecimal digits.
func (id *Identity) UnmarshalText(b []byte) error {
	v, err := ParseIdentity(string(b))
	if err == nil {
		*id = v
	}
	return err
}

// ParseIdentity reads 64 lower-case hexadecimal digits.
func ParseIdentity(s string) (Identity, error) {
	var id Identity
	if len(s) != 64 {
		return id, fmt.Errorf("identity %q: want 64 hexadecimal digits, got %d characters", clip(s), len(s))
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return id, fmt.Errorf("identity %q: want lower-case hexadecimal digits", clip(s))
		}
	}
	hex.Decode(id[:], []byte(s))
	return id, nil
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

// UTC is a wall-clock instant in ticks of 1/90000 s since the Unix epoch, so
// that the offset between media time and UTC is exact.
type UTC int64

// UTCOf converts a time, rounding down to a tick.
func UTCOf(t time.Time) UTC {
	s, ns := t.Unix(), int64(t.Nanosecond())
	return UTC(s*Timescale + ns*Timescale/1e9)
}

// Time converts to a time.Time in UTC, accurate to a nanosecond, rounding up
// so that UTCOf(u.Time()) == u.
func (u UTC) Time() time.Time {
	s, r := int64(u)/Timescale, int64(u)%Timescale
	if r < 0 {
		s, r = s-1, r+Timescale
	}
	return time.Unix(s, (r*1e9+Timescale-1)/Timescale).UTC()
}

// Add returns u moved by a number of ticks.
func (u UTC) Add(ticks int64) UTC { return u + UTC(ticks) }

// Duration converts ticks to a time.Duration.
func Duration(ticks int64) time.Duration { return time.Duration(ticks * 100000 / 9) }

// Ticks converts a time.Duration to ticks, rounding towards zero.
func Ticks(d time.Duration) int64 { return int64(d) / 1000 * 9 / 100 }

// Diff33 is the signed difference a-b of two 33-bit times, in [-2^32, 2^32).
func Diff33(a, b int64) int64 {
	x := (a - b) & (Wrap - 1)
	if x >= Wrap/2 {
		x -= Wrap
	}
	return x
}

// Flags say how a segment was recorded. They are not part of its identity.
type Flags uint16

// The flags of a segment header.
const (
	// Damaged: recorded with known loss.
	Damaged Flags = 1 << iota
	// Partial: begun or ended inside the segment, or with an unsure boundary.
	Partial
	// Discontinuity: a new timeline begins with this segment.
	Discontinuity
	// Keyframe: the segment opens at a keyframe of the leading track (every
	// audio frame is one).
	Keyframe
)

// Header is what the segment header box says of a segment. Only ID, Init,
// MediaTime, Duration and Length follow from the segment's own bytes; the rest
// is what the recording node knows of it.
type Header struct {
	ID        Identity
	Init      Identity // SHA-256 of the init segment alone
	MediaTime int64    // PTS of the opening frame, 33 bits, ticks
	UTC       UTC      // wall-clock time of the opening frame
	Duration  uint32   // ticks from the opening PTS to the next segment's
	Flags     Flags
	Lost      uint32 // transport packets known to be missing
	Errored   uint32 // transport packets received with an error or unreadable
	Length    uint64 // bytes of moof and mdat
}

// End is the UTC at which the segment ends.
func (h *Header) End() UTC { return h.UTC.Add(int64(h.Duration)) }

// Damaged says whether the segment was recorded with known loss.
func (h *Header) Damaged() bool { return h.Flags&Damaged != 0 }

// Partial says whether the segment was begun or ended inside.
func (h *Header) Partial() bool { return h.Flags&Partial != 0 }

// Clean says whether the segment is neither damaged nor partial.
func (h *Header) Clean() bool { return h.Flags&(Damaged|Partial) == 0 }

// Segment is one segment in memory.
type Segment struct {
	Header Header
	Init   []byte // ftyp, moov; shared between segments, never modified
	Media  []byte // moof, mdat; nil where it lies in pieces

	pieces [][]byte // see SegmentSpec.Done
	done   func()
}

// Pieces are the segment's media in the order of its bytes: Media, or where it
// lies in pieces those.
func (s *Segment) Pieces() [][]byte {
	if s.pieces == nil {
		return [][]byte{s.Media}
	}
	return s.pieces
}

// Size is how many bytes the media has.
func (s *Segment) Size() (n int64) {
	for _, b := range s.pieces {
		n += int64(len(b))
	}
	return n + int64(len(s.Media))
}

// FormatError says where a stream of boxes breaks the format.
type FormatError struct {
	Offset int64 // byte offset in the stream
	Err    error
}

func (e *FormatError) Error() string { return fmt.Sprintf("at byte %d: %v", e.Offset, e.Err) }

// Unwrap returns the cause.
func (e *FormatError) Unwrap() error { return e.Err }
