package salvage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/fsx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stopping runs op on a store that stops at each of the calls made after arm, in
// turn: before the call, and for writes also in the middle and at the end. After
// each stop, check looks at what is left with the real file system. It returns
// how often it stopped.
func stopping(t *testing.T, op func(s *Store, arm func()) error, check func(t *testing.T, dir string)) int {
	t.Helper()
	return fsx.EachStop(func(f *fsx.Faults, at *fsx.Stop) {
		dir := filepath.Join(t.TempDir(), DirName)
		err := op(NewStore(dir, StoreOptions{FS: f, Clock: clock.NewSim(time.UnixMilli(1795348800000))}), at.Arm)
		if f.Fired() == 0 {
			return
		}
		if err == nil && !strings.Contains(at.String(), " close ") {
			t.Errorf("stopped at %s, and no error", at)
		}
		t.Run(strings.ReplaceAll(at.String(), " ", "_"), func(t *testing.T) { check(t, dir) })
	})
}

// readable wants every entry that a store lists to be whole, and returns them.
func readable(t *testing.T, s *Store) []Entry {
	t.Helper()
	all := entries(t, s)
	for _, e := range all {
		if c := read(t, s, e); !bytes.Equal(c.Packets, packets(e.From, e.To)) {
			t.Errorf("%s: other packets", e.Name)
		}
	}
	return all
}

// clean wants nothing to be left once a store that was stopped is looked after,
// however long ago it was stopped.
func clean(t *testing.T, s *Store) {
	t.Helper()
	later := time.Now().Add(2 * StaleAfter)
	if _, err := s.Expire(later, Limits{}, nil); err != nil {
		t.Fatal(err)
	}
	if l, _ := os.ReadDir(s.dir); len(l) != 0 {
		t.Errorf("%v is left", l)
	}
}

func TestStopAtEachStepOfKeep(t *testing.T) {
	stops := stopping(t,
		func(s *Store, arm func()) error {
			r := s.NewRun()
			if _, err := r.Keep(kept(0, 0, 100)); err != nil {
				return err
			}
			arm()
			_, err := r.Keep(kept(1, 80, 200))
			return err
		},
		func(t *testing.T, dir string) {
			s := NewStore(dir, StoreOptions{})
			if n := len(readable(t, s)); n != 1 {
				t.Errorf("%d entries, want the first alone", n)
			}
			r := s.NewRun() // and on
			keep(t, r, kept(1, 80, 200))
			keep(t, r, kept(2, 180, 300))
			if n := len(readable(t, s)); n != 3 {
				t.Errorf("%d entries", n)
			}
			clean(t, s)
		})
	if stops < 10 {
		t.Errorf("stopped %d times", stops)
	}
	stops = stopping(t, // the first of all
		func(s *Store, arm func()) error {
			arm()
			_, err := s.NewRun().Keep(kept(0, 0, 100))
			return err
		},
		func(t *testing.T, dir string) {
			s := NewStore(dir, StoreOptions{})
			if n := len(readable(t, s)); n != 0 {
				t.Errorf("%d entries", n)
			}
			keep(t, s.NewRun(), kept(0, 0, 100))
			clean(t, s)
		})
	if stops < 8 {
		t.Errorf("stopped %d times", stops)
	}
}

func TestStopAtEachStepOfPut(t *testing.T) {
	var both, one int
	stops := stopping(t,
		func(s *Store, arm func()) error {
			r := s.NewRun()
			a, err := r.Keep(kept(0, 0, 100))
			if err != nil {
				return err
			}
			b, err := r.Keep(kept(1, 80, 200))
			if err != nil {
				return err
			}
			arm()
			m := &Merged{Copy: Copy{Packets: packets(0, 200)}, Segments: a.Segments, Gained: 3}
			_, err = s.Put(m, a, b)
			return err
		},
		func(t *testing.T, dir string) {
			s := NewStore(dir, StoreOptions{})
			all := readable(t, s)
			merged := slices.ContainsFunc(all, func(e Entry) bool { return e.Gained > 0 })
			heard := len(all)
			if merged {
				heard--
			}
			switch {
			case !merged && heard != 2:
				t.Errorf("%d of 2 entries, and nothing in their place", heard)
			case merged && heard > 0:
				both++
			case merged:
				one++
			}
			clean(t, s)
		})
	if stops < 15 || both == 0 || one == 0 {
		t.Errorf("stopped %d times, %d of them with a merged copy beside others and %d with it alone", stops, both, one)
	}
}

func TestStopAtEachStepOfExpire(t *testing.T) {
	stops := stopping(t,
		func(s *Store, arm func()) error {
			r := s.NewRun()
			for k := range int64(3) {
				if _, err := r.Keep(kept(k, max(k*100-20, 0), k*100+100)); err != nil {
					return err
				}
			}
			arm()
			_, err := s.Expire(s.Now(), Limits{Bytes: 250 * PacketSize, Age: time.Hour}, nil)
			return err
		},
		func(t *testing.T, dir string) {
			s := NewStore(dir, StoreOptions{})
			all := readable(t, s)
			if n := len(all); n < 1 || n > 3 || all[n-1].From != 180 {
				t.Errorf("%d entries; the newest stays", n)
			}
			clean(t, s)
		})
	if stops < 8 {
		t.Errorf("stopped %d times", stops)
	}
}

// TestFullAtEachStep refuses each call of Keep in turn as a full disk does: the
// error says so, nothing is left behind, and the next Keep works.
func TestFullAtEachStep(t *testing.T) {
	fired := 0
	for n := 1; ; n++ {
		calls, armed := 0, false
		f := fsx.NewFaults(fsx.OS, func(o fsx.Op) error {
			if !armed || slices.Contains([]string{"remove", "readdir", "link"}, o.Name) {
				return nil
			}
			if calls++; calls != n {
				return nil
			}
			if o.Name == "write" {
				return &fsx.ShortWrite{N: o.Size / 3, Err: syscall.ENOSPC}
			}
			return syscall.ENOSPC
		})
		s := newStore(t, StoreOptions{FS: f})
		r := s.NewRun()
		first := keep(t, r, kept(0, 0, 100))
		armed = true
		_, err := r.Keep(kept(1, 80, 200))
		armed = false
		if f.Fired() == 0 {
			break
		}
		fired++
		var serr *StoreError
		if !errors.As(err, &serr) || !serr.Full() {
			t.Errorf("call %d: %v", n, err)
		}
		checkWhole(t, s, first)
		if l, _ := os.ReadDir(s.dir); len(l) != 1 {
			t.Errorf("call %d: %v is left", n, l)
		}
		second := keep(t, r, kept(1, 80, 200))
		checkWhole(t, s, first, second)
	}
	if fired < 6 {
		t.Errorf("%d calls refused", fired)
	}
}

// TestAnyOrder keeps, merges, removes and expires in any order, from two
// processes: what is listed is whole, shared packets are on disk once, and what
// is removed is gone.
func TestAnyOrder(t *testing.T) {
	root := t.TempDir()
	times := 0
	rapid.Check(t, func(rt *rapid.T) {
		times++
		sim := clock.NewSim(time.UnixMilli(1795348800000))
		a := NewStore(filepath.Join(root, fmt.Sprint(times)), StoreOptions{Clock: sim})
		both := []*Store{a, again(a)}
		runs := []*Run{both[0].NewRun(), both[1].NewRun()}
		at := []int64{0, 0}
		k := int64(0)
		there := map[string]bool{}
		rt.Repeat(map[string]func(*rapid.T){
			"keep": func(rt *rapid.T) {
				i := rapid.IntRange(0, 1).Draw(rt, "run")
				back := rapid.Int64Range(-5, min(at[i], 30)).Draw(rt, "back")
				n := rapid.Int64Range(1, 40).Draw(rt, "packets")
				first := at[i] - back
				at[i] = max(at[i], first+n)
				e, err := runs[i].Keep(kept(k, first, first+n))
				if err != nil {
					rt.Fatal(err)
				}
				k++
				there[e.Name] = true
				sim.Advance(time.Second)
			},
			"remove": func(rt *rapid.T) {
				all, _ := both[0].Entries(0, 0)
				if len(all) == 0 {
					rt.Skip()
				}
				e := rapid.SampledFrom(all).Draw(rt, "entry")
				if err := both[1].Remove(e); err != nil {
					rt.Fatal(err)
				}
				delete(there, e.Name)
			},
			"put": func(rt *rapid.T) {
				all, _ := both[1].Entries(0, 0)
				if len(all) == 0 {
					rt.Skip()
				}
				g := rapid.SampledFrom(Adjoin(all)).Draw(rt, "entries")
				c, err := both[0].Read(g...)
				if err != nil {
					rt.Fatal(err)
				}
				m := &Merged{Copy: *c, Segments: g[0].Segments, Gained: 1}
				e, err := both[1].Put(m, g...)
				if err != nil {
					rt.Fatal(err)
				}
				for _, e := range g {
					delete(there, e.Name)
				}
				there[e.Name] = true
			},
			"expire": func(rt *rapid.T) {
				limits := Limits{Bytes: rapid.Int64Range(0, 300).Draw(rt, "packets") * PacketSize, Age: time.Hour}
				if _, err := both[0].Expire(sim.Now(), limits, nil); err != nil {
					rt.Fatal(err)
				}
				all, _ := again(a).Entries(0, 0)
				clear(there)
				for _, e := range all {
					there[e.Name] = true
				}
				both[0].limit = Limits{} // Keep drops nothing by itself in this test
				if n := diskBytes(t, a); len(there) > 0 && n > limits.Bytes {
					rt.Fatalf("%d bytes, the limit is %d", n, limits.Bytes)
				}
			},
			"": func(rt *rapid.T) {
				all, err := again(a).Entries(0, 0)
				if err != nil || len(all) != len(there) {
					rt.Fatalf("%d entries, want %d, %v", len(all), len(there), err)
				}
				for _, e := range all {
					c, err := both[0].Read(e)
					if err != nil || !there[e.Name] {
						rt.Fatalf("%s: %v", e.Name, err)
					}
					for i := range c.Len() - 1 {
						if n := c.Packet(i); !bytes.Equal(n, packet(int64(n[11])|int64(n[10])<<8)) {
							rt.Fatalf("%s: packet %d is none that was kept", e.Name, i)
						}
					}
				}
			},
		})
	})
}

// TestManyAtOnce has several processes keep, read, remove and expire in one
// store: nobody sees half of anything.
func TestManyAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), DirName)
	var wg sync.WaitGroup
	done := make(chan struct{})
	reads := 0
	wg.Go(func() {
		s := NewStore(dir, StoreOptions{})
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			if i%3 == 0 {
				if _, err := s.Expire(time.Now(), Limits{Bytes: 400 * PacketSize, Age: time.Hour}, nil); err != nil {
					t.Error(err)
				}
			}
			all, err := s.Entries(0, 0)
			if err != nil {
				t.Error(err)
			}
			for _, e := range all {
				c, err := s.Read(e)
				if err != nil && !errors.Is(err, ErrGone) || err == nil && !bytes.Equal(c.Packets, packets(e.From, e.To)) {
					t.Errorf("%s: %v", e.Name, err)
				}
				if err == nil {
					reads++
				}
			}
		}
	})
	var writers sync.WaitGroup
	for range 3 {
		writers.Go(func() {
			s := NewStore(dir, StoreOptions{})
			r := s.NewRun()
			for k := range int64(100) {
				e, err := r.Keep(kept(k, max(k*30-10, 0), k*30+30))
				if err != nil {
					t.Error(err)
				}
				if k%4 == 0 {
					if err := s.Remove(e); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	writers.Wait()
	close(done)
	wg.Wait()
	if reads < 10 {
		t.Errorf("%d entries read", reads)
	}
}

func FuzzEntry(f *testing.F) {
	s := newStore(f, StoreOptions{})
	r := s.NewRun()
	for _, e := range []Entry{keep(f, r, kept(0, 0, 10)), keep(f, r, kept(1, 5, 30, Hole{3, 2}, Hole{7, 1}))} {
		f.Add(e.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseEntry(b)
		if err != nil {
			return
		}
		if !ValidName(e.Name) || e.checkParts() != nil || e.check() != nil {
			t.Fatalf("%+v", e)
		}
		if again, err := parseEntry(e.encode()); err != nil || again.Name != e.Name {
			t.Fatalf("%+v does not come back: %v", e, err)
		}
	})
}
