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
	harm, err := harmed(list)
	if err != nil {
		return err
	}
	hit := map[m4f.Identity]bool{}
	for _, f := range list {
		if ok != nil && slices.ContainsFunc(harm[f], func(id m4f.Identity) bool { return !ok(id) }) {
			continue
		}
		if err := f.make(); err != nil {
			return err
		}
		l.inject("bit flips")
		for _, id := range harm[f] {
			hit[id] = true
		}
	}
	began := time.Now()
	out, errs, status := l.program(ctx, n.i, "verify", dir)
	l.want(status == 1 || len(hit) == 0, "verify of %s ended with status %d after %d bits were flipped in %d segments: %s%s",
		name, status, len(list), len(hit), out, errs)
	l.log.Printf("verify of %s after %d flips in %d segments: %v, %d lines", name, len(list), len(hit), time.Since(began).Round(time.Millisecond), strings.Count(out, "\n"))
	bad := unreadable(dir)
	l.want(len(bad) == 0, "verify of %s left %d bad segments in the view: %v", name, len(bad), bad)
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
