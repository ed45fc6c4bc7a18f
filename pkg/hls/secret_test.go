package hls

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A server that a playlist redirects to gets neither the password nor where the
// request came from.
func TestRedirectTellsNothing(t *testing.T) {
	t.Parallel()
	other := newOrigin(t)
	other.put("/a.m3u8", other.list(1, 1, true))
	other.before = func(_ http.ResponseWriter, r *http.Request, _ int) bool {
		if r.Header.Get("Authorization") != "" || r.Header.Get("Referer") != "" {
			t.Errorf("%s came with %q from %q", r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("Referer"))
		}
		return false
	}
	o := newOrigin(t)
	o.before = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if _, _, ok := r.BasicAuth(); !ok {
			t.Error("the server itself gets no password")
		}
		http.Redirect(w, r, other.URL+"/a.m3u8", http.StatusFound)
		return true
	}
	at := "http://joe:s3cret@" + strings.TrimPrefix(o.URL, "http://")
	p, err := pull(t, &origin{Server: &httptest.Server{URL: at}}, "/a.m3u8?token=x", Options{})
	if err != nil {
		t.Fatal(err)
	}
	p.want(t, 0, "segment 1", "|")
}

// An audio rendition whose playlist cannot be had is told of, and the others
// are followed.
func TestMissingRendition(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	o.put("/all.m3u8", `#EXTM3U
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="one",LANGUAGE="en",URI="gone.m3u8"
#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="a",NAME="two",LANGUAGE="fr",URI="a.m3u8"
#EXT-X-STREAM-INF:BANDWIDTH=1000,AUDIO="a"
a.m3u8
`)
	o.put("/a.m3u8", o.list(1, 1, true))
	p := mustPull(t, o, "/all.m3u8")
	p.want(t, 0, "segment 1", "|")
	if len(p.Audio) != 1 || p.Audio[0].Rendition().Name != "two" {
		t.Fatalf("%d renditions", len(p.Audio))
	}
	if log := p.log.String(); !strings.Contains(log, "one en") || !strings.Contains(log, "404") || strings.Contains(log, "two") {
		t.Error(log)
	}
}
