package segment_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/testkit"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

func pidOf(p []byte) int { return int(p[1]&31)<<8 | int(p[2]) }

// packetsByPID returns, per PID, the numbers of the packets with payload.
func packetsByPID(ts []byte) map[int][]int {
	m := map[int][]int{}
	for k := 0; (k+1)*packet <= len(ts); k++ {
		if p := ts[k*packet:]; p[3]&0x10 != 0 && pidOf(p) != 0x1fff {
			m[pidOf(p)] = append(m[pidOf(p)], k)
		}
	}
	return m
}

// wraps says whether somewhere a multiple of 16 packets in a row is gone on one
// PID, so that the continuity counter fits.
func wraps(pids map[int][]int, gone map[int]bool) bool {
	for _, pk := range pids {
		run := 0
		for _, k := range pk {
			switch {
			case gone[k]:
				run++
			case run > 0 && run%16 == 0:
				return true
			default:
				run = 0
			}
		}
	}
	return false
}

// TestLossIsSeen drops packets and wants every segment that is called clean
// and whole to be one that a recorder without loss writes.
func TestLossIsSeen(t *testing.T) {
	const d = time.Second
	seeds, positions := max(8/less, 2), max(10/less, 2)
	if testing.Short() {
		seeds, positions = 2, 3
	}
	clean, damaged, unseen := 0, 0, 0
	for _, path := range corpus(t) {
		if !strings.Contains(path, "hard") && !strings.Contains(path, "tsduck-0") {
			continue
		}
		t.Run(filepath.Base(path), func(t *testing.T) {
			ts := read(t, path)
			n := len(ts) / packet
			full, _ := run(ts, d, 0, n, nil)
			ids := identities(full)
			pids := packetsByPID(ts)
			try := func(name string, from int, gone map[int]bool, invisible bool) {
				invisible = invisible || wraps(pids, gone)
				segs, _ := run(ts, d, from, n, func(k int) bool { return gone[k] })
				for _, s := range segs {
					if !s.Header.Clean() {
						damaged++
						continue
					}
					clean++
					if ids[s.Header.ID] {
						continue
					}
					if invisible {
						unseen++
					} else {
						t.Errorf("%s: %s is called clean and differs", name, describe(s))
					}
				}
			}
			for seed := range seeds {
				rng := rand.New(rand.NewPCG(uint64(seed), 1))
				for _, p := range []float64{0.0005, 0.003, 0.02} {
					gone := map[int]bool{}
					for k := 0; k < n; k += 7 {
						if rng.Float64() < p {
							for j := k; j < k+7*(1+rng.IntN(3)); j++ {
								gone[j] = true
							}
						}
					}
					try(fmt.Sprintf("seed %d loss %v", seed, p), rng.IntN(n/3), gone, false)
				}
			}
			// Nothing shows the loss of 16 packets in a row on one PID where
			// lengths and times happen to fit, nor, before its next packet,
			// a loss on a data track.
			data := map[int]bool{0x500: true, 0x600: true}
			rng := rand.New(rand.NewPCG(7, 7))
			for _, pid := range slices.Sorted(maps.Keys(pids)) {
				pk := pids[pid]
				for _, burst := range []int{1, 2, 15, 16, 17, 32} {
					for range positions {
						if len(pk) <= burst {
							break
						}
						at := rng.IntN(len(pk) - burst)
						gone := map[int]bool{}
						for _, k := range pk[at : at+burst] {
							gone[k] = true
						}
						try(fmt.Sprintf("PID %d: %d packets from number %d", pid, burst, pk[at]), 0, gone,
							data[pid])
					}
				}
			}
		})
	}
	t.Logf("%d clean segments, %d damaged or partial; %d called clean that differ, by losses that nothing shows", clean, damaged, unseen)
	if unseen*500 > clean {
		t.Errorf("%d of %d clean segments differ by unseen losses: want less than 0.2 %%", unseen, clean)
	}
}

// What is lost for longer than a step of time that begins a timeline, so that the pictures'
// counter happens to go on, shows on the other tracks: no keyframe behind it opens a segment
// that is called clean and that nobody else begins there.
func TestLossOverJump(t *testing.T) {
	const d = 4 * time.Second
	ts := testkit.Stream(t, testsrc.Options{Bitrate: 1_000_000, Duration: 24 * time.Second, StartPTS: m4f.Timescale})
	n := len(ts) / packet
	second := n / 24
	full, _ := run(ts, d, 0, n, nil)
	ids := identities(full)
	tried := 0
	for at := range 600 {
		from := 8*second + 5*at
		to := from + 13*second/4 + at
		lost := map[int]int{}
		for k := from; k < to; k++ {
			if p := ts[k*packet:]; p[3]&0x10 != 0 {
				lost[pidOf(p)]++
			}
		}
		if lost[0x100]%16 != 0 || lost[0x101]%16 == 0 {
			continue
		}
		tried++
		segs, _ := run(ts, d, 0, n, func(k int) bool { return k >= from && k < to })
		for _, s := range segs {
			if s.Header.Clean() && !ids[s.Header.ID] {
				t.Errorf("lost from packet %d to %d: %s is called clean and differs", from, to, describe(s))
			}
		}
	}
	if tried < 20 {
		t.Errorf("only %d tried", tried)
	}
}
