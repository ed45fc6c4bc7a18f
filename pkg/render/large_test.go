package render

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/Eyevinn/mp4ff/mp4"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/testkit"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

// TestLongGaps: an export of more than 2^32 ticks, with gaps of ten hours.
func TestLongGaps(t *testing.T) {
	const hours = 10 * 3600 * m4f.Timescale
	m := newMemory()
	for i := range int64(3) {
		for _, s := range record(testkit.Stream(t, testsrc.Options{StartPTS: (90000 + i*hours) % m4f.Wrap, Duration: 8 * second}), 4*second) {
			s.Header.UTC = s.Header.UTC.Add(i * hours)
			m.add(s, s.Header)
		}
	}
	_, res := exportBytes(t, m, Options{})
	if len(res.Gaps) != 2 || res.Duration != 20*time.Hour+8*time.Second {
		t.Errorf("%+v", res)
	}
	tracks := bothFormats(t, m, Options{})
	for i, want := range []int64{0, hours, 2 * hours} {
		if got := tracks[0][i*200].pts; got != want {
			t.Errorf("stretch %d starts at %d, want %d", i, got, want)
		}
	}
	if last := tracks[0][599].pts; last != 2*hours+199*frameTicks {
		t.Errorf("the last picture is at %d", last)
	}
	b, _ := exportBytes(t, m, Options{Faststart: true})
	f, err := mp4.DecodeFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if d := f.Moov.Mvhd.Duration; d != 2*hours+8*m4f.Timescale || f.Moov.Mvhd.Version != 1 || f.Moov.Trak.Tkhd.Duration != d {
		t.Errorf("mvhd: version %d, duration %d", f.Moov.Mvhd.Version, d)
	}
}

// TestLargeFile: with more than 4 GiB of media, the offsets have 64 bits.
func TestLargeFile(t *testing.T) {
	m := newMemory(record(testkit.Stream(t, testsrc.Options{StartPTS: 90000, Duration: 8 * second}), 4*second)...)
	p, err := makePlan(m, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.readInits(context.Background(), m); err != nil {
		t.Fatal(err)
	}
	w := &walker{ctx: context.Background(), plan: p, src: &whole{archive: m, plan: p}}
	for _, payload := range []uint64{1 << 20, 1<<32 - 2000, 1<<32 - 8, 1 << 32, 5 << 30} {
		tables := map[*track]*table{}
		for _, tr := range p.tracks {
			tables[tr] = &table{}
		}
		at := payload / 2
		err = w.each(func(_ int, c *chunk) error {
			for k := range c.parts {
				if err := tables[c.parts[k].track].add(&c.parts[k], at); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var head bytes.Buffer
		if err := w.writeHead(&head, tables, payload); err != nil {
			t.Fatal(err)
		}
		b := head.Bytes()
		size := uint64(8)
		if large := payload > 1<<32-100; large {
			size = 16
		}
		if name := string(b[len(b)-int(size)+4:][:4]); name != "mdat" {
			t.Fatalf("payload %d: %q where mdat should be", payload, name)
		}
		f, err := mp4.DecodeFile(bytes.NewReader(b[:len(b)-int(size)]))
		if err != nil {
			t.Fatal(err)
		}
		for _, off := range [][]uint64{chunkOffsets(f.Moov.Traks[0].Mdia.Minf.Stbl), chunkOffsets(f.Moov.Traks[1].Mdia.Minf.Stbl)} {
			if off[0] != uint64(len(b))+at {
				t.Errorf("payload %d: a chunk at %d, want %d", payload, off[0], uint64(len(b))+at)
			}
		}
	}
}

func TestPauseTooLongForPlainMP4(t *testing.T) {
	b := &table{}
	if err := b.sample(&sample{}); err != nil {
		t.Fatal(err)
	}
	if err := b.sample(&sample{dts: 1 << 32}); err == nil || !strings.Contains(err.Error(), "--faststart") {
		t.Errorf("error %v", err)
	}
}
