package testsrc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// jumpClock is a clock on which waiting takes no time.
type jumpClock struct {
	now   time.Time
	waits int
	slow  time.Duration // added to one wait
}

func (c *jumpClock) Now() time.Time { return c.now }
func (c *jumpClock) After(d time.Duration) <-chan time.Time {
	c.now = c.now.Add(d + c.slow)
	c.slow = 0
	c.waits++
	ch := make(chan time.Time, 1)
	ch <- c.now
	return ch
}

// timedWriter notes when bytes came.
type timedWriter struct {
	clock *jumpClock
	at    []time.Duration
	bytes.Buffer
}

func (w *timedWriter) Write(p []byte) (int, error) {
	w.at = append(w.at, w.clock.now.Sub(time.Unix(0, 0)))
	return w.Buffer.Write(p)
}

func TestSendPaces(t *testing.T) {
	opt := Options{Bitrate: 6_000_000, Duration: 10 * time.Second}
	g, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	clk := &jumpClock{now: time.Unix(0, 0)}
	w := &timedWriter{clock: clk}
	out := NewOutput("-", w, Loss{})
	if err := Send(t.Context(), g, []*Output{out}, SendOptions{Clock: clk}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(w.Bytes(), generate(t, opt)) {
		t.Error("other bytes were sent than made")
	}
	for i, at := range w.at {
		if i > 0 && at-w.at[i-1] > sendGrid {
			t.Errorf("a pause of %v", at-w.at[i-1])
		}
	}
	if last := w.at[len(w.at)-1]; last != 10*time.Second || clk.waits > 1000 {
		t.Errorf("sent in %v with %d waits", last, clk.waits)
	}
	if st := out.Stats(); st.Bytes != uint64(w.Len()) || st.Dropped != 0 {
		t.Errorf("stats %+v", st)
	}
}

// TestSendAfterStop goes on in real time after the process has stood still.
func TestSendAfterStop(t *testing.T) {
	g, err := New(Options{Bitrate: 6_000_000, Duration: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	clk := &jumpClock{now: time.Unix(0, 0), slow: time.Hour}
	err = Send(t.Context(), g, []*Output{NewOutput("-", io.Discard, Loss{})},
		SendOptions{Clock: clk, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if d := clk.now.Sub(time.Unix(0, 0)); d < time.Hour+9900*time.Millisecond || strings.Count(log.String(), "late") != 2 {
		t.Errorf("took %v, log %q", d, log.String())
	}
}

func TestSendEnds(t *testing.T) {
	g, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	out := NewOutput("-", io.Discard, Loss{})
	done := make(chan error)
	go func() { done <- Send(ctx, g, []*Output{out}, SendOptions{}) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	bad := NewOutput("pipe", errWriter{}, Loss{})
	if err := Send(t.Context(), g, []*Output{bad}, SendOptions{Unpaced: true}); err == nil || !strings.Contains(err.Error(), "sending to pipe: no room") {
		t.Error(err)
	}
}

type errWriter struct{}

func (errWriter) Write([]byte) (int, error) { return 0, errors.New("no room") }

func TestLoss(t *testing.T) {
	for _, c := range []struct {
		loss Loss
		runs bool
	}{
		{Loss{Rate: 0}, false}, {Loss{Rate: 0.001, Seed: 1}, false}, {Loss{Rate: 0.01, Seed: 2}, false},
		{Loss{Rate: 0.05, Burst: 20, Seed: 3}, true}, {Loss{Rate: 0.5, Burst: 7, Seed: 4}, true}, {Loss{Rate: 1}, true},
	} {
		const n = 300_000
		a, b := newDropper(c.loss), newDropper(c.loss)
		lost, run := 0, 0
		for i := range n {
			x := a.drop()
			if x != b.drop() {
				t.Fatalf("%+v: equal losses differ at %d", c.loss, i)
			}
			if x {
				lost++
				run++
			} else {
				if run%max(c.loss.Burst, 1) != 0 {
					t.Fatalf("%+v: %d lost in a row", c.loss, run)
				}
				run = 0
			}
		}
		got := float64(lost) / n
		if math.Abs(got-c.loss.Rate) > c.loss.Rate/6 {
			t.Errorf("%+v: lost %v", c.loss, got)
		}
	}
	one, two := newDropper(Loss{Rate: 0.5, Seed: 1}), newDropper(Loss{Rate: 0.5, Seed: 2})
	same := 0
	for range 1000 {
		if one.drop() == two.drop() {
			same++
		}
	}
	if same < 400 || same > 600 {
		t.Errorf("two seeds agree %d times of 1000", same)
	}
}

func TestParseRate(t *testing.T) {
	for s, want := range map[string]float64{"0.1%": 0.001, "0.001": 0.001, "0": 0, "100%": 1, "1": 1} {
		if got, err := ParseRate(s); err != nil || math.Abs(got-want) > 1e-12 {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "%", "x", "-1%", "101%", "2", "NaN", "1%%"} {
		if got, err := ParseRate(s); err == nil {
			t.Errorf("%q: %v", s, got)
		}
	}
}

// TestUDPOutputs sends one stream to four receivers, two of which are to lose
// datagrams, each others.
func TestUDPOutputs(t *testing.T) {
	port := 23000 + unix.Getpid()%500*20
	var conns []*net.UDPConn
	for i := range 3 {
		conns = append(conns, listen(t, fmt.Sprintf("127.0.0.1:%d", port+i)))
	}
	conns = append(conns, listen(t, fmt.Sprintf("[::1]:%d", port+5)))

	outs, err := OpenOutputs(fmt.Sprintf("udp://127.0.0.1:%d?loss=10%%&seed=5", port), OutputOptions{}, 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{fmt.Sprintf("udp://localhost:%d", port+2), fmt.Sprintf("udp://[::1]:%d?interface=lo", port+5)} {
		o, err := OpenOutput(url, OutputOptions{})
		if err != nil {
			t.Fatal(err)
		}
		outs = append(outs, o)
	}
	g, err := New(Options{Duration: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	whole := generate(t, Options{Duration: 3 * time.Second})
	if err := Send(t.Context(), g, outs, SendOptions{Unpaced: true}); err != nil {
		t.Fatal(err)
	}
	var got [][]byte
	for i, o := range outs {
		got = append(got, receive(t, conns[i], int(o.Stats().Sent)))
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	}
	if !bytes.Equal(got[2], whole) || !bytes.Equal(got[3], whole) {
		t.Error("the stream without loss is not whole")
	}
	for i := range 2 {
		if st := outs[i].Stats(); st.Dropped < 5 || int(st.Bytes) != len(got[i]) || len(got[i]) >= len(whole) {
			t.Errorf("stats %+v, received %d of %d", st, len(got[i]), len(whole))
		}
	}
	if bytes.Equal(got[0], got[1]) {
		t.Error("two copies lost the same")
	}
}

func listen(t *testing.T, addr string) *net.UDPConn {
	t.Helper()
	a, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.ListenUDP("udp", a)
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadBuffer(4 << 20)
	t.Cleanup(func() { c.Close() })
	return c
}

func receive(t *testing.T, c *net.UDPConn, datagrams int) []byte {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	var all []byte
	buf := make([]byte, 2000)
	for range datagrams {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatalf("after %d bytes: %v", len(all), err)
		}
		all = append(all, buf[:n]...)
	}
	return all
}

func TestOutputErrors(t *testing.T) {
	for url, want := range map[string]string{
		"srt://127.0.0.1:1":                      "udp://ADDRESS:PORT",
		"/tmp/x.ts":                              "udp://ADDRESS:PORT",
		"udp://127.0.0.1":                        "write udp://ADDRESS:PORT",
		"udp://127.0.0.1:0":                      "port from 1",
		"udp://:5000":                            "write udp://ADDRESS:PORT",
		"udp://127.0.0.1:5000?los=1":             "unknown option \"los\"",
		"udp://127.0.0.1:5000?loss=200%":         "not a rate",
		"udp://127.0.0.1:5000?burst=0":           "burst=0",
		"udp://127.0.0.1:5000?seed=x":            "seed=x",
		"udp://127.0.0.1:5000?ttl=300":           "ttl=300",
		"udp://239.1.1.1:5000?interface=nosuch0": "no network interface \"nosuch0\"",
	} {
		if _, err := OpenOutput(url, OutputOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q in it", url, err, want)
		}
	}
	if _, err := OpenOutputs("udp://127.0.0.1:65534", OutputOptions{}, 5); err == nil || !strings.Contains(err.Error(), "no port 65536 for copy 3") {
		t.Error(err)
	}
}

func TestMulticastOutput(t *testing.T) {
	group := fmt.Sprintf("239.77.9.9:%d", 23015+unix.Getpid()%500*20)
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	addr, _ := net.ResolveUDPAddr("udp", group)
	c, err := net.ListenMulticastUDP("udp4", lo, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	o, err := OpenOutput("udp://"+group+"?ttl=3", OutputOptions{Interface: "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if err := o.Send([][]byte{[]byte("one"), []byte("two")}); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, c, 2); string(got) != "onetwo" {
		t.Errorf("got %q", got)
	}
}
