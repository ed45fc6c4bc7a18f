package hls

import (
	"context"
	"errors"
	"io"
	"net/url"
	"path"
	"time"
)

const (
	// maxBacklog is how far before the end of a live playlist it is begun at
	// most. Nearly all list less, so that all they list is taken.
	maxBacklog = 5 * time.Minute
	// maxAge is how old what a live playlist lists may be by its dates.
	maxAge = 3 * maxBacklog
	// maxMissing segments between two loads, and the numbers have begun anew.
	maxMissing = 10_000
	// remembered are the segments taken last whose names are known.
	remembered = 64

	firstRetry = 250 * time.Millisecond
	lastRetry  = 2 * time.Second
	// A segment that a playlist lists and the server does not give is lost
	// after a target duration, and after three when the server fails otherwise.
	leastPatience = 2 * time.Second
	mostPatience  = 30 * time.Second
)

// Delivery is one segment, fetched whole.
type Delivery struct {
	Segment
	Data []byte // decrypted
	// Init is the media initialization section; the same slice as long as it
	// does not change; nil for a transport stream.
	Init []byte
	// Missing counts the segments that should have come before this one and
	// never did.
	Missing int
	// Later counts the segments that are listed behind it.
	Later int
	// Live says that the playlist had no end when the segment was taken.
	Live bool
	// Published is when the segment became available: not before the first,
	// not after the second. Both are zero where nothing tells.
	Published [2]time.Time

	claim *claim
}

// Release says that Data is not needed any more. All segments of a stream that
// have not been released have bounded memory between them: when it is used up,
// segments that are fetched ahead wait, and those of which more would be held
// are lost.
func (d *Delivery) Release() {
	if d != nil && d.claim != nil {
		d.Data = nil
		d.claim.release()
	}
}

// Follower follows one media playlist. It is used by one goroutine, except for
// Rendition.
type Follower struct {
	client    *Client
	opt       Options
	url       *url.URL
	resolve   func(context.Context) (*url.URL, error) // the URL anew; nil: it cannot be had
	rendition *Rendition
	keys      keys
	lane      lane
	initOf    string
	init      []byte

	list    *Media
	next    uint64 // media sequence number
	missing int    // before it
	names   map[uint64]string
	back    time.Time // since when the playlist ends before next

	loaded  time.Time // when the last load began
	changed bool      // by it
	failed  int       // loads failed since the last that did not
	sights  sightings
	undated bool // it was told that dates are not used
}

func newFollower(c *Client, u *url.URL, opt Options) *Follower {
	return &Follower{client: c, opt: opt, url: u, keys: keys{client: c}, names: map[uint64]string{}}
}

// Rendition returns the audio rendition that is followed, or nil for a variant.
func (f *Follower) Rendition() *Rendition { return f.rendition }

// Target returns the target duration.
func (f *Follower) Target() time.Duration { return f.list.Target }

// fetch loads the playlist.
func (f *Follower) fetch(ctx context.Context) (*Playlist, error) {
	f.loaded = f.opt.Clock.Now()
	got, err := f.client.get(ctx, f.url, nil, maxPlaylist, playlistTimeout, nil)
	if err != nil {
		return nil, err
	}
	return Parse(got.body, got.url)
}

// begin takes the first list: at its oldest segment, or five minutes from its
// end where it is live and longer.
func (f *Follower) begin(m *Media) error {
	k := 0
	if !m.Ended {
		var behind time.Duration
		for k = len(m.Segments); k > 0 && behind < maxBacklog; k-- {
			behind += max(m.Segments[k-1].Duration, time.Millisecond)
		}
	}
	f.list, f.next, f.changed = m, m.Sequence+uint64(k), true
	f.sights.first(m, f.loaded, f.opt.Clock.Now())
	return nil
}

// Next waits for the next segment. It returns io.EOF behind the last of a
// playlist that has ended, the context's error, or an error that trying again
// does not help against.
func (f *Follower) Next(ctx context.Context) (*Delivery, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if s := f.find(f.next); s != nil {
			d, err := f.take(ctx, s)
			if d != nil || err != nil {
				return d, err
			}
			continue
		}
		if f.list.Ended && f.back.IsZero() {
			return nil, io.EOF
		}
		if err := f.pause(ctx, f.due()); err != nil {
			return nil, err
		}
		if _, err := f.reload(ctx); err != nil {
			return nil, err
		}
	}
}

// find returns the listed segment of a number.
func (f *Follower) find(n uint64) *Segment {
	if n < f.list.Sequence || n-f.list.Sequence >= uint64(len(f.list.Segments)) {
		return nil
	}
	return &f.list.Segments[n-f.list.Sequence]
}

// due returns how long it is until the playlist may be loaded again (RFC 8216
// 6.3.4): a target duration from the last load, half of it when that brought
// nothing, and a growing while after failures.
func (f *Follower) due() time.Duration {
	wait := f.list.Target
	switch {
	case f.failed > 0:
		wait = min(firstRetry<<min(f.failed-1, 10), lastRetry)
	case f.sights.sharpening(f.opt.Clock.Now()):
		wait = step(f.list.Target)
	case !f.changed:
		wait /= 2
	}
	return f.loaded.Add(wait).Sub(f.opt.Clock.Now())
}

func (f *Follower) pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-f.opt.Clock.After(d):
		return nil
	}
}

// reload loads the playlist again. A load that fails is no error, and false:
// it is tried again. What is returned is beyond hope.
func (f *Follower) reload(ctx context.Context) (bool, error) {
	before := f.loaded
	p, err := f.fetch(ctx)
	if err == nil && p.Media == nil {
		err = &PlaylistError{Show(f.url), errors.New("it lists variants where it listed segments")}
	}
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case errors.Is(err, ErrEncrypted):
		return false, err
	case err != nil:
		f.fails(ctx, err)
		return false, nil
	}
	if f.failed > 0 {
		f.opt.Stats.Returns.Add(1)
		f.opt.Log.Info("the playlist can be had again", "url", Show(f.url), "failures", f.failed)
		f.failed = 0
	}
	f.accept(p.Media, before)
	return true, nil
}

// fails takes note of a load that has failed.
func (f *Follower) fails(ctx context.Context, err error) {
	f.opt.Stats.Errors.Add(1)
	f.failed++
	if f.failed == 1 {
		f.opt.Log.Warn("a playlist cannot be had; trying again", "url", Show(f.url), "err", err)
	}
	var status *StatusError
	if f.resolve == nil || !errors.As(err, &status) || !status.gone() {
		return
	}
	u, err := f.resolve(ctx)
	if err != nil {
		return // the multivariant playlist fails too: both are tried again
	}
	f.url = u
}

// accept takes a newly loaded list in the place of the last. before is when the
// load of that began.
func (f *Follower) accept(m *Media, before time.Time) {
	old := f.list
	f.changed = m.Ended != old.Ended || m.Sequence != old.Sequence || len(m.Segments) != len(old.Segments)
	now := f.opt.Clock.Now()
	end, oldEnd := m.Sequence+uint64(len(m.Segments)), old.Sequence+uint64(len(old.Segments))
	switch {
	case len(m.Segments) == 0:
		// Nothing is listed, as while a packager starts.
	case f.next < m.Sequence && m.Sequence-f.next > maxMissing:
		f.renumber(m)
		oldEnd = 0
	case f.next < m.Sequence:
		f.lose(m.Sequence-f.next, "they left the playlist before they could be fetched")
		f.next = m.Sequence
	case f.next > end:
		if f.back.IsZero() {
			f.back = now
		}
		// A cache may give an older list for a while.
		if !f.others(m) && now.Sub(f.back) < 2*m.Target {
			f.list = m
			return
		}
		f.renumber(m)
		oldEnd = 0
	}
	f.back = time.Time{}
	f.list = m
	f.sights.see(m, oldEnd, before, f.loaded, now)
}

// others says whether a list has other segments under the numbers of some that
// were taken.
func (f *Follower) others(m *Media) bool {
	for k := range m.Segments {
		s := &m.Segments[k]
		if name, ok := f.names[s.Number]; ok && name != nameOf(s) {
			return true
		}
	}
	return false
}

// nameOf is what a segment is known by: tokens in queries and paths may change.
func nameOf(s *Segment) string { return path.Base(s.URL.Path) }

// renumber begins at the oldest segment of a list whose numbers have nothing to
// do with those before: the packager was restarted. What it did not get to list
// is lost.
func (f *Follower) renumber(m *Media) {
	f.opt.Log.Warn("the playlist's numbers begin anew", "url", Show(f.url), "expected", f.next, "from", m.Sequence)
	f.opt.Stats.Lost.Add(1)
	f.missing++
	f.next = m.Sequence
	clear(f.names)
	f.sights.forget()
}

// lose gives n segments from the next on up.
func (f *Follower) lose(n uint64, why string) {
	f.opt.Log.Warn("segments are lost", "url", Show(f.url), "from", f.next, "count", n, "reason", why)
	f.opt.Stats.Lost.Add(n)
	f.missing += int(n)
}

// take fetches the segment that is next. It returns nil when it has been given
// up.
func (f *Follower) take(ctx context.Context, s *Segment) (*Delivery, error) {
	if s.Gap {
		f.lose(1, "the server says that it has not got it (EXT-X-GAP)")
		f.next++
		return nil, nil
	}
	var since time.Time // of the first failure
	for try := 0; ; try++ {
		d, err := f.get(ctx, s)
		switch {
		case err == nil:
			f.taken(d)
			return d, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
		f.opt.Stats.Errors.Add(1)
		now := f.opt.Clock.Now()
		if since.IsZero() {
			since = now
			f.opt.Log.Warn("a segment cannot be had; trying again", "url", Show(s.URL), "number", s.Number, "err", err)
		}
		if err := f.pause(ctx, min(firstRetry<<min(try, 10), lastRetry)); err != nil {
			return nil, err
		}
		if f.due() <= 0 {
			ok, err := f.reload(ctx)
			if err != nil {
				return nil, err
			}
			if !ok {
				since = f.opt.Clock.Now() // the server is away altogether
			}
		}
		if f.next != s.Number || f.back.IsZero() && f.find(f.next) == nil {
			return nil, nil // it is listed no more: told already
		}
		if !f.back.IsZero() {
			continue
		}
		s = f.find(f.next)
		if f.opt.Clock.Now().Sub(since) >= f.patience(err) {
			f.lose(1, "the server lists it and does not give it")
			f.next++
			return nil, nil
		}
	}
}

// patience is how long a segment is asked for that cannot be had.
func (f *Follower) patience(err error) time.Duration {
	var status *StatusError
	if errors.As(err, &status) && status.gone() {
		return max(f.list.Target, leastPatience)
	}
	return min(max(3*f.list.Target, 5*leastPatience), mostPatience)
}

// get fetches a segment and what it takes to read it.
func (f *Follower) get(ctx context.Context, s *Segment) (*Delivery, error) {
	init, err := f.initFor(ctx, s)
	if err != nil {
		return nil, err
	}
	limit := int64(maxSegment)
	if f.rendition != nil {
		limit = maxAudio
	}
	c := f.client.budget.claim(&f.lane)
	got, err := f.client.get(ctx, s.URL, s.Range, limit, max(segmentTimeout, 5*f.list.Target), c)
	if err != nil {
		c.release()
		return nil, err
	}
	n := len(got.body)
	data, err := f.keys.decrypt(ctx, s.Key, s.Number, got.body)
	if err != nil {
		c.release()
		return nil, err
	}
	c.whole()
	f.opt.Stats.Segments.Add(1)
	f.opt.Stats.Bytes.Add(uint64(n))
	d := &Delivery{Segment: *s, Data: data, Init: init, Live: !f.list.Ended, claim: c}
	d.Later = int(f.list.Sequence + uint64(len(f.list.Segments)) - s.Number - 1)
	if d.Live {
		now := f.opt.Clock.Now()
		d.Published = f.sights.of(s.Number, got, now)
		f.dropDate(d, now)
	}
	return d, nil
}

// dropDate drops the date of a segment where the newest that is listed cannot be
// that of a live stream: of a recording that is played out, or by a clock that
// is ahead.
func (f *Follower) dropDate(d *Delivery, now time.Time) {
	if len(f.list.Segments) == 0 {
		return
	}
	last := &f.list.Segments[len(f.list.Segments)-1]
	age := now.Sub(last.Date.Add(last.Duration))
	if last.Date.IsZero() || age > -maxSkew && age < maxAge {
		return
	}
	if !f.undated {
		f.undated = true
		f.opt.Log.Warn("the playlist's dates are not those of a live stream and are not used", "url", Show(f.url), "date", last.Date, "now", now)
	}
	d.Date = time.Time{}
}

// initFor returns the media initialization section of a segment.
func (f *Follower) initFor(ctx context.Context, s *Segment) ([]byte, error) {
	if s.Init == nil {
		return nil, nil
	}
	name := s.Init.name()
	if name == f.initOf {
		return f.init, nil
	}
	got, err := f.client.get(ctx, s.Init.URL, s.Init.Range, maxInit, playlistTimeout, nil)
	if err != nil {
		return nil, err
	}
	b, err := f.keys.decrypt(ctx, s.Init.Key, s.Number, got.body)
	if err != nil {
		return nil, err
	}
	f.init, f.initOf = b, name
	return b, nil
}

// taken goes on to the next number.
func (f *Follower) taken(d *Delivery) {
	d.Missing, f.missing = f.missing, 0
	f.names[d.Number] = nameOf(&d.Segment)
	delete(f.names, d.Number-remembered)
	f.next = d.Number + 1
	f.sights.taken(d.Number)
}

// Settle narrows down when a live stream's segments are published, where
// neither the playlist nor the server tells: it looks often until one more is
// listed, for six seconds or a target duration at most. d is the first
// segment, whose Published it corrects.
func (f *Follower) Settle(ctx context.Context, d *Delivery) error {
	if !f.sights.blunt(d, f.list) {
		return nil
	}
	f.sights.sharpen(f.opt.Clock.Now())
	until := f.opt.Clock.Now().Add(min(maxSharpening, f.list.Target))
	for f.sights.sharpening(f.opt.Clock.Now()) && f.opt.Clock.Now().Before(until) {
		if err := f.pause(ctx, max(f.due(), time.Millisecond)); err != nil {
			return err
		}
		if _, err := f.reload(ctx); err != nil {
			return err
		}
	}
	f.sights.backdate(d, f.list, f.opt.Clock.Now())
	return nil
}
