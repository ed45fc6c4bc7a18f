package m4fhttp

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// hostile is a peer that answers every request with the same function.
func hostile(t *testing.T, answer http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(answer)
	t.Cleanup(srv.CloseClientConnections)
	t.Cleanup(srv.Close)
	c := clientOf(t, srv.URL, "x")
	c.Close()
	c = NewClient(ClientOptions{Peer: c.peer, Silence: 200 * time.Millisecond})
	t.Cleanup(c.Close)
	return c
}

func body(segs ...*m4f.Segment) []byte {
	var b bytes.Buffer
	w := m4f.NewWriter(&b)
	for _, s := range segs {
		if err := w.WriteSegment(s); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

// endless writes the same bytes until the client has had enough.
func endless(w http.ResponseWriter, b []byte) {
	for {
		if _, err := w.Write(b); err != nil {
			return
		}
	}
}

// A peer may send what it likes: the error says so, of its kind, in bounded time
// and memory.
func TestHostileMedia(t *testing.T) {
	seg := segment(t, 0, 0, 0)
	other := segment(t, 0, 1, 0)
	good := body(seg)
	rec := archive.Record{Header: seg.Header}
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	relabelled := *seg
	relabelled.Header.MediaTime += 5
	head := seg.Header
	head.Length = m4f.MaxMedia
	huge := head.AppendBox(bytes.Clone(seg.Init))
	send := func(b []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { w.Write(b) }
	}
	bad := func(err error) bool {
		var b *BadAnswerError
		return errors.As(err, &b)
	}
	is := func(target error) func(error) bool {
		return func(err error) bool { return errors.Is(err, target) }
	}
	status := func(code int) func(error) bool {
		return func(err error) bool { return StatusOf(err) == code }
	}
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   func(error) bool
	}{
		{"the segment", send(good), func(err error) bool { return err == nil }},
		{"a flipped bit", send(flipped), bad},
		{"another segment", send(body(other)), bad},
		{"another media time", send(body(&relabelled)), bad},
		{"two segments", send(body(seg, segment(t, 1, 0, 0))), bad},
		{"more behind it", send(append(bytes.Clone(good), "xyz"...)), bad},
		{"cut", send(good[:len(good)-10]), is(ErrCut)},
		{"cut against its Content-Length", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(good)))
			w.Write(good[:len(good)/2])
		}, is(ErrCut)},
		{"nothing in it", send(nil), bad},
		{"a Content-Length beyond what was listed", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(1<<40))
			w.Write(good)
		}, bad},
		{"a length beyond what was listed", func(w http.ResponseWriter, r *http.Request) {
			w.Write(huge)
			endless(w, make([]byte, 1<<16))
		}, is(ErrCut)},
		{"text", send([]byte("<html>it works!</html>")), bad},
		{"an endless init segment", func(w http.ResponseWriter, r *http.Request) {
			w.Write([]byte{0, 0, 0, 16, 'f', 't', 'y', 'p', 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 'm', 'o', 'o', 'v'})
			endless(w, make([]byte, 1<<16))
		}, bad},
		{"endless boxes to skip", func(w http.ResponseWriter, r *http.Request) {
			w.Write(seg.Init)
			endless(w, bytes.Repeat([]byte{0, 0, 0, 8, 'f', 'r', 'e', 'e'}, 1000))
		}, is(ErrCut)},
		{"endless headers", func(w http.ResponseWriter, r *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			defer conn.Close()
			io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
			for {
				if _, err := io.WriteString(conn, "X-Again: and again\r\n"); err != nil {
					return
				}
			}
		}, func(err error) bool { return err != nil && strings.Contains(err.Error(), "header") }},
		{"no HTTP", func(w http.ResponseWriter, r *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			io.WriteString(conn, "SSH-2.0-OpenSSH_9.2\r\n\r\n")
			conn.Close()
		}, func(err error) bool { return err != nil }},
		{"silence before the header", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, is(ErrSilent)},
		{"silence inside", func(w http.ResponseWriter, r *http.Request) {
			w.Write(good[:100])
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, is(ErrSilent)},
		{"a byte now and then", func(w http.ResponseWriter, r *http.Request) {
			for _, b := range good {
				if _, err := w.Write([]byte{b}); err != nil {
					return
				}
				http.NewResponseController(w).Flush()
				time.Sleep(5 * time.Millisecond)
			}
		}, is(ErrSlow)},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/elsewhere", http.StatusFound)
		}, status(302)},
		{"a server that is broken", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) }, status(500)},
		{"come back tomorrow", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "86400")
			w.WriteHeader(503)
		}, status(503)},
		{"an endless refusal", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", problemType)
			w.WriteHeader(404)
			endless(w, bytes.Repeat([]byte(" "), 1<<16))
		}, status(404)},
		{"a refusal with a terminal's escapes", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", problemType)
			w.WriteHeader(404)
			json.NewEncoder(w).Encode(Problem{Detail: "\x1b[2Jgone\x9b"})
		}, func(err error) bool {
			return StatusOf(err) == 404 && strings.Contains(err.Error(), "gone") && !strings.ContainsAny(err.Error(), "\x1b\u009b")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := hostile(t, c.answer).Media(t.Context(), &rec, nil)
			if !c.want(err) {
				t.Errorf("error %v (%T)", err, err)
			}
			if (got != nil) != (err == nil) {
				t.Errorf("segment %v with error %v", got, err)
			}
			var pe *PeerError
			if err != nil && !errors.As(err, &pe) {
				t.Errorf("%T is no *PeerError", err)
			}
		})
	}
}

func TestHostileLists(t *testing.T) {
	w := RecordOf(&archive.Record{Header: segment(t, 0, 0, 0).Header})
	line := func(change func(*Record)) string {
		r := w
		change(&r)
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(b) + "\n"
	}
	for name, text := range map[string]string{
		"no JSON":                "hello\n",
		"another kind":           "[1,2]\n",
		"an empty line":          "\n",
		"no identity":            line(func(r *Record) { r.ID = m4f.Identity{} }),
		"a short identity":       strings.Replace(line(func(*Record) {}), `"id":"`, `"id":"0`, 1),
		"a huge segment":         line(func(r *Record) { r.Bytes = 1 << 60 }),
		"no bytes":               line(func(r *Record) { r.Bytes = 0 }),
		"no duration":            line(func(r *Record) { r.Duration = 0 }),
		"more than an hour long": line(func(r *Record) { r.Duration = archive.MaxDuration + 1 }),
		"a negative time":        line(func(r *Record) { r.MediaTime = -1 }),
		"a time of 34 bits":      line(func(r *Record) { r.MediaTime = m4f.Wrap }),
		"the year 10000":         strings.Replace(line(func(*Record) {}), `"start":"2026`, `"start":"12026`, 1),
		"the year 1":             strings.Replace(line(func(*Record) {}), `"start":"2026`, `"start":"0001`, 1),
		"a part outside":         line(func(r *Record) { r.Parts = [][2]int64{{0, length + 1}} }),
		"parts in disorder":      line(func(r *Record) { r.Parts = [][2]int64{{9, 20}, {0, 5}} }),
		"a line without end":     strings.Repeat("x", maxLine+10),
		"an object that long":    `{"id":"` + strings.Repeat("x", maxLine),
		"cut":                    line(func(*Record) {})[:50],
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := hostile(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, text) })
			var bad *BadAnswerError
			if _, err := c.Segments(t.Context(), 0, 0); !errors.As(err, &bad) {
				t.Errorf("segments: %v", err)
			}
			if _, err := c.Hours(t.Context(), 0, 0); name == "no JSON" && !errors.As(err, &bad) {
				t.Errorf("hours: %v", err)
			}
			err := c.Changes(t.Context(), "", func(ev *ChangeEvent) error { return nil })
			if !errors.As(err, &bad) {
				t.Errorf("changes: %v", err)
			}
			if _, err := c.Info(t.Context()); name == "no JSON" && !errors.As(err, &bad) {
				t.Errorf("info: %v", err)
			}
		})
	}
	t.Run("hours in disorder", func(t *testing.T) {
		h, _ := json.Marshal(Hour{Start: Time(epoch)})
		c := hostile(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s\n%s\n", h, h) })
		var bad *BadAnswerError
		if _, err := c.Hours(t.Context(), 0, 0); !errors.As(err, &bad) {
			t.Error(err)
		}
	})
	t.Run("a bomb", func(t *testing.T) {
		var bomb bytes.Buffer
		gz := gzip.NewWriter(&bomb)
		gz.Write(make([]byte, 64<<20))
		gz.Close()
		c := hostile(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(bomb.Bytes())
		})
		var bad *BadAnswerError
		if _, err := c.Segments(t.Context(), 0, 0); !errors.As(err, &bad) {
			t.Error(err)
		}
		if _, err := c.Info(t.Context()); !errors.As(err, &bad) {
			t.Error(err)
		}
	})
	t.Run("no more changes", func(t *testing.T) {
		c := hostile(t, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintln(w, `{"cursor":"1","status":{"idle":true,"chain":["a"]}}`)
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
		n := 0
		err := c.Changes(t.Context(), "", func(ev *ChangeEvent) error { n++; return nil })
		if !errors.Is(err, ErrSilent) || n != 1 {
			t.Errorf("%d events, %v", n, err)
		}
	})
}

func TestNobodyThere(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	_, err = clientOf(t, "http://"+addr, "x").Info(t.Context())
	var pe *PeerError
	if !errors.As(err, &pe) || !strings.Contains(err.Error(), "refused") || strings.Count(err.Error(), addr) > 2 {
		t.Errorf("%v", err)
	}
}

// serving runs Serve on a free port.
func serving(t *testing.T, h http.Handler, tlsConfig *tls.Config) (addr string, stop func() error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, ln, h, ServeOptions{TLS: tlsConfig, Log: quiet}) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	t.Cleanup(func() { stop() })
	return ln.Addr().String(), stop
}

// Endless answers end with the server, those under way come to their end, and
// requests that are too large or do not come are cut off.
func TestServe(t *testing.T) {
	root := t.TempDir()
	a := newArchive(t, filepath.Join(root, "x"))
	appendAll(t, a, numbers(t, 0, 3)...)
	addr, stop := serving(t, NewHandler(Options{Provider: NewRoot(root), Log: quiet}), nil)
	c := clientOf(t, "http://"+addr, "x")

	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /x/m4f/info HTTP/1.1\r\nHost: x\r\nX-Bomb: %s\r\n\r\n", strings.Repeat("b", 64<<10))
	line := make([]byte, 12)
	if _, err := io.ReadFull(conn, line); err != nil || string(line) != "HTTP/1.1 431" {
		t.Errorf("a huge header is answered with %q, %v", line, err)
	}

	live, changes := make(chan struct{}, 10), make(chan struct{}, 10)
	ended := make(chan error, 2)
	go func() {
		ended <- c.Live(t.Context(), m4f.Identity{}, func(*m4f.Segment) error { live <- struct{}{}; return nil })
	}()
	go func() {
		ended <- c.Changes(t.Context(), "", func(*ChangeEvent) error { changes <- struct{}{}; return nil })
	}()
	<-live
	<-changes
	if err := stop(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-ended; !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("an endless request ends with %v", err)
		}
	}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	shown, err := NewCertificate(certFile, keyFile, quiet)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "root")
	appendAll(t, newArchive(t, filepath.Join(root, "x")), numbers(t, 0, 3)...)
	auth := NewAuth([]string{"s3cret"}, nil, quiet)
	addr, _ := serving(t, NewHandler(Options{Provider: NewRoot(root), Auth: auth, Log: quiet}), shown.Config())
	peer, err := config.ParsePeer("m4fs://" + addr + "/x")
	if err != nil {
		t.Fatal(err)
	}
	roots, err := LoadRootCAs(certFile)
	if err != nil {
		t.Fatal(err)
	}
	c := NewClient(ClientOptions{Peer: peer, Keys: []string{"s3cret"}, RootCAs: roots})
	defer c.Close()
	n := 0
	if err := c.MediaSpan(t.Context(), 0, 0, func(*m4f.Segment) error { n++; return nil }); err != nil || n != 3 {
		t.Errorf("%d segments over TLS, %v", n, err)
	}
	stranger := NewClient(ClientOptions{Peer: peer, Keys: []string{"s3cret"}})
	defer stranger.Close()
	if _, err := stranger.Info(t.Context()); err == nil || !strings.Contains(err.Error(), "--tls-ca") {
		t.Errorf("a certificate that nobody vouches for: %v", err)
	}
	if _, err := NewCertificate(certFile, "", quiet); err == nil {
		t.Error("a certificate without its key is no error")
	}
	if _, err := LoadRootCAs(keyFile); err == nil {
		t.Error("a file without certificates is no error")
	}
}
