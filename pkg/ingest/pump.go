package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/mpegts"
	"github.com/twindvr/twindvr/pkg/segment"
)

const (
	// diagnoseAfter is how long a source may deliver and give no segment
	// before the operator hears why.
	diagnoseAfter = 10 * time.Second
	// hopeless is how many bytes that are no packets make Pump give up on
	// input that has given nothing else.
	hopeless = 16 << 20
)

// PumpOptions say how a source is watched. The zero value watches nothing.
type PumpOptions struct {
	// Silence is how long the source may deliver nothing, once it has
	// delivered something; 0: for ever. Time that the segments' taker takes
	// does not count.
	Silence time.Duration
	// FirstSilence is how long it may take to deliver the first bytes; 0: for
	// ever.
	FirstSilence time.Duration
	// GiveUp ends with segment.ErrNotTransportStream when 16 MiB have held
	// nothing like it. It is for input that nobody will change: a file.
	GiveUp bool
	// First, when set, is called with the first batch.
	First func()
	// Clock measures silence; nil means clock.System.
	Clock clock.Clock
	// Log gets what the operator should know; nil means slog.Default().
	Log *slog.Logger
}

// SilentError is a source that has delivered nothing for a time.
type SilentError struct{ For time.Duration }

func (e *SilentError) Error() string { return fmt.Sprintf("no data for %v", e.For) }

// Pump hands what src delivers to seg, losses included, until the source ends
// (nil), fails (its error), is silent (*SilentError) or ctx ends (its cause).
// It closes neither. It says once, in the log, why a source that delivers has
// given no segment, and why segments could not be built.
func Pump(ctx context.Context, src Source, seg *segment.Segmenter, opt PumpOptions) error {
	if opt.Clock == nil {
		opt.Clock = clock.System
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	w := &silence{opt: &opt, start: opt.Clock.Now(), done: make(chan struct{})}
	go w.watch(ctx, cancel)
	defer func() {
		cancel(nil)
		<-w.done
	}()
	p := pump{opt: &opt, src: src, seg: seg, silence: w}
	for {
		if err := p.step(ctx); err != nil {
			if cause := context.Cause(ctx); cause != nil && errors.Is(err, ctx.Err()) {
				return cause
			}
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

// idle is for how long a source has delivered nothing when what came last is
// taken for the end of something.
const idle = 500 * time.Millisecond

// Finish closes a segmenter after Pump has returned err. Where the source ended
// or had fallen silent, what came last is taken for whole; where the recorder
// ends in mid-stream, a picture of which a part has come is left out.
func Finish(seg *segment.Segmenter, src Source, err error) {
	var silent *SilentError
	if err == nil || errors.As(err, &silent) || time.Since(src.Stats().LastArrival) > idle {
		seg.Close()
	} else {
		seg.Interrupt()
	}
}

// pump is one run of Pump.
type pump struct {
	opt     *PumpOptions
	src     Source
	seg     *segment.Segmenter
	silence *silence
	most    int // packets in a datagram, of all so far

	first  time.Time // arrival of the first batch
	told   bool      // why there is no segment
	failed error     // the last segment that could not be built, as logged
}

// step moves one batch.
func (p *pump) step(ctx context.Context) error {
	p.silence.reading(true)
	b, err := p.src.Read(ctx)
	p.silence.reading(false)
	if err != nil {
		return err
	}
	if p.first.IsZero() {
		p.first = b.Arrived
		p.silence.heard.Store(true)
		if p.opt.First != nil {
			p.opt.First()
		}
	}
	p.hand(b)
	return p.look(b.Arrived)
}

// hand gives a batch to the segmenter.
func (p *pump) hand(b *Batch) {
	if b.Splice {
		p.seg.Splice()
	}
	for _, d := range b.Datagrams {
		p.most = max(p.most, (len(d)+mpegts.PacketSize-1)/mpegts.PacketSize)
	}
	p.seg.Drops((int(b.Dropped) + int(b.Lost)) * p.most)
	for _, d := range b.Datagrams {
		p.seg.WriteAt(d, b.Arrived)
	}
	if b.Program != nil {
		p.seg.SetProgram(b.Program)
	}
	if b.LostUnits {
		p.seg.LostUnits(0, 1)
	}
	for _, pid := range b.LostPIDs {
		p.seg.LostUnits(pid, 1)
	}
	for k := range b.Units {
		p.seg.WriteUnit(&b.Units[k], b.Arrived)
	}
}

// look sees what has become of the batches so far.
func (p *pump) look(now time.Time) error {
	st := p.seg.Stats()
	if st.Err != nil && st.Err != p.failed {
		p.failed = st.Err
		p.opt.Log.Error("a segment could not be written", "error", st.Err)
	}
	if st.Segments > 0 {
		return nil
	}
	if p.opt.GiveUp && st.Garbage > hopeless && st.Packets < st.Garbage/hopeless*64 {
		return fmt.Errorf("%w: %d bytes that are no packets, %d packets", segment.ErrNotTransportStream, st.Garbage, st.Packets)
	}
	if !p.told && now.Sub(p.first) >= diagnoseAfter {
		if err := p.seg.Diagnose(); err != nil {
			p.told = true
			p.opt.Log.Warn("the source delivers, and nothing of it can be recorded", "reason", err)
		}
	}
	return nil
}

// silence watches for a source that delivers nothing.
type silence struct {
	opt   *PumpOptions
	start time.Time
	// since is when the read under way began, as a duration after start; -1:
	// none is under way.
	since atomic.Int64
	heard atomic.Bool
	done  chan struct{}
}

func (s *silence) reading(begins bool) {
	at := int64(-1)
	if begins {
		at = int64(s.opt.Clock.Now().Sub(s.start))
	}
	s.since.Store(at)
}

// limit is how long a read may take just now.
func (s *silence) limit() time.Duration {
	if s.heard.Load() {
		return s.opt.Silence
	}
	return s.opt.FirstSilence
}

const (
	// nap is how long the watcher sleeps at most, and oversleep by how much more
	// it has slept when the process was stopped: a machine that has no time for
	// it, SIGSTOP, a debugger. What came meanwhile is in the socket's buffer.
	nap       = time.Second
	oversleep = time.Second
)

// sleep waits and says whether the process stood still meanwhile. A simulated
// clock's does not.
func (s *silence) sleep(ctx context.Context, d time.Duration) (stopped bool) {
	real := s.opt.Clock == clock.System
	if real {
		d = min(d, nap)
	}
	before := time.Now()
	select {
	case <-ctx.Done():
	case <-s.opt.Clock.After(max(d, time.Millisecond)):
	}
	return real && time.Since(before) > d+oversleep
}

// watch ends the context once a read has taken too long. A read that went on
// while the process stood still begins anew then.
func (s *silence) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	defer close(s.done)
	if s.opt.Silence == 0 && s.opt.FirstSilence == 0 {
		return
	}
	for {
		limit, since := s.limit(), s.since.Load()
		left := limit
		switch {
		case limit == 0: // until the first bytes have come
			left = s.opt.Silence
		case since >= 0:
			left = limit - (s.opt.Clock.Now().Sub(s.start) - time.Duration(since))
			if left <= 0 {
				// A read that has ended meanwhile is no silence.
				if s.since.Load() == since {
					cancel(&SilentError{limit})
					return
				}
				left = limit
			}
		}
		if stopped := s.sleep(ctx, left); ctx.Err() != nil {
			return
		} else if since := s.since.Load(); stopped && since >= 0 {
			s.since.CompareAndSwap(since, int64(s.opt.Clock.Now().Sub(s.start)))
		}
	}
}
