package node_test

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// metrics asks the node for its metrics; empty: it does not answer.
func (n *testNode) metrics() string {
	c := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", n.port))
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return ""
	}
	return string(b)
}

// value is that of the first series that begins so; false: there is none.
func value(text, series string) (float64, bool) {
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + `[^ ]* (\S+)$`).FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	v, err := strconv.ParseFloat(m[1], 64)
	return v, err == nil
}

// The metrics of two nodes, of which one hears the source and the other records from
// it, tell what happens.
func TestMetrics(t *testing.T) {
	t.Parallel()
	source := multicast()
	a := newNode(t, "a", fmt.Sprintf("http 127.0.0.1:%%PORT; stream x { url %s; dvr %%DIR 1d; segment_duration 1s; }", source))
	b := newNode(t, "b", fmt.Sprintf("http 127.0.0.1:%%PORT; stream x { url m4f://127.0.0.1:%d/x; dvr %%DIR 1d replicate; segment_duration 1s; }", a.port))
	start(t, "source", "testsrc", source)
	a.up()
	b.up()
	above := func(n *testNode, series string, least float64) {
		t.Helper()
		within(t, time.Minute, fmt.Sprintf("%s of %s is above %v", series, n.name, least), func() bool {
			v, ok := value(n.metrics(), series)
			return ok && v > least
		})
	}
	above(a, `twindvr_archive_added_bytes_total{origin="live",stream="x"}`, 0)
	above(a, `twindvr_archive_write_duration_seconds_count{volume="`+a.dir+`"}`, 2)
	above(a, `twindvr_archive_sync_duration_seconds_count{volume="`+a.dir+`"}`, 1)
	above(a, `twindvr_input_packets_total{input="udp://`, 100)
	above(a, `twindvr_http_requests_total{code="200",kind="metrics",method="get"}`, 1)
	above(b, `twindvr_peer_up{peer="m4f://`, 0)
	above(b, `twindvr_peer_fetched_bytes_total{peer="m4f://`, 0)
	above(b, `twindvr_peer_traffic_bytes_total{direction="in",peer="m4f://`, 0)
	text := a.metrics()
	for series, want := range map[string]float64{
		`twindvr_stream_switches_total{stream="x"}`: 1, `twindvr_events_total{kind="switch",stream="x"}`: 1,
		`twindvr_stream_mode{mode="normal",stream="x"}`: 1, `twindvr_archive_writable{stream="x"}`: 1, `twindvr_input_lost_packets_total{`: 0,
	} {
		if v, ok := value(text, series); !ok || v != want {
			t.Errorf("%s is %v (told: %v), want %v", series, v, ok, want)
		}
	}
	if v, ok := value(b.metrics(), `twindvr_peer_clock_offset_seconds{`); !ok || v < -30 || v > 30 {
		t.Errorf("the clocks of one machine differ by %v s (told: %v)", v, ok)
	}
	if strings.Contains(text, "An error has occurred") {
		t.Error(text)
	}
}
