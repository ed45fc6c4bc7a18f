package serve

import (
	"errors"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// Root is a Node made of a directory of archives: it shows what they hold, and
// records nothing.
type Root struct {
	*m4fhttp.Root
	id, version string
	started     time.Time

	mu      sync.Mutex
	known   map[string]ArchiveStatus // by stream
	at      time.Time                // when all of them were summed up
	summing chan struct{}            // closed when that is done; nil: it is not being done
}

// NewRoot returns a Node of the streams below a directory.
func NewRoot(dir, nodeID, version string) *Root {
	return &Root{Root: m4fhttp.NewRoot(dir), id: nodeID, version: version, started: time.Now(), known: map[string]ArchiveStatus{}}
}

const (
	// rootEvery is how often a Root looks at all its archives at most.
	rootEvery = time.Second
	// rootWait is how long that is waited for: of large archives it takes a while
	// the first time, and is known later.
	rootWait = 2 * time.Second
)

// Status implements Node.
func (r *Root) Status() NodeStatus {
	st := NodeStatus{Node: r.id, Host: HostName(), Version: r.version, Started: r.started.UTC().Truncate(time.Millisecond), Streams: []StreamStatus{}}
	names, err := r.Streams()
	r.sumUp(names)
	st.Healthy = err == nil
	for _, name := range names {
		s := r.stream(name)
		st.Healthy = st.Healthy && s.Healthy
		st.Streams = append(st.Streams, s)
	}
	return st
}

// sumUp has the archives summed up, unless that was just done, and waits for it.
func (r *Root) sumUp(names []string) {
	r.mu.Lock()
	if age := time.Since(r.at); r.summing == nil && (age < 0 || age >= rootEvery) {
		r.summing = make(chan struct{})
		go r.sumAll(names, r.summing)
	}
	done := r.summing
	r.mu.Unlock()
	if done == nil {
		return
	}
	t := time.NewTimer(rootWait)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}

// sumAll sums the archives up, one after the other.
func (r *Root) sumAll(names []string, done chan struct{}) {
	for _, name := range names {
		s, err := r.Stream(name)
		if err != nil {
			continue // stream says why
		}
		st := ArchiveStatus{Dir: s.Archive().Dir()}
		if err := st.SumUp(s.Archive(), 0, time.Now()); err != nil {
			st.Error = err.Error()
		}
		r.mu.Lock()
		r.known[name] = st
		r.mu.Unlock()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.known, func(name string, _ ArchiveStatus) bool { return !slices.Contains(names, name) })
	r.at, r.summing = time.Now(), nil
	close(done)
}

// stream is the status of one stream, as far as its archive tells.
func (r *Root) stream(name string) StreamStatus {
	st := StreamStatus{Name: name, Problems: []string{}, Inputs: []InputStatus{}, Peers: []PeerStatus{}}
	r.mu.Lock()
	known, ok := r.known[name]
	r.mu.Unlock()
	st.Archive = known
	s, err := r.Stream(name)
	if err == nil && !ok {
		st.Archive.Dir = s.Archive().Dir()
		err = st.Archive.Ends(s.Archive(), time.Now())
	}
	if err != nil && !errors.Is(err, m4fhttp.ErrNoStream) {
		st.Archive.Error = err.Error()
	}
	if st.Archive.Error != "" {
		st.Problems = append(st.Problems, "the archive cannot be read: "+st.Archive.Error)
	}
	if u, err := archive.UsageOf(st.Archive.Dir); err == nil {
		st.Archive.DiskFree = u.Free
	}
	st.Healthy = len(st.Problems) == 0
	return st
}

// Ends fills in where an archive begins and ends.
func (st *ArchiveStatus) Ends(a *archive.Stream, now time.Time) error {
	info, err := a.Info()
	if err != nil {
		return err
	}
	if info.Horizon != 0 {
		st.Horizon = stampOf(info.Horizon)
	}
	if info.Newest != 0 {
		st.Oldest, st.Newest = stampOf(info.Oldest), stampOf(info.Newest)
		lag := now.Sub(info.Newest.Time()).Seconds()
		st.Lag, st.Reached = &lag, seconds(int64(info.Newest-info.Oldest))
	}
	return nil
}

// SumUp fills in what an archive tells of itself, from a time on. It reads all of
// it the first time.
func (st *ArchiveStatus) SumUp(a *archive.Stream, from m4f.UTC, now time.Time) error {
	if err := st.Ends(a, now); err != nil {
		return err
	}
	t, err := a.Totals(from)
	if err != nil {
		return err
	}
	st.Gaps, st.GapSeconds = t.Gaps, seconds(t.Missing)
	st.Segments, st.Bytes, st.Damaged, st.Partial = t.Segments, t.Bytes, t.Damaged, t.Partial
	st.DamagedSeconds = seconds(t.DamagedTicks)
	if t.RecentTicks > 0 {
		st.BytesPerSec = float64(t.RecentBytes) / seconds(t.RecentTicks)
	}
	kept, err := a.Kept()
	st.Kept = len(kept)
	return err
}

// stampOf is an instant as the status has it: to the millisecond.
func stampOf(u m4f.UTC) *time.Time {
	t := u.Time().UTC().Truncate(time.Millisecond)
	return &t
}

// HostName is the name of the machine, as far as it has one.
func HostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}
