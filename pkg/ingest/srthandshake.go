package ingest

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	srt "github.com/datarhei/gosrt"
	"github.com/datarhei/gosrt/circular"
	"github.com/datarhei/gosrt/packet"
)

const (
	srtMagic   = 0x4a17   // of a listener's induction answer
	srtVersion = 0x010501 // the libsrt whose behaviour this is like
	srtMTU     = 1500
	// srtRepeat is how often a handshake is sent until it is answered.
	srtRepeat = 250 * time.Millisecond
)

// srtFlags are the features of live transmission.
var srtFlags = packet.CIFHandshakeExtensionFlags{TSBPDSND: true, TSBPDRCV: true, CRYPT: true,
	TLPKTDROP: true, PERIODICNAK: true, REXMITFLG: true}

// parseSRTHandshake reads the body of a handshake (draft-sharabayko-srt 3.2.1).
// The library's reader is used for what has no extension: given a broken one it
// reads beyond its end.
func parseSRTHandshake(body []byte) (*packet.CIFHandshake, error) {
	const fixed = 48
	if len(body) < fixed {
		return nil, errors.New("a handshake cut short")
	}
	h := new(packet.CIFHandshake)
	if err := h.Unmarshal(body[:fixed]); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	if h.HandshakeType != packet.HSTYPE_CONCLUSION {
		return h, nil
	}
	for rest := body[fixed:]; len(rest) >= 4; {
		kind, n := packet.CtrlSubType(binary.BigEndian.Uint16(rest)), int(binary.BigEndian.Uint16(rest[2:]))*4
		if n > len(rest)-4 {
			return nil, errors.New("a handshake with an extension cut short")
		}
		if err := parseSRTExtension(h, kind, rest[4:4+n]); err != nil {
			return nil, err
		}
		rest = rest[4+n:]
	}
	return h, nil
}

func parseSRTExtension(h *packet.CIFHandshake, kind packet.CtrlSubType, p []byte) (err error) {
	switch kind {
	case packet.EXTTYPE_HSREQ, packet.EXTTYPE_HSRSP:
		h.HasHS, h.SRTHS = true, new(packet.CIFHandshakeExtension)
		err = h.SRTHS.Unmarshal(p)
	case packet.EXTTYPE_KMREQ, packet.EXTTYPE_KMRSP:
		h.HasKM, h.SRTKM = true, new(packet.CIFKeyMaterialExtension)
		err = h.SRTKM.Unmarshal(p)
	case packet.EXTTYPE_SID:
		if len(p) > srt.MAX_STREAMID_SIZE {
			return fmt.Errorf("a handshake with a stream identifier of %d bytes", len(p))
		}
		h.HasSID, h.StreamId = true, srtText(p)
	case packet.EXTTYPE_CONGESTION:
		h.HasCongestionCtl, h.CongestionCtl = true, srtText(p)
	}
	if err != nil {
		err = fmt.Errorf("handshake extension %d: %w", kind, err)
	}
	return err
}

// srtText reads a string, whose every word is turned round (3.2.1.3).
func srtText(p []byte) string {
	b := make([]byte, len(p))
	for i := 0; i+4 <= len(p); i += 4 {
		binary.BigEndian.PutUint32(b[i:], binary.LittleEndian.Uint32(p[i:]))
	}
	return string(bytes.TrimRight(b, "\x00"))
}

// srtHandshake builds a handshake packet.
func srtHandshake(h *packet.CIFHandshake, to uint32, elapsed time.Duration) []byte {
	var b bytes.Buffer
	head := make([]byte, srtHeader)
	binary.BigEndian.PutUint16(head, 1<<15|uint16(packet.CTRLTYPE_HANDSHAKE))
	binary.BigEndian.PutUint32(head[8:], uint32(elapsed.Microseconds()))
	binary.BigEndian.PutUint32(head[12:], to)
	b.Write(head)
	h.Marshal(&b) // writes to memory
	return b.Bytes()
}

// randomSRT returns a random number of up to 30 bits, not 0.
func randomSRT() uint32 {
	var b [4]byte
	rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint32(b[:])>>2 | 1
}

// srtRefusals are the reasons that a listener may give (3.2.1, table 7, and
// libsrt's access_control.h), as the operator should hear them.
var srtRefusals = map[packet.HandshakeType]string{
	packet.HandshakeType(srt.REJ_PEER):          "the listener does not want this caller; does it expect a streamid=, or another one?",
	packet.HandshakeType(srt.REJ_RESOURCE):      "the listener is out of resources",
	packet.HandshakeType(srt.REJ_BACKLOG):       "the listener is busy with another receiver",
	packet.HandshakeType(srt.REJ_CLOSE):         "the listener is closing",
	packet.HandshakeType(srt.REJ_VERSION):       "the listener speaks another version of SRT",
	packet.HandshakeType(srt.REJ_BADSECRET):     "wrong passphrase: check passphrase= against the sender's",
	packet.HandshakeType(srt.REJ_MESSAGEAPI):    "the listener does not send live (transtype=live)",
	packet.HandshakeType(srt.REJ_CONGESTION):    "the listener does not send live (congestion control)",
	packet.HandshakeType(srt.REJ_FILTER):        "the listener insists on a packet filter; switch it off there",
	packet.HandshakeType(srt.REJ_GROUP):         "the listener insists on bonding; switch it off there",
	packet.HandshakeType(srt.REJX_BAD_REQUEST):  "the listener cannot read the streamid=",
	packet.HandshakeType(srt.REJX_UNAUTHORIZED): "the listener wants other credentials in streamid=",
	packet.HandshakeType(srt.REJX_OVERLOAD):     "the listener is overloaded",
	packet.HandshakeType(srt.REJX_FORBIDDEN):    "the listener forbids what streamid= asks for",
	packet.HandshakeType(srt.REJX_NOTFOUND):     "the listener does not know the stream that streamid= names",
	packet.HandshakeType(srt.REJX_BAD_MODE):     "the listener does not allow the mode in streamid=",
	packet.HandshakeType(srt.REJX_CONFLICT):     "the stream is in use",
	packet.HandshakeType(srt.REJX_LOCKED):       "the stream is locked",
	packet.HandshakeType(srt.REJX_DOWN):         "the listener is down",
}

// srtRefusal is the error of a refused call.
func srtRefusal(code packet.HandshakeType, passphrase bool) error {
	text := srtRefusals[code]
	switch {
	case code == packet.HandshakeType(srt.REJ_UNSECURE) && passphrase:
		text = "the listener has no passphrase; leave passphrase= out, or set it there"
	case code == packet.HandshakeType(srt.REJ_UNSECURE):
		text = "the listener wants a passphrase; add passphrase="
	case text == "":
		text = "the listener refuses the call"
	}
	return fmt.Errorf("%s (SRT reason %d)", text, uint32(code))
}

// srtCaller is a call under way: the caller's side of 4.3.1.
type srtCaller struct {
	url    *srtURL
	id     uint32
	began  time.Time
	sent   time.Time
	packet []byte // what is sent until it is answered
	asked  bool   // the listener has answered the first handshake
	keys   *srtKeys
}

func newSRTCaller(u *srtURL) *srtCaller {
	c := &srtCaller{url: u, id: randomSRT(), began: time.Now()}
	c.packet = srtHandshake(&packet.CIFHandshake{
		IsRequest: true, Version: 4, ExtensionField: 2, HandshakeType: packet.HSTYPE_INDUCTION,
		InitialPacketSequenceNumber: circular.New(0, packet.MAX_SEQUENCENUMBER),
		MaxTransmissionUnitSize:     srtMTU, MaxFlowWindowSize: srtWindow, SRTSocketId: c.id,
	}, 0, 0)
	return c
}

// due returns what is to be sent now, or nil.
func (c *srtCaller) due(now time.Time) []byte {
	if now.Sub(c.sent) < srtRepeat {
		return nil
	}
	c.sent = now
	return c.packet
}

// srtDeal is what two ends have agreed on.
type srtDeal struct {
	peer, first uint32
	latency     time.Duration
	keys        *srtKeys
}

// answer takes the listener's answer. It returns nil until the call stands.
func (c *srtCaller) answer(h *packet.CIFHandshake) (*srtDeal, error) {
	switch {
	case h.HandshakeType.IsRejection():
		return nil, srtRefusal(h.HandshakeType, c.url.passphrase != "")
	case h.HandshakeType == packet.HSTYPE_INDUCTION && !c.asked:
		if h.Version != 5 || h.ExtensionField != srtMagic {
			return nil, fmt.Errorf("the listener speaks an SRT before 1.3 (handshake version %d); update it", h.Version)
		}
		c.asked = true
		c.sent = time.Time{}
		return nil, c.conclude(h)
	case h.HandshakeType == packet.HSTYPE_CONCLUSION && c.asked:
		return c.agree(h)
	}
	return nil, nil
}

// conclude prepares the second handshake.
func (c *srtCaller) conclude(h *packet.CIFHandshake) error {
	latency := uint16(c.url.latency.Milliseconds())
	out := &packet.CIFHandshake{
		IsRequest: true, Version: 5, HandshakeType: packet.HSTYPE_CONCLUSION, SynCookie: h.SynCookie,
		InitialPacketSequenceNumber: circular.New(randomSRT(), packet.MAX_SEQUENCENUMBER),
		MaxTransmissionUnitSize:     srtMTU, MaxFlowWindowSize: srtWindow, SRTSocketId: c.id,
		HasHS: true, SRTHS: &packet.CIFHandshakeExtension{SRTVersion: srtVersion, SRTFlags: srtFlags, RecvTSBPDDelay: latency},
		HasSID: c.url.streamID != "", StreamId: c.url.streamID,
	}
	if c.url.passphrase != "" {
		length := c.url.keyLength
		if length == 0 {
			length = 16
			if n := int(h.EncryptionField) * 8; n == 24 || n == 32 {
				length = n
			}
		}
		var err error
		if c.keys, err = newSRTKeys(c.url.passphrase, length); err != nil {
			return err
		}
		out.HasKM = true
		if out.SRTKM, err = c.keys.offer(); err != nil {
			return err
		}
	}
	c.packet = srtHandshake(out, 0, time.Since(c.began))
	return nil
}

// agree reads the second answer.
func (c *srtCaller) agree(h *packet.CIFHandshake) (*srtDeal, error) {
	if h.Version != 5 || h.SRTHS == nil {
		return nil, errors.New("the listener speaks an SRT before 1.3; update it")
	}
	if h.SRTHS.SRTFlags.STREAM {
		return nil, errors.New("the listener sends a file (transtype=file); set transtype=live there")
	}
	if c.keys != nil && h.SRTKM == nil {
		return nil, srtRefusal(packet.HandshakeType(srt.REJ_UNSECURE), true)
	}
	if c.keys != nil && h.SRTKM.Error != 0 {
		return nil, srtRefusal(packet.HandshakeType(srt.REJ_BADSECRET), true)
	}
	return &srtDeal{peer: h.SRTSocketId, first: h.InitialPacketSequenceNumber.Val(),
		latency: max(c.url.latency, time.Duration(h.SRTHS.SendTSBPDDelay)*time.Millisecond), keys: c.keys}, nil
}

// srtCallee answers calls: the listener's side of 4.3.1. It keeps nothing of a
// call that has not brought its cookie back.
type srtCallee struct {
	url    *srtURL
	secret [32]byte
}

func newSRTCallee(u *srtURL) *srtCallee {
	l := &srtCallee{url: u}
	rand.Read(l.secret[:]) // never fails
	return l
}

// cookie is what a caller at that address brings back, for a minute or two.
func (l *srtCallee) cookie(addr netip.AddrPort, minute int64) uint32 {
	m := hmac.New(sha256.New, l.secret[:])
	m.Write([]byte(addr.String()))
	m.Write(binary.BigEndian.AppendUint64(nil, uint64(minute)))
	return binary.BigEndian.Uint32(m.Sum(nil))
}

// induct makes the answer to a first handshake of it.
func (l *srtCallee) induct(h *packet.CIFHandshake, addr netip.AddrPort, now time.Time) {
	h.Version, h.ExtensionField, h.EncryptionField = 5, srtMagic, uint16(l.url.keyLength/8)
	h.MaxTransmissionUnitSize, h.MaxFlowWindowSize = srtMTU, srtWindow
	h.SynCookie = l.cookie(addr, now.Unix()/60)
}

// known says whether a second handshake brings back the cookie of a first.
func (l *srtCallee) known(h *packet.CIFHandshake, addr netip.AddrPort, now time.Time) bool {
	minute := now.Unix() / 60
	return h.SynCookie == l.cookie(addr, minute) || h.SynCookie == l.cookie(addr, minute-1)
}

// srtNo is a call that is refused: the code for the caller, and the text for
// the log.
type srtNo struct {
	code srt.RejectionReason
	text string
}

func (e *srtNo) Error() string { return e.text }

// judge accepts a call, making the answer of its handshake, or refuses it with
// a *srtNo.
func (l *srtCallee) judge(h *packet.CIFHandshake, id uint32) (*srtDeal, error) {
	hs := h.SRTHS
	switch {
	case h.Version != 5 || hs == nil:
		return nil, &srtNo{srt.REJ_VERSION, "it speaks an SRT before 1.3"}
	case hs.SRTFlags.STREAM:
		return nil, &srtNo{srt.REJ_MESSAGEAPI, "it sends a file (transtype=file), not a stream"}
	case h.HasCongestionCtl && h.CongestionCtl != "live":
		return nil, &srtNo{srt.REJ_CONGESTION, "its congestion control is for files"}
	case !hs.SRTFlags.TSBPDSND || !hs.SRTFlags.REXMITFLG:
		return nil, &srtNo{srt.REJ_ROGUE, "it does not send live"}
	case l.url.streamID != "" && h.StreamId != l.url.streamID:
		return nil, &srtNo{srt.REJX_FORBIDDEN, "its streamid is another one"}
	case l.url.passphrase == "" && h.SRTKM != nil:
		return nil, &srtNo{srt.REJ_UNSECURE, "it is encrypted, and there is no passphrase= here"}
	case l.url.passphrase != "" && h.SRTKM == nil:
		return nil, &srtNo{srt.REJ_UNSECURE, "it is not encrypted, and there is a passphrase= here"}
	}
	deal := &srtDeal{peer: h.SRTSocketId, first: h.InitialPacketSequenceNumber.Val(),
		latency: max(l.url.latency, time.Duration(hs.SendTSBPDDelay)*time.Millisecond)}
	if h.SRTKM != nil {
		var err error
		if deal.keys, err = newSRTKeys(l.url.passphrase, int(h.SRTKM.KLen)); err == nil {
			err = deal.keys.learn(h.SRTKM)
		}
		if err != nil {
			return nil, &srtNo{srt.REJ_BADSECRET, "its passphrase is another one"}
		}
	}
	h.IsRequest, h.HasSID, h.HasCongestionCtl = false, false, false
	h.SRTSocketId, h.SynCookie = id, 0
	h.MaxTransmissionUnitSize, h.MaxFlowWindowSize = min(h.MaxTransmissionUnitSize, srtMTU), srtWindow
	h.SRTHS = &packet.CIFHandshakeExtension{SRTVersion: srtVersion, SRTFlags: srtFlags,
		RecvTSBPDDelay: uint16(deal.latency.Milliseconds()), SendTSBPDDelay: hs.RecvTSBPDDelay}
	return deal, nil
}
