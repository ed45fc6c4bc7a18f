package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/salvage"
	"github.com/twindvr/twindvr/pkg/serve"
)

const (
	// salvageQueued copies of one source wait for a slow disk; the next is
	// dropped.
	salvageQueued = 4
	// salvageMemory bounds the bytes of all copies of a node that wait.
	salvageMemory = 64 << 20
	// salvageDrain is how long the copies that wait may take at the end.
	salvageDrain = time.Second
	// expireEvery is how often salvage that is of no more use is dropped.
	expireEvery = time.Minute
	// healedFor is how long the copy of a segment that has been healed is kept: a
	// peer may be about to heal its own with it.
	healedFor = time.Minute
	// tellDropped is how often it is told that copies are dropped.
	tellDropped = time.Minute
)

// keptSalvage is what a stream keeps of the packets of its damaged and partial
// segments. Nothing here ever holds up recording: what the disk does not take in
// time, or at all, is dropped.
type keptSalvage struct {
	dropped atomic.Int64 // copies
	kept    atomic.Int64 // copies

	mu   sync.Mutex
	err  error // why nothing can be kept
	told time.Time
}

// salvageWaiting counts the bytes of all copies of the process that wait.
var salvageWaiting atomic.Int64

// salvageRun takes what one run of a source's segmenter hands out, and writes it
// on a goroutine of its own.
type salvageRun struct {
	s     *stream
	run   *salvage.Run
	queue chan heldSalvage
	done  chan struct{}
}

// heldSalvage is a copy that waits, in memory of the segmenter.
type heldSalvage struct {
	*salvage.Kept
	release func()
}

// newSalvageRun begins a run; nil where the stream keeps no salvage.
func newSalvageRun(s *stream) *salvageRun {
	if s.cfg.Salvage.Off {
		return nil
	}
	r := &salvageRun{
		s: s, run: s.archive().Salvage().NewRun(),
		queue: make(chan heldSalvage, salvageQueued), done: make(chan struct{}),
	}
	go r.write()
	return r
}

// hook is segment.Config.Salvage.
func (r *salvageRun) hook() func(*salvage.Kept) {
	if r == nil {
		return nil
	}
	return r.take
}

// take hands over a copy, whose packets stay where they are until it is written.
func (r *salvageRun) take(k *salvage.Kept) {
	n := int64(k.Size())
	room := len(r.queue) < cap(r.queue)
	if !room || salvageWaiting.Add(n) > salvageMemory {
		if room {
			salvageWaiting.Add(-n)
		}
		r.s.dropSalvage()
		return
	}
	own := *k
	own.Holes = append([]salvage.Hole(nil), k.Holes...)
	r.queue <- heldSalvage{&own, k.Hold()} // there is room: nobody else sends
}

// close ends the run; the copies that wait are written, for a bounded time.
func (r *salvageRun) close() {
	if r == nil {
		return
	}
	close(r.queue)
	select {
	case <-r.done:
	case <-time.After(salvageDrain):
	}
}

func (r *salvageRun) write() {
	defer close(r.done)
	for k := range r.queue {
		r.s.keepSalvage(r.run, k.Kept)
		salvageWaiting.Add(-int64(k.Size()))
		k.release()
	}
}

// keepSalvage writes a copy unless its segment has been healed already, or the
// archive has more need of the disk.
func (s *stream) keepSalvage(run *salvage.Run, k *salvage.Kept) {
	if healed, err := s.archive().Healed(&k.Header); err == nil && healed {
		return
	}
	if s.diskIsShort() {
		s.dropSalvage()
		return
	}
	_, err := run.Keep(k)
	s.salvageWrote(err)
	if err != nil {
		s.salv.dropped.Add(1)
		return
	}
	s.salv.kept.Add(1)
	s.salvageKept()
}

// dropSalvage counts a copy that is not kept.
func (s *stream) dropSalvage() {
	n := s.salv.dropped.Add(1)
	now := s.node.now()
	s.salv.mu.Lock()
	due := now.Sub(s.salv.told) > tellDropped
	if due {
		s.salv.told = now
	}
	s.salv.mu.Unlock()
	if due {
		s.log.Warn("packets of damaged segments are not kept: the disk is too slow or too full; the segments can be healed from a peer's alone", "dropped", n)
	}
}

// salvageWrote takes the outcome of keeping, and tells when it changes.
func (s *stream) salvageWrote(err error) {
	if errors.Is(err, fs.ErrNotExist) {
		return // the archive is gone: see keeper
	}
	s.salv.mu.Lock()
	was := s.salv.err
	s.salv.err = err
	s.salv.mu.Unlock()
	switch {
	case err != nil && was == nil:
		s.log.Warn("packets of damaged segments cannot be kept; recording goes on", "err", err)
		s.note(event.Event{Kind: event.Disk, Msg: fmt.Sprintf("packets of damaged segments could not be kept: %v", err)})
	case err == nil && was != nil:
		s.log.Info("packets of damaged segments are kept again")
	}
}

// diskIsShort says whether the archive needs what is left of the disk: it
// cannot be written, or half of what is to be left free is used up.
func (s *stream) diskIsShort() bool {
	s.mu.Lock()
	disk := s.disk
	s.mu.Unlock()
	return disk != nil || s.shortOf() > 0
}

// shortOf is how many bytes more are to be free before salvage may take any:
// half of what is to stay free on the volume.
func (s *stream) shortOf() int64 {
	u, err := archive.UsageOf(s.cfg.DVR.Dir)
	if err != nil {
		return 0 // writing says why
	}
	opt := volumeOptions(s.node.vols.free(), u)
	least := max(opt.MinFree, int64(float64(u.Total)*float64(opt.MinFreePercent)/100))
	return least/2 - u.Free
}

// minFree is what the configuration wants free on every volume; last while a
// reload is under way.
func (n *Node) minFree(last config.Free) config.Free {
	if !n.reload.TryLock() {
		return last
	}
	defer n.reload.Unlock()
	return n.cfg.MinFree
}

// roomAtOnce is how much salvage makes room at least where the archive found none
// on its volume, each time that it is looked at.
const roomAtOnce = 4 << 20

// expirer drops the salvage of a stream that is of no more use: healed, too
// old, too much; the oldest of it where the archive needs the disk.
type expirer struct{ s *stream }

func (x *expirer) String() string { return "salvage of " + x.s.cfg.Name }

// Serve implements suture.Service.
func (x *expirer) Serve(ctx context.Context) error {
	told := ""
	for {
		left, err := x.s.expireSalvage()
		switch {
		case err == nil:
			told = ""
		case !errors.Is(err, fs.ErrNotExist) && told != err.Error():
			told = err.Error()
			x.s.log.Warn("packets that are no longer needed cannot be removed", "err", err)
		}
		if left.Over+left.Aged > 0 {
			x.s.log.Debug("packets of damaged segments were dropped unhealed", "too_many", left.Over, "too_old", left.Aged)
		}
		if !x.s.node.pause(ctx, expireEvery) {
			return ctx.Err()
		}
	}
}

// expireSalvage looks at the stream's salvage once.
func (s *stream) expireSalvage() (salvage.Expired, error) {
	a := s.archive()
	store := a.Salvage()
	limits := salvage.Limits{Bytes: s.cfg.Salvage.Bytes, Age: s.cfg.Salvage.Age}
	s.mu.Lock()
	disk := s.disk
	s.mu.Unlock()
	var full *archive.WriteError
	limits.Room = max(s.shortOf(), 0)
	if errors.As(disk, &full) && full.Full() {
		// The youngest goes last: it is what peers have not asked for yet.
		limits.Room = max(limits.Room, roomAtOnce)
		if u, err := store.Usage(); err == nil {
			limits.Room = max(limits.Room, u.Bytes/8)
		}
	}
	now := store.Now()
	return store.Expire(now, limits, func(e *salvage.Entry) bool {
		return now.Sub(e.Kept).Abs() > healedFor && healed(a, e)
	})
}

// healed says whether nothing can improve any more on what an entry is for.
func healed(a *archive.Stream, e *salvage.Entry) bool {
	for i := range e.Segments {
		if ok, err := a.Healed(&e.Segments[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

// salvageStatus is what the API says of the stream's salvage.
func (s *stream) salvageStatus() serve.SalvageStatus {
	st := serve.SalvageStatus{
		Limit: s.cfg.Salvage.Bytes, Age: s.cfg.Salvage.Age.Seconds(),
		Kept: s.salv.kept.Load(), Dropped: s.salv.dropped.Load(),
	}
	s.salv.mu.Lock()
	if s.salv.err != nil {
		st.Error = s.salv.err.Error()
	}
	s.salv.mu.Unlock()
	a := s.archive()
	if a == nil {
		return st
	}
	u, err := a.Salvage().Usage()
	if err != nil && st.Error == "" {
		st.Error = err.Error()
	}
	st.Entries, st.Bytes = u.Entries, u.Bytes
	return st
}
