package segment_test

import (
	"fmt"
	"math/rand/v2"
	"sort"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// event is a frame of a made-up stream, or a map.
type event struct {
	at  float64 // s, when it is sent
	put func(m *mux)
}

// randomStream makes a stream of half a minute: pictures in GOPs of any length,
// two audio tracks ahead of or behind them, one of them there at times only,
// data with and without times; and its clock may jump a few times.
func randomStream(rng *rand.Rand) []byte {
	const length = 30.0
	type jump struct {
		at float64
		by int64
	}
	jumps := []jump{{-100, rng.Int64N(m4f.Wrap)}}
	for range rng.IntN(2) {
		by := rng.Int64N(20*m4f.Timescale) - 10*m4f.Timescale
		if rng.IntN(2) == 0 {
			by = rng.Int64N(m4f.Wrap)
		}
		jumps = append(jumps, jump{2 + (length-4)*rng.Float64(), by})
	}
	sort.Slice(jumps, func(i, j int) bool { return jumps[i].at < jumps[j].at })
	// media is the time that the encoder gives to an instant.
	media := func(at float64) int64 {
		t := int64(at * m4f.Timescale)
		for _, j := range jumps {
			if at >= j.at {
				t += j.by
			}
		}
		return t & (m4f.Wrap - 1)
	}
	var events []event
	add := func(at float64, put func(m *mux)) { events = append(events, event{at, put}) }

	streams := []es{{0x100, 0x1b, nil}, {0x101, 0x03, nil}, {0x102, 0x03, nil}, {0x200, 0x06, nil}}
	changes := 2 + (length-4)*rng.Float64()
	grows := rng.IntN(3) == 0
	for at := -0.01; at < length; at += 0.1 {
		maps, version := streams, 0
		if grows && at > changes {
			maps, version = append(streams[:len(streams):len(streams)], es{0x103, 0x0f, nil}), 1
		}
		add(at, func(m *mux) {
			m.section(0, pat(0, 1, 0x1000))
			m.section(0x1000, pmt(1, version, maps...))
		})
	}
	gop, left, depth := 5+rng.IntN(70), 0, rng.IntN(3)
	stop := 2 + (length-4)*rng.Float64()
	for k := 0; float64(k)/25 < length; k++ {
		at := float64(k) / 25
		if at > stop && at < stop+2 && gop%4 == 0 {
			continue // the pictures pause
		}
		if left == 0 {
			left = gop
			if rng.IntN(4) == 0 {
				left = 3 + rng.IntN(90)
			}
		}
		key := left == gop || left > gop
		left--
		dts := media(at)
		pts := dts + int64(3600*(1+depth*((k*7)%3)))
		if key {
			pts = dts + int64(3600*(1+2*depth))
		}
		add(at, func(m *mux) {
			m.packets(0x100, pes(0xe0, pts&(m4f.Wrap-1), dts, 0, avc(key, 150+rng.IntN(700))))
		})
	}
	for _, pid := range []int{0x101, 0x102} {
		skew := 0.0
		if rng.IntN(2) == 0 {
			skew = 6*rng.Float64() - 3
		}
		from, to := 0.0, 0.0
		if pid == 0x102 && rng.IntN(2) == 0 {
			from = length * rng.Float64()
			to = from + 8*rng.Float64()
		}
		for k := 0; float64(k)*0.024 < length; k++ {
			at := float64(k) * 0.024
			if at >= from && at < to {
				continue
			}
			pts := media(at)
			add(at+skew, func(m *mux) { m.packets(pid, pes(0xc0, pts, pts, -1, mp2())) })
		}
	}
	for at := 0.0; at < length; at += 3 * rng.Float64() {
		pts := media(at + 16*rng.Float64() - 8)
		if rng.IntN(3) == 0 {
			pts = -1
		}
		add(at, func(m *mux) { m.packets(0x200, pes(0xbd, pts, pts, -1, []byte(fmt.Sprint(at)))) })
	}
	sort.SliceStable(events, func(i, j int) bool { return events[i].at < events[j].at })
	m := &mux{}
	for _, e := range events {
		e.put(m)
	}
	return m.out
}

// TestRandomStreams joins made-up streams anywhere and loses packets of them.
func TestRandomStreams(t *testing.T) {
	total := 40 / min(less, 4)
	if testing.Short() {
		total = 5
	}
	compared := 0
	for seed := range total {
		rng := rand.New(rand.NewPCG(uint64(seed), 77))
		ts := randomStream(rng)
		d := []time.Duration{500 * time.Millisecond, time.Second, 4 * time.Second}[seed%3]
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			full, n := cuts(t, ts, packet, d, 15)
			compared += n
			losses(t, ts, d, identities(full), 9)
		})
	}
	t.Logf("%d whole segments compared", compared)
}
