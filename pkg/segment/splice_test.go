package segment_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
)

func stream(t testing.TB, name string) []byte {
	k := slices.IndexFunc(streams, func(g generated) bool { return g.name == name })
	if k < 0 {
		t.Fatalf("no stream %q", name)
	}
	return read(t, generate(t, streams[k]))
}

// spliced are streams laid end to end: an encoder that starts again, another
// codec, tracks that come and go.
var spliced = []string{
	"h264 three B-frames + h264 three B-frames",
	"h264 three B-frames + hevc open GOP",
	"hevc open GOP + mpeg2 + h264 open GOP",
	"h264 one B-frame + aac alone + h264 one B-frame",
	"ac3 alone + h264 alone",
	"h264 alone + four tracks",
	"four tracks + h264 one B-frame",
	"wrap + h264 three B-frames",
	"two pictures + h264 one B-frame",
}

// TestSplices joins spliced streams at many packets, and loses packets of them
// around the splices: what is whole and clean is what a recorder of all of it
// has.
func TestSplices(t *testing.T) {
	needFFmpeg(t, fmt.Sprintf("%d splices", len(spliced)))
	seeds := 12
	if testing.Short() || less > 1 {
		seeds = 2
	}
	for _, name := range spliced {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var ts []byte
			var seams []int
			for part := range strings.SplitSeq(name, " + ") {
				ts = append(ts, stream(t, part)...)
				seams = append(seams, len(ts)/packet)
			}
			ts = recount(ts)
			full, compared := cuts(t, ts, packet, time.Second, 25/min(less, 5))
			jumps := 0
			for _, s := range full {
				if s.Header.Damaged() {
					t.Errorf("%s is damaged, and nothing is missing", describe(s))
				}
				if s.Header.Flags&m4f.Discontinuity != 0 {
					jumps++
				}
			}
			if compared*min(less, 5) < 20 || jumps < len(seams)-1 {
				t.Errorf("%d whole segments compared, %d timelines begin", compared, jumps)
			}
			ids := identities(full)
			rng := rand.New(rand.NewPCG(8, uint64(len(ts))))
			clean := 0
			for seed := range seeds {
				gone := map[int]bool{}
				for _, at := range seams {
					for range 1 + rng.IntN(3) {
						from := at - 300 + rng.IntN(600)
						for k := range 7 * (1 + rng.IntN(4)) {
							gone[from+k] = true
						}
					}
				}
				if wraps(packetsByPID(ts), gone) {
					continue
				}
				segs, _ := run(ts, time.Second, rng.IntN(200), len(ts)/packet, func(k int) bool { return gone[k] })
				for _, s := range segs {
					if s.Header.Clean() {
						if clean++; !ids[s.Header.ID] {
							t.Errorf("seed %d: %s is called clean and differs", seed, describe(s))
						}
					}
				}
			}
			t.Logf("%d whole segments compared, %d clean ones beside losses", compared, clean)
		})
	}
}

// TestTimelines wants UTC to go on over a splice: a new timeline of input that
// is not paced begins where the one before ended.
func TestTimelines(t *testing.T) {
	needFFmpeg(t, "UTC over splices")
	for _, name := range spliced {
		var ts []byte
		for part := range strings.SplitSeq(name, " + ") {
			ts = append(ts, stream(t, part)...)
		}
		full, _ := runBytes(recount(ts), time.Second)
		for k := 1; k < len(full); k++ {
			h, before := full[k].Header, full[k-1].Header
			if gap := int64(h.UTC - before.End()); gap > m4f.Timescale/2 || gap < -m4f.Timescale/2 {
				t.Errorf("%s: segment %d begins %.3f s after the end of the one before: %s, %s", name, k, float64(gap)/m4f.Timescale, describe(full[k-1]), describe(full[k]))
			}
		}
	}
}
