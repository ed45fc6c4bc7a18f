package main

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/segment"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

// made is a source whose stream was made without sending it, one datagram a
// millisecond, to two nodes.
func made(t *testing.T, d time.Duration) (*source, time.Time) {
	t.Helper()
	s, err := newSource(target, 2_000_000, 90000, []*path{newPath(testsrc.NewOutput("a", io.Discard, testsrc.Loss{}), 1, 1), newPath(testsrc.NewOutput("b", io.Discard, testsrc.Loss{}), 1, 2)})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Unix(1_800_000_000, 0)
	for {
		p, due, _ := s.gen.Next()
		if due > d {
			return s, start
		}
		s.times = append(s.times, start.Add(due))
		s.index(p)
		s.ref.Write(p)
	}
}

// all is a node that was given everything, from the start on.
func all(s *source, start time.Time) heard {
	return heard{slices.Repeat([]bool{true}, len(s.times)), []life{{from: start.Add(-time.Second)}}}
}

func TestReferenceCoversTheStream(t *testing.T) {
	s, _ := made(t, 30*time.Second)
	if s.err != nil || len(s.segs) < 6 {
		t.Fatalf("%d segments: %v", len(s.segs), s.err)
	}
	for i, r := range s.segs {
		if r.to <= r.from || r.done < r.to-1 {
			t.Errorf("segment %d: datagrams %d to %d, done at %d", i, r.from, r.to, r.done)
		}
		if i == 0 {
			continue
		}
		if before := s.segs[i-1]; r.first != before.last+1 || r.from > before.to || r.from < before.to-1 {
			t.Errorf("segment %d does not follow the one before: %+v %+v", i, before, r)
		}
	}
}

// A node that begins to listen, or lost its source for as long as it takes to give it up, uses
// nothing until the tables have come.
func TestDeafUntilTheTables(t *testing.T) {
	s, start := made(t, 30*time.Second)
	after := func(d time.Duration) time.Time { return start.Add(d) }
	h := all(s, start)
	h.lives = []life{{from: after(time.Second)}, {from: after(5 * time.Second)}}
	comes := []time.Time{s.times[0], h.lives[0].from, h.lives[1].from}
	for d, at := range s.times {
		short := at.After(after(8*time.Second)) && at.Before(after(12500*time.Millisecond))
		long := at.After(after(15*time.Second)) && at.Before(after(20500*time.Millisecond))
		h.given[d] = !short && !long
		if long && d+1 < len(s.times) && !s.times[d+1].Before(after(20500*time.Millisecond)) {
			comes = append(comes, s.times[d+1])
		}
	}
	before := slices.Clone(h.given)
	h.deaf(s.times)
	if len(comes) != 4 {
		t.Fatal(comes)
	}
	for d, at := range s.times {
		near := slices.ContainsFunc(comes, func(c time.Time) bool { return !at.Before(c) && at.Before(c.Add(tables)) })
		if h.given[d] != (before[d] && !near) {
			t.Fatalf("datagram %d at %v counts: %v", d, at.Sub(start), h.given[d])
		}
	}
}

// What a segment owes follows from what the nodes were given.
func TestExpectations(t *testing.T) {
	s, start := made(t, 30*time.Second)
	seg := s.segs[3]
	middle := (seg.from + seg.to) / 2
	secondGOP := s.periods[seg.first+gop]
	for _, v := range []struct {
		name     string
		change   func(a, b *heard)
		clean    []bool
		due      bool
		pictures uint64 // that must be there
	}{
		{"nothing lost", func(a, b *heard) {}, []bool{true, true}, true, 100},
		{"one lost at a", func(a, b *heard) { a.given[middle] = false }, []bool{false, true}, true, 100},
		{"one lost at each", func(a, b *heard) { a.given[middle], b.given[middle+1] = false, false }, []bool{false, false}, true, 100},
		{"the same lost at both", func(a, b *heard) { a.given[middle], b.given[middle] = false, false }, []bool{false, false}, false, 0},
		{"the same lost at both just before it", func(a, b *heard) {
			a.given[seg.from-2], b.given[seg.from-2] = false, false
		}, []bool{true, true}, true, 100},
		{"a dies in it", func(a, b *heard) { a.lives[0].to = s.times[middle] }, []bool{false, true}, true, 100},
		{"a dies in it, b lost what a had", func(a, b *heard) {
			a.lives[0].to = s.times[middle]
			b.given[middle-1] = false
		}, []bool{false, false}, false, 0},
		{"a dies just behind it", func(a, b *heard) { a.lives[0].to = s.times[seg.done].Add(margin / 2); b.lives = nil }, []bool{false, false}, false, 0},
		{"a dies behind it", func(a, b *heard) { a.lives[0].to = s.times[seg.done].Add(2 * margin); b.lives = nil }, []bool{true, false}, true, 100},
		{"a loses its source at its end and dies, b has its end only", func(a, b *heard) {
			for d := seg.to - 20; d < seg.to+300; d++ {
				a.given[d] = false
			}
			a.lives[0].to = s.times[seg.done].Add(margin)
			b.lives[0].from = s.times[middle]
		}, []bool{false, false}, false, 0},
		{"a loses its source at its end, b has its end only", func(a, b *heard) {
			for d := seg.to - 20; d < seg.to+300; d++ {
				a.given[d] = false
			}
			b.lives[0].from = s.times[middle]
		}, []bool{false, false}, true, 100},
		{"a begins in it, b is down", func(a, b *heard) {
			a.lives[0].from = s.times[secondGOP].Add(-2 * lead)
			b.lives = nil
		}, []bool{false, false}, false, 50},
		{"a begins in it and loses something, b is down", func(a, b *heard) {
			a.lives[0].from = s.times[secondGOP].Add(-2 * lead)
			a.given[seg.to-10] = false
			b.lives = nil
		}, []bool{false, false}, false, 0},
	} {
		t.Run(v.name, func(t *testing.T) {
			a, b := all(s, start), all(s, start)
			v.change(&a, &b)
			e := expect(seg, s.times, s.periods, []heard{a, b})
			if !slices.Equal(e.clean, v.clean) || e.due != v.due || e.to-e.from != v.pictures {
				t.Errorf("clean %v, due %v, %d pictures; want %v, %v, %d", e.clean, e.due, e.to-e.from, v.clean, v.due, v.pictures)
			}
		})
	}
}

// What all nodes lost before a segment excuses it only where that may have been
// its keyframe: where the beginning of a picture is missing.
func TestUnion(t *testing.T) {
	s, start := made(t, 30*time.Second)
	seg := s.segs[3]
	middle := (seg.from + seg.to) / 2
	for _, v := range []struct {
		name   string
		change func(a, b *heard)
		clean  bool
	}{
		{"one lost at each", func(a, b *heard) { a.given[middle], b.given[middle+1] = false, false }, true},
		{"the same lost at both", func(a, b *heard) { a.given[middle], b.given[middle] = false, false }, false},
		{"one lost at a, b is down", func(a, b *heard) { a.given[middle], b.lives = false, nil }, false},
		{"the middle of a picture before lost at both", func(a, b *heard) {
			at := s.periods[seg.first-2] + 3
			a.given[at], b.given[at] = false, false
		}, true},
		{"the beginning of a picture before lost at both", func(a, b *heard) {
			at := s.periods[seg.first-2]
			a.given[at], b.given[at] = false, false
		}, false},
		{"the beginning of a picture before lost at a, b dies before that segment is complete", func(a, b *heard) {
			at := s.periods[seg.first-2]
			a.given[at], b.lives[0].to = false, s.times[at].Add(10*time.Millisecond)
		}, false},
		{"the beginning of a picture before lost at a", func(a, b *heard) { a.given[s.periods[seg.first-2]] = false }, true},
	} {
		t.Run(v.name, func(t *testing.T) {
			a, b := all(s, start), all(s, start)
			v.change(&a, &b)
			clean, err := union(s.opt, s.segs, s.times, s.periods, []heard{a, b})
			if err != nil {
				t.Fatal(err)
			}
			if clean[seg.id] != v.clean {
				t.Errorf("clean %v, want %v", clean[seg.id], v.clean)
			}
		})
	}
}

// A node whose disk is full and that is stopped, too, records again when both
// are over, also if it was started anew meanwhile.
func TestHaltsAdd(t *testing.T) {
	n := &node{lab: &lab{}, hears: true}
	n.beginLife()
	lives := func() (all int, open bool) { return len(n.lives), n.listens() }
	for i, step := range []struct {
		do   func()
		all  int
		open bool
	}{
		{func() { n.halt(true) }, 1, false},
		{func() { n.halt(true) }, 1, false},
		{func() { n.halt(false) }, 1, false},
		{func() { n.beginLife() }, 1, false},
		{func() { n.halt(false) }, 2, true},
	} {
		step.do()
		if all, open := lives(); all != step.all || open != step.open {
			t.Fatalf("step %d: %d lives, one under way: %v; want %d, %v", i, all, open, step.all, step.open)
		}
	}
}

func TestPathLosesWhatItIsTold(t *testing.T) {
	w := newPath(testsrc.NewOutput("", io.Discard, testsrc.Loss{}), 7, 8)
	now := time.Now()
	pass := func(d time.Duration) (passed int) {
		for end := now.Add(d); now.Before(end); now = now.Add(time.Millisecond) {
			if w.passes(now) {
				passed++
			}
		}
		return passed
	}
	if n := pass(time.Second); n != 1000 {
		t.Errorf("without loss %d of 1000 pass", n)
	}
	w.rate = 0.01
	if n := 100_000 - pass(100*time.Second); n < 800 || n > 1200 || int64(n) != w.counts.random {
		t.Errorf("at 1 %% %d of 100000 are lost, %d counted", n, w.counts.random)
	}
	w.rate, w.every, w.burst, w.began = 0, 7*time.Second, 200*time.Millisecond, now
	if n := 70_000 - pass(70*time.Second); n != 9*200 || w.counts.bursts != 9 {
		t.Errorf("in 70 s %d are lost in %d bursts, want 1800 in 9", n, w.counts.bursts)
	}
	w.block(true)
	if n := pass(time.Second); n != 0 || w.counts.blocked != 1000 {
		t.Errorf("%d pass a path that is blocked, %d counted", n, w.counts.blocked)
	}
}

// ffmpeg gives the number of each picture that it decodes.
func TestDecodeReadsNumbers(t *testing.T) {
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is missing")
	}
	file := filepath.Join(t.TempDir(), "x.mp4")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	w := m4f.NewWriter(f)
	for _, sg := range recorded(t, 12*time.Second) {
		if err := w.WriteSegment(sg); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	d, err := decode(t.Context(), file)
	if err != nil || len(d.complaints) > 0 {
		t.Fatal(err, d.complaints)
	}
	if len(d.unlike) > 0 || !slices.Equal(slices.Sorted(slices.Values(d.inside)), slices.Sorted(slices.Values(d.pictures))) {
		t.Errorf("inside %d, decoded %d, unlike %d", d.inside, d.pictures, d.unlike)
	}
	slices.Sort(d.pictures)
	for i, n := range d.pictures {
		if int(n) != i {
			t.Fatalf("picture %d has the number %d", i, n)
		}
	}
	if len(d.pictures) != 300 {
		t.Errorf("%d pictures, want 300", len(d.pictures))
	}
}

// A relay that is cut lets nothing through, and what was held afterwards.
func TestRelayCuts(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	var bytes atomic.Int64
	r, err := newRelay(server.Addr().String(), &bytes)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	c, err := net.Dial("tcp", r.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 5)
	echo := func() error {
		c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Write([]byte("hello")); err != nil {
			return err
		}
		_, err := io.ReadFull(c, b)
		return err
	}
	if err := echo(); err != nil || bytes.Load() != 10 {
		t.Fatal(err, bytes.Load())
	}
	r.cut(true)
	c.Write([]byte("world"))
	c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, err := c.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d bytes through a relay that is cut: %v", n, err)
	}
	r.cut(false)
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "world" {
		t.Fatal(err, string(b))
	}
}

func TestFlipsAreDistinctAndTold(t *testing.T) {
	dir := t.TempDir()
	mp4, idx := filepath.Join(dir, "0000.000.mp4"), filepath.Join(dir, "0000.000.idx")
	for _, f := range []string{mp4, idx} {
		if err := os.WriteFile(f, make([]byte, 10_000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, err := chooseFlips(dir, 500, newPath(nil, 1, 2).rng)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, f := range list {
		if err := f.make(); err != nil {
			t.Fatal(err)
		}
		if f.file == idx {
			count++
		}
	}
	if count != 100 {
		t.Errorf("%d of 500 are in the index", count)
	}
	ones := 0
	for _, f := range []string{mp4, idx} {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range b {
			for ; c > 0; c &= c - 1 {
				ones++
			}
		}
	}
	if ones != 500 {
		t.Errorf("%d bits are flipped, want 500", ones)
	}
}

// Figures of scenarios that did not run stay as they are.
func TestKeepFigures(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(page, []byte("before\n"+figuresBegin+figuresEnd+"after\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	keep := func(name string, pictures int) string {
		sc, err := find(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := keepFigures(page, []*result{{scenario: sc, outcome: &outcome{pictures: pictures}}}); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	keep("cut", 11)
	keep("main-killed", 22)
	got := keep("cut", 33)
	if !strings.HasPrefix(got, "before\n") || !strings.HasSuffix(got, "after\n") || strings.Contains(got, " 11 ") ||
		!strings.Contains(got, " 22 ") || !strings.Contains(got, " 33 ") || strings.Index(got, "main-killed") > strings.Index(got, "| cut") {
		t.Error(got)
	}
}

// Every scenario can be named, says what it must end with, and has a time.
func TestScenarios(t *testing.T) {
	short, whole := time.Duration(0), time.Duration(0)
	for _, s := range scenarios {
		if got, err := find(s.name); err != nil || got != s || s.must == "" || s.fault == "" || s.time == 0 || s.run == nil || s.streams > maxStreams {
			t.Errorf("%+v: %v", s, err)
		}
		short += s.short
		if !s.long {
			whole += s.time
		}
	}
	if short > 3*time.Minute || whole > 45*time.Minute {
		t.Errorf("the faults of the short part take %v, those of all %v", short, whole)
	}
	if _, err := find("none"); err == nil {
		t.Error("a scenario that is not there was found")
	}
}

// A process whose clock is set sees it, and no other does.
func TestClockOfOneProcess(t *testing.T) {
	if os.Getenv("CHAOS_TEST_CLOCK") != "" {
		for {
			time.Sleep(10 * time.Millisecond)
			os.Stdout.WriteString(time.Now().UTC().Format("2006\n"))
		}
	}
	cmd := exec.Command(os.Args[0], "-test.run=TestClockOfOneProcess")
	cmd.Env = append(os.Environ(), "CHAOS_TEST_CLOCK=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	lo := &loopback{}
	var c *wallClock
	lo.on(0, func() { c, err = startWithClock(cmd) })
	if err != nil {
		if cmd.Process != nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
		t.Skip("the clock of one process cannot be set here:", err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	b := make([]byte, 5)
	year := func() string {
		if _, err := io.ReadFull(out, b); err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	now := time.Now().UTC()
	if got := year(); got != now.Format("2006") {
		t.Errorf("it is %s at first", got)
	}
	if err := c.set(366 * 24 * time.Hour); err != nil {
		t.Fatal(err)
	}
	for want := now.AddDate(0, 0, 366).Format("2006"); year() != want; {
	}
	if time.Now().UTC().Year() != now.Year() {
		t.Error("the clock of another process is wrong, too")
	}
}

// recorded are the segments of a stream.
func recorded(t *testing.T, d time.Duration) (list []*m4f.Segment) {
	t.Helper()
	g, err := testsrc.New(testsrc.Options{StartPTS: testsrc.DefaultStartPTS, Duration: d})
	if err != nil {
		t.Fatal(err)
	}
	seg := segment.New(segment.Config{}, func(sg *m4f.Segment) { list = append(list, sg) })
	if _, err := g.WriteTo(seg); err != nil {
		t.Fatal(err)
	}
	seg.Close()
	return list
}

// eachSegment tells where the segments of an extent lie.
func TestEachSegment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.mp4")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := m4f.NewWriter(f)
	segs := recorded(t, 20*time.Second)
	var ends []int64
	for _, sg := range segs {
		if err := w.WriteSegment(sg); err != nil {
			t.Fatal(err)
		}
		at, _ := f.Seek(0, io.SeekCurrent)
		ends = append(ends, at)
	}
	f.Seek(0, io.SeekStart)
	i := 0
	err = eachSegment(f, func(id m4f.Identity, from, first, to int64) {
		before := int64(len(segs[0].Init))
		if i > 0 {
			before = ends[i-1]
		}
		if id != segs[i].Header.ID || to != ends[i] || from != before || first != int64(len(segs[0].Init)) {
			t.Errorf("segment %d: %d to %d, the first at %d", i, from, to, first)
		}
		i++
	})
	if err != nil || i != len(segs) || i < 3 {
		t.Errorf("%d of %d segments: %v", i, len(segs), err)
	}
}

// A flip is found where verify tells of the record or segment that it lies in.
func TestFlipsFound(t *testing.T) {
	list, err := damages(`{"type":"damage","file":"h/a.idx","offset":160,"kind":"index"}
{"type":"damage","file":"h/a.mp4","offset":1000,"kind":"segment"}
{"type":"summary"}
`)
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	for _, v := range []struct {
		f    flip
		p    place
		want bool
	}{
		{flip{"/d/h/a.idx", 63, 0}, place{}, false},
		{flip{"/d/h/a.idx", 159, 0}, place{}, false},
		{flip{"/d/h/a.idx", 160, 0}, place{}, true},
		{flip{"/d/h/a.idx", 255, 0}, place{}, true},
		{flip{"/d/h/a.idx", 256, 0}, place{}, false},
		{flip{"/d/h/b.idx", 160, 0}, place{}, false},
		{flip{"/d/h/a.idx", 70, 0}, place{from: 900, to: 1500}, true}, // its segment is bad
		{flip{"/d/h/a.mp4", 1500, 0}, place{from: 1000, to: 2000}, true},
		{flip{"/d/h/a.mp4", 2500, 0}, place{from: 2000, to: 3000}, false},
	} {
		if got := v.f.found("/d", v.p, list); got != v.want {
			t.Errorf("%+v: found %v, want %v", v.f, got, v.want)
		}
	}
}
