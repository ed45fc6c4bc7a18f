package replicate

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/salvage"
	"github.com/twindvr/twindvr/pkg/segment"
	"github.com/twindvr/twindvr/pkg/testkit"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

const (
	datagram  = 7 * salvage.PacketSize // bytes that are lost at once
	bitrate   = 1_000_000              // bits a second
	perSecond = bitrate / 8 / datagram // datagrams
)

func source(t testing.TB, d time.Duration) []byte { return sourceFrom(t, d, 0) }

// sourceFrom is a source whose times begin at pts, so that its keyframes are not where the
// buckets of target durations begin.
func sourceFrom(t testing.TB, d time.Duration, pts int64) []byte {
	t.Helper()
	return testkit.SharedStream(t, testsrc.Options{Bitrate: bitrate, Duration: d, StartPTS: pts})
}

// lossy is a recorder that does not hear all.
type lossy struct {
	a   *archive.Stream
	seg *segment.Segmenter
	w   *archive.Writer
	h   *Healer
}

func newLossy(t testing.TB, d time.Duration) *lossy {
	t.Helper()
	a, err := archive.Create(scratchDir(t)+"/x", "", archive.CreateOptions{TargetDuration: m4f.Ticks(d)})
	if err != nil {
		t.Fatal(err)
	}
	l := &lossy{a: a}
	l.w = l.a.Writer(archive.Live, 0, archive.WriterOptions{Sync: archive.SyncOff})
	l.h = NewHealer(l.a, HealerOptions{Log: quiet, Writer: archive.WriterOptions{Sync: archive.SyncOff}})
	run := l.a.Salvage().NewRun()
	// A long gap begins a timeline, which the archive dates, as in a node.
	hint := func(media int64, utc m4f.UTC, fresh bool) (m4f.UTC, bool) {
		if !fresh {
			return 0, false
		}
		at, ok, err := a.DateOf(media, utc)
		return at, ok && err == nil
	}
	l.seg = segment.New(segment.Config{TargetDuration: m4f.Ticks(d), Hint: hint, Salvage: func(k *salvage.Kept) {
		if _, err := run.Keep(k); err != nil {
			t.Error(err)
		}
		l.h.Kept()
	}}, func(s *m4f.Segment) {
		if err := l.w.Append(s); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		if err := l.h.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// hear feeds datagrams first to last of a stream but those that are lost.
func (l *lossy) hear(ts []byte, first, last int, lost func(n int) bool) {
	for n := first; n < last && n*datagram < len(ts); n++ {
		if lost == nil || !lost(n) {
			arrived := epoch.Time().Add(time.Duration(n) * datagram * 8 * time.Second / bitrate)
			l.seg.WriteAt(ts[n*datagram:min((n+1)*datagram, len(ts))], arrived)
		}
	}
}

func (l *lossy) end(t testing.TB) {
	l.seg.Close()
	if err := l.w.Close(); err != nil {
		t.Error(err)
	}
}

func count(ts []byte) int { return (len(ts) + datagram - 1) / datagram }

// record is a recorder that has heard a stream to its end.
func record(t testing.TB, ts []byte, d time.Duration, lost func(n int) bool) *lossy {
	t.Helper()
	return recordPart(t, ts, d, 0, count(ts), lost)
}

// recordPart is a recorder that has heard datagrams first to last of a stream.
func recordPart(t testing.TB, ts []byte, d time.Duration, first, last int, lost func(n int) bool) *lossy {
	t.Helper()
	l := newLossy(t, d)
	l.hear(ts, first, last, lost)
	l.end(t)
	return l
}

// third is the third segment of a stream of which nothing is lost, and the datagram with
// which it begins, about.
func third(t testing.TB, ts []byte, d time.Duration) (e archive.Element, opens int) {
	t.Helper()
	e = view(t, record(t, ts, d, nil).a)[2]
	return e, int(e.UTC.Time().Sub(epoch.Time()).Seconds() * perSecond)
}

// independent are losses of some rate, for each of several nodes, never near each
// other at two of them, and none in the first second.
func independent(seed uint64, nodes, datagrams int, rate float64) []map[int]bool {
	r := rand.New(rand.NewPCG(seed, 1))
	out := make([]map[int]bool, nodes)
	for i := range out {
		out[i] = map[int]bool{}
	}
	for n := 100; n < datagrams; n++ {
		if r.Float64() < rate*float64(nodes) {
			out[r.IntN(nodes)][n] = true
			n += 3
		}
	}
	return out
}

func in(m map[int]bool) func(int) bool { return func(n int) bool { return m[n] } }

// between is a loss of datagrams first to last.
func between(first, last int) func(int) bool {
	return func(n int) bool { return n >= first && n < last }
}

// identities are those of the whole clean segments of a view.
func identities(t testing.TB, a *archive.Stream) map[m4f.Identity]bool {
	ids := map[m4f.Identity]bool{}
	for _, e := range view(t, a) {
		if e.Clean() {
			ids[e.ID] = true
		}
	}
	return ids
}

// heals backfills an archive with its Healer.
func (l *lossy) heals(t testing.TB, src Side) Result {
	t.Helper()
	return backfill(t, l.a, src, BackfillOptions{Healer: l.h})
}

// healEachOther has each node in turn heal from each other one, and returns what there was
// to do.
func healEachOther(t testing.TB, nodes ...*lossy) (done []Result) {
	t.Helper()
	for i, l := range nodes {
		for k, other := range nodes {
			if k == i {
				continue
			}
			if r := l.heals(t, Dir{other.a}); r != (Result{}) {
				done = append(done, r)
			}
		}
	}
	return done
}

// meet has each of two nodes heal with packets of the other.
func meet(t testing.TB, nodes []*lossy) {
	t.Helper()
	for i, l := range nodes {
		if _, err := l.h.Heal(t.Context(), Dir{nodes[1-i].a}, HealOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// allHealed checks that nodes have nothing left to heal from each other.
func allHealed(t testing.TB, nodes ...*lossy) {
	t.Helper()
	if more := healEachOther(t, nodes...); len(more) != 0 {
		t.Errorf("once more: %+v", more)
	}
}

// allShow checks that each node shows an element such as is wanted. when says in what case.
func allShow(t testing.TB, when string, nodes []*lossy, wanted func(*archive.Element) bool) {
	t.Helper()
	for i, l := range nodes {
		if !slices.ContainsFunc(view(t, l.a), func(e archive.Element) bool { return wanted(&e) }) {
			t.Errorf("%s: node %d shows %v", when, i, shownBy(t, l.a))
		}
	}
}

// cleanly is a whole clean segment of an identity.
func cleanly(id m4f.Identity) func(*archive.Element) bool {
	return func(e *archive.Element) bool { return e.Clean() && e.ID == id }
}

// Two nodes with independent loss heal each other: every segment that one of them
// received each packet of ends clean on both, with the identity that an
// undamaged receiver writes, for a few of its bytes.
func TestHeal(t *testing.T) {
	ts := source(t, 20*time.Second)
	ref := record(t, ts, 4*time.Second, nil)
	clean := identities(t, ref.a)
	for _, rate := range []float64{0.003, 0.01} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			lost := independent(7, 2, count(ts), rate)
			a, b := record(t, ts, 4*time.Second, in(lost[0])), record(t, ts, 4*time.Second, in(lost[1]))
			t.Logf("%d and %d of %d datagrams lost; %d and %d of %d segments are clean", len(lost[0]), len(lost[1]), count(ts),
				len(identities(t, a.a)), len(identities(t, b.a)), len(clean))
			pb, pa := servePeer(t, b.a), servePeer(t, a.a)
			var before []Span
			if before = diff(t, Dir{a.a}, Peer{pb.client}, DiffOptions{}); !slices.ContainsFunc(before, func(s Span) bool { return s.Op == Mergeable }) {
				t.Errorf("diff shows nothing to merge:\n%s", text(before))
			}
			dry := backfill(t, a.a, Peer{pb.client}, BackfillOptions{Healer: a.h, DryRun: true})
			if dry.Healed.Segments == 0 || dry.Left < dry.Healed.Segments {
				t.Errorf("dry run: %+v", dry)
			}
			ra, rb := a.heals(t, Peer{pb.client}), b.heals(t, Peer{pa.client})
			t.Logf("healed %+v and %+v", ra, rb)
			if ra.Healed.Segments != dry.Healed.Segments || ra.Segments != dry.Segments || ra.Left+rb.Left != 0 {
				t.Errorf("%+v and %+v, dry run %+v", ra, rb, dry)
			}
			a.heals(t, Peer{pb.client})
			if err := equalViews(t, []*archive.Stream{a.a, b.a}); err != nil {
				t.Error(err)
			}
			got := identities(t, a.a)
			for id := range clean {
				if !got[id] {
					t.Errorf("segment %s is not there clean", id)
				}
			}
			if len(got) != len(clean) {
				t.Errorf("%d clean segments, %d of the reference", len(got), len(clean))
			}
			for _, r := range []Result{ra, rb} {
				if media := int64(len(ts)); r.Healed.Bytes > media/5 {
					t.Errorf("%d bytes for packets, of %d", r.Healed.Bytes, media)
				}
			}
			if after := diff(t, Dir{a.a}, Peer{pb.client}, DiffOptions{}); len(after) != 0 {
				t.Errorf("afterwards:\n%s", text(after))
			}
			for _, l := range []*lossy{a, b} {
				src := Side(Peer{pb.client})
				if l == b {
					src = Peer{pa.client}
				}
				if again := l.heals(t, src); again != (Result{}) {
					t.Errorf("once more: %+v", again)
				}
			}
		})
	}
}

// A datagram that both nodes lost damages a segment for good. Its merged copies
// stay, and have packets that the own copy of the next segment lacks, so that none
// is fetched for that one: it is merged all the same.
func TestHealBesideDamage(t *testing.T) {
	ts := source(t, 20*time.Second)
	const d, step = 2 * time.Second, 50
	for _, seed := range []uint64{17, 18, 19} {
		lost := []map[int]bool{{}, {}}
		both := map[int]bool{}
		r := rand.New(rand.NewPCG(seed, 3))
		for n := 60; n < count(ts); n++ {
			if r.Float64() < 0.012 {
				lost[r.IntN(2)][n] = true
				n += 3
			} else if r.Float64() < 0.002 {
				lost[0][n], lost[1][n], both[n] = true, true, true
				n += 3
			}
		}
		nodes := []*lossy{newLossy(t, d), newLossy(t, d)}
		for n := 0; n < count(ts); n += step {
			for i, l := range nodes {
				l.hear(ts, n, n+step, in(lost[i]))
			}
			meet(t, nodes)
		}
		for _, l := range nodes {
			l.end(t)
		}
		meet(t, nodes)
		meet(t, nodes)
		got := identities(t, nodes[0].a)
		maps.Copy(got, identities(t, nodes[1].a))
		want := identities(t, record(t, ts, d, in(both)).a)
		if len(want) < 3 {
			t.Fatalf("seed %d: %d segments that both together heard", seed, len(want))
		}
		for id := range want {
			if !got[id] {
				t.Errorf("seed %d: segment %s is clean on neither node", seed, id)
			}
		}
	}
}

// One node loses its source in the last GOP of a segment, another one came back a
// little before that, behind the keyframe: what it heard ahead of its first segment
// is the end of the one that broke off.
func TestHealJoining(t *testing.T) {
	ts := source(t, 20*time.Second)
	const d = 4 * time.Second
	ref, opens := third(t, ts, d)
	for _, from := range []float64{3.2, 3.3, 3.4, 3.5, 3.6, 3.7} {
		lost, back := opens+int((from+0.2)*perSecond), opens+int(from*perSecond)
		a, b := recordPart(t, ts, d, 0, lost, nil), recordPart(t, ts, d, back, count(ts), nil)
		for _, e := range view(t, b.a) {
			if e.MediaTime == ref.MediaTime {
				t.Fatalf("the node that came back has a segment there: %v", shownBy(t, b.a))
			}
		}
		for range 2 {
			healEachOther(t, a, b)
		}
		allShow(t, fmt.Sprintf("%s, back after %.1f s", ref.ID, from), []*lossy{a, b}, func(e *archive.Element) bool {
			return e.ID == ref.ID && e.Duration == ref.Duration && !e.Damaged()
		})
	}
}

// A node joins in the middle of a segment of which the other one loses a datagram, a
// little ahead of the first keyframe that the new one hears. The segment before is damaged
// for good. What was heard ahead of that keyframe is merged with the packets of that segment
// first, and must not go with it: the one that it is needed for is kept later.
func TestHealJoiningBesideDamage(t *testing.T) {
	ts := source(t, 20*time.Second)
	const d, step = 4 * time.Second, 30
	ref, opens := third(t, ts, d)
	for _, at := range []float64{0.1, 0.3, 0.5, 0.8, 1.2} {
		joins := opens + int(at*perSecond)
		for _, ahead := range []int{5, 15, 40, 80} {
			lost := map[int]bool{opens - perSecond: true, joins + ahead: true}
			nodes := []*lossy{newLossy(t, d), newLossy(t, d)}
			for n := 0; n < count(ts); n += step {
				nodes[0].hear(ts, n, n+step, in(lost))
				nodes[1].hear(ts, max(n, joins), n+step, nil)
				meet(t, nodes)
			}
			for _, l := range nodes {
				l.end(t)
			}
			meet(t, nodes)
			if !identities(t, nodes[0].a)[ref.ID] {
				t.Errorf("joined %.1f s behind, lost %d later: not healed out of packets: %v", at, ahead, shownBy(t, nodes[0].a))
			}
			healEachOther(t, nodes...)
			allShow(t, fmt.Sprintf("%s, joined %.1f s behind, lost %d later", ref.ID, at, ahead), nodes, cleanly(ref.ID))
		}
	}
}

// Two nodes join in one segment, the second in the midst of it; the first loses a datagram
// that the second heard ahead of its first keyframe. What both have from the first keyframe on
// is shown undamaged, as a partial segment.
func TestHealJoiningBoth(t *testing.T) {
	ts := source(t, 20*time.Second)
	const d = 4 * time.Second
	ref, opens := third(t, ts, d)
	for _, at := range []float64{0.3, 0.8} {
		for _, ends := range []int{opens + 3*perSecond, count(ts)} {
			starts, joins := opens-perSecond/2, opens+int(at*perSecond)
			a := recordPart(t, ts, d, starts, ends, in(map[int]bool{joins + 10: true}))
			b := recordPart(t, ts, d, joins, count(ts), nil)
			if e := view(t, a.a)[0]; e.MediaTime != ref.MediaTime || !e.Damaged() || !e.Partial() {
				t.Fatalf("it begins with %v", shownBy(t, a.a))
			}
			for range 2 {
				healEachOther(t, a, b)
			}
			for i, l := range []*lossy{a, b} {
				if e := view(t, l.a)[0]; e.ID != ref.ID || e.Damaged() || !e.Partial() || e.Duration != ref.Duration {
					t.Errorf("joined %.1f s behind: node %d shows %v", at, i, shownBy(t, l.a))
				}
			}
			if err := equalViews(t, []*archive.Stream{a.a, b.a}); err != nil {
				t.Error(err)
			}
			allHealed(t, a, b)
		}
	}
}

// A node joins behind a keyframe and hears what the other one loses ahead of the next, at which
// a segment opens, of which both lose something. What it heard ahead is kept with the segment
// before: without it, another keyframe might have been lost there.
func TestHealJoiningAhead(t *testing.T) {
	ts := source(t, 20*time.Second)
	const d = 4 * time.Second
	ref, opens := third(t, ts, d)
	for _, starts := range []int{opens, 2*perSecond + 15} {
		gap := map[int]bool{opens + 65: true}
		for n := opens - 87; n < opens-67; n++ {
			gap[n] = true
		}
		nodes := []*lossy{
			recordPart(t, ts, d, opens-2*perSecond+15, count(ts), in(map[int]bool{opens - 38: true, opens + 76: true})),
			recordPart(t, ts, d, opens-starts, count(ts), in(gap)),
		}
		for range 2 {
			healEachOther(t, nodes...)
		}
		allShow(t, fmt.Sprintf("%s at %d, joined at %d", ref.ID, opens, opens-starts), nodes, cleanly(ref.ID))
		allHealed(t, nodes...)
	}
}

// A node lost what may have been the keyframe ahead of a segment, and its source in the midst of it;
// another one joined before that. The segment is shown to its end, as damaged as it was: what lacks no
// less and is longer is better.
func TestHealLonger(t *testing.T) {
	ts := sourceFrom(t, 20*time.Second, m4f.Timescale)
	const d = 4 * time.Second
	ref, opens := third(t, ts, d)
	for _, joins := range []int{opens + perSecond, opens + 5*perSecond/2} {
		a := recordPart(t, ts, d, 0, opens+3*perSecond, between(opens-perSecond/4, opens-perSecond/4+10))
		b := recordPart(t, ts, d, joins, count(ts), nil)
		if e := view(t, a.a)[2]; e.MediaTime != ref.MediaTime || !e.Damaged() || e.Lost != 0 || e.Duration >= ref.Duration {
			t.Fatalf("it is not cut off: %v", shownBy(t, a.a))
		}
		for range 2 {
			healEachOther(t, a, b)
		}
		allShow(t, fmt.Sprintf("%s at %d, joined at %d", ref.ID, opens, joins), []*lossy{a, b}, func(e *archive.Element) bool {
			return e.ID == ref.ID && e.Damaged()
		})
		allHealed(t, a, b)
	}
}

// A node has a segment that lacks something, another one all of it and just joined; both lost what
// may have been a keyframe ahead of it. What is merged lacks nothing and is known to be whole, which is
// better than either.
func TestHealJoinedWhole(t *testing.T) {
	ts := sourceFrom(t, 20*time.Second, m4f.Timescale)
	const d = 4 * time.Second
	ref, opens := third(t, ts, d)
	found := 0
	for ahead := range 40 {
		both := between(opens-ahead, opens-ahead+3)
		b := recordPart(t, ts, d, opens-ahead-20, count(ts), both)
		if e := view(t, b.a)[0]; e.ID != ref.ID || !e.Damaged() || e.Lost != 0 {
			continue // it has no doubt of it
		}
		found++
		a := recordPart(t, ts, d, 0, count(ts), func(n int) bool { return both(n) || n == opens+perSecond })
		for range 2 {
			healEachOther(t, a, b)
		}
		allShow(t, fmt.Sprintf("%s, %d behind a loss", ref.ID, ahead), []*lossy{a, b}, func(e *archive.Element) bool {
			return e.ID == ref.ID && !e.Partial()
		})
		allHealed(t, a, b)
	}
	if found == 0 {
		t.Error("the second had never all of it in doubt")
	}
}

// A node joined at the keyframe of a segment and lost less of it than another one, which was killed
// before it kept packets. What it has is shown: the other's begins there, too, and was heard from before.
func TestHealJoinedAtKeyframe(t *testing.T) {
	ts := sourceFrom(t, 20*time.Second, m4f.Timescale)
	const d = 4 * time.Second
	ref, opens := third(t, ts, d)
	a := newLossy(t, d)
	a.hear(ts, 0, opens+4*perSecond+perSecond/2, in(map[int]bool{opens + perSecond: true, opens + 2*perSecond: true}))
	if err := a.w.Close(); err != nil { // killed
		t.Fatal(err)
	}
	b := recordPart(t, ts, d, opens-perSecond/4, count(ts), in(map[int]bool{opens + 3*perSecond: true}))
	less := view(t, b.a)[0]
	if e := view(t, a.a)[2]; e.MediaTime != less.MediaTime || e.Partial() || !less.Partial() || !less.Damaged() || less.Lost >= e.Lost {
		t.Fatalf("%v, %v", shownBy(t, a.a), shownBy(t, b.a))
	}
	for range 3 {
		healEachOther(t, a, b)
	}
	allShow(t, ref.ID.String(), []*lossy{a, b}, func(e *archive.Element) bool { return e.ID == less.ID && !e.Partial() })
	allHealed(t, a, b)
}

// The source ends for all nodes within a segment of which each of them has lost something.
// It is healed, as a partial one, if no node heard more of it.
func TestHealSourceEnded(t *testing.T) {
	ts := source(t, 20*time.Second)
	const d = 4 * time.Second
	for _, ends := range []int{count(ts), count(ts) - perSecond, count(ts) - 2*perSecond - 10} {
		shown := view(t, recordPart(t, ts, d, 0, ends, nil).a)
		ref := shown[len(shown)-1]
		for _, last := range []int{ends - 10, ends - 1} { // the second loses that, and perhaps the end
			nodes := []*lossy{
				recordPart(t, ts, d, 0, ends, in(map[int]bool{ends - perSecond/2: true})),
				recordPart(t, ts, d, 0, ends, in(map[int]bool{ends - perSecond/4: true, last: true})),
			}
			for _, l := range nodes {
				if e := view(t, l.a); !e[len(e)-1].Damaged() {
					t.Fatalf("it has not lost anything: %v", shownBy(t, l.a))
				}
			}
			for range 2 {
				healEachOther(t, nodes...)
			}
			for i, l := range nodes {
				got := view(t, l.a)
				if e := got[len(got)-1]; e.ID != ref.ID || e.Damaged() || !e.Partial() {
					t.Errorf("end %d, lost %d: node %d shows %v, not %s", ends, last, i, shownBy(t, l.a), ref.ID)
				}
			}
			allHealed(t, nodes...)
			if err := equalViews(t, []*archive.Stream{nodes[0].a, nodes[1].a}); err != nil {
				t.Error(err)
			}
		}
	}
}

// A node has all of a segment, and lost something ahead of it that may have been the keyframe at which it
// begins. Another one has the segment before that clean, and ended ahead of the end of this one: it
// has no packets of either, and that segment tells where the next begins.
func TestHealProvenKeyframe(t *testing.T) {
	ts := sourceFrom(t, 20*time.Second, m4f.Timescale)
	const d = 4 * time.Second
	ref, opens := third(t, ts, d)
	for _, at := range []int{opens - perSecond/2, opens - perSecond/4} {
		a, b := newLossy(t, d), record(t, ts, d, between(at, at+10))
		a.hear(ts, 0, opens+perSecond, nil)
		if err := a.w.Close(); err != nil { // killed
			t.Fatal(err)
		}
		shown := view(t, b.a)
		if e := shown[2]; e.ID != ref.ID || !e.Damaged() || e.Lost != 0 {
			t.Fatalf("it does not doubt the keyframe: %v", shownBy(t, b.a))
		}
		if got := b.heals(t, Dir{a.a}); got.Segments != 1 {
			t.Fatalf("the segment before: %+v", got)
		}
		for range 2 {
			healEachOther(t, b, a)
		}
		allShow(t, ref.ID.String(), []*lossy{a, b}, cleanly(ref.ID))
		allHealed(t, a, b)
	}
}

// hearTogether returns nodes that have heard a source, each with losses of its own, while
// each of them follows all others.
func hearTogether(t *testing.T, ts []byte, d time.Duration, lost []map[int]bool) ([]*lossy, []*peerNode, []following) {
	var nodes []*lossy
	var peers []*peerNode
	for range lost {
		l := newLossy(t, d)
		nodes, peers = append(nodes, l), append(peers, servePeer(t, l.a))
	}
	var runs []following
	for i, l := range nodes {
		share := &Share{}
		for k, p := range peers {
			if k != i {
				runs = append(runs, startFollowing(t, l.a, p, FollowOptions{Share: share, Healer: l.h, Delay: func(*archive.Record) time.Duration {
					return 200 * time.Millisecond
				}}))
			}
		}
	}
	for _, f := range runs {
		until(t, "following", func() bool { return !f.Stats().Reconciled.IsZero() })
	}
	const step = 40
	for n := 0; n < count(ts); n += step {
		for i, l := range nodes {
			l.hear(ts, n, n+step, in(lost[i]))
		}
		time.Sleep(2 * time.Millisecond)
	}
	for _, l := range nodes {
		l.end(t)
	}
	return nodes, peers, runs
}

// While nodes follow each other, what they damage is healed while it is warm, and
// media hardly moves.
func TestHealWarm(t *testing.T) {
	ts := source(t, 12*time.Second)
	clean := identities(t, record(t, ts, 2*time.Second, nil).a)
	for _, nodes := range []int{2, 3} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			lost := independent(uint64(nodes), nodes, count(ts), 0.01)
			all, peers, runs := hearTogether(t, ts, 2*time.Second, lost)
			until(t, "all clean on all", func() bool {
				for _, l := range all {
					got := identities(t, l.a)
					for id := range clean {
						if !got[id] {
							return false
						}
					}
				}
				return true
			})
			var sum FollowStats
			for _, f := range runs {
				s := f.Stats()
				sum.Mended += s.Mended
				sum.MendPackets += s.MendPackets
				sum.MendBytes += s.MendBytes
				sum.Bytes += s.Bytes
			}
			asked := 0
			for _, p := range peers {
				asked += p.asked()
			}
			t.Logf("%d segments mended with %d packets, %d bytes; %d segments asked for, %d bytes", sum.Mended, sum.MendPackets, sum.MendBytes, asked, sum.Bytes)
			if sum.Mended == 0 || sum.MendPackets == 0 || sum.MendBytes == 0 {
				t.Error("nothing was mended")
			}
			for _, f := range runs {
				f.stop()
			}
		})
	}
}

// Where no two nodes have all packets of a segment, three have.
func TestHealFold(t *testing.T) {
	ts := source(t, 8*time.Second)
	clean := identities(t, record(t, ts, 2*time.Second, nil).a)
	n := count(ts)
	x, y, z := n*4/10, n*4/10+9, n*4/10+21
	lost := []map[int]bool{{x: true, z: true}, {x: true, y: true}, {y: true, z: true}}
	var all []*lossy
	var peers []*peerNode
	for i := range lost {
		l := record(t, ts, 2*time.Second, in(lost[i]))
		all, peers = append(all, l), append(peers, servePeer(t, l.a))
	}
	// a and b meet first, and keep what they have then.
	all[0].heals(t, Peer{peers[1].client})
	all[1].heals(t, Peer{peers[0].client})
	if len(identities(t, all[0].a)) == len(clean) {
		t.Fatal("two of them were enough")
	}
	for range 2 {
		for i, l := range all {
			for k, p := range peers {
				if k != i {
					l.heals(t, Peer{p.client})
				}
			}
		}
	}
	for i, l := range all {
		if got := identities(t, l.a); len(got) != len(clean) {
			t.Errorf("node %d has %d clean segments of %d: %v", i, len(got), len(clean), shownBy(t, l.a))
		}
	}
}

// starts are the media times at which the segments of a view begin.
func starts(t testing.TB, a *archive.Stream) (l []int64) {
	for _, e := range view(t, a) {
		l = append(l, e.MediaTime)
	}
	return l
}

// Loss that hides from one node where a segment begins is healed too.
func TestHealHiddenKeyframe(t *testing.T) {
	ts := source(t, 16*time.Second)
	ref := record(t, ts, 4*time.Second, nil)
	clean := identities(t, ref.a)
	found := 0
	for first := 350; found < 3 && first < count(ts)-100; first += 10 {
		a := record(t, ts, 4*time.Second, between(first, first+40))
		if slices.Equal(starts(t, a.a), starts(t, ref.a)) {
			continue // no keyframe of a segment was lost
		}
		found++
		other := map[int]bool{first - 20: true, first + 60: true}
		b := record(t, ts, 4*time.Second, in(other))
		a.heals(t, Dir{b.a})
		b.heals(t, Dir{a.a})
		a.heals(t, Dir{b.a})
		if err := equalViews(t, []*archive.Stream{a.a, b.a}); err != nil {
			t.Error(err)
		}
		for id := range identities(t, a.a) {
			if !clean[id] {
				t.Errorf("gap at %d: a clean segment that nobody sent", first)
			}
		}
		if len(identities(t, a.a)) != len(clean) {
			t.Errorf("gap at %d: %v", first, shownBy(t, a.a))
		}
	}
	if found == 0 {
		t.Error("no keyframe was ever lost")
	}
	t.Logf("%d gaps hid where a segment begins", found)
}

// Whatever two or three nodes lose, also at once: they end with equal views, and
// no clean segment is one that was not sent.
func TestHealProperty(t *testing.T) {
	testkit.FewerChecks(t, 25)
	ts := source(t, 8*time.Second)
	clean := identities(t, record(t, ts, 2*time.Second, nil).a)
	rapid.Check(t, func(rt *rapid.T) {
		var all []*lossy
		var archives []*archive.Stream
		lostBy := make([]map[int]bool, rapid.IntRange(2, 3).Draw(rt, "nodes"))
		for i := range lostBy {
			lostBy[i] = map[int]bool{}
			for range rapid.IntRange(0, 6).Draw(rt, "losses") {
				at := rapid.IntRange(120, count(ts)-1).Draw(rt, "at")
				for n := range rapid.SampledFrom([]int{1, 1, 2, 5, 40, 200}).Draw(rt, "length") {
					lostBy[i][at+n] = true
				}
			}
			if i > 0 && rapid.Bool().Draw(rt, "together") {
				for n := range lostBy[0] {
					lostBy[i][n] = true
				}
			}
			l := record(t, ts, 2*time.Second, in(lostBy[i]))
			all, archives = append(all, l), append(archives, l.a)
		}
		for round := 0; len(healEachOther(t, all...)) != 0; round++ {
			if round == 8 {
				rt.Fatal("they exchange for ever")
			}
		}
		if err := equalViews(t, archives); err != nil {
			rt.Fatal(err)
		}
		got := identities(t, archives[0])
		for id := range got {
			if !clean[id] {
				rt.Fatalf("clean segment %s was never sent", id)
			}
		}
		noOverlap(rt, view(t, archives[0]))
	})
}

// Whatever a peer says of its packets, nothing wrong becomes clean, and it ends.
func TestHealHostilePeer(t *testing.T) {
	ts := source(t, 8*time.Second)
	clean := identities(t, record(t, ts, 2*time.Second, nil).a)
	lost := independent(3, 2, count(ts), 0.01)
	b := record(t, ts, 2*time.Second, in(lost[1]))
	is := func(r *http.Request, what string) bool {
		return strings.Contains(r.URL.Path, "/m4f/salvage") && strings.HasSuffix(r.URL.Path, what)
	}
	entries, err := b.a.Salvage().Entries(0, 0)
	if err != nil || len(entries) == 0 {
		t.Fatal(err)
	}
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"nonsense for packets": func(w http.ResponseWriter, r *http.Request) bool {
			if is(r, "/packets") {
				io.WriteString(w, strings.Repeat("nonsense", 1000))
			}
			return is(r, "/packets")
		},
		"other packets": func(w http.ResponseWriter, r *http.Request) bool {
			if is(r, "/packets") {
				w.Header().Set("Content-Length", "188")
				w.Write(ts[:188])
			}
			return is(r, "/packets")
		},
		"hashes without end": func(w http.ResponseWriter, r *http.Request) bool {
			if is(r, "/hashes") {
				for r.Context().Err() == nil {
					if _, err := w.Write(make([]byte, 1<<16)); err != nil {
						break
					}
				}
			}
			return is(r, "/hashes")
		},
		"entries that are gone": func(w http.ResponseWriter, r *http.Request) bool {
			if is(r, "/hashes") {
				m4fhttp.WriteProblem(w, http.StatusNotFound, "gone")
			}
			return is(r, "/hashes")
		},
		"one entry again and again": func(w http.ResponseWriter, r *http.Request) bool {
			if is(r, "/salvage") {
				for range 5000 {
					json.NewEncoder(w).Encode(m4fhttp.SalvageEntryOf(&entries[0]))
				}
			}
			return is(r, "/salvage")
		},
		"no salvage": func(w http.ResponseWriter, r *http.Request) bool {
			if is(r, "/salvage") {
				m4fhttp.WriteProblem(w, http.StatusNotFound, "what is that?")
			}
			return is(r, "/salvage")
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := record(t, ts, 2*time.Second, in(lost[0]))
			var fired atomic.Int64
			p := hostile(t, b.a, time.Second, func(w http.ResponseWriter, r *http.Request) bool {
				if answer(w, r) {
					fired.Add(1)
					return true
				}
				return false
			})
			if _, err := a.h.Heal(t.Context(), Peer{p.client}, HealOptions{}); err != nil {
				t.Error(err)
			}
			if fired.Load() == 0 {
				t.Error("nothing was asked for")
			}
			for id := range identities(t, a.a) {
				if !clean[id] {
					t.Error("a clean segment that nobody sent")
				}
			}
			a.heals(t, Dir{b.a})
			if got := identities(t, a.a); len(got) != len(clean) {
				t.Errorf("%d clean segments of %d from another peer", len(got), len(clean))
			}
		})
	}
}

// A peer that hangs over its packets keeps nobody from healing with another one,
// nor the archive from being filled.
func TestHealHangingPeer(t *testing.T) {
	ts := source(t, 8*time.Second)
	clean := identities(t, record(t, ts, 2*time.Second, nil).a)
	lost := independent(3, 2, count(ts), 0.01)
	b := record(t, ts, 2*time.Second, in(lost[1]))
	var hung atomic.Int64
	bad := hostile(t, b.a, 2*time.Second, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/salvage/") {
			return false
		}
		hung.Add(1)
		<-r.Context().Done()
		return true
	})
	a := newLossy(t, 2*time.Second)
	share := &Share{}
	startFollowing(t, a.a, bad, FollowOptions{Share: share, Healer: a.h})
	a.hear(ts, 0, count(ts), in(lost[0]))
	a.end(t)
	until(t, "the bad one hangs", func() bool { return hung.Load() > 0 })
	startFollowing(t, a.a, servePeer(t, b.a), FollowOptions{Share: share, Healer: a.h})
	until(t, "healed with the other one", func() bool { return len(identities(t, a.a)) == len(clean) })
}
