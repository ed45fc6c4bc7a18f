package m4fhttp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// ErrSilent is the error of a peer that sent nothing for too long.
var ErrSilent = errors.New("it fell silent")

// ErrSlow is the error of a peer that sends, but so little that a request
// would not end.
var ErrSlow = errors.New("it sends too slowly to wait for")

const (
	// minRate is the least number of bytes a second that an answer of a known
	// end must come with.
	minRate = 4 << 10
	// maxRefusal bounds the body of an answer that is not the one asked for.
	maxRefusal = 64 << 10
)

// guard is an http.RoundTripper that ends a request when the peer is silent for
// longer than silence, at whichever stage, and one that has an end also when it
// comes too slowly. Time that the caller spends between two reads does not
// count.
type guard struct {
	next    http.RoundTripper
	silence time.Duration
	endless bool
}

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	timer := time.AfterFunc(g.silence, func() { cancel(ErrSilent) })
	res, err := g.next.RoundTrip(req.WithContext(ctx))
	timer.Stop()
	if err != nil {
		cancel(nil)
		return nil, silenceOr(ctx, err)
	}
	b := &guardedBody{ReadCloser: res.Body, g: g, ctx: ctx, cancel: cancel, timer: timer, bounded: !g.endless, limit: -1}
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusPartialContent {
		b.bounded = true
		b.limit = maxRefusal
	}
	res.Body = b
	return res, nil
}

// silenceOr is ErrSilent where that is why a request was cancelled.
func silenceOr(ctx context.Context, err error) error {
	if context.Cause(ctx) == ErrSilent {
		return ErrSilent
	}
	return err
}

type guardedBody struct {
	io.ReadCloser
	g       *guard
	ctx     context.Context
	cancel  context.CancelCauseFunc
	timer   *time.Timer
	bounded bool
	limit   int64 // bytes that may still be read, -1: any number

	n      int64
	waited time.Duration
}

func (b *guardedBody) Read(p []byte) (int, error) {
	if b.limit == 0 {
		return 0, io.EOF
	}
	if b.limit > 0 && int64(len(p)) > b.limit {
		p = p[:b.limit]
	}
	b.timer.Reset(b.g.silence)
	start := time.Now()
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	b.n += int64(n)
	b.waited += time.Since(start)
	if b.limit > 0 {
		b.limit -= int64(n)
	}
	if err != nil && err != io.EOF {
		return n, silenceOr(b.ctx, err)
	}
	if err == nil && b.bounded && b.waited > b.g.silence+time.Duration(b.n)*time.Second/minRate {
		return n, ErrSlow
	}
	return n, err
}

func (b *guardedBody) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.ReadCloser.Close()
}

// traffic counts the bytes of a client's connections, headers included; TLS
// and TCP overhead aside.
type traffic struct{ in, out atomic.Int64 }

// countedConn counts what goes over a connection.
type countedConn struct {
	net.Conn
	t *traffic
}

func (c countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.t.in.Add(int64(n))
	return n, err
}

func (c countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.t.out.Add(int64(n))
	return n, err
}
