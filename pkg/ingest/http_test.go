package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/icholy/digest"

	"github.com/twindvr/twindvr/pkg/testkit"
)

// nginxPath finds the program where an unprivileged user's PATH does not.
func nginxPath() string {
	if path, err := exec.LookPath("nginx"); err == nil {
		return path
	}
	return "/usr/sbin/nginx"
}

// nginx starts a server on a port, with the given locations.
func nginx(t *testing.T, port int, root, locations string) *process {
	t.Helper()
	dir := t.TempDir()
	conf := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log stderr warn;
events {}
http {
	access_log off; client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	server { listen 127.0.0.1:%[2]d; root %[3]s; %[4]s }
}`, dir, port, root, locations)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := run(t, nginxPath(), "-p", dir, "-e", "stderr", "-c", conf)
	testkit.Await(t, "nginx listens", func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return p
}

// openWhenUp opens a source as soon as its server is there.
func openWhenUp(t *testing.T, url string) Source {
	t.Helper()
	var src Source
	testkit.Await(t, "opening "+url, func() bool {
		var err error
		src, err = Open(context.Background(), url, Options{})
		if err != nil && !strings.Contains(err.Error(), "refused") {
			t.Fatal(err)
		}
		return err == nil
	})
	return src
}

// TestHTTPFromNginx records a file that nginx serves as slowly as a live
// stream, with a password, over a redirect; and what it proxies from ffmpeg.
func TestHTTPFromNginx(t *testing.T) {
	t.Parallel()
	path := clip(t, 4)
	sent := readFile(t, path)
	p, upstream := port(), port()
	passwords := filepath.Join(t.TempDir(), "passwords")
	if err := os.WriteFile(passwords, []byte("joe:{PLAIN}p@ss word\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	nginx(t, p, filepath.Dir(path), fmt.Sprintf(`
		location /slow/ { alias %s/; limit_rate 300k; }
		location /private/ { alias %s/; auth_basic closed; auth_basic_user_file %s; }
		location /moved { return 302 /private/clip.ts; }
		location /closed { return 403; }
		location /live { proxy_pass http://127.0.0.1:%d/live; proxy_buffering off; }`,
		filepath.Dir(path), filepath.Dir(path), passwords, upstream))
	place := fmt.Sprintf("127.0.0.1:%d", p)
	for _, url := range []string{"http://" + place + "/slow/clip.ts?a=b&option=of+the+server", "http://joe:p%40ss%20word@" + place + "/private/clip.ts",
		"http://joe:p%40ss%20word@" + place + "/moved"} {
		r := record(t, openWhenUp(t, url))
		r.wait(t)
		if r.end != nil {
			t.Errorf("%s: the source ended with %v", url, r.end)
		}
		r.sameStream(t, sent)
		if st := r.Stats(); st.Bytes != uint64(len(sent)) || st.Packets == 0 || st.LastArrival.IsZero() {
			t.Errorf("%s: %+v", url, st)
		}
	}
	for url, want := range map[string]string{
		"http://" + place + "/private/clip.ts":                "it wants a user and a password",
		"http://joe:nosuchword@" + place + "/private/clip.ts": "the user or the password in the URL is wrong",
		"http://" + place + "/closed":                         "403 Forbidden: it does not let",
		"http://" + place + "/nosuch.ts?token=nosuchword":     "404 Not Found: it has no such stream",
		"http://" + place + "/live":                           "502 Bad Gateway",
	} {
		_, err := Open(t.Context(), url, Options{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "nosuchword") {
			t.Errorf("%s: %v, want %q", url, err, want)
		}
	}
	file := filepath.Join(t.TempDir(), "sent.ts")
	ffmpeg(t, "-re", "-i", path, "-map", "0", "-c", "copy", "-f", "tee",
		fmt.Sprintf("[f=mpegts:flush_packets=1]%s|[f=mpegts:listen=1]http://127.0.0.1:%d/live", file, upstream))
	var src Source
	testkit.Await(t, "nginx reaches ffmpeg", func() bool {
		var err error
		src, err = Open(t.Context(), "http://"+place+"/live", Options{})
		return err == nil
	})
	r := record(t, src)
	r.wait(t)
	r.sameStream(t, readFile(t, file))
}

// TestHTTPServerKilled kills a server that is recorded, and starts it again.
func TestHTTPServerKilled(t *testing.T) {
	t.Parallel()
	path := clip(t, 6)
	sent := readFile(t, path)
	p := port()
	url := fmt.Sprintf("http://127.0.0.1:%d/clip.ts", p)
	for range 2 {
		server := nginx(t, p, filepath.Dir(path), "limit_rate 300k;")
		r := record(t, openWhenUp(t, url))
		testkit.Await(t, "a second is there", func() bool { return r.size() > 200_000 })
		server.kill()
		r.wait(t)
		if r.end == nil {
			t.Error("a broken connection was taken for the end")
		}
		if n := common(r.data, sent); n < len(r.data) || n == len(sent) {
			t.Errorf("%d bytes received, equal up to %d of %d", len(r.data), n, len(sent))
		}
		for _, s := range r.segments[:len(r.segments)-1] {
			if strings.HasSuffix(s, "damaged") {
				t.Errorf("segments before the cut are damaged: %q", r.segments)
			}
		}
	}
}

// TestHTTPFromFFmpeg records from ffmpeg's own server, killed and started
// again.
func TestHTTPFromFFmpeg(t *testing.T) {
	t.Parallel()
	path := clip(t, 3)
	p := port()
	url := fmt.Sprintf("http://127.0.0.1:%d/live.ts", p)
	for _, kill := range []bool{true, false} {
		file := filepath.Join(t.TempDir(), "sent.ts")
		server := ffmpeg(t, "-re", "-i", path, "-map", "0", "-c", "copy", "-f", "tee",
			fmt.Sprintf("[f=mpegts:flush_packets=1]%s|[f=mpegts:listen=1]%s", file, url))
		r := record(t, openWhenUp(t, url))
		if kill {
			testkit.Await(t, "a second is there", func() bool { return r.size() > 100_000 })
			server.kill()
		}
		r.wait(t)
		if all := readFile(t, file); !kill {
			if r.end != nil {
				t.Errorf("the source ended with %v", r.end)
			}
			r.sameStream(t, all)
		} else if n := common(r.data, all); r.end == nil || n < min(len(r.data), len(all)) {
			t.Errorf("%d bytes received, equal up to %d, end %v", len(r.data), n, r.end)
		}
		r.Close()
	}
}

// serve starts a server of the test's own.
func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// tsBytes are so many null packets.
func tsBytes(packets int) []byte {
	p := make([]byte, 188)
	p[0], p[1], p[2], p[3] = 0x47, 0x1f, 0xff, 0x10
	return bytes.Repeat(p, packets)
}

func TestHTTPDigest(t *testing.T) {
	asked := atomic.Int32{}
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		chal := &digest.Challenge{Realm: "tv", Nonce: "abc", QOP: []string{"auth"}, Algorithm: "SHA-256"}
		got, err := digest.ParseCredentials(r.Header.Get("Authorization"))
		if err == nil {
			want, _ := digest.Digest(chal, digest.Options{Method: "GET", URI: r.URL.RequestURI(), Count: got.Nc,
				Cnonce: got.Cnonce, Username: "joe", Password: "secret"})
			if got.Response == want.Response {
				w.Write(tsBytes(10))
				return
			}
		}
		w.Header().Add("WWW-Authenticate", `Basic realm="tv"`)
		w.Header().Add("WWW-Authenticate", chal.String())
		w.WriteHeader(http.StatusUnauthorized)
	})
	src, err := Open(t.Context(), strings.Replace(s.URL, "//", "//joe:secret@", 1)+"/x?y=z", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if got := readAll(t, src); !bytes.Equal(got, tsBytes(10)) {
		t.Errorf("%d bytes", len(got))
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("the server was asked %d times, want 2", n)
	}
	if _, err := Open(t.Context(), strings.Replace(s.URL, "//", "//joe:wrong@", 1), Options{}); err == nil || !strings.Contains(err.Error(), "is wrong") {
		t.Errorf("a wrong password: %v", err)
	}
}

// TestHTTPKeepsCredentials redirects to another server, which asks for the
// password and for where the request came from.
func TestHTTPKeepsCredentials(t *testing.T) {
	var got atomic.Value
	thief := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.Header.Get("Referer") != "" {
			got.Store(fmt.Sprint(r.Header))
		}
		w.Header().Set("WWW-Authenticate", "Basic realm=tv")
		w.WriteHeader(http.StatusUnauthorized)
	})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if user, pw, _ := r.BasicAuth(); user != "joe" || pw != "secret" {
			w.Header().Set("WWW-Authenticate", "Basic realm=tv")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		http.Redirect(w, r, thief.URL, http.StatusFound)
	})
	_, err := Open(t.Context(), strings.Replace(s.URL, "//", "//joe:secret@", 1)+"/?token=abc", Options{})
	if err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("the error is %v", err)
	}
	if s := got.Load(); s != nil {
		t.Errorf("the other server was sent %v", s)
	}
}

func TestHTTPNoTransportStream(t *testing.T) {
	for body, want := range map[string]string{
		"#EXTM3U\n#EXT-X-VERSION:3\n":                "this is a playlist; write hls://",
		"\xef\xbb\xbf\n<!DOCTYPE html><html></html>": "web page",
		"<HTML>":                       "web page",
		"<?xml version=\"1.0\"?><MPD>": "XML",
	} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, body) })
		src, err := Open(t.Context(), s.URL, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := src.Read(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, want %q", body, err, want)
			}
		}
		src.Close()
	}
}

func TestHTTPBodyBreaksOff(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		w.Write(tsBytes(10))
	})
	src, err := Open(t.Context(), s.URL, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	n := 0
	for {
		var b *Batch
		if b, err = src.Read(t.Context()); err != nil {
			break
		}
		n += len(b.Datagrams[0])
	}
	if n != 1880 || err == io.EOF || !strings.Contains(err.Error(), "broken off after 1880 bytes") {
		t.Errorf("%d bytes, then %v", n, err)
	}
}

// TestHTTPTriesAgain has a server in trouble for a moment.
func TestHTTPTriesAgain(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Write(tsBytes(1))
	})
	src, err := Open(t.Context(), s.URL, Options{})
	if err != nil {
		t.Fatalf("after %d requests: %v", asked.Load(), err)
	}
	src.Close()
	asked.Store(-100)
	if _, err := Open(t.Context(), s.URL, Options{}); err == nil || !strings.Contains(err.Error(), "503") || asked.Load() != -97 {
		t.Errorf("after %d requests: %v", asked.Load()+100, err)
	}
}

// TestHTTPReadEndsWithContext gives a read up, and goes on with another.
func TestHTTPReadEndsWithContext(t *testing.T) {
	more := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-more
		w.Write(tsBytes(1))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	src, err := Open(t.Context(), s.URL, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := src.Read(ctx); err != context.Canceled {
		t.Errorf("Read: %v", err)
	}
	close(more)
	if b, err := src.Read(t.Context()); err != nil || len(b.Datagrams[0]) != 188 {
		t.Errorf("Read: %v", err)
	}
	src.Close()
	src.Close()
	if _, err := src.Read(t.Context()); err == nil || !strings.Contains(err.Error(), "is closed") {
		t.Errorf("Read after Close: %v", err)
	}
}

// TestHTTPOpenEndsWithContext opens a server that does not answer.
func TestHTTPOpenEndsWithContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := Open(ctx, "http://"+l.Addr().String()+"/x", Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Open: %v", err)
	}
}

// TestHTTPSlowReader holds the server up where nobody reads.
func TestHTTPSlowReader(t *testing.T) {
	var written atomic.Int64
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		block := tsBytes(1000)
		for r.Context().Err() == nil {
			n, err := w.Write(block)
			written.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	src, err := Open(t.Context(), s.URL, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if _, err := src.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	last, same := int64(-1), 0
	testkit.Await(t, "the server is held up", func() bool {
		n := written.Load()
		if n == last {
			same++
		} else {
			last, same = n, 0
		}
		return same > 20
	})
	if last > 64<<20 {
		t.Errorf("%d bytes are on their way to a reader that does not read", last)
	}
	before := written.Load()
	for range 2 + int(last)/httpBlock {
		if _, err := src.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	testkit.Await(t, "the server goes on", func() bool { return written.Load() > before })
}

func TestHTTPSWithUnknownCertificate(t *testing.T) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	if _, err := Open(t.Context(), s.URL, Options{}); err == nil || !strings.Contains(err.Error(), "self-signed") {
		t.Errorf("https: %v", err)
	}
	plain := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Write(tsBytes(1)) })
	if _, err := Open(t.Context(), strings.Replace(plain.URL, "http:", "https:", 1), Options{}); err == nil || !strings.Contains(err.Error(), "write http://") {
		t.Errorf("https to http: %v", err)
	}
}

func TestHTTPURL(t *testing.T) {
	for url, want := range map[string]string{
		"http://":                     "no host",
		"http:///x":                   "no host",
		"http://h:0/x":                "port",
		"http://h:99999/x":            "port",
		"https://joe:pw123456@h:x/":   "port",
		"http://h/%zz?token=pw123456": "escape",
		"http://h/x.m3u8?variant=":    "variant",
	} {
		err := Check(url)
		var u *URLError
		if !errors.As(err, &u) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "pw123456") {
			t.Errorf("Check(%q): %v, want %q", url, err, want)
		}
	}
	for _, url := range []string{"http://h", "https://[::1]:8443/x?a=b;c", "http://joe:secret@h:80/x#y", "http://h/live.m3u8"} {
		if err := Check(url); err != nil {
			t.Errorf("Check(%q): %v", url, err)
		}
	}
}

func FuzzHTTPURL(f *testing.F) {
	for _, s := range []string{"http://h/x", "https://u:p@h:1/x?y#z", "http://[::1%25lo]/", "http://%zz", "http://h:1:2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := parseHTTP(raw)
		if err == nil && u.Hostname() == "" {
			t.Errorf("%q has no host", raw)
		}
	})
}

func FuzzSniffHTTP(f *testing.F) {
	f.Add([]byte("#EXTM3U"))
	f.Add([]byte("<html>"))
	f.Add(tsBytes(1))
	f.Fuzz(func(t *testing.T, p []byte) {
		if err := sniffHTTP(p); err != nil && len(p) > 0 && p[0] == 0x47 {
			t.Errorf("%q is refused: %v", p, err)
		}
	})
}
