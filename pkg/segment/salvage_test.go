package segment_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/salvage"
	"github.com/twindvr/twindvr/pkg/segment"
)

// capture segments a stream without the packets that gone names, in datagrams
// of seven packets, and keeps every segment's packets; all: of clean ones too.
func capture(ts []byte, d time.Duration, all bool, gone func(int) bool) (segs []*m4f.Segment, kept []*salvage.Kept) {
	s := segment.New(segment.Config{TargetDuration: m4f.Ticks(d), Unpaced: true, Start: 1, Salvage: func(k *salvage.Kept) {
		c := *k
		c.Packets = bytes.Clone(k.Packets)
		kept = append(kept, &c)
	}}, func(seg *m4f.Segment) { segs = append(segs, seg) })
	if all {
		segment.SalvageAll(s)
	}
	for at := 0; at < len(ts); at += packet {
		if gone == nil || !gone(at/packet) {
			s.Write(ts[at:min(at+packet, len(ts))])
		}
	}
	s.Close()
	return segs, kept
}

// again says whether a copy gives a segment of that identity anew.
func again(k *salvage.Kept, want m4f.Identity) (*m4f.Segment, []*m4f.Segment) {
	got := segment.Resegment(&k.Copy, k.Program, k.Target)
	for _, s := range got {
		if s.Header.ID == want {
			return s, got
		}
	}
	return nil, got
}

// TestResegment cuts what is kept of every segment again.
func TestResegment(t *testing.T) {
	for _, path := range corpus(t) {
		for _, d := range []time.Duration{500 * time.Millisecond, time.Second, 4 * time.Second} {
			t.Run(fmt.Sprintf("%s/%v", filepath.Base(path), d), func(t *testing.T) {
				tryAll(t, read(t, path), d)
			})
		}
	}
}

func tryAll(t *testing.T, ts []byte, d time.Duration) {
	segs, kept := capture(ts, d, true, nil)
	equal, none, differ := 0, 0, 0
	for n, s := range segs {
		var k *salvage.Kept
		if len(kept) > 0 && kept[0].Header.ID == s.Header.ID {
			k, kept = kept[0], kept[1:]
		}
		if n == 0 || n == len(segs)-1 {
			continue
		}
		if k == nil {
			none++
			t.Errorf("nothing is kept of %s", describe(s))
			continue
		}
		g, all := again(k, s.Header.ID)
		if g != nil {
			equal++
			continue
		}
		differ++
		t.Errorf("%s differs (%d of %d), first %d, %d packets", describe(s), n, len(segs), k.First, k.Len())
		for _, x := range all {
			t.Logf("   %s", describe(x))
		}
	}
	t.Logf("%d segments: %d equal, %d not kept, %d differ", len(segs), equal, none, differ)
}
