package m4fhttp

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/m4f"
)

const (
	// DefaultSilence is how long a client waits for a peer that sends nothing.
	DefaultSilence = 10 * time.Second

	maxLine     = 64 << 10 // bytes of a line of JSON
	maxHours    = 1 << 20  // lines of an answer: 119 years
	maxSegments = 1 << 20  // lines of an answer: 48 days of 4 s segments
	maxText     = 1000     // bytes of a peer's words that are repeated

	// A list of segments of a span has at most fewSegments, and mostASecond for
	// each second: segments may be short, and damaged ones cover each other.
	fewSegments = 4096
	mostASecond = 8
	// slack is how far a segment may lie beside the span that it was asked for.
	slack = m4f.Timescale
)

// ClientOptions say which peer a client talks to, and how.
type ClientOptions struct {
	Peer config.Peer
	// Keys are the cluster keys: the second is used where the first is
	// refused.
	Keys []string
	// RootCAs verify an m4fs peer; nil means the system's.
	RootCAs *x509.CertPool
	// Silence is how long to wait for a peer that sends nothing, at any stage
	// of a request; 0 means DefaultSilence.
	Silence time.Duration
}

// Client talks to the archive of one stream on a peer. What comes from there is
// bounded before anything is allocated, and checked. Its methods may be called
// at once from many goroutines; their errors are *PeerError, except for those
// of the context and of the functions that they are given.
type Client struct {
	peer    config.Peer
	root    string // URL of the node
	base    string // URL up to and including /m4f/
	bounded *retryablehttp.Client
	endless *http.Client
	close   func()
	keyless bool // it was given no key
	traffic traffic
}

// NewClient returns a client. Close must be called when it is of no more use.
func NewClient(o ClientOptions) *Client {
	if o.Silence == 0 {
		o.Silence = DefaultSilence
	}
	u := url.URL{Scheme: "http", Host: o.Peer.Addr()}
	c := &Client{peer: o.Peer, keyless: len(o.Keys) == 0}
	var tlsConfig *tls.Config
	if o.Peer.TLS() {
		u.Scheme = "https"
		tlsConfig = &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12}
	}
	c.root = u.String()
	u.Path = "/" + o.Peer.Stream + infix
	c.base = u.String()
	t := newTransport(tlsConfig, &c.traffic)
	c.close = t.CloseIdleConnections
	c.bounded = retrying(withKeys(o.Keys, &guard{next: t, silence: o.Silence}))
	c.endless = plain(withKeys(o.Keys, &guard{next: t, silence: o.Silence, endless: true}))
	return c
}

// LoadRootCAs reads certificates in PEM that verify m4fs peers, beside the
// system's.
func LoadRootCAs(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("certificates of peers: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("certificates of peers: %s holds no certificate in PEM", path)
	}
	return pool, nil
}

// String returns the peer's URL.
func (c *Client) String() string { return c.peer.String() }

// Peer is the peer that the client talks to.
func (c *Client) Peer() config.Peer { return c.peer }

// Traffic is how many bytes have come and gone over the client's connections,
// HTTP headers included.
func (c *Client) Traffic() (in, out int64) { return c.traffic.in.Load(), c.traffic.out.Load() }

// Close gives up idle connections.
func (c *Client) Close() { c.close() }

// PeerError is what went wrong with a peer. Err is or wraps a *Problem where the peer
// answered with one, a *BadAnswerError where its answer makes no sense, and
// ErrSilent or ErrSlow where it does not come.
type PeerError struct {
	Peer config.Peer
	Err  error
}

func (e *PeerError) Error() string {
	var p *Problem
	var cert *tls.CertificateVerificationError
	text := ""
	switch {
	case errors.Is(e.Err, errNoKey):
		text = errNoKey.Error()
	case errors.As(e.Err, &p) && p.Status == http.StatusUnauthorized:
		text = "it refuses the cluster key; check --cluster-key-file on both sides"
	case errors.As(e.Err, &cert):
		text = fmt.Sprintf("its certificate does not verify: %v; give the authority that signed it with --tls-ca, or tls_ca in a configuration", cert.Err)
	case errors.Is(e.Err, http.ErrSchemeMismatch):
		text = "it does not speak TLS; write m4f:// in place of m4fs://"
	default:
		text = e.Err.Error()
	}
	return fmt.Sprintf("peer %s: %s", e.Peer.Addr(), text)
}

// Unwrap returns the cause.
func (e *PeerError) Unwrap() error { return e.Err }

// errNoKey is what a refusal is where no key was given.
var errNoKey = errors.New("it wants a cluster key and none was given; name its file with --cluster-key-file, or set cluster_key in a configuration")

// BadAnswerError is an answer of a peer that breaks the protocol: a wrong hash,
// a wrong length, no JSON.
type BadAnswerError struct{ Err error }

func (e *BadAnswerError) Error() string { return "it answers with nonsense: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *BadAnswerError) Unwrap() error { return e.Err }

func badAnswer(format string, args ...any) error {
	return &BadAnswerError{fmt.Errorf(format, args...)}
}

// StatusOf returns the HTTP status of the problem that an error is or wraps, 0 if
// it is none.
func StatusOf(err error) int {
	var p *Problem
	if errors.As(err, &p) {
		return p.Status
	}
	return 0
}

// callbackError is an error of the caller's own function, which is not the
// peer's.
type callbackError struct{ error }

// wrap makes an error the peer's, unless it is the caller's.
func (c *Client) wrap(ctx context.Context, err error) error {
	var own callbackError
	var ue *url.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return own.error
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &ue):
		err = ue.Err // the URL is said once
	}
	return &PeerError{c.peer, err}
}

// get asks for a path below the stream's /m4f/. The answer's body must be
// closed.
func (c *Client) get(ctx context.Context, endless bool, path string, query url.Values) (*http.Response, error) {
	return c.getAt(ctx, endless, c.base+path, query)
}

// getAt asks for a URL of the peer. header are names and values of the request's own.
func (c *Client) getAt(ctx context.Context, endless bool, u string, query url.Values, header ...string) (*http.Response, error) {
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	var res *http.Response
	if endless {
		res, err = c.endless.Do(req)
	} else {
		var r *retryablehttp.Request
		if r, err = retryablehttp.FromRequest(req); err == nil {
			res, err = c.bounded.Do(r)
		}
	}
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		err := readProblem(res)
		if res.StatusCode == http.StatusUnauthorized && c.keyless {
			err = errors.Join(errNoKey, err)
		}
		return nil, err
	}
	return res, nil
}

// readProblem reads an answer that is a refusal. Nothing in it is trusted.
func readProblem(res *http.Response) error {
	p := problemf(res.StatusCode, "it answers with HTTP status %d, %s", res.StatusCode, http.StatusText(res.StatusCode))
	if res.StatusCode == http.StatusBadRequest && res.ProtoMinor == 0 && res.Header.Get("Content-Type") == "" {
		// As a server of package net/http answers.
		if text, err := io.ReadAll(io.LimitReader(res.Body, maxText)); err == nil && strings.Contains(string(text), "HTTPS") {
			p.Detail = "it speaks TLS; write m4fs:// in place of m4f://"
		}
		return p
	}
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind != problemType {
		return p
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxRefusal))
	var sent Problem
	if err != nil || json.Unmarshal(body, &sent) != nil || sent.Detail == "" {
		return p
	}
	p.Detail = printable(sent.Detail)
	for i, s := range sent.Streams {
		if i == maxListed {
			break
		}
		p.Streams = append(p.Streams, printable(s))
	}
	return p
}

// printable makes a peer's words safe for a terminal and a log.
func printable(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u202e' {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// span is the query for a span of time. From 0 is the beginning, to 0 the end.
func span(from, to m4f.UTC) url.Values {
	q := url.Values{}
	if from > 0 {
		q.Set("from", Time(from).String())
	}
	if to > 0 {
		q.Set("to", Time(to).String())
	}
	return q
}

// Info asks what the peer has of the stream.
func (c *Client) Info(ctx context.Context) (*Info, error) {
	res, err := c.get(ctx, false, "info", nil)
	if err != nil {
		return nil, c.wrap(ctx, err)
	}
	defer res.Body.Close()
	info := new(Info)
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return nil, c.wrap(ctx, err)
	}
	if err := json.Unmarshal(body, info); err != nil {
		return nil, c.wrap(ctx, badAnswer("info: %w", err))
	}
	if info.TargetDuration < 0 || info.TargetDuration > archive.MaxDuration {
		return nil, c.wrap(ctx, badAnswer("info: a target duration of %d ticks", info.TargetDuration))
	}
	info.clean()
	return info, nil
}

// clean makes a peer's words printable and bounds their number.
func (l *Live) clean() {
	l.Mode = printable(l.Mode)
	l.Inputs = l.Inputs[:min(len(l.Inputs), maxListed)]
	for i := range l.Inputs {
		in := &l.Inputs[i]
		in.URL, in.State = printable(in.URL), printable(in.State)
	}
	l.Chain = l.Chain[:min(len(l.Chain), maxListed)]
}

// Hours asks for the hours of the peer's view that overlap a span.
func (c *Client) Hours(ctx context.Context, from, to m4f.UTC) ([]archive.Hour, error) {
	var hours []archive.Hour
	err := c.lines(ctx, "hours", span(from, to), maxHours, func(line []byte) error {
		var w Hour
		if err := json.Unmarshal(line, &w); err != nil {
			return err
		}
		hour := archive.Hour{
			Start:    m4f.UTC(w.Start),
			Segments: w.Segments,
			Bytes:    w.Bytes,
			Damaged:  w.Damaged,
			Partial:  w.Partial,
			Digest:   w.Digest,
		}
		switch n := len(hours); {
		case n > 0 && hour.Start <= hours[n-1].Start:
			return fmt.Errorf("hour %s is not after the one ahead of it", w.Start)
		case hour.Start%hourTicks != 0:
			return fmt.Errorf("hour %s is not a full one", w.Start)
		case hour.Start.Add(2*hourTicks) <= from, to > 0 && hour.Start >= to:
			return fmt.Errorf("hour %s was not asked for", w.Start)
		case hour.Segments < 0 || hour.Segments > maxSegments || hour.Bytes < 0 || hour.Bytes > maxSegments*m4f.MaxMedia:
			return fmt.Errorf("hour %s with %d segments and %d bytes", w.Start, hour.Segments, hour.Bytes)
		}
		hours = append(hours, hour)
		return nil
	})
	return hours, err
}

// Segments asks for the elements of the peer's view that have a part in a span,
// in playing order.
func (c *Client) Segments(ctx context.Context, from, to m4f.UTC) ([]archive.Element, error) {
	var list []archive.Element
	most := maxSegments
	if to > from {
		most = int(min(int64(most), fewSegments+int64(to-from)/m4f.Timescale*mostASecond))
	}
	err := c.lines(ctx, "segments", span(from, to), most, func(line []byte) error {
		var w Record
		if err := json.Unmarshal(line, &w); err != nil {
			return err
		}
		e, err := w.Element()
		if err != nil {
			return err
		}
		if last := e.Parts[len(e.Parts)-1]; e.UTC.Add(last.To+slack) < from || to > 0 && e.UTC.Add(e.Parts[0].From-slack) > to {
			return fmt.Errorf("segment %s was not asked for: it begins at %s", e.ID, Time(e.UTC))
		}
		list = append(list, e)
		return nil
	})
	return list, err
}

// lines asks for a list of JSON objects, one a line. Errors of fn are the
// peer's fault.
func (c *Client) lines(ctx context.Context, path string, query url.Values, most int, fn func([]byte) error) error {
	u := c.base + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	return c.linesAt(ctx, u, path, most, fn)
}

// linesAt is lines at any URL of the peer; what names the list in errors.
func (c *Client) linesAt(ctx context.Context, u, what string, most int, fn func([]byte) error) error {
	res, err := c.getAt(ctx, false, u, nil)
	if err != nil {
		return c.wrap(ctx, err)
	}
	defer res.Body.Close()
	return c.wrap(ctx, eachLine(res.Body, what, most, fn))
}

// eachLine reads lines of at most maxLine bytes, and no more than most of them;
// 0 is any number.
func eachLine(r io.Reader, what string, most int, fn func([]byte) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 4096), maxLine)
	n := 0
	for s.Scan() {
		if n++; most > 0 && n > most {
			return badAnswer("%s: more than %d lines", what, most)
		}
		if len(bytes.TrimSpace(s.Bytes())) == 0 {
			return badAnswer("%s: an empty line", what)
		}
		if err := fn(s.Bytes()); err != nil {
			var own callbackError
			if errors.As(err, &own) {
				return err
			}
			return badAnswer("%s: line %d: %w", what, n, err)
		}
	}
	if errors.Is(s.Err(), bufio.ErrTooLong) {
		return badAnswer("%s: a line of more than %d bytes", what, maxLine)
	}
	return s.Err()
}
