package cli

import (
	"bytes"
	"errors"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// diskCase is a recorder on a disk that fails as the test wants.
func diskCase(t *testing.T, hook func(fsx.Op) error) (*recorder, *fsx.Faults, []*m4f.Segment) {
	t.Helper()
	data, ids, _ := sampleM4F(t)
	segments := make([]*m4f.Segment, 0, len(ids))
	in := m4f.NewReader(bytes.NewReader(data))
	for range ids {
		seg, err := in.Next()
		if err != nil {
			t.Fatal(err)
		}
		segments = append(segments, seg)
	}
	faults := fsx.NewFaults(fsx.OS, hook)
	o := &recordOptions{dir: filepath.Join(t.TempDir(), "x"), sync: time.Millisecond}
	return &recorder{o: o, io: System(), fs: faults}, faults, segments
}

// recorded wants the archive to hold these segments and no other.
func recorded(t *testing.T, r *recorder, want []*m4f.Segment) {
	t.Helper()
	s, err := archive.Open(r.o.dir)
	if err != nil {
		t.Fatal(err)
	}
	els, err := s.Span(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got, ids []m4f.Identity
	for _, e := range els {
		got = append(got, e.ID)
	}
	for _, seg := range want {
		ids = append(ids, seg.Header.ID)
	}
	if !slices.Equal(got, ids) {
		t.Errorf("the archive holds %d segments, want %d", len(got), len(ids))
	}
}

// TestRecordRetries lets the fdatasync behind a segment fail: the next segment,
// whose Append says so, is not lost.
func TestRecordRetries(t *testing.T) {
	var fail atomic.Bool
	failed := make(chan struct{}, 1)
	r, faults, segments := diskCase(t, func(op fsx.Op) error {
		if op.Name == "datasync" && fail.CompareAndSwap(true, false) {
			failed <- struct{}{}
			return syscall.EIO
		}
		return nil
	})
	fail.Store(true)
	for i, seg := range segments {
		if err := r.take(seg); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			<-failed
			// The error is kept for the next Append just after it has happened.
			time.Sleep(50 * time.Millisecond)
		}
	}
	if err := r.w.Close(); err != nil || r.lost != 0 || faults.Fired() != 1 {
		t.Errorf("lost %d segments to %d faults, error %v", r.lost, faults.Fired(), err)
	}
	recorded(t, r, segments)
}

// TestRecordGoesOn lets every call fail for some segments, the first one among
// them or not: they are lost, and those after them are not.
func TestRecordGoesOn(t *testing.T) {
	for name, failing := range map[string]struct{ from, to int }{"at the start": {0, 2}, "later": {2, 4}} {
		t.Run(name, func(t *testing.T) {
			var bad atomic.Bool
			r, faults, segments := diskCase(t, func(fsx.Op) error {
				if bad.Load() {
					return syscall.ENOSPC
				}
				return nil
			})
			r.o.sync = archive.SyncAlways
			for i, seg := range segments {
				bad.Store(failing.from <= i && i < failing.to)
				if err := r.take(seg); err != nil {
					t.Fatalf("segment %d: %v", i, err)
				}
			}
			if err := r.w.Close(); err != nil || r.lost != failing.to-failing.from || faults.Fired() == 0 {
				t.Errorf("lost %d segments to %d faults, error %v", r.lost, faults.Fired(), err)
			}
			recorded(t, r, slices.Delete(slices.Clone(segments), failing.from, failing.to))
		})
	}
}

// TestRecordRefused wants a directory that may not be written to end the
// recording at once.
func TestRecordRefused(t *testing.T) {
	r, _, segments := diskCase(t, func(op fsx.Op) error {
		if op.Name == "mkdir" {
			return syscall.EACCES
		}
		return nil
	})
	if err := r.take(segments[0]); !errors.Is(err, syscall.EACCES) {
		t.Errorf("error %v", err)
	}
}

// TestRecordEnds wants what is no trouble of the disk to end the recording.
func TestRecordEnds(t *testing.T) {
	for _, err := range []error{
		&archive.TargetDurationError{}, &archive.HorizonError{}, archive.ErrClosed, errors.New("any other"),
	} {
		if diskTrouble(err) {
			t.Errorf("%T is trouble of the disk", err)
		}
	}
}
