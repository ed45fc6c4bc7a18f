package m4fhttp

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/m4f"
)

// A peer learns of an archive what its owner knows of it.
func TestCoverage(t *testing.T) {
	n := serve(t, "s3cret")
	a := n.stream(t, "sport/hd")
	c := n.client(t, "sport/hd")
	ctx := context.Background()
	if got, err := c.Coverage(ctx, 0, 0, 0); err != nil || len(got.Stretches) != 0 || got.Newest != 0 {
		t.Fatalf("an empty archive: %+v, %v", got, err)
	}
	appendAll(t, a, numbers(t, 0, 10)...)
	appendAll(t, a, segment(t, 15, 0, m4f.Damaged), segment(t, 16, 0, 0))
	keep := archive.Keep{Name: "final", From: epoch, To: epoch.Add(4 * second)}
	if err := a.Keep(keep); err != nil {
		t.Fatal(err)
	}
	at := func(s int64) m4f.UTC { return epoch.Add(s * second) }
	got, err := c.Coverage(ctx, 0, 0, 0)
	want := &Coverage{
		Oldest: epoch, Newest: at(34), Kept: []archive.Keep{keep},
		Stretches: []archive.Stretch{
			{From: epoch, To: at(20), Segments: 10},
			{From: at(20), To: at(30), State: archive.StateMissing},
			{From: at(30), To: at(32), State: archive.StateDamaged, Segments: 1},
			{From: at(32), To: at(34), Segments: 1},
		},
	}
	for i := range want.Stretches {
		want.Stretches[i].Bytes = got.Stretches[i].Bytes
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	got, err = c.Coverage(ctx, at(25), at(33), 5)
	merged := archive.Stretch{From: at(30), To: at(33), State: archive.StateDamaged, Segments: 2, Bytes: got.Stretches[1].Bytes, Mixed: &[archive.NumStates]int64{second, 0, 0, 2 * second, 0}}
	if err != nil || got.Step != 5 || len(got.Stretches) != 2 || !reflect.DeepEqual(got.Stretches[1], merged) || len(got.Kept) != 0 {
		t.Errorf("merged: %+v, %v", got, err)
	}
	for _, query := range []string{"step=-1", "step=x", "step=99999999999", "from=5&to=4", "steps=1"} {
		if err := c.lines(ctx, "coverage?"+query, nil, 0, nil); StatusOf(err) != http.StatusBadRequest {
			t.Errorf("%s: %v", query, err)
		}
	}
}

// Where there would be too many stretches they are merged further, and it is said
// how far.
func TestCoverageOfMuch(t *testing.T) {
	a := newArchive(t, t.TempDir()+"/s")
	for n := range 40 {
		appendAll(t, a, segment(t, n, 0, m4f.Flags(n%2)*m4f.Damaged))
	}
	all, err := CoverageOf(a, 0, 0, 0, 1000)
	if err != nil || len(all.Stretches) != 40 || all.Step != 0 {
		t.Fatalf("%+v, %v", all, err)
	}
	few, err := CoverageOf(a, 0, 0, 0, 10)
	if err != nil || len(few.Stretches) > 10 || few.Step < 8 {
		t.Errorf("%+v, %v", few, err)
	}
}

// What a peer may not tell is refused.
func TestCoverageRefused(t *testing.T) {
	const good = `{"stretch":{"start":"2026-11-22T12:00:00Z","end":"2026-11-22T13:00:00Z","state":"live","segments":9,"bytes":1}}` + "\n"
	answer := ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", linesType)
		_, _ = w.Write([]byte(answer))
	}))
	defer srv.Close()
	c := clientOf(t, srv.URL, "s")
	noon := m4f.UTCOf(time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC))
	for name, a := range map[string]string{
		"no JSON":         "{\n",
		"another state":   strings.Replace(good, "live", "fine", 1),
		"no time":         strings.Replace(good, "T12", "T13", 1),
		"out of order":    good + good,
		"not asked for":   strings.NewReplacer("T12", "T22", "T13", "T23").Replace(good),
		"fewer than none": strings.Replace(good, "9", "-9", 1),
		"more than all":   strings.Replace(good, `"bytes":1`, `"bytes":1,"mixed":{"live":999999999999}`, 1),
		"a bad name":      `{"kept":{"name":"../x","start":"2026-11-22T12:00:00Z","end":"2026-11-22T13:00:00Z"}}` + "\n",
		"a long step":     `{"archive":{"step":1e12}}` + "\n",
	} {
		answer = a
		if got, err := c.Coverage(context.Background(), noon, noon.Add(3600*second), 0); err == nil {
			t.Errorf("%s: taken: %+v", name, got)
		}
	}
	answer = good
	if got, err := c.Coverage(context.Background(), noon, noon.Add(3600*second), 0); err != nil || len(got.Stretches) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

// Whatever a peer's line holds: it is refused, or travels on unchanged.
func FuzzCoverage(f *testing.F) {
	f.Add([]byte(`{"archive":{"oldest":"2026-11-22T12:00:00Z","step":60}}`))
	f.Add([]byte(`{"stretch":{"start":"2026-11-22T12:00:00Z","end":"2026-11-22T13:00:00Z","state":"damaged","segments":9,"bytes":1,"mixed":{"live":5,"damaged":7}}}`))
	f.Add([]byte(`{"kept":{"name":"a","start":"2026-11-22T12:00:00Z","end":"2026-11-22T13:00:00Z"}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		var r coverageReader
		if r.line(line) != nil {
			return
		}
		if len(r.Stretches) == 0 {
			return
		}
		again, err := json.Marshal(CoverageLine{Stretch: stretchOf(&r.Stretches[0])})
		if err != nil {
			t.Fatal(err)
		}
		var second coverageReader
		if err := second.line(again); err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		a, b := r.Stretches[0], second.Stretches[0]
		for s := range archive.NumStates {
			if a.Ticks(s) != b.Ticks(s) {
				t.Fatalf("%+v travels as %+v", a, b)
			}
		}
		if a.From != b.From || a.To != b.To || a.State != b.State || a.Segments != b.Segments || a.Bytes != b.Bytes {
			t.Fatalf("%+v travels as %+v", a, b)
		}
	})
}
