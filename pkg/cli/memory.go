package cli

import (
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

// limitMemory has the program free memory in time where a control group (the
// unit's MemoryMax= or MemoryHigh=, a container) bounds it: otherwise it would
// learn of the bound by being killed. What GOMEMLIMIT says comes first.
func limitMemory() {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	limit := groupLimit("/proc/self/cgroup", "/sys/fs/cgroup")
	if limit <= 0 {
		return
	}
	// The rest is for what the runtime does not count: stacks of the kernel, the
	// page cache that must stay.
	limit -= limit / 10
	debug.SetMemoryLimit(limit)
	slog.Info("memory is bounded by the control group", "limit", limit)
}

// maxGroups is how many groups may lie within one another.
const maxGroups = 64

// groupLimit is the least bound on memory in bytes of the control groups that a
// process is in, 0: none. list is the process's /proc/PID/cgroup, root where
// groups are mounted (cgroups(7), both versions).
func groupLimit(list, root string) int64 {
	text, err := os.ReadFile(list)
	if err != nil {
		return 0
	}
	var least int64
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		dir, files := root, []string{"memory.max", "memory.high"}
		switch {
		case fields[0] == "0" && fields[1] == "":
		case hasWord(fields[1], "memory"):
			dir, files = filepath.Join(root, "memory"), []string{"memory.limit_in_bytes"}
		default:
			continue
		}
		group := path.Clean("/" + fields[2])
		for range maxGroups {
			for _, name := range files {
				if n := readLimit(filepath.Join(dir, group, name)); n > 0 && (least == 0 || n < least) {
					least = n
				}
			}
			if group == "/" {
				break
			}
			group = path.Dir(group)
		}
	}
	return least
}

func hasWord(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}

// readLimit reads a bound in bytes; 0: there is none. Beyond 2^60 it stands for
// none, too.
func readLimit(name string) int64 {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || n < 0 || n > 1<<60 {
		return 0
	}
	return n
}
