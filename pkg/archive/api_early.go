package archive

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// This file gives way to the implementation, with these signatures.
var errSoon = errors.New("archive: being written")

// CreateOptions are what a new stream is made with.
type CreateOptions struct {
	TargetDuration int64       // D in ticks; 0: taken from the first segment
	Clock          clock.Clock // nil: the system's
	FS             fsx.FS      // nil: the operating system's
}

// Stream is an archive of one stream; safe for concurrent use. It needs no closing.
type Stream struct{ dir string }

func Create(dir, name string, opt CreateOptions) (*Stream, error) { return nil, errSoon }
func Open(dir string) (*Stream, error)                            { return nil, errSoon }
func (s *Stream) Dir() string                                     { return s.dir }

// Found is a stream below a root.
type Found struct {
	Name string // relative to the root, with slashes
	Dir  string
}

func Find(root string) ([]Found, error) { return nil, errSoon }
func ValidName(name string) error       { return errSoon }

// Info is what the marker and the directory say.
type Info struct {
	Name           string
	TargetDuration int64 // ticks, 0: not yet known
	Rules          int
	Horizon        m4f.UTC
	Oldest, Newest m4f.UTC // start of the oldest, end of the newest segment; 0, 0 when empty
	Created        time.Time
}

func (s *Stream) Info() (Info, error) { return Info{}, errSoon }

// WriterOptions say how a Writer makes segments durable.
type WriterOptions struct {
	Sync time.Duration // how often to fdatasync what was written; 0: each second; SyncAlways, SyncOff
}

const (
	SyncAlways time.Duration = -1
	SyncOff    time.Duration = -2
)

// Writer adds segments; one goroutine at a time.
type Writer struct{}

func (s *Stream) Writer(origin Origin, input uint8, opt WriterOptions) *Writer { return nil }

// Append adds a segment whose identity the caller has verified or made.
// On an error nothing of it is visible and it may be appended again.
func (w *Writer) Append(seg *m4f.Segment) error { return errSoon }

// Copy adds the segment h.ID, which the archive holds, again with h's flags and UTC.
func (w *Writer) Copy(h m4f.Header) error { return errSoon }
func (w *Writer) Sync() error             { return errSoon }
func (w *Writer) Close() error            { return errSoon }

// Element is a segment of the view: the best flags and the earliest UTC of all
// copies, and the parts of its span that no better segment covers.
type Element struct {
	Record
	Parts []Part // in order, never empty
}

// Part is a part of a segment's span: ticks from the segment's start.
type Part struct{ From, To int64 }

// Span calls nothing back: the elements with a part in [from, to), in playing
// order. from 0: the beginning; to 0: the end.
func (s *Stream) Span(from, to m4f.UTC) ([]Element, error) { return nil, errSoon }

// Each is Span for long spans: hour by hour.
func (s *Stream) Each(from, to m4f.UTC, fn func(Element) error) error { return errSoon }

// Interval is a stretch without a gap.
type Interval struct {
	From, To         m4f.UTC
	Segments         int
	Bytes            int64
	Damaged, Partial int // segments
	Timelines, Inits int // how many there are in it
}

func (s *Stream) Coverage(from, to m4f.UTC) ([]Interval, error) { return nil, errSoon }

// Gap is a span that no segment of the view covers.
type Gap struct {
	From, To m4f.UTC
	Cause    string       // a sentence; "not recorded" when nothing says why
	Event    *event.Event // that says so, or nil
}

func (s *Stream) Gaps(from, to m4f.UTC) ([]Gap, error) { return nil, errSoon }

// Hour sums up the elements that begin in a UTC hour.
type Hour struct {
	Start            m4f.UTC
	Segments         int
	Bytes            int64
	Damaged, Partial int
	Digest           [32]byte // SHA-256 over (identity, byte: 1 damaged | 2 partial) of each, in order
}

func (s *Stream) Hours(from, to m4f.UTC) ([]Hour, error) { return nil, errSoon }

// Cursor is a place in the list of changes: opaque, printable without escaping in a URL query. "" is the beginning.
type Cursor string

// Changes calls fn for each segment added after cursor, then waits for more until ctx ends or fn fails.
// The cursor given to fn continues after that record.
func (s *Stream) Changes(ctx context.Context, cursor Cursor, fn func(Record, Cursor) error) error {
	return errSoon
}

// ReadChanges returns at most limit records after cursor, without waiting, and where to go on.
func (s *Stream) ReadChanges(cursor Cursor, limit int) ([]Record, Cursor, error) {
	return nil, "", errSoon
}

// WaitChanges returns when there is something after cursor (nil), or ctx ends.
func (s *Stream) WaitChanges(ctx context.Context, cursor Cursor) error { return errSoon }

// End is the cursor after all that is there now.
func (s *Stream) End() (Cursor, error) { return "", errSoon }

// Media is a segment in the archive, open for reading; the caller closes it.
// Record is that of the stored copy, so Length bytes at Offset of File are moof and mdat.
type Media struct {
	Record
	Init   []byte
	File   *os.File
	Offset int64 // of the moof; the segment header box is before it
}

func (m *Media) Close() error { return nil }

// OpenMedia finds a segment by identity. near is a UTC near its start, which makes it fast; 0: not known.
func (s *Stream) OpenMedia(id m4f.Identity, near m4f.UTC) (*Media, error) { return nil, errSoon }

// OpenElement opens what Span returned.
func (s *Stream) OpenElement(e *Element) (*Media, error) { return nil, errSoon }

// ReadSegment reads a segment and verifies its identity (*CorruptError).
func (s *Stream) ReadSegment(id m4f.Identity, near m4f.UTC) (*m4f.Segment, error) {
	return nil, errSoon
}

// ReadElement is ReadSegment of what Span returned, with the element's flags and UTC in its header.
func (s *Stream) ReadElement(e *Element) (*m4f.Segment, error) { return nil, errSoon }

// Want is a record of a peer that the view would take.
type Want struct {
	Record
	Local bool // its media is here: Writer.Copy makes it; otherwise fetch it
}

// Wants returns which of a peer's records (its view's) this archive's view would take, in their order.
func (s *Stream) Wants(recs []Record) ([]Want, error) { return nil, errSoon }

// DateOf returns the UTC that the archive's own timeline gives to a media time: that of the
// recorded segment nearest before near, if it agrees with near to within a second.
func (s *Stream) DateOf(media int64, near m4f.UTC) (utc m4f.UTC, ok bool, err error) {
	return 0, false, errSoon
}

// Note adds an event to the hour of its time.
func (s *Stream) Note(e event.Event) error { return errSoon }

// Events returns the events of a span in order of time.
func (s *Stream) Events(from, to m4f.UTC) ([]event.Event, error) { return nil, errSoon }

// PruneOptions say what to keep.
type PruneOptions struct {
	Depth  time.Duration
	DryRun bool
	Force  bool
}

// PruneResult says what went, or would go.
type PruneResult struct {
	Horizon m4f.UTC
	Hours   []m4f.UTC // start of each hour removed
	Bytes   int64
}

// Prune removes whole hours older than Depth; *PruneHeldError when time does not explain it.
func (s *Stream) Prune(now time.Time, opt PruneOptions) (PruneResult, error) {
	return PruneResult{}, errSoon
}

// SetHorizon moves the horizon, back too: an explicit wish to fill older hours.
func (s *Stream) SetHorizon(h m4f.UTC) error { return errSoon }

// Size is the bytes that the stream's files take.
func (s *Stream) Size() (int64, error) { return 0, errSoon }
