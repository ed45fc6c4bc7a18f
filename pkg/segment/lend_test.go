package segment_test

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/segment"
)

// Segments whose media lies where it was received are those whose media is
// copied, as long as nobody has recycled them, while the segmenter goes on.
func TestLend(t *testing.T) {
	ts := testStream(t)
	cut := func(lend bool, take func(*m4f.Segment)) {
		s := segment.New(segment.Config{TargetDuration: m4f.Timescale, Unpaced: true, Start: 1, Lend: lend}, take)
		for b := ts; len(b) > 0; {
			n := min(len(b), 7*packet)
			s.WriteAt(b[:n], time.Time{})
			b = b[n:]
		}
		s.Close()
	}
	var want []*m4f.Segment
	cut(false, func(s *m4f.Segment) { want = append(want, s) })
	if len(want) < 3 {
		t.Fatalf("%d segments", len(want))
	}
	lent := make(chan *m4f.Segment, 2) // they wait, as for a slow disk
	var taker sync.WaitGroup
	n := 0
	taker.Go(func() {
		for s := range lent {
			if w := want[n]; s.Header != w.Header || s.Media != nil || !bytes.Equal(bytes.Join(s.Pieces(), nil), w.Media) {
				t.Errorf("segment %d is another", n)
			}
			s.Recycle()
			n++
		}
	})
	cut(true, func(s *m4f.Segment) { lent <- s })
	close(lent)
	taker.Wait()
	if n != len(want) {
		t.Errorf("%d segments, want %d", n, len(want))
	}
}
