package archive

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/fsx"
)

// faulty is an archive whose files that end in one of the suffixes cannot be read
// while the switch is on.
func faulty(t testing.TB, s *Stream, on *atomic.Bool, errno error, suffix ...string) *Stream {
	t.Helper()
	fsys := fsx.NewFaults(unsynced{fsx.OS}, func(o fsx.Op) error {
		for _, x := range suffix {
			if on.Load() && o.Name == "read" && strings.HasSuffix(o.Path, x) {
				return errno
			}
		}
		return nil
	})
	f, err := OpenWith(s.Dir(), Options{FS: fsys})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestPassingReadErrorHidesNothing: a disk that cannot be read for a while, by
// readers and by a pass, hides no segment for good.
func TestPassingReadErrorHidesNothing(t *testing.T) {
	for _, errno := range []error{syscall.EIO, syscall.ESTALE, syscall.EINTR, syscall.ETIMEDOUT, os.ErrDeadlineExceeded} {
		s := varied(t)
		els := span(t, s)
		var on atomic.Bool
		f := faulty(t, s, &on, errno, mediaExt)
		span(t, f)
		on.Store(true)
		for i := range els {
			if _, err := f.ReadSegment(els[i].ID, els[i].UTC); !errors.Is(err, errno) {
				t.Errorf("%v: %v", errno, err)
			}
			if _, err := f.ReadElement(&els[i]); !errors.Is(err, errno) {
				t.Errorf("%v: %v", errno, err)
			}
		}
		if l := glob(t, s, "*/*/*/*/*.bad"); len(l) != 0 {
			t.Errorf("%v: %v", errno, l)
		}
		res, err := f.Verify(context.Background(), VerifyOptions{Settled: -1, Reread: -1})
		if err == nil && res.Sound() {
			t.Errorf("%v: a disk that cannot be read is sound: %+v", errno, res)
		}
		on.Store(false)
		if got := span(t, reopen(t, s)); len(got) != len(els) {
			t.Errorf("%v: %d of %d are shown", errno, len(got), len(els))
		}
		if found, res := verified(t, reopen(t, s), VerifyOptions{}); len(found) != 0 || res.Segments != len(els) || res.Aside != 0 {
			t.Errorf("%v: %+v %+v", errno, found, res)
		}
	}
}

// TestOtherCopyIsRead: where one copy cannot be read, the reader is given another,
// and nothing is set aside.
func TestOtherCopyIsRead(t *testing.T) {
	s := newStream(t, Options{TargetDuration: 4 * sec})
	segs := run(t, noon, 0, 3)
	write(t, s, Live, segs...)
	first := filepath.Base(glob(t, s, "2026/11/22/12/*.mp4")[0])
	els := span(t, s)
	if err := s.setAside(els[1].at.hour, els[1].at.name, 1); err != nil {
		t.Fatal(err)
	}
	write(t, s, Healed, segs[1])
	if err := s.takeBack(els[1].at.hour, els[1].at.name, 1); err != nil {
		t.Fatal(err)
	}
	var on atomic.Bool
	f := faulty(t, s, &on, syscall.EIO, first)
	shown := span(t, f)
	on.Store(true)
	if _, err := f.ReadSegment(segs[1].Header.ID, noon); err != nil {
		t.Error(err)
	}
	if _, err := f.ReadElement(&shown[1]); err != nil {
		t.Error(err)
	}
	if b, err := s.readBad(els[1].at.hour, els[1].at.name); err != nil || len(b) != 0 {
		t.Errorf("%v, %v", b, err)
	}
}

// hands is a clock that goes on as soon as somebody waits for it.
type hands struct {
	now    time.Time
	waited time.Duration
	passed func()
}

func (c *hands) Now() time.Time { return c.now }

func (c *hands) After(d time.Duration) <-chan time.Time {
	c.waited += d
	c.now = c.now.Add(d)
	if c.passed != nil {
		c.passed()
	}
	ch := make(chan time.Time, 1)
	ch <- c.now
	return ch
}

// TestUnreadableIsReadAgainLater: what a pass cannot read it reads again when the
// hour is over and some seconds have gone by; only then it is set aside.
func TestUnreadableIsReadAgainLater(t *testing.T) {
	for _, passes := range []bool{true, false} {
		s := varied(t)
		n := len(span(t, s))
		var on atomic.Bool
		on.Store(true)
		f := faulty(t, s, &on, syscall.EIO, "12/0000.000"+mediaExt)
		c := &hands{now: time.Now(), passed: func() {
			if l := glob(t, s, "*/*/*/*/*.bad"); len(l) != 0 {
				t.Errorf("set aside at once: %v", l)
			}
			on.Store(!passes)
		}}
		f.clock = c
		res, err := f.Verify(context.Background(), VerifyOptions{Settled: -1})
		if err != nil || c.waited != defaultReread {
			t.Errorf("waited %v, %v", c.waited, err)
		}
		want := 0
		if !passes {
			want = 6
		}
		if res.Bad != want || len(span(t, reopen(t, s))) != n-want {
			t.Errorf("passes %v: %+v", passes, res)
		}
	}
}

// TestSegmentTakenBack: a segment that was set aside and reads well again is shown again,
// here and to followers; one that is bad still is counted.
func TestSegmentTakenBack(t *testing.T) {
	s := varied(t)
	els := span(t, s)
	other := reopen(t, s)
	at := els[1].at
	flip(t, s.extentPath(at.hour, at.name, mediaExt), 8*(els[2].at.offset+200))
	if err := s.setAside(at.hour, at.name, els[1].at.number, els[2].at.number); err != nil {
		t.Fatal(err)
	}
	if n := len(span(t, other)); n != len(els)-2 {
		t.Fatalf("%d of %d", n, len(els))
	}
	cursor, err := other.End()
	if err != nil {
		t.Fatal(err)
	}
	if found, res := verified(t, s, VerifyOptions{ReadOnly: true}); len(found) != 1 || found[0].Done != Left || res.Aside != 2 {
		t.Errorf("%+v %+v", found, res)
	}
	found, res := verified(t, s, VerifyOptions{})
	if len(found) != 1 || found[0].Done != TakenBack || res.Aside != 1 || res.Bad != 0 {
		t.Errorf("%+v %+v", found, res)
	}
	if got := span(t, other); len(got) != len(els)-1 || got[1].ID != els[1].ID {
		t.Errorf("%d of %d", len(got), len(els))
	}
	recs, _, err := other.ReadChanges(cursor, 10)
	if err != nil || len(recs) != 1 || recs[0].ID != els[1].ID {
		t.Errorf("%+v, %v", recs, err)
	}
	if found, res := verified(t, s, VerifyOptions{}); len(found) != 0 || res.Aside != 1 {
		t.Errorf("%+v %+v", found, res)
	}
	// And again: the last line of a segment counts.
	if err := s.setAside(at.hour, at.name, els[1].at.number); err != nil {
		t.Fatal(err)
	}
	if n := len(span(t, other)); n != len(els)-2 {
		t.Errorf("%d of %d", n, len(els))
	}
}

// TestSetAsideFails: where setting aside returns an error, the segment is shown.
func TestSetAsideFails(t *testing.T) {
	for _, op := range []string{"write", "datasync", "syncdir"} {
		s := varied(t)
		els := span(t, s)
		at := els[1].at
		var done atomic.Bool
		f, err := OpenWith(s.Dir(), Options{FS: fsx.NewFaults(fsx.OS, func(o fsx.Op) error {
			if o.Name == op && (strings.HasSuffix(o.Path, badExt) || op == "syncdir") && !done.Swap(true) {
				return syscall.EIO
			}
			return nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		if err := f.setAside(at.hour, at.name, at.number); err == nil || !done.Load() {
			t.Errorf("%s: %v", op, err)
		}
		if got := headers(t, reopen(t, s)); !maps.Equal(got, headers(t, varied(t))) {
			t.Errorf("%s: %d of %d", op, len(got), len(els))
		}
	}
}

// TestStopAtEachStepOfTakingBack: a segment is shown again or not, and the next pass
// brings it to its end.
func TestStopAtEachStepOfTakingBack(t *testing.T) {
	template := varied(t)
	was, els := headers(t, template), span(t, template)
	if err := template.setAside(els[1].at.hour, els[1].at.name, els[1].at.number); err != nil {
		t.Fatal(err)
	}
	stops := stopping(t,
		func() string { return copyStream(t, template).Dir() },
		func(fsys fsx.FS, dir string, arm func()) error {
			s, err := OpenWith(dir, Options{FS: fsys})
			if err != nil {
				return err
			}
			arm()
			return s.takeBack(els[1].at.hour, els[1].at.name, els[1].at.number)
		},
		func(t *testing.T, dir string) {
			s, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(span(t, s)); n != len(was) && n != len(was)-1 {
				t.Errorf("%d of %d", n, len(was))
			}
			verified(t, s, VerifyOptions{})
			if got := headers(t, reopen(t, s)); !maps.Equal(got, was) {
				t.Errorf("%d of %d", len(got), len(was))
			}
			if again, res := verified(t, s, VerifyOptions{}); len(again) != 0 || res.Aside != 0 {
				t.Errorf("%+v %+v", again, res)
			}
		})
	if stops < 5 {
		t.Errorf("stopped %d times", stops)
	}
}
