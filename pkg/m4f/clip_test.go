package m4f

import (
	"bytes"
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/Eyevinn/mp4ff/avc"
	"github.com/Eyevinn/mp4ff/hevc"
)

// frameTicks is the duration of a frame of the video clips.
const frameTicks = Timescale / 25

// readClip reads an elementary stream from testdata.
func readClip(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// units splits a byte stream at its start codes; each range is what lies
// behind one start code.
func units(b []byte) []Range {
	var out []Range
	start := -1
	for i := 0; i+3 <= len(b); i++ {
		if b[i] != 0 || b[i+1] != 0 || b[i+2] != 1 {
			continue
		}
		if start >= 0 {
			end := i
			for end > start && b[end-1] == 0 {
				end--
			}
			out = append(out, Range{uint32(start), uint32(end - start)})
		}
		start, i = i+3, i+2
	}
	return append(out, Range{uint32(start), uint32(len(b) - start)})
}

// picture kinds, as far as the clips need them.
type clipUnit struct {
	picture, key bool
	order        int // display order inside its GOP, any scale
	set          *[][]byte
}

// videoGOPs cuts a clip into GOPs of samples with times from 0 on.
func videoGOPs(t testing.TB, codec Codec) (TrackConfig, [][]Sample) {
	t.Helper()
	cfg := TrackConfig{PID: 256, Codec: codec}
	var data []byte
	var inspect func(nal []byte) clipUnit
	switch codec {
	case CodecH264:
		data, cfg.StreamType = readClip(t, "clip.h264"), 0x1B
		inspect = h264Inspector(t, &cfg)
	case CodecHEVC:
		data, cfg.StreamType = readClip(t, "clip.hevc"), 0x24
		inspect = hevcInspector(t, &cfg)
	case CodecMPEG2Video:
		data, cfg.StreamType = readClip(t, "clip.m2v"), 0x02
		inspect = mpeg2Inspector
	}
	type frame struct {
		s     Sample
		order int
		key   bool
	}
	var frames []frame
	var cur frame
	open := false
	start := uint32(0)
	for _, r := range units(data) {
		u := inspect(data[r.Off : r.Off+r.Len])
		if u.set != nil { // parameter sets live in the init segment
			*u.set = appendNew(*u.set, data[r.Off:r.Off+r.Len])
			continue
		}
		if open && (u.picture || codec == CodecMPEG2Video && (data[r.Off] == 0xB3 || data[r.Off] == 0xB8)) {
			if codec == CodecMPEG2Video && cur.s.Data == nil {
				cur.s.Data = data[start : r.Off-3]
			}
			frames, cur, open, start = append(frames, cur), frame{}, false, r.Off-3
		}
		if codec != CodecMPEG2Video {
			cur.s.Data, cur.s.NALs = data, append(cur.s.NALs, r)
		}
		if u.picture {
			cur.order, cur.key, open = u.order, u.key, true
		}
	}
	if codec == CodecMPEG2Video {
		cur.s.Data = data[start:]
		cfg.SequenceHeader = sequenceHeader(data)
	}
	frames = append(frames, cur)
	var gops [][]Sample
	for i := 0; i < len(frames); {
		j := i + 1
		for j < len(frames) && !frames[j].key {
			j++
		}
		ranks := make([]int, 0, j-i)
		for k := i; k < j; k++ {
			ranks = append(ranks, k)
		}
		slices.SortFunc(ranks, func(a, b int) int { return cmp.Compare(frames[a].order, frames[b].order) })
		gop := make([]Sample, 0, j-i)
		for k := i; k < j; k++ {
			s := frames[k].s
			s.Sync, s.Duration = frames[k].key, frameTicks
			s.DTS = int64(k) * frameTicks
			s.PTS = int64(i+slices.Index(ranks, k)+2) * frameTicks
			gop = append(gop, s)
		}
		gops = append(gops, gop)
		i = j
	}
	if len(gops) != 2 || len(frames) != 50 {
		t.Fatalf("clip of %s: %d GOPs, %d frames, want 2 and 50", codec, len(gops), len(frames))
	}
	return cfg, gops
}

func appendNew(set [][]byte, nal []byte) [][]byte {
	for _, s := range set {
		if bytes.Equal(s, nal) {
			return set
		}
	}
	return append(set, nal)
}

func h264Inspector(t testing.TB, cfg *TrackConfig) func([]byte) clipUnit {
	spss, ppss := map[uint32]*avc.SPS{}, map[uint32]*avc.PPS{}
	return func(nal []byte) clipUnit {
		switch avc.GetNaluType(nal[0]) {
		case avc.NALU_SPS:
			s, err := avc.ParseSPSNALUnit(nal, false)
			if err != nil {
				t.Fatal(err)
			}
			spss[s.ParameterID] = s
			return clipUnit{set: &cfg.SPS}
		case avc.NALU_PPS:
			p, err := avc.ParsePPSNALUnit(nal, spss)
			if err != nil {
				t.Fatal(err)
			}
			ppss[p.PicParameterSetID] = p
			return clipUnit{set: &cfg.PPS}
		case avc.NALU_IDR, avc.NALU_NON_IDR:
			h, err := avc.ParseSliceHeader(nal, spss, ppss)
			if err != nil {
				t.Fatal(err)
			}
			return clipUnit{picture: h.FirstMBInSlice == 0, key: nal[0]&31 == 5, order: int(h.PicOrderCntLsb)}
		}
		return clipUnit{}
	}
}

func hevcInspector(t testing.TB, cfg *TrackConfig) func([]byte) clipUnit {
	spss, ppss := map[uint32]*hevc.SPS{}, map[uint32]*hevc.PPS{}
	return func(nal []byte) clipUnit {
		switch typ := hevc.GetNaluType(nal[0]); {
		case typ == hevc.NALU_VPS:
			return clipUnit{set: &cfg.VPS}
		case typ == hevc.NALU_SPS:
			s, err := hevc.ParseSPSNALUnit(nal)
			if err != nil {
				t.Fatal(err)
			}
			spss[uint32(s.SpsID)] = s
			return clipUnit{set: &cfg.SPS}
		case typ == hevc.NALU_PPS:
			p, err := hevc.ParsePPSNALUnit(nal, spss)
			if err != nil {
				t.Fatal(err)
			}
			ppss[p.PicParameterSetID] = p
			return clipUnit{set: &cfg.PPS}
		case typ < 32:
			h, err := hevc.ParseSliceHeader(nal, spss, ppss)
			if err != nil {
				t.Fatal(err)
			}
			key := typ >= 16 && typ <= 21
			return clipUnit{picture: h.FirstSliceSegmentInPicFlag, key: key, order: int(int8(h.PicOrderCntLsb))}
		}
		return clipUnit{}
	}
}

func mpeg2Inspector(u []byte) clipUnit {
	if u[0] != 0 {
		return clipUnit{}
	}
	return clipUnit{picture: true, key: u[2]>>3&7 == 1, order: int(u[1])<<2 | int(u[2])>>6}
}

// sequenceHeader is what lies ahead of the first group of pictures.
func sequenceHeader(data []byte) []byte {
	for _, r := range units(data) {
		if data[r.Off] == 0xB8 {
			return data[:r.Off-3]
		}
	}
	return nil
}

// audioFrames cuts an audio clip into samples with times from 0 on.
func audioFrames(t testing.TB, codec Codec) (TrackConfig, []Sample) {
	t.Helper()
	cfg := TrackConfig{PID: 257, Codec: codec, Descriptors: []byte{0x0A, 4, 'd', 'e', 'u', 0}}
	var data []byte
	var size func([]byte) (frame, head, ticks int)
	switch codec {
	case CodecAAC:
		data, cfg.StreamType = readClip(t, "clip.aac"), 0x0F
		size = func(b []byte) (int, int, int) {
			return int(b[3]&3)<<11 | int(b[4])<<3 | int(b[5])>>5, 7, 1920
		}
	case CodecMPEGAudio:
		data, cfg.StreamType = readClip(t, "clip.mp2"), 0x03
		size = func([]byte) (int, int, int) { return 144 * 64000 / 48000, 0, 2160 }
	case CodecAC3:
		data, cfg.StreamType = readClip(t, "clip.ac3"), 0x81
		size = func([]byte) (int, int, int) { return 256, 0, 2880 }
	case CodecEAC3:
		data, cfg.StreamType = readClip(t, "clip.eac3"), 0x87
		size = func(b []byte) (int, int, int) { return 2 * (int(b[2]&7)<<8 | int(b[3]) + 1), 0, 2880 }
	}
	cfg.FrameHeader = data[:min(64, len(data))]
	var out []Sample
	for at := int64(0); len(data) > 0; {
		n, head, ticks := size(data)
		out = append(out, Sample{PTS: at, DTS: at, Duration: uint32(ticks), Sync: true, Data: data[head:n]})
		data, at = data[n:], at+int64(ticks)
	}
	return cfg, out
}

// shifted returns samples moved in time.
func shifted(s []Sample, by int64) []Sample {
	out := slices.Clone(s)
	for i := range out {
		out[i].PTS += by
		out[i].DTS += by
	}
	return out
}

// between returns the samples whose PTS lies in [from, to).
func between(s []Sample, from, to int64) []Sample {
	var out []Sample
	for _, x := range s {
		if x.PTS >= from && x.PTS < to {
			out = append(out, x)
		}
	}
	return out
}

// clipSpecs makes two segments of one second each from the clips of two codecs
// and two data tracks, the first sample decoded at media time base (unwrapped).
func clipSpecs(t testing.TB, video, audio Codec, base int64) []*SegmentSpec {
	t.Helper()
	vc, gops := videoGOPs(t, video)
	ac, frames := audioFrames(t, audio)
	dc := TrackConfig{PID: 258, StreamType: 6, Codec: CodecData, Descriptors: []byte{0x56, 5, 'f', 'r', 'a', 9, 0}}
	sc := TrackConfig{PID: 259, StreamType: 0x86, Codec: CodecSections}
	var out []*SegmentSpec
	for i, gop := range gops {
		open := gop[0].PTS // the keyframe's
		end := int64(52 * frameTicks)
		if i == 0 {
			end = gops[1][0].PTS
		}
		pes := []byte("\x00\x00\x01\xBD\x00\x09\x84\x80\x05\x21\x00\x01\x00\x01*")
		spec := &SegmentSpec{
			Header: Header{
				MediaTime: (open + base) & (Wrap - 1), UTC: UTC(1_700_000_000*Timescale + open),
				Duration: uint32(end - open), Flags: Keyframe,
			},
			TargetDuration: 4 * Timescale, Program: 1, PCRPID: 256,
			Tracks: []Track{
				{vc, shifted(gop, base)},
				{ac, shifted(between(frames, open-2*frameTicks, end-2*frameTicks), base)},
				{dc, shifted([]Sample{{PTS: open, DTS: open, Duration: uint32(end - open), Sync: true, Data: pes}}, base)},
				{Config: sc},
			},
		}
		// Unwrapped near the media time, as the segmenter gives them.
		if d := spec.Header.MediaTime - (open + base); d != 0 {
			for k := range spec.Tracks {
				spec.Tracks[k].Samples = shifted(spec.Tracks[k].Samples, d)
			}
		}
		out = append(out, spec)
	}
	return out
}

// shortSpecs is clipSpecs with at most three samples to a track.
func shortSpecs(t testing.TB, video, audio Codec, base int64) []*SegmentSpec {
	specs := clipSpecs(t, video, audio, base)
	for _, spec := range specs {
		for k := range spec.Tracks {
			tr := &spec.Tracks[k]
			tr.Samples = tr.Samples[:min(3, len(tr.Samples))]
		}
	}
	return specs
}

func buildAll(t testing.TB, specs []*SegmentSpec) []*Segment {
	t.Helper()
	var out []*Segment
	for _, spec := range specs {
		seg, err := Build(spec)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, seg)
	}
	return out
}

// buildClip is clipSpecs built.
func buildClip(t testing.TB, video, audio Codec, base int64) []*Segment {
	t.Helper()
	return buildAll(t, clipSpecs(t, video, audio, base))
}

// stream writes segments as a byte stream.
func stream(t testing.TB, segs []*Segment) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := NewWriter(&buf)
	for _, s := range segs {
		if err := w.WriteSegment(s); err != nil {
			t.Fatal(err)
		}
	}
	return buf.Bytes()
}
