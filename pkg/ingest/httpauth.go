package ingest

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/icholy/digest"
)

// httpAuth answers the challenge of the one server that the URL names, and of
// no other that it may redirect to. Nothing is sent to a server that has not
// asked.
type httpAuth struct {
	scheme, host string
	user         *url.Userinfo
	base         *http.Transport
}

func newHTTPAuth(u *url.URL, base *http.Transport) *httpAuth {
	return &httpAuth{u.Scheme, placeHTTP(u), u.User, base}
}

// placeHTTP is host and port.
func placeHTTP(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return strings.ToLower(u.Hostname()) + ":" + port
}

// RoundTrip implements http.RoundTripper.
func (a *httpAuth) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := a.base.RoundTrip(req)
	if err != nil || res.StatusCode != http.StatusUnauthorized || a.user == nil ||
		req.URL.Scheme != a.scheme || placeHTTP(req.URL) != a.host {
		return res, err
	}
	header, err := a.answer(req, res.Header)
	if err != nil || header == "" {
		return res, nil // the caller says what 401 means
	}
	io.CopyN(io.Discard, res.Body, 4<<10)
	res.Body.Close()
	again := req.Clone(req.Context())
	again.Header.Set("Authorization", header)
	return a.base.RoundTrip(again)
}

// CloseIdleConnections is what http.Client.CloseIdleConnections calls.
func (a *httpAuth) CloseIdleConnections() { a.base.CloseIdleConnections() }

// answer makes the Authorization header, Digest (RFC 7616) rather than Basic
// (RFC 7617); empty where the server wants neither.
func (a *httpAuth) answer(req *http.Request, header http.Header) (string, error) {
	password, _ := a.user.Password()
	if challenge, err := digest.FindChallenge(header); err == nil {
		c, err := digest.Digest(challenge, digest.Options{Method: req.Method, URI: req.URL.RequestURI(), Count: 1,
			Username: a.user.Username(), Password: password})
		if err != nil {
			return "", err
		}
		return c.String(), nil
	}
	if !strings.Contains(challenges(header), "basic") {
		return "", nil
	}
	basic := &http.Request{Header: http.Header{}}
	basic.SetBasicAuth(a.user.Username(), password)
	return basic.Header.Get("Authorization"), nil
}

// challenges are the kinds of authentication that a server offers, in small
// letters.
func challenges(header http.Header) string {
	var kinds []string
	for _, v := range header.Values("WWW-Authenticate") {
		kind, _, _ := strings.Cut(strings.TrimSpace(v), " ")
		kinds = append(kinds, strings.ToLower(kind))
	}
	return strings.Join(kinds, ", ")
}

// explainHTTP takes the URL, whose query may hold a secret, off an error, and
// says what is to be done about those of TLS.
func explainHTTP(err error) error {
	var ue *url.Error
	for errors.As(err, &ue) {
		err = ue.Err
	}
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("the server's certificate is self-signed or of an authority that this machine does not know: have the authority's certificate installed (update-ca-certificates), or name its file in SSL_CERT_FILE (%w)", err)
	case errors.As(err, &host):
		return fmt.Errorf("the server's certificate is for another name: use the name that it is for (%w)", err)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("the server's certificate has expired, or this machine's clock is wrong (%w)", err)
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return fmt.Errorf("the server speaks no TLS at this port: write http:// instead of https:// (%w)", err)
	}
	return err
}
