package ingest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/datarhei/gosrt/crypto"
	"github.com/datarhei/gosrt/packet"
)

const (
	srtHeader = 16 // bytes
	// srtTick is how often a connection acknowledges (draft-sharabayko-srt
	// 4.8.1), and how long the socket is left alone.
	srtTick = 10 * time.Millisecond
	// srtIdle is how long a peer may say nothing: it sends a keep-alive each
	// second.
	srtIdle = 5 * time.Second
	// srtGone is how long a peer says nothing whose port is closed.
	srtGone = 500 * time.Millisecond
	// srtNAKWords bounds a loss report to a datagram.
	srtNAKWords = 360
)

// srtConn is the receiving end of one connection, without its socket: packets
// go in by receive, time by tick, and come out in order through buf.out.
type srtConn struct {
	peer    uint32 // the other end's socket
	latency time.Duration
	keys    *srtKeys // nil: not encrypted
	buf     srtBuffer
	send    func(p []byte)
	st      *srtStats

	began       time.Time
	heard, sent time.Duration
	refused     bool  // the peer's port is closed, since heard
	over        error // why the connection has ended; io.EOF: the peer has ended it

	acks struct {
		number uint32        // of the last acknowledgement
		seq    uint32        // what it acknowledged
		at     [64]srtAck    // when the last ones were sent, for the round trip
		last   time.Duration // when the last one was sent
		done   bool          // the peer has it
	}
	rtt, rttVar time.Duration // 0: not measured

	rate struct {
		since          time.Duration
		packets, bytes uint32
		pps, bps       uint32 // of the last second
	}
}

type srtAck struct {
	number uint32
	at     time.Duration
}

// srtStats are the counters of a source's connections beyond srtOut's.
type srtStats struct {
	recovered, reordered, duplicates, errors, reconnects atomic.Uint64
}

// newSRTConn begins a connection whose peer's first packet is first.
func newSRTConn(peer, first uint32, latency time.Duration, keys *srtKeys, out *srtOut, st *srtStats, send func([]byte)) *srtConn {
	c := &srtConn{peer: peer, latency: latency, keys: keys, buf: newSRTBuffer(first, out), send: send, st: st, began: time.Now()}
	c.acks.seq, c.acks.done = first, true
	return c
}

// now is the connection's time.
func (c *srtConn) now() time.Duration { return time.Since(c.began) }

// receive takes a packet of the peer's: at least a header.
func (c *srtConn) receive(p []byte, now time.Duration) {
	if c.over != nil {
		return
	}
	c.heard, c.refused = now, false
	head := binary.BigEndian.Uint32(p)
	if head>>31 == 0 {
		c.data(p, now)
		return
	}
	body, info := p[srtHeader:], binary.BigEndian.Uint32(p[4:])
	switch kind := packet.CtrlType(head >> 16 & 0x7fff); {
	case kind == packet.CTRLTYPE_SHUTDOWN:
		c.over = io.EOF
	case kind == packet.CTRLTYPE_ACKACK:
		c.ackAck(info, now)
	case kind == packet.CRTLTYPE_DROPREQ && len(body) >= 8:
		c.buf.drop(binary.BigEndian.Uint32(body)&srtSeqMask, binary.BigEndian.Uint32(body[4:])&srtSeqMask, c.latency)
	case kind == packet.CTRLTYPE_USER && packet.CtrlSubType(head) == packet.EXTTYPE_KMREQ:
		c.newKeys(body, now)
	}
}

// data takes a data packet (draft-sharabayko-srt 3.1).
func (c *srtConn) data(p []byte, now time.Duration) {
	seq, flags := binary.BigEndian.Uint32(p), p[4]
	if binary.BigEndian.Uint32(p[4:])&(1<<26-1) == 0 {
		return // a packet of a filter (forward error correction) that was not agreed on
	}
	payload, key := p[srtHeader:], packet.PacketEncryption(flags>>3&3)
	c.rate.packets++
	c.rate.bytes += uint32(len(payload))
	// What is there already need not be read again.
	if seqDiff(seq, c.buf.next) >= 0 && !c.keys.decrypt(payload, key, seq) {
		c.st.errors.Add(1) // it is asked for again, until the key has come or it is too late
		return
	}
	again := flags&(1<<2) != 0
	switch c.buf.put(seq, payload, now) {
	case srtOld:
		c.st.duplicates.Add(1)
	case srtFilled:
		if again {
			c.st.recovered.Add(1)
		} else {
			c.st.reordered.Add(1)
		}
	}
}

// ackAck measures the round trip (draft-sharabayko-srt 4.10).
func (c *srtConn) ackAck(number uint32, now time.Duration) {
	a := &c.acks.at[number%uint32(len(c.acks.at))]
	if a.number != number || number == 0 {
		return
	}
	rtt := now - a.at
	a.number = 0
	if number == c.acks.number {
		c.acks.done = true
	}
	if c.rtt == 0 {
		c.rtt, c.rttVar = rtt, rtt/2
		return
	}
	c.rttVar = (3*c.rttVar + (c.rtt - rtt).Abs()) / 4
	c.rtt = (7*c.rtt + rtt) / 8
}

// newKeys takes the keys that the sender will change to, and says so.
func (c *srtConn) newKeys(body []byte, now time.Duration) {
	var km packet.CIFKeyMaterialExtension
	if c.keys == nil || km.Unmarshal(body) != nil || c.keys.learn(&km) != nil {
		c.st.errors.Add(1)
		return
	}
	c.control(packet.CTRLTYPE_USER, packet.EXTTYPE_KMRSP, 0, body, now)
}

// tick does what is due: gives up what is too late, acknowledges, asks for what
// is missing, keeps the connection alive, ends it when the peer is gone.
func (c *srtConn) tick(now time.Duration) {
	switch {
	case c.over != nil:
		return
	case now-c.heard > srtIdle:
		c.over = fmt.Errorf("the connection is lost: nothing has come for %v", srtIdle)
		return
	case c.refused && now-c.heard > srtGone:
		c.over = errors.New("the connection is lost: the other end's port is closed")
		return
	}
	c.buf.expire(now, c.latency)
	c.measure(now)
	c.acknowledge(now)
	c.askAgain(now)
	if now-c.sent >= time.Second {
		c.control(packet.CTRLTYPE_KEEPALIVE, 0, 0, make([]byte, 4), now)
	}
}

// measure notes the rates once a second.
func (c *srtConn) measure(now time.Duration) {
	r := &c.rate
	if d := now - r.since; d >= time.Second {
		r.pps = uint32(float64(r.packets) / d.Seconds())
		r.bps = uint32(float64(r.bytes) / d.Seconds())
		r.since, r.packets, r.bytes = now, 0, 0
	}
}

// acknowledge says up to where everything is there or given up (3.2.4).
func (c *srtConn) acknowledge(now time.Duration) {
	a := &c.acks
	rtt, rttVar := c.trip()
	if a.seq == c.buf.next && (a.done || now-a.last < rtt+4*rttVar) {
		return
	}
	a.number++
	a.seq, a.done, a.last = c.buf.next, false, now
	a.at[a.number%uint32(len(a.at))] = srtAck{a.number, now}
	room := max(2, srtWindow-seqDiff(c.buf.end, c.buf.next))
	var body [28]byte
	for i, v := range []uint32{c.buf.next, uint32(rtt.Microseconds()), uint32(rttVar.Microseconds()),
		uint32(room), c.rate.pps, c.rate.pps, c.rate.bps} {
		binary.BigEndian.PutUint32(body[4*i:], v)
	}
	c.control(packet.CTRLTYPE_ACK, 0, a.number, body[:], now)
}

// askAgain reports what is missing (3.2.5 and appendix A): at once, and again
// when an answer should have come.
func (c *srtConn) askAgain(now time.Duration) {
	rtt, rttVar := c.trip()
	again := min(max(rtt+4*rttVar, 2*srtTick), 300*time.Millisecond)
	var list []byte
	c.buf.wanted(now, again, func(first, last uint32) {
		if len(list) >= 4*srtNAKWords {
			c.control(packet.CTRLTYPE_NAK, 0, 0, list, now)
			list = list[:0]
		}
		if first != last {
			list = binary.BigEndian.AppendUint32(list, first|1<<31)
		}
		list = binary.BigEndian.AppendUint32(list, last)
	})
	if len(list) > 0 {
		c.control(packet.CTRLTYPE_NAK, 0, 0, list, now)
	}
}

// trip is the round trip, as far as it is known.
func (c *srtConn) trip() (rtt, variance time.Duration) {
	if c.rtt == 0 {
		return 100 * time.Millisecond, 50 * time.Millisecond
	}
	return c.rtt, c.rttVar
}

// shutdown tells the peer that this end is leaving (3.2.7).
func (c *srtConn) shutdown() {
	c.control(packet.CTRLTYPE_SHUTDOWN, 0, 0, make([]byte, 4), c.now())
}

// control sends a control packet (3.2).
func (c *srtConn) control(kind packet.CtrlType, sub packet.CtrlSubType, info uint32, body []byte, now time.Duration) {
	p := make([]byte, srtHeader, srtHeader+len(body))
	binary.BigEndian.PutUint16(p, 1<<15|uint16(kind))
	binary.BigEndian.PutUint16(p[2:], uint16(sub))
	binary.BigEndian.PutUint32(p[4:], info)
	binary.BigEndian.PutUint32(p[8:], uint32(now.Microseconds()))
	binary.BigEndian.PutUint32(p[12:], c.peer)
	c.sent = now
	c.send(append(p, body...))
}

// srtKeys are the keys of a connection. A nil *srtKeys is that of one that is
// not encrypted.
type srtKeys struct {
	passphrase string
	length     int // bytes of a key
	crypto     crypto.Crypto
	known      packet.PacketEncryption // which of the even and the odd key are there
}

// newSRTKeys makes keys of their own.
func newSRTKeys(passphrase string, length int) (*srtKeys, error) {
	c, err := crypto.New(length)
	if err != nil {
		return nil, err
	}
	return &srtKeys{passphrase: passphrase, length: length, crypto: c}, nil
}

// offer returns the even key, wrapped for the peer, which is used from now on.
func (k *srtKeys) offer() (*packet.CIFKeyMaterialExtension, error) {
	km := new(packet.CIFKeyMaterialExtension)
	if err := k.crypto.MarshalKM(km, k.passphrase, packet.EvenKeyEncrypted); err != nil {
		return nil, err
	}
	k.known |= packet.EvenKeyEncrypted
	return km, nil
}

// errSRTSecret is a passphrase that does not open a key.
var errSRTSecret = errors.New("the passphrases differ")

// learn unwraps the peer's keys. A message that the passphrase does not open
// changes nothing.
func (k *srtKeys) learn(km *packet.CIFKeyMaterialExtension) error {
	if int(km.KLen) != k.length || km.KeyBasedEncryption == 0 || km.Cipher != 2 {
		return fmt.Errorf("a key of %d bytes and cipher %d; this connection has AES-CTR and %d bytes", km.KLen, km.Cipher, k.length)
	}
	trial, err := crypto.New(k.length)
	if err != nil {
		return err
	}
	if trial.UnmarshalKM(km, k.passphrase) != nil {
		return errSRTSecret
	}
	if err := k.crypto.UnmarshalKM(km, k.passphrase); err != nil {
		return err
	}
	k.known |= km.KeyBasedEncryption
	return nil
}

// decrypt decrypts a payload in place, and is false where that cannot be done.
func (k *srtKeys) decrypt(payload []byte, key packet.PacketEncryption, seq uint32) bool {
	if k == nil || key == packet.UnencryptedPacket {
		return k == nil && key == packet.UnencryptedPacket
	}
	return key != packet.EvenAndOddKey && k.known&key != 0 && k.crypto.EncryptOrDecryptPayload(payload, key, seq) == nil
}
