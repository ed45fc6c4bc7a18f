package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

const (
	// sourcedVersion is that of the file's format.
	sourcedVersion = 1
	// maxSourcedFile bounds the file in bytes.
	maxSourcedFile = 16 << 20
)

// sourcedFile is the file in which a source block keeps the streams that it has
// taken, so that they are recorded, served and pruned also when the other node
// is down while this one starts.
type sourcedFile struct {
	Version int            `json:"version"`
	Source  string         `json:"source"` // the other node's address
	Streams []*takenStream `json:"streams"`
}

// load reads the file. Without one there are no streams.
func (s *sourced) load() ([]*takenStream, error) {
	if s.cfg.DVR.Mounted {
		if err := fsx.CheckMounted(s.cfg.DVR.Root); err != nil {
			return nil, err
		}
	}
	b, err := fsx.ReadFile(fsx.OS, s.file(), maxSourcedFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseSourced(b)
}

// parseSourced reads the file's text.
func parseSourced(b []byte) ([]*takenStream, error) {
	var f sourcedFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, err
	}
	if f.Version != sourcedVersion {
		return nil, fmt.Errorf("it is of version %d; this program reads version %d", f.Version, sourcedVersion)
	}
	if len(f.Streams) > mostSourced {
		return nil, fmt.Errorf("it names %d streams; %d are the most", len(f.Streams), mostSourced)
	}
	seen := map[string]bool{}
	for _, t := range f.Streams {
		if t == nil {
			return nil, errors.New("a stream is missing in it")
		}
		if err := config.ValidName(t.Name); err != nil {
			return nil, err
		}
		if d := m4f.Duration(t.TargetDuration); t.TargetDuration > 1<<40 || d < config.MinSegmentDuration || d > config.MaxSegmentDuration {
			return nil, fmt.Errorf("stream %s has segments of %d ticks", t.Name, t.TargetDuration)
		}
		if seen[t.Name] {
			return nil, fmt.Errorf("stream %s is in it twice", t.Name)
		}
		seen[t.Name] = true
		if len(t.Via) > 100 {
			t.Via = t.Via[:100]
		}
		if t.Via == nil {
			t.Via = []string{}
		}
	}
	return f.Streams, nil
}

// save writes the file where what it says has changed. The streams run on
// without it.
func (s *sourced) save() {
	f := sourcedFile{Version: sourcedVersion, Source: s.cfg.String(), Streams: []*takenStream{}}
	for _, t := range s.taken {
		f.Streams = append(f.Streams, t)
	}
	slices.SortFunc(f.Streams, func(a, b *takenStream) int { return strings.Compare(a.Name, b.Name) })
	b, err := json.Marshal(&f)
	if err != nil || string(b) == s.saved || s.saved == "" && len(f.Streams) == 0 {
		return
	}
	if s.cfg.DVR.Mounted {
		err = fsx.CheckMounted(s.cfg.DVR.Root)
	}
	if err == nil {
		err = fsx.MkdirAll(fsx.OS, s.cfg.DVR.Root, 0o750)
	}
	if err == nil {
		err = fsx.Publish(fsx.OS, s.file(), append(b, '\n'), 0o640, fsx.OwnerOf(fsx.OS, s.cfg.DVR.Root))
	}
	if err != nil {
		if s.unsaved != err.Error() {
			s.unsaved = err.Error()
			s.n.log.Warn("the list of streams taken from a source cannot be kept", "source", s.cfg.String(), "err", err)
		}
		return
	}
	s.saved, s.unsaved = string(b), ""
}
