package archive

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/salvage"
)

// keepSalvage keeps ten packets for a segment.
func keepSalvage(t testing.TB, s *Stream, h m4f.Header) salvage.Entry {
	t.Helper()
	p := make([]byte, 10*salvage.PacketSize)
	for i := 0; i < len(p); i += salvage.PacketSize {
		p[i] = 0x47
	}
	e, err := s.Salvage().NewRun().Keep(&salvage.Kept{Header: h, Target: 4 * sec, Copy: salvage.Copy{Packets: p}})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestSalvageBesideArchive wants salvage to be no part of the archive for
// whatever walks its directory.
func TestSalvageBesideArchive(t *testing.T) {
	s := newStream(t, Options{TargetDuration: 4 * sec})
	var segs []*m4f.Segment
	for h := range int64(5) {
		segs = append(segs, run(t, noon.Add(h*hourTicks), h*3600*sec, 2)...)
	}
	write(t, s, Live, segs...)
	before, err := s.Size()
	if err != nil {
		t.Fatal(err)
	}
	e := keepSalvage(t, s, segs[9].Header)
	if n, err := s.Size(); err != nil || n != before {
		t.Errorf("%d bytes, %d before, %v", n, before, err)
	}
	root := filepath.Dir(s.Dir())
	if found, err := Find(root); err != nil || len(found) != 1 || found[0].Name != "example" {
		t.Errorf("streams: %v, %v", found, err)
	}
	if err := CanCreate(s.Dir(), ""); err != nil {
		t.Error(err)
	}
	var nested *NestedError
	for _, below := range []string{s.Salvage().Dir(), filepath.Join(s.Salvage().Dir(), e.Name)} {
		if err := CanCreate(below, ""); !errors.As(err, &nested) {
			t.Errorf("a stream in %s: %v", below, err)
		}
	}
	if _, err := s.Prune(noon.Add(5*hourTicks).Time(), PruneOptions{Depth: 3 * time.Hour, Force: true}); err != nil {
		t.Fatal(err)
	}
	if got := span(t, reopen(t, s)); len(got) != 6 {
		t.Errorf("%d elements after pruning", len(got))
	}
	if _, err := s.Salvage().Read(e); err != nil {
		t.Errorf("after pruning: %v", err)
	}
	// A copy and a stream of another name have it too.
	moved := filepath.Join(root, "sport", "hd")
	if err := os.Mkdir(filepath.Dir(moved), 0o750); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-r", s.Dir(), moved).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c, err := Open(moved)
	if err != nil {
		t.Fatal(err)
	}
	if all, err := c.Salvage().Entries(0, 0); err != nil || len(all) != 1 {
		t.Errorf("in a copy: %d entries, %v", len(all), err)
	} else if _, err := c.Salvage().Read(all...); err != nil {
		t.Errorf("in a copy: %v", err)
	}
	if found, err := Find(root); err != nil || len(found) != 2 {
		t.Errorf("streams: %v, %v", found, err)
	}
}

// TestSalvageAlone wants a directory in which only salvage is left to become a
// stream again, and one that holds streams of that name not to.
func TestSalvageAlone(t *testing.T) {
	s := newStream(t, Options{})
	keepSalvage(t, s, run(t, noon, 0, 1)[0].Header)
	if err := os.Remove(filepath.Join(s.Dir(), markerName)); err != nil {
		t.Fatal(err)
	}
	if err := CanCreate(s.Dir(), ""); err != nil {
		t.Error(err)
	}
	if _, err := Create(s.Dir(), "", Options{}); err != nil {
		t.Error(err)
	}
	root := t.TempDir()
	if _, err := Create(filepath.Join(root, "x", salvage.DirName), "x/"+salvage.DirName, Options{}); err != nil {
		t.Fatal(err)
	}
	var nested *NestedError
	if err := CanCreate(filepath.Join(root, "x"), "x"); !errors.As(err, &nested) {
		t.Errorf("above a stream: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(root, "y", salvage.DirName, "photos"), 0o750); err != nil {
		t.Fatal(err)
	}
	var not *NotStreamError
	if err := CanCreate(filepath.Join(root, "y"), "y"); !errors.As(err, &not) {
		t.Errorf("of something else: %v", err)
	}
}

func TestHealed(t *testing.T) {
	damaged := func(at, length int64) m4f.Header {
		return spec{media: at * sec, utc: noon.Add(at * sec), duration: length * sec, flags: m4f.Keyframe | m4f.Damaged, content: 9}.build(t).Header
	}
	for _, c := range []struct {
		name string
		have []spec
		want m4f.Header
		yes  bool
	}{
		{"nothing there", nil, damaged(4, 4), false},
		{"itself", []spec{{media: 4 * sec, duration: 4 * sec, flags: m4f.Damaged, content: 9}}, damaged(4, 4), false},
		{"clean", []spec{{media: 4 * sec, duration: 4 * sec}}, damaged(4, 4), true},
		{"clean and longer", []spec{{media: 0, duration: 12 * sec}}, damaged(4, 4), true},
		{"partial", []spec{{media: 4 * sec, duration: 4 * sec, flags: m4f.Partial}}, damaged(4, 4), false},
		{"some milliseconds off", []spec{{media: 4 * sec, duration: 4 * sec, utc: noon.Add(4*sec + 9000)}}, damaged(4, 4), true},
		{"another day's", []spec{{media: 4 * sec, duration: 4 * sec, utc: noon.Add(60 * sec)}}, damaged(4, 4), false},
		{"two for one", []spec{{media: 4 * sec, duration: 2 * sec}, {media: 6 * sec, duration: 2 * sec}}, damaged(4, 4), true},
		{"a gap inside", []spec{{media: 4 * sec, duration: 1 * sec}, {media: 6 * sec, duration: 2 * sec}}, damaged(4, 4), false},
		{"the first half", []spec{{media: 4 * sec, duration: 2 * sec}}, damaged(4, 4), false},
		{"a single picture, and what ends where it begins", []spec{{media: 0, duration: 4 * sec}},
			spec{media: 4 * sec, utc: noon.Add(4 * sec), duration: 90, flags: m4f.Keyframe | m4f.Partial}.build(t).Header, false},
		{"over the wrap", []spec{{media: m4f.Wrap - 2*sec, duration: 4 * sec, utc: noon}}, spec{media: m4f.Wrap - 2*sec, utc: noon, duration: 4 * sec, flags: m4f.Damaged}.build(t).Header, true},
		{"behind the wrap", []spec{{media: m4f.Wrap - 2*sec, duration: 4 * sec, utc: noon}}, spec{media: sec, utc: noon.Add(3 * sec), duration: sec, flags: m4f.Damaged}.build(t).Header, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStream(t, Options{})
			for _, h := range c.have {
				if h.utc == 0 {
					h.utc = noon.Add(h.media)
				}
				write(t, s, Live, h.build(t))
			}
			if got, err := s.Healed(&c.want); err != nil || got != c.yes {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
	s := newStream(t, Options{})
	if err := s.SetHorizon(noon.Add(2 * hourTicks)); err != nil {
		t.Fatal(err)
	}
	h := damaged(4, 4)
	if got, err := s.Healed(&h); err != nil || !got {
		t.Errorf("before the horizon: %v, %v", got, err)
	}
}
