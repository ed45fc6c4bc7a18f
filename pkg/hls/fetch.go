package hls

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

const (
	playlistTimeout = 10 * time.Second
	segmentTimeout  = 30 * time.Second // or five target durations
	maxRedirects    = 10
)

// StatusError is an answer that is no success.
type StatusError struct {
	URL    string // as Show gives it
	Status int
	// Known says that the server was offered user and password, or would have
	// been, had it asked in a way that is supported; Kinds are the ways it
	// asked in.
	Known bool
	Kinds string
}

func (e *StatusError) Error() string {
	text := strings.TrimSpace(fmt.Sprintf("%s: the server answers %d %s", e.URL, e.Status, http.StatusText(e.Status)))
	if advice := e.advice(); advice != "" {
		text += ": " + advice
	}
	return text
}

// advice says what is to be done.
func (e *StatusError) advice() string {
	kinds := strings.ToLower(e.Kinds)
	switch e.Status {
	case http.StatusUnauthorized:
		switch {
		case !e.Known:
			return "it wants a user and a password: write them into the URL, hls://USER:PASSWORD@HOST/PATH"
		case kinds != "" && !strings.Contains(kinds, "basic") && !strings.Contains(kinds, "digest"):
			return fmt.Sprintf("it wants authentication of the kind %.40q, and Basic and Digest are supported", e.Kinds)
		}
		return "the user or the password in the URL is wrong"
	case http.StatusForbidden:
		return "it does not let this machine or this user have it, or the URL's token is too old"
	case http.StatusNotFound, http.StatusGone:
		return "it has no such file; look at the path, and whether the sender is on"
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return "it is overloaded, or the stream has too many viewers"
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		return "it does not reach the sender behind it"
	}
	return ""
}

// gone says whether asking for the same again is hardly of use.
func (e *StatusError) gone() bool {
	return e.Status >= 400 && e.Status < 500 && e.Status != http.StatusRequestTimeout && e.Status != http.StatusTooManyRequests
}

// Client fetches from the servers of one stream: it keeps connections, and the
// cookies that a server sets.
type Client struct {
	http      *retryablehttp.Client
	transport *http.Transport
	budget    *budget
	opt       ClientOptions
}

// ClientOptions say how a Client talks to servers. All may be left out.
type ClientOptions struct {
	// Auth wraps the transport by what answers servers that want a user and a
	// password: it decides which.
	Auth func(*http.Transport) http.RoundTripper
	// Explain puts into words what to do about an error of a connection.
	Explain func(error) error
}

// NewClient returns a Client; Close it after use.
func NewClient(opt ClientOptions) *Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = segmentTimeout
	t.MaxResponseHeaderBytes = 64 << 10
	t.DisableCompression = true // it is asked for where it is of use
	jar, _ := cookiejar.New(nil)
	c := retryablehttp.NewClient()
	var through http.RoundTripper = t
	if opt.Auth != nil {
		through = opt.Auth(t)
	}
	c.HTTPClient = &http.Client{Transport: through, Jar: jar, CheckRedirect: redirect}
	c.Logger = nil
	c.RetryMax = 1 // beyond that a playlist tells whether it is of use
	c.RetryWaitMin, c.RetryWaitMax = 100*time.Millisecond, time.Second
	c.Backoff = func(least, most time.Duration, n int, _ *http.Response) time.Duration {
		return retryablehttp.DefaultBackoff(least, most, n, nil)
	}
	c.ErrorHandler = retryablehttp.PassthroughErrorHandler
	return &Client{http: c, transport: t, budget: newBudget(), opt: opt}
}

// redirect follows a redirect. The next server is not told where it came from,
// as the query may hold a token, and another than the first gets no password.
func redirect(req *http.Request, via []*http.Request) error {
	req.Header.Del("Referer")
	first := via[0].URL
	if req.URL.Scheme != first.Scheme || req.URL.Host != first.Host {
		// net/http goes by the name of the host alone.
		req.Header.Del("Authorization")
	}
	if len(via) >= maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	return nil
}

// Close ends the connections that are kept.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Held returns the bytes of segments that were held at once at most.
func (c *Client) Held() int64 {
	c.budget.mu.Lock()
	defer c.budget.mu.Unlock()
	return c.budget.most
}

// fetched is what a server answered.
type fetched struct {
	body     []byte
	url      *url.URL  // after redirects
	modified time.Time // Last-Modified, or zero
	date     time.Time // Date, or zero
}

// get fetches a resource, or a range of it, whole: a body that ends before its
// length is an error, and so is one of more than limit bytes. What it holds is
// claimed, unless claim is nil; waiting for that takes nothing of the timeout.
func (c *Client) get(ctx context.Context, u *url.URL, r *Range, limit int64, timeout time.Duration, claim *claim) (*fetched, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(timeout, func() { cancel(fmt.Errorf("%s: not whole within %v", Show(u), timeout)) })
	defer late.Stop()
	req, err := request(ctx, u, r)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.reason(ctx, u, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusPartialContent {
		// A short answer is read, so that its connection can be used again.
		io.CopyN(io.Discard, res.Body, 4<<10)
		return nil, &StatusError{Show(u), res.StatusCode, c.opt.Auth != nil || u.User != nil, res.Header.Get("WWW-Authenticate")}
	}
	take := func(int64) error { return nil }
	if claim != nil {
		take = func(n int64) error {
			if n < 0 {
				claim.give(-n)
				return nil
			}
			return claim.take(ctx, n, func(begins bool) {
				if late.Stop(); !begins {
					late.Reset(timeout)
				}
			})
		}
	}
	body, err := readBody(res, r, limit, take)
	if err != nil {
		return nil, c.reason(ctx, u, err)
	}
	f := &fetched{body: body, url: res.Request.URL}
	f.url.User = nil
	if f.url.Host == u.Host && f.url.Scheme == u.Scheme {
		f.url.User = u.User
	}
	f.modified, _ = http.ParseTime(res.Header.Get("Last-Modified"))
	f.date, _ = http.ParseTime(res.Header.Get("Date"))
	return f, nil
}

func request(ctx context.Context, u *url.URL, r *Range) (*retryablehttp.Request, error) {
	v := *u
	v.User = nil
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodGet, v.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "twindvr")
	if u.User != nil {
		// As a header, and not in the URL, it survives redirects on one server.
		password, _ := u.User.Password()
		req.SetBasicAuth(u.User.Username(), password)
	}
	if r != nil {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", r.Offset, r.Offset+r.Length-1))
	} else {
		req.Header.Set("Accept-Encoding", "gzip")
	}
	return req, nil
}

// reason puts into words why a request has failed, without what is secret in
// its URL.
func (c *Client) reason(ctx context.Context, u *url.URL, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	if c.opt.Explain != nil {
		err = c.opt.Explain(err)
	}
	return fmt.Errorf("%s: %w", Show(u), err)
}

// readBody reads an answer and takes the range out of it where the server gives
// all. take is asked for each part of memory before it is used, and told with a
// negative number when it no longer is.
func readBody(res *http.Response, r *Range, limit int64, take func(int64) error) ([]byte, error) {
	var in io.Reader = res.Body
	known := res.ContentLength // how long the body is; below 0: nobody knows
	if strings.EqualFold(res.Header.Get("Content-Encoding"), "gzip") {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		in, known = z, -1
	}
	if r != nil && res.StatusCode == http.StatusOK {
		if _, err := io.CopyN(io.Discard, in, r.Offset); err != nil {
			return nil, fmt.Errorf("it ends before byte %d: %w", r.Offset, err)
		}
		in, known = io.LimitReader(in, r.Length), r.Length
		limit = min(limit, r.Length)
	} else if r != nil {
		if err := checkRange(res.Header.Get("Content-Range"), r); err != nil {
			return nil, err
		}
	}
	if r != nil && r.Length > limit {
		return nil, fmt.Errorf("a range of %d bytes, at most %d are taken", r.Length, limit)
	}
	if known > limit {
		return nil, fmt.Errorf("%d bytes, at most %d are taken", known, limit)
	}
	b, err := readAll(in, known, limit, take)
	switch {
	case err != nil:
		return nil, fmt.Errorf("after %d bytes: %w", len(b), err)
	case r != nil && int64(len(b)) != r.Length:
		return nil, fmt.Errorf("%d bytes of a range of %d", len(b), r.Length)
	}
	return b, nil
}

// readAll reads limit bytes at most into memory of the known length, or into
// memory that grows where it is below 0.
func readAll(in io.Reader, known, limit int64, take func(int64) error) ([]byte, error) {
	const first, slowly = 64 << 10, 16 << 20
	size := known
	if known < 0 {
		size = min(first, limit)
	}
	if err := take(size); err != nil {
		return nil, err
	}
	b := make([]byte, 0, size)
	for {
		if len(b) == cap(b) {
			// Is that all?
			var more [1]byte
			n, err := io.ReadFull(in, more[:])
			switch {
			case err == io.EOF:
				return b, nil
			case err != nil:
				return b, err
			case int64(len(b)+n) > limit:
				return b, fmt.Errorf("more than %d bytes", limit)
			}
			grown := min(2*size, limit)
			if size > slowly {
				grown = min(size+size/4, limit)
			}
			grown = max(grown, int64(len(b)+n))
			if err := take(grown); err != nil {
				return b, err
			}
			b = append(append(make([]byte, 0, grown), b...), more[:n]...)
			take(-size)
			size = grown
		}
		n, err := in.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case err == io.EOF:
			return b, nil
		case err != nil:
			return b, err
		}
	}
}

// checkRange wants a Content-Range (RFC 9110 14.4) to begin where it was asked
// to.
func checkRange(text string, r *Range) error {
	span, ok := strings.CutPrefix(text, "bytes ")
	first, _, _ := strings.Cut(span, "-")
	if n, err := strconv.ParseInt(first, 10, 64); !ok || err != nil || n != r.Offset {
		return fmt.Errorf("answer with Content-Range %.60q to a request from byte %d on", text, r.Offset)
	}
	return nil
}
