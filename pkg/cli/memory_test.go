package cli

import (
	"os"
	"path/filepath"
	"testing"
)

// The least bound of the groups that a process is in, of either version.
func TestGroupLimit(t *testing.T) {
	for name, c := range map[string]struct {
		list  string
		files map[string]string
		want  int64
	}{
		"none":                {"0::/\n", nil, 0},
		"of the unit":         {"0::/system.slice/twindvr.service\n", map[string]string{"system.slice/twindvr.service/memory.max": "1073741824\n"}, 1 << 30},
		"max is none":         {"0::/a\n", map[string]string{"a/memory.max": "max\n", "a/memory.high": "max\n"}, 0},
		"of a slice above":    {"0::/a/b/c\n", map[string]string{"a/b/c/memory.max": "max", "a/memory.max": "3000000", "a/b/memory.max": "4000000"}, 3000000},
		"high before max":     {"0::/a\n", map[string]string{"a/memory.max": "4000000", "a/memory.high": "3500000"}, 3500000},
		"of a container":      {"0::/\n", map[string]string{"memory.max": "5000000"}, 5000000},
		"version 1":           {"5:cpu,memory:/a\n0::/a\n", map[string]string{"memory/a/memory.limit_in_bytes": "6000000"}, 6000000},
		"version 1, none":     {"5:memory:/a\n", map[string]string{"memory/a/memory.limit_in_bytes": "9223372036854771712"}, 0},
		"outside of the root": {"0::/../../etc\n", map[string]string{"etc/memory.max": "7000000"}, 7000000},
		"nonsense":            {"x\n0:\n::::\n0::/a\n", map[string]string{"a/memory.max": "-5"}, 0},
	} {
		root := t.TempDir()
		list := filepath.Join(root, "list")
		for path, text := range c.files {
			path = filepath.Join(root, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(list, []byte(c.list), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := groupLimit(list, root); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	if got := groupLimit(filepath.Join(t.TempDir(), "none"), t.TempDir()); got != 0 {
		t.Errorf("without groups: %d", got)
	}
}
