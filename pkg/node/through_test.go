package node_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/segment"
	"github.com/twindvr/twindvr/pkg/testkit"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

// recorded is a recording of a length that began at a time.
func recorded(t *testing.T, began time.Time, length time.Duration) (segs []*m4f.Segment) {
	t.Helper()
	g, err := testsrc.New(testsrc.Options{StartPTS: 90000, Duration: length})
	if err != nil {
		t.Fatal(err)
	}
	s := segment.New(segment.Config{TargetDuration: 4 * m4f.Timescale, Clock: clock.System, Unpaced: true, Start: m4f.UTCOf(began)},
		func(seg *m4f.Segment) { segs = append(segs, seg) })
	if _, err := g.WriteTo(s); err != nil {
		t.Fatal(err)
	}
	s.Close()
	return segs
}

// fillStream puts segments into the archive of a node that is down.
func fillStream(t *testing.T, n *testNode, segs []*m4f.Segment) {
	t.Helper()
	a, err := archive.Create(n.stream(example), "", archive.CreateOptions{TargetDuration: 4 * m4f.Timescale})
	if err != nil {
		t.Fatal(err)
	}
	w := a.Writer(archive.Live, 0, archive.WriterOptions{Sync: archive.SyncOff})
	for _, s := range segs {
		if err := w.Append(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestPlayedIsFetched: a node that lacks what is played, all of it since it has
// just joined, or some since it was lost, fetches that from its peer while it
// plays, and keeps it. It fetches nothing else: it does not replicate.
func TestPlayedIsFetched(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "ffprobe")
	const length = 4 * time.Minute
	began := time.Now().Add(-50 * time.Minute).Truncate(time.Second)
	segs := recorded(t, began, length)
	peer := newNode(t, "peer", fmt.Sprintf("http 127.0.0.1:%%PORT;\nstream %s { url %s; dvr %%DIR 3d; }\n", example, multicast()))
	fillStream(t, peer, segs)
	peer.up()
	joined := newNode(t, "joined", "")
	lost := newNode(t, "lost", "")
	fillStream(t, lost, segs[:20])
	fillStream(t, lost, segs[50:])
	saved := newNode(t, "saved", "")
	want, _ := export(t, peer.stream(example), 0, 0)
	for _, n := range []*testNode{joined, lost, saved} {
		n.configure(fmt.Sprintf("http 127.0.0.1:%%PORT;\nstream %s { url m4f://127.0.0.1:%d/%s; dvr %%DIR 3d; }\n", example, peer.port, example))
		n.up()
	}
	for _, n := range []*testNode{joined, lost, saved} {
		t.Run(n.name, func(t *testing.T) {
			within(t, 30*time.Second, "the peer is reached", func() bool {
				st := n.status()
				return st != nil && len(st.Streams) == 1 && len(st.Streams[0].Peers) == 1 && st.Streams[0].Peers[0].Reachable
			})
			url := fmt.Sprintf("http://127.0.0.1:%d/%s/archive-%d-%d", n.port, example, began.Unix(), int(length.Seconds()))
			download := func() {
				if got := fetch(t, url+".mp4"); !bytes.Equal(got, want) {
					t.Errorf("a download has %d bytes, an export of the peer %d, or others", len(got), len(want))
				}
			}
			if n == saved {
				download()
			}
			// Many viewers of the middle at once.
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					countFrames(t, fmt.Sprintf("http://127.0.0.1:%d/%s/archive-%d-40.m3u8", n.port, example, began.Unix()+100), 1000)
				})
			}
			wg.Wait()
			countFrames(t, url+".m3u8", int(length.Seconds())*25)
			have, err := archive.Open(n.stream(example))
			if err != nil {
				t.Fatal(err)
			}
			els, err := have.Span(0, 0)
			if err != nil || len(els) != len(segs) {
				t.Fatalf("%d segments, want %d (%v)", len(els), len(segs), err)
			}
			for i := range els {
				if els[i].ID != segs[i].Header.ID {
					t.Fatalf("segment %d is another", i)
				}
				if _, err := have.ReadElement(&els[i]); err != nil {
					t.Error(err)
				}
			}
			if recs := recordsOf(t, have); recs != len(segs) {
				t.Errorf("%d segments are stored, want %d: some were fetched twice", recs, len(segs))
			}
			download()
		})
	}
}

// recordsOf counts what an archive stores, superseded or not.
func recordsOf(t *testing.T, a *archive.Stream) int {
	t.Helper()
	n := 0
	out, errs, status := run(t, "verify", a.Dir(), "--json")
	for _, line := range strings.Split(out, "\n") {
		if i := strings.Index(line, `"segments":`); i >= 0 {
			fmt.Sscanf(line[i:], `"segments":%d`, &n)
		}
	}
	if status != 0 {
		t.Errorf("verify: exit status %d: %s", status, errs)
	}
	return n
}

// countFrames may be called by any goroutine of a test.
func countFrames(t *testing.T, url string, want int) {
	t.Helper()
	var errs bytes.Buffer
	cmd := exec.Command("ffprobe", "-v", "error", "-count_packets", "-select_streams", "v:0", "-show_entries", "stream=nb_read_packets", "-of", "csv=p=0", url)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	got := strings.Trim(strings.Split(strings.TrimSpace(string(out)), "\n")[0], ",")
	if err != nil || errs.Len() > 0 || got != fmt.Sprint(want) {
		t.Errorf("%s: %s frames, want %d; %v %s", url, got, want, err, errs.String())
	}
}

// fetch is all of what is at an address.
func fetch(t *testing.T, url string) []byte {
	t.Helper()
	code, body, head := testkit.Ask(t, http.MethodGet, url)
	if n := head.Get("Content-Length"); code != http.StatusOK || n != fmt.Sprint(len(body)) {
		t.Fatalf("%s: %d, %d of %s bytes %.200s", url, code, len(body), n, body)
	}
	return []byte(body)
}

// TestPeerHangs: what a node lacks is not said to be nowhere while its peer takes
// connections and does not answer.
func TestPeerHangs(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	began := time.Now().Add(-50 * time.Minute).Truncate(time.Second)
	n := newNode(t, "n", "")
	fillStream(t, n, recorded(t, began, 20*time.Second))
	n.configure(fmt.Sprintf("http 127.0.0.1:%%PORT;\nstream %s { url m4f://%s/%s; dvr %%DIR 3d; }\n", example, l.Addr(), example))
	n.up()
	within(t, 30*time.Second, "the stream is there", func() bool {
		st := n.status()
		return st != nil && len(st.Streams) == 1
	})
	for after, want := range map[int64]int{0: http.StatusOK, 600: http.StatusServiceUnavailable} {
		url := fmt.Sprintf("http://127.0.0.1:%d/%s/archive-%d-20.mp4", n.port, example, began.Unix()+after)
		if code, body, _ := testkit.Ask(t, http.MethodGet, url); code != want {
			t.Errorf("%d s after the beginning: %d, %d bytes, want %d", after, code, len(body), want)
		}
	}
}
