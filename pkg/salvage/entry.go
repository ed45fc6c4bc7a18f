package salvage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"regexp"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// What one entry of a Store may have. A segment has 64 MiB of the source's bytes
// at most; with what goes ahead of it and completes it that is well below
// MaxPackets.
const (
	MaxPackets  = 1 << 20 // packets, 188 MiB
	MaxHoles    = 1000    // holes; a copy with more is past healing
	MaxSegments = 64      // segments that one copy is for

	// maxNumber bounds packet numbers: sums of them do not overflow.
	maxNumber = 1 << 60
)

// Entry is a copy in a Store and the damaged or partial segments that it is
// kept for. It never changes: what is better replaces it under another name.
type Entry struct {
	Name string // unique; see ValidName
	Run  uint64 // the run of a recorder, or the merge, that its packets were counted in
	// From and To are numbers of packets in that run, To not included. Entries of
	// one run that overlap or touch have the same packets under the same numbers.
	From, To int64
	Program  uint16       // number of the program
	Target   int64        // D in ticks
	Segments []m4f.Header // that it is for, in order, at least one
	Holes    []Hole       // as in the Copy: At is counted from packet From
	Kept     time.Time    // when, to the millisecond
	Gained   int          // packets that merges have added to what was heard here

	parts []part // where the packets are; nil for an entry of a peer
}

// part is a stretch of an entry's packets that lies in one file.
type part struct {
	file     int64 // number of the first packet of the file, which is its name
	size     int   // packets of the file
	from, to int64 // the packets that belong to the entry
	crc      uint32
}

// Len is the number of packets.
func (e *Entry) Len() int { return int(e.To - e.From) }

// Start is the UTC of the first of its segments.
func (e *Entry) Start() m4f.UTC { return e.Segments[0].UTC }

// End is the UTC at which the last of its segments ends.
func (e *Entry) End() m4f.UTC {
	end := e.Segments[0].End()
	for i := range e.Segments {
		end = max(end, e.Segments[i].End())
	}
	return end
}

// Follows says whether e goes on where prev ends, or before: Store.Read makes one
// Copy of both.
func (e *Entry) Follows(prev *Entry) bool {
	return e.Run == prev.Run && e.Program == prev.Program && e.Target == prev.Target &&
		prev.From <= e.From && e.From <= prev.To
}

// Adjoin groups entries, as Store.Entries returned them, into those that
// Store.Read makes one Copy of. A group has MaxPackets at most.
func Adjoin(entries []Entry) [][]Entry {
	var out [][]Entry
	last := make(map[uint64]int) // the group of each run
	for _, e := range entries {
		if i, ok := last[e.Run]; ok {
			g := out[i]
			if e.Follows(&g[len(g)-1]) && e.To-g[0].From <= MaxPackets {
				out[i] = append(g, e)
				continue
			}
		}
		last[e.Run] = len(out)
		out = append(out, []Entry{e})
	}
	return out
}

// check refuses what no Store writes. It is what an entry from a file or from
// a peer must pass.
func (e *Entry) check() error {
	n := e.To - e.From
	switch {
	case e.From < 0 || e.To > maxNumber || n < 1 || n > MaxPackets:
		return fmt.Errorf("packets %d to %d, the most are %d", e.From, e.To, MaxPackets)
	case len(e.Segments) < 1 || len(e.Segments) > MaxSegments:
		return fmt.Errorf("%d segments, the most are %d", len(e.Segments), MaxSegments)
	case len(e.Holes) > MaxHoles:
		return fmt.Errorf("%d holes, the most are %d", len(e.Holes), MaxHoles)
	case e.Target < 0 || e.Target > m4f.Wrap:
		return fmt.Errorf("a target duration of %d ticks", e.Target)
	case e.Gained < 0 || e.Gained > int(n):
		return fmt.Errorf("%d of %d packets gained", e.Gained, n)
	}
	at := 0
	for _, h := range e.Holes {
		if h.At < at || h.At > int(n) || h.Missing < 0 || h.Missing > maxMissing {
			return fmt.Errorf("a hole of %d ahead of packet %d", h.Missing, h.At)
		}
		at = h.At
	}
	for i := range e.Segments {
		if err := checkSegment(&e.Segments[i]); err != nil {
			return err
		}
	}
	return nil
}

// Check refuses an entry of a peer that has what no Store writes.
func (e *Entry) Check() error {
	if err := e.check(); err != nil {
		return err
	}
	if !ValidName(e.Name) || e.Name != e.name() {
		return errors.New("a name that does not fit it")
	}
	return nil
}

// maxMissing bounds what a hole says to be missing.
const maxMissing = 1 << 30

// checkSegment wants what can be a segment of an archive.
func checkSegment(h *m4f.Header) error {
	switch {
	case h.ID.IsZero():
		return errors.New("a segment without an identity")
	case h.MediaTime < 0 || h.MediaTime >= m4f.Wrap:
		return fmt.Errorf("media time %d is not a 33-bit time", h.MediaTime)
	case h.UTC < 0 || h.UTC >= maxUTC:
		return fmt.Errorf("%d ticks are outside the years 1970 to 9998", h.UTC)
	case h.Duration == 0 || h.Duration > 3600*m4f.Timescale:
		return fmt.Errorf("a duration of %d ticks", h.Duration)
	case h.Length == 0 || h.Length > m4f.MaxMedia:
		return fmt.Errorf("%d bytes of media, the most are %d", h.Length, m4f.MaxMedia)
	}
	return nil
}

var maxUTC = m4f.UTCOf(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC))

const nameTime = "20060102T150405.000"

var nameForm = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}\.[0-9]{3}-[0-9a-f]{16}-[0-9]{1,19}$`)

// ValidName says whether a word has the form of an entry's name: the UTC of its
// first segment, its run and the number of its first packet.
func ValidName(name string) bool { return len(name) <= 64 && nameForm.MatchString(name) }

func (e *Entry) name() string {
	return fmt.Sprintf("%s-%016x-%d", e.Start().Time().Format(nameTime), e.Run, e.From)
}

// The names of files in an entry's directory.
const (
	entryName = "entry"
	packetExt = ".ts"
)

func packetName(first int64) string { return fmt.Sprintf("%012d", first) + packetExt }

const (
	entryMagic   = "TWDVRSAL"
	entryFormat  = 1
	entryHead    = 80
	entryPart    = 32
	entryHole    = 8
	maxParts     = 256
	maxEntrySize = entryHead + MaxSegments*m4f.HeaderBoxSize + maxParts*entryPart + MaxHoles*entryHole + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode is the file "entry", as FORMAT.md has it.
func (e *Entry) encode() []byte {
	b := make([]byte, 0, entryHead+len(e.Segments)*m4f.HeaderBoxSize+len(e.parts)*entryPart+len(e.Holes)*entryHole+4)
	be := binary.BigEndian
	b = append(b, entryMagic...)
	b = be.AppendUint16(b, entryFormat)
	b = be.AppendUint16(b, e.Program)
	b = be.AppendUint16(b, uint16(len(e.Segments)))
	b = be.AppendUint16(b, uint16(len(e.parts)))
	b = be.AppendUint32(b, uint32(len(e.Holes)))
	b = be.AppendUint32(b, uint32(e.Gained))
	b = be.AppendUint64(b, e.Run)
	b = be.AppendUint64(b, uint64(e.From))
	b = be.AppendUint64(b, uint64(e.To))
	b = be.AppendUint64(b, uint64(e.Target))
	b = be.AppendUint64(b, uint64(e.Kept.UnixMilli()))
	b = append(b, make([]byte, entryHead-len(b))...)
	for i := range e.Segments {
		b = e.Segments[i].AppendBox(b)
	}
	for _, p := range e.parts {
		b = be.AppendUint64(b, uint64(p.file))
		b = be.AppendUint64(b, uint64(p.from))
		b = be.AppendUint64(b, uint64(p.to))
		b = be.AppendUint32(b, uint32(p.size))
		b = be.AppendUint32(b, p.crc)
	}
	for _, h := range e.Holes {
		b = be.AppendUint32(b, uint32(h.At))
		b = be.AppendUint32(b, uint32(h.Missing))
	}
	return be.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// parseEntry reads what encode returned. Nothing in it is trusted.
func parseEntry(b []byte) (*Entry, error) {
	be := binary.BigEndian
	if len(b) < entryHead+4 || string(b[:8]) != entryMagic {
		return nil, errors.New("it is no entry of salvage")
	}
	if v := be.Uint16(b[8:]); v != entryFormat {
		return nil, fmt.Errorf("its format is %d, this twindvr reads %d", v, entryFormat)
	}
	body := b[:len(b)-4]
	if crc32.Checksum(body, castagnoli) != be.Uint32(b[len(body):]) {
		return nil, errChecksum
	}
	segments, parts, holes := int(be.Uint16(b[12:])), int(be.Uint16(b[14:])), int(be.Uint32(b[16:]))
	if segments > MaxSegments || parts > maxParts || holes > MaxHoles ||
		len(body) != entryHead+segments*m4f.HeaderBoxSize+parts*entryPart+holes*entryHole {
		return nil, fmt.Errorf("%d bytes for %d segments, %d parts and %d holes", len(b), segments, parts, holes)
	}
	e := &Entry{
		Program: be.Uint16(b[10:]),
		Gained:  int(be.Uint32(b[20:])),
		Run:     be.Uint64(b[24:]),
		From:    int64(be.Uint64(b[32:])),
		To:      int64(be.Uint64(b[40:])),
		Target:  int64(be.Uint64(b[48:])),
		Kept:    time.UnixMilli(int64(be.Uint64(b[56:]))).UTC(),
	}
	body = body[entryHead:]
	for range segments {
		h, err := m4f.ParseHeaderBox(body)
		if err != nil {
			return nil, err
		}
		e.Segments = append(e.Segments, h)
		body = body[m4f.HeaderBoxSize:]
	}
	for range parts {
		e.parts = append(e.parts, part{
			file: int64(be.Uint64(body)),
			from: int64(be.Uint64(body[8:])),
			to:   int64(be.Uint64(body[16:])),
			size: int(be.Uint32(body[24:])),
			crc:  be.Uint32(body[28:]),
		})
		body = body[entryPart:]
	}
	for range holes {
		e.Holes = append(e.Holes, Hole{int(be.Uint32(body)), int(be.Uint32(body[4:]))})
		body = body[entryHole:]
	}
	if err := e.check(); err != nil {
		return nil, err
	}
	e.Name = e.name()
	return e, e.checkParts()
}

var errChecksum = errors.New("its checksum is not that of its bytes")

// checkParts wants the parts to be the entry's packets, one after the other.
func (e *Entry) checkParts() error {
	at := e.From
	for _, p := range e.parts {
		if p.from != at || p.to <= p.from || p.file < 0 || p.file > p.from || p.size > MaxPackets || p.to-p.file > int64(p.size) {
			return fmt.Errorf("packets %d to %d in the file of %d", p.from, p.to, p.file)
		}
		at = p.to
	}
	if at != e.To {
		return fmt.Errorf("its files end at packet %d of %d", at, e.To)
	}
	return nil
}

// ErrGone is wrapped by the error for an entry that has gone: it was healed, or
// dropped.
var ErrGone = errors.New("this salvage is no longer kept")

// ErrApart is returned for entries whose packets do not follow each other.
var ErrApart = errors.New("these entries of salvage are no single stretch of one run")

// CorruptError says that a file of a Store is not what was written. The entry
// is of no more use.
type CorruptError struct {
	Entry string
	Path  string
	Err   error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s: the file is damaged: %v", e.Path, e.Err)
}

// Unwrap returns the cause.
func (e *CorruptError) Unwrap() error { return e.Err }

// goneError is an entry that has gone.
func goneError(dir, name string) error {
	return fmt.Errorf("%s: %w", filepath.Join(dir, name), ErrGone)
}
