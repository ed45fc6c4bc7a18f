package archive

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

func TestCreate(t *testing.T) {
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(root, 4242, 4343); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(root, "sport", "hd")
	s, err := Create(dir, "sport/hd", Options{TargetDuration: 4 * sec})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := s.Info(); err != nil || info.Name != "sport/hd" || info.TargetDuration != 4*sec || info.Rules != m4f.RulesVersion ||
		info.Oldest != 0 || info.Newest != 0 || info.Horizon != 0 {
		t.Fatalf("%+v %v", info, err)
	}
	write(t, s, Live, run(t, noon, 0, 2)...)
	filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o640)
		if d.IsDir() {
			want = 0o750
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if sys := info.Sys().(*syscall.Stat_t); os.Geteuid() == 0 && (sys.Uid != 4242 || sys.Gid != 4343) {
			t.Errorf("%s belongs to %d:%d, not to the owner of the directory", path, sys.Uid, sys.Gid)
		}
		return nil
	})
	if again, err := Create(dir, "sport/hd", Options{}); err != nil || len(span(t, again)) != 2 {
		t.Errorf("made again: %v", err)
	}
	// Moving the directory renames the stream.
	moved := filepath.Join(root, "sport", "uhd")
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	if m, err := Open(moved); err != nil || m.Name() != "uhd" || len(span(t, m)) != 2 {
		t.Errorf("moved: %v", err)
	}
	found, err := Find(root)
	if err != nil || !reflect.DeepEqual(found, []Found{{"sport/uhd", moved}}) {
		t.Errorf("found %v, %v", found, err)
	}
}

func TestCreateRefuses(t *testing.T) {
	root := t.TempDir()
	path := func(s string) string { return filepath.Join(root, s) }
	make := func(name, content string) {
		if err := os.MkdirAll(filepath.Dir(path(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path(name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	make("file", "x")
	make("full/photo.jpg", "x")
	make("new/stream.json", `{"format": 2, "timescale": 90000}`)
	make("broken/stream.json", `{"format": 1,`)
	make("other/stream.json", `{"kind": "something"}`)
	make("huge/stream.json", strings.Repeat(" ", maxMarker+1))
	if _, err := Create(path("a/b"), "", Options{}); err != nil {
		t.Fatal(err)
	}
	var notStream *NotStreamError
	var version *VersionError
	var nested *NestedError
	var name *NameError
	for _, c := range []struct {
		dir, name string
		as        any
		words     string
	}{
		{"file", "", &notStream, "it is a file"},
		{"file/below", "", &notStream, "a part of its path is a file"},
		{"full", "", &notStream, "it holds photo.jpg and no stream.json; name a new or empty directory"},
		{"new", "", &version, "format 2 and this twindvr reads format 1: upgrade"},
		{"broken", "", &notStream, "cannot be read"},
		{"other", "", &notStream, "names no archive format"},
		{"huge", "", nil, "longer"},
		{"a", "", &nested, "no stream lies below another"},
		{"a/b/c/d", "", &nested, path("a/b") + " is one"},
		{"ok", "../x", &name, "begins with a dot"},
		{"ok", "/x", &name, "begins with a slash"},
		{"ok", "x//y", &name, "empty part"},
		{"ok", "x\ny", &name, "control character"},
		{"ok", strings.Repeat("x", 256), &name, "longer than 255"},
	} {
		_, err := Create(path(c.dir), c.name, Options{})
		if err == nil || c.as != nil && !errors.As(err, c.as) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v, want %q", c.dir, err, c.words)
		}
		if cerr := CanCreate(path(c.dir), c.name); cerr == nil {
			t.Errorf("%s: CanCreate would", c.dir)
		}
	}
	if _, err := os.Stat(path("ok")); err == nil {
		t.Error("a refusal made a directory")
	}
	if err := CanCreate(path("x/y"), ""); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path("x")); err == nil {
		t.Error("CanCreate made a directory")
	}
}

func TestOpenRefuses(t *testing.T) {
	root := t.TempDir()
	if _, err := Create(filepath.Join(root, "a", "b"), "", Options{}); err != nil {
		t.Fatal(err)
	}
	for dir, words := range map[string]string{
		filepath.Join(root, "none"): "there is no such directory",
		root:                        "it holds streams: a/b; name one of them",
		t.TempDir():                 "it has no stream.json",
	} {
		_, err := Open(dir)
		var not *NotStreamError
		if !errors.As(err, &not) || !strings.Contains(err.Error(), dir+" is not a twindvr stream: "+words) {
			t.Errorf("%v, want %q", err, words)
		}
	}
}

func TestTargetDuration(t *testing.T) {
	s := newStream(t, Options{})
	write(t, s, Live, run(t, noon, 0, 1)...)
	if info, _ := s.Info(); info.TargetDuration != 4*sec || info.Rules != m4f.RulesVersion {
		t.Fatalf("%+v: the first live segment gives the target duration", info)
	}
	other := spec{media: 4 * sec, utc: noon.Add(4 * sec), duration: 2 * sec, target: 2 * sec}.build(t)
	var mismatch *TargetDurationError
	if err := s.Writer(Live, 0, WriterOptions{}).Append(other); !errors.As(err, &mismatch) || mismatch.Segment != 2*time.Second {
		t.Errorf("a live segment of another D: %v", err)
	}
	w := s.Writer(Healed, 0, WriterOptions{})
	if err := w.Append(other); err != nil {
		t.Errorf("a peer's segment of another D fills a gap: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Create(s.Dir(), "", Options{TargetDuration: 2 * sec}); !errors.As(err, &mismatch) {
		t.Errorf("created with another D: %v", err)
	}
}

func TestExtentsEnd(t *testing.T) {
	hourEnd := noon.Add(hourTicks)
	for name, c := range map[string]struct {
		segs []spec
		want []string // extents
	}{
		"contiguous":        {[]spec{{media: 0, utc: noon}, {media: 4 * sec, utc: noon.Add(4 * sec)}}, []string{"12/0000.000"}},
		"drift":             {[]spec{{media: 0, utc: noon}, {media: 4 * sec, utc: noon.Add(4*sec + 180)}}, []string{"12/0000.000"}},
		"a gap":             {[]spec{{media: 0, utc: noon}, {media: 8 * sec, utc: noon.Add(8 * sec)}}, []string{"12/0000.000", "12/0008.000"}},
		"the hour":          {[]spec{{media: 0, utc: hourEnd.Add(-4 * sec)}, {media: 4 * sec, utc: hourEnd}}, []string{"12/5956.000", "13/0000.000"}},
		"another init":      {[]spec{{media: 0, utc: noon}, {media: 4 * sec, utc: noon.Add(4 * sec), pid: 0x200}}, []string{"12/0000.000", "12/0004.000"}},
		"the wrap":          {[]spec{{media: m4f.Wrap - 4*sec, utc: noon}, {media: 0, utc: noon.Add(4 * sec)}}, []string{"12/0000.000", "12/0004.000"}},
		"a new timeline":    {[]spec{{media: 0, utc: noon}, {media: 4 * sec, utc: noon.Add(40 * sec)}}, []string{"12/0000.000", "12/0040.000"}},
		"the same again":    {[]spec{{media: 0, utc: noon}, {media: 0, utc: noon}, {media: 0, utc: noon}}, []string{"12/0000.000", "12/0000.000-2", "12/0000.000-3"}},
		"rounds down to ms": {[]spec{{media: 0, utc: noon.Add(sec - 1)}}, []string{"12/0000.999"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStream(t, Options{})
			var segs []*m4f.Segment
			for _, sp := range c.segs {
				sp.duration = 4 * sec
				segs = append(segs, sp.build(t))
			}
			write(t, s, Live, segs...)
			for _, ext := range []string{mediaExt, indexExt} {
				got := glob(t, s, "2026/11/22/*/*"+ext)
				for i := range got {
					rel, _ := filepath.Rel(filepath.Join(s.Dir(), "2026/11/22"), got[i])
					got[i] = strings.TrimSuffix(rel, ext)
				}
				// Glob sorts 0000.000-2 before 0000.000.idx.
				if len(got) != len(c.want) {
					t.Errorf("%v, want %v", got, c.want)
				}
				for _, w := range c.want {
					if !strings.Contains(" "+strings.Join(got, " ")+" ", " "+w+" ") {
						t.Errorf("%v lacks %s", got, w)
					}
				}
			}
			recs, _, err := s.ReadChanges("", 100)
			if err != nil || len(recs) != len(segs) {
				t.Errorf("%d changes, %v", len(recs), err)
			}
		})
	}
}

func TestIndexIsWhatIsRead(t *testing.T) {
	s := newStream(t, Options{Clock: fixedClock})
	write(t, s, Healed, run(t, noon, 0, 3)...)
	// With the headers in the extent gone bad, the index alone still tells.
	mp4 := glob(t, s, "2026/11/22/12/*.mp4")[0]
	b, err := os.ReadFile(mp4)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mp4, make([]byte, len(b)), 0o640); err != nil {
		t.Fatal(err)
	}
	for _, e := range span(t, reopen(t, s)) {
		if e.Origin != Healed || e.Arrived != fixedClock.Now().UnixMilli() {
			t.Errorf("%+v", e.Record)
		}
	}
	if n := len(span(t, reopen(t, s))); n != 3 {
		t.Errorf("%d elements", n)
	}
}

func TestReadSegment(t *testing.T) {
	s := newStream(t, Options{})
	segs := run(t, noon, 0, 3)
	segs[1].Header.Flags |= m4f.Damaged
	write(t, s, Live, segs...)
	for _, near := range []m4f.UTC{0, noon, noon.Add(-hourTicks), noon.Add(hourTicks), noon.Add(100 * hourTicks)} {
		for _, want := range segs {
			got, err := s.ReadSegment(want.Header.ID, near)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("near %v: %v", near.Time(), err)
			}
		}
	}
	if _, err := s.ReadSegment(m4f.Identity{1}, noon); !errors.Is(err, ErrNoSegment) {
		t.Errorf("%v", err)
	}
	els := span(t, s)
	for i := range els {
		m, err := s.OpenElement(&els[i])
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, m.Length)
		if _, err := m.File.ReadAt(got, m.Offset); err != nil || string(got) != string(segs[i].Media) {
			t.Errorf("section: %v", err)
		}
		m.Close()
	}
	// A flipped bit is found when the segment is read.
	mp4 := glob(t, s, "2026/11/22/12/*.mp4")[0]
	b, _ := os.ReadFile(mp4)
	b[len(b)-1] ^= 1
	os.WriteFile(mp4, b, 0o640)
	var corrupt *CorruptError
	if _, err := s.ReadElement(&els[2]); !errors.As(err, &corrupt) || corrupt.Path != mp4 || corrupt.Offset == 0 {
		t.Errorf("%v", err)
	}
}

func TestCopyGivesBetterFlags(t *testing.T) {
	s := newStream(t, Options{})
	segs := run(t, noon, 0, 3)
	segs[1].Header.Flags |= m4f.Damaged
	segs[1].Header.Lost = 7
	write(t, s, Live, segs...)
	theirs := segs[1].Header
	theirs.Flags &^= m4f.Damaged
	theirs.Lost = 0
	theirs.UTC = theirs.UTC.Add(300)
	wants, err := s.Wants([]Record{{Header: theirs}, {Header: segs[0].Header}})
	if err != nil || len(wants) != 1 || !wants[0].Local || wants[0].UTC != segs[1].Header.UTC {
		t.Fatalf("%+v, %v", wants, err)
	}
	w := s.Writer(Copied, 0, WriterOptions{})
	if err := w.Copy(wants[0].Header); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*Stream{s, reopen(t, s)} {
		els := span(t, r)
		if !reflect.DeepEqual(ids(els), idsOf(segs)) || els[1].Damaged() || els[1].Lost != 0 {
			t.Errorf("%d elements, %+v", len(els), els[1].Header)
		}
	}
	if wants, err := s.Wants([]Record{{Header: theirs}}); err != nil || len(wants) != 0 {
		t.Errorf("it is wanted again: %v, %v", wants, err)
	}
	worse := segs[2].Header
	worse.Flags |= m4f.Damaged
	if there, err := s.Present(&worse); err != nil || !there {
		t.Errorf("present: %v, %v", there, err)
	}
	worse.UTC = worse.UTC.Add(10 * sec)
	if there, err := s.Present(&worse); err != nil || there {
		t.Errorf("a repeat is present: %v, %v", there, err)
	}
}

func TestWants(t *testing.T) {
	s := newStream(t, Options{})
	mine := run(t, noon, 0, 3)
	mine[1].Header.Flags |= m4f.Damaged
	write(t, s, Live, mine...)
	clean := spec{media: 4 * sec, utc: noon.Add(4 * sec), duration: 4 * sec, content: 9}.build(t).Header
	dirty := spec{media: 8 * sec, utc: noon.Add(8 * sec), duration: 4 * sec, content: 9, flags: m4f.Damaged}.build(t).Header
	next := spec{media: 12 * sec, utc: noon.Add(12 * sec), duration: 4 * sec, flags: m4f.Damaged}.build(t).Header
	old := spec{media: 12 * sec, utc: noon.Add(-5 * hourTicks), duration: 4 * sec}.build(t).Header
	hostile := next
	hostile.ID[0] ^= 1
	hostile.Duration = 1 << 31
	if err := s.SetHorizon(noon.Add(-hourTicks)); err != nil {
		t.Fatal(err)
	}
	wants, err := s.Wants([]Record{{Header: next}, {Header: dirty}, {Header: clean}, {Header: old}, {Header: hostile}, {Header: mine[0].Header}})
	if err != nil || len(wants) != 2 || wants[0].ID != clean.ID || wants[1].ID != next.ID || wants[0].Local {
		t.Fatalf("%+v, %v", wants, err)
	}
	if err := s.SetHorizon(0); err != nil {
		t.Fatal(err)
	}
	if wants, err := s.Wants([]Record{{Header: old}}); err != nil || len(wants) != 1 {
		t.Errorf("with the horizon moved back: %v, %v", wants, err)
	}
}

func TestBadIsLeftOut(t *testing.T) {
	s := newStream(t, Options{})
	segs := run(t, noon, 0, 4)
	write(t, s, Live, segs...)
	span(t, s) // what it remembers must give way
	idx := glob(t, s, "2026/11/22/12/*.idx")[0]
	if err := os.WriteFile(strings.TrimSuffix(idx, indexExt)+badExt, append(appendBad(appendBad(nil, 1), 3), "0000000002 27fe"...), 0o640); err != nil {
		t.Fatal(err)
	}
	want := []m4f.Identity{segs[0].Header.ID, segs[2].Header.ID}
	r := reopen(t, s)
	if got := ids(span(t, r)); !reflect.DeepEqual(got, want) {
		t.Errorf("%d elements", len(got))
	}
	if _, err := r.ReadSegment(segs[1].Header.ID, 0); !errors.Is(err, ErrNoSegment) {
		t.Errorf("%v", err)
	}
	recs, _, err := r.ReadChanges("", 10)
	if err != nil || len(recs) != 2 {
		t.Errorf("%d changes, %v", len(recs), err)
	}
	if wants, err := r.Wants([]Record{{Header: segs[1].Header}}); err != nil || len(wants) != 1 || wants[0].Local {
		t.Errorf("%v, %v", wants, err)
	}
}

func TestHourDigests(t *testing.T) {
	a, b := newStream(t, Options{}), newStream(t, Options{})
	segs := run(t, noon.Add(hourTicks-10*sec), 0, 6)
	write(t, a, Live, segs...)
	write(t, b, Healed, segs[3:]...)
	write(t, b, Live, segs[:3]...)
	ha, err := a.Hours(0, 0)
	if err != nil || len(ha) != 2 || ha[0].Segments != 3 || ha[0].Start != noon || ha[1].Start != noon.Add(hourTicks) {
		t.Fatalf("%+v, %v", ha, err)
	}
	hb, err := b.Hours(0, 0)
	if err != nil || !reflect.DeepEqual(ha, hb) {
		t.Fatalf("%+v, %v", hb, err)
	}
	extra := segs[1]
	extra.Header.Flags |= m4f.Partial
	write(t, a, Live, extra) // a worse copy changes nothing
	if again, err := a.Hours(0, 0); err != nil || !reflect.DeepEqual(again, ha) {
		t.Errorf("%+v, %v", again, err)
	}
	write(t, a, Live, spec{media: 24 * sec, utc: noon.Add(hourTicks + 14*sec), duration: 4 * sec, flags: m4f.Damaged}.build(t))
	again, err := a.Hours(0, 0)
	if err != nil || again[0] != ha[0] || again[1].Digest == ha[1].Digest || again[1].Damaged != 1 {
		t.Errorf("%+v, %v", again, err)
	}
	if one, err := a.Hours(noon.Add(hourTicks), 0); err != nil || len(one) != 1 || one[0] != again[1] {
		t.Errorf("%+v, %v", one, err)
	}
	if one, err := a.Hours(0, noon.Add(hourTicks)); err != nil || len(one) != 1 || one[0] != again[0] {
		t.Errorf("%+v, %v", one, err)
	}
}

func TestSpanOverHours(t *testing.T) {
	s := newStream(t, Options{})
	segs := run(t, noon.Add(hourTicks-2*sec), 0, 3)
	write(t, s, Live, segs...)
	edge := noon.Add(hourTicks)
	for _, c := range []struct {
		from, to m4f.UTC
		want     []*m4f.Segment
	}{
		{0, 0, segs}, {edge, 0, segs}, {edge, edge + 1, segs[:1]}, {edge.Add(2 * sec), 0, segs[1:]},
		{0, edge.Add(-2 * sec), nil}, {edge.Add(2 * sec), edge.Add(6 * sec), segs[1:2]}, {edge.Add(10 * sec), 0, nil},
	} {
		els, err := s.Span(c.from, c.to)
		if err != nil || !reflect.DeepEqual(ids(els), idsOf(c.want)) {
			t.Errorf("[%d, %d): %d elements, want %d, %v", c.from-edge, c.to-edge, len(els), len(c.want), err)
		}
	}
}

func TestGaps(t *testing.T) {
	s := newStream(t, Options{})
	write(t, s, Live, run(t, noon, 0, 5)...)                            // [0,20)
	write(t, s, Live, run(t, noon.Add(20*sec), 20*sec, 5)...)           // [20,40) another run
	write(t, s, Live, run(t, noon.Add(40*sec-sec/2), 40*sec, 5)...)     // [40,60) dated half a second early
	write(t, s, Live, run(t, noon.Add(70*sec), 70*sec, 5)...)           // [70,90)
	write(t, s, Live, run(t, noon.Add(90*sec+sec/10), 5000*sec, 5)...)  // [90,110) a new timeline, 100 ms later
	write(t, s, Live, run(t, noon.Add(111*sec+sec/10), 9000*sec, 5)...) // [111,131) a new one after a second
	write(t, s, Live, run(t, noon.Add(3*hourTicks), 99000*sec, 1)...)   // hours later
	ivs, err := s.Coverage(0, 0)
	if err != nil || len(ivs) != 4 || ivs[0].Segments != 15 || ivs[0].Timelines != 1 || ivs[1].Timelines != 2 || ivs[1].Segments != 10 {
		t.Fatalf("%+v, %v", ivs, err)
	}
	s.Note(event.Event{Time: noon.Add(65 * sec).Time(), Kind: event.SourceLost, Msg: "nothing came for 10s"})
	gaps, err := s.Gaps(0, 0)
	if err != nil || len(gaps) != 3 {
		t.Fatalf("%+v, %v", gaps, err)
	}
	if g := gaps[0]; g.To != noon.Add(70*sec) || g.From != noon.Add(60*sec) || g.Cause != "nothing came for 10s" { // which is why recording stopped
		t.Errorf("%+v", g)
	}
	if g := gaps[1]; g.To-g.From != sec {
		t.Errorf("%+v", g)
	}
	// Inside a gap, and over its edges.
	in, err := s.Gaps(noon.Add(62*sec), noon.Add(66*sec))
	if err != nil || len(in) != 1 || in[0].From != noon.Add(62*sec) || in[0].To != noon.Add(66*sec) {
		t.Errorf("%+v, %v", in, err)
	}
	if none, err := s.Gaps(noon.Add(10*sec), noon.Add(50*sec)); err != nil || len(none) != 0 {
		t.Errorf("%+v, %v", none, err)
	}
	if none, err := s.Gaps(noon.Add(-hourTicks), noon.Add(50*sec)); err != nil || len(none) != 0 {
		t.Errorf("before the first segment: %+v, %v", none, err)
	}
}

// TestNewTimelineGap: where a timeline begins, UTC decides, however near its media
// time is to where the one before ended.
func TestNewTimelineGap(t *testing.T) {
	for name, c := range map[string]struct {
		media, utc int64 // from the end of the segment before
		flags      m4f.Flags
		want       int64
	}{
		"back by a second, sent at once":          {-sec, 0, m4f.Discontinuity, 0},
		"back by a second, after one and a half":  {-sec, sec * 3 / 2, m4f.Discontinuity, sec * 3 / 2},
		"flagged but going on":                    {0, sec / 2, m4f.Discontinuity, 0},
		"the same timeline, dated a second later": {0, sec, 0, 0},
		"the same timeline, with a gap":           {sec / 2, sec, 0, sec / 2},
		"a frame is missing":                      {3600, 3600, 0, 3600},
		"an overlap":                              {-3600, -3600, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			a := spec{media: 100 * sec, utc: noon, duration: 4 * sec}.build(t).Header
			b := spec{media: 104*sec + c.media, utc: noon.Add(4*sec + c.utc), duration: 4 * sec, flags: c.flags}.build(t).Header
			ivs, gaps := Cover(View([]Record{{Header: b}, {Header: a}}), 0, 0)
			if c.want == 0 && (len(ivs) != 1 || len(gaps) != 0) ||
				c.want != 0 && (len(ivs) != 2 || len(gaps) != 1 || int64(gaps[0].To-gaps[0].From) != c.want) {
				t.Errorf("%+v %+v, want a gap of %d", ivs, gaps, c.want)
			}
		})
	}
}

// TestGapMeetsSpan: where media time and UTC disagree by some milliseconds, a span
// ends where the gap behind it begins, as the stretches of a timeline do.
func TestGapMeetsSpan(t *testing.T) {
	for name, off := range map[string]int64{"dated late": 270, "dated early": -270, "even": 0, "dated half a second late": sec / 2} {
		t.Run(name, func(t *testing.T) {
			s := newStream(t, Options{})
			write(t, s, Live, run(t, noon.Add(off), 0, 5)...)
			write(t, s, Live, run(t, noon.Add(60*sec), 60*sec, 5)...)
			for _, from := range []m4f.UTC{0, noon.Add(10 * sec), noon.Add(20*sec - 100), noon.Add(20*sec + 100)} {
				ivs, err := s.Coverage(from, 0)
				if err != nil {
					t.Fatal(err)
				}
				gaps, err := s.Gaps(from, 0)
				if err != nil || len(gaps) != 1 || len(ivs) == 0 || ivs[0].From >= ivs[0].To {
					t.Fatalf("from %d: %+v, %+v, %v", from, ivs, gaps, err)
				}
				if g := gaps[0]; len(ivs) == 2 && ivs[0].To != g.From || g.To != ivs[len(ivs)-1].From || g.From < from {
					t.Errorf("from %d: %+v does not lie between %+v", from, g, ivs)
				}
				if from > noon.Add(10*sec) {
					continue
				}
				all, err := s.Stretches(from, 0)
				if n := len(all); err != nil || n != len(ivs)+1 || all[n-2].From != gaps[0].From || all[n-2].To != gaps[0].To {
					t.Errorf("from %d: stretches %+v, gaps %+v, %v", from, all, gaps, err)
				}
			}
		})
	}
}

func TestGapCauses(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(t *testing.T, s *Stream)
		want    string
	}{
		"nothing known": {func(t *testing.T, s *Stream) {
			write(t, s, Healed, run(t, noon, 0, 2)...)
			write(t, s, Healed, run(t, noon.Add(60*sec), 60*sec, 2)...)
		}, "not recorded"},
		"source lost": {func(t *testing.T, s *Stream) {
			write(t, s, Healed, run(t, noon, 0, 2)...)
			s.Note(event.Event{Time: noon.Add(18 * sec).Time(), Kind: event.SourceLost, Msg: "nothing came for 10s"})
			s.Note(event.Event{Time: noon.Add(60 * sec).Time(), Kind: event.SourceBack, Msg: "it is back"})
			write(t, s, Healed, run(t, noon.Add(60*sec), 60*sec, 2)...)
		}, "nothing came for 10s"},
		"killed and started again": {func(t *testing.T, s *Stream) {
			write(t, s, Healed, run(t, noon, 0, 2)...)
			write(t, s, Live, run(t, noon.Add(60*sec), 60*sec, 2)...)
		}, "no recorder was running"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStream(t, Options{})
			c.prepare(t, s)
			gaps, err := s.Gaps(0, 0)
			if err != nil || len(gaps) != 1 || gaps[0].Cause != c.want {
				t.Errorf("%+v, %v", gaps, err)
			}
		})
	}
}

// TestCauseOfOutage: what is left of an outage that was filled in part has the
// cause of the outage, wherever what came lies in it and whoever asks for which span.
func TestCauseOfOutage(t *testing.T) {
	const minute = 60 * sec
	for name, c := range map[string]struct {
		filled [][2]int64 // minutes
		events []event.Event
		last   Origin // of what is recorded behind it
		want   string
	}{
		"the middle, source lost": {[][2]int64{{10, 20}}, []event.Event{
			{Time: noon.Add(10 * sec).Time(), Kind: event.SourceLost, Msg: "nothing came for 10s"},
			{Time: noon.Add(11 * sec).Time(), Kind: event.Stop, Msg: "recording stopped"},
			{Time: noon.Add(21 * minute).Time(), Kind: event.SourceLost, Msg: "nothing works for some time"},
			{Time: noon.Add(30 * minute).Time(), Kind: event.SourceBack, Msg: "it is back"},
			{Time: noon.Add(31 * minute).Time(), Kind: event.Heal, Msg: "healed"},
		}, Live, "nothing came for 10s"},
		"the beginning, source lost": {[][2]int64{{0, 20}}, []event.Event{
			{Time: noon.Add(10 * sec).Time(), Kind: event.SourceLost, Msg: "nothing came for 10s"},
		}, Live, "nothing came for 10s"},
		"the middle, killed": {[][2]int64{{10, 20}}, nil, Live, "no recorder was running"},
		"the end, killed":    {[][2]int64{{20, 30}}, nil, Live, "no recorder was running"},
		"twice, stopped": {[][2]int64{{5, 10}, {15, 20}}, []event.Event{
			{Time: noon.Add(sec).Time(), Kind: event.Stop, Msg: "recording ended"},
		}, Live, "recording ended"},
		"the first cause is over": {[][2]int64{{0, 10}, {15, 20}}, []event.Event{
			{Time: noon.Add(sec).Time(), Kind: event.Disk, Msg: "full"},
			{Time: noon.Add(2 * minute).Time(), Kind: event.DiskBack, Msg: "it can be written again"},
			{Time: noon.Add(4 * minute).Time(), Kind: event.Fault, Msg: "a moment's trouble"},
		}, Copied, "not recorded"},
		"another cause long before": {[][2]int64{{10, 20}}, []event.Event{
			{Time: noon.Add(-1 * minute).Time(), Kind: event.Disk, Msg: "full"},
		}, Healed, "not recorded"},
	} {
		t.Run(name, func(t *testing.T) {
			s, fetched := newStream(t, Options{}), Healed
			fill := func(o Origin, from, to int64) {
				write(t, s, o, run(t, noon.Add(from*minute), from*minute, int((to-from)*15))...)
			}
			s.Note(event.Event{Time: noon.Add(-2 * minute).Time(), Kind: event.Start, Msg: "a recorder began"})
			fill(Copied, -2, 0)
			for _, e := range c.events {
				s.Note(e)
			}
			for _, f := range c.filled {
				fill(fetched, f[0], f[1])
				fetched = Replicated // what is newer than all that is there
			}
			fill(c.last, 30, 31)
			for _, from := range []m4f.UTC{0, noon.Add(21 * minute)} {
				gaps, err := s.Gaps(from, 0)
				if err != nil || from == 0 && len(gaps) == 0 {
					t.Fatal(gaps, err)
				}
				last, _, err := s.LastGaps(from, 0, 100)
				if err != nil || len(last) != len(gaps) {
					t.Fatal(last, err)
				}
				for i := range gaps {
					if gaps[i].Cause != c.want || last[i].Cause != c.want {
						t.Errorf("from %d: gap %d is told as %q and %q, want %q", from, i, gaps[i].Cause, last[i].Cause, c.want)
					}
				}
			}
		})
	}
}

func TestRedater(t *testing.T) {
	s := newStream(t, Options{})
	write(t, s, Live, run(t, noon, m4f.Wrap-6*sec, 5)...) // over the wrap
	next := spec{media: 14 * sec, utc: noon.Add(20*sec + sec/2), duration: 4 * sec}.build(t).Header
	r := s.NewRedater()
	for i := range int64(3) {
		h := next
		h.MediaTime += i * 4 * sec
		h.UTC = h.UTC.Add(i * (4*sec + 18)) // the run's own drift
		if err := r.Apply(&h); err != nil || h.UTC != noon.Add(20*sec+i*(4*sec+18)) {
			t.Errorf("segment %d: %v ticks, %v", i, h.UTC-noon, err)
		}
	}
	for _, off := range []int64{sec + 1, -sec - 1, 1000 * sec} {
		h := next
		h.UTC = noon.Add(20*sec + off)
		want := h.UTC
		if err := s.NewRedater().Apply(&h); err != nil || h.UTC != want {
			t.Errorf("%d ticks away, and dated anew: %v", off, err)
		}
	}
	other := next
	other.MediaTime = 4000 * sec
	want := other.UTC
	if err := s.NewRedater().Apply(&other); err != nil || other.UTC != want {
		t.Errorf("another timeline is dated anew: %v", err)
	}
}

// A recorder that was away a moment and hears its source late goes on with the
// archive's timeline where the media goes on, and nowhere else.
func TestResume(t *testing.T) {
	s := newStream(t, Options{})
	// Ten segments over the wrap, then an encoder that began anew at zero.
	write(t, s, Live, run(t, noon, m4f.Wrap-6*sec, 10)...)
	write(t, s, Live, run(t, noon.Add(60*sec), 0, 2)...)
	at := noon.Add(68 * sec) // the end
	for _, c := range []struct {
		name      string
		media     int64
		near, utc m4f.UTC // utc: 0: it does not go on
	}{
		{"at the end, in time", 8 * sec, at, at},
		{"at the end, late", 8 * sec, at.Add(4 * sec), at},
		{"with media missing, late", 12 * sec, at.Add(11 * sec), at.Add(4 * sec)},
		{"after minutes", 200 * sec, at.Add(195 * sec), at.Add(192 * sec)},
		{"after too long", 900 * sec, at.Add(895 * sec), 0},
		{"too late", 8 * sec, at.Add(11 * sec), 0},
		{"early", 8 * sec, at.Add(-2 * sec), 0},
		{"a little early", 8 * sec, at.Add(-sec / 2), at},
		{"anew at zero", 0, at.Add(2 * sec), 0},
		{"anew, a little after zero", sec / 5, at.Add(2 * sec), 0},
		{"where the encoder before left off", 34 * sec, at.Add(2 * sec), 0},
		{"others are ahead", 4 * sec, noon.Add(68 * sec), noon.Add(64 * sec)},
		{"before the archive", 8 * sec, noon.Add(-60 * sec), 0},
	} {
		utc, ok, err := s.Resume(c.media, c.near)
		if err != nil || ok != (c.utc != 0) || ok && utc != c.utc {
			t.Errorf("%s: %v s, %v, %v; want %v s", c.name, float64(utc-noon)/sec, ok, err, float64(c.utc-noon)/sec)
		}
	}
	// Over the wrap, over an hour's edge.
	s = newStream(t, Options{})
	write(t, s, Live, run(t, noon.Add(-8*sec), m4f.Wrap-8*sec, 2)...)
	if utc, ok, err := s.Resume(sec, noon.Add(5*sec)); err != nil || !ok || utc != noon.Add(sec) {
		t.Errorf("over the wrap: %v s, %v, %v", float64(utc-noon)/sec, ok, err)
	}
	if _, ok, err := newStream(t, Options{}).Resume(sec, noon); ok || err != nil {
		t.Errorf("an empty archive goes on: %v", err)
	}
}

func TestEventsOfAnHour(t *testing.T) {
	s := newStream(t, Options{Clock: fixedClock})
	for i, kind := range []string{event.Switch, event.Start, event.Fault} {
		if err := s.Note(event.Event{Time: noon.Add(int64(2-i) * hourTicks).Time(), Kind: kind, Msg: strings.Repeat("x", i*event.MaxLine)}); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.OpenFile(filepath.Join(s.Dir(), "2026/11/22/12/events.jsonl"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("{\"time\":\"2026-11-22T12:0") // cut
	f.Close()
	all, err := s.Events(0, 0)
	if err != nil || len(all) != 3 || all[0].Kind != event.Fault || all[2].Kind != event.Switch || all[0].Stream != "example" {
		t.Errorf("%+v, %v", all, err)
	}
	some, err := s.Events(noon.Add(hourTicks), noon.Add(2*hourTicks))
	if err != nil || len(some) != 1 {
		t.Errorf("%+v, %v", some, err)
	}
}

func TestReadOnlyArchive(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("1 test not run: root may write anywhere")
	}
	s := newStream(t, Options{})
	write(t, s, Live, run(t, noon, 0, 2)...)
	os.Chmod(s.Dir(), 0o500)
	defer os.Chmod(s.Dir(), 0o700)
	var werr *WriteError
	if err := s.Writer(Live, 0, WriterOptions{}).Append(run(t, noon.Add(hourTicks), 0, 1)[0]); !errors.As(err, &werr) || !werr.ReadOnly() {
		t.Errorf("%v", err)
	}
	if n := len(span(t, reopen(t, s))); n != 2 {
		t.Errorf("%d", n)
	}
}

// TestSlowSync: while fdatasync takes its time, segments are appended on; its
// error comes with the next Append, and only once.
func TestSlowSync(t *testing.T) {
	dir := newStream(t, Options{}).Dir()
	entered, release := make(chan bool), make(chan bool)
	first := true
	slow := fsx.NewFaults(fsx.OS, func(o fsx.Op) error {
		if o.Name == "datasync" && first && strings.HasSuffix(o.Path, mediaExt) {
			first = false
			return syscall.EIO
		}
		return nil
	})
	s, err := OpenWith(dir, Options{FS: &gate{FS: slow, entered: entered, release: release}})
	if err != nil {
		t.Fatal(err)
	}
	segs := run(t, noon, 0, 5)
	w := s.Writer(Live, 0, WriterOptions{Sync: time.Millisecond})
	if err := w.Append(segs[0]); err != nil {
		t.Fatal(err)
	}
	<-entered
	for _, seg := range segs[1:3] {
		if err := w.Append(seg); err != nil {
			t.Error(err)
		}
	}
	if n := len(span(t, reopen(t, s))); n != 3 {
		t.Errorf("%d segments while the disk is slow", n)
	}
	close(release)
	var werr *WriteError
	for err = nil; err == nil; err = w.Sync() { // until the background one has reported
	}
	if !errors.As(err, &werr) || !errors.Is(err, syscall.EIO) {
		t.Errorf("%v", err)
	}
	for _, seg := range segs[3:] {
		if err := w.Append(seg); err != nil {
			t.Error(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if got := ids(span(t, reopen(t, s))); !reflect.DeepEqual(got, idsOf(segs)) {
		t.Errorf("%d segments", len(got))
	}
}

// gate is a file system whose first fdatasync waits to be released.
type gate struct {
	fsx.FS
	entered, release chan bool
	once             sync.Once
}

func (g *gate) OpenFile(name string, flag int, perm fs.FileMode) (fsx.File, error) {
	f, err := g.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return &gateFile{f, g}, nil
}

type gateFile struct {
	fsx.File
	g *gate
}

func (f *gateFile) Datasync() error {
	f.g.once.Do(func() {
		f.g.entered <- true
		<-f.g.release
	})
	return f.File.Datasync()
}

// TestCopiesOverTheHour: copies of a segment that two nodes date into different
// hours are one, in the earlier.
func TestCopiesOverTheHour(t *testing.T) {
	s := newStream(t, Options{})
	edge := noon.Add(hourTicks)
	early, late := run(t, edge.Add(-90), 0, 2), run(t, edge.Add(90), 0, 2)
	write(t, s, Healed, late...)
	write(t, s, Live, early...)
	if got := ids(span(t, s)); !reflect.DeepEqual(got, idsOf(early)) {
		t.Errorf("%d elements", len(got))
	}
	hours, err := s.Hours(0, 0)
	if err != nil || len(hours) != 2 || hours[0].Segments != 1 || hours[1].Segments != 1 {
		t.Errorf("%+v, %v", hours, err)
	}
	for _, seg := range append(early, late...) {
		wants, err := s.Wants([]Record{{Header: seg.Header}})
		if err != nil || len(wants) != 0 {
			t.Errorf("%v, %v", wants, err)
		}
	}
	ivs, err := s.Coverage(0, 0)
	if err != nil || len(ivs) != 1 || ivs[0].Segments != 2 {
		t.Errorf("%+v, %v", ivs, err)
	}
}
