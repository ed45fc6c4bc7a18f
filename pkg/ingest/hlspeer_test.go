package ingest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/mpegts"
	"github.com/twindvr/twindvr/pkg/segment"
	"github.com/twindvr/twindvr/pkg/testkit"
)

func needHLS(t *testing.T) {
	t.Helper()
	for _, name := range []string{hlsServer(), "ffmpeg"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(name + " is not installed: HTTP live streams not tested")
		}
	}
}

// hlsServer is the program nginx, which is not on everybody's path.
func hlsServer() string {
	if _, err := exec.LookPath("nginx"); err != nil {
		return "/usr/sbin/nginx"
	}
	return "nginx"
}

// hlsNginx is an nginx process that serves a directory.
type hlsNginx struct {
	t    *testing.T
	root string // what it serves
	conf string
	port int
	cmd  *exec.Cmd
}

// newHLSNginx starts nginx; extra goes into its server block.
func newHLSNginx(t *testing.T, extra string) *hlsNginx {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	dir := t.TempDir()
	n := &hlsNginx{t: t, root: filepath.Join(dir, "www"), conf: filepath.Join(dir, "nginx.conf"), port: port}
	if err := os.Mkdir(n.root, 0o755); err != nil {
		t.Fatal(err)
	}
	// nginx reads files as whoever it is started by: no worker of another user.
	conf := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error.log;
events { worker_connections 64; }
http {
	types { application/vnd.apple.mpegurl m3u8; video/mp2t ts; video/mp4 mp4 m4s; }
	access_log %[1]s/access.log; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	gzip on; gzip_min_length 1; gzip_types application/vnd.apple.mpegurl;
	server { listen 127.0.0.1:%[2]d; root %[3]s; %[4]s }
}`, dir, port, n.root, extra)
	if err := os.WriteFile(n.conf, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	n.start()
	t.Cleanup(n.kill)
	return n
}

func (n *hlsNginx) start() {
	n.t.Helper()
	n.cmd = exec.Command(hlsServer(), "-e", n.conf+".log", "-c", n.conf)
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	testkit.Await(n.t, "nginx", func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", n.port))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func (n *hlsNginx) kill() {
	if n.cmd != nil {
		n.cmd.Process.Kill()
		n.cmd.Wait()
		n.cmd = nil
	}
}

func (n *hlsNginx) url(name string) string { return fmt.Sprintf("hls://127.0.0.1:%d/%s", n.port, name) }

func (n *hlsNginx) file(name string) string { return filepath.Join(n.root, name) }

// hlsEncoder starts ffmpeg with a test picture and a tone, at the speed of the
// clock, for a time.
func hlsEncoder(t *testing.T, dir string, seconds int, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("ffmpeg", append([]string{"-nostdin", "-v", "error", "-y", "-re", "-f", "lavfi", "-i",
		fmt.Sprintf("testsrc2=s=160x90:r=25:d=%d", seconds), "-f", "lavfi", "-i", fmt.Sprintf("sine=r=48000:d=%d", seconds),
		"-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "25", "-keyint_min", "25", "-sc_threshold", "0", "-threads", "1",
		"-c:a", "aac", "-b:a", "64k", "-map", "0:v", "-map", "1:a"}, args...)...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() && stderr.Len() > 0 {
			t.Logf("ffmpeg: %s", &stderr)
		}
	})
	return cmd
}

// hlsRecording is what one recorder makes of a source.
type hlsRecording struct {
	mu   sync.Mutex
	segs []*m4f.Segment
	seg  *segment.Segmenter
	src  Source
	done chan error
	stop context.CancelFunc
	log  testkit.Log
}

// recordHLS records a source until it ends.
func recordHLS(t *testing.T, url string) *hlsRecording {
	t.Helper()
	r := &hlsRecording{done: make(chan error, 1)}
	log := r.log.Logger()
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	src, err := Open(ctx, url, Options{Log: log})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	r.src = src
	r.seg = segment.New(segment.Config{TargetDuration: m4f.Timescale}, func(s *m4f.Segment) {
		r.mu.Lock()
		r.segs = append(r.segs, s)
		r.mu.Unlock()
	})
	go func() {
		err := Pump(ctx, src, r.seg, PumpOptions{Log: log})
		Finish(r.seg, src, err)
		r.done <- err
		close(r.done)
	}()
	t.Cleanup(func() {
		cancel()
		<-r.done
		if err := src.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("log of %s:\n%s", url, r.log.String())
		}
	})
	return r
}

// all returns the segments so far.
func (r *hlsRecording) all() []*m4f.Segment {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*m4f.Segment(nil), r.segs...)
}

// end waits for the end of the source.
func (r *hlsRecording) end(t *testing.T) []*m4f.Segment {
	t.Helper()
	select {
	case err := <-r.done:
		if err != nil {
			t.Fatalf("%v, want the end of the source", err)
		}
	case <-time.After(60 * time.Second):
		t.Fatal("the source has not ended")
	}
	return r.all()
}

// hlsFrame is a sample as it was recorded: its bytes, without what a container
// adds (delimiters and parameter sets), and its time.
type hlsFrame struct {
	sum      [32]byte
	dts, pts int64
}

// hlsFrames returns the samples of each track in segments, video first.
func hlsFrames(t *testing.T, segs []*m4f.Segment) [][]hlsFrame {
	t.Helper()
	var out [][]hlsFrame
	for _, s := range segs {
		init, err := m4f.ParseInit(s.Init)
		if err != nil {
			t.Fatal(err)
		}
		f, err := m4f.ParseFragment(init, s.Media)
		if err != nil {
			t.Fatal(err)
		}
		for len(out) < len(f.Tracks) {
			out = append(out, nil)
		}
		for k := range f.Tracks {
			for i := range f.Tracks[k].Samples {
				x := &f.Tracks[k].Samples[i]
				data := x.Data(s.Media)
				if c := init.Tracks[k].Config.Codec; c.IsVideo() {
					data = bareNALs(c, data)
				}
				out[k] = append(out[k], hlsFrame{sha256.Sum256(data), x.DTS, x.PTS})
			}
		}
	}
	return out
}

// bareNALs leaves out delimiters and parameter sets.
func bareNALs(c m4f.Codec, b []byte) (out []byte) {
	for len(b) >= 4 {
		n := int(b[0])<<24 | int(b[1])<<16 | int(b[2])<<8 | int(b[3])
		nal := b[4 : 4+n]
		delimiter := c == m4f.CodecH264 && nal[0]&31 == 9 || c == m4f.CodecHEVC && nal[0]>>1&63 == 35
		if !delimiter && mpegts.ParameterSet(c, nal) == 0 {
			out = append(out, b[:4+n]...)
		}
		b = b[4+n:]
	}
	return out
}

// segmentFile segments a transport stream in a file.
func segmentFile(t *testing.T, path string) []*m4f.Segment {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []*m4f.Segment
	s := segment.New(segment.Config{TargetDuration: m4f.Timescale, Unpaced: true, Start: 1}, func(s *m4f.Segment) { out = append(out, s) })
	s.Write(b)
	s.Close()
	return out
}

// sameFrames wants the frames of each track to be those wanted, each as long
// after the first of video as there, but for a number of ticks. Of audio, the
// first frame may be missing where it is dated before video.
func sameFrames(t *testing.T, got, want [][]hlsFrame, ticks int64) {
	t.Helper()
	if len(got) != len(want) || len(want) == 0 {
		t.Fatalf("%d tracks, want %d", len(got), len(want))
	}
	for k := range want {
		if k > 0 && len(want[k]) == len(got[k])+1 && ticks > 0 {
			want[k] = want[k][1:]
		}
		if len(got[k]) != len(want[k]) || len(want[k]) == 0 {
			t.Errorf("track %d: %d frames, want %d", k, len(got[k]), len(want[k]))
			continue
		}
		for i := range want[k] {
			g, w := got[k][i], want[k][i]
			if g.sum != w.sum {
				t.Errorf("track %d: frame %d differs", k, i)
				break
			}
			near := func(a, b int64) bool { d := a - b; return d >= -ticks && d <= ticks }
			if !near(g.pts-got[0][0].pts, w.pts-want[0][0].pts) || !near(g.dts-got[0][0].dts, w.dts-want[0][0].dts) {
				t.Errorf("track %d: frame %d at %d (decoded %d) after the first, want %d (%d)", k, i,
					g.pts-got[0][0].pts, g.dts-got[0][0].dts, w.pts-want[0][0].pts, w.dts-want[0][0].dts)
				break
			}
		}
	}
}

// agree wants the clean segments of two recordings to be the same where both
// have any, and their UTC to be within a second. It returns how many that are.
func agree(t *testing.T, a, b []*m4f.Segment) int {
	t.Helper()
	for k, x := range a {
		for _, s := range b {
			if x.Header.ID != s.Header.ID || !x.Header.Clean() || !s.Header.Clean() {
				continue
			}
			if d := x.Header.UTC - s.Header.UTC; d > m4f.Timescale || d < -m4f.Timescale {
				t.Errorf("segment %d is dated %.3f s apart", k, float64(d)/m4f.Timescale)
			}
		}
	}
	return agreeOnly(t, a, b)
}

// agreeOnly is agree without regard to dates.
func agreeOnly(t *testing.T, a, b []*m4f.Segment) int {
	t.Helper()
	byTime := map[int64]*m4f.Segment{}
	for _, s := range a {
		if s.Header.Clean() {
			byTime[s.Header.MediaTime] = s
		}
	}
	n := 0
	for _, s := range b {
		if !s.Header.Clean() {
			continue
		}
		x := byTime[s.Header.MediaTime]
		if x == nil {
			continue
		}
		n++
		if x.Header.ID != s.Header.ID {
			t.Errorf("two recorders have different clean segments at %d", s.Header.MediaTime)
		}
	}
	return n
}

func exists(path string) func() bool {
	return func() bool { _, err := os.Stat(path); return err == nil }
}

// listed says whether a playlist lists at least n segments.
func listed(path string, n int) func() bool {
	return func() bool {
		b, err := os.ReadFile(path)
		return err == nil && strings.Count(string(b), "#EXTINF") >= n
	}
}
