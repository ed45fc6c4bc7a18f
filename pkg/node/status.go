package node

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/serve"
)

const (
	// archiveEvery is how often the archive is summed up at most.
	archiveEvery = time.Second
	// archiveSeldom is how often it is at least, where that takes long.
	archiveSeldom = 5 * time.Second
	// archiveDead is how long the first summary may take to read anything, or a
	// segment to be written, until the disk is said not to do it.
	archiveDead = 10 * time.Second
	// summing is how many archives of a node are summed up at once; one that waits
	// for longer than turnWithin, for the sake of disks that hang, does not wait any
	// more.
	summing    = 2
	turnWithin = 2 * time.Second
	// archiveWait is how long a summary is waited for; then the one before
	// must do. A disk that hangs holds up nobody who asks.
	archiveWait = 500 * time.Millisecond
)

// summary is the last summary of the archive.
type summary struct {
	mu     sync.Mutex
	at     time.Time // when it was made; zero: there is none yet
	took   time.Duration
	status serve.ArchiveStatus
	done   chan struct{} // of the one being made; nil: none is
	began  time.Time     // when that began to read; zero: it waits for its turn
}

// every is how long the summary is good: one that takes long is made less often.
func (c *summary) every() time.Duration { return min(max(archiveEvery, 10*c.took), archiveSeldom) }

// status is what the API says of the stream.
func (s *stream) status() serve.StreamStatus {
	now := s.node.now()
	s.mu.Lock()
	retired, disk := s.retired, s.disk
	s.mu.Unlock()
	mode, _ := s.ctl.modeNow()
	st := serve.StreamStatus{Name: s.cfg.Name, Mode: mode, Retired: retired, Problems: []string{}, Inputs: []serve.InputStatus{}, Peers: []serve.PeerStatus{}}
	st.Archive = s.archiveStatus(now)
	st.Archive.Verify = s.verifyStatus()
	if disk == nil {
		disk = s.replicaError()
	}
	if disk != nil {
		st.Archive.Error = disk.Error()
	}
	st.Backfill = s.asked.status()
	if retired {
		st.Mode = ""
		if st.Archive.Error != "" {
			st.Problems = append(st.Problems, "the archive cannot be used: "+st.Archive.Error)
		}
		st.Healthy = len(st.Problems) == 0
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
		p := l.peerStatus(now)
		if rate := st.Archive.BytesPerSec; rate > 0 {
			p.BacklogSeconds = float64(p.Backlog) / rate
		}
		st.Peers = append(st.Peers, p)
		if l.replicate && l.reachable() {
			reached++
		}
	}
	st.Unreplicated = len(s.replicas()) > 0 && reached == 0
	st.Problems = s.problems(&st)
	st.Healthy = len(st.Problems) == 0
	return st
}

// replicaError is why the archive does not take what is fetched from peers.
func (s *stream) replicaError() error {
	for _, l := range append(append([]*link{}, s.links...), s.mirrors...) {
		if l == nil {
			continue
		}
		if st, ok := l.stats(); ok && st.WriteErr != nil {
			return st.WriteErr
		}
	}
	return nil
}

// problems says in sentences why a stream is not healthy.
func (s *stream) problems(st *serve.StreamStatus) []string {
	out := []string{}
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if st.Archive.Error != "" {
		add("the archive cannot be written: %s", st.Archive.Error)
	}
	if hangs := s.hangs(); hangs > 0 && st.Archive.Error == "" {
		add("the disk has not taken a segment for %v", hangs.Truncate(time.Second))
	} else if late := s.late(st); late > 0 && st.Mode != serve.Offline {
		add("nothing has been recorded for %v%s", late.Truncate(time.Second), whyNothing(st.Inputs))
	}
	switch st.Mode {
	case serve.Offline:
		add("no input works")
		for _, in := range st.Inputs {
			if in.Error != "" {
				add("the input %s: %s", in.Name(), in.Error)
			} else {
				add("the input %s is %s", in.Name(), in.State)
			}
		}
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

// took notes that the archive has a segment.
func (s *stream) took(h *m4f.Header) {
	end := int64(h.End())
	for last := s.newest.Load(); end > last && !s.newest.CompareAndSwap(last, end); last = s.newest.Load() {
	}
}

// hangs is for how long the disk has not taken a segment, where that is too long;
// else 0.
func (s *stream) hangs() time.Duration {
	since := s.writing.Load()
	if since == 0 {
		return 0
	}
	if d := s.node.since(time.Unix(0, since)); d >= archiveDead {
		return d
	}
	return 0
}

// late is for how long nothing has come to the archive, where that is longer
// than a segment can take; else 0.
func (s *stream) late(st *serve.StreamStatus) time.Duration {
	last := s.began
	if n := st.Archive.Newest; n != nil && n.After(last) {
		last = *n
	}
	if n := m4f.UTC(s.newest.Load()).Time(); n.After(last) { // the summary may be old, or missing
		last = n
	}
	d := s.node.since(last)
	if d < 6*s.cfg.SegmentDuration+15*time.Second {
		return 0
	}
	return d
}

// whyNothing says why an input that delivers gives no segment, where it is known.
func whyNothing(inputs []serve.InputStatus) string {
	for _, in := range inputs {
		if in.State == stateGood && in.Error != "" {
			return fmt.Sprintf(": %s: %s", in.Name(), in.Error)
		}
	}
	return ""
}

// firstInput says why the first input is not the one in use.
func firstInput(in *serve.InputStatus, returnAfter time.Duration) string {
	switch {
	case in.State == stateGood:
		return fmt.Sprintf("the first input, %s, works again and is taken back when it has for %v", in.Name(), returnAfter)
	case in.Error != "":
		return fmt.Sprintf("the first input, %s, does not work: %s", in.Name(), in.Error)
	}
	return fmt.Sprintf("the first input, %s, does not work: it is %s", in.Name(), in.State)
}

func (c *source) status() serve.InputStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	total, io := addStats(c.base, c.stats), addIO(c.ioBase, c.io)
	in := serve.InputStatus{
		URL: c.url(), State: c.state, Program: c.in.Program,
		Packets: total.Packets, Lost: total.Lost, Errored: total.Errored, Segments: total.Segments, Damaged: total.Damaged,
		Datagrams: int64(io.Packets), Bytes: int64(io.Bytes), Dropped: int64(io.Dropped), Truncated: int64(io.Truncated),
		DatagramsLost: int64(io.Lost), Reordered: int64(io.Reordered), Duplicates: int64(io.Duplicates),
		Recovered: int64(io.Recovered), Errors: int64(io.Errors),
		Unwritten:  c.unwritten.Load(),
		Reconnects: max(c.opens-1, 0) + int64(io.Reconnects), ClockError: m4f.Duration(c.stats.Disagreement).Seconds(),
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
		Mended: st.Mended, MendPackets: st.MendPackets, MendBytes: st.MendBytes,
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
	p.ClockOffset = l.clock.seconds()
	if st.Bytes < l.rateBytes { // the connection has begun anew
		l.rateAt, l.rateBytes = now, st.Bytes
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

// holes says whether the archive has gaps within its depth.
func (s *stream) holes() bool { return s.archiveStatus(s.node.now()).Gaps > 0 }

// archiveStatus returns the summary of the archive, a second old at most unless
// the disk is slow.
func (s *stream) archiveStatus(now time.Time) serve.ArchiveStatus {
	c := &s.sum
	c.mu.Lock()
	if !c.at.IsZero() && now.Sub(c.at) < c.every() {
		defer c.mu.Unlock()
		return c.status
	}
	if c.done == nil {
		c.done = make(chan struct{})
		go s.summarise(c.done)
	}
	done := c.done
	c.mu.Unlock()
	t := time.NewTimer(archiveWait)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.at.IsZero() || c.status.Dir != "" {
		return c.status
	}
	st := s.emptyStatus()
	if !c.began.IsZero() && time.Since(c.began) > archiveDead {
		st.Error = "its disk does not answer"
	}
	return st
}

// emptyStatus is what is known of an archive that is not open.
func (s *stream) emptyStatus() serve.ArchiveStatus {
	return serve.ArchiveStatus{Dir: s.cfg.DVR.Dir, Depth: s.cfg.DVR.Depth.Seconds()}
}

// summarise makes a summary. The first one of a large archive takes a while: where
// it begins and ends is known before.
func (s *stream) summarise(done chan struct{}) {
	defer s.node.turnToSum()()
	c := &s.sum
	c.mu.Lock()
	c.began = time.Now()
	first := c.at.IsZero()
	c.mu.Unlock()
	now := s.node.now()
	st := s.emptyStatus()
	if a := s.archive(); first && a != nil && st.Ends(a, now) == nil {
		c.mu.Lock()
		c.status = st
		c.mu.Unlock()
	}
	if err := s.sumUp(&st, now); err != nil {
		st.Error = err.Error()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.took = time.Since(c.began)
	c.at, c.status, c.done, c.began = now, st, nil, time.Time{}
	close(done)
}

// turnToSum waits until no more than so many archives are summed up, so that
// recording is not held up by whoever looks at a node of many streams.
func (n *Node) turnToSum() (done func()) {
	t := time.NewTimer(turnWithin)
	defer t.Stop()
	select {
	case n.sums <- struct{}{}:
		return func() { <-n.sums }
	case <-t.C:
		return func() {}
	}
}

// sumUp fills in what the archive says.
func (s *stream) sumUp(st *serve.ArchiveStatus, now time.Time) error {
	a := s.archive()
	if a == nil {
		if err := s.openError(); err != nil {
			return err
		}
		return errors.New("it is not open yet")
	}
	if err := st.SumUp(a, m4f.UTCOf(now.Add(-s.cfg.DVR.Depth)), now); err != nil {
		return err
	}
	s.diskStatus(st)
	st.Salvage = s.salvageStatus()
	return nil
}
