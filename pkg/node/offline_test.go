package node

import (
	"testing"
	"time"
)

func TestOfflineTeller(t *testing.T) {
	var o offlineTeller
	at := time.Unix(1000, 0)
	for _, v := range []struct {
		after time.Duration // since the one before
		works bool
		why   string
		tell  bool
	}{
		{0, false, "a", false},              // it has only just begun
		{offlineFor - 1, false, "a", false}, // nearly
		{1, false, "a", true},               // long enough
		{time.Hour, false, "a", false},      // known
		{time.Second, false, "b", true},     // another reason
		{time.Second, false, "a", false},    // too soon
		{whyAgain, false, "a", true},        // not any more
		{time.Second, true, "", false},      // it works
		{time.Second, false, "a", false},    // lost again
		{offlineFor - 1, false, "a", false}, // a short loss is not explained
		{time.Second, true, "", false},      // it works
		{time.Second, false, "a", false},    // lost again
		{offlineFor, false, "a", true},      // for longer: said again
	} {
		at = at.Add(v.after)
		if got := o.take(v.works, v.why, at); got != v.tell {
			t.Errorf("at %v, works %v, %q: told %v, want %v", at.Sub(time.Unix(1000, 0)), v.works, v.why, got, v.tell)
		}
	}
}
