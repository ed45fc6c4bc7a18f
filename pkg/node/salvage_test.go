package node_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/salvage"
	"github.com/twindvr/twindvr/pkg/segment"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

// reference are the segments that a receiver writes who loses nothing of a test
// stream, but for the first and the last.
func reference(t *testing.T, opt testsrc.Options, d time.Duration) (segs []m4f.Header) {
	g, err := testsrc.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	s := segment.New(segment.Config{TargetDuration: m4f.Ticks(d), Unpaced: true}, func(seg *m4f.Segment) {
		segs = append(segs, seg.Header)
	})
	if _, err := g.WriteTo(s); err != nil {
		t.Fatal(err)
	}
	s.Close()
	return segs[1 : len(segs)-1]
}

// lossyRelay passes datagrams on, but for those that it loses.
type lossyRelay struct {
	net.Conn
	random *rand.Rand
	n      int
	lost   map[int]bool
}

// lossRate is the share of datagrams that a lossyRelay loses.
const lossRate = 0.005

// Write passes on datagrams of seven packets, of which p has one or more.
func (l *lossyRelay) Write(p []byte) (int, error) {
	const datagram = 7 * salvage.PacketSize
	for at := 0; at < len(p); at += datagram {
		if l.n++; l.random.Float64() < lossRate {
			l.lost[l.n] = true
			continue
		}
		if _, err := l.Conn.Write(p[at:min(at+datagram, len(p))]); err != nil {
			return at, err
		}
	}
	return len(p), nil
}

// sendLossy sends a test stream in real time to some ports, each through a relay of
// its own, and returns at what times of the stream datagrams were lost on all.
func sendLossy(t *testing.T, opt testsrc.Options, rng *rand.Rand, ports ...int) (lostByAll []time.Duration, lost []int) {
	g, err := testsrc.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	var relays []*lossyRelay
	var outputs []*testsrc.Output
	for _, p := range ports {
		c, err := net.Dial("udp", fmt.Sprintf("127.0.0.1:%d", p))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		l := &lossyRelay{Conn: c, random: rand.New(rand.NewPCG(rng.Uint64(), 1)), lost: map[int]bool{}}
		relays = append(relays, l)
		outputs = append(outputs, testsrc.NewOutput(fmt.Sprint(p), l, testsrc.Loss{}))
	}
	if err := testsrc.Send(t.Context(), g, outputs, testsrc.SendOptions{}); err != nil {
		t.Fatal(err)
	}
	for n := range relays[0].lost {
		all := true
		for _, l := range relays {
			all = all && l.lost[n]
		}
		if all {
			lostByAll = append(lostByAll, opt.Duration*time.Duration(n)/time.Duration(relays[0].n))
		}
	}
	for _, l := range relays {
		lost = append(lost, len(l.lost))
	}
	return lostByAll, lost
}

// TestPairHealsPackets sends one source to two nodes, each with a loss of its own
// of 0.5 %: hardly a segment arrives whole at either, and where at least one of them
// received each datagram of a segment, it is clean on both a moment later.
func TestPairHealsPackets(t *testing.T) {
	t.Parallel()
	rng := seed(t)
	const d = 2 * time.Second
	opt := testsrc.Options{Bitrate: 3_000_000, StartPTS: testsrc.DefaultStartPTS, Duration: 20 * time.Second}
	ports := []int{freeUDP(t), freeUDP(t)}
	main, standby := newNode(t, "main", ""), newNode(t, "standby", "")
	main.configure(fmt.Sprintf(`http 127.0.0.1:%%PORT;
stream example_stream {
  url udp://127.0.0.1:%d;
  url m4f://127.0.0.1:%d/example_stream;
  dvr %%DIR 3d replicate;
  segment_duration 2s;
}
`, ports[0], standby.port))
	standby.configure(fmt.Sprintf(`http 127.0.0.1:%%PORT;
stream example_stream {
  url m4f://127.0.0.1:%d/example_stream;
  url udp://127.0.0.1:%d;
  dvr %%DIR 3d replicate;
  segment_duration 2s;
}
`, main.port, ports[1]))
	nodes := []*testNode{main, standby}
	for _, n := range nodes {
		n.up()
	}
	within(t, 20*time.Second, "both nodes follow each other", func() bool {
		for _, n := range nodes {
			if st := n.status(); st == nil || !st.Streams[0].Peers[0].Reachable {
				return false
			}
		}
		return true
	})
	lostByAll, lost := sendLossy(t, opt, rng, ports...)
	sent := map[m4f.Identity]bool{}
	var healable []m4f.Identity
	for _, h := range reference(t, opt, d) {
		sent[h.ID] = true
		from := m4f.Duration(h.MediaTime - opt.StartPTS)
		hit := slices.ContainsFunc(lostByAll, func(at time.Duration) bool {
			// A segment depends on the keyframe before it, and on what completes it.
			return at > from-2*d && at < from+d+time.Second
		})
		if !hit {
			healable = append(healable, h.ID)
		}
	}
	within(t, time.Minute, "what one of them received is clean on both", func() bool {
		for _, n := range nodes {
			got := cleanOf(t, n)
			if slices.ContainsFunc(healable, func(id m4f.Identity) bool { _, ok := got[id]; return !ok }) {
				return false
			}
		}
		return true
	})
	within(t, time.Minute, "diff-archive is silent in both directions", func() bool {
		_, _, ab := run(t, "diff-archive", main.stream(example), standby.stream(example))
		_, _, ba := run(t, "diff-archive", standby.stream(example), main.stream(example))
		return ab == 0 && ba == 0
	})
	t.Logf("%d and %d datagrams lost, %d of them on both; %d of %d segments can be healed", lost[0], lost[1], len(lostByAll), len(healable), len(sent))
	for _, n := range nodes {
		got := cleanOf(t, n)
		slowest := time.Duration(0)
		for id, after := range got {
			if !sent[id] {
				t.Errorf("%s: clean segment %s was never sent", n.name, id)
			}
			slowest = max(slowest, after)
		}
		s := n.status().Streams[0]
		p := s.Peers[0]
		t.Logf("%s: %d segments clean, each at most %v after its end; %d were damaged; mended %d with %d packets and %d bytes, fetched %d segments of %d bytes; %d bytes are recorded",
			n.name, len(got), slowest.Round(time.Millisecond), s.Inputs[0].Damaged+s.Inputs[1].Damaged,
			p.Mended, p.MendPackets, p.MendBytes, p.Segments, p.Bytes, s.Archive.Bytes)
		if p.Mended == 0 || p.MendPackets == 0 {
			t.Errorf("%s has mended nothing", n.name)
		}
	}
}

// cleanOf are the clean segments that a node shows, and how long after its end
// each came.
func cleanOf(t *testing.T, n *testNode) map[m4f.Identity]time.Duration {
	t.Helper()
	out := map[m4f.Identity]time.Duration{}
	a, err := archive.Open(n.stream(example))
	if err != nil {
		return out
	}
	els, err := a.Span(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range els {
		if e.Clean() {
			out[e.ID] = time.UnixMilli(e.Arrived).Sub(e.End().Time())
		}
	}
	return out
}
