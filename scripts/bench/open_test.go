package main

import (
	"path/filepath"
	"testing"

	"github.com/twindvr/twindvr/pkg/archive"
)

// TestFake reads what was made up as an archive, which must not have to look into
// its extents.
func TestFake(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	f := &fake{dir: dir, init: []byte("no init segment"), first: lastHours(2), hours: 2, odd: map[int]bool{10: true, 901: true}}
	if err := f.make(); err != nil {
		t.Fatal(err)
	}
	s, err := archive.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	hours, err := s.Hours(0, 0)
	if err != nil || len(hours) != 2 {
		t.Fatal(len(hours), err)
	}
	if h := hours[0]; h.Segments != 900 || h.Damaged != 1 {
		t.Errorf("%+v", h)
	}
	if h := hours[1]; h.Segments != 899 || h.Damaged != 0 {
		t.Errorf("%+v", h)
	}
	gaps, err := s.Gaps(0, 0)
	if err != nil || len(gaps) != 1 || gaps[0].To-gaps[0].From != segmentTicks {
		t.Error(gaps, err)
	}
}
