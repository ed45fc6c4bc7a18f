package mpegts_test

import (
	"bytes"
	"testing"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// A packet without payload may say that the counter of its PID begins anew
// (13818-1 2.4.3.5): the next packet goes on from there.
func TestDiscontinuityWithoutPayload(t *testing.T) {
	for _, flag := range []byte{0, 0x80} {
		m := &mux{}
		m.section(0, pat(0, 1, 0x1000))
		m.section(0x1000, pmt(1, 0, es{0x100, 0x03, nil}))
		frame := append([]byte{0xff, 0xfd, 0x44, 0x00}, bytes.Repeat([]byte{0x11}, 188)...)
		m.packets(0x100, pes(0xc0, 90000, 90000, -1, frame))
		p := append([]byte{0x47, 0x01, 0x00, 0x20 | 0x0a, 183, flag}, bytes.Repeat([]byte{0xff}, 182)...)
		m.out = append(m.out, p...)
		m.cc[0x100] = 0x0b
		m.packets(0x100, pes(0xc0, 92160, 92160, -1, frame))
		f, st := demux(0, m.out, nil)
		if lost := len(f.losses) > 0; lost == (flag != 0) || len(f.units) != 2 {
			t.Errorf("discontinuity_indicator %v: %d losses, %d frames, %+v", flag != 0, len(f.losses), len(f.units), st)
		}
	}
}

// undatedPictures are pictures of which every nth has a time.
func undatedPictures(nth int, drop func(k int) bool) []byte {
	m := &mux{}
	m.section(0, pat(0, 1, 0x1000))
	m.section(0x1000, pmt(1, 0, es{0x100, 0x1b, nil}))
	for k := range 40 {
		at := int64(3600 * k)
		if k%nth != 0 {
			at = -1
		}
		n := len(m.out)
		m.packets(0x100, pes(0xe0, at, at, 0, []byte{0, 0, 0, 1, 9, 0xf0, 0, 0, 1, 0x41, 0x9a, byte(k + 1)}))
		if drop != nil && drop(k) {
			m.out = m.out[:n]
		}
	}
	return m.out
}

// Pictures between dated ones have the times that lie between; the first wait
// for the second dated header. After a loss they count as touched by it until
// two headers have come without one.
func TestUndatedPictures(t *testing.T) {
	for _, nth := range []int{1, 2, 3, 5} {
		f, _ := demux(0, undatedPictures(nth, nil), nil)
		if len(f.units) < 40-nth || len(f.losses) != 0 {
			t.Fatalf("every %d: %d pictures, %d losses", nth, len(f.units), len(f.losses))
		}
		for _, u := range f.units {
			if k := int64(u.Data[len(u.Data)-1] - 1); u.DTS != 3600*k || u.PTS != u.DTS || u.Marked {
				t.Errorf("every %d: picture %d at %d, marked %v", nth, k, u.DTS, u.Marked)
			}
		}
	}
	const lost = 17
	f, _ := demux(0, undatedPictures(5, func(k int) bool { return k == lost }), nil)
	if len(f.losses) != 1 {
		t.Fatalf("%d losses", len(f.losses))
	}
	for _, u := range f.units {
		k := int(u.Data[len(u.Data)-1] - 1)
		if right := u.DTS == int64(3600*k); !right && !u.Marked {
			t.Errorf("picture %d is at %d and not called doubtful", k, u.DTS)
		}
		if want := k == lost-1 || k > lost && k < 25 && k%5 != 0; u.Marked != want {
			t.Errorf("picture %d: doubtful %v", k, u.Marked)
		}
	}
}

// A map that has moved behind a lost PAT may have come earlier elsewhere.
func TestMovedMapAfterLoss(t *testing.T) {
	for _, lost := range []bool{false, true} {
		m := &mux{}
		m.section(0, pat(0, 1, 0x1000))
		m.section(0x1000, pmt(1, 0, es{0x100, 0x1b, nil}))
		if lost {
			m.cc[0]++
		}
		m.section(0, pat(1, 1, 0x1001))
		m.section(0x1001, pmt(1, 1, es{0x100, 0x1b, nil}, es{0x101, 0x03, nil}))
		f, _ := demux(0, m.out, nil)
		if len(f.programs) != 2 || f.programs[1].Tracks[0].Codec != m4f.CodecH264 {
			t.Fatalf("%d maps", len(f.programs))
		}
		want := "program 1 at 3 false"
		if lost {
			want = "program 1 at 3 true"
		}
		if got := f.log[len(f.log)-1]; got != want {
			t.Errorf("lost %v: %q, want %q", lost, got, want)
		}
	}
}
