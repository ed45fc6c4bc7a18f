package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// flip is one bit of a file.
type flip struct {
	file   string
	offset int64
	bit    uint
}

// chooseFlips picks distinct bits in the extents and indexes of a stream, one
// in five in an index. Files of the last extent under way are left out: its
// writer's page may be written again.
func chooseFlips(dir string, n int, rng *rand.Rand) ([]flip, error) {
	kinds := map[string][]string{}
	sizes := map[string]int64{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // the node has removed it
			return nil
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "salvage":
			return fs.SkipDir
		case d.IsDir():
			return nil
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if kind := filepath.Ext(path); err == nil && info.Size() > 0 && (kind == ".mp4" || kind == ".idx") {
			kinds[kind] = append(kinds[kind], path)
			sizes[path] = info.Size()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(kinds[".mp4"]) == 0 || len(kinds[".idx"]) == 0 {
		return nil, fmt.Errorf("%s holds no extents", dir)
	}
	seen := map[flip]bool{}
	var list []flip
	for len(list) < n {
		kind := ".mp4"
		if len(list)%5 == 0 {
			kind = ".idx"
		}
		var total int64
		for _, f := range kinds[kind] {
			total += sizes[f]
		}
		at := rng.Int64N(total)
		for _, file := range kinds[kind] {
			if at < sizes[file] {
				if f := (flip{file, at, uint(rng.IntN(8))}); !seen[f] {
					seen[f] = true
					list = append(list, f)
				}
				break
			}
			at -= sizes[file]
		}
	}
	return list, nil
}

// make flips the bit.
func (f flip) make() error {
	file, err := os.OpenFile(f.file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	var b [1]byte
	if _, err := file.ReadAt(b[:], f.offset); err != nil {
		return err
	}
	b[0] ^= 1 << f.bit
	_, err = file.WriteAt(b[:], f.offset)
	return err
}

// place is what a flip lies in.
type place struct {
	ids      []m4f.Identity // segments whose bytes it touches; zero: not known
	from, to int64          // bytes of the file: the segment, or the init segment
}

// places says where the flips of extents lie, and for those of indexes where the
// segments lie whose records they touch; the extents must not be flipped yet. A
// flip in an init segment touches all segments behind it.
func places(list []flip) (map[flip]place, error) {
	byFile := map[string][]flip{}
	all := map[flip]place{}
	for _, f := range list {
		if filepath.Ext(f.file) != ".idx" {
			byFile[f.file] = append(byFile[f.file], f)
			continue
		}
		p, err := indexed(f)
		if err != nil {
			return nil, err
		}
		all[f] = p
	}
	for name, flips := range byFile {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		err = eachSegment(file, func(id m4f.Identity, from, first, to int64) {
			for _, f := range flips {
				switch p := all[f]; {
				case f.offset >= from && f.offset < to:
					all[f] = place{[]m4f.Identity{id}, from, to}
				case f.offset < first:
					all[f] = place{append(p.ids, id), 0, first}
				}
			}
		})
		file.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return all, nil
}

// The parts of an index (pkg/archive/FORMAT.md).
const (
	indexHeader = 64
	indexRecord = 96
)

// indexPlace is the record of an index that a flip lies in, and its number; -1:
// the header.
func indexPlace(offset int64) (number int, from, to int64) {
	if offset < indexHeader {
		return -1, 0, indexHeader
	}
	n := (offset - indexHeader) / indexRecord
	return int(n), indexHeader + n*indexRecord, indexHeader + (n+1)*indexRecord
}

// indexed is where the segment lies whose record a flip touches.
func indexed(f flip) (place, error) {
	n, at, _ := indexPlace(f.offset)
	if n < 0 {
		return place{}, nil
	}
	file, err := os.Open(f.file)
	if err != nil {
		return place{}, err
	}
	defer file.Close()
	b := make([]byte, indexRecord)
	if _, err := file.ReadAt(b, at); err != nil {
		return place{}, nil // it is being written
	}
	from := int64(binary.BigEndian.Uint64(b[64:]))
	return place{nil, from, from + m4f.HeaderBoxSize + int64(binary.BigEndian.Uint32(b[72:]))}, nil
}

// aside says whether the record that a flip touches is one that does not count
// any more, since its segment was set aside.
func (f flip) aside() bool {
	stem, ok := strings.CutSuffix(f.file, ".idx")
	if !ok {
		return false
	}
	b, _ := os.ReadFile(stem + ".bad")
	n, _, _ := indexPlace(f.offset)
	for line := range strings.Lines(string(b)) { // a number, and what guards it
		number, _, _ := strings.Cut(line, " ")
		if bad, err := strconv.Atoi(strings.TrimSpace(number)); err == nil && bad == n {
			return true
		}
	}
	return false
}

// damage is a line of verify --json.
type damage struct {
	Type   string        `json:"type"`
	File   string        `json:"file"`
	Offset int64         `json:"offset"`
	Kind   string        `json:"kind"`
	Why    string        `json:"why"`
	Done   string        `json:"done"`
	ID     *m4f.Identity `json:"id"`
}

func damages(lines string) (list []damage, err error) {
	for dec := json.NewDecoder(strings.NewReader(lines)); ; {
		var d damage
		if err := dec.Decode(&d); err == io.EOF {
			return list, nil
		} else if err != nil {
			return nil, err
		}
		if d.Type == "damage" {
			list = append(list, d)
		}
	}
}

// found says whether verify has told of a flip: of the record or the segment
// that it lies in. Of a segment that is set aside the record does not matter.
func (f flip) found(dir string, p place, list []damage) bool {
	file, err := filepath.Rel(dir, f.file)
	if err != nil {
		return false
	}
	told := func(file string, from, to int64) bool {
		return slices.ContainsFunc(list, func(d damage) bool { return d.File == file && d.Offset >= from && d.Offset < to })
	}
	if stem, ok := strings.CutSuffix(file, ".idx"); ok {
		if _, from, to := indexPlace(f.offset); told(file, from, to) {
			return true
		}
		file = stem + ".mp4"
	}
	return told(file, p.from, p.to)
}

// eachSegment calls fn with the place of each whole segment of an extent, and
// where its first begins.
func eachSegment(file io.Reader, fn func(id m4f.Identity, from, first, to int64)) error {
	r := m4f.NewReader(file)
	first := int64(-1)
	for {
		from := r.Offset()
		seg, err := r.Next()
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		var format *m4f.FormatError
		if errors.As(err, &format) {
			// It was flipped before: whose the rest is, is not known.
			fn(m4f.Identity{}, from, first, math.MaxInt64)
			return nil
		}
		if err != nil {
			return err
		}
		if first < 0 {
			first = from + int64(len(seg.Init))
		}
		fn(seg.Header.ID, max(from, first), first, r.Offset())
	}
}
