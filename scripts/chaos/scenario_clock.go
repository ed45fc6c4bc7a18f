package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

const year = 365 * 24 * time.Hour

// oldHours is how many hours of an archive lie behind the recording whose clock
// is wrong.
const oldHours = 30

// clockAhead sets the clock of the first node a year ahead, for longer than it
// takes to prune once.
func clockAhead(ctx context.Context, l *lab) (*outcome, error) {
	if err := l.configure(crossed); err != nil {
		return nil, err
	}
	if err := l.recordOld(ctx); err != nil {
		return nil, err
	}
	if err := l.start(ctx); err != nil {
		return nil, err
	}
	l.exportFrom = m4f.UTCOf(time.Now().Add(-time.Hour))
	a := l.nodes[0]
	if err := a.setClock(year); err != nil {
		return nil, err
	}
	l.inject("clocks a year ahead")
	// Its source goes for a while, longer than it takes to notice, so that a
	// timeline begins anew while the clock is wrong.
	const before, gone = 20 * time.Second, 9 * time.Second
	for _, d := range []time.Duration{before, gone, max(l.length, 70*time.Second) - before - gone} { // it prunes once a minute
		l.block(0, d == gone)
		if err := sleep(ctx, d); err != nil {
			return nil, err
		}
	}
	l.inject("source losses")
	st := a.status(ctx)
	l.want(st != nil && st.Streams[0].Archive.Lag != nil && *st.Streams[0].Archive.Lag > year.Seconds()/2,
		"%s did not see the clock that it was given", a.name)
	if err := a.setClock(0); err != nil {
		return nil, err
	}
	l.over()
	o, err := l.finish(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range l.nodes {
		l.keptOld(n)
	}
	l.want(l.logsClock(a), "no event of %s says that its clock stepped", a.name)
	l.wantNothingMissing(o)
	return o, nil
}

// recordOld gives both nodes the same hours of archive, of a few seconds each.
func (l *lab) recordOld(ctx context.Context) error {
	clip := filepath.Join(l.dir, "old.ts")
	f, err := os.Create(clip)
	if err != nil {
		return err
	}
	defer f.Close()
	src := exec.CommandContext(ctx, l.opt.twindvr, "testsrc", "--duration", "12s")
	src.Stdout = f
	if err := src.Run(); err != nil {
		return fmt.Errorf("a clip for old hours: %w", err)
	}
	m4fFile := filepath.Join(l.dir, "old.m4f")
	for h := oldHours; h > 1; h-- {
		start := time.Now().Add(-time.Duration(h) * time.Hour).UTC().Format(time.RFC3339)
		out, errs, status := l.program(ctx, 0, "ingest", clip, "--start", start)
		if status != 0 {
			return fmt.Errorf("ingest: status %d: %s", status, errs)
		}
		if err := os.WriteFile(m4fFile, []byte(out), 0o644); err != nil {
			return err
		}
		for _, n := range l.nodes {
			in, err := os.Open(m4fFile)
			if err != nil {
				return err
			}
			rec := exec.CommandContext(ctx, l.opt.twindvr, "record", n.stream(l.streams[0]))
			rec.Stdin = in
			out, err := rec.CombinedOutput()
			in.Close()
			if err != nil {
				return fmt.Errorf("record: %w: %s", err, out)
			}
		}
	}
	l.before = map[m4f.Identity]bool{}
	for _, r := range records(l.nodes[0].stream(l.streams[0])) {
		l.before[r.ID] = true
	}
	return nil
}

// keptOld wants all old hours to be there still.
func (l *lab) keptOld(n *node) {
	a, err := archive.Open(n.stream(l.streams[0]))
	if err != nil {
		l.fault("%v", err)
		return
	}
	hours, err := a.Hours(0, 0)
	if err != nil {
		l.fault("%v", err)
		return
	}
	old := 0
	for _, h := range hours {
		if h.Start.Time().Before(l.begin.Add(-time.Hour)) {
			old++
		}
	}
	// The last of them may be the hour before that of the recording.
	l.want(old >= oldHours-2, "%s has %d of %d old hours", n.name, old, oldHours-1)
	if horizon, err := a.Horizon(); err == nil {
		l.want(horizon.Time().Before(l.begin.Add(-oldHours*time.Hour)), "the horizon of %s has moved to %v", n.name, horizon.Time())
	}
}

// logsClock says whether an event tells of a step of the clock.
func (l *lab) logsClock(n *node) bool {
	a, err := archive.Open(n.stream(l.streams[0]))
	if err != nil {
		return false
	}
	events, _ := a.Events(0, 0)
	for _, e := range events {
		if e.Kind == "clock" {
			l.log.Printf("%s: %s", n.name, e.Msg)
			return true
		}
	}
	return false
}
