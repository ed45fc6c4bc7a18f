package node

import (
	"bytes"
	"testing"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// DataSegment makes a segment of a second with a sample of so many bytes.
func DataSegment(t *testing.T, at m4f.UTC, size int) *m4f.Segment {
	t.Helper()
	media := int64(at) & (m4f.Wrap - 1)
	seg, err := m4f.Build(&m4f.SegmentSpec{
		Header:         m4f.Header{MediaTime: media, UTC: at, Duration: m4f.Timescale},
		TargetDuration: m4f.Timescale, Program: 1, PCRPID: 0x100,
		Tracks: []m4f.Track{{
			Config:  m4f.TrackConfig{PID: 0x100, StreamType: 6, Codec: m4f.CodecData},
			Samples: []m4f.Sample{{PTS: media, DTS: media, Duration: m4f.Timescale, Sync: true, Data: bytes.Repeat([]byte{7}, size)}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return seg
}
