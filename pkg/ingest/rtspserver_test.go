package ingest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluenviron/gortsplib/v5"
	"github.com/bluenviron/gortsplib/v5/pkg/auth"
	"github.com/bluenviron/gortsplib/v5/pkg/base"
	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
	"github.com/bluenviron/gortsplib/v5/pkg/liberrors"
	"github.com/pion/rtp"
)

// camera is an RTSP server: it passes on what is published to it, or what a
// test writes.
type camera struct {
	*gortsplib.Server
	user, pass string
	// lose says which packets of the published do not go on.
	lose func(*rtp.Packet) bool

	mu     sync.Mutex
	stream *gortsplib.ServerStream
	query  string // of the last DESCRIBE
	plays  atomic.Int32
}

// newCamera starts a server on a port of its own. set changes it before.
func newCamera(t *testing.T, set func(*camera)) *camera {
	t.Helper()
	c := &camera{}
	for try := range 20 {
		p := port()
		c.Server = &gortsplib.Server{Handler: c, RTSPAddress: fmt.Sprintf("127.0.0.1:%d", p), AuthMethods: []auth.VerifyMethod{auth.VerifyMethodDigestSHA256, auth.VerifyMethodDigestMD5}}
		if set != nil {
			set(c)
		}
		err := c.Start()
		if err == nil {
			t.Cleanup(c.stop)
			return c
		}
		if try == 19 {
			t.Fatal(err)
		}
	}
	return c
}

func (c *camera) stop() {
	c.mu.Lock()
	s := c.stream
	c.stream = nil
	c.mu.Unlock()
	if s != nil {
		s.Close()
	}
	c.Close()
}

func (c *camera) url() string { return "rtsp://" + c.RTSPAddress + "/cam" }

// published says whether somebody publishes.
func (c *camera) published() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stream != nil
}

func (c *camera) current() (*base.Response, *gortsplib.ServerStream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stream == nil {
		return &base.Response{StatusCode: base.StatusNotFound}, nil, nil
	}
	return &base.Response{StatusCode: base.StatusOK}, c.stream, nil
}

func (c *camera) OnDescribe(x *gortsplib.ServerHandlerOnDescribeCtx) (*base.Response, *gortsplib.ServerStream, error) {
	if c.user != "" && !x.Conn.VerifyCredentials(x.Request, c.user, c.pass) {
		return &base.Response{StatusCode: base.StatusUnauthorized}, nil, liberrors.ErrServerAuth{}
	}
	c.mu.Lock()
	c.query = x.Query
	c.mu.Unlock()
	return c.current()
}

func (c *camera) OnAnnounce(x *gortsplib.ServerHandlerOnAnnounceCtx) (*base.Response, error) {
	s := &gortsplib.ServerStream{Server: c.Server, Desc: x.Description}
	if err := s.Initialize(); err != nil {
		return &base.Response{StatusCode: base.StatusBadRequest}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stream != nil {
		return &base.Response{StatusCode: base.StatusBadRequest}, nil
	}
	c.stream = s
	return &base.Response{StatusCode: base.StatusOK}, nil
}

func (c *camera) OnSetup(x *gortsplib.ServerHandlerOnSetupCtx) (*base.Response, *gortsplib.ServerStream, error) {
	if x.Session.State() == gortsplib.ServerSessionStatePreRecord {
		return &base.Response{StatusCode: base.StatusOK}, nil, nil
	}
	return c.current()
}

func (c *camera) OnPlay(*gortsplib.ServerHandlerOnPlayCtx) (*base.Response, error) {
	c.plays.Add(1)
	return &base.Response{StatusCode: base.StatusOK}, nil
}

func (c *camera) OnRecord(x *gortsplib.ServerHandlerOnRecordCtx) (*base.Response, error) {
	c.mu.Lock()
	s := c.stream
	c.mu.Unlock()
	x.Session.OnPacketRTPAny(func(m *description.Media, _ format.Format, pkt *rtp.Packet) {
		if c.lose == nil || !c.lose(pkt) {
			_ = s.WritePacketRTP(m, pkt)
		}
	})
	x.Session.SetUserData(s)
	return &base.Response{StatusCode: base.StatusOK}, nil
}

// OnSessionClose ends the stream of a publisher that has gone.
func (c *camera) OnSessionClose(x *gortsplib.ServerHandlerOnSessionCloseCtx) {
	s, _ := x.Session.UserData().(*gortsplib.ServerStream)
	if s == nil {
		return
	}
	c.mu.Lock()
	mine := c.stream == s
	if mine {
		c.stream = nil
	}
	c.mu.Unlock()
	if mine {
		s.Close()
	}
}

// certificate makes one as cameras do: signed by itself, for another name.
func certificate(t *testing.T) (c tls.Certificate, fingerprint string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"camera"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, x, x, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, fmt.Sprintf("%x", sha256.Sum256(der))
}
