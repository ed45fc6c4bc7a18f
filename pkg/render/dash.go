package render

import (
	"fmt"
	"strings"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// Manifest is an MPEG-DASH media presentation description (ISO/IEC 23009-1) of
// entries: a Period for each stretch, an AdaptationSet for each track.
type Manifest struct {
	Entries []Entry
	// Ended: nothing will be added. The presentation is static then, its periods
	// one behind the other. Otherwise they are where they are in UTC.
	Ended  bool
	Now    time.Time
	Target int   // seconds, of an entry
	Window int64 // milliseconds that a sliding one shows; 0: entries stay
}

// Text is the description.
func (m *Manifest) Text() ([]byte, error) {
	w := dashWriter{m: m}
	w.average, w.peak = rates(m.Entries)
	w.head()
	at := int64(0) // of the static presentation, ticks
	for i := 0; i < len(m.Entries); {
		n := i + 1
		for n < len(m.Entries) && m.Entries[n].Stretch == m.Entries[i].Stretch {
			n++
		}
		ticks, err := w.period(m.Entries[i:n], at)
		if err != nil {
			return nil, err
		}
		at += ticks
		i = n
	}
	if !m.Ended {
		// Players take the time of the node, not that of the machine that they run on.
		fmt.Fprintf(&w.b, "  <UTCTiming schemeIdUri=\"urn:mpeg:dash:utc:direct:2014\" value=\"%s\"/>\n", dashTime(m.Now))
	}
	w.b.WriteString("</MPD>\n")
	return []byte(w.b.String()), nil
}

type dashWriter struct {
	m             *Manifest
	b             strings.Builder
	average, peak int64
}

func dashTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }

// dashSeconds writes ticks as an xs:duration.
func dashSeconds(ticks int64) string {
	us := (ticks*100 + 4) / 9
	return fmt.Sprintf("PT%d.%06dS", us/1e6, us%1e6)
}

func (w *dashWriter) head() {
	m := w.m
	w.b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
		`<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:isoff-live:2011"`)
	fmt.Fprintf(&w.b, ` minBufferTime="PT%dS"`, m.Target)
	if m.Ended {
		total := int64(0)
		for i := range m.Entries {
			total += m.Entries[i].Ticks
		}
		fmt.Fprintf(&w.b, " type=\"static\" mediaPresentationDuration=\"%s\">\n", dashSeconds(total))
		return
	}
	fmt.Fprintf(&w.b, ` type="dynamic" availabilityStartTime="1970-01-01T00:00:00Z" publishTime="%s" minimumUpdatePeriod="PT%dS" suggestedPresentationDelay="PT%dS"`,
		dashTime(m.Now), m.Target, 3*m.Target)
	if m.Window > 0 {
		fmt.Fprintf(&w.b, ` timeShiftBufferDepth="PT%dS"`, m.Window/1000)
	}
	w.b.WriteString(">\n")
}

// period writes the entries of one stretch and returns how many ticks they are. at
// is where a static presentation has them.
func (w *dashWriter) period(entries []Entry, at int64) (ticks int64, err error) {
	for i := range entries {
		ticks += entries[i].Ticks
	}
	s := entries[0].Stretch
	offset := s.Media
	if w.m.Ended {
		offset = entries[0].Media
		fmt.Fprintf(&w.b, "  <Period id=\"%d\" start=\"%s\" duration=\"%s\">\n", s.From, dashSeconds(at), dashSeconds(ticks))
	} else {
		fmt.Fprintf(&w.b, "  <Period id=\"%d\" start=\"%s\">\n", s.From, dashSeconds(s.From*ticksPerMS))
	}
	movie := entries[0].Movie
	for id, c := range movie.Choices() {
		if err := w.set(id+1, c, entries, offset); err != nil {
			return 0, err
		}
	}
	w.b.WriteString("  </Period>\n")
	return ticks, nil
}

// set writes the AdaptationSet of a track.
func (w *dashWriter) set(id int, c Choice, entries []Entry, offset int64) error {
	movie := entries[0].Movie
	init, err := movie.Init(c)
	if err != nil {
		return err
	}
	k := c.tracks(movie.init)[0]
	t := &movie.init.Tracks[k]
	kind, sap := "audio", true
	if c.Video {
		kind = "video"
		for i := range entries {
			sap = sap && entries[i].Key
		}
	}
	fmt.Fprintf(&w.b, `    <AdaptationSet id="%d" contentType="%s" mimeType="%s/mp4" segmentAlignment="true"`, id, kind, kind)
	if sap {
		w.b.WriteString(` startWithSAP="1"`)
	}
	if languagePattern.MatchString(t.Language) && t.Language != "und" {
		fmt.Fprintf(&w.b, ` lang="%s"`, t.Language)
	}
	fmt.Fprintf(&w.b, ">\n      <Representation id=\"%s\" codecs=\"%s\" bandwidth=\"%d\"", c, movie.codec(k), movie.bandwidth(k, w.peak))
	if c.Video {
		if width, height := displaySize(t); width > 0 && height > 0 {
			fmt.Fprintf(&w.b, ` width="%d" height="%d"`, width, height)
		}
		if n, d := dashRate(movie.frameRate()); n > 0 {
			fmt.Fprintf(&w.b, ` frameRate="%d/%d"`, n, d)
		}
		w.b.WriteString(">\n")
	} else {
		if t.SampleRate > 0 {
			fmt.Fprintf(&w.b, ` audioSamplingRate="%d"`, t.SampleRate)
		}
		w.b.WriteString(">\n")
		if t.Channels > 0 {
			fmt.Fprintf(&w.b, "        <AudioChannelConfiguration schemeIdUri=\"urn:mpeg:dash:23003:3:audio_channel_configuration:2011\" value=\"%d\"/>\n", t.Channels)
		}
	}
	s := entries[0].Stretch
	fmt.Fprintf(&w.b, "        <SegmentTemplate timescale=\"%d\" presentationTimeOffset=\"%d\" initialization=\"hls/%s/init-%d-%s.mp4\" media=\"dash/%s/%d-%d-$Time$-%s.m4s\">\n",
		int64(m4f.Timescale), offset, c, entries[0].Since, init.Name, c, s.From, s.Media, init.Name)
	w.timeline(entries)
	w.b.WriteString("        </SegmentTemplate>\n      </Representation>\n    </AdaptationSet>\n")
	return nil
}

// timeline lists where segments start and how long they are, equal ones once.
func (w *dashWriter) timeline(entries []Entry) {
	w.b.WriteString("          <SegmentTimeline>\n")
	for i := 0; i < len(entries); {
		e := &entries[i]
		n := i + 1
		for n < len(entries) && entries[n].Ticks == e.Ticks && entries[n].Media == entries[n-1].Media+entries[n-1].Ticks {
			n++
		}
		w.b.WriteString("            <S")
		if i == 0 || e.Media != entries[i-1].Media+entries[i-1].Ticks {
			fmt.Fprintf(&w.b, ` t="%d"`, e.Media)
		}
		fmt.Fprintf(&w.b, ` d="%d"`, e.Ticks)
		if n > i+1 {
			fmt.Fprintf(&w.b, ` r="%d"`, n-i-1)
		}
		w.b.WriteString("/>\n")
		i = n
	}
	w.b.WriteString("          </SegmentTimeline>\n")
}

// dashRate is a frame rate as a fraction: of 1001 where it is one of television's.
func dashRate(r float64) (n, d int64) {
	if r <= 0 || r > 1000 {
		return 0, 0
	}
	for _, d := range []int64{1, 1001} {
		n := int64(r*float64(d) + 0.5)
		if d == 1001 {
			n = (n + 500) / 1000 * 1000
		}
		if off := r - float64(n)/float64(d); n > 0 && off < 0.005 && off > -0.005 {
			return n, d
		}
	}
	return int64(r*1000 + 0.5), 1000
}

// Moment is a place in a stretch: what a DASH player asks for.
type Moment struct {
	Stretch
	Time int64 // ticks, on the axis of the samples' times
}

// UTC is about when the moment is. The clock of the source may drift from there by
// Slack.
func (m Moment) UTC() m4f.UTC { return m4f.UTC(m.From * ticksPerMS).Add(m.Time - m.Media) }

// Slack is by how many ticks UTC may be wrong: 500 ppm, and what nodes differ by.
func (m Moment) Slack() m4f.UTC {
	d := m.Time - m.Media
	return m4f.UTC(m4f.Timescale + max(d, -d)/2000)
}

// Cuts are what the view shows from a moment on to the end of that piece. The view
// must hold everything within the moment's slack and two seconds.
func (m Moment) Cuts(view []archive.Element) []Cut {
	pieces := archive.Pieces(view)
	best, near := -1, m.Slack()+1
	for i := range pieces {
		p := &pieces[i]
		d := m4f.Diff33(m.Time, p.Media())
		if d < -contiguous || d >= p.Part.To-p.Part.From-contiguous {
			continue
		}
		off := p.Start().Add(d) - m.UTC()
		if off = max(off, -off); off < near {
			best, near = i, off
		}
	}
	if best < 0 {
		return nil
	}
	p := pieces[best]
	c := Cut{Piece: p, From: p.Part.From, To: p.Part.To}
	if d := m4f.Diff33(m.Time, p.Media()); d > spanSlack {
		c.From += d
	}
	c.connect(pieces, best)
	return []Cut{c}
}
