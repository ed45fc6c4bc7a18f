package node_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/segment"
	"github.com/twindvr/twindvr/pkg/serve"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

// reference are the identities that a receiver writes who loses nothing of a
// test stream.
func reference(t *testing.T, bitrate int64, d, length time.Duration) map[m4f.Identity]bool {
	g, err := testsrc.New(testsrc.Options{Bitrate: bitrate, StartPTS: testsrc.DefaultStartPTS, Duration: length})
	if err != nil {
		t.Fatal(err)
	}
	ids := map[m4f.Identity]bool{}
	s := segment.New(segment.Config{TargetDuration: m4f.Ticks(d), Unpaced: true}, func(seg *m4f.Segment) {
		if !seg.Header.Damaged() {
			ids[seg.Header.ID] = true
		}
	})
	if _, err := g.WriteTo(s); err != nil {
		t.Fatal(err)
	}
	s.Close()
	return ids
}

// TestPairHealsPackets sends one source to two nodes, each with a loss of its own
// of 0.5 %: hardly a segment arrives whole at either, and what at least one of
// them has of each datagram is clean on both a moment later.
func TestPairHealsPackets(t *testing.T) {
	t.Parallel()
	const bitrate, d, length = 3_000_000, 2 * time.Second, 26 * time.Second
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
	main.up()
	standby.up()
	nodes := []*testNode{main, standby}
	within(t, 20*time.Second, "both nodes follow each other", func() bool {
		for _, n := range nodes {
			if st := n.status(); st == nil || !st.Streams[0].Peers[0].Reachable {
				return false
			}
		}
		return true
	})
	start(t, "source", "testsrc", "--bitrate", fmt.Sprint(bitrate), "--duration", length.String(),
		fmt.Sprintf("udp://127.0.0.1:%d?loss=0.5%%&seed=3", ports[0]), fmt.Sprintf("udp://127.0.0.1:%d?loss=0.5%%&seed=4", ports[1]))
	ref := reference(t, bitrate, d, length)
	whole := len(ref) - 1 // the first begins before any audio is known to have

	within(t, time.Minute, "what was sent is clean on both", func() bool {
		for _, n := range nodes {
			if len(cleanOf(t, n)) < whole*9/10 {
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
	for _, n := range nodes {
		got := cleanOf(t, n)
		slowest := time.Duration(0)
		for id, after := range got {
			if !ref[id] {
				t.Errorf("%s: clean segment %s was never sent", n.name, id)
			}
			slowest = max(slowest, after)
		}
		s := n.status().Streams[0]
		p := s.Peers[0]
		t.Logf("%s: %d of %d segments clean, the last of them %v after its end; input lost %d packets, %d of %d segments damaged; mended %d with %d packets and %d bytes, fetched %d segments of %d bytes of %d recorded",
			n.name, len(got), whole, slowest.Round(time.Millisecond), inputLost(s.Inputs), s.Inputs[0].Damaged+s.Inputs[1].Damaged, s.Inputs[0].Segments+s.Inputs[1].Segments,
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

func inputLost(in []serve.InputStatus) (n int64) {
	for i := range in {
		n += in[i].Lost
	}
	return n
}
