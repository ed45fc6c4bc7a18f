package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/twindvr/twindvr/pkg/hls"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
)

const (
	// hlsFirstPID is the PID of the first track of fragmented MP4. Those of an
	// audio rendition begin hlsLanePIDs later than those of the one before it.
	hlsFirstPID = 0x100
	hlsLanePIDs = 0x40
	// hlsProgram is the number of the program that such tracks make up.
	hlsProgram = 1
	// hlsLateLane is how long an audio rendition is waited for when the others
	// have gone on, at most. A rendition that stops does not stop the stream.
	hlsLateLane = 9 * time.Second
	// hlsTellLoss is how often it is told, in media time, that a rendition is
	// still missing: a loss is taken for ended after a while.
	hlsTellLoss = 2 * m4f.Timescale
)

// hlsUnits reads segments of fragmented MP4, and puts the samples of all
// playlists into the order of decoding.
type hlsUnits struct {
	s       *hlsSource
	lanes   []*unitLane
	program *mpegts.Program
	sent    bool // the program has been delivered

	position int64 // DTS of the last sample delivered, ticks
	moved    bool  // there was one
	disc     uint64
	apart    int64 // ticks delivered while a lane of a later discontinuity waited
	tell     bool  // the next batch tells of a loss
	told     int64 // position at which one was told last
	start    time.Time
	origin   int64 // DTS at start
	dated    bool
}

// unitLane is a playlist whose samples are to be merged.
type unitLane struct {
	*hlsLane
	movie   *hls.Movie
	init    []byte
	tracks  []*mpegts.Track // of the program, by those of movie
	samples []hls.Sample
	disc    uint64
	gap     bool   // something is missing before samples
	late    bool   // it is not waited for
	gone    bool   // it has ended
	refused string // why a segment could not be read, as told
}

func newHLSUnits(s *hlsSource) *hlsUnits {
	r := &hlsUnits{s: s}
	for _, l := range s.lanes {
		r.lanes = append(r.lanes, &unitLane{hlsLane: l})
	}
	return r
}

// begin takes the first segment of the main playlist.
func (r *hlsUnits) begin(d *hls.Delivery) error { return r.load(r.lanes[0], d) }

// next implements hlsReader.
func (r *hlsUnits) next(ctx context.Context) ([]hlsPiece, error) {
	if err := r.fill(ctx); err != nil {
		return nil, err
	}
	if !r.sent {
		r.sent = true
		return []hlsPiece{{program: r.program, date: r.date(r.lowest()), lostUnits: r.losing()}}, nil
	}
	return r.run(), nil
}

// fill sees to it that every lane that is waited for has a sample.
func (r *hlsUnits) fill(ctx context.Context) error {
	for {
		waiting := false
		for k, l := range r.lanes {
			if l.gone || len(l.samples) > 0 {
				continue
			}
			d, err := l.wait(ctx, r.s, r.patience(k))
			switch {
			case err == io.EOF:
				l.gone = true
				continue
			case err != nil && k > 0 && ctx.Err() == nil:
				r.s.opt.Log.Error("an audio rendition is given up", "rendition", renditionName(l.f), "err", err)
				l.gone, r.tell = true, true
				continue
			case err != nil:
				return err
			case d == nil:
				r.leave(l)
				continue
			}
			if err := r.load(l, d); err != nil && k == 0 {
				return err
			} else if err != nil {
				r.s.opt.Log.Error("an audio rendition is given up", "rendition", renditionName(l.f), "err", err)
				l.gone, r.tell = true, true
			}
			waiting = true // it may hold nothing
		}
		if waiting {
			continue
		}
		if r.lowest() == nil {
			return io.EOF
		}
		return nil
	}
}

// patience is how long lane k is waited for: the main one as long as it takes.
func (r *hlsUnits) patience(k int) time.Duration {
	l := r.lanes[k]
	switch {
	case l.late:
		return 0
	case k == 0:
		return -1
	}
	return min(max(3*l.f.Target()/2, 4*time.Second), hlsLateLane)
}

// leave goes on without a lane that is late.
func (r *hlsUnits) leave(l *unitLane) {
	if l.late {
		return
	}
	l.late, r.tell = true, true
	r.s.opt.Log.Warn("an audio rendition does not come; going on without it", "rendition", renditionName(l.f))
}

func renditionName(f *hls.Follower) string {
	if x := f.Rendition(); x != nil {
		return strings.TrimSpace(x.Name + " " + x.Language)
	}
	return "main"
}

// load takes a segment of a lane.
func (r *hlsUnits) load(l *unitLane, d *hls.Delivery) error {
	main := l == r.lanes[0]
	if d.Missing > 0 {
		l.gap, r.tell = true, true
	}
	samples, err := r.samples(l, d)
	if err != nil {
		return fmt.Errorf("%s: %w", hls.Show(d.URL), err)
	}
	l.disc = d.Discontinuity
	if l.late {
		samples = r.resume(l, samples)
	}
	l.samples = samples
	if main && len(samples) > 0 {
		r.date0(d, samples)
	}
	return nil
}

// samples reads a segment. What cannot be read of it is missing; the error is
// that of a media initialization section.
func (r *hlsUnits) samples(l *unitLane, d *hls.Delivery) (samples []hls.Sample, err error) {
	if hls.IsMP4(d.Data) {
		if err := r.setMovie(l, d); err != nil {
			return nil, err
		}
		samples, err = l.movie.Read(d.Data)
	} else {
		err = errors.New("it is no fragmented MP4, and others are")
	}
	if err != nil {
		r.s.stats.Errors.Add(1)
		if text := err.Error(); text != l.refused {
			l.refused = text
			r.s.opt.Log.Warn("a segment cannot be read whole", "url", hls.Show(d.URL), "err", err)
		}
		l.gap, r.tell = true, true
	}
	return samples, nil
}

// resume takes up a lane that was left: what the others have passed is dropped.
func (r *hlsUnits) resume(l *unitLane, samples []hls.Sample) []hls.Sample {
	if l.disc < r.disc {
		return nil
	}
	if l.disc == r.disc {
		k := slices.IndexFunc(samples, func(x hls.Sample) bool { return x.DTS >= r.position })
		if k < 0 {
			return nil
		}
		samples = samples[k:]
	}
	l.late, r.tell = false, true
	r.s.opt.Log.Info("an audio rendition comes again", "rendition", renditionName(l.f))
	return samples
}

// date0 sets the pace and the dates of a segment of the main playlist.
func (r *hlsUnits) date0(d *hls.Delivery, samples []hls.Sample) {
	first, last := samples[0].DTS, &samples[len(samples)-1]
	r.start = r.s.dates.segment(d, first&(m4f.Wrap-1), r.s.opt.Clock.Now())
	r.origin, r.dated = first, true
	r.s.pace.segment(d, max(d.Duration, m4f.Duration(min(last.DTS+last.Duration-first, m4f.Timescale*3600))))
}

// date is when a sample was made.
func (r *hlsUnits) date(l *unitLane) time.Time {
	if l == nil || !r.dated {
		return r.s.opt.Clock.Now()
	}
	return r.start.Add(r.offset(l.samples[0].DTS))
}

// offset is the time from the begin of the main segment to a DTS.
func (r *hlsUnits) offset(dts int64) time.Duration {
	d := dts - r.origin
	if !r.dated || d > 3600*m4f.Timescale || d < -3600*m4f.Timescale {
		return 0
	}
	return m4f.Duration(d)
}

// setMovie takes a lane's media initialization section, where it is a new one.
func (r *hlsUnits) setMovie(l *unitLane, d *hls.Delivery) error {
	init := d.Init
	if init == nil {
		init = d.Data // segments may initialize themselves
	}
	if l.movie != nil && (d.Init == nil && l.init == nil || len(init) == len(l.init) && string(init) == string(l.init)) {
		return nil
	}
	m, err := hls.ParseMovie(init)
	if err != nil {
		return err
	}
	if len(m.Skipped) > 0 {
		r.s.opt.Log.Warn("tracks are not recorded: their codecs are not supported", "codecs", strings.Join(m.Skipped, ", "))
	}
	if len(m.Tracks) == 0 && l == r.lanes[0] {
		return fmt.Errorf("no track that can be recorded (%s)", strings.Join(m.Skipped, ", "))
	}
	l.movie, l.init = m, d.Init
	r.map_()
	return nil
}

// map_ makes the program map of all lanes' tracks. It is delivered where it
// differs from the one before.
func (r *hlsUnits) map_() {
	var tracks []mpegts.Track
	for k, l := range r.lanes {
		if l.movie == nil {
			continue
		}
		for i := range l.movie.Tracks {
			t := &l.movie.Tracks[i]
			tracks = append(tracks, mpegts.Track{PID: pidOf(k, i), StreamType: t.StreamType, Codec: t.Codec, Descriptors: describe(t, l.f.Rendition())})
		}
	}
	p := mpegts.NewProgram(hlsProgram, 0, tracks)
	p.PCRPID = pidOf(0, 0)
	if lead := p.Leading(); lead != nil {
		p.PCRPID = lead.PID
	}
	if r.program != nil && slices.EqualFunc(r.program.Tracks, p.Tracks, sameTrack) {
		p = r.program
	} else {
		r.sent = false
	}
	r.program = p
	for k, l := range r.lanes {
		if l.movie == nil {
			continue
		}
		l.tracks = make([]*mpegts.Track, len(l.movie.Tracks))
		for i := range l.tracks {
			pid := pidOf(k, i)
			l.tracks[i] = &p.Tracks[slices.IndexFunc(p.Tracks, func(t mpegts.Track) bool { return t.PID == pid })]
		}
	}
}

func pidOf(lane, track int) uint16 { return uint16(hlsFirstPID + lane*hlsLanePIDs + track) }

func sameTrack(a, b mpegts.Track) bool {
	return a.PID == b.PID && a.StreamType == b.StreamType && a.Codec == b.Codec && string(a.Descriptors) == string(b.Descriptors)
}

// describe returns the descriptors of a track: its language (ISO/IEC 13818-1
// 2.6.18) and what its codec needs.
func describe(t *hls.MovieTrack, x *hls.Rendition) []byte {
	lang := t.Language
	if lang == "" && x != nil {
		lang = hls.Language(x.Language)
	}
	var out []byte
	if lang != "" && !t.Codec.IsVideo() {
		out = append(append(out, 0x0a, 4), lang...)
		out = append(out, 0)
	}
	return append(out, t.Descriptors...)
}

// lowest returns the lane whose sample is next to be decoded: of an earlier
// discontinuity, then by time, then in the order of the playlists.
func (r *hlsUnits) lowest() *unitLane {
	var best *unitLane
	for _, l := range r.lanes {
		if len(l.samples) == 0 {
			continue
		}
		if best == nil || r.before(l, best) {
			best = l
		}
	}
	return best
}

// before says whether lane a's sample comes before lane b's. Playlists that do
// not agree about their discontinuities go by time alone.
func (r *hlsUnits) before(a, b *unitLane) bool {
	if a.disc != b.disc && r.apart < 3*int64(m4f.Timescale)*10 {
		return a.disc < b.disc
	}
	return a.samples[0].DTS < b.samples[0].DTS
}

// losing says whether the batch being made must tell of a loss, and takes note
// that it does.
func (r *hlsUnits) losing() bool {
	still := slices.ContainsFunc(r.lanes, func(l *unitLane) bool { return l.gap || l.late })
	if !r.tell && !(still && r.moved && r.position-r.told >= hlsTellLoss) {
		return false
	}
	r.tell, r.told = false, r.position
	return true
}

// run returns the samples up to the end of a lane or a tenth of a second, as
// one piece.
func (r *hlsUnits) run() []hlsPiece {
	first := r.lowest()
	from, disc := first.samples[0].DTS, first.disc
	p := hlsPiece{at: max(r.offset(from), 0), date: r.date(first), lostUnits: r.losing()}
	type pick struct {
		movie  *hls.Movie
		sample hls.Sample
		track  *mpegts.Track
	}
	var picks []pick
	for l := first; l != nil && l.disc == disc; l = r.lowest() {
		s := l.samples[0]
		if s.DTS-from >= m4f.Ticks(hlsGrain) || s.DTS < from {
			break
		}
		picks = append(picks, pick{l.movie, s, l.tracks[s.Track]})
		l.samples, l.gap = l.samples[1:], false
		r.advance(s.DTS, disc)
		if len(l.samples) == 0 {
			break
		}
	}
	p.make = func() []mpegts.Unit {
		units := make([]mpegts.Unit, 0, len(picks))
		for k := range picks {
			if u, ok := picks[k].movie.Unit(&picks[k].sample, picks[k].track); ok {
				units = append(units, u)
			}
		}
		return units
	}
	return []hlsPiece{p}
}

// advance takes note of a sample being delivered.
func (r *hlsUnits) advance(dts int64, disc uint64) {
	ahead := slices.ContainsFunc(r.lanes, func(l *unitLane) bool { return len(l.samples) > 0 && l.disc > disc })
	switch {
	case !ahead && r.apart < math.MaxInt64/2:
		r.apart = 0
	case ahead && r.moved && dts > r.position:
		r.apart += dts - r.position
	}
	r.position, r.disc, r.moved = dts, disc, true
}
