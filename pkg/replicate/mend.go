package replicate

import (
	"context"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

const (
	// mendEvery is how often a peer is asked for packets for the first mendSoon
	// after something was kept that is not healed, and lookEvery later, and how
	// often it is looked whether there is something.
	mendEvery = 400 * time.Millisecond
	mendSoon  = 4 * time.Second
	lookEvery = 2 * time.Second
	// mendWithin is how long the packets of one stretch may take to come while it
	// is warm, and mendPause how long a peer is left alone that does not give
	// them, at first; each further time twice that, up to mendPauseMost.
	mendWithin    = 8 * time.Second
	mendPause     = 2 * time.Second
	mendPauseMost = 5 * time.Minute
)

// mend heals out of packets while they are warm: what was damaged a moment ago
// here, and at the peer perhaps too.
func (f *Follower) mend(ctx context.Context) error {
	said, pause := "", mendPause
	for {
		kept, wait := f.Healer.wait(), lookEvery
		if from, age := f.warm(); from != 0 && !f.Share.gate.shut() {
			if age < mendSoon {
				wait = mendEvery
			}
			got, err := f.Healer.Heal(ctx, f.peer, HealOptions{From: from, Within: mendWithin})
			f.mu.Lock()
			f.addMended(got)
			f.mu.Unlock()
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err == nil:
				said, pause = "", mendPause
			case f.Share.gate.failed(err):
				f.Reconcile() // which tries until it can be written
				fallthrough
			default:
				if said != causeOf(err) {
					said = causeOf(err)
					f.Log.Warn("healing out of packets broke off", "peer", f.peer.String(), "err", err)
				}
				kept, wait, pause = nil, pause, min(2*pause, mendPauseMost)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-kept:
		case <-f.Clock.After(wait):
		}
	}
}

// warm says from when on there is something to heal out of packets now, 0: there
// is nothing, and how long ago the youngest of it was kept.
func (f *Follower) warm() (m4f.UTC, time.Duration) {
	f.mu.Lock()
	on := f.stats.Connected && !f.gapsOnly
	f.mu.Unlock()
	if !on {
		return 0, 0
	}
	return f.Healer.warm()
}

// addMended counts what was healed. The caller holds the lock.
func (f *Follower) addMended(got Healed) {
	f.stats.Mended += int64(got.Segments)
	f.stats.MendPackets += got.Packets
	f.stats.MendBytes += got.Bytes
}

const (
	// healedWait is how long a segment is left alone that a peer has healed: this
	// node may be about to heal it itself, out of the same packets.
	healedWait = 3 * time.Second
	// damagedWait is the same for one that the peer has damaged, beyond twice its
	// duration and damagedMost in all.
	damagedWait = 4 * time.Second
	damagedMost = time.Minute
	// postponeStep is how often it is looked whether it has been healed.
	postponeStep = 500 * time.Millisecond
)

// postpone puts back what will perhaps be healed out of packets, and returns the
// rest.
func (f *Follower) postpone(due []pendingRecord) []pendingRecord {
	if f.Healer == nil {
		return due
	}
	now := f.Clock.Now()
	rest := due[:0]
	for _, p := range due {
		if now.Sub(p.listed) < patience(&p) && f.Healer.mends(&p.Record) {
			p.due = now.Add(postponeStep)
			f.mu.Lock()
			f.pushLocked(p)
			f.mu.Unlock()
			continue
		}
		rest = append(rest, p)
	}
	return rest
}

// patience is for how long after it was listed a record may wait to be healed
// instead of being fetched.
func patience(p *pendingRecord) time.Duration {
	switch {
	case !p.Clean():
		return min(2*m4f.Duration(int64(p.Duration))+damagedWait, damagedMost)
	case p.Origin == archive.Healed:
		return healedWait
	}
	return 0
}
