package serve

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

func zipped(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// get asks the handler as a browser on the machine does.
func get(h http.Handler, target string, header ...string) *httptest.ResponseRecorder {
	return askFrom(own, h, "GET", target, header...)
}

// Without the built page there is one that says how to get it, and what plays.
func TestFallbackPage(t *testing.T) {
	h := testHandler(t)
	w := httptest.NewRecorder()
	h.fallback(w, httptest.NewRequest("GET", "/", nil))
	for _, want := range []string{"make web", "/secret/news/index.m3u8", "/secret/news/archive-", "/.web/fallback.css"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %q in\n%s", want, w.Body)
		}
	}
	style := get(h, "/.web/fallback.css")
	if style.Code != http.StatusOK || !strings.Contains(style.Header().Get("Content-Type"), "text/css") {
		t.Errorf("its style: %d %v", style.Code, style.Header())
	}
}

// A stream's name is text on the page, and never more.
func TestFallbackPageEscapes(t *testing.T) {
	page, err := fallbackPage()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	st := NodeStatus{Streams: []StreamStatus{{Name: `a"><script>x</script>/b c?#`, Problems: []string{"<img>"}}}}
	err = page.Execute(&b, fallbackData{st, httptest.NewRequest("GET", "/", nil)})
	if err != nil || strings.Contains(b.String(), "<script>") || strings.Contains(b.String(), "<img>") {
		t.Errorf("%v\n%s", err, &b)
	}
	if want := "%3E/b%20c%3F%23/index.m3u8"; !strings.Contains(b.String(), want) {
		t.Errorf("no %s in\n%s", want, &b)
	}
}

// What this program serves at / says by its headers that it loads nothing from
// elsewhere, and is answered to its own machine only.
func TestPage(t *testing.T) {
	h := testHandler(t)
	w := get(h, "/")
	if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	for _, want := range []string{"default-src 'none'", "script-src 'self';", "frame-ancestors 'none'"} {
		if got := w.Header().Get("Content-Security-Policy"); !strings.Contains(got, want) {
			t.Errorf("policy %q lacks %s", got, want)
		}
	}
	for _, target := range []string{"/.web/", "/.web/none.js", "/.web/index.html", "/.web/../serve.go", "/.web/x/y"} {
		if w := get(h, target); w.Code == http.StatusOK {
			t.Errorf("%s: %d", target, w.Code)
		}
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = "192.0.2.7:5"
	elsewhere := httptest.NewRecorder()
	if h.ServeHTTP(elsewhere, r); elsewhere.Code != http.StatusForbidden || strings.Contains(elsewhere.Body.String(), "news") {
		t.Errorf("from elsewhere: %d %s", elsewhere.Code, elsewhere.Body)
	}
}

func TestPageFiles(t *testing.T) {
	files, err := loadPage(fstest.MapFS{
		"web/dist/index.html.gz":  {Data: zipped(t, "<p>page</p>")},
		"web/dist/main-1A.js.gz":  {Data: zipped(t, "run()")},
		"web/dist/icon-2B.svg.gz": {Data: zipped(t, "<svg/>")},
		"web/dist/notes":          {Data: []byte("not for the browser")},
	})
	if err != nil || len(files) != 3 {
		t.Fatalf("%v, %v", files, err)
	}
	f := files["main-1A.js"]
	serve := func(header ...string) *httptest.ResponseRecorder {
		return get(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { servePageFile(w, r, f, "no-cache") }), "/", header...)
	}
	plain := serve()
	if plain.Body.String() != "run()" || plain.Header().Get("Content-Encoding") != "" || plain.Header().Get("Content-Type") != "text/javascript; charset=utf-8" {
		t.Errorf("%v %s", plain.Header(), plain.Body)
	}
	packed := serve("Accept-Encoding", "br, gzip;q=0.8", "Range", "bytes=0-3")
	if got, err := gunzip(packed.Body.Bytes()); err != nil || string(got) != "run()" || packed.Header().Get("Content-Encoding") != "gzip" || packed.Code != http.StatusOK {
		t.Errorf("%d %v %q %v", packed.Code, packed.Header(), got, err)
	}
	tag, tagPacked := plain.Header().Get("ETag"), packed.Header().Get("ETag")
	if tag == "" || tag == tagPacked {
		t.Errorf("one tag for two encodings: %s, %s", tag, tagPacked)
	}
	if again := serve("Accept-Encoding", "gzip", "If-None-Match", tagPacked); again.Code != http.StatusNotModified || again.Body.Len() != 0 {
		t.Errorf("asked again: %d", again.Code)
	}
	if refused := serve("Accept-Encoding", "gzip;q=0"); refused.Header().Get("Content-Encoding") != "" {
		t.Error("gzip was refused and sent")
	}
}

func TestPageFilesThatAreBroken(t *testing.T) {
	if files, err := loadPage(fstest.MapFS{"web/fallback.html": {}}); err != nil || len(files) != 0 {
		t.Errorf("not built: %v, %v", files, err)
	}
	_, err := loadPage(fstest.MapFS{"web/dist/index.html.gz": {Data: zipped(t, "page")[:9]}})
	if err == nil || !strings.Contains(err.Error(), "make web") {
		t.Errorf("cut: %v", err)
	}
}

// byToken is a handler that shows its page to who brings a token, and one for all
// streams.
func byToken(t *testing.T, n Node) (h *Handler, token string) {
	t.Helper()
	h = NewHandler(Options{
		Node: n, Auth: m4fhttp.NewAuth(nil, nil, quiet()), Log: quiet(),
		Access: NewAccess(&config.Access{TokenSecrets: []string{tokenSecret}}, nil, nil),
	})
	token, err := (&Token{Stream: "*", Expires: time.Now().Add(time.Hour)}).Sign(tokenSecret)
	if err != nil {
		t.Fatal(err)
	}
	return h, token
}

// Who brings a token goes on with it from the page without scripts.
func TestFallbackPassesToken(t *testing.T) {
	h, all := byToken(t, testHandler(t).node)
	w := askFrom(elsewhere, h.viewers(h.fallback), "GET", "/?token="+all)
	links := regexp.MustCompile(`href="(/[^."][^"]*)"`).FindAllStringSubmatch(w.Body.String(), -1)
	if len(links) < 4 {
		t.Errorf("%d links in\n%s", len(links), w.Body)
	}
	for _, l := range links {
		if !strings.HasSuffix(l[1], "?token="+all) {
			t.Errorf("%s has no token", l[1])
		}
	}
}

// A token for all streams opens the page from anywhere; its files need none, since
// their addresses carry none.
func TestPageByToken(t *testing.T) {
	h, all := byToken(t, fake{m4fhttp.NewRoot(t.TempDir())})
	for target, want := range map[string]int{"/": http.StatusForbidden, "/?token=" + all: http.StatusOK, "/.web/fallback.css": http.StatusOK, "/.web/none.js": http.StatusNotFound} {
		if w := askFrom(elsewhere, h, "GET", target); w.Code != want {
			t.Errorf("%s: %d, want %d: %s", target, w.Code, want, w.Body)
		}
	}
}
