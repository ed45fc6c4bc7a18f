package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// server is a process that answers HTTP.
type server struct {
	*process
	addr string
}

// serveM4F starts serve-m4f, and returns when it answers.
func (b *bench) serveM4F(ctx context.Context, root string, flags ...string) (*server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	return startServer(ctx, addr, b.twindvr, append([]string{"serve-m4f", root, "--listen", addr}, flags...)...)
}

// startServer starts a program that serves at an address, and returns when it answers.
func startServer(ctx context.Context, addr, name string, args ...string) (*server, error) {
	p, err := start(syscall.SIGTERM, name, args...)
	if err != nil {
		return nil, err
	}
	s := &server{process: p, addr: addr}
	return s, s.wait(ctx)
}

// freeAddr is an address that nobody listens on.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// wait waits until the server takes connections.
func (s *server) wait(ctx context.Context) error {
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			return c.Close()
		}
		if ctx.Err() != nil || zombie(s.Process.Pid) || time.Now().After(end) {
			kill([]*process{s.process})
			return fmt.Errorf("%s does not answer: %w: %s", s.Path, err, bytes.TrimSpace(s.stderr.Bytes()))
		}
	}
}

// stop ends the server.
func (s *server) stop() error {
	_, err := stopAll([]*process{s.process})
	return err
}

// cpuOf is the CPU time, kernel time included, of the threads that a process and
// its children have.
func cpuOf(pid int) time.Duration {
	var sum time.Duration
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	for _, task := range tasks {
		b, err := os.ReadFile(filepath.Join(task, "schedstat"))
		if err != nil {
			continue // the thread has ended
		}
		if f := strings.Fields(string(b)); len(f) > 0 {
			n, _ := strconv.ParseInt(f[0], 10, 64)
			sum += time.Duration(n)
		}
		children, _ := os.ReadFile(filepath.Join(task, "children"))
		for _, f := range strings.Fields(string(children)) {
			if child, err := strconv.Atoi(f); err == nil {
				sum += cpuOf(child)
			}
		}
	}
	return sum
}

// certificate is one that a server shows, made for the occasion.
type certificate struct{ certFile, keyFile string }

// flags are those of serve-m4f.
func (c *certificate) flags() []string {
	if c == nil {
		return nil
	}
	return []string{"--tls-cert", c.certFile, "--tls-key", c.keyFile}
}

func newCertificate(dir string) (*certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	c := &certificate{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	return c, errors.Join(
		os.WriteFile(c.certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(c.keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
}

// load asks a server for each path once, over so many connections that are kept,
// and returns the bytes of all answers without their headers.
func load(ctx context.Context, addr string, cert *certificate, paths []string, conns int) (int64, error) {
	var next, total atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range conns {
		g.Go(func() error {
			c, err := dialLoad(ctx, addr, cert)
			if err != nil {
				return err
			}
			defer c.Close()
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(paths) {
					return nil
				}
				n, err := c.get(paths[i])
				if err != nil {
					return fmt.Errorf("%s: %w", paths[i], err)
				}
				total.Add(n)
			}
			return ctx.Err()
		})
	}
	err := g.Wait()
	return total.Load(), err
}

// loadConn is a connection to a loaded server.
type loadConn struct {
	net.Conn
	tcp *net.TCPConn // nil: what comes is encrypted
	buf []byte
}

func dialLoad(ctx context.Context, addr string, cert *certificate) (*loadConn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	l := &loadConn{Conn: c, buf: make([]byte, 256<<10)}
	if cert == nil {
		l.tcp = c.(*net.TCPConn)
		return l, nil
	}
	t := tls.Client(c, &tls.Config{InsecureSkipVerify: true}) // it was made a moment ago, and nothing secret is sent
	l.Conn = t
	return l, t.HandshakeContext(ctx)
}

// get asks for a path and returns how long the body was.
func (c *loadConn) get(path string) (int64, error) {
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: bench\r\n\r\n", path); err != nil {
		return 0, err
	}
	head := c.buf[:0]
	for {
		n, err := c.Read(c.buf[len(head):min(len(head)+4096, cap(c.buf))])
		if head = c.buf[:len(head)+n]; bytes.Contains(head, []byte("\r\n\r\n")) {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	text, body, _ := bytes.Cut(head, []byte("\r\n\r\n"))
	if !bytes.HasPrefix(text, []byte("HTTP/1.1 200 ")) {
		return 0, fmt.Errorf("%s", text)
	}
	size := int64(-1)
	for line := range strings.Lines(string(text)) {
		if k, v, _ := strings.Cut(line, ":"); strings.EqualFold(k, "Content-Length") {
			size, _ = strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		}
	}
	if size < int64(len(body)) {
		return 0, fmt.Errorf("an answer without its length: %s", text)
	}
	return size, c.discard(size - int64(len(body)))
}

// discard throws away what comes. The kernel need not copy it, so that the load is
// as little as possible of what is measured.
func (c *loadConn) discard(n int64) error {
	if c.tcp == nil {
		_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(c.Conn, n), c.buf)
		return err
	}
	raw, err := c.tcp.SyscallConn()
	if err != nil {
		return err
	}
	for n > 0 {
		var got int
		var rerr error
		err := raw.Read(func(fd uintptr) bool {
			got, rerr = discardSome(fd, c.buf[:min(n, int64(len(c.buf)))])
			return rerr != unix.EAGAIN
		})
		if err := errors.Join(err, rerr); err != nil {
			return err
		}
		if got == 0 {
			return io.ErrUnexpectedEOF
		}
		n -= int64(got)
	}
	return nil
}

// discardSome takes at most len(b) bytes from a socket; b is not written to.
func discardSome(fd uintptr, b []byte) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_TRUNC, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
