package serve

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A writing call is obeyed when it comes from the machine itself, and from a
// browser there only when a page of this node sent it.
func TestWhoMayChange(t *testing.T) {
	h := testHandler(t)
	done := 0
	h.mux.Handle("POST /api/v1/test", h.writers(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var long *http.MaxBytesError
		if errors.As(err, &long) {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		if err != nil || string(body) != "{}" {
			t.Errorf("body %q: %v", body, err)
		}
		done++
	}))
	const own = "127.0.0.1:5"
	for name, c := range map[string]struct {
		from, host, body string
		header           []string
		want             int
	}{
		"curl":                                  {own, "localhost:8081", "{}", []string{"Content-Type", "application/json"}, 200},
		"with a charset":                        {own, "localhost:8081", "{}", []string{"Content-Type", "application/json; charset=utf-8"}, 200},
		"the page":                              {own, "127.0.0.1:8081", "{}", []string{"Content-Type", "application/json", "Origin", "http://127.0.0.1:8081", "Sec-Fetch-Site", "same-origin"}, 200},
		"an older browser":                      {own, "127.0.0.1:8081", "{}", []string{"Content-Type", "application/json", "Origin", "http://127.0.0.1:8081"}, 200},
		"another machine":                       {"192.0.2.7:5", "127.0.0.1:8081", "{}", []string{"Content-Type", "application/json"}, 403},
		"another site":                          {own, "127.0.0.1:8081", "{}", []string{"Content-Type", "application/json", "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"}, 403},
		"another port":                          {own, "127.0.0.1:8081", "{}", []string{"Content-Type", "application/json", "Origin", "http://127.0.0.1:9999"}, 403},
		"no origin at all":                      {own, "127.0.0.1:8081", "{}", []string{"Content-Type", "application/json", "Origin", "null"}, 403},
		"another site, without Origin":          {own, "127.0.0.1:8081", "{}", []string{"Content-Type", "application/json", "Sec-Fetch-Site", "cross-site"}, 403},
		"a site of that name":                   {own, "evil.example", "{}", []string{"Content-Type", "application/json", "Origin", "http://evil.example", "Sec-Fetch-Site", "same-origin"}, 403},
		"a proxy":                               {own, "127.0.0.1", "{}", []string{"Content-Type", "application/json", "X-Forwarded-For", "192.0.2.7"}, 403},
		"a form":                                {own, "localhost:8081", "{}", []string{"Content-Type", "text/plain"}, 415},
		"a form in the words of an older world": {own, "localhost:8081", "{}", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415},
		"no type":                               {own, "localhost:8081", "{}", nil, 415},
		"too long":                              {own, "localhost:8081", strings.Repeat("x", maxBody+1), []string{"Content-Type", "application/json"}, 413},
	} {
		before := done
		r := httptest.NewRequest("POST", "/api/v1/test", strings.NewReader(c.body))
		r.RemoteAddr, r.Host = c.from, c.host
		for i := 0; i < len(c.header); i += 2 {
			r.Header.Set(c.header[i], c.header[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.want || (done > before) != (c.want == 200) {
			t.Errorf("%s: %d, want %d; %d done: %s", name, w.Code, c.want, done-before, w.Body)
		}
	}
}
