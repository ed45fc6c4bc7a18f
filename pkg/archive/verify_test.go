package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// verified runs a pass over everything, as long after the last write as it likes.
func verified(t testing.TB, s *Stream, o VerifyOptions) ([]Damage, VerifyResult) {
	t.Helper()
	var found []Damage
	o.Settled, o.Reread = -1, -1
	o.Damage = func(d Damage) { found = append(found, d) }
	res, err := s.Verify(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	if res.Bad+res.Mended != len(found) {
		t.Fatalf("%+v, and %d reports", res, len(found))
	}
	return found, res
}

// varied is an archive of several hours, extents, init segments, origins and
// flags.
func varied(t testing.TB) *Stream {
	t.Helper()
	s := newStream(t, Options{TargetDuration: 4 * sec})
	for h := range int64(3) {
		var segs []*m4f.Segment
		for i := range int64(6) {
			segs = append(segs, spec{media: h*3600*sec + i*4*sec, utc: noon.Add(h*hourTicks + i*4*sec), duration: 4 * sec,
				flags: []m4f.Flags{m4f.Keyframe, m4f.Keyframe | m4f.Damaged, m4f.Partial}[i%3], lost: uint32(i % 3), size: 300 + 700*int(i%2)}.build(t))
		}
		write(t, s, Live, segs...)
		late := spec{media: h*3600*sec + 900*sec, utc: noon.Add(h*hourTicks + 900*sec), duration: 4 * sec, size: 500, pid: 0x200}.build(t)
		write(t, s, Healed, late)
	}
	return s
}

// heal does what a follower of a peer does.
func heal(t testing.TB, s, peer *Stream) {
	t.Helper()
	var recs []Record
	for _, e := range span(t, peer) {
		recs = append(recs, e.Record)
	}
	wants, err := s.Wants(recs)
	if err != nil {
		t.Fatal(err)
	}
	w := s.Writer(Healed, 0, WriterOptions{Sync: SyncOff})
	for _, want := range wants {
		if want.Local {
			if err := w.Copy(want.Header); err != nil {
				t.Fatal(err)
			}
			continue
		}
		seg, err := peer.ReadSegment(want.ID, want.UTC)
		if err != nil {
			t.Fatal(err)
		}
		seg.Header = want.Header
		if err := w.Append(seg); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// headers are what the view of an archive shows, by identity.
func headers(t testing.TB, s *Stream) map[m4f.Identity]m4f.Header {
	t.Helper()
	out := map[m4f.Identity]m4f.Header{}
	for _, e := range span(t, s) {
		out[e.ID] = e.Header
	}
	return out
}

// soundOrSilent wants everything that a fresh reader is shown to be what it was:
// each header, and each segment that can be read at all.
func soundOrSilent(t testing.TB, s *Stream, was map[m4f.Identity]m4f.Header, all bool) {
	t.Helper()
	r := lazy(t, s)
	for _, e := range span(t, r) {
		if was[e.ID] != e.Header {
			t.Errorf("shown as %+v, was %+v", e.Header, was[e.ID])
		}
		_, err := r.ReadElement(&e)
		var corrupt *CorruptError
		if err != nil && (all || !errors.As(err, &corrupt)) {
			t.Errorf("%.8s: %v", e.ID, err)
		}
	}
}

// unsynced is a file system that makes nothing durable, which takes most of the
// time of a test.
type unsynced struct{ fsx.FS }

type unsyncedFile struct{ fsx.File }

func (f unsynced) OpenFile(name string, flag int, perm fs.FileMode) (fsx.File, error) {
	x, err := f.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return unsyncedFile{x}, nil
}

func (unsynced) SyncDir(string) error { return nil }
func (unsyncedFile) Sync() error      { return nil }
func (unsyncedFile) Datasync() error  { return nil }

// lazy is a fresh reader and writer that makes nothing durable.
func lazy(t testing.TB, s *Stream) *Stream {
	t.Helper()
	r, err := OpenWith(s.Dir(), Options{FS: unsynced{fsx.OS}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func copyStream(t testing.TB, s *Stream) *Stream {
	t.Helper()
	return copyTo(t, s, filepath.Join(t.TempDir(), "storage", "example"))
}

// copyTo copies a stream to a directory, in place of what is there.
func copyTo(t testing.TB, s *Stream, dir string) *Stream {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS(s.Dir())); err != nil {
		t.Fatal(err)
	}
	c, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func flip(t testing.TB, name string, bit int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], bit/8); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << (bit % 8)
	if _, err := f.WriteAt(b[:], bit/8); err != nil {
		t.Fatal(err)
	}
}

// bitsOf are the files of extents and indexes with their sizes in bits.
func bitsOf(t testing.TB, s *Stream) (names []string, bits []int64) {
	t.Helper()
	for _, name := range append(glob(t, s, "*/*/*/*/*.mp4"), glob(t, s, "*/*/*/*/*.idx")...) {
		st, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		names, bits = append(names, name), append(bits, 8*st.Size())
	}
	return names, bits
}

// TestFlipThousandBits turns bits anywhere in the extents and indexes, each in
// another extent, until it was a thousand: no reader is shown anything else than
// before, a pass finds each of them, a second one nothing, and a peer heals what
// went.
func TestFlipThousandBits(t *testing.T) {
	t.Parallel()
	peer := varied(t)
	was := headers(t, peer)
	rnd := rand.New(rand.NewPCG(4, 2))
	kinds := map[DamageKind]int{}
	root := t.TempDir()
	for n := 0; n < 1000; n += 4 {
		s := copyTo(t, peer, filepath.Join(root, "example"))
		names, bits := bitsOf(t, s)
		where := map[string]string{} // by extent
		for len(where) < 4 {
			k := rnd.IntN(len(names))
			x := strings.TrimSuffix(names[k], filepath.Ext(names[k]))
			if where[x] != "" {
				continue
			}
			bit := rnd.Int64N(bits[k])
			flip(t, names[k], bit)
			where[x] = fmt.Sprintf("%s bit %d of byte %d", filepath.Base(names[k]), bit%8, bit/8)
		}
		for _, e := range span(t, lazy(t, s)) {
			if was[e.ID] != e.Header {
				t.Fatalf("%v: shown as %+v, was %+v", where, e.Header, was[e.ID])
			}
		}
		found, _ := verified(t, lazy(t, s), VerifyOptions{})
		all := maps.Clone(where)
		for _, d := range found {
			kinds[d.Kind]++
			delete(all, strings.TrimSuffix(d.Path, filepath.Ext(d.Path)))
			if d.Done == Left {
				t.Errorf("%v: %+v", where, d)
			}
		}
		if len(all) > 0 {
			t.Fatalf("not found: %v", all)
		}
		if again, _ := verified(t, lazy(t, s), VerifyOptions{}); len(again) != 0 {
			t.Fatalf("%v: found %+v, and again %+v", where, found, again)
		}
		heal(t, lazy(t, s), peer)
		if got := headers(t, lazy(t, s)); !maps.Equal(got, was) {
			t.Fatalf("%v: healed to another view: %d of %d", where, len(got), len(was))
		}
		soundOrSilent(t, s, was, true)
		if t.Failed() {
			t.Fatal(where)
		}
	}
	for _, k := range []DamageKind{BadSegment, BadInit, BadHeader, BadIndex} {
		if kinds[k] == 0 {
			t.Errorf("no flip hit a %s", k)
		}
	}
	t.Logf("1000 flips, all found: %v", kinds)
}

// TestFlipThousandBitsAtOnce reads first what readers can, so that they set aside
// what they meet.
func TestFlipThousandBitsAtOnce(t *testing.T) {
	t.Parallel()
	peer := newStream(t, Options{TargetDuration: 4 * sec})
	for h := range int64(4) {
		for x := range int64(10) {
			var segs []*m4f.Segment
			for i := range int64(20) {
				at := h*3600*sec + x*300*sec + i*4*sec
				segs = append(segs, spec{media: at, utc: noon.Add(at), duration: 4 * sec, size: 1500}.build(t))
			}
			write(t, peer, Live, segs...)
		}
	}
	was := headers(t, peer)
	for _, readFirst := range []bool{false, true} {
		s := copyStream(t, peer)
		names, bits := bitsOf(t, s)
		rnd := rand.New(rand.NewPCG(1, 1000))
		for range 1000 {
			k := rnd.IntN(len(names))
			flip(t, names[k], rnd.Int64N(bits[k]))
		}
		if readFirst {
			soundOrSilent(t, s, was, false)
		}
		found, res := verified(t, lazy(t, s), VerifyOptions{})
		if again, _ := verified(t, lazy(t, s), VerifyOptions{}); len(again) != 0 {
			t.Errorf("%d found, and again %+v", len(found), again)
		}
		soundOrSilent(t, s, was, true)
		before := len(span(t, lazy(t, s)))
		heal(t, lazy(t, s), peer)
		if got := headers(t, lazy(t, s)); !maps.Equal(got, was) {
			t.Errorf("healed to another view: %d of %d", len(got), len(was))
		}
		soundOrSilent(t, s, was, true)
		t.Logf("1000 flips in %d segments (read first: %v): %+v; %d were left, and healed to all", len(was), readFirst, res, before)
	}
}

// TestReadersSetAside: who meets a bad segment sets it aside, readers in other
// processes that had it in their view no longer do, and those who wait for it
// hear of it.
func TestReadersSetAside(t *testing.T) {
	s := varied(t)
	other := reopen(t, s) // plays another process: it remembers a view of its own
	els := span(t, other)
	victim := els[3]
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	heard := make(chan struct{}, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- other.OnSetAside(ctx, func() error { heard <- struct{}{}; return nil })
	}()
	path := s.extentPath(victim.at.hour, victim.at.name, mediaExt)
	flip(t, path, 8*(victim.at.offset+m4f.HeaderBoxSize+int64(victim.Length)-5))

	reader := reopen(t, s)
	// OnSetAside counts from when it first looked.
	for told := false; !told; {
		_, err := reader.ReadSegment(victim.ID, victim.UTC)
		var corrupt *CorruptError
		if err == nil || !errors.As(err, &corrupt) && !errors.Is(err, ErrNoSegment) {
			t.Fatalf("%v", err)
		}
		select {
		case <-heard:
			told = true
		case <-time.After(50 * time.Millisecond):
			if err := reader.announceHour(victim.at.hour, victim.at.name); err != nil {
				t.Fatal(err)
			}
		}
	}
	cancel()
	if err := <-ended; err != context.Canceled {
		t.Error(err)
	}
	for name, r := range map[string]*Stream{"the reader": reader, "another process": other, "a fresh reader": reopen(t, s)} {
		if got := span(t, r); len(got) != len(els)-1 || slices.Contains(ids(got), victim.ID) {
			t.Errorf("%s sees %d of %d", name, len(got), len(els))
		}
		if has, err := r.Has(victim.ID, 0); has || err != nil {
			t.Errorf("%s: Has says %v, %v", name, has, err)
		}
		if has, err := r.Present(&victim.Header); has || err != nil {
			t.Errorf("%s: Present says %v, %v", name, has, err)
		}
		wants, err := r.Wants([]Record{victim.Record})
		if err != nil || len(wants) != 1 || wants[0].Local {
			t.Errorf("%s: %+v, %v", name, wants, err)
		}
		recs, _, err := r.ReadChanges("", 100)
		if err != nil || slices.ContainsFunc(recs, func(r Record) bool { return r.ID == victim.ID }) {
			t.Errorf("%s: %d changes, %v", name, len(recs), err)
		}
		hours, err := r.Hours(0, 0)
		if err != nil || hours[0].Segments != 6 {
			t.Errorf("%s: %+v, %v", name, hours, err)
		}
	}
	// Who holds an element from before is given the copy that a peer has healed.
	seg := peerCopy(t, victim)
	write(t, s, Healed, seg)
	if got, err := other.ReadElement(&victim); err != nil || got.Header.ID != victim.ID {
		t.Errorf("the healed copy: %v", err)
	}
	if err := other.setAside(victim.at.hour, extentNameOf(victim.UTC), 0); err != nil {
		t.Fatal(err)
	}
	gaps, err := s.Gaps(0, 0)
	if err != nil || len(gaps) == 0 || gaps[0].Event == nil || gaps[0].Event.Kind != event.Corrupt {
		t.Errorf("%+v, %v", gaps, err)
	}
	// What was set aside last is good: it is taken back, once.
	if again, _ := verified(t, s, VerifyOptions{}); len(again) != 1 || again[0].Done != TakenBack || again[0].ID != victim.ID {
		t.Errorf("%+v", again)
	}
	if again, _ := verified(t, s, VerifyOptions{}); len(again) != 0 {
		t.Errorf("%+v", again)
	}
}

// peerCopy is a segment of varied as another node has it.
func peerCopy(t testing.TB, e Element) *m4f.Segment {
	t.Helper()
	peer := varied(t)
	seg, err := peer.ReadSegment(e.ID, e.UTC)
	if err != nil {
		t.Fatal(err)
	}
	return seg
}

// TestVerifyReadOnly finds and changes nothing.
func TestVerifyReadOnly(t *testing.T) {
	s := varied(t)
	els := span(t, s)
	flip(t, s.extentPath(els[0].at.hour, els[0].at.name, mediaExt), 8*(els[0].at.offset+200))
	flip(t, s.extentPath(els[0].at.hour, els[0].at.name, indexExt), 8*(indexHeaderSize+indexRecordSize))
	for range 2 {
		found, _ := verified(t, s, VerifyOptions{ReadOnly: true})
		if len(found) != 2 || found[0].Done != Left || found[1].Done != Left {
			t.Errorf("%+v", found)
		}
	}
	if l := glob(t, s, "*/*/*/*/*.bad"); len(l) != 0 {
		t.Error(l)
	}
	// Only the span is looked at, and an hour more than it is not.
	found, res := verified(t, s, VerifyOptions{ReadOnly: true, From: noon.Add(hourTicks), To: noon.Add(2 * hourTicks)})
	if len(found) != 0 || res.Hours != 1 || res.Segments != 7 {
		t.Errorf("%+v %+v", found, res)
	}
}

// TestVerifyFindsWhatIsGone: extents and indexes that are shorter, or not there.
func TestVerifyFindsWhatIsGone(t *testing.T) {
	peer := varied(t)
	was := headers(t, peer)
	for _, c := range []struct {
		name      string
		do        func(mp4, idx string)
		bad, mend int
	}{
		{"extent cut in its fourth segment", func(mp4, idx string) { truncate(t, mp4, 3200) }, 3, 0},
		{"extent cut in its init segment", func(mp4, idx string) { truncate(t, mp4, 20) }, 6, 0},
		{"extent empty", func(mp4, idx string) { truncate(t, mp4, 0) }, 6, 0},
		{"index cut in its third record", func(mp4, idx string) { truncate(t, idx, indexHeaderSize+2*indexRecordSize+11) }, 0, 4},
		{"index cut in its header", func(mp4, idx string) { truncate(t, idx, 7) }, 0, 7},
		{"index empty", func(mp4, idx string) { truncate(t, idx, 0) }, 0, 7},
		{"index gone", func(mp4, idx string) { os.Remove(idx) }, 0, 1},
		{"extent gone", func(mp4, idx string) { os.Remove(mp4) }, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := copyStream(t, peer)
			mp4, idx := glob(t, s, "2026/11/22/12/0000.000.mp4")[0], glob(t, s, "2026/11/22/12/0000.000.idx")[0]
			c.do(mp4, idx)
			soundOrSilent(t, s, was, true)
			found, res := verified(t, reopen(t, s), VerifyOptions{})
			if res.Bad != c.bad || res.Mended != c.mend {
				t.Errorf("%+v: %+v", res, found)
			}
			if again, _ := verified(t, reopen(t, s), VerifyOptions{}); len(again) != 0 {
				t.Errorf("and again %+v", again)
			}
			heal(t, reopen(t, s), peer)
			if got := headers(t, reopen(t, s)); !maps.Equal(got, was) {
				t.Errorf("healed to %d of %d", len(got), len(was))
			}
			if c.bad == 0 { // the index is what it was, but for the times of arrival
				x, err := s.loadExtent(hourOf(noon), extentNameOf(noon))
				if err != nil || len(x.records) != 6 || x.records[5].Origin != Live && c.name != "index gone" && !strings.Contains(c.name, "header") && c.name != "index empty" {
					t.Errorf("%+v, %v", x, err)
				}
			}
		})
	}
}

func truncate(t testing.TB, name string, size int64) {
	t.Helper()
	if err := os.Truncate(name, size); err != nil {
		t.Fatal(err)
	}
}

// TestVerifyLeavesWriters: what a writer is doing right now is no damage.
func TestVerifyLeavesWriters(t *testing.T) {
	s := newStream(t, Options{})
	segs := run(t, noon, 0, 3)
	w := s.Writer(Live, 0, WriterOptions{})
	for _, seg := range segs[:2] {
		if err := w.Append(seg); err != nil {
			t.Fatal(err)
		}
	}
	x := w.x
	b := segs[2].Header.AppendBox(nil)
	if _, err := x.media.Write(b[:70]); err != nil { // as far as its write has come
		t.Fatal(err)
	}
	var found []Damage
	if _, err := s.Verify(context.Background(), VerifyOptions{Damage: func(d Damage) { found = append(found, d) }}); err != nil || len(found) != 0 {
		t.Errorf("%+v, %v", found, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestVerifyChanges: bytes that are no record are found once, and a header that
// is damaged begins the list anew.
func TestVerifyChanges(t *testing.T) {
	s := varied(t)
	recs, _, err := s.ReadChanges("", 100)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, s.changesPath(), 8*(changesHeadSize+3*changeSize+9))
	found, _ := verified(t, s, VerifyOptions{})
	if len(found) != 1 || found[0].Kind != BadChanges || found[0].Offset != changesHeadSize+3*changeSize || found[0].Done != Mended {
		t.Errorf("%+v", found)
	}
	if again, _ := verified(t, s, VerifyOptions{}); len(again) != 0 {
		t.Errorf("%+v", again)
	}
	if now, _, err := s.ReadChanges("", 100); err != nil || len(now) != len(recs)-1 {
		t.Errorf("%d of %d, %v", len(now), len(recs), err)
	}
	cursor, err := s.End()
	if err != nil {
		t.Fatal(err)
	}
	flip(t, s.changesPath(), 8*20)
	found, _ = verified(t, s, VerifyOptions{})
	if len(found) != 1 || found[0].Kind != BadChanges || found[0].Done != Mended {
		t.Errorf("%+v", found)
	}
	if again, _ := verified(t, s, VerifyOptions{}); len(again) != 0 {
		t.Errorf("%+v", again)
	}
	if _, _, err := s.ReadChanges(cursor, 1); err != ErrCursorGone {
		t.Errorf("%v", err)
	}
	if n := len(span(t, reopen(t, s))); n != len(recs) {
		t.Errorf("%d elements", n)
	}
}

// TestMarkerIsGuarded turns each bit of stream.json: the archive is read as before,
// and a pass mends it. Deleted, it is made again of its copy; the copy itself too.
func TestMarkerIsGuarded(t *testing.T) {
	t.Parallel()
	s := varied(t)
	if err := s.SetHorizon(noon); err != nil {
		t.Fatal(err)
	}
	path, other := filepath.Join(s.Dir(), markerName), filepath.Join(s.Dir(), markerCopyName)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, err := lazy(t, s).Info()
	if err != nil {
		t.Fatal(err)
	}
	whole := func(what string) {
		t.Helper()
		for _, name := range []string{path, other} {
			if b, err := os.ReadFile(name); err != nil || string(b) != string(good) {
				t.Fatalf("%s: %s is %q, %v", what, name, b, err)
			}
		}
	}
	whole("at first")
	for _, name := range []string{path, other} {
		for bit := int64(0); bit < 8*int64(len(good)); bit += 3 {
			what := fmt.Sprintf("%s with bit %d turned", filepath.Base(name), bit)
			flip(t, name, bit)
			info, err := lazy(t, s).Info()
			if err != nil || info != before {
				t.Fatalf("%s: %+v, %v", what, info, err)
			}
			if _, err := lazy(t, s).Verify(context.Background(), VerifyOptions{From: noon.Add(100 * hourTicks)}); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			whole(what)
		}
	}
	for _, name := range []string{path, other} {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if info, err := s.Info(); err != nil || info != before {
				t.Fatalf("%s deleted: %+v, %v", name, info, err)
			}
			if _, err := lazy(t, s).Verify(context.Background(), VerifyOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		whole("deleted")
	}
}

// TestBadList: lines that are cut or damaged set nothing else aside.
func TestBadList(t *testing.T) {
	s := varied(t)
	h, name := hourOf(noon), extentNameOf(noon)
	if err := s.setAside(h, name, 12, 3); err != nil {
		t.Fatal(err)
	}
	path := s.extentPath(h, name, badExt)
	b, err := os.ReadFile(path)
	if err != nil || string(b) != "0000000012 3b643f44\n0000000003 daad2430\n" {
		t.Errorf("%q, %v", b, err)
	}
	for n := range len(b) + 1 {
		if err := os.WriteFile(path, b[:n], 0o640); err != nil {
			t.Fatal(err)
		}
		want := map[uint32]bool{}
		if n >= badLine {
			want[12] = true
		}
		if n >= 2*badLine {
			want[3] = true
		}
		if got, err := s.readBad(h, name); err != nil || !maps.Equal(got, want) {
			t.Errorf("cut to %d bytes: %v, %v", n, got, err)
		}
		if err := s.setAside(h, name, 4); err != nil {
			t.Fatal(err)
		}
		// Where its line feed alone was missing, a line is whole now.
		want[4] = true
		if n >= badLine-1 {
			want[12] = true
		}
		if n >= 2*badLine-1 {
			want[3] = true
		}
		if got, err := s.readBad(h, name); err != nil || !maps.Equal(got, want) {
			t.Errorf("cut to %d bytes and appended to: %v, %v", n, got, err)
		}
	}
	for bit := range int64(8 * badLine) {
		if err := os.WriteFile(path, b, 0o640); err != nil {
			t.Fatal(err)
		}
		flip(t, path, bit)
		if got, err := s.readBad(h, name); err != nil || got[12] || bit/8 != badLine-1 && !got[3] || len(got) > 1 {
			t.Errorf("bit %d turned: %v, %v", bit, got, err)
		}
	}
}

// TestStopAtEachStepOfVerify stops a pass over a bad segment, a bad index
// record, a bad header box and an index that is gone at each of its calls. Another
// pass brings it to its end.
func TestStopAtEachStepOfVerify(t *testing.T) {
	t.Parallel()
	template := newStream(t, Options{TargetDuration: 4 * sec})
	write(t, template, Live, run(t, noon, 0, 6)...)
	write(t, template, Live, run(t, noon.Add(900*sec), 900*sec, 2)...)
	was := headers(t, template)
	els := span(t, template)
	damage := func(s *Stream) {
		at := func(e *Element) string { return s.extentPath(e.at.hour, e.at.name, mediaExt) }
		flip(t, at(&els[1]), 8*(els[1].at.offset+m4f.HeaderBoxSize+30))
		flip(t, at(&els[2]), 8*(els[2].at.offset+100))
		flip(t, s.extentPath(els[0].at.hour, els[0].at.name, indexExt), 8*(indexHeaderSize+4*indexRecordSize+3))
		os.Remove(s.extentPath(els[7].at.hour, els[7].at.name, indexExt))
	}
	stops := stopping(t,
		func() string {
			s := copyStream(t, template)
			damage(s)
			return s.Dir()
		},
		func(fsys fsx.FS, dir string, arm func()) error {
			s, err := OpenWith(dir, Options{FS: fsys})
			if err != nil {
				return err
			}
			arm()
			var left int
			_, err = s.Verify(context.Background(), VerifyOptions{Settled: -1, Damage: func(d Damage) {
				if d.Done == Left {
					left++
				}
			}})
			if err == nil && left > 0 {
				err = errors.New("damage was left")
			}
			return err
		},
		func(t *testing.T, dir string) {
			s, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			soundOrSilent(t, s, was, false)
			verified(t, lazy(t, s), VerifyOptions{})
			if again, _ := verified(t, lazy(t, s), VerifyOptions{}); len(again) != 0 {
				t.Errorf("%+v", again)
			}
			heal(t, lazy(t, s), template)
			if got := headers(t, lazy(t, s)); !maps.Equal(got, was) {
				t.Errorf("%d of %d", len(got), len(was))
			}
			soundOrSilent(t, s, was, true)
		})
	if stops < 20 {
		t.Errorf("stopped %d times", stops)
	}
}

// TestUnreadable: the disk cannot read a place in an extent, or an index. The
// rest of the hour is shown, and what cannot be read is set aside.
func TestUnreadable(t *testing.T) {
	peer := varied(t)
	was := headers(t, peer)
	for _, ext := range []string{mediaExt, indexExt} {
		s := copyStream(t, peer)
		faults := fsx.NewFaults(fsx.OS, func(o fsx.Op) error {
			if o.Name == "read" && strings.HasSuffix(o.Path, "12/0000.000"+ext) {
				return syscall.EIO
			}
			return nil
		})
		f, err := OpenWith(s.Dir(), Options{FS: faults})
		if err != nil {
			t.Fatal(err)
		}
		n := len(span(t, f))
		if ext == indexExt && n != len(was) || ext == mediaExt && n == 0 {
			t.Errorf("%s cannot be read: %d of %d are shown", ext, n, len(was))
		}
		found, _ := verified(t, f, VerifyOptions{})
		if len(found) == 0 || faults.Fired() == 0 {
			t.Errorf("%s: nothing found, %d faults", ext, faults.Fired())
		}
		heal(t, f, peer)
		if got := headers(t, f); !reflect.DeepEqual(got, was) {
			t.Errorf("%s: healed to %d of %d", ext, len(got), len(was))
		}
	}
}

// TestFleetingReadErrors: what is no damage sets nothing aside and ends a pass.
func TestFleetingReadErrors(t *testing.T) {
	s := varied(t)
	for _, fault := range []error{syscall.EMFILE, syscall.ENOMEM, syscall.EACCES, io.ErrClosedPipe} {
		faults := fsx.NewFaults(fsx.OS, func(o fsx.Op) error {
			if (o.Name == "read" || o.Name == "open") && strings.HasSuffix(o.Path, mediaExt) {
				return fault
			}
			return nil
		})
		f, err := OpenWith(s.Dir(), Options{FS: faults})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Verify(context.Background(), VerifyOptions{Settled: -1}); !errors.Is(err, fault) {
			t.Errorf("%v: %v", fault, err)
		}
		if _, err := f.ReadSegment(m4f.Identity{}, 0); err == nil {
			t.Errorf("%v: read all the same", fault)
		}
	}
	if l := glob(t, s, "*/*/*/*/*.bad"); len(l) != 0 {
		t.Error(l)
	}
	if found, _ := verified(t, reopen(t, s), VerifyOptions{}); len(found) != 0 {
		t.Errorf("%+v", found)
	}
}

// FuzzBadList reads any bytes as a list of segments set aside: what counts is what
// was written, line by line.
func FuzzBadList(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendBad(appendBad(nil, 0), 1<<32-1))
	f.Add(append([]byte("12\n\n"), appendBad(nil, 7)...))
	f.Add(appendBad(nil, 12)[:badLine-1])
	f.Add(appendBad(appendBack(appendBad(nil, 12), 12), 7))
	f.Add(appendBack(appendBad(nil, 12), 12)[:2*badLine-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		bad := parseBad(b)
		for n := range bad {
			if !bytes.Contains(b, appendBad(nil, n)) {
				t.Errorf("%d was never written", n)
			}
		}
		if len(bad) > len(b)/badLine {
			t.Errorf("%d of %d bytes", len(bad), len(b))
		}
		// A line that takes back may lack its line feed alone.
		back := bytes.IndexByte(b, '+') >= 0
		if more := parseBad(append(append(bytes.Clone(b), '\n'), appendBad(nil, 5)...)); !more[5] || len(more) < len(bad) && !back {
			t.Error("a line behind it does not count, or undoes others")
		}
	})
}

// FuzzMarker reads any bytes as stream.json.
func FuzzMarker(f *testing.F) {
	horizon := noon.Time()
	good, err := (&marker{Format: 1, Name: "a/b", TargetDuration: 4 * sec, Timescale: m4f.Timescale, Horizon: &horizon}).encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(bytes.Replace(good, []byte("crc"), []byte("CRC"), 1))
	f.Add([]byte(`{"format": 1, "timescale": 90000, "crc": "00000000"}`))
	f.Add([]byte(`{"format": 1,`))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, markerName), b, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := readMarker(fsx.OS, dir)
		if err != nil {
			return
		}
		again, err := m.encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, markerName), again, 0o600); err != nil {
			t.Fatal(err)
		}
		back, err := readMarker(fsx.OS, dir)
		if err != nil || back.horizon() != m.horizon() || back.Name != m.Name {
			t.Errorf("%+v reads back as %+v, %v", m, back, err)
		}
	})
}
