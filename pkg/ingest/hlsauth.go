package ingest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/twindvr/twindvr/pkg/hls"
)

// newHLSClient makes the client of one source, which knows the user and the
// password of its URL.
func newHLSClient(u *url.URL) *hls.Client {
	opt := hls.ClientOptions{Explain: explainHLS}
	if u.User != nil {
		at := *u
		opt.Auth = func(base *http.Transport) http.RoundTripper {
			return &hlsAuth{httpAuth: newHTTPAuth(&at, base)}
		}
	}
	return hls.NewClient(opt)
}

// hlsAuth is an httpAuth that is asked by a server once, and not for every
// segment, where that wants Basic.
type hlsAuth struct {
	*httpAuth
	basic atomic.Pointer[string] // Authorization, once it has been asked for
}

// RoundTrip implements http.RoundTripper.
func (a *hlsAuth) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != a.scheme || placeHTTP(req.URL) != a.host {
		return a.base.RoundTrip(req)
	}
	if known := a.basic.Load(); known != nil {
		return a.base.RoundTrip(authorized(req, *known))
	}
	res, err := a.base.RoundTrip(req)
	if err != nil || res.StatusCode != http.StatusUnauthorized {
		return res, err
	}
	header, err := a.answer(req, res.Header)
	if err != nil || header == "" {
		return res, nil // the caller says what 401 means
	}
	io.CopyN(io.Discard, res.Body, 4<<10)
	res.Body.Close()
	if strings.HasPrefix(header, "Basic ") {
		a.basic.Store(&header)
	}
	return a.base.RoundTrip(authorized(req, header))
}

// authorized returns a request without a body with a header of Authorization.
func authorized(req *http.Request, header string) *http.Request {
	again := req.Clone(req.Context())
	again.Header.Set("Authorization", header)
	return again
}

// explainHLS is explainHTTP for the URLs of playlists.
func explainHLS(err error) error {
	var record tls.RecordHeaderError
	if errors.As(err, &record) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return fmt.Errorf("the server speaks no TLS at this port: write hls:// instead of hlss:// (%w)", err)
	}
	return explainHTTP(err)
}
