package event

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/twindvr/twindvr/pkg/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver is a webhook: it keeps the lines that come, and answers as it is told.
type receiver struct {
	*httptest.Server

	mu       sync.Mutex
	lines    []line
	requests int
	header   http.Header
	answer   func(n int, w http.ResponseWriter, r *http.Request) bool // true: it has answered; nothing is kept
}

type line struct {
	ID, Host string
	Event
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Server.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	b, err := io.ReadAll(req.Body)
	r.mu.Lock()
	n, answer := r.requests, r.answer
	r.requests++
	r.header = req.Header.Clone()
	r.mu.Unlock()
	if err != nil || answer != nil && answer(n, w, req) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		var l line
		if err := json.Unmarshal(s.Bytes(), &l); err != nil {
			l.Kind = err.Error()
		}
		r.lines = append(r.lines, l)
	}
}

// got are the messages that came.
func (r *receiver) got() (msgs []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lines {
		msgs = append(msgs, l.Msg)
	}
	return msgs
}

func (r *receiver) asked() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests
}

// running is a sink that runs; end stops it and returns how long that took.
type running struct {
	*Sink
	log *testkit.Log
	end func() time.Duration
}

func runSink(t *testing.T, url string, change ...func(*SinkOptions)) *running {
	t.Helper()
	log := &testkit.Log{}
	transport := &http.Transport{}
	o := SinkOptions{
		URL: url, Host: "a.example.com", Source: "n1", Agent: "twindvr/test", Transport: transport,
		Log: log.Logger(), LeastPause: time.Millisecond, MostPause: 20 * time.Millisecond,
	}
	for _, c := range change {
		c(&o)
	}
	s, err := NewSink(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	end := sync.OnceValue(func() time.Duration {
		began := time.Now()
		cancel()
		<-done
		transport.CloseIdleConnections()
		return time.Since(began)
	})
	t.Cleanup(func() { end() })
	return &running{s, log, end}
}

func events(from, to int) (out []Event) {
	for i := from; i < to; i++ {
		out = append(out, Event{Time: time.UnixMilli(1000), Stream: "news", Kind: Switch, Msg: fmt.Sprint(i), Attrs: map[string]any{"n": i}})
	}
	return out
}

func numbers(from, to int) (out []string) {
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprint(i))
	}
	return out
}

func TestSinkSends(t *testing.T) {
	r := newReceiver(t)
	s := runSink(t, strings.Replace(r.URL, "http://", "http://me:s3cret@", 1)+"/hook?token=t0ken")
	for _, e := range events(0, 250) {
		s.Put(e)
	}
	testkit.Await(t, "all", func() bool { return s.Stats().Sent == 250 })
	if got := r.got(); !slices.Equal(got, numbers(0, 250)) {
		t.Errorf("%v", got)
	}
	first := r.lines[0]
	if first.Host != "a.example.com" || first.ID != "n1-1" || first.Stream != "news" || first.Kind != Switch || first.Attrs["n"] != 0.0 || !first.Time.Equal(time.UnixMilli(1000)) {
		t.Errorf("%+v", first)
	}
	user, password, _ := (&http.Request{Header: r.header}).BasicAuth()
	if user != "me" || password != "s3cret" || r.header.Get("Content-Type") != "application/x-ndjson" || r.header.Get("User-Agent") != "twindvr/test" {
		t.Errorf("%v", r.header)
	}
	if st := s.Stats(); st.Target != r.URL || st.Waiting != 0 || st.Error != nil || st.Failed != 0 || st.Dropped != 0 {
		t.Errorf("%+v", st)
	}
}

// A receiver that answers with errors, hangs, breaks the connection or is not there
// gets every event in the end, in order.
func TestSinkTriesAgain(t *testing.T) {
	for name, answer := range map[string]func(n int, w http.ResponseWriter, r *http.Request) bool{
		"500": func(_ int, w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(500); return true },
		"429": func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Retry-After", "86400") // that much is not waited for
			w.WriteHeader(429)
			return true
		},
		"hangs":  func(_ int, _ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true },
		"breaks": func(int, http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newReceiver(t)
			r.answer = func(n int, w http.ResponseWriter, req *http.Request) bool {
				return n < 3 && answer(n, w, req)
			}
			s := runSink(t, r.URL+"/s3cret", func(o *SinkOptions) { o.Timeout = 100 * time.Millisecond })
			for _, e := range events(0, 20) {
				s.Put(e)
			}
			testkit.Await(t, "all", func() bool { return s.Stats().Sent == 20 })
			if got := r.got(); !slices.Equal(got, numbers(0, 20)) {
				t.Errorf("%v", got)
			}
			if st := s.Stats(); st.Failed != 3 || st.Dropped != 0 || st.Error != nil {
				t.Errorf("%+v", st)
			}
			log := s.log.String()
			if strings.Count(log, "events cannot be sent") != 1 || strings.Count(log, "events are sent again") != 1 || strings.Contains(log, "s3cret") {
				t.Error(log)
			}
		})
	}
}

// A receiver that fails every other time is told of once.
func TestSinkTellsOnce(t *testing.T) {
	r := newReceiver(t)
	r.answer = func(n int, w http.ResponseWriter, _ *http.Request) bool {
		if n%2 == 0 {
			w.WriteHeader(500)
		}
		return n%2 == 0
	}
	s := runSink(t, r.URL)
	for i := range 5 {
		for _, e := range events(i, i+1) {
			s.Put(e)
		}
		testkit.Await(t, "it", func() bool { return s.Stats().Sent == int64(i+1) })
	}
	if log := s.log.String(); strings.Count(log, "events cannot be sent") != 1 || strings.Count(log, "events are sent again") != 1 {
		t.Error(log)
	}
}

// A receiver that is started again gets what happened meanwhile; its address is all
// that it keeps.
func TestSinkOutlivesReceiver(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	s := runSink(t, "http://me:s3cret@"+addr+"/hook")
	for _, e := range events(0, 10) {
		s.Put(e)
	}
	testkit.Await(t, "a failure", func() bool { return s.Stats().Failed > 2 })
	if l, err = net.Listen("tcp", addr); err != nil {
		t.Fatal(err)
	}
	r := &receiver{}
	srv := &http.Server{Handler: r}
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(l) }()
	defer func() { srv.Close(); <-served }()
	testkit.Await(t, "all", func() bool { return s.Stats().Sent == 10 })
	if got := r.got(); !slices.Equal(got, numbers(0, 10)) {
		t.Errorf("%v", got)
	}
	if log := s.log.String(); strings.Contains(log, "s3cret") || strings.Contains(log, "/hook") || !strings.Contains(log, "connection refused") {
		t.Error(log)
	}
}

// What is refused is dropped, and the receiver is told how much when it takes the
// rest.
func TestSinkRefused(t *testing.T) {
	r := newReceiver(t)
	r.answer = func(n int, w http.ResponseWriter, req *http.Request) bool {
		if n == 0 {
			http.Redirect(w, req, "/elsewhere", http.StatusFound)
		}
		return n == 0
	}
	s := runSink(t, r.URL)
	for _, e := range events(0, 1) {
		s.Put(e)
	}
	testkit.Await(t, "the refusal", func() bool { return s.Stats().Dropped == 1 })
	for _, e := range events(1, 2) {
		s.Put(e)
	}
	testkit.Await(t, "the rest", func() bool { return s.Stats().Sent == 2 })
	if got := r.got(); !slices.Contains(got, "1") || !slices.Contains(got, "1 event(s) were dropped: the receiver did not take them") {
		t.Errorf("%v", got)
	}
	if log := s.log.String(); !strings.Contains(log, "302") {
		t.Error(log)
	}
}

// A receiver that takes little at a time gets little at a time.
func TestSinkTooLarge(t *testing.T) {
	r := newReceiver(t)
	r.answer = func(_ int, w http.ResponseWriter, req *http.Request) bool {
		if req.ContentLength > 3000 {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return true
		}
		return false
	}
	s := runSink(t, r.URL)
	for _, e := range events(0, 150) {
		s.Put(e)
	}
	testkit.Await(t, "all", func() bool { return s.Stats().Sent == 150 })
	if got := r.got(); !slices.Equal(got, numbers(0, 150)) {
		t.Errorf("%v", got)
	}
}

// With the queue full the first events are kept, and what was lost is told where it
// was lost.
func TestSinkOverflow(t *testing.T) {
	r := newReceiver(t)
	hold := make(chan struct{})
	r.answer = func(n int, _ http.ResponseWriter, _ *http.Request) bool {
		if n == 0 {
			<-hold
		}
		return false
	}
	s := runSink(t, r.URL)
	s.Put(events(0, 1)[0])
	testkit.Await(t, "the first request", func() bool { return r.asked() == 1 })
	for _, e := range events(1, 1+sinkQueue+7) {
		s.Put(e)
	}
	if st := s.Stats(); st.Dropped != 7 || st.Waiting != sinkQueue+1 {
		t.Errorf("%+v", st)
	}
	close(hold)
	testkit.Await(t, "all", func() bool { return s.Stats().Sent == sinkQueue+2 })
	got := r.got()
	if !slices.Equal(got[:sinkQueue+1], numbers(0, sinkQueue+1)) {
		t.Errorf("%v", got)
	}
	if l := r.lines[sinkQueue+1]; l.Kind != Dropped || l.Attrs["events"] != 7.0 {
		t.Errorf("%+v", l)
	}
}

// Another receiver gets what the one before did not take.
func TestSinkRetarget(t *testing.T) {
	bad, good := newReceiver(t), newReceiver(t)
	bad.answer = func(_ int, _ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }
	s := runSink(t, bad.URL, func(o *SinkOptions) { o.MostPause = time.Hour })
	for _, e := range events(0, 30) {
		s.Put(e)
	}
	testkit.Await(t, "a request", func() bool { return bad.asked() > 0 })
	if err := s.Retarget("ftp://x/"); err == nil {
		t.Error("a URL of another kind was taken")
	}
	if err := s.Retarget(good.URL + "/new"); err != nil {
		t.Fatal(err)
	}
	testkit.Await(t, "all", func() bool { return s.Stats().Sent == 30 })
	if got := good.got(); !slices.Equal(got, numbers(0, 30)) {
		t.Errorf("%v", got)
	}
}

// A sink that ends sends what waits, and does not wait for a receiver that does not
// take it.
func TestSinkEnds(t *testing.T) {
	t.Run("taken", func(t *testing.T) {
		r := newReceiver(t)
		r.answer = func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n == 0 { // it is waited for an hour after this
				w.WriteHeader(500)
			}
			return n == 0
		}
		s := runSink(t, r.URL, func(o *SinkOptions) { o.LeastPause, o.MostPause = time.Hour, time.Hour })
		for _, e := range events(0, 130) {
			s.Put(e)
		}
		testkit.Await(t, "the failure", func() bool { return s.Stats().Failed == 1 })
		s.end()
		if got := r.got(); !slices.Equal(got, numbers(0, 130)) {
			t.Errorf("%v", got)
		}
	})
	t.Run("not taken", func(t *testing.T) {
		r := newReceiver(t)
		r.answer = func(_ int, _ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }
		s := runSink(t, r.URL)
		for _, e := range events(0, 130) {
			s.Put(e)
		}
		testkit.Await(t, "a request", func() bool { return r.asked() > 0 })
		s.end()
		if st := s.Stats(); st.Dropped != 130 || st.Sent != 0 {
			t.Errorf("%+v", st)
		}
		if log := s.log.String(); !strings.Contains(log, "events were not sent") || !strings.Contains(log, "events=130") {
			t.Error(log)
		}
	})
}

func TestParseTarget(t *testing.T) {
	for text, ok := range map[string]bool{
		"http://h/x?y=z": true, "https://u:p@h:8080": true, "https://[::1]/": true,
		"": false, "h/x": false, "ftp://h/": false, "http:h": false, "http:///x": false, "http://:80/": false, "http://h/%zz s3cret": false,
	} {
		if _, err := ParseTarget(text); (err == nil) != ok || err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
