package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/clock"
	"github.com/twindvr/twindvr/pkg/ingest"
	"github.com/twindvr/twindvr/pkg/testkit"
)

// logged has the log kept for a test.
func logged(t *testing.T) *testkit.Log {
	log, before := &testkit.Log{}, slog.Default()
	slog.SetDefault(log.Logger())
	t.Cleanup(func() { slog.SetDefault(before) })
	return log
}

// TestIngestWaitsForCaller has nobody call an SRT listener: it waits for longer
// than a source may be silent, and says so once.
func TestIngestWaitsForCaller(t *testing.T) {
	log := logged(t)
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := ingestOptions{url: "srt://" + c.LocalAddr().String() + "?mode=listener", target: 4 * time.Second}
	c.Close()
	sim := clock.NewSim(time.Unix(1_700_000_000, 0))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- o.run(ctx, IO{In: strings.NewReader(""), Out: &bytes.Buffer{}, Err: &bytes.Buffer{}, Clock: sim})
	}()
	for !strings.Contains(log.String(), "nobody has called yet") {
		sim.Waiters(1)
		sim.Advance(sourceLost)
		select {
		case err := <-ended:
			t.Fatalf("it has ended: %v; log: %s", err, log)
		case <-time.After(10 * time.Millisecond):
		}
	}
	sim.Waiters(1)
	sim.Advance(10 * sourceLost)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "nobody has called yet"); n != 1 {
		t.Errorf("said %d times: %s", n, log)
	}
}

// TestIngestNoStream gets what is no stream over HTTP: trouble, and no source
// that was lost, in words that make sense.
func TestIngestNoStream(t *testing.T) {
	logged(t)
	for name, c := range map[string]struct {
		body, want string
	}{
		"page":      {"<!doctype html><title>x</title>", `source "URL": the server answers with a web page`},
		"playlist":  {"#EXTM3U\n", `source "URL": this is a playlist`},
		"empty":     {"", "source URL: not an MPEG transport stream: it is empty"},
		"something": {strings.Repeat("x", 2000), "source URL: not an MPEG transport stream: no run of packets"},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, c.body) }))
		url := srv.URL + "/" + name
		o := ingestOptions{url: url, target: 4 * time.Second}
		err := o.run(t.Context(), IO{In: strings.NewReader(""), Out: &bytes.Buffer{}, Err: &bytes.Buffer{}, Clock: clock.System})
		srv.Close()
		if want := strings.Replace(c.want, "URL", url, 1); err == nil || !strings.HasPrefix(err.Error(), want) || strings.Count(err.Error(), url) != 1 || exitStatus(t.Context(), err, io.Discard) != exitTrouble {
			t.Errorf("%s: status %d, %v; want %s", name, exitStatus(t.Context(), err, io.Discard), err, want)
		}
	}
}

// TestIngestBrokenOff has a server break off what it has begun to deliver: the
// source is lost.
func TestIngestBrokenOff(t *testing.T) {
	logged(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100000")
		fmt.Fprint(w, strings.Repeat("x", 2000))
	}))
	defer srv.Close()
	o := ingestOptions{url: srv.URL, target: 4 * time.Second}
	err := o.run(t.Context(), IO{In: strings.NewReader(""), Out: &bytes.Buffer{}, Err: &bytes.Buffer{}, Clock: clock.System})
	if want := fmt.Sprintf("the source is lost: source %q: the server has broken off after 2000 bytes", srv.URL); err == nil || err.Error() != want || exitStatus(t.Context(), err, io.Discard) != 1 {
		t.Errorf("status %d, %v; want %s", exitStatus(t.Context(), err, io.Discard), err, want)
	}
}

// holding is a camera that has sent packets of which nothing is handed out yet:
// they wait for its sender reports.
type holding struct{}

func (holding) Read(ctx context.Context) (*ingest.Batch, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
func (holding) Stats() ingest.Stats { return ingest.Stats{Packets: 3, Bytes: 3000} }
func (holding) Close() error        { return nil }

// TestIngestTooShort has --duration be over before the media has begun.
func TestIngestTooShort(t *testing.T) {
	logged(t)
	r := &sourceRun{o: &ingestOptions{url: "rtsp://camera/", target: 4 * time.Second, duration: 3 * time.Second}, io: IO{Clock: clock.System}}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errDuration)
	err := r.result(r.once(ctx, holding{}))
	if want := "nothing was recorded within 3s from rtsp://camera/, which has begun to send; give it a longer --duration"; err == nil || err.Error() != want || exitStatus(t.Context(), err, io.Discard) != exitTrouble {
		t.Errorf("%v, want %s", err, want)
	}
}
