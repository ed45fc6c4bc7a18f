package node

import (
	"fmt"
	"syscall"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/serve"
)

// archiveEvery is how often the archive is summed up at most.
const archiveEvery = time.Second

// cachedArchive is a summary of the archive and when it was made.
type cachedArchive struct {
	at     time.Time
	status serve.ArchiveStatus
}

// status is what the API says of the stream.
func (s *stream) status() serve.StreamStatus {
	now := time.Now()
	s.mu.Lock()
	retired, disk := s.retired, s.disk
	s.mu.Unlock()
	mode, _ := s.ctl.modeNow()
	st := serve.StreamStatus{Name: s.cfg.Name, Mode: mode, Retired: retired, Problems: []string{}, Inputs: []serve.InputStatus{}, Peers: []serve.PeerStatus{}}
	st.Archive = s.archiveStatus(now)
	if disk != nil {
		st.Archive.Error = disk.Error()
	}
	if retired {
		st.Healthy, st.Mode = true, ""
		return st
	}
	active := s.ctl.activeInput()
	for i := range s.cfg.Inputs {
		var in serve.InputStatus
		if s.sources[i] != nil {
			in = s.sources[i].status()
		} else {
			in = s.links[i].inputStatus(now)
		}
		in.Active = i == active
		if i > 0 && s.sources[i] != nil {
			in.Standby = s.cfg.Inputs[i].Standby.String()
		}
		st.Inputs = append(st.Inputs, in)
	}
	reached := 0
	for _, l := range append(append([]*link{}, s.links...), s.mirrors...) {
		if l == nil {
			continue
		}
		st.Peers = append(st.Peers, l.peerStatus(now))
		if l.replicate && l.reachable() {
			reached++
		}
	}
	st.Unreplicated = len(s.replicas()) > 0 && reached == 0
	st.Problems = s.problems(&st)
	st.Healthy = len(st.Problems) == 0
	return st
}

// problems says in sentences why a stream is not healthy.
func (s *stream) problems(st *serve.StreamStatus) []string {
	out := []string{}
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if st.Archive.Error != "" {
		add("the archive cannot be written: %s", st.Archive.Error)
	}
	switch st.Mode {
	case serve.Offline:
		add("no input works")
	case serve.Emergency:
		add("%s", firstInput(&st.Inputs[0], s.cfg.Inputs[0].ReturnAfter))
	}
	if st.Unreplicated {
		for _, p := range st.Peers {
			if p.Replicates {
				add("the peer %s is out of reach: %s", p.URL, p.Error)
			}
		}
	}
	for _, in := range st.Inputs {
		if in.ClockError != 0 {
			add("the clock of this node and that of a peer differ by %.1f s", in.ClockError)
		}
	}
	return out
}

// firstInput says why the first input is not the one in use.
func firstInput(in *serve.InputStatus, returnAfter time.Duration) string {
	switch {
	case in.State == stateGood:
		return fmt.Sprintf("the first input, %s, works again and is taken back when it has for %v", in.URL, returnAfter)
	case in.Error != "":
		return fmt.Sprintf("the first input, %s, does not work: %s", in.URL, in.Error)
	}
	return fmt.Sprintf("the first input, %s, does not work: it is %s", in.URL, in.State)
}

func (c *source) status() serve.InputStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	total := addStats(c.base, c.stats)
	in := serve.InputStatus{
		URL: c.url(), State: c.state,
		Packets: total.Packets, Lost: total.Lost, Errored: total.Errored, Segments: total.Segments, Damaged: total.Damaged,
		Bytes: int64(c.ioBase.Bytes + c.io.Bytes), Dropped: int64(c.ioBase.Dropped + c.io.Dropped),
		Reconnects: max(c.opens-1, 0), ClockError: m4f.Duration(c.stats.Disagreement).Seconds(),
		Since: stamp(c.goodFrom), LastData: stamp(c.heard), LastSeg: stamp(c.lastSeg),
	}
	if c.err != nil {
		in.Error = c.err.Error()
	}
	return in
}

func stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC().Truncate(time.Millisecond)
	return &t
}

// state is the state of a peer as an input.
func (l *link) state(now time.Time) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.why(now) == "":
		return stateGood
	case l.status == nil && l.err == nil:
		return stateWaiting
	case l.status == nil:
		return stateFailed
	}
	return stateSilent
}

func (l *link) inputStatus(now time.Time) serve.InputStatus {
	state := l.state(now)
	st, _ := l.stats()
	l.mu.Lock()
	defer l.mu.Unlock()
	return serve.InputStatus{
		URL: l.url(), State: state, Error: l.why(now), Since: stamp(l.goodFrom), LastData: stamp(l.lastGood),
		Bytes: st.Bytes, Segments: st.Segments,
	}
}

// peerStatus is the link as a peer that is followed.
func (l *link) peerStatus(now time.Time) serve.PeerStatus {
	st, _ := l.stats()
	p := serve.PeerStatus{
		URL: l.url(), Reachable: st.Connected, Replicates: l.replicate, Heard: stamp(st.Heard),
		Pending: st.Pending, Lag: st.Lag.Seconds(), Reconciling: st.Reconciling, Backlog: st.Backlog,
		Segments: st.Segments, Copied: st.Copied, Bytes: st.Bytes, Unfilled: st.Left,
	}
	if st.Err != nil && !st.Connected {
		p.Error = st.Err.Error()
	} else if !st.Connected {
		p.Error = "it has not been reached yet"
	}
	if st.Status != nil {
		p.Mode = st.Status.Mode
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client != nil {
		p.TrafficIn, p.TrafficOut = l.client.Traffic()
	}
	if d := now.Sub(l.rateAt); d >= time.Second {
		r := float64(st.Bytes-l.rateBytes) / d.Seconds()
		if l.rateAt.IsZero() || l.rate == 0 {
			l.rate = r
		} else {
			l.rate += (r - l.rate) / 4
		}
		l.rateAt, l.rateBytes = now, st.Bytes
	}
	if st.Reconciling && st.Backlog > 0 && l.rate > 0 {
		eta := float64(st.Backlog) / l.rate
		p.ETA = &eta
	}
	return p
}

// holes says whether the archive has gaps or damage within its depth.
func (s *stream) holes() bool {
	st := s.archiveStatus(time.Now())
	return st.Gaps+st.Damaged > 0
}

// archiveStatus sums the archive up; the result is kept for some seconds.
func (s *stream) archiveStatus(now time.Time) serve.ArchiveStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.cache.at) < archiveEvery {
		return s.cache.status
	}
	st := serve.ArchiveStatus{Dir: s.cfg.DVR.Dir, Depth: s.cfg.DVR.Depth.Seconds()}
	if err := s.sumUp(&st, now); err != nil {
		st.Error = err.Error()
	}
	s.cache = cachedArchive{now, st}
	return st
}

// sumUp fills in what the archive says; s.mu is held.
func (s *stream) sumUp(st *serve.ArchiveStatus, now time.Time) error {
	if s.arc == nil {
		if s.openErr != nil {
			return s.openErr
		}
		return fmt.Errorf("it is not open yet")
	}
	info, err := s.arc.Info()
	if err != nil {
		return err
	}
	if info.Horizon != 0 {
		t := info.Horizon.Time()
		st.Horizon = stamp(t)
	}
	if info.Newest != 0 {
		st.Oldest, st.Newest = stamp(info.Oldest.Time()), stamp(info.Newest.Time())
		lag := now.Sub(info.Newest.Time()).Seconds()
		st.Lag = &lag
	}
	from := m4f.UTCOf(now.Add(-s.cfg.DVR.Depth))
	gaps, err := s.arc.Gaps(from, 0)
	if err != nil {
		return err
	}
	st.Gaps = len(gaps)
	for _, g := range gaps {
		st.GapSeconds += m4f.Duration(int64(g.To - g.From)).Seconds()
	}
	hours, err := s.arc.Hours(from, 0)
	if err != nil {
		return err
	}
	for _, h := range hours {
		st.Segments += h.Segments
		st.Bytes += h.Bytes
		st.Damaged += h.Damaged
		st.Partial += h.Partial
	}
	recent, err := s.arc.Coverage(m4f.UTCOf(now.Add(-time.Hour)), 0)
	if err != nil {
		return err
	}
	var bytes int64
	var span time.Duration
	for _, iv := range recent {
		bytes += iv.Bytes
		span += m4f.Duration(int64(iv.To - iv.From))
	}
	if span > 0 {
		st.BytesPerSec = float64(bytes) / span.Seconds()
	}
	s.diskStatus(st, info.Oldest, now)
	return nil
}

// diskStatus says how long the volume lasts, as long as the depth is not reached.
func (s *stream) diskStatus(st *serve.ArchiveStatus, oldest m4f.UTC, now time.Time) {
	var fs syscall.Statfs_t
	if syscall.Statfs(s.cfg.DVR.Dir, &fs) != nil {
		return
	}
	st.DiskFree = int64(fs.Bavail) * int64(fs.Bsize)
	if st.BytesPerSec <= 0 || oldest == 0 {
		return
	}
	missing := s.cfg.DVR.Depth - now.Sub(oldest.Time())
	days := float64(st.DiskFree) / st.BytesPerSec / 86400
	if missing > 0 && days*24 < missing.Hours() {
		st.DaysUntilFull = &days
	}
}
