package ingest

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// A stream of 100 Mbit/s comes through a socket whole. On a machine that is too
// busy to be heard at that rate the kernel drops datagrams, each of which is
// counted.
func TestUDPHundredMegabits(t *testing.T) {
	const (
		rate  = 100_000_000 / 8
		size  = 7 * 188
		burst = 16
	)
	total := rate / size // a second of it
	if testing.Short() {
		total /= 4
	}
	for attempt := 1; ; attempt++ {
		p := port()
		s := open(t, fmt.Sprintf("udp://127.0.0.1:%d", p), Options{})
		w := sender(t, "", fmt.Sprintf("127.0.0.1:%d", p))
		sent := make(chan error, 1)
		go func() {
			datagram := make([]byte, size)
			start := time.Now()
			for k := range total {
				datagram[0], datagram[1], datagram[2] = 0x47, byte(k>>8), byte(k)
				if _, err := w.Write(datagram); err != nil {
					sent <- err
					return
				}
				if k%burst == 0 { // paced as a multiplexer does
					due := start.Add(time.Duration(k) * size * time.Second / rate)
					time.Sleep(time.Until(due))
				}
			}
			sent <- nil
		}()
		var got, dropped uint64
		next, inOrder := 0, true
		for got+dropped < uint64(total) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			b, err := s.Read(ctx)
			cancel()
			if err != nil {
				break // the last were dropped, which nothing tells
			}
			dropped += uint64(b.Dropped)
			for _, d := range b.Datagrams {
				k := int(d[1])<<8 | int(d[2])
				inOrder = inOrder && k >= next
				next = k + 1
				got++
			}
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		t.Logf("attempt %d: %d datagrams of %d, %d dropped, %d counted", attempt, got, total, uint64(total)-got, s.Stats().Dropped)
		if !inOrder || s.Stats().Packets != got {
			t.Fatalf("in order %v; %+v", inOrder, s.Stats())
		}
		if got == uint64(total) && s.Stats().Dropped == 0 {
			return
		}
		if attempt == 5 {
			t.Fatal("datagrams are dropped each time")
		}
	}
}
