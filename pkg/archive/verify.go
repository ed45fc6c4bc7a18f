package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// VerifyOptions say what is verified and how. The zero value verifies
// everything at full speed and mends what it can.
type VerifyOptions struct {
	From, To m4f.UTC       // hours that touch [From, To); 0: the beginning, the end
	Limiter  *rate.Limiter // bytes read; nil: as fast as the disk allows
	ReadOnly bool          // change nothing
	// Settled is for how long nothing may have been written to a file before
	// what a writer may be about to write is taken for missing; 0: ten minutes,
	// negative: at once.
	Settled time.Duration
	// Reread is how much later at least, at the end of the hour, a segment is read
	// again that the disk could not read; 0: five seconds, negative: at once.
	Reread time.Duration

	Progress func(bytes int64) // is told the bytes of each read, if set
	Damage   func(Damage)      // is told what is found, if set
	// HourDone is told the start of each hour that is done, and what the pass has
	// come to, if set.
	HourDone func(start m4f.UTC, sum VerifyResult)
}

// DamageKind says what went bad.
type DamageKind string

// What goes bad on a disk.
const (
	BadSegment DamageKind = "segment"        // its bytes are not what its identity says, or are gone
	BadInit    DamageKind = "init segment"   // of an extent
	BadHeader  DamageKind = "segment header" // the box ahead of a segment that is good
	BadIndex   DamageKind = "index"          // its header, or the record of a segment that is good
	BadExtent  DamageKind = "extent"         // it is gone, and its index is still there
	BadChanges DamageKind = "changes"        // its header, or bytes in it that are no record
	BadList    DamageKind = "list"           // of segments set aside
	BadSalvage DamageKind = "salvage"        // packets kept of a damaged segment
	BadOther   DamageKind = "file"           // of another kind
)

// What was done about damage.
const (
	SetAside = "set aside" // readers no longer see the segment; a peer heals it
	Mended   = "mended"    // the bytes are again what they were
	Dropped  = "dropped"   // it is gone, and the archive lacks nothing
	// TakenBack: readers see a segment again that was set aside.
	TakenBack = "taken back"
	// Left: nothing. The archive cannot be written, or is not to be, or no segment of
	// the hour can be read, so that the disk as a whole is in question.
	Left = "left"
	// LeftForNow: nothing yet, since a writer may be at it. A pass that begins ten
	// minutes after the last write does something.
	LeftForNow = "left for now: written to lately"
)

// Damage is something that Verify found.
type Damage struct {
	Path   string
	Offset int64
	Kind   DamageKind
	Why    string
	Done   string       // SetAside, Mended, Dropped, TakenBack, Left or LeftForNow
	ID     m4f.Identity // of the segment, where it is known
	From   m4f.UTC      // the segment's span; 0 where it is not known
	To     m4f.UTC
	Bytes  int64 // of the segment or of what was mended
}

// VerifyResult sums up a pass.
type VerifyResult struct {
	Hours, Extents, Segments int
	Bytes                    int64
	Bad                      int // segments, set aside or left
	Mended                   int // places, segments taken back, and salvage dropped
	// Aside are the segments that earlier passes or readers set aside, that are still
	// bad, and of which the archive has no other copy, as far as it can tell.
	Aside int
}

// Sound says whether nothing was found that was not set aside before.
func (r *VerifyResult) Sound() bool { return r.Bad+r.Mended == 0 }

const (
	defaultSettled = 10 * time.Minute // of VerifyOptions.Settled
	defaultReread  = 5 * time.Second  // of VerifyOptions.Reread
)

// Verify reads every byte of the archive's extents, indexes, lists, changes and
// salvage and compares each with what guards it. Segments that are bad are set aside;
// what else is bad is written back where it follows from the rest, and salvage that
// is bad is dropped. A second pass
// finds nothing any more, whatever the first one found, but for what was left.
//
// Bytes that are wrong twice are set aside at once. A segment that the disk cannot
// read (EIO) is read again when the hour is over, and set aside if it cannot be read
// then either while others of the hour can. Segments that were set aside before,
// and not healed since, are read too, and taken back where they are good.
//
// It reads from the disk and leaves nothing in the system's cache, as far as the
// system allows that. Errors are those of the archive as a whole, and ctx's.
func (s *Stream) Verify(ctx context.Context, o VerifyOptions) (VerifyResult, error) {
	v := &verifier{s: s, ctx: ctx, o: o, buf: make([]byte, 256<<10)}
	if o.Settled == 0 {
		v.o.Settled = defaultSettled
	}
	if o.Reread == 0 {
		v.o.Reread = defaultReread
	}
	hours, err := s.hours(o.From, o.To)
	if err != nil {
		return v.res, err
	}
	if err := v.marker(); err != nil {
		return v.res, err
	}
	if err := v.changes(); err != nil {
		return v.res, err
	}
	for _, h := range hours {
		if h < hourOf(o.From) {
			continue
		}
		if err := v.hour(h); err != nil {
			return v.res, err
		}
		v.res.Hours++
		if o.HourDone != nil {
			o.HourDone(h.start(), v.res)
		}
	}
	return v.res, v.salvage()
}

type verifier struct {
	s   *Stream
	ctx context.Context
	o   VerifyOptions
	res VerifyResult
	buf []byte

	later    []unread // of the hour
	readWell bool     // a segment of the hour
}

// wait waits until n more bytes may be read.
func (v *verifier) wait(n int) error {
	for left := n; left > 0 && v.o.Limiter != nil; {
		some := min(left, max(v.o.Limiter.Burst(), 1))
		if err := v.o.Limiter.WaitN(v.ctx, some); err != nil {
			return err
		}
		left -= some
	}
	return v.ctx.Err()
}

// take is wait for bytes of the archive.
func (v *verifier) take(n int) error {
	if err := v.wait(n); err != nil {
		return err
	}
	v.res.Bytes += int64(n)
	if v.o.Progress != nil {
		v.o.Progress(int64(n))
	}
	return v.ctx.Err()
}

func (v *verifier) found(d Damage) {
	if d.Kind == BadSegment || d.Kind == BadExtent {
		v.res.Bad++
	} else {
		v.res.Mended++
	}
	if v.o.Damage != nil {
		v.o.Damage(d)
	}
}

// hour verifies the files of an hour.
func (v *verifier) hour(h hour) error {
	entries, err := readDir(v.s.fs, v.s.hourDir(h))
	if err != nil {
		return err
	}
	names := map[extentName]bool{} // true: the extent itself is there
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		name, ok := parseExtentName(strings.TrimSuffix(e.Name(), ext))
		if ok && (ext == mediaExt || ext == indexExt || ext == badExt) {
			names[name] = names[name] || ext == mediaExt
		}
	}
	order := make([]extentName, 0, len(names))
	for name := range names {
		order = append(order, name)
	}
	slices.SortFunc(order, func(a, b extentName) int {
		return int(a.ms)*65536 + int(a.n) - int(b.ms)*65536 - int(b.n)
	})
	v.later, v.readWell = nil, false
	for _, name := range order {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		x := &extentCheck{v: v, h: h, name: name, path: v.s.extentPath(h, name, mediaExt)}
		if err := x.run(); err != nil && !isNotExist(err) { // pruned meanwhile
			return err
		}
	}
	return v.rereadAll()
}

// settled says whether nobody is writing to a file, as far as its age tells.
func (v *verifier) settled(st fs.FileInfo) bool {
	return v.o.Settled < 0 || v.s.clock.Now().Sub(st.ModTime()) > v.o.Settled
}

// writeBack puts bytes back as they were, inside a file or up to its end.
func (v *verifier) writeBack(path string, off int64, b []byte) string {
	if v.o.ReadOnly {
		return Left
	}
	f, err := v.s.fs.OpenFile(path, writeOnly, 0)
	if err != nil {
		return Left
	}
	_, err = f.WriteAt(b, off)
	if err == nil {
		err = f.Datasync()
	}
	if cerr := f.Close(); err != nil || cerr != nil {
		return Left
	}
	return Mended
}

// changes verifies the list of changes.
func (v *verifier) changes() error {
	path := v.s.changesPath()
	r, err := v.s.openChanges()
	if isNotExist(err) {
		return nil // the next writer makes it
	}
	if err != nil {
		return err
	}
	defer r.close()
	if r.lineage == 0 {
		v.found(Damage{Path: path, Kind: BadChanges, Why: "its header is damaged", Bytes: r.size, Done: v.renewChanges()})
		return nil
	}
	for off := r.base; ; {
		_, after, ok, err := r.next(off)
		if err != nil {
			return err
		}
		if !ok {
			return nil // a writer may be at the end
		}
		if after-changeSize > off {
			if err := v.notRecords(r, off, after-changeSize); err != nil {
				return err
			}
		}
		if err := v.take(int(after - off)); err != nil {
			return err
		}
		off = after
	}
}

// notRecords clears bytes between two records. Nobody writes there any more: each
// record is appended in one write. Less than a record is what a write that was cut
// has left, and no damage.
func (v *verifier) notRecords(r *changesReader, off, end int64) error {
	for at := off; at < end; at += int64(len(v.buf)) {
		b := v.buf[:min(end-at, int64(len(v.buf)))]
		if _, err := r.f.ReadAt(b, at); err != nil {
			return err
		}
		n := len(bytes.TrimRight(b, "\x00"))
		if n == 0 {
			continue
		}
		clear(b)
		done := v.writeBack(r.f.Name(), at, b)
		if n >= changeSize {
			v.found(Damage{Path: r.f.Name(), Offset: at, Kind: BadChanges, Why: fmt.Sprintf("%d bytes are no record", len(b)),
				Bytes: int64(len(b)), Done: done})
		}
	}
	return nil
}

// renewChanges begins the list of changes anew: followers compare by hours.
func (v *verifier) renewChanges() string {
	if v.o.ReadOnly {
		return Left
	}
	if err := v.s.fs.Remove(v.s.changesPath()); err != nil {
		return Left
	}
	if err := v.s.makeChanges(); err != nil {
		return Left
	}
	return Mended
}

// findInit looks for a good copy of an init segment in the other extents of the
// archive. They change seldom, so that mostly all hours have it.
func (v *verifier) findInit(id m4f.Identity, near hour) []byte {
	if b, ok := v.s.inits.get(id); ok {
		return b
	}
	hours, err := v.s.hours(0, 0)
	if err != nil {
		return nil
	}
	distance := func(h hour) hour { return max(h-near, near-h) }
	slices.SortFunc(hours, func(a, b hour) int { return int(distance(a) - distance(b)) })
	for _, h := range hours {
		files, err := v.s.hourFiles(h)
		if err != nil {
			continue
		}
		for _, x := range files {
			if b := v.initOf(h, x.name, id); b != nil {
				v.s.inits.put(b, id)
				return b
			}
		}
	}
	return nil
}

func (v *verifier) initOf(h hour, name extentName, id m4f.Identity) []byte {
	f, err := fsx.Open(v.s.fs, v.s.extentPath(h, name, mediaExt))
	if err != nil {
		return nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil
	}
	n, err := findInit(f, st.Size())
	if err != nil || n == 0 {
		return nil
	}
	b, err := readInit(f, n, id)
	if err != nil {
		return nil
	}
	return b
}

// isPassing says whether an error of reading is no damage and ends a pass.
func isPassing(err error) bool {
	return err != nil && !isDamage(err) && !isUnreadable(err) && !errors.Is(err, fs.ErrNotExist)
}
