package node

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/serve"
)

const (
	// verifyLook is how often it is looked whether a pass is due.
	verifyLook = time.Second
	// verifyAgain is when a pass goes on that broke off.
	verifyAgain = time.Minute
	// verifyWidth is the burst of the limit on the rate.
	verifyWidth = 1 << 20
)

// verifies is what the passes of all streams of a node share: one runs at a
// time, at the rate of the configuration.
type verifies struct {
	turn chan struct{} // holds a token while a pass runs
	cfg  atomic.Pointer[config.Verify]
}

func newVerifies(c config.Verify) *verifies {
	v := &verifies{turn: make(chan struct{}, 1)}
	v.cfg.Store(&c)
	return v
}

// verifyState is how a stream's passes stand.
type verifyState struct {
	mu      sync.Mutex
	state   archive.VerifyState
	running bool
	due     time.Time
	err     error
	aside   int64
}

// verifier reads the archive again, all of it once in each period of the
// configuration. The streams of a node begin at moments spread over the period.
type verifier struct {
	s      *stream
	loaded *archive.Stream // whose state is known
}

func (v *verifier) String() string { return "verification of " + v.s.cfg.Name }

// Serve implements suture.Service.
func (v *verifier) Serve(ctx context.Context) error {
	for v.s.node.pause(ctx, verifyLook) {
		cfg := v.s.node.verifies.cfg.Load()
		if !v.isDue(cfg, v.s.node.now()) {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case v.s.node.verifies.turn <- struct{}{}:
		}
		err := v.pass(ctx, cfg)
		<-v.s.node.verifies.turn
		if ctx.Err() != nil {
			return ctx.Err()
		}
		v.brokeOff(err)
	}
	return ctx.Err()
}

// isDue says whether a pass is to begin or to go on, and keeps when it will be.
func (v *verifier) isDue(cfg *config.Verify, now time.Time) bool {
	st := &v.s.verify
	a := v.s.archive()
	if a != v.loaded {
		v.loaded = a
		state := a.VerifyState()
		st.mu.Lock()
		st.state = state
		st.mu.Unlock()
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if cfg.Off {
		st.due = time.Time{}
		return false
	}
	at := st.state.Ended.Add(cfg.Every)
	switch {
	case !st.state.Next.IsZero():
		at = now
	case st.state.Ended.IsZero():
		at = v.s.began.Add(spread(v.s.cfg.Name, cfg.Every))
	case st.state.Ended.After(now): // the clock went back
		at = now.Add(spread(v.s.cfg.Name, cfg.Every))
		st.state.Ended = at.Add(-cfg.Every)
	}
	if st.err != nil {
		at = st.due
	}
	st.due = at
	return !at.After(now)
}

// spread is when, within a period, the first pass over a stream begins.
func spread(name string, every time.Duration) time.Duration {
	h := fnv.New32a()
	h.Write([]byte(name))
	return time.Duration(float64(h.Sum32()) / (1 << 32) * float64(every))
}

// pass begins a pass, or goes on with one, in a thread of the lowest priority.
func (v *verifier) pass(ctx context.Context, cfg *config.Verify) error {
	st := &v.s.verify
	a := v.loaded
	st.mu.Lock()
	if st.state.Next.IsZero() {
		st.state.Began, st.state.VerifyCounts = v.s.node.now().UTC().Truncate(time.Second), archive.VerifyCounts{}
	}
	from := st.state.Next
	st.running = true
	st.mu.Unlock()
	defer func() {
		st.mu.Lock()
		st.running = false
		st.mu.Unlock()
	}()
	var utc m4f.UTC
	if !from.IsZero() {
		utc = m4f.UTCOf(from)
	}
	done := make(chan error, 1)
	go func() { done <- v.read(ctx, a, utc, cfg.Rate) }()
	if err := <-done; err != nil {
		return err
	}
	st.mu.Lock()
	st.state.Next, st.state.Ended, st.state.Last = time.Time{}, v.s.node.now().UTC().Truncate(time.Second), st.state.VerifyCounts
	state := st.state
	st.mu.Unlock()
	v.tellPass(&state)
	return a.SetVerifyState(state)
}

// read verifies from an hour on; its thread ends with it.
func (v *verifier) read(ctx context.Context, a *archive.Stream, from m4f.UTC, bytes int64) error {
	runtime.LockOSThread()
	giveWay()
	st := &v.s.verify
	st.mu.Lock()
	counted := st.state.VerifyCounts
	st.mu.Unlock()
	found := 0
	o := archive.VerifyOptions{
		From: from,
		Damage: func(d archive.Damage) {
			if found++; found <= tellDamage {
				v.damage(&d)
			}
		},
	}
	if bytes > 0 {
		o.Limiter = rate.NewLimiter(rate.Limit(bytes), verifyWidth)
	}
	o.HourDone = func(h m4f.UTC, res archive.VerifyResult) {
		next := h.Time().Add(time.Hour)
		st.mu.Lock()
		st.state.VerifyCounts, st.state.Next = counted, next
		st.state.VerifyCounts.Add(&res)
		state := st.state
		st.mu.Unlock()
		if err := a.SetVerifyState(state); err != nil { // a restart begins further back
			v.s.log.Debug("where verification has come to could not be kept", "err", err)
		}
	}
	_, err := a.Verify(ctx, o)
	return err
}

// giveWay lets everything else go first: the disk's other users (idle class of
// ioprio_set(2)) and the processor's. What the system refuses is no matter.
func giveWay() {
	const (
		whoProcess = 1
		classIdle  = 3 << 13
	)
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, 0, classIdle)
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 19)
}

// tellDamage is how much damage has a line each in the log; the rest is in the
// sum that ends the pass, and in the archive's events.
const tellDamage = 10

// damage tells of what was found.
func (v *verifier) damage(d *archive.Damage) {
	log := v.s.log.With("file", d.Path, "offset", d.Offset, "what", d.Kind, "why", d.Why, "done", d.Done)
	if d.From != 0 {
		log = log.With("from", d.From.Time(), "to", d.To.Time())
	}
	log.Error("the archive is damaged on the disk")
}

func (v *verifier) tellPass(st *archive.VerifyState) {
	n := &st.Last
	fields := []any{"segments", n.Segments, "bytes", n.Bytes, "bad", n.Bad, "mended", n.Mended, "set_aside_before", n.Aside, "took", st.Ended.Sub(st.Began)}
	if n.Bad+n.Mended == 0 {
		v.s.log.Info("the archive was verified", fields...)
		return
	}
	v.s.log.Warn("the archive was verified, and damage was found", fields...)
	v.s.note(event.Event{Kind: event.Verify, Msg: fmt.Sprintf("verification found %d bad segments, which were set aside, and mended %d places", n.Bad, n.Mended),
		Attrs: map[string]any{"segments": n.Segments, "bytes": n.Bytes, "bad": n.Bad, "mended": n.Mended}})
}

// brokeOff keeps why a pass did not come to its end, and tells it once.
func (v *verifier) brokeOff(err error) {
	st := &v.s.verify
	st.mu.Lock()
	was := st.err
	st.err = err
	if err != nil {
		st.due = v.s.node.now().Add(verifyAgain)
	}
	st.mu.Unlock()
	if err != nil && !errors.Is(err, fs.ErrNotExist) && (was == nil || was.Error() != err.Error()) {
		v.s.log.Error("verification of the archive broke off; it goes on later", "err", err)
	}
}

// mender has what was set aside fetched from the peers, whoever did so: a pass,
// a reader of this node, or another process.
type mender struct{ s *stream }

func (m *mender) String() string { return "healing of " + m.s.cfg.Name }

// mendSettle is for how long more may be set aside before the archives are
// compared.
const mendSettle = time.Second

// Serve implements suture.Service.
func (m *mender) Serve(ctx context.Context) error {
	err := m.s.archive().OnSetAside(ctx, func() error {
		m.s.verify.mu.Lock()
		m.s.verify.aside++
		m.s.verify.mu.Unlock()
		m.s.log.Warn("segments went bad on the disk and were set aside; peers heal them")
		for _, l := range m.s.replicas() {
			l.reconcile()
		}
		if !m.s.node.pause(ctx, mendSettle) {
			return ctx.Err()
		}
		return nil
	})
	if ctx.Err() == nil && err != nil {
		m.s.node.pause(ctx, mendSettle)
		return nil // the directory may be gone: see keeper
	}
	return err
}

// reconcile has the archives compared.
func (l *link) reconcile() {
	l.mu.Lock()
	f := l.follower
	l.mu.Unlock()
	if f != nil {
		f.Reconcile()
	}
}

// verifyStatus is how the passes stand.
func (s *stream) verifyStatus() serve.VerifyStatus {
	st := &s.verify
	st.mu.Lock()
	defer st.mu.Unlock()
	n := st.state.Last
	out := serve.VerifyStatus{Running: st.running, Ended: stamp(st.state.Ended), Due: stamp(st.due), SetAside: st.aside}
	if st.running || !st.state.Next.IsZero() {
		n = st.state.VerifyCounts
		out.Began, out.At = stamp(st.state.Began), stamp(st.state.Next)
	}
	out.Segments, out.Bytes, out.Bad, out.Mended, out.Aside = n.Segments, n.Bytes, n.Bad, n.Mended, n.Aside
	if st.err != nil {
		out.Error = st.err.Error()
	}
	return out
}
