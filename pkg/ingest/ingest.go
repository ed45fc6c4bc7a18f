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
	"github.com/twindvr/twindvr/pkg/mpegts"
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

// Batch is what one Read returns: at least one datagram, access unit, program
// map or loss.
type Batch struct {
	// Datagrams hold the payloads in order of arrival. A file or pipe gives
	// one "datagram" of up to a megabyte, cut anywhere.
	Datagrams [][]byte
	// Dropped counts the datagrams that the kernel threw away between the
	// batch before and this one, for want of buffer space.
	Dropped uint32
	// Lost counts the datagrams that, as the transport's own sequence numbers
	// tell, never came between the batch before and this one.
	Lost uint32
	// Splice says that the bytes were delivered whole and begin a new stretch:
	// continuity counters may begin anew, and nothing is missing.
	Splice bool
	// Program is, where it is not nil, a new program map that Units belong to
	// from here on: the source is no transport stream. Such a source delivers
	// no Datagrams.
	Program *mpegts.Program
	// Units are whole access units in the order of decoding, with 33-bit times;
	// they are handed over with their memory.
	Units []mpegts.Unit
	// LostUnits says that access units of any track may be missing before
	// Units; LostPIDs, that some of these tracks are, or that the next unit of
	// such a track is not whole.
	LostUnits bool
	LostPIDs  []uint16
	// Arrived is when the batch was taken from the kernel, or when its first
	// datagram came if that had waited there for long; of media that comes in
	// files, when it would have been, had it come as it was made.
	Arrived time.Time
}

// Stats are the counters of a source since it was opened.
type Stats struct {
	Packets     uint64    // datagrams or messages; blocks for a file or a body
	Bytes       uint64    // payload bytes
	Dropped     uint64    // datagrams dropped by the kernel
	Truncated   uint64    // datagrams longer than the longest readable
	Lost        uint64    // packets that never came, by the transport's numbers
	Reordered   uint64    // packets put back into their order
	Duplicates  uint64    // packets that came again, by the transport's numbers
	Recovered   uint64    // packets won back: error correction, second path, retransmission
	Errors      uint64    // packets, requests or playlists that made no sense or failed
	Reconnects  uint64    // times that the source was opened anew by itself
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

func (e *URLError) Error() string { return fmt.Sprintf("source %q: %v", Redact(e.URL), e.Err) }

// Unwrap returns the cause.
func (e *URLError) Unwrap() error { return e.Err }

// scheme is a kind of source. A URL without a scheme is a file's path.
type scheme struct {
	// open opens a source; rest is the URL without "scheme:".
	open func(ctx context.Context, rest string, opt Options) (Source, error)
	// check reads the URL and touches nothing outside the process; nil: what
	// open says must do.
	check func(rest string) error
	// shared: the senders do not mind who listens, so that a standby may hear
	// it all the time.
	shared bool
}

// schemes are the supported URL schemes.
var schemes = map[string]scheme{
	"udp":   {open: openUDP, check: checkUDP, shared: true},
	"rtp":   {open: openRTP, check: checkRTP, shared: true},
	"srt":   {open: openSRT, check: checkSRT},
	"http":  {open: openHTTP("http"), check: checkHTTP("http")},
	"https": {open: openHTTP("https"), check: checkHTTP("https")},
	"file":  {open: openFileURL, check: checkFileURL},
	"hls":   {open: openHLS("hls"), check: checkHLS("hls")},
	"hlss":  {open: openHLS("hlss"), check: checkHLS("hlss")},
	"rtsp":  {open: openRTSP("rtsp"), check: checkRTSP("rtsp")},
	"rtsps": {open: openRTSP("rtsps"), check: checkRTSP("rtsps")},
}

// Schemes returns the supported URL schemes in order.
func Schemes() []string { return slices.Sorted(maps.Keys(schemes)) }

// Open opens the source that url names: udp:// or rtp://GROUP-OR-ADDRESS:PORT, file:PATH,
// a bare path (a file, a FIFO or a device), or "-" for standard input.
//
// A udp URL takes the options interface= (name or address), source= (the only
// sender to hear of a multicast group, RFC 4607) and buffer_size= (bytes of
// socket buffer, with K or M). IPv6 addresses stand in brackets, with a zone
// where needed: udp://[ff02::1234%eth0]:1234.
//
// rtp://ADDRESS:PORT is a transport stream in RTP (RFC 2250) and takes the same
// options, and reorder= (50ms; how long a missing packet is waited for),
// fec=on (SMPTE 2022-1: error correction by columns on the port 2 above and by
// rows on the one 4 above; off unless asked for, since those ports may be
// somebody else's) and, for several paths of the same packets (SMPTE 2022-7),
// rtp://A:PORT,B:PORT, skew= (450ms; how far one may be behind the other).
// There interface= and source= take one value for all, or one for each with
// commas between.
//
// An srt URL calls: srt://HOST:PORT. Without a host, with 0.0.0.0 or with
// mode=listener it is called, by one sender at a time. It takes the options
// latency= (for how long a missing packet is asked for again: milliseconds, or
// with a unit; 1s unless set), passphrase= (10 to 79 bytes), pbkeylen= (16, 24
// or 32), streamid= (a listener then takes no other), connect_timeout= (of a
// caller, milliseconds or with a unit; 3s unless set) and interface=.
//
// An http or https URL names an endless transport stream in the body of the
// answer. A user and a password in it are for the server that it names alone
// (Basic or Digest); the query is the server's. Proxies are taken from the
// environment. A body that comes faster than its program clock references tell
// (a recording on a web server) is paced by them; one that comes as it is made
// is not held up.
//
// An hls or hlss URL names the playlist of an HTTP live stream, over http or
// https; so does an http or https URL whose path ends in .m3u8. The option
// variant= (an index from 0, a bandwidth in bit/s, or a resolution such as
// 1280x720) chooses among variants, the highest bandwidth otherwise; all else in
// the query is the server's.
//
// An rtsp or rtsps URL names a session of a camera, its user and password in it
// (Basic or Digest). Of the query these are options, and all else is the
// camera's: transport= (tcp unless set; udp, multicast, or auto: udp, and tcp
// where that brings nothing) and, of rtsps, fingerprint= (SHA-256 of the only
// certificate that will do, 64 hexadecimal digits) or insecure=1 (any will).
//
// A URL that cannot be understood gives a *URLError; otherwise the error is
// the system's, with what to do about it. The context bounds Open alone.
func Open(ctx context.Context, url string, opt Options) (Source, error) {
	s, rest, err := schemeOf(url, opt.OtherSchemes)
	if err != nil {
		return nil, err
	}
	return s.open(ctx, rest, opt.withDefaults())
}

// Check says what is wrong with a URL, as Open would, without opening it: a
// *URLError, or nil. Names are not looked up and files not looked for.
func Check(url string) error {
	s, rest, err := schemeOf(url, nil)
	if err == nil && s.check != nil {
		err = s.check(rest)
	}
	return err
}

// Shared says whether hearing the source costs its sender nothing, as with
// datagrams, so that a standby hears it all the time unless told otherwise.
func Shared(url string) bool {
	s, _, err := schemeOf(url, nil)
	return err == nil && s.shared
}

func schemeOf(url string, others []string) (scheme, string, error) {
	name, rest := splitScheme(url)
	if name == "" {
		return scheme{open: openPath}, rest, nil
	}
	s, ok := schemes[name]
	if !ok {
		list := append(Schemes(), others...)
		slices.Sort(list)
		return s, "", &URLError{url, fmt.Errorf("no source of scheme %q; supported are %s, a file's path, and - for standard input",
			name, strings.Join(list, ", "))}
	}
	return s, rest, nil
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
