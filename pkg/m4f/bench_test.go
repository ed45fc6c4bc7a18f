package m4f

import (
	"bytes"
	"io"
	"testing"
)

// benchSpec is a segment of 4 s at 6 Mbit/s.
func benchSpec() *SegmentSpec {
	frame := make([]byte, 30_000)
	spec := &SegmentSpec{TargetDuration: 4 * Timescale, Tracks: []Track{
		{Config: TrackConfig{Codec: CodecH264}}, {Config: TrackConfig{Codec: CodecAAC}},
	}}
	for i := range int64(100) {
		spec.Tracks[0].Samples = append(spec.Tracks[0].Samples, Sample{DTS: i * 3600, PTS: i*3600 + 7200, Data: frame, NALs: []Range{{4, 6}, {14, 29_980}}})
	}
	for i := range int64(187) {
		spec.Tracks[1].Samples = append(spec.Tracks[1].Samples, Sample{DTS: i * 1920, PTS: i * 1920, Duration: 1920, Sync: true, Data: frame[:340]})
	}
	return spec
}

func BenchmarkBuild(b *testing.B) {
	spec := benchSpec()
	b.ReportAllocs()
	for range b.N {
		seg, err := Build(spec)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(seg.Media)))
	}
}

func BenchmarkReader(b *testing.B) {
	seg, err := Build(benchSpec())
	if err != nil {
		b.Fatal(err)
	}
	var buf bytes.Buffer
	if err := NewWriter(&buf).WriteSegment(seg); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(int64(buf.Len()))
	for range b.N {
		if _, err := NewReader(bytes.NewReader(buf.Bytes())).Next(); err != nil && err != io.EOF {
			b.Fatal(err)
		}
	}
}
