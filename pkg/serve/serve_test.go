package serve

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// fake is a node with one stream, of which its status tells.
type fake struct{ *m4fhttp.Root }

func (fake) Status() NodeStatus {
	return NodeStatus{Streams: []StreamStatus{{Name: "secret/news"}}}
}

// testHandler is a handler of such a node, with a cluster key.
func testHandler(t *testing.T) *Handler {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	return NewHandler(Options{Node: fake{m4fhttp.NewRoot(t.TempDir())}, Auth: m4fhttp.NewAuth([]string{"s3cret"}, nil, log), Log: log})
}

// The API answers who is on the machine itself, and nobody whom a proxy or a
// browser there speaks for. Others learn nothing from any address.
func TestWhoIsAnswered(t *testing.T) {
	h := testHandler(t)
	ask := func(method, target, from, host, body string, header ...string) (int, string) {
		r := httptest.NewRequest(method, target, strings.NewReader(body))
		r.RemoteAddr, r.Host = from, host
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	const api, own = "/api/v1/streams", "127.0.0.1:5"
	for _, host := range []string{"127.0.0.1:8081", "localhost:8081", "[::1]:8081", "::1", "LOCALHOST", "10.0.0.5:8081"} {
		if code, text := ask("GET", api, own, host, ""); code != http.StatusOK || !strings.Contains(text, "secret/news") {
			t.Errorf("from the machine as %s: %d %s", host, code, text)
		}
	}
	for name, c := range map[string]struct {
		from, host string
		header     []string
	}{
		"another machine":                 {"192.0.2.7:5", "127.0.0.1:8081", nil},
		"another machine, IPv6":           {"[2001:db8::1]:5", "localhost", nil},
		"no address":                      {"@", "localhost", nil},
		"a browser sent here":             {own, "evil.example:8081", nil},
		"a name that looks like one":      {own, "127.0.0.1.evil.example", nil},
		"a proxy":                         {own, "127.0.0.1", []string{"X-Forwarded-For", "192.0.2.7"}},
		"a proxy by the standard's words": {own, "127.0.0.1", []string{"Forwarded", "for=192.0.2.7"}},
		"a proxy that names itself":       {own, "127.0.0.1", []string{"Via", "1.1 proxy"}},
	} {
		if code, text := ask("GET", api, c.from, c.host, "", c.header...); code != http.StatusForbidden || strings.Contains(text, "secret") {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "TRACE", "X"} {
		if code, text := ask(method, api, own, "localhost", ""); code < 400 || strings.Contains(text, "secret") {
			t.Errorf("%s: %d %s", method, code, text)
		}
	}
	if code, _ := ask("GET", api, own, "localhost", "body"); code != http.StatusRequestEntityTooLarge {
		t.Errorf("with a body: %d", code)
	}
	for _, target := range []string{"/", "/api", "/api/", "/api/v1/streams/", "/api/v1/streams/secret/news", "/secret/news", "/secret/news/m4f", "/metrics", "/debug/pprof/", "/api/v2", "//api/v1/streams", "/x/../api/v1/streams"} {
		if code, text := ask("GET", target, "192.0.2.7:5", "node", ""); code == http.StatusOK || strings.Contains(text, "news") {
			t.Errorf("%s from elsewhere: %d %s", target, code, text)
		}
	}
	if code, _ := ask("GET", "/secret/news/m4f/info", own, "localhost", ""); code != http.StatusUnauthorized {
		t.Errorf("M4F from the machine without the key: %d", code)
	}
}
