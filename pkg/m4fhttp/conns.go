package m4fhttp

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

const (
	// mostConns is how many connections a server holds at most. Where the
	// process may have few files open, a quarter of them is the most: recording
	// must not lose its descriptors to whoever connects.
	mostConns = 4096
	// sniffFor is how long a connection from the machine itself may take to
	// show whether it speaks TLS.
	sniffFor = 10 * time.Second
	// tellConnsEvery is how often it is told that connections are turned away.
	tellConnsEvery = time.Minute
	tlsHandshake   = 22 // the first byte of a connection that speaks TLS, RFC 8446 5.1
)

// connLimit is how many connections a server of this process holds at most.
func connLimit() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		limit.Cur = 1024 // what there is at least wherever this can run
	}
	return int(max(min(limit.Cur/4, mostConns), 8))
}

// conns is a listener that holds a bounded number of connections. Where there
// are more, it gives up the oldest on which nothing was ever authorised, then
// the one that has been idle for longest; where all are at work for who is
// authorised, the new one.
type conns struct {
	ln    net.Listener
	most  int
	tls   *tls.Config // nil: plain
	plain bool        // the machine itself may speak plainly, too
	log   *slog.Logger

	out    chan net.Conn
	closed chan struct{} // Close was called
	once   sync.Once
	busy   sync.WaitGroup // accepting, and finding out what is spoken
	failed chan error

	mu     sync.Mutex
	all    map[*conn]bool
	turned int // away since it was told last
	told   time.Time
}

// conn is one connection. Its state is guarded by conns.mu.
type conn struct {
	*net.TCPConn
	of      *conns
	idle    bool // no request is under way
	trusted bool // a request on it was authorised
	since   time.Time
	read    *bufio.Reader // what was read to find out what is spoken; nil: nothing
}

// limited begins to accept connections from ln.
func limited(ln net.Listener, most int, tlsConfig *tls.Config, plainLocal bool, log *slog.Logger) *conns {
	l := &conns{
		ln: ln, most: most, tls: tlsConfig, plain: plainLocal, log: log,
		out: make(chan net.Conn), closed: make(chan struct{}), failed: make(chan error, 1), all: map[*conn]bool{},
	}
	l.busy.Add(1)
	go l.accept()
	return l
}

// accept takes connections until the listener is closed. Running out of
// descriptors does not end it.
func (l *conns) accept() {
	defer l.busy.Done()
	var pause time.Duration
	for {
		c, err := l.ln.Accept()
		if err != nil {
			if !passing(err) {
				l.failed <- err
				return
			}
			if pause == 0 {
				l.log.Warn("connections cannot be accepted for the moment", "err", err)
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			select {
			case <-l.closed:
			case <-time.After(pause):
			}
			continue
		}
		pause = 0
		tcp, ok := c.(*net.TCPConn)
		if !ok {
			c.Close()
			continue
		}
		one := l.admit(tcp)
		switch {
		case one == nil:
		case l.tls == nil:
			l.hand(one)
		case l.plain && isLoopback(one.RemoteAddr()):
			l.busy.Add(1)
			go l.sniff(one)
		default:
			l.hand(tls.Server(one, l.tls))
		}
	}
}

// passing says whether an error of accepting is of the moment only.
func passing(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED, syscall.ENOBUFS, syscall.ENOMEM, syscall.EPERM, syscall.EPROTO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// hand gives a connection to the server.
func (l *conns) hand(c net.Conn) {
	select {
	case l.out <- c:
	case <-l.closed:
		c.Close()
	}
}

// sniff finds out what is spoken on a connection.
func (l *conns) sniff(c *conn) {
	defer l.busy.Done()
	stop := context.AfterFunc(closing{l.closed}, func() { c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	c.SetReadDeadline(time.Now().Add(sniffFor))
	read := bufio.NewReaderSize(c.TCPConn, 16)
	first, err := read.Peek(1)
	if err != nil || !stop() {
		c.Close()
		return
	}
	c.SetReadDeadline(time.Time{})
	c.read = read
	if first[0] == tlsHandshake {
		l.hand(tls.Server(c, l.tls))
		return
	}
	l.hand(c)
}

// closing is a context that ends when a channel is closed.
type closing struct{ c chan struct{} }

func (c closing) Deadline() (time.Time, bool) { return time.Time{}, false }
func (c closing) Done() <-chan struct{}       { return c.c }
func (c closing) Value(any) any               { return nil }
func (c closing) Err() error {
	select {
	case <-c.c:
		return context.Canceled
	default:
		return nil
	}
}

func isLoopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}

// Accept implements net.Listener.
func (l *conns) Accept() (net.Conn, error) {
	select {
	case c := <-l.out:
		return c, nil
	case err := <-l.failed:
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *conns) Close() error {
	var err error
	l.once.Do(func() {
		close(l.closed)
		err = l.ln.Close()
		l.busy.Wait()
	})
	return err
}

// Addr implements net.Listener.
func (l *conns) Addr() net.Addr { return l.ln.Addr() }

// admit makes room for a connection; nil: there is none, and it was closed.
func (l *conns) admit(c *net.TCPConn) *conn {
	one := &conn{TCPConn: c, of: l, idle: true, since: time.Now()}
	l.mu.Lock()
	var out *conn
	full := len(l.all) >= l.most
	if full {
		out = l.victim()
	}
	if out != nil {
		delete(l.all, out)
	}
	if !full || out != nil {
		l.all[one] = true
	}
	tell := 0
	if full {
		if l.turned++; time.Since(l.told) >= tellConnsEvery {
			tell, l.turned, l.told = l.turned, 0, time.Now()
		}
	}
	l.mu.Unlock()
	if tell > 0 {
		l.log.Warn("too many connections: those that are idle or of nobody who has the cluster key are closed", "most", l.most, "closed", tell, "from", c.RemoteAddr())
	}
	switch {
	case out != nil:
		out.TCPConn.Close()
	case full:
		c.Close()
		return nil
	}
	return one
}

// victim is the connection that can best be done without; nil: none. The caller
// holds the lock.
func (l *conns) victim() *conn {
	var best *conn
	rank := func(c *conn) int {
		switch {
		case !c.trusted && c.idle:
			return 0
		case !c.trusted:
			return 1
		}
		return 2
	}
	for c := range l.all {
		if c.trusted && !c.idle {
			continue
		}
		if best == nil || rank(c) < rank(best) || rank(c) == rank(best) && c.since.Before(best.since) {
			best = c
		}
	}
	return best
}

// Read gives what was read ahead first.
func (c *conn) Read(p []byte) (int, error) {
	if c.read != nil {
		if c.read.Buffered() > 0 {
			return c.read.Read(p)
		}
		c.read = nil
	}
	return c.TCPConn.Read(p)
}

// WriteTo must not pass over what was read ahead.
func (c *conn) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{c})
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.of.mu.Lock()
	delete(c.of.all, c)
	c.of.mu.Unlock()
	return c.TCPConn.Close()
}

// connOf is the connection below a net.Conn of the server.
func connOf(c net.Conn) *conn {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	one, _ := c.(*conn)
	return one
}

// changed is http.Server.ConnState.
func changed(c net.Conn, state http.ConnState) {
	one := connOf(c)
	if one == nil {
		return
	}
	one.of.mu.Lock()
	defer one.of.mu.Unlock()
	one.idle, one.since = state != http.StateActive, time.Now()
}

type connKey struct{}

// withConn is http.Server.ConnContext.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if one := connOf(c); one != nil {
		return context.WithValue(ctx, connKey{}, one)
	}
	return ctx
}

// Trust notes that a request was authorised: its connection is not given up for a
// stranger's.
func Trust(ctx context.Context) {
	c, ok := ctx.Value(connKey{}).(*conn)
	if !ok {
		return
	}
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.trusted = true
}
