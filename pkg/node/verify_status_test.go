package node

import (
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
)

// What was set aside before and is still bad is told, of the pass that runs or
// else of the last one.
func TestVerifyStatusTellsWhatIsStillBad(t *testing.T) {
	s := &stream{}
	s.verify.state = archive.VerifyState{Last: archive.VerifyCounts{Segments: 9, Aside: 3}, VerifyCounts: archive.VerifyCounts{Segments: 4, Aside: 1}}
	if n := s.verifyStatus(); n.Segments != 9 || n.Aside != 3 {
		t.Errorf("of the last pass: %+v", n)
	}
	s.verify.state.Next = time.Now()
	if n := s.verifyStatus(); n.Segments != 4 || n.Aside != 1 {
		t.Errorf("of the pass under way: %+v", n)
	}
}
