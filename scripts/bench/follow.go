package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// How long after a segment was written the last follower had its first byte and all
// of it, and how often the server read each.
var (
	firstByte   = newMetric("first byte", "ms", 0)
	wholeOf     = newMetric("whole segment", "ms", 0)
	reads       = newMetric("reads", "a segment", 2)
	diskReads   = newMetric("of them from disk", "", 2)
	followedGap = time.Second // between segments
)

// measureFollow has many clients follow one stream as it grows.
func (b *bench) measureFollow(ctx context.Context, t *table) error {
	dir := filepath.Join(b.dir, "follow")
	segments := pick(b, 10, 2)
	root, err := b.recordFile(dir, int64(segments+2)*segmentTicks/m4f.Timescale*b.bitrate/8)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	source, err := archive.Open(filepath.Join(root, "s"))
	if err != nil {
		return err
	}
	view, err := source.Span(0, 0)
	if err != nil || len(view) < segments+1 {
		return errors.Join(err, fmt.Errorf("%d segments to write", len(view)))
	}
	for _, n := range pick(b, []int{1, 200}, []int{3}) {
		found, err := b.compare(ctx, t, many(n, "follower"), float64(n), []contender{{name: "twindvr", run: func(ctx context.Context) (sample, error) {
			return b.follow(ctx, source, view[:segments+1], n)
		}}})
		if err != nil {
			return err
		}
		t.atMost("reads, "+many(n, "follower"), found.values("twindvr", reads), 1.1, "a segment")
		t.atMost("latency to the last, "+many(n, "follower"), found.values("twindvr", wholeOf), 200, "ms")
	}
	t.note("A segment has %d bytes; one is written each %v. Reads are all that the server read, indexes and lists included, of the bytes of media written; the CPU time is the server's, for what it sent.",
		view[1].Length, followedGap)
	return nil
}

// follow writes segments to an archive that so many clients follow. The first is
// there already when they come.
func (b *bench) follow(ctx context.Context, source *archive.Stream, view []archive.Element, n int) (s sample, err error) {
	root, err := os.MkdirTemp(b.dir, "followed-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(root)
	dst, err := archive.Create(filepath.Join(root, "s"), "", archive.Options{TargetDuration: segmentTicks})
	if err != nil {
		return nil, err
	}
	w := dst.Writer(archive.Live, 0, archive.WriterOptions{})
	defer func() { err = errors.Join(err, w.Close()) }()
	segs, err := dated(source, view)
	if err == nil {
		err = w.Append(segs[0])
	}
	if err != nil {
		return nil, err
	}
	server, err := b.serveM4F(ctx, root)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	f := newFollowers(segs)
	defer f.close()
	for range n {
		if err := f.dial(server.addr); err != nil {
			return nil, err
		}
	}
	if err := f.wait(ctx, 0); err != nil {
		return nil, err
	}
	before, err := readBy(server.Process.Pid)
	if err != nil {
		return nil, err
	}
	s = sample{}
	used := cpuOf(server.Process.Pid)
	var media float64
	var slowestFirst, slowest []float64
	for i := 1; i < len(segs); i++ {
		time.Sleep(followedGap)
		began := time.Now()
		if err := w.Append(segs[i]); err != nil {
			return nil, err
		}
		if err := f.wait(ctx, i); err != nil {
			return nil, err
		}
		first, all := f.slowest(i)
		slowestFirst, slowest = append(slowestFirst, ms(first.Sub(began))), append(slowest, ms(all.Sub(began)))
		media += float64(segs[i].Header.Length)
	}
	after, err := readBy(server.Process.Pid)
	s[cpuPerGB] = (cpuOf(server.Process.Pid) - used).Seconds() / (media * float64(n) / 1e9)
	s[firstByte], s[wholeOf] = median(slowestFirst), median(slowest)
	s[reads], s[diskReads] = float64(after.all-before.all)/media, float64(after.disk-before.disk)/media
	return s, err
}

// dated reads segments, dated as if the first began now.
func dated(source *archive.Stream, view []archive.Element) ([]*m4f.Segment, error) {
	var segs []*m4f.Segment
	moved := m4f.UTCOf(time.Now()) - view[0].UTC
	for i := range view {
		seg, err := source.ReadElement(&view[i])
		if err != nil {
			return nil, err
		}
		seg.Header.UTC += moved
		segs = append(segs, seg)
	}
	return segs, nil
}

// readBytes is what a process has read.
type readBytes struct{ all, disk int64 }

func readBy(pid int) (r readBytes, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), ": ")
		n, _ := strconv.ParseInt(v, 10, 64)
		switch k {
		case "rchar":
			r.all = n
		case "read_bytes":
			r.disk = n
		}
	}
	return r, err
}

// followers follow one stream. Of each segment they note when its first byte and
// its last came.
type followers struct {
	ends []int64 // of each segment in what is sent, its header and init segment included

	mu    sync.Mutex
	moved *sync.Cond
	list  []*follower
	err   error
	conns []net.Conn
	busy  sync.WaitGroup
}

// follower is one of them. Its fields are guarded by followers.mu.
type follower struct {
	got   int64
	first []time.Time
	last  []time.Time
}

func newFollowers(segs []*m4f.Segment) *followers {
	f := &followers{}
	f.moved = sync.NewCond(&f.mu)
	end := int64(0)
	for i, s := range segs {
		if i == 0 || s.Header.Init != segs[i-1].Header.Init {
			end += int64(len(s.Init))
		}
		end += m4f.HeaderBoxSize + int64(s.Header.Length)
		f.ends = append(f.ends, end)
	}
	return f
}

// dial adds a follower.
func (f *followers) dial(addr string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	f.conns = append(f.conns, c)
	one := &follower{first: make([]time.Time, len(f.ends)), last: make([]time.Time, len(f.ends))}
	f.list = append(f.list, one)
	if _, err := io.WriteString(c, "GET /s/m4f/live HTTP/1.1\r\nHost: bench\r\n\r\n"); err != nil {
		return err
	}
	l := &loadConn{Conn: c, tcp: c.(*net.TCPConn), buf: make([]byte, 256<<10)}
	f.busy.Go(func() {
		err := l.chunks(func(n int64) { f.got(one, n) })
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.err == nil {
			f.err = err
		}
		f.moved.Broadcast()
	})
	return nil
}

// got notes n more bytes of a follower's stream.
func (f *followers) got(one *follower, n int64) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	from := one.got
	one.got += n
	for i, end := range f.ends {
		begin := int64(0)
		if i > 0 {
			begin = f.ends[i-1]
		}
		if from <= begin && begin < one.got {
			one.first[i] = now
		}
		if from < end && end <= one.got {
			one.last[i] = now
			f.moved.Broadcast()
		}
	}
}

// wait waits until all followers have a segment.
func (f *followers) wait(ctx context.Context, segment int) error {
	defer context.AfterFunc(ctx, f.moved.Broadcast)()
	late := time.AfterFunc(time.Minute, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.err = fmt.Errorf("not all followers have segment %d after a minute", segment)
		f.moved.Broadcast()
	})
	defer late.Stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		if err := errors.Join(ctx.Err(), f.err); err != nil {
			return err
		}
		all := true
		for _, one := range f.list {
			all = all && !one.last[segment].IsZero()
		}
		if all {
			return nil
		}
		f.moved.Wait()
	}
}

// slowest is when the last follower had the first byte of a segment, and the last.
func (f *followers) slowest(segment int) (first, last time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, one := range f.list {
		if one.first[segment].After(first) {
			first = one.first[segment]
		}
		if one.last[segment].After(last) {
			last = one.last[segment]
		}
	}
	return first, last
}

func (f *followers) close() {
	for _, c := range f.conns {
		c.Close()
	}
	f.busy.Wait()
}

// chunks reads an answer in chunks (RFC 9112 7.1) to its end and calls fn with the
// bytes of data that have come, which are thrown away.
func (c *loadConn) chunks(fn func(n int64)) error {
	var head []byte
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		var err error
		if head, err = c.more(head, 1); err != nil || len(head) > 4096 {
			return errors.Join(err, fmt.Errorf("no header: %.100q", head))
		}
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) || !bytes.Contains(bytes.ToLower(head), []byte("transfer-encoding: chunked")) {
		return fmt.Errorf("not an answer in chunks: %q", head)
	}
	for ahead := ""; ; ahead = "\r\n" {
		line, err := c.more(nil, len(ahead)+3) // no size is shorter than this
		for err == nil && line[len(line)-1] != '\n' {
			line, err = c.more(line, 1)
		}
		if err != nil {
			return err
		}
		size, err := strconv.ParseInt(strings.TrimSpace(string(line)), 16, 64)
		if err != nil || size == 0 {
			return err
		}
		for size > 0 {
			n := min(size, int64(len(c.buf)))
			if err := c.discard(n); err != nil {
				return err
			}
			fn(n)
			size -= n
		}
	}
}

// more appends the next n bytes.
func (c *loadConn) more(b []byte, n int) ([]byte, error) {
	b = append(b, make([]byte, n)...)
	_, err := io.ReadFull(c, b[len(b)-n:])
	return b, err
}
