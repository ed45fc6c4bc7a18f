package ingest

import (
	"context"
	"time"

	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/hls"
)

// hlsPace delivers the newest segment of a live stream over the time that it
// lasts, as a live source would: the next is published about when it ends.
// What a later segment is there for already is delivered at once.
type hlsPace struct {
	clock    clock.Clock
	realtime bool // pace a stream that has ended too
	from     time.Time
	end      time.Time // when the segments so far end
	paced    bool
	live     bool
}

// segment begins the pace of a segment that lasts a time.
func (p *hlsPace) segment(d *hls.Delivery, lasts time.Duration) {
	now := p.clock.Now()
	p.live = d.Live
	p.paced = d.Live && d.Later == 0 || !d.Live && p.realtime
	p.from = now
	if !d.Live && p.end.After(now.Add(-lasts)) {
		p.from = p.end // one follows the other, however long the reads took
	}
	p.end = p.from.Add(lasts)
}

// wait waits until media at a time since the segment's begin is due. Live, it
// waits no longer once the next segment has come.
func (p *hlsPace) wait(ctx context.Context, at time.Duration, next <-chan *hls.Delivery) error {
	for p.paced {
		left := p.from.Add(at).Sub(p.clock.Now())
		if left <= 0 {
			break
		}
		if p.live && len(next) > 0 {
			p.paced = false
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.clock.After(min(left, 100*time.Millisecond)):
		}
	}
	return ctx.Err()
}

// hlsDates tells when media was made. Two nodes that pull one stream should
// agree within a second, whenever each fetched what: dates come from the
// stream's own (EXT-X-PROGRAM-DATE-TIME), or from when a segment was published,
// as its server says or as the playlist showed. Between, they go on with media
// time.
type hlsDates struct {
	target time.Duration

	begun bool
	start time.Time     // of the last segment
	span  time.Duration // of it, as the playlist says
	media int64         // its first time, ticks of 33 bits; below 0: none
	disc  uint64
}

// segment returns when a segment's media begins: media is its first time.
func (h *hlsDates) segment(d *hls.Delivery, media int64, now time.Time) time.Time {
	span := d.Duration
	if span == 0 {
		span = h.target
	}
	first, last := h.bounds(d, span)
	at := now
	switch {
	case !h.begun && !last.IsZero():
		at = first.Add(last.Sub(first) / 2)
	case h.begun:
		at = h.start.Add(h.step(d, media))
		if !last.IsZero() && at.After(last) {
			at = last
		}
		if !first.IsZero() && at.Before(first) {
			at = first
		}
	}
	h.begun, h.start, h.span, h.media, h.disc = true, at, span, media, d.Discontinuity
	return at
}

// bounds returns between which times a segment begins, as far as is known.
func (h *hlsDates) bounds(d *hls.Delivery, span time.Duration) (first, last time.Time) {
	switch {
	case !d.Live:
		return
	case !d.Date.IsZero():
		return d.Date, d.Date
	case !d.Published[1].IsZero():
		return d.Published[0].Add(-span), d.Published[1].Add(-span)
	}
	return
}

// step is the media time from the last segment's begin to this one's: by the
// media's own times where they go on.
func (h *hlsDates) step(d *hls.Delivery, media int64) time.Duration {
	by := h.span + time.Duration(d.Missing)*h.span
	if media >= 0 && h.media >= 0 && d.Discontinuity == h.disc {
		if step := ticksToDuration(media - h.media); step > 0 && step < 2*by+time.Second {
			return step
		}
	}
	return by
}

// ticksToDuration converts a difference of 33-bit times.
func ticksToDuration(d int64) time.Duration {
	const wrap = 1 << 33
	d &= wrap - 1
	if d >= wrap/2 {
		d -= wrap
	}
	return time.Duration(d * 100000 / 9)
}
