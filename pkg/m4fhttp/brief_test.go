package m4fhttp

import (
	"bufio"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"sync/atomic"
	"testing"

	"github.com/twindvr/twindvr/pkg/archive"
)

// told is a Provider of one stream, whose state can be set.
type told struct {
	archive *archive.Stream
	live    atomic.Pointer[Live]
}

func (p *told) Streams() ([]string, error)    { return []string{"x"}, nil }
func (p *told) Stream(string) (Stream, error) { return p, nil }
func (p *told) Archive() *archive.Stream      { return p.archive }
func (p *told) Live() Live                    { return *p.live.Load() }

// TestBriefChanges wants a state that has not changed to be told in full to everybody
// but those who prefer it brief, and these to know of each change at once.
func TestBriefChanges(t *testing.T) {
	p := &told{archive: newArchive(t, t.TempDir()+"/x")}
	appendAll(t, p.archive, numbers(t, 0, 2)...)
	states := []Live{
		{Mode: "normal", Chain: []string{"a"}, Inputs: []Input{{URL: "udp://239.1.1.1:1", State: "good", Active: true}}, SourceAge: ptr(0.0126)},
		{Mode: "emergency", Chain: []string{"a", "b"}},
		{Mode: "offline", Chain: []string{}},
	}
	p.live.Store(&states[0])
	srv := httptest.NewServer(NewHandler(Options{Provider: p, Log: quiet}))
	defer srv.Close()

	for _, prefer := range []string{"", "respond-async, M4F-brief"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/x/m4f/changes?cursor=now", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Prefer", prefer)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if got := res.Header.Get("Preference-Applied"); (got == brief) != (prefer != "") {
			t.Errorf("prefer %q: applied %q", prefer, got)
		}
		lines := bufio.NewScanner(res.Body)
		for i := range 2 {
			var l Change
			if !lines.Scan() || json.Unmarshal(lines.Bytes(), &l) != nil || l.Status == nil {
				t.Fatalf("prefer %q: line %d is %q", prefer, i, lines.Bytes())
			}
			full := l.Cursor != "" && l.Status.Mode == "normal" && reflect.DeepEqual(l.Status.Inputs, states[0].Inputs) && len(l.Status.Chain) == 1
			none := l.Cursor == "" && l.Status.Mode == "" && l.Status.Inputs == nil && l.Status.Chain == nil
			if want := i == 0 || prefer == ""; want && !full || !want && !none || *l.Status.SourceAge != 0.013 {
				t.Errorf("prefer %q: line %d is %s", prefer, i, lines.Bytes())
			}
		}
	}

	// A client has the whole of each state, whatever travels.
	enough := errors.New("enough")
	n := 0
	err := clientOf(t, srv.URL, "x").Changes(t.Context(), CursorNow, func(ev *ChangeEvent) error {
		want, got := states[n/2], ev.Status.Live
		if got.Mode != want.Mode || !reflect.DeepEqual(got.Chain, want.Chain) || !reflect.DeepEqual(got.Inputs, want.Inputs) || (got.SourceAge == nil) != (want.SourceAge == nil) {
			t.Errorf("state %d: %+v, want %+v", n, got, want)
		}
		if n++; n == 2*len(states) {
			return enough
		}
		p.live.Store(&states[n/2])
		return nil
	})
	if !errors.Is(err, enough) {
		t.Error(err)
	}
}
