package m4fhttp

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"github.com/icholy/digest"
)

// newTransport is how connections to one peer are made: bounded in time and in
// the size of headers, never through a proxy, counted.
func newTransport(tlsConfig *tls.Config, t *traffic) *http.Transport {
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return countedConn{c, t}, nil
		},
		TLSClientConfig:        tlsConfig,
		TLSHandshakeTimeout:    5 * time.Second,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		ReadBufferSize:         64 << 10,
	}
}

// retrying makes the client for requests that have an end: a few tries within
// seconds, in silence. What a peer says of when to come back is not heeded.
func retrying(rt http.RoundTripper) *retryablehttp.Client {
	c := retryablehttp.NewClient()
	c.HTTPClient = plain(rt)
	c.Logger = nil
	c.RetryMax = 2
	c.RetryWaitMin = 100 * time.Millisecond
	c.RetryWaitMax = time.Second
	c.Backoff = func(least, most time.Duration, n int, _ *http.Response) time.Duration {
		return retryablehttp.DefaultBackoff(least, most, n, nil)
	}
	c.CheckRetry = func(ctx context.Context, res *http.Response, err error) (bool, error) {
		if errors.Is(err, ErrSilent) || errors.Is(err, errChallenge) {
			return false, nil
		}
		return retryablehttp.DefaultRetryPolicy(ctx, res, err)
	}
	c.ErrorHandler = retryablehttp.PassthroughErrorHandler
	return c
}

// plain makes the client for endless requests. Redirects are not followed: a
// peer is the node that was named.
func plain(rt http.RoundTripper) *http.Client {
	return &http.Client{
		Transport:     rt,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// errChallenge is the error of a peer that asks for another kind of
// authentication: weaker ones are not answered.
var errChallenge = errors.New("it asks for another authentication than HTTP Digest with SHA-256")

// withKeys answers challenges with the first key that the peer takes.
func withKeys(keys []string, next http.RoundTripper) http.RoundTripper {
	if len(keys) == 0 {
		return next
	}
	k := &keyring{}
	for _, key := range keys {
		k.transports = append(k.transports, &digest.Transport{
			Username:      User,
			Password:      key,
			Transport:     next,
			FindChallenge: findChallenge,
		})
	}
	return k
}

func findChallenge(h http.Header) (*digest.Challenge, error) {
	for _, header := range h.Values("WWW-Authenticate") {
		c, err := digest.ParseChallenge(header)
		if err == nil && strings.EqualFold(c.Algorithm, algorithm) && slices.Contains(c.QOP, "auth") {
			return c, nil
		}
	}
	return nil, errChallenge
}

// keyring tries one key after the other and stays with the one that works.
type keyring struct {
	transports []*digest.Transport
	current    atomic.Int32
}

func (k *keyring) RoundTrip(req *http.Request) (*http.Response, error) {
	first := k.current.Load()
	for i := int32(0); ; i++ {
		at := (first + i) % int32(len(k.transports))
		res, err := k.transports[at].RoundTrip(req)
		if err != nil {
			return nil, err
		}
		if res.StatusCode != http.StatusUnauthorized {
			k.current.Store(at)
			return res, nil
		}
		if int(i) == len(k.transports)-1 {
			return res, nil
		}
		// The answer is drained so that its connection can be used again; if
		// that fails, another is opened.
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
}
