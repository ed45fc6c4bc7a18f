package serve

import (
	"errors"
	"os"
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

	mu   sync.Mutex
	last NodeStatus
	at   time.Time
}

// NewRoot returns a Node of the streams below a directory.
func NewRoot(dir, nodeID, version string) *Root {
	return &Root{Root: m4fhttp.NewRoot(dir), id: nodeID, version: version, started: time.Now()}
}

// rootEvery is how often a Root looks at all its archives at most.
const rootEvery = time.Second

// Status implements Node.
func (r *Root) Status() NodeStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if age := now.Sub(r.at); age >= 0 && age < rootEvery {
		return r.last
	}
	st := NodeStatus{Node: r.id, Host: HostName(), Version: r.version, Started: r.started.UTC().Truncate(time.Millisecond), Healthy: true, Streams: []StreamStatus{}}
	names, err := r.Streams()
	for _, name := range names {
		s := r.stream(name, now)
		st.Healthy = st.Healthy && s.Healthy
		st.Streams = append(st.Streams, s)
	}
	st.Healthy = st.Healthy && err == nil
	r.last, r.at = st, now
	return st
}

// stream is the status of one stream, as far as its archive tells.
func (r *Root) stream(name string, now time.Time) StreamStatus {
	st := StreamStatus{Name: name, Problems: []string{}, Inputs: []InputStatus{}, Peers: []PeerStatus{}}
	s, err := r.Stream(name)
	if err == nil {
		st.Archive.Dir = s.Archive().Dir()
		err = st.Archive.SumUp(s.Archive(), 0, now)
	}
	if err != nil && !errors.Is(err, m4fhttp.ErrNoStream) {
		st.Archive.Error = err.Error()
		st.Problems = append(st.Problems, "the archive cannot be read: "+err.Error())
	}
	if u, err := archive.UsageOf(st.Archive.Dir); err == nil {
		st.Archive.DiskFree = u.Free
	}
	st.Healthy = len(st.Problems) == 0
	return st
}

// SumUp fills in what an archive tells of itself, from a time on.
func (st *ArchiveStatus) SumUp(a *archive.Stream, from m4f.UTC, now time.Time) error {
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
