package ingest

import (
	"context"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twindvr/twindvr/pkg/hls"
	"github.com/twindvr/twindvr/pkg/mpegts"
)

// hlsSource delivers an HTTP live stream at the pace of its media.
//
// Segments that are a transport stream are delivered byte for byte, each as a
// splice: packagers may begin their counters anew with each. Segments of
// fragmented MP4, and of streams whose audio renditions have playlists of their
// own, are delivered as access units; the renditions become further tracks.
type hlsSource struct {
	opt    Options
	client *hls.Client
	stream *hls.Stream
	stats  hls.Stats
	last   atomic.Int64 // arrival of the last batch, Unix nanoseconds
	cancel context.CancelFunc
	wg     sync.WaitGroup
	lanes  []*hlsLane
	read   hlsReader // of the first segment's kind; nil before it

	dates hlsDates
	pace  hlsPace
	queue []hlsPiece // of the segment being delivered
	batch Batch
	out   [1][]byte
	err   error
}

// hlsReader turns the segments of the lanes into pieces.
type hlsReader interface {
	// next returns the next pieces, waiting for segments where it must.
	next(ctx context.Context) ([]hlsPiece, error)
}

// hlsPiece is a part of a segment that makes one batch.
type hlsPiece struct {
	at    time.Duration // of media, since the pace was set
	date  time.Time     // when it was made
	data  []byte
	make  func() []mpegts.Unit // or
	lost  int
	first bool // a transport stream segment begins here

	program   *mpegts.Program
	lostUnits bool
}

// hlsLane is one playlist being followed by a goroutine.
type hlsLane struct {
	f       *hls.Follower // the goroutine's, but for Rendition
	target  time.Duration // as it was when the playlist was opened
	arrived chan *hls.Delivery
	err     error         // after arrived was closed
	ended   bool          // it was
	held    *hls.Delivery // the last, until the next is waited for
	cancel  context.CancelFunc
}

// start begins to follow the playlists.
func (s *hlsSource) start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	if others := s.stream.Others; len(others) > 0 {
		s.opt.Log.Warn("renditions with playlists of their own are not recorded; of them only audio is", "types", strings.Join(others, ", "))
	}
	s.dates.target = s.stream.Main.Target()
	s.pace = hlsPace{clock: s.opt.Clock, realtime: s.opt.Realtime}
	for k, f := range append([]*hls.Follower{s.stream.Main}, s.stream.Audio...) {
		l := &hlsLane{f: f, target: f.Target(), arrived: make(chan *hls.Delivery, 1)}
		ctx, cancel := context.WithCancel(ctx)
		l.cancel = cancel
		s.lanes = append(s.lanes, l)
		s.wg.Go(func() { l.run(ctx, k == 0) })
	}
}

// run hands over segment after segment. Of the main playlist it finds out first
// when segments are published.
func (l *hlsLane) run(ctx context.Context, main bool) {
	defer close(l.arrived)
	for first := true; ; first = false {
		d, err := l.f.Next(ctx)
		if err == nil && main && first {
			err = l.f.Settle(ctx, d)
		}
		if err != nil {
			l.err = err
			return
		}
		select {
		case l.arrived <- d:
		case <-ctx.Done():
			d.Release()
			l.err = ctx.Err()
			return
		}
	}
}

// stop ends the following, and releases what has been fetched.
func (l *hlsLane) stop() {
	l.cancel()
	for d := range l.arrived {
		d.Release()
	}
	l.ended = true
	l.held.Release()
}

// wait returns the next segment of a lane, or nil once limit has passed.
// Below 0 there is no limit. The segment before it is released: by then all of
// it has been delivered.
func (l *hlsLane) wait(ctx context.Context, s *hlsSource, limit time.Duration) (*hls.Delivery, error) {
	l.held.Release()
	l.held = nil
	if l.ended {
		return nil, l.err
	}
	var timeout <-chan time.Time
	if limit >= 0 {
		select {
		case d, ok := <-l.arrived:
			return l.take(d, ok)
		default:
		}
		if limit == 0 {
			return nil, nil
		}
		timeout = s.opt.Clock.After(limit)
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case d, ok := <-l.arrived:
		return l.take(d, ok)
	case <-timeout:
		return nil, nil
	}
}

func (l *hlsLane) take(d *hls.Delivery, ok bool) (*hls.Delivery, error) {
	if !ok {
		l.ended = true
		return nil, l.err
	}
	l.held = d
	return d, nil
}

// Read implements Source.
func (s *hlsSource) Read(ctx context.Context) (*Batch, error) {
	for s.err == nil {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if len(s.queue) == 0 {
			pieces, err := s.more(ctx)
			switch {
			case err != nil && ctx.Err() != nil:
				return nil, ctx.Err()
			case err != nil:
				s.err = err
			}
			s.queue = pieces
			continue
		}
		p := &s.queue[0]
		if err := s.pace.wait(ctx, p.at, s.lanes[0].arrived); err != nil {
			return nil, err
		}
		b := s.deliver(p)
		s.queue = s.queue[1:]
		if b != nil {
			return b, nil
		}
	}
	return nil, s.err
}

// more returns the next pieces. What the first segment holds decides how all
// are read.
func (s *hlsSource) more(ctx context.Context) ([]hlsPiece, error) {
	if s.read != nil {
		return s.read.next(ctx)
	}
	d, err := s.lanes[0].wait(ctx, s, -1)
	if err != nil {
		return nil, err
	}
	if hls.IsMP4(d.Data) || len(s.lanes) > 1 || hls.IsPacked(d.Data) {
		r := newHLSUnits(s)
		s.read = r
		return nil, r.begin(d)
	}
	s.read = &hlsBytes{s: s, ready: d}
	return nil, nil
}

// deliver makes a batch of a piece; nil if there is nothing in it.
func (s *hlsSource) deliver(p *hlsPiece) *Batch {
	s.batch = Batch{Lost: uint32(p.lost), Splice: p.first, Program: p.program, LostUnits: p.lostUnits, Arrived: p.date}
	if p.data != nil {
		s.out[0] = p.data
		s.batch.Datagrams = s.out[:]
	}
	if p.make != nil {
		s.batch.Units = p.make()
	}
	s.last.Store(s.opt.Clock.Now().UnixNano())
	if p.data == nil && len(s.batch.Units) == 0 && p.lost == 0 && p.program == nil && !p.lostUnits {
		return nil
	}
	return &s.batch
}

// Close implements Source.
func (s *hlsSource) Close() error {
	s.cancel()
	for _, l := range s.lanes {
		l.stop()
	}
	s.wg.Wait()
	s.client.Close()
	s.queue, s.err = nil, io.ErrClosedPipe
	return nil
}

// Stats implements Source. Packets are segments.
func (s *hlsSource) Stats() Stats {
	return Stats{
		Packets: s.stats.Segments.Load(), Bytes: s.stats.Bytes.Load(), Lost: s.stats.Lost.Load(),
		Errors: s.stats.Errors.Load(), Reconnects: s.stats.Returns.Load(), LastArrival: timeOf(s.last.Load()),
	}
}
