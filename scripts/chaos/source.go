package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/segment"
	"github.com/twindvr/twindvr/pkg/testsrc"
)

// source sends one stream to all nodes in real time, by a path to each, and
// remembers every datagram: when it went out and which nodes it was given to. A
// recorder of its own, which loses nothing, says what the segments should be.
type source struct {
	opt   testsrc.Options
	gen   *testsrc.Generator
	ref   *segment.Segmenter
	paths []*path // one a node

	mu      sync.Mutex
	times   []time.Time // when each datagram went out
	periods []int       // the datagram in which each picture's tables begin
	tables  int         // the datagram of the last PAT
	segs    []*reference
	stalls  []time.Time // when the sender went on after the machine had stalled
	err     error
}

// reference is a segment as a receiver writes it that loses nothing.
type reference struct {
	id          m4f.Identity
	media       int64
	first, last uint64 // numbers of its pictures, all in between included
	from, to    int    // datagrams that hold something of it, [from, to)
	done        int    // the datagram that completed it
}

const (
	// grid is the time between two wake-ups of the sender.
	grid = 10 * time.Millisecond
	// gop is how many pictures lie between two keyframes of the test stream.
	gop = 50
	// stall is how late the sender must be for the machine to have stalled: nodes
	// may have taken the source for lost, and what then comes all at once meets
	// sockets that are opened again.
	stall = 2 * time.Second
	// afterStall is for how long what is sent behind a stall counts as given to
	// nobody.
	afterStall = 3 * time.Second
)

func newSource(target int64, bitrate int64, start int64, paths []*path) (*source, error) {
	opt := testsrc.Options{Bitrate: bitrate, StartPTS: start}
	gen, err := testsrc.New(opt)
	if err != nil {
		return nil, err
	}
	s := &source{opt: opt, gen: gen, paths: paths}
	s.ref = segment.New(segment.Config{TargetDuration: target}, s.segment)
	return s, nil
}

// segment is called for each segment of the reference recorder, under the lock.
func (s *source) segment(sg *m4f.Segment) {
	pictures := testsrc.FrameNumbers(sg.Media)
	if len(pictures) == 0 || sg.Header.Damaged() {
		s.err = fmt.Errorf("the reference recorder wrote a segment with %d pictures, damaged: %v", len(pictures), sg.Header.Damaged())
		return
	}
	r := &reference{id: sg.Header.ID, media: sg.Header.MediaTime, first: pictures[0], last: pictures[0], done: len(s.times) - 1}
	for _, n := range pictures {
		r.first, r.last = min(r.first, n), max(r.last, n)
	}
	if int(r.last)+1 >= len(s.periods) || int(r.last-r.first)+1 != len(pictures) {
		return // of the source's end
	}
	r.from, r.to = s.periods[r.first], s.periods[r.last+1]+1
	s.segs = append(s.segs, r)
}

// run sends until the context ends.
func (s *source) run(ctx context.Context) error {
	start := time.Now()
	wake := time.NewTicker(grid)
	defer wake.Stop()
	var list [][]byte
	p, due, _ := s.gen.Next()
	for ctx.Err() == nil {
		for list = list[:0]; due <= time.Since(start) && len(list) < 256; p, due, _ = s.gen.Next() {
			list = append(list, p)
		}
		s.late(list, start)
		if err := s.send(list); err != nil {
			return err
		}
		if due > time.Since(start) {
			select {
			case <-wake.C:
			case <-ctx.Done():
			}
		}
	}
	return s.err
}

// late notes a stall: nothing has gone out for some time.
func (s *source) late(list [][]byte, start time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := start
	if len(s.times) > 0 {
		last = s.times[len(s.times)-1]
	}
	if now := time.Now(); len(list) > 0 && now.Sub(last) > stall {
		s.stalls = append(s.stalls, now)
	}
}

// afterStall says whether a datagram went out just behind a stall, under the lock.
func (s *source) afterStall(at time.Time) bool {
	return slices.ContainsFunc(s.stalls, func(t time.Time) bool { return !at.Before(t) && at.Sub(t) < afterStall })
}

func (s *source) send(list [][]byte) error {
	if len(list) == 0 {
		return nil
	}
	now := time.Now()
	s.mu.Lock()
	for _, p := range list {
		s.times = append(s.times, now)
		s.index(p)
		s.ref.Write(p)
	}
	s.mu.Unlock()
	for _, way := range s.paths {
		if err := way.send(now, list); err != nil {
			return err
		}
	}
	return nil
}

// index notes where pictures begin: with the PAT ahead of them.
func (s *source) index(p []byte) {
	const pidVideo = 0x100
	at := len(s.times) - 1
	for ; len(p) >= 188; p = p[188:] {
		head := binary.BigEndian.Uint32(p)
		switch pid := head >> 8 & 0x1fff; {
		case head>>22&1 == 0: // nothing begins in this packet
		case pid == 0:
			s.tables = at
		case pid == pidVideo:
			s.periods = append(s.periods, s.tables)
		}
	}
}

// path is the way of one stream to one node. It loses what it is told to, by
// chance from a seed, and remembers what it has passed on.
type path struct {
	out *testsrc.Output

	mu      sync.Mutex
	rng     *rand.Rand
	rate    float64       // share of the datagrams lost, each by itself
	every   time.Duration // a burst is lost so often; 0: none
	burst   time.Duration // for so long
	began   time.Time     // from when on bursts are counted
	blocked bool          // nothing passes
	given   bits
	counts  pathCounts
	inBurst bool
}

// pathCounts are datagrams and bursts.
type pathCounts struct{ sent, random, burst, bursts, blocked int64 }

func (c *pathCounts) lost() int64 { return c.random + c.burst }

func newPath(out *testsrc.Output, seed1, seed2 uint64) *path {
	return &path{out: out, rng: rand.New(rand.NewPCG(seed1, seed2))}
}

func (w *path) send(now time.Time, list [][]byte) error {
	var passed [][]byte
	w.mu.Lock()
	for _, p := range list {
		ok := w.passes(now)
		w.given.add(ok)
		if ok {
			passed = append(passed, p)
		}
	}
	w.mu.Unlock()
	return w.out.Send(passed)
}

// passes decides about the next datagram.
func (w *path) passes(now time.Time) bool {
	in := w.every > 0 && now.Sub(w.began)%w.every < w.burst && now.Sub(w.began) >= w.every
	if in && !w.inBurst {
		w.counts.bursts++
	}
	w.inBurst = in
	switch {
	case w.blocked:
		w.counts.blocked++
	case in:
		w.counts.burst++
	case w.rate > 0 && w.rng.Float64() < w.rate:
		w.counts.random++
	default:
		w.counts.sent++
		return true
	}
	return false
}

// lose sets what is lost from now on.
func (w *path) lose(rate float64, every, burst time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rate, w.every, w.burst, w.began = rate, every, burst, time.Now()
}

// block stops everything, or lets it pass again.
func (w *path) block(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.blocked = on
}

// bits is a growing list of yes and no.
type bits struct {
	words []uint64
	n     int
}

func (b *bits) add(v bool) {
	if b.n%64 == 0 {
		b.words = append(b.words, 0)
	}
	if v {
		b.words[b.n/64] |= 1 << (b.n % 64)
	}
	b.n++
}

// clone returns the list.
func (b *bits) clone() []bool {
	list := make([]bool, b.n)
	for i := range list {
		list[i] = b.words[i/64]>>(i%64)&1 != 0
	}
	return list
}
