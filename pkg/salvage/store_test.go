package salvage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

const sec = m4f.Timescale

var noon = m4f.UTCOf(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))

// packet is the n-th packet of a test's source.
func packet(n int64) []byte {
	p := make([]byte, PacketSize)
	p[0] = syncByte
	binary.BigEndian.PutUint64(p[4:], uint64(n))
	for i := 12; i < len(p); i++ {
		p[i] = byte(n>>uint(i%5) + int64(i))
	}
	return p
}

// packets are those from first up to end.
func packets(first, end int64) []byte {
	var b []byte
	for n := first; n < end; n++ {
		b = append(b, packet(n)...)
	}
	return b
}

// kept is what a segmenter hands out for its k-th segment of 4 s.
func kept(k, first, end int64, holes ...Hole) *Kept {
	h := m4f.Header{
		MediaTime: k * 4 * sec, UTC: noon.Add(k * 4 * sec), Duration: 4 * sec,
		Flags: m4f.Damaged | m4f.Keyframe, Lost: 7, Length: 1000,
	}
	binary.BigEndian.PutUint64(h.ID[:], uint64(k+1))
	binary.BigEndian.PutUint64(h.Init[:], 1)
	return &Kept{Header: h, Program: 1, Target: 4 * sec, First: first, Copy: Copy{Packets: packets(first, end), Holes: holes}}
}

func newStore(t testing.TB, opt StoreOptions) *Store {
	t.Helper()
	return NewStore(filepath.Join(t.TempDir(), DirName), opt)
}

// again is the store as another process sees it.
func again(s *Store) *Store { return NewStore(s.dir, StoreOptions{Clock: s.clock}) }

func keep(t testing.TB, r *Run, k *Kept) Entry {
	t.Helper()
	e, err := r.Keep(k)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func entries(t testing.TB, s *Store) []Entry {
	t.Helper()
	all, err := s.Entries(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func read(t testing.TB, s *Store, e ...Entry) *Copy {
	t.Helper()
	c, err := s.Read(e...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// diskBytes is what the packet files take, those with several names once.
func diskBytes(t testing.TB, s *Store) (n int64) {
	t.Helper()
	seen := map[uint64]bool{}
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, packetExt) {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if st := info.Sys().(*syscall.Stat_t); !seen[st.Ino] {
			seen[st.Ino] = true
			n += info.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestKeepAndRead(t *testing.T) {
	s := newStore(t, StoreOptions{Clock: clock.NewSim(time.UnixMilli(1795348800123))})
	if got := entries(t, s); len(got) != 0 {
		t.Errorf("a store that nothing was kept in has %d entries", len(got))
	}
	r := s.NewRun()
	first := keep(t, r, kept(0, 0, 100, Hole{0, 3}, Hole{40, 7}, Hole{90, 1}))
	second := keep(t, r, kept(1, 80, 200, Hole{10, 1}, Hole{100, 2}, Hole{120, 5}))
	fourth := keep(t, r, kept(3, 290, 300))
	if want := packets(0, 200); diskBytes(t, s) != int64(len(want))+10*PacketSize {
		t.Errorf("%d bytes on disk: packets are written once", diskBytes(t, s))
	}
	o := again(s)
	got := entries(t, o)
	if !reflect.DeepEqual(got, []Entry{first, second, fourth}) {
		t.Fatalf("another process sees %+v", got)
	}
	if c := read(t, o, second); !bytes.Equal(c.Packets, packets(80, 200)) || !reflect.DeepEqual(c.Holes, second.Holes) {
		t.Errorf("the second: %d packets, holes %v", c.Len(), c.Holes)
	}
	if g := Adjoin(got); len(g) != 2 || len(g[0]) != 2 {
		t.Fatalf("groups: %d", len(g))
	}
	c := read(t, o, first, second)
	if !bytes.Equal(c.Packets, packets(0, 200)) || !reflect.DeepEqual(c.Holes, []Hole{{0, 3}, {40, 7}, {90, 1}, {180, 2}, {200, 5}}) {
		t.Errorf("both: %d packets, holes %v", c.Len(), c.Holes)
	}
	for _, e := range [][]Entry{{}, {second, first}, {second, fourth}} {
		if _, err := o.Read(e...); !errors.Is(err, ErrApart) {
			t.Errorf("apart: %v", err)
		}
	}
	for _, span := range []struct {
		from, to m4f.UTC
		want     []Entry
	}{
		{noon, noon.Add(4 * sec), []Entry{first}}, {noon.Add(4 * sec), noon.Add(12 * sec), []Entry{second}},
		{noon.Add(7 * sec), 0, []Entry{second, fourth}}, {0, noon, []Entry{}},
	} {
		if got, err := o.Entries(span.from, span.to); err != nil || !reflect.DeepEqual(got, span.want) {
			t.Errorf("%v to %v: %d entries, %v", span.from.Time(), span.to.Time(), len(got), err)
		}
	}
	if err := o.Remove(first); err != nil {
		t.Fatal(err)
	}
	if c := read(t, s, second); !bytes.Equal(c.Packets, packets(80, 200)) {
		t.Error("without the first the second is another")
	}
	if _, err := s.Read(first); !errors.Is(err, ErrGone) {
		t.Errorf("the first: %v", err)
	}
	if _, err := s.Entry(first.Name); !errors.Is(err, ErrGone) {
		t.Errorf("the first: %v", err)
	}
	if e, err := s.Entry(second.Name); err != nil || !reflect.DeepEqual(e, second) {
		t.Errorf("the second: %v", err)
	}
}

var _ = rand.Int
var _ = slices.Max[[]int]
var _ = os.Args
var _ = rapid.Check
var _ fsx.FS
