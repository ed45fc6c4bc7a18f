package ingest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	srt "github.com/datarhei/gosrt"
	"github.com/datarhei/gosrt/packet"

	"github.com/twindvr/twindvr/pkg/clock"
)

const (
	// srtHandOver is the longest that delivered packets wait for more of them.
	srtHandOver = 40 * time.Millisecond
	// srtSilent is for how long the caller that is there must have said
	// nothing for another one to take its place.
	srtSilent = 1500 * time.Millisecond
	// srtTellAgain is how often a refused call is logged.
	srtTellAgain = time.Minute
	// srtJudged is how many calls are considered in one turn, 20 ms.
	srtJudged = 4
	// srtTold bounds what is remembered of refused calls.
	srtTold = 64
)

// openSRT opens srt://HOST:PORT[?OPTIONS], calling or listening.
//
// It is the receiving half of SRT (draft-sharabayko-srt), written for a
// recorder: what is in order is delivered at once, whatever the latency, and
// that a packet is given up is told at its place. Wire format of handshakes
// and the cipher are the library's. Its connections are not used: they keep
// time by the sender's clock without following its drift, throw away what is
// buffered when the sender says goodbye, cannot be cancelled while they dial,
// leave a goroutine behind by each call that fails, and let a stranger's
// 65-byte datagram panic a listener.
func openSRT(ctx context.Context, rest string, opt Options) (Source, error) {
	fail := func(err error) (Source, error) { return nil, &URLError{"srt:" + rest, err} }
	u, err := parseSRT(rest, opt)
	if err != nil {
		return fail(err)
	}
	if !u.listen {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, u.timeout, errSRTSilent)
		defer cancel()
	}
	addr, err := u.resolve(ctx)
	if err != nil {
		return fail(err)
	}
	sock, err := openSRTSocket(u, addr, opt.Log)
	if err != nil {
		return fail(err)
	}
	s := newSRTSource(u, "srt:"+rest, sock, opt)
	if !u.listen {
		if err := s.call(ctx, addr); err != nil {
			sock.close()
			return fail(err)
		}
	}
	go s.run()
	return s, nil
}

// resolve finds the address to bind or to call.
func (u *srtURL) resolve(ctx context.Context) (netip.AddrPort, error) {
	if u.host == "" {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), u.port), nil
	}
	if addr, err := netip.ParseAddr(u.host); err == nil {
		return netip.AddrPortFrom(addr.Unmap(), u.port), nil
	}
	addrs, err := lookupSystem(ctx, u.host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	best := addrs[0].Unmap()
	for _, a := range addrs { // IPv4 first, as encoders mostly are
		if a.Unmap().Is4() {
			best = a.Unmap()
			break
		}
	}
	return netip.AddrPortFrom(best, u.port), nil
}

// srtSource is an SRT receiver. One goroutine owns the socket and the
// connection; Read takes what it has put into the queue.
type srtSource struct {
	url   *srtURL
	name  string // for the log and errors: without secrets
	clock clock.Clock
	log   *slog.Logger

	sock    *srtSocket
	caller  *srtCaller // while calling
	callee  *srtCallee // a listener's
	id      uint32     // of this end's socket
	conn    *srtConn
	peer    *srtPeer // of conn, nil for a caller
	accept  []byte   // a listener's answer that made conn
	out     srtOut
	handed  time.Time
	calls   int                  // connections so far
	judged  int                  // calls considered in this turn
	told    map[string]time.Time // refused calls, by what was logged of them
	broken  error                // why the call has failed
	garbled error                // an answer to the call that could not be read

	stop, done chan struct{}
	closed     bool

	st  srtStats
	cur *srtChunk // held by Read's batch
	arr [][]byte
	b   Batch
}

func newSRTSource(u *srtURL, name string, sock *srtSocket, opt Options) *srtSource {
	s := &srtSource{url: u, name: Redact(name), clock: opt.Clock, log: opt.Log, sock: sock, id: randomSRT(),
		told: map[string]time.Time{}, stop: make(chan struct{}), done: make(chan struct{})}
	s.out.queue.wake = make(chan struct{}, 1)
	s.out.chunk, s.out.clock = new(srtChunk), opt.Clock
	if u.listen {
		s.callee = newSRTCallee(u)
	} else {
		s.caller = newSRTCaller(u)
		s.id = s.caller.id
	}
	return s
}

// errSRTSilent is a call that nobody has answered.
var errSRTSilent = errors.New("no answer")

// call makes the call that a caller's source is opened with.
func (s *srtSource) call(ctx context.Context, addr netip.AddrPort) error {
	timer := newStoppedTimer()
	for s.conn == nil {
		if p := s.caller.due(time.Now()); p != nil {
			s.sock.send(p, nil)
		}
		if err := s.take(); err == unix.ECONNREFUSED {
			return fmt.Errorf("nothing listens on UDP port %d of %s", addr.Port(), addr.Addr())
		} else if err != nil {
			return err
		}
		switch {
		case s.conn != nil:
			return nil
		case s.broken != nil:
			return s.broken
		}
		timer.Reset(srtTick / 2)
		select {
		case <-timer.C:
		case <-ctx.Done():
			if s.garbled != nil {
				return s.garbled
			}
			if context.Cause(ctx) == errSRTSilent && s.caller.asked {
				return fmt.Errorf("%s has answered, and does not finish the handshake within %v", addr, s.url.timeout)
			}
			if context.Cause(ctx) == errSRTSilent {
				return fmt.Errorf("no answer from %s within %v: is the sender there, listening, and UDP port %d open?", addr, s.url.timeout, addr.Port())
			}
			return ctx.Err()
		}
	}
	return nil
}

func newStoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

// run serves the socket until Close, or until a caller's connection has ended.
func (s *srtSource) run() {
	defer close(s.done)
	timer := newStoppedTimer()
	var err error
	for err == nil {
		nap := s.nap()
		timer.Reset(nap - time.Since(napEpoch)%nap)
		select {
		case <-s.stop:
			err = fmt.Errorf("source %q is closed", s.name)
		case <-timer.C:
			err = s.turn()
		}
	}
	if s.conn != nil {
		if s.conn.over == nil {
			s.conn.shutdown()
		}
		s.conn.buf.flush()
	}
	s.out.hand(s.clock.Now())
	s.out.queue.end(err)
	s.sock.close()
}

// nap is how long the socket is left alone.
func (s *srtSource) nap() time.Duration {
	if s.conn == nil {
		return 2 * srtTick
	}
	return min(srtTick, max(s.url.latency/8, time.Millisecond))
}

// turn takes what has come and does what is due. An error ends the source.
func (s *srtSource) turn() error {
	s.judged = 0
	err := s.take()
	switch {
	case err == unix.ECONNREFUSED:
		if s.conn != nil {
			s.conn.refused = true
		}
	case err != nil:
		return fmt.Errorf("receiving from %q: %w", s.name, err)
	}
	if s.conn == nil {
		return nil
	}
	s.conn.tick(s.conn.now())
	if s.conn.over != nil {
		return s.hangUp()
	}
	if now := s.clock.Now(); s.out.full() || now.Sub(s.handed).Abs() >= srtHandOver {
		s.handed = now
		s.out.hand(now)
	}
	return nil
}

// hangUp takes the end of the connection: a listener waits for the next call.
func (s *srtSource) hangUp() error {
	err := s.conn.over
	s.conn.buf.flush()
	s.out.hand(s.clock.Now())
	s.conn, s.accept = nil, nil
	switch {
	case s.url.listen && err == io.EOF:
		s.log.Info("srt caller has gone, waiting for the next call", "source", s.name, "caller", s.peer.addr().String())
	case s.url.listen:
		s.log.Warn("srt caller is lost, waiting for the next call", "source", s.name, "caller", s.peer.addr().String(), "reason", err)
	case err != io.EOF:
		return fmt.Errorf("source %q: %w", s.name, err)
	default:
		return io.EOF
	}
	s.peer = nil
	return nil
}

// take takes what the kernel holds.
func (s *srtSource) take() error {
	for range 32 { // then do what is due
		n, err := s.sock.receive()
		if err != nil {
			return err
		}
		for i := range n {
			if p := s.sock.datagram(i); len(p) >= srtHeader {
				s.packet(p, i)
			}
			s.sock.prepare(i)
		}
		if s.out.full() {
			s.handed = s.clock.Now()
			s.out.hand(s.handed)
		}
		if n < srtSlots {
			return nil
		}
	}
	return nil
}

// packet takes datagram i, whose bytes are p.
func (s *srtSource) packet(p []byte, i int) {
	to := binary.BigEndian.Uint32(p[12:])
	const handshake = 1<<31 | uint32(packet.CTRLTYPE_HANDSHAKE)<<16
	switch {
	case binary.BigEndian.Uint32(p)&0xffff0000 == handshake:
		s.handshake(p, i)
	case s.conn != nil && to == s.id && (s.peer == nil || s.sock.from(i, s.peer)):
		s.conn.receive(p, s.conn.now())
	}
}

// handshake takes a handshake packet.
func (s *srtSource) handshake(p []byte, i int) {
	h, err := parseSRTHandshake(p[srtHeader:])
	if err != nil {
		s.st.errors.Add(1)
		if s.caller != nil {
			s.garbled = fmt.Errorf("the listener's answer makes no sense (%w); do both ends have a passphrase?", err)
		}
		return
	}
	if s.url.listen {
		s.called(h, s.sock.peer(i))
		return
	}
	if s.conn != nil || s.broken != nil {
		return
	}
	deal, err := s.caller.answer(h)
	if err != nil {
		s.broken = err
		return
	}
	if deal != nil {
		s.connect(deal, nil)
	}
}

// called answers a call.
func (s *srtSource) called(h *packet.CIFHandshake, from srtPeer) {
	now, addr := time.Now(), from.addr()
	switch h.HandshakeType {
	case packet.HSTYPE_INDUCTION:
		to := h.SRTSocketId
		s.callee.induct(h, addr, now)
		s.sock.send(srtHandshake(h, to, 0), &from)
		return
	case packet.HSTYPE_CONCLUSION:
	default:
		return
	}
	if !s.callee.known(h, addr, now) {
		return
	}
	if s.conn != nil {
		same := s.peer.name == from.name
		if same && s.conn.peer == h.SRTSocketId {
			s.sock.send(s.accept, &from) // the answer was lost
			return
		}
		if quiet := s.conn.now() - s.conn.heard; quiet < srtSilent {
			s.refuse(h, &from, &srtNo{srt.REJ_BACKLOG, "another caller is there: " + s.peer.addr().String()})
			return
		}
		s.conn.over = errors.New("it has said nothing, and another one calls")
		s.hangUp()
	}
	if s.judged++; s.judged > srtJudged {
		return // to open a key takes a millisecond; a caller asks again
	}
	id := randomSRT()
	peer := h.SRTSocketId
	deal, err := s.callee.judge(h, id)
	if err != nil {
		s.refuse(h, &from, err)
		return
	}
	s.id = id
	s.accept = srtHandshake(h, peer, 0)
	s.sock.send(s.accept, &from)
	s.connect(deal, &from)
	s.log.Info("srt caller is there", "source", s.name, "caller", addr.String(), "streamid", redactStreamID(h.StreamId),
		"encrypted", deal.keys != nil, "latency", deal.latency)
}

// refuse answers a call that is not taken, and says so now and then.
func (s *srtSource) refuse(h *packet.CIFHandshake, from *srtPeer, err error) {
	no := &srtNo{code: srt.REJ_ROGUE}
	errors.As(err, &no)
	to := h.SRTSocketId
	h.HandshakeType, h.SynCookie = packet.HandshakeType(no.code), 0
	h.HasHS, h.HasKM, h.HasSID, h.HasCongestionCtl = false, false, false, false
	s.sock.send(srtHandshake(h, to, 0), from)
	s.st.errors.Add(1)
	addr := from.addr()
	key, now := addr.Addr().String()+" "+err.Error(), time.Now()
	if now.Sub(s.told[key]) < srtTellAgain {
		return
	}
	if len(s.told) >= srtTold {
		clear(s.told)
	}
	s.told[key] = now
	s.log.Warn("srt caller refused", "source", s.name, "caller", addr.String(), "reason", err)
}

// connect begins a connection. Behind one before it, something is missing.
func (s *srtSource) connect(deal *srtDeal, peer *srtPeer) {
	if s.calls++; s.calls > 1 {
		s.st.reconnects.Add(1)
		s.out.mark(1)
	}
	s.peer = peer
	s.conn = newSRTConn(deal.peer, deal.first, deal.latency, deal.keys, &s.out, &s.st,
		func(p []byte) { s.sock.send(p, peer) })
}

// Read implements Source. A batch ends where something is missing, so that
// Lost tells the exact place. Where a listener's caller has come back, the
// first batch counts one more lost: what it has sent meanwhile is not known.
func (s *srtSource) Read(ctx context.Context) (*Batch, error) {
	s.out.queue.recycle(s.cur)
	s.cur = nil
	if s.closed {
		return nil, fmt.Errorf("source %q is closed", s.name)
	}
	c, err := s.out.queue.take(ctx)
	if err != nil {
		return nil, err
	}
	s.cur = c
	s.arr = s.arr[:0]
	begin := 0
	for _, end := range c.ends {
		s.arr = append(s.arr, c.data[begin:end:end])
		begin = end
	}
	s.b = Batch{Datagrams: s.arr, Lost: c.lost, Arrived: c.at}
	return &s.b, nil
}

// Close implements Source. It tells the peer, and returns when the port is
// free.
func (s *srtSource) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	close(s.stop)
	<-s.done
	return nil
}

// Stats implements Source.
func (s *srtSource) Stats() Stats {
	return Stats{Packets: s.out.packets.Load(), Bytes: s.out.bytes.Load(), Lost: s.out.lost.Load(),
		Reordered: s.st.reordered.Load(), Duplicates: s.st.duplicates.Load(), Recovered: s.st.recovered.Load(),
		Errors: s.st.errors.Load(), Reconnects: s.st.reconnects.Load(), LastArrival: timeOf(s.out.last.Load())}
}
