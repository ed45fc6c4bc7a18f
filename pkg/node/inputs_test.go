package node_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/ingest"
	"github.com/twindvr/twindvr/pkg/node"
	"github.com/twindvr/twindvr/pkg/serve"
	"github.com/twindvr/twindvr/pkg/testkit"
)

// inProcess runs a node in the test's own process, so that what it leaves
// behind is found. end stops it.
func inProcess(t *testing.T, text string) (n *node.Node, log *testkit.Log, end func()) {
	t.Helper()
	return inProcessOn(t, text, node.Options{})
}

// configOf reads the text of a configuration.
func configOf(t *testing.T, text string) *config.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "node.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file, config.Sources{
		Schemes: ingest.Schemes(), Program: ingest.SplitProgram, Check: ingest.Check, Shared: ingest.Shared, Redact: ingest.Redact,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// inProcessOn is inProcess with options of the test's: a file system, a clock.
func inProcessOn(t *testing.T, text string, opt node.Options) (n *node.Node, log *testkit.Log, end func()) {
	t.Helper()
	c := configOf(t, text)
	log = &testkit.Log{}
	ready := make(chan struct{})
	opt.Config, opt.Log, opt.Ready = c, log.Logger(), func() { close(ready) }
	n = node.New(opt)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	ended := false
	end = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() {
		end()
		if t.Failed() {
			t.Logf("log of the node:\n%s", log)
		}
	})
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	return n, log, end
}

// stream is the status of one stream.
func stream(n *node.Node, name string) *serve.StreamStatus {
	st := n.Status()
	for i := range st.Streams {
		if st.Streams[i].Name == name {
			return &st.Streams[i]
		}
	}
	return &serve.StreamStatus{Inputs: []serve.InputStatus{{}}}
}

// TestEveryInput records each kind of source, loses all of them, says so once,
// and goes on when they are back.
func TestEveryInput(t *testing.T) {
	if _, err := exec.LookPath("ffmpeg"); err != nil {
		t.Skip("ffmpeg is not installed: 6 kinds of input not run")
	}
	t.Parallel()
	l := goLive(t)
	tcp := func() string { return fmt.Sprintf("127.0.0.1:%d", freePort(t)) }
	udp := func() string { return fmt.Sprintf("127.0.0.1:%d", freeUDP(t)) }
	called, calling := udp(), udp()
	toSRT := func(url string) []string { return []string{"-c", "copy", "-f", "mpegts", url} }
	senders := map[string]sender{
		"rtp":      &rtpSender{live: l, addr: udp()},
		"http":     &httpSender{live: l, addr: tcp()},
		"hls":      newHLSSender(t, l, tcp()),
		"rtsp":     newRTSPSender(l, tcp()),
		"srt/call": &ffmpegSender{live: l, at: "srt://" + called, args: toSRT("srt://" + called + "?mode=listener&pkt_size=1316")},
		"srt/listen": &ffmpegSender{
			live: l, at: "srt://" + calling + "?mode=listener&passphrase=open%20sesame",
			args: toSRT("srt://" + calling + "?passphrase=open sesame&pkt_size=1316"),
		},
	}
	dir := keptDir(t, "node")
	var conf strings.Builder
	fmt.Fprintf(&conf, "http 127.0.0.1:0;\n")
	for name, s := range senders {
		fmt.Fprintf(&conf, "stream %s { url %q; dvr %s 1d; segment_duration 1s; source_timeout 5s; max_retry_timeout 1s; }\n", name, s.url(), dir)
	}
	n, log, end := inProcess(t, conf.String())
	began := time.Now()
	up := func() {
		for _, s := range senders {
			s.up(t)
		}
	}
	t.Cleanup(func() {
		for _, s := range senders {
			s.down()
		}
	})
	up()
	recorded := func(after time.Time) {
		t.Helper()
		for name := range senders {
			within(t, time.Minute, name+" is recorded", func() bool { return wroteWhole(filepath.Join(dir, name), after) })
		}
	}
	recorded(began)
	for name := range senders {
		if in := stream(n, name).Inputs[0]; in.Datagrams == 0 || in.Bytes == 0 || in.State != "good" {
			t.Errorf("%s: %+v", name, in)
		}
	}
	if in := stream(n, "rtp").Inputs[0]; in.Reordered == 0 {
		t.Errorf("rtp: packets that changed places are not counted: %+v", in)
	}

	for _, s := range senders {
		s.down()
	}
	for name, why := range map[string]string{
		"rtp": "no data for", "http": "404", "hls": "refused", "rtsp": "wants a user", "srt/call": "nothing listens", "srt/listen": "no data for",
	} {
		tried := int64(4)
		if name == "rtp" || name == "srt/listen" { // they only wait
			tried = 1
		}
		within(t, time.Minute, name+" is offline, the reason being "+why, func() bool {
			st := stream(n, name)
			return st.Mode == serve.Offline && strings.Contains(st.Inputs[0].Error, why) && st.Inputs[0].Reconnects >= tried
		})
	}
	up()
	again := time.Now()
	recorded(again)
	end()

	for name := range senders {
		a, err := archive.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if gaps, err := a.Gaps(0, 0); err != nil || len(gaps) == 0 {
			t.Errorf("%s: the archive has no gap, %v", name, err)
		}
		toldOnce(t, name, log.String())
	}
	if text := log.String(); strings.Contains(text, "s3cret") || strings.Contains(text, "sesame") {
		t.Error("the log shows a password")
	}
	if in := stream(n, "rtp").Inputs[0]; in.DatagramsLost == 0 {
		t.Errorf("rtp: packets that never came are not counted: %+v", in)
	}
}

// toldOnce wants a reason for the loss of a stream's input in the log once
// until the input delivers again, however often it was tried.
func toldOnce(t *testing.T, name, log string) {
	t.Helper()
	told, lines := map[string]bool{}, 0
	for line := range strings.Lines(log) {
		switch {
		case !strings.Contains(line, " stream="+name+" "):
		case strings.Contains(line, `msg="input delivers"`):
			clear(told)
		case strings.Contains(line, `msg="input is lost; trying again"`):
			_, why, _ := strings.Cut(line, " err=")
			if lines++; told[why] {
				t.Errorf("%s: told again: %s", name, line)
			}
			told[why] = true
		}
	}
	if lines == 0 {
		t.Errorf("%s: its loss was not told", name)
	}
}
