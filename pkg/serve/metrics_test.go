package serve

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/testkit"
)

// told is a node whose status is given.
type told struct {
	*m4fhttp.Root
	status NodeStatus
}

func (t told) Status() NodeStatus { return t.status }

// busy is the status of a node with n streams that has something to tell of
// everything.
func busy(n int) NodeStatus {
	at, days, sec := time.UnixMilli(1_700_000_000_500), 2.5, 12.5
	st := NodeStatus{Version: "v1", Healthy: false, Sources: []SourceStatus{{URL: "m4f://c:8081", Reachable: true, Listed: 3, Streams: []string{"a"}}}}
	for i := range n {
		s := StreamStatus{Name: fmt.Sprintf("sport/hd%d", i), Mode: Emergency, Unreplicated: true}
		s.Archive = ArchiveStatus{
			Dir: "/storage", Depth: 3600, Reached: 60, GapSeconds: 8.5, Gaps: 2, DamagedSeconds: 4, Damaged: 1, Partial: 1, Segments: 100, Bytes: 1 << 40,
			BytesPerSec: 1e6, Oldest: &at, Newest: &at, Kept: 1, SizeLimit: 1 << 30, Volume: "/storage", DiskSize: 1 << 41, DiskFree: 1 << 40, MinFree: 1 << 30,
			DaysUntilFull: &days, Verify: VerifyStatus{Ended: &at, Due: &at, Bad: 1, SetAside: 5, Error: "x"}, Salvage: SalvageStatus{Entries: 1, Bytes: 2, Limit: 3, Kept: 4, Dropped: 5},
		}
		for j := range 2 {
			s.Inputs = append(s.Inputs, InputStatus{URL: fmt.Sprintf("udp://239.0.0.%d:%d", i, j), State: "good", Active: j == 0, Packets: 1 << 40, Lost: 7, Dropped: 3, LastData: &at})
		}
		s.Inputs = append(s.Inputs, InputStatus{URL: "m4f://b:8081/x", State: "silent", Bytes: 9, Segments: 3})
		peer := PeerStatus{URL: "m4f://b:8081/x", Reachable: true, Replicates: true, Heard: &at, Pending: 4, Lag: 1.5, Backlog: 77, ETA: &sec, TrafficIn: 1, TrafficOut: 2, ClockOffset: &sec}
		s.Peers = []PeerStatus{peer, peer} // the same twice, as where replication has a port that is another input's
		st.Streams = append(st.Streams, s)
	}
	return st
}

func metricsHandler(t testing.TB, st NodeStatus) *Handler {
	return handlerOf(told{m4fhttp.NewRoot(t.TempDir()), st})
}

// scrape asks for the metrics as Prometheus on the same machine does.
func scrape(t testing.TB, h http.Handler) string {
	t.Helper()
	r := httptest.NewRequest("GET", "/metrics", nil)
	r.RemoteAddr, r.Host = "127.0.0.1:5", "127.0.0.1:8081"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestMetrics(t *testing.T) {
	st := busy(1)
	st.Streams = append(st.Streams, StreamStatus{Name: "old", Retired: true, Healthy: true})
	h := metricsHandler(t, st)
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/nothing/x.mpd", nil))
	text := scrape(t, h)
	for _, want := range []string{
		`twindvr_healthy 0`,
		`twindvr_stream_mode{mode="emergency",stream="sport/hd0"} 1`,
		`twindvr_stream_mode{mode="normal",stream="sport/hd0"} 0`,
		`twindvr_stream_unreplicated{stream="sport/hd0"} 1`,
		`twindvr_stream_retired{stream="old"} 1`,
		`twindvr_archive_missing_seconds{stream="sport/hd0"} 8.5`,
		`twindvr_archive_damaged_seconds{stream="sport/hd0"} 4`,
		`twindvr_archive_newest_timestamp_seconds{stream="sport/hd0"} 1.7000000005e+09`,
		`twindvr_volume_full_in_seconds{volume="/storage"} 216000`,
		`twindvr_volume_free_bytes{volume="/storage"} 1.099511627776e+12`,
		`twindvr_input_active{input="udp://239.0.0.0:0",stream="sport/hd0"} 1`,
		`twindvr_input_lost_packets_total{input="udp://239.0.0.0:1",stream="sport/hd0"} 7`,
		`twindvr_peer_lag_seconds{peer="m4f://b:8081/x",stream="sport/hd0"} 1.5`,
		`twindvr_peer_lag_seconds{peer="m4f://b:8081/x #2",stream="sport/hd0"} 1.5`,
		`twindvr_peer_clock_offset_seconds{peer="m4f://b:8081/x",stream="sport/hd0"} 12.5`,
		`twindvr_peer_traffic_bytes_total{direction="out",peer="m4f://b:8081/x",stream="sport/hd0"} 2`,
		`twindvr_verify_set_aside_segments_total{stream="sport/hd0"} 5`,
		`twindvr_source_taken_streams{source="m4f://c:8081"} 1`,
		`twindvr_http_requests_total{code="403",kind="playlist",method="get"} 1`,
		`process_start_time_seconds `, `go_goroutines `,
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("%s is missing", want)
		}
	}
	for _, not := range []string{`twindvr_stream_mode{mode="normal",stream="old"}`, `twindvr_input_packets_total{input="m4f:`, "An error has occurred"} {
		if strings.Contains(text, not) {
			t.Errorf("%s is there", not)
		}
	}
	for _, f := range families {
		if !strings.Contains(text, "\n"+f.name) {
			t.Errorf("%s is never told", f.name)
		}
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	if t.Failed() {
		t.Log(text)
	}
}

// TestScrapeGoesAway: who closes the connection is no trouble of the node's.
func TestScrapeGoesAway(t *testing.T) {
	var log testkit.Log
	l := promLog{log.Logger()}
	l.Println("error encoding and sending metric family: ", &net.OpError{Op: "write", Err: syscall.EPIPE})
	if log.String() != "" {
		t.Error(log.String())
	}
	if l.Println("error gathering metrics: ", errors.New("wrong")); !strings.Contains(log.String(), "err=wrong") {
		t.Error(log.String())
	}
}

// Metrics are for the machine itself, as the API is.
func TestMetricsAreGuarded(t *testing.T) {
	h := metricsHandler(t, busy(1))
	r := httptest.NewRequest("GET", "/metrics", nil)
	r.RemoteAddr, r.Host = "192.0.2.7:5", "127.0.0.1:8081"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusForbidden || strings.Contains(w.Body.String(), "sport") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// What counts requests does not take from a connection what sends files without
// copying them, nor what sets its deadlines.
func TestMeasuredKeepsTheConnection(t *testing.T) {
	h := metricsHandler(t, NodeStatus{})
	file := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(file, bytes.Repeat([]byte("x"), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var reads bool
	srv := httptest.NewServer(h.metrics.measured(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, reads = w.(io.ReaderFrom)
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Error(err)
		}
		http.ServeFile(w, r, file)
	})))
	defer srv.Close()
	res, err := srv.Client().Get(srv.URL + "/stream/clip.mp4")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if n, err := io.Copy(io.Discard, res.Body); n != 1<<20 || err != nil || !reads {
		t.Errorf("%d bytes, %v; sends files: %v", n, err, reads)
	}
	srv.Close() // it waits for what is under way
	if text := scrape(t, h); !strings.Contains(text, `twindvr_http_response_size_bytes_sum{kind="media"} 1.048576e+06`) {
		t.Error(text)
	}
}

func BenchmarkMetrics(b *testing.B) {
	h := metricsHandler(b, busy(250))
	b.ReportMetric(float64(len(scrape(b, h))), "bytes")
	for b.Loop() {
		scrape(b, h)
	}
}
