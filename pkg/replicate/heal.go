package replicate

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/salvage"
)

// HealerOptions say how a Healer works. The zero value will do.
type HealerOptions struct {
	// Slots bound how many merges are under way, of several archives together
	// perhaps; nil: the one of this archive alone.
	Slots Slots
	// Fetches bound how often packets are being fetched, of several archives
	// together perhaps; nil: once for each peer of this archive.
	Fetches Slots
	// Writer says how segments are made durable.
	Writer archive.WriterOptions
	// OnTaken is called with each segment added, from the goroutine that heals;
	// nil: not.
	OnTaken func(archive.Record)
	Log     *slog.Logger
}

// Healed is what came of merging packets.
type Healed struct {
	Segments int   // added to the archive, or with DryRun to be added
	Packets  int64 // that came from the other side
	Bytes    int64 // of those and of what was compared to find them
}

func (a Healed) plus(b Healed) Healed {
	return Healed{a.Segments + b.Segments, a.Packets + b.Packets, a.Bytes + b.Bytes}
}

// Healer heals what an archive and others have damaged, out of the packets that
// all of them keep. One Healer serves an archive and all its peers, one after the
// other: what came of the first is merged with the next.
type Healer struct {
	HealerOptions
	dst   *archive.Stream
	store *salvage.Store

	work   chan struct{}   // capacity 1: held while a unit is merged
	writer *archive.Writer // by whoever holds work

	mu    sync.Mutex
	tried map[[sha256.Size]byte]bool // units that need no further look
	kept  chan struct{}              // closed and made anew when something is kept
}

// maxTried bounds what a Healer remembers.
const maxTried = 1 << 14

// NewHealer returns the Healer of an archive. Close must be called when it is of
// no more use.
func NewHealer(dst *archive.Stream, o HealerOptions) *Healer {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return &Healer{
		HealerOptions: o, dst: dst, store: dst.Salvage(), work: make(chan struct{}, 1),
		writer: dst.Writer(archive.Healed, 0, o.Writer), tried: map[[sha256.Size]byte]bool{}, kept: make(chan struct{}),
	}
}

// Close makes durable what was added.
func (h *Healer) Close() error {
	h.work <- struct{}{}
	defer func() { <-h.work }()
	return h.writer.Close()
}

// Kept says that packets of another segment have been kept: what is warm is looked
// at soon.
func (h *Healer) Kept() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.kept)
	h.kept = make(chan struct{})
}

// wait returns a channel that is closed when something is kept.
func (h *Healer) wait() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.kept
}

// open lists the entries of a span whose segments the view does not show whole
// and clean yet.
func (h *Healer) open(from, to m4f.UTC) ([]salvage.Entry, error) {
	all, err := h.store.Entries(from, to)
	if err != nil {
		return nil, err
	}
	out := all[:0]
	for i := range all {
		healed, err := h.healed(&all[i])
		if err != nil {
			return nil, err
		}
		if !healed {
			out = append(out, all[i])
		}
	}
	return out, nil
}

func (h *Healer) healed(e *salvage.Entry) (bool, error) {
	for i := range e.Segments {
		if ok, err := h.dst.Healed(&e.Segments[i]); err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

// HealOptions say what is healed.
type HealOptions struct {
	From, To m4f.UTC // 0, 0: all that packets are kept of
	DryRun   bool    // merge, and add nothing
	Flow     *Flow   // that fetched bytes pass; nil: none
	// Within is how long the packets of one stretch may take to come; 0: as long
	// as they do come.
	Within time.Duration
	// found is told what each unit gives, also with DryRun.
	found func(*unit, *merged)
}

// Heal merges the packets of what is damaged in both archives, and adds to the
// own one what is better for it. An error says that the other side is out of
// reach or the archive cannot be written; what was done until then is returned
// beside it. A peer that keeps no packets is no error.
func (h *Healer) Heal(ctx context.Context, src Side, o HealOptions) (Healed, error) {
	var sum Healed
	own, err := h.open(o.From, o.To)
	if err != nil || len(own) == 0 {
		return sum, err
	}
	if sum.Segments, err = h.alone(ctx, own, &o); err != nil {
		return sum, err
	}
	from, to := own[0].Start(), own[0].End()
	for i := range own {
		from, to = min(from, own[i].Start()), max(to, own[i].End())
	}
	theirs, err := src.Salvage(ctx, max(from.Add(-sameWithin), 1), to.Add(sameWithin))
	if errors.Is(err, m4fhttp.ErrNoSalvage) {
		return sum, nil
	}
	if err != nil {
		return sum, err
	}
	for _, u := range units(own, theirs) {
		got, err := h.unit(ctx, src, &u, &o)
		sum = sum.plus(got)
		if err != nil {
			return sum, err
		}
	}
	return sum, nil
}

// unit heals one unit, unless it has been looked at. Packets of several peers
// are fetched at once, and merged one after the other.
func (h *Healer) unit(ctx context.Context, src Side, u *unit, o *HealOptions) (got Healed, err error) {
	key := u.key(src.String())
	if !o.DryRun && h.known(key) {
		return got, nil
	}
	if err := h.Fetches.take(ctx); err != nil {
		return got, err
	}
	defer h.Fetches.give()
	g, err := h.gather(ctx, src, u, o, &got.Bytes)
	switch {
	case err == nil:
	case errors.Is(err, salvage.ErrGone): // healed or replaced meanwhile
		return got, nil
	case senseless(err):
		h.remember(key)
		from, _ := u.span()
		h.Log.Warn("packets could not be merged with those of a peer", "peer", src.String(), "start", m4fhttp.Time(from), "err", err)
		return got, nil
	default:
		return got, err
	}
	got.Packets = g.fetched
	if g.more {
		if got.Segments, err = h.merge(ctx, u, g, o); err != nil {
			return got, err
		}
	}
	if !o.DryRun {
		h.remember(key)
		h.remember(u.key(src.String())) // of the merged copy, if it has taken the place of the own ones
	}
	return got, nil
}

// gather is that of the unit, and counts the bytes that come.
func (h *Healer) gather(ctx context.Context, src Side, u *unit, o *HealOptions, bytes *int64) (*gathered, error) {
	if o.Within > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.Within, errLate)
		defer cancel()
	}
	flow := Flow{}
	if o.Flow != nil {
		flow = *o.Flow
	}
	count := flow.Count
	flow.Count = func(n int) {
		*bytes += int64(n)
		if count != nil {
			count(n)
		}
	}
	g, err := u.gather(ctx, h.store, src, &flow)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return g, err
}

// errLate is the error of a peer whose packets do not come in time.
var errLate = errors.New("its packets do not come in time")

// merge merges what was gathered of a unit, and takes what came of it.
func (h *Healer) merge(ctx context.Context, u *unit, g *gathered, o *HealOptions) (added int, err error) {
	select {
	case h.work <- struct{}{}:
		defer func() { <-h.work }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if err := h.Slots.take(ctx); err != nil {
		return 0, err
	}
	defer h.Slots.give()
	m := u.merge(g)
	if o.found != nil {
		o.found(u, m)
	}
	return h.take(u, m, o.DryRun)
}

func (h *Healer) known(key [sha256.Size]byte) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tried[key]
}

func (h *Healer) remember(key [sha256.Size]byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.tried) >= maxTried {
		clear(h.tried)
	}
	h.tried[key] = true
}

// take adds what the view would take of merged segments, and keeps the merged
// packets in place of the own ones where they still are of use.
func (h *Healer) take(u *unit, m *merged, dryRun bool) (added int, err error) {
	for _, seg := range m.segs {
		// What has come whole and clean meanwhile stands.
		if ok, err := h.dst.Healed(&seg.Header); err != nil || ok {
			if err != nil {
				return added, err
			}
			continue
		}
		wants, err := h.dst.Wants([]archive.Record{{Header: seg.Header, Origin: archive.Healed}})
		if err != nil {
			return added, err
		}
		if len(wants) == 0 || !wants[0].Local && seg.Init == nil { // not wanted, or its bytes have gone
			continue
		}
		added++
		if dryRun {
			continue
		}
		if wants[0].Local {
			err = unwritten(&wants[0], nil, h.writer.Copy(wants[0].Header))
		} else {
			one := *seg
			one.Header = wants[0].Header
			err = unwritten(&wants[0], &one, h.writer.Append(&one))
		}
		if err != nil {
			return added - 1, err
		}
		if h.OnTaken != nil {
			h.OnTaken(wants[0].Record)
		}
	}
	if !dryRun {
		h.replace(u, m)
	}
	return added, nil
}

// replace keeps a merged copy in place of those that it was made of, if it has more
// than they and something of it is still to be healed. That it lacks no fewer packets
// by the counters is no reason against it: a segment may be damaged by what went
// before. Copies only grow by that, so it comes to an end. The unit is of the merged copy from
// then on if that has all that the others had: another look at it would find nothing.
func (h *Healer) replace(u *unit, m *merged) {
	lost, damaged := u.lost()
	if len(m.left) == 0 || len(m.left) > salvage.MaxSegments || m.gained == 0 ||
		len(m.left) > damaged || m.lost > lost {
		return
	}
	e, err := h.store.Put(&salvage.Merged{Copy: *m.copy, Segments: m.left, Gained: min(m.gained, m.copy.Len())}, u.own...)
	if err != nil {
		h.Log.Debug("merged packets could not be kept", "err", err)
		return
	}
	if m.all() {
		u.own = []salvage.Entry{e}
	}
}

// warmFor is how long after packets were kept a peer is asked for what it lacks
// again and again; later, each comparison does.
func warmFor(target int64) time.Duration { return 4*m4f.Duration(target) + 10*time.Second }

// warm says from when on packets are kept that were kept a moment ago and are not
// healed, 0: there are none, and how long ago the youngest were kept.
func (h *Healer) warm() (from m4f.UTC, youngest time.Duration) {
	all, err := h.store.Entries(0, 0)
	if err != nil {
		return 0, 0
	}
	now := h.store.Now()
	for i := range all {
		e := &all[i]
		age := now.Sub(e.Kept).Abs()
		if age > warmFor(e.Target) {
			continue
		}
		if healed, err := h.healed(e); err != nil || healed {
			continue
		}
		if from == 0 {
			from, youngest = e.Start(), age
		}
		from, youngest = min(from, e.Start()), min(youngest, age)
	}
	return from, youngest
}

// mends says whether packets of the time of a segment are kept here that are not
// healed: what a peer has of it that is damaged, or healed by it just now, is
// perhaps not needed.
func (h *Healer) mends(rec *archive.Record) bool {
	if h == nil {
		return false
	}
	all, err := h.store.Entries(max(rec.UTC.Add(-sameWithin), 1), rec.End().Add(sameWithin))
	if err != nil {
		return false
	}
	for i := range all {
		for k := range all[i].Segments {
			s := &all[i].Segments[k]
			at := dateOf(s, rec.MediaTime)
			if distance(at, rec.UTC) >= sameWithin || min(s.End(), at.Add(int64(rec.Duration)))-max(s.UTC, at) < sliver {
				continue
			}
			if healed, err := h.dst.Healed(s); err == nil && !healed {
				return true
			}
		}
	}
	return false
}
