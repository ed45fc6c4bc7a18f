package hls

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/twindvr/twindvr/pkg/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// origin is a server whose resources a test changes.
type origin struct {
	*httptest.Server
	mu    sync.Mutex
	files map[string]string
	asked map[string]int
	// before may answer a request itself: then it returns true.
	before func(w http.ResponseWriter, r *http.Request, n int) bool
}

func newOrigin(t *testing.T) *origin {
	o := &origin{files: map[string]string{}, asked: map[string]int{}}
	o.Server = httptest.NewServer(o)
	t.Cleanup(o.Close)
	return o
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.asked[r.URL.Path]++
	n, before := o.asked[r.URL.Path], o.before
	text, ok := o.files[r.URL.Path]
	o.mu.Unlock()
	if before != nil && before(w, r, n) {
		return
	}
	if !ok {
		http.NotFound(w, r)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
}

func (o *origin) put(name, text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.files[name] = text
}

func (o *origin) count(name string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked[name]
}

// list makes a media playlist of segments from a number on, and their bodies.
func (o *origin) list(from, n int, end bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:%d\n", from)
	for k := from; k < from+n; k++ {
		fmt.Fprintf(&b, "#EXTINF:1.0,\n%d.ts\n", k)
		o.put(fmt.Sprintf("/%d.ts", k), fmt.Sprintf("segment %d", k))
	}
	if end {
		b.WriteString("#EXT-X-ENDLIST\n")
	}
	return b.String()
}

// puller pulls from an origin.
type puller struct {
	*Stream
	stats Stats
	log   bytes.Buffer
}

func pull(t *testing.T, o *origin, path string, opt Options) (*puller, error) {
	t.Helper()
	p := &puller{}
	u, err := url.Parse(o.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	c := NewClient(ClientOptions{})
	t.Cleanup(c.Close)
	opt.Stats, opt.Log = &p.stats, slog.New(slog.NewTextHandler(&p.log, nil))
	if opt.Clock == nil {
		opt.Clock = clock.System
	}
	p.Stream, err = Open(t.Context(), c, u, opt)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", &p.log)
		}
	})
	return p, err
}

// want wants the next segments to have these bodies; "|" ends the stream.
func (p *puller) want(t *testing.T, missing int, bodies ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for k, b := range bodies {
		d, err := p.Main.Next(ctx)
		if b == "|" {
			if err != io.EOF {
				t.Fatalf("%v, %v; want the end", d, err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if string(d.Data) != b {
			t.Fatalf("%q, want %q", d.Data, b)
		}
		if k == 0 && d.Missing != missing {
			t.Errorf("%d segments missing before %q, want %d", d.Missing, b, missing)
		} else if k > 0 && d.Missing != 0 {
			t.Errorf("%d segments missing before %q", d.Missing, b)
		}
	}
}

func mustPull(t *testing.T, o *origin, path string) *puller {
	t.Helper()
	p, err := pull(t, o, path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A live playlist that slides, ends; one from which segments have gone; one
// whose numbers begin anew.
func TestFollow(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	o.put("/a.m3u8", o.list(5, 3, false))
	p := mustPull(t, o, "/a.m3u8")
	p.want(t, 0, "segment 5", "segment 6", "segment 7")
	o.put("/a.m3u8", o.list(7, 3, false))
	p.want(t, 0, "segment 8", "segment 9")
	o.put("/a.m3u8", o.list(13, 2, false))
	p.want(t, 3, "segment 13", "segment 14")
	// An older list, as from a cache, is waited over.
	o.put("/a.m3u8", o.list(12, 2, false))
	waitAsked(t, o, "/a.m3u8", func() { p.skim(t) })
	o.put("/a.m3u8", o.list(14, 2, false))
	p.want(t, 0, "segment 15")
	if got := p.stats.Lost.Load(); got != 3 {
		t.Errorf("%d lost", got)
	}
	// The packager was restarted.
	o.put("/a.m3u8", o.list(0, 2, false))
	p.want(t, 1, "segment 0", "segment 1")
	o.put("/a.m3u8", o.list(1, 3, true))
	p.want(t, 0, "segment 2", "segment 3", "|")
	if got := p.stats.Segments.Load(); got != 12 {
		t.Errorf("%d segments counted", got)
	}
}

// skim asks for a segment for a moment, and wants none.
func (p *puller) skim(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
	defer cancel()
	if d, err := p.Main.Next(ctx); err == nil {
		t.Fatalf("segment %d: %q", d.Number, d.Data)
	}
}

// waitAsked runs fn until a resource has been asked for once more.
func waitAsked(t *testing.T, o *origin, name string, fn func()) {
	t.Helper()
	for n := o.count(name); o.count(name) == n; {
		fn()
	}
}

// Segments that the server says it has not got, lists and does not give, gives
// in part, or gives later.
func TestFailures(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	list := o.list(1, 6, true)
	o.put("/a.m3u8", strings.Replace(list, "#EXTINF:1.0,\n2.ts", "#EXT-X-GAP\n#EXTINF:1.0,\n2.ts", 1))
	o.before = func(w http.ResponseWriter, r *http.Request, n int) bool {
		switch r.URL.Path {
		case "/3.ts": // cut short twice
			if n <= 2 {
				w.Header().Set("Content-Length", "9")
				io.WriteString(w, "segm")
				return true
			}
		case "/4.ts": // later
			if n <= 4 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return true
			}
		case "/5.ts": // never
			http.NotFound(w, r)
			return true
		}
		return false
	}
	p := mustPull(t, o, "/a.m3u8")
	p.want(t, 0, "segment 1")
	p.want(t, 1, "segment 3", "segment 4")
	p.want(t, 1, "segment 6", "|")
	if lost, errs := p.stats.Lost.Load(), p.stats.Errors.Load(); lost != 2 || errs < 4 {
		t.Errorf("%d lost, %d errors", lost, errs)
	}
}

// A playlist whose address has expired is had again from the multivariant one.
func TestExpired(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	master := func(token string) string {
		return "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\n" + token + "/a.m3u8\n"
	}
	o.put("/all.m3u8", master("one"))
	o.put("/one/a.m3u8", strings.ReplaceAll(o.list(1, 1, false), ",\n", ",\n/"))
	p := mustPull(t, o, "/all.m3u8")
	p.want(t, 0, "segment 1")
	o.put("/all.m3u8", master("two"))
	o.put("/two/a.m3u8", strings.ReplaceAll(o.list(1, 2, true), ",\n", ",\n/"))
	o.mu.Lock()
	delete(o.files, "/one/a.m3u8")
	o.mu.Unlock()
	p.want(t, 0, "segment 2", "|")
	if n := p.stats.Returns.Load(); n != 1 {
		t.Errorf("%d returns", n)
	}
}

// Cookies, user and password, redirects and tokens reach the server with
// every request, and a password never reaches the log or an error.
func TestIdentification(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	o.put("/real/a.m3u8", o.list(1, 2, true))
	o.before = func(w http.ResponseWriter, r *http.Request, n int) bool {
		user, password, _ := r.BasicAuth()
		if user != "joe" || password != "s3cret" {
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		switch {
		case r.URL.Path == "/a.m3u8" && r.URL.RawQuery == "token=x%2Fy":
			http.SetCookie(w, &http.Cookie{Name: "session", Value: "1", Path: "/"})
			http.Redirect(w, r, "/real/a.m3u8", http.StatusFound)
			return true
		case strings.HasPrefix(r.URL.Path, "/real/"):
			if c, err := r.Cookie("session"); err != nil || c.Value != "1" {
				w.WriteHeader(http.StatusForbidden)
				return true
			}
		}
		return false
	}
	o.put("/real/1.ts", "segment 1")
	o.put("/real/2.ts", "segment 2")
	at := "http://joe:s3cret@" + strings.TrimPrefix(o.URL, "http://")
	p, err := pull(t, &origin{Server: &httptest.Server{URL: at}}, "/a.m3u8?token=x%2Fy", Options{})
	if err != nil {
		t.Fatal(err)
	}
	p.want(t, 0, "segment 1", "segment 2", "|")
	_, err = pull(t, &origin{Server: &httptest.Server{URL: strings.Replace(at, "s3cret", "wr0ng", 1)}}, "/a.m3u8", Options{})
	if err == nil || strings.Contains(err.Error(), "wr0ng") || !strings.Contains(err.Error(), "401") {
		t.Errorf("%v", err)
	}
}

// Keys: an IV of its own, the media sequence number for one, a key changed, one
// for the initialization section alone, and none again.
func TestKeys(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	seal := func(key, iv, text string) string {
		block, _ := aes.NewCipher([]byte(key))
		n := aes.BlockSize - len(text)%aes.BlockSize
		b := append([]byte(text), bytes.Repeat([]byte{byte(n)}, n)...)
		cipher.NewCBCEncrypter(block, []byte(iv)).CryptBlocks(b, b)
		return string(b)
	}
	number := func(n uint64) string { return string(binary.BigEndian.AppendUint64(make([]byte, 8), n)) }
	const k1, k2 = "0123456789abcdef", "fedcba9876543210"
	iv := string(bytes.Repeat([]byte{0}, 15)) + "\x07"
	o.put("/k1", k1)
	o.put("/k2", k2)
	o.put("/init", seal(k1, iv, "the init section"))
	o.put("/1", seal(k1, iv, "one"))
	o.put("/2", seal(k2, number(1<<40+1), "two"))
	o.put("/3", "three")
	o.put("/4", "xx"+seal(k2, number(1<<40+3), "four")+"xx")
	o.put("/a.m3u8", `#EXTM3U
#EXT-X-TARGETDURATION:1
#EXT-X-MEDIA-SEQUENCE:1099511627776
#EXT-X-KEY:METHOD=AES-128,URI="k1",IV=0x7
#EXT-X-MAP:URI="init"
#EXTINF:1,
1
#EXT-X-KEY:METHOD=AES-128,URI="k2",KEYFORMAT="identity"
#EXT-X-KEY:METHOD=SAMPLE-AES,URI="skd://x",KEYFORMAT="com.apple.streamingkeydelivery"
#EXTINF:1,
2
#EXT-X-KEY:METHOD=NONE
#EXTINF:1,
3
#EXT-X-KEY:METHOD=AES-128,URI="k2"
#EXT-X-BYTERANGE:16@2
#EXTINF:1,
4
#EXT-X-ENDLIST
`)
	p := mustPull(t, o, "/a.m3u8")
	d, err := p.Main.Next(t.Context())
	if err != nil || string(d.Data) != "one" || string(d.Init) != "the init section" {
		t.Fatalf("%+v, %v", d, err)
	}
	p.want(t, 0, "two", "three", "four", "|")
	if o.count("/k2") != 1 || o.count("/init") != 1 {
		t.Errorf("asked %d times for a key, %d times for the init section", o.count("/k2"), o.count("/init"))
	}
	for _, bad := range []string{
		`METHOD=SAMPLE-AES,URI="k1"`, `METHOD=SAMPLE-AES-CTR,URI="k1"`, `METHOD=AES-128,URI="data:,x",KEYFORMAT="urn:uuid:edef8ba9-79d6-4ace-a3c8-27dcd51d21ed"`,
	} {
		o.put("/b.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-KEY:"+bad+"\n#EXTINF:1,\n1\n")
		if _, err := pull(t, o, "/b.m3u8", Options{}); err == nil || !strings.Contains(err.Error(), "it is encrypted") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// What is too large, too much or something else is refused in words.
func TestRefused(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	o.put("/page", "<html>")
	o.put("/none", "#EXTM3U\n")
	o.put("/many", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n"+strings.Repeat("#EXTINF:1,\nx\n", maxSegments+1))
	o.put("/large", "#EXTM3U\n"+strings.Repeat("x", maxPlaylist))
	o.put("/iframes", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-I-FRAMES-ONLY\n#EXTINF:1,\nx\n")
	o.put("/file", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n")
	o.put("/frames", "#EXTM3U\n#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI=\"x\"\n")
	for path, want := range map[string]string{
		"/page": "it is no playlist", "/none": "neither variants nor segments", "/many": "more than", "/large": "bytes", "/iframes": "I-frames alone",
		"/file": "neither http nor https", "/frames": "no variant to play", "/absent": "404",
	} {
		if _, err := pull(t, o, path, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	o.put("/a.m3u8", o.list(1, 1, true))
	if _, err := pull(t, o, "/a.m3u8", Options{Choice: "1"}); err == nil || !strings.Contains(err.Error(), "leave variant= out") {
		t.Error(err)
	}
}

// A context that ends ends every wait.
func TestFollowStops(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	o.put("/a.m3u8", o.list(1, 1, false))
	p := mustPull(t, o, "/a.m3u8")
	p.want(t, 0, "segment 1")
	o.before = func(w http.ResponseWriter, r *http.Request, n int) bool {
		<-r.Context().Done()
		return true
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := p.Main.Next(ctx)
		done <- err
	}()
	for o.count("/a.m3u8") < 2 {
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if err := <-done; err != context.Canceled {
		t.Error(err)
	}
}
