package salvage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
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
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil || !strings.HasSuffix(path, packetExt):
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

// checkWhole wants every entry of a store to be readable and what was kept, and
// nothing else to be there once Expire has looked.
func checkWhole(t *testing.T, s *Store, want ...Entry) {
	t.Helper()
	got := entries(t, again(s))
	names := func(l []Entry) (out []string) {
		for _, e := range l {
			out = append(out, e.Name)
		}
		slices.Sort(out)
		return out
	}
	if !slices.Equal(names(got), names(want)) {
		t.Errorf("entries %v, want %v", names(got), names(want))
	}
	for _, e := range got {
		if c := read(t, s, e); !bytes.Equal(c.Packets, packets(e.From, e.To)) {
			t.Errorf("%s: other packets", e.Name)
		}
	}
}

// TestBitFlips flips one bit in every byte of an entry's files: each is found,
// and none is served as good.
func TestBitFlips(t *testing.T) {
	s := newStore(t, StoreOptions{})
	r := s.NewRun()
	keep(t, r, kept(0, 0, 5))
	e := keep(t, r, kept(1, 3, 8, Hole{1, 2}))
	files, err := filepath.Glob(filepath.Join(s.dir, e.Name, "*"))
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	flips := 0
	for _, f := range files {
		good, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		from, step := 0, 1
		if strings.HasSuffix(f, packetExt) {
			step = 7
		}
		if strings.HasSuffix(f, packetName(0)) {
			from = 3 * PacketSize // what the first entry alone has
		}
		for i := from; i < len(good); i += step {
			b := bytes.Clone(good)
			b[i] ^= 1 << (i % 8)
			if err := os.WriteFile(f, b, filePerm); err != nil {
				t.Fatal(err)
			}
			flips++
			var corrupt *CorruptError
			o := again(s)
			found, err := o.Entry(e.Name)
			if err == nil {
				_, err = o.Read(found)
			}
			if !errors.As(err, &corrupt) || corrupt.Entry != e.Name || corrupt.Path != f {
				t.Fatalf("byte %d of %s: %v", i, filepath.Base(f), err)
			}
		}
		for n := from; n < len(good); n += step { // and cut
			if err := os.WriteFile(f, good[:n], filePerm); err != nil {
				t.Fatal(err)
			}
			o := again(s)
			found, err := o.Entry(e.Name)
			if err == nil {
				_, err = o.Read(found)
			}
			var corrupt *CorruptError
			if !errors.As(err, &corrupt) {
				t.Fatalf("%s cut to %d bytes: %v", filepath.Base(f), n, err)
			}
		}
		if err := os.WriteFile(f, good, filePerm); err != nil {
			t.Fatal(err)
		}
	}
	if flips < 400 {
		t.Errorf("%d flips", flips)
	}
	os.Remove(files[1])
	var corrupt *CorruptError
	if _, err := s.Read(e); !errors.As(err, &corrupt) {
		t.Errorf("without a file: %v", err)
	}
}

func TestKeepRefuses(t *testing.T) {
	s := newStore(t, StoreOptions{})
	if err := os.Mkdir(s.dir, 0o750); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Kept){
		"no packets":        func(k *Kept) { k.Packets = nil },
		"half a packet":     func(k *Kept) { k.Packets = k.Packets[:len(k.Packets)-1] },
		"no sync byte":      func(k *Kept) { k.Packets[188] = 0 },
		"a negative number": func(k *Kept) { k.First = -1 },
		"too many holes":    func(k *Kept) { k.Holes = make([]Hole, MaxHoles+1) },
		"holes in disorder": func(k *Kept) { k.Holes = []Hole{{5, 1}, {4, 1}} },
		"a hole behind it":  func(k *Kept) { k.Holes = []Hole{{11, 1}} },
		"no identity":       func(k *Kept) { k.Header.ID = m4f.Identity{} },
		"the year 12000":    func(k *Kept) { k.Header.UTC = m4f.UTC(320_000_000_000 * sec) },
		"the year 1900":     func(k *Kept) { k.Header.UTC = -sec },
		"no duration":       func(k *Kept) { k.Header.Duration = 0 },
	} {
		k := kept(0, 0, 10)
		change(k)
		if _, err := s.NewRun().Keep(k); err == nil {
			t.Errorf("%s: kept", name)
		}
	}
	if l, _ := os.ReadDir(s.dir); len(l) != 0 {
		t.Errorf("%v is left behind", l)
	}
	k := kept(0, 0, 10)
	k.Packets = make([]byte, (MaxPackets+1)*PacketSize)
	if _, err := s.NewRun().Keep(k); err == nil {
		t.Error("too many packets: kept")
	}
	gone := NewStore(filepath.Join(t.TempDir(), "unmounted", DirName), StoreOptions{})
	var serr *StoreError
	if _, err := gone.NewRun().Keep(kept(0, 0, 10)); !errors.As(err, &serr) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without the stream's directory: %v", err)
	}
}

// TestPut wants a merged copy in place of the entries that it was made from.
func TestPut(t *testing.T) {
	now := time.UnixMilli(1795348800000)
	sim := clock.NewSim(now)
	s := newStore(t, StoreOptions{Clock: sim})
	r := s.NewRun()
	a := keep(t, r, kept(0, 0, 100))
	sim.Step(now.Add(time.Minute))
	b := keep(t, r, kept(1, 80, 200))
	c := keep(t, r, kept(2, 180, 300))
	sim.Step(now.Add(time.Hour))
	m := &Merged{Copy: Copy{Packets: packets(0, 210), Holes: []Hole{{3, 1}}}, Segments: []m4f.Header{a.Segments[0], b.Segments[0]}, Gained: 12}
	e, err := s.Put(m, a, b)
	if err != nil {
		t.Fatal(err)
	}
	if e.Gained != 12 || e.Start() != a.Start() || e.End() != b.End() || !e.Kept.Equal(b.Kept) || e.Target != a.Target || e.Program != 1 {
		t.Errorf("%+v", e)
	}
	checkWhole(t, s, e, c)
	m.Segments, m.Gained = m.Segments[:1], 5
	f, err := s.Put(m, e)
	if err != nil || f.Gained != 17 {
		t.Errorf("%+v, %v", f, err)
	}
	checkWhole(t, s, f, c)
	if _, err := s.Put(m, e); err != nil { // another process was quicker
		t.Error(err)
	}
	if _, err := s.Put(m); err == nil {
		t.Error("a copy that replaces nothing")
	}
	m.Segments = nil
	if _, err := s.Put(m, c); err == nil {
		t.Error("a copy for nothing")
	}
	if _, err := s.Read(c); err != nil {
		t.Error(err)
	}
}

func TestExpire(t *testing.T) {
	now := time.UnixMilli(1795348800000)
	sim := clock.NewSim(now)
	s := newStore(t, StoreOptions{Clock: sim})
	r := s.NewRun()
	var all []Entry
	for k := range int64(6) {
		sim.Step(now.Add(time.Duration(k) * 4 * time.Second))
		all = append(all, keep(t, r, kept(k, max(k*100-20, 0), k*100+100)))
	}
	limits := Limits{Bytes: 1 << 20, Age: time.Minute}
	x, err := s.Expire(sim.Now(), limits, func(e *Entry) bool { return e.Name == all[2].Name })
	if err != nil || x.Covered != 1 || x.Aged+x.Over+x.Broken != 0 || x.Left != (Usage{5, diskBytes(t, s)}) {
		t.Errorf("%+v, %v", x, err)
	}
	checkWhole(t, s, all[0], all[1], all[3], all[4], all[5])
	x, err = s.Expire(now.Add(time.Minute+time.Second), limits, nil)
	if err != nil || x.Aged != 1 {
		t.Errorf("%+v, %v", x, err)
	}
	checkWhole(t, s, all[1], all[3], all[4], all[5])
	limits.Bytes = diskBytes(t, s) - 1
	x, err = s.Expire(sim.Now(), limits, nil)
	if err != nil || x.Over != 1 || x.Left.Bytes != diskBytes(t, s) || x.Left.Bytes > limits.Bytes {
		t.Errorf("%+v, %v", x, err)
	}
	checkWhole(t, s, all[3], all[4], all[5])
	// In between, Keep holds the limit.
	for k := range int64(20) {
		keep(t, r, kept(10+k, 1000+k*100, 1100+k*100))
		if n := diskBytes(t, s); n > limits.Bytes {
			t.Fatalf("%d bytes, the limit is %d", n, limits.Bytes)
		}
	}
	if u, err := s.Usage(); err != nil || u.Bytes != diskBytes(t, s) || u.Entries < 2 {
		t.Errorf("%+v, %v", u, err)
	}
	// A clock a year off, either way, and back.
	if x, err = s.Expire(now.AddDate(-1, 0, 0), limits, nil); err != nil || x.Left.Entries != 0 {
		t.Errorf("%+v, %v", x, err)
	}
	keep(t, r, kept(50, 9000, 9100))
	if x, err = s.Expire(now, Limits{}, nil); err != nil || x.Left != (Usage{}) || diskBytes(t, s) != 0 {
		t.Errorf("without limits: %+v, %v", x, err)
	}
	if l, _ := os.ReadDir(s.dir); len(l) != 0 {
		t.Errorf("%v is left", l)
	}
}

// TestSweep wants what was left unfinished, or cannot be read, to go in time,
// and what is not the store's to stay.
func TestSweep(t *testing.T) {
	s := newStore(t, StoreOptions{})
	e := keep(t, s.NewRun(), kept(0, 0, 10))
	bad := keep(t, s.NewRun(), kept(1, 0, 10))
	if err := os.Truncate(filepath.Join(s.dir, bad.Name, entryName), 50); err != nil {
		t.Fatal(err)
	}
	tmp := filepath.Join(s.dir, tempPrefix+"x")
	os.Mkdir(tmp, 0o750)
	os.WriteFile(filepath.Join(tmp, packetName(0)), packets(0, 3), 0o640)
	os.WriteFile(filepath.Join(s.dir, "README"), []byte("mine"), 0o640)
	os.Mkdir(filepath.Join(s.dir, "lost+found"), 0o700)
	s = again(s)
	limits := Limits{Bytes: 1 << 20, Age: 1 << 40}
	if x, err := s.Expire(time.Now(), limits, nil); err != nil || x.Broken != 0 || x.Left.Entries != 1 {
		t.Errorf("at once: %+v, %v", x, err)
	}
	for _, dir := range []string{tmp, filepath.Join(s.dir, bad.Name)} {
		old := time.Now().Add(-StaleAfter - time.Second)
		if err := os.Chtimes(dir, old, old); err != nil {
			t.Fatal(err)
		}
	}
	if x, err := s.Expire(time.Now(), limits, nil); err != nil || x.Broken != 2 {
		t.Errorf("later: %+v, %v", x, err)
	}
	l, _ := os.ReadDir(s.dir)
	if len(l) != 3 {
		t.Errorf("%v", l)
	}
	checkWhole(t, s, e)
}

// TestListingIsKept wants a directory that has not changed not to be read again,
// and every change to be seen.
func TestListingIsKept(t *testing.T) {
	reads, broken := 0, false
	f := fsx.NewFaults(fsx.OS, func(o fsx.Op) error {
		if o.Name == "readdir" {
			reads++
		}
		if broken && o.Name == "open" {
			return syscall.EIO
		}
		return nil
	})
	s := newStore(t, StoreOptions{FS: f})
	o := NewStore(s.dir, StoreOptions{})
	age := func() { // as if nothing had happened for an hour
		past := time.Now().Add(-time.Hour)
		if err := os.Chtimes(s.dir, past, past); err != nil {
			t.Fatal(err)
		}
	}
	list := func(want int) {
		t.Helper()
		if n := len(entries(t, s)); n != want {
			t.Fatalf("%d entries, want %d", n, want)
		}
	}
	e := keep(t, o.NewRun(), kept(0, 0, 10))
	list(1)
	list(1)
	if reads != 2 {
		t.Errorf("just changed, and read %d times of 2", reads)
	}
	age()
	list(1)
	list(1)
	list(1)
	if reads != 3 {
		t.Errorf("long unchanged, and read %d times of 3", reads)
	}
	keep(t, o.NewRun(), kept(1, 0, 10))
	list(2)
	if err := o.Remove(e); err != nil {
		t.Fatal(err)
	}
	list(1)
	keep(t, o.NewRun(), kept(2, 0, 10))
	age()
	broken = true
	list(1)
	broken = false // what could not be read is read again
	list(2)
	if _, err := o.Expire(o.Now(), Limits{}, nil); err != nil {
		t.Fatal(err)
	}
	list(0)
	if err := os.Remove(s.dir); err != nil {
		t.Fatal(err)
	}
	list(0)
}

// TestNoLinks keeps packets twice where the file system has no hard links.
func TestNoLinks(t *testing.T) {
	fired := 0
	f := fsx.NewFaults(fsx.OS, func(o fsx.Op) error {
		if o.Name == "link" {
			fired++
			return syscall.EPERM
		}
		return nil
	})
	s := newStore(t, StoreOptions{FS: f})
	r := s.NewRun()
	a := keep(t, r, kept(0, 0, 100))
	b := keep(t, r, kept(1, 80, 200))
	c := keep(t, r, kept(2, 150, 250))
	if fired == 0 || diskBytes(t, s) != 320*PacketSize {
		t.Errorf("%d bytes, %d links refused", diskBytes(t, s), fired)
	}
	if got := read(t, s, a, b, c); !bytes.Equal(got.Packets, packets(0, 250)) {
		t.Error("other packets")
	}
}

// TestModes wants the files to be as those of the archive are.
func TestModes(t *testing.T) {
	s := newStore(t, StoreOptions{})
	keep(t, s.NewRun(), kept(0, 0, 10))
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		info, ierr := d.Info()
		if err != nil || ierr != nil {
			return errors.Join(err, ierr)
		}
		if want := map[bool]fs.FileMode{true: dirPerm, false: filePerm}[d.IsDir()]; info.Mode().Perm() != want {
			t.Errorf("%s: %v", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Packets in pieces are kept as those in one are, whatever part of them has been
// written before.
func TestKeepPieces(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		whole, cut := NewStore(filepath.Join(t.TempDir(), "a"), StoreOptions{}).NewRun(), NewStore(filepath.Join(t.TempDir(), "b"), StoreOptions{}).NewRun()
		first := int64(0)
		for n := range rapid.IntRange(1, 3).Draw(rt, "segments") {
			k := kept(int64(n), first, first+int64(rapid.IntRange(1, 40).Draw(rt, "packets")))
			want, err := whole.Keep(k)
			if err != nil {
				rt.Fatal(err)
			}
			p := *k
			p.Copy = Copy{Holes: k.Holes}
			for left := k.Packets; len(left) > 0; {
				n := rapid.IntRange(1, len(left)/PacketSize).Draw(rt, "piece") * PacketSize
				p.Pieces, left = append(p.Pieces, left[:n]), left[n:]
			}
			got, err := cut.Keep(&p)
			if err != nil || !reflect.DeepEqual(got.parts, want.parts) {
				rt.Fatalf("%v, want %v, %v", got.parts, want.parts, err)
			}
			if c := read(t, cut.s, got); !bytes.Equal(c.Packets, k.Packets) || !bytes.Equal(p.Join(), k.Packets) || p.Len() != k.Len() {
				rt.Fatal("other packets are kept")
			}
			first += int64(rapid.IntRange(0, k.Len()).Draw(rt, "step"))
		}
	})
}
