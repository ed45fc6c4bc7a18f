package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/twindvr/twindvr/pkg/testsrc"
)

// loopback is a network on one machine without privileges: the way from each
// node to each other leads through a relay of its own, which can be cut.
type loopback struct {
	ports []int // of the nodes
	udp   int   // first port of the sources
	ways  map[[2]int]*relay
	bytes atomic.Int64
}

// maxStreams is how many streams a lab has at most.
const maxStreams = 16

func newLoopback(nodes int) (*loopback, error) {
	l := &loopback{ways: map[[2]int]*relay{}}
	for range nodes {
		p, err := freePort()
		if err != nil {
			return nil, err
		}
		l.ports = append(l.ports, p)
	}
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c.Close()
	l.udp = min(c.LocalAddr().(*net.UDPAddr).Port, 65000-nodes*maxStreams)
	for from := range nodes {
		for to := range nodes {
			if from == to {
				continue
			}
			r, err := newRelay(net.JoinHostPort("127.0.0.1", strconv.Itoa(l.ports[to])), &l.bytes)
			if err != nil {
				l.close()
				return nil, err
			}
			l.ways[[2]int{from, to}] = r
		}
	}
	return l, nil
}

func freePort() (int, error) {
	s, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer s.Close()
	return s.Addr().(*net.TCPAddr).Port, nil
}

func (l *loopback) kind() string               { return "loopback" }
func (l *loopback) http(node int) string       { return fmt.Sprintf("127.0.0.1:%d", l.ports[node]) }
func (l *loopback) peer(from, to int) string   { return l.ways[[2]int{from, to}].addr() }
func (l *loopback) between() (int64, error)    { return l.bytes.Load(), nil }
func (l *loopback) sourcePort(node, s int) int { return l.udp + node*maxStreams + s }

func (l *loopback) sourceURL(node, s int) string {
	return fmt.Sprintf("udp://127.0.0.1:%d", l.sourcePort(node, s))
}

func (l *loopback) output(node, s int) (*testsrc.Output, error) {
	return testsrc.OpenOutput(l.sourceURL(node, s), testsrc.OutputOptions{})
}

func (l *loopback) dial(ctx context.Context, node int) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", l.http(node))
}

func (l *loopback) on(_ int, fn func()) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fn()
	return nil
}

func (l *loopback) isolate(node int, cut bool) error {
	for way, r := range l.ways {
		if way[0] == node || way[1] == node {
			r.cut(cut)
		}
	}
	return nil
}

func (l *loopback) close() {
	for _, r := range l.ways {
		r.close()
	}
}

// relay passes TCP connections on. While it is cut nothing moves on any of
// them and new ones wait, as in a network that swallows packets; those that
// were open then end when it is joined again.
type relay struct {
	listener net.Listener
	to       string
	bytes    *atomic.Int64

	mu    sync.Mutex
	whole chan struct{} // closed while it is not cut
	conns map[net.Conn]bool
	wait  sync.WaitGroup
}

func newRelay(to string, bytes *atomic.Int64) (*relay, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{listener: ln, to: to, bytes: bytes, whole: make(chan struct{}), conns: map[net.Conn]bool{}}
	close(r.whole)
	r.wait.Go(r.accept)
	return r, nil
}

func (r *relay) addr() string { return r.listener.Addr().String() }

func (r *relay) accept() {
	for {
		a, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.wait.Go(func() { r.pass(a) })
	}
}

func (r *relay) pass(a net.Conn) {
	defer r.keep(a)()
	<-r.state()
	b, err := net.Dial("tcp", r.to)
	if err != nil {
		return
	}
	defer r.keep(b)()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{a, b}, {b, a}} {
		both.Go(func() {
			defer way[1].(*net.TCPConn).CloseWrite()
			io.Copy(&counted{way[1], r}, way[0])
		})
	}
	both.Wait()
}

// keep remembers a connection until the function that it returns is called.
func (r *relay) keep(c net.Conn) func() {
	r.mu.Lock()
	r.conns[c] = true
	r.mu.Unlock()
	return func() {
		c.Close()
		r.mu.Lock()
		delete(r.conns, c)
		r.mu.Unlock()
	}
}

func (r *relay) state() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.whole
}

func (r *relay) cut(cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.whole:
		if cut {
			r.whole = make(chan struct{})
		}
	default:
		if !cut {
			close(r.whole)
		}
	}
}

func (r *relay) close() {
	r.listener.Close()
	r.cut(false)
	r.mu.Lock()
	for c := range r.conns {
		c.Close()
	}
	r.mu.Unlock()
	r.wait.Wait()
}

// counted counts what passes, and holds it while the relay is cut.
type counted struct {
	net.Conn
	r *relay
}

func (c *counted) Write(p []byte) (int, error) {
	<-c.r.state()
	c.r.bytes.Add(int64(len(p)))
	return c.Conn.Write(p)
}
