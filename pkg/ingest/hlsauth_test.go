package ingest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/icholy/digest"
)

// TestHLSAuth opens a playlist of servers that want a user and a password, in
// each way, and says what is wrong where they do not fit.
func TestHLSAuth(t *testing.T) {
	var asked, refused int
	kind := ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if !permitted(kind, r) {
			refused++
			w.Header().Set("WWW-Authenticate", map[string]string{"basic": `Basic realm="x"`, "digest": `Digest realm="x", nonce="abc", qop="auth", algorithm=MD5`, "odd": "Negotiate"}[kind])
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if strings.HasSuffix(r.URL.Path, "gone.m3u8") {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-ENDLIST\n")
	}))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	for _, v := range []struct{ kind, url, err string }{
		{"basic", "hls://joe:s3cret@HOST/a.m3u8", ""},
		{"digest", "hls://joe:s3cret@HOST/a.m3u8", ""},
		{"basic", "hls://joe:wr0ng@HOST/a.m3u8", "the user or the password in the URL is wrong"},
		{"digest", "hls://joe:wr0ng@HOST/a.m3u8", "the user or the password in the URL is wrong"},
		{"odd", "hls://joe:s3cret@HOST/a.m3u8", "Basic and Digest are supported"},
		{"basic", "hls://HOST/a.m3u8", "write them into the URL"},
		{"basic", "hls://joe:s3cret@HOST/gone.m3u8", "404 Not Found: it has no such file"},
		{"", "hls://HOST/gone.m3u8", "whether the sender is on"},
		{"", "hlss://HOST/a.m3u8", "write hls:// instead of hlss://"},
	} {
		t.Run(v.kind+" "+v.url, func(t *testing.T) {
			kind, asked, refused = v.kind, 0, 0
			src, err := Open(t.Context(), strings.Replace(v.url, "HOST", host, 1), Options{})
			if err == nil {
				src.Close()
			}
			switch {
			case v.err == "" && (err != nil || asked != 2 || refused != 1):
				t.Errorf("%d requests, %d refused: %v", asked, refused, err)
			case v.err != "" && (err == nil || !strings.Contains(err.Error(), v.err)):
				t.Errorf("%v, want %q", err, v.err)
			case err != nil && (strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "wr0ng") || len(regexp.MustCompile(`https?://127`).FindAllString(err.Error(), -1)) != 1):
				t.Errorf("%v", err)
			}
		})
	}
}

// permitted says whether a request has the right password of a kind.
func permitted(kind string, r *http.Request) bool {
	switch kind {
	case "":
		return true
	case "basic":
		user, password, _ := r.BasicAuth()
		return user == "joe" && password == "s3cret"
	case "odd":
		return false
	}
	got, err := digest.ParseCredentials(r.Header.Get("Authorization"))
	if err != nil {
		return false
	}
	want, err := digest.Digest(&digest.Challenge{Realm: "x", Nonce: "abc", QOP: []string{"auth"}, Algorithm: "MD5"},
		digest.Options{Method: r.Method, URI: r.URL.RequestURI(), Count: got.Nc, Cnonce: got.Cnonce, Username: "joe", Password: "s3cret"})
	return err == nil && want.Response == got.Response
}
