package archive

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// maxMarker bounds the size of stream.json.
const maxMarker = 64 << 10

// marker is stream.json.
type marker struct {
	Format         int        `json:"format"`
	Name           string     `json:"name"`
	TargetDuration int64      `json:"target_duration"` // ticks; 0: not yet known
	Timescale      int64      `json:"timescale"`       // always 90000: the unit of target_duration
	Rules          int        `json:"rules"`           // version of the segmentation rules; 0: not yet known
	Created        time.Time  `json:"created"`
	Horizon        *time.Time `json:"horizon"` // null: never pruned
	Pruned         *lastPrune `json:"pruned,omitempty"`
	CRC            string     `json:"crc,omitempty"` // CRC-32C of the file with eight zeros in this place
}

// lastPrune is what the last complete pass went by. Held passes leave it, so
// that many of them explain no more than one.
type lastPrune struct {
	At      time.Time `json:"at"`      // the pruner's now
	Depth   string    `json:"depth"`   // a Go duration; "" while none was complete
	Horizon time.Time `json:"horizon"` // where it left the horizon
	Cursor  Cursor    `json:"cursor"`  // the end of changes
	First   time.Time `json:"first"`   // the first hour that it left, not counting kept ones
}

func (m *marker) horizon() m4f.UTC {
	if m.Horizon == nil {
		return 0
	}
	return m4f.UTCOf(*m.Horizon)
}

func (m *marker) setHorizon(u m4f.UTC) {
	t := u.Time()
	m.Horizon = &t
	if u == 0 {
		m.Horizon = nil
	}
}

// isNotExist also says yes below something that is no directory.
func isNotExist(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// readMarkerFile reads and checks stream.json, or its copy. Where there is none the
// error is fs.ErrNotExist's.
func readMarkerFile(fsys fsx.FS, dir, name string) (*marker, error) {
	b, err := fsx.ReadFile(fsys, filepath.Join(dir, name), maxMarker)
	if err != nil {
		return nil, err
	}
	var m marker
	err = json.Unmarshal(b, &m)
	if err == nil {
		err = m.checkCRC(b)
	}
	if err != nil {
		return nil, &damagedError{&NotStreamError{Dir: dir, Err: err,
			Reason: fmt.Sprintf("its %s cannot be read (%v); restore it from the other node or a backup", markerName, err)}}
	}
	if m.Format == 0 {
		return nil, &NotStreamError{Dir: dir, Reason: "its " + markerName + " names no archive format, so another program made it"}
	}
	if m.Format != formatVersion {
		return nil, &VersionError{Dir: dir, Have: m.Format}
	}
	if m.TargetDuration < 0 || m.Timescale != m4f.Timescale {
		return nil, &NotStreamError{Dir: dir, Reason: fmt.Sprintf("its %s has target_duration %d at timescale %d", markerName, m.TargetDuration, m.Timescale)}
	}
	return &m, nil
}

// makeMarker writes stream.json into a missing or empty directory.
func makeMarker(fsys fsx.FS, dir string, m *marker) error {
	if err := checkPlace(fsys, dir); err != nil {
		return err
	}
	if err := fsx.MkdirAll(fsys, dir, dirPerm); err != nil {
		return placeError(dir, err)
	}
	b, err := m.encode()
	if err != nil {
		return err
	}
	err = fsx.PublishNew(fsys, filepath.Join(dir, markerName), b, filePerm, fsx.OwnerOf(fsys, dir))
	if err != nil && !errors.Is(err, fs.ErrExist) { // another process made the same stream
		return placeError(dir, err)
	}
	return nil
}

// CanCreate says whether Create would find or could make a stream in dir. It
// changes nothing.
func CanCreate(dir, name string) error {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if name == "" {
		name = filepath.Base(abs)
	}
	if err := ValidName(name); err != nil {
		return err
	}
	if _, err = readMarker(fsx.OS, abs); isNotExist(err) {
		err = checkPlace(fsx.OS, abs)
	}
	return asGiven(err, abs, dir)
}

// checkPlace refuses a directory that holds something, or that lies below or
// above a stream.
func checkPlace(fsys fsx.FS, dir string) error {
	for up := filepath.Dir(dir); ; up = filepath.Dir(up) {
		if _, err := fsys.Stat(filepath.Join(up, markerName)); err == nil {
			return &NestedError{Dir: dir, Other: up}
		}
		if up == filepath.Dir(up) {
			break
		}
	}
	st, err := fsys.Stat(dir)
	if errors.Is(err, syscall.ENOTDIR) {
		return &NotStreamError{Dir: dir, Reason: "a part of its path is a file; name a directory", Err: err}
	}
	if isNotExist(err) {
		return nil
	}
	if err != nil {
		return placeError(dir, err)
	}
	if !st.IsDir() {
		return &NotStreamError{Dir: dir, Reason: "it is a file; name a directory"}
	}
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		return placeError(dir, err)
	}
	for _, e := range entries {
		if fsx.IsTemp(e.Name()) || e.Name() == markerName || isSalvage(fsys, dir, e) {
			continue
		}
		if below, _ := find(fsys, dir, "", 1); len(below) > 0 {
			return &NestedError{Dir: dir, Other: below[0].Dir}
		}
		return &NotStreamError{Dir: dir, Reason: fmt.Sprintf("it holds %s and no %s; name a new or empty directory", e.Name(), markerName)}
	}
	return nil
}

// placeError is an error of the directory of a stream in words.
func placeError(dir string, err error) error {
	if err == nil || errors.Is(err, fsx.ErrCrashed) {
		return err
	}
	return &WriteError{Path: dir, Err: err}
}

// nameOf is the stream's name: that of the marker as long as the directory has
// it, else the directory's own, for it was moved.
func nameOf(dir, name string) string {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	if name != "" && strings.HasSuffix(filepath.ToSlash(dir), "/"+name) {
		return name
	}
	return filepath.Base(dir)
}

// statMarker identifies a version of stream.json.
func statMarker(fsys fsx.FS, dir string) (os.FileInfo, error) {
	return fsys.Stat(filepath.Join(dir, markerName))
}
