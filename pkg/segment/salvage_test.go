package segment_test

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/salvage"
	"github.com/twindvr/twindvr/pkg/segment"
	"github.com/twindvr/twindvr/pkg/testkit"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

// taken is what a recorder made of a stream.
type taken struct {
	segs []*m4f.Segment
	kept []*salvage.Kept
	from []int // which packet of the stream each of the run's is
}

// recordPackets segments a stream without the packets that gone names, and keeps
// the packets of what is not clean, or of all segments. told: each run of those
// that are gone is told as dropped.
func recordPackets(ts []byte, d time.Duration, all, told bool, gone func(int) bool) (r taken) {
	s := segment.New(segment.Config{TargetDuration: m4f.Ticks(d), Unpaced: true, Start: 1, Salvage: func(k *salvage.Kept) {
		c := *k
		c.Packets, c.Pieces = k.Join(), nil
		r.kept = append(r.kept, &c)
	}}, func(seg *m4f.Segment) { r.segs = append(r.segs, seg) })
	if all {
		segment.SalvageAll(s)
	}
	lost := 0
	for k := 0; k < len(ts)/packet; k++ {
		if gone != nil && gone(k) {
			lost++
			continue
		}
		if told {
			s.Drops(lost)
		}
		lost = 0
		segment.WritePacket(s, ts[k*packet:(k+1)*packet])
		if segment.KeptPackets(s) > int64(len(r.from)) {
			r.from = append(r.from, k)
		}
	}
	s.Close()
	return r
}

// hardAndPlain calls fn for the streams of the corpus and every nth of the
// generated ones.
func hardAndPlain(t *testing.T, nth int, fn func(t *testing.T, ts []byte)) {
	for k, path := range corpus(t) {
		if k%min(nth, 2) == 0 {
			t.Run(filepath.Base(path), func(t *testing.T) { fn(t, read(t, path)) })
		}
	}
	needFFmpeg(t, "generated streams")
	for k, g := range streams {
		if k%nth == 0 && !strings.HasPrefix(g.name, "192") {
			t.Run(g.name, func(t *testing.T) { fn(t, read(t, generate(t, g))) })
		}
	}
	for k, h := range hardStreams {
		if k%nth != 0 {
			continue
		}
		t.Run(h.name, func(t *testing.T) {
			var parts [][]byte
			for _, g := range h.parts {
				parts = append(parts, read(t, generate(t, g)))
			}
			edit := h.edit
			if edit == nil {
				edit = concat
			}
			fn(t, edit(t, parts))
		})
	}
	for seed := range 40 / nth {
		t.Run(fmt.Sprintf("random %d", seed), func(t *testing.T) {
			fn(t, randomStream(rand.New(rand.NewPCG(uint64(seed), 77))))
		})
	}
}

// every is of how many generated streams one is tried: all of them in a long run.
func every() int {
	switch {
	case os.Getenv("TWINDVR_LONG") != "":
		return 1
	case less > 1 || testing.Short():
		return 20
	}
	return 4
}

// TestResegment cuts what is kept of every segment again: it must come out as
// it was.
func TestResegment(t *testing.T) {
	tried, equal, last, ends, same := 0, 0, 0, 0, 0
	hardAndPlain(t, every(), func(t *testing.T, ts []byte) {
		for _, d := range []time.Duration{500 * time.Millisecond, time.Second, 4 * time.Second} {
			if less > 1 && d == time.Second {
				continue
			}
			r := recordPackets(ts, d, true, false, nil)
			ids := identities(r.segs)
			for n, s := range r.segs {
				i := slices.IndexFunc(r.kept, func(k *salvage.Kept) bool { return k.Header == s.Header })
				if i < 0 {
					if !renumbered(r.segs) {
						t.Errorf("D %v: nothing is kept of %s", d, describe(s))
					}
					continue
				}
				k := r.kept[i]
				r.kept = r.kept[i+1:]
				cut := segment.Recut(&k.Copy, k.Program, k.Target)
				is := func(g *m4f.Segment) bool { return g.Header.ID == s.Header.ID }
				if n == len(r.segs)-1 && n > 0 && k.First+int64(k.Len()) == int64(len(r.from)) {
					if ends++; slices.ContainsFunc(cut.Ended, is) {
						same++
					}
				}
				if n == 0 || s.Header.Partial() {
					continue // the one that a run begins with, one that a run ends with
				}
				got := cut.Inside
				for _, g := range got {
					if g.Header.Clean() && inside(&k.Header, &g.Header) && !ids[g.Header.ID] && !doubted(r.segs, &g.Header) {
						t.Errorf("D %v: %s is called clean and differs", d, describe(g))
					}
				}
				tried++
				switch {
				case slices.ContainsFunc(got, is):
					equal++
				case k.First+int64(k.Len()) == int64(len(r.from)):
					last++ // the end of the stream completed it
				default:
					t.Errorf("D %v: %s differs: packets %d+%d give\n%s", d, describe(s), k.First, k.Len(), strings.Join(slices.Collect(flagged(got)), "\n"))
				}
			}
		}
	})
	t.Logf("%d segments, %d equal, %d complete only by the end; %d at the ends, %d equal", tried, equal, last, ends, same)
	if last*100 > tried || same*20 < ends*19 {
		t.Error("too many")
	}
}

// renumbered says whether the program has another number in the end.
func renumbered(segs []*m4f.Segment) bool {
	var numbers []uint16
	for _, s := range []*m4f.Segment{segs[0], segs[len(segs)-1]} {
		if init, err := m4f.ParseInit(s.Init); err == nil {
			numbers = append(numbers, init.Program)
		}
	}
	return len(numbers) == 2 && numbers[0] != numbers[1]
}

// ways are how packets get lost.
var ways = []struct {
	name  string
	p     float64
	burst bool
}{{"0.1 %", 0.001, false}, {"1 %", 0.01, false}, {"5 %", 0.05, false}, {"bursts of 200 ms", 0, true}}

// drawLosses draws the datagrams that are lost of a stream of some seconds.
func drawLosses(rng *rand.Rand, ts []byte, seconds float64, p float64, burst bool) map[int]bool {
	packets := len(ts) / packet
	gone := map[int]bool{}
	perBurst := max(1, int(float64(packets)/seconds/5))
	for k := 0; k < packets; k += perDatagram {
		switch {
		case burst && rng.Float64() < perDatagram/(float64(packets)/seconds*3): // each 3 s
			for j := range perBurst {
				gone[k+j] = true
			}
		case !burst && rng.Float64() < p:
			for j := range perDatagram {
				gone[k+j] = true
			}
		}
	}
	for k := range gone {
		// Nothing shows the loss of data before its next packet.
		if k >= packets || slices.Contains([]int{0x200, 0x500, 0x600}, pidOf(ts[k*packet:])) {
			delete(gone, k)
		}
	}
	return gone
}

// stretch is what two recorders kept of a stretch of time, one's segments
// overlapping the other's.
type stretch struct{ a, b []*salvage.Kept }

// stretches groups what two recorders kept by what overlaps.
func stretches(a, b []*salvage.Kept) (out []stretch) {
	type kept struct {
		*salvage.Kept
		theirs bool
	}
	var all []kept
	for _, k := range a {
		all = append(all, kept{k, false})
	}
	for _, k := range b {
		all = append(all, kept{k, true})
	}
	slices.SortStableFunc(all, func(x, y kept) int { return cmp.Compare(x.Header.UTC, y.Header.UTC) })
	end := m4f.UTC(-1)
	for _, k := range all {
		if len(out) == 0 || k.Header.UTC > end-1000 {
			out, end = append(out, stretch{}), 0
		}
		u := &out[len(out)-1]
		if end = max(end, k.Header.End()); k.theirs {
			u.b = append(u.b, k.Kept)
		} else {
			u.a = append(u.a, k.Kept)
		}
	}
	return slices.DeleteFunc(out, func(u stretch) bool { return len(u.a) == 0 || len(u.b) == 0 })
}

// joined is one copy of each run of what was kept one behind the other.
func joined(kept []*salvage.Kept) (out []*salvage.Copy) {
	var c *salvage.Copy
	first, last := int64(0), int64(-1)
	for _, k := range kept {
		if c == nil || k.First > last {
			c, first, last = &salvage.Copy{}, k.First, k.First
			out = append(out, c)
		}
		if n := k.First + int64(k.Len()); n > last {
			c.Packets = append(c.Packets, k.Packets[(last-k.First)*packet:]...)
			last = n
		}
		for _, h := range k.Holes {
			at := int(k.First-first) + h.At
			if n := len(c.Holes); n == 0 || c.Holes[n-1].At < at {
				c.Holes = append(c.Holes, salvage.Hole{At: at, Missing: h.Missing})
			}
		}
	}
	return out
}

// heard says whether recorders heard a segment whole: theirs cover it, and none
// of these is partial.
func heard(u *stretch, h *m4f.Header) bool {
	at := h.UTC
	for range 2 {
		for _, k := range slices.Concat(u.a, u.b) {
			if !k.Header.Partial() && k.Header.UTC <= at+10_000 {
				at = max(at, k.Header.End())
			}
		}
	}
	return at >= h.End()-10_000
}

// TestSalvage records a stream twice, each time with other losses, merges what
// both kept and cuts it again. What neither lost comes out clean, and what is called
// clean is what a recorder without loss writes.
func TestSalvage(t *testing.T) {
	type count struct{ stretches, healable, healed, clean, wrong, unseen int }
	sum := map[string]*count{}
	seeds := 1
	if os.Getenv("TWINDVR_LONG") != "" {
		seeds = 4
	}
	const d = 2 * time.Second
	hardAndPlain(t, every(), func(t *testing.T, ts []byte) {
		full := recordPackets(ts, d, true, false, nil)
		if len(full.segs) < 4 {
			return
		}
		span := 0.0
		for _, s := range full.segs {
			span += float64(s.Header.Duration) / m4f.Timescale
		}
		for _, way := range ways {
			c := sum[way.name]
			if c == nil {
				c = &count{}
				sum[way.name] = c
			}
			for seed := range seeds {
				rng := rand.New(rand.NewPCG(uint64(seed), 3))
				told := seed%2 == 1
				var gone [2]map[int]bool
				var r [2]taken
				for k := range r {
					gone[k] = drawLosses(rng, ts, span, way.p, way.burst)
					r[k] = recordPackets(ts, d, false, told, func(n int) bool { return gone[k][n] })
					dateAs(&full, &r[k])
				}
				both := map[int]bool{}
				for n := range gone[0] {
					if gone[1][n] {
						both[n] = true
					}
				}
				c.stretches++
				healable, healed, clean, wrong := heal(t, way.name, &full, &r[0], &r[1], both)
				c.healable, c.healed, c.clean = c.healable+healable, c.healed+healed, c.clean+clean
				if !told && wraps(packetsByPID(ts), both) {
					c.unseen += wrong
				} else if c.wrong += wrong; wrong > 0 {
					t.Errorf("%s, seed %d: %d segments are called clean and differ", way.name, seed, wrong)
				}
			}
		}
	})
	healable, healed := 0, 0
	for _, way := range ways {
		c := sum[way.name]
		t.Logf("%s: %+v", way.name, *c)
		healable, healed = healable+c.healable, healed+c.healed
	}
	// What is not has few packets to find its place by, or lies behind a jump or
	// the loss of sparse data.
	if healed*100 < healable*75 {
		t.Errorf("%d of %d healed", healed, healable)
	}
}

// dateAs dates what was kept by its place in the stream: media times recur.
func dateAs(full, r *taken) {
	for _, k := range r.kept {
		h := &k.Header
		from := r.from[k.First]
		best := int64(-1)
		for _, f := range full.kept {
			// The nearest of the segments whose times lie as near as these.
			if d := m4f.Diff33(h.MediaTime, f.Header.MediaTime); d > -60*m4f.Timescale && d < 60*m4f.Timescale {
				if x := int64(full.from[f.First] - from); best < 0 || max(x, -x) < best {
					best, h.UTC = max(x, -x), f.Header.UTC.Add(d)
				}
			}
		}
	}
}

// heal merges what two recorders kept and compares what comes out with what one
// without loss wrote.
func heal(t *testing.T, name string, full, a, b *taken, both map[int]bool) (healable, healed, clean, wrong int) {
	ids, have := identities(full.segs), map[m4f.Identity]bool{}
	for _, s := range slices.Concat(a.segs, b.segs) {
		have[s.Header.ID] = have[s.Header.ID] || !s.Header.Damaged()
	}
	for _, u := range stretches(a.kept, b.kept) {
		m := salvage.MergeAll(append(joined(u.a), joined(u.b)...))
		got := segment.Resegment(m, u.a[0].Program, u.a[0].Target)
		for _, g := range got {
			g.Header.UTC = u.a[0].Header.UTC.Add(m4f.Diff33(g.Header.MediaTime, u.a[0].Header.MediaTime))
			if !g.Header.Clean() || !heard(&u, &g.Header) || doubted(full.segs, &g.Header) {
				continue
			}
			clean++
			if !ids[g.Header.ID] {
				wrong++
				t.Logf("WRONG %s: %s of %d packets, holes %v\n%s", name, describe(g), m.Len(), m.Holes, u.String())
			}
		}
		for n, s := range full.segs {
			h := &s.Header
			if n == 0 || n == len(full.segs)-1 || !h.Clean() || !heard(&u, h) || have[h.ID] {
				continue
			}
			i := slices.IndexFunc(full.kept, func(k *salvage.Kept) bool { return k.Header == *h })
			k := full.kept[i]
			if slices.ContainsFunc(full.from[k.First:k.First+int64(k.Len())], func(n int) bool { return both[n] }) {
				continue
			}
			healable++
			if slices.ContainsFunc(got, func(g *m4f.Segment) bool { return g.Header.ID == h.ID && g.Header.Clean() }) {
				healed++
			} else {
				t.Logf("NOTHEALED %s: %s of %d packets, holes %v\n%s\n  got %s", name, describe(s), m.Len(), m.Holes, u.String(), strings.Join(slices.Collect(flagged(got)), "\n  got "))
			}
		}
	}
	return healable, healed, clean, wrong
}

func (u *stretch) String() string {
	var b strings.Builder
	for k, l := range [][]*salvage.Kept{u.a, u.b} {
		for _, x := range l {
			fmt.Fprintf(&b, "  %c %s packets %d+%d holes %v\n", 'a'+k, describe(&m4f.Segment{Header: x.Header}), x.First, x.Len(), x.Holes)
		}
	}
	return b.String()
}

// doubted says whether a segment lies where one is damaged.
func doubted(segs []*m4f.Segment, h *m4f.Header) bool {
	return slices.ContainsFunc(segs, func(s *m4f.Segment) bool { return s.Header.Damaged() && inside(&s.Header, h) })
}

// inside says whether segments overlap by more than a slip.
func inside(a, b *m4f.Header) bool {
	from := max(0, m4f.Diff33(b.MediaTime, a.MediaTime))
	to := min(int64(a.Duration), m4f.Diff33(b.MediaTime+int64(b.Duration), a.MediaTime))
	return to-from > m4f.Timescale/100
}

// What a recorder hears ahead of the first keyframe is kept, from the run's first
// map on, up to behind where its first segment opens. One that begins with a keyframe
// has nothing ahead of it.
func TestSalvageAhead(t *testing.T) {
	ts := testStream(t)
	full := recordPackets(ts, 2*time.Second, false, false, nil)
	for _, k := range full.kept {
		if k.Header.Damaged() {
			t.Errorf("a recorder that has heard all keeps %s", describe(&m4f.Segment{Header: k.Header}))
		}
	}
	joined := recordPackets(ts, 2*time.Second, false, false, func(k int) bool { return k < len(ts)/packet*7/20 })
	if len(joined.kept) == 0 {
		t.Fatal("nothing is kept")
	}
	k, first := joined.kept[0], joined.segs[0].Header
	if h := k.Header; !h.Damaged() || !h.Partial() || h.ID == first.ID || h.ID.IsZero() {
		t.Errorf("kept for %+v, ahead of %+v", h, first)
	}
	if end := m4f.Diff33(k.Header.MediaTime+int64(k.Header.Duration), first.MediaTime); end != 0 {
		t.Errorf("it ends %d ticks off the first segment", end)
	}
	if k.First != 0 || k.Program == 0 || k.Target != m4f.Ticks(2*time.Second) {
		t.Errorf("packets from %d on of program %d, target %d", k.First, k.Program, k.Target)
	}
	for n := range k.Len() {
		if at := joined.from[n]; !bytes.Equal(k.Packet(n), ts[at*packet:(at+1)*packet]) {
			t.Fatalf("packet %d is not the run's", n)
		}
	}
	if k.Len() >= len(joined.from)*2/3 {
		t.Errorf("%d of %d packets", k.Len(), len(joined.from))
	}
}

func testStream(t *testing.T) []byte {
	t.Helper()
	return testkit.SharedStream(t, testsrc.Options{Bitrate: 1_000_000, Duration: 10 * time.Second})
}
