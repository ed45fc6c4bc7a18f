package ingest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/segment"
	"github.com/twindvr/twindvr/pkg/testkit"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// process is a program that a test has started.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	said testkit.Log // to its standard error
	done chan error
}

// run starts a program. It is killed when the test ends.
func run(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(name, args...), done: make(chan error, 1)}
	p.cmd.Stderr = &p.said
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(p.kill)
	return p
}

// ffmpeg starts ffmpeg.
func ffmpeg(t *testing.T, args ...string) *process {
	t.Helper()
	return run(t, "ffmpeg", append([]string{"-hide_banner", "-nostdin", "-y", "-v", "error"}, args...)...)
}

// wait waits for the program's end.
func (p *process) wait() error {
	select {
	case err := <-p.done:
		p.done <- err
		return err
	case <-time.After(patience):
		p.t.Fatalf("%v does not end; it says %s", p.cmd.Args, p.said.String())
		return nil
	}
}

// kill ends the program as a crash would, and waits for it.
func (p *process) kill() {
	p.cmd.Process.Kill()
	err := <-p.done
	p.done <- err
}

// clip makes a transport stream of so many seconds: MPEG-2 video with a
// keyframe every half second, MPEG audio.
func clip(t *testing.T, seconds float64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "clip.ts")
	d := fmt.Sprint(seconds)
	p := ffmpeg(t, "-f", "lavfi", "-t", d, "-i", "testsrc2=size=320x180:rate=25", "-f", "lavfi", "-t", d, "-i", "sine=sample_rate=48000",
		"-c:v", "mpeg2video", "-b:v", "1M", "-g", "12", "-bf", "2", "-c:a", "mp2", "-b:a", "128k", "-f", "mpegts", path)
	if err := p.wait(); err != nil {
		t.Fatalf("making a clip: %v: %s", err, p.said.String())
	}
	return path
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// recording is what Pump has made of a source.
type recording struct {
	Source
	mu       sync.Mutex
	data     []byte   // all bytes, in order
	lost     []int    // where in data the source has told a loss, once for each packet
	segments []string // identities, with "damaged" behind those that are
	end      error
	done     chan struct{}
	cancel   context.CancelFunc
}

// Read notes what goes to Pump.
func (r *recording) Read(ctx context.Context) (*Batch, error) {
	b, err := r.Source.Read(ctx)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for range b.Lost {
		r.lost = append(r.lost, len(r.data))
	}
	for _, d := range b.Datagrams {
		r.data = append(r.data, d...)
	}
	return b, nil
}

func (r *recording) size() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.data)
}

// take notes a segment.
func (r *recording) take(s *m4f.Segment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := fmt.Sprintf("%.8s", s.Header.ID)
	if s.Header.Flags&m4f.Damaged != 0 {
		name += " damaged"
	}
	r.segments = append(r.segments, name)
}

// record records a source as ingest does, until it ends or stop is called.
func record(t *testing.T, src Source) *recording {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &recording{Source: src, done: make(chan struct{}), cancel: cancel}
	seg := segment.New(segment.Config{TargetDuration: m4f.Ticks(time.Second)}, r.take)
	go func() {
		defer close(r.done)
		r.end = Pump(ctx, r, seg, PumpOptions{})
		Finish(seg, r, r.end)
	}()
	t.Cleanup(func() {
		r.stop()
		src.Close()
	})
	return r
}

func (r *recording) stop() {
	r.cancel()
	<-r.done
}

// wait waits for the end of the source.
func (r *recording) wait(t *testing.T) {
	t.Helper()
	select {
	case <-r.done:
	case <-time.After(patience):
		t.Fatalf("the source does not end; %d bytes have come, %+v", r.size(), r.Stats())
	}
}

// segmentsOf are the segments that a whole transport stream gives.
func segmentsOf(b []byte) []string {
	r := new(recording)
	seg := segment.New(segment.Config{TargetDuration: m4f.Ticks(time.Second)}, r.take)
	seg.Write(b)
	seg.Close()
	return r.segments
}

// sameStream fails the test unless everything sent has been recorded: byte for
// byte, and as the same segments without damage.
func (r *recording) sameStream(t *testing.T, sent []byte) {
	t.Helper()
	if !bytes.Equal(r.data, sent) {
		t.Errorf("%d bytes received (%x), %d sent (%x); equal up to %d", len(r.data), sha256.Sum256(r.data), len(sent), sha256.Sum256(sent), common(r.data, sent))
	}
	if t.Failed() {
		t.Logf("%+v", r.Stats())
	}
	want := segmentsOf(sent)
	if len(want) < 2 {
		t.Errorf("what was sent has %d segments", len(want))
	}
	if fmt.Sprint(r.segments) != fmt.Sprint(want) {
		t.Errorf("segments %q, want %q", r.segments, want)
	}
}

// common is how long two byte strings are equal.
func common(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
