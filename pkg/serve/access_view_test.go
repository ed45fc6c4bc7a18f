package serve

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

const (
	tokenSecret  = "the secret of the tokens"
	otherSecret  = "the one that replaces it"
	readKey      = "a key that reads the API"
	writeKey     = "a key that changes things"
	elsewhere    = "192.0.2.7:5"
	own          = "127.0.0.1:5"
	hunter       = "hunter2:with a colon"
	asked        = 1_800_000_000 // Unix seconds
	hashedSecret = "correct horse"
)

// accessHandler is a handler by a configuration, with one address for each guard.
// What plays asks permit for a stream x/y and the span of the query.
func accessHandler(t *testing.T, c config.Access, cl clock.Clock, log io.Writer) *Handler {
	t.Helper()
	l := slog.New(slog.NewTextHandler(log, nil))
	h := NewHandler(Options{
		Node: fake{m4fhttp.NewRoot(t.TempDir())}, Auth: m4fhttp.NewAuth([]string{"s3cret"}, nil, l), Log: l,
		Access: NewAccess(&c, cl, l),
	})
	h.mux = http.NewServeMux()
	yes := func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "shown") }
	h.mux.Handle("GET /view", h.viewers(yes))
	h.mux.Handle("GET /api/v1/x", h.readers(yes))
	h.mux.Handle("POST /api/v1/x", h.writers(yes))
	h.mux.Handle("GET /unasked", h.players(yes))
	h.mux.Handle("GET /x/y", h.players(func(w http.ResponseWriter, r *http.Request) {
		if err := permitStream(r, "x/y"); err != nil {
			m4fhttp.WriteProblem(w, http.StatusForbidden, "%v", err)
			return
		}
		if at := r.FormValue("at"); at != "" {
			from, err := time.Parse(time.RFC3339, at)
			if err != nil {
				t.Error(err)
			}
			if err := permitSpan(r, m4f.UTCOf(from), m4f.UTCOf(from.Add(10*time.Second))); err != nil {
				m4fhttp.WriteProblem(w, http.StatusForbidden, "%v", err)
				return
			}
		}
		yes(w, r)
	}))
	return h
}

// askFrom asks a handler from an address.
func askFrom(from string, h http.Handler, method, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.RemoteAddr, r.Host = from, "localhost:8081"
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// request asks for what is behind a guard: it is shown, or the status says why not.
func request(t *testing.T, h http.Handler, method, target, from string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	w := askFrom(from, h, method, target, header...)
	if shown := strings.Contains(w.Body.String(), "shown"); shown != (w.Code == http.StatusOK) {
		t.Errorf("%s %s: %d, and shown %v", method, target, w.Code, shown)
	}
	return w
}

func basic(name, password string) []string {
	r := &http.Request{Header: http.Header{}}
	r.SetBasicAuth(name, password)
	return []string{"Authorization", r.Header.Get("Authorization")}
}

func key(k string) []string { return []string{"Authorization", "Bearer " + k} }

// Each way of letting somebody in, each guard, and who comes.
func TestWhoMaySee(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte(hashedSecret), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := []config.User{{Name: "ann", Password: hunter}, {Name: "bob", Password: string(hash)}}
	keys := config.Access{ReadKeys: []string{readKey}, WriteKeys: []string{writeKey, "another key that does"}}
	both := config.Access{Users: users, TokenSecrets: []string{tokenSecret}, ReadKeys: keys.ReadKeys, WriteKeys: keys.WriteKeys}
	// What is asked: the page, playing, reading the API, changing something.
	type want [4]int
	for _, c := range []struct {
		what   string
		access config.Access
		from   string
		header []string
		want   want
	}{
		{"nothing configured, here", config.Access{}, own, nil, want{200, 200, 200, 200}},
		{"nothing configured, elsewhere", config.Access{}, elsewhere, nil, want{403, 403, 403, 403}},
		{"nothing configured, a password", config.Access{}, elsewhere, basic("ann", hunter), want{403, 403, 403, 403}},
		{"nothing configured, any key", config.Access{}, elsewhere, key(""), want{403, 403, 401, 403}},
		{"off, elsewhere", config.Access{Open: true}, elsewhere, nil, want{200, 200, 200, 403}},
		{"off, here", config.Access{Open: true}, own, nil, want{200, 200, 200, 200}},
		{"basic, here", config.Access{Users: users}, own, nil, want{401, 401, 200, 200}},
		{"basic, nothing", config.Access{Users: users}, elsewhere, nil, want{401, 401, 401, 403}},
		{"basic, right", config.Access{Users: users}, elsewhere, basic("ann", hunter), want{200, 200, 200, 403}},
		{"basic, hashed", config.Access{Users: users}, elsewhere, basic("bob", hashedSecret), want{200, 200, 200, 403}},
		{"basic, wrong", config.Access{Users: users}, elsewhere, basic("ann", "hunter2"), want{401, 401, 401, 403}},
		{"basic, the hash itself", config.Access{Users: users}, elsewhere, basic("bob", string(hash)), want{401, 401, 401, 403}},
		{"basic, another's", config.Access{Users: users}, elsewhere, basic("ann", hashedSecret), want{401, 401, 401, 403}},
		{"basic, nobody", config.Access{Users: users}, elsewhere, basic("", ""), want{401, 401, 401, 403}},
		{"basic, unknown", config.Access{Users: users}, elsewhere, basic("eve", hunter), want{401, 401, 401, 403}},
		{"basic, a proxy here", config.Access{Users: users}, own, []string{"X-Forwarded-For", "192.0.2.7"}, want{401, 401, 401, 403}},
		{"keys only, here", keys, own, nil, want{200, 200, 200, 401}},
		{"keys only, elsewhere", keys, elsewhere, nil, want{403, 403, 401, 401}},
		{"keys only, read", keys, elsewhere, key(readKey), want{403, 403, 200, 403}},
		{"keys only, write", keys, elsewhere, key(writeKey), want{403, 403, 200, 200}},
		{"keys only, the other write key", keys, elsewhere, key("another key that does"), want{403, 403, 200, 200}},
		{"keys only, wrong", keys, own, key(readKey + "x"), want{200, 200, 401, 401}},
		{"keys only, empty", keys, own, key(""), want{200, 200, 401, 401}},
		{"all, nothing", both, own, nil, want{401, 401, 401, 401}},
		{"all, a password", both, elsewhere, basic("ann", hunter), want{200, 200, 200, 401}},
		{"all, read", both, elsewhere, key(readKey), want{401, 401, 200, 403}},
		{"all, write", both, elsewhere, key(writeKey), want{401, 401, 200, 200}},
		{"all, a key as a password", both, elsewhere, basic("ann", writeKey), want{401, 401, 401, 401}},
	} {
		var log bytes.Buffer
		h := accessHandler(t, c.access, nil, &log)
		var got want
		for i, ask := range [][2]string{{"GET", "/view"}, {"GET", "/x/y"}, {"GET", "/api/v1/x"}, {"POST", "/api/v1/x"}} {
			w := request(t, h, ask[0], ask[1], c.from, c.header...)
			got[i] = w.Code
			if challenged := w.Header().Get("WWW-Authenticate") != ""; challenged != (w.Code == http.StatusUnauthorized) {
				t.Errorf("%s: %s: %d with %q", c.what, ask[1], w.Code, w.Header()["Www-Authenticate"])
			}
			for _, secret := range []string{hunter, "hunter2", hashedSecret, readKey, writeKey, tokenSecret} {
				if strings.Contains(w.Body.String()+log.String(), secret) {
					t.Errorf("%s: %s tells a secret: %s%s", c.what, ask[1], w.Body, &log)
				}
			}
		}
		if got != c.want {
			t.Errorf("%s: page, play, read, change: %v, want %v", c.what, got, c.want)
		}
	}
}

// A token opens what it names, as long as it is valid, and nothing else.
func TestTokens(t *testing.T) {
	now := time.Unix(asked, 0)
	sim := clock.NewSim(now)
	h := accessHandler(t, config.Access{TokenSecrets: []string{tokenSecret, otherSecret}}, sim, io.Discard)
	at := func(d time.Duration) time.Time { return now.Add(d) }
	for _, c := range []struct {
		what  string
		token Token
		from  time.Duration // of the span asked for; 0: none is
		code  int
	}{
		{"this stream", Token{Stream: "x/y"}, 0, 200},
		{"all below", Token{Stream: "x/*"}, 0, 200},
		{"all that begin so", Token{Stream: "x*"}, 0, 200},
		{"all", Token{Stream: "*"}, 0, 200},
		{"another", Token{Stream: "x/z"}, 0, 403},
		{"all below another", Token{Stream: "y/*"}, 0, 403},
		{"what its name begins with", Token{Stream: "x"}, 0, 403},
		{"what begins with its name", Token{Stream: "x/y/*"}, 0, 403},
		{"this span", Token{Stream: "x/y", From: at(-time.Hour), To: at(0)}, -30 * time.Minute, 200},
		{"with some grace before it", Token{Stream: "x/y", From: at(-time.Hour), To: at(0)}, -time.Hour - 50*time.Second, 200},
		{"and behind it", Token{Stream: "x/y", From: at(-time.Hour), To: at(0)}, 50 * time.Second, 200},
		{"before it", Token{Stream: "x/y", From: at(-time.Hour), To: at(0)}, -2 * time.Hour, 403},
		{"behind it", Token{Stream: "x/y", From: at(-time.Hour), To: at(0)}, time.Hour, 403},
		{"open at its end", Token{Stream: "x/y", From: at(-time.Hour)}, 1000 * time.Hour, 200},
		{"open at its beginning", Token{Stream: "x/y", To: at(0)}, -1000 * time.Hour, 200},
		{"a span, and nobody asks", Token{Stream: "x/y", To: at(0)}, 0, 403},
		{"not valid yet", Token{Stream: "x/y", NotBefore: at(time.Minute)}, 0, 403},
		{"expired", Token{Stream: "x/y", Expires: at(0)}, 0, 403},
	} {
		if c.token.Expires.IsZero() {
			c.token.Expires = at(time.Hour)
		}
		for _, secret := range []string{tokenSecret, otherSecret} {
			text, err := c.token.Sign(secret)
			if err != nil {
				t.Fatal(err)
			}
			target := "/x/y?token=" + text
			if c.from != 0 {
				target += "&at=" + at(c.from).UTC().Format(time.RFC3339)
			}
			if w := request(t, h, "GET", target, elsewhere); w.Code != c.code {
				t.Errorf("%s: %d, want %d: %s", c.what, w.Code, c.code, w.Body)
			}
			all := c.token.all() && c.code == http.StatusOK
			for _, path := range []string{"/view", "/api/v1/x"} {
				if w := request(t, h, "GET", path+"?token="+text, elsewhere); w.Code == http.StatusOK != all {
					t.Errorf("%s: %s: %d", c.what, path, w.Code)
				}
			}
			for _, ask := range [][2]string{{"GET", "/unasked"}, {"POST", "/api/v1/x"}} {
				if w := request(t, h, ask[0], ask[1]+"?token="+text, elsewhere); w.Code != http.StatusForbidden {
					t.Errorf("%s: %s: %d", c.what, ask[1], w.Code)
				}
			}
		}
	}
	good, err := (&Token{Stream: "x/y", Expires: at(time.Hour)}).Sign(tokenSecret)
	if err != nil {
		t.Fatal(err)
	}
	if w := request(t, h, "GET", "/x/y?token="+good, elsewhere); w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for i := range good { // no change of any letter goes through
		b := []byte(good)
		if b[i]++; b[i] == '/' || b[i] == ':' {
			b[i]--
			continue
		}
		if w := request(t, h, "GET", "/x/y?token="+string(bytes.ReplaceAll(b, []byte{'{'}, []byte{'a'})), elsewhere); w.Code != http.StatusForbidden {
			t.Errorf("letter %d changed: %d", i, w.Code)
		}
	}
	for _, none := range []string{"", "x", "a.b.c", strings.Repeat("a", maxToken+1), good + ".", "eyJhbGciOiJub25lIn0." + strings.Split(good, ".")[1] + "."} {
		if w := request(t, h, "GET", "/x/y?token="+none, own); w.Code != http.StatusForbidden {
			t.Errorf("%.20q: %d", none, w.Code)
		}
	}
	foreign, err := (&Token{Stream: "x/y", Expires: at(time.Hour)}).Sign("another secret altogether")
	if err != nil {
		t.Fatal(err)
	}
	if w := request(t, h, "GET", "/x/y?token="+foreign, elsewhere); w.Code != http.StatusForbidden {
		t.Errorf("%d", w.Code)
	}
	sim.Advance(time.Hour)
	if w := request(t, h, "GET", "/x/y?token="+good, elsewhere); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "expired") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// What is no token cannot be signed.
func TestBadTokens(t *testing.T) {
	now := time.Unix(asked, 0)
	for want, token := range map[string]Token{
		"a token is for a stream":               {Expires: now},
		"a * stands at the end only":            {Stream: "*/a", Expires: now},
		"it is empty":                           {Stream: "", Expires: now},
		"a token expires; say when":             {Stream: "a"},
		"the span of the token ends before it ": {Stream: "a", Expires: now, From: now, To: now},
		"..":                                    {Stream: "a/../b", Expires: now},
	} {
		if _, err := token.Sign(tokenSecret); err == nil || !strings.Contains(err.Error(), want) && want != "it is empty" {
			t.Errorf("%+v: %v, want %s", token, err, want)
		}
	}
}

// A playlist passes the token of its request on.
func TestPassToken(t *testing.T) {
	for _, c := range []struct{ query, uri, want string }{
		{"", "a.mp4", "a.mp4"},
		{"x=y", "a.mp4", "a.mp4"},
		{"token=a.b-_c", "a.mp4", "a.mp4?token=a.b-_c"},
		{"x=y&token=a.b", "a.ts?format=ts", "a.ts?format=ts&token=a.b"},
		{"token=%22%0a%3c", "a", "a?token=%22%0A%3C"},
	} {
		if got := passToken(httptest.NewRequest("GET", "/x/index.m3u8?"+c.query, nil), c.uri); got != c.want {
			t.Errorf("%s in a request for ?%s: %s, want %s", c.uri, c.query, got, c.want)
		}
	}
}

// Who guesses is soon refused, whoever was right before goes on, and so do others,
// elsewhere and behind the same address.
func TestTooManyPasswords(t *testing.T) {
	sim := clock.NewSim(time.Unix(asked, 0))
	users := []config.User{{Name: "ann", Password: hunter}, {Name: "cat", Password: "a cat's"}}
	h := accessHandler(t, config.Access{Users: users}, sim, io.Discard)
	try := func(name, pass, from string) int {
		return request(t, h, "GET", "/view", from, basic(name, pass)...).Code
	}
	if code := try("ann", hunter, elsewhere); code != http.StatusOK {
		t.Fatal(code)
	}
	for _, name := range []string{"eve", "ann"} { // whether or not there is such a user
		for i := range wrongBurst {
			if code := try(name, fmt.Sprint(i), elsewhere); code != http.StatusUnauthorized {
				t.Fatal(code)
			}
		}
		if code := try(name, "x", "192.0.2.7:99"); code != http.StatusTooManyRequests {
			t.Errorf("%s: one too many, from another port: %d", name, code)
		}
	}
	if code := try("ann", hunter, elsewhere); code != http.StatusOK {
		t.Errorf("who was right before: %d", code)
	}
	if code := try("cat", "a cat's", elsewhere); code != http.StatusOK {
		t.Errorf("another name behind the same address: %d", code)
	}
	if code := try("eve", "x", "192.0.2.8:5"); code != http.StatusUnauthorized {
		t.Errorf("another address: %d", code)
	}
	sim.Advance(time.Second)
	if a, b := try("eve", "y", elsewhere), try("eve", "z", elsewhere); a != http.StatusUnauthorized || b != http.StatusTooManyRequests {
		t.Errorf("a second later: %d, %d", a, b)
	}
	for from, want := range map[string]string{"192.0.2.7:5": "192.0.2.7/32", "[2001:db8::1]:5": "2001:db8::/64", "[::ffff:192.0.2.7]:5": "192.0.2.7/32", "[fe80::1%eth0]:5": "fe80::/64", "@": "invalid Prefix"} {
		if got := guesser(from).String(); got != want {
			t.Errorf("%s counts as %s, want %s", from, got, want)
		}
	}
}

// A player that goes on with an old password keeps out nobody, not even with the
// same name, and costs no work.
func TestOldPassword(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte(hashedSecret), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	h := accessHandler(t, config.Access{Users: []config.User{{Name: "bob", Password: string(hash)}}}, clock.NewSim(time.Unix(asked, 0)), io.Discard)
	try := func(pass string) int {
		return request(t, h, "GET", "/view", elsewhere, basic("bob", pass)...).Code
	}
	for range 10 * (wrongBurst + hashBurst) {
		if code := try("the old one"); code != http.StatusUnauthorized {
			t.Fatal(code)
		}
	}
	if code := try(hashedSecret); code != http.StatusOK {
		t.Errorf("who has the new one: %d", code)
	}
}

// Hashed passwords are work. Who comes when many do waits for their turn, for a
// while; and who was right need not wait again when the configuration is read anew.
func TestHashedPasswordsWait(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte(hashedSecret), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	const most = hashBurst + hashTries*int(hashWait/time.Second)
	var users []config.User
	for i := range most + 1 {
		users = append(users, config.User{Name: fmt.Sprint(i), Password: string(hash)})
	}
	sim := clock.NewSim(time.Unix(asked, 0))
	h := accessHandler(t, config.Access{Users: users}, sim, io.Discard)
	try := func(i int) int {
		from := fmt.Sprintf("192.0.2.%d:5", i%2)
		return request(t, h, "GET", "/view", from, basic(fmt.Sprint(i), hashedSecret)...).Code
	}
	for i := range hashBurst {
		if code := try(i); code != http.StatusOK {
			t.Fatalf("%d: %d", i, code)
		}
	}
	codes := make(chan int, 2*most)
	for i := hashBurst; i < most; i++ {
		for range 2 { // a player asks for several things at once
			go func() { codes <- try(i) }()
		}
	}
	sim.Waiters(most - hashBurst)
	if code := try(most); code != http.StatusTooManyRequests {
		t.Errorf("one too many: %d", code)
	}
	sim.Advance(hashWait)
	for range 2 * (most - hashBurst) {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("who has waited: %d", code)
		}
	}
	changed, err := bcrypt.GenerateFromPassword([]byte("another"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users = append([]config.User{}, users...)
	users[0].Password = string(changed)
	h.access.Set(&config.Access{Users: users})
	for i := 1; i < most; i++ {
		if code := try(i); code != http.StatusOK {
			t.Fatalf("known before: %d: %d", i, code)
		}
	}
	go func() { codes <- try(0) }()
	sim.Waiters(1)
	sim.Advance(time.Second)
	if code := <-codes; code != http.StatusUnauthorized {
		t.Errorf("with a password that was changed: %d", code)
	}
}

// Other rules hold from the next request on.
func TestAccessChanges(t *testing.T) {
	h := accessHandler(t, config.Access{Users: []config.User{{Name: "ann", Password: "one"}}}, nil, io.Discard)
	try := func(pass string) int {
		return request(t, h, "GET", "/view", elsewhere, basic("ann", pass)...).Code
	}
	if a, b := try("one"), try("two"); a != 200 || b != 401 {
		t.Error(a, b)
	}
	h.access.Set(&config.Access{Users: []config.User{{Name: "ann", Password: "two"}}})
	if a, b := try("one"), try("two"); a != 401 || b != 200 {
		t.Error(a, b)
	}
	h.access.Set(&config.Access{})
	if a, b := try("one"), try("two"); a != 403 || b != 403 {
		t.Error(a, b)
	}
}

// An answer of the API that goes on ends when other rules refuse it.
func TestWithdrawn(t *testing.T) {
	c := config.Access{ReadKeys: []string{readKey}, WriteKeys: []string{writeKey}}
	h := accessHandler(t, c, nil, io.Discard)
	begun, ended := make(chan struct{}, 2), make(chan string, 2)
	h.mux.Handle("GET /api/v1/on", h.readers(func(_ http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		<-r.Context().Done()
		ended <- r.Header.Get("Authorization")
	}))
	ctx, cancel := context.WithCancel(t.Context())
	for _, k := range []string{readKey, writeKey} {
		r := httptest.NewRequest("GET", "/api/v1/on", nil).WithContext(ctx)
		r.Header.Set("Authorization", "Bearer "+k)
		go h.ServeHTTP(httptest.NewRecorder(), r)
		<-begun
	}
	h.access.Set(&config.Access{ReadKeys: []string{"another key that reads"}, WriteKeys: c.WriteKeys})
	if k := <-ended; k != "Bearer "+readKey {
		t.Errorf("it ended for %s", k)
	}
	select {
	case k := <-ended:
		t.Errorf("it ended for %s", k)
	default:
	}
	cancel()
	<-ended
}

// Pages of the sites that are named may read, and browsers are told beforehand.
func TestCORS(t *testing.T) {
	const site = "https://player.example"
	for _, c := range []struct {
		what           string
		origins        []string
		origin         string
		allow, withKey string
	}{
		{"off", nil, site, "", ""},
		{"any", []string{"*"}, site, "*", ""},
		{"any, no browser", []string{"*"}, "", "", ""},
		{"this one", []string{"https://other.example", site}, site, site, "true"},
		{"another", []string{"https://other.example"}, site, "", ""},
		{"a longer name", []string{site}, site + ".evil.example", "", ""},
		{"null", []string{site}, "null", "", ""},
	} {
		h := accessHandler(t, config.Access{Open: true, Origins: c.origins}, nil, io.Discard)
		var header []string
		if c.origin != "" {
			header = []string{"Origin", c.origin}
		}
		w := request(t, h, "GET", "/x/y", elsewhere, header...)
		if got := w.Header(); w.Code != 200 || got.Get("Access-Control-Allow-Origin") != c.allow || got.Get("Access-Control-Allow-Credentials") != c.withKey ||
			(got.Get("Vary") == "Origin") != (c.origins != nil) {
			t.Errorf("%s: %d %v", c.what, w.Code, got)
		}
		r := httptest.NewRequest("OPTIONS", "/api/v1/x", nil)
		r.Header.Set("Access-Control-Request-Method", "GET")
		r.Header.Set("Access-Control-Request-Headers", "authorization")
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		pre := httptest.NewRecorder()
		h.ServeHTTP(pre, r)
		if ok := pre.Code == http.StatusNoContent && strings.Contains(pre.Header().Get("Access-Control-Allow-Headers"), "Authorization"); ok != (c.allow != "") {
			t.Errorf("%s: beforehand %d %v", c.what, pre.Code, pre.Header())
		}
	}
}

// What is shown to who has shown who he is, no shared cache keeps.
func TestKeptPrivate(t *testing.T) {
	for before, want := range map[string]string{
		"": "private", "public, max-age=86400, immutable": "private, max-age=86400, immutable", "no-cache": "private, no-cache",
		"max-age=1": "private, max-age=1", "private, max-age=3": "private, max-age=3", "No-Store": "No-Store",
	} {
		h := http.Header{}
		h.Set("Cache-Control", before)
		if keepPrivate(h); h.Get("Cache-Control") != want {
			t.Errorf("%q becomes %q, want %q", before, h.Get("Cache-Control"), want)
		}
	}
	h := accessHandler(t, config.Access{Users: []config.User{{Name: "ann", Password: hunter}}}, nil, io.Discard)
	h.mux.Handle("GET /cached", h.players(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=9")
		io.Copy(w, strings.NewReader("shown"))
	}))
	if w := request(t, h, "GET", "/cached", elsewhere, basic("ann", hunter)...); w.Header().Get("Cache-Control") != "private, max-age=9" {
		t.Errorf("%v", w.Header())
	}
	h.access.Set(&config.Access{Open: true})
	if w := request(t, h, "GET", "/cached", elsewhere); w.Header().Get("Cache-Control") != "public, max-age=9" {
		t.Errorf("%v", w.Header())
	}
}

// Whatever comes as a token, it is one that was signed, or refused.
func FuzzToken(f *testing.F) {
	now := time.Unix(asked, 0)
	good, err := (&Token{Stream: "x/*", From: now, To: now.Add(time.Hour), NotBefore: now, Expires: now.Add(time.Minute)}).Sign(tokenSecret)
	if err != nil {
		f.Fatal(err)
	}
	other, err := (&Token{Stream: "x", Expires: now.Add(time.Minute)}).Sign(otherSecret)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{good, other, "", "..", "eyJhbGciOiJub25lIn0.e30.", good[:len(good)-1], strings.Repeat("a.", 10)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := openToken(text, []string{tokenSecret}, now)
		if err == nil && text != good {
			t.Fatalf("%q is taken for %+v", text, got)
		}
		if err != errTokenWrong && err != errTokenEarly && err != errTokenExpired && err != nil {
			t.Fatalf("%q: %v", text, err)
		}
	})
}
