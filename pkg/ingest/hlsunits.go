package ingest

import (
	"context"
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

// hlsUnits reads the access units of segments, and puts those of all playlists
// into the order of decoding.
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
	reader  unitReader
	tracks  []*mpegts.Track // of the program, by those of the reader
	samples []unitSample
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
				if l.reader != nil {
					l.samples = r.unwrap(l.reader.flush())
				}
				continue
			case err != nil && k > 0 && ctx.Err() == nil:
				r.s.opt.Log.Error("an audio rendition is given up", "rendition", renditionName(l.f), "err", err)
				l.gone, r.tell = true, true
				l.stop()
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
				l.stop()
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
	return min(max(3*l.target/2, 4*time.Second), hlsLateLane)
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
	read, err := r.samples(l, d)
	if err != nil {
		return fmt.Errorf("%s: %w", hls.Show(d.URL), err)
	}
	samples := r.unwrap(read)
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
// one that makes all of the playlist unreadable.
func (r *hlsUnits) samples(l *unitLane, d *hls.Delivery) ([]unitSample, error) {
	if l.reader == nil {
		l.reader = newUnitReader(d, r.s.opt.Log)
	}
	got, err := l.reader.read(d)
	if err != nil {
		return nil, err
	}
	if got.bad != nil {
		r.s.stats.Errors.Add(1)
		if text := got.bad.Error(); text != l.refused {
			l.refused = text
			r.s.opt.Log.Warn("a segment cannot be read whole", "url", hls.Show(d.URL), "err", got.bad)
		}
	}
	if got.bad != nil || got.lost {
		l.gap, r.tell = true, true
	}
	if got.mapped {
		r.remap()
	}
	return got.samples, nil
}

// unwrap gives samples times that can be compared with those of the others.
func (r *hlsUnits) unwrap(samples []unitSample) []unitSample {
	if !r.moved && !r.dated && len(samples) > 0 {
		r.position = samples[0].dts
	}
	for k := range samples {
		samples[k].dts = r.position + m4f.Diff33(samples[k].dts, r.position&(m4f.Wrap-1))
	}
	return samples
}

// resume takes up a lane that was left: what the others have passed is dropped.
func (r *hlsUnits) resume(l *unitLane, samples []unitSample) []unitSample {
	if l.disc < r.disc {
		return nil
	}
	if l.disc == r.disc {
		k := slices.IndexFunc(samples, func(x unitSample) bool { return x.dts >= r.position })
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
func (r *hlsUnits) date0(d *hls.Delivery, samples []unitSample) {
	first, last := samples[0].dts, samples[len(samples)-1].dts
	r.start = r.s.dates.segment(d, first&(m4f.Wrap-1), r.s.opt.Clock.Now())
	r.origin, r.dated = first, true
	r.s.pace.segment(d, max(d.Duration, m4f.Duration(min(last-first, m4f.Timescale*3600))))
}

// date is when a sample was made.
func (r *hlsUnits) date(l *unitLane) time.Time {
	if l == nil || !r.dated {
		return r.s.opt.Clock.Now()
	}
	return r.start.Add(r.offset(l.samples[0].dts))
}

// offset is the time from the begin of the main segment to a DTS.
func (r *hlsUnits) offset(dts int64) time.Duration {
	d := dts - r.origin
	if !r.dated || d > 3600*m4f.Timescale || d < -3600*m4f.Timescale {
		return 0
	}
	return m4f.Duration(d)
}

// remap makes the program map of all lanes' tracks. It is delivered where it
// differs from the one before.
func (r *hlsUnits) remap() {
	var tracks []mpegts.Track
	pids := make([][]uint16, len(r.lanes)) // by lane and track
	taken := map[uint16]bool{0: true}
	for k, l := range r.lanes {
		if l.reader == nil {
			continue
		}
		for i, t := range l.reader.tracks() {
			// The main playlist's tracks keep their PIDs where they have any.
			if t.PID == 0 || k > 0 {
				t.PID = pidOf(k, i)
			}
			for taken[t.PID] {
				t.PID++
			}
			taken[t.PID] = true
			t.Descriptors = withLanguage(&t, l.f.Rendition())
			pids[k] = append(pids[k], t.PID)
			tracks = append(tracks, t)
		}
	}
	p := mpegts.NewProgram(hlsProgram, 0, tracks)
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
		l.tracks = l.tracks[:0:0]
		for _, pid := range pids[k] {
			l.tracks = append(l.tracks, &p.Tracks[slices.IndexFunc(p.Tracks, func(t mpegts.Track) bool { return t.PID == pid })])
		}
	}
}

func pidOf(lane, track int) uint16 { return uint16(hlsFirstPID + lane*hlsLanePIDs + track) }

func sameTrack(a, b mpegts.Track) bool {
	return a.PID == b.PID && a.StreamType == b.StreamType && a.Codec == b.Codec && string(a.Descriptors) == string(b.Descriptors)
}

// withLanguage returns the descriptors of a track with the language of its
// rendition (ISO/IEC 13818-1 2.6.18), unless they tell one.
func withLanguage(t *mpegts.Track, x *hls.Rendition) []byte {
	const languageTag = 0x0a
	for d := t.Descriptors; len(d) >= 2 && len(d) >= 2+int(d[1]); d = d[2+int(d[1]):] {
		if d[0] == languageTag {
			return t.Descriptors
		}
	}
	if x == nil || t.Codec.IsVideo() || hls.Language(x.Language) == "" {
		return t.Descriptors
	}
	out := append([]byte{languageTag, 4}, hls.Language(x.Language)...)
	return append(append(out, 0), t.Descriptors...)
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
	return a.samples[0].dts < b.samples[0].dts
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
	from, disc := first.samples[0].dts, first.disc
	p := hlsPiece{at: max(r.offset(from), 0), date: r.date(first), lostUnits: r.losing()}
	type pick struct {
		sample unitSample
		track  *mpegts.Track
	}
	var picks []pick
	for l := first; l != nil && l.disc == disc; l = r.lowest() {
		s := l.samples[0]
		// The tracks of a transport stream lie side by side, not in order.
		if d := s.dts - from; d >= m4f.Ticks(hlsGrain) || d < -m4f.Timescale {
			break
		}
		picks = append(picks, pick{s, l.tracks[s.track]})
		l.samples, l.gap = l.samples[1:], false
		r.advance(s.dts, disc)
		if len(l.samples) == 0 {
			break
		}
	}
	p.make = func() []mpegts.Unit {
		units := make([]mpegts.Unit, 0, len(picks))
		for k := range picks {
			if u, ok := picks[k].sample.unit(picks[k].track); ok {
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
