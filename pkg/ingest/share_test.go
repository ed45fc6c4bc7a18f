package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/segment"
	"github.com/twindvr/twindvr/pkg/testkit"
)

// sharedOpen opens by a hub, to be closed with the test.
func sharedOpen(t *testing.T, h *Hub, url string) *shareReader {
	t.Helper()
	s, err := h.Open(t.Context(), url, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s.(*shareReader)
}

// TestHubProgramsOfOneMultiplex records 12 programs from one unicast address,
// which one socket alone can hear, each on its own goroutine.
func TestHubProgramsOfOneMultiplex(t *testing.T) {
	list := multiplex(t, 12, 6*time.Second)
	var wants [13][]string
	for k := 1; k <= 12; k++ {
		wants[k] = programSegments(uint16(k), list)
		if len(wants[k]) != 3 || k > 1 && wants[k][0] == wants[k-1][0] {
			t.Fatalf("program %d: %q", k, wants[k])
		}
	}
	for _, scheme := range []string{"udp", "rtp"} {
		t.Run(scheme, func(t *testing.T) {
			p := port()
			var h Hub
			var all []*recording
			for k := 1; k <= 12; k++ {
				url := fmt.Sprintf("%s://127.0.0.1:%d?program=%d", scheme, p, k)
				_, program, err := SplitProgram(url)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, recordProgram(t, sharedOpen(t, &h, url), program))
			}
			w := sender(t, "", fmt.Sprintf("127.0.0.1:%d", p))
			total := 0
			for k, d := range list {
				total += len(d)
				if scheme == "rtp" {
					d = rtpOf(k, d)
				}
				w.Write(d)
				if k%200 == 199 {
					testkit.Await(t, "a reader", func() bool { return all[0].size() > total-200*1316 })
				}
			}
			for k, r := range all {
				testkit.Await(t, "all bytes", func() bool { return r.size() == total })
				r.stop()
				// The recorder ends, the source does not: what the last
				// datagrams began is not there.
				want := wants[k+1]
				if len(r.segments) < len(want) || strings.Join(r.segments[:len(want)-1], " ") != strings.Join(want[:len(want)-1], " ") {
					t.Errorf("program %d: %q, want %q", k+1, r.segments, want)
				}
				if st := r.Stats(); st.Dropped+st.Lost+st.Errors != 0 || st.Packets != uint64(len(list)) || st.LastArrival.IsZero() {
					t.Errorf("program %d: %+v", k+1, st)
				}
			}
			if len(h.open) != 1 {
				t.Errorf("%d sources are open", len(h.open))
			}
		})
	}
}

// recordProgram is record for one program.
func recordProgram(t *testing.T, src Source, program uint16) *recording {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &recording{Source: src, done: make(chan struct{}), cancel: cancel}
	seg := segment.New(segment.Config{TargetDuration: m4f.Ticks(time.Second), Program: program}, r.take)
	go func() {
		defer close(r.done)
		r.end = Pump(ctx, r, seg, PumpOptions{})
		Finish(seg, r, r.end)
	}()
	t.Cleanup(r.stop)
	return r
}

// next reads datagrams until so many have come, and how many were dropped.
func next(t *testing.T, s Source, n int) (got []string, dropped int) {
	t.Helper()
	for len(got) < n {
		b, err := s.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		dropped += int(b.Dropped)
		for _, d := range b.Datagrams {
			got = append(got, string(d))
		}
	}
	return got, dropped
}

// A reader that has a batch and does nothing with it delays nobody, and finds
// it untouched.
func TestHubReaderComesAndGoes(t *testing.T) {
	for _, scheme := range []string{"udp", "rtp"} {
		p := port()
		var h Hub
		url := fmt.Sprintf("%s://127.0.0.1:%d", scheme, p)
		w := sender(t, "", fmt.Sprintf("127.0.0.1:%d", p))
		sent := 0
		send := func(n int) (list []string) {
			for range n {
				d := append([]byte{0x47}, fmt.Sprintf("%d%187s", sent, "")...)[:188]
				list = append(list, string(d))
				if scheme == "rtp" {
					d = rtpOf(sent, d)
				}
				w.Write(d)
				sent++
			}
			return list
		}
		equal := func(what string, got, want []string) {
			t.Helper()
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("%s, %s: %d datagrams, want %d", scheme, what, len(got), len(want))
			}
		}
		one := sharedOpen(t, &h, url)
		if scheme == "udp" && one.s.detacher == nil {
			t.Error("a udp source cannot leave its batch")
		}
		first := send(40)
		b, err := one.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if one.s.holder != one {
			t.Error("the only reader gets a copy")
		}
		held := b.Datagrams
		// Another comes while the first is busy with its batch.
		two := sharedOpen(t, &h, url)
		later := send(1000)
		got, _ := next(t, two, 1000-len(first)+len(held)+len(first)-len(held))
		equal("the second", got[len(got)-len(later)+0:], later)
		for k, d := range held {
			if string(d) != first[k] {
				t.Fatalf("%s: a batch that was delivered has changed", scheme)
			}
		}
		got, _ = next(t, one, len(first)-len(held)+len(later))
		equal("the first", got, append(first[len(held):], later...))
		// The first goes; the second reads alone.
		if err := one.Close(); err != nil {
			t.Error(err)
		}
		if _, err := one.Read(t.Context()); err == nil {
			t.Error("Read after Close")
		}
		more := send(5)
		got, _ = next(t, two, 5)
		equal("the second alone", got, more)
		if two.s.holder != two {
			t.Error("the only reader left gets a copy")
		}
		if st := two.Stats(); st.Packets != 1005 {
			t.Errorf("%s: %+v", scheme, st)
		}
		// With the last the socket is closed, and the address free.
		if err := errors.Join(two.Close(), two.Close()); err != nil {
			t.Error(err)
		}
		if len(h.open) != 0 {
			t.Error("it is still open")
		}
		open(t, url, Options{})
	}
}

// TestHubSlowReader lets one of three readers read nothing until far more has
// come than its queue holds.
func TestHubSlowReader(t *testing.T) {
	p := port()
	var h Hub
	url := fmt.Sprintf("udp://127.0.0.1:%d", p)
	slow, a, b := sharedOpen(t, &h, url), sharedOpen(t, &h, url+"?"), sharedOpen(t, &h, strings.Replace(url, "//", "//@", 1))
	w := sender(t, "", fmt.Sprintf("127.0.0.1:%d", p))
	d := make([]byte, 60000)
	const rounds, each = 20, 20 // 24 MB
	number := func(s string) int { return int(s[0]) | int(s[1])<<8 }
	for k := range rounds {
		for i := range each {
			n := k*each + i
			d[0], d[1] = byte(n), byte(n>>8)
			w.Write(d)
		}
		for _, r := range []*shareReader{a, b} {
			got, dropped := next(t, r, each)
			if dropped != 0 || number(got[0]) != k*each || number(got[each-1]) != k*each+each-1 {
				t.Fatalf("round %d: dropped %d, from %d", k, dropped, number(got[0]))
			}
		}
	}
	waiting := 0
	for _, it := range slow.queue {
		waiting += len(it.block.Datagrams)
	}
	if slow.size > shareMost || slow.size < shareMost*3/4 {
		t.Errorf("%d bytes wait", slow.size)
	}
	got, dropped := next(t, slow, waiting)
	if dropped != 0 || number(got[waiting-1]) != waiting-1 {
		t.Errorf("dropped %d, up to %d", dropped, number(got[waiting-1]))
	}
	w.Write([]byte("xx"))
	_, dropped = next(t, slow, 1)
	if lost := rounds*each - waiting; dropped != lost || slow.Stats().Dropped != uint64(lost) || a.Stats().Dropped != 0 {
		t.Errorf("dropped %d, %+v, want %d", dropped, slow.Stats(), lost)
	}
}

// Readers come and go while the stream runs: nobody misses what came while it
// was there.
func TestHubUnderRace(t *testing.T) {
	p := port()
	var h Hub
	url := fmt.Sprintf("udp://127.0.0.1:%d", p)
	keep := sharedOpen(t, &h, url)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		w := sender(t, "", fmt.Sprintf("127.0.0.1:%d", p))
		for n := uint32(0); ctx.Err() == nil; n++ {
			w.Write([]byte{byte(n), byte(n >> 8), byte(n >> 16)})
			if n%64 == 63 {
				time.Sleep(time.Millisecond)
			}
		}
	})
	number := func(d []byte) int { return int(d[0]) | int(d[1])<<8 | int(d[2])<<16 }
	read := func(s Source, batches int) {
		last := -1
		for range batches {
			b, err := s.Read(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			for _, d := range b.Datagrams {
				if last >= 0 && number(d) != last+1+int(b.Dropped) {
					t.Errorf("%d after %d, dropped %d", number(d), last, b.Dropped)
				}
				last, b.Dropped = number(d), 0
			}
		}
	}
	var readers sync.WaitGroup
	for k := range 4 {
		readers.Go(func() {
			for i := range 15 {
				s, err := h.Open(ctx, url, Options{})
				if err != nil {
					t.Error(err)
					return
				}
				if i%5 == k {
					short, stop := context.WithTimeout(ctx, time.Millisecond)
					s.Read(short) // gives up its turn
					stop()
				}
				read(s, 1+(i*k)%7)
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	read(keep, 100)
	readers.Wait()
	cancel()
	group.Wait()
}

// failing is a source that fails.
type failing struct{ Source }

func (failing) Read(context.Context) (*Batch, error) { return nil, io.ErrUnexpectedEOF }
func (failing) Close() error                         { return nil }
func (failing) Stats() Stats                         { return Stats{} }

func TestHubFailures(t *testing.T) {
	taken := port()
	open(t, fmt.Sprintf("udp://127.0.0.1:%d", taken), Options{})
	var h Hub
	var ue *URLError
	for range 2 {
		if _, err := h.Open(t.Context(), fmt.Sprintf("udp://127.0.0.1:%d", taken), Options{}); !errors.As(err, &ue) {
			t.Errorf("%v", err)
		}
	}
	if _, err := h.Open(t.Context(), "udp://127.0.0.1:1?program=0", Options{}); !errors.As(err, &ue) || len(h.open) != 0 {
		t.Errorf("%v", err)
	}
	// What is no datagrams passes through.
	s, err := h.Open(t.Context(), "-", Options{Stdin: strings.NewReader("x")})
	if err != nil {
		t.Fatal(err)
	}
	if _, is := s.(*shareReader); is {
		t.Error("standard input is shared")
	}
	// All readers hear of a failure, and the next Open opens anew.
	url := fmt.Sprintf("udp://127.0.0.1:%d", port())
	one, two := sharedOpen(t, &h, url), sharedOpen(t, &h, url)
	good := one.s.src
	one.s.src = failing{}
	for _, r := range []*shareReader{one, two} {
		if _, err := r.Read(t.Context()); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%v", err)
		}
	}
	good.Close()
	sharedOpen(t, &h, url)
}
