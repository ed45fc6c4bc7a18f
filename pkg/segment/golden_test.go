package segment_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
)

var update = flag.Bool("update", false, "write testdata/identities.golden anew")

// TestIdentities compares the identities of a corpus with those of the last
// rules version. If it fails, nodes of this version and the last one would not
// write the same segments: raise m4f.RulesVersion, tell the users, and run it
// with -update.
func TestIdentities(t *testing.T) {
	const golden = "testdata/identities.golden"
	var b strings.Builder
	fmt.Fprintf(&b, "rules %d\n", m4f.RulesVersion)
	for _, path := range corpus(t) {
		for _, d := range []time.Duration{time.Second, 4 * time.Second} {
			ts := read(t, path)
			segs, _ := run(ts, d, 0, len(ts)/packet, nil)
			fmt.Fprintf(&b, "%s/%s %v\n", filepath.Base(filepath.Dir(path)), filepath.Base(path), d)
			for _, s := range segs {
				fmt.Fprintf(&b, "  %s %d %d %04b\n", s.Header.ID, s.Header.MediaTime, s.Header.Duration, s.Header.Flags)
			}
		}
	}
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(b.String(), "\n")
	stream := ""
	for k, line := range strings.Split(string(want), "\n") {
		if !strings.HasPrefix(line, "  ") {
			stream = line
		}
		if k >= len(got) || got[k] != line {
			t.Fatalf("line %d, %s: %q, want %q", k+1, stream, strings.Join(got[min(k, len(got)):min(k+1, len(got))], ""), line)
		}
	}
}
