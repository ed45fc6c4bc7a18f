package ingest

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/bluenviron/gortsplib/v5"
	"github.com/bluenviron/gortsplib/v5/pkg/base"
)

// rtspAddr is what an rtsp or rtsps URL says.
type rtspAddr struct {
	url *base.URL // without the options that are twindvr's
	// protocol carries the packets; nil: UDP, and TCP where that brings none.
	protocol    *gortsplib.Protocol
	insecure    bool   // any certificate will do
	fingerprint []byte // SHA-256 of the only certificate that will do; or nil
}

// rtspTransports are the values of transport=.
var rtspTransports = map[string]*gortsplib.Protocol{
	"tcp":       protocol(gortsplib.ProtocolTCP),
	"udp":       protocol(gortsplib.ProtocolUDP),
	"multicast": protocol(gortsplib.ProtocolUDPMulticast),
	"auto":      nil,
}

func protocol(p gortsplib.Protocol) *gortsplib.Protocol { return &p }

// parseRTSP reads //[USER:PASSWORD@]HOST[:PORT]/PATH[?OPTIONS]. Cameras have
// options of their own: those that are not known here stay in the URL, as they
// are and in their order.
func parseRTSP(scheme, rest string) (*rtspAddr, error) {
	a := &rtspAddr{protocol: rtspTransports["tcp"]}
	head, query, _ := strings.Cut(rest, "?")
	var theirs []string
	for part := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(part, "=")
		ours, err := a.option(scheme, name, value)
		if err != nil {
			return nil, err
		}
		if !ours && part != "" {
			theirs = append(theirs, part)
		}
	}
	if len(theirs) > 0 {
		head += "?" + strings.Join(theirs, "&")
	}
	u, err := base.ParseURL(scheme + ":" + head)
	if err != nil {
		var ue *url.Error // it repeats the URL, and the password in it
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return nil, fmt.Errorf("%w; write %s://[USER:PASSWORD@]HOST[:PORT]/PATH, special characters of a password as %%XX", err, scheme)
	}
	if u.Hostname() == "" {
		return nil, fmt.Errorf("no host; write %s://HOST[:PORT]/PATH", scheme)
	}
	a.url = u
	return a, nil
}

// option takes an option that is twindvr's and says whether it is.
func (a *rtspAddr) option(scheme, name, value string) (bool, error) {
	switch name {
	case "transport":
		p, ok := rtspTransports[value]
		if !ok {
			return true, fmt.Errorf("transport=%s is none of tcp, udp, multicast and auto", value)
		}
		a.protocol = p
	case "insecure":
		if value != "1" && value != "0" {
			return true, fmt.Errorf("insecure=%s is neither 1 nor 0", value)
		}
		a.insecure = value == "1"
	case "fingerprint":
		b, err := hex.DecodeString(strings.ReplaceAll(value, ":", ""))
		if err != nil || len(b) != sha256.Size {
			return true, errors.New("fingerprint= is the SHA-256 of the camera's certificate, 64 hexadecimal digits")
		}
		a.fingerprint = b
	default:
		return false, nil
	}
	if name != "transport" && scheme != "rtsps" {
		return true, fmt.Errorf("%s= is for rtsps://, where there is a certificate", name)
	}
	return true, nil
}

// tls returns how the camera's certificate is verified. Most cameras have one
// that they have signed themselves.
func (a *rtspAddr) tls() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		// What is verified, and what is said where it does not hold, is below.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if a.insecure {
				return nil
			}
			leaf := cs.PeerCertificates[0]
			sum := sha256.Sum256(leaf.Raw)
			if a.fingerprint != nil {
				if string(sum[:]) != string(a.fingerprint) {
					return fmt.Errorf("the certificate is not the one expected: it has the fingerprint %x", sum)
				}
				return nil
			}
			opts := x509.VerifyOptions{DNSName: cs.ServerName, Intermediates: x509.NewCertPool()}
			for _, c := range cs.PeerCertificates[1:] {
				opts.Intermediates.AddCert(c)
			}
			if _, err := leaf.Verify(opts); err != nil {
				return fmt.Errorf("%w; if it is the camera's own, add the option fingerprint=%x", err, sum)
			}
			return nil
		},
	}
}

// checkRTSP implements scheme.check.
func checkRTSP(scheme string) func(string) error {
	return func(rest string) error {
		_, err := parseRTSP(scheme, rest)
		return rtspError(scheme, rest, err)
	}
}

// rtspError names the source that an error is of.
func rtspError(scheme, rest string, err error) error {
	if err == nil {
		return nil
	}
	return &URLError{scheme + ":" + rest, err}
}
