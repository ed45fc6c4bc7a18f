package testsrc

import (
	"context"
	"log/slog"
	"math"
	"time"

	"github.com/twindvr/twindvr/pkg/clock"
)

const (
	// sendGrid is the time between two wake-ups of the sender.
	sendGrid = 10 * time.Millisecond
	// maxLate is how late the sender may be and still catch up, with a burst
	// that receivers' buffers hold. An encoder's clock does not stop when its
	// machine stalls: a stream that went on from then would drift from UTC
	// by the stall.
	maxLate = 5 * time.Second
)

// SendOptions say how to send. The zero value sends in real time.
type SendOptions struct {
	Unpaced bool        // as fast as the outputs take it
	Clock   clock.Clock // nil means clock.System
	Log     *slog.Logger
}

// Send sends the stream to all outputs until its end or the end of the
// context, neither of which is an error.
func Send(ctx context.Context, g *Generator, outputs []*Output, opt SendOptions) error {
	if opt.Clock == nil {
		opt.Clock = clock.System
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	start := opt.Clock.Now()
	p, due, ok := g.Next()
	var list [][]byte
	for ok && ctx.Err() == nil {
		now := opt.Clock.Now().Sub(start)
		if opt.Unpaced {
			now = math.MaxInt64
		}
		for list = list[:0]; ok && due <= now && len(list) < 4*sendSlots; p, due, ok = g.Next() {
			list = append(list, p)
		}
		for _, o := range outputs {
			if err := o.Send(list); err != nil {
				return err
			}
		}
		if !ok || opt.Unpaced || due <= now {
			continue
		}
		if late := pause(ctx, opt.Clock, start, due); late > maxLate {
			opt.Log.Warn("test stream late, going on from now", "late", late)
			start = start.Add(late)
		}
	}
	return nil
}

// pause waits for the wake-up at or after due, and returns how late it was.
func pause(ctx context.Context, clk clock.Clock, start time.Time, due time.Duration) time.Duration {
	at := start.Add((due + sendGrid - 1) / sendGrid * sendGrid)
	if d := at.Sub(clk.Now()); d > 0 {
		select {
		case <-clk.After(d):
		case <-ctx.Done():
		}
	}
	return clk.Now().Sub(at)
}
