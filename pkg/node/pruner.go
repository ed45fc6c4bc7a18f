package node

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/event"
)

const (
	// pruneEvery is how often an archive is pruned by its own limits.
	pruneEvery = time.Minute
	// volumeEvery is how often its volume is looked at.
	volumeEvery = 2 * time.Second
)

// pruner keeps an archive to its depth and size, and its volume to what is to
// stay free on it.
type pruner struct {
	s    *stream
	told map[string]bool // what was told of the stream's own limits, until it is over
}

func (p *pruner) String() string { return "pruning of " + p.s.cfg.Name }

// Serve implements suture.Service.
func (p *pruner) Serve(ctx context.Context) error {
	var last time.Time
	clock := p.s.node.opt.Clock
	for {
		if now := clock.Now(); last.IsZero() || now.Sub(last) >= pruneEvery {
			p.pass(now)
			last = now
		}
		p.s.node.vols.look(p.s)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.s.full:
		case <-clock.After(volumeEvery):
		}
	}
}

// pass prunes by the stream's own limits.
func (p *pruner) pass(now time.Time) {
	a, dvr := p.s.archive(), p.s.cfg.DVR
	res, err := a.Prune(now, archive.PruneOptions{Depth: dvr.Depth, Size: dvr.Size})
	if errors.Is(err, fs.ErrNotExist) {
		return // see keeper
	}
	if !errors.As(err, new(*archive.PruneHeldError)) && err != nil {
		p.tell("pruning failed", err)
		return
	}
	p.s.pruned(res)
	var missed error
	if res.Unmet != nil {
		missed = res.Unmet
	}
	if !p.tell("pruning is held", err) {
		res.Held, err = nil, nil
	}
	if !p.tell("the archive is larger than its limit", missed) {
		res.Unmet = nil
	}
	p.s.notePruned(res, err)
}

// tell tells of an error once, until there is none; it says whether it did.
func (p *pruner) tell(what string, err error) bool {
	if p.told == nil {
		p.told = map[string]bool{}
	}
	was := p.told[what]
	p.told[what] = err != nil
	if err == nil || was {
		return false
	}
	p.s.log.Error(what, "err", err)
	return true
}

// wantRoom has hours go at once where there was no room for a segment.
func (s *stream) wantRoom(err error) {
	var full *archive.WriteError
	if !errors.As(err, &full) || !full.Full() {
		return
	}
	s.wasFull.Store(true)
	select {
	case s.full <- struct{}{}:
	default:
	}
}

// pruned tells what a pass removed.
func (s *stream) pruned(res archive.PruneResult) {
	if len(res.Hours) == 0 {
		return
	}
	last := res.Hours[len(res.Hours)-1]
	s.log.Info("pruned", "hours", len(res.Hours), "bytes", res.Bytes, "why", last.Why, "horizon", res.Horizon.Time())
}

// notePruned keeps the events of a pass.
func (s *stream) notePruned(res archive.PruneResult, err error) {
	if err := s.archive().NotePrune(res, err); err != nil {
		s.log.Debug("event could not be kept", "kind", event.Prune, "err", err)
	}
}
