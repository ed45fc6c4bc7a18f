package archive

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/fsx"
)

// TestFailedFdatasync: what an fdatasync was to make durable when it failed is
// written once more, into another extent, and the first copies are set aside,
// whose pages the system no longer writes.
func TestFailedFdatasync(t *testing.T) {
	segs := run(t, noon, 0, 5)
	for _, ext := range []string{mediaExt, indexExt} {
		s := newStream(t, Options{TargetDuration: 4 * sec})
		var armed atomic.Bool
		faults := fsx.NewFaults(fsx.OS, func(o fsx.Op) error {
			if o.Name == "datasync" && strings.HasSuffix(o.Path, "0000.000"+ext) && armed.CompareAndSwap(true, false) {
				return syscall.EIO
			}
			return nil
		})
		s, err := OpenWith(s.Dir(), Options{FS: faults})
		if err != nil {
			t.Fatal(err)
		}
		w := s.Writer(Live, 3, WriterOptions{Sync: time.Hour})
		if err := w.Append(segs[0]); err != nil {
			t.Fatal(err)
		}
		if err := w.Sync(); err != nil {
			t.Fatal(err)
		}
		for _, seg := range segs[1:3] {
			if err := w.Append(seg); err != nil {
				t.Fatal(err)
			}
		}
		armed.Store(true)
		var werr *WriteError
		if err := w.Sync(); !errors.As(err, &werr) || !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v", ext, err)
		}
		for _, seg := range segs[3:] {
			if err := w.Append(seg); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if faults.Fired() != 1 {
			t.Fatalf("%d faults", faults.Fired())
		}
		r := reopen(t, s)
		els := span(t, r)
		if !reflect.DeepEqual(ids(els), idsOf(segs)) {
			t.Errorf("%s: %d elements", ext, len(els))
		}
		bad, err := s.readBad(hourOf(noon), extentNameOf(noon))
		if err != nil || !reflect.DeepEqual(bad, map[uint32]bool{1: true, 2: true}) {
			t.Errorf("%s: set aside are %v, %v", ext, bad, err)
		}
		for i, e := range els {
			if e.Origin != Live || e.Input != 3 || (i == 0) != (e.at.name == extentNameOf(noon)) {
				t.Errorf("%s: element %d: %v of input %d in %v", ext, i, e.Origin, e.Input, e.at.name)
			}
		}
		if found, _ := verified(t, r, VerifyOptions{}); len(found) != 0 {
			t.Errorf("%+v", found)
		}
		events, err := s.Events(0, 0)
		if err != nil || len(events) != 2 { // the recording began and ended once
			t.Errorf("%+v, %v", events, err)
		}
	}
}

// TestFdatasyncThatGoesOnFailing adds no copies as long as it does: nothing of
// what is appended is taken, and when the disk works again all of it is there once.
func TestFdatasyncThatGoesOnFailing(t *testing.T) {
	segs := run(t, noon, 0, 4)
	s := newStream(t, Options{TargetDuration: 4 * sec})
	var failing atomic.Bool
	faults := fsx.NewFaults(fsx.OS, func(o fsx.Op) error {
		if o.Name == "datasync" && failing.Load() {
			return syscall.EIO
		}
		return nil
	})
	s, err := OpenWith(s.Dir(), Options{FS: faults})
	if err != nil {
		t.Fatal(err)
	}
	w := s.Writer(Live, 0, WriterOptions{Sync: time.Hour})
	for _, seg := range segs[:2] {
		if err := w.Append(seg); err != nil {
			t.Fatal(err)
		}
	}
	failing.Store(true)
	if err := w.Sync(); err == nil {
		t.Error("no error")
	}
	for range 20 {
		var werr *WriteError
		if err := w.Append(segs[2]); !errors.As(err, &werr) {
			t.Fatalf("%v", err)
		}
	}
	if got := span(t, reopen(t, s)); len(got) != 2 {
		t.Errorf("%d elements", len(got))
	}
	if l := glob(t, s, "*/*/*/*/*.mp4"); len(l) != 1 {
		t.Errorf("%v", l)
	}
	failing.Store(false)
	for _, seg := range segs[2:] {
		if err := w.Append(seg); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if got := ids(span(t, reopen(t, s))); !reflect.DeepEqual(got, idsOf(segs)) {
		t.Errorf("%d elements", len(got))
	}
}

// TestFilesChangedUnderAWriter: the extent or its index is cut, deleted or written
// to by something else. The writer ends the extent, what it appends is whole, and
// whoever waits for what was set aside hears of it.
func TestFilesChangedUnderAWriter(t *testing.T) {
	segs := run(t, noon, 0, 4)
	for _, c := range []struct {
		name string
		do   func(mp4, idx string) error
		left int // of the two segments that were there
	}{
		{"extent deleted", func(mp4, idx string) error { return os.Remove(mp4) }, 0},
		{"both deleted", func(mp4, idx string) error { os.Remove(mp4); return os.Remove(idx) }, 0},
		{"index deleted", func(mp4, idx string) error { return os.Remove(idx) }, 2},
		{"extent cut", func(mp4, idx string) error { return cutBy(mp4, 10) }, 1},
		{"extent empty", func(mp4, idx string) error { return os.Truncate(mp4, 0) }, 0},
		{"index cut", func(mp4, idx string) error { return os.Truncate(idx, 100) }, 2},
		{"index empty", func(mp4, idx string) error { return os.Truncate(idx, 0) }, 2},
		{"hour deleted", func(mp4, idx string) error { return os.RemoveAll(filepath.Dir(mp4)) }, 0},
		{"extent longer", func(mp4, idx string) error { return appendTo(mp4, make([]byte, 500)) }, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStream(t, Options{TargetDuration: 4 * sec})
			w := s.Writer(Live, 0, WriterOptions{Sync: SyncOff})
			for _, seg := range segs[:2] {
				if err := w.Append(seg); err != nil {
					t.Fatal(err)
				}
			}
			reader := reopen(t, s)
			span(t, reader)
			mp4 := glob(t, s, "*/*/*/*/*.mp4")[0]
			if err := c.do(mp4, strings.TrimSuffix(mp4, mediaExt)+indexExt); err != nil {
				t.Fatal(err)
			}
			for _, seg := range segs[2:] {
				if err := w.Append(seg); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
			want := slices.Concat(idsOf(segs[:c.left]), idsOf(segs[2:]))
			for _, r := range []*Stream{reader, reopen(t, s)} {
				els := span(t, r)
				if !reflect.DeepEqual(ids(els), want) {
					t.Errorf("%d elements, want %d", len(els), len(want))
				}
				for i := range els {
					if _, err := r.ReadElement(&els[i]); err != nil {
						t.Errorf("element %d: %v", i, err)
					}
				}
			}
		})
	}
}

func cutBy(name string, n int64) error {
	st, err := os.Stat(name)
	if err != nil {
		return err
	}
	return os.Truncate(name, st.Size()-n)
}

func appendTo(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(b)
	return err
}

// A writer whose extent lies behind another directory of its name, as when a volume
// is mounted there, goes on in what is to be seen.
func TestWriterLeavesAHiddenExtent(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "s")
	s, err := Create(dir, "s", CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w := s.Writer(Live, 0, WriterOptions{})
	defer w.Close()
	segs := run(t, noon, 0, 3)
	for i, seg := range segs {
		if i == 1 {
			if err := os.Rename(dir, dir+"-hidden"); err != nil {
				t.Fatal(err)
			}
			if _, err := Create(dir, "s", CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Append(seg); err != nil {
			t.Fatal(err)
		}
	}
	seen, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	els, err := seen.Span(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(els) != 2 {
		t.Errorf("%d segments where the archive is now, want 2", len(els))
	}
}
