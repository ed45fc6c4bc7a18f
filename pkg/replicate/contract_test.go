package replicate

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// faulty is a Side with how often it failed so far; nil: it never does.
type faulty struct {
	Side
	fired func() int
}

// eachSide runs a test over every kind of Side of an archive, and over each with
// faults injected into half of what it does.
func eachSide(t *testing.T, a *archive.Stream, fn func(t *testing.T, s faulty)) {
	t.Run("directory", func(t *testing.T) { fn(t, faulty{Dir{a}, nil}) })
	t.Run("peer", func(t *testing.T) { fn(t, faulty{Peer{servePeer(t, a).client}, nil}) })
	t.Run("failing directory", func(t *testing.T) {
		// Reading media fails now and then, but not when it is tried again at
		// once, which sets the segment aside; a lost index is another matter.
		var reads atomic.Int64
		fs := fsx.NewFaults(fsx.OS, func(op fsx.Op) error {
			if op.Name == "read" && strings.HasSuffix(op.Path, ".mp4") && reads.Add(1)%16 == 3 {
				return syscall.EIO
			}
			return nil
		})
		s, err := archive.OpenWith(a.Dir(), archive.Options{FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		fn(t, faulty{Dir{s}, fs.Fired})
	})
	for name, fault := range map[string]func(http.ResponseWriter, *httptest.ResponseRecorder){
		"peer that breaks off": func(w http.ResponseWriter, res *httptest.ResponseRecorder) {
			w.Header().Set("Content-Length", res.Header().Get("Content-Length"))
			io.CopyN(w, res.Body, int64(res.Body.Len()/2))
			panic(http.ErrAbortHandler)
		},
		"peer that is broken": func(w http.ResponseWriter, res *httptest.ResponseRecorder) {
			w.WriteHeader(http.StatusInternalServerError)
		},
		"peer that flips bits": func(w http.ResponseWriter, res *httptest.ResponseRecorder) {
			b := bytes.Clone(res.Body.Bytes())
			if res.Header().Get("Content-Type") == "video/mp4" {
				b[len(b)*2/3] ^= 4
			}
			w.Write(b)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var fired atomic.Int64
			var mu sync.Mutex
			random := rand.New(rand.NewPCG(1, 2))
			half := func() bool {
				mu.Lock()
				defer mu.Unlock()
				return random.IntN(2) == 0
			}
			p := servePeer(t, a, func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if half() {
						next.ServeHTTP(w, r)
						return
					}
					res := httptest.NewRecorder()
					r.Header.Del("Accept-Encoding")
					next.ServeHTTP(res, r)
					fired.Add(1)
					fault(w, res)
				})
			})
			fn(t, faulty{Peer{p.client}, func() int { return int(fired.Load()) }})
		})
	}
}

// ask calls a function of a Side until it does not fail, and wants it to do so
// only where faults are injected.
func ask[T any](t *testing.T, s faulty, call func() (T, error)) T {
	t.Helper()
	for range 50 {
		v, err := call()
		if err == nil {
			return v
		}
		if s.fired == nil {
			t.Fatal(err)
		}
	}
	t.Fatal("it fails for ever")
	panic("unreachable")
}

// What every Side promises.
func TestSideContract(t *testing.T) {
	a := newArchive(t, append(clean(0, 500), spec{n: 500, flags: m4f.Damaged}, spec{n: 502, variant: 3, flags: m4f.Partial})...)
	wantInfo, err := Dir{a}.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantHours, err := a.Hours(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	all := view(t, a)
	eachSide(t, a, func(t *testing.T, s faulty) {
		ctx := t.Context()
		if got := ask(t, s, func() (SideInfo, error) { return s.Info(ctx) }); got != wantInfo {
			t.Errorf("info %+v, want %+v", got, wantInfo)
		}
		hours := ask(t, s, func() ([]archive.Hour, error) { return s.Hours(ctx, 0, 0) })
		if !slices.Equal(hours, wantHours) {
			t.Errorf("hours %v, want %v", hours, wantHours)
		}
		for _, span := range [][2]m4f.UTC{{0, 0}, {epoch.Add(7 * length), epoch.Add(9 * length)}, {1, epoch}, {epoch.Add(600 * length), 0}} {
			want, err := a.Span(span[0], span[1])
			if err != nil {
				t.Fatal(err)
			}
			got := ask(t, s, func() ([]archive.Element, error) { return s.Segments(ctx, span[0], span[1]) })
			same := slices.EqualFunc(got, want, func(x, y archive.Element) bool { return x.Record == y.Record && slices.Equal(x.Parts, y.Parts) })
			if !same {
				t.Errorf("segments of %v: %d, want %d", span, len(got), len(want))
			}
		}
		for _, e := range []*archive.Element{&all[0], &all[450], &all[500], &all[501]} {
			rec := e.Record
			rec.Flags ^= m4f.Discontinuity // the record's header is given back, whatever the file's says
			seg := ask(t, s, func() (*m4f.Segment, error) { return s.Fetch(ctx, &rec, nil) })
			if err := seg.Verify(); err != nil || seg.Header != rec.Header {
				t.Errorf("fetched %+v, %v, want %+v", seg.Header, err, rec.Header)
			}
		}
		lost := all[0].Record
		lost.ID[5] ^= 1
		for range 10 {
			if seg, err := s.Fetch(ctx, &lost, nil); err == nil {
				t.Errorf("an unknown segment is fetched: %+v", seg.Header)
			} else if s.fired == nil && !refusal(err) {
				t.Errorf("an unknown segment: %v", err)
			}
		}
		stopped, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := s.Fetch(stopped, &all[0].Record, nil); !errors.Is(err, context.Canceled) && s.fired == nil {
			t.Errorf("fetching when cancelled: %v", err)
		}
		if s.String() == "" {
			t.Error("it has no name")
		}
		if s.fired != nil && s.fired() == 0 {
			t.Error("no fault was injected")
		}
	})
}

// Over a Side that fails half of the time, a backfill that is repeated ends in
// equal views, and nothing wrong enters the archive.
func TestBackfillContract(t *testing.T) {
	b := newArchive(t, append(clean(0, 40), spec{n: 40, variant: 2, flags: m4f.Damaged})...)
	eachSide(t, b, func(t *testing.T, s faulty) {
		a := newArchive(t, append(clean(3, 6), spec{n: 8, variant: 1, flags: m4f.Damaged}, spec{n: 9, flags: m4f.Damaged})...)
		done := false
		for range 100 {
			r, err := Backfill(t.Context(), a, s, BackfillOptions{Log: quiet, Writer: archive.WriterOptions{Sync: archive.SyncOff}})
			if err == nil && r == (Result{}) {
				done = true
				break
			}
			if s.fired == nil && (err != nil || r.Left != 0) {
				t.Fatalf("%+v, %v", r, err)
			}
		}
		if !done {
			t.Error("it never came to an end")
		}
		if s.fired != nil && s.fired() == 0 {
			t.Error("no fault was injected")
		}
		sameView(t, a, b)
		for _, e := range view(t, a) {
			if _, err := a.ReadElement(&e); err != nil {
				t.Error(err)
			}
		}
	})
}
