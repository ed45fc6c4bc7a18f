package serve

import (
	"bytes"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/render"
)

// What a playlist shows, as its name says. The submatches are kind, and two
// numbers.
const listPattern = `(index|archive-(\d{1,12})-(\d{1,8}|now)|timeshift_rel-(\d{1,9})|rewind-(\d{1,8}))`

const (
	playlistType = "application/vnd.apple.mpegurl"
	initCache    = "max-age=31536000, immutable"
	// cleanCache is for what is clean: nothing can take its place.
	cleanCache = "max-age=86400"
	// changing is for what healing may make better.
	changing = "no-cache"
	// growing is for a playlist that grows: many viewers behind one cache.
	growing = "max-age=1"
	// closed is for a playlist of a span that is over and all there; open for one
	// with something to heal.
	closed = "max-age=3600"
	open   = "max-age=10"
)

// hlsFiles are the files of HLS (RFC 8216).
func (h *Handler) hlsFiles() []playable {
	const choice = `hls/(` + render.ChoicePattern + `)/`
	return []playable{
		fileOf(`index\.m3u8`, "index.m3u8", h.hlsMaster),
		fileOf(`archive-\d{1,12}-(?:\d{1,8}|now)\.m3u8`, "archive-FROM-DURATION.m3u8, archive-FROM-now.m3u8", h.hlsMaster),
		fileOf(`timeshift_abs-(\d{1,12})\.m3u8`, "timeshift_abs-UTC.m3u8", h.hlsShifted),
		fileOf(`timeshift_rel-\d{1,9}\.m3u8`, "timeshift_rel-SECONDS.m3u8", h.hlsMaster),
		fileOf(`rewind-\d{1,8}\.m3u8`, "rewind-SECONDS.m3u8", h.hlsMaster),
		fileOf(choice+listPattern+`\.m3u8`, "", h.hlsMedia),
		fileOf(choice+`init-(\d{1,15})-([0-9a-f]{8})\.mp4`, "", h.hlsInit),
		fileOf(choice+`(\d{1,15})-(\d{1,7})-([0-9a-f]{8})\.m4s`, "", h.hlsSlot),
	}
}

// listed is what of a stream a playlist shows.
type listed struct {
	kind  listKind
	from  int64 // Unix seconds, of a span
	count int64 // seconds: how long, how late, how far back
}

type listKind uint8

const (
	liveList listKind = iota
	ofSpan
	growingList
	lateList
	rewindList
)

// Bounds of what a playlist shows, in seconds.
const (
	longestList = 7 * 24 * 3600
	latestShift = 10 * 366 * 24 * 3600
)

var listName = regexp.MustCompile("^" + listPattern + "$")

// parseListed reads the name of a playlist, without its extension.
func parseListed(file string) (listed, error) {
	m := listName.FindStringSubmatch(file)
	if m == nil {
		return listed{}, m4fhttp.Problemf(http.StatusNotFound, "there is no playlist %s", m4fhttp.Clip(file))
	}
	number := func(s string) int64 {
		n, _ := strconv.ParseInt(s, 10, 64) // digits, and few
		return n
	}
	var s listed
	most := int64(longestList)
	switch {
	case m[2] != "" && m[3] == "now":
		return listed{kind: growingList, from: number(m[2])}, nil
	case m[2] != "":
		s = listed{kind: ofSpan, from: number(m[2]), count: number(m[3])}
	case m[4] != "":
		s, most = listed{kind: lateList, count: number(m[4])}, latestShift
	case m[5] != "":
		s = listed{kind: rewindList, count: number(m[5])}
	default:
		return listed{kind: liveList}, nil
	}
	switch {
	case s.count == 0 && s.kind == lateList:
		return listed{kind: liveList}, nil
	case s.count == 0:
		return s, m4fhttp.Problemf(http.StatusNotFound, "a playlist of 0 seconds shows nothing")
	case s.count > most:
		return s, m4fhttp.Problemf(http.StatusNotFound, "a playlist shows at most %d seconds; ask for less", most)
	}
	return s, nil
}

// hlsMaster answers with the multivariant playlist of what a name shows. With
// ?format=ts it is the media playlist of transport stream segments.
func (h *Handler) hlsMaster(q *play) error {
	return h.master(q, q.file)
}

// hlsShifted is what was live at a time, as if it were now: it goes on as late as it
// began.
func (h *Handler) hlsShifted(q *play) error {
	at, _ := strconv.ParseInt(q.parts[1], 10, 64)
	late := h.play.clock.Now().Unix() - at
	if late < 0 {
		return m4fhttp.Problemf(http.StatusNotFound, "%s is still to come", time.Unix(at, 0).UTC().Format(time.RFC3339))
	}
	if late > latestShift {
		return nothingIn(q.archive)
	}
	return h.master(q, "timeshift_rel-"+strconv.FormatInt(late, 10)+".m3u8")
}

func (h *Handler) master(q *play, file string) error {
	what, err := parseListed(strings.TrimSuffix(file, ".m3u8"))
	if err != nil {
		return err
	}
	ts := false
	switch f := q.query.Get("format"); f {
	case "ts":
		ts = true
	case "", "fmp4":
	default:
		return m4fhttp.Problemf(http.StatusBadRequest, "there is no format %s; there is ts and fmp4", m4fhttp.Clip(f))
	}
	list, err := h.play.list(q, what, false)
	if err != nil {
		return err
	}
	if ts {
		return list.serve(q, render.Choice{}, true)
	}
	m := render.Master{Entries: list.entries, Playlist: func(c render.Choice) string { return "hls/" + c.String() + "/" + file }}
	return servePlaylist(q, m.Text(), list.cache())
}

// hlsMedia answers with a media playlist.
func (h *Handler) hlsMedia(q *play) error {
	c, err := render.ParseChoice(q.parts[1])
	if err != nil {
		return err
	}
	what, err := parseListed(q.parts[2])
	if err != nil {
		return err
	}
	list, err := h.play.list(q, what, false)
	if err != nil {
		return err
	}
	if err := h.play.note(list.entries, c); err != nil {
		return err
	}
	return list.serve(q, c, false)
}

// note remembers the init segments of some choices that entries name.
func (p *player) note(entries []render.Entry, choices ...render.Choice) error {
	for _, m := range render.Movies(entries) {
		for _, c := range choices {
			init, err := m.Init(c)
			if err != nil {
				return err
			}
			if init != nil {
				p.named.put(movieName{c, init.Name}, m, 1)
			}
		}
	}
	return nil
}

// zipFrom is from which size on, in bytes, a playlist is worth compressing.
const zipFrom = 4 << 10

// servePlaylist answers with a playlist.
func servePlaylist(q *play, text []byte, cache string) error {
	return serveText(q, withQuery(text, q), playlistType, cache)
}

// serveText answers with text, compressed where it is long and that is accepted.
func serveText(q *play, text []byte, kind, cache string) error {
	head := q.w.Header()
	head.Set("Content-Type", kind)
	head.Set("Cache-Control", cache)
	tag := etagOf(text)
	if len(text) >= zipFrom {
		head.Set("Vary", "Accept-Encoding")
		if m4fhttp.TakesGzip(q.r) {
			text, tag = gzipped(text), etagOf(text, []byte("gzip"))
			head.Set("Content-Encoding", "gzip")
		}
	}
	head.Set("ETag", tag)
	q.r.Header.Del("Range") // a part of a playlist is of no use to anybody
	http.ServeContent(q.w, q.r, "", time.Time{}, bytes.NewReader(text))
	return nil
}

// withQuery hands a viewer's token on to every address in a playlist.
func withQuery(text []byte, q *play) []byte {
	suffix := passToken(q.r, "")
	if suffix == "" {
		return text
	}
	out := make([]byte, 0, len(text)+len(text)/32*len(suffix))
	for line := range bytes.Lines(text) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		switch at := bytes.Index(line, []byte(`URI="`)); {
		case len(line) > 0 && line[0] != '#':
			out = append(append(out, line...), suffix...)
		case at >= 0:
			end := at + 5 + bytes.IndexByte(line[at+5:], '"')
			out = append(append(append(out, line[:end]...), suffix...), line[end:]...)
		default:
			out = append(out, line...)
		}
		out = append(out, '\n')
	}
	return out
}

// hlsInit answers with an init segment. The time in its name says where a segment
// with it is; the digits, that it is the one which was meant.
func (h *Handler) hlsInit(q *play) error {
	c, err := render.ParseChoice(q.parts[1])
	if err != nil {
		return err
	}
	at, _ := strconv.ParseInt(q.parts[2], 10, 64)
	at = min(at, maxMS)
	if err := permitSpan(q.r, m4f.UTC(at*msTicks), m4f.UTC(at*msTicks)); err != nil {
		return err
	}
	init, err := h.play.init(q, c, at, q.parts[3])
	if err != nil {
		return err
	}
	h.serveBody(q, bodyOf(init.Bytes), "video/mp4", etagOf(init.Bytes), initCache)
	return nil
}

// maxMS is the last time that a slot may have, Unix milliseconds: the end of the
// year 9998.
const maxMS = latest * 1000

// init finds an init segment by its name.
func (p *player) init(q *play, c render.Choice, at int64, name string) (*render.PlayerInit, error) {
	if m, ok := p.named.get(movieName{c, name}); ok {
		if init, err := m.Init(c); err != nil || init != nil {
			return init, err
		}
	}
	from, to := render.Slot{From: at, To: at + 1}.Around()
	m, err := p.find(q.archive, c, from, to, name)
	if err != nil {
		return nil, err
	}
	if m != nil {
		return m.Init(c)
	}
	return nil, m4fhttp.Problemf(http.StatusNotFound, "there is no init segment of this name; load the playlist again")
}

// find looks for a movie by the name of its init segment around a time. nil: there
// is none.
func (p *player) find(a *archive.Stream, c render.Choice, from, to m4f.UTC, name string) (*render.Movie, error) {
	els, err := a.Span(from, to)
	if err != nil {
		return nil, err
	}
	for i := range els {
		m, err := p.movie(a, &els[i])
		if err != nil {
			continue // another may have it
		}
		init, err := m.Init(c)
		if err == nil && init != nil && init.Name == name {
			p.named.put(movieName{c, name}, m, 1)
			return m, nil
		}
	}
	return nil, nil
}

// hlsSlot answers with what the view has in a slot.
func (h *Handler) hlsSlot(q *play) error {
	c, err := render.ParseChoice(q.parts[1])
	if err != nil {
		return err
	}
	_, cuts, missing, err := h.play.slot(q, q.parts[2], q.parts[3])
	if err != nil {
		return err
	}
	return h.serveCuts(q, c, q.parts[4], cuts, missing)
}

// slot is the one of a file's name, which gives its start in Unix milliseconds and its
// length in milliseconds, both of digits. cuts are what it shows; missing says that
// it is not all there.
func (p *player) slot(q *play, start, length string) (slot render.Slot, cuts []render.Cut, missing bool, err error) {
	at, _ := strconv.ParseInt(start, 10, 64)
	ms, _ := strconv.ParseInt(length, 10, 64)
	slot = render.Slot{From: at, To: at + ms}
	if slot.To > maxMS || ms < 1 || ms > render.MaxSlot {
		return slot, nil, false, noSlot()
	}
	from, to := slot.Ticks()
	if err := permitSpan(q.r, from, to); err != nil {
		return slot, nil, false, err
	}
	from, to = slot.Around()
	cuts, missing, err = p.cuts(q, from, to, func(els []archive.Element) ([]render.Cut, []render.Gap) {
		cuts := slot.Cuts(els)
		return cuts, slot.Missing(cuts)
	})
	if err == nil && len(cuts) == 0 {
		err = outside(q.archive, slot)
	}
	return slot, cuts, missing, err
}

// noSlot refuses a slot that no playlist has.
func noSlot() error {
	return m4fhttp.Problemf(http.StatusNotFound, "there is no such slot; load the playlist again")
}

// cuts are those that of makes of what is in a span, after fetching what a peer has of
// the gaps that of finds. missing: there are still some.
func (p *player) cuts(q *play, from, to m4f.UTC, of func([]archive.Element) ([]render.Cut, []render.Gap)) (cuts []render.Cut, missing bool, err error) {
	for again := false; ; again = true {
		els, err := q.archive.Span(from, to)
		if err != nil {
			return nil, false, err
		}
		cuts, gaps := of(els)
		if len(gaps) == 0 || p.healer == nil || again {
			return cuts, len(gaps) > 0, nil
		}
		if healed, err := p.fetch(q, gaps); err != nil || !healed {
			return cuts, true, err
		}
	}
}

// fetch has the node fill gaps that a peer can. healed: something may be there now.
func (p *player) fetch(q *play, gaps []render.Gap) (healed bool, err error) {
	for _, g := range gaps {
		offered, err := q.offered(q.r.Context(), p.healer, g.From, g.To)
		if err != nil {
			return healed, err
		}
		if len(offered) == 0 {
			continue
		}
		if err := p.heal(q.r.Context(), q.name, g.From, g.To); err != nil {
			if cerr := q.r.Context().Err(); cerr != nil {
				return healed, cerr
			}
			q.w.Header().Set("Retry-After", "2")
			return healed, unfetched(err)
		}
		healed = true
	}
	return healed, nil
}

// serveCuts answers with the tracks of a choice of some cuts.
func (h *Handler) serveCuts(q *play, c render.Choice, name string, cuts []render.Cut, missing bool) error {
	p := h.play
	movie, _ := p.named.get(movieName{c, name})
	for i := range cuts {
		if movie != nil {
			break
		}
		e := cuts[i].Piece.Element
		movie, _ = p.find(q.archive, c, e.UTC, e.UTC+1, name) // without it, what is there is sent
	}
	frags, err := render.Fragments(c, movie, cuts, func(e *archive.Element) (*render.Layout, error) {
		return p.layout(q.archive, e)
	})
	if err != nil {
		return pruned(err)
	}
	b := &body{archive: q.archive}
	for i := range frags {
		b.fragment(&frags[i])
	}
	tag, clean := follows(c.String()+name, cuts)
	cache := changing
	switch {
	case b.size == 0:
		b.bytes(render.Nothing())
	case clean && !missing:
		cache = cleanCache
	}
	kind := "video/mp4"
	if !c.Video {
		kind = "audio/mp4"
	}
	h.serveBody(q, b, kind, tag, cache)
	return nil
}

// pruned is an error as it is answered: that a segment has just gone is no failure.
func pruned(err error) error {
	if gone(err) {
		return m4fhttp.Problemf(http.StatusNotFound, "this is being pruned")
	}
	return err
}

// outside refuses a slot outside the archive: there may never be anything.
func outside(a *archive.Stream, slot render.Slot) error {
	info, err := a.Info()
	if err != nil {
		return err
	}
	if from, to := slot.Ticks(); to <= info.Oldest || from >= info.Newest {
		return nothingIn(a)
	}
	return nil
}

func stamp(u m4f.UTC) string { return u.Time().Format("2006-01-02T15:04:05Z") }
