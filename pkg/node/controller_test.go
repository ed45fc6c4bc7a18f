package node

import (
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/config"
)

func TestChoose(t *testing.T) {
	now := time.Unix(1000, 0)
	long, short := now.Add(-time.Minute), now.Add(-time.Second)
	in := []*config.Input{{ReturnAfter: 10 * time.Second}, {ReturnAfter: 10 * time.Second}, {ReturnAfter: 10 * time.Second}}
	for _, c := range []struct {
		what     string
		good     [3]bool
		from     [3]time.Time
		active   int
		starting bool
		want     int
	}{
		{"nothing works", [3]bool{}, [3]time.Time{}, 0, false, -1},
		{"the first works", [3]bool{true, true, true}, [3]time.Time{short, long, long}, -1, false, 0},
		{"the first has failed", [3]bool{false, true, true}, [3]time.Time{{}, long, long}, 0, false, 1},
		{"two have failed", [3]bool{false, false, true}, [3]time.Time{{}, {}, short}, 1, false, 2},
		{"the first is back, but not for long", [3]bool{true, true, false}, [3]time.Time{short, long, {}}, 1, false, 1},
		{"the first is back", [3]bool{true, true, false}, [3]time.Time{long, long, {}}, 1, false, 0},
		{"the second is back before the first", [3]bool{false, true, true}, [3]time.Time{{}, long, long}, 2, false, 1},
		{"the one in use fails as the first is just back", [3]bool{true, false, false}, [3]time.Time{short, {}, {}}, 1, false, 0},
		{"the first is given time to begin", [3]bool{false, true, false}, [3]time.Time{{}, long, {}}, -1, true, -1},
		{"and not for ever", [3]bool{false, true, false}, [3]time.Time{{}, long, {}}, -1, false, 1},
	} {
		if got := choose(in, c.good[:], c.from[:], c.active, now, c.starting); got != c.want {
			t.Errorf("%s: input %d, want %d", c.what, got, c.want)
		}
	}
}
