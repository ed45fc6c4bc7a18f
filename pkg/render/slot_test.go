package render

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/Eyevinn/mp4ff/mp4"
	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/testkit"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

// playedSample is a sample as a player gets it.
type playedSample struct {
	pid  uint16
	data string
}

// slotSamples is what a player gets of slots, asked for one by one.
func slotSamples(t rapid.TB, m *memory, c Choice, slots []Slot) []playedSample {
	movies := map[m4f.Identity]*Movie{}
	load := func(e *archive.Element) (*Layout, error) {
		s := m.segs[e.ID]
		if movies[e.Init] == nil {
			movie, err := NewMovie(s.Init)
			if err != nil {
				return nil, err
			}
			movies[e.Init] = movie
		}
		return ReadLayout(movies[e.Init], &s.Header, bytes.NewReader(s.Media))
	}
	var out []playedSample
	for _, s := range slots {
		from, to := s.Around()
		view, err := m.Span(from, to)
		if err != nil {
			t.Fatal(err)
		}
		frags, err := Fragments(c, nil, s.Cuts(view), load)
		if err != nil {
			t.Fatal(err)
		}
		for i := range frags {
			out = append(out, fragmentSamples(t, m, movies, c, &frags[i])...)
		}
	}
	return out
}

// fragmentSamples reads one fragment as it is sent.
func fragmentSamples(t rapid.TB, m *memory, movies map[m4f.Identity]*Movie, c Choice, f *Fragment) []playedSample {
	s := m.segs[f.Element.ID]
	b := slices.Clone(f.Header)
	for _, r := range f.Ranges {
		b = append(b, s.Media[r.Off:r.Off+r.Len]...)
	}
	if int64(len(b)) != f.Size() {
		t.Fatalf("%d bytes, told are %d", len(b), f.Size())
	}
	init := movies[f.Element.Init].init
	var out []playedSample
	sent, err := mp4.DecodeFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for _, traf := range sent.Segments[0].Fragments[0].Moof.Trafs {
		pid := init.Tracks[c.tracks(init)[traf.Tfhd.TrackID-1]].Config.PID
		at := uint32(traf.Trun.DataOffset)
		for _, s := range traf.Trun.Samples {
			out = append(out, playedSample{pid, string(b[at : at+s.Size])})
			at += s.Size
		}
	}
	return out
}

// exportSamples is what an export of everything holds, pictures and sounds.
func exportSamples(t testing.TB, m *memory) map[uint16][]string {
	b, _ := exportBytes(t, m, Options{})
	out := map[uint16][]string{}
	for i, track := range readExport(t, b) {
		for _, s := range track {
			out[uint16(i)] = append(out[uint16(i)], s.data)
		}
	}
	return out
}

// recorders is an archive of several recorders of one stream: one may lack segments, one
// may have lost packets, one has joined late. Some of what they wrote is there.
func recorders(r *rand.Rand, ts []byte) *memory {
	const packet = 188
	m := newMemory()
	for range 1 + r.IntN(3) {
		b := bytes.Clone(ts)
		b = b[r.IntN(len(b)/packet/2)*packet:]
		for range r.IntN(3) {
			at := r.IntN(len(b)/packet) * packet
			b = append(b[:at:at], b[min(at+packet*(1+r.IntN(20)), len(b)):]...)
		}
		b = b[:len(b)-r.IntN(len(b)/packet/3)*packet]
		for _, s := range record(b, 2*second) {
			if r.IntN(6) > 0 {
				h := s.Header
				h.UTC = start.Add(m4f.Diff33(h.MediaTime, 90000)).Add(int64(r.IntN(450)))
				m.add(s, h)
			}
		}
	}
	return m
}

// TestSlotsShowAllOnce: slots that lie end to end, wherever their edges are, show
// every sample of the view once, in its order, as an export does.
func TestSlotsShowAllOnce(t *testing.T) {
	ts := testkit.Stream(t, testsrc.Options{StartPTS: 90000, Duration: 12 * second})
	seed := uint64(0)
	rapid.Check(t, func(rt *rapid.T) {
		seed++
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), seed))
		m := recorders(r, ts)
		if len(m.recs) == 0 {
			return
		}
		from, to, _ := m.Bounds()
		edges := []int64{floorMS(from) - 1000, floorMS(to) + 1000}
		for range r.IntN(12) {
			edges = append(edges, edges[0]+r.Int64N(edges[1]-edges[0]))
		}
		slices.Sort(edges)
		var slots []Slot
		for i := range edges[1:] {
			slots = append(slots, Slot{edges[i], edges[i+1]})
		}
		want := exportSamples(t, m)
		got := map[uint16][]string{}
		for _, s := range slotSamples(rt, m, Muxed, slots) {
			got[s.pid] = append(got[s.pid], s.data)
		}
		n := uint16(0)
		for _, pid := range slices.Sorted(maps.Keys(got)) {
			if !slices.Equal(got[pid], want[n]) {
				rt.Fatalf("PID %d: %d samples in slots, %d in the export; they differ from number %d on", pid, len(got[pid]), len(want[n]), differ(got[pid], want[n]))
			}
			n++
		}
		if int(n) != len(want) {
			rt.Fatalf("%d tracks of %d", n, len(want))
		}
	})
}

func differ(a, b []string) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
