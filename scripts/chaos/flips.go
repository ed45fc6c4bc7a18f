package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
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
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		kind := filepath.Ext(path)
		if err == nil && info.Size() > 0 && (kind == ".mp4" || kind == ".idx") && !strings.Contains(path, "/salvage/") {
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

// harmed says which segments of its extents each flip touches; the extents must
// not be flipped yet. A flip in an init segment touches all behind it.
func harmed(list []flip) (map[flip][]m4f.Identity, error) {
	byFile := map[string][]flip{}
	for _, f := range list {
		if filepath.Ext(f.file) == ".mp4" {
			byFile[f.file] = append(byFile[f.file], f)
		}
	}
	hit := map[flip][]m4f.Identity{}
	for name, flips := range byFile {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		err = eachSegment(file, func(id m4f.Identity, from, header, to int64) {
			for _, f := range flips {
				if f.offset >= from && f.offset < to || f.offset < header {
					hit[f] = append(hit[f], id)
				}
			}
		})
		file.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return hit, nil
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
