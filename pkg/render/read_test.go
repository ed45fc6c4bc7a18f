package render

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/Eyevinn/mp4ff/mp4"

	"github.com/twindvr/twindvr/pkg/testsrc"
)

// exported is a sample as a player finds it: times on the axis of presentation.
type exported struct {
	dts, pts int64
	sync     bool
	entry    uint32
	data     string
}

// exportBytes exports into memory.
func exportBytes(t testing.TB, a Archive, opt Options) ([]byte, Result) {
	t.Helper()
	var buf bytes.Buffer
	res, err := Export(context.Background(), a, &buf, opt)
	if err != nil {
		t.Fatal(err)
	}
	if res.Bytes != int64(buf.Len()) {
		t.Errorf("%d bytes written, the result says %d", buf.Len(), res.Bytes)
	}
	return buf.Bytes(), res
}

// readExport reads every track of an export of either kind with mp4ff.
func readExport(t testing.TB, b []byte) [][]exported {
	t.Helper()
	f, err := mp4.DecodeFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if f.IsFragmented() {
		return readFragments(t, f, b)
	}
	var tracks [][]exported
	for _, trak := range f.Moov.Traks {
		tracks = append(tracks, readTables(t, trak, b))
	}
	return tracks
}

func readFragments(t testing.TB, f *mp4.File, b []byte) [][]exported {
	t.Helper()
	tracks := make([][]exported, len(f.Init.Moov.Traks))
	shift := make([]int64, len(tracks))
	for i, trak := range f.Init.Moov.Traks {
		if trak.Edts != nil {
			shift[i] = trak.Edts.Elst[0].Entries[0].MediaTime
		}
	}
	number := uint32(0)
	for _, s := range f.Segments {
		for _, frag := range s.Fragments {
			if number++; frag.Moof.Mfhd.SequenceNumber != number {
				t.Errorf("fragment %d has number %d", number, frag.Moof.Mfhd.SequenceNumber)
			}
			for _, traf := range frag.Moof.Trafs {
				i := traf.Tfhd.TrackID - 1
				traf.Trun.AddSampleDefaultValues(traf.Tfhd, nil)
				dts := int64(traf.Tfdt.BaseMediaDecodeTime()) - shift[i]
				off := int64(frag.Moof.StartPos) + int64(traf.Trun.DataOffset)
				for _, o := range traf.Trun.Samples {
					if n := len(tracks[i]); n > 0 && tracks[i][n-1].dts > dts {
						t.Errorf("track %d: decode time goes back from %d to %d", i+1, tracks[i][n-1].dts, dts)
					}
					tracks[i] = append(tracks[i], exported{
						dts: dts, pts: dts + int64(o.CompositionTimeOffset), sync: o.Flags&0x10000 == 0,
						entry: traf.Tfhd.SampleDescriptionIndex, data: string(b[off : off+int64(o.Size)]),
					})
					off += int64(o.Size)
					dts += int64(o.Dur)
				}
			}
		}
	}
	return tracks
}

func readTables(t testing.TB, trak *mp4.TrakBox, b []byte) []exported {
	t.Helper()
	stbl := trak.Mdia.Minf.Stbl
	at := int64(0)
	if trak.Edts != nil {
		for _, e := range trak.Edts.Elst[0].Entries {
			if e.MediaTime < 0 {
				at += int64(e.SegmentDuration)
			} else {
				at -= e.MediaTime
			}
		}
	}
	var out []exported
	n := uint32(0)
	for c, off := range chunkOffsets(stbl) {
		chunk := stbl.Stsc.GetChunk(uint32(c + 1))
		for range chunk.NrSamples {
			n++
			e := exported{dts: at, pts: at, sync: stbl.Stss == nil || stbl.Stss.IsSyncSample(n), entry: description(stbl.Stsc, uint32(c+1))}
			if stbl.Ctts != nil {
				e.pts += int64(stbl.Ctts.GetCompositionTimeOffset(n))
			}
			size := uint64(stbl.Stsz.GetSampleSize(int(n)))
			e.data = string(b[off : off+size])
			off += size
			at += int64(stbl.Stts.GetDur(n))
			out = append(out, e)
		}
	}
	if n != stbl.Stsz.SampleNumber {
		t.Errorf("%d samples in chunks, %d in stsz", n, stbl.Stsz.SampleNumber)
	}
	return out
}

// description is the sample description index of a chunk.
func description(stsc *mp4.StscBox, chunk uint32) uint32 {
	if len(stsc.SampleDescriptionID) == 0 {
		return stsc.GetSampleDescriptionID(1)
	}
	i := 0
	for i+1 < len(stsc.Entries) && stsc.Entries[i+1].FirstChunk <= chunk {
		i++
	}
	return stsc.SampleDescriptionID[i]
}

func chunkOffsets(stbl *mp4.StblBox) []uint64 {
	if stbl.Co64 != nil {
		return stbl.Co64.ChunkOffset
	}
	var out []uint64
	for _, o := range stbl.Stco.ChunkOffset {
		out = append(out, uint64(o))
	}
	return out
}

// pictures is the numbers of a video track's pictures in decode order.
func pictures(video []exported) []uint64 {
	var out []uint64
	for _, s := range video {
		out = append(out, testsrc.FrameNumbers([]byte(s.data))...)
	}
	return out
}

const second = time.Second
