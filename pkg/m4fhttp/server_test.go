package m4fhttp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// What a client reads of an archive over HTTP is what the archive itself says.
func TestClientReadsArchive(t *testing.T) {
	n := serve(t, "s3cret")
	a := n.stream(t, "sport/hd é")
	appendAll(t, a, numbers(t, 0, 1000)...)
	appendAll(t, a, segment(t, 1000, 1, m4f.Damaged|m4f.Discontinuity), segment(t, 1003, 0, m4f.Partial))
	c := n.client(t, "sport/hd é")
	ctx := t.Context()

	info, err := c.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if info.Stream != "sport/hd é" || info.TargetDuration != length || info.Rules != m4f.RulesVersion ||
		m4f.UTC(*info.Oldest) != epoch || m4f.UTC(*info.Newest) != epoch.Add(1004*length) || len(info.Node) != 16 ||
		len(info.Tracks) != 1 || info.Tracks[0].Codec != m4f.CodecAAC.String() || info.Tracks[0].PID != 257 ||
		info.Timeline == nil || info.Timeline.MediaTime != 1003*length || !slices.Equal(info.Chain, []string{info.Node}) {
		t.Errorf("info: %+v", info)
	}

	wantHours, err := a.Hours(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	hours, err := c.Hours(ctx, 0, 0)
	if err != nil || !reflect.DeepEqual(hours, wantHours) || len(hours) != 2 {
		t.Errorf("hours: %v, %v, want %v", hours, err, wantHours)
	}

	for _, span := range [][2]m4f.UTC{
		{0, 0},
		{epoch.Add(5 * length), epoch.Add(7 * length)},
		{epoch.Add(5*length + 1), epoch.Add(7*length + 1)},
		{epoch.Add(899 * length), epoch.Add(901 * length)}, // over the hour
		{epoch.Add(2000 * length), 0},
	} {
		want, err := a.Span(span[0], span[1])
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.Segments(ctx, span[0], span[1])
		if err != nil || len(got) != len(want) {
			t.Fatalf("segments of %v: %d, %v, want %d", span, len(got), err, len(want))
		}
		for i := range want {
			if got[i].Record != want[i].Record || !slices.Equal(got[i].Parts, want[i].Parts) {
				t.Errorf("segment %d of %v: %+v, want %+v", i, span, got[i], want[i])
			}
		}
		if len(want) > 10 || len(want) == 0 {
			continue
		}
		i := 0
		err = c.MediaSpan(ctx, span[0], span[1], func(s *m4f.Segment) error {
			if s.Header != want[i].Header {
				t.Errorf("segment %d of the media of %v: %+v", i, span, s.Header)
			}
			i++
			return nil
		})
		if err != nil || i != len(want) {
			t.Errorf("media of %v: %d segments, %v", span, i, err)
		}
	}
	if err := c.MediaSpan(ctx, epoch.Add(5000*length), 0, nil); StatusOf(err) != http.StatusNotFound {
		t.Errorf("media of an empty span: %v", err)
	}

	all, err := a.Span(epoch.Add(999*length), 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		s, err := c.Media(ctx, &all[i].Record, nil)
		if err != nil || s.Header != all[i].Header {
			t.Errorf("media of %s: %v", all[i].ID, err)
		}
	}
	gone := all[0].Record
	gone.ID[0] ^= 1
	if _, err := c.Media(ctx, &gone, nil); StatusOf(err) != http.StatusNotFound {
		t.Errorf("media of an unknown identity: %v", err)
	}
}

// A view with a segment that better ones cover in part travels with its parts.
func TestPartsTravel(t *testing.T) {
	n := serve(t)
	a := n.stream(t, "x")
	appendAll(t, a, segment(t, 0, 0, 0), segment(t, 1, 1, m4f.Damaged))
	// A clean partial segment over the second half of the damaged one.
	half := segment(t, 1, 2, m4f.Partial)
	late, err := m4f.Build(&m4f.SegmentSpec{
		Header:         m4f.Header{MediaTime: length + second, UTC: half.Header.UTC + second, Duration: second, Flags: m4f.Partial | m4f.Keyframe},
		TargetDuration: length, Program: 1, PCRPID: 257,
		Tracks: []m4f.Track{{
			Config:  m4f.TrackConfig{PID: 257, StreamType: 0x0F, Codec: m4f.CodecAAC, FrameHeader: aac[:64]},
			Samples: []m4f.Sample{{PTS: length + second, DTS: length + second, Duration: 1920, Sync: true, Data: []byte{1, 2, 3}}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	appendAll(t, a, late)
	want, err := a.Span(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	got, err := n.client(t, "x").Segments(t.Context(), 0, 0)
	if err != nil || len(got) != 3 || len(want) != 3 {
		t.Fatalf("%d segments, %v, want %d", len(got), err, len(want))
	}
	trimmed := 0
	for i := range want {
		if !slices.Equal(got[i].Parts, want[i].Parts) {
			t.Errorf("segment %d has parts %v, want %v", i, got[i].Parts, want[i].Parts)
		}
		if !got[i].Whole() {
			trimmed++
		}
	}
	if trimmed != 1 {
		t.Errorf("%d trimmed segments, want 1", trimmed)
	}
}

func TestRecordTravels(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r archive.Record
		copy(r.ID[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "id"))
		copy(r.Init[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "init"))
		r.ID[0], r.Init[0] = 1, 1
		r.MediaTime = rapid.Int64Range(0, m4f.Wrap-1).Draw(t, "media time")
		r.UTC = m4f.UTC(rapid.Int64Range(0, int64(maxTime)).Draw(t, "utc"))
		r.Duration = rapid.Uint32Range(1, archive.MaxDuration).Draw(t, "duration")
		r.Flags = m4f.Flags(rapid.Uint16Range(0, 15).Draw(t, "flags"))
		r.Lost, r.Errored = rapid.Uint32().Draw(t, "lost"), rapid.Uint32().Draw(t, "errored")
		r.Length = rapid.Uint64Range(1, m4f.MaxMedia).Draw(t, "length")
		r.Origin = archive.Origin(rapid.Uint8Range(0, 5).Draw(t, "origin"))
		r.Input = rapid.Uint8().Draw(t, "input")
		r.Arrived = rapid.Int64Range(0, 1<<42).Draw(t, "arrived")
		b, err := json.Marshal(RecordOf(&r))
		if err != nil {
			t.Fatal(err)
		}
		var w Record
		if err := json.Unmarshal(b, &w); err != nil {
			t.Fatal(err)
		}
		got, err := w.Record()
		if err != nil || got != r {
			t.Fatalf("%s\nreads as %+v, %v\nwant %+v", b, got, err, r)
		}
	})
}

func get(t testing.TB, n *node, path string, header ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, n.srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	// As it is, without what url.Parse would tidy.
	req.URL.Opaque = path
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, body
}

// Every request that cannot be answered is answered with problem details, and
// none reaches outside the root.
func TestProblems(t *testing.T) {
	n := serve(t)
	n.stream(t, "here")
	outside := newArchive(t, filepath.Join(filepath.Dir(n.root), "outside"))
	appendAll(t, outside, segment(t, 0, 0, 0))
	name := filepath.Base(n.root)
	for _, c := range []struct {
		path   string
		status int
		say    string
	}{
		{"/nothing/m4f/info", 404, "there is no stream nothing here; there is here"},
		{"/../outside/m4f/info", 400, "climb"},
		{"/here/../../outside/m4f/info", 400, "climb"},
		{"/%2e%2e/outside/m4f/info", 400, "climb"},
		{"/..%2Foutside/m4f/info", 400, "climb"},
		{"/here/%2e/m4f/info", 400, "climb"},
		{"/%2Foutside/m4f/info", 400, "slash"},
		{"/" + url.PathEscape(filepath.Dir(n.root)) + "/outside/m4f/info", 400, "slash"},
		{"/a%00b/m4f/info", 400, "control"},
		{"/a%5cb/m4f/info", 400, "backslash"},
		{"/" + strings.Repeat("a/", 400) + "m4f/info", 400, "longer"},
		{"/" + name + "/here/m4f/info", 404, "no stream"},
		{"/m4f/info", 404, "/STREAM/m4f/info"},
		{"/here", 404, "/STREAM/m4f/info"},
		{"/here/m4f/nothing", 404, "info, changes, hours"},
		{"/here/m4f/media/xyz", 400, "64 hexadecimal digits"},
		{"/here/m4f/media/" + strings.Repeat("0", 64), 404, "pruned"},
		{"/here/m4f/media/a/b", 404, "there is no m4f/"},
		{"/here/m4f/hours?from=yesterday", 400, "is no time"},
		{"/here/m4f/hours?from=20&to=10", 400, "not after"},
		{"/here/m4f/hours?fron=20", 400, "takes no fron"},
		{"/here/m4f/hours?from=1&from=2", 400, "2 times"},
		{"/here/m4f/hours?%zz", 400, "query"},
		{"/here/m4f/live?after=1", 400, "64 hexadecimal digits"},
		{"/here/m4f/live?after=" + strings.Repeat("0", 64), 404, "leave after out"},
		{"/here/m4f/changes?cursor=%00garbage", 410, "cursor=now"},
		{"/here/m4f/media", 404, "nothing is recorded"},
	} {
		res, body := get(t, n, c.path)
		var p Problem
		if err := json.Unmarshal(body, &p); err != nil || res.Header.Get("Content-Type") != problemType {
			t.Errorf("%s: %s is no problem: %v", c.path, body, err)
			continue
		}
		if res.StatusCode != c.status || p.Status != c.status || !strings.Contains(p.Detail, c.say) {
			t.Errorf("%s: %d, %q; want %d with %q", c.path, res.StatusCode, p.Detail, c.status, c.say)
		}
	}
	res, err := http.Post(n.srv.URL+"/here/m4f/info", "text/plain", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("a request with a body: %d", res.StatusCode)
	}
	for _, what := range []string{"info", "changes", "hours", "segments", "live"} {
		res, err := http.Head(n.srv.URL + "/here/m4f/" + what)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 200 || res.Header.Get("Content-Type") == "" {
			t.Errorf("HEAD %s: %d", what, res.StatusCode)
		}
	}
	req, _ := http.NewRequest(http.MethodDelete, n.srv.URL+"/here/m4f/info", nil)
	if res, err = http.DefaultClient.Do(req); err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("DELETE: %d", res.StatusCode)
	}
}

// Without the key nothing is learnt, not even which streams there are.
func TestClosedToStrangers(t *testing.T) {
	n := serve(t, "s3cret")
	appendAll(t, n.stream(t, "here"), segment(t, 0, 0, 0))
	var first []byte
	for _, path := range []string{"/here/m4f/info", "/nothing/m4f/info", "/../x/m4f/info", "/here/m4f/media", "/here/m4f/live", "/"} {
		res, body := get(t, n, path)
		if res.StatusCode != http.StatusUnauthorized || strings.Contains(string(body), "here\"") {
			t.Errorf("%s: %d %s", path, res.StatusCode, body)
		}
		if first == nil {
			first = body
		}
		if string(body) != string(first) {
			t.Errorf("%s is answered with %s, and another path with %s", path, body, first)
		}
	}
	_, err := clientOf(t, n.srv.URL, "here", "wrong").Info(t.Context())
	if StatusOf(err) != http.StatusUnauthorized || !strings.Contains(err.Error(), "--cluster-key-file") {
		t.Errorf("a wrong key: %v", err)
	}
	_, err = n.client(t, "there").Info(t.Context())
	var p *Problem
	if !errors.As(err, &p) || !slices.Equal(p.Streams, []string{"here"}) || !strings.Contains(err.Error(), "there is here") {
		t.Errorf("another stream: %v", err)
	}
}

// Streams are found as they come, move and go.
func TestRootIsLookedAtAnew(t *testing.T) {
	n := serve(t)
	status := func(name string) int {
		res, _ := get(t, n, "/"+name+"/m4f/info")
		return res.StatusCode
	}
	if got := status("a/b"); got != 404 {
		t.Errorf("before it is there: %d", got)
	}
	appendAll(t, n.stream(t, "a/b"), segment(t, 0, 0, 0))
	if got := status("a/b"); got != 200 {
		t.Errorf("when it is there: %d", got)
	}
	if err := os.Rename(filepath.Join(n.root, "a"), filepath.Join(n.root, "c")); err != nil {
		t.Fatal(err)
	}
	if got := status("a/b"); got != 404 {
		t.Errorf("when it has moved: %d", got)
	}
	if got := status("c/b"); got != 200 {
		t.Errorf("where it has moved to: %d", got)
	}
	// A root that is a stream itself has its directory's name.
	h := NewHandler(Options{Provider: NewRoot(filepath.Join(n.root, "c", "b")), Log: quiet})
	if _, err := h.Provider.Stream("b"); err != nil {
		t.Error(err)
	}
	if _, err := h.Provider.Stream("c"); !errors.Is(err, ErrNoStream) {
		t.Errorf("another name: %v", err)
	}
}

// A range of a span is that part of the whole span, whichever it is.
func TestRanges(t *testing.T) {
	n := serve(t)
	a := n.stream(t, "x")
	appendAll(t, a, numbers(t, 0, 20)...)
	path := "/x/m4f/media?from=" + url.QueryEscape(Time(epoch.Add(3*length)).String()) + "&to=" + url.QueryEscape(Time(epoch.Add(9*length)).String())
	res, whole := get(t, n, path)
	if res.StatusCode != 200 || res.ContentLength != int64(len(whole)) || res.Header.Get("Accept-Ranges") != "bytes" {
		t.Fatalf("%d, length %d of %d", res.StatusCode, res.ContentLength, len(whole))
	}
	if segs := readM4F(t, strings.NewReader(string(whole))); len(segs) != 6 {
		t.Fatalf("%d segments, want 6", len(segs))
	}
	tag := res.Header.Get("ETag")
	size := len(whole)
	rapid.Check(t, func(rt *rapid.T) {
		from := rapid.IntRange(0, size+10).Draw(rt, "from")
		to := rapid.IntRange(from, size+100).Draw(rt, "to")
		header := rapid.SampledFrom([]string{
			fmt.Sprintf("bytes=%d-%d", from, to), fmt.Sprintf("bytes=%d-", from), fmt.Sprintf("bytes=-%d", from),
		}).Draw(rt, "header")
		first, end := from, min(to+1, size)
		switch {
		case strings.HasPrefix(header, "bytes=-"):
			first, end = max(size-from, 0), size
		case strings.HasSuffix(header, "-"):
			end = size
		}
		res, part := get(t, n, path, "Range", header)
		if first >= end {
			if res.StatusCode != 416 || res.Header.Get("Content-Range") != fmt.Sprintf("bytes */%d", size) {
				rt.Fatalf("%s: %d %s", header, res.StatusCode, res.Header.Get("Content-Range"))
			}
			return
		}
		if res.StatusCode != 206 || string(part) != string(whole[first:end]) ||
			res.Header.Get("Content-Range") != fmt.Sprintf("bytes %d-%d/%d", first, end-1, size) {
			rt.Fatalf("%s: %d %s, %d bytes", header, res.StatusCode, res.Header.Get("Content-Range"), len(part))
		}
	})
	for _, c := range []struct {
		name, value string
		status      int
	}{
		{"If-Range", tag, 206}, {"If-Range", `"other"`, 200},
	} {
		if res, _ := get(t, n, path, "Range", "bytes=1-2", c.name, c.value); res.StatusCode != c.status {
			t.Errorf("%s %s: %d, want %d", c.name, c.value, res.StatusCode, c.status)
		}
	}
	for _, header := range []string{"bytes=1-2,4-5", "lines=1-2", "bytes=x-y", "bytes=5-4", "bytes=--5", "bytes=-"} {
		if res, body := get(t, n, path, "Range", header); res.StatusCode != 200 || len(body) != size {
			t.Errorf("%s: %d, %d bytes", header, res.StatusCode, len(body))
		}
	}
	if res, body := get(t, n, path, "If-None-Match", tag); res.StatusCode != 304 || len(body) != 0 {
		t.Errorf("If-None-Match: %d", res.StatusCode)
	}
	out, err := exec.Command("curl", "-sS", "-r", "100-199", n.srv.URL+path).Output()
	if err != nil || string(out) != string(whole[100:200]) {
		t.Errorf("curl -r: %d bytes, %v", len(out), err)
	}
	out, err = exec.Command("curl", "-sSI", n.srv.URL+path).Output()
	if err != nil || !strings.Contains(string(out), fmt.Sprintf("Content-Length: %d", size)) {
		t.Errorf("curl -I: %s, %v", out, err)
	}
}

// collector gathers events of a follower.
type collector struct {
	mu     sync.Mutex
	recs   []archive.Record
	cursor archive.Cursor
	idle   int
	notify chan struct{}
}

func follow(ctx context.Context, c *Client, cursor archive.Cursor) (*collector, func() error) {
	col := &collector{notify: make(chan struct{}, 1)}
	done := make(chan error, 1)
	go func() {
		done <- c.Changes(ctx, cursor, func(ev *ChangeEvent) error {
			col.mu.Lock()
			defer col.mu.Unlock()
			if ev.Cursor != "" {
				col.cursor = ev.Cursor
			}
			if ev.Record != nil {
				col.recs = append(col.recs, *ev.Record)
			}
			if ev.Status != nil && ev.Status.Idle {
				col.idle++
			}
			select {
			case col.notify <- struct{}{}:
			default:
			}
			return nil
		})
	}()
	return col, func() error { return <-done }
}

// until waits for something to become true of what was collected.
func (c *collector) until(t *testing.T, cond func() bool) {
	t.Helper()
	for {
		c.mu.Lock()
		ok := cond()
		c.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-c.notify:
		case <-t.Context().Done():
			t.Fatal("the test is over")
		}
	}
}

func TestChanges(t *testing.T) {
	n := serve(t, "s3cret")
	a := n.stream(t, "x")
	const many = changesBatch + 100
	appendAll(t, a, numbers(t, 0, many)...)
	c := n.client(t, "x")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	all, waitAll := follow(ctx, c, "")
	fresh, waitFresh := follow(ctx, c, CursorNow)
	fresh.until(t, func() bool { return fresh.idle > 0 })
	all.until(t, func() bool { return len(all.recs) == many && all.idle > 0 })
	appendAll(t, a, numbers(t, many, many+3)...)
	fresh.until(t, func() bool { return len(fresh.recs) == 3 })
	all.until(t, func() bool { return len(all.recs) == many+3 })
	for i, r := range all.recs {
		if r.MediaTime != int64(i)*length {
			t.Fatalf("change %d is of media time %d", i, r.MediaTime)
		}
	}
	if fresh.recs[0].MediaTime != many*length {
		t.Errorf("the first new one is of media time %d", fresh.recs[0].MediaTime)
	}
	fresh.mu.Lock()
	cursor := fresh.cursor
	fresh.mu.Unlock()
	cancel()
	for _, wait := range []func() error{waitAll, waitFresh} {
		if err := wait(); !errors.Is(err, context.Canceled) {
			t.Errorf("followers end with %v", err)
		}
	}

	// A follower goes on behind its cursor, wherever the archive has got to.
	appendAll(t, a, numbers(t, many+3, many+5)...)
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	again, wait := follow(ctx, c, cursor)
	again.until(t, func() bool { return len(again.recs) == 2 })
	if again.recs[0].MediaTime != (many+3)*length {
		t.Errorf("goes on with media time %d", again.recs[0].MediaTime)
	}
	cancel()
	wait()
}

// Live sends what is new in media order, each once, and never goes back.
func TestLive(t *testing.T) {
	n := serve(t)
	a := n.stream(t, "x")
	appendAll(t, a, numbers(t, 0, 3)...)
	c := n.client(t, "x")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	run := func(after m4f.Identity) (chan int64, chan error) {
		got, done := make(chan int64, 100), make(chan error, 1)
		go func() {
			done <- c.Live(ctx, after, func(s *m4f.Segment) error {
				got <- s.Header.MediaTime / length
				return nil
			})
		}()
		return got, done
	}
	newest, doneNewest := run(m4f.Identity{})
	after, doneAfter := run(segment(t, 0, 0, 0).Header.ID)
	expect := func(what string, c chan int64, want ...int64) {
		t.Helper()
		for _, w := range want {
			if got := <-c; got != w {
				t.Fatalf("%s: segment %d, want %d", what, got, w)
			}
		}
	}
	expect("newest", newest, 2)
	expect("after 0", after, 1, 2)
	appendAll(t, a, segment(t, 5, 0, 0))
	expect("newest", newest, 5)
	expect("after 0", after, 5)
	appendAll(t, a, segment(t, 3, 0, 0), segment(t, 4, 0, 0)) // healed behind what was sent
	appendAll(t, a, segment(t, 5, 1, 0))                      // another copy of what was sent
	appendAll(t, a, segment(t, 6, 0, 0))
	expect("newest", newest, 6)
	expect("after 0", after, 6)
	cancel()
	for _, done := range []chan error{doneNewest, doneAfter} {
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("live ends with %v", err)
		}
	}
	if len(newest)+len(after) != 0 {
		t.Errorf("more was sent")
	}
}

// Tools that know nothing of twindvr read what is served.
func TestToolsReadIt(t *testing.T) {
	n := serve(t, "s3cret")
	a := n.stream(t, "x")
	appendAll(t, a, numbers(t, 0, 5)...)
	dir := t.TempDir()
	packets := func(file string) string {
		out, err := exec.Command("ffprobe", "-v", "error", "-count_packets", "-show_entries", "stream=nb_read_packets", "-of", "csv=p=0", file).CombinedOutput()
		if err != nil {
			t.Fatalf("ffprobe: %v\n%s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	span := filepath.Join(dir, "span.mp4")
	if out, err := exec.Command("curl", "-sSf", "--digest", "-u", "m4f:s3cret", "-o", span, n.srv.URL+"/x/m4f/media").CombinedOutput(); err != nil {
		t.Fatalf("curl: %v\n%s", err, out)
	}
	if got, want := packets(span), fmt.Sprint(5*framesPerSegment); got != want {
		t.Errorf("ffprobe counts %s packets in a span, want %s", got, want)
	}

	live := filepath.Join(dir, "live.mp4")
	curl := exec.Command("curl", "-sSN", "--digest", "-u", "m4f:s3cret", "-o", live, n.srv.URL+"/x/m4f/live")
	if err := curl.Start(); err != nil {
		t.Fatal(err)
	}
	size := func(segs int) int64 {
		all := numbers(t, 4, 4+segs)
		total := int64(len(all[0].Init))
		for _, s := range all {
			total += int64(m4f.HeaderBoxSize + len(s.Media))
		}
		return total
	}
	waitSize := func(want int64) {
		for {
			if st, err := os.Stat(live); err == nil && st.Size() >= want {
				return
			}
			if t.Context().Err() != nil {
				t.Fatal("the test is over")
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	waitSize(size(1))
	appendAll(t, a, numbers(t, 5, 7)...)
	waitSize(size(3))
	curl.Process.Kill()
	curl.Wait()
	if got, want := packets(live), fmt.Sprint(3*framesPerSegment); got != want {
		t.Errorf("ffprobe counts %s packets in the live stream, want %s", got, want)
	}
}
