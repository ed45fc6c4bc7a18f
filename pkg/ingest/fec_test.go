package ingest

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/pion/rtp"
	"pgregory.net/rapid"
)

// protection is a packet of correction and what it protects.
type protection struct {
	d    []byte
	nums []int // numbers of packets
}

// protect makes the packet of correction of packets, as SMPTE 2022-1 clause 8
// has it: column or row, L columns and D rows, or with l = 0 the form of
// RFC 2733, by a mask.
func protect(packets [][]byte, nums []int, column bool, l, d int) protection {
	var body []byte
	var first, second byte
	var length uint16
	var ts uint32
	for _, n := range nums {
		p := packets[n]
		first, second = first^p[0], second^p[1]
		length ^= uint16(len(p) - 12)
		ts ^= binary.BigEndian.Uint32(p[4:])
		for k, b := range p[12:] {
			if k == len(body) {
				body = append(body, 0)
			}
			body[k] ^= b
		}
	}
	out := []byte{0x80 | first&0x3f, second&0x80 | 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	out = append(out, packets[nums[0]][2:4]...)
	out = binary.BigEndian.AppendUint16(out, length)
	mask := uint32(0)
	if l == 0 {
		for _, n := range nums {
			mask |= 1 << (n - nums[0])
		}
	} else {
		mask = 0x80 << 24
	}
	out = binary.BigEndian.AppendUint32(out, mask|uint32(second&0x7f)<<24)
	out = binary.BigEndian.AppendUint32(out, ts)
	if l > 0 && column {
		out = append(out, 0, byte(l), byte(d), 0)
	} else if l > 0 {
		out = append(out, 0x40, 1, byte(l), 0)
	}
	return protection{append(out, body...), nums}
}

// numbers are count numbers from first on, step apart.
func numbers(first, count, step int) (list []int) {
	for k := range count {
		list = append(list, first+k*step)
	}
	return list
}

// hopeless are the packets that no order of correction restores: of those
// gone, what is left when every protection that lacks one packet has given it
// back. It is written from the standard, not from the code.
func unrecoverable(gone map[int]bool, got []protection) map[int]bool {
	left := map[int]bool{}
	for n := range gone {
		left[n] = true
	}
	for again := true; again; {
		again = false
		for _, p := range got {
			var missing []int
			for _, n := range p.nums {
				if left[n] {
					missing = append(missing, n)
				}
			}
			if len(missing) == 1 {
				delete(left, missing[0])
				again = true
			}
		}
	}
	return left
}

// TestFECRestores loses packets and packets of correction at random: what is
// delivered lacks exactly what the code cannot restore.
func TestFECRestores(t *testing.T) {
	restored := 0
	rapid.Check(t, func(t *rapid.T) {
		l, d := rapid.IntRange(1, 10).Draw(t, "L"), rapid.IntRange(4, 10).Draw(t, "D")
		rows := l > 1 && rapid.Bool().Draw(t, "rows")
		loss := rapid.SampledFrom([]float64{0.01, 0.05, 0.2}).Draw(t, "loss")
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		matrices := 6
		n := l * d * matrices
		first := rapid.Uint16().Draw(t, "first")
		gap := time.Millisecond
		var packets [][]byte
		var list []arrival
		gone := map[int]bool{}
		// Beyond the last matrix a tail without loss, to see the end of the rest.
		for k := range n + 3*l*d + 50 {
			p := rtpPacketOf(9, first+uint16(k), uint32(k)*90, k)
			if k%3 == 0 {
				p = append(p, append([]byte{0x47}, make([]byte, 187)...)...) // of two lengths
			}
			packets = append(packets, p)
			if k > 60 && k < n && rng.Float64() < loss {
				gone[k] = true
				continue
			}
			list = append(list, arrival{0, time.Duration(k) * gap, p})
		}
		var got []protection
		add := func(p protection, at int) {
			if rng.Float64() >= loss {
				got = append(got, p)
				list = append(list, arrival{100, time.Duration(at)*gap + gap/2, p.d})
			}
		}
		for m := range matrices {
			base := m * l * d
			for c := range l {
				add(protect(packets, numbers(base+c, d, l), true, l, d), base+l*d+c*d)
			}
			for r := range d {
				if rows {
					add(protect(packets, numbers(base+r*l, l, 1), false, l, d), base+(r+1)*l)
				}
			}
		}
		slices.SortStableFunc(list, func(a, b arrival) int { return int(a.at - b.at) })
		m := newMerger(1, defaultReorder, 0)
		f := &feeder{t: t, m: m, fec: newCorrector(m)}
		f.feed(list, 2*time.Millisecond)
		left := unrecoverable(gone, got)
		f.want(len(packets), left)
		if c := m.count; c.recovered != uint64(len(gone)-len(left)) || c.lost != uint64(len(left)) || c.errors != 0 {
			t.Fatalf("%+v; %d gone, %d of them for good", c, len(gone), len(left))
		}
		restored += len(gone) - len(left)
	})
	if restored < 100 {
		t.Errorf("%d packets restored in all", restored)
	}
}

// TestFECHeader reads both forms of the header.
func TestFECHeader(t *testing.T) {
	var packets [][]byte
	for k := range 30 {
		b, err := (&rtp.Packet{Header: rtp.Header{Version: 2, Marker: k%2 == 0, PayloadType: typeMP2T, SequenceNumber: uint16(k), Timestamp: uint32(k) * 7, SSRC: 9,
			CSRC: make([]uint32, k%3)}, Payload: bytes.Repeat(append([]byte{0x47}, make([]byte, 187)...), 1+k%2)}).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		packets = append(packets, b)
	}
	for _, c := range []struct {
		name string
		p    protection
		lost int
	}{
		{"column", protect(packets, numbers(0, 4, 5), true, 5, 4), 10},
		{"row", protect(packets, numbers(5, 5, 1), false, 5, 4), 8},
		{"mask", protect(packets, []int{3, 4, 7, 20}, false, 0, 0), 7},
		{"mask, the last", protect(packets, []int{3, 4, 7, 20}, false, 0, 0), 20},
	} {
		m := newMerger(1, 0, 0)
		corr := newCorrector(m)
		for k, p := range packets {
			if k != c.lost {
				m.take(0, p, start)
			}
			if k == 0 {
				m.expire(start)
				m.pop()
			}
		}
		corr.take(c.p.d, start)
		if !corr.correct(start) || m.at(m.extend(uint16(c.lost))) == nil {
			t.Errorf("%s: packet %d is not restored: %+v, next %d high %d", c.name, c.lost, m.count, uint16(m.next), uint16(m.high))
			continue
		}
		if got := m.at(m.extend(uint16(c.lost))).buf; string(got) != string(packets[c.lost]) {
			t.Errorf("%s: %d bytes (% x), want %d (% x)", c.name, len(got), got[:20], len(packets[c.lost]), packets[c.lost][:20])
		}
	}
	for _, b := range [][]byte{nil, make([]byte, 11), make([]byte, 12), // no packet named
		append([]byte{0, 0, 0, 0, 0x80}, make([]byte, 7)...),                       // cut
		append([]byte{0, 0, 0, 0, 0x80}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0),          // no offset
		append([]byte{0, 0, 0, 0, 0x80}, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0),          // none protected
		append([]byte{0, 0, 0, 0, 0x80}, 0, 0, 0, 0, 0, 0, 0, 0x08, 5, 5, 0),       // not exclusive or
		append([]byte{0, 0, 0, 0, 0x80}, 0, 0, 0, 0, 0, 0, 0, 0x00, 255, 255, 0)} { // too far
		if h, err := parseFEC(b); err == nil {
			t.Errorf("% x is taken for %+v", b, h)
		}
	}
}

// FuzzFEC gives any packets of correction beside good ones: nothing panics,
// what is delivered stays in order, and memory is bounded.
func FuzzFEC(f *testing.F) {
	var packets [][]byte
	for k := range 40 {
		packets = append(packets, rtpPacketOf(9, uint16(k), uint32(k)*90, k))
	}
	f.Add(protect(packets, numbers(0, 4, 5), true, 5, 4).d, uint16(10))
	f.Add(protect(packets, numbers(5, 5, 1), false, 5, 4).d, uint16(7))
	f.Add(protect(packets, []int{3, 4, 7, 20}, false, 0, 0).d, uint16(20))
	f.Fuzz(func(t *testing.T, d []byte, lost uint16) {
		m := newMerger(1, 0, 0)
		c := newCorrector(m)
		// What is forged may be delivered in a packet's place, but only there.
		last, n := int64(-1), 0
		delivered := func(ok bool) {
			if !ok {
				return
			}
			if n++; m.next <= last {
				t.Errorf("%d after %d", m.next, last)
			}
			last = m.next
		}
		drain := func(now time.Time) {
			for {
				m.lost = 0
				_, ok := m.pop()
				delivered(ok)
				if !ok && !m.full() && !c.correct(now) && !m.expire(now) {
					m.reclaim()
					return
				}
			}
		}
		for k, p := range packets {
			now := start.Add(time.Duration(k) * time.Millisecond)
			if uint16(k) != lost {
				_, ok := m.take(0, p, now)
				delivered(ok)
			}
			c.take(d, now)
			drain(now)
		}
		drain(start.Add(time.Minute))
		if n < len(packets)-2 || m.held > 0 || len(c.list) > fecPackets || len(m.ring) > 1<<13 {
			t.Errorf("%d delivered, %d held, %d packets of correction, ring %d", n, m.held, len(c.list), len(m.ring))
		}
	})
}
