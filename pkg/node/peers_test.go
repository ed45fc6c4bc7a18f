package node_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluenviron/gortsplib/v5"
	"github.com/bluenviron/gortsplib/v5/pkg/base"
	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
	"github.com/pion/rtp"

	"github.com/twindvr/twindvr/pkg/ingest"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

// live is a source that many senders take their datagrams of seven transport
// packets from, each from where it stands when they begin.
type live struct {
	mu  sync.Mutex
	out map[chan []byte]bool
}

// goLive begins the test's stream in real time.
func goLive(t *testing.T) *live {
	t.Helper()
	g, err := testsrc.New(testsrc.Options{Bitrate: 1_000_000})
	if err != nil {
		t.Fatal(err)
	}
	l := &live{out: map[chan []byte]bool{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- testsrc.Send(ctx, g, []*testsrc.Output{testsrc.NewOutput("test", l, testsrc.Loss{})}, testsrc.SendOptions{})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return l
}

// Write gives datagrams to whoever listens; one that is too slow misses it.
func (l *live) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for d := range slices.Chunk(bytes.Clone(p), 7*188) {
		for c := range l.out {
			select {
			case c <- d:
			default:
			}
		}
	}
	return len(p), nil
}

// listen passes on the stream until stop is called or send fails.
func (l *live) listen(send func([]byte) error) (stop func()) {
	c, quit, done := make(chan []byte, 4096), make(chan struct{}), make(chan struct{})
	l.mu.Lock()
	l.out[c] = true
	l.mu.Unlock()
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			case p := <-c:
				if send(p) != nil {
					return
				}
			}
		}
	}()
	return sync.OnceFunc(func() {
		close(quit)
		l.mu.Lock()
		delete(l.out, c)
		l.mu.Unlock()
		<-done
	})
}

// sender is a program or server that a node gets a stream from. up begins it,
// down ends it as if it had been killed.
type sender interface {
	url() string
	up(t *testing.T)
	down()
}

// ffmpegSender is ffmpeg with the live stream on its standard input.
type ffmpegSender struct {
	t    *testing.T
	live *live
	at   string
	args []string
	cmd  *exec.Cmd
	said bytes.Buffer
	stop func()
}

func (s *ffmpegSender) url() string { return s.at }

func (s *ffmpegSender) up(t *testing.T) {
	t.Helper()
	s.t = t
	s.cmd = exec.Command("ffmpeg", append([]string{"-loglevel", "fatal", "-nostdin", "-fflags", "nobuffer", "-f", "mpegts", "-i", "pipe:0"}, s.args...)...)
	in, err := s.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stderr = &s.said
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.stop = s.live.listen(func(p []byte) error { _, err := in.Write(p); return err })
}

// say shows what ffmpeg has said, once it has ended.
func (s *ffmpegSender) say() {
	if s.said.Len() > 0 {
		s.t.Logf("ffmpeg to %s: %s", ingest.Redact(s.at), &s.said)
		s.said.Reset()
	}
}

func (s *ffmpegSender) down() {
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Kill()
	s.cmd.Wait()
	s.cmd = nil
	s.stop()
	s.say()
}

// rtpSender sends RTP (RFC 2250). The 300th packet of 2000 is left out, and each
// 100th changes places with the one behind it.
type rtpSender struct {
	live *live
	addr string
	seq  uint16
	held []byte
	conn net.Conn
	stop func()
}

func (s *rtpSender) url() string { return "rtp://" + s.addr }

func (s *rtpSender) up(t *testing.T) {
	t.Helper()
	var err error
	if s.conn, err = net.Dial("udp", s.addr); err != nil {
		t.Fatal(err)
	}
	s.stop = s.live.listen(func(p []byte) error {
		s.seq++
		pkt := binary.BigEndian.AppendUint16([]byte{0x80, 33}, s.seq)
		pkt = binary.BigEndian.AppendUint32(pkt, uint32(time.Now().UnixMicro()*9/100))
		pkt = append(append(pkt, "SSRC"...), p...)
		switch {
		case s.seq%2000 == 300:
			return nil
		case s.seq%100 == 50:
			s.held = pkt
			return nil
		}
		s.conn.Write(pkt) // nobody may be there yet
		if s.held != nil {
			s.conn.Write(s.held)
			s.held = nil
		}
		return nil
	})
}

func (s *rtpSender) down() {
	if s.conn != nil {
		s.stop()
		s.conn.Close()
		s.conn = nil
	}
}

// httpSender serves the endless stream to who knows the password. While it is
// down it answers 404.
type httpSender struct {
	live *live
	addr string
	srv  *http.Server
	gone atomic.Bool
	ends sync.Map // of the requests under way
}

func (s *httpSender) url() string { return "http://user:s3cret@" + s.addr + "/live.ts" }

func (s *httpSender) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, password, _ := r.BasicAuth(); password != "s3cret" {
		w.Header().Set("WWW-Authenticate", `Basic realm="live"`)
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	if s.gone.Load() {
		http.Error(w, "no such stream", http.StatusNotFound)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	s.ends.Store(r, cancel)
	defer s.ends.Delete(r)
	w.Header().Set("Content-Type", "video/mp2t")
	stop := s.live.listen(func(p []byte) error {
		if _, err := w.Write(p); err != nil {
			return err
		}
		return http.NewResponseController(w).Flush()
	})
	<-ctx.Done()
	stop()
	if s.gone.Load() {
		panic(http.ErrAbortHandler) // as a server that crashes
	}
}

func (s *httpSender) up(t *testing.T) {
	t.Helper()
	s.gone.Store(false)
	if s.srv != nil {
		return
	}
	ln, err := net.Listen("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	s.srv = &http.Server{Handler: s}
	done := make(chan error, 1)
	go func() { done <- s.srv.Serve(ln) }()
	t.Cleanup(func() {
		s.down()
		s.srv.Close()
		<-done
	})
}

func (s *httpSender) down() {
	s.gone.Store(true)
	s.ends.Range(func(_, cancel any) bool {
		cancel.(context.CancelFunc)()
		return true
	})
}

// hlsSender is ffmpeg that writes segments and a playlist, and a server of
// files.
type hlsSender struct {
	ffmpegSender
	dir, addr string
	srv       *http.Server
	done      chan error
}

func newHLSSender(t *testing.T, l *live, addr string) *hlsSender {
	s := &hlsSender{dir: t.TempDir(), addr: addr}
	s.live, s.at = l, "http://"+addr+"/live.m3u8"
	s.args = []string{
		"-c", "copy", "-f", "hls", "-hls_time", "1", "-hls_list_size", "4", "-hls_flags", "delete_segments",
		"-strftime", "1", "-hls_segment_filename", filepath.Join(s.dir, "%s.ts"), filepath.Join(s.dir, "live.m3u8"),
	}
	return s
}

func (s *hlsSender) up(t *testing.T) {
	t.Helper()
	s.ffmpegSender.up(t)
	ln, err := net.Listen("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	s.srv, s.done = &http.Server{Handler: http.FileServer(http.Dir(s.dir))}, make(chan error, 1)
	go func() { s.done <- s.srv.Serve(ln) }()
}

func (s *hlsSender) down() {
	s.ffmpegSender.down()
	if s.srv != nil {
		s.srv.Close()
		<-s.done
		s.srv = nil
		old, _ := filepath.Glob(filepath.Join(s.dir, "*"))
		for _, name := range old {
			os.Remove(name)
		}
	}
}

// rtspSender is an RTSP server that ffmpeg sends the stream to. While it is
// down it wants a password that nobody has.
type rtspSender struct {
	ffmpegSender
	addr   string
	server *gortsplib.Server
	gone   atomic.Bool

	mu        sync.Mutex
	stream    *gortsplib.ServerStream
	publisher *gortsplib.ServerSession
}

func newRTSPSender(l *live, addr string) *rtspSender {
	s := &rtspSender{addr: addr}
	s.live, s.at = l, "rtsp://"+addr+"/cam"
	s.args = []string{"-c", "copy", "-an", "-f", "rtsp", "-rtsp_transport", "tcp", s.at}
	return s
}

func (s *rtspSender) OnDescribe(*gortsplib.ServerHandlerOnDescribeCtx) (*base.Response, *gortsplib.ServerStream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.gone.Load():
		return &base.Response{StatusCode: base.StatusUnauthorized, Header: base.Header{"WWW-Authenticate": base.HeaderValue{`Basic realm="cam"`}}}, nil, nil
	case s.stream == nil:
		return &base.Response{StatusCode: base.StatusNotFound}, nil, nil
	}
	return &base.Response{StatusCode: base.StatusOK}, s.stream, nil
}

func (s *rtspSender) OnAnnounce(ctx *gortsplib.ServerHandlerOnAnnounceCtx) (*base.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stream = &gortsplib.ServerStream{Server: s.server, Desc: ctx.Description}
	s.publisher = ctx.Session
	if err := s.stream.Initialize(); err != nil {
		return nil, err
	}
	return &base.Response{StatusCode: base.StatusOK}, nil
}

func (s *rtspSender) OnSetup(ctx *gortsplib.ServerHandlerOnSetupCtx) (*base.Response, *gortsplib.ServerStream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case ctx.Session.State() == gortsplib.ServerSessionStatePreRecord:
		return &base.Response{StatusCode: base.StatusOK}, nil, nil
	case s.stream == nil:
		return &base.Response{StatusCode: base.StatusNotFound}, nil, nil
	}
	return &base.Response{StatusCode: base.StatusOK}, s.stream, nil
}

func (s *rtspSender) OnPlay(*gortsplib.ServerHandlerOnPlayCtx) (*base.Response, error) {
	return &base.Response{StatusCode: base.StatusOK}, nil
}

func (s *rtspSender) OnRecord(ctx *gortsplib.ServerHandlerOnRecordCtx) (*base.Response, error) {
	s.mu.Lock()
	stream := s.stream
	s.mu.Unlock()
	ctx.Session.OnPacketRTPAny(func(m *description.Media, _ format.Format, pkt *rtp.Packet) {
		stream.WritePacketRTP(m, pkt) // a reader that has gone is not the publisher's concern
	})
	return &base.Response{StatusCode: base.StatusOK}, nil
}

func (s *rtspSender) OnSessionClose(ctx *gortsplib.ServerHandlerOnSessionCloseCtx) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stream != nil && ctx.Session == s.publisher {
		s.stream.Close()
		s.stream = nil
	}
}

func (s *rtspSender) up(t *testing.T) {
	t.Helper()
	s.gone.Store(false)
	if s.server == nil {
		s.server = &gortsplib.Server{Handler: s, RTSPAddress: s.addr}
		if err := s.server.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.server.Close)
	}
	s.ffmpegSender.up(t)
}

func (s *rtspSender) down() {
	s.gone.Store(true)
	s.ffmpegSender.down()
}

// freeUDP is a UDP port of this machine that nobody hears on.
func freeUDP(t *testing.T) int {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port
}
