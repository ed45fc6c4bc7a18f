package serve

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/event"
	"github.com/twindvr/twindvr/pkg/testkit"
)

// message is one of the server-sent events.
type message struct{ kind, id, data string }

// follower is a client that follows the events.
type follower struct {
	t    *testing.T
	resp *http.Response
	in   *bufio.Scanner
	end  context.CancelFunc
}

func follow(t *testing.T, srv *httptest.Server, query, last string) *follower {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	r, err := http.NewRequestWithContext(ctx, "GET", srv.URL+"/api/v1/events/live?"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	resp, err := srv.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{t: t, resp: resp, in: bufio.NewScanner(resp.Body), end: cancel}
	t.Cleanup(f.close)
	return f
}

func (f *follower) close() {
	f.end()
	f.resp.Body.Close()
}

// next returns the next message that has data.
func (f *follower) next() message {
	f.t.Helper()
	var m message
	for f.in.Scan() {
		name, value, _ := strings.Cut(f.in.Text(), ": ")
		switch name {
		case "event":
			m.kind = value
		case "id":
			m.id = value
		case "data":
			m.data = value
		case "":
			if m.data != "" {
				return m
			}
		}
	}
	f.t.Fatalf("the events have ended: %v", f.in.Err())
	return m
}

// texts returns what the next n events say.
func (f *follower) texts(n int) (out []string, last string) {
	f.t.Helper()
	for range n {
		m := f.next()
		var e event.Event
		if err := json.Unmarshal([]byte(m.data), &e); err != nil {
			f.t.Fatal(err)
		}
		out, last = append(out, e.Msg), m.id
	}
	return out, last
}

// Who follows the events gets them, goes on where it was cut, and knows what has
// changed.
func TestEventsLive(t *testing.T) {
	n := newAPI(t)
	srv := httptest.NewServer(n.h)
	t.Cleanup(srv.Close)
	add := func(stream, msg string) {
		n.feed.Add(event.Event{Time: time.Now(), Stream: stream, Kind: event.Heal, Msg: msg})
	}
	add("sport/hd", "before")
	f := follow(t, srv, "", "")
	if kind := f.resp.Header.Get("Content-Type"); f.resp.StatusCode != 200 || kind != "text/event-stream" {
		t.Fatal(f.resp.Status, kind)
	}
	add("sport/hd", "one")
	add("other", "two")
	got, last := f.texts(2)
	if !slices.Equal(got, []string{"one", "two"}) {
		t.Error(got)
	}
	n.feed.Changed("sport/hd", at(10), at(20))
	if m := f.next(); m.kind != "coverage" || m.data != `{"stream":"sport/hd","from":"2026-11-22T12:00:10.000Z","to":"2026-11-22T12:00:20.000Z"}` {
		t.Errorf("%+v", m)
	}
	f.close()
	add("sport/hd", "three")
	again := follow(t, srv, "stream=sport/hd", last)
	add("other", "four")
	add("sport/hd", "five")
	if got, _ := again.texts(2); !slices.Equal(got, []string{"three", "five"}) {
		t.Errorf("after a break, of one stream: %v", got)
	}
}

// Where the process is another one, or too much has happened, the archives tell
// what came meanwhile.
func TestEventsLiveFromArchive(t *testing.T) {
	n := newAPI(t)
	srv := httptest.NewServer(n.h)
	t.Cleanup(srv.Close)
	began := time.Now().Add(-time.Minute)
	note := func(i int, feed, keep bool) {
		e := event.Event{Time: began.Add(time.Duration(i) * time.Second), Stream: "sport/hd", Kind: event.Heal, Msg: fmt.Sprint(i)}
		if feed {
			n.feed.Add(e)
		}
		if keep {
			if err := n.a.Note(e); err != nil {
				t.Fatal(err)
			}
		}
	}
	note(1, false, true)
	note(2, false, true)
	note(3, true, true)
	note(4, true, false) // about to be written
	id := eventID{began.Add(time.Second).UnixMilli(), 9, "another"}
	if got, _ := follow(t, srv, "", id.String()).texts(3); !slices.Equal(got, []string{"2", "3", "4"}) {
		t.Error(got)
	}
	for i := range feedEvents + 10 {
		n.feed.Add(event.Event{Time: began, Stream: "x", Kind: "x", Msg: fmt.Sprint("n", i)})
	}
	old := eventID{began.Add(time.Second).UnixMilli(), 1, "n1"}
	f := follow(t, srv, "stream=sport/hd", old.String())
	note(5, true, false)
	if got, _ := f.texts(3); !slices.Equal(got, []string{"2", "3", "5"}) {
		t.Errorf("forgotten meanwhile: %v", got)
	}
	for _, bad := range []string{"x", "1-2", "-1-2-n", "1-x-n", strings.Repeat("1", 200) + "-1-n"} {
		f := follow(t, srv, "stream=sport/hd", bad)
		note(6, true, false)
		if got, _ := f.texts(1); !slices.Equal(got, []string{"6"}) {
			t.Errorf("an id %.20s: %v", bad, got)
		}
	}
}

// There are only so many who follow, and whoever goes makes room.
func TestEventsLiveBounded(t *testing.T) {
	n := newAPI(t)
	srv := httptest.NewServer(n.h)
	t.Cleanup(srv.Close)
	var all []*follower
	for range maxFollowers {
		f := follow(t, srv, "", "")
		if f.resp.StatusCode != 200 {
			t.Fatal(f.resp.Status)
		}
		all = append(all, f)
	}
	if f := follow(t, srv, "", ""); f.resp.StatusCode != http.StatusServiceUnavailable || f.resp.Header.Get("Retry-After") == "" {
		t.Error(f.resp.Status)
	}
	if f := follow(t, srv, "stream=none", ""); f.resp.StatusCode != http.StatusNotFound {
		t.Error(f.resp.Status)
	}
	for _, f := range all {
		f.close()
	}
	testkit.Await(t, "all are gone", func() bool { return n.h.followers.Load() == 0 })
	if f := follow(t, srv, "", ""); f.resp.StatusCode != 200 {
		t.Error(f.resp.Status)
	}
}

// Whatever is added, whoever reads at whatever pace gets all of it in order, or is
// told that some is lost.
func TestFeed(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := NewFeed()
		f.events.most = rapid.IntRange(1, 5).Draw(rt, "most")
		added := uint64(0)
		at := f.end()
		for range rapid.IntRange(1, 20).Draw(rt, "rounds") {
			for range rapid.IntRange(0, 8).Draw(rt, "events") {
				added++
				f.Add(event.Event{Msg: fmt.Sprint(added)})
			}
			n := f.after(at)
			if want := added - at.event; n.lost != (want > uint64(f.events.most)) || uint64(len(n.events)) != min(want, uint64(f.events.most)) {
				rt.Fatalf("%d of %d, lost %v", len(n.events), want, n.lost)
			}
			for i, e := range n.events {
				if e.Msg != fmt.Sprint(n.first+uint64(i)) {
					rt.Fatalf("event %d says %s", n.first+uint64(i), e.Msg)
				}
			}
			at = n.place
			select {
			case <-n.more:
				rt.Fatal("woken for nothing")
			default:
			}
		}
	})
}

// Readers who wait are woken by each addition.
func TestFeedWakes(t *testing.T) {
	f := NewFeed()
	var done sync.WaitGroup
	for range 4 {
		at := f.end()
		done.Go(func() {
			for at.event < 100 {
				n := f.after(at)
				if at = n.place; at.event < 100 {
					<-n.more
				}
			}
		})
	}
	for range 100 {
		f.Add(event.Event{})
	}
	done.Wait()
}
