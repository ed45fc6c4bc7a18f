package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

const (
	// httpBlock is how much of a body one Read returns at most.
	httpBlock = 64 << 10
	// httpNap is how long a body that is not there in full blocks is left alone
	// after a read: 50 reads a second, whatever the size of the server's writes.
	httpNap = 20 * time.Millisecond
	// httpConnect bounds the making of a connection, httpAnswer the wait for
	// the head of the answer.
	httpConnect = 5 * time.Second
	httpAnswer  = 10 * time.Second
	// httpTries is how often Open asks again a server that cannot be reached
	// or has trouble of its own.
	httpTries = 2
)

// openHTTP returns how to open http: and https: URLs: an endless transport
// stream in the body of the answer. A path that ends in .m3u8 is a playlist's.
func openHTTP(scheme string) func(context.Context, string, Options) (Source, error) {
	return func(ctx context.Context, rest string, opt Options) (Source, error) {
		raw := scheme + ":" + rest
		if isHLSURL(raw) {
			return openHLSURL(ctx, raw, opt)
		}
		u, err := parseHTTP(raw)
		if err != nil {
			return nil, err
		}
		return getHTTP(ctx, u, opt)
	}
}

// checkHTTP returns how to check them.
func checkHTTP(scheme string) func(string) error {
	return func(rest string) error {
		raw := scheme + ":" + rest
		if isHLSURL(raw) {
			return checkHLSURL(raw)
		}
		_, err := parseHTTP(raw)
		return err
	}
}

// parseHTTP reads an http or https URL. The query is the server's.
func parseHTTP(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err == nil {
		switch port := u.Port(); {
		case u.Hostname() == "":
			err = errors.New("no host; write http://HOST/PATH")
		case port != "":
			if _, e := net.LookupPort("tcp", port); e != nil || port == "0" {
				err = fmt.Errorf("port %q is not a number from 1 to 65535", port)
			}
		}
	}
	if err != nil {
		return nil, &URLError{raw, unreadable(u, err)}
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}

// unreadable is why a URL cannot be read, without the URL and what is secret in
// it. u is nil where it could not be taken apart, which a password does that holds
// a character of URLs.
func unreadable(u *url.URL, err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	if u == nil {
		return fmt.Errorf("%w; write special characters of a password as %%XX", err)
	}
	return err
}

// httpSource reads the body of one answer. A goroutine reads ahead by one
// block, so that Read can be given up: a slow reader holds up the server, not
// memory.
type httpSource struct {
	counters
	name   string // without secrets
	body   io.ReadCloser
	cancel context.CancelFunc
	client *http.Client

	blocks chan httpRead // to Read
	free   chan []byte   // back from Read
	held   []byte        // by the last Read's batch
	first  bool          // the first block has been seen
	end    error
	off    int64
	done   chan struct{}
	closed bool
}

// httpRead is what one read of the body has given.
type httpRead struct {
	block []byte
	err   error
}

// getHTTP asks for u and returns its body as a source, which is paced.
func getHTTP(ctx context.Context, u *url.URL, opt Options) (Source, error) {
	name := Redact(u.String())
	fail := func(err error) (Source, error) { return nil, fmt.Errorf("source %q: %w", name, err) }
	// The request outlives ctx, which bounds Open alone.
	live, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	client := newHTTPClient(u)
	res, err := requestHTTP(live, client, u)
	if err == nil {
		if err = statusHTTP(res, u.User != nil); err != nil {
			res.Body.Close()
		}
	}
	if !stop() && err == nil {
		res.Body.Close()
		err = ctx.Err()
	}
	if err != nil {
		cancel()
		client.CloseIdleConnections()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fail(err)
	}
	s := &httpSource{counters: counters{clock: opt.Clock}, name: name, body: res.Body, cancel: cancel, client: client,
		blocks: make(chan httpRead), free: make(chan []byte, 2), done: make(chan struct{})}
	s.free <- make([]byte, httpBlock)
	s.free <- make([]byte, httpBlock)
	go s.pull(live)
	return paceBody(s, res.ContentLength, opt), nil
}

// newHTTPClient makes a client for one source: its connection is nobody else's.
func newHTTPClient(u *url.URL) *http.Client {
	base := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: httpConnect}).DialContext,
		TLSHandshakeTimeout:   httpConnect,
		ResponseHeaderTimeout: httpAnswer,
		DisableCompression:    true,
		DisableKeepAlives:     true,
		ReadBufferSize:        httpBlock,
		Protocols:             new(http.Protocols),
	}
	// One endless answer gains nothing from HTTP/2, which would read megabytes
	// ahead of a slow reader.
	base.Protocols.SetHTTP1(true)
	return &http.Client{Transport: newHTTPAuth(u, base), CheckRedirect: redirectHTTP}
}

// redirectHTTP follows a redirect, and does not tell the next server where it
// came from: the query may hold a secret.
func redirectHTTP(req *http.Request, via []*http.Request) error {
	req.Header.Del("Referer")
	if len(via) >= 10 {
		return errors.New("the server redirects in a circle")
	}
	return nil
}

// requestHTTP asks for u, a few times where the server cannot be reached.
func requestHTTP(ctx context.Context, client *http.Client, u *url.URL) (*http.Response, error) {
	plain := *u
	plain.User = nil // for newHTTPAuth alone, which asks which host it is
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodGet, plain.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "twindvr")
	req.Header.Set("Accept", "*/*")
	again := &retryablehttp.Client{HTTPClient: client, RetryMax: httpTries,
		RetryWaitMin: 250 * time.Millisecond, RetryWaitMax: time.Second, Backoff: retryablehttp.DefaultBackoff,
		CheckRetry: retryHTTP, ErrorHandler: retryablehttp.PassthroughErrorHandler}
	res, err := again.Do(req)
	if err != nil {
		return nil, explainHTTP(err)
	}
	return res, nil
}

// retryHTTP asks again unless the answer would be the same.
func retryHTTP(ctx context.Context, res *http.Response, err error) (bool, error) {
	if err != nil {
		var dns *net.DNSError
		if errors.As(err, &dns) && dns.IsNotFound {
			return false, nil
		}
	} else if res.StatusCode == http.StatusTooManyRequests {
		return false, nil // the node's backoff is more patient
	}
	return retryablehttp.DefaultRetryPolicy(ctx, res, err)
}

// pull reads the body until it ends.
func (s *httpSource) pull(ctx context.Context) {
	defer close(s.done)
	nap := newStoppedTimer()
	for {
		var block []byte
		select {
		case block = <-s.free:
		case <-ctx.Done():
			return
		}
		n, err := s.body.Read(block)
		if n == 0 && err == nil {
			s.free <- block
			continue
		}
		select {
		case s.blocks <- httpRead{block[:n], err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
		if n == len(block) {
			continue // there is more
		}
		nap.Reset(httpNap)
		select {
		case <-nap.C:
		case <-ctx.Done():
			return
		}
	}
}

// Read implements Source. The end of the body is io.EOF.
func (s *httpSource) Read(ctx context.Context) (*Batch, error) {
	if s.closed {
		return nil, fmt.Errorf("source %q is closed", s.name)
	}
	if s.held != nil {
		s.free <- s.held[:cap(s.held)]
		s.held = nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.end != nil {
		return nil, s.end
	}
	var r httpRead
	select {
	case r = <-s.blocks:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if r.err != nil {
		s.end = s.ended(r.err, int64(len(r.block)))
		if len(r.block) == 0 {
			return nil, s.end
		}
	}
	if !s.first {
		s.first = true
		if err := sniffHTTP(r.block); err != nil {
			s.end = fmt.Errorf("source %q: %w", s.name, err)
			return nil, s.end
		}
	}
	s.held = r.block
	s.off += int64(len(r.block))
	return s.deliver(r.block), nil
}

// ended turns the error of a read that gave n bytes into Read's.
func (s *httpSource) ended(err error, n int64) error {
	switch {
	case err == io.EOF:
		return io.EOF
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("source %q: the server has broken off after %d bytes", s.name, s.off+n)
	}
	return fmt.Errorf("source %q: reading at byte %d: %w", s.name, s.off+n, explainHTTP(err))
}

// Close implements Source.
func (s *httpSource) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	s.cancel()
	s.body.Close()
	<-s.done
	s.client.CloseIdleConnections()
	return nil
}

// sniffHTTP knows by its first bytes what is surely no transport stream.
func sniffHTTP(p []byte) error {
	head := bytes.ToLower(bytes.TrimLeft(p[:min(len(p), 512)], "\xef\xbb\xbf \t\r\n"))
	switch {
	case bytes.HasPrefix(head, []byte("#extm3u")):
		return errors.New("this is a playlist; write hls:// instead of http://, hlss:// instead of https://")
	case bytes.HasPrefix(head, []byte("<!doctype html")), bytes.HasPrefix(head, []byte("<html")):
		return errors.New("the server answers with a web page, not with a transport stream; look at it with a browser")
	case bytes.HasPrefix(head, []byte("<?xml")), bytes.HasPrefix(head, []byte("<mpd")):
		return errors.New("the server answers with XML (a DASH manifest?), not with a transport stream")
	}
	return nil
}

// statusHTTP says what an answer other than 200 means.
func statusHTTP(res *http.Response, user bool) error {
	what := ""
	switch res.StatusCode {
	case http.StatusOK, http.StatusPartialContent, http.StatusNonAuthoritativeInfo:
		return nil
	case http.StatusUnauthorized:
		what = "it wants a user and a password: write http://USER:PASSWORD@HOST/PATH"
		if user {
			what = "the user or the password in the URL is wrong"
		}
		if kinds := challenges(res.Header); user && len(kinds) > 0 && !strings.Contains(kinds, "basic") && !strings.Contains(kinds, "digest") {
			what = "it wants authentication of the kind " + kinds + ", and Basic and Digest are supported"
		}
	case http.StatusForbidden:
		what = "it does not let this machine or this user have the stream; look at its rules for addresses and tokens"
	case http.StatusNotFound, http.StatusGone:
		what = "it has no such stream; look at the path, and whether the sender is on"
	case http.StatusMethodNotAllowed:
		what = "nothing can be got from this path"
	case http.StatusProxyAuthRequired:
		what = "the proxy wants a user and a password in http_proxy or https_proxy"
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		what = "it is overloaded, or the stream has too many viewers"
	case http.StatusBadGateway, http.StatusGatewayTimeout:
		what = "it does not reach the sender behind it"
	case http.StatusNoContent:
		what = "there is nothing to be sent"
	}
	if what == "" {
		return fmt.Errorf("the server answers %s", res.Status)
	}
	return fmt.Errorf("the server answers %s: %s", res.Status, what)
}
