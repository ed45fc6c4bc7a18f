package render

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// Entry is a slot of a playlist and what a player has to know of it.
type Entry struct {
	Slot
	// Media is where it starts on the axis of its samples' times, Ticks how long it
	// is there.
	Media, Ticks int64
	Movie        *Movie
	Since        int64 // Unix milliseconds: the first of the entries with this Movie
	Stretch      *Stretch
	Bytes        int64 // of the segment that it shows, or as much of it
	Break        bool  // it does not go on where the entry before it ended
	Key          bool  // opens at a keyframe
	Clean        bool  // recorded without known loss, and whole
}

// plays is how long its samples last, in milliseconds. Its slot, which UTC makes, may
// be some milliseconds longer or shorter. What is rounded adds up to nothing.
func (e *Entry) plays() int64 { return (e.Media+e.Ticks)/ticksPerMS - e.Media/ticksPerMS }

// Stretch is what entries without a break between them have in common.
type Stretch struct {
	From  int64 // Unix milliseconds
	Media int64 // ticks
}

// Lister makes the entries of a playlist, in playing order.
type Lister struct {
	// Movie returns what the init segment of a segment says. It may be that of
	// another segment with the same init segment. Segments of which it returns nil
	// are passed over.
	Movie func(*archive.Element) (*Movie, error)
	// Wrapped says whether the times of a segment's samples are beyond 2^33
	// (Layout.Wrapped). It is asked of segments right behind the wrap alone.
	Wrapped func(*archive.Element) bool
	// Longest, if not 0, is the longest entry in milliseconds: what is longer
	// is cut.
	Longest int64

	last  Entry
	piece archive.Piece // of last
	begun bool
}

// opens is up to which media time a segment may hold samples from before the wrap.
const opens = 2 * m4f.Timescale

// shortest is what is too short to be an entry, in milliseconds.
const shortest = 10

// Next returns the entries of the next piece: none where what it shows has been
// listed.
func (l *Lister) Next(p archive.Piece) ([]Entry, error) {
	from, start := p.Part.From, floorMS(p.Start())
	if l.begun {
		at := m4f.UTC(l.last.To * ticksPerMS)
		switch d := p.Start() - at; {
		case d < 0 && p.Stop() > at:
			if from = cutAt(p, at); from > p.Part.From {
				start = l.last.To
			} else if joins(l.piece, p) {
				start = l.last.To
			} else {
				start = max(start, l.last.To)
			}
		case d < 0:
			return nil, nil
		case d <= spanSlack:
			start = l.last.To
		}
	}
	stop := floorMS(p.Stop())
	if stop-start < shortest || from >= p.Part.To {
		return nil, nil
	}
	movie, err := l.Movie(p.Element)
	if err != nil || movie == nil {
		return nil, err
	}
	e := Entry{
		Slot: Slot{start, stop}, Media: p.MediaTime + from, Ticks: p.Part.To - from, Movie: movie, Since: start,
		Bytes: int64(float64(p.Length) * float64(p.Part.To-from) / float64(p.Duration)),
		Key:   from == 0 && p.Flags&m4f.Keyframe != 0, Clean: p.Clean() && p.Whole(),
	}
	if p.MediaTime < opens && l.Wrapped(p.Element) {
		e.Media += m4f.Wrap
	}
	l.connect(&e, p)
	l.last, l.piece, l.begun = e, p, true
	return l.split(e), nil
}

// connect finds whether an entry goes on where the last one ended.
func (l *Lister) connect(e *Entry, p archive.Piece) {
	if l.begun {
		d := e.Media - l.last.Media - l.last.Ticks
		e.Break = d < -contiguous || d > contiguous || e.From != l.last.To || !archive.Follows(l.piece, p)
		if l.last.Movie.Same(e.Movie) {
			// Its address stays as the list slides: players load another one anew.
			e.Movie, e.Since = l.last.Movie, l.last.Since
		} else {
			e.Break = true
		}
	}
	if l.begun && !e.Break {
		e.Stretch = l.last.Stretch
		return
	}
	e.Stretch = &Stretch{From: e.From, Media: e.Media}
}

// split cuts an entry that is too long.
func (l *Lister) split(e Entry) []Entry {
	length, longest := e.To-e.From, max(e.To-e.From, e.plays())
	if l.Longest == 0 || longest <= l.Longest {
		return []Entry{e}
	}
	n := (longest + l.Longest - 1) / l.Longest
	out := make([]Entry, n)
	for i := range n {
		x := e
		x.From, x.To = e.From+length*i/n, e.From+length*(i+1)/n
		x.Media, x.Ticks = e.Media+e.Ticks*i/n, e.Ticks*(i+1)/n-e.Ticks*i/n
		x.Bytes = e.Bytes / n
		x.Break, x.Key = e.Break && i == 0, e.Key && i == 0
		out[i] = x
	}
	l.last = out[n-1]
	return out
}

// Last is the entry that was made last; ok: there is one.
func (l *Lister) Last() (e Entry, ok bool) { return l.last, l.begun }

func floorMS(u m4f.UTC) int64 { return int64(u) / ticksPerMS }

// The types of a playlist.
const (
	Sliding = ""      // entries come and go
	Event   = "EVENT" // entries come
	Closed  = "VOD"   // nothing changes
)

// Playlist is an HLS media playlist (RFC 8216).
type Playlist struct {
	Type    string
	Ended   bool // nothing will be added
	Entries []Entry
	Choice  Choice
	TS      bool // of transport stream segments; Choice does not matter
	// Sequence and Breaks are the numbers of the first entry: how many entries, and
	// how many breaks, have been ahead of it.
	Sequence, Breaks int64
	Target           int // seconds; 0: what the entries need
	// Start, if not 0, is where to begin playing, Unix milliseconds.
	Start int64
	// Prefix is what stands ahead of every URI.
	Prefix string
}

// Text is the playlist.
func (p *Playlist) Text() ([]byte, error) {
	w := hlsWriter{b: make([]byte, 0, 512+len(p.Entries)*64), p: p}
	w.head()
	for i := range p.Entries {
		if err := w.entry(&p.Entries[i], i == 0); err != nil {
			return nil, err
		}
	}
	if p.Ended {
		w.line("#EXT-X-ENDLIST")
	}
	return w.b, nil
}

// TargetOf is the target duration that entries need, in seconds: no less than any
// rounded to the nearest second (RFC 8216 4.3.3.1).
func TargetOf(entries []Entry) int {
	longest := int64(1000)
	for i := range entries {
		longest = max(longest, entries[i].plays())
	}
	return int((longest + 500) / 1000)
}

type hlsWriter struct {
	b []byte
	p *Playlist

	movie *Movie // of the last entry
	name  string // of the init segment in force
	date  int64  // Unix milliseconds that a player takes for the next entry's start
	none  bool   // the movie in force has no track of the choice
	dated int    // entries since the last date
}

func (w *hlsWriter) line(s string) { w.b = append(append(w.b, s...), '\n') }

func (w *hlsWriter) linef(format string, args ...any) {
	w.b = append(fmt.Appendf(w.b, format, args...), '\n')
}

func (w *hlsWriter) head() {
	p := w.p
	w.line("#EXTM3U")
	version := 7
	switch {
	case p.TS:
		version = 4
	case slices.ContainsFunc(Movies(p.Entries), func(m *Movie) bool { return !m.Has(p.Choice) }):
		version = 8 // for EXT-X-GAP
	}
	w.linef("#EXT-X-VERSION:%d", version)
	target := p.Target
	if target == 0 {
		target = TargetOf(p.Entries)
	}
	w.linef("#EXT-X-TARGETDURATION:%d", target)
	if p.Type != Sliding {
		w.line("#EXT-X-PLAYLIST-TYPE:" + p.Type)
	}
	w.linef("#EXT-X-MEDIA-SEQUENCE:%d", p.Sequence)
	if p.Breaks > 0 {
		w.linef("#EXT-X-DISCONTINUITY-SEQUENCE:%d", p.Breaks)
	}
	if p.Choice.Keyframes {
		w.line("#EXT-X-I-FRAMES-ONLY")
	}
	if p.Type == Closed && !slices.ContainsFunc(p.Entries, func(e Entry) bool { return !e.Key }) {
		w.line("#EXT-X-INDEPENDENT-SEGMENTS")
	}
	if len(p.Entries) > 0 && p.Start > p.Entries[0].From {
		w.linef("#EXT-X-START:TIME-OFFSET=%s,PRECISE=YES", milli(p.Start-p.Entries[0].From))
	}
}

// dateEvery is after how many entries of a playlist that keeps its entries the
// date comes again.
const dateEvery = 32

func (w *hlsWriter) entry(e *Entry, first bool) error {
	if e.Break {
		w.line("#EXT-X-DISCONTINUITY")
	}
	name := ""
	if !w.p.TS {
		if err := w.init(e); err != nil {
			return err
		}
		name = "-" + w.name
	}
	// A list that slides is short, and any of its entries may come to be the first.
	w.dated++
	if d := e.From - w.date; first || e.Break || w.p.Type == Sliding || w.dated >= dateEvery || d > shortest || d < -shortest {
		w.b = time.UnixMilli(e.From).UTC().AppendFormat(append(w.b, "#EXT-X-PROGRAM-DATE-TIME:"...), "2006-01-02T15:04:05.000Z07:00\n")
		w.dated, w.date = 0, e.From
	}
	w.date += e.plays()
	if w.none {
		w.line("#EXT-X-GAP") // nothing that could be healed: there is no such track
	}
	w.line("#EXTINF:" + milli(e.plays()) + ",") // of the samples (RFC 8216 4.3.2.1)
	w.b = append(w.b, w.p.Prefix...)
	w.b = strconv.AppendInt(w.b, e.From, 10)
	w.b = strconv.AppendInt(append(w.b, '-'), e.To-e.From, 10)
	if w.p.TS {
		w.line(".ts")
	} else {
		w.line(name + ".m4s")
	}
	return nil
}

// init announces the init segment of an entry where it is another.
func (w *hlsWriter) init(e *Entry) error {
	if e.Movie == w.movie {
		return nil
	}
	w.movie = e.Movie
	init, err := e.Movie.Init(w.p.Choice)
	if err != nil {
		return err
	}
	if w.none = init == nil; w.none {
		if w.name == "" {
			w.name = "00000000"
		}
		return nil
	}
	if init.Name != w.name {
		w.name = init.Name
		w.linef(`#EXT-X-MAP:URI="%sinit-%d-%s.mp4"`, w.p.Prefix, e.Since, init.Name)
	}
	return nil
}

// milli writes milliseconds as seconds.
func milli(ms int64) string {
	b := strconv.AppendInt(make([]byte, 0, 12), ms/1000, 10)
	return string(append(b, '.', byte('0'+ms/100%10), byte('0'+ms/10%10), byte('0'+ms%10)))
}

// rates are the average and the highest rate of entries, bits a second.
func rates(entries []Entry) (average, peak int64) {
	total, length := int64(0), int64(0)
	for i := range entries {
		e := &entries[i]
		total, length = total+e.Bytes, length+e.To-e.From
		if e.To-e.From >= 500 {
			peak = max(peak, e.Bytes*8000/(e.To-e.From))
		}
	}
	if length > 0 {
		average = int64(math.Ceil(float64(total) * 8000 / float64(length)))
	}
	return average, max(average, peak, 1)
}
