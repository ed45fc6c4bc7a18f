package ingest

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluenviron/gortsplib/v5"
	"github.com/bluenviron/gortsplib/v5/pkg/description"
	"github.com/bluenviron/gortsplib/v5/pkg/format"
	"github.com/pion/rtp"

	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/segment"
	"github.com/twindvr/twindvr/pkg/testkit"
)

// archive is what has been recorded of a session.
type archive struct {
	mu   sync.Mutex
	segs []*m4f.Segment
}

func (a *archive) take(s *m4f.Segment) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.segs = append(a.segs, s)
}

func (a *archive) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.segs)
}

// pull records a source into a until it ends, and returns why it did.
func (a *archive) pull(ctx context.Context, src Source) error {
	seg := segment.New(segment.Config{TargetDuration: m4f.Ticks(time.Second)}, a.take)
	err := Pump(ctx, src, seg, PumpOptions{})
	Finish(seg, src, err)
	if st := seg.Stats(); st.Err != nil {
		return st.Err
	}
	return err
}

// movie makes a file of some seconds.
func movie(t *testing.T, name string, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	all := append([]string{"-f", "lavfi", "-i", "testsrc2=s=192x108:r=25:d=5", "-f", "lavfi", "-i", "sine=f=440:r=48000:d=5"}, args...)
	if p := ffmpeg(t, append(all, path)...); p.wait() != nil {
		t.Fatalf("making %s: %s", name, p.said.String())
	}
	return path
}

// hashes are the MD5 sums of what ffmpeg reads of a track: decoded pictures, or
// frames as they are coded.
func hashes(t *testing.T, path, track string, args ...string) []string {
	t.Helper()
	out, err := exec.Command("ffmpeg", append(append([]string{"-v", "error", "-nostdin", "-i", path, "-map", track, "-fps_mode", "passthrough"}, args...), "-f", "framemd5", "-")...).Output()
	if err != nil {
		t.Fatalf("%s %s: %v", path, track, err)
	}
	var list []string
	for line := range strings.Lines(string(out)) {
		if f := strings.Split(line, ","); !strings.HasPrefix(line, "#") {
			list = append(list, strings.TrimSpace(f[5]))
		}
	}
	return list
}

// pictures are the hashes of the decoded pictures of segments.
func (a *archive) pictures(t *testing.T) (list []string) {
	t.Helper()
	for len(a.segs) > 0 {
		n := 1
		for n < len(a.segs) && a.segs[n].Header.Init == a.segs[0].Header.Init {
			n++
		}
		var b bytes.Buffer
		w := m4f.NewWriter(&b)
		for _, s := range a.segs[:n] {
			if err := w.WriteSegment(s); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(t.TempDir(), "recorded.mp4")
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		list = append(list, hashes(t, path, "0:v:0")...)
		a.segs = a.segs[n:]
	}
	return list
}

// samples are the samples of a codec's track.
func (a *archive) samples(t *testing.T, codecs ...m4f.Codec) (list [][]byte) {
	t.Helper()
	for _, s := range a.segs {
		init, err := m4f.ParseInit(s.Init)
		if err != nil {
			t.Fatal(err)
		}
		f, err := m4f.ParseFragment(init, s.Media)
		if err != nil {
			t.Fatal(err)
		}
		for k := range init.Tracks {
			if slices.Contains(codecs, init.Tracks[k].Config.Codec) {
				for _, x := range f.Tracks[k].Samples {
					list = append(list, x.Data(s.Media))
				}
			}
		}
	}
	return list
}

// within wants got to be a stretch of want, without a hole, of most of it.
func within(t *testing.T, what string, got, want []string) {
	t.Helper()
	if len(got) < len(want)/2 {
		t.Errorf("%s: %d of %d", what, len(got), len(want))
		return
	}
	for at := 0; at+len(got) <= len(want); at++ {
		if slices.Equal(want[at:at+len(got)], got) {
			t.Logf("%s: %d, from %d on, of %d", what, len(got), at, len(want))
			return
		}
	}
	t.Errorf("%s: %d that are no stretch of the %d sent", what, len(got), len(want))
}

// publish has ffmpeg send a file to a camera.
func (c *camera) publish(t *testing.T, path string, args ...string) *process {
	t.Helper()
	p := ffmpeg(t, append(append([]string{"-re", "-i", path, "-map", "0", "-c", "copy"}, args...), "-f", "rtsp", "-rtsp_transport", "tcp", c.url())...)
	testkit.Await(t, "publishing", func() bool { return c.published() || len(p.said.String()) > 0 })
	return p
}

func needPublisher(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("no ffmpeg in PATH: RTSP not tested against it")
	}
}

func openSource(t *testing.T, url string) Source {
	t.Helper()
	src, err := Open(context.Background(), url, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	return src
}

const (
	avcCam  = "-c:v libx264 -preset veryfast -threads 1 -b:v 200k -g 25 "
	hevcCam = "-c:v libx265 -preset ultrafast -x265-params log-level=error:pools=1:frame-threads=1:keyint=25:bframes=2 -tag:v hvc1 "
)

// TestRTSP has ffmpeg send to a server and records from there: every picture and
// every frame of sound that was sent, from the first keyframe heard on.
func TestRTSP(t *testing.T) {
	needPublisher(t)
	for _, c := range []struct {
		name, file, args, query string
		audio                   []m4f.Codec
	}{
		{"H.264 and AAC over TCP", "a.mp4", avcCam + "-bf 2 -c:a aac -b:a 64k", "", []m4f.Codec{m4f.CodecAAC}},
		{"H.264 and AAC over UDP", "a.mp4", avcCam + "-bf 0 -c:a aac -b:a 64k", "?transport=udp", []m4f.Codec{m4f.CodecAAC}},
		{"H.265 and Opus over UDP", "a.mkv", hevcCam + "-c:a libopus -b:a 48k", "?transport=udp&channel=1", []m4f.Codec{m4f.CodecOpus}},
		{"H.264 and A-law", "a.mkv", avcCam + "-bf 0 -c:a pcm_alaw -ar 8000", "?transport=auto", []m4f.Codec{m4f.CodecALaw}},
		{"H.264 and mu-law of two channels", "a.mkv", avcCam + "-bf 3 -c:a pcm_mulaw -ar 16000 -ac 2", "?transport=tcp", []m4f.Codec{m4f.CodecMuLaw}},
		{"MPEG audio alone", "a.mkv", "-map 1:a -c:a mp2", "", []m4f.Codec{m4f.CodecMPEGAudio}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := movie(t, c.file, strings.Fields(c.args+" -t 3")...)
			cam := newCamera(t, func(c *camera) {
				c.user, c.pass = "user", "p@ss"
				c.UDPRTPAddress = fmt.Sprintf("127.0.0.1:%d", port()&^1+2000)
				c.UDPRTCPAddress = fmt.Sprintf("127.0.0.1:%d", portOf(c.UDPRTPAddress)+1)
			})
			p := cam.publish(t, path)
			src := openSource(t, strings.Replace(cam.url(), "rtsp://", "rtsp://user:p%40ss@", 1)+c.query)
			a := &archive{}
			if err := a.pull(context.Background(), src); err == nil {
				t.Error("the connection was closed, and Read says nothing")
			} else {
				t.Log(err)
			}
			if p.wait(); t.Failed() {
				t.Log(p.said.String())
			}
			for _, s := range a.segs {
				if s.Header.Damaged() {
					t.Errorf("%+v is damaged", s.Header)
				}
			}
			st := src.Stats()
			if st.Packets == 0 || st.Bytes == 0 || st.Lost > 0 || st.Errors > 0 {
				t.Errorf("%+v", st)
			}
			if strings.Contains(c.query, "channel=1") && cam.query != "channel=1" {
				t.Errorf("the camera was asked with the options %q", cam.query)
			}
			a.compare(t, path, c.audio, strings.Contains(c.args, "-c:v"))
		})
	}
}

func portOf(addr string) int {
	var p int
	fmt.Sscanf(addr[strings.LastIndex(addr, ":"):], ":%d", &p)
	return p
}

// compare wants what was recorded to be a stretch of a file.
func (a *archive) compare(t *testing.T, path string, audio []m4f.Codec, video bool) {
	t.Helper()
	samples := a.samples(t, audio...)
	want := hashes(t, path, "0:a:0", "-c", "copy")
	if c := audio[0]; c == m4f.CodecALaw || c == m4f.CodecMuLaw {
		raw, err := exec.Command("ffmpeg", "-v", "error", "-i", path, "-map", "0:a:0", "-c", "copy", "-f", c.String(), "-").Output()
		if err != nil {
			t.Fatal(err)
		}
		if all := bytes.Join(samples, nil); len(all) < len(raw)/2 || !bytes.Contains(raw, all) {
			t.Errorf("%d bytes of sound that are no stretch of the %d sent", len(all), len(raw))
		}
	} else {
		var got []string
		for _, s := range samples {
			sum := md5.Sum(s)
			got = append(got, hex.EncodeToString(sum[:]))
		}
		within(t, "frames of sound", got, want)
	}
	if video {
		within(t, "pictures", a.pictures(t), hashes(t, path, "0:v:0"))
	}
}

// TestRTSPLoss loses packets: no picture that lacks one goes unmarked, and what
// was lost is counted.
func TestRTSPLoss(t *testing.T) {
	needPublisher(t)
	t.Parallel()
	path := movie(t, "a.mp4", strings.Fields(avcCam+"-bf 2 -c:a aac -b:a 64k")...)
	n, lost := 0, 0
	cam := newCamera(t, func(c *camera) {
		c.lose = func(pkt *rtp.Packet) bool {
			if n++; n > 60 && n < 90 && n%9 == 0 {
				lost++
				return true
			}
			return false
		}
	})
	cam.publish(t, path)
	src := openSource(t, cam.url())
	a := &archive{}
	_ = a.pull(context.Background(), src)
	if st := src.Stats(); st.Lost != uint64(lost) || lost == 0 {
		t.Errorf("%d packets lost, %+v", lost, st)
	}
	sent := map[string]bool{}
	for _, h := range hashes(t, path, "0:v:0") {
		sent[h] = true
	}
	damaged := 0
	for _, s := range a.segs {
		if s.Header.Damaged() {
			damaged++
			continue
		}
		one := &archive{segs: []*m4f.Segment{s}}
		for _, h := range one.pictures(t) {
			if !sent[h] {
				t.Errorf("the segment at %v is not damaged and holds a picture that was not sent", s.Header.UTC.Time())
			}
		}
	}
	if damaged == 0 || damaged == len(a.segs) {
		t.Errorf("%d of %d segments are damaged", damaged, len(a.segs))
	}
}

// TestRTSPReturns kills the sender while it is recorded, and has it come back:
// media time goes on.
func TestRTSPReturns(t *testing.T) {
	needPublisher(t)
	t.Parallel()
	path := movie(t, "a.mp4", strings.Fields(avcCam+"-bf 2 -c:a aac -b:a 64k")...)
	cam := newCamera(t, nil)
	var last *m4f.Header
	for range 2 {
		p := cam.publish(t, path)
		src := openSource(t, cam.url())
		a := &archive{}
		ended := make(chan error, 1)
		go func() { ended <- a.pull(context.Background(), src) }()
		testkit.Await(t, "two segments", func() bool { return a.count() >= 2 })
		p.kill()
		select {
		case err := <-ended:
			if err == nil {
				t.Error("no error")
			}
		case <-time.After(patience):
			t.Fatal("the sender is dead and Read goes on")
		}
		testkit.Await(t, "the stream's end", func() bool { return !cam.published() })
		src.Close()
		if last != nil {
			// As far on as the wall clock, but for how long packets took.
			h := &a.segs[0].Header
			media, wall := m4f.Diff33(h.MediaTime, last.MediaTime), int64(h.UTC-last.UTC)
			if media <= 0 || max(media-wall, wall-media) > m4f.Timescale {
				t.Errorf("media time goes on by %d ticks, the wall clock by %d", media, wall)
			}
		}
		last = &a.segs[len(a.segs)-1].Header
	}
}

// TestRTSPS pulls over TLS from a camera with a certificate of its own.
func TestRTSPS(t *testing.T) {
	needPublisher(t)
	t.Parallel()
	path := movie(t, "a.mp4", strings.Fields(avcCam+"-bf 0 -t 2 -an")...)
	cert, fingerprint := certificate(t)
	cam := newCamera(t, func(c *camera) { c.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}} })
	p := ffmpeg(t, "-re", "-stream_loop", "-1", "-i", path, "-map", "0", "-c", "copy", "-f", "rtsp", "-rtsp_transport", "tcp", strings.Replace(cam.url(), "rtsp:", "rtsps:", 1))
	testkit.Await(t, "publishing", func() bool { return cam.published() || len(p.said.String()) > 0 })
	url := strings.Replace(cam.url(), "rtsp:", "rtsps:", 1)
	if _, err := Open(context.Background(), url, Options{}); err == nil || !strings.Contains(err.Error(), "fingerprint="+fingerprint) {
		t.Errorf("a certificate that nobody knows: %v", err)
	}
	wrong := strings.Repeat("00", 32)
	if _, err := Open(context.Background(), url+"?fingerprint="+wrong, Options{}); err == nil || !strings.Contains(err.Error(), fingerprint) {
		t.Errorf("another certificate: %v", err)
	}
	for _, q := range []string{"?fingerprint=" + fingerprint, "?insecure=1"} {
		src := openSource(t, url+q)
		ctx, cancel := context.WithCancel(context.Background())
		for units := 0; units < 10; {
			b, err := src.Read(ctx)
			if err != nil {
				t.Fatal(err)
			}
			units += len(b.Units)
		}
		cancel()
		if _, err := src.Read(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Read after the context's end: %v", err)
		}
		src.Close()
	}
}

// TestRTSPErrors has what cannot be opened said in words that help.
func TestRTSPErrors(t *testing.T) {
	cam := newCamera(t, func(c *camera) { c.user, c.pass = "user", "secret" })
	try := func(url, want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, err := Open(ctx, url, Options{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, want %q in it", Redact(url), err, want)
		}
	}
	try(cam.url(), "user and a password")
	try(strings.Replace(cam.url(), "//", "//user:s3cret@", 1), "user and a password")
	try(strings.Replace(cam.url(), "//", "//user:secret@", 1), "no stream of this path")
	try(fmt.Sprintf("rtsp://127.0.0.1:%d/", port()), "refused")
	try("rtsp:///path", "no host")
	try("rtsp://u:s3cret%zz@h/p", "special characters")
	try("rtsp://h/?transport=sctp", "none of tcp, udp, multicast and auto")
	try("rtsp://h/?insecure=1", "rtsps://")
	try("rtsps://h/?fingerprint=00", "64 hexadecimal digits")
	if err := Check("rtsp://user:pass@h:554/Streaming/Channels/101?transport=udp&x=1&y"); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Open(ctx, cam.url(), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
}

// TestRTSPPanic has a packet be one too many for what takes it apart: its
// session ends with an error, the process does not.
func TestRTSPPanic(t *testing.T) {
	cam := newCamera(t, nil)
	m := &description.Media{Type: description.MediaTypeAudio, Formats: []format.Format{&format.G711{PayloadTyp: 8, SampleRate: 8000, ChannelCount: 1}}}
	stream := &gortsplib.ServerStream{Server: cam.Server, Desc: &description.Session{Medias: []*description.Media{m}}}
	if err := stream.Initialize(); err != nil {
		t.Fatal(err)
	}
	cam.mu.Lock()
	cam.stream = stream
	cam.mu.Unlock()
	src := openSource(t, cam.url()+"?transport=tcp").(*rtspSource)
	src.mu.Lock()
	src.session.tracks[0].rtspMedia.frames = func(*rtp.Packet) ([]rtpFrame, error) { panic("a riddle") }
	src.mu.Unlock()
	for seq := range uint16(2) { // what comes behind it is not looked at
		pkt := &rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: 8, SequenceNumber: seq, SSRC: 7}, Payload: make([]byte, 160)}
		if err := stream.WritePacketRTP(m, pkt); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := src.Read(t.Context()); err == nil || !strings.Contains(err.Error(), "a riddle") {
		t.Errorf("Read returns %v", err)
	}
}
