package ingest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/segment"
)

// fakeSource delivers what it is sent. A nil batch is io.EOF.
type fakeSource struct {
	batches chan *Batch
	err     error
	entered chan bool // when set, each Read tells that it has begun
}

func (s *fakeSource) Read(ctx context.Context) (*Batch, error) {
	if s.entered != nil {
		s.entered <- true
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case b := <-s.batches:
		if b == nil {
			if s.err != nil {
				return nil, s.err
			}
			return nil, io.EOF
		}
		return b, nil
	}
}

func (s *fakeSource) Close() error { return nil }
func (s *fakeSource) Stats() Stats { return Stats{} }

var start = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// pumping starts Pump and returns where its result will be.
func pumping(ctx context.Context, src Source, opt PumpOptions) (<-chan error, *segment.Segmenter) {
	seg := segment.New(segment.Config{Clock: opt.Clock}, func(*m4f.Segment) {})
	done := make(chan error, 1)
	go func() { done <- Pump(ctx, src, seg, opt) }()
	return done, seg
}

func (s *fakeSource) send(at time.Time, b []byte) {
	s.batches <- &Batch{Datagrams: [][]byte{b}, Arrived: at}
}

func TestPumpEnds(t *testing.T) {
	broken := errors.New("the cable is cut")
	for _, want := range []error{nil, broken} {
		src := &fakeSource{batches: make(chan *Batch, 1), err: want}
		src.batches <- nil
		done, _ := pumping(t.Context(), src, PumpOptions{Clock: clock.NewSim(start)})
		if err := <-done; err != want {
			t.Errorf("%v, want %v", err, want)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	done, _ := pumping(ctx, &fakeSource{}, PumpOptions{})
	cancel(broken)
	if err := <-done; err != broken {
		t.Errorf("%v, want the context's cause", err)
	}
}

func TestPumpSilence(t *testing.T) {
	sim := clock.NewSim(start)
	src := &fakeSource{batches: make(chan *Batch), entered: make(chan bool)}
	back := make(chan bool, 1)
	done, _ := pumping(t.Context(), src, PumpOptions{Clock: sim, Silence: 10 * time.Second, FirstSilence: time.Minute, First: func() { back <- true }})
	<-src.entered
	sim.Advance(59 * time.Second)
	src.send(sim.Now(), make([]byte, 188))
	<-back
	<-src.entered
	// A batch every nine seconds is no silence.
	for range 5 {
		sim.Advance(9 * time.Second)
		src.send(sim.Now(), make([]byte, 188))
		<-src.entered
	}
	wantSilence(t, sim, done, 10*time.Second)
}

// wantSilence lets time pass until Pump has found the source silent.
func wantSilence(t *testing.T, sim *clock.Sim, done <-chan error, want time.Duration) {
	t.Helper()
	for {
		sim.Advance(time.Second)
		select {
		case err := <-done:
			var silent *SilentError
			if !errors.As(err, &silent) || silent.For != want {
				t.Fatalf("%v, want silence of %v", err, want)
			}
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func TestPumpFirstSilence(t *testing.T) {
	sim := clock.NewSim(start)
	done, _ := pumping(t.Context(), &fakeSource{}, PumpOptions{Clock: sim, FirstSilence: 3 * time.Second})
	wantSilence(t, sim, done, 3*time.Second)
}

// A source that delivers, and of which nothing can be recorded, is told of once.
func TestPumpDiagnoses(t *testing.T) {
	sim := clock.NewSim(start)
	var log bytes.Buffer
	src := &fakeSource{batches: make(chan *Batch)}
	done, _ := pumping(t.Context(), src, PumpOptions{Clock: sim, Log: slog.New(slog.NewTextHandler(&log, nil))})
	for k := range 40 {
		src.send(start.Add(time.Duration(k)*time.Second), bytes.Repeat([]byte("no packets "), 100))
	}
	src.batches <- nil
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "not an MPEG transport stream") {
		t.Errorf("%d lines: %s", n, &log)
	}
}

// Endless input that is no transport stream is given up on.
func TestPumpGivesUp(t *testing.T) {
	src := &fakeSource{batches: make(chan *Batch)}
	done, _ := pumping(t.Context(), src, PumpOptions{GiveUp: true})
	junk := bytes.Repeat([]byte("x"), 1<<20)
	for {
		select {
		case err := <-done:
			if !errors.Is(err, segment.ErrNotTransportStream) {
				t.Errorf("%v, want ErrNotTransportStream", err)
			}
			return
		case src.batches <- &Batch{Datagrams: [][]byte{junk}, Arrived: start}:
		}
	}
}

// Drops reach the segmenter ahead of the datagrams behind them, as the packets
// that they may have held: of a multiplex, a datagram that held none of a
// program damages nothing of it, and one that did does.
func TestPumpDrops(t *testing.T) {
	list := multiplex(t, 3, 6*time.Second)
	want := programSegments(2, list)
	for _, lost := range []func(b *Batch, n uint32){
		func(b *Batch, n uint32) { b.Dropped = n },
		func(b *Batch, n uint32) { b.Lost = n },
	} {
		for n := uint32(1); n <= 3; n += 2 {
			for at, mine := len(list)/2, 0; mine < 2; at++ {
				own := false
				for _, d := range list[at : at+int(n)] {
					for p := d; len(p) > 0; p = p[188:] {
						pid := int(p[1]&31)<<8 | int(p[2])
						own = own || pid == 0 || pid>>8 == 2
					}
				}
				if own {
					mine++
				} else if n > 1 {
					continue
				}
				src := &fakeSource{batches: make(chan *Batch, len(list)+1)}
				gap := uint32(0)
				for k, d := range list {
					if k >= at && k < at+int(n) {
						gap++
						continue
					}
					b := &Batch{Datagrams: [][]byte{d}, Arrived: start}
					lost(b, gap)
					gap = 0
					src.batches <- b
				}
				src.batches <- nil
				r := recordProgram(t, src, 2)
				r.wait(t)
				// Three are 21 packets, which a counter may not show.
				if same := strings.Join(r.segments, "\n") == strings.Join(want, "\n"); same != (!own && n < 3) {
					t.Errorf("%d datagrams lost, own %v: %q", n, own, r.segments)
				}
			}
		}
	}
}
