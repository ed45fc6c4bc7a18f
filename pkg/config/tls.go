package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// maxPEM bounds a file of certificates in bytes.
const maxPEM = 4 << 20

// LoadCertificate reads the certificate and its key.
func (t TLS) LoadCertificate() (*tls.Certificate, error) {
	cert, err := readPEM(t.Cert)
	if err != nil {
		return nil, err
	}
	key, err := readPEM(t.Key)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", t.Cert, t.Key, err)
	}
	return &pair, nil
}

// LoadAuthorities reads the authorities that vouch for peers beside those of
// the system, or returns nil where the file names none.
func (t TLS) LoadAuthorities() (*x509.CertPool, error) {
	if t.CA == "" {
		return nil, nil
	}
	b, err := readPEM(t.CA)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", t.CA)
	}
	return pool, nil
}

func readPEM(path string) ([]byte, error) {
	fi, err := os.Stat(path)
	if err == nil && (!fi.Mode().IsRegular() || fi.Size() > maxPEM) {
		return nil, fmt.Errorf("%s is not a file of certificates or keys", path)
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(path)
	}
	var pe *os.PathError
	if errors.As(err, &pe) {
		return nil, fmt.Errorf("%s cannot be read: %w", path, pe.Err)
	}
	return b, err
}
