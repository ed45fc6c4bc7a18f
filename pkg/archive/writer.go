package archive

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// When a Writer makes durable what it has written.
const (
	SyncAlways time.Duration = -1 // each segment, before it is announced
	SyncOff    time.Duration = -2 // when the operating system does
)

// DefaultSync is how often a Writer calls fdatasync when it is not told.
const DefaultSync = time.Second

// WriterOptions say how a Writer works. The zero value will do.
type WriterOptions struct {
	Sync time.Duration // interval of fdatasync; 0: DefaultSync; SyncAlways; SyncOff
}

// contiguous is how far apart, in ticks (5 ms, less than a frame), the end of
// one segment and the opening of the next of its timeline may be without a gap.
const contiguous = 450

// Writer adds segments to a stream. Any number of them work on one stream at
// once, in any number of processes; each is used by one goroutine at a time.
type Writer struct {
	s      *Stream
	origin Origin
	input  uint8
	sync   time.Duration

	announcer announcer
	x         *openExtent
	checked   m4f.Identity // init segment whose target duration is the stream's
	buf       []byte
	began     bool // the start event is written
	closed    bool

	syncMu   sync.Mutex // guards what follows; not held during fdatasync
	dirty    *openExtent
	syncErr  error
	timer    *time.Timer
	suspects []suspect // segments whose fdatasync has failed
}

// openExtent is an extent that a Writer is writing.
type openExtent struct {
	media, index fsx.File
	hour         hour
	name         extentName
	init         m4f.Identity
	initLength   uint32
	number       uint32 // of the next segment
	size         int64  // of the media file: the end of its last whole segment
	indexSize    int64
	last         m4f.Header

	written, durable atomic.Uint32 // segments that are whole in the files, and that a power cut spares

	mu     sync.Mutex // held during fdatasync and close
	newDir bool       // the entries in the hour's directory are not durable yet
	closed bool
}

// Writer returns a writer of segments of one origin. It holds nothing open
// until the first Append.
func (s *Stream) Writer(origin Origin, input uint8, opt WriterOptions) *Writer {
	if opt.Sync == 0 {
		opt.Sync = DefaultSync
	}
	return &Writer{s: s, origin: origin, input: input, sync: opt.Sync, announcer: announcer{s: s}}
}

// Append adds a segment. Its identity is the caller's to make or verify. When
// it returns nil, readers in every process see the segment. On an error nothing
// of the segment is visible, and the same one may be appended again: the writer
// then begins a new extent. Errors: *WriteError for the disk's, *HorizonError
// for a segment before the horizon, *TargetDurationError for a live or imported
// segment that was cut with another target duration than the stream's, ErrClosed.
//
// An error of the fdatasync that runs in the background is returned by the next
// Append, which then writes nothing. The one after it first writes once more what
// that fdatasync was to make durable.
func (w *Writer) Append(seg *m4f.Segment) error {
	if w.closed {
		return ErrClosed
	}
	if err := w.lastSyncError(); err != nil {
		w.endDoubtful()
		return w.s.writeError(err)
	}
	if err := w.rescue(); err != nil {
		var we *WriteError
		if errors.As(err, &we) {
			return err
		}
		return w.s.writeError(err)
	}
	for try := 0; ; try++ {
		if err := w.check(seg); err != nil {
			return err
		}
		err := w.append(seg)
		if err == nil {
			return nil
		}
		w.abandon()
		// Pruning may have taken the hour away meanwhile: check says so, or the
		// hour is a new one.
		if !isNotExist(err) || try == 3 {
			return w.s.writeError(err)
		}
	}
}

// endDoubtful ends the extent if an fdatasync of it has failed: no other would say
// anything of what that one was about.
func (w *Writer) endDoubtful() {
	if x := w.x; x != nil && w.doubtful(x) {
		w.x = nil
		w.forget(x)
		x.close()
	}
}

func (w *Writer) append(seg *m4f.Segment) error {
	if w.x != nil {
		gone, err := w.x.disturbed(w.s)
		if err != nil {
			return err
		}
		if gone {
			w.leave(w.x)
		}
	}
	if w.x != nil && !w.x.takes(&seg.Header) {
		if err := w.end(); err != nil {
			return err
		}
	}
	return w.put(seg)
}

// Copy adds the segment h.ID, which the archive holds, once more with h's
// flags, counts and UTC.
func (w *Writer) Copy(h m4f.Header) error {
	seg, err := w.s.ReadSegment(h.ID, h.UTC)
	if err != nil {
		return err
	}
	seg.Header.UTC, seg.Header.Flags, seg.Header.Lost, seg.Header.Errored = h.UTC, h.Flags, h.Lost, h.Errored
	return w.Append(seg)
}

func (w *Writer) check(seg *m4f.Segment) error {
	if err := checkHeader(&seg.Header); err != nil {
		return err
	}
	if seg.Header.Length != uint64(seg.Size()) || len(seg.Init) == 0 || len(seg.Init) > m4f.MaxInit {
		return errors.New("segment's header and bytes do not agree")
	}
	r, err := w.s.reach()
	if err != nil {
		return w.s.writeError(err)
	}
	if !r.has(hourOf(seg.Header.UTC)) {
		return &HorizonError{UTC: seg.Header.UTC, Horizon: r.first.start()}
	}
	if w.origin != Live && w.origin != Imported || seg.Header.Init == w.checked {
		return nil
	}
	init, err := m4f.ParseInit(seg.Init)
	if err != nil {
		return err
	}
	if err := w.s.adopt(init.TargetDuration, init.Rules); err != nil {
		return err
	}
	w.checked = seg.Header.Init
	return nil
}

// takes says whether the extent goes on with a segment: same hour, same init
// segment, next in media time, not over the 33-bit wrap.
func (x *openExtent) takes(h *m4f.Header) bool {
	end := x.last.MediaTime + int64(x.last.Duration)
	gap := h.MediaTime - end
	return hourOf(h.UTC) == x.hour && h.Init == x.init &&
		-contiguous <= gap && gap <= contiguous && h.MediaTime > x.last.MediaTime &&
		sameTimeline(h.UTC, h.MediaTime-x.last.MediaTime, x.last.UTC) &&
		x.number < maxRecordsExtent
}

// put is the numbered steps of append in the package documentation.
func (w *Writer) put(seg *m4f.Segment) error {
	h := &seg.Header
	first := w.x == nil
	if first {
		if err := w.create(h); err != nil { // 1
			return err
		}
	}
	w.noteStart(h)
	x := w.x
	r := indexRecord{
		Record: Record{Header: *h, Origin: w.origin, Input: w.input, Arrived: w.s.clock.Now().UnixMilli()},
		number: x.number, offset: x.size,
	}
	box := h.AppendBox(w.buf[:0])
	w.buf = box[:0]
	var init []byte
	if first {
		init = seg.Init
		x.init, x.initLength = h.Init, uint32(len(init))
		r.offset += int64(len(init))
	}
	if _, err := x.media.WriteBuffers(append([][]byte{init, box}, seg.Pieces()...)...); err != nil { // 2
		return err
	}
	if err := w.writeIndex(&r, first); err != nil { // 3
		return err
	}
	if w.sync == SyncAlways { // 4
		if err := x.syncAll(w.s); err != nil {
			return err
		}
	}
	if err := w.announcer.announce(change{changeKindAdd, x.hour, x.name, x.number}); err != nil { // 5
		return err
	}
	x.size, x.number, x.last = r.end(), x.number+1, *h
	x.indexSize += indexRecordSize
	x.written.Store(x.number)
	if w.sync == SyncAlways {
		x.durable.Store(x.number)
	}
	w.syncLater()
	if w.s.added != nil {
		w.s.added(&r.Record)
	}
	return nil
}

func (w *Writer) writeIndex(r *indexRecord, first bool) error {
	x := w.x
	var b []byte
	if first {
		head := indexHeader{init: x.init, initLength: x.initLength, origin: w.origin, input: w.input}
		f, err := w.s.fs.OpenFile(w.s.extentPath(x.hour, x.name, indexExt), os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, filePerm)
		if err != nil {
			return err
		}
		x.index = f
		w.s.owner.Give(f)
		b = head.append(make([]byte, 0, indexHeaderSize+indexRecordSize))
	}
	_, err := x.index.Write(r.append(b))
	if err == nil && first {
		x.indexSize = indexHeaderSize
	}
	return err
}

// create makes the extent's file, under a name that no other has.
func (w *Writer) create(h *m4f.Header) error {
	x := &openExtent{hour: hourOf(h.UTC), name: extentNameOf(h.UTC), newDir: true}
	if err := fsx.MkdirAll(w.s.fs, w.s.hourDir(x.hour), dirPerm); err != nil {
		return err
	}
	for ; ; x.name.n++ {
		f, err := fsx.OpenNew(w.s.fs, w.s.extentPath(x.hour, x.name, mediaExt), os.O_WRONLY|os.O_APPEND, filePerm, w.s.owner)
		if err == nil {
			x.media, w.x = f, x
			return nil
		}
		if !errors.Is(err, fs.ErrExist) || x.name.n >= 60000 {
			return err
		}
	}
}

// abandon ends an extent to which a write has failed: what is behind its last
// whole segment goes, as far as the disk allows, and readers pass over it where
// it does not.
func (w *Writer) abandon() {
	x := w.x
	if x == nil {
		return
	}
	w.x = nil
	w.forget(x)
	if x.index != nil {
		x.index.Truncate(x.indexSize)
	}
	x.media.Truncate(x.size)
	if w.sync != SyncOff && x.number > 0 {
		w.syncExtent(x) // its error waits for the next Append, in what it leaves in doubt
	}
	x.close()
	if x.number == 0 { // nothing was ever in it
		w.s.fs.Remove(w.s.extentPath(x.hour, x.name, indexExt))
		w.s.fs.Remove(w.s.extentPath(x.hour, x.name, mediaExt))
	}
	w.announcer.close()
	w.s.cache.doubt(x.hour)
}

// end ends the extent in an orderly way.
func (w *Writer) end() error {
	x := w.x
	if x == nil {
		return nil
	}
	w.x = nil
	var err error
	if w.forget(x) && w.sync != SyncOff {
		err = w.syncExtent(x)
	}
	if cerr := x.close(); err == nil {
		err = cerr
	}
	return err
}

// forget takes an extent from what is to be made durable later, and says
// whether it was there.
func (w *Writer) forget(x *openExtent) bool {
	w.syncMu.Lock()
	defer w.syncMu.Unlock()
	was := w.dirty == x
	if was {
		w.dirty = nil
	}
	return was
}

func (x *openExtent) close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.closed = true
	err := x.media.Close()
	if x.index != nil {
		if ierr := x.index.Close(); err == nil {
			err = ierr
		}
	}
	return err
}

// syncAll makes an extent durable: its data before its index, then their names.
// One that is closed was made durable before, or never had to be.
func (x *openExtent) syncAll(s *Stream) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return nil
	}
	written := x.written.Load()
	if err := x.media.Datasync(); err != nil {
		return err
	}
	if err := x.index.Datasync(); err != nil {
		return err
	}
	if x.newDir {
		if err := s.fs.SyncDir(s.hourDir(x.hour)); err != nil {
			return err
		}
		x.newDir = false
	}
	x.durable.Store(max(x.durable.Load(), written))
	return nil
}

// syncLater lets the timer make durable what is written by then.
func (w *Writer) syncLater() {
	if w.sync <= 0 {
		return
	}
	w.syncMu.Lock()
	defer w.syncMu.Unlock()
	if w.dirty == nil {
		w.dirty = w.x
		w.timer = time.AfterFunc(w.sync, func() { w.syncNow() }) // its error waits for the next Append
	}
}

// syncNow makes durable what is dirty. A slow disk holds up nothing but the end
// of the extent meanwhile.
func (w *Writer) syncNow() error {
	w.syncMu.Lock()
	x := w.dirty
	w.dirty = nil
	w.syncMu.Unlock()
	if x == nil {
		return nil
	}
	err := w.syncExtent(x)
	if err != nil {
		w.syncMu.Lock()
		w.syncErr = err
		w.syncMu.Unlock()
	}
	return err
}

// lastSyncError returns and forgets the error of an fdatasync in the
// background. What it concerned may be lost in a power cut, and nothing else.
func (w *Writer) lastSyncError() error {
	w.syncMu.Lock()
	defer w.syncMu.Unlock()
	err := w.syncErr
	w.syncErr = nil
	return err
}

// Sync makes everything appended so far durable, also with SyncOff.
func (w *Writer) Sync() error {
	if w.closed {
		return ErrClosed
	}
	w.syncMu.Lock()
	if w.timer != nil {
		w.timer.Stop()
	}
	w.dirty = w.x
	w.syncMu.Unlock()
	err := w.syncNow()
	if last := w.lastSyncError(); err == nil {
		err = last
	}
	if err == nil {
		err = w.rescue()
	}
	if err != nil {
		w.endDoubtful()
		return w.s.writeError(err)
	}
	return nil
}

// End ends the current extent, at a gap that the segments do not show.
func (w *Writer) End() error {
	if err := w.end(); err != nil {
		return w.s.writeError(err)
	}
	return nil
}

// Close ends the extent and makes it durable. It returns the first error of
// what was not reported yet.
func (w *Writer) Close() error {
	if w.closed {
		return nil
	}
	w.noteStop()
	err := w.end()
	w.closed = true
	if w.timer != nil {
		w.timer.Stop()
	}
	if last := w.lastSyncError(); err == nil {
		err = last
	}
	if _, doubt := w.firstSuspect(); doubt {
		err = w.rescue() // then what failed before is made good
	}
	if aerr := w.announcer.close(); err == nil {
		err = aerr
	}
	if err != nil {
		return w.s.writeError(err)
	}
	return nil
}

// noteStart writes down that a recorder runs from here on, which explains a gap
// that ends here: nothing was running.
func (w *Writer) noteStart(h *m4f.Header) {
	if w.began || w.origin != Live && w.origin != Imported {
		return
	}
	w.began = true
	w.s.report(event.Event{Time: h.UTC.Time(), Kind: event.Start, Msg: "recording started",
		Attrs: map[string]any{"origin": w.origin.String(), "input": w.input}})
}

func (w *Writer) noteStop() {
	if !w.began || w.x == nil || w.x.number == 0 {
		return
	}
	w.s.report(event.Event{Time: w.x.last.End().Time(), Kind: event.Stop, Msg: "recording stopped",
		Attrs: map[string]any{"origin": w.origin.String(), "input": w.input}})
}
