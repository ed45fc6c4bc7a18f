package m4fhttp

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// A node lists its streams to who has the key.
func TestStreams(t *testing.T) {
	n := serve(t, "s3cret")
	n.stream(t, "sport/hd é")
	appendAll(t, n.stream(t, "news"), numbers(t, 0, 2)...)
	list, refused, err := n.client(t, "whatever").Streams(t.Context())
	if err != nil || refused != 0 || len(list) != 2 || list[0].Name != "news" || list[1].Name != "sport/hd é" ||
		list[0].TargetDuration != length || len(list[0].Via) != 1 || len(list[0].Via[0]) != 16 {
		t.Errorf("%+v %d %v", list, refused, err)
	}
	for _, key := range []string{"", "wrong"} {
		c := clientOf(t, n.srv.URL, "x")
		if key != "" {
			c = clientOf(t, n.srv.URL, "x", key)
		}
		if list, _, err := c.Streams(t.Context()); StatusOf(err) != http.StatusUnauthorized || list != nil {
			t.Errorf("key %q: %v %v", key, list, err)
		}
	}
	open := serve(t)
	for path, status := range map[string]int{"/m4f/streams": 200, "/m4f/streams?x=y": 400, "/m4f/streams/": 404, "/m4f/": 404} {
		if res, body := get(t, open, path); res.StatusCode != status {
			t.Errorf("%s: %d %s, want %d", path, res.StatusCode, body, status)
		}
	}
	if list, _, err := clientOf(t, open.srv.URL, "x").Streams(t.Context()); err != nil || list != nil {
		t.Errorf("no streams: %v %v", list, err)
	}
}

// starting is a provider that lists its streams itself.
type starting struct {
	*Root
	list []Listed
	err  error
}

func (s *starting) List() ([]Listed, error) { return s.list, s.err }

// A node that knows only some of its streams yet lists none.
func TestStreamsOfStartingNode(t *testing.T) {
	p := &starting{Root: NewRoot(t.TempDir()), err: ErrStarting}
	n := &node{}
	n.srv = httptest.NewServer(NewHandler(Options{Provider: p, Log: quiet}))
	t.Cleanup(n.srv.Close)
	res, body := get(t, n, "/m4f/streams")
	if res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), "this node is starting") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	p.err, p.list = nil, []Listed{{Name: "a", TargetDuration: m4f.Timescale, Via: []string{"x", "y"}}, {Name: "b", Via: []string{}}}
	list, _, err := n.client(t, "x").Streams(t.Context())
	if err != nil || !reflect.DeepEqual(list, p.list) {
		t.Errorf("%+v %v", list, err)
	}
}

// What cannot be a stream is left out; what is no list at all is an error.
func TestHostileStreams(t *testing.T) {
	good := `{"name":"a","target_duration":90000,"via":["x"]}` + "\n"
	for name, c := range map[string]struct {
		text           string
		taken, refused int
		bad            bool
	}{
		"climbs":      {good + `{"name":"../b"}` + "\n" + `{"name":"c/../../d"}` + "\n" + `{"name":"/etc"}` + "\n" + `{"name":".ssh/x"}` + "\n", 1, 4, false},
		"odd names":   {good + `{"name":""}` + "\n" + `{"name":"a\u0000b"}` + "\n" + `{"name":"x/m4f/y"}` + "\n" + `{"name":"a\nb"}` + "\n{}\n", 1, 5, false},
		"long names":  {good + `{"name":"` + strings.Repeat("x", 256) + `"}` + "\n" + `{"name":"` + strings.Repeat("x/", 40) + `y"}` + "\n", 1, 2, false},
		"twice":       {good + good + good, 1, 2, false},
		"durations":   {good + `{"name":"b","target_duration":-1}` + "\n" + `{"name":"c","target_duration":9223372036854775807}` + "\n", 1, 2, false},
		"long chain":  {good + `{"name":"b","via":[` + strings.Repeat(`"x",`, 200) + `"y"]}` + "\n", 1, 1, false},
		"no JSON":     {good + "hello\n", 1, 0, true},
		"wrong types": {good + `{"name":5}` + "\n", 1, 0, true},
		"empty line":  {good + "\n\n", 1, 0, true},
		"a long line": {good + `{"name":"` + strings.Repeat("x", 1<<17) + "\n", 1, 0, true},
	} {
		h := hostile(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, c.text) })
		list, refused, err := h.Streams(t.Context())
		var bad *BadAnswerError
		if len(list) != c.taken || refused != c.refused || errors.As(err, &bad) != c.bad {
			t.Errorf("%s: %d taken, %d refused, %v", name, len(list), refused, err)
		}
	}
	// A million names are not read to their end.
	sent := 0
	h := hostile(t, func(w http.ResponseWriter, r *http.Request) {
		for sent = range 1000000 {
			if _, err := fmt.Fprintf(w, `{"name":"s%d","target_duration":90000,"via":["x"]}`+"\n", sent); err != nil {
				return
			}
		}
	})
	list, _, err := h.Streams(t.Context())
	var bad *BadAnswerError
	if !errors.As(err, &bad) || len(list) > maxStreams {
		t.Errorf("a million: %d, %v", len(list), err)
	}
}
