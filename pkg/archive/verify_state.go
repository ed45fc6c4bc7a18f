package archive

import (
	"encoding/json"
	"path/filepath"
	"time"

	"github.com/twindvr/twindvr/pkg/fsx"
)

const (
	verifyStateName = "verify.json"
	maxVerifyState  = 64 << 10
)

// VerifyState is where the passes over an archive have come to, kept in
// verify.json in its directory, so that a pass goes on after a restart. Times
// are RFC 3339.
type VerifyState struct {
	Began time.Time `json:"began"` // the pass that runs, or the last
	Next  time.Time `json:"next"`  // the hour at which it goes on; zero: it is over
	Ended time.Time `json:"ended"` // when the last complete pass ended; zero: there was none
	VerifyCounts
	Last VerifyCounts `json:"last"` // of the last complete pass
}

// VerifyCounts are the figures of a pass.
type VerifyCounts struct {
	Segments int   `json:"segments"`
	Bytes    int64 `json:"bytes"`
	Bad      int   `json:"bad"`    // segments that were set aside
	Mended   int   `json:"mended"` // places
	Aside    int   `json:"aside"`  // set aside before, and still bad
}

// Add adds what a part of a pass came to.
func (c *VerifyCounts) Add(r *VerifyResult) {
	c.Segments, c.Bytes, c.Bad, c.Mended = c.Segments+r.Segments, c.Bytes+r.Bytes, c.Bad+r.Bad, c.Mended+r.Mended
	c.Aside += r.Aside
}

// VerifyState returns where the passes have come to: the zero value where there
// was none, or where the file cannot be read, which costs a pass.
func (s *Stream) VerifyState() VerifyState {
	var st VerifyState
	b, err := fsx.ReadFile(s.fs, filepath.Join(s.dir, verifyStateName), maxVerifyState)
	if err != nil || json.Unmarshal(b, &st) != nil {
		return VerifyState{}
	}
	return st
}

// SetVerifyState keeps where the passes have come to.
func (s *Stream) SetVerifyState(st VerifyState) error {
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	if err := fsx.Publish(s.fs, filepath.Join(s.dir, verifyStateName), append(b, '\n'), filePerm, s.owner); err != nil {
		return s.writeError(err)
	}
	return nil
}
