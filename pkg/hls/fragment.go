package hls

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/Eyevinn/mp4ff/mp4"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
)

// maxSamples are the samples of a segment that are read.
const maxSamples = 1 << 20

// Sample is one sample of a segment. Times are of 1/90 000 s and follow from
// the segment alone; they are not yet wrapped to 33 bits.
type Sample struct {
	Track              int // of Movie.Tracks
	DTS, PTS, Duration int64
	Sync               bool
	Data               []byte // in the segment's memory
}

// Read returns the samples of a segment (styp, moof and mdat boxes; others are
// passed over, emsg too), in the order of decoding: by DTS, at equal times in
// the order of the tracks. Any input is safe.
func (m *Movie) Read(segment []byte) ([]Sample, error) {
	r := fragments{m: m, segment: segment}
	if err := walkBoxes(segment, 0, func(c box) error {
		if c.typ != "moof" {
			return nil
		}
		return walkBoxes(c.body, 0, func(t box) error {
			if t.typ != "traf" {
				return nil
			}
			return r.traf(t.body, c.off)
		})
	}); err != nil {
		return r.sorted(), err
	}
	return r.sorted(), nil
}

type fragments struct {
	m       *Movie
	segment []byte
	samples []Sample
	looked  int
}

func (r *fragments) sorted() []Sample {
	slices.SortStableFunc(r.samples, func(a, b Sample) int {
		switch {
		case a.DTS != b.DTS:
			if a.DTS < b.DTS {
				return -1
			}
			return 1
		}
		return a.Track - b.Track
	})
	return r.samples
}

// traf reads a track fragment (14496-12 8.8.6) of a moof at an offset.
func (r *fragments) traf(b []byte, moof int) error {
	var tfhd *mp4.TfhdBox
	var at int64
	dated := false
	track := -1
	next := int64(-1) // where data without an offset is
	return walkBoxes(b, 0, func(c box) (err error) {
		switch c.typ {
		case "tfhd":
			if tfhd, err = decodeBox[*mp4.TfhdBox](c); err != nil {
				return err
			}
			track = slices.IndexFunc(r.m.Tracks, func(t MovieTrack) bool { return t.id == tfhd.TrackID })
		case "tfdt":
			tfdt, err := decodeBox[*mp4.TfdtBox](c)
			if err != nil {
				return err
			}
			if t := tfdt.BaseMediaDecodeTime(); t < 1<<62 {
				at, dated = int64(t), true
			}
		case "trun":
			if tfhd == nil {
				return errors.New("no tfhd before it")
			}
			if track < 0 {
				return nil // not recorded
			}
			if !dated {
				return errors.New("no tfdt that says when it begins")
			}
			at, next, err = r.trun(c, tfhd, track, at, int64(moof), next)
		}
		return err
	})
}

// trun reads a run of samples from a decoding time on. It returns the time and
// the offset behind them.
func (r *fragments) trun(c box, tfhd *mp4.TfhdBox, track int, at, moof, next int64) (int64, int64, error) {
	run, err := decodeBox[*mp4.TrunBox](c)
	if err != nil {
		return 0, 0, err
	}
	t := &r.m.Tracks[track]
	if r.looked += len(run.Samples); r.looked > maxSamples {
		return 0, 0, fmt.Errorf("more than %d samples in a segment", maxSamples)
	}
	run.AddSampleDefaultValues(tfhd, t.trex)
	base := moof
	if tfhd.HasBaseDataOffset() && tfhd.BaseDataOffset < 1<<62 {
		base = int64(tfhd.BaseDataOffset)
	}
	off := next
	if run.HasDataOffset() {
		off = base + int64(run.DataOffset)
	}
	if off < 0 {
		return 0, 0, errors.New("samples without an offset")
	}
	for _, s := range run.Samples {
		end := off + int64(s.Size)
		if end > int64(len(r.segment)) {
			return 0, 0, fmt.Errorf("a sample ends at byte %d of %d", end, len(r.segment))
		}
		dts := t.ticks(at)
		r.samples = append(r.samples, Sample{
			Track: track, DTS: dts, PTS: t.ticks(at + int64(s.CompositionTimeOffset)), Duration: t.ticks(at+int64(s.Dur)) - dts,
			Sync: s.Flags&mp4.NonSyncSampleFlags == 0, Data: r.segment[off:end:end],
		})
		at, off = at+int64(s.Dur), end
	}
	return at, off, nil
}

// ticks converts a time of the track, moved by its edit list, rounding down.
// Each time is converted by itself, so that it does not depend on which came
// before it.
func (t *MovieTrack) ticks(at int64) int64 {
	at -= t.shift
	neg := at < 0
	if neg {
		at = -at
	}
	hi, lo := bits.Mul64(uint64(at), m4f.Timescale)
	q, rem := bits.Div64(hi%uint64(t.scale), lo, uint64(t.scale))
	v := int64(q & (1<<62 - 1))
	if neg {
		v = -v
		if rem > 0 {
			v--
		}
	}
	return v
}

// Unit makes an access unit of a sample: false when there is nothing in it.
func (m *Movie) Unit(s *Sample, track *mpegts.Track) (mpegts.Unit, bool) {
	t := &m.Tracks[s.Track]
	if !t.Codec.IsVideo() {
		header := t.header
		if header == nil {
			header = s.Data[:min(len(s.Data), 64)]
		}
		return mpegts.NewFrame(track, s.PTS, s.Duration, header, s.Data), len(s.Data) > 0
	}
	return mpegts.NewPicture(track, s.PTS, s.DTS, t.nals(s))
}

// nals returns the NAL units of a picture. A picture that can be decoded by
// itself gets the parameter sets of the sample entry, behind an access unit
// delimiter, unless it brings its own.
func (t *MovieTrack) nals(s *Sample) [][]byte {
	var out [][]byte
	own, key := false, s.Sync
	b := s.Data
	for len(b) >= t.lengthSize {
		n := uint64(0)
		for _, x := range b[:t.lengthSize] {
			n = n<<8 | uint64(x)
		}
		b = b[t.lengthSize:]
		n = min(n, uint64(len(b)))
		if n > 0 {
			nal := b[:n:n]
			own = own || mpegts.ParameterSet(t.Codec, nal) != 0
			key = key || t.intra(nal)
			out = append(out, nal)
		}
		b = b[n:]
	}
	if own || !key || len(out) == 0 {
		return out
	}
	at := 0
	if t.delimiter(out[0]) {
		at = 1
	}
	return slices.Insert(out, at, t.sets...)
}

// intra says whether a NAL unit begins a picture that pictures behind it can do
// without those before it (H.264 table 7-1; H.265 table 7-1).
func (t *MovieTrack) intra(nal []byte) bool {
	if t.Codec == m4f.CodecH264 {
		return nal[0]&31 == 5
	}
	k := nal[0] >> 1 & 63
	return k >= 16 && k <= 21
}

func (t *MovieTrack) delimiter(nal []byte) bool {
	if t.Codec == m4f.CodecH264 {
		return nal[0]&31 == 9
	}
	return nal[0]>>1&63 == 35
}
