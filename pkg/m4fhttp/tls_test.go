package m4fhttp

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// certificateFiles writes a certificate for 127.0.0.1 that vouches for itself,
// and its key.
func certificateFiles(t *testing.T, dir string, serial int64) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// A certificate is read again when its files change; until both fit together
// the one before is shown.
func TestCertificateIsReplaced(t *testing.T) {
	dir := t.TempDir()
	cert, key := certificateFiles(t, dir, 1)
	c, err := NewCertificate(cert, key, quiet)
	if err != nil {
		t.Fatal(err)
	}
	addr := bounded(t, NewHandler(Options{Provider: NewRoot(dir), Log: quiet}), ServeOptions{TLS: c.Config()})
	shown := func() int64 {
		t.Helper()
		conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	if got := shown(); got != 1 {
		t.Fatalf("certificate %d", got)
	}
	newCert, newKey := certificateFiles(t, t.TempDir(), 2)
	for i, step := range []struct {
		from, to string
		want     int64
		err      bool
	}{{newCert, cert, 1, true}, {newKey, key, 2, false}} {
		if err := os.Rename(step.from, step.to); err != nil {
			t.Fatal(err)
		}
		if err := c.Check(); (err != nil) != step.err {
			t.Errorf("step %d: %v", i, err)
		}
		if got := shown(); got != step.want {
			t.Errorf("step %d: certificate %d, want %d", i, got, step.want)
		}
	}
	for _, path := range []string{cert, key} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := c.Check(); err == nil || shown() != 2 {
			t.Errorf("without %s: %v, certificate %d", path, err, shown())
		}
	}
	certificateFiles(t, dir, 3)
	if err := c.Check(); err != nil || shown() != 3 {
		t.Errorf("back: %v, certificate %d", err, shown())
	}
}
