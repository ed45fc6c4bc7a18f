package replicate

import (
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/salvage"
)

// kept is an entry for a segment of so many seconds, of a source that began at
// 1 January 2026 with media time 0 and a target duration of 4 s.
func kept(from, to float64, flags uint8, lost uint32) salvage.Entry {
	begun := m4f.UTCOf(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	ticks := func(s float64) int64 { return int64(s * m4f.Timescale) }
	h := m4f.Header{UTC: begun.Add(ticks(from)), MediaTime: ticks(from), Duration: uint32(ticks(to - from)), Lost: lost}
	h.Flags = m4f.Flags(flags)
	return salvage.Entry{To: 1000, Program: 1, Target: 4 * m4f.Timescale, Segments: []m4f.Header{h}}
}

// TestUnits: what belongs to one segment is merged at once, however the recorders
// cut it.
func TestUnits(t *testing.T) {
	const damaged, partial = uint8(m4f.Damaged), uint8(m4f.Partial)
	for _, test := range []struct {
		name        string
		own, theirs []salvage.Entry
		want        [][2]int // own and other entries of each unit
	}{
		{"one damaged segment after the other",
			[]salvage.Entry{kept(0.1, 4.1, damaged, 5), kept(4.1, 8.1, damaged, 5)},
			[]salvage.Entry{kept(0.1, 4.1, damaged, 7), kept(4.1, 8.1, damaged, 7)}, [][2]int{{1, 1}, {1, 1}}},
		{"the peer has one of them clean",
			[]salvage.Entry{kept(0.1, 4.1, damaged, 5), kept(4.1, 8.1, damaged, 5)},
			[]salvage.Entry{kept(0.1, 4.1, damaged, 7)}, [][2]int{{1, 1}}},
		{"the peer came back within the segment and opened another",
			[]salvage.Entry{kept(0.1, 1.7, partial, 0)},
			[]salvage.Entry{kept(0.6, 2.1, damaged, 0), kept(2.1, 4.1, damaged, 0)}, [][2]int{{1, 2}}},
		{"a hidden beginning that the peer has kept with the segment ahead",
			[]salvage.Entry{kept(0.1, 4.1, damaged, 3)},
			[]salvage.Entry{kept(0.1, 4.1, damaged, 3), kept(4.1, 8.1, damaged, 0)}, [][2]int{{1, 2}}},
		{"... and that the peer alone has kept",
			[]salvage.Entry{kept(4.1, 8.1, damaged, 0)},
			[]salvage.Entry{kept(0.1, 4.1, damaged, 3)}, [][2]int{{1, 1}}},
		{"nothing kept beside it",
			[]salvage.Entry{kept(8.1, 12.1, damaged, 0)},
			[]salvage.Entry{kept(0.1, 4.1, damaged, 3)}, nil},
	} {
		got := units(test.own, test.theirs)
		if len(got) != len(test.want) {
			t.Errorf("%s: %d units, want %v", test.name, len(got), test.want)
			continue
		}
		for i, u := range got {
			if n := [2]int{len(u.own), len(u.theirs)}; n != test.want[i] {
				t.Errorf("%s: unit %d has %v entries, want %v", test.name, i, n, test.want[i])
			}
		}
	}
}
