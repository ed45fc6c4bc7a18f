package node

import (
	"bytes"
	"context"
	"crypto/x509"
	"os"
	"sync/atomic"

	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// authorities are those that vouch for peers.
type authorities struct {
	pool atomic.Pointer[x509.CertPool] // nil: the system's
	file string                        // guarded by Node.reload, as is text
	text []byte
}

// load reads the authorities that a configuration names. It says whether they
// are others than before.
func (a *authorities) load(c *config.Config) (changed bool, err error) {
	pool, err := c.TLS.LoadAuthorities()
	if err != nil {
		return false, err
	}
	var text []byte
	if c.TLS.CA != "" {
		if text, err = os.ReadFile(c.TLS.CA); err != nil {
			return false, err
		}
	}
	if c.TLS.CA == a.file && bytes.Equal(text, a.text) {
		return false, nil
	}
	a.pool.Store(pool)
	a.file, a.text = c.TLS.CA, text
	return true, nil
}

// startTLS reads the certificate and the authorities.
func (n *Node) startTLS() error {
	if _, err := n.roots.load(n.cfg); err != nil {
		return err
	}
	var err error
	n.cert, err = n.certificate(n.cfg)
	return err
}

// certificate is the one that a configuration names, or nil.
func (n *Node) certificate(c *config.Config) (*m4fhttp.Certificate, error) {
	if c.TLS.Cert == "" {
		return nil, nil
	}
	return m4fhttp.NewCertificate(c.TLS.Cert, c.TLS.Key, n.log)
}

// reloadTLS applies what a changed file says of the certificate and of the
// address. Where it cannot be had nothing changes.
func (n *Node) reloadTLS(ctx context.Context, c *config.Config, moved bool) error {
	cert := n.cert
	if c.TLS.Cert != n.cfg.TLS.Cert || c.TLS.Key != n.cfg.TLS.Key {
		var err error
		if cert, err = n.certificate(c); err != nil {
			return err
		}
		moved = true
	}
	if !moved {
		return nil
	}
	if err := n.moveListener(ctx, c.HTTP, cert); err != nil {
		return err
	}
	n.cert = cert
	return nil
}
