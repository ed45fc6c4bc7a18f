package node

import (
	"time"

	"github.com/twindvr/twindvr/pkg/replicate"
)

const (
	// filling is how many segments may be in memory that fill the archives of a
	// node from peers; what is live does not count.
	filling = 16
	// lateAfter is how long a segment may take to be recorded before filling
	// from peers gives way.
	lateAfter = 250 * time.Millisecond
)

// newShare makes what the links of a stream have in common: one rate for all of
// them, places among those of the node, and that recording goes first.
func newShare(s *stream) *replicate.Share {
	return &replicate.Share{
		Limit: replicate.NewLimiter(s.cfg.DVR.ReplicateRate),
		Slots: s.node.fill,
		Behind: func() bool {
			since := s.writing.Load()
			return since != 0 && s.node.since(time.Unix(0, since)) > lateAfter
		},
	}
}

// reconcile has the archive compared with those of its peers soon: something is
// missing from its view that was there.
func (s *stream) reconcile() {
	for _, l := range s.replicas() {
		l.mu.Lock()
		f := l.follower
		l.mu.Unlock()
		if f != nil {
			f.Reconcile()
		}
	}
}
