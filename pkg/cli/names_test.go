package cli

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/config"
)

// A name that the configuration takes is one that the archive takes, and the
// other way round.
func TestNames(t *testing.T) {
	for _, v := range []struct {
		name  string
		valid bool
	}{
		{"example", true}, {"sport/hd", true}, {"m4f", true}, {"ü x", true}, {"a..b", true},
		{"", false}, {"..", false}, {"a/../b", false}, {"/a", false}, {"a/", false}, {".a", false},
		{"a/m4f", false}, {"a\x00", false}, {`a\b`, false}, {"a\xff", false},
		{strings.Repeat("a", 255), true}, {strings.Repeat("a", 256), false},
		{strings.Repeat("a/", 7) + "a", true}, {strings.Repeat("a/", 8) + "a", false},
	} {
		if err := config.ValidName(v.name); (err == nil) != v.valid {
			t.Errorf("%q: %v", v.name, err)
		}
		if err := archive.ValidName(v.name); (err == nil) != v.valid {
			t.Errorf("%q in the archive: %v", v.name, err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		name := strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{
			"a", "/", ".", "..", "m4f", `\`, "\n", "\x7f", "\u0085", "\ufffd", "\xff", "ü", " ", "0", "~", strings.Repeat("x", 100),
		}), 0, 12).Draw(t, "parts"), "")
		inConfig, inArchive := config.ValidName(name), archive.ValidName(name)
		if (inConfig == nil) != (inArchive == nil) {
			t.Fatalf("%q: configuration %v, archive %v", name, inConfig, inArchive)
		}
	})
}
