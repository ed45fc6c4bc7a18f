package m4fhttp

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"time"
)

const (
	// drain is how long answers that have an end may go on when the server
	// stops.
	drain = 2 * time.Second
	// maxHeader bounds the header of a request.
	maxHeader = 16 << 10
)

// ServeOptions say how a server listens.
type ServeOptions struct {
	TLS *tls.Config // nil: plain HTTP
	// PlainLocal answers plain HTTP from the machine itself, too.
	PlainLocal bool
	// Connections bounds how many there are at once; 0: 4096, or a quarter of
	// the files that the process may have open, where that is less.
	Connections int
	Log         *slog.Logger

	headerTimeout time.Duration // for tests; 0: requestTimeout
}

// requestTimeout is how long the header of a request may take to come.
const requestTimeout = 10 * time.Second

// Serve answers the requests that come to ln until the context ends; endless
// answers end with it, and others have two more seconds. It closes ln. Slow and
// oversized requests are cut off, and the number of connections is bounded.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, o ServeOptions) error {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Connections <= 0 {
		o.Connections = connLimit()
	}
	if o.headerTimeout == 0 {
		o.headerTimeout = requestTimeout
	}
	s := &http.Server{
		Handler:           h,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnState:         changed,
		ConnContext:       withConn,
		ReadHeaderTimeout: o.headerTimeout,
		// What takes longer moves its own deadline.
		WriteTimeout:   writeTimeout,
		IdleTimeout:    60 * time.Second,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
		// HTTP/2 would put endless and bulky answers behind one another.
		TLSNextProto:                 map[string]func(*http.Server, *tls.Conn, http.Handler){},
		DisableGeneralOptionsHandler: true,
	}
	l := limited(ln, o.Connections, o.TLS, o.PlainLocal, o.Log)
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	select {
	case err := <-failed:
		l.Close()
		return err
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	if s.Shutdown(stop) != nil {
		s.Close()
	}
	<-failed
	return nil
}
