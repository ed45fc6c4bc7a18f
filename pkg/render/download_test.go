package render

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/testkit"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

// stored puts segments into an archive of their own.
func stored(t testing.TB, segs ...*m4f.Segment) *archive.Stream {
	t.Helper()
	a, err := archive.Create(filepath.Join(t.TempDir(), "example"), "", archive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	keepAll(t, a, segs...)
	return a
}

func keepAll(t testing.TB, a *archive.Stream, segs ...*m4f.Segment) {
	t.Helper()
	w := a.Writer(archive.Replicated, 0, archive.WriterOptions{Sync: archive.SyncOff})
	for _, s := range segs {
		if err := w.Append(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// bounded is an archive that says where it begins and ends.
type bounded struct{ *archive.Stream }

func (b bounded) Bounds() (oldest, newest m4f.UTC, err error) {
	info, err := b.Info()
	return info.Oldest, info.Newest, err
}

// downloadCases are recordings in which everything occurs that a download has to
// find a way around.
func downloadCases(t *testing.T) map[string][]*m4f.Segment {
	cases := map[string][]*m4f.Segment{}
	cases["plain"] = record(testkit.Stream(t, testsrc.Options{StartPTS: 90000, Duration: 20 * second}), 2*second)
	cases["wrap"] = record(testkit.Stream(t, testsrc.Options{StartPTS: m4f.Wrap - 10*m4f.Timescale, Duration: 20 * second}), 2*second)
	cases["gap"] = slices.Delete(slices.Clone(cases["wrap"]), 2, 4)
	cases["restarts"] = record(testkit.Stream(t, testsrc.Options{StartPTS: 5 * m4f.Wrap / 7, Duration: 40 * second, RestartEvery: 7 * second}), 2*second)
	for round := range int64(3) {
		for _, s := range cases["plain"][:3] {
			again := *s
			again.Header.UTC = again.Header.UTC.Add(round * 20 * m4f.Timescale)
			cases["loop"] = append(cases["loop"], &again)
		}
	}
	ts := testkit.Stream(t, testsrc.Options{StartPTS: 4 * m4f.Timescale, Duration: 24 * second})
	damaged, begun, ended := torn(ts, record(ts, 8*second))
	cases["torn"] = slices.Concat(damaged(0.65), begun(0.72), ended(0.58))
	cases["torn late"] = slices.Concat(damaged(0.2), begun(0.3))
	return cases
}

// TestDownloadIsTheExport: the length is known, and every part is that of the
// file that export writes.
func TestDownloadIsTheExport(t *testing.T) {
	for name, segs := range downloadCases(t) {
		t.Run(name, func(t *testing.T) { checkDownload(t, segs) })
	}
}

func TestDownloadOfRealStreams(t *testing.T) {
	for name, ts := range tsCorpus(t) {
		t.Run(name, func(t *testing.T) { checkDownload(t, record(ts, 2*second)) })
	}
}

func checkDownload(t *testing.T, segs []*m4f.Segment) {
	a := stored(t, segs...)
	first, last := segs[0].Header.UTC, segs[len(segs)-1].Header.End()
	for _, opt := range []Options{{}, {From: first.Add(m4f.Timescale), To: last.Add(-3 * m4f.Timescale)}} {
		if opt.From != 0 && last-first < 6*m4f.Timescale {
			continue
		}
		want, _ := exportBytes(t, bounded{a}, opt)
		d, err := NewDownload(context.Background(), a, opt)
		if err != nil {
			t.Fatal(err)
		}
		checkRanges(t, d, want)
	}
}

// checkRanges wants that all and any part of a download are those of a file.
func checkRanges(t *testing.T, d *Download, want []byte) {
	t.Helper()
	if d.Size() != int64(len(want)) {
		t.Fatalf("the size is %d, and the file has %d bytes", d.Size(), len(want))
	}
	part := func(t interface{ Fatalf(string, ...any) }, from, to int64) {
		var got bytes.Buffer
		if err := d.WriteRange(context.Background(), &got, from, to); err != nil {
			t.Fatalf("bytes %d to %d: %v", from, to, err)
		}
		if !bytes.Equal(got.Bytes(), want[from:to]) {
			t.Fatalf("bytes %d to %d are not those of the file", from, to)
		}
	}
	part(t, 0, d.Size())
	if d.format == TS { // each range makes at least one segment anew
		r := rand.New(rand.NewPCG(1, uint64(d.Size())))
		for range 6 {
			from := r.Int64N(d.Size())
			part(t, from, min(d.Size(), from+r.Int64N(200_000)))
		}
		return
	}
	rapid.Check(t, func(t *rapid.T) {
		from := rapid.Int64Range(0, d.Size()).Draw(t, "from")
		part(t, from, rapid.Int64Range(from, min(d.Size(), from+200_000)).Draw(t, "to"))
	})
}

// TestDownloadConfigurationChanges: parameter sets that are put in count.
func TestDownloadConfigurationChanges(t *testing.T) {
	testkit.Need(t, "ffmpeg", "ffprobe")
	a := stored(t, twoSizes(t)...)
	want, _ := exportBytes(t, bounded{a}, Options{})
	d, err := NewDownload(context.Background(), a, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := d.WriteRange(context.Background(), &got, 0, d.Size()); err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%d bytes, want %d, or other ones (%v)", got.Len(), len(want), err)
	}
}

func twoSizes(t *testing.T) (segs []*m4f.Segment) {
	at := start
	for _, size := range []string{"320x180", "192x108"} {
		_, ts := encode(t, "-f", "lavfi", "-i", "testsrc2=s="+size+":r=25:d=3", "-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "ultrafast", "-g", "25")
		part := record(ts, second)
		for _, s := range part {
			s.Header.UTC = s.Header.UTC - start + at
		}
		at = part[len(part)-1].Header.End()
		segs = append(segs, part...)
	}
	return segs
}

// TestDownloadStandsStill: what heals a span, or supersedes a part of it, changes
// nothing of a download that has begun, and a new one is another file.
func TestDownloadStandsStill(t *testing.T) {
	segs := record(testkit.Stream(t, testsrc.Options{StartPTS: 90000, Duration: 20 * second}), 2*second)
	a := stored(t, slices.Concat(segs[:3], segs[5:])...)
	want, _ := exportBytes(t, bounded{a}, Options{})
	d, err := NewDownload(context.Background(), a, Options{})
	if err != nil {
		t.Fatal(err)
	}
	keepAll(t, a, segs[3:5]...)
	var got bytes.Buffer
	if err := d.WriteRange(context.Background(), &got, 0, d.Size()); err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%d bytes, want %d, or other ones (%v)", got.Len(), len(want), err)
	}
	healed, err := NewDownload(context.Background(), a, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if healed.Tag() == d.Tag() || healed.Size() <= d.Size() {
		t.Errorf("tags %s and %s, sizes %d and %d", d.Tag(), healed.Tag(), d.Size(), healed.Size())
	}
	again, err := NewDownload(context.Background(), stored(t, segs...), Options{})
	if err != nil || again.Tag() != healed.Tag() {
		t.Errorf("another node's tag is %s, not %s (%v)", again.Tag(), healed.Tag(), err)
	}
}

// TestDownloadOfWhatIsOffered: what is only offered is in the file, is fetched as
// it is written, and is the same as where it was there all the time.
func TestDownloadOfWhatIsOffered(t *testing.T) {
	segs := record(testkit.Stream(t, testsrc.Options{StartPTS: 90000, Duration: 80 * second, RestartEvery: 50 * second}), 2*second)
	for name, have := range map[string][]*m4f.Segment{
		"a gap": slices.Concat(segs[:5], segs[35:]), "all": nil, "the start": segs[20:], "every other": everyOther(segs),
	} {
		t.Run(name, func(t *testing.T) {
			full := stored(t, segs...)
			want, _ := exportBytes(t, bounded{full}, Options{})
			a := stored(t, have...)
			var offer Offer
			els, err := full.Span(0, 0)
			if err != nil {
				t.Fatal(err)
			}
			for i := range els {
				offer.Records = append(offer.Records, els[i].Record)
			}
			asked := 0
			offer.Fetch = func(_ context.Context, from, to m4f.UTC) error {
				asked++
				var new []*m4f.Segment
				for _, s := range segs {
					if here, err := a.Has(s.Header.ID, 0); err == nil && !here && s.Header.UTC < to && s.Header.End() > from {
						new = append(new, s)
					}
				}
				keepAll(t, a, new...)
				return nil
			}
			d, err := NewDownloadWith(context.Background(), a, Options{}, offer)
			if err != nil {
				t.Fatal(err)
			}
			if first := asked; name == "a gap" && first > 3 {
				t.Errorf("%d spans were fetched before anything was written", first)
			}
			if same, err := NewDownload(context.Background(), full, Options{}); err != nil || same.Tag() != d.Tag() {
				t.Errorf("the tag is not that of the same file (%v)", err)
			}
			checkRanges(t, d, want)
			if asked == 0 {
				t.Error("nothing was fetched")
			}
		})
	}
	a := stored(t, segs[:5]...)
	failed := errors.New("gone")
	d, err := NewDownloadWith(context.Background(), a, Options{}, Offer{
		Records: []archive.Record{{Header: segs[5].Header}}, Fetch: func(context.Context, m4f.UTC, m4f.UTC) error { return failed },
	})
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := d.WriteRange(context.Background(), &got, 0, d.Size()); !errors.Is(err, failed) || got.Len() == 0 {
		t.Errorf("%d bytes and %v, want those of the archive and the error of the fetch", got.Len(), err)
	}
}

func everyOther(segs []*m4f.Segment) (out []*m4f.Segment) {
	for i := 0; i < len(segs); i += 2 {
		out = append(out, segs[i])
	}
	return out
}

// TestDownloadOfWhatIsGone: a segment that vanishes ends it, and what came before
// was right.
func TestDownloadOfWhatIsGone(t *testing.T) {
	segs := record(testkit.Stream(t, testsrc.Options{StartPTS: 90000, Duration: 20 * second}), 2*second)
	a := stored(t, segs[:4]...)
	keepAll(t, a, segs[4:]...) // an extent of its own
	want, _ := exportBytes(t, bounded{a}, Options{})
	d, err := NewDownload(context.Background(), a, Options{})
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(a.Dir(), "*", "*", "*", "*", "*.mp4"))
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	if err := os.Remove(files[1]); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	err = d.WriteRange(context.Background(), &got, 0, d.Size())
	if !errors.Is(err, archive.ErrNoSegment) {
		t.Errorf("%v, want ErrNoSegment", err)
	}
	if got.Len() == 0 || !bytes.HasPrefix(want, got.Bytes()) {
		t.Errorf("%d bytes that are not those of the export", got.Len())
	}
}

// radio fills an archive with n segments of four seconds of sound of a few bytes.
func radio(t testing.TB, n int) *archive.Stream {
	t.Helper()
	const length = 4 * m4f.Timescale
	a := stored(t)
	w := a.Writer(archive.Replicated, 0, archive.WriterOptions{Sync: archive.SyncOff})
	header := []byte{0xFF, 0xF1, 0x4C, 0x80, 0x02, 0x1F, 0xFC} // 48 kHz, stereo
	for i := range int64(n) {
		track := m4f.Track{Config: m4f.TrackConfig{PID: 257, StreamType: 0x0F, Codec: m4f.CodecAAC, FrameHeader: header}}
		first := (i*length + 1919) / 1920 * 1920
		for at := first; at < (i+1)*length; at += 1920 {
			track.Samples = append(track.Samples, m4f.Sample{PTS: at - first + first%m4f.Wrap, DTS: at - first + first%m4f.Wrap, Duration: 1920, Sync: true, Data: []byte{0x21, byte(i), byte(at), 0x1C}})
		}
		seg, err := m4f.Build(&m4f.SegmentSpec{
			Header:         m4f.Header{MediaTime: first % m4f.Wrap, UTC: start.Add(first), Duration: uint32((((i+1)*length + 1919) / 1920 * 1920) - first), Flags: m4f.Keyframe},
			TargetDuration: length, Program: 1, PCRPID: 257, Tracks: []m4f.Track{track},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Append(seg); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return a
}

// heapOf is by how many bytes what fn returns makes the heap larger.
func heapOf(fn func() any) (any, int64) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	v := fn()
	runtime.GC()
	runtime.ReadMemStats(&after)
	return v, int64(after.HeapAlloc) - int64(before.HeapAlloc)
}

// TestDownloadTakesLittleMemory: a day is remembered in some kilobytes.
func TestDownloadTakesLittleMemory(t *testing.T) {
	a := radio(t, 3*900)
	if _, err := NewDownload(context.Background(), a, Options{}); err != nil { // fills the archive's own cache
		t.Fatal(err)
	}
	d, heap := heapOf(func() any {
		d, err := NewDownload(context.Background(), a, Options{})
		if err != nil {
			t.Fatal(err)
		}
		return d
	})
	if n := len(d.(*Download).runs); n > 10 || heap > 64<<10 {
		t.Errorf("%d runs and %d bytes for three hours", n, heap)
	}
	runtime.KeepAlive(d)
}

// BenchmarkDownload is how long it takes until the first byte of an hour and of a
// day can be sent.
func BenchmarkDownload(b *testing.B) {
	a := radio(b, 24*900)
	for _, format := range []Format{MP4, TS} {
		for _, hours := range []int{1, 24} {
			b.Run(fmt.Sprintf("%s/%dh", []string{"mp4", "ts"}[format], hours), func(b *testing.B) {
				for b.Loop() {
					if _, err := NewDownload(context.Background(), a, Options{Format: format, From: start, To: start.Add(int64(hours) * 3600 * m4f.Timescale)}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
