package m4fhttp

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// counted counts what is asked of a provider.
type counted struct {
	*Root
	asked atomic.Int64
}

func (c *counted) Streams() ([]string, error) { c.asked.Add(1); return c.Root.Streams() }
func (c *counted) Stream(name string) (Stream, error) {
	c.asked.Add(1)
	return c.Root.Stream(name)
}

var nonceOf = regexp.MustCompile(`nonce="[^"]*"`)

// Who has no key learns nothing: whatever is asked, in whichever way, the answer
// for what is there is the answer for what is not, and no stream was looked at
// to give it, so that neither its text nor its time can tell.
func TestStrangersLearnNothing(t *testing.T) {
	root := t.TempDir()
	a := newArchive(t, filepath.Join(root, "secret", "news"))
	appendAll(t, a, numbers(t, 0, 3)...)
	view, err := a.Span(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &counted{Root: NewRoot(root)}
	h := NewHandler(Options{Provider: p, Auth: NewAuth([]string{"s3cret"}, nil, quiet), Log: quiet})
	ask := func(method, target, body, authorization string) (status int, text string) {
		t.Helper()
		r := httptest.NewRequest(method, "http://node"+target, strings.NewReader(body))
		r.RequestURI = target
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var b bytes.Buffer
		w.Header().Write(&b)
		b.Write(w.Body.Bytes())
		return w.Code, nonceOf.ReplaceAllString(b.String(), "")
	}
	there, absent := "/secret/news", "/public/none"
	asked := 0
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND", "X"} {
		for _, what := range []string{
			"/m4f/info", "/m4f/changes", "/m4f/hours", "/m4f/segments", "/m4f/media", "/m4f/live", "/m4f/none", "/m4f/", "/m4f/salvage", "/m4f/salvage/x/hashes",
			"/m4f/media/" + view[0].ID.String(), "/m4f/media/nonsense", "/m4f/info?from=x", "/m4f/info?%zz", "/m4f/changes?cursor=1",
		} {
			for _, authorization := range []string{"", "Basic bTRmOnMzY3JldA==", "Digest nonsense", `Digest username="m4f", realm="twindvr", nonce="x", uri="/", response="0"`} {
				s1, t1 := ask(method, there+what, "", authorization)
				s2, t2 := ask(method, absent+what, "", authorization)
				if s1 != s2 || t1 != t2 || s1 != http.StatusUnauthorized {
					t.Errorf("%s %s with %q: %d %s\nand %d %s", method, what, authorization, s1, t1, s2, t2)
				}
				asked++
			}
			// Neither does a body change that.
			s1, t1 := ask(method, there+what, "body", "")
			s2, t2 := ask(method, absent+what, "body", "")
			if s1 != s2 || t1 != t2 {
				t.Errorf("%s %s with a body: %d %s\nand %d %s", method, what, s1, t1, s2, t2)
			}
		}
		if s, text := ask(method, "/m4f/streams", "", ""); s != http.StatusUnauthorized || strings.Contains(text, "news") {
			t.Errorf("%s of the list: %d %s", method, s, text)
		}
	}
	if n := p.asked.Load(); n != 0 {
		t.Errorf("streams were looked at %d times for %d requests of strangers", n, asked)
	}
}

// Whatever the path of a request to an open server: nothing outside the root is
// answered with, and nothing beside its streams.
func TestPathTricks(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	appendAll(t, newArchive(t, filepath.Join(root, "in")), numbers(t, 0, 3)...)
	appendAll(t, newArchive(t, filepath.Join(root, "hidden")), numbers(t, 0, 3)...)
	if err := os.Rename(filepath.Join(root, "hidden"), filepath.Join(root, ".hidden")); err != nil {
		t.Fatal(err)
	}
	appendAll(t, newArchive(t, filepath.Join(dir, "out", "sub")), numbers(t, 0, 3)...)
	appendAll(t, newArchive(t, filepath.Join(dir, "out2")), numbers(t, 0, 3)...)
	if err := os.WriteFile(filepath.Join(dir, "password"), []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"link": filepath.Join(dir, "out"), "password": filepath.Join(dir, "password"), "up": "..", "loop": "loop"} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	// A stream that lies on another disk may be linked to from the root.
	if err := os.Symlink(filepath.Join(dir, "out2"), filepath.Join(root, "moved")); err != nil {
		t.Fatal(err)
	}
	addr := bounded(t, NewHandler(Options{Provider: NewRoot(root), Log: quiet}), ServeOptions{})
	ask := func(target string) (int, string) {
		t.Helper()
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", target)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return 0, err.Error()
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}
	for _, target := range []string{"/in/m4f/info", "/%69n/m4f/info", "/in%2fm4f%2finfo", "/moved/m4f/info"} {
		if status, text := ask(target); status != http.StatusOK {
			t.Errorf("%s: %d %s", target, status, text)
		}
	}
	climbs := []string{"..", "%2e%2e", "%2E.", ".%2e", "..%2f..", "%252e%252e", "..%5c..", "..%c0%af", "%u002e%u002e", ".%00.", "..;", "in/..", "in/%2e%2e/..", "in%2f..%2f.."}
	for _, c := range climbs {
		for _, name := range []string{"/out/sub", "/out2", "/../out/sub", "//out/sub", "/%2fout%2fsub"} {
			for _, lead := range []string{"/", "//", "/./", "/in/", "/%2f"} {
				if status, text := ask(lead + c + name + "/m4f/info"); status == http.StatusOK {
					t.Errorf("%s%s%s is served: %s", lead, c, name, text)
				}
			}
		}
	}
	for _, target := range []string{
		"/.hidden/m4f/info", "/%2ehidden/m4f/info", "/link/sub/m4f/info", "/link/m4f/info", "/up/out2/m4f/info", "/loop/m4f/info", "/password/m4f/info",
		dir + "/out/sub/m4f/info", "/" + dir + "/out/sub/m4f/info", "/in%00/m4f/info", "/in/stream.json/m4f/info", "/in/m4f/media/..%2f..%2f..%2fpassword",
		"/in/m4f/../../../password", "/in/m4f/media/../../stream.json", "/password", "/in/stream.json", "/in/changes", "/", "*", "/in/m4f/info/..", "/in//m4f/info",
		"/" + strings.Repeat("a/", 2000) + "m4f/info", "/" + strings.Repeat("%2e%2e/", 1000) + "m4f/info", "http://[::1/in/m4f/info", "in/m4f/info",
	} {
		if status, text := ask(target); status == http.StatusOK || strings.Contains(text, "hunter2") {
			t.Errorf("%.80s is served: %d %s", target, status, text)
		}
	}
}
