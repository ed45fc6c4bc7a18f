package node

import (
	"strings"
	"testing"

	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/serve"
)

// A backfill that brought nothing is no event: nothing was healed.
func TestBackfillThatBroughtNothing(t *testing.T) {
	for _, l := range []serve.Backfill{{}, {Left: 3}, {Error: "the peer is gone"}} {
		if e, ok := backfilled(&l); ok {
			t.Errorf("%+v: %+v", l, e)
		}
	}
	if e, ok := backfilled(&serve.Backfill{Segments: 2, Left: 1}); !ok || e.Kind != event.Heal || !strings.Contains(e.Msg, "brought 2 segments; 1 could not be had") {
		t.Errorf("%+v", e)
	}
}
