package ingest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/datarhei/gosrt/circular"
	"github.com/datarhei/gosrt/packet"
	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/testkit"
)

// relay carries datagrams between a caller and a listener. fate says how often
// each is delivered, and whether the first time only behind the next.
type relay struct {
	front, back *net.UDPConn
	mu          sync.Mutex
	caller      netip.AddrPort
	wg          sync.WaitGroup
}

// newRelay listens on a port for callers of another.
func newRelay(t *testing.T, from, to int, fate func(fromCaller bool, p []byte) (times int, late bool)) *relay {
	t.Helper()
	front, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: from})
	if err != nil {
		t.Fatal(err)
	}
	back, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: to})
	if err != nil {
		t.Fatal(err)
	}
	front.SetReadBuffer(4 << 20)
	back.SetReadBuffer(4 << 20)
	r := &relay{front: front, back: back}
	r.wg.Add(2)
	go r.carry(true, fate, func(p []byte) (int, error) {
		n, addr, err := front.ReadFromUDPAddrPort(p)
		r.mu.Lock()
		r.caller = addr
		r.mu.Unlock()
		return n, err
	}, back.Write)
	go r.carry(false, fate, back.Read, func(p []byte) (int, error) {
		r.mu.Lock()
		to := r.caller
		r.mu.Unlock()
		return front.WriteToUDPAddrPort(p, to)
	})
	t.Cleanup(func() {
		front.Close()
		back.Close()
		r.wg.Wait()
	})
	return r
}

func (r *relay) carry(fromCaller bool, fate func(bool, []byte) (int, bool), read, write func([]byte) (int, error)) {
	defer r.wg.Done()
	var held []byte
	for buf := make([]byte, 2048); ; {
		n, err := read(buf)
		if err != nil {
			if strings.Contains(err.Error(), "closed") {
				return
			}
			continue // nobody is there yet
		}
		times, late := fate(fromCaller, buf[:n])
		if late && held == nil {
			held = bytes.Clone(buf[:n])
			continue
		}
		for range times {
			write(buf[:n])
		}
		if held != nil {
			write(held)
			held = nil
		}
	}
}

// isData says whether a datagram is a data packet.
func isData(p []byte) bool { return len(p) > srtHeader && p[0]&0x80 == 0 }

// TestSRTThroughLoss receives through a path that loses 5 % of all datagrams
// in both directions, doubles 2 % and swaps 2 %: nothing is missing.
func TestSRTThroughLoss(t *testing.T) {
	t.Parallel()
	path := clip(t, 6)
	for _, weCall := range []bool{false, true} {
		t.Run(fmt.Sprintf("we call %v", weCall), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(1, 2))
			var mu sync.Mutex
			var seen, lost int
			fate := func(fromCaller bool, p []byte) (int, bool) {
				mu.Lock()
				defer mu.Unlock()
				if isData(p) {
					seen++
				}
				if weCall && len(p) > srtHeader && binary.BigEndian.Uint16(p) == 1<<15 {
					return 1, false // ffmpeg stops listening when it has answered, and does not answer again
				}
				if seen > 600 { // a sender that has sent everything leaves, and repeats nothing
					return 1, false
				}
				switch x := random.IntN(100); {
				case x < 5:
					if isData(p) {
						lost++
					}
					return 0, false
				case x < 7:
					return 2, false
				case x < 9:
					return 1, true
				}
				return 1, false
			}
			front, back := port(), port()
			newRelay(t, front, back, fate)
			var log testkit.Log
			var r *recording
			var sent string
			if weCall {
				_, sent = sendSRT(t, path, fmt.Sprintf("srt://127.0.0.1:%d?mode=listener", back))
				r = record(t, openSoon(t, fmt.Sprintf("srt://127.0.0.1:%d?latency=3s&connect_timeout=25s", front), Options{}))
				r.wait(t)
			} else {
				r = record(t, openSoon(t, fmt.Sprintf("srt://127.0.0.1:%d?mode=listener&latency=3s", back), Options{Log: log.Logger()}))
				var p *process
				p, sent = sendSRT(t, path, fmt.Sprintf("srt://127.0.0.1:%d?mode=caller&connect_timeout=25000", front))
				if err := p.wait(); err != nil {
					t.Fatalf("ffmpeg: %v: %s", err, p.said.String())
				}
				testkit.Await(t, "the caller has gone", func() bool { return strings.Contains(log.String(), "srt caller has gone") })
				testkit.Await(t, "all is read", func() bool { return r.size() == int(r.Stats().Bytes) })
				r.stop()
			}
			r.sameStream(t, readFile(t, sent))
			st := r.Stats()
			t.Logf("%d of %d data packets lost on the way: %+v", lost, seen, st)
			if st.Lost != 0 || st.Recovered == 0 || lost < 10 || slices.ContainsFunc(r.segments, func(s string) bool { return strings.HasSuffix(s, "damaged") }) {
				t.Errorf("%+v, segments %q", st, r.segments)
			}
		})
	}
}

// TestSRTTooLate loses some packets however often they are sent: they are told
// at their place, and damage no more than what they were part of.
func TestSRTTooLate(t *testing.T) {
	t.Parallel()
	path := clip(t, 6)
	front, back := port(), port()
	var mu sync.Mutex
	var first uint32
	begun, sizes := false, map[uint32]int{}
	never := func(n uint32) bool { return n == 150 || n >= 300 && n < 303 }
	newRelay(t, front, back, func(_ bool, p []byte) (int, bool) {
		if !isData(p) {
			return 1, false
		}
		mu.Lock()
		defer mu.Unlock()
		seq := binary.BigEndian.Uint32(p)
		if !begun {
			begun, first = true, seq
		}
		n := (seq - first) & srtSeqMask
		sizes[n] = len(p) - srtHeader
		if never(n) {
			return 0, false
		}
		return 1, false
	})
	var log testkit.Log
	r := record(t, openSoon(t, fmt.Sprintf("srt://127.0.0.1:%d?mode=listener&latency=300", back), Options{Log: log.Logger()}))
	// The peer's latency would be taken over.
	p, sent := sendSRT(t, path, fmt.Sprintf("srt://127.0.0.1:%d?mode=caller&latency=20000", front))
	if err := p.wait(); err != nil {
		t.Fatalf("ffmpeg: %v: %s", err, p.said.String())
	}
	testkit.Await(t, "the caller has gone", func() bool { return strings.Contains(log.String(), "srt caller has gone") })
	testkit.Await(t, "all is read", func() bool { return r.size() == int(r.Stats().Bytes) })
	r.stop()
	all := readFile(t, sent)
	var want []byte
	var places []int
	at := 0
	for n := range uint32(len(sizes)) {
		if never(n) {
			places = append(places, len(want))
		} else {
			want = append(want, all[at:at+sizes[n]]...)
		}
		at += sizes[n]
	}
	if !bytes.Equal(r.data, want) {
		t.Errorf("%d bytes received, want %d; equal up to %d", len(r.data), len(want), common(r.data, want))
	}
	if !slices.Equal(r.lost, places) {
		t.Errorf("losses told at %v, want %v", r.lost, places)
	}
	if st := r.Stats(); st.Lost != 4 {
		t.Errorf("%+v", st)
	}
	whole, damaged := segmentsOf(all), 0
	for _, s := range r.segments {
		if strings.HasSuffix(s, "damaged") {
			damaged++
		} else if !slices.Contains(whole, s) {
			t.Errorf("segment %s is not of what was sent, and has no flag", s)
		}
	}
	if damaged == 0 || damaged > 4 {
		t.Errorf("%d of %d segments are damaged", damaged, len(r.segments))
	}
}

// numbered is a payload that tells its number.
func numbered(n int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }

// drain returns the numbers that came out, and -1 for each loss.
func drain(out *srtOut) (list []int) {
	out.hand(time.Time{})
	for _, c := range append(out.queue.chunks, out.chunk) {
		for range c.lost {
			list = append(list, -1)
		}
		for i := 0; i < len(c.data); i += 4 {
			list = append(list, int(binary.BigEndian.Uint32(c.data[i:])))
		}
	}
	return list
}

func newOut() *srtOut {
	o := &srtOut{clock: clock.System, chunk: new(srtChunk)}
	o.queue.wake = make(chan struct{}, 1)
	return o
}

// TestSRTBufferOrders puts packets in in any order, some never, some twice,
// across the wrap of the numbers: out come all of them in order, and a loss in
// the place of each that never came.
func TestSRTBufferOrders(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := uint32(rapid.Uint64Range(0, 1<<31-1).Draw(t, "first"))
		if rapid.Bool().Draw(t, "wrap") {
			first = (0 - uint32(rapid.IntRange(0, 50).Draw(t, "before the wrap"))) & srtSeqMask
		}
		n := rapid.IntRange(1, 400).Draw(t, "packets")
		reach := rapid.IntRange(1, 100).Draw(t, "reach")
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		out := newOut()
		b := newSRTBuffer(first, out)
		type arrival struct {
			at, n int
		}
		var order []arrival
		lost := make([]bool, n)
		for i := range n {
			lost[i] = random.IntN(10) == 0 && i < n-1
			if lost[i] {
				continue
			}
			for range 1 + random.IntN(8)/7 {
				order = append(order, arrival{i + random.IntN(reach), i})
			}
		}
		slices.SortStableFunc(order, func(a, b arrival) int { return a.at - b.at })
		now := time.Duration(0)
		asked := map[int]bool{}
		for _, a := range order {
			now += time.Millisecond
			b.put((first+uint32(a.n))&srtSeqMask, numbered(a.n), now)
			b.wanted(now, time.Hour, func(from, to uint32) {
				for s := from; s != (to+1)&srtSeqMask; s = (s + 1) & srtSeqMask {
					i := seqDiff(s, first)
					if asked[i] {
						t.Fatalf("packet %d was asked for twice", i)
					}
					asked[i] = true
				}
			})
			missing := 0
			for s := b.next; s != b.end; s = (s + 1) & srtSeqMask {
				if !b.slot(s).have {
					missing++
				}
			}
			if missing != b.missing {
				t.Fatalf("%d are missing, counted as %d", missing, b.missing)
			}
		}
		for i, gone := range lost {
			if gone && !asked[i] {
				t.Fatalf("packet %d was never asked for", i)
			}
		}
		b.expire(now+time.Second, time.Second)
		if b.next != b.end || b.missing != 0 {
			t.Fatalf("after all have expired, %d wait and %d are missing", seqDiff(b.end, b.next), b.missing)
		}
		var want []int
		for i, gone := range lost {
			if gone {
				i = -1
			}
			want = append(want, i)
		}
		if got := drain(out); !slices.Equal(got, want) {
			t.Fatalf("out came %v, want %v", got, want)
		}
	})
}

// TestSRTBufferJumps goes on at a packet that is too far ahead, and takes the
// sender's word for what it cannot send.
func TestSRTBufferJumps(t *testing.T) {
	out := newOut()
	b := newSRTBuffer(10, out)
	b.put(10, numbered(10), 0)
	b.put(12, numbered(12), 0)
	b.put(12+srtWindow, numbered(99), 0)
	if b.next != b.end || b.next != 13+srtWindow || out.lost.Load() != srtWindow {
		t.Errorf("next %d, end %d, %d lost", b.next, b.end, out.lost.Load())
	}
	out = newOut()
	b = newSRTBuffer(0, out)
	for _, seq := range []uint32{0, 5, 7} {
		b.put(seq, numbered(int(seq)), time.Second)
	}
	b.drop(1, 3, time.Minute)
	b.drop(6, 1000, time.Minute)
	b.expire(time.Second, time.Minute)
	if got := drain(out); !slices.Equal(got, []int{0, -1, -1, -1}) {
		t.Errorf("out came %v before 4", got)
	}
	b.put(4, numbered(4), time.Second)
	b.expire(time.Second, time.Minute)
	if got := drain(out); !slices.Equal(got, []int{0, -1, -1, -1, 4, 5, -1, 7}) {
		t.Errorf("out came %v", got)
	}
}

// TestSRTQueueIsBounded has nobody read: memory stays as it is, and what did
// not fit is told as lost at its place.
func TestSRTQueueIsBounded(t *testing.T) {
	out := newOut()
	payload := make([]byte, 1316)
	total := 2*srtBacklog/len(payload) + 1
	for range total {
		out.put(payload)
		if out.full() {
			out.hand(time.Time{})
		}
	}
	if out.queue.bytes > srtBacklog {
		t.Errorf("%d bytes wait", out.queue.bytes)
	}
	got, first := 0, true
	read := func() {
		c, err := out.queue.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if c.lost > 0 && (first || got == 0) {
			t.Error("a loss is told before it")
		}
		first = false
		got += len(c.ends) + int(c.lost)
		out.queue.recycle(c)
	}
	for len(out.queue.chunks) > 0 {
		read()
	}
	out.put(payload)
	out.hand(time.Time{})
	read()
	if got != total+1 || out.lost.Load() == 0 {
		t.Errorf("%d packets and losses, %d put in; %d lost", got, total+1, out.lost.Load())
	}
	out.queue.end(io.EOF)
	if _, err := out.queue.take(t.Context()); err != io.EOF {
		t.Errorf("the queue ends with %v", err)
	}
}

// TestSRTConnEnds ends a connection whose peer's port is closed, and one
// that says nothing.
func TestSRTConnEnds(t *testing.T) {
	begin := func() *srtConn {
		return newSRTConn(1, 0, time.Second, nil, newOut(), new(srtStats), func([]byte) {})
	}
	c := begin()
	c.tick(srtIdle)
	if c.over != nil {
		t.Errorf("after %v: %v", srtIdle, c.over)
	}
	c.tick(srtIdle + 1)
	if c.over == nil || !strings.Contains(c.over.Error(), "nothing has come") {
		t.Errorf("after %v: %v", srtIdle+1, c.over)
	}
	c = begin()
	c.refused = true
	c.tick(srtGone)
	if c.over != nil {
		t.Errorf("after %v: %v", srtGone, c.over)
	}
	c.receive(make([]byte, srtHeader), srtGone)
	c.tick(2 * srtGone)
	if c.over != nil {
		t.Errorf("though it is there: %v", c.over)
	}
	c.refused = true
	c.tick(3 * srtGone)
	if c.over == nil || !strings.Contains(c.over.Error(), "closed") {
		t.Errorf("with a closed port: %v", c.over)
	}
}

// TestSRTKeys takes keys that the passphrase opens, and no others.
func TestSRTKeys(t *testing.T) {
	sender, err := newSRTKeys(secret, 32)
	if err != nil {
		t.Fatal(err)
	}
	km, err := sender.offer()
	if err != nil {
		t.Fatal(err)
	}
	k, _ := newSRTKeys(secret, 32)
	plain := []byte("what is sent")
	encrypted := func() []byte {
		p := bytes.Clone(plain)
		if !sender.decrypt(p, packet.EvenKeyEncrypted, 7) { // the same as encrypting
			t.Fatal("it does not encrypt")
		}
		return p
	}
	if k.decrypt(encrypted(), packet.EvenKeyEncrypted, 7) {
		t.Error("it decrypts without a key")
	}
	if err := k.learn(km); err != nil {
		t.Fatal(err)
	}
	stranger, _ := newSRTKeys("0123456789", 32)
	other, _ := stranger.offer()
	if err := k.learn(other); err != errSRTSecret {
		t.Errorf("another passphrase's key: %v", err)
	}
	short, _ := newSRTKeys(secret, 16)
	other, _ = short.offer()
	if k.learn(other) == nil {
		t.Error("it takes a shorter key")
	}
	if p := encrypted(); !k.decrypt(p, packet.EvenKeyEncrypted, 7) || !bytes.Equal(p, plain) {
		t.Errorf("it decrypts %q", p)
	}
	for _, key := range []packet.PacketEncryption{packet.UnencryptedPacket, packet.OddKeyEncrypted, packet.EvenAndOddKey} {
		if k.decrypt(encrypted(), key, 7) {
			t.Errorf("it decrypts with %v", key)
		}
	}
	var none *srtKeys
	if !none.decrypt(plain, packet.UnencryptedPacket, 7) || none.decrypt(plain, packet.OddKeyEncrypted, 7) {
		t.Error("a connection without keys")
	}
}

// FuzzSRTConn feeds a connection with datagrams: each is its length in one
// byte, then its bytes behind a header's beginning.
func FuzzSRTConn(f *testing.F) {
	data := func(seq uint32, flags byte) []byte {
		p := binary.BigEndian.AppendUint32(nil, seq)
		return append(p, flags, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 'x')
	}
	control := func(kind, sub uint16, body ...byte) []byte {
		p := binary.BigEndian.AppendUint16(nil, 1<<15|kind)
		p = binary.BigEndian.AppendUint16(p, sub)
		return append(append(p, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9), body...)
	}
	pack := func(list ...[]byte) (all []byte) {
		for _, p := range list {
			all = append(append(all, byte(len(p))), p...)
		}
		return all
	}
	keys, _ := newSRTKeys(secret, 16)
	km, _ := keys.offer()
	var kmBytes bytes.Buffer
	km.Marshal(&kmBytes)
	f.Add(pack(data(5, 0xc0), data(9, 0xc4), data(7, 0xc8)), false)
	f.Add(pack(data(5, 0xc8), control(7, 0, 0, 0, 0, 6, 0, 0, 0, 8), control(6, 0)), true)
	f.Add(pack(control(0x7fff, 3, kmBytes.Bytes()...), control(5, 0)), true)
	f.Fuzz(func(t *testing.T, in []byte, encrypted bool) {
		out := newOut()
		var keys *srtKeys
		if encrypted {
			keys, _ = newSRTKeys(secret, 16)
		}
		c := newSRTConn(9, 5, time.Second, keys, out, new(srtStats), func(p []byte) {
			if len(p) < srtHeader || len(p) > 1472 {
				t.Fatalf("a datagram of %d bytes is sent", len(p))
			}
		})
		now := time.Duration(0)
		for len(in) > 1 {
			n := min(int(in[0]), len(in)-1)
			p := in[1 : 1+n]
			in = in[1+n:]
			if len(p) >= srtHeader {
				c.receive(bytes.Clone(p), now)
			}
			if now += 7 * time.Millisecond; n%3 == 0 {
				c.tick(now)
			}
		}
		if c.buf.missing < 0 || len(c.buf.ring) > srtWindow || seqDiff(c.buf.end, c.buf.next) < 0 {
			t.Fatalf("%d missing, ring of %d, next %d, end %d", c.buf.missing, len(c.buf.ring), c.buf.next, c.buf.end)
		}
		c.buf.flush()
		if c.buf.missing != 0 || c.buf.next != c.buf.end {
			t.Fatalf("after the end %d are missing", c.buf.missing)
		}
	})
}

// FuzzSRTHandshake has a stranger call.
func FuzzSRTHandshake(f *testing.F) {
	h := &packet.CIFHandshake{IsRequest: true, Version: 5, HandshakeType: packet.HSTYPE_CONCLUSION, SRTSocketId: 7,
		InitialPacketSequenceNumber: circular.New(5, packet.MAX_SEQUENCENUMBER), MaxTransmissionUnitSize: 1500,
		HasHS: true, SRTHS: &packet.CIFHandshakeExtension{SRTVersion: srtVersion, SRTFlags: srtFlags},
		HasSID: true, StreamId: "live/one", HasKM: true}
	keys, _ := newSRTKeys(secret, 24)
	h.SRTKM, _ = keys.offer()
	body := srtHandshake(h, 0, 0)[srtHeader:]
	f.Add(body)
	f.Add(body[:48])
	f.Add(body[:50]) // where the library's reader panics
	h.HandshakeType = packet.HSTYPE_INDUCTION
	f.Add(srtHandshake(h, 0, 0)[srtHeader:])
	f.Fuzz(func(t *testing.T, body []byte) {
		addr := netip.MustParseAddrPort("192.0.2.1:5000")
		for _, url := range []string{"//:9000", "//:9000?streamid=live/one&passphrase=correct+horse+battery"} {
			u, err := parseSRT(url, Options{})
			if err != nil {
				t.Fatal(err)
			}
			h, err := parseSRTHandshake(body)
			if err != nil {
				return
			}
			l := newSRTCallee(u)
			if h.HandshakeType == packet.HSTYPE_INDUCTION {
				l.induct(h, addr, time.Now())
			} else if deal, err := l.judge(h, 8); err == nil && u.passphrase != "" && deal.keys == nil {
				t.Fatal("a caller without a passphrase is let in")
			}
			if n := len(srtHandshake(h, 1, 0)); n > 1472 {
				t.Fatalf("an answer of %d bytes", n)
			}
			h, _ = parseSRTHandshake(body)
			u.listen, u.host = false, "h"
			c := newSRTCaller(u)
			c.answer(h)
			c.asked = true
			c.answer(h)
		}
	})
}

// TestSRTHandshakeRoundTrip reads what is written, with every extension.
func TestSRTHandshakeRoundTrip(t *testing.T) {
	for _, id := range []string{"", "a", "abcd", "#!::r=live/one,m=request", strings.Repeat("x", 512)} {
		h := &packet.CIFHandshake{IsRequest: true, Version: 5, HandshakeType: packet.HSTYPE_CONCLUSION, SRTSocketId: 7,
			InitialPacketSequenceNumber: circular.New(5, packet.MAX_SEQUENCENUMBER),
			HasHS:                       true, SRTHS: &packet.CIFHandshakeExtension{SRTFlags: srtFlags, RecvTSBPDDelay: 120}, HasSID: true, StreamId: id}
		got, err := parseSRTHandshake(srtHandshake(h, 0, 0)[srtHeader:])
		if err != nil || got.StreamId != id || got.SRTHS == nil || got.SRTHS.RecvTSBPDDelay != 120 || got.SRTSocketId != 7 {
			t.Errorf("%q: %+v, %v", id, got, err)
		}
	}
}

// BenchmarkSRTReceive is the receiving of one connection without its socket.
func BenchmarkSRTReceive(b *testing.B) {
	for _, encrypted := range []bool{false, true} {
		b.Run(fmt.Sprintf("encrypted=%v", encrypted), func(b *testing.B) {
			out := newOut()
			var keys *srtKeys
			flags := byte(0xc0)
			if encrypted {
				keys, _ = newSRTKeys(secret, 16)
				keys.offer()
				flags |= 1 << 3
			}
			c := newSRTConn(9, 0, time.Second, keys, out, new(srtStats), func([]byte) {})
			p := make([]byte, srtHeader+1316)
			p[4], p[7] = flags, 1
			b.SetBytes(1316)
			b.ReportAllocs()
			for i := range b.N {
				binary.BigEndian.PutUint32(p, uint32(i)&srtSeqMask)
				c.receive(p, time.Duration(i)*time.Microsecond)
				if out.full() {
					out.hand(time.Time{})
					got, _ := out.queue.take(b.Context())
					out.queue.recycle(got)
				}
			}
		})
	}
}

// TestSRTGoodbye ends a connection with packets waiting behind a missing one:
// they are delivered, and the missing one is told.
func TestSRTGoodbye(t *testing.T) {
	u, err := parseSRT("//h:9000", Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := newSRTSource(u, "srt://h:9000", nil, Options{}.withDefaults())
	s.connect(&srtDeal{peer: 9, first: 5, latency: time.Minute}, nil)
	s.conn.send = func([]byte) {}
	for _, n := range []uint32{5, 7, 8} {
		p := make([]byte, srtHeader, srtHeader+4)
		binary.BigEndian.PutUint32(p, n)
		p[4], p[7] = 0xc0, 1
		s.conn.receive(append(p, numbered(int(n))...), 0)
	}
	goodbye := make([]byte, srtHeader+4)
	binary.BigEndian.PutUint16(goodbye, 1<<15|uint16(packet.CTRLTYPE_SHUTDOWN))
	s.conn.receive(goodbye, 0)
	if err := s.hangUp(); err != io.EOF {
		t.Errorf("the source ends with %v", err)
	}
	if got := drain(&s.out); !slices.Equal(got, []int{5, -1, 7, 8}) {
		t.Errorf("out came %v", got)
	}
}
