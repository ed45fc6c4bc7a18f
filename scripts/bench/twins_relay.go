package main

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// relay passes TCP connections on and counts what goes through them.
type relay struct {
	ln    net.Listener
	moved atomic.Int64 // bytes, both ways

	end  context.CancelFunc
	busy sync.WaitGroup
}

// newRelay listens, and passes on to a server.
func newRelay(to string) (*relay, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{ln: ln}
	ctx, end := context.WithCancel(context.Background())
	r.end = end
	r.busy.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return // it was closed
			}
			r.busy.Go(func() { r.pass(ctx, c, to) })
		}
	})
	return r, nil
}

func (r *relay) addr() string { return r.ln.Addr().String() }

// pass passes a connection on until an end of it closes, or the relay.
func (r *relay) pass(ctx context.Context, from net.Conn, to string) {
	defer from.Close()
	c, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { from.Close(); c.Close() })()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{from, c}, {c, from}} {
		both.Go(func() {
			// Whichever way ends first ends the other.
			_, _ = io.CopyBuffer(counting{way[1], &r.moved}, struct{ io.Reader }{way[0]}, make([]byte, 64<<10))
			way[0].Close()
			way[1].Close()
		})
	}
	both.Wait()
}

// close ends all connections.
func (r *relay) close() error {
	err := r.ln.Close()
	r.end()
	r.busy.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// counting counts what is written.
type counting struct {
	io.Writer
	n *atomic.Int64
}

func (c counting) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n.Add(int64(n))
	return n, err
}
