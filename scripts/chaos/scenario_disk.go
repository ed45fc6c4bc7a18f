package main

import (
	"context"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// diskFull fills the disk of the first node.
func diskFull(ctx context.Context, l *lab) (*outcome, error) {
	if err := l.begun(ctx); err != nil {
		return nil, err
	}
	a := l.nodes[0]
	began := time.Now()
	a.halt(true)
	a.disk.fill()
	l.inject("full disks")
	noticed := false
	for end := l.until(); time.Now().Before(end); {
		if err := sleep(ctx, time.Second); err != nil {
			return nil, err
		}
		st := a.status(ctx)
		l.want(st != nil, "%s does not answer while its disk is full", a.name)
		noticed = noticed || st != nil && st.Streams[0].Archive.Error != ""
	}
	l.want(noticed, "%s did not say that its disk is full", a.name)
	if err := a.disk.free(); err != nil {
		return nil, err
	}
	ended := time.Now()
	l.over()
	if err := l.wait(ctx, time.Minute, a.name+" records again", func() bool {
		for _, name := range l.streams {
			if !recordedWhole(a.stream(name), ended) {
				return false
			}
		}
		return true
	}); err != nil {
		return nil, err
	}
	a.halt(false)
	o, err := l.finish(ctx)
	if err != nil {
		return nil, err
	}
	for s := range l.streams {
		l.unaffected(s, l.nodes[1], began, ended)
	}
	l.want(o.cleanOne > 0, "no segment was lost by the full disk")
	l.want(o.between < 2*o.media, "%d bytes went between the nodes for %d bytes of media", o.between, o.media)
	const most = 256 << 20
	l.want(a.peak < most, "%s took %d MB of memory", a.name, a.peak>>20)
	l.wantNothingMissing(o)
	return o, nil
}

// unaffected wants a node to have recorded everything of a time itself.
func (l *lab) unaffected(s int, n *node, from, to time.Time) {
	own := map[m4f.Identity]bool{}
	for _, r := range records(n.stream(l.streams[s])) {
		if r.Origin == archive.Live {
			own[r.ID] = true
		}
	}
	src := l.sources[s]
	for _, r := range src.segs {
		if src.times[r.from].After(from) && src.times[r.done].Before(to) && !own[r.id] {
			l.fault("%s did not record pictures %d to %d itself", n.name, r.first, r.last)
		}
	}
}
