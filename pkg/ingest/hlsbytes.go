package ingest

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twindvr/twindvr/pkg/hls"
)

// hlsGrain is how much media a piece holds at least: what is delivered at once,
// and has one time of arrival.
const hlsGrain = 100 * time.Millisecond

// hlsBytes reads segments that are a transport stream.
type hlsBytes struct {
	s     *hlsSource
	ready *hls.Delivery
}

func (r *hlsBytes) next(ctx context.Context) ([]hlsPiece, error) {
	d := r.ready
	r.ready = nil
	if d == nil {
		var err error
		if d, err = r.s.lanes[0].wait(ctx, r.s, -1); err != nil {
			return nil, err
		}
	}
	if hls.IsMP4(d.Data) {
		return nil, fmt.Errorf("segment %s is fragmented MP4, and those before were a transport stream", hls.Show(d.URL))
	}
	span := d.Duration
	if span == 0 {
		span = r.s.dates.target
	}
	marks := clockMarks(d.Data, span)
	media := int64(-1)
	if len(marks) > 0 {
		media = marks[0].pcr / 300
	}
	start := r.s.dates.segment(d, media, r.s.opt.Clock.Now())
	pieces := cutBytes(d.Data, span, marks)
	if len(d.Init) > 0 && d.Init[0] == 0x47 {
		// Tables that every segment is to be read with (RFC 8216 3.2).
		pieces = slices.Insert(pieces, 0, cutBytes(d.Init, 0, nil)...)
	}
	for k := range pieces {
		pieces[k].date = start.Add(pieces[k].at)
	}
	pieces[0].first, pieces[0].lost = true, d.Missing
	last := pieces[len(pieces)-1].at
	r.s.pace.segment(d, max(span, last))
	return pieces, nil
}

// clockMarks returns the program clock references of a segment's first clock,
// as far as they go forward within it.
func clockMarks(b []byte, span time.Duration) []pcrMark {
	var out []pcrMark
	var scan pcrScanner
	for {
		m, ok := scan.next(b)
		if !ok {
			return out
		}
		if len(out) > 0 {
			if m.pid != out[0].pid {
				continue
			}
			last := out[len(out)-1].pcr
			if d := since(last, m.pcr); d < 0 || since(out[0].pcr, m.pcr) > 2*span+time.Second {
				return out
			}
		}
		out = append(out, m)
	}
}

// since is the time from one program clock reference to another; below 0 when
// it goes back.
func since(from, to int64) time.Duration {
	d := (to - from + pcrWrap) % pcrWrap
	if d >= pcrWrap/2 {
		return -1
	}
	return time.Duration(d * 1000 / 27)
}

// cutBytes cuts a segment into pieces by its clock, or evenly where it has
// none. There is one piece at least, and none is longer than a megabyte.
func cutBytes(b []byte, span time.Duration, marks []pcrMark) []hlsPiece {
	pieces := []hlsPiece{{}}
	from := 0
	cut := func(off int, at time.Duration) {
		last := &pieces[len(pieces)-1]
		for off-from > blockSize {
			last.data = b[from : from+blockSize : from+blockSize]
			from += blockSize
			pieces = append(pieces, hlsPiece{at: last.at})
			last = &pieces[len(pieces)-1]
		}
		last.data = b[from:off:off]
		from = off
		if off < len(b) {
			pieces = append(pieces, hlsPiece{at: at})
		}
	}
	if len(marks) > 1 {
		for _, m := range marks[1:] {
			if at := since(marks[0].pcr, m.pcr); at >= pieces[len(pieces)-1].at+hlsGrain && m.off > from {
				cut(m.off, at)
			}
		}
	} else if n := int(span / hlsGrain); n > 1 {
		for k := 1; k < n; k++ {
			if off := len(b) / 188 * k / n * 188; off > from {
				cut(off, span*time.Duration(k)/time.Duration(n))
			}
		}
	}
	cut(len(b), 0)
	return pieces
}
