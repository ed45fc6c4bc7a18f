package m4f

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/Eyevinn/mp4ff/bits"
	"github.com/Eyevinn/mp4ff/mp4"
)

// Limits of a segment, checked by writers and, before anything is allocated,
// by readers.
const (
	MaxInit  = 1 << 20   // bytes of an init segment
	MaxMedia = 256 << 20 // bytes of moof and mdat
	// MaxTracks is how many elementary streams a program may have.
	MaxTracks = 256
)

// Range is a part of a sample's data.
type Range struct{ Off, Len uint32 }

// Sample is one access unit, audio frame, PES packet or section.
type Sample struct {
	// PTS and DTS are ticks, unwrapped to within 2^32 of the segment's media
	// time; they may be negative.
	PTS, DTS int64
	// Duration in ticks. It counts for the last sample of a track; the others
	// last until the next one's DTS.
	Duration uint32
	// Sync says that decoding can begin here.
	Sync bool
	Data []byte
	// NALs are the NAL units of H.264 and HEVC inside Data; each is written
	// behind a 4-byte length. Nil: Data is written whole.
	NALs []Range
}

// size is the number of bytes that the sample takes in mdat.
func (s *Sample) size() int {
	if s.NALs == nil {
		return len(s.Data)
	}
	n := 4 * len(s.NALs)
	for _, r := range s.NALs {
		n += int(r.Len)
	}
	return n
}

// Track is the part of a segment that belongs to one elementary stream.
type Track struct {
	Config  TrackConfig
	Samples []Sample
}

// SegmentSpec is what a segment is made of.
type SegmentSpec struct {
	// Header has MediaTime, UTC, Duration, Flags, Lost and Errored set; Build
	// fills in ID, Init and Length.
	Header Header
	// TargetDuration is D in ticks; Program the program number; PCRPID and
	// ProgramDescriptors as in the PMT.
	TargetDuration     int64
	Program            uint16
	PCRPID             uint16
	ProgramDescriptors []byte
	// Tracks, video first, then by PID. Track n has track ID n+1.
	Tracks []Track
	// Init, if not nil, is used instead of making one: a segment that does not
	// open at a keyframe repeats the previous. It must have the same tracks in
	// the same order.
	Init []byte
	// Done, where set, has the segment's media lie in pieces, most of which are
	// the samples' own bytes: nothing is copied, and they must not change until
	// Segment.Recycle calls Done, on whatever goroutine.
	Done func()
}

// SequenceNumber is the mfhd.sequence_number of a segment that opens at
// mediaTime: it grows with media time and is never 0.
func SequenceNumber(mediaTime int64) uint32 {
	return uint32((mediaTime&(Wrap-1))>>2) + 1
}

// Build makes a segment. The bytes of its init segment and media follow from
// the spec alone. The media is written once, into memory that Segment.Recycle may
// have left, or not at all (see SegmentSpec.Done).
func Build(spec *SegmentSpec) (*Segment, error) {
	if err := spec.check(); err != nil {
		return nil, err
	}
	init := spec.Init
	if init == nil {
		var err error
		if init, err = buildInit(spec); err != nil {
			return nil, err
		}
	}
	head, payload, err := buildHead(spec)
	if err != nil {
		return nil, err
	}
	seg := &Segment{Header: spec.Header, Init: init, done: spec.Done}
	if spec.Done != nil {
		seg.pieces = mediaPieces(head, spec.Tracks)
	} else {
		seg.Media = newMedia(len(head) + payload)
		fillMdat(seg.Media[copy(seg.Media, head):], spec.Tracks)
	}
	seg.Header.Init = Identify(init)
	seg.Header.ID = Identify(init, seg.Pieces()...)
	seg.Header.Length = uint64(len(head) + payload)
	return seg, nil
}

func (spec *SegmentSpec) check() error {
	h := &spec.Header
	switch {
	case h.MediaTime < 0 || h.MediaTime >= Wrap:
		return fmt.Errorf("media time %d is not a 33-bit time", h.MediaTime)
	case len(spec.Tracks) == 0:
		return errors.New("a segment needs a track")
	case len(spec.Tracks) > MaxTracks:
		return fmt.Errorf("%d tracks, at most %d fit a segment", len(spec.Tracks), MaxTracks)
	case spec.TargetDuration <= 0 || spec.TargetDuration > math.MaxUint32:
		return fmt.Errorf("target duration of %d ticks", spec.TargetDuration)
	}
	for i := range spec.Tracks {
		if c := &spec.Tracks[i].Config; !c.Codec.Valid() {
			return fmt.Errorf("PID %d: unknown codec %d", c.PID, c.Codec)
		}
	}
	return h.CheckTimes()
}

// Sample flags (ISO/IEC 14496-12 8.8.3.1).
const (
	flagsSync    = 0x02000000 // sample_depends_on 2: on no other
	flagsNonSync = 0x01010000 // sample_depends_on 1, sample_is_non_sync_sample
)

// buildHead writes moof and the header of mdat, and returns how many bytes the
// samples have.
func buildHead(spec *SegmentSpec) (_ []byte, samples int, err error) {
	shift := wrapShift(spec)
	moof := &mp4.MoofBox{}
	add := func(parent interface{ AddChild(mp4.Box) error }, b mp4.Box) {
		if err := parent.AddChild(b); err != nil {
			panic(err) // only boxes that a fragment may have are added
		}
	}
	add(moof, mp4.CreateMfhd(SequenceNumber(spec.Header.MediaTime)))
	payload := int64(0)
	sizes := make([]int64, len(spec.Tracks))
	for i := range spec.Tracks {
		traf := &mp4.TrafBox{}
		n, err := fillTraf(traf, uint32(i+1), &spec.Tracks[i], spec.Header.MediaTime, shift)
		if err != nil {
			return nil, 0, err
		}
		add(moof, traf)
		sizes[i] = n
		payload += n
	}
	head := int64(moof.Size()) + 8
	if head+payload > MaxMedia {
		return nil, 0, fmt.Errorf("segment of %d bytes, at most %d are allowed", head+payload, MaxMedia)
	}
	off := head
	for i, traf := range moof.Trafs {
		if traf.Trun != nil {
			traf.Trun.DataOffset = int32(off)
		}
		off += sizes[i]
	}
	buf := make([]byte, head)
	sw := bits.NewFixedSliceWriterFromSlice(buf)
	if err := moof.EncodeSW(sw); err != nil {
		return nil, 0, fmt.Errorf("moof: %w", err)
	}
	if err := mp4.EncodeHeaderWithSizeSW("mdat", uint64(8+payload), false, sw); err != nil {
		return nil, 0, fmt.Errorf("mdat: %w", err)
	}
	if sw.Offset() != int(head) {
		return nil, 0, fmt.Errorf("moof: wrote %d of %d bytes", sw.Offset(), head)
	}
	return buf, int(payload), nil
}

// wrapShift is 2^33 if any track would otherwise begin before time 0.
func wrapShift(spec *SegmentSpec) int64 {
	for i := range spec.Tracks {
		if s := spec.Tracks[i].Samples; len(s) > 0 && s[0].DTS < 0 {
			return Wrap
		}
	}
	return 0
}

// fillTraf describes one track's samples and returns their size in bytes. A
// track without samples has no trun, says duration-is-empty, and its tfdt is
// the segment's media time.
func fillTraf(traf *mp4.TrafBox, id uint32, t *Track, mediaTime, shift int64) (int64, error) {
	tfhd := &mp4.TfhdBox{
		Flags:              mp4.TfhdDefaultBaseIsMoofFlag | mp4.TfhdDefaultSampleFlagsPresentFlag,
		TrackID:            id,
		DefaultSampleFlags: flagsSync,
	}
	base := mediaTime + shift
	if len(t.Samples) == 0 {
		tfhd.Flags |= mp4.TfhdDurationIsEmptyFlag
	} else {
		base = t.Samples[0].DTS + shift
	}
	if base < 0 {
		return 0, fmt.Errorf("PID %d: DTS %d is more than 2^33 before the segment", t.Config.PID, t.Samples[0].DTS)
	}
	// 64-bit tfdt always: its size does not depend on the time of day.
	tfdt := mp4.CreateTfdt(1 << 32)
	tfdt.SetBaseMediaDecodeTime(uint64(base))
	tfdt.Version = 1
	for _, b := range []mp4.Box{tfhd, tfdt} {
		if err := traf.AddChild(b); err != nil {
			return 0, err
		}
	}
	if len(t.Samples) == 0 {
		return 0, nil
	}
	trun, size := fillTrun(t)
	return size, traf.AddChild(trun)
}

// fillTrun makes the sample table. Decode times never go back: a sample whose
// DTS lies before its predecessor's takes that one's, and keeps its PTS.
func fillTrun(t *Track) (*mp4.TrunBox, int64) {
	trun := mp4.CreateTrun(0)
	trun.Flags = mp4.TrunDataOffsetPresentFlag | mp4.TrunSampleDurationPresentFlag | mp4.TrunSampleSizePresentFlag
	if t.Config.Codec.IsVideo() {
		trun.Flags |= mp4.TrunSampleFlagsPresentFlag
	}
	trun.Samples = make([]mp4.Sample, len(t.Samples))
	total := int64(0)
	dts := t.Samples[0].DTS
	for i := range t.Samples {
		s, o := &t.Samples[i], &trun.Samples[i]
		o.Flags = flagsSync
		if !s.Sync {
			o.Flags = flagsNonSync
		}
		size := s.size()
		o.Size = uint32(size)
		total += int64(size)
		if s.PTS != dts {
			o.CompositionTimeOffset = int32(min(max(s.PTS-dts, math.MinInt32), math.MaxInt32))
			trun.Flags |= mp4.TrunSampleCompositionTimeOffsetPresentFlag
		}
		o.Dur = s.Duration
		if i+1 < len(t.Samples) {
			o.Dur = uint32(min(max(t.Samples[i+1].DTS-dts, 0), math.MaxUint32))
			dts += int64(o.Dur)
		}
	}
	return trun, total
}

// fillMdat copies every sample into place, track by track.
func fillMdat(dst []byte, tracks []Track) {
	eachPart(tracks, func(b []byte, prefixed bool) {
		if prefixed {
			binary.BigEndian.PutUint32(dst, uint32(len(b)))
			dst = dst[4:]
		}
		dst = dst[copy(dst, b):]
	})
}

// leastPiece is how many bytes are worth a piece of their own: fewer are copied
// behind what comes before them.
const leastPiece = 512

// mediaPieces returns the media in pieces: what is ahead of the samples, their
// own bytes, and in between the lengths of NAL units and what is too small.
func mediaPieces(head []byte, tracks []Track) [][]byte {
	copied, count := len(head), 1
	eachPart(tracks, func(b []byte, prefixed bool) {
		if prefixed {
			copied += 4
		}
		if len(b) < leastPiece {
			copied += len(b)
		} else {
			count += 2
		}
	})
	buf := append(make([]byte, 0, copied), head...)
	pieces, from := make([][]byte, 0, count), 0
	eachPart(tracks, func(b []byte, prefixed bool) {
		if prefixed {
			buf = binary.BigEndian.AppendUint32(buf, uint32(len(b)))
		}
		if len(b) < leastPiece {
			buf = append(buf, b...)
			return
		}
		if from < len(buf) {
			pieces = append(pieces, buf[from:])
		}
		pieces, from = append(pieces, b), len(buf)
	})
	if from < len(buf) {
		pieces = append(pieces, buf[from:])
	}
	return pieces
}

// eachPart calls fn for each NAL unit, which has its length ahead of it, and each
// sample that is not made of them, in the order of mdat.
func eachPart(tracks []Track, fn func(b []byte, prefixed bool)) {
	for i := range tracks {
		for j := range tracks[i].Samples {
			s := &tracks[i].Samples[j]
			if s.NALs == nil {
				fn(s.Data, false)
			}
			for _, r := range s.NALs {
				fn(s.Data[r.Off:r.Off+r.Len], true)
			}
		}
	}
}
