package archive

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// stopping runs op on a file system that stops at each of the calls made after
// arm, in turn: before the call, and for writes also in the middle and at the end of it. After
// each stop, check looks at what is left with the real file system; the name
// says where it stopped. It returns how often it stopped.
func stopping(t *testing.T, prepare func() string, op func(fsys fsx.FS, dir string, arm func()) error, check func(t *testing.T, dir string)) int {
	t.Helper()
	return fsx.EachStop(func(f *fsx.Faults, at *fsx.Stop) {
		dir := prepare()
		err := op(f, dir, at.Arm)
		if f.Fired() == 0 {
			return
		}
		name := at.String()
		if err == nil && !strings.Contains(name, " close ") && !strings.Contains(name, "events.jsonl") {
			t.Errorf("stopped at %s, and no error", name)
		}
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) { check(t, dir) })
	})
}

// copies makes copies of a stream's directory.
func copies(t *testing.T, template *Stream) func() string {
	return func() string {
		dir := filepath.Join(t.TempDir(), "s")
		if err := os.CopyFS(dir, os.DirFS(template.Dir())); err != nil {
			t.Fatal(err)
		}
		return dir
	}
}

// pruned prunes the stream in a directory.
func pruned(now time.Time, opt PruneOptions) func(fsx.FS, string, func()) error {
	return func(fsys fsx.FS, dir string, arm func()) error {
		s, err := OpenWith(dir, Options{FS: fsys})
		if err != nil {
			return err
		}
		arm()
		_, err = s.Prune(now, opt)
		return err
	}
}

func TestStopAtEachStepOfCreate(t *testing.T) {
	stops := stopping(t,
		func() string { return filepath.Join(t.TempDir(), "sport", "hd") },
		func(fsys fsx.FS, dir string, arm func()) error {
			arm()
			_, err := Create(dir, "sport/hd", Options{FS: fsys, TargetDuration: 4 * sec})
			return err
		},
		func(t *testing.T, dir string) {
			if err := CanCreate(dir, "sport/hd"); err != nil {
				t.Fatal(err)
			}
			if s, err := Open(dir); err == nil && s.Name() != "sport/hd" {
				t.Errorf("half a stream: %s", s.Name())
			}
			s, err := Create(dir, "sport/hd", Options{TargetDuration: 4 * sec})
			if err != nil {
				t.Fatal(err)
			}
			write(t, s, Live, run(t, noon, 0, 1)...)
			if len(span(t, s)) != 1 {
				t.Error("it does not work")
			}
		})
	if stops < 10 {
		t.Errorf("stopped %d times", stops)
	}
}

// TestStopAtEachStepOfAppend stops in the third of four segments and in the
// first of a new extent.
func TestStopAtEachStepOfAppend(t *testing.T) {
	for _, sync := range []time.Duration{SyncOff, SyncAlways} {
		for _, c := range []struct {
			name  string
			third spec
		}{
			{"next", spec{media: 8 * sec, utc: noon.Add(8 * sec)}},
			{"new extent", spec{media: 16 * sec, utc: noon.Add(16 * sec)}},
			{"new hour", spec{media: 3600 * sec, utc: noon.Add(hourTicks)}},
		} {
			t.Run(fmt.Sprint(c.name, sync), func(t *testing.T) {
				c.third.duration = 4 * sec
				segs := append(run(t, noon, 0, 2), c.third.build(t))
				stops := stopping(t,
					func() string {
						return newStream(t, Options{TargetDuration: 4 * sec}).Dir()
					},
					func(fsys fsx.FS, dir string, arm func()) error {
						s, err := OpenWith(dir, Options{FS: fsys})
						if err != nil {
							return err
						}
						w := s.Writer(Live, 0, WriterOptions{Sync: sync})
						for _, seg := range segs[:2] {
							if err := w.Append(seg); err != nil {
								return err
							}
						}
						arm()
						if err := w.Append(segs[2]); err != nil {
							w.Close() // it is dead: every call fails
							return err
						}
						return w.Close()
					},
					func(t *testing.T, dir string) { checkPrefix(t, dir, segs, 2) })
				if stops < 8 {
					t.Errorf("stopped %d times", stops)
				}
			})
		}
	}
}

// checkPrefix wants an archive in which the first segments are whole, and maybe
// the next, that goes on, and whose changes announce what it holds.
func checkPrefix(t *testing.T, dir string, segs []*m4f.Segment, least int) {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	els := span(t, s)
	if len(els) < least || len(els) > len(segs) || !reflect.DeepEqual(ids(els), idsOf(segs[:len(els)])) {
		t.Fatalf("%d elements, want the first %d or all %d", len(els), least, len(segs))
	}
	for i := range els {
		if _, err := s.ReadElement(&els[i]); err != nil {
			t.Errorf("element %d: %v", i, err)
		}
	}
	recs, _, err := s.ReadChanges("", 100)
	if err != nil || len(recs) < least {
		t.Errorf("%d changes, %v", len(recs), err)
	}
	for _, r := range recs {
		if _, err := s.ReadSegment(r.ID, r.UTC); err != nil {
			t.Errorf("it announces what it does not hold: %v", err)
		}
	}
	write(t, s, Live, segs...)
	for _, s := range []*Stream{s, reopen(t, s)} {
		if got := ids(span(t, s)); !reflect.DeepEqual(got, idsOf(segs)) {
			t.Errorf("written again: %d elements", len(got))
		}
	}
}

// TestAppendFailsAndGoesOn lets each call of Append fail once, for a reason that
// passes: the error is typed, nothing of the segment shows, and the same writer
// takes the same segment again.
func TestAppendFailsAndGoesOn(t *testing.T) {
	segs := run(t, noon, 0, 3)
	var calls []string
	for n := 0; n == 0 || n <= len(calls); n++ {
		s := newStream(t, Options{TargetDuration: 4 * sec})
		armed, at := false, 0
		faults := fsx.NewFaults(fsx.OS, func(o fsx.Op) error {
			if !armed {
				return nil
			}
			at++
			switch {
			case n == 0:
				calls = append(calls, o.Name+" "+filepath.Base(o.Path))
				return nil
			case at != n:
				return nil
			case o.Name == "write":
				return &fsx.ShortWrite{N: o.Size * 3 / 4, Err: syscall.ENOSPC}
			}
			return syscall.ENOSPC
		})
		s, err := OpenWith(s.Dir(), Options{FS: faults})
		if err != nil {
			t.Fatal(err)
		}
		w := s.Writer(Live, 0, WriterOptions{Sync: SyncAlways})
		if err := w.Append(segs[0]); err != nil {
			t.Fatal(err)
		}
		armed = true
		err = w.Append(segs[1])
		armed = false
		if n > 0 {
			if faults.Fired() != 1 {
				t.Fatalf("%s: the fault did not happen", calls[max(n, 1)-1])
			}
			var werr *WriteError
			if !errors.As(err, &werr) || !werr.Full() {
				t.Errorf("%s: %v", calls[max(n, 1)-1], err)
			}
			if got := ids(span(t, reopen(t, s))); !reflect.DeepEqual(got, idsOf(segs[:1])) {
				t.Errorf("%s: %d elements after a refusal", calls[max(n, 1)-1], len(got))
			}
			if err := w.Append(segs[1]); err != nil {
				t.Errorf("%s: and again: %v", calls[max(n, 1)-1], err)
			}
		}
		if err := w.Append(segs[2]); err != nil {
			t.Errorf("and on: %v", err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		r := reopen(t, s)
		if got := ids(span(t, r)); !reflect.DeepEqual(got, idsOf(segs)) {
			t.Errorf("%s: %d elements", calls[max(n, 1)-1], len(got))
		}
		recs, _, err := r.ReadChanges("", 10)
		if err != nil || len(recs) != 3 {
			t.Errorf("%s: %d changes, %v", calls[max(n, 1)-1], len(recs), err)
		}
	}
	for _, want := range []string{"write 0000.000.mp4", "write 0000.000.idx", "datasync 0000.000.mp4", "write changes"} {
		if !slices.Contains(calls, want) {
			t.Errorf("append does not %s: %v", want, calls)
		}
	}
}

func TestStopAtEachStepOfPrune(t *testing.T) {
	var want []m4f.Identity
	template := newStream(t, Options{TargetDuration: 4 * sec})
	var all []*m4f.Segment
	for h := range int64(5) {
		all = append(all, run(t, noon.Add(h*hourTicks), h*3600*sec, 2)...)
	}
	write(t, template, Live, all...)
	for _, s := range all[4:] {
		want = append(want, s.Header.ID)
	}
	now := noon.Add(5 * hourTicks).Time()
	opt := PruneOptions{Depth: 3 * time.Hour, Force: true}
	stops := stopping(t,
		copies(t, template),
		pruned(now, opt),
		func(t *testing.T, dir string) {
			s, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			horizon, err := s.Horizon()
			if err != nil {
				t.Fatal(err)
			}
			got := ids(span(t, s))
			if horizon == 0 && !reflect.DeepEqual(got, idsOf(all)) || horizon != 0 && !reflect.DeepEqual(got, want) {
				t.Errorf("horizon %v: %d elements", horizon.Time(), len(got))
			}
			recs, _, err := s.ReadChanges("", 100)
			if err != nil || horizon != 0 && len(recs) != len(want) {
				t.Errorf("horizon %v: %d changes, %v", horizon.Time(), len(recs), err)
			}
			if _, err := s.Prune(now, opt); err != nil {
				t.Fatal(err)
			}
			if got := ids(span(t, reopen(t, s))); !reflect.DeepEqual(got, want) {
				t.Errorf("pruned again: %d elements", len(got))
			}
			if n := len(glob(t, s, "*/*/*/*")); n != 3 {
				t.Errorf("%d hours on disk", n)
			}
		})
	if stops < 15 {
		t.Errorf("stopped %d times", stops)
	}
}

// TestTruncateAnywhere cuts an extent, with its index and without, at every
// byte: exactly the segments that are whole in it survive.
func TestTruncateAnywhere(t *testing.T) {
	s := newStream(t, Options{})
	segs := run(t, noon, 0, 3)
	write(t, s, Live, segs...)
	mp4, idx := glob(t, s, "2026/11/22/12/*.mp4")[0], glob(t, s, "2026/11/22/12/*.idx")[0]
	media, err := os.ReadFile(mp4)
	if err != nil {
		t.Fatal(err)
	}
	index, err := os.ReadFile(idx)
	if err != nil {
		t.Fatal(err)
	}
	ends := []int{}
	at := len(segs[0].Init)
	for _, seg := range segs {
		at += m4f.HeaderBoxSize + len(seg.Media)
		ends = append(ends, at)
	}
	if at != len(media) || len(index) != indexHeaderSize+3*indexRecordSize {
		t.Fatalf("extent of %d bytes, index of %d", len(media), len(index))
	}
	count := func(what string, size, want int) {
		x, err := s.loadExtent(hourOf(noon), extentNameOf(noon))
		if err != nil || len(x.records) != want {
			t.Fatalf("%s cut to %d bytes: %d segments, want %d, %v", what, size, len(x.records), want, err)
		}
		for i := range x.records {
			if x.records[i].Header != segs[i].Header || int(x.records[i].number) != i {
				t.Fatalf("%s cut to %d bytes: segment %d is another", what, size, i)
			}
		}
	}
	put := func(name string, b []byte) {
		if err := os.WriteFile(name, b, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	for size := range len(media) + 1 {
		whole := 0
		for whole < len(ends) && ends[whole] <= size {
			whole++
		}
		put(mp4, media[:size])
		put(idx, index)
		count("extent", size, whole)
		os.Remove(idx)
		count("extent without index", size, whole)
	}
	put(mp4, media)
	for size := range len(index) + 1 {
		put(idx, index[:size])
		count("index", size, 3)
	}
	for i := range index { // one broken byte costs no segment
		b := slices.Clone(index)
		b[i] ^= 0x5A
		put(idx, b)
		count("index with one broken byte", i, 3)
	}
	// Zeros behind the end, as a power cut leaves them.
	put(idx, append(slices.Clone(index[:indexHeaderSize+indexRecordSize]), make([]byte, 200)...))
	put(mp4, append(slices.Clone(media[:ends[0]]), make([]byte, 5000)...))
	count("zeros", 0, 1)
}

func TestTruncateChangesAnywhere(t *testing.T) {
	s := newStream(t, Options{})
	segs := run(t, noon, 0, 4)
	write(t, s, Live, segs[:3]...)
	good, err := os.ReadFile(s.changesPath())
	if err != nil {
		t.Fatal(err)
	}
	for size := changesHeadSize; size <= len(good); size++ {
		// A write that was cut, and then other writers' records.
		if err := os.WriteFile(s.changesPath(), good[:size], 0o640); err != nil {
			t.Fatal(err)
		}
		whole := (size - changesHeadSize) / changeSize
		recs, cursor, err := s.ReadChanges("", 100)
		if err != nil || len(recs) != whole {
			t.Fatalf("cut to %d bytes: %d changes, want %d, %v", size, len(recs), whole, err)
		}
		a := announcer{s: s}
		for n := range uint32(2) {
			if err := a.announce(change{changeKindAdd, hourOf(noon), extentNameOf(noon), n}); err != nil {
				t.Fatal(err)
			}
		}
		a.close()
		recs, _, err = s.ReadChanges(cursor, 100)
		if err != nil || len(recs) != 2 || recs[0].ID != segs[0].Header.ID || recs[1].ID != segs[1].Header.ID {
			t.Fatalf("cut to %d bytes and gone on: %d changes, %v", size, len(recs), err)
		}
	}
}
