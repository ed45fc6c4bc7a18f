package archive

import (
	"path/filepath"
	"testing"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// A pass finds each salvage file in which a bit was turned, and drops what is kept
// in it; the rest stays, and the archive lacks nothing.
func TestVerifySalvage(t *testing.T) {
	for _, file := range []string{"entry", "*"} {
		s := newStream(t, Options{TargetDuration: 4 * sec})
		segs := run(t, noon, 0, 3)
		write(t, s, Live, segs...)
		var names []string
		for _, seg := range segs {
			h := seg.Header
			h.Flags |= m4f.Damaged
			names = append(names, keepSalvage(t, s, h).Name)
		}
		if found, _ := verified(t, s, VerifyOptions{}); len(found) > 0 {
			t.Fatalf("before anything is damaged: %+v", found)
		}
		files, err := filepath.Glob(filepath.Join(s.Salvage().Dir(), names[1], file))
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		for _, f := range files {
			if filepath.Base(f) == "entry" == (file == "entry") {
				flip(t, f, 200)
			}
		}
		if found, _ := verified(t, s, VerifyOptions{ReadOnly: true}); len(found) != 1 || found[0].Done != Left {
			t.Fatalf("%s, read only: %+v", file, found)
		}
		found, res := verified(t, s, VerifyOptions{})
		if res.Bad != 0 || res.Mended != 1 || len(found) != 1 || found[0].Kind != BadSalvage || found[0].Done != Dropped {
			t.Fatalf("%s: %+v, %+v", file, res, found)
		}
		if file == "*" && (found[0].ID != segs[1].Header.ID || found[0].From != segs[1].Header.UTC || found[0].Bytes == 0) {
			t.Errorf("%+v", found[0])
		}
		all, err := reopen(t, s).Salvage().Entries(0, 0)
		if err != nil || len(all) != 2 || all[0].Name != names[0] || all[1].Name != names[2] {
			t.Errorf("%s: %d entries are left, %v", file, len(all), err)
		}
		if found, _ := verified(t, s, VerifyOptions{}); len(found) > 0 || len(span(t, s)) != 3 {
			t.Errorf("%s: after it: %+v", file, found)
		}
	}
}
