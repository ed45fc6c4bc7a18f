package node_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// authority vouches for the nodes of a test.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{file: filepath.Join(t.TempDir(), "ca.pem")}
	a.key, a.cert = a.sign(t, nil, a.file, "")
	return a
}

// sign writes a certificate for 127.0.0.1 and its key; without an authority it
// is one.
func (a *authority) sign(t *testing.T, by *authority, cert, key string) (*ecdsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: by == nil, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	parent, signer := tmpl, private
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, private.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, cert, "CERTIFICATE", der)
	if key != "" {
		der, err := x509.MarshalPKCS8PrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		writePEM(t, key, "PRIVATE KEY", der)
	}
	read, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return private, read
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (n *testNode) hup() { n.cmd.Process.Signal(syscall.SIGHUP) }

// keys writes the cluster key file and has the node read it.
func (n *testNode) keys(t *testing.T, file string, keys ...string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(strings.Join(keys, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	before := strings.Count(n.text(), "configuration applied")
	n.hup()
	within(t, 20*time.Second, n.name+" has read its keys again", func() bool {
		return strings.Count(n.text(), "configuration applied") > before
	})
}

// TestTLSAndKeys has a pair speak TLS under an authority of its own, replaces
// both certificates and the cluster key, and wants nothing refused, nothing lost.
func TestTLSAndKeys(t *testing.T) {
	t.Parallel()
	rng := seed(t)
	source := multicast()
	ca := newAuthority(t)
	a, b := newNode(t, "a", ""), newNode(t, "b", "")
	certs, keyFiles := map[*testNode]string{}, map[*testNode]string{}
	for _, n := range []*testNode{a, b} {
		certs[n], keyFiles[n] = t.TempDir(), filepath.Join(t.TempDir(), "cluster.key")
		ca.sign(t, ca, filepath.Join(certs[n], "cert.pem"), filepath.Join(certs[n], "key.pem"))
		if err := os.WriteFile(keyFiles[n], []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	conf := func(n *testNode, inputs string) string {
		return fmt.Sprintf(`http :%%PORT; cluster_key_file %s; tls_cert %s/cert.pem; tls_key %[2]s/key.pem; tls_ca %s;
stream x { %s dvr %%DIR 1d replicate; segment_duration 1s; }`, keyFiles[n], certs[n], ca.file, inputs)
	}
	// b has no other way to the stream, so that what comes late is missed.
	a.configure(conf(a, fmt.Sprintf("url %s; url m4fs://127.0.0.1:%d/x;", source, b.port)))
	b.configure(conf(b, fmt.Sprintf("url m4fs://127.0.0.1:%d/x;", a.port)))
	start(t, "source", "testsrc", source, "--bitrate", "1M")
	a.up()
	b.up()
	peers := func() bool {
		for _, n := range []*testNode{a, b} {
			st := n.status()
			if st == nil || !st.Streams[0].Healthy || len(st.Streams[0].Peers) == 0 || !st.Streams[0].Peers[0].Reachable {
				return false
			}
		}
		return true
	}
	within(t, time.Minute, "both are healthy over TLS", func() bool { return peers() && wroteReplicated(b.stream("x")) })
	began := newest(t, b.stream("x"))
	said := map[*testNode]int{a: len(a.text()), b: len(b.text())}

	both := func(keys ...string) {
		t.Helper()
		nodes := []*testNode{a, b}
		for _, i := range rng.Perm(2) {
			nodes[i].keys(t, keyFiles[nodes[i]], keys...)
			within(t, time.Minute, "the peer is followed", peers)
		}
	}
	both("old", "new")
	both("new", "old")
	both("new")

	// New certificates are shown without a word.
	serial := func(n *testNode) string {
		conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", n.port), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	for _, n := range []*testNode{a, b} {
		was := serial(n)
		ca.sign(t, ca, filepath.Join(certs[n], "cert.pem"), filepath.Join(certs[n], "key.pem"))
		within(t, 20*time.Second, "the new certificate is shown", func() bool { return serial(n) != was })
	}
	at := newest(t, b.stream("x"))
	within(t, time.Minute, "the peer is followed", func() bool { return peers() && newest(t, b.stream("x")) > at.Add(2*m4f.Timescale) })

	for _, n := range []*testNode{a, b} {
		for _, word := range []string{"refused", "is lost", "no input works", "out of reach", "cannot be used"} {
			if strings.Contains(n.text()[said[n]:], word) {
				t.Errorf("%s: something is %q", n.name, word)
			}
		}
	}
	arch, err := archive.Open(b.stream("x"))
	if err != nil {
		t.Fatal(err)
	}
	if gaps, err := arch.Gaps(began, 0); err != nil || len(gaps) != 0 {
		t.Errorf("gaps: %v %v", gaps, err)
	}
	// Nobody else gets a plain answer.
	if own := outerAddress(); own != "" {
		res, err := http.Get(fmt.Sprintf("http://%s/x/m4f/info", net.JoinHostPort(own, fmt.Sprint(a.port))))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("plain HTTP from elsewhere: %s", res.Status)
		}
	}
	if _, errs, status := run(t, "status", fmt.Sprintf(":%d", a.port)); status != 0 {
		t.Errorf("status: %d %s", status, errs)
	}
}

// outerAddress is an address of this machine that is not loopback, or "".
func outerAddress() string {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLoopback() && ip.IP.To4() != nil {
			return ip.IP.String()
		}
	}
	return ""
}
