package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
)

var (
	// ErrCursorGone is returned for a cursor whose changes pruning has passed,
	// or that another archive gave out: begin again from Stream.End and compare
	// by hours.
	ErrCursorGone = errors.New("the cursor's changes are no longer kept")
	// ErrNoSegment is returned for an identity that the archive does not hold.
	ErrNoSegment = errors.New("the archive holds no such segment")
	// ErrClosed is returned by a Writer that was closed.
	ErrClosed = errors.New("the writer is closed")
)

// NotStreamError says that a directory is not a stream, or not one that this
// program can work with.
type NotStreamError struct {
	Dir    string
	Reason string // what is there, and what to do
	Err    error  // fs.ErrNotExist where nothing is there
}

func (e *NotStreamError) Error() string {
	return fmt.Sprintf("%s is not a twindvr stream: %s", e.Dir, e.Reason)
}

// Unwrap returns the cause, if there is one.
func (e *NotStreamError) Unwrap() error { return e.Err }

// VersionError says that an archive has another format version.
type VersionError struct {
	Dir  string
	Have int
}

func (e *VersionError) Error() string {
	if e.Have > formatVersion {
		return fmt.Sprintf("%s has archive format %d and this twindvr reads format %d: upgrade twindvr", e.Dir, e.Have, formatVersion)
	}
	return fmt.Sprintf("%s has archive format %d, which is none that this twindvr (format %d) knows", e.Dir, e.Have, formatVersion)
}

// NestedError says that a stream would lie below or above another.
type NestedError struct{ Dir, Other string }

func (e *NestedError) Error() string {
	return fmt.Sprintf("%s cannot be a stream: %s is one, and no stream lies below another; choose a directory beside it", e.Dir, e.Other)
}

// NameError says that a word cannot be the name of a stream.
type NameError struct{ Name, Reason string }

func (e *NameError) Error() string {
	return fmt.Sprintf("%q is no name of a stream: %s", e.Name, e.Reason)
}

// TargetDurationError says that a segment was cut with another target duration
// than the stream's: their boundaries never agree.
type TargetDurationError struct {
	Dir                 string
	Stream, Segment     time.Duration
	RulesHere, RulesSeg int
}

func (e *TargetDurationError) Error() string {
	if e.Stream == e.Segment {
		return fmt.Sprintf("%s was cut by segmentation rules %d, this input by rules %d: record it into a stream of its own", e.Dir, e.RulesHere, e.RulesSeg)
	}
	return fmt.Sprintf("%s has segments of %v, this input segments of %v: use --segment-duration %v, or a stream of its own", e.Dir, e.Stream, e.Segment, e.Stream)
}

// HorizonError says that a segment lies before the point up to which the
// archive has been pruned.
type HorizonError struct{ UTC, Horizon m4f.UTC }

func (e *HorizonError) Error() string {
	return fmt.Sprintf("a segment of %s is older than the archive keeps, which begins at %s", e.UTC.Time().Format(time.RFC3339), e.Horizon.Time().Format(time.RFC3339))
}

// WriteError says that the archive could not take a segment. Nothing of it is
// visible; the same segment may be appended again.
type WriteError struct {
	Path string
	Err  error
}

func (e *WriteError) Error() string {
	switch {
	case e.Full():
		return fmt.Sprintf("%s: the volume is full: free space, or keep less (prune --depth)", e.Path)
	case e.ReadOnly():
		return fmt.Sprintf("%s: cannot be written (%v): check the mount and who owns the directory", e.Path, rootCause(e.Err))
	}
	return fmt.Sprintf("%s: %v", e.Path, rootCause(e.Err))
}

// Unwrap returns the operating system's error.
func (e *WriteError) Unwrap() error { return e.Err }

// Full says whether the volume or the quota is used up.
func (e *WriteError) Full() bool {
	return errors.Is(e.Err, syscall.ENOSPC) || errors.Is(e.Err, syscall.EDQUOT)
}

// ReadOnly says whether the volume or the directory refuses writing.
func (e *WriteError) ReadOnly() bool {
	return errors.Is(e.Err, syscall.EROFS) || errors.Is(e.Err, fs.ErrPermission)
}

// writeError names the file that an error is about, or the stream.
func (s *Stream) writeError(err error) error {
	e := &WriteError{Path: s.dir, Err: err}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		e.Path = pe.Path
	}
	return e
}

func rootCause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// CorruptError says where a file of the archive is not what it was, or, where it
// wraps an error of the operating system, cannot be read at present.
type CorruptError struct {
	Path   string
	Offset int64
	Err    error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s: at byte %d: %v", e.Path, e.Offset, e.Err)
}

// Unwrap returns the cause.
func (e *CorruptError) Unwrap() error { return e.Err }

// PruneHeldError says that a pass would remove more than time explains.
type PruneHeldError struct {
	Dir     string  // of the stream
	Hours   int     // hours that would go and that time does not explain
	Of      int     // hours that could go
	Horizon m4f.UTC // where the horizon would move
	What    string  // what was asked for, in words
	Flag    string  // the same as flags of prune
	Where   string  // what to prune; "": Dir
}

func (e *PruneHeldError) Error() string {
	where := e.Where
	if where == "" {
		where = e.Dir
	}
	return fmt.Sprintf("%s: %s removes %d of %d hours more than the time passed explains: check the clock and the limits%s, then run \"twindvr prune %s %s --force\"",
		e.Dir, e.What, e.Hours, e.Of, e.foreign(), where, e.Flag)
}

func (e *PruneHeldError) foreign() string {
	if e.Where == "" {
		return ""
	}
	return ", and what else fills the volume"
}

// LimitError says that a limit is not met although nothing is left that may be
// removed for it.
type LimitError struct {
	Where  string // a stream's directory, or what shares the volume
	Limit  string // in words
	Over   int64  // bytes too many
	Kept   bool   // there are kept spans
	Volume bool   // the limit is one on the volume, which other files fill too
}

func (e *LimitError) Error() string {
	left, do := "the newest hours", "change it"
	if e.Kept {
		left, do = "kept spans and the newest hours", "release some (twindvr keep) or change it"
	}
	if e.Volume {
		do += ", or see what else fills the volume"
	}
	return fmt.Sprintf("%s: the limit, %s, is missed by %s and nothing but %s is left: %s", e.Where, e.Limit, NearBytes(e.Over), left, do)
}
