package m4fhttp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twindvr/twindvr/pkg/config"
)

const (
	// certificateEvery is how often the files of a certificate are looked at.
	certificateEvery = 2 * time.Second
	// certificateEnds is how long before its end a certificate is warned of.
	certificateEnds = 14 * 24 * time.Hour
	// certificateAgain is how often.
	certificateAgain = 24 * time.Hour
)

// Certificate is the certificate of a server with its key. It is read again
// when its files change; connections that there are do not mind.
type Certificate struct {
	files   config.TLS
	log     *slog.Logger
	current atomic.Pointer[tls.Certificate]

	mu     sync.Mutex
	seen   string    // what the files looked like when they were read
	doubt  string    // why they cannot be used
	told   string    // the same, where that has been told
	warned time.Time // of the end
}

// NewCertificate reads a certificate and its key, both in PEM.
func NewCertificate(cert, key string, log *slog.Logger) (*Certificate, error) {
	if cert == "" || key == "" {
		return nil, errors.New("TLS needs a certificate and its key: give both --tls-cert and --tls-key")
	}
	if log == nil {
		log = slog.Default()
	}
	c := &Certificate{files: config.TLS{Cert: cert, Key: key}, log: log}
	c.seen = c.looks()
	pair, err := c.files.LoadCertificate()
	if err != nil {
		return nil, err
	}
	c.current.Store(pair)
	c.warn(time.Now())
	return c, nil
}

// Config is the TLS configuration of a server that shows the certificate.
func (c *Certificate) Config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil },
	}
}

// looks tells the files as they are from the files as they were.
func (c *Certificate) looks() string {
	s := ""
	for _, path := range []string{c.files.Cert, c.files.Key} {
		st, err := os.Stat(path)
		if err != nil {
			s += "none "
			continue
		}
		var inode uint64
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			inode = sys.Ino
		}
		s += fmt.Sprintf("%d %d %d ", st.ModTime().UnixNano(), st.Size(), inode)
	}
	return s
}

// Check reads the files again if they have changed. Where they cannot be used
// the certificate stays what it was, and the error says why.
func (c *Certificate) Check() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.warn(time.Now())
	looks := c.looks()
	if looks == c.seen {
		return nil
	}
	pair, err := c.files.LoadCertificate()
	if err != nil {
		// It is read again next time: perhaps one of the two files is new and
		// the other about to be. So it is told at the second time only.
		switch text := err.Error(); {
		case c.doubt != text:
			c.doubt = text
		case c.told != text:
			c.told = text
			c.log.Warn("the certificate has changed and cannot be used; the one before stays in use", "err", err)
		}
		return err
	}
	c.current.Store(pair)
	c.seen, c.doubt, c.told, c.warned = looks, "", "", time.Time{}
	c.log.Info("certificate read again", "file", c.files.Cert, "until", pair.Leaf.NotAfter.UTC())
	c.warn(time.Now())
	return nil
}

// warn tells that the certificate is about to end.
func (c *Certificate) warn(now time.Time) {
	leaf := c.current.Load().Leaf
	if leaf == nil || leaf.NotAfter.Sub(now) > certificateEnds || now.Sub(c.warned) < certificateAgain {
		return
	}
	c.warned = now
	if now.After(leaf.NotAfter) {
		c.log.Error("the certificate has ended: peers refuse this node", "file", c.files.Cert, "until", leaf.NotAfter.UTC())
		return
	}
	c.log.Warn("the certificate ends soon", "file", c.files.Cert, "until", leaf.NotAfter.UTC())
}

// Watch checks the files every two seconds until the context ends.
func (c *Certificate) Watch(ctx context.Context) {
	t := time.NewTicker(certificateEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			_ = c.Check() // it tells what is wrong itself
		}
	}
}
