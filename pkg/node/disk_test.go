package node

import (
	"testing"
	"time"
)

func TestHowLongAVolumeLasts(t *testing.T) {
	const day = 24 * time.Hour
	const rate = 1.0 // bytes a second
	perDay := day.Seconds()
	for _, c := range []struct {
		what string
		room float64
		grow []growth
		want time.Duration // -1: for ever
	}{
		{"one stream, depth not reached in time", 2 * perDay, []growth{{rate, 3 * day}}, 2 * day},
		{"one stream, depth reached before", 4 * perDay, []growth{{rate, 3 * day}}, -1},
		{"no room at all", 0, []growth{{rate, day}}, 0},
		{"less than none", -5, []growth{{rate, day}}, 0},
		{"depth reached, no room", 0, []growth{{rate, 0}}, -1},
		{"nothing recorded", 0, []growth{{0, day}}, -1},
		{"two streams", 2 * perDay, []growth{{rate, 3 * day}, {rate, 3 * day}}, day},
		{"one of two stops growing", 3 * perDay, []growth{{rate, 5 * day}, {rate, day}}, 2 * day},
		{"both stop in time", 3 * perDay, []growth{{rate, 2 * day}, {rate, day}}, -1},
	} {
		got, ok := lasts(int64(c.room), c.grow)
		if !ok {
			got = -1
		}
		if d := got - c.want; d < -time.Second || d > time.Second {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}
