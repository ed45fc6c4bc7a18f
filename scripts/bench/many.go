package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// lateAfter is how long behind its end a segment may come into the archive: a
// standby then takes it from a peer that has it.
const lateAfter = 2 * time.Second

var (
	late    = newMetric("late", "segments", 0).ofMost()
	delay   = newMetric("latest", "s behind the end", 2).ofMost()
	unheard = newMetric("missing", "s", 2).ofMost() // of media, of all streams
	slower  = newMetric("sender behind", "s", 1).ofMost()
	begun   = newMetric("all heard", "s", 2)
)

// measureMany records many streams for a long time. The sender has to share the
// machine.
func (b *bench) measureMany(ctx context.Context, t *table) error {
	c, err := b.compare(ctx, t, many(b.many, "stream"), float64(b.many), []contender{{name: "twindvr", run: b.runMany}})
	if err != nil {
		return err
	}
	t.atMost("packets lost", highest(c.values("twindvr", lost)), 0, "")
	t.atMost("media missing", highest(c.values("twindvr", unheard)), 0, "s")
	t.atMost("segments late", highest(c.values("twindvr", late)), 0, "")
	t.atMost("memory", c.values("twindvr", perStream), 12, "MB a stream")
	t.note("%v. A segment is late that comes into the archive more than %v behind its end.", b.long, lateAfter)
	t.note("Where the sender is behind by more than a second the machine was too busy, and segments are late because of that.")
	t.note("Lost are transport packets; missing is media that no segment has, a picture at the end of each stream aside.")
	t.note("The beginnings of files are given back to the disk as they grow, which holds no more: pruning takes whole hours.")
	return nil
}

func (b *bench) runMany(ctx context.Context) (sample, error) {
	dir, err := os.MkdirTemp(b.dir, "many-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	long := *b
	long.duration = b.long
	recorded, stop := context.WithCancel(ctx)
	var beside sync.WaitGroup
	beside.Go(func() { giveBack(recorded, dir) })
	r, err := long.record(ctx, dir, b.supervise(""), b.many)
	stop()
	beside.Wait()
	if err != nil {
		return nil, err
	}
	s := r.s
	s[slower] = max(r.took-b.long, 0).Seconds()
	bytes, err := b.judgeMany(dir, s)
	s.use(r.used, bytes)
	return s, err
}

// judgeMany looks at what the archives say of themselves, and returns the bytes
// of all segments.
func (b *bench) judgeMany(dir string, s sample) (bytes int64, err error) {
	s[lost], s[late], s[delay], s[unheard] = 0, 0, 0, 0
	for i := range b.many {
		a, err := archive.Open(filepath.Join(dir, "archive", fmt.Sprintf("s%03d", i)))
		if err != nil {
			return 0, err
		}
		media := int64(0)
		err = a.Each(0, 0, func(e *archive.Element) error {
			bytes += int64(e.Length)
			media += int64(e.Duration)
			s[lost] += float64(e.Lost)
			behind := time.UnixMilli(e.Arrived).Sub(e.End().Time())
			s[delay] = max(s[delay], behind.Seconds())
			if behind > lateAfter {
				s[late]++
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
		const picture = m4f.Timescale / 25
		if missing := m4f.Ticks(b.long) - picture - media; missing > 0 {
			s[unheard] += float64(missing) / m4f.Timescale
		}
	}
	return bytes, nil
}

// keptBack is how much of the end of a growing file stays on the disk.
const keptBack = 4 << 20

// giveBack makes holes of the beginnings of media below dir, behind the init
// segment, until ctx ends. Where the file system has none, the disk must hold all.
func giveBack(ctx context.Context, dir string) {
	for pause(ctx, 5*time.Second) == nil {
		_ = eachMedia(dir, func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			st, err := f.Stat()
			if err != nil || st.Size() < 2*keptBack {
				return err
			}
			const head = 1 << 20
			return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, head, st.Size()-keptBack-head)
		})
	}
}

// measureFast records one fast stream.
func (b *bench) measureFast(ctx context.Context, t *table) error {
	fast := *b
	fast.bitrate = pick(b, int64(800_000_000), 50_000_000)
	fast.duration = min(b.duration, 10*time.Second) // the disk and the count hold a gigabyte
	name := fmt.Sprintf("%d Mbit/s", fast.bitrate/1e6)
	c, err := b.compare(ctx, t, name, float64(fast.bitrate)/1e6, []contender{{name: "twindvr", run: func(ctx context.Context) (sample, error) {
		return fast.udp(ctx, "fast", b.supervise("  segment_duration 500ms;\n"), false, 1)
	}}})
	if err != nil {
		return err
	}
	t.atMost("pictures lost", highest(c.values("twindvr", lost)), 0, "")
	return nil
}

// measureStartup starts a node whose sources are sending.
func (b *bench) measureStartup(ctx context.Context, t *table) error {
	c, err := b.compare(ctx, t, many(b.many, "stream"), float64(b.many), []contender{{name: "twindvr", run: b.startup}})
	if err != nil {
		return err
	}
	t.atMost("from start until all streams are heard", c.values("twindvr", begun), 2, "s")
	t.note("Heard from when its socket is open: from then on all that comes is recorded.")
	return nil
}

func (b *bench) startup(ctx context.Context) (s sample, err error) {
	dir, err := os.MkdirTemp(b.dir, "startup-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	first := freePorts(b.many)
	sending := *b
	sending.duration = pick(b, 15*time.Second, 6*time.Second)
	sent := make(chan error, 1)
	go func() {
		_, _, err := sending.send(first, b.many)
		sent <- err
	}()
	defer func() { err = errors.Join(err, <-sent) }()
	if err := pause(ctx, time.Second); err != nil { // it sends by then
		return nil, err
	}
	began := time.Now()
	procs, err := b.supervise("")(dir, first, b.many)
	if err != nil {
		return nil, err
	}
	for !bound(first, b.many) {
		if time.Since(began) > time.Minute || ctx.Err() != nil {
			kill(procs)
			return nil, errors.New("not all streams are heard after a minute")
		}
		time.Sleep(5 * time.Millisecond)
	}
	s = sample{begun: time.Since(began).Seconds()}
	err = <-sent
	sent <- nil
	time.Sleep(time.Second) // for what is still on its way
	if _, serr := stopAll(procs); errors.Join(err, serr) != nil {
		return nil, errors.Join(err, serr)
	}
	for i := range b.many { // and that they were
		a, err := archive.Open(filepath.Join(dir, "archive", fmt.Sprintf("s%03d", i)))
		if err != nil {
			return nil, err
		}
		if all, err := a.Span(0, 0); err != nil || len(all) == 0 {
			return nil, errors.Join(fmt.Errorf("stream %d has no segment", i), err)
		}
	}
	return s, nil
}
