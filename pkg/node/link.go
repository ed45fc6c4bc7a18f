package node

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/replicate"
)

// ownTime is how long a node that hears the source itself is given to complete
// what the peer has listed, before it is fetched.
const ownTime = 2 * time.Second

// link is a connection to a peer that is an input: its list of segments is
// followed, and what the archive's view would take of them fetched.
type link struct {
	s         *stream
	index     int
	peer      config.Peer
	replicate bool // gaps and damage are filled too
	mirror    bool // beside the link of the same input, for replication alone

	mu        sync.Mutex
	cancel    context.CancelFunc
	follower  *replicate.Follower
	client    *m4fhttp.Client
	status    *m4fhttp.Status
	heard     time.Time // of the status
	goodFrom  time.Time
	lastGood  time.Time
	connected bool      // since it was reached
	reached   time.Time // when
	err       error
	media     int64 // of the newest record listed
	length    int64
	utc       m4f.UTC
	listed    time.Time // when
	rate      float64   // bytes a second of filling, averaged
	rateAt    time.Time
	rateBytes int64
	clock     clockOffset // of the peer
}

func (l *link) String() string { return "peer " + l.url() + " of " + l.s.cfg.Name }

func (l *link) url() string { return l.peer.String() }

// restart begins the connection anew, with the keys in force.
func (l *link) restart() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel != nil {
		l.cancel()
	}
}

// Serve implements suture.Service.
func (l *link) Serve(ctx context.Context) error {
	for ctx.Err() == nil {
		l.once(ctx)
	}
	return ctx.Err()
}

func (l *link) once(ctx context.Context) {
	in := l.s.cfg.Inputs[l.index]
	client := m4fhttp.NewClient(l.s.node.clientOptions(l.peer, in.SourceTimeout))
	defer client.Close()
	var healer *replicate.Healer
	if l.replicate {
		healer = l.s.healer()
	}
	f := replicate.NewFollower(l.s.archive(), client, replicate.FollowOptions{
		Healer:   healer,
		Delay:    l.delay,
		LiveOnly: !l.replicate,
		Share:    l.s.share,
		Depth:    l.s.cfg.DVR.Depth,
		Size:     l.s.cfg.DVR.Size,
		MaxRetry: in.MaxRetryTimeout,
		OnStatus: l.onStatus,
		OnTaken:  func(archive.Record) { l.s.wrote(nil) },
		Log:      l.s.log,
		Clock:    l.s.node.opt.Clock,
	})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.mu.Lock()
	l.cancel, l.follower, l.client = cancel, f, client
	l.mu.Unlock()
	if err := f.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		l.s.log.Error("following a peer failed", "peer", l.url(), "err", err)
		l.s.node.pause(ctx, time.Second)
	}
}

// delay is called with each record that the peer lists.
func (l *link) delay(r *archive.Record) time.Duration {
	now := l.s.node.now()
	l.mu.Lock()
	if r.UTC >= l.utc || now.Sub(l.listed) > datedFor {
		l.media, l.length, l.utc, l.listed = r.MediaTime, int64(r.Duration), r.UTC, now
	}
	l.mu.Unlock()
	for _, c := range l.s.sources {
		if c == nil {
			continue
		}
		if ok, _ := c.good(now); ok {
			return ownTime
		}
	}
	if !l.replicate && l.s.ctl.activeInput() != l.index {
		return l.s.cfg.Inputs[l.index].SourceTimeout + ownTime
	}
	return 0
}

// datedFor is how long what the peer has listed last dates media times: an
// offset follows its encoder.
const datedFor = 2 * time.Minute

// dateOf is the UTC that the peer's timeline gives to a media time that is heard at
// near, while the peer lists segments. What is further from near than late arrival and
// the peer's clock explain is of another timeline: an encoder began anew.
func (l *link) dateOf(media int64, near m4f.UTC) (m4f.UTC, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	utc := l.utc.Add(m4f.Diff33(media, l.media))
	return utc, l.s.node.since(l.listed) < datedFor && l.clock.explains(m4f.Duration(int64(utc-near)), m4f.Duration(mostLate))
}

// resume is the UTC that the peer's timeline gives to a media time behind the
// segment listed last, at which it goes on; near is when that was heard.
func (l *link) resume(media int64, near m4f.UTC) (m4f.UTC, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ahead := m4f.Diff33(media, l.media)
	utc := l.utc.Add(ahead)
	late := int64(near - utc)
	return utc, ahead >= l.length-sameFrame && -m4f.Timescale <= late && late <= mostLate && l.s.node.since(l.listed) < datedFor
}

// mostLate is how much later, in ticks, than by the peer's timeline a source may be
// heard that goes on with it.
const mostLate = 10 * m4f.Timescale

// sameFrame is by how many ticks, less than a frame, the end of a segment and the
// opening of the next may differ.
const sameFrame = 450

// onStatus is called each second, and with an error when the peer is lost.
func (l *link) onStatus(st *m4fhttp.Status, err error) {
	now := l.s.node.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
	if st == nil {
		l.status, l.connected = nil, false
		l.clock = clockOffset{}
		return
	}
	l.status, l.heard = st, now
	l.clock.heard(st.Now, now)
	if l.why(now) == "" {
		l.lastGood = now
		if l.goodFrom.IsZero() {
			l.goodFrom = now
		}
	}
}

// Reasons of why that together tell of a circle.
const (
	fromHere = "it gets the stream from this node"
	noSource = "it has no source"
)

// why says why the peer is of no use as an input just now; empty: it is. The
// caller holds the lock.
func (l *link) why(now time.Time) string {
	timeout := l.s.cfg.Inputs[l.index].SourceTimeout
	st := l.status
	switch {
	case st == nil && l.err != nil:
		return l.err.Error()
	case st == nil:
		return "it has not been reached yet"
	case now.Sub(l.heard) > timeout:
		return "it is silent"
	case slices.Contains(st.Chain, l.s.node.id):
		return fromHere
	case st.SourceAge == nil || len(st.Chain) == 0:
		return noSource
	case time.Duration(*st.SourceAge*float64(time.Second))+now.Sub(l.heard) > timeout:
		return "its source is silent"
	}
	return ""
}

// good says whether the peer works as an input, and since when. A connection
// that breaks and comes back within the source timeout is no failure; what the
// peer says of itself counts at once.
func (l *link) good(now time.Time) (bool, time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	timeout := l.s.cfg.Inputs[l.index].SourceTimeout
	broken := l.status == nil && !l.lastGood.IsZero() && now.Sub(l.lastGood) <= timeout
	if broken || l.why(now) == "" {
		return true, l.goodFrom
	}
	l.goodFrom = time.Time{}
	return false, time.Time{}
}

// chain is the nodes that the peer's live data came through, and the age of its
// source.
func (l *link) chain(now time.Time) ([]string, float64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.status == nil || l.status.SourceAge == nil {
		return nil, 0, false
	}
	return l.status.Chain, *l.status.SourceAge + now.Sub(l.heard).Seconds(), true
}

// stats are the follower's, and whether there is one.
func (l *link) stats() (replicate.FollowStats, bool) {
	l.mu.Lock()
	f := l.follower
	l.mu.Unlock()
	if f == nil {
		return replicate.FollowStats{}, false
	}
	return f.Stats(), true
}

// reachable says whether the peer answers.
func (l *link) reachable() bool {
	st, ok := l.stats()
	return ok && st.Connected
}

// settle is how long after a comparison what it left to following may take.
const settle = ownTime + 2*time.Second

// recovering says whether gaps or damage are being filled from the peer. holes
// tells whether the archive has gaps; it is asked only where it matters.
func (l *link) recovering(now time.Time, holes func() bool) bool {
	st, ok := l.stats()
	switch {
	case !ok || !l.replicate || !st.Connected:
		return false
	case st.Reconciling && st.Backlog > 0:
		return true
	}
	l.mu.Lock()
	if !l.connected {
		l.connected, l.reached = true, now
	}
	reached := l.reached
	l.mu.Unlock()
	recent := st.Reconciling || now.Sub(reached) < settle || now.Sub(st.Reconciled) < settle || st.Lag > settle
	return recent && holes()
}
