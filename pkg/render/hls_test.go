package render

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// TestEntriesLast: however nodes date segments, players are told how long their samples
// last, in each list alike, and no longer than the target duration says.
func TestEntriesLast(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		lengths := rapid.SliceOfN(rapid.Int64Range(m4f.Timescale, 7*m4f.Timescale), 1, 30).Draw(rt, "lengths")
		media := rapid.Int64Range(0, 1000).Draw(rt, "media")
		movie := &Movie{}
		list := func(skip int, longest int64) []int64 {
			l := Lister{Longest: longest, Movie: func(*archive.Element) (*Movie, error) { return movie, nil }}
			p := Playlist{Type: Closed, TS: true}
			at := media + opens
			for i, length := range lengths {
				off := rapid.Int64Range(-9*ticksPerMS, 9*ticksPerMS).Draw(rt, "off")
				e := archive.Element{Parts: []archive.Part{{To: length}}}
				e.UTC, e.MediaTime, e.Duration = m4f.UTC(1e12+at+off), at, uint32(length)
				if at += length; i < skip {
					continue
				}
				entries, err := l.Next(archive.Piece{Element: &e, Part: e.Parts[0]})
				if err != nil || len(entries) == 0 {
					rt.Fatal(entries, err)
				}
				p.Entries = append(p.Entries, entries...)
				if ms := at/ticksPerMS - (at-length)/ticksPerMS; sum(entries) != ms {
					rt.Fatalf("%d ms of samples are told as %d", ms, sum(entries))
				}
			}
			text, err := p.Text()
			if err != nil {
				rt.Fatal(err)
			}
			checkTarget(rt, string(text))
			return told(string(text))
		}
		all := list(0, 0)
		if half := list(len(lengths)/2, 0); !slices.Equal(half, all[len(lengths)/2:]) {
			rt.Fatalf("%v, and %v", all, half)
		}
		list(0, 4499)
	})
}

func sum(entries []Entry) (ms int64) {
	for i := range entries {
		ms += entries[i].plays()
	}
	return ms
}

// told are the lengths that a playlist tells, in milliseconds.
func told(text string) (out []int64) {
	for l := range strings.Lines(text) {
		var s, ms int64
		if n, _ := fmt.Sscanf(l, "#EXTINF:%d.%d,", &s, &ms); n == 2 {
			out = append(out, s*1000+ms)
		}
	}
	return out
}

func checkTarget(t *rapid.T, text string) {
	_, after, _ := strings.Cut(text, "#EXT-X-TARGETDURATION:")
	var target int64
	if _, err := fmt.Sscan(after, &target); err != nil {
		t.Fatal(err)
	}
	for _, ms := range told(text) {
		if (ms+500)/1000 > target {
			t.Fatalf("an entry of %d ms, a target duration of %d s", ms, target)
		}
	}
}
