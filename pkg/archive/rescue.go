package archive

import (
	"errors"
	"os"
	"syscall"

	"github.com/twindvr/twindvr/pkg/event"
)

// suspect are segments of an extent whose fdatasync has failed. The system then
// takes the pages that it could not write for clean: the next fdatasync says
// nothing of them, readers see the segments as long as their pages stay in
// memory, and after that whatever the disk holds.
type suspect struct {
	hour     hour
	name     extentName
	from, to uint32
}

// distrust notes which segments of an extent a failed fdatasync leaves in doubt.
func (w *Writer) distrust(x *openExtent) {
	sus := suspect{x.hour, x.name, x.durable.Load(), x.written.Load()}
	w.syncMu.Lock()
	defer w.syncMu.Unlock()
	for i := range w.suspects {
		if old := &w.suspects[i]; old.hour == sus.hour && old.name == sus.name {
			old.to = max(old.to, sus.to)
			return
		}
	}
	if sus.from < sus.to {
		w.suspects = append(w.suspects, sus)
	}
}

// syncExtent makes an extent durable. One for which that fails must be ended.
func (w *Writer) syncExtent(x *openExtent) error {
	err := x.syncAll(w.s)
	if err != nil {
		w.distrust(x)
	}
	return err
}

// doubtful says whether an fdatasync of the extent has failed.
func (w *Writer) doubtful(x *openExtent) bool {
	w.syncMu.Lock()
	defer w.syncMu.Unlock()
	for i := range w.suspects {
		if s := &w.suspects[i]; s.hour == x.hour && s.name == x.name {
			return true
		}
	}
	return false
}

// rescue writes the segments in doubt once more, into extents of their own and
// durably, as long as their pages are there, and sets the first copies aside. A
// segment that is bad already is set aside, and a peer heals it. What fails is
// tried again by the next call.
func (w *Writer) rescue() error {
	var again *Writer
	for {
		sus, ok := w.firstSuspect()
		if !ok {
			return nil
		}
		if again == nil {
			again = w.s.Writer(w.origin, w.input, WriterOptions{Sync: SyncAlways})
			again.began = true // the recording goes on all the time
			defer func() {
				again.end()
				again.announcer.close()
			}()
		}
		if err := w.rescueOne(again, sus.hour, sus.name, sus.from); err != nil {
			return err
		}
		w.syncMu.Lock()
		w.suspects[0].from++
		w.syncMu.Unlock()
	}
}

// firstSuspect is the extent with segments in doubt that came first.
func (w *Writer) firstSuspect() (suspect, bool) {
	w.syncMu.Lock()
	defer w.syncMu.Unlock()
	for len(w.suspects) > 0 && w.suspects[0].from >= w.suspects[0].to {
		w.suspects = w.suspects[1:]
	}
	if len(w.suspects) == 0 {
		return suspect{}, false
	}
	return w.suspects[0], true
}

func (w *Writer) rescueOne(again *Writer, h hour, name extentName, number uint32) error {
	x, err := w.s.loadExtent(h, name)
	if err != nil {
		return err
	}
	for i := range x.records {
		r := &x.records[i]
		if r.number != number {
			continue
		}
		m, err := w.s.openAt(&r.Record, location{h, name, number, x.initLen, r.offset})
		if err != nil {
			return goneOr(err)
		}
		seg, err := m.Read()
		m.Close()
		if err != nil {
			return goneOr(err)
		}
		var old *HorizonError
		if err := again.Append(seg); errors.As(err, &old) {
			return nil
		} else if err != nil {
			return err
		}
		return w.s.setAside(h, name, number)
	}
	return nil // it has been pruned, or set aside
}

// goneOr is nil for a segment that is bad: whoever reads it sets it aside.
func goneOr(err error) error {
	var corrupt *CorruptError
	if errors.As(err, &corrupt) || errors.Is(err, ErrNoSegment) {
		return nil
	}
	return err
}

// disturbed says whether the extent's files are not what they were when the last
// segment was added: cut, deleted, written to by something else, or no longer the
// ones of their names, as behind a volume that was mounted over them.
func (x *openExtent) disturbed(s *Stream) (bool, error) {
	st, err := x.media.Stat()
	if err != nil || st.Size() != x.size {
		return true, nil
	}
	named, err := s.fs.Stat(s.extentPath(x.hour, x.name, mediaExt))
	if isNotExist(err) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if !os.SameFile(st, named) {
		return true, nil
	}
	if x.index == nil {
		return false, nil
	}
	st, err = x.index.Stat()
	if err != nil || st.Size() != x.indexSize {
		return true, nil
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && sys.Nlink == 0, nil
}

// leave ends an extent whose files are not what they were. What is missing is
// told to everybody, so that peers heal it.
func (w *Writer) leave(last *openExtent) {
	w.x = nil
	w.forget(last)
	last.close()
	w.s.report(event.Event{Time: last.last.End().Time(), Kind: event.Corrupt,
		Msg:   "a file of the archive was cut or deleted while it was being written",
		Attrs: map[string]any{"file": last.hour.dir() + "/" + last.name.String() + mediaExt}})
	w.s.announceHour(last.hour, last.name)
}
