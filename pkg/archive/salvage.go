package archive

import (
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/salvage"
)

// Salvage is where the packets of the stream's damaged and partial segments are
// kept: the directory salvage beside the hours, owned as the stream's is. It is
// no part of the archive: Size leaves it out, pruning leaves it alone, and a
// stream without it lacks nothing.
func (s *Stream) Salvage() *salvage.Store {
	s.salvageOnce.Do(func() {
		s.salvage = salvage.NewStore(filepath.Join(s.dir, salvage.DirName), salvage.StoreOptions{FS: s.fs, Clock: s.clock, Owner: s.owner})
	})
	return s.salvage
}

// isSalvage says whether an entry of a directory is nothing but salvage: what is
// left where an archive was removed or its disk taken away.
func isSalvage(fsys fsx.FS, dir string, e fs.DirEntry) bool {
	if e.Name() != salvage.DirName || !e.IsDir() {
		return false
	}
	below, err := readDir(fsys, filepath.Join(dir, e.Name()))
	return err == nil && !slices.ContainsFunc(below, func(e fs.DirEntry) bool {
		return !fsx.IsTemp(e.Name()) && !salvage.ValidName(e.Name())
	})
}

// Healed says whether clean and whole segments of the view cover all of what
// the segment h covers, or that is before the horizon: then no salvage can
// improve on it.
func (s *Stream) Healed(h *m4f.Header) (bool, error) {
	horizon, err := s.Horizon()
	if err != nil {
		return false, err
	}
	if hourOf(h.UTC) < hourOf(horizon) {
		return true, nil
	}
	var clean []Part // of h's span, in ticks from its start
	err = s.Each(max(h.UTC.Add(-occurrence), 1), h.End().Add(occurrence), func(e *Element) error {
		from := m4f.Diff33(e.MediaTime, h.MediaTime)
		if !e.Damaged() && !e.Partial() && closeTo(e.UTC.Add(-from), h.UTC) {
			clean = append(clean, Part{from, from + int64(e.Duration)})
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	slices.SortFunc(clean, func(a, b Part) int { return int(a.From - b.From) })
	at := int64(0)
	for _, p := range clean {
		if p.From <= at+contiguous {
			at = max(at, p.To)
		}
	}
	// What ends where a very short one begins does not cover it.
	return at+min(contiguous, int64(h.Duration)/2) >= int64(h.Duration), nil
}

// closeTo says whether two recorders may have dated one occurrence so.
func closeTo(a, b m4f.UTC) bool { return a-b < occurrence && b-a < occurrence }
