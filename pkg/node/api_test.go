package node_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/serve"
)

// curl asks the API of a node and decodes the answer.
func (n *testNode) curl(into any, path string, args ...string) (status int) {
	n.t.Helper()
	args = append(args, "-sS", "-w", "\n%{http_code}", fmt.Sprintf("http://127.0.0.1:%d/api/v1/%s", n.port, path))
	out, err := exec.Command("curl", args...).Output()
	if err != nil {
		n.t.Fatalf("curl %q: %v", args, err)
	}
	at := strings.LastIndexByte(string(out), '\n')
	fmt.Sscan(string(out[at+1:]), &status)
	if body := out[:at]; into != nil && len(body) > 0 {
		if err := json.Unmarshal(body, into); err != nil {
			n.t.Fatalf("%s: %d %s", path, status, body)
		}
	}
	return status
}

// post is curl with a JSON body.
func (n *testNode) post(into any, path, body string) int {
	n.t.Helper()
	return n.curl(into, path, "-H", "Content-Type: application/json", "-d", body)
}

// The API of a node that lacks what its peer has: it shows what is missing and who
// has it, has it fetched, and tells of both.
func TestAPI(t *testing.T) {
	t.Parallel()
	source := multicast()
	a := newNode(t, "a", fmt.Sprintf("http 127.0.0.1:%%PORT; stream tv/one { url %s; dvr %%DIR 1d; segment_duration 1s; }", source))
	// b follows what is live alone, so that nothing but an order fills its gap.
	b := newNode(t, "b", fmt.Sprintf("http 127.0.0.1:%%PORT; stream tv/one { url m4f://127.0.0.1:%d/tv/one; dvr %%DIR 1d; segment_duration 1s; }", a.port))
	start(t, "source", "testsrc", source, "--bitrate", "1M")
	a.up()
	b.up()
	within(t, time.Minute, "both have recorded", func() bool { return segments(t, a.stream("tv/one")) >= 3 && segments(t, b.stream("tv/one")) >= 3 })
	b.stop()
	had := segments(t, a.stream("tv/one"))
	within(t, time.Minute, "the one has what the other lacks", func() bool { return segments(t, a.stream("tv/one")) >= had+4 })
	b.up()
	var gaps serve.Gaps
	within(t, time.Minute, "the gap shows", func() bool {
		return b.status() != nil && b.curl(&gaps, "gaps?stream=tv/one") == 200 && len(gaps.Gaps) == 1
	})
	peer := fmt.Sprintf("m4f://127.0.0.1:%d/tv/one", a.port)
	within(t, time.Minute, "the peer is asked", func() bool {
		b.curl(&gaps, "gaps?stream=tv/one")
		return gaps.Gaps[0].Fill == serve.FillAsked
	})
	gap := gaps.Gaps[0]
	if gap.Peer != peer || gap.PeerSeconds < gap.Seconds-1 || gap.Cause.Kind != event.Stop {
		t.Errorf("%+v", gap)
	}
	b.shows("a peer has it")
	live := b.follow()
	covered(t, b, "", "missing")
	covered(t, b, "&node="+peer, "live")
	b.backfill(gap)
	m := live.next()
	for !strings.Contains(m, "backfill") {
		m = live.next()
	}
	if !strings.Contains(m, `"kind":"heal"`) {
		t.Error(m)
	}
	within(t, 20*time.Second, "the gap is healed", func() bool {
		gaps = serve.Gaps{}
		return b.curl(&gaps, "gaps?stream=tv/one") == 200 && len(gaps.Gaps) == 0
	})
	covered(t, b, "", "healed")
	if st := b.status().Streams[0].Backfill; st == nil || st.State != serve.BackfillDone || st.Segments == 0 || st.Bytes == 0 || st.Error != "" {
		t.Errorf("%+v", st)
	}
	live.until("event: coverage")
	b.keep()
	b.peersAndBacklog(peer)
}

// shows wants status to say something of the stream, once and while it is watched.
func (n *testNode) shows(text string) {
	n.t.Helper()
	at := fmt.Sprintf(":%d", n.port)
	out, errs, status := run(n.t, "status", at, "tv/one")
	if status > 1 || !strings.Contains(out, text) || errs != "" {
		n.t.Errorf("status ended with %d: %s\n%s", status, out, errs)
	}
	w := start(n.t, "watch", "status", at, "tv/one", "--watch")
	within(n.t, 20*time.Second, "it is shown twice", func() bool { return strings.Count(w.text(), text) >= 2 })
	w.cmd.Process.Signal(os.Interrupt)
	<-w.done
	w.done = nil
	if status := w.cmd.ProcessState.ExitCode(); status != 0 {
		n.t.Errorf("watching ended with %d: %s", status, w.text())
	}
}

// covered wants a state among those of a stream's coverage.
func covered(t *testing.T, n *testNode, query, state string) {
	t.Helper()
	var c serve.Coverage
	if code := n.curl(&c, "coverage?stream=tv/one"+query, "--compressed"); code != 200 {
		t.Fatal(code)
	}
	for _, s := range c.Spans {
		if s.State == state {
			return
		}
	}
	t.Errorf("nothing is %s: %+v", state, c.Spans)
}

// backfill has a gap filled.
func (n *testNode) backfill(gap serve.Gap) {
	n.t.Helper()
	var p m4fhttp.Problem
	if code := n.post(&p, "backfill", `{"stream":"tv/one","from":"2020-01-01T00:00:00Z"}`); code != 422 || !strings.Contains(p.Detail, "keep it first") {
		n.t.Errorf("from before what is kept: %d %s", code, p.Detail)
	}
	var f serve.Backfill
	if code := n.post(&f, "backfill", fmt.Sprintf(`{"stream":"tv/one","from":%q,"to":%q}`, gap.From, gap.To)); code != 202 || len(f.Peers) != 1 {
		n.t.Errorf("%d %+v", code, f)
	}
}

// keep has a span of the archive kept, and released.
func (n *testNode) keep() {
	n.t.Helper()
	now := time.Now()
	body := fmt.Sprintf(`{"stream":"tv/one","name":"a b/c","from":%d,"to":%d}`, now.Add(-time.Hour).Unix(), now.Unix())
	var k serve.Keep
	if code := n.post(&k, "keeps", body); code != 400 {
		n.t.Error(code)
	}
	if code := n.post(&k, "keeps", strings.Replace(body, "b/c", "b", 1)); code != 201 || k.Seconds == 0 {
		n.t.Errorf("%d %+v", code, k)
	}
	if code := n.curl(nil, "keeps/a%20b?stream=tv/one", "-X", "DELETE"); code != 204 {
		n.t.Error(code)
	}
}

func (n *testNode) peersAndBacklog(peer string) {
	n.t.Helper()
	var p serve.Peers
	if code := n.curl(&p, "peers"); code != 200 || len(p.Peers) != 1 || !p.Peers[0].Reachable || p.Peers[0].URL+"/tv/one" != peer {
		n.t.Errorf("%d %+v", code, p)
	}
	var l serve.Backlog
	if code := n.curl(&l, "backlog?stream=tv/one"); code != 200 || len(l.Streams) != 1 {
		n.t.Errorf("%d %+v", code, l)
	}
}

// events are those that a node sends as they happen.
type events struct {
	t  *testing.T
	in *bufio.Scanner
}

// follow has curl follow the events.
func (n *testNode) follow() *events {
	n.t.Helper()
	cmd := exec.Command("curl", "-sSN", fmt.Sprintf("http://127.0.0.1:%d/api/v1/events/live", n.port))
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		cmd.Process.Kill()
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait() // it was killed
	})
	e := &events{n.t, bufio.NewScanner(out)}
	e.until(": events follow")
	return e
}

// next returns the next event.
func (e *events) next() string { return e.until("data: ") }

// until returns the next line that begins so.
func (e *events) until(prefix string) string {
	e.t.Helper()
	for e.in.Scan() {
		if strings.HasPrefix(e.in.Text(), prefix) {
			return e.in.Text()
		}
	}
	e.t.Fatalf("the events have ended before %q: %v", prefix, e.in.Err())
	return ""
}

// A reload by the API does what SIGHUP does, and tells what is wrong with a file,
// and where.
func TestAPIReload(t *testing.T) {
	t.Parallel()
	const conf = "http 127.0.0.1:%PORT;\nstream one { url udp://127.0.0.1:9; dvr %DIR 1d; }\n"
	n := newNode(t, "n", conf)
	n.up()
	within(t, time.Minute, "the node answers", func() bool { return n.status() != nil })
	n.configure(conf + "stream two { url udp://127.0.0.1:9; dvr %DIR 1d;\n  colour red; }\n")
	var p m4fhttp.Problem
	if code := n.curl(&p, "reload", "-X", "POST"); code != 422 || len(p.Errors) == 0 || p.Errors[0].Line != 4 || p.Errors[0].Column != 3 || !strings.Contains(p.Errors[0].Detail, "colour") {
		t.Errorf("%d %+v", code, p)
	}
	if st := n.status(); len(st.Streams) != 1 {
		t.Errorf("a broken file has changed something: %+v", st.Streams)
	}
	n.configure(conf + "stream two { url udp://127.0.0.1:9; dvr %DIR 1d; }\nmin_free 2%;\n")
	var r serve.Reload
	if code := n.curl(&r, "reload", "-X", "POST"); code != 200 || !r.Applied || fmt.Sprint(r.Added, r.Removed, r.Changed, r.Other) != "[two] [] [] [min_free]" {
		t.Errorf("%d %+v", code, r)
	}
	if st := n.status(); len(st.Streams) != 2 {
		t.Errorf("%+v", st.Streams)
	}
	// The node moves to another address while it answers.
	old := n.port
	n.port = freePort(t)
	n.configure(conf)
	moved := n.port
	n.port = old
	if code := n.curl(&r, "reload", "-X", "POST"); code != 200 && code != 202 {
		t.Errorf("%d %+v", code, r)
	}
	n.port = moved
	within(t, 20*time.Second, "the node answers at the new address", func() bool { return n.status() != nil })
}

// What serve-m4f serves of a root has a page, players' lists and an API.
func TestAPIOfDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, err := archive.Create(filepath.Join(dir, "tv", "one"), "", archive.CreateOptions{TargetDuration: 4 * m4f.Timescale})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Keep(archive.Keep{Name: "k", From: m4f.UTCOf(time.Now()), To: m4f.UTCOf(time.Now().Add(time.Hour))}); err != nil {
		t.Fatal(err)
	}
	n := &testNode{t: t, port: freePort(t)}
	n.process = start(t, "serve-m4f", "serve-m4f", dir, "--listen", fmt.Sprintf("127.0.0.1:%d", n.port))
	within(t, time.Minute, "it answers", func() bool { return n.status() != nil })
	if st := n.status(); st.Supervised || len(st.Streams) != 1 || st.Streams[0].Name != "tv/one" || st.Streams[0].Archive.Kept != 1 {
		t.Errorf("%+v", st)
	}
	var p m4fhttp.Problem
	if code := n.curl(&p, "peers"); code != 501 || !strings.Contains(p.Detail, "supervise") {
		t.Errorf("%d %+v", code, p)
	}
	if code := n.curl(&p, "keeps"); code != 200 {
		t.Error(code)
	}
	if code := n.curl(nil, "../../"); code != 200 {
		t.Errorf("the page: %d", code)
	}
	if code := n.curl(&p, "../../tv/one/index.m3u8"); code != 404 && code != 503 {
		t.Errorf("a list of nothing: %d %+v", code, p)
	}
}
