package replicate

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// pendingRecord is a record that the peer has listed and that is looked at when it
// is due.
type pendingRecord struct {
	archive.Record
	listed, due time.Time
	tries       int
	missed      bool // it was found by comparison
}

// lane is a queue of listed records that are looked at one after the other.
type lane struct {
	pending pendingHeap
	working int           // records that are being looked at
	grown   chan struct{} // capacity 1: there is something to look at
}

// lanes are for records that are looked at for the first time, and for those that
// could not be had then: what a peer does not give holds up nothing that it
// lists later.
type lanes [2]lane

const (
	firstLane = iota
	againLane
)

// hungAfter is how long a segment that is asked for the first time may bring
// nothing until those behind it go ahead of it.
const hungAfter = time.Second

func newLanes() (ls lanes) {
	for i := range ls {
		ls[i].grown = make(chan struct{}, 1)
	}
	return ls
}

// count is how many records wait.
func (ls *lanes) count() int { return len(ls[firstLane].pending) + len(ls[againLane].pending) }

// pushLocked puts a record into its lane. Callers hold mu.
func (f *Follower) pushLocked(p pendingRecord) {
	if f.lanes.count() >= maxPending {
		f.dropped()
		return
	}
	l := &f.lanes[min(p.tries, againLane)]
	heap.Push(&l.pending, p)
	signal(l.grown)
}

// dropped notes that something listed was left to reconciliation. Callers hold
// mu.
func (f *Follower) dropped() {
	f.lost = true
	signal(f.lanes[firstLane].grown)
}

// pop takes the records that are due, some at a time, and says when the next
// is.
func (f *Follower) pop(l *lane) (due []pendingRecord, next time.Duration) {
	now := f.Clock.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { l.working = len(due) }()
	for len(l.pending) > 0 && len(due) < 256 {
		if wait := l.pending[0].due.Sub(now); wait > 0 {
			return due, wait
		}
		due = append(due, heap.Pop(&l.pending).(pendingRecord))
	}
	return due, time.Hour
}

// work looks at the records of a lane as they become due.
func (f *Follower) work(ctx context.Context, l *lane) (err error) {
	sink := newSink(f.dst, f.Writer)
	defer func() { err = errors.Join(err, sink.close()) }()
	for {
		due, next := f.pop(l)
		if len(due) > 0 {
			f.takeDue(ctx, l, sink, due)
			if err := ctx.Err(); err != nil {
				return err
			}
			continue
		}
		if l == &f.lanes[firstLane] {
			next = min(next, f.rested())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.grown:
		case <-f.Clock.After(next):
		}
	}
}

const (
	// maxTries is how often a listed segment is tried for; after that it is
	// left to reconciliation.
	maxTries = 10
	againIn  = time.Second
	// mostAgainIn is the longest pause between two tries.
	mostAgainIn = 15 * time.Second
)

// takeDue fetches what the view would take of some records. What fails for now
// comes back later, and where the archive cannot be written the rest with it.
func (f *Follower) takeDue(ctx context.Context, l *lane, sink *sink, due []pendingRecord) {
	if due = f.postpone(due); len(due) == 0 {
		return
	}
	if wait := f.room(); wait > 0 {
		f.hold(due, wait)
		return
	}
	slices.SortStableFunc(due, func(a, b pendingRecord) int { return cmp.Compare(a.UTC, b.UTC) })
	wants, err := f.wants(sink, due)
	if err != nil {
		f.writeFailed(err)
		for i := range due {
			f.again(&due[i])
		}
		return
	}
	pending := map[occurrence]*pendingRecord{}
	for i := range due {
		pending[occurrence{due[i].ID, due[i].UTC}] = &due[i]
	}
	overdue := func(w *archive.Want, sign int64) {
		if p := pending[occurrence{w.ID, w.UTC}]; p != nil && p.missed && !w.Local {
			f.mu.Lock()
			f.overdue += sign * int64(w.Length)
			f.mu.Unlock()
		}
	}
	for i := range wants {
		overdue(&wants[i], 1)
	}
	done := 0
	get := fetcher{src: f.peer, jobs: f.Jobs, share: f.Share, dst: f.dst}
	if l == &f.lanes[firstLane] {
		get.patience = hungAfter
		defer f.Share.hurry()()
	}
	get.get(ctx, wants, func(got fetched) bool {
		if ctx.Err() != nil {
			return false
		}
		if got.gone {
			// Another peer was faster.
		} else if got.err == nil {
			if err := sink.put(&got.want, got.seg); err != nil {
				f.Share.failed(err)
				f.writeFailed(bare(err))
				return false
			}
			f.Share.wrote()
			f.taken(&got.want)
		} else if later(got.err) {
			f.again(pending[occurrence{got.want.ID, got.want.UTC}])
		} else {
			f.Log.Warn("could not get a segment", "peer", f.peer.String(), "segment", got.want.ID, "start", m4fhttp.Time(got.want.UTC), "err", got.err)
		}
		overdue(&got.want, -1)
		done++
		return true
	})
	for _, w := range wants[done:] {
		overdue(&w, -1)
		f.again(pending[occurrence{w.ID, w.UTC}])
	}
}

// later says whether what failed may go well in a while.
func later(err error) bool {
	return transient(err) || errors.Is(err, m4fhttp.ErrSilent) || errors.Is(err, errHung) || m4fhttp.StatusOf(err) >= http.StatusInternalServerError
}

// hold puts records back until the archive can be written.
func (f *Follower) hold(due []pendingRecord, wait time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := f.Clock.Now().Add(wait)
	for _, p := range due {
		p.due = at
		f.pushLocked(p)
	}
}

// again puts a record back for later; one that is not known is left to
// reconciliation.
func (f *Follower) again(p *pendingRecord) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p == nil || p.tries+1 >= maxTries {
		f.dropped()
		return
	}
	wait := fullAgainIn
	if f.stats.WriteErr == nil {
		wait = min(againIn<<p.tries, mostAgainIn)
		p.tries++
	}
	p.due = f.Clock.Now().Add(wait)
	f.pushLocked(*p)
}

// pendingHeap is a container/heap of records by the time at which they are due.
type pendingHeap []pendingRecord

func (h pendingHeap) Len() int           { return len(h) }
func (h pendingHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h pendingHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *pendingHeap) Push(x any)        { *h = append(*h, x.(pendingRecord)) }
func (h *pendingHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = pendingRecord{}
	*h = old[:len(old)-1]
	return x
}
