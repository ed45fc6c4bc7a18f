package archive

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// TestStalledMarkerHoldsUpNoReader: while the disk does not take stream.json or its
// copy, at whichever step, readers of the same Stream are answered by what is
// published, and by the new one once it is taken.
func TestStalledMarkerHoldsUpNoReader(t *testing.T) {
	for _, c := range []struct {
		op, prefix string
		moved      bool // the new marker has its name by then, and hides the gap
	}{
		{"create", ".tmp-stream.json", false},
		{"sync", ".tmp-stream.json", false},
		{"rename", markerName, false},
		{"create", ".tmp-stream.copy", true},
	} {
		t.Run(c.op+" "+c.prefix, func(t *testing.T) {
			made := newStream(t, Options{})
			write(t, made, Live, run(t, noon, 0, 3)...)
			write(t, made, Live, run(t, noon.Add(3600*sec), 3600*sec, 3)...)
			stalled, release := make(chan struct{}), make(chan struct{})
			tell, open := sync.OnceFunc(func() { close(stalled) }), sync.OnceFunc(func() { close(release) })
			defer open()
			s, err := OpenWith(made.Dir(), Options{FS: fsx.NewFaults(fsx.OS, func(o fsx.Op) error {
				if o.Name == c.op && strings.HasPrefix(filepath.Base(o.Path), c.prefix) {
					tell()
					return &fsx.Stall{Until: release}
				}
				return nil
			})})
			if err != nil {
				t.Fatal(err)
			}
			changed := make(chan error, 1)
			go func() { changed <- s.SetHorizon(noon.Add(3600 * sec)) }()
			<-stalled
			h, gaps := readMarked(t, s, open)
			if (h != 0) != c.moved || (gaps == 0) != c.moved {
				t.Errorf("horizon %v, %d gaps", h, gaps)
			}
			open()
			if err := <-changed; err != nil {
				t.Fatal(err)
			}
			if h, err := s.Horizon(); err != nil || h != noon.Add(3600*sec) {
				t.Errorf("horizon %v, %v", h, err)
			}
		})
	}
}

// readMarked asks a stream all that goes by its marker, and returns its horizon
// and how many gaps it has. Where nothing answers, open ends what holds it up.
func readMarked(t *testing.T, s *Stream, open func()) (h m4f.UTC, gaps int) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		until := noon.Add(7200 * sec)
		horizon, err := s.Horizon()
		list, gerr := s.Gaps(noon, until)
		_, cerr := s.Coverage(noon, until)
		_, ierr := s.Info()
		_, terr := s.Takes(noon, until)
		var herr error
		for _, e := range span(t, s) {
			if _, err := s.Healed(&e.Header); err != nil {
				herr = err
			}
		}
		for _, err := range []error{err, gerr, cerr, ierr, terr, herr} {
			if err != nil {
				t.Error(err)
			}
		}
		h, gaps = horizon, len(list)
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("readers are not answered while the disk stalls")
		open()
		<-done
	}
	return h, gaps
}

// TestMarkerRestoredOnce: of those who find stream.json deleted at once and make it
// of its copy, each is answered.
func TestMarkerRestoredOnce(t *testing.T) {
	s := newStream(t, Options{})
	if err := s.SetHorizon(noon); err != nil { // makes the copy
		t.Fatal(err)
	}
	for range 20 {
		if err := os.Remove(filepath.Join(s.Dir(), markerName)); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if h, err := s.Horizon(); err != nil || h != noon {
					t.Errorf("horizon %v, %v", h, err)
				}
			})
		}
		all.Wait()
	}
}
