package node

import (
	"sync"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/replicate"
)

const (
	// merging is how many stretches of packets a node merges at once.
	merging = 2
	// gathering is how many it fetches at once.
	gathering = 24
)

// healing is the Healer of a stream's archive.
type healing struct {
	mu     sync.Mutex
	of     *archive.Stream
	healer *replicate.Healer
}

// healer returns the Healer of the archive in use, which the links to all peers
// share; nil where the stream keeps no salvage.
func (s *stream) healer() *replicate.Healer {
	if s.cfg.Salvage.Off {
		return nil
	}
	a := s.archive()
	s.heal.mu.Lock()
	defer s.heal.mu.Unlock()
	if s.heal.of != a {
		s.closeHealerLocked()
		s.heal.of = a
		s.heal.healer = replicate.NewHealer(a, replicate.HealerOptions{Slots: s.node.merge, Fetches: s.node.gather, Log: s.log})
	}
	return s.heal.healer
}

// salvageKept says that packets of another segment have been kept.
func (s *stream) salvageKept() {
	s.heal.mu.Lock()
	h := s.heal.healer
	s.heal.mu.Unlock()
	if h != nil {
		h.Kept()
	}
}

// closeHealer makes durable what was healed last.
func (s *stream) closeHealer() {
	s.heal.mu.Lock()
	defer s.heal.mu.Unlock()
	s.closeHealerLocked()
}

func (s *stream) closeHealerLocked() {
	if s.heal.healer == nil {
		return
	}
	if err := s.heal.healer.Close(); err != nil {
		s.log.Warn("what was healed last may not be durable", "err", err)
	}
	s.heal.of, s.heal.healer = nil, nil
}
