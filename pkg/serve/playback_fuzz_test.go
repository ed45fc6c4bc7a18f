package serve

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// FuzzPlayback: whatever address is asked for, the answer is a file or a problem
// that says why not.
func FuzzPlayback(f *testing.F) {
	x := newTheatre(f, recorded(f, 12*time.Second, 4*time.Second)...)
	x.clock.Advance(13 * time.Second)
	list := spanName(0, 12, "")
	for _, path := range []string{
		"/example/index.m3u8", "/example/index.mpd", "/example/index.m3u8?format=ts", "/example/rewind-60.m3u8",
		"/example/timeshift_rel-3.m3u8", "/example/timeshift_abs-1795348803.m3u8", "/example/archive-1795348800-now.m3u8",
		"/example/" + list + ".m3u8", "/example/" + list + ".mpd", "/example/hls/va/" + list + ".m3u8", "/example/hls/i/index.m3u8",
		"/example/hls/va/1795348804000-4000-eef4f2ca.m4s", "/example/hls/va/1795348803000-500-eef4f2ca.m4s",
		"/example/hls/v/init-1795348804000-90062573.mp4", "/example/dash/aac-eng-1/1795348800000-90000-450000-e0a2b8d3.m4s",
		"/example/hls/va/99999999999999-9999999-eef4f2ca.m4s", "/example/archive-999999999999-99999999.mpd", "//hls/va/index.m3u8", "/a/b/c/d/e/hls/v/index.m3u8",
	} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, target string) {
		path, query, _ := strings.Cut(target, "?")
		if !strings.HasPrefix(path, "/") || strings.Contains(path, "/m4f/") || strings.HasPrefix(path, "/api/") {
			return
		}
		r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: path, RawQuery: query}, Header: http.Header{}, RemoteAddr: "127.0.0.1:5", Host: "localhost"}
		w := httptest.NewRecorder()
		x.h.ServeHTTP(w, r.WithContext(t.Context()))
		switch {
		case w.Code >= 500:
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		case w.Code >= 400:
			var p struct{ Detail string }
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Detail == "" {
				t.Errorf("%s: %d %s", target, w.Code, w.Body)
			}
		}
	})
}
