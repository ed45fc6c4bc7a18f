package ingest

import (
	"encoding/binary"
	"net"
	"testing"
	"time"
)

// TestWaited lets datagrams wait in the socket, as they do while a process is
// stopped: they arrived when they came, not when they were read, also where the
// source was silent between them.
func TestWaited(t *testing.T) {
	null := make([]byte, 188)
	copy(null, []byte{0x47, 0x1f, 0xff, 0x10})
	rtp := append([]byte{0x80, 33, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, null...)
	for scheme, datagram := range map[string][]byte{"udp": null, "rtp": rtp} {
		t.Run(scheme, func(t *testing.T) {
			c, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			addr := c.LocalAddr().String()
			c.Close()
			src, err := Open(t.Context(), scheme+"://"+addr, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			conn, err := net.Dial("udp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			send := func(n int) (before, after time.Time) {
				before = time.Now()
				for i := range 2 {
					if scheme == "rtp" {
						binary.BigEndian.PutUint16(datagram[2:], uint16(2*n+i))
					}
					if _, err := conn.Write(datagram); err != nil {
						t.Fatal(err)
					}
				}
				return before, time.Now()
			}
			// The kernel begins to note times a moment after it was asked for the
			// first time, so the first round counts for nothing.
			for n := range 3 {
				type span struct{ from, to time.Time }
				var sent []span
				for i := range 2 {
					before, after := send(2*n + i)
					sent = append(sent, span{before.Add(-time.Millisecond), after.Add(tolerated)})
					time.Sleep(3 * tolerated)
				}
				if scheme == "rtp" { // a batch may hold both: the later counts
					sent[0] = sent[1]
				}
				for got := 0; got < 4; {
					b, err := src.Read(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					if at := sent[got/2]; n > 0 && (b.Arrived.Before(at.from) || b.Arrived.After(at.to)) {
						t.Fatalf("datagram %d arrived %v after it was sent, read %v after", got, b.Arrived.Sub(at.to), time.Since(at.to))
					}
					got += len(b.Datagrams)
				}
			}
		})
	}
}
