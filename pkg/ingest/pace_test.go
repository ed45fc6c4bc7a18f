package ingest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// fakeClock is a clock on which waiting takes no time.
type fakeClock struct {
	now   time.Time
	waits int
}

func (c *fakeClock) Now() time.Time { return c.now }
func (c *fakeClock) After(d time.Duration) <-chan time.Time {
	c.now = c.now.Add(d)
	c.waits++
	ch := make(chan time.Time, 1)
	ch <- c.now
	return ch
}

// pcrPacket is a packet of size bytes with a clock reference in milliseconds.
func pcrPacket(size int, pid uint16, ms int64, jump bool) []byte {
	p := bytes.Repeat([]byte{0xff}, size)
	binary.BigEndian.PutUint32(p, 0x47000020|uint32(pid)<<8)
	p[4], p[5] = 183, 0x10
	if jump {
		p[5] |= 0x80
	}
	base := uint64(ms) * 90 & (1<<33 - 1)
	binary.BigEndian.PutUint32(p[6:], uint32(base>>1))
	p[10], p[11] = byte(base<<7)|0x7e, 0
	return p
}

func plainPacket(size int) []byte {
	p := bytes.Repeat([]byte{0xff}, size)
	copy(p, []byte{0x47, 0x1f, 0xff, 0x10})
	return p
}

// blocks is a source of given blocks.
type blocks [][]byte

func (b *blocks) Read(ctx context.Context) (*Batch, error) {
	if len(*b) == 0 {
		return nil, io.EOF
	}
	first := (*b)[0]
	*b = (*b)[1:]
	return &Batch{Datagrams: [][]byte{first}}, nil
}
func (b *blocks) Close() error { return nil }
func (b *blocks) Stats() Stats { return Stats{} }

// TestPace cuts streams of every packet size anywhere and wants each clock
// reference when it is due, not more than paceAhead early, and no byte lost.
func TestPace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom([]int{188, 192, 204}).Draw(t, "size")
		start := rapid.SampledFrom([]int64{0, 5000, 95443717 - 3000}).Draw(t, "start") // the last wraps
		stream := bytes.Repeat([]byte{0}, rapid.IntRange(0, 3).Draw(t, "garbage"))
		var at []int // where each clock reference is
		var due []time.Duration
		ms, elapsed := start, time.Duration(0)
		for range rapid.IntRange(3, 100).Draw(t, "marks") {
			step := rapid.Int64Range(0, 200).Draw(t, "step")
			jump := rapid.IntRange(0, 20).Draw(t, "jump") == 0
			if len(at) > 0 {
				ms += step
				if jump {
					ms += 1e6
				} else {
					elapsed += time.Duration(step) * time.Millisecond
				}
			}
			at, due = append(at, len(stream)), append(due, elapsed)
			stream = append(stream, pcrPacket(size, 0x100, ms, jump && step%2 == 0)...)
			stream = append(stream, pcrPacket(size, 0x200, ms+77777, false)...)
			for range rapid.IntRange(0, 5).Draw(t, "plain") {
				stream = append(stream, plainPacket(size)...)
			}
		}
		// The first three packets stand in one block, as sync needs.
		first := len(stream)
		if n := at[0] + 3*size; n < first {
			first = rapid.IntRange(n, first).Draw(t, "cut")
		}
		src := blocks{stream[:first]}
		for rest := stream[first:]; len(rest) > 0; {
			n := rapid.IntRange(1, min(len(rest), 3000)).Draw(t, "cut")
			src, rest = append(src, rest[:n]), rest[n:]
		}

		clk := &fakeClock{now: time.Unix(1000, 0)}
		p := Pace(&src, Options{Clock: clk})
		var got []byte
		for {
			b, err := p.Read(context.Background())
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, b.Datagrams[0]...)
			now := clk.now.Sub(time.Unix(1000, 0))
			for len(at) > 0 && at[0]+12 <= len(got) {
				if due[0] > now+paceAhead {
					t.Fatalf("mark at %d due at %v came at %v", at[0], due[0], now)
				}
				at, due = at[1:], due[1:]
			}
			if len(due) > 0 && now > due[0]+paceAhead {
				t.Fatalf("mark at %d due at %v has not come at %v", at[0], due[0], now)
			}
		}
		if !bytes.Equal(got, stream) {
			t.Fatalf("%d bytes of %d came", len(got), len(stream))
		}
	})
}

// TestPaceChangesPID follows another PID when the chosen one has stopped.
func TestPaceChangesPID(t *testing.T) {
	stream := pcrPacket(188, 0x100, 0, false)
	for i := range int64(300) {
		stream = append(stream, pcrPacket(188, 0x200, 50000+i*20, false)...)
	}
	clk := &fakeClock{now: time.Unix(1000, 0)}
	p := Pace(&blocks{stream}, Options{Clock: clk})
	for _, err := p.Read(t.Context()); err != io.EOF; _, err = p.Read(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if d := clk.now.Sub(time.Unix(1000, 0)); d < 3900*time.Millisecond || d > 4100*time.Millisecond {
		t.Errorf("took %v", d) // 200 steps of 20 ms
	}
}

func TestPaceWithoutClock(t *testing.T) {
	var buf bytes.Buffer
	src := blocks{make([]byte, noPCRAfter), bytes.Repeat(plainPacket(188), 50000), make([]byte, noPCRAfter)}
	clk := &fakeClock{}
	p := Pace(&src, Options{Clock: clk, Log: slog.New(slog.NewTextHandler(&buf, nil))})
	for _, err := p.Read(t.Context()); err != io.EOF; _, err = p.Read(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
	}
	if clk.waits != 0 || strings.Count(buf.String(), "not paced") != 1 {
		t.Errorf("%d waits, log %q", clk.waits, buf.String())
	}
}

func TestPaceEndsWithContext(t *testing.T) {
	src := blocks{append(pcrPacket(188, 1, 0, false), append(pcrPacket(188, 1, 2000, false), plainPacket(188)...)...)}
	p := Pace(&src, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := p.Read(ctx); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := p.Read(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Read = %v", err)
	}
}

func FuzzPace(f *testing.F) {
	f.Add([]byte("not a transport stream"), 7)
	f.Add(append(pcrPacket(188, 1, 0, false), append(pcrPacket(188, 1, 2000, true), plainPacket(188)...)...), 100)
	f.Add(bytes.Repeat(pcrPacket(204, 1, 0, false), 4), 300)
	f.Add(bytes.Repeat([]byte{0x47}, 2000), 11)
	f.Fuzz(func(t *testing.T, stream []byte, cut int) {
		var src blocks
		for rest := stream; len(rest) > 0; {
			n := min(len(rest), max(1, cut&0xfff))
			src, rest = append(src, rest[:n]), rest[n:]
		}
		p := Pace(&src, Options{Clock: &fakeClock{now: time.Unix(1000, 0)}})
		var got []byte
		for {
			b, err := p.Read(context.Background())
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, b.Datagrams[0]...)
		}
		if !bytes.Equal(got, stream) {
			t.Fatalf("%d bytes of %d came", len(got), len(stream))
		}
	})
}

func FuzzURL(f *testing.F) {
	for _, u := range []string{"udp://@239.1.2.3:1234?interface=lo&source=10.0.0.1&buffer_size=4M", "udp://[ff02::1%25eth0]:5000",
		"udp://:1", "udp://[", "udp://]:1", "udp://%:1", "udp://[::ffff:239.1.1.1]:5", "udp://?", "udp://:1?=", "udp://:1?buffer_size=M"} {
		f.Add(u)
	}
	f.Fuzz(func(t *testing.T, u string) {
		scheme, rest := splitScheme(u)
		if scheme != "udp" {
			return
		}
		a, err := parseUDP(t.Context(), rest, Options{}, lookupNothing)
		if err == nil && (!a.addr.IsValid() || a.addr.Port() == 0 || a.buffer <= 0) {
			t.Errorf("%+v", a)
		}
	})
}

// TestPaceRealFiles paces captures: no byte is lost, and the time is that of
// the media.
func TestPaceRealFiles(t *testing.T) {
	want := map[string][2]time.Duration{ // from ffprobe's durations
		"ts/tsduck-064.ts":     {9 * time.Second, 12 * time.Second},
		"ts/tsduck-072.ts":     {9 * time.Second, 13 * time.Second},
		"hard/loop.ts":         {5 * time.Second, time.Minute},
		"hard/back.ts":         {5 * time.Second, time.Minute},
		"hard/restart.ts":      {5 * time.Second, time.Minute},
		"hard/open_behind1.ts": {5 * time.Second, time.Minute},
	}
	dir := os.Getenv("TWINDVR_TESTDATA")
	if dir == "" {
		t.Skipf("TWINDVR_TESTDATA is not set: %d files not paced", len(want))
	}
	for name, span := range want {
		path := filepath.Join(dir, name)
		clk := &fakeClock{now: time.Unix(1000, 0)}
		s := open(t, path, Options{Realtime: true, Clock: clk})
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, s); !bytes.Equal(got, file) {
			t.Errorf("%s: %d bytes of %d came", name, len(got), len(file))
		}
		if d := clk.now.Sub(time.Unix(1000, 0)); d < span[0] || d > span[1] {
			t.Errorf("%s took %v, want %v to %v", name, d, span[0], span[1])
		}
	}
}
