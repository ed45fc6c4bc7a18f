package node

import (
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// A segment that the archive has already says nothing about a disk that fails: it
// is still failing.
func TestNothingWrittenIsNoProofOfADisk(t *testing.T) {
	dir := t.TempDir() + "/x"
	a, err := archive.Create(dir, "x", archive.Options{})
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	n := New(Options{Config: &config.Config{}, Log: quiet})
	s := &stream{node: n, cfg: &config.Stream{Name: "x", DVR: config.DVR{Dir: dir, Root: dir}}, arc: a, log: quiet, notes: make(chan event.Event, 8)}
	seg := DataSegment(t, m4f.UTCOf(time.Now()), 100)
	var lost atomic.Int64
	rec := newRecorder(s, 0, &lost)
	put := func() {
		rec.put(seg)
		rec.close()
		rec = newRecorder(s, 0, &lost)
	}
	put()
	broken := errors.New("input/output error")
	s.wrote(broken)
	s.diskOK = time.Time{}
	put()
	if !s.diskOK.IsZero() || s.disk == nil {
		t.Errorf("what the archive had already counts as written, at %v", s.diskOK)
	}
	seg = DataSegment(t, m4f.UTCOf(time.Now().Add(2*time.Second)), 100)
	put()
	if s.diskOK.IsZero() || s.disk == nil {
		t.Error("what was written does not count")
	}
	rec.close()
}
