package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// outcome is what the checker found of one scenario.
type outcome struct {
	pictures  int // sent while all nodes were there, or should have been
	missing   int // due, and not in an export
	excused   int // neither due nor there
	segments  int
	cleanAll  int // received clean by every node
	cleanOne  int // by exactly one
	cleanNone int // by none
	stalls    int // times that the machine stalled
	together  int // segments that the nodes together received all of
	due       int // of them, those that must be clean in the end
	healed    int // of them, clean on all nodes in the end
	wrong     int // called clean, and not what was sent
	media     int64
	between   int64
	settled   time.Duration // from the last fault until all archives were equal and whole
	delays    []time.Duration
	datagrams int64
	lost      []int64       // datagrams by node, by chance and in bursts
	blocked   []int64       // datagrams by node, while it had no source
	dated     time.Duration // by how much the nodes' times of a segment differ at most
	peak      int64         // most memory of a node, bytes
}

// finish ends all sending, waits until the archives have settled, and compares
// them with what was sent.
func (l *lab) finish(ctx context.Context) (*outcome, error) {
	if l.calm.IsZero() {
		l.calm = time.Now()
	}
	if err := l.wait(ctx, 30*time.Second, "all nodes listen", l.allListen); err != nil {
		return nil, err
	}
	if err := sleep(ctx, 10*time.Second); err != nil { // two segments
		return nil, err
	}
	l.stopSources()
	l.sending.Wait()
	// The nodes notice, and close the segments that were open.
	if err := l.wait(ctx, 30*time.Second, "all nodes notice the end of the source", func() bool {
		for _, n := range l.nodes {
			if n.mode(ctx) != "offline" {
				return false
			}
		}
		return true
	}); err != nil {
		return nil, err
	}
	o := &outcome{}
	l.settle(ctx, o)
	l.account(o)
	for _, n := range l.nodes {
		if err := n.stop(); err != nil {
			l.fault("%v", err)
		}
		if k := n.logged("panic:") + n.logged("msg=panic"); k > 0 {
			l.fault("%s has panicked %d times", n.name, k)
		}
		o.peak = max(o.peak, n.peak)
	}
	for s := range l.streams {
		if err := l.keepExpected(s); err != nil {
			return o, err
		}
		if err := l.check(ctx, s, o); err != nil {
			return o, err
		}
	}
	return o, nil
}

// keepExpected writes what must come of a stream beside the archives, for
// whoever looks into a failure.
func (l *lab) keepExpected(s int) error {
	type segment struct {
		ID                  string
		First, Last         uint64 // pictures
		DueFrom, DueTo      uint64 // of them, [DueFrom, DueTo) must be there
		Clean               []bool // at each node's reception
		Together, EndsClean bool
		Sent, Done          time.Time
	}
	var list []segment
	src := l.sources[s]
	for _, e := range l.expect(s) {
		list = append(list, segment{e.id.String(), e.first, e.last, e.from, e.to, e.clean, e.due, e.sure, src.times[e.reference.from], src.times[e.done]})
	}
	b, err := json.MarshalIndent(list, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(l.dir, l.streams[s]+"-expected.json"), b, 0o644)
}

// settle waits until all archives are equal and hold clean what is due, or do
// not change any more.
func (l *lab) settle(ctx context.Context, o *outcome) {
	const still = 30 * time.Second
	until := time.Now().Add(3*time.Minute + l.length)
	var before string
	changed := time.Now()
	for ctx.Err() == nil {
		state, done := l.state(ctx)
		if done {
			o.settled = time.Since(l.calm)
			l.log.Printf("all archives are equal and whole")
			return
		}
		if state != before {
			l.log.Print(state)
			before, changed = state, time.Now()
		}
		if time.Since(changed) > still || time.Now().After(until) {
			l.log.Printf("nothing changes any more")
			o.settled = changed.Sub(l.calm)
			return
		}
		sleep(ctx, time.Second)
	}
}

// state says how far the archives are; done: nothing is left to do.
func (l *lab) state(ctx context.Context) (text string, done bool) {
	differ, lacking := 0, 0
	for s, name := range l.streams {
		for _, n := range l.nodes[1:] {
			if _, _, status := l.program(ctx, 0, "diff-archive", l.nodes[0].stream(name), n.stream(name)); status != 0 {
				differ++
			}
		}
		list := l.expect(s)
		for _, n := range l.nodes {
			have := cleanIdentities(n.stream(name))
			for _, e := range list {
				if e.sure && !have[e.id] {
					lacking++
				}
			}
		}
	}
	return fmt.Sprintf("%d pairs of archives differ, %d segments are not clean yet", differ, lacking), differ+lacking == 0
}

// cleanIdentities are the segments of a view that are said to be undamaged.
func cleanIdentities(dir string) map[m4f.Identity]bool {
	have := map[m4f.Identity]bool{}
	els, err := view(dir)
	if err != nil {
		return have
	}
	for i := range els {
		if !els[i].Damaged() {
			have[els[i].ID] = true
		}
	}
	return have
}

func view(dir string) ([]archive.Element, error) {
	a, err := archive.Open(dir)
	if err != nil {
		return nil, err
	}
	return a.Span(0, 0)
}

// expect works out what must come of a stream. The sources have ended.
func (l *lab) expect(s int) []expected {
	if list, ok := l.expected[s]; ok {
		return list
	}
	list := l.workOut(s)
	l.expected[s] = list
	return list
}

func (l *lab) workOut(s int) []expected {
	src := l.sources[s]
	src.mu.Lock()
	defer src.mu.Unlock()
	var nodes []heard
	for i, n := range l.nodes {
		p := src.paths[i]
		p.mu.Lock()
		h := heard{given: p.given.clone()}
		p.mu.Unlock()
		for d := range h.given {
			h.given[d] = h.given[d] && !src.afterStall(src.times[d])
		}
		n.mu.Lock()
		h.lives = slices.Clone(n.lives)
		n.mu.Unlock()
		h.deaf(src.times)
		nodes = append(nodes, h)
	}
	list := expectations(src.segs, src.times, src.periods, nodes, l.begin)
	clean, err := union(src.opt, src.segs, src.times, src.periods, nodes)
	if err != nil {
		l.fault("%s: %v", l.streams[s], err)
		return list
	}
	for i := range list {
		list[i].sure = list[i].due && clean[list[i].id]
	}
	return list
}

// account adds up what the paths and the network have counted.
func (l *lab) account(o *outcome) {
	o.lost, o.blocked = make([]int64, len(l.nodes)), make([]int64, len(l.nodes))
	for _, s := range l.sources {
		o.stalls = max(o.stalls, len(s.stalls))
		o.datagrams += int64(len(s.times))
		for i, p := range s.paths {
			o.lost[i] += p.counts.lost()
			o.blocked[i] += p.counts.blocked
		}
	}
	between, err := l.net.between()
	if err != nil {
		l.fault("counting the bytes between the nodes: %v", err)
	}
	o.between = between
}

// check compares the archives of one stream with what was sent.
func (l *lab) check(ctx context.Context, s int, o *outcome) error {
	list := l.expect(s)
	first := l.checkViews(s, o)
	l.checkSegments(s, list, o)
	numbers, err := l.export(ctx, s)
	if err != nil {
		return err
	}
	l.checkPictures(s, list, numbers, o)
	for i := range first {
		o.media += int64(first[i].Length)
	}
	return nil
}

// checkViews wants equal views, and nothing called clean that is not.
func (l *lab) checkViews(s int, o *outcome) []archive.Element {
	src := l.sources[s]
	name := l.streams[s]
	right, done := map[m4f.Identity]bool{}, map[m4f.Identity]time.Time{}
	for _, r := range src.segs {
		right[r.id], done[r.id] = true, src.times[r.done]
	}
	var first []archive.Element
	for i, n := range l.nodes {
		els, err := view(n.stream(name))
		if err != nil {
			l.fault("%s of %s: %v", name, n.name, err)
			continue
		}
		if i == 0 {
			first = els
		} else if d := differ(first, els); d != "" {
			l.fault("the views of %s at %s and %s differ: %s", name, l.nodes[0].name, n.name, d)
		} else {
			o.dated = max(o.dated, datedApart(first, els))
		}
		seen := map[m4f.Identity]bool{}
		for _, r := range records(n.stream(name)) {
			if !r.Clean() || l.before[r.ID] {
				continue
			}
			if !right[r.ID] {
				o.wrong++
				l.fault("%s of %s: segment %s at %s is called clean and is not what was sent", name, n.name, r.ID, r.UTC.Time())
			}
			if !seen[r.ID] && r.Origin != archive.Live && right[r.ID] && done[r.ID].After(l.begin) {
				// By the node's own clock, which may be a year ahead.
				if d := time.UnixMilli(r.Arrived).Sub(done[r.ID]); d < 24*time.Hour {
					o.delays = append(o.delays, d)
				}
			}
			seen[r.ID] = true
		}
	}
	return first
}

// datedApart is by how much the times of two equal views differ at most.
func datedApart(a, b []archive.Element) (most time.Duration) {
	for i := range a {
		most = max(most, m4f.Duration(int64(a[i].UTC-b[i].UTC)).Abs())
	}
	return most
}

// records are all segments of an archive in order of arrival.
func records(dir string) (list []archive.Record) {
	a, err := archive.Open(dir)
	if err != nil {
		return nil
	}
	for at := archive.Cursor(""); ; {
		recs, next, err := a.ReadChanges(at, 10000)
		if err != nil || len(recs) == 0 {
			return list
		}
		list, at = append(list, recs...), next
	}
}

// differ says where two views differ, or "".
func differ(a, b []archive.Element) string {
	for i := range min(len(a), len(b)) {
		if a[i].ID != b[i].ID || a[i].Damaged() != b[i].Damaged() || a[i].Partial() != b[i].Partial() {
			return fmt.Sprintf("at %s %s (damaged %v, partial %v), at %s %s (damaged %v, partial %v)",
				a[i].UTC.Time(), a[i].ID, a[i].Damaged(), a[i].Partial(), b[i].UTC.Time(), b[i].ID, b[i].Damaged(), b[i].Partial())
		}
	}
	if len(a) != len(b) {
		return fmt.Sprintf("%d and %d segments", len(a), len(b))
	}
	return ""
}

// checkSegments counts what each node received clean and what became clean.
func (l *lab) checkSegments(s int, list []expected, o *outcome) {
	have := make([]map[m4f.Identity]bool, len(l.nodes))
	for i, n := range l.nodes {
		have[i] = cleanIdentities(n.stream(l.streams[s]))
	}
	for _, e := range list {
		o.segments++
		clean := 0
		for _, c := range e.clean {
			if c {
				clean++
			}
		}
		switch clean {
		case 0:
			o.cleanNone++
		case len(l.nodes):
			o.cleanAll++
		}
		if clean == 1 {
			o.cleanOne++
		}
		if e.due {
			o.together++
		}
		if !e.sure {
			continue
		}
		o.due++
		everywhere := true
		for i := range have {
			everywhere = everywhere && have[i][e.id]
		}
		if everywhere {
			o.healed++
		} else if o.due-o.healed <= 5 {
			l.log.Printf("%s: pictures %d to %d, all received, are not clean on all nodes (clean at their reception: %v)",
				l.streams[s], e.first, e.last, e.clean)
		}
	}
}

// export exports a stream at every node, wants equal files, and returns the
// numbers of the pictures that ffmpeg decodes of them.
func (l *lab) export(ctx context.Context, s int) ([]uint64, error) {
	var sum [sha256.Size]byte
	var numbers []uint64
	for i, n := range l.nodes {
		file := filepath.Join(l.dir, fmt.Sprintf("%s-%s.mp4", n.name, l.streams[s]))
		args := []string{"export", n.stream(l.streams[s]), "-o", file}
		if l.exportFrom != 0 {
			args = append(args, "--from", stamp(l.exportFrom))
		}
		if to := l.lastWhole(s, n); to != 0 {
			args = append(args, "--to", stamp(to))
		}
		_, errs, status := l.program(ctx, i, args...)
		if status != 0 && status != 1 {
			return nil, fmt.Errorf("export at %s: status %d: %s", n.name, status, errs)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		got := sha256.Sum256(b)
		if i > 0 && got == sum {
			continue // equal bytes: decoded already
		}
		if i > 0 {
			l.fault("the exports of %s at %s and %s differ", l.streams[s], l.nodes[0].name, n.name)
		}
		sum = got
		list, err := l.decode(ctx, file, status)
		if err != nil {
			return nil, err
		}
		if i == 0 || len(list) < len(numbers) {
			numbers = list
		}
	}
	return numbers, nil
}

// stamp is a time as the commands read it, rounded down to a tick.
func stamp(u m4f.UTC) string { return u.Time().Format(time.RFC3339Nano) }

// lastWhole is where at a node the last segment of a stream ends that its source
// sent whole: behind it a picture may be cut.
func (l *lab) lastWhole(s int, n *node) (to m4f.UTC) {
	right := map[m4f.Identity]bool{}
	for _, r := range l.sources[s].segs {
		right[r.id] = true
	}
	els, err := view(n.stream(l.streams[s]))
	if err != nil {
		return 0
	}
	for i := range els {
		if right[els[i].ID] {
			to = max(to, els[i].End())
		}
	}
	return to
}

// decode decodes an export; what decodes must be what is in it.
func (l *lab) decode(ctx context.Context, file string, status int) ([]uint64, error) {
	d, err := decode(ctx, file)
	if err != nil {
		return nil, err
	}
	shown := d.pictures
	if status != 0 {
		shown = nil // ffmpeg makes up pictures where something is missing
	}
	for _, list := range [][]uint64{d.inside, shown} {
		if twice := repeated(list); len(twice) > 0 {
			l.fault("%d pictures are twice in %s, the first %d", len(twice), filepath.Base(file), twice[0])
		}
	}
	if status != 0 {
		// Of what is damaged, only what looks right counts.
		return slices.DeleteFunc(d.pictures, func(n uint64) bool { return slices.Contains(d.unlike, n) }), nil
	}
	if len(d.pictures) != len(d.inside) {
		l.fault("%s holds %d pictures, and %d decode", filepath.Base(file), len(d.inside), len(d.pictures))
	}
	if len(d.unlike) > 0 {
		l.fault("%d pictures of %s do not look as they were sent, the first %d", len(d.unlike), filepath.Base(file), d.unlike[0])
	}
	if len(d.complaints) > 0 {
		l.fault("ffmpeg complains of %s %d times: %s", filepath.Base(file), len(d.complaints), d.complaints[0])
	}
	return d.pictures, nil
}

// repeated are the numbers that a list holds again.
func repeated(list []uint64) (twice []uint64) {
	seen := make(map[uint64]bool, len(list))
	for _, n := range list {
		if seen[n] {
			twice = append(twice, n)
		}
		seen[n] = true
	}
	return twice
}

// checkPictures wants every picture that is due.
func (l *lab) checkPictures(s int, list []expected, numbers []uint64, o *outcome) {
	have := map[uint64]bool{}
	for _, n := range numbers {
		have[n] = true
	}
	for _, e := range list {
		for n := e.first; n <= e.last; n++ {
			o.pictures++
			switch due := n >= e.from && n < e.to; {
			case have[n]:
			case due:
				if o.missing++; o.missing <= 5 {
					l.fault("%s: picture %d was received and is missing", l.streams[s], n)
				}
			default:
				o.excused++
			}
		}
	}
}
