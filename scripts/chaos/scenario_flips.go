package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// flipCount is how many bits are flipped, in all streams.
const flipCount = 1000

// bitFlips records for a time, flips bits in the archive of the first node
// while it runs, and has verify look for them.
func bitFlips(ctx context.Context, l *lab) (*outcome, error) {
	if _, errs, status := l.program(ctx, 0, "verify", "--help"); status != 0 {
		return nil, &errSkip{fmt.Errorf("the program has no verify: %s", firstLine(errs))}
	}
	if err := l.begun(ctx); err != nil {
		return nil, err
	}
	if err := sleep(ctx, l.length); err != nil {
		return nil, err
	}
	a := l.nodes[0]
	for _, name := range l.streams {
		if err := l.flipAndVerify(ctx, a, name, flipCount/len(l.streams), l.rng, nil); err != nil {
			return nil, err
		}
	}
	l.over()
	o, err := l.finish(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range l.streams {
		bad := unreadable(a.stream(name))
		l.want(len(bad) == 0, "%d segments of %s are in the view and cannot be read: %v", len(bad), name, bad)
	}
	l.want(l.counts["bit flips"] >= flipCount, "only %d bits were flipped", l.counts["bit flips"])
	l.wantNothingMissing(o)
	return o, nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

// flipAndVerify flips bits of one stream of a node and runs verify, after which
// nothing that was touched may be in the view unless it reads well. ok, if not
// nil, says which segments may be touched.
func (l *lab) flipAndVerify(ctx context.Context, n *node, name string, count int, rng *rand.Rand, ok func(m4f.Identity) bool) error {
	dir := n.stream(name)
	list, err := chooseFlips(dir, count, rng)
	if err != nil {
		return err
	}
	where, err := places(list)
	if err != nil {
		return err
	}
	hit := map[m4f.Identity]bool{}
	var done []flip
	for _, f := range list {
		if f.aside() || ok != nil && slices.ContainsFunc(where[f].ids, func(id m4f.Identity) bool { return !ok(id) }) {
			continue
		}
		if err := f.make(); err != nil {
			return err
		}
		l.inject("bit flips")
		done = append(done, f)
		for _, id := range where[f].ids {
			hit[id] = true
		}
	}
	return l.verify(ctx, n, dir, done, where, hit)
}

// verify runs verify at a node: it must tell of all flips, and leave nothing bad
// in the view.
func (l *lab) verify(ctx context.Context, n *node, dir string, done []flip, where map[flip]place, hit map[m4f.Identity]bool) error {
	began := time.Now()
	out, errs, status := l.program(ctx, n.i, "verify", "--json", dir)
	found, err := damages(out)
	if err != nil {
		return fmt.Errorf("verify of %s: status %d: %w: %s", dir, status, err, errs)
	}
	l.want(status == 1 || len(done) == 0, "verify of %s ended with status %d after %d flips: %s", dir, status, len(done), errs)
	missed := 0
	for _, f := range done {
		if !f.found(dir, where[f], found) {
			if missed++; missed <= 3 {
				l.log.Printf("not found: bit %d of byte %d of %s, in %d to %d", f.bit, f.offset, f.file, where[f].from, where[f].to)
			}
		}
	}
	l.want(missed == 0, "verify did not tell of %d flips of %d", missed, len(done))
	l.log.Printf("verify of %s after %d flips in %d segments: %d damages told in %v", dir, len(done), len(hit), len(found), time.Since(began).Round(time.Millisecond))
	bad := unreadable(dir)
	l.want(len(bad) == 0, "verify of %s left %d bad segments in the view: %v", dir, len(bad), bad)
	for range hit {
		l.inject("segments hit")
	}
	return nil
}

// unreadable are the segments of a view whose bytes are not what they should
// be.
func unreadable(dir string) (bad []m4f.Identity) {
	a, err := archive.Open(dir)
	if err != nil {
		return nil
	}
	els, err := a.Span(0, 0)
	if err != nil {
		return nil
	}
	for i := range els {
		if _, err := a.ReadElement(&els[i]); err != nil {
			// It may have been set aside since the view was read.
			if has, _ := a.Has(els[i].ID, els[i].UTC); has {
				bad = append(bad, els[i].ID)
			}
		}
	}
	return bad
}
