package segment_test

import (
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/salvage"
	"github.com/twindvr/twindvr/pkg/segment"
)

// hear segments datagrams as they came; before, where set, is called ahead of each.
func hear(datagrams [][]byte, before func(s *segmenter, k int)) (segs []*m4f.Segment, kept int, st segment.Stats) {
	s := segment.New(segment.Config{TargetDuration: m4f.Timescale, Unpaced: true, Start: 1, Salvage: func(*salvage.Kept) { kept++ }},
		func(seg *m4f.Segment) { segs = append(segs, seg) })
	for k, p := range datagrams {
		if before != nil {
			before(s, k)
		}
		s.WriteAt(p, time.Now())
	}
	s.Close()
	return segs, kept, s.Stats()
}

func datagramsOf(ts []byte, n int) [][]byte {
	return slices.Collect(slices.Chunk(ts[:len(ts)/packet*packet], n*packet))
}

// A network that repeats datagrams and swaps neighbours does no harm: segments
// come out as they do without, and no more of them are kept.
func TestRepeatedAndSwapped(t *testing.T) {
	repeats, swaps := int64(0), int64(0)
	for n, path := range corpus(t) {
		if (less > 1 || testing.Short()) && n%4 != 0 {
			continue
		}
		t.Run(filepath.Base(path), func(t *testing.T) {
			sent := datagramsOf(read(t, path), perDatagram)
			want, wantKept, before := hear(sent, nil)
			if before.Lost > 0 {
				t.Skip("packets are missing in the source")
			}
			for seed := range uint64(4) {
				rng := rand.New(rand.NewPCG(seed, 9))
				var got [][]byte
				for k := 0; k < len(sent); k++ {
					switch x := rng.IntN(40); {
					case k < 30 || k > len(sent)-10: // nothing is known of the stream at first
						got = append(got, sent[k])
					case x == 0 && k+1 < len(sent): // the next comes ahead of it
						got = append(got, sent[k+1], sent[k])
						k++
					case x == 1: // it comes again, behind up to three others
						got = append(got, sent[k])
						for j := rng.IntN(4); j > 0 && k+1 < len(sent); j-- {
							k++
							got = append(got, sent[k])
						}
						got = append(got, sent[k-rng.IntN(4)])
					default:
						got = append(got, sent[k])
					}
				}
				segs, kept, st := hear(got, nil)
				repeats, swaps = repeats+st.Duplicates-before.Duplicates, swaps+st.Reordered
				if a, b := slices.Collect(flagged(segs)), slices.Collect(flagged(want)); !slices.Equal(a, b) || kept != wantKept {
					t.Errorf("seed %d: %d kept, want %d; segments\n%v\nwant\n%v", seed, kept, wantKept, a, b)
				}
			}
		})
	}
	t.Logf("%d packets repeated, %d datagrams put right", repeats, swaps)
	if repeats == 0 || swaps == 0 {
		t.Error("nothing had to be put right")
	}
}

// What is lost shows as before, with datagrams that hold eight packets of one
// PID too: of these, two that are missing one could be two that are swapped.
func TestLossIsNoDisorder(t *testing.T) {
	m := &mux{}
	m.section(0, pat(0, 1, mapPID))
	m.section(mapPID, pmt(1, 0, es{0x100, 0x1b, nil}))
	m.packets(0x200, make([]byte, 6*184)) // the datagrams behind are full
	for i := range 150 {
		at := int64(90000 + i*3600)
		// The second and later packets hold nothing but one byte.
		m.packets(0x100, pes(0xe0, at, at, 0, avc(i%25 == 0, 16*184-40)))
	}
	for _, size := range []int{1, 4, 7, 8} {
		sent := datagramsOf(m.out, size)
		want, _, _ := hear(sent, nil)
		ids := identities(want)
		for gone := 20; gone+20 < len(sent); gone += 1 + len(sent)/max(97/less, 12) {
			got, _, _ := hear(slices.Delete(slices.Clone(sent), gone, gone+1), nil)
			damaged := 0
			for _, s := range got {
				if s.Header.Damaged() {
					damaged++
				}
				if s.Header.Clean() && !ids[s.Header.ID] {
					t.Errorf("%d packets a datagram, without number %d: %s is called clean and differs", size, gone, describe(s))
				}
			}
			if damaged == 0 {
				t.Errorf("%d packets a datagram, without number %d: nothing is damaged", size, gone)
			}
		}
	}
}

// A datagram that waits for the next is read ahead of what is told of losses, of a
// splice, and of the end.
func TestDatagramThatWaits(t *testing.T) {
	ts := multiplex(1, 60)
	sent := datagramsOf(ts, perDatagram)
	const gone = 40
	want, _, _ := hear(slices.Delete(slices.Clone(sent), gone, gone+1), nil)
	lost := slices.Delete(slices.Clone(sent), gone, gone+1)
	for name, before := range map[string]func(s *segmenter, k int){
		"drops": func(s *segmenter, k int) {
			if k == gone+1 {
				s.Drops(1)
			}
		},
		"splice": func(s *segmenter, k int) {
			if k == gone+1 {
				s.Splice()
			}
		},
	} {
		got, _, _ := hear(lost, before)
		if len(got) != len(want) || damaged(got) == 0 {
			t.Errorf("%s: %d segments, %d damaged, want %d", name, len(got), damaged(got), len(want))
		}
	}
	// The last datagram waits when the stream ends.
	cut := slices.Delete(slices.Clone(sent), len(sent)-2, len(sent)-1)
	got, _, st := hear(cut, nil)
	if st.Packets != int64(len(ts)/packet-perDatagram) || len(got) == 0 {
		t.Errorf("%d packets read, want %d", st.Packets, len(ts)/packet-perDatagram)
	}
}
