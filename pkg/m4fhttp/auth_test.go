package m4fhttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/icholy/digest"
	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// quiet is a log that nobody reads.
var quiet = slog.New(slog.DiscardHandler)

// testClock is a clock that stands until it is moved.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) After(time.Duration) <-chan time.Time { return nil }

func (c *testClock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func guarded(t *testing.T, a *Auth) *httptest.Server {
	srv := httptest.NewServer(a.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "secret")
	})))
	t.Cleanup(srv.Close)
	return srv
}

// attempt sends one request and returns the status, and the challenge if there
// is one.
func attempt(t *testing.T, url, authorization string) (int, *digest.Challenge) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusUnauthorized {
		return res.StatusCode, nil
	}
	if strings.Contains(string(body), "secret") {
		t.Error("a refusal gives the secret away")
	}
	if got := res.Header.Get("Content-Type"); got != problemType {
		t.Errorf("a refusal is %s, want %s", got, problemType)
	}
	c, err := findChallenge(res.Header)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, c
}

func answer(t *testing.T, c *digest.Challenge, uri, key string, nc int) string {
	t.Helper()
	cred, err := digest.Digest(c, digest.Options{Method: "GET", URI: uri, Count: nc, Username: User, Password: key})
	if err != nil {
		t.Fatal(err)
	}
	return cred.String()
}

func TestDigestNonces(t *testing.T) {
	clock := &testClock{now: time.Unix(1e9, 0)}
	a := NewAuth([]string{"old", "new"}, clock, quiet)
	srv := guarded(t, a)
	url := srv.URL + "/x/m4f/info?a=b"
	const uri = "/x/m4f/info?a=b"
	want := func(what, authorization string, status int, stale bool) *digest.Challenge {
		t.Helper()
		got, c := attempt(t, url, authorization)
		if got != status {
			t.Fatalf("%s: status %d, want %d", what, got, status)
		}
		if c != nil && c.Stale != stale {
			t.Errorf("%s: stale=%v, want %v", what, c.Stale, stale)
		}
		return c
	}
	c := want("no credentials", "", 401, false)
	first := answer(t, c, uri, "old", 1)
	want("first", first, 200, false)
	want("the same again", first, 401, true)
	want("a later count", answer(t, c, uri, "old", 5), 200, false)
	want("one that was overtaken", answer(t, c, uri, "old", 3), 200, false)
	want("that again", answer(t, c, uri, "old", 3), 401, true)
	want("the other key", answer(t, c, uri, "new", 6), 200, false)
	want("far ahead", answer(t, c, uri, "old", 1000), 200, false)
	want("behind the window", answer(t, c, uri, "old", 900), 401, true)
	want("a wrong key", answer(t, c, uri, "wrong", 1001), 401, false)
	want("another URI", answer(t, c, "/y/m4f/info", "old", 1001), 401, false)
	want("garbage", `Digest username="m4f", nonce=`, 401, false)
	want("basic", "Basic bTRmOm9sZA==", 401, false)
	forged := *c
	forged.Nonce = "Z" + c.Nonce[1:]
	want("a nonce that is not the server's", answer(t, &forged, uri, "old", 1), 401, true)
	want("that and a wrong key", answer(t, &forged, uri, "wrong", 1), 401, false)
	weak := *c
	weak.Algorithm = "MD5"
	want("MD5", answer(t, &weak, uri, "old", 1), 401, false)

	unused := want("a new nonce", "", 401, false)
	clock.move(nonceLife + time.Second)
	want("an expired nonce", answer(t, unused, uri, "old", 1), 401, true)
	clock.move(-time.Hour)
	want("an expired nonce when the clock went back", answer(t, c, uri, "old", 1), 401, true)

	a.SetKeys([]string{"new"})
	c = want("no credentials", "", 401, false)
	want("a key that was taken away", answer(t, c, uri, "old", 1), 401, false)
	want("the key that stays", answer(t, c, uri, "new", 1), 200, false)
	a.SetKeys(nil)
	want("no keys", "", 200, false)
}

// Who comes with the key and a nonce of before a restart is told so (RFC 7616
// 3.3) and is not taken for an intruder.
func TestDigestAfterRestart(t *testing.T) {
	var log strings.Builder
	logger := slog.New(slog.NewTextHandler(&log, nil))
	var a atomic.Pointer[Auth]
	start := func() { a.Store(NewAuth([]string{"k"}, nil, logger)) }
	start()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.Load().Allow(w, r)
	}))
	defer srv.Close()
	count := &countingTransport{next: http.DefaultTransport}
	c := plain(withKeys([]string{"k"}, count))
	for range 3 {
		res, err := c.Get(srv.URL + "/x/m4f/info")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 200 {
			t.Errorf("status %d", res.StatusCode)
		}
		start()
	}
	if count.n != 6 || log.Len() != 0 {
		t.Errorf("%d requests, want 6; logged: %s", count.n, log.String())
	}
	_, challenge := attempt(t, srv.URL+"/x/m4f/info", "")
	attempt(t, srv.URL+"/x/m4f/info", answer(t, challenge, "/x/m4f/info", "wrong", 1))
	if !strings.Contains(log.String(), "wrong cluster key") {
		t.Error("a wrong key is not logged")
	}
}

// Endless answers end when their key is taken away, and others go on.
func TestRevokedKey(t *testing.T) {
	root := t.TempDir()
	a := newArchive(t, filepath.Join(root, "x"))
	appendAll(t, a, numbers(t, 0, 2)...)
	auth := NewAuth([]string{"old", "new"}, nil, quiet)
	srv := httptest.NewServer(NewHandler(Options{Provider: NewRoot(root), Auth: auth, Log: quiet}))
	defer srv.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	type answers struct{ changes, live chan error }
	follow := func(key string) answers {
		c := clientOf(t, srv.URL, "x", key)
		began := make(chan bool, 100)
		l := answers{make(chan error, 1), make(chan error, 1)}
		go func() {
			l.changes <- c.Changes(ctx, CursorNow, func(*ChangeEvent) error { began <- true; return nil })
		}()
		<-began
		go func() {
			l.live <- c.Live(ctx, m4f.Identity{}, func(*m4f.Segment) error { began <- true; return nil })
		}()
		<-began
		return l
	}
	revoked, kept := follow("old"), follow("new")
	auth.SetKeys([]string{"new"})
	for what, c := range map[string]chan error{"changes": revoked.changes, "live": revoked.live} {
		if err := <-c; err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("%s of a revoked key end with %v", what, err)
		}
	}
	cancel()
	for what, c := range map[string]chan error{"changes": kept.changes, "live": kept.live} {
		if err := <-c; !errors.Is(err, context.Canceled) {
			t.Errorf("%s of the key that stays end with %v", what, err)
		}
	}
	srv.Close()
	auth.mu.Lock()
	defer auth.mu.Unlock()
	if len(auth.held) != 0 {
		t.Errorf("%d answers are still held", len(auth.held))
	}
}

// A nonce that has been forgotten for want of room cannot be used again.
func TestDigestForgottenNonces(t *testing.T) {
	a := NewAuth([]string{"k"}, &testClock{now: time.Unix(1e9, 0)}, quiet)
	var texts []string
	for range maxNonces + 10 {
		text := a.newNonce()
		n, ok := a.openNonce(text)
		if !ok || !a.use(text, n, 1) {
			t.Fatal("a new nonce is refused")
		}
		texts = append(texts, text)
	}
	if len(a.nonces) > maxNonces || len(a.order) > maxNonces {
		t.Errorf("%d nonces are remembered, the most is %d", len(a.nonces), maxNonces)
	}
	for i, text := range texts {
		n, _ := a.openNonce(text)
		if a.use(text, n, 1) {
			t.Fatalf("nonce %d of %d was taken twice", i, len(texts))
		}
	}
}

// Whatever the order, a count is taken at most once, and one that no other is
// 64 ahead of is always taken.
func TestNonceCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var u nonceUse
		var taken []uint64
		highest := uint64(0)
		for _, nc := range rapid.SliceOfN(rapid.Uint64Range(1, 200), 1, 300).Draw(t, "counts") {
			fresh := !slices.Contains(taken, nc)
			inside := nc+nonceWindow > highest
			if got := u.take(nc); got != (fresh && inside) {
				t.Fatalf("count %d behind %d, fresh %v: taken %v", nc, highest, fresh, got)
			}
			if fresh && inside {
				taken = append(taken, nc)
			}
			highest = max(highest, nc)
		}
	})
}

func TestDigestCurl(t *testing.T) {
	srv := guarded(t, NewAuth([]string{`k"e\y é`, "second"}, nil, quiet))
	curl := func(args ...string) string {
		out, err := exec.Command("curl", append([]string{"-s", "-w", " %{http_code}", "--max-time", "10"}, args...)...).Output()
		if err != nil {
			t.Fatalf("curl %v: %v", args, err)
		}
		return string(out)
	}
	for _, key := range []string{`k"e\y é`, "second"} {
		if got := curl("--digest", "-u", User+":"+key, srv.URL+"/a/m4f/info?from=1&to=2"); got != "secret 200" {
			t.Errorf("curl with key %q gets %q", key, got)
		}
	}
	if got := curl("--digest", "-u", User+":wrong", srv.URL+"/a/m4f/info"); !strings.HasSuffix(got, " 401") {
		t.Errorf("curl with a wrong key gets %q", got)
	}
	if got := curl(srv.URL + "/a/m4f/info"); !strings.HasSuffix(got, " 401") || strings.Contains(got, "secret ") {
		t.Errorf("curl without a key gets %q", got)
	}
}

// The client's transport tries its second key where the first is refused, goes
// on with the one that works, and does not answer a weaker challenge.
func TestKeyring(t *testing.T) {
	srv := guarded(t, NewAuth([]string{"new"}, nil, quiet))
	count := &countingTransport{next: http.DefaultTransport}
	c := plain(withKeys([]string{"old", "new"}, count))
	for i := range 3 {
		res, err := c.Get(fmt.Sprintf("%s/a/m4f/info?n=%d", srv.URL, i))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 200 {
			t.Fatalf("request %d: status %d", i, res.StatusCode)
		}
	}
	// Two for the first key, two for the second, then one each.
	if count.n != 6 {
		t.Errorf("%d requests, want 6", count.n)
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			res, err := c.Get(srv.URL + "/b/m4f/info")
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
			if res.StatusCode != 200 {
				t.Errorf("one of many at once: status %d", res.StatusCode)
			}
		})
	}
	wg.Wait()

	weak := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the client answers an MD5 challenge")
		}
		w.Header().Set("WWW-Authenticate", `Digest realm="twindvr", nonce="abc", qop="auth", algorithm=MD5`)
		w.WriteHeader(401)
	}))
	defer weak.Close()
	c = plain(withKeys([]string{"new"}, http.DefaultTransport))
	if _, err := c.Get(weak.URL); err == nil || !strings.Contains(err.Error(), errChallenge.Error()) {
		t.Errorf("a weak challenge: %v", err)
	}
}

type countingTransport struct {
	mu   sync.Mutex
	n    int
	next http.RoundTripper
}

func (c *countingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.n++
	c.mu.Unlock()
	return c.next.RoundTrip(r)
}
