package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/replicate"
)

// lsOptions are the flags of ls.
type lsOptions struct {
	path     string
	span     spanFlags
	peer     peerOptions
	segments bool
	json     bool
}

// AddFlags adds the flags of ls.
func (o *lsOptions) AddFlags(fs *pflag.FlagSet, io IO) {
	o.span.AddFlags(fs, io.Clock)
	o.peer.AddFlags(fs)
	fs.BoolVar(&o.segments, "segments", false, "print the segments of the view of one stream")
	fs.BoolVar(&o.json, "json", false, "print one JSON object a line")
}

func newLsCmd(io IO) *cobra.Command {
	var o lsOptions
	cmd := &cobra.Command{
		Use:   "ls PATH",
		Short: "List streams, or what an archive covers and where its gaps are",
		Long: `ls lists what an archive holds. PATH is the directory of a stream, a peer's
stream (m4f://HOST[:PORT]/STREAM), or a directory above streams.

For a directory above streams it prints a line for each: name, start, end, time
covered, gaps, damaged segments, bytes.

For one stream it prints a line for each span without a gap, with its start,
end, length, segments, bytes and how many segments are damaged or partial, and a
line for each gap with its cause as far as the archive knows it. Whether there is
a gap is judged in the source's own media time. What has been pruned is no gap.
A stream on this machine has a line, too, for each span that is kept (see keep).

Where nothing is recorded it prints nothing but a line on standard error.

With --segments it prints the segments that a reader of the archive sees, in
playing order: identity, start, duration, bytes, flags.

With --json a segment is an object with id, start, duration (seconds),
media_time (33-bit ticks of 1/90000 s), bytes, damaged, partial, discontinuity,
keyframe, lost, errored, init, origin, input, arrived, and parts, [from, to] in
seconds from its start, where better segments cover some of it. The origin is
live (recorded from a source, the input-th of the stream, from 0), imported (by
record), replicated (fetched as the peer listed it), healed (fetched to fill a gap
or replace damage), copied (made of what was there) or unknown. Spans, gaps and
kept spans are objects with type, from, to, duration; streams have name, from, to,
duration, gaps, damaged, partial, bytes, kept (spans).

Exit status: 0, 1 there are gaps or damaged segments, 2 trouble.`,
		Example: `  twindvr ls /storage
  twindvr ls /storage/example --from -1d
  twindvr ls --segments --json m4f://b:8081/example`,
		Args: wantArgs("PATH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.path = args[0]
			return o.run(cmd.Context(), io)
		},
	}
	o.AddFlags(cmd.Flags(), io)
	return cmd
}

// errNotWhole is the answer no of ls.
var errNotWhole error = &StatusError{}

func (o *lsOptions) run(ctx context.Context, io IO) error {
	if err := o.span.check(); err != nil {
		return err
	}
	loc, err := parseLocation(o.path)
	if err != nil {
		return err
	}
	if loc.Peer == nil {
		s, err := archive.Open(loc.Dir)
		if err == nil {
			return o.stream(io, s)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		found, ferr := archive.Find(loc.Dir)
		switch {
		case ferr != nil || len(found) == 0:
			return err
		case o.segments:
			return fmt.Errorf("--segments lists one stream and %s holds %d; name one of them", loc.Dir, len(found))
		}
		return o.root(io, found)
	}
	side, done, err := o.peer.side(o.path)
	if err != nil {
		return err
	}
	defer done()
	return o.remote(ctx, io, side)
}

// stream lists one stream on this machine.
func (o *lsOptions) stream(io IO, s *archive.Stream) error {
	from, to := o.span.From.UTC, o.span.To.UTC
	if o.segments {
		p := o.printer(io)
		err := s.Each(from, to, func(e *archive.Element) error { return p.segment(e) })
		return p.end(err)
	}
	ivs, err := s.Coverage(from, to)
	if err != nil {
		return err
	}
	gaps, err := s.Gaps(from, to)
	if err != nil {
		return err
	}
	kept, err := s.Kept()
	if err != nil {
		return err
	}
	kept = slices.DeleteFunc(kept, func(k archive.Keep) bool { return k.To <= from || to != 0 && k.From >= to })
	return o.coverage(io, ivs, gaps, kept)
}

// remote lists a peer's stream.
func (o *lsOptions) remote(ctx context.Context, io IO, side replicate.Side) error {
	els, err := side.Segments(ctx, o.span.From.UTC, o.span.To.UTC)
	if err != nil {
		return err
	}
	if o.segments {
		p := o.printer(io)
		for i := range els {
			if err = p.segment(&els[i]); err != nil {
				break
			}
		}
		return p.end(err)
	}
	info, err := side.Info(ctx)
	if err != nil {
		return err
	}
	ivs, gaps := archive.Cover(els, o.span.From.UTC, o.span.To.UTC)
	gaps = slices.DeleteFunc(gaps, func(g archive.Gap) bool { return g.To <= info.Horizon })
	if len(gaps) > 0 { // what lies before the horizon has been pruned
		gaps[0].From = max(gaps[0].From, info.Horizon)
	}
	return o.coverage(io, ivs, gaps, nil)
}

// coverage prints spans, gaps and kept spans in order of time.
func (o *lsOptions) coverage(io IO, ivs []archive.Interval, gaps []archive.Gap, kept []archive.Keep) error {
	p := o.printer(io)
	var err error
	for err == nil && (len(ivs) > 0 || len(gaps) > 0 || len(kept) > 0) {
		if len(kept) > 0 && (len(ivs) == 0 || kept[0].From < ivs[0].From) && (len(gaps) == 0 || kept[0].From < gaps[0].From) {
			err = p.kept(&kept[0])
			kept = kept[1:]
			continue
		}
		if len(gaps) == 0 || len(ivs) > 0 && ivs[0].From <= gaps[0].From {
			err = p.interval(&ivs[0])
			ivs = ivs[1:]
			continue
		}
		err = p.gap(&gaps[0])
		gaps = gaps[1:]
	}
	return p.end(err)
}

// root lists the streams below a directory.
func (o *lsOptions) root(io IO, found []archive.Found) error {
	p := o.printer(io)
	var err error
	for _, f := range found {
		var l streamLine
		if l, err = o.sum(f); err != nil {
			break
		}
		if err = p.stream(&l); err != nil {
			break
		}
	}
	return p.end(err)
}

func (o *lsOptions) sum(f archive.Found) (streamLine, error) {
	l := streamLine{Name: f.Name}
	s, err := archive.Open(f.Dir)
	if err != nil {
		return l, err
	}
	ivs, err := s.Coverage(o.span.From.UTC, o.span.To.UTC)
	if err != nil {
		return l, err
	}
	gaps, err := s.Gaps(o.span.From.UTC, o.span.To.UTC)
	if err != nil {
		return l, err
	}
	var covered m4f.UTC
	for i, iv := range ivs {
		if i == 0 {
			l.From = stampOf(iv.From)
		}
		l.To = stampOf(iv.To)
		covered += iv.To - iv.From
		l.Damaged += iv.Damaged
		l.Partial += iv.Partial
	}
	l.Duration, l.Gaps = seconds(int64(covered)), len(gaps)
	if l.Bytes, err = s.Size(); err != nil {
		return l, err
	}
	kept, err := s.Kept()
	l.Kept = len(kept)
	return l, err
}

// stamp is an instant as ls prints it: RFC 3339 in UTC, rounded down to the
// millisecond.
type stamp m4f.UTC

func (s stamp) String() string {
	return m4f.UTC(s).Time().Format("2006-01-02T15:04:05.000Z07:00")
}

// MarshalText implements encoding.TextMarshaler.
func (s stamp) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func stampOf(u m4f.UTC) *stamp {
	t := stamp(u)
	return &t
}

// seconds writes ticks as decimal seconds, to the microsecond.
func seconds(ticks int64) json.Number {
	s := strconv.FormatFloat(float64(ticks)/m4f.Timescale, 'f', 6, 64)
	return json.Number(strings.TrimSuffix(strings.TrimRight(s, "0"), "."))
}

// streamLine, spanLine and segmentLine are what ls --json prints.
type streamLine struct {
	Name     string      `json:"name"`
	From     *stamp      `json:"from"` // null: empty
	To       *stamp      `json:"to"`
	Duration json.Number `json:"duration"` // seconds covered
	Gaps     int         `json:"gaps"`
	Damaged  int         `json:"damaged"`
	Partial  int         `json:"partial"`
	Bytes    int64       `json:"bytes"` // of all files
	Kept     int         `json:"kept"`  // spans
}

type spanLine struct {
	Type      string      `json:"type"` // "span"
	From      stamp       `json:"from"`
	To        stamp       `json:"to"`
	Duration  json.Number `json:"duration"`
	Segments  int         `json:"segments"`
	Bytes     int64       `json:"bytes"`
	Damaged   int         `json:"damaged"`
	Partial   int         `json:"partial"`
	Timelines int         `json:"timelines"`
}

type keptLine struct {
	Type     string      `json:"type"` // "kept"
	From     stamp       `json:"from"`
	To       stamp       `json:"to"`
	Duration json.Number `json:"duration"`
	Name     string      `json:"name"`
}

type gapLine struct {
	Type     string      `json:"type"` // "gap"
	From     stamp       `json:"from"`
	To       stamp       `json:"to"`
	Duration json.Number `json:"duration"`
	Cause    string      `json:"cause"`
}

type segmentLine struct {
	ID            m4f.Identity     `json:"id"`
	Start         stamp            `json:"start"`
	Duration      json.Number      `json:"duration"`
	MediaTime     int64            `json:"media_time"`
	Bytes         uint64           `json:"bytes"`
	Damaged       bool             `json:"damaged"`
	Partial       bool             `json:"partial"`
	Discontinuity bool             `json:"discontinuity"`
	Keyframe      bool             `json:"keyframe"`
	Lost          uint32           `json:"lost"`
	Errored       uint32           `json:"errored"`
	Init          m4f.Identity     `json:"init"`
	Origin        archive.Origin   `json:"origin"`
	Input         uint8            `json:"input"`
	Arrived       *stamp           `json:"arrived,omitempty"`
	Parts         [][2]json.Number `json:"parts,omitempty"`
}

func segmentLineOf(e *archive.Element) segmentLine {
	l := segmentLine{
		ID: e.ID, Start: stamp(e.UTC), Duration: seconds(int64(e.Duration)), MediaTime: e.MediaTime, Bytes: e.Length,
		Damaged: e.Damaged(), Partial: e.Partial(),
		Discontinuity: e.Flags&m4f.Discontinuity != 0, Keyframe: e.Flags&m4f.Keyframe != 0,
		Lost: e.Lost, Errored: e.Errored, Init: e.Init, Origin: e.Origin, Input: e.Input,
	}
	if e.Arrived != 0 {
		l.Arrived = stampOf(m4f.UTCOf(time.UnixMilli(e.Arrived)))
	}
	if !e.Whole() {
		for _, p := range e.Parts {
			l.Parts = append(l.Parts, [2]json.Number{seconds(p.From), seconds(p.To)})
		}
	}
	return l
}

// lsPrinter prints lines for people or programs, and remembers whether they
// tell of anything missing.
type lsPrinter struct {
	json *jsonLines
	text *tabwriter.Writer
	none func() // says that there was nothing to print
	any  bool   // something was
	bad  bool
}

func (o *lsOptions) printer(io IO) *lsPrinter {
	p := &lsPrinter{none: func() {
		where := ""
		if o.span.From.IsSet || o.span.To.IsSet {
			where = " in that span"
		}
		fmt.Fprintf(io.Err, "%s: nothing is recorded%s\n", o.path, where)
	}}
	if o.json {
		p.json = newJSONLines(io.Out)
	} else {
		p.text = tabwriter.NewWriter(io.Out, 0, 1, 2, ' ', 0)
	}
	return p
}

// end flushes and gives the command's answer, unless there was an error.
func (p *lsPrinter) end(err error) error {
	var ferr error
	if p.json != nil {
		ferr = p.json.Flush()
	} else {
		ferr = p.text.Flush()
	}
	switch {
	case err != nil:
		return err
	case ferr != nil:
		return ferr
	case p.bad:
		return errNotWhole
	case !p.any:
		p.none()
	}
	return nil
}

func (p *lsPrinter) stream(l *streamLine) error {
	p.any, p.bad = true, p.bad || l.Gaps > 0 || l.Damaged > 0
	if p.json != nil {
		return p.json.Write(l)
	}
	if l.From == nil {
		_, err := fmt.Fprintf(p.text, "%s\tempty\n", l.Name)
		return err
	}
	notes := ""
	if l.Kept > 0 {
		notes = fmt.Sprintf("\t%d kept", l.Kept)
	}
	_, err := fmt.Fprintf(p.text, "%s\t%s\t%s\t%s\t%s\t%s\t%s%s\n", l.Name, l.From, l.To, shortSeconds(l.Duration),
		count(l.Gaps, "gap"), fmt.Sprintf("%d damaged", l.Damaged), archive.NearBytes(l.Bytes), notes)
	return err
}

func (p *lsPrinter) interval(iv *archive.Interval) error {
	p.any, p.bad = true, p.bad || iv.Damaged > 0
	l := spanLine{"span", stamp(iv.From), stamp(iv.To), seconds(int64(iv.To - iv.From)),
		iv.Segments, iv.Bytes, iv.Damaged, iv.Partial, iv.Timelines}
	if p.json != nil {
		return p.json.Write(l)
	}
	notes := ""
	for _, n := range []struct {
		n    int
		what string
	}{{iv.Damaged, "damaged"}, {iv.Partial, "partial"}} {
		if n.n > 0 {
			notes += fmt.Sprintf(" %d %s", n.n, n.what)
		}
	}
	_, err := fmt.Fprintf(p.text, "span\t%s\t%s\t%s\t%s\t%s\t%s\n", l.From, l.To, shortSeconds(l.Duration),
		count(l.Segments, "segment"), archive.NearBytes(l.Bytes), strings.TrimSpace(notes))
	return err
}

func (p *lsPrinter) kept(k *archive.Keep) error {
	l := keptLine{"kept", stamp(k.From), stamp(k.To), seconds(int64(k.To - k.From)), k.Name}
	if p.json != nil {
		return p.json.Write(l)
	}
	_, err := fmt.Fprintf(p.text, "kept\t%s\t%s\t%s\t%s\n", l.From, l.To, shortSeconds(l.Duration), l.Name)
	return err
}

func (p *lsPrinter) gap(g *archive.Gap) error {
	p.any, p.bad = true, true
	l := gapLine{"gap", stamp(g.From), stamp(g.To), seconds(int64(g.To - g.From)), g.Cause}
	if p.json != nil {
		return p.json.Write(l)
	}
	_, err := fmt.Fprintf(p.text, "gap\t%s\t%s\t%s\t%s\n", l.From, l.To, shortSeconds(l.Duration), l.Cause)
	return err
}

func (p *lsPrinter) segment(e *archive.Element) error {
	p.any, p.bad = true, p.bad || e.Damaged()
	l := segmentLineOf(e)
	if p.json != nil {
		return p.json.Write(l)
	}
	var flags []string
	for _, f := range []struct {
		on   bool
		name string
	}{{l.Damaged, "damaged"}, {l.Partial, "partial"}, {l.Discontinuity, "discontinuity"}, {!l.Keyframe, "no-keyframe"}, {len(l.Parts) > 0, "in-part"}} {
		if f.on {
			flags = append(flags, f.name)
		}
	}
	_, err := fmt.Fprintf(p.text, "%s\t%s\t%s\t%d\t%s\t%s\n", l.ID, l.Start, shortSeconds(l.Duration), l.Bytes, l.Origin, strings.Join(flags, ","))
	return err
}

// shortSeconds writes seconds as people read them: 1h2m3.04s.
func shortSeconds(s json.Number) string {
	f, _ := s.Float64()
	return time.Duration(f * float64(time.Second)).Round(time.Millisecond).String()
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
