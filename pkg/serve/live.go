package serve

import (
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/render"
)

// feed is a playlist that grows. What it has once listed stays as it is, until it
// slides out: entries come at the end alone. It costs nothing while nobody asks:
// it looks at the archive when somebody does.
type feed struct {
	p    *player
	what listed
	// uncut: no entry is cut for being long.
	uncut bool

	mu      sync.Mutex
	lister  *render.Lister
	view    *view
	entries []render.Entry // never changed in place
	length  int64          // of all entries, milliseconds
	// sequence and breaks count the entries, and the breaks, ahead of the first.
	sequence, breaks int64
	target           int   // seconds
	per              int64 // what sequence numbers count, milliseconds
	ended            bool
	checked          time.Time
	version          int
	texts            texts
}

// feedKey names a feed.
type feedKey struct {
	dir   string
	what  listed
	uncut bool
}

const (
	// liveWindow is how much a live playlist shows, in milliseconds, and
	// liveEntries how many entries at least.
	liveWindow  = 30_000
	liveEntries = 6
	// liveAfter is how long after its newest segment a stream is no longer live.
	liveAfter = 10 * 60 * m4f.Timescale
	// measured is from how much of the newest a feed takes its target duration.
	measured = 10 * 60 * m4f.Timescale
	// lookEvery bounds how often a feed looks at the archive.
	lookEvery = 100 * time.Millisecond
	// overAfter is how long after its end a span is over though its end is not
	// there.
	overAfter = 60 * m4f.Timescale
	// behind is from how far behind a feed that nobody has asked for begins anew.
	behind = 3600 * m4f.Timescale
)

// listing is a playlist as it is at a moment.
type listing struct {
	kind             string // of render.Playlist
	entries          []render.Entry
	sequence, breaks int64
	target           int
	start            int64 // where to begin playing, Unix milliseconds; 0: at the usual place
	ended            bool
	whole            bool // ended, without a gap, and all of it clean
	version          int
	texts            *texts
}

// texts are a playlist's forms for one version of it, as many as are about as large
// as its entries.
type texts struct {
	mu      sync.Mutex
	version int
	forms   map[string][]byte
	size    int
}

func (l *listing) form(name string, make func() ([]byte, error)) ([]byte, error) {
	t := l.texts
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.version != l.version || t.forms == nil {
		t.version, t.forms, t.size = l.version, map[string][]byte{}, 0
	}
	if b, ok := t.forms[name]; ok {
		return b, nil
	}
	b, err := make()
	if err != nil {
		return nil, err
	}
	if t.size+len(b) > listCost(len(l.entries))/2 {
		clear(t.forms)
		t.size = 0
	}
	t.forms[name] = b
	t.size += len(b)
	return b, nil
}

// listCost is about how many bytes a list of some entries takes, with its texts.
func listCost(entries int) int { return 32<<10 + 240*entries }

// serve answers with the media playlist of a choice.
func (l *listing) serve(q *play, c render.Choice, ts bool) error {
	form, prefix := c.String(), ""
	if ts {
		form, prefix = "ts", "hls/ts/"
	}
	text, err := l.form(form, func() ([]byte, error) {
		p := render.Playlist{
			Type: l.kind, Ended: l.ended, Entries: l.entries, Choice: c, TS: ts, Sequence: l.sequence, Breaks: l.breaks,
			Target: l.target, Start: l.start, Prefix: prefix,
		}
		return p.Text()
	})
	if err != nil {
		return err
	}
	return servePlaylist(q, text, l.cache())
}

func (l *listing) cache() string {
	switch {
	case l.whole:
		return closed
	case l.ended:
		return open
	}
	return growing
}

// list is what a playlist shows now.
func (p *player) list(q *play, what listed, uncut bool) (*listing, error) {
	l, err := p.findList(q, what, uncut)
	if err != nil {
		return nil, err
	}
	first, last := &l.entries[0], &l.entries[len(l.entries)-1]
	return l, permitSpan(q.r, m4f.UTC(first.From*msTicks), m4f.UTC(last.To*msTicks))
}

func (p *player) findList(q *play, what listed, uncut bool) (*listing, error) {
	key := feedKey{q.archive.Dir(), what, uncut}
	if what.kind == ofSpan {
		over, err := p.over(q.archive, what)
		if err != nil {
			return nil, err
		}
		if f, ok := p.feeds.get(key); over && (!ok || !f.followed()) {
			return p.span(q, what)
		}
	}
	f := p.feeds.getOr(key, func() *feed { return &feed{p: p, what: what, uncut: uncut} }, listCost(0))
	l, err := f.update(q)
	if err != nil {
		return nil, err
	}
	p.feeds.put(key, f, listCost(len(l.entries)))
	return l, nil
}

// followedFor is for how long after somebody has asked for it the list of a span
// stays as it grew, when the span is over.
const followedFor = 2 * time.Minute

// followed says whether somebody may be following the list.
func (f *feed) followed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	since := f.p.clock.Now().Sub(f.checked)
	return f.lister != nil && since >= 0 && since < followedFor
}

// over says whether nothing more is recorded of a span.
func (p *player) over(a *archive.Stream, what listed) (bool, error) {
	to := m4f.UTC((what.from + what.count) * m4f.Timescale)
	info, err := a.Info()
	return err == nil && (to <= info.Newest || to < p.now()-overAfter), err
}

// listKey names the playlist of a span that is over.
type listKey struct {
	dir  string
	what listed
}

// spanList is the playlist of a span that is over.
type spanList struct {
	listing
	texts texts
	made  time.Time
}

// spanFor is for how long the playlist of a span is taken as it was made, so that
// a player finds in it what the one above it has told.
const spanFor = 5 * time.Second

// span is the playlist of a span that is over.
func (p *player) span(q *play, what listed) (*listing, error) {
	key := listKey{q.archive.Dir(), what}
	now := p.clock.Now()
	if s, ok := p.lists.get(key); ok && now.Sub(s.made) < spanFor && !now.Before(s.made) {
		l := s.listing
		return &l, nil
	}
	from, to := m4f.UTC(what.from*m4f.Timescale), m4f.UTC((what.from+what.count)*m4f.Timescale)
	v, err := p.view(q, max(from, 1), to)
	if err != nil {
		return nil, err
	}
	s := &spanList{made: now}
	s.listing = listing{kind: render.Closed, ended: true, whole: true, start: what.from * 1000, texts: &s.texts}
	l := p.lister(&v)
	for _, piece := range v.pieces {
		if piece.Start() < from && piece.Stop() <= from+edgeSlack || piece.Stop() > to && piece.Start() >= to-edgeSlack {
			continue
		}
		entries, err := l.Next(piece)
		if err != nil {
			return nil, err
		}
		s.entries = append(s.entries, entries...)
	}
	if len(s.entries) == 0 {
		return nil, nothingIn(q.archive)
	}
	for i := range s.entries {
		s.whole = s.whole && s.entries[i].Clean && !s.entries[i].Break
	}
	p.lists.put(key, s, listCost(len(s.entries)))
	out := s.listing
	return &out, nil
}

// edgeSlack is how far a segment must reach into a span to be in it.
const edgeSlack = m4f.Timescale / 4

// nothingIn says what there is where a playlist would be empty.
func nothingIn(a *archive.Stream) error {
	info, err := a.Info()
	switch {
	case err != nil:
		return err
	case info.Newest == 0:
		return m4fhttp.Problemf(http.StatusNotFound, "nothing is recorded of this stream yet")
	}
	return m4fhttp.Problemf(http.StatusNotFound, "nothing is recorded then; the archive of this stream is from %s to %s (%d to %d)",
		stamp(info.Oldest), stamp(info.Newest), info.Oldest/m4f.Timescale, info.Newest/m4f.Timescale)
}

// update looks at the archive and returns what the playlist shows.
func (f *feed) update(q *play) (*listing, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.p.clock.Now()
	if since := now.Sub(f.checked); f.lister == nil || since >= lookEvery || since < 0 {
		if err := f.look(q); err != nil {
			return nil, err
		}
		f.checked = now
	}
	l := &listing{
		entries: f.entries, sequence: f.sequence, breaks: f.breaks, target: f.target, ended: f.ended,
		version: f.version, texts: &f.texts,
	}
	if !f.slides() {
		l.kind, l.start = render.Event, f.what.from*1000
	}
	return l, nil
}

// slides says whether entries go out at the front.
func (f *feed) slides() bool { return f.what.kind != ofSpan && f.what.kind != growingList }

func (f *feed) look(q *play) error {
	if f.lister != nil && f.slides() {
		if last, _ := f.lister.Last(); f.p.now()-m4f.UTC(last.To*msTicks) > behind+m4f.UTC(f.what.count*m4f.Timescale) {
			f.lister = nil // nobody has asked for long: the list begins anew, further on
		}
	}
	if f.lister == nil {
		if err := f.begin(q); err != nil {
			f.lister = nil
			return err
		}
		return nil
	}
	if !f.ended {
		last, _ := f.lister.Last()
		if err := f.add(q, m4f.UTC(last.To*msTicks)); err != nil {
			return err
		}
	}
	return f.alive(q)
}

const msTicks = m4f.Timescale / 1000

// limit is up to where the feed shows what is recorded; 0: to the end.
func (f *feed) limit() m4f.UTC {
	switch f.what.kind {
	case lateList:
		return f.p.now() - m4f.UTC(f.what.count*m4f.Timescale)
	case ofSpan:
		return m4f.UTC((f.what.from + f.what.count) * m4f.Timescale)
	}
	return 0
}

// window is how much a feed that slides shows, in milliseconds.
func (f *feed) window() int64 {
	if f.what.kind == rewindList {
		return max(f.what.count*1000, liveWindow)
	}
	return liveWindow
}

// begin makes the list as it is when the first viewer asks.
func (f *feed) begin(q *play) error {
	info, err := q.archive.Info()
	if err != nil {
		return err
	}
	if info.Newest == 0 {
		return nothingIn(q.archive)
	}
	newest := info.Newest
	if limit := f.limit(); limit != 0 {
		newest = min(newest, limit)
	}
	if err := f.measure(q.archive, newest, info.TargetDuration); err != nil {
		return err
	}
	from := m4f.UTC(f.what.from * m4f.Timescale)
	if f.slides() {
		from = newest - m4f.UTC((f.window()+liveEntries*int64(f.target)*1000)*msTicks)
	} else if f.p.now()-from > longestList*m4f.Timescale {
		return m4fhttp.Problemf(http.StatusNotFound, "a growing playlist shows at most %d seconds; ask for a later FROM", longestList)
	}
	f.clear()
	before := f.sequence
	if err := f.add(q, max(from, 1)); err != nil {
		return err
	}
	if err := f.alive(q); err != nil {
		return err
	}
	if f.slides() {
		// Numbers follow from the time, so that two nodes have nearly the same.
		n := int64(len(f.entries))
		f.sequence = max(before, f.entries[n-1].From/f.per-(n-1))
	}
	return nil
}

// clear takes all entries out.
func (f *feed) clear() {
	f.sequence += int64(len(f.entries))
	for i := range f.entries {
		if f.entries[i].Break {
			f.breaks++
		}
	}
	f.entries, f.length = nil, 0
	f.lister = f.p.lister(&f.view)
	if !f.uncut {
		f.lister.Longest = int64(f.target)*1000 + 499
	}
}

// alive refuses a list that nothing is going to be added to.
func (f *feed) alive(q *play) error {
	n := len(f.entries)
	if n == 0 {
		return nothingIn(q.archive)
	}
	end := m4f.UTC(f.entries[n-1].To * msTicks)
	if (f.what.kind == liveList || f.what.kind == rewindList) && f.p.now()-end > liveAfter {
		return m4fhttp.Problemf(http.StatusNotFound, "this stream is not live: the newest of it is of %s; play archive-FROM-DURATION.m3u8", stamp(end))
	}
	return nil
}

// measure finds the target duration and what sequence numbers count, by the newest
// segments.
func (f *feed) measure(a *archive.Stream, newest m4f.UTC, d int64) error {
	els, err := a.Span(max(newest-measured, 1), newest)
	if err != nil {
		return err
	}
	longest, sum := d, int64(0)
	for i := range els {
		longest, sum = max(longest, int64(els[i].Duration)), sum+int64(els[i].Duration)
	}
	f.target = max(int(math.Ceil(float64(longest)/m4f.Timescale)), 1)
	f.target = min(f.target, longestTarget)
	f.per = d / msTicks
	if n := int64(len(els)); n > 0 && sum/n > d+d/4 {
		f.per = (sum/n/msTicks + 250) / 500 * 500
	}
	f.per = max(f.per, 1000)
	return nil
}

// longestTarget bounds a target duration, in seconds: longer segments are cut.
const longestTarget = 60

// add lists what has come since.
func (f *feed) add(q *play, from m4f.UTC) error {
	limit := f.limit()
	if limit != 0 && limit <= from {
		f.end(from, limit)
		return nil
	}
	v, err := f.p.view(q, from, limit)
	if err != nil {
		return err
	}
	f.view = v
	at := from
	for _, piece := range v.pieces {
		if f.what.kind == lateList && piece.Stop() > limit || f.what.kind == ofSpan && piece.Stop() > limit && piece.Start() >= limit-edgeSlack {
			break
		}
		if len(f.entries) > 0 && piece.Start()-at > holeSlack && f.p.fresh(&piece) {
			break // what lacks may be on its way
		}
		if f.entries == nil && piece.Start() < from && piece.Stop() <= from+edgeSlack {
			continue
		}
		entries, err := f.lister.Next(piece)
		if err != nil {
			return err
		}
		for i := range entries {
			f.entries = append(f.entries, entries[i])
			f.length += entries[i].To - entries[i].From
			f.version++
		}
		if last, ok := f.lister.Last(); ok {
			at = m4f.UTC(last.To * msTicks)
		}
	}
	f.end(at, limit)
	f.slide()
	return nil
}

// end takes note of the end of a span.
func (f *feed) end(at, limit m4f.UTC) {
	if f.what.kind == ofSpan && !f.ended && (at >= limit-edgeSlack || f.p.now() > limit+overAfter) {
		f.ended = true
		f.version++
	}
}

// fresh says whether a piece came so lately that what is ahead of it may still
// come, where a node has peers.
func (p *player) fresh(piece *archive.Piece) bool {
	return p.healer != nil && p.clock.Now().UnixMilli()-piece.Arrived < int64(settling/msTicks)
}

// slide takes out what is older than the window.
func (f *feed) slide() {
	if !f.slides() {
		return
	}
	for len(f.entries) > liveEntries && f.length-f.entries[0].To+f.entries[0].From >= f.window() {
		f.length -= f.entries[0].To - f.entries[0].From
		f.sequence++
		if f.entries[0].Break {
			f.breaks++
		}
		f.entries = f.entries[1:]
	}
}
