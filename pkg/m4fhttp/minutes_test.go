package m4fhttp

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// A peer tells of minutes what its archive does.
func TestMinutes(t *testing.T) {
	n := serve(t, "s3cret")
	a := n.stream(t, "sport/hd")
	c := n.client(t, "sport/hd")
	ctx := context.Background()
	day := []archive.Window{{From: epoch.Add(-12 * hourTicks), To: epoch.Add(12 * hourTicks)}}
	if got, err := c.Minutes(ctx, day); err != nil || len(got) != 0 {
		t.Fatalf("an empty archive: %+v, %v", got, err)
	}
	appendAll(t, a, numbers(t, 0, 40)...)
	want, err := a.Minutes(day...)
	if err != nil || len(want) != 1 || want[0].Longest != length {
		t.Fatalf("%+v, %v", want, err)
	}
	var used []int
	for i, d := range want[0].Digests {
		if d != 0 {
			used = append(used, i)
		}
	}
	if len(used) != 40*length/(60*second)+1 {
		t.Errorf("the minutes %d have digests", used)
	}
	two := []archive.Window{{From: epoch, To: epoch.Add(second)}, {From: epoch.Add(9 * second), To: epoch.Add(10 * second)}}
	for _, windows := range [][]archive.Window{day, two} {
		if got, err := c.Minutes(ctx, windows); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
	appendAll(t, a, segment(t, 39, 1, 0))
	again, err := a.Minutes(day...)
	if err != nil {
		t.Fatal(err)
	}
	for i := range want[0].Digests {
		if same := want[0].Digests[i] == again[0].Digests[i]; same != (i != used[len(used)-1]) {
			t.Errorf("minute %d is the same: %v", i, same)
		}
	}
}

// outlined is what an outline tells of an element.
func outlined(e archive.Element) archive.Element {
	return archive.Element{
		Record: archive.Record{
			Header:  m4f.Header{ID: e.ID, UTC: e.UTC, Duration: e.Duration, Flags: e.Flags & (m4f.Damaged | m4f.Partial), Length: e.Length},
			Arrived: e.Arrived,
		},
		Parts: e.Parts,
	}
}

// An outline has the elements that a list of segments has, in as many windows as are
// asked for.
func TestOutline(t *testing.T) {
	n := serve(t)
	a := n.stream(t, "x")
	c := n.client(t, "x")
	segs := numbers(t, 0, 40)
	late := *segs[30]
	late.Header.Flags |= m4f.Damaged
	segs[30] = &late
	appendAll(t, a, append(segs, segment(t, 10, 1, m4f.Partial))...)
	for _, count := range []int{1, 3, 2 * maxRanges} {
		var windows []archive.Window
		for i := range int64(count) {
			from := epoch.Add((i*int64(80/count) - 3) * second)
			if count > 80 {
				from = epoch.Add((i - 5) * second)
			}
			windows = append(windows, archive.Window{From: from, To: from.Add(second * max(1, int64(60/count)))})
		}
		got, err := c.Outline(t.Context(), windows)
		if err != nil {
			t.Fatal(err)
		}
		for i, w := range windows {
			els, err := a.Span(w.From, w.To)
			if err != nil {
				t.Fatal(err)
			}
			var want []archive.Element
			for _, e := range els {
				want = append(want, outlined(e))
			}
			if !reflect.DeepEqual(got[i], want) {
				t.Errorf("window %d of %d\ngot  %+v\nwant %+v", i, count, got[i], want)
			}
		}
	}
	var lines int
	err := c.lines(t.Context(), "outline", span(0, 0), 0, func(line []byte) error {
		lines++
		return nil
	})
	if err != nil || lines != 1 {
		t.Errorf("without ranges: %d lines, %v", lines, err)
	}
}

// An element whose parts others cover travels with those that are shown.
func TestOutlineParts(t *testing.T) {
	w := archive.Window{From: epoch, To: epoch.Add(10 * second)}
	e := outlined(archive.Element{Record: archive.Record{Header: segment(t, 1, 0, m4f.Damaged).Header, Arrived: 5}})
	e.Parts = []archive.Part{{From: 10, To: 20}, {From: 20, To: 21}, {From: 1000, To: length}}
	other := outlined(archive.Element{Record: archive.Record{Header: segment(t, 0, 0, 0).Header, Arrived: 1 << 50}, Parts: []archive.Part{{From: 0, To: length}}})
	b := appendOutline(appendOutline(nil, &e, w.From), &other, e.UTC)
	got, err := parseOutline(b, w)
	if err != nil || !reflect.DeepEqual(got, []archive.Element{e, other}) {
		t.Errorf("%+v, %v", got, err)
	}
	for i := range b {
		if _, err := parseOutline(b[:i], w); err == nil && i != 0 && i != len(appendOutline(nil, &e, w.From)) {
			t.Errorf("cut after %d of %d bytes: no error", i, len(b))
		}
	}
}

// Ranges that cannot be answered are refused.
func TestWindowProblems(t *testing.T) {
	n := serve(t)
	n.stream(t, "here")
	for query, say := range map[string]string{
		"ranges=0-1":                                         "give from",
		"from=9&to=10&ranges=0-1":                            "no to",
		"from=9&ranges=5-5":                                  "FROM-TO in seconds",
		"from=9&ranges=5-9,8-10":                             "FROM-TO in seconds",
		"from=9&ranges=1":                                    "FROM-TO in seconds",
		"from=9&ranges=0-2147483648":                         "FROM-TO in seconds",
		"from=253370000000&ranges=0-99999999":                "outside the years",
		"from=9&ranges=" + strings.Repeat("1-2,", maxRanges): "ask several times",
	} {
		for _, what := range []string{"minutes", "outline"} {
			res, body := get(t, n, "/here/m4f/"+what+"?"+query)
			var p Problem
			if err := json.Unmarshal(body, &p); err != nil || res.StatusCode != 400 || !strings.Contains(p.Detail, say) {
				t.Errorf("%s?%.60s: %d, %s; want %q", what, query, res.StatusCode, body, say)
			}
		}
	}
}

// A peer may send what it likes: it is refused.
func TestHostileOutline(t *testing.T) {
	h := segment(t, 0, 0, 0).Header
	good := appendOutline(nil, &archive.Element{Record: archive.Record{Header: h}, Parts: []archive.Part{{From: 0, To: length}}}, epoch)
	line := func(of int, b []byte) string {
		return fmt.Sprintf("{\"range\":%d,\"elements\":%q}\n", of, base64.StdEncoding.EncodeToString(b))
	}
	with := func(at int, more ...byte) []byte { return append(bytes.Clone(good[:at]), more...) }
	long := binary.AppendUvarint(nil, 1<<63)
	for name, text := range map[string]string{
		"no JSON":                "hello\n",
		"another range":          line(2, good),
		"a range below":          line(-1, good),
		"ranges in disorder":     line(1, nil) + line(0, good),
		"no base64":              `{"range":0,"elements":"!"}` + "\n",
		"cut":                    line(0, good[:len(good)-1]),
		"no identity":            line(0, append(make([]byte, 32), good[32:]...)),
		"other flags":            line(0, with(32, 0x80, 0)),
		"another time":           line(0, with(33, append(binary.AppendVarint(nil, 1<<40), 1, 1, 0)...)),
		"a number too long":      line(0, with(33, bytes.Repeat([]byte{0xff}, 11)...)),
		"the year 12000":         line(0, with(33, append(binary.AppendVarint(nil, 1<<62), 1, 1, 0)...)),
		"no duration":            line(0, with(33, 0, 0, 1, 0)),
		"no bytes":               line(0, with(33, 0, 1, 0, 0)),
		"too long":               line(0, with(33, append(append([]byte{0}, long...), 1, 0)...)),
		"too many bytes":         line(0, with(33, append(append([]byte{0, 1}, long...), 0)...)),
		"no parts":               line(0, with(32, outlineParts, 0, 9, 1, 0, 0)),
		"an empty part":          line(0, with(32, outlineParts, 0, 9, 1, 0, 1, 0, 0)),
		"a part outside":         line(0, with(32, outlineParts, 0, 9, 1, 0, 1, 0, 10)),
		"more parts than fit":    line(0, with(32, append([]byte{outlineParts, 0, 9, 1, 0}, long...)...)),
		"more than there can be": strings.Repeat(line(0, bytes.Repeat(good, 400)), 20),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := hostile(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, text) })
			var bad *BadAnswerError
			_, err := c.Outline(t.Context(), []archive.Window{{From: epoch, To: epoch.Add(10 * second)}, {From: epoch.Add(60 * second), To: epoch.Add(70 * second)}})
			if !errors.As(err, &bad) {
				t.Error(err)
			}
		})
	}
}

const goodMinutes = `{"start":"2026-11-22T12:00:00Z","longest":360000,"digests":"`

// Whatever a peer tells of minutes is bounded.
func FuzzMinutes(f *testing.F) {
	zeros := strings.Repeat("A", archive.MinutesAnHour*8*4/3)
	f.Add([]byte(goodMinutes + zeros + `"}`))
	f.Add([]byte(goodMinutes + `AAAA"}`))
	f.Add([]byte(`{"start":"2026-11-22T12:30:00Z","longest":1,"digests":"` + zeros + `"}`))
	f.Add([]byte(`{"start":"2026-11-22T12:00:00Z","longest":-1,"digests":"` + zeros + `"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := parseMinutes(line)
		if err == nil && (m.Longest <= 0 || m.Longest > archive.MaxDuration || m.Start%hourTicks != 0) {
			t.Fatalf("taken: %+v", m)
		}
	})
}

// Whatever the elements of an outline are: they are refused, or are such as a list of
// segments can have, and travel on unchanged.
func FuzzOutline(f *testing.F) {
	w := archive.Window{From: epoch, To: epoch.Add(100 * second)}
	e := archive.Element{Record: archive.Record{Header: segment(f, 0, 0, m4f.Damaged).Header, Arrived: 1}, Parts: []archive.Part{{From: 0, To: length}}}
	b := appendOutline(nil, &e, w.From)
	f.Add(b)
	e.Parts = []archive.Part{{From: 5, To: 7}, {From: 9, To: length}}
	f.Add(appendOutline(b, &e, w.From))
	f.Add(b[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		els, err := parseOutline(b, w)
		if err != nil {
			return
		}
		var again []byte
		last := w.From
		for i := range els {
			e := &els[i]
			at := int64(0)
			for _, p := range e.Parts {
				if p.From < at || p.To <= p.From || p.To > int64(e.Duration) {
					t.Fatalf("taken: %+v", e)
				}
				at = p.To
			}
			if e.Length == 0 || e.Length > m4f.MaxMedia || e.Duration == 0 || e.Duration > archive.MaxDuration || len(e.Parts) == 0 || e.UTC < 0 || e.UTC > maxTime {
				t.Fatalf("taken: %+v", e)
			}
			again = appendOutline(again, e, last)
			last = e.UTC
		}
		els2, err := parseOutline(again, w)
		if err != nil || !reflect.DeepEqual(els, els2) {
			t.Fatalf("%+v\ntravels as %+v, %v", els, els2, err)
		}
	})
}
