package serve

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/render"
)

const manifestType = "application/dash+xml"

// dashFiles are the files of MPEG-DASH (ISO/IEC 23009-1) that HLS has not.
func (h *Handler) dashFiles() []playable {
	return []playable{
		fileOf(listPattern+`\.mpd`, "index.mpd, archive-FROM-DURATION.mpd, archive-FROM-now.mpd, timeshift_rel-SECONDS.mpd, rewind-SECONDS.mpd", h.dashManifest),
		fileOf(`dash/(`+render.ChoicePattern+`)/(\d{1,15})-(\d{1,11})-(\d{1,11})-([0-9a-f]{8})\.m4s`, "", h.dashSegment),
	}
}

// dashManifest answers with the description of what a name shows.
func (h *Handler) dashManifest(q *play) error {
	what, err := parseListed(q.parts[1])
	if err != nil {
		return err
	}
	list, err := h.play.list(q, what, true)
	if err != nil {
		return err
	}
	for _, m := range render.Movies(list.entries) {
		if err := h.play.note(list.entries, m.Choices()...); err != nil {
			return err
		}
	}
	m := render.Manifest{Entries: list.entries, Ended: list.ended, Now: h.play.clock.Now(), Target: list.target}
	if m.Target == 0 {
		m.Target = render.TargetOf(list.entries)
	}
	if list.kind == render.Sliding {
		for i := range list.entries {
			m.Window += list.entries[i].To - list.entries[i].From
		}
	}
	text, err := m.Text()
	if err != nil {
		return err
	}
	if token := passToken(q.r, ""); token != "" {
		text = []byte(strings.NewReplacer(`.mp4"`, `.mp4`+token+`"`, `.m4s"`, `.m4s`+token+`"`).Replace(string(text)))
	}
	return serveText(q, text, manifestType, list.cache())
}

// dashSegment answers with what the view has from a moment on, to the end of that
// segment.
func (h *Handler) dashSegment(q *play) error {
	c, err := render.ParseChoice(q.parts[1])
	if err != nil {
		return err
	}
	var n [3]int64
	for i := range n {
		n[i], _ = strconv.ParseInt(q.parts[2+i], 10, 64) // digits, and few
	}
	at := render.Moment{Stretch: render.Stretch{From: n[0], Media: n[1]}, Time: n[2]}
	if n[0] > maxMS || n[1] > 2*m4f.Wrap || n[2] > 2*m4f.Wrap {
		return m4fhttp.Problemf(http.StatusNotFound, "there is no such segment; load the manifest again")
	}
	cuts, missing, err := h.play.moment(q, at)
	if err != nil {
		return err
	}
	if len(cuts) == 0 {
		ms := int64(at.UTC()) * 1000 / m4f.Timescale
		if err := outside(q.archive, render.Slot{From: ms, To: ms + 1}); err != nil {
			return err
		}
	}
	return h.serveCuts(q, c, q.parts[5], cuts, missing)
}

// moment is what is at a moment, after fetching what a peer has and this archive
// lacks. missing: there is nothing.
func (p *player) moment(q *play, at render.Moment) (cuts []render.Cut, missing bool, err error) {
	utc, around := at.UTC(), at.Slack()+2*m4f.Timescale
	if err := permitSpan(q.r, utc, utc+1); err != nil {
		return nil, false, err
	}
	return p.cuts(q, max(utc-around, 1), max(utc+around, 2), func(els []archive.Element) ([]render.Cut, []render.Gap) {
		if cuts := at.Cuts(els); len(cuts) > 0 {
			return cuts, nil
		}
		return nil, []render.Gap{{From: max(utc, 1), To: max(utc, 1) + m4f.Timescale}}
	})
}
