package ingest

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/twindvr/twindvr/pkg/hls"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
)

// unitSample is a sample of a lane.
type unitSample struct {
	track int   // of the reader's tracks
	dts   int64 // ticks; of 33 bits until it has been unwrapped
	// unit makes an access unit of it, of a track of the program.
	unit func(*mpegts.Track) (mpegts.Unit, bool)
}

// unitRead is what a reader got out of a segment.
type unitRead struct {
	samples []unitSample
	mapped  bool  // there are other tracks than before
	lost    bool  // something is missing
	bad     error // why part of the segment could not be read
}

// unitReader reads the segments of one playlist.
type unitReader interface {
	// read reads the next segment. An error is beyond hope.
	read(d *hls.Delivery) (unitRead, error)
	// tracks returns the tracks found so far; PID 0 is none.
	tracks() []mpegts.Track
	// flush returns what was held back, at the end.
	flush() []unitSample
}

// newUnitReader returns the reader for what the first segment is.
func newUnitReader(d *hls.Delivery, log *slog.Logger) unitReader {
	switch {
	case hls.IsMP4(d.Data):
		return &movieReader{log: log}
	case hls.IsPacked(d.Data):
		return &packedReader{}
	}
	return newStreamReader()
}

// movieReader reads fragmented MP4.
type movieReader struct {
	log   *slog.Logger
	movie *hls.Movie
	init  string
}

func (r *movieReader) read(d *hls.Delivery) (out unitRead, err error) {
	if !hls.IsMP4(d.Data) {
		out.bad = errors.New("it is no fragmented MP4, and others are")
		return out, nil
	}
	init := d.Init
	if init == nil && r.movie == nil {
		init = d.Data // it initializes itself
	}
	if init != nil && (r.movie == nil || string(init) != r.init) {
		if r.movie, err = hls.ParseMovie(init); err != nil {
			return out, err
		}
		r.init, out.mapped = string(init), true
		if len(r.movie.Skipped) > 0 {
			r.log.Warn("tracks are not recorded: their codecs are not supported", "codecs", strings.Join(r.movie.Skipped, ", "))
		}
		if r.movie.Bare > 0 {
			r.log.Warn("audio is not recorded: the sender's audio has no configuration (ffmpeg: add -bsf:a aac_adtstoasc)", "tracks", r.movie.Bare)
		}
		if len(r.movie.Tracks) == 0 && r.movie.Bare > 0 && len(r.movie.Skipped) == 0 {
			return out, errors.New("no track that can be recorded: the sender's audio has no configuration (ffmpeg: add -bsf:a aac_adtstoasc)")
		}
		if len(r.movie.Tracks) == 0 {
			return out, fmt.Errorf("no track that can be recorded (%s)", strings.Join(r.movie.Skipped, ", "))
		}
	}
	samples, err := r.movie.Read(d.Data)
	out.bad = err
	m := r.movie
	for k := range samples {
		s := &samples[k]
		out.samples = append(out.samples, unitSample{s.Track, s.DTS & (m4f.Wrap - 1), func(t *mpegts.Track) (mpegts.Unit, bool) { return m.Unit(s, t) }})
	}
	return out, nil
}

func (r *movieReader) tracks() (out []mpegts.Track) {
	if r.movie == nil {
		return nil
	}
	for k := range r.movie.Tracks {
		t := &r.movie.Tracks[k]
		desc := t.Descriptors
		if t.Language != "" && !t.Codec.IsVideo() {
			desc = append(append([]byte{0x0a, 4}, t.Language...), 0)
			desc = append(desc, t.Descriptors...)
		}
		out = append(out, mpegts.Track{StreamType: t.StreamType, Codec: t.Codec, Descriptors: desc})
	}
	return out
}

func (r *movieReader) flush() []unitSample { return nil }

// streamReader reads a transport stream. It implements mpegts.Handler.
type streamReader struct {
	dmx     *mpegts.Demuxer
	program *mpegts.Program
	last    int64 // DTS of the last unit that had a time
	got     unitRead
	pids    []uint16 // of its samples
}

func newStreamReader() *streamReader {
	r := &streamReader{}
	r.dmx = mpegts.NewDemuxer(0, r)
	return r
}

func (r *streamReader) read(d *hls.Delivery) (unitRead, error) {
	r.dmx.Splice()
	if len(d.Init) > 0 {
		r.dmx.Write(d.Init)
		r.dmx.Splice()
	}
	r.dmx.Write(d.Data)
	return r.take(), nil
}

func (r *streamReader) take() unitRead {
	got := r.got
	r.got, r.pids = unitRead{}, nil
	if r.program == nil && got.bad == nil {
		got.bad = errors.New("no program of a transport stream in it")
	}
	return got
}

func (r *streamReader) tracks() []mpegts.Track {
	if r.program == nil {
		return nil
	}
	return append([]mpegts.Track(nil), r.program.Tracks...)
}

func (r *streamReader) flush() []unitSample {
	r.dmx.Close()
	return r.take().samples
}

// Program implements mpegts.Handler.
func (r *streamReader) Program(p *mpegts.Program, _ int64, _ bool) {
	r.program, r.got.mapped = p, true
	keep, pids := r.got.samples[:0], r.pids[:0]
	for k, s := range r.got.samples {
		if s.track = r.find(r.pids[k]); s.track >= 0 {
			keep, pids = append(keep, s), append(pids, r.pids[k])
		}
	}
	r.got.samples, r.pids = keep, pids
}

// find returns the place of a track in the program, or -1.
func (r *streamReader) find(pid uint16) int {
	return slices.IndexFunc(r.program.Tracks, func(t mpegts.Track) bool { return t.PID == pid })
}

// VideoHeader implements mpegts.Handler.
func (r *streamReader) VideoHeader(*mpegts.Track, int64, int64) {}

// Loss implements mpegts.Handler.
func (r *streamReader) Loss(mpegts.Loss) { r.got.lost = true }

// Unit implements mpegts.Handler.
func (r *streamReader) Unit(u *mpegts.Unit) {
	k := r.find(u.Track.PID)
	if k < 0 {
		u.Release()
		return
	}
	if u.Dated {
		r.last = u.DTS
	}
	unit := *u
	r.pids = append(r.pids, u.Track.PID)
	r.got.samples = append(r.got.samples, unitSample{k, r.last, func(t *mpegts.Track) (mpegts.Unit, bool) {
		unit.Track = t
		return unit, true
	}})
}

// packedReader reads packed audio: frames of AAC in ADTS.
type packedReader struct{ known bool }

func (r *packedReader) read(d *hls.Delivery) (out unitRead, err error) {
	out.mapped, r.known = !r.known, true
	frames, err := hls.ReadPacked(d.Data)
	out.bad = err
	for k := range frames {
		f := &frames[k]
		out.samples = append(out.samples, unitSample{0, f.PTS & (m4f.Wrap - 1), func(t *mpegts.Track) (mpegts.Unit, bool) {
			return mpegts.NewFrame(t, f.PTS, f.Duration, f.Header, f.Data), true
		}})
	}
	return out, nil
}

func (r *packedReader) tracks() []mpegts.Track {
	return []mpegts.Track{{StreamType: 0x0f, Codec: m4f.CodecAAC}}
}

func (r *packedReader) flush() []unitSample { return nil }
