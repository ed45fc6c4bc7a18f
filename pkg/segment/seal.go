package segment

import (
	"bytes"
	"slices"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
)

// seal makes a segment of the frames of the opening being collected. last is
// the number of the PES packet that opens the next, whose opening is next.
func (s *Segmenter) seal(frames []*frame, end, last int64, next *opening) {
	done := func() {
		for _, f := range frames {
			f.Release()
		}
	}
	lent := false
	defer func() {
		if !lent {
			done()
		}
	}()
	o := s.cur
	if o == nil || !o.key && s.lastInit == nil {
		// Before the first keyframe nothing is written.
		s.afterJump = s.afterJump || o != nil && o.jump
		return
	}
	spec := s.spec(o, frames, end, next)
	s.judge(o, frames, end, last, &spec.Header)
	if s.cfg.Lend {
		spec.Done = done
	}
	seg, err := m4f.Build(spec)
	if err != nil {
		s.stats.Err = err
		s.afterJump = s.afterJump || o.jump
		return
	}
	lent = s.cfg.Lend
	seg.Header.UTC = s.dater.date(seg.Header.MediaTime, int64(seg.Header.Duration), o.f.arrived, seg.Header.Flags&m4f.Discontinuity != 0)
	s.lastInit, s.lastProg, s.afterJump = seg.Init, o.program, false
	s.stats.Segments++
	if seg.Header.Damaged() {
		s.stats.Damaged++
	}
	if seg.Header.Partial() {
		s.stats.Partial++
	}
	s.emit(seg)
	s.keepFor(o, frames, seg.Header)
}

// spec describes the segment to the format.
func (s *Segmenter) spec(o *opening, frames []*frame, end int64, next *opening) *m4f.SegmentSpec {
	spec := &m4f.SegmentSpec{TargetDuration: s.cfg.TargetDuration}
	if !o.key {
		spec.Init, o.program = s.lastInit, s.lastProg
	}
	p := o.program
	spec.Program, spec.PCRPID, spec.ProgramDescriptors = p.Number, p.PCRPID, p.Descriptors
	start := o.f.PTS
	h := &spec.Header
	h.MediaTime = start
	h.Duration = uint32(max(m4f.Diff33(end, start), 1))
	if o.key {
		h.Flags |= m4f.Keyframe
	}
	if o.jump || s.afterJump {
		h.Flags |= m4f.Discontinuity
	}
	byPID := map[uint16][]*frame{}
	for _, f := range frames {
		byPID[f.Track.PID] = append(byPID[f.Track.PID], f)
	}
	for k := range p.Tracks {
		t := &p.Tracks[k]
		own := slices.DeleteFunc(byPID[t.PID], func(f *frame) bool { return !same(f.Track, t) })
		spec.Tracks = append(spec.Tracks, s.trackOf(t, o, own, start, end, next))
	}
	return spec
}

// trackOf makes a track's configuration and samples of its frames.
func (s *Segmenter) trackOf(t *mpegts.Track, o *opening, frames []*frame, start, end int64, next *opening) m4f.Track {
	c := m4f.TrackConfig{PID: t.PID, StreamType: t.StreamType, Descriptors: t.Descriptors, Codec: t.Codec}
	var drop func(nal []byte) bool
	switch {
	case !o.key: // the init segment is another's: all stays in the samples
	case t.Codec == m4f.CodecH264 || t.Codec == m4f.CodecHEVC:
		drop = configureNAL(&c, o.f, frames, s.lead.PID == t.PID)
	case t.Codec == m4f.CodecMPEG2Video:
		for _, f := range frames {
			if f.Header != nil {
				c.SequenceHeader = f.Header
				break
			}
		}
	case t.Kind == mpegts.Audio && len(frames) > 0:
		c.FrameHeader, c.Codec = frames[0].Header, frames[0].Codec
	}
	tr := m4f.Track{Config: c, Samples: make([]m4f.Sample, 0, len(frames))}
	for _, f := range frames {
		tr.Samples = append(tr.Samples, m4f.Sample{
			PTS: start + m4f.Diff33(f.PTS, start), DTS: start + m4f.Diff33(f.DTS, start),
			Sync: f.Key || t.Kind != mpegts.Video, Data: framed(&f.Unit, &c), NALs: without(&f.Unit, drop),
		})
	}
	settleTimes(tr.Samples)
	if n := len(tr.Samples); n > 0 {
		tr.Samples[n-1].Duration = s.lastDuration(t, frames, tr.Samples, start+m4f.Diff33(end, start), next)
	}
	return tr
}

// framed returns what a sample holds of a frame: its bytes, and its ADTS header
// ahead of them where that says another profile, sampling rate or channel
// configuration than the sample entry does (ISO/IEC 14496-3 1.A.2.2).
func framed(u *mpegts.Unit, c *m4f.TrackConfig) []byte {
	h := u.Header
	if u.Codec != m4f.CodecAAC || c.Codec != m4f.CodecAAC || len(h) < 9 || len(c.FrameHeader) < 9 || h[0] != 0xff ||
		h[2]&^2 == c.FrameHeader[2]&^2 && h[3]&0xc0 == c.FrameHeader[3]&0xc0 {
		return u.Data
	}
	n := 7
	if h[1]&1 == 0 { // with a CRC
		n = 9
	}
	return append(append(make([]byte, 0, n+len(u.Data)), h[:n]...), u.Data...)
}

// settleTimes makes decoding times rise: a file cannot say otherwise. The
// times of presentation stay.
func settleTimes(samples []m4f.Sample) {
	for k := 1; k < len(samples); k++ {
		samples[k].DTS = max(samples[k].DTS, samples[k-1].DTS)
	}
}

// lastDuration is the duration of a track's last sample: audio, its own; video,
// up to the next keyframe's DTS; data, to the segment's end. Where a jump or
// the end of the input follows, video lasts as long as the sample before.
func (s *Segmenter) lastDuration(t *mpegts.Track, frames []*frame, samples []m4f.Sample, end int64, next *opening) uint32 {
	n := len(frames) - 1
	last := frames[n]
	switch t.Kind {
	case mpegts.Audio:
		return uint32(last.Duration)
	case mpegts.Data:
		return uint32(min(max(end-samples[n].DTS, 0), m4f.Wrap/4))
	}
	if next != nil && !next.jump {
		f := next.f
		if f.Track.PID != t.PID {
			f = s.firstOf(t.PID)
		}
		if f != nil {
			if d := m4f.Diff33(f.DTS, last.DTS); d >= 0 && d <= jumpAhead {
				return uint32(d)
			}
		}
	}
	if n > 0 {
		return uint32(min(max(samples[n].DTS-samples[n-1].DTS, 0), jumpAhead))
	}
	return 0
}

// firstOf returns the first frame waiting of a track, or nil.
func (s *Segmenter) firstOf(pid uint16) *frame {
	for _, f := range s.buf {
		if f.Track.PID == pid {
			return f
		}
	}
	return nil
}

// configureNAL fills in the parameter sets of an H.264 or HEVC track: those of
// the opening keyframe, or of the first frame that has any. It returns which
// NAL units the samples leave out: the parameter sets that the sample entry
// holds, unless others come in the segment; then all stay.
func configureNAL(c *m4f.TrackConfig, key *frame, frames []*frame, leading bool) func([]byte) bool {
	src := key
	if !leading {
		src = nil
		for _, f := range frames {
			if f.Sets {
				src = f
				break
			}
		}
	}
	if src == nil {
		c.InBand = true
		return nil
	}
	addSets(c, &src.Unit)
	for _, f := range frames {
		if !f.Sets {
			continue
		}
		for _, r := range f.NALs {
			nal := f.Data[r.Off : r.Off+r.Len]
			if k := mpegts.ParameterSet(c.Codec, nal); k != 0 && !contains(setsOf(c, k), nal) {
				c.InBand = true
				return nil
			}
		}
	}
	return func(nal []byte) bool { return mpegts.ParameterSet(c.Codec, nal) != 0 }
}

func addSets(c *m4f.TrackConfig, u *mpegts.Unit) {
	for _, r := range u.NALs {
		nal := u.Data[r.Off : r.Off+r.Len : r.Off+r.Len]
		k := mpegts.ParameterSet(c.Codec, nal)
		if k == 0 || contains(setsOf(c, k), nal) {
			continue
		}
		switch k {
		case 'V':
			c.VPS = append(c.VPS, nal)
		case 'S':
			c.SPS = append(c.SPS, nal)
		case 'P':
			c.PPS = append(c.PPS, nal)
		}
	}
}

func setsOf(c *m4f.TrackConfig, k byte) [][]byte {
	switch k {
	case 'V':
		return c.VPS
	case 'S':
		return c.SPS
	}
	return c.PPS
}

func contains(sets [][]byte, nal []byte) bool {
	for _, x := range sets {
		if bytes.Equal(x, nal) {
			return true
		}
	}
	return false
}

// without returns a unit's NAL units but those to be dropped. A unit that
// holds nothing else keeps them.
func without(u *mpegts.Unit, drop func([]byte) bool) []m4f.Range {
	if drop == nil || !u.Sets {
		return u.NALs
	}
	keep := make([]m4f.Range, 0, len(u.NALs))
	for _, r := range u.NALs {
		if !drop(u.Data[r.Off : r.Off+r.Len]) {
			keep = append(keep, r)
		}
	}
	if len(keep) == 0 {
		return u.NALs
	}
	return keep
}

// judge sets the flags of a segment and its counts of packets.
func (s *Segmenter) judge(o *opening, frames []*frame, end, last int64, h *m4f.Header) {
	damaged := o.unsure
	lost, errored := o.lost, o.errored
	for _, f := range frames {
		damaged = damaged || f.Marked
	}
	for _, l := range s.losses {
		if l.harms(o.f.PTS, end, o.f.PES, last) {
			damaged = true
			if !l.lead {
				o.lostAt = min(o.lostAt, l.at-1)
			}
		}
	}
	if s.again && s.deaf(o) {
		damaged = true
	}
	if damaged {
		h.Flags |= m4f.Damaged
		h.Lost, h.Errored = uint32(lost), uint32(errored)
	}
	if o.partial || !s.again && s.joined(o) {
		h.Flags |= m4f.Partial
	}
}

// deaf says whether a track may have jumped in time where it was not heard, so
// that a segment which has its frames may not be what others write.
func (s *Segmenter) deaf(o *opening) bool {
	for k := range o.program.Tracks {
		t := &o.program.Tracks[k]
		st := s.tracks[t.PID]
		if t.Kind == mpegts.Audio && t.PID != s.lead.PID && o.f.received < forget && st != nil && st.deaf {
			return true
		}
	}
	return false
}

// joined says whether the recorder has joined too lately to be sure that it
// has all of the segment: an audio track may run ahead of the leading one.
func (s *Segmenter) joined(o *opening) bool {
	received := o.f.received
	for k := range o.program.Tracks {
		t := &o.program.Tracks[k]
		switch {
		case t.PID == s.lead.PID:
		case t.Kind == mpegts.Data:
			if received < latest {
				return true
			}
		case received < forget:
			st := s.tracks[t.PID]
			if st == nil || !st.seen || st.deaf {
				return true
			}
			// A first frame dated far off tells nothing.
			if d := m4f.Diff33(st.first, o.f.PTS); d >= 0 || d < -3*forget {
				return true
			}
		}
	}
	return false
}
