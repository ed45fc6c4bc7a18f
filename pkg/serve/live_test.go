package serve

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/testkit"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

// twin is a node whose peer has more than it has.
type twin struct {
	fake
	mu    sync.Mutex
	peer  []*m4f.Segment
	heals int
	add   func(*m4f.Segment)
}

func (n *twin) Offered(_ context.Context, _ string, from, to m4f.UTC) ([]archive.Record, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []archive.Record
	for _, s := range n.peer {
		if s.Header.End() > from && s.Header.UTC < to {
			out = append(out, archive.Record{Header: s.Header})
		}
	}
	return out, nil
}

func (n *twin) Heal(_ context.Context, _ string, from, to m4f.UTC) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.peer {
		if s.Header.End() > from && s.Header.UTC < to {
			n.add(s)
			n.heals++
		}
	}
	return nil
}

// stage is a node whose archive a test writes to as it goes, and asks without a
// network.
type stage struct {
	h      *Handler
	stream *archive.Stream
	clock  *clock.Sim
}

func newStage(t testing.TB, dir string, peer []*m4f.Segment) (*stage, *twin) {
	sim := clock.NewSim(begins)
	s, err := archive.Create(filepath.Join(dir, "example"), "", archive.Options{Clock: sim})
	if err != nil {
		t.Fatal(err)
	}
	x := &stage{stream: s, clock: sim}
	n := &twin{fake: fake{m4fhttp.NewRoot(dir)}, peer: peer, add: func(s *m4f.Segment) { x.add(t, archive.Healed, s.Header, s) }}
	var node Node = n
	if peer == nil {
		node = n.fake
	}
	x.h = handlerOf(node)
	x.h.play.clock = x.clock
	return x, n
}

func (x *stage) add(t testing.TB, o archive.Origin, head m4f.Header, s *m4f.Segment) {
	w := x.stream.Writer(o, 0, archive.WriterOptions{Sync: archive.SyncOff})
	if err := w.Append(&m4f.Segment{Header: head, Init: s.Init, Media: s.Media}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func (x *stage) get(path string) (int, string) {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.RemoteAddr, r.Host = "127.0.0.1:5", "localhost"
	w := httptest.NewRecorder()
	x.h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// line is an entry as a player sees it.
type line struct {
	uri, length, date, init string
	broken                  int64 // its discontinuity sequence number
}

// lines reads a media playlist.
func lines(t testing.TB, text string) (entries map[int64]line, first int64, target string) {
	entries = map[int64]line{}
	var e line
	var n, breaks int64
	for l := range strings.Lines(text) {
		l = strings.TrimSuffix(l, "\n")
		name, value, _ := strings.Cut(l, ":")
		switch {
		case name == "#EXT-X-TARGETDURATION":
			target = value
		case name == "#EXT-X-MEDIA-SEQUENCE":
			n, _ = strconv.ParseInt(value, 10, 64)
			first = n
		case name == "#EXT-X-DISCONTINUITY-SEQUENCE":
			breaks, _ = strconv.ParseInt(value, 10, 64)
		case name == "#EXT-X-DISCONTINUITY":
			breaks++
		case name == "#EXT-X-MAP":
			e.init = value
		case name == "#EXT-X-PROGRAM-DATE-TIME":
			e.date = value
		case name == "#EXTINF":
			e.length = value
		case l != "" && l[0] != '#':
			e.uri, e.broken = l, breaks
			entries[n] = e
			n++
			e.date = ""
		}
	}
	return entries, first, target
}

// TestPublishedStays: whatever comes, late, twice, damaged or dated otherwise, an
// entry that was listed once is listed again with the same number, as long as it
// has not slid out, and can be played.
func TestPublishedStays(t *testing.T) {
	segs := cutUp(testkit.Stream(t, testsrc.Options{StartPTS: m4f.Wrap - 50*m4f.Timescale, Duration: 120 * time.Second, RestartEvery: 33 * time.Second}), 2*time.Second, 0)
	testkit.FewerChecks(t, 5)
	root := t.TempDir()
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		var peer []*m4f.Segment
		if rapid.Bool().Draw(rt, "twin") {
			peer = segs
		}
		x, n := newStage(t, filepath.Join(root, fmt.Sprint(run)), peer)
		growing := fmt.Sprintf("archive-%d-now", begins.Unix()-1)
		seen := map[string]map[int64]line{}
		last, targets := map[string]int64{}, map[string]string{}
		look := func() {
			for _, name := range []string{"index", "rewind-60", growing, "timeshift_rel-20"} {
				code, text := x.get("/example/hls/va/" + name + ".m3u8")
				if code == http.StatusNotFound && seen[name] == nil {
					continue
				}
				if code != http.StatusOK {
					rt.Fatalf("%s: %d %s", name, code, text)
				}
				entries, first, target := lines(t, text)
				if seen[name] == nil {
					seen[name], targets[name] = map[int64]line{}, target
				}
				if first < last[name] || target != targets[name] {
					rt.Fatalf("%s: number %d after %d, target duration %s after %s", name, first, last[name], target, targets[name])
				}
				last[name] = first
				for k, e := range entries {
					if before, ok := seen[name][k]; ok && before != e {
						rt.Fatalf("%s: entry %d was %+v, is %+v", name, k, before, e)
					}
					seen[name][k] = e
				}
			}
		}
		live, waiting := 0, []int{}
		for range rapid.IntRange(8, 32).Draw(rt, "steps") {
			switch rapid.IntRange(0, 9).Draw(rt, "what") {
			case 0: // lost, for now
				if live < len(segs) {
					waiting = append(waiting, live)
					x.clock.Advance(m4f.Duration(int64(segs[live].Header.Duration)))
					live++
				}
			case 1, 2: // healed
				if len(waiting) > 0 {
					i := rapid.IntRange(0, len(waiting)-1).Draw(rt, "which")
					h := segs[waiting[i]].Header
					h.UTC = h.UTC.Add(int64(rapid.IntRange(-9000, 9000).Draw(rt, "dated")))
					x.add(t, archive.Healed, h, segs[waiting[i]])
					waiting = append(waiting[:i], waiting[i+1:]...)
				}
			default:
				if live < len(segs) {
					h := segs[live].Header
					x.clock.Advance(m4f.Duration(int64(h.Duration)))
					if rapid.IntRange(0, 4).Draw(rt, "damage") == 0 {
						h.Flags |= m4f.Damaged
						h.Lost = 3
						waiting = append(waiting, live)
					}
					x.add(t, archive.Live, h, segs[live])
					live++
				}
			}
			if rapid.Bool().Draw(rt, "look") {
				look()
			}
		}
		x.clock.Advance(10 * time.Second)
		look()
		checkPlayed(rt, x, seen, rand.New(rand.NewPCG(1, uint64(run))), peer != nil)
		if peer != nil && n.heals > len(segs)*4 {
			rt.Fatalf("%d heals of %d segments", n.heals, len(segs))
		}
	})
}

// checkPlayed wants that every entry which was ever listed can be played, and that
// a list which keeps its entries shows no picture twice, and where a peer has all
// of them, each of them.
func checkPlayed(t *rapid.T, x *stage, seen map[string]map[int64]line, r *rand.Rand, all bool) {
	for name, entries := range seen {
		pictures := map[uint64]int{}
		for _, e := range entries {
			if name != "index" && !strings.HasSuffix(name, "now") && r.IntN(4) > 0 {
				continue
			}
			code, body := x.get("/example/hls/va/" + e.uri)
			if code != http.StatusOK {
				t.Fatalf("%s: %s: %d %s", name, e.uri, code, body)
			}
			for _, n := range testsrc.FrameNumbers([]byte(body)) {
				if pictures[n]++; pictures[n] > 1 {
					t.Fatalf("%s: picture %d is in two entries, the second is %s", name, n, e.uri)
				}
			}
		}
		if all && strings.HasSuffix(name, "now") {
			for n := range pictures {
				if pictures[n+1] == 0 && uint64(len(pictures)) > n+1 {
					t.Fatalf("%s: picture %d is lacking", name, n+1)
				}
			}
		}
	}
}

// TestSpanEnds: whoever followed a span as it grew finds it ended with what it had,
// and whoever comes later what has been healed since.
func TestSpanEnds(t *testing.T) {
	segs := recorded(t, 32*time.Second, 4*time.Second)
	x, _ := newStage(t, t.TempDir(), nil)
	name := "/example/hls/v/" + spanName(0, 20, ".m3u8")
	entries := func() (n int, ended bool) {
		_, text := x.get(name)
		return strings.Count(text, "#EXTINF"), strings.Contains(text, "#EXT-X-ENDLIST")
	}
	for i, s := range segs {
		x.clock.Advance(4 * time.Second)
		if i == 1 {
			continue
		}
		x.add(t, archive.Live, s.Header, s)
		if i == 3 {
			if n, ended := entries(); n != 3 || ended {
				t.Errorf("%d entries, ended %v", n, ended)
			}
			x.add(t, archive.Healed, segs[1].Header, segs[1])
		}
	}
	if n, ended := entries(); n != 4 || !ended {
		t.Errorf("at the end %d entries, ended %v", n, ended)
	}
	x.clock.Advance(time.Hour)
	if n, ended := entries(); n != 5 || !ended {
		t.Errorf("an hour later %d entries, ended %v", n, ended)
	}
}

// TestTwinsCountAlike: nodes that were asked first at different times number the
// same entry nearly alike, also where keyframes are rarer than the target duration.
func TestTwinsCountAlike(t *testing.T) {
	testkit.Need(t, "ffmpeg")
	for name, ts := range map[string][]byte{
		"a keyframe each 2 s":  testkit.Stream(t, testsrc.Options{StartPTS: 90000, Duration: 90 * time.Second}),
		"a keyframe each 10 s": encoded(t, "-f lavfi -i testsrc2=s=96x64:r=25:d=90 -c:v libx264 -preset ultrafast -g 250 -keyint_min 250 -sc_threshold 0"),
	} {
		t.Run(name, func(t *testing.T) {
			segs := cutUp(ts, 4*time.Second, 0)
			dir := t.TempDir()
			x, _ := newStage(t, dir, nil)
			second := &stage{h: handlerOf(fake{m4fhttp.NewRoot(dir)})}
			second.h.play.clock = x.clock
			list := func(x *stage) map[string]int64 {
				code, text := x.get("/example/hls/v/index.m3u8")
				if code != http.StatusOK {
					t.Fatal(text)
				}
				entries, _, _ := lines(t, text)
				numbers := map[string]int64{}
				for n, e := range entries {
					numbers[e.uri] = n
				}
				return numbers
			}
			for i, s := range segs {
				x.clock.Advance(m4f.Duration(int64(s.Header.Duration)))
				x.add(t, archive.Live, s.Header, s)
				if i >= len(segs)/3 {
					list(x)
				}
			}
			one, both := list(x), 0
			for uri, n := range list(second) {
				if m, ok := one[uri]; ok {
					both++
					if n-m > 1 || m-n > 1 {
						t.Errorf("%s is number %d on one node, %d on the other", uri, m, n)
					}
				}
			}
			if both == 0 {
				t.Error("the nodes list nothing in common")
			}
		})
	}
}
