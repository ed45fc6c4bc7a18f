package salvage_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/salvage"
	"github.com/twindvr/twindvr/pkg/segment"
	"github.com/twindvr/twindvr/pkg/testkit"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

const (
	packetSize = salvage.PacketSize
	target     = 2 * m4f.Timescale
)

// scenario is how two nodes lose packets of one source.
type scenario struct {
	name   string
	loss   float64 // of datagrams, at each node for itself
	shared float64 // of datagrams, at both nodes
	bursts float64 // a second, of 200 ms each
	silent float64 // a second, of 0.5 to 3 s each
	packed bool    // the second node's datagrams hold other packets
	single bool    // datagrams of one packet
	nulls  bool    // the source has null packets, and the second node keeps them
}

var scenarios = []scenario{
	{name: "0.1 %", loss: .001},
	{name: "1 %", loss: .01},
	{name: "5 %", loss: .05},
	{name: "bursts", loss: .001, bursts: .4},
	{name: "1 % and the same 1 %", loss: .01, shared: .01},
	{name: "1 %, packed otherwise", loss: .01, packed: true},
	{name: "5 %, packed otherwise", loss: .05, packed: true},
	{name: "bursts, packed otherwise", loss: .001, bursts: .4, packed: true},
	{name: "1 %, null packets", loss: .01, nulls: true},
	{name: "20 %", loss: .2},
	{name: "1 %, single packets", loss: .01, single: true},
	{name: "5 %, single packets", loss: .05, single: true},
	{name: "silences", loss: .001, silent: .25},
}

// clockBreaks are the streams whose clock goes back, so that it tells nothing across
// silences.
var clockBreaks = map[string]bool{"loop.ts": true, "restart.ts": true, "back.ts": true}

// tally is what came of a scenario.
type tally struct {
	runs      int
	segments  int // clean in the source, of all runs
	alone     int // of these, clean at one node at least
	healable  int // clean in what both received together, in order
	healed    int // clean in the merge
	wrong     int // clean in the merge, and not in the source
	unseen    int // of these, those that what both received gives too: lost unseen, or ahead of the copies
	misplaced int // runs whose merge is not in the order of the source
	took      time.Duration
	bytes     int
}

func (t tally) String() string {
	return fmt.Sprintf("%4d runs, %5d segments, %5d clean at a node, %5d healable, %5d healed, %d wrong, %d of them without a merge too, %d misplaced, %.0f MB/s",
		t.runs, t.segments, t.alone, t.healable, t.healed, t.wrong, t.unseen, t.misplaced, float64(t.bytes)/1e6/t.took.Seconds())
}

// generated is the stream of the test source.
func generated(t testing.TB, bitrate int64, d time.Duration) []byte {
	t.Helper()
	return testkit.Stream(t, testsrc.Options{Bitrate: bitrate, StartPTS: testsrc.DefaultStartPTS, Duration: d})
}

// streams are the sources by name, those of TWINDVR_TESTDATA among them.
func streams(t testing.TB, all bool) (names []string, load func(name string) []byte) {
	names = []string{"testsrc"}
	dir := os.Getenv("TWINDVR_TESTDATA")
	patterns := []string{"hard/skew_3.ts", "hard/sparse8.ts"}
	if all {
		patterns = []string{"hard/*.ts", "ts/tsduck-012.ts", "ts/tsduck-064.ts", "ts/tsduck-072.ts"}
	}
	for _, p := range patterns {
		if dir == "" {
			t.Logf("%s skipped: TWINDVR_TESTDATA is not set", p)
			continue
		}
		files, err := filepath.Glob(filepath.Join(dir, p))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no such streams: %v", p, err)
		}
		names = append(names, files...)
	}
	return names, func(name string) []byte {
		if name == "testsrc" {
			return generated(t, 2_000_000, 12*time.Second)
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return b[:len(b)/packetSize*packetSize]
	}
}

func isNull(p []byte) bool { return p[1]&0x1f == 0x1f && p[2] == 0xff }

// truth is a source as a list of packets.
type truth struct {
	data   []byte
	perSec float64               // packets
	clean  map[m4f.Identity]bool // whole segments
	known  map[m4f.Identity]bool // partial ones too
}

func newTruth(data []byte) *truth {
	tr := &truth{data: data, clean: map[m4f.Identity]bool{}, known: map[m4f.Identity]bool{}}
	var first, last m4f.Header
	s := segment.New(segment.Config{TargetDuration: target, Unpaced: true, Start: 1}, func(s *m4f.Segment) {
		if first.Duration == 0 {
			first = s.Header
		}
		last = s.Header
		tr.known[s.Header.ID] = !s.Header.Damaged()
		if s.Header.Clean() {
			tr.clean[s.Header.ID] = true
		}
	})
	_, _ = s.Write(data)
	s.Close()
	tr.perSec = float64(len(data)/packetSize) / max(1, float64(last.End()-first.UTC)/m4f.Timescale)
	return tr
}

// receive is what the nodes have of the source: the numbers of the packets.
func (tr *truth) receive(sc scenario, rng *rand.Rand) (a, b []int) {
	n := len(tr.data) / packetSize
	shared := make([]bool, n)
	if sc.shared > 0 {
		for k := 0; k < n; k += 7 {
			gone := rng.Float64() < sc.shared
			for i := k; i < min(k+7, n); i++ {
				shared[i] = gone
			}
		}
	}
	most := 7
	if sc.single {
		most = 1
	}
	node := func(packed bool) []int {
		lo, hi := rng.IntN(n/10), n-rng.IntN(n/10)
		var out []int
		burst := 0
		for k, size := 0, most; k < n; k += size {
			if packed {
				size = 1 + rng.IntN(7)
			}
			switch {
			case burst > 0:
				burst -= size
			case rng.Float64() < sc.bursts*float64(size)/tr.perSec:
				burst = int(tr.perSec / 5)
			case sc.silent > 0 && rng.Float64() < sc.silent*float64(size)/tr.perSec:
				burst = int(tr.perSec * (.5 + 2.5*rng.Float64()))
			case rng.Float64() < sc.loss:
			default:
				for i := max(k, lo); i < min(k+size, hi); i++ {
					if !shared[i] {
						out = append(out, i)
					}
				}
			}
		}
		return out
	}
	return node(false), node(sc.packed)
}

func (tr *truth) copy(numbers []int, nulls bool) *salvage.Copy {
	c := &salvage.Copy{}
	for _, k := range numbers {
		if p := tr.data[k*packetSize : (k+1)*packetSize]; nulls || !isNull(p) {
			c.Packets = append(c.Packets, p...)
		}
	}
	return c
}

// union are the numbers that either list has.
func union(a, b []int) []int {
	var out []int
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0] < b[0]:
			out, a = append(out, a[0]), a[1:]
		case len(a) == 0 || b[0] < a[0]:
			out, b = append(out, b[0]), b[1:]
		default:
			out, a, b = append(out, a[0]), a[1:], b[1:]
		}
	}
	return out
}

// cleanIn are the segments that a copy gives undamaged, and whether they are
// whole too. A partial one is what a recorder says who has just joined: whether
// it is whole those know who recorded it.
func cleanIn(c *salvage.Copy) map[m4f.Identity]bool {
	out := map[m4f.Identity]bool{}
	for _, s := range segment.Resegment(c, 0, target) {
		if !s.Header.Damaged() {
			out[s.Header.ID] = s.Header.Clean()
		}
	}
	return out
}

// has says whether a segment is in a set, whole or not.
func has(set map[m4f.Identity]bool, id m4f.Identity) bool {
	_, ok := set[id]
	return ok
}

// withNulls puts a null packet behind one packet in ten.
func withNulls(data []byte, rng *rand.Rand) []byte {
	null := bytes.Repeat([]byte{0xff}, packetSize)
	copy(null, []byte{0x47, 0x1f, 0xff, 0x10})
	var out []byte
	for ; len(data) > 0; data = data[packetSize:] {
		out = append(out, data[:packetSize]...)
		if rng.IntN(10) == 0 {
			out = append(out, null...)
		}
	}
	return out
}

func (tl *tally) run(tr *truth, sc scenario, rng *rand.Rand) {
	na, nb := tr.receive(sc, rng)
	a, b := tr.copy(na, false), tr.copy(nb, sc.nulls)
	begun := time.Now()
	got, _ := salvage.Merge(a, b)
	tl.took += time.Since(begun)
	tl.bytes += len(a.Packets) + len(b.Packets)
	if !salvage.Within(got, tr.copy(union(na, nb), false)) {
		tl.misplaced++
	}
	together := cleanIn(tr.copy(union(na, nb), false))
	clean, cleanA, cleanB := cleanIn(got), cleanIn(a), cleanIn(b)
	tl.runs++
	for id, whole := range clean {
		if whole && !tr.known[id] {
			tl.wrong++
			if has(together, id) {
				tl.unseen++
			}
		}
	}
	for id := range tr.clean {
		tl.segments++
		if has(cleanA, id) || has(cleanB, id) {
			tl.alone++
		}
		if has(together, id) {
			tl.healable++
			if has(clean, id) {
				tl.healed++
			}
		}
	}
}

// runScenarios gives the tally of each scenario over some streams.
func runScenarios(t *testing.T, names []string, load func(string) []byte, list []scenario, seeds int) []tally {
	out := make([]tally, len(list))
	for _, name := range names {
		data := load(name)
		plain := newTruth(data)
		for i, sc := range list {
			tr := plain
			if sc.nulls {
				tr = &truth{withNulls(data, rand.New(rand.NewPCG(1, 1))), plain.perSec * 1.1, plain.clean, plain.known}
			}
			before := out[i]
			for seed := range seeds {
				out[i].run(tr, sc, rand.New(rand.NewPCG(uint64(seed), uint64(i))))
			}
			got := out[i]
			if sc.silent > 0 && clockBreaks[filepath.Base(name)] {
				before.misplaced, before.wrong, before.unseen = got.misplaced, got.wrong, got.unseen // MERGE.md, limits
			}
			if got.wrong-got.unseen > before.wrong-before.unseen || got.misplaced > before.misplaced {
				t.Errorf("%s, %s: %v", filepath.Base(name), sc.name, got)
			}
			if testing.Verbose() {
				t.Logf("%-16s %-26s %d of %d", filepath.Base(name), sc.name, got.healed-before.healed, got.healable-before.healable)
			}
		}
	}
	return out
}

// TestMergeAgainstTheTruth loses datagrams of streams at two nodes and compares what
// comes of both copies with the stream itself. TWINDVR_SALVAGE_RUNS says how many
// runs of every stream and scenario there are; without it there are a few of
// some.
func TestMergeAgainstTheTruth(t *testing.T) {
	t.Parallel()
	runs, _ := strconv.Atoi(os.Getenv("TWINDVR_SALVAGE_RUNS"))
	list, seeds := scenarios, runs
	if runs == 0 {
		list, seeds = scenarios[:4], 1
	}
	names, load := streams(t, runs > 0)
	for i, tl := range runScenarios(t, names, load, list, seeds) {
		sc := list[i]
		t.Logf("%-26s %v", sc.name, tl)
		if tl.runs == 0 || tl.segments == 0 {
			t.Errorf("%s: nothing was tried", sc.name)
		}
		if strings.HasSuffix(sc.name, "%") && sc.loss <= .01 && tl.healable-tl.healed > 1+tl.healable/100 {
			t.Errorf("%s: %d of %d healed", sc.name, tl.healed, tl.healable)
		}
	}
}

func BenchmarkMerge(b *testing.B) {
	tr := &truth{data: generated(b, 6_000_000, 8*time.Second), perSec: 4000}
	for _, sc := range scenarios[:4] {
		b.Run(sc.name, func(b *testing.B) {
			na, nb := tr.receive(sc, rand.New(rand.NewPCG(1, 1)))
			x, y := tr.copy(na, false), tr.copy(nb, false)
			b.SetBytes(int64(len(x.Packets) + len(y.Packets)))
			for b.Loop() {
				salvage.Merge(x, y)
			}
		})
	}
}

func BenchmarkBlocks(b *testing.B) {
	c := &salvage.Copy{Packets: generated(b, 6_000_000, 8*time.Second)}
	b.SetBytes(int64(len(c.Packets)))
	for b.Loop() {
		salvage.Blocks(c)
	}
}
