package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/bluenviron/gortsplib/v5"
	"github.com/bluenviron/gortsplib/v5/pkg/base"
	"github.com/bluenviron/gortsplib/v5/pkg/liberrors"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"golang.org/x/sys/unix"
)

const (
	// rtspTimeout is how long an answer of the camera, or its packets, may be
	// waited for.
	rtspTimeout = 10 * time.Second
	// rtspQueued is how many bytes may wait to be read; beyond, what comes is
	// dropped and told as lost.
	rtspQueued = 64 << 20
	// rtspBuffer is the buffer asked for of each socket, bytes.
	rtspBuffer = 4 << 20
)

// rtspSource plays a session of a camera. The library's goroutines take the
// packets apart as they come; Read hands out what has gathered.
type rtspSource struct {
	addr   *rtspAddr
	opt    Options
	client *gortsplib.Client
	ended  chan struct{} // closed when the session is over
	wake   chan struct{}

	mu      sync.Mutex
	session *rtspSession
	queue   []*Batch
	bytes   int // in queue
	dropped bool
	stats   Stats
	err     error // why the session is over
}

// openRTSP implements scheme.open.
func openRTSP(name string) func(context.Context, string, Options) (Source, error) {
	return func(ctx context.Context, rest string, opt Options) (Source, error) {
		addr, err := parseRTSP(name, rest)
		if err != nil {
			return nil, rtspError(name, rest, err)
		}
		s := &rtspSource{addr: addr, opt: opt, ended: make(chan struct{}), wake: make(chan struct{}, 1)}
		if err := s.play(ctx); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, fmt.Errorf("source %s: %w", Redact(name+":"+rest), rtspExplain(err))
		}
		return s, nil
	}
}

// play sets a session up and starts it. The context bounds it.
func (s *rtspSource) play(ctx context.Context) error {
	s.client = s.newClient()
	if err := s.client.Start(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, s.client.Close)
	err := s.setup()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		s.client.Close()
		return err
	}
	go func() {
		defer close(s.ended)
		err := s.client.Wait()
		s.guard(s.session.end)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.err == nil {
			s.err = err
		}
	}()
	return nil
}

// guard has the session do something, under the lock. The bytes are a
// stranger's, and the goroutine is the library's: a panic over them ends the
// session with an error, not the process, which has other streams.
func (s *rtspSource) guard(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	defer func() {
		if p := recover(); p != nil {
			s.err = fmt.Errorf("a packet of the camera cannot be dealt with, which is a fault of this program; please report it: %v", p)
			s.opt.Log.Error("a panic over a packet of the camera", "source", Redact(s.addr.url.String()), "panic", p, "stack", string(debug.Stack()))
			go s.client.Close() // which waits for its caller
		}
	}()
	do()
}

func (s *rtspSource) newClient() *gortsplib.Client {
	return &gortsplib.Client{
		Scheme: s.addr.url.Scheme, Host: s.addr.url.Host, Protocol: s.addr.protocol, TLSConfig: s.addr.tls(),
		ReadTimeout: rtspTimeout, WriteTimeout: rtspTimeout, UserAgent: "twindvr",
		// Cameras behind a translator send from ports other than they said.
		AnyPortEnable: true,
		ListenPacket:  listenRTP,
		OnTransportSwitch: func(err error) {
			s.opt.Log.Info("the camera is asked for its packets in another way", "source", Redact(s.addr.url.String()), "reason", err)
		},
		OnPacketsLost: func(uint64) {}, // each track counts its own
		OnDecodeError: func(error) {
			s.mu.Lock()
			s.stats.Errors++
			s.mu.Unlock()
		},
	}
}

// listenRTP opens a socket with a buffer that holds a burst of packets, as far
// as the system lets it.
func listenRTP(network, address string) (net.PacketConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, rtspBuffer) != nil {
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, rtspBuffer)
			}
		})
	}}
	return lc.ListenPacket(context.Background(), network, address)
}

// setup asks what there is, sets up what of it is recorded, and plays it.
func (s *rtspSource) setup() error {
	desc, _, err := s.client.Describe(s.addr.url)
	if err != nil {
		return err
	}
	program, media, left, err := rtspProgram(desc)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		s.opt.Log.Info("the camera offers what is not recorded", "source", Redact(s.addr.url.String()), "media", strings.Join(left, ", "))
	}
	s.session = newRTSPSession(s, program, media)
	for _, m := range media {
		if _, err := s.client.Setup(desc.BaseURL, m.media, 0, 0); err != nil {
			return err
		}
	}
	s.listen(media)
	_, err = s.client.Play(nil)
	return err
}

// listen hands the packets of the media to the session.
func (s *rtspSource) listen(media []*rtspMedia) {
	for k, m := range media {
		s.client.OnPacketRTP(m.media, m.format, func(pkt *rtp.Packet) {
			now := s.opt.Clock.Now()
			s.guard(func() {
				s.stats.Packets++
				s.stats.Bytes += uint64(len(pkt.Payload))
				s.stats.LastArrival = now
				s.session.packet(k, pkt, now)
			})
		})
		s.client.OnPacketRTCP(m.media, func(pkt rtcp.Packet) {
			if sr, ok := pkt.(*rtcp.SenderReport); ok {
				s.guard(func() { s.session.report(k, sr) })
			}
		})
	}
}

// put appends to what is to be read: next is asked for the batch to add to.
func (s *rtspSource) put(arrived time.Time, size int, fresh bool) *Batch {
	if s.bytes > rtspQueued {
		s.dropped = true
		return nil
	}
	s.bytes += size
	n := len(s.queue)
	if fresh || s.dropped || n == 0 || arrived.Sub(s.queue[n-1].Arrived) > 100*time.Millisecond {
		s.queue = append(s.queue, &Batch{Arrived: arrived, LostUnits: s.dropped})
		s.dropped = false
		n++
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return s.queue[n-1]
}

// Read implements Source.
func (s *rtspSource) Read(ctx context.Context) (*Batch, error) {
	for {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if b := s.take(); b != nil {
			return b, nil
		}
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-s.ended:
			if b := s.take(); b != nil {
				return b, nil
			}
			return nil, s.lost()
		}
	}
}

// take returns the next batch, or nil.
func (s *rtspSource) take() *Batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return nil
	}
	b := s.queue[0]
	s.queue[0] = nil
	s.queue = s.queue[1:]
	for k := range b.Units {
		s.bytes -= len(b.Units[k].Data)
	}
	for _, d := range b.Datagrams {
		s.bytes -= len(d)
	}
	return b
}

// lost says why the session is over.
func (s *rtspSource) lost() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil || errors.Is(s.err, io.EOF) {
		return errors.New("the camera has closed the connection")
	}
	return rtspExplain(s.err)
}

// Close implements Source.
func (s *rtspSource) Close() error {
	s.client.Close()
	<-s.ended
	return nil
}

// Stats implements Source.
func (s *rtspSource) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// rtspExplain adds to an error what to do about it.
func rtspExplain(err error) error {
	var status liberrors.ErrClientBadStatusCode
	if errors.As(err, &status) {
		switch status.Code {
		case base.StatusUnauthorized:
			return errors.New("the camera wants a user and a password, or others than it was given; write rtsp://USER:PASSWORD@HOST/PATH, special characters as %XX")
		case base.StatusNotFound:
			return errors.New("the camera has no stream of this path (404)")
		case base.StatusUnsupportedTransport:
			return errors.New("the camera does not send in this way; try another transport=, one of tcp, udp and multicast")
		}
	}
	var unspecific interface{ Timeout() bool }
	if errors.As(err, &unspecific) && unspecific.Timeout() {
		return fmt.Errorf("the camera does not answer: %w", err)
	}
	return err
}
