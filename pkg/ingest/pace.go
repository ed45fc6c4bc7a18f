package ingest

import (
	"context"
	"log/slog"
	"time"

	"github.com/twindvr/twindvr/pkg/clock"
)

const (
	// maxPCRStep is the largest step of the program clock reference that is
	// waited for. Anything else, back or forth, is a new timeline, which
	// begins where the one before ended.
	maxPCRStep = 3 * pcrSecond
	// paceAhead is how much early a block may be: the wake-ups are this far
	// apart at least.
	paceAhead = 20 * time.Millisecond
	// foreignPCRs without one of the chosen PID, and the next PID is taken.
	foreignPCRs = 100
	// noPCRAfter bytes without any, and the operator hears of it.
	noPCRAfter = 8 << 20
)

// Pace returns src delivered at the speed that its program clock references
// tell, as if it were live: bytes of a file come when an encoder would have
// sent them. Where the clock jumps, the rest follows at once. A stream without
// clock references is delivered as fast as it can be read, which one log line
// says. Only blocks are paced (files, pipes), not datagrams.
func Pace(src Source, opt Options) Source {
	opt = opt.withDefaults()
	return &pacer{Source: src, clock: opt.Clock, log: opt.Log}
}

const (
	// bodyBurst is how much media the body of an HTTP answer may be ahead of
	// its time: servers of live streams begin with what they hold.
	bodyBurst = 5 * time.Second
	// bodyHaste is by which part a body may be faster than its clock references
	// tell: a sender's clock that runs fast must not fill the buffers on the way.
	bodyHaste = 1000
	// endless is the shortest length in bytes that stands for "no end".
	endless = 1 << 40
)

// paceBody paces the body of an HTTP answer of length bytes (-1: not known).
// What comes as it is made is never held up; a recording that the server sends
// as fast as it can comes as from a file.
func paceBody(src Source, length int64, opt Options) Source {
	p := &pacer{Source: src, clock: opt.Clock, log: opt.Log, haste: bodyHaste}
	if length < 0 || length >= endless {
		p.burst = bodyBurst
	}
	return p
}

type pacer struct {
	Source
	clock clock.Clock
	log   *slog.Logger
	burst time.Duration // how early the stream may be
	haste time.Duration // 1 in haste of every step is not waited for; 0: all is
	scan  pcrScanner

	block   []byte
	done    int     // of the block, bytes delivered
	mark    pcrMark // the latest
	waiting bool    // for the time of mark

	started bool
	pid     uint16
	pcr     int64     // of the latest mark
	due     time.Time // of the latest mark
	foreign int       // marks of other PIDs in a row
	without int       // bytes before the first mark; below 0: it has been said

	out   [1][]byte
	batch Batch
}

// Read implements Source.
func (p *pacer) Read(ctx context.Context) (*Batch, error) {
	for {
		if p.done == len(p.block) {
			b, err := p.Source.Read(ctx)
			if err != nil {
				return nil, err
			}
			p.block, p.done = b.Datagrams[0], 0
		}
		if end := p.ready(); end > p.done {
			return p.deliver(end), nil
		}
		wait := max(p.due.Sub(p.clock.Now()), paceAhead)
		select {
		case <-p.clock.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// deliver makes a batch of the block's bytes up to end.
func (p *pacer) deliver(end int) *Batch {
	p.out[0] = p.block[p.done:end:end]
	p.done = end
	p.batch = Batch{Datagrams: p.out[:], Arrived: p.clock.Now()}
	return &p.batch
}

// ready returns where the bytes of the block end that are due: at the first
// mark that is not.
func (p *pacer) ready() int {
	limit := p.clock.Now().Add(paceAhead)
	for {
		if !p.waiting {
			m, ok := p.scan.next(p.block)
			if !ok {
				p.missing(len(p.block))
				return len(p.block)
			}
			if !p.follow(m) {
				continue
			}
			p.mark, p.waiting = m, true
		}
		if p.due.After(limit) {
			return p.mark.off
		}
		p.waiting = false
	}
}

// follow takes a mark into account and says whether it tells the time.
func (p *pacer) follow(m pcrMark) bool {
	if p.started && m.pid != p.pid {
		if p.foreign++; p.foreign < foreignPCRs {
			return false
		}
		p.started = false
	}
	p.foreign = 0
	step := (m.pcr - p.pcr + pcrWrap) % pcrWrap
	switch {
	case p.due.IsZero():
		p.due = p.clock.Now().Add(-p.burst)
	case !p.started || m.jump || step > maxPCRStep:
		// The next timeline follows the last at once.
	default:
		d := time.Duration(step * 1000 / 27)
		if p.haste > 0 {
			d -= d / p.haste
		}
		p.due = p.due.Add(d)
	}
	p.started, p.pid, p.pcr = true, m.pid, m.pcr
	return true
}

// missing notes bytes without a mark behind them.
func (p *pacer) missing(n int) {
	if p.started || p.without < 0 {
		return
	}
	if p.without += n; p.without >= noPCRAfter {
		p.without = -1
		p.log.Warn("no program clock reference in the source, so it is not paced", "bytes", noPCRAfter)
	}
}
