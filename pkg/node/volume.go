package node

import (
	"errors"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/event"
)

const (
	// volumeSettles is how long after hours have gone a volume is given to say
	// that there is room, unless it is full.
	volumeSettles = 10 * time.Second
	// volumeStuck is how long after a pass that could remove nothing the next one
	// comes; where the volume is full, a part of that.
	volumeStuck = time.Minute
	fullStuck   = volumeStuck / 6
)

// volumes are those that a node's archives lie on. The streams' pruners look
// after them, whichever comes first: a disk that hangs holds up nobody but
// those that wait for it anyway.
type volumes struct {
	node *Node

	mu      sync.Mutex
	at      map[uint64]*volume
	minFree config.Free // as last seen
}

// volume is a volume with archives on it.
type volume struct {
	mu     sync.Mutex // held while it is looked at
	looked time.Time
	next   time.Time       // of the next pass
	urgent time.Time       // the same where the volume is full
	told   map[string]bool // until it is over
}

// look makes room on the volume of a stream where its limits ask for it.
func (n *volumes) look(s *stream) {
	full := s.wasFull.Swap(false)
	u, err := archive.UsageOf(s.cfg.DVR.Dir)
	if err != nil {
		return // see keeper
	}
	v := n.of(u.Device)
	if !v.mu.TryLock() {
		return
	}
	defer v.mu.Unlock()
	now := n.node.now()
	if now.Sub(v.looked) < volumeEvery/2 && !full {
		return
	}
	v.looked = now
	opt := volumeOptions(n.free(), u)
	streams, members := n.members(u.Device)
	if !opt.Exceeded(u, members) {
		v.told, v.next, v.urgent = nil, time.Time{}, time.Time{}
		return
	}
	if full || opt.Urgent(u) {
		if now.Before(v.urgent) {
			return
		}
	} else if now.Before(v.next) {
		return
	}
	v.pass(now, streams, members, opt)
}

// free is what is to stay free on every volume.
func (n *volumes) free() config.Free {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.minFree = n.node.minFree(n.minFree)
	return n.minFree
}

func (n *volumes) of(device uint64) *volume {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.at == nil {
		n.at = map[uint64]*volume{}
	}
	v := n.at[device]
	if v == nil {
		v = &volume{}
		n.at[device] = v
	}
	return v
}

// smallVolume: by default a volume of less than this many times what is to stay
// free keeps that part of it free.
const smallVolume = 10

// volumeOptions are the limits on a volume.
func volumeOptions(free config.Free, u archive.Usage) archive.VolumeOptions {
	opt := archive.VolumeOptions{MinFree: free.Bytes, MinFreePercent: free.Percent}
	if free.Bytes == config.DefaultMinFree {
		opt.MinFree = min(opt.MinFree, u.Total/smallVolume)
	}
	return opt
}

// members are the node's streams on a volume, as they are known: their
// directories are not looked at, since another stream's may hang.
func (n *volumes) members(device uint64) (streams []*stream, members []archive.Member) {
	for _, s := range n.node.all() {
		a := s.archive()
		if a != nil && s.device.Load() == device {
			streams = append(streams, s)
			members = append(members, archive.Member{Stream: a, Percent: s.cfg.DVR.Percent})
		}
	}
	return streams, members
}

// pass removes the oldest hours of the volume's streams.
func (v *volume) pass(now time.Time, streams []*stream, members []archive.Member, opt archive.VolumeOptions) {
	for _, s := range streams { // what is of no more use goes before
		s.expireSalvage() // its own expirer tells of errors
	}
	opt.Where = strings.Join(roots(streams), " ")
	res, err := archive.PruneVolume(now, members, opt)
	log := streams[0].node.log.With("volume", opt.Where)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // see keeper
	}
	told := v.tell(log, "pruning failed", err)
	if res.Held != nil {
		err = res.Held
		if res.Urgent {
			log = log.With("urgent", "the oldest hours go one by one, so that recording goes on")
		}
	}
	told = v.tell(log, "pruning is held", asError(res.Held)) || told
	unmet := v.tell(log, "a limit on the volume is missed", unmetError(res.Unmet))
	for i, r := range res.Streams {
		streams[i].pruned(r)
		r.Held, r.Unmet = nil, nil
		streams[i].notePruned(r, nil)
		if told && res.Held != nil {
			streams[i].note(event.Event{Kind: event.Prune, Msg: res.Held.Error()})
		}
		if unmet {
			streams[i].note(event.Event{Kind: event.Prune, Msg: res.Unmet.Error()})
		}
	}
	v.next, v.urgent = now.Add(volumeSettles), time.Time{}
	if res.Hours == 0 {
		v.next, v.urgent = now.Add(volumeStuck), now.Add(fullStuck)
	}
}

func asError(e *archive.PruneHeldError) error {
	if e == nil {
		return nil
	}
	return e
}

func unmetError(e *archive.LimitError) error {
	if e == nil {
		return nil
	}
	return e
}

// tell tells of an error once, until there is none; it says whether it did.
func (v *volume) tell(log *slog.Logger, what string, err error) bool {
	if v.told == nil {
		v.told = map[string]bool{}
	}
	was := v.told[what]
	v.told[what] = err != nil
	if err == nil || was {
		return false
	}
	log.Error(what, "err", err)
	return true
}

// roots are the paths of the dvr statements of streams.
func roots(streams []*stream) []string {
	var out []string
	for _, s := range streams {
		if !slices.Contains(out, s.cfg.DVR.Root) {
			out = append(out, s.cfg.DVR.Root)
		}
	}
	return out
}
