// Package ingest brings a stream in: it opens a source by its URL and yields
// its bytes in batches, with the losses that the transport itself knows of.
//
// A source carries bytes and judges nothing: whether they are a transport
// stream, and what of it is missing, is for the demultiplexer to say.
//
// Network sources are read without waking up for every datagram: a read takes
// what the kernel has queued, then naps for some tens of milliseconds (see
// napper). No read allocates in steady state. The package needs Linux.
package ingest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twindvr/twindvr/pkg/clock"
)

// Source is an open source of a stream. It is used by one goroutine, except
// for Stats, which may be called from any.
type Source interface {
	// Read waits for the next batch. It returns io.EOF at the end of a file
	// or pipe, and the context's error soon after the context has ended.
	// The batch is valid until the next Read or Close.
	Read(ctx context.Context) (*Batch, error)
	// Close releases the source. It must not run beside Read.
	Close() error
	// Stats returns what has been received so far.
	Stats() Stats
}

// Batch is what one Read returns: at least one datagram.
type Batch struct {
	// Datagrams hold the payloads in order of arrival. A file or pipe gives
	// one "datagram" of up to a megabyte, cut anywhere.
	Datagrams [][]byte
	// Dropped counts the datagrams that the kernel threw away between the
	// batch before and this one, for want of buffer space.
	Dropped uint32
	// Arrived is when the batch was taken from the kernel.
	Arrived time.Time
}

// Stats are the counters of a source since it was opened.
type Stats struct {
	Packets     uint64    // datagrams; blocks for a file
	Bytes       uint64    // payload bytes
	Dropped     uint64    // datagrams dropped by the kernel
	Truncated   uint64    // datagrams longer than the longest readable
	LastArrival time.Time // zero before the first
}

// Options say how to open a source. The zero value is ready to use.
type Options struct {
	// Interface is the network interface to hear on, by name or by one of its
	// addresses. The URL's own interface= wins. Empty: the routing table.
	Interface string
	// Realtime paces a file by its program clock references, as if it were
	// live. Network sources are live anyway.
	Realtime bool
	// Stdin is read for the URL "-"; nil means os.Stdin. Reads from anything
	// but an *os.File cannot be interrupted by the context.
	Stdin io.Reader
	// Clock times and paces; nil means clock.System.
	Clock clock.Clock
	// Log gets what the operator should know; nil means slog.Default().
	Log *slog.Logger
	// OtherSchemes are URL schemes that the caller opens itself, for the list
	// of supported ones in the error about an unknown scheme.
	OtherSchemes []string
}

func (o Options) withDefaults() Options {
	if o.Clock == nil {
		o.Clock = clock.System
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return o
}

// URLError says what is wrong with the URL of a source.
type URLError struct {
	URL string
	Err error
}

func (e *URLError) Error() string { return fmt.Sprintf("source %q: %v", e.URL, e.Err) }

// Unwrap returns the cause.
func (e *URLError) Unwrap() error { return e.Err }

// opener opens the source of a scheme; rest is the URL without "scheme:".
type opener func(ctx context.Context, rest string, opt Options) (Source, error)

// schemes are the supported URL schemes. A URL without one is a file's path.
var schemes = map[string]opener{
	"udp":  openUDP,
	"file": openFileURL,
}

// Schemes returns the supported URL schemes in order.
func Schemes() []string { return slices.Sorted(maps.Keys(schemes)) }

// Open opens the source that url names: udp://GROUP-OR-ADDRESS:PORT, file:PATH,
// a bare path (a file, a FIFO or a device), or "-" for standard input.
//
// A udp URL takes the options interface= (name or address), source= (the only
// sender to hear of a multicast group, RFC 4607) and buffer_size= (bytes of
// socket buffer, with K or M). IPv6 addresses stand in brackets, with a zone
// where needed: udp://[ff02::1234%eth0]:1234.
//
// A URL that cannot be understood gives a *URLError; otherwise the error is
// the system's, with what to do about it. The context bounds Open alone.
func Open(ctx context.Context, url string, opt Options) (Source, error) {
	opt = opt.withDefaults()
	scheme, rest := splitScheme(url)
	open := openPath
	if scheme != "" {
		if open = schemes[scheme]; open == nil {
			list := append(Schemes(), opt.OtherSchemes...)
			slices.Sort(list)
			return nil, &URLError{url, fmt.Errorf("no source of scheme %q; supported are %s, a file's path, and - for standard input",
				scheme, strings.Join(list, ", "))}
		}
	}
	return open(ctx, rest, opt)
}

// splitScheme cuts "scheme:" off a URL. A path may hold a colon: a scheme is
// followed by "//", or is "file".
func splitScheme(url string) (scheme, rest string) {
	s, rest, ok := strings.Cut(url, ":")
	if !ok || s == "" {
		return "", url
	}
	for i, c := range []byte(strings.ToLower(s)) {
		letter := c >= 'a' && c <= 'z'
		if !letter && (i == 0 || !(c >= '0' && c <= '9' || c == '+' || c == '-' || c == '.')) {
			return "", url
		}
	}
	if s = strings.ToLower(s); s != "file" && !strings.HasPrefix(rest, "//") {
		return "", url
	}
	return s, rest
}
