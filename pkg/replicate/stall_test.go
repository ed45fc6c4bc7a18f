package replicate

import (
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/segment"
)

// A source that stands still for some seconds and then sends what it was behind, to a
// node that counts that as a new run and to one that does not: each picture has one
// date, also in the archives that are equal then.
func TestStalledSource(t *testing.T) {
	const d, stall = 2 * time.Second, 3500 * time.Millisecond
	ts := source(t, 20*time.Second)
	n := count(ts)
	at := func(k int) time.Duration { return time.Duration(k) * datagram * 8 * time.Second / bitrate }
	middle := n/2 + 17
	arrival := func(k int) time.Time {
		if k < middle {
			return epoch.Time().Add(at(k))
		}
		burst := at(middle) + stall + at(k-middle)/3
		return epoch.Time().Add(max(at(k), burst))
	}
	record := func(runs ...[2]int) *archive.Stream {
		a, err := archive.Create(scratchDir(t)+"/x", "", archive.CreateOptions{TargetDuration: m4f.Ticks(d)})
		if err != nil {
			t.Fatal(err)
		}
		w := a.Writer(archive.Live, 0, archive.WriterOptions{Sync: archive.SyncOff})
		for _, r := range runs {
			seg := segment.New(segment.Config{
				TargetDuration: m4f.Ticks(d),
				Resume: func(media int64, near m4f.UTC) (m4f.UTC, bool) {
					at, ok, err := a.Resume(media, near)
					return at, ok && err == nil
				},
			}, func(s *m4f.Segment) {
				if err := w.Append(s); err != nil {
					t.Error(err)
				}
			})
			for k := r[0]; k < r[1]; k++ {
				seg.WriteAt(ts[k*datagram:min((k+1)*datagram, len(ts))], arrival(k))
			}
			seg.Close()
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return a
	}
	a, b := record([2]int{0, middle}, [2]int{middle, n}), record([2]int{0, n})
	backfill(t, a, Dir{b}, BackfillOptions{})
	backfill(t, b, Dir{a}, BackfillOptions{})
	sameView(t, a, b)
	for _, s := range []*archive.Stream{a, b} {
		els := view(t, s)
		for i := 1; i < len(els); i++ {
			gap, media := els[i].UTC-els[i-1].End(), m4f.Diff33(els[i].MediaTime, els[i-1].MediaTime+int64(els[i-1].Duration))
			if off := int64(gap) - media; off < -second/10 || off > second/10 || media < -sliver {
				t.Errorf("%s begins %d ms after the end of the one before, by its media %d ms", els[i].ID.String()[:8], gap/90, media/90)
			}
		}
		if len(els) < 9 {
			t.Errorf("%d segments", len(els))
		}
	}
}
