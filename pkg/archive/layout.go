package archive

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

const (
	markerName  = "stream.json"
	changesName = "changes"
	eventsName  = "events.jsonl"
	mediaExt    = ".mp4"
	indexExt    = ".idx"
	badExt      = ".bad"

	dirPerm  = 0o750
	filePerm = 0o640
)

// hour is a UTC hour: hours since the Unix epoch.
type hour int64

const hourTicks = 3600 * m4f.Timescale

func hourOf(u m4f.UTC) hour {
	h := int64(u) / hourTicks
	if int64(u)%hourTicks < 0 {
		h--
	}
	return hour(h)
}

// start is the UTC at which the hour begins.
func (h hour) start() m4f.UTC { return m4f.UTC(h) * hourTicks }

// dir is the hour's directory, relative to the stream's: 2026/11/22/12.
func (h hour) dir() string {
	return time.Unix(int64(h)*3600, 0).UTC().Format("2006/01/02/15")
}

// extentName names an extent inside its hour: the millisecond of its first
// segment, and a number where another extent has that one.
type extentName struct {
	ms uint32 // since the start of the hour, below 3 600 000
	n  uint16 // 1: none; 2, 3 …: on collision
}

func extentNameOf(u m4f.UTC) extentName {
	in := int64(u - hourOf(u).start())
	return extentName{ms: uint32(in * 1000 / m4f.Timescale), n: 1}
}

// String is the name without an extension: 0000.120 or 0000.120-2.
func (x extentName) String() string {
	s := fmt.Sprintf("%02d%02d.%03d", x.ms/60000, x.ms/1000%60, x.ms%1000)
	if x.n > 1 {
		s += "-" + strconv.Itoa(int(x.n))
	}
	return s
}

// parseExtentName reads what String returned.
func parseExtentName(s string) (extentName, bool) {
	x := extentName{n: 1}
	head, tail, numbered := strings.Cut(s, "-")
	if numbered {
		n, err := strconv.ParseUint(tail, 10, 16)
		if err != nil || n < 2 {
			return x, false
		}
		x.n = uint16(n)
	}
	if len(head) != 8 || head[4] != '.' {
		return x, false
	}
	v, err := strconv.ParseUint(head[:4]+head[5:], 10, 32)
	if err != nil {
		return x, false
	}
	min, sec, ms := v/100000, v/1000%100, v%1000
	if min > 59 || sec > 59 {
		return x, false
	}
	x.ms = uint32(min*60000 + sec*1000 + ms)
	return x, x.String() == s
}

func (s *Stream) hourDir(h hour) string { return filepath.Join(s.dir, filepath.FromSlash(h.dir())) }

func (s *Stream) extentPath(h hour, x extentName, ext string) string {
	return filepath.Join(s.hourDir(h), x.String()+ext)
}

// listHours returns the hours that have a directory, in order.
func listHours(fsys fsx.FS, dir string) ([]hour, error) {
	var out []hour
	err := walkNumbers(fsys, dir, []int{4, 2, 2, 2}, nil, func(v []int) {
		t := time.Date(v[0], time.Month(v[1]), v[2], v[3], 0, 0, 0, time.UTC)
		h := hour(t.Unix() / 3600)
		if h >= 0 && t.Year() == v[0] && int(t.Month()) == v[1] && t.Day() == v[2] && t.Hour() == v[3] {
			out = append(out, h)
		}
	})
	slices.Sort(out)
	return out, err
}

// walkNumbers visits directories named by numbers of the given widths.
func walkNumbers(fsys fsx.FS, dir string, widths []int, above []int, fn func([]int)) error {
	if len(widths) == 0 {
		fn(above)
		return nil
	}
	entries, err := readDir(fsys, dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		v, err := strconv.Atoi(e.Name())
		if err != nil || len(e.Name()) != widths[0] || v < 0 || !e.IsDir() {
			continue
		}
		if err := walkNumbers(fsys, filepath.Join(dir, e.Name()), widths[1:], append(above, v), fn); err != nil {
			return err
		}
	}
	return nil
}

// readDir is ReadDir, for which a directory that pruning has just removed is
// an empty one.
func readDir(fsys fsx.FS, dir string) ([]fs.DirEntry, error) {
	entries, err := fsys.ReadDir(dir)
	if isNotExist(err) {
		return nil, nil
	}
	return entries, err
}
