package archive

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/fsx"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// outage plays a machine that records, backfills, prunes, notes and verifies
// until its power is cut.
type outage struct {
	t  *rapid.T
	tb testing.TB
	v  *fsx.Volatile
	s  *Stream
	ws []*Writer

	appended map[m4f.Identity]*m4f.Segment // acknowledged or not
	pending  map[int][]m4f.Identity        // acknowledged by a writer since its last sync
	durable  map[m4f.Identity]bool         // may not be lost
	horizon  m4f.UTC                       // the highest that was asked for
	pruned   m4f.UTC                       // the highest that was acknowledged
	at       []int64                       // each writer's media time
}

// durably says what a writer has made durable.
func (o *outage) durably(k int) {
	for _, id := range o.pending[k] {
		o.durable[id] = true
	}
	o.pending[k] = nil
}

func (o *outage) append(k int) {
	step := rapid.SampledFrom([]int64{4, 4, 4, 4, 8, 900}).Draw(o.t, "step") * sec
	o.at[k] += step
	if k > 0 && rapid.IntRange(0, 9).Draw(o.t, "back") == 0 {
		o.at[k] = int64(k) * 1000 * sec
	}
	seg := spec{media: o.at[k], utc: noon.Add(o.at[k]), duration: 4 * sec, content: uint64(k), pid: uint16(0x100 + k%2),
		size: rapid.SampledFrom([]int{100, 3000, 9000}).Draw(o.t, "size")}.build(o.tb)
	o.appended[seg.Header.ID] = seg
	if err := o.ws[k].Append(seg); err != nil {
		return
	}
	if o.ws[k].sync == SyncAlways {
		o.durable[seg.Header.ID] = true
		return
	}
	o.pending[k] = append(o.pending[k], seg.Header.ID)
}

func (o *outage) step() {
	k := rapid.IntRange(0, len(o.ws)-1).Draw(o.t, "writer")
	switch rapid.IntRange(0, 11).Draw(o.t, "op") {
	default:
		o.append(k)
	case 0, 1:
		if o.ws[k].Sync() == nil && o.ws[k].sync != SyncOff {
			o.durably(k)
		}
	case 2:
		w := o.ws[k]
		if w.Close() == nil && w.sync != SyncOff {
			o.durably(k)
		}
		o.ws[k] = o.s.Writer(w.origin, w.input, WriterOptions{Sync: w.sync})
	case 3:
		now := noon.Add(rapid.Int64Range(0, 6).Draw(o.t, "hours") * hourTicks)
		h := hourOf(now.Add(-2 * hourTicks)).start()
		o.horizon = max(o.horizon, h)
		if res, err := o.s.Prune(now.Time(), PruneOptions{Depth: 2 * time.Hour, Force: true}); err == nil {
			o.pruned = max(o.pruned, res.Horizon)
		}
	case 4:
		o.s.Note(event.Event{Time: noon.Add(o.at[k]).Time(), Kind: event.Fault, Msg: "something"})
	case 5:
		o.s.Verify(context.Background(), VerifyOptions{})
	}
}

// TestPowerCut cuts the power at random in random sequences of appends,
// backfills, prunes, events, verifications and ends of writers. Whatever part of
// what was not synced is lost: the archive opens, nothing wrong is shown as good,
// what was made durable is there, one pass of verification settles what is not,
// recording goes on, and a peer brings back the rest.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	cuts, losses, damaged := 0, 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		root, err := os.MkdirTemp("", "powercut")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(root)
		disk := filepath.Join(root, "disk")
		if err := os.Mkdir(disk, 0o750); err != nil {
			rt.Fatal(err)
		}
		v, err := fsx.NewVolatile(disk)
		if err != nil {
			rt.Fatal(err)
		}
		o := &outage{t: rt, tb: t, v: v, appended: map[m4f.Identity]*m4f.Segment{}, pending: map[int][]m4f.Identity{}, durable: map[m4f.Identity]bool{}}
		v.CutBefore(rapid.IntRange(1, 900).Draw(rt, "cut"))
		o.s, err = Create(filepath.Join(disk, "storage", "example"), "", Options{FS: v, TargetDuration: 4 * sec, Clock: fixedClock})
		created := err == nil
		if created {
			for k, sync := range []time.Duration{SyncAlways, time.Hour, SyncOff} {
				o.ws = append(o.ws, o.s.Writer([]Origin{Live, Live, Healed}[k], uint8(k), WriterOptions{Sync: sync}))
				o.at = append(o.at, int64(k)*1000*sec)
			}
			for n := 0; n < 60 && !v.IsCut(); n++ {
				o.step()
			}
		}
		left := filepath.Join(root, "left")
		pick := rapid.IntRange(0, 1<<20)
		if err := v.Cut(left, func(n int) int { return pick.Draw(rt, "pick") % n }); err != nil {
			rt.Fatal(err)
		}
		for _, w := range o.ws {
			w.Close() // for its descriptors
		}
		cuts++
		lost, bad := o.check(filepath.Join(left, "storage", "example"), created)
		losses += lost
		damaged += bad
	})
	t.Logf("%d cuts: %d segments lost that were not synced, %d places found bad", cuts, losses, damaged)
	if losses == 0 || damaged == 0 {
		t.Error("the cuts did no harm")
	}
}

func (o *outage) check(dir string, created bool) (lost, damaged int) {
	t := o.t
	opt := Options{FS: unsynced{fsx.OS}, Clock: fixedClock}
	s, err := OpenWith(dir, opt)
	if err != nil {
		if created || !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("created: %v, and %v", created, err)
		}
		if s, err = Create(dir, "", opt); err != nil {
			t.Fatal(err)
		}
	}
	info, err := s.Info()
	if err != nil {
		t.Fatal(err)
	}
	if info.Horizon < o.pruned || info.Horizon > max(o.horizon, o.pruned) {
		t.Fatalf("horizon %v, acknowledged %v, asked for %v", info.Horizon.Time(), o.pruned.Time(), o.horizon.Time())
	}
	if _, _, err := s.ReadChanges("", 1000); err != nil {
		t.Fatal(err)
	}
	readable := func(s *Stream, all bool) map[m4f.Identity]bool {
		els, err := s.Span(0, 0)
		if err != nil {
			t.Fatal(err)
		}
		out := map[m4f.Identity]bool{}
		for i := range els {
			e := &els[i]
			was := o.appended[e.ID]
			if was == nil || e.Header != was.Header {
				t.Fatalf("shown: %+v", e.Header)
			}
			_, err := s.ReadElement(e)
			var corrupt *CorruptError
			if err != nil && (all || !errors.As(err, &corrupt) && !errors.Is(err, ErrNoSegment)) {
				t.Fatal(err)
			}
			out[e.ID] = err == nil
		}
		return out
	}
	must := func(s *Stream, have map[m4f.Identity]bool, when string) {
		for id := range o.durable {
			seg := o.appended[id]
			if seg.Header.UTC < info.Horizon || have[id] {
				continue
			}
			if _, err := s.ReadSegment(id, seg.Header.UTC); err != nil { // a better one may be in the view
				t.Fatalf("%s: %.8s at %v was made durable and is lost", when, id, seg.Header.UTC.Time())
			}
		}
	}
	fresh := func() *Stream {
		r, err := OpenWith(dir, opt)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	have := readable(fresh(), false)
	must(s, have, "after the cut")
	for id, seg := range o.appended {
		if seg.Header.UTC >= info.Horizon && !have[id] {
			lost++
		}
	}
	verify := func() (found []Damage) {
		_, err := fresh().Verify(context.Background(), VerifyOptions{Settled: -1, Damage: func(d Damage) { found = append(found, d) }})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	found := verify()
	if again := verify(); len(again) != 0 {
		t.Fatalf("found %+v, and again %+v", found, again)
	}
	must(s, readable(fresh(), true), "after verification")

	w := fresh().Writer(Healed, 0, WriterOptions{Sync: SyncOff})
	for _, seg := range o.appended {
		var old *HorizonError
		if present, err := fresh().Present(&seg.Header); err != nil {
			t.Fatal(err)
		} else if present {
			continue
		}
		if err := w.Append(seg); err != nil && !errors.As(err, &old) {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var all []Record
	for _, seg := range o.appended {
		if seg.Header.UTC >= info.Horizon {
			all = append(all, Record{Header: seg.Header})
		}
	}
	want := map[m4f.Identity]bool{}
	for _, e := range View(all) {
		want[e.ID] = true
	}
	if got := readable(fresh(), true); !maps.Equal(got, want) {
		t.Fatalf("healed to %d of %d", len(got), len(want))
	}
	return lost, len(found)
}
