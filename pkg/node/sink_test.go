package node_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/event"
)

// webhook is a receiver of events.
type webhook struct {
	*httptest.Server
	mu     sync.Mutex
	events []event.Event
	asked  int
	auth   string
}

// newWebhook returns a receiver; one that hangs takes nothing until the other side
// gives up.
func newWebhook(t *testing.T, hangs bool) *webhook {
	h := &webhook{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var got []event.Event
		for s := bufio.NewScanner(r.Body); s.Scan(); {
			var e event.Event
			if json.Unmarshal(s.Bytes(), &e) != nil {
				e.Kind = s.Text()
			}
			got = append(got, e)
		}
		h.mu.Lock()
		h.asked++
		h.auth, _, _ = r.BasicAuth()
		if !hangs {
			h.events = append(h.events, got...)
		}
		h.mu.Unlock()
		if hangs {
			<-r.Context().Done()
		}
	}))
	t.Cleanup(h.Close)
	return h
}

// count is how many events of a kind came.
func (h *webhook) count(kind string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.events {
		if e.Kind == kind && e.Stream == "x" {
			n++
		}
	}
	return n
}

// A node sends its events to a receiver, to another one that a changed file names
// with what the first did not take, and at its end says that it ends.
func TestEventSink(t *testing.T) {
	t.Parallel()
	first, second := newWebhook(t, true), newWebhook(t, false)
	source := multicast()
	conf := fmt.Sprintf("http 127.0.0.1:%%PORT; event_sink log %%s; stream x { url %s; dvr %%%%DIR 1d; segment_duration 1s; }", source)
	conf = strings.ReplaceAll(conf, "%PORT", "%%PORT")
	secret := strings.Replace(first.URL, "http://", "http://me:s3cret@", 1) + "/h00k"
	n := newNode(t, "node", fmt.Sprintf(conf, secret))
	start(t, "source", "testsrc", source)
	n.up()
	within(t, time.Minute, "the receiver is asked", func() bool {
		first.mu.Lock()
		defer first.mu.Unlock()
		return first.asked > 0 && first.auth == "me"
	})
	within(t, time.Minute, "it is recorded meanwhile", func() bool { return wroteWhole(n.stream("x"), n.started) })
	n.configure(fmt.Sprintf(conf, strings.Replace(second.URL, "http://", "http://me:s3cret@", 1)+"/h00k"))
	n.cmd.Process.Signal(syscall.SIGHUP)
	within(t, time.Minute, "the other receiver gets the events", func() bool { return second.count(event.Start) > 0 && second.count(event.Switch) == 1 })
	if strings.Contains(n.text(), "input delivers") && strings.Count(n.text(), `msg="input delivers" stream=x`) != 1 {
		t.Errorf("the stream was touched:\n%s", n.text())
	}
	if status := n.stop(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	if second.count(event.Stop) == 0 {
		t.Errorf("its end is not told: %+v", second.events)
	}
	text := n.text()
	if !strings.Contains(text, "event.kind=switch") || strings.Contains(text, "s3cret") || strings.Contains(text, "h00k") {
		t.Errorf("log:\n%s", text)
	}
}

// A receiver that takes nothing does not keep a node from ending.
func TestEventSinkHangs(t *testing.T) {
	t.Parallel()
	h := newWebhook(t, true)
	n := newNode(t, "node", fmt.Sprintf("http 127.0.0.1:%%PORT; event_sink %s; stream x { url %s; dvr %%DIR 1d; }", h.URL, multicast()))
	n.up()
	within(t, time.Minute, "the receiver is asked", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.asked > 0
	})
	if status := n.stop(); status != 0 || !strings.Contains(n.text(), "events were not sent") {
		t.Errorf("exit status %d\n%s", status, n.text())
	}
}
