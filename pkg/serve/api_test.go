package serve

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// noon is when the archives of these tests begin.
var noon = m4f.UTCOf(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))

func at(s int64) m4f.UTC { return noon.Add(s * m4f.Timescale) }

// fourSeconds is a segment of a stream.
func fourSeconds(t testing.TB, start int64, flags m4f.Flags) *m4f.Segment {
	t.Helper()
	b, err := os.ReadFile("../m4f/testdata/clip.aac")
	if err != nil {
		t.Fatal(err)
	}
	const d = 4 * m4f.Timescale
	begin := start * m4f.Timescale
	seg, err := m4f.Build(&m4f.SegmentSpec{
		Header:         m4f.Header{MediaTime: begin, UTC: noon.Add(begin), Duration: d, Flags: m4f.Keyframe | flags},
		TargetDuration: d, Program: 1, PCRPID: 257,
		Tracks: []m4f.Track{{
			Config:  m4f.TrackConfig{PID: 257, StreamType: 0x0F, Codec: m4f.CodecAAC, FrameHeader: b[:64]},
			Samples: []m4f.Sample{{PTS: begin, DTS: begin, Duration: d, Sync: true, Data: b[7:64]}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return seg
}

// put adds segments of four seconds to a stream below a root.
func put(t testing.TB, root, name string, origin archive.Origin, from, to int64, flags m4f.Flags) *archive.Stream {
	t.Helper()
	a, err := archive.Create(filepath.Join(root, name), name, archive.CreateOptions{TargetDuration: 4 * m4f.Timescale})
	if err != nil {
		t.Fatal(err)
	}
	w := a.Writer(origin, 0, archive.WriterOptions{Sync: archive.SyncOff})
	for s := from; s < to; s += 4 {
		if err := w.Append(fourSeconds(t, s, flags)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return a
}

// api is a node that records, as far as the API can tell: one stream with a gap,
// of which a peer has a part.
type api struct {
	*m4fhttp.Root
	h      *Handler
	a      *archive.Stream
	peer   string // its URL
	peers  []Peer
	status NodeStatus
	feed   *Feed
	fail   error // of Reread
	orders []BackfillOrder
}

func newAPI(t testing.TB) *api {
	t.Helper()
	root := t.TempDir()
	a := put(t, root, "sport/hd", archive.Live, 0, 40, 0)
	put(t, root, "sport/hd", archive.Live, 100, 120, m4f.Damaged)
	put(t, root, "sport/hd", archive.Healed, 120, 140, 0)
	put(t, root, "sport/hd", archive.Replicated, 140, 160, 0)
	for i, e := range []event.Event{
		{Kind: event.Start, Msg: "began"}, {Kind: event.SourceLost, Msg: "the input is silent"}, {Kind: event.SourceBack, Msg: "back", Attrs: map[string]any{"input": 1}},
	} {
		e.Time = at([]int64{0, 42, 99}[i]).Time()
		if err := a.Note(e); err != nil {
			t.Fatal(err)
		}
	}
	far := t.TempDir()
	put(t, far, "hd", archive.Live, 0, 60, 0)
	srv := httptest.NewServer(m4fhttp.NewHandler(m4fhttp.Options{Provider: m4fhttp.NewRoot(far), Log: quiet()}))
	t.Cleanup(srv.Close)
	n := &api{Root: m4fhttp.NewRoot(root), a: a, status: fullStatus(), feed: NewFeed()}
	n.addPeer(t, srv.URL+"/hd")
	n.peer = n.peers[0].URL
	n.status.Streams[0].Peers[0].URL = n.peer
	n.h = NewHandler(Options{Node: n, Auth: m4fhttp.NewAuth(nil, nil, quiet()), NodeID: "n1", Log: quiet()})
	return n
}

func (n *api) addPeer(t testing.TB, url string) {
	t.Helper()
	peer, err := config.ParsePeer("m4f" + strings.TrimPrefix(url, "http"))
	if err != nil {
		t.Fatal(err)
	}
	c := m4fhttp.NewClient(m4fhttp.ClientOptions{Peer: peer, Silence: time.Second})
	t.Cleanup(c.Close)
	n.peers = append(n.peers, Peer{peer.String(), c})
}

func (n *api) Status() NodeStatus  { return n.status }
func (n *api) Peers(string) []Peer { return n.peers }
func (n *api) Feed() *Feed         { return n.feed }
func mistakes() error {
	p := m4fhttp.Problemf(http.StatusUnprocessableEntity, "x.conf:3:5: no such word")
	p.Errors = []m4fhttp.Mistake{{File: "x.conf", Line: 3, Column: 5, Detail: "no such word"}}
	return p
}

func (n *api) Reread(context.Context) (*Reload, error) {
	if n.fail != nil {
		return nil, n.fail
	}
	return &Reload{Applied: true, File: "x.conf", Added: []string{"a"}, Removed: []string{}, Changed: []string{}, Other: []string{"http"}}, nil
}

func (n *api) Backfill(o BackfillOrder) (*Backfill, error) {
	if o.Peer != "" && o.Peer != n.peer {
		return nil, m4fhttp.Problemf(http.StatusNotFound, "no such peer")
	}
	n.orders = append(n.orders, o)
	return &Backfill{Stream: o.Stream, From: Time(o.From), To: Time(o.To), Peers: []string{n.peer}, State: BackfillWaiting, Began: time.Now().UTC()}, nil
}

// ask makes a request from the machine itself and decodes what comes.
func ask(t testing.TB, h http.Handler, method, target, body string, into any) (int, string) {
	t.Helper()
	r := httptest.NewRequest(method, "http://localhost/api/v1/"+target, strings.NewReader(body))
	r.RemoteAddr, r.ContentLength = "127.0.0.1:5", int64(len(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if into != nil {
		if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
			t.Fatalf("%s %s: %d %s", method, target, w.Code, w.Body)
		}
	}
	return w.Code, w.Body.String()
}

// Coverage tells the states, of this node and of its peer.
func TestAPICoverage(t *testing.T) {
	n := newAPI(t)
	if err := n.a.Keep(archive.Keep{Name: "final", From: at(20), To: at(300)}); err != nil {
		t.Fatal(err)
	}
	type span struct {
		from, to int64
		state    string
		segments int
	}
	check := func(query string, wantStep int64, want ...span) *Coverage {
		t.Helper()
		var c Coverage
		if code, text := ask(t, n.h, "GET", "coverage?stream=sport/hd&"+query, "", &c); code != 200 {
			t.Fatalf("%s: %d %s", query, code, text)
		}
		var got []span
		for _, s := range c.Spans {
			sec := func(u Time) int64 { return int64(m4f.UTC(u)-noon) / m4f.Timescale }
			got = append(got, span{sec(s.From), sec(s.To), s.State, s.Segments})
		}
		if !slices.Equal(got, want) || c.Step != wantStep {
			t.Errorf("%s: step %d, %v, want %v", query, c.Step, got, want)
		}
		return &c
	}
	c := check("", 0, span{0, 40, "live", 10}, span{40, 100, "missing", 0}, span{100, 120, "damaged", 5}, span{120, 140, "healed", 5}, span{140, 160, "replicated", 5})
	if c.From != Time(noon) || c.To != Time(at(160)) || *c.Oldest != Time(noon) || *c.Newest != Time(at(160)) || len(c.Kept) != 1 || c.Kept[0] != (KeptSpan{"final", Time(at(20)), Time(at(300))}) {
		t.Errorf("%+v", c)
	}
	c = check("from=2026-11-22T12:00:20Z&step=30", 30, span{20, 40, "live", 5}, span{40, 100, "missing", 0}, span{100, 140, "damaged", 10}, span{140, 160, "replicated", 5})
	if got := c.Spans[2].Seconds; !reflect.DeepEqual(got, map[string]float64{"damaged": 20, "healed": 20}) {
		t.Errorf("seconds of a merged span: %v", got)
	}
	check(fmt.Sprintf("from=%d&to=%d", at(0).Time().Unix(), at(50).Time().Unix()), 0, span{0, 40, "live", 10}, span{40, 50, "missing", 0})
	check("node="+n.peer, 0, span{0, 60, "live", 15})
	check("from=2027-01-01T00:00:00Z", 0)
}

// A peer that is out of reach, and one that never answers, are said to be.
func TestAPICoveragePeerGone(t *testing.T) {
	n := newAPI(t)
	gone := httptest.NewServer(nil)
	n.addPeer(t, gone.URL+"/hd")
	gone.Close()
	hold := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hold }))
	t.Cleanup(func() { close(hold); silent.Close() })
	n.addPeer(t, silent.URL+"/hd")
	for i, want := range map[int]int{1: http.StatusBadGateway, 2: http.StatusGatewayTimeout} {
		var p m4fhttp.Problem
		if code, _ := ask(t, n.h, "GET", "coverage?stream=sport/hd&node="+n.peers[i].URL, "", &p); code != want || !strings.Contains(p.Detail, "peer ") {
			t.Errorf("peer %d: %d, want %d: %s", i, code, want, p.Detail)
		}
	}
	var g Gaps
	if code, _ := ask(t, n.h, "GET", "gaps?stream=sport/hd", "", &g); code != 200 || len(g.Peers) != 3 || g.Peers[0].Error != "" || g.Peers[1].Error == "" || g.Peers[2].Error == "" {
		t.Errorf("%d %+v", code, g.Peers)
	}
	if x := g.Gaps[0]; x.Fill != Filling && x.Fill != FillPeer || x.Peer != n.peer {
		t.Errorf("a peer that answers has it: %+v", x)
	}
	n.peers = n.peers[1:]
	if ask(t, n.h, "GET", "gaps?stream=sport/hd", "", &g); g.Gaps[0].Fill != FillUnknown {
		t.Errorf("no peer answers: %+v", g.Gaps[0])
	}
}

// Gaps tell why they are there, and who has what is missing.
func TestAPIGaps(t *testing.T) {
	n := newAPI(t)
	n.status.Streams[0].Peers[0].Reconciling = false
	n.status.Streams[0].Backfill = nil
	var g Gaps
	get := func() Gap {
		t.Helper()
		g = Gaps{}
		if code, text := ask(t, n.h, "GET", "gaps?stream=sport/hd", "", &g); code != 200 || len(g.Gaps) != 1 || g.More {
			t.Fatalf("%d %s", code, text)
		}
		return g.Gaps[0]
	}
	lost := Time(at(42))
	want := Gap{From: Time(at(40)), To: Time(at(100)), Seconds: 60, Cause: Cause{"the input is silent", event.SourceLost, &lost}, Fill: FillPeer, Peer: n.peer, PeerSeconds: 20}
	if got := get(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	n.status.Streams[0].Peers[0].Reconciling, n.status.Streams[0].Peers[0].Backlog = true, 1
	if got := get(); got.Fill != Filling {
		t.Errorf("while it is fetched: %+v", got)
	}
	n.status.Streams[0].Peers[0].Reconciling, n.status.Streams[0].Peers[0].Replicates = false, false
	if got := get(); got.Fill != FillAsked || got.Peer != n.peer {
		t.Errorf("from a peer that gaps are not filled from: %+v", got)
	}
	n.peers = nil
	if got := get(); got.Fill != FillNobody || got.Peer != "" {
		t.Errorf("without peers: %+v", got)
	}
	if ask(t, n.h, "GET", "gaps?stream=sport/hd&to=2026-11-22T12:00:30Z", "", &g); len(g.Gaps) != 0 {
		t.Errorf("before it: %+v", g)
	}
}

// Peers and backlog are the status, seen from the other side.
func TestAPIPeers(t *testing.T) {
	n := newAPI(t)
	eta := 30.0
	one := n.status.Streams[0]
	one.Peers = []PeerStatus{{URL: "m4f://b:8081/x", Reachable: true, Backlog: 100, BacklogSeconds: 5, ETA: &eta, Pending: 3}, {URL: "m4f://c/x", Error: "no route"}}
	two := one
	two.Name, two.Peers = "two", []PeerStatus{{URL: "m4f://b:8081/two", Backlog: 50, BacklogSeconds: 2, Lag: 9, Error: "broken"}}
	n.status.Streams = []StreamStatus{one, two}
	var p Peers
	if code, text := ask(t, n.h, "GET", "peers", "", &p); code != 200 || len(p.Peers) != 2 {
		t.Fatal(code, text)
	}
	if b := p.Peers[0]; b.URL != "m4f://b:8081" || b.Reachable || b.Error != "broken" || b.Backlog != 150 || b.Lag != 9 || *b.ETA != 30 || len(b.Streams) != 2 {
		t.Errorf("%+v", b)
	}
	var l Backlog
	if ask(t, n.h, "GET", "backlog", "", &l); l.Bytes != 150 || l.Seconds != 7 || *l.ETA != 30 || len(l.Streams) != 2 || l.Streams[0].Pending != 3 || len(l.Streams[0].Peers) != 2 {
		t.Errorf("%+v", l)
	}
	if ask(t, n.h, "GET", "backlog?stream=sport/hd", "", &l); l.Bytes != 100 || len(l.Streams) != 1 {
		t.Errorf("of one stream: %+v", l)
	}
}

// Events are the newest of the span, whatever reading them takes.
func TestAPIEvents(t *testing.T) {
	n := newAPI(t)
	for i := range 30 { // over a day
		if err := n.a.Note(event.Event{Time: at(200 + int64(i)*3000).Time(), Kind: "x", Msg: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	put(t, t.TempDir(), "other", archive.Live, 0, 4, 0)
	end := at(200 + 30*3000).Time().Format(time.RFC3339)
	var e Events
	get := func(query string) []string {
		t.Helper()
		e = Events{}
		if code, text := ask(t, n.h, "GET", "events?"+query, "", &e); code != 200 {
			t.Fatal(query, code, text)
		}
		var out []string
		for _, x := range e.Events {
			if !strings.HasPrefix(x.Msg, "recording ") { // of the writers
				out = append(out, x.Msg)
			}
		}
		return out
	}
	if got := get("to=" + end + "&limit=3"); !slices.Equal(got, []string{"27", "28", "29"}) || !e.More {
		t.Errorf("%v, more %v", got, e.More)
	}
	if got := get("from=2026-11-22T12:00:00Z&to=" + end); len(got) != 33 || got[0] != "began" || e.More {
		t.Errorf("%v, more %v", got, e.More)
	}
	if got := get("stream=sport/hd&from=2026-11-22T12:00:00Z&to=2026-11-22T12:01:00Z"); !slices.Equal(got, []string{"began", "the input is silent"}) {
		t.Error(got)
	}
	if got := get("to=2026-11-22T12:01:00Z&from=2020-01-01T00:00:00Z&limit=4"); len(got) != 2 || e.More {
		t.Errorf("all there are: %v, more %v", got, e.More)
	}
}

// A span is kept, listed and released.
func TestAPIKeeps(t *testing.T) {
	n := newAPI(t)
	var k Keep
	code, _ := ask(t, n.h, "POST", "keeps", `{"stream":"sport/hd","name":"the final","from":"2026-11-22T12:00:00Z","to":"2026-11-22T12:02:00Z"}`, &k)
	if code != 201 || k.Name != "the final" || k.Seconds != 60 || k.Bytes == 0 {
		t.Errorf("%d %+v", code, k)
	}
	if code, _ := ask(t, n.h, "POST", "keeps", `{"stream":"sport/hd","from":1795348800,"to":1795348900}`, &k); code != 201 || k.Name != "2026-11-22T120000Z" {
		t.Errorf("%d %+v", code, k)
	}
	if code, _ := ask(t, n.h, "POST", "keeps", `{"stream":"sport/hd","from":1795348800,"to":1795348900}`, &k); code != 201 || k.Name != "2026-11-22T120000Z-2" {
		t.Errorf("%d %+v", code, k)
	}
	var list Keeps
	if ask(t, n.h, "GET", "keeps", "", &list); len(list.Keeps) != 3 || list.Keeps[0].Stream != "sport/hd" {
		t.Errorf("%+v", list)
	}
	if code, text := ask(t, n.h, "DELETE", "keeps/the%20final?stream=sport/hd", "", nil); code != 204 || text != "" {
		t.Error(code, text)
	}
	if kept, err := n.a.Kept(); err != nil || len(kept) != 2 {
		t.Error(kept, err)
	}
	// Where the stream lies is nobody's business.
	refused := func(method, target, body string, want int, says string) {
		t.Helper()
		var p m4fhttp.Problem
		if code, text := ask(t, n.h, method, target, body, &p); code != want || !strings.HasPrefix(p.Detail, says) || strings.Contains(text, n.a.Dir()) {
			t.Errorf("%s %s: %d %s", method, target, code, text)
		}
	}
	refused("DELETE", "keeps/final?stream=sport/hd", "", 404, "sport/hd: kept span final: there is none of that name")
	if err := os.WriteFile(filepath.Join(n.a.Dir(), "keep", "bad.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	refused("GET", "keeps", "", 422, "sport/hd: kept span bad: ")
	refused("POST", "keeps", `{"stream":"sport/hd","name":"new","from":1,"to":2}`, 422, "sport/hd: kept span ")
}

// What is asked for in another way than is taken is refused, in words that say
// what is wrong.
func TestAPIRefuses(t *testing.T) {
	n := newAPI(t)
	for _, c := range []struct {
		method, target, body string
		want                 int
		says                 string
	}{
		{"GET", "coverage", "", 400, "stream is missing"},
		{"GET", "coverage?stream=a/../b", "", 404, "there is sport/hd"},
		{"GET", "coverage?stream=sport/hd&form=5", "", 400, "this takes no form"},
		{"GET", "coverage?stream=sport/hd&stream=x", "", 400, "2 times"},
		{"GET", "coverage?stream=sport/hd&from=yesterday", "", 400, "2026-11-22T12:00:00Z"},
		{"GET", "coverage?stream=sport/hd&from=-5", "", 400, "no time"},
		{"GET", "coverage?stream=sport/hd&from=NaN", "", 400, "no time"},
		{"GET", "coverage?stream=sport/hd&from=1e300", "", 400, "no time"},
		{"GET", "coverage?stream=sport/hd&from=10&to=5", "", 400, "to is not after from"},
		{"GET", "coverage?stream=sport/hd&step=1.5", "", 400, "whole number"},
		{"GET", "gaps?stream=sport/hd&limit=0", "", 400, "from 1 to 5000"},
		{"GET", "streams?x=1", "", 400, "takes no query"},
		{"GET", "streams?%zz", "", 400, "query"},
		{"GET", "events?stream=other", "", 404, "there is sport/hd"},
		{"POST", "keeps", `{"stream":"sport/hd","from":1,"to":2,"colour":"red"}`, 400, `"colour"`},
		{"POST", "keeps", `{"stream":"sport/hd","from":5,"to":2}`, 400, "to is not after from"},
		{"POST", "keeps", `{"stream":"sport/hd","from":5}`, 400, "from and to are missing"},
		{"POST", "keeps", `{"stream":"sport/hd","from":"soon","to":7}`, 400, "from is no time in the body: soon; write it as"},
		{"POST", "backfill", `{"stream":"sport/hd","to":-5}`, 400, "to is no time in the body: -5"},
		{"POST", "keeps", `{"stream":7}`, 400, "stream is a number"},
		{"POST", "keeps", `{"stream":"sport/hd","name":"a/x","from":1,"to":2}`, 400, "slash"},
		{"POST", "keeps", `{"stream":"sport/hd","from":1,"to":2} {}`, 400, "follows"},
		{"POST", "keeps", `[]`, 400, ""},
		{"POST", "keeps", `{`, 400, ""},
		{"POST", "keeps", `{"stream":"` + strings.Repeat("x", 70000) + `"}`, 413, "65536"},
		{"POST", "keeps", `{"stream":"none","from":1,"to":2}`, 404, "there is sport/hd"},
		{"DELETE", "keeps/x", "", 400, "stream is missing"},
		{"DELETE", "keeps/%2e%2e?stream=sport/hd", "", 400, "dot"},
		{"POST", "backfill", `{"stream":"sport/hd","from":9,"to":2}`, 400, "to is not after from"},
		{"POST", "backfill", `{"stream":"sport/hd","jobs":2}`, 400, `"jobs"`},
		{"POST", "reload", `{"file":"x"}`, 400, `"file"`},
	} {
		var p m4fhttp.Problem
		code, text := ask(t, n.h, c.method, c.target, c.body, &p)
		if code != c.want || p.Status != c.want || !strings.Contains(p.Detail, c.says) || p.Detail == "" {
			t.Errorf("%s %s %.60s: %d, want %d and %q: %s", c.method, c.target, c.body, code, c.want, c.says, text)
		}
	}
	if len(n.orders) != 0 {
		t.Errorf("%+v", n.orders)
	}
	if kept, err := n.a.Kept(); err != nil || len(kept) != 0 {
		t.Error(kept, err)
	}
}

// What no call takes is answered in the words of the API: a method that is not
// taken with those that are.
func TestAPIHasNoSuchCall(t *testing.T) {
	n := newAPI(t)
	for _, c := range []struct {
		method, target, body string
		want                 int
		allow, says          string
	}{
		{"GET", "backfill", "", 405, "POST", "/api/v1/backfill takes POST, not GET"},
		{"GET", "reload", "", 405, "POST", "/api/v1/reload takes POST"},
		{"DELETE", "streams", "", 405, "GET, HEAD", "/api/v1/streams takes GET, HEAD, not DELETE"},
		{"POST", "events/live", "{}", 405, "GET, HEAD", "takes GET"},
		{"PUT", "keeps", "", 405, "GET, HEAD, POST", "takes GET, HEAD, POST"},
		{"GET", "keeps/final?stream=sport/hd", "", 405, "DELETE", "takes DELETE"},
		{"DELETE", "keeps/", "", 404, "", "the API has no keeps/; it has backfill"},
		{"GET", "stream", "", 404, "", "the API has no stream; it has backfill"},
		{"GET", "", "", 404, "", "name a call of the API; it has backfill"},
		{"POST", "sport/hd", "{}", 404, "", "openapi.json"},
	} {
		r := httptest.NewRequest(c.method, "http://localhost/api/v1/"+c.target, strings.NewReader(c.body))
		r.RemoteAddr = "127.0.0.1:5"
		w := httptest.NewRecorder()
		n.h.ServeHTTP(w, r)
		if w.Code != c.want || w.Header().Get("Allow") != c.allow || !strings.Contains(w.Body.String(), c.says) {
			t.Errorf("%s %s: %d %q, want %d %q and %q: %s", c.method, c.target, w.Code, w.Header().Get("Allow"), c.want, c.allow, c.says, w.Body)
		}
	}
	// apiCalls are those of the document.
	have := map[string]string{}
	for path, methods := range newDocument(t).root["paths"].(map[string]any) {
		var all []string
		for _, m := range []string{"get", "post", "delete"} {
			if methods.(map[string]any)[m] != nil {
				all = append(all, strings.ToUpper(m))
			}
		}
		call := strings.Replace(strings.TrimPrefix(path, apiPath), "{name}", "NAME", 1)
		have[call] = strings.Replace(strings.Join(all, ", "), "GET", "GET, HEAD", 1)
	}
	if !reflect.DeepEqual(have, apiCalls) {
		t.Errorf("the document has %v, want %v", have, apiCalls)
	}
	put(t, filepath.Join(n.a.Dir(), "../.."), "api/v1/x", archive.Live, 0, 40, 0)
	if code, text := ask(t, n.h, "GET", "x/nothing", "", nil); code != 404 || !strings.Contains(text, "a stream has no nothing") {
		t.Errorf("a stream of such a name: %d %s", code, text)
	}
}

// A directory of archives answers what these tell, and says of the rest that it
// is no node that records.
func TestAPIOfRoot(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a/b", archive.Live, 0, 40, 0)
	put(t, dir, "a/b", archive.Live, 60, 80, m4f.Damaged)
	h := NewHandler(Options{Node: NewRoot(dir, "n1", "v1"), Auth: m4fhttp.NewAuth(nil, nil, quiet()), NodeID: "n1", Log: quiet()})
	var st NodeStatus
	if code, text := ask(t, h, "GET", "streams", "", &st); code != 200 || st.Supervised || !st.Healthy || len(st.Streams) != 1 || st.Node != "n1" || st.Version != "v1" || st.Host == "" {
		t.Fatal(code, text)
	}
	if s := st.Streams[0]; s.Name != "a/b" || s.Mode != "" || s.Archive.Gaps != 1 || s.Archive.GapSeconds != 20 || s.Archive.Damaged != 5 || s.Archive.DamagedSeconds != 20 || s.Archive.DiskFree == 0 {
		t.Errorf("%+v", s)
	}
	for _, target := range []string{"coverage?stream=a/b", "gaps?stream=a/b", "events", "keeps", "openapi.json"} {
		if code, text := ask(t, h, "GET", target, "", nil); code != 200 {
			t.Error(target, code, text)
		}
	}
	var g Gaps
	if ask(t, h, "GET", "gaps?stream=a/b", "", &g); len(g.Gaps) != 1 || g.Gaps[0].Fill != FillUnknown {
		t.Errorf("%+v", g)
	}
	for target, body := range map[string]string{
		"GET peers": "", "GET backlog": "", "GET events/live": "", "GET coverage?stream=a/b&node=m4f://x/y": "", "POST backfill": `{"stream":"a/b"}`, "POST reload": "",
	} {
		method, path, _ := strings.Cut(target, " ")
		var p m4fhttp.Problem
		if code, _ := ask(t, h, method, path, body, &p); code != http.StatusNotImplemented || !strings.Contains(p.Detail, "twindvr supervise") {
			t.Errorf("%s: %d %s", target, code, p.Detail)
		}
	}
}
