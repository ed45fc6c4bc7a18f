package m4fhttp

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// bounded runs Serve with a bound on connections.
func bounded(t testing.TB, h http.Handler, o ServeOptions) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	o.Log = quiet
	go func() { done <- Serve(ctx, ln, h, o) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// Ten thousand connections that do nothing, half of them in the middle of a
// header, keep no peer from being answered, and cost a bounded amount of memory.
func TestIdleConnections(t *testing.T) {
	const flood = 10000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < flood+connLimitTest+500 {
		t.Skipf("%d files may be open; this needs %d", limit.Cur, flood+connLimitTest+500)
	}
	root := t.TempDir()
	appendAll(t, newArchive(t, filepath.Join(root, "x")), numbers(t, 0, 3)...)
	auth := NewAuth([]string{"s3cret"}, nil, quiet)
	addr := bounded(t, NewHandler(Options{Provider: NewRoot(root), Auth: auth, Log: quiet}), ServeOptions{Connections: connLimitTest})
	c := clientOf(t, "http://"+addr, "x", "s3cret")

	// A peer follows; it is not disturbed.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lines, ended := make(chan struct{}, 10000), make(chan error, 1)
	go func() {
		ended <- c.Changes(ctx, "", func(*ChangeEvent) error { lines <- struct{}{}; return nil })
	}()
	<-lines

	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	conns := make([]net.Conn, flood)
	var wg sync.WaitGroup
	work := make(chan int)
	for range 8 {
		wg.Go(func() {
			for i := range work {
				conn, err := net.Dial("tcp", addr)
				if err != nil {
					t.Error(err)
					return
				}
				conns[i] = conn
				if i%2 == 0 {
					io.WriteString(conn, "GET /x/m4f/info HTTP/1.1\r\nHost: x\r\n")
				}
			}
		})
	}
	for i := range conns {
		work <- i
	}
	close(work)
	wg.Wait()
	runtime.GC()
	runtime.ReadMemStats(&after)
	if t.Failed() {
		return
	}
	for range 5 { // new connections, too
		one := clientOf(t, "http://"+addr, "x", "s3cret")
		if _, err := one.Info(t.Context()); err != nil {
			t.Errorf("with %d idle connections a peer is not answered: %v", flood, err)
		}
		one.Close()
	}
	for len(lines) > 0 {
		<-lines
	}
	<-lines // and the one that follows is still told every second
	cancel()
	<-ended
	open := 0
	for _, conn := range conns {
		conn.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := conn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			open++
		}
		conn.Close()
	}
	used := func(m *runtime.MemStats) float64 { return float64(m.HeapInuse+m.StackInuse) / (1 << 20) }
	t.Logf("%d connections, %d of them held: %.1f MB for both ends", flood, open, used(&after)-used(&before))
	if open > connLimitTest {
		t.Errorf("%d connections are held, %d at most should be", open, connLimitTest)
	}
	if grown := used(&after) - used(&before); grown > 200 {
		t.Errorf("they cost %.1f MB", grown)
	}
}

const connLimitTest = 2000

// Who is given up when there are too many connections, and who is not.
func TestVictims(t *testing.T) {
	now := time.Now()
	l := &conns{all: map[*conn]bool{}}
	add := func(trusted, idle bool, age time.Duration) *conn {
		c := &conn{of: l, trusted: trusted, idle: idle, since: now.Add(-age)}
		l.all[c] = true
		return c
	}
	atWork := add(true, false, time.Hour)
	kept := add(true, true, time.Minute)
	keptLonger := add(true, true, 2*time.Minute)
	slow := add(false, false, time.Minute)
	slower := add(false, false, time.Hour)
	idle := add(false, true, time.Second)
	idler := add(false, true, 2*time.Second)
	for i, want := range []*conn{idler, idle, slower, slow, keptLonger, kept} {
		if got := l.victim(); got != want {
			t.Fatalf("%d: %+v, want %+v", i, got, want)
		}
		delete(l.all, want)
	}
	if got := l.victim(); got != nil || !l.all[atWork] {
		t.Errorf("one at work for who is authorised is given up: %+v", got)
	}
}

// Where all connections are at work for who is authorised, a new one is closed;
// when one of them ends, there is room again.
func TestFull(t *testing.T) {
	root := t.TempDir()
	appendAll(t, newArchive(t, filepath.Join(root, "x")), numbers(t, 0, 3)...)
	addr := bounded(t, NewHandler(Options{Provider: NewRoot(root), Log: quiet}), ServeOptions{Connections: 2})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 2 {
		c := clientOf(t, "http://"+addr, "x")
		first := make(chan struct{})
		begun := sync.OnceFunc(func() { close(first) })
		wg.Go(func() {
			c.Changes(ctx, "", func(*ChangeEvent) error { begun(); return nil })
		})
		<-first
	}
	res, err := http.Get("http://" + addr + "/x/m4f/info")
	if err == nil {
		res.Body.Close()
		t.Errorf("a third is answered: %s", res.Status)
	}
	cancel()
	wg.Wait()
	c := clientOf(t, "http://"+addr, "x")
	if _, err := c.Info(t.Context()); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// A server with a certificate answers plain HTTP from its own machine, and
// nobody else; garbage harms nothing.
func TestPlainLocal(t *testing.T) {
	cert, key := certificateFiles(t, t.TempDir(), 1)
	shown, err := NewCertificate(cert, key, quiet)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	appendAll(t, newArchive(t, filepath.Join(root, "x")), numbers(t, 0, 3)...)
	h := NewHandler(Options{Provider: NewRoot(root), Log: quiet})
	both := bounded(t, h, ServeOptions{TLS: shown.Config(), PlainLocal: true})
	only := bounded(t, h, ServeOptions{TLS: shown.Config()})
	roots, err := LoadRootCAs(cert)
	if err != nil {
		t.Fatal(err)
	}
	plain := clientOf(t, "http://"+both, "x")
	if _, err := plain.Info(t.Context()); err != nil {
		t.Errorf("plain, from the machine: %v", err)
	}
	refused := clientOf(t, "http://"+only, "x")
	if _, err := refused.Info(t.Context()); err == nil || !strings.Contains(err.Error(), "it speaks TLS; write m4fs:// in place of m4f://") {
		t.Errorf("plain: %v", err)
	}
	for _, addr := range []string{both, only} {
		peer := clientOf(t, "http://"+addr, "x").peer
		peer.Scheme = "m4fs"
		c := NewClient(ClientOptions{Peer: peer, RootCAs: roots})
		if _, err := c.Info(t.Context()); err != nil {
			t.Errorf("TLS: %v", err)
		}
		c.Close()
		for _, garbage := range []string{"", "\x16", "\x16\x03\x01\xff\xff", "\x16\x03\x01\x00\x05hello", "\x00\x00\x00\x00", "\xff", "SSH-2.0-x\r\n", strings.Repeat("\x16", 1<<16)} {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(conn, garbage)
			conn.(*net.TCPConn).CloseWrite()
			conn.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%.10q is not cut off: %v", garbage, err)
			}
			conn.Close()
		}
		// What is older than TLS 1.2 is refused.
		if conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: roots, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
			conn.Close()
			t.Error("TLS 1.1 is spoken")
		}
	}
	peer := clientOf(t, "http://"+bounded(t, h, ServeOptions{}), "x").peer
	peer.Scheme = "m4fs"
	wrong := NewClient(ClientOptions{Peer: peer})
	defer wrong.Close()
	if _, err := wrong.Info(t.Context()); err == nil || !strings.Contains(err.Error(), "it does not speak TLS; write m4f:// in place of m4fs://") {
		t.Errorf("TLS to a plain server: %v", err)
	}
}

// A request that is followed by another in the same bytes, or whose end is told
// in two ways, is never taken for two.
func TestSmuggling(t *testing.T) {
	root := t.TempDir()
	appendAll(t, newArchive(t, filepath.Join(root, "x")), numbers(t, 0, 3)...)
	addr := bounded(t, NewHandler(Options{Provider: NewRoot(root), Log: quiet}), ServeOptions{})
	inner := "GET /x/m4f/info HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, text := range map[string]string{
		"both lengths":       "GET /a/m4f/info HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner,
		"two lengths":        "GET /a/m4f/info HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 38\r\n\r\n" + inner,
		"an odd encoding":    "GET /a/m4f/info HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n" + inner,
		"a body":             fmt.Sprintf("GET /a/m4f/info HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(inner), inner),
		"a chunked body":     fmt.Sprintf("POST /a/m4f/info HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(inner), inner),
		"a space in a name":  "GET /a/m4f/info HTTP/1.1\r\nHost: x\r\nContent-Length : 38\r\n\r\n" + inner,
		"a folded header":    "GET /a/m4f/info HTTP/1.1\r\nHost: x\r\nX: y\r\n Content-Length: 38\r\n\r\n",
		"a bare newline":     "GET /a/m4f/info HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
		"no host":            "GET /x/m4f/info HTTP/1.1\r\n\r\n",
		"an absolute target": "GET http://other/x/m4f/none HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, text)
		conn.(*net.TCPConn).CloseWrite()
		conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		r := bufio.NewReader(conn)
		answers := 0
		for {
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				break
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if answers++; res.StatusCode == http.StatusOK {
				t.Errorf("%s: the inner request is answered", name)
			}
		}
		conn.Close()
		if answers > 1 {
			t.Errorf("%s: %d answers", name, answers)
		}
	}
}

// Who sends a request too slowly is cut off, at whichever stage; a body is not
// waited for.
func TestSlowRequests(t *testing.T) {
	root := t.TempDir()
	appendAll(t, newArchive(t, filepath.Join(root, "x")), numbers(t, 0, 3)...)
	cert, key := certificateFiles(t, t.TempDir(), 1)
	shown, err := NewCertificate(cert, key, quiet)
	if err != nil {
		t.Fatal(err)
	}
	h := NewHandler(Options{Provider: NewRoot(root), Log: quiet})
	plain := bounded(t, h, ServeOptions{headerTimeout: 300 * time.Millisecond})
	secure := bounded(t, h, ServeOptions{TLS: shown.Config(), headerTimeout: 300 * time.Millisecond})
	var wg sync.WaitGroup
	for name, c := range map[string]struct{ addr, begin, drip string }{
		"says nothing":                {plain, "", ""},
		"a header without end":        {plain, "GET /x/m4f/info HTTP/1.1\r\nHost: x\r\n", "X: y\r\n"},
		"a header letter by letter":   {plain, "GET /x/m4f/info HTTP/1.1\r\nHost: x\r\nX: ", "y"},
		"a request line without end":  {plain, "GET /", "x"},
		"a body":                      {plain, "POST /x/m4f/info HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n", "x"},
		"a body in chunks":            {plain, "GET /x/m4f/info HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"},
		"a body that is waited for":   {plain, "POST /x/m4f/info HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n", ""},
		"TLS: says nothing":           {secure, "", ""},
		"TLS: a hello without end":    {secure, "\x16\x03\x01\x40\x00", "\x01"},
		"TLS: records that are empty": {secure, "", "\x16\x03\x01\x00\x00"},
	} {
		wg.Go(func() { dawdle(t, name, c.addr, c.begin, c.drip) })
	}
	wg.Wait()
}

// dawdle sends a request slowly and wants to be cut off.
func dawdle(t *testing.T, name, addr, begin, drip string) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		io.WriteString(conn, begin)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			if _, err := io.WriteString(conn, drip); err != nil {
				return
			}
		}
	}()
	conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s: it is not cut off", name)
	}
	close(stop)
	conn.Close()
	<-stopped
}
