package m4f

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/Eyevinn/mp4ff/mp4"
)

// Fragment is what the media of a segment says.
type Fragment struct {
	Sequence uint32
	Tracks   []FragmentTrack // as in the init segment
}

// FragmentTrack is one track of a fragment.
type FragmentTrack struct {
	// Start is the decode time of the first sample, the opening media time for
	// a track without samples. It is unwrapped: up to 2^34.
	Start   int64
	Samples []FragmentSample
}

// End is the decode time at which the last sample ends.
func (t *FragmentTrack) End() int64 {
	if n := len(t.Samples); n > 0 {
		return t.Samples[n-1].DTS + int64(t.Samples[n-1].Duration)
	}
	return t.Start
}

// FragmentSample is one sample of a fragment: times in ticks on the axis of
// FragmentTrack.Start, and where in the media its bytes are.
type FragmentSample struct {
	DTS, PTS int64
	Duration uint32
	Sync     bool
	Off, Len uint32
}

// Data returns the sample's bytes in media.
func (s *FragmentSample) Data(media []byte) []byte { return media[s.Off : s.Off+s.Len] }

// ParseFragment reads the media of a segment as Build writes it: one moof with
// one traf for each track of init, and one mdat that the samples fill. Any
// input is safe.
func ParseFragment(init *Init, media []byte) (*Fragment, error) {
	return ParseFragmentHead(init, media[:min(len(media), FragmentHead(media))], int64(len(media)))
}

// FragmentHead is how many bytes of the media of a segment come ahead of its
// samples, as its first eight bytes say.
func FragmentHead(media []byte) int {
	if len(media) < 8 {
		return 8
	}
	return int(min(binary.BigEndian.Uint32(media), MaxMedia)) + 8
}

// ParseFragmentHead is ParseFragment for the first FragmentHead bytes of media of
// the given size: it does not look at the samples.
func ParseFragmentHead(init *Init, head []byte, size int64) (*Fragment, error) {
	moof, rest, err := nextBox(head)
	if err != nil {
		return nil, err
	}
	if moof.typ != "moof" || len(rest) != 8 || string(rest[4:]) != "mdat" || int64(len(moof.raw))+int64(binary.BigEndian.Uint32(rest)) != size {
		return nil, errors.New("a fragment is one moof and one mdat box")
	}
	f := &Fragment{Tracks: make([]FragmentTrack, 0, len(init.Tracks))}
	off := int64(len(head))
	err = children(moof.body, func(c box) error {
		switch c.typ {
		case "mfhd":
			mfhd, err := decode[*mp4.MfhdBox](c)
			if err != nil {
				return err
			}
			f.Sequence = mfhd.SequenceNumber
		case "traf":
			if len(f.Tracks) == len(init.Tracks) {
				return fmt.Errorf("the init segment has only %d tracks", len(init.Tracks))
			}
			t, end, err := parseTraf(c.body, uint32(len(f.Tracks)+1), off, size)
			if err != nil {
				return err
			}
			f.Tracks = append(f.Tracks, t)
			off = end
		default:
			return errors.New("unknown box in moof")
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("moof: %w", err)
	case len(f.Tracks) != len(init.Tracks):
		return nil, fmt.Errorf("moof: %d tracks, the init segment has %d", len(f.Tracks), len(init.Tracks))
	case off != size:
		return nil, fmt.Errorf("samples end at byte %d of %d", off, size)
	}
	return f, nil
}

// parseTraf reads one track whose samples start at byte off of the media.
func parseTraf(b []byte, id uint32, off, size int64) (t FragmentTrack, end int64, err error) {
	var tfhd *mp4.TfhdBox
	var trun *mp4.TrunBox
	timed := false
	err = children(b, func(c box) (err error) {
		switch {
		case c.typ == "tfhd" && tfhd == nil:
			if tfhd, err = decode[*mp4.TfhdBox](c); err == nil {
				err = checkTfhd(tfhd, id)
			}
		case c.typ == "tfdt" && !timed:
			tfdt, err := decode[*mp4.TfdtBox](c)
			if err != nil {
				return err
			}
			if v := tfdt.BaseMediaDecodeTime(); v >= 1<<35 {
				return fmt.Errorf("decode time %d", v)
			}
			t.Start, timed = int64(tfdt.BaseMediaDecodeTime()), true
		case c.typ == "trun" && trun == nil:
			if trun, err = decode[*mp4.TrunBox](c); err == nil {
				err = checkTrun(trun, off)
			}
		default:
			err = errors.New("unexpected box in traf")
		}
		return err
	})
	switch {
	case err != nil:
		return t, 0, fmt.Errorf("track %d: %w", id, err)
	case tfhd == nil || !timed:
		return t, 0, fmt.Errorf("track %d: tfhd or tfdt is absent", id)
	case trun == nil:
		return t, off, nil
	}
	if end, err = t.fill(tfhd, trun, off, size); err != nil {
		return t, 0, fmt.Errorf("track %d: %w", id, err)
	}
	return t, end, nil
}

func checkTfhd(tfhd *mp4.TfhdBox, id uint32) error {
	const want = mp4.TfhdDefaultBaseIsMoofFlag | mp4.TfhdDefaultSampleFlagsPresentFlag
	if tfhd.TrackID != id {
		return fmt.Errorf("track ID %d, want %d", tfhd.TrackID, id)
	}
	if tfhd.Flags&^mp4.TfhdDurationIsEmptyFlag != want {
		return fmt.Errorf("flags %#x, want %#x", tfhd.Flags, want)
	}
	return nil
}

func checkTrun(trun *mp4.TrunBox, off int64) error {
	const want = mp4.TrunDataOffsetPresentFlag | mp4.TrunSampleDurationPresentFlag | mp4.TrunSampleSizePresentFlag
	const may = mp4.TrunSampleFlagsPresentFlag | mp4.TrunSampleCompositionTimeOffsetPresentFlag
	switch {
	case trun.Version != 1 || trun.Flags&^may != want:
		return fmt.Errorf("version %d, flags %#x", trun.Version, trun.Flags)
	case int64(trun.DataOffset) != off:
		return fmt.Errorf("data offset %d, want %d", trun.DataOffset, off)
	case len(trun.Samples) == 0:
		return errors.New("no samples")
	}
	return nil
}

func (t *FragmentTrack) fill(tfhd *mp4.TfhdBox, trun *mp4.TrunBox, off, size int64) (int64, error) {
	t.Samples = make([]FragmentSample, len(trun.Samples))
	dts := t.Start
	for i, s := range trun.Samples {
		flags := tfhd.DefaultSampleFlags
		if trun.HasSampleFlags() {
			flags = s.Flags
		}
		if off+int64(s.Size) > size {
			return 0, fmt.Errorf("sample %d of %d bytes at byte %d of %d", i, s.Size, off, size)
		}
		t.Samples[i] = FragmentSample{
			DTS: dts, PTS: dts + int64(s.CompositionTimeOffset), Duration: s.Dur,
			Sync: flags&0x00010000 == 0, Off: uint32(off), Len: s.Size,
		}
		off += int64(s.Size)
		dts += int64(s.Dur)
	}
	return off, nil
}
