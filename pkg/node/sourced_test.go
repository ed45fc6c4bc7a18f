package node

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/config"
	"github.com/twindvr/twindvr/pkg/ingest"
	"github.com/twindvr/twindvr/pkg/m4f"
	"github.com/twindvr/twindvr/pkg/m4fhttp"
)

// idle is a node of a configuration that runs nothing: its supervisor has not
// been started. %DIR stands for its root.
func idle(t *testing.T, text string) (*Node, *sourced) {
	t.Helper()
	n := New(Options{Config: parsed(t, text), Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	for _, c := range n.cfg.Streams {
		n.add(c)
	}
	for _, c := range n.cfg.Sources {
		n.addSource(c, nil)
	}
	n.up = true
	return n, n.sources[0]
}

func parsed(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Parse("x.conf", []byte(text), config.Sources{
		Schemes: ingest.Schemes(), Program: ingest.SplitProgram, Check: ingest.Check, Shared: ingest.Shared, Redact: ingest.Redact,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func listing(via string, names ...string) []m4fhttp.Listed {
	var out []m4fhttp.Listed
	for _, name := range names {
		out = append(out, m4fhttp.Listed{Name: name, TargetDuration: 4 * m4f.Timescale, Via: []string{via}})
	}
	return out
}

func (s *sourced) names() []string { return s.status().Streams }

// What is taken of a list, and what is not.
func TestSourcedTakes(t *testing.T) {
	dir := t.TempDir()
	n, s := idle(t, fmt.Sprintf(`stream own { url udp://127.0.0.1:1; dvr %[1]s 1d; }
		stream deep/own { url udp://127.0.0.1:2; dvr %[1]s 1d; }
		source b.example { except no/thanks; dvr %[1]s 1d replicate; }
		source c.example { only sport/hd; dvr %[1]s 1d replicate; }`, dir))
	list := listing("b", "sport/hd", "news", "own", "own/below", "deep", "no/thanks", "news/late")
	list = append(list,
		m4fhttp.Listed{Name: "retired", TargetDuration: m4f.Timescale, Via: []string{}},
		m4fhttp.Listed{Name: "mine", TargetDuration: m4f.Timescale, Via: []string{n.id, "b"}},
		m4fhttp.Listed{Name: "new", Via: []string{"b"}},
		m4fhttp.Listed{Name: "slow", TargetDuration: 3600 * m4f.Timescale, Via: []string{"b"}})
	s.apply(list, 2)
	if got := s.names(); !slices.Equal(got, []string{"news", "sport/hd"}) {
		t.Errorf("taken: %v", got)
	}
	told := strings.Join(s.left, "\n")
	for _, want := range []string{
		"stream own/below is not taken: its directory " + dir + "/own/below and that of stream own, " + dir + "/own, would lie inside one another",
		"stream deep is not taken: ", "stream news/late is not taken: ",
		"stream new is not taken: its segments' duration is not known yet", "stream slow is not taken: its segments of 1h0m0s are outside",
		"2 streams are not taken: their names or durations make no sense",
	} {
		if !strings.Contains(told, want) {
			t.Errorf("not told: %s\nbut\n%s", want, told)
		}
	}
	if len(s.left) != 6 || len(s.status().Problems) != 1+mostTold+1 {
		t.Errorf("%q", s.status().Problems)
	}
	// Another source may have the stream of the same name: who has it keeps it.
	other := n.sources[1]
	other.apply(listing("c", "sport/hd"), 0)
	if got := other.status(); len(got.Streams) != 0 || !strings.Contains(fmt.Sprint(got.Problems), "stream sport/hd is not taken: it is taken from m4f://b.example:8081") {
		t.Errorf("%+v", got)
	}
	other.apply(listing("c", "x", "y"), 0)
	if got := fmt.Sprint(other.left); got != "[it has no stream sport/hd]" {
		t.Errorf("%s", got)
	}
	// The node lists them with the nodes that they come through.
	have, err := n.List()
	if err != nil {
		t.Fatal(err)
	}
	want := []m4fhttp.Listed{
		{Name: "deep/own", TargetDuration: 4 * m4f.Timescale, Via: []string{n.id}}, {Name: "news", TargetDuration: 4 * m4f.Timescale, Via: []string{"b", n.id}},
		{Name: "own", TargetDuration: 4 * m4f.Timescale, Via: []string{n.id}}, {Name: "sport/hd", TargetDuration: 4 * m4f.Timescale, Via: []string{"b", n.id}},
	}
	if !reflect.DeepEqual(have, want) {
		t.Errorf("listed:\n%+v\nwant\n%+v", have, want)
	}
}

// A stream counts as gone when it is missing from several lists in a row, and
// comes back.
func TestSourcedGone(t *testing.T) {
	dir := t.TempDir()
	n, s := idle(t, fmt.Sprintf("source b.example { dvr %s 1d replicate; }", dir))
	s.apply(listing("b", "a", "b"), 0)
	for range goneAfter - 1 {
		s.apply(listing("b", "b"), 0)
	}
	if got := s.names(); len(got) != 2 {
		t.Errorf("after %d lists: %v", goneAfter-1, got)
	}
	s.apply(listing("b", "a", "b"), 0)
	for range goneAfter {
		s.apply(append(listing("b", "b"), m4fhttp.Listed{Name: "a", TargetDuration: m4f.Timescale, Via: []string{}}), 0)
	}
	if got := s.names(); !slices.Equal(got, []string{"b"}) || n.retired["a"] == nil || n.streams["a"] != nil {
		t.Errorf("gone: %v, %v", got, n.retired)
	}
	if list, _ := n.List(); len(list) != 2 || list[0].Name != "a" || len(list[0].Via) != 0 || len(list[1].Via) != 2 {
		t.Errorf("%+v", list)
	}
	s.apply(listing("b", "a", "b"), 0)
	if got := s.names(); len(got) != 2 || n.retired["a"] != nil || n.streams["a"] == nil {
		t.Errorf("back: %v", got)
	}
	// What is gone, and of which nothing is kept any more, is forgotten in the end.
	for range goneAfter {
		s.apply(listing("b", "b"), 0)
	}
	s.taken["a"].Gone -= 25 * 3600
	s.apply(listing("b", "b"), 0)
	if s.taken["a"] != nil || n.find("a") != nil {
		t.Errorf("not forgotten: %+v", s.taken["a"])
	}
}

// A node that starts goes on with what it had taken, whether or not the other
// one answers.
func TestSourcedFile(t *testing.T) {
	dir := t.TempDir()
	text := fmt.Sprintf("source b.example { except c; dvr %s 1d replicate; }", dir)
	_, s := idle(t, text)
	s.apply(listing("b", "a", "b/x"), 0)
	for range goneAfter {
		s.apply(listing("b", "a"), 0)
	}
	n, again := idle(t, text)
	if got := again.names(); !slices.Equal(got, []string{"a"}) || n.retired["b/x"] == nil || n.streams["a"] == nil {
		t.Errorf("%v %v %v", got, n.streams, n.retired)
	}
	if p := again.status(); p.Reachable || len(p.Problems) != 1 {
		t.Errorf("%+v", p)
	}
	n, _ = idle(t, "stream a { url udp://127.0.0.1:1; dvr "+dir+" 1d; } source b.example { except b/x; dvr "+dir+" 1d replicate; }")
	if len(n.streams) != 1 || n.streams["a"].cfg.Inputs[0].Peer != nil || len(n.retired) != 0 {
		t.Errorf("left to its block: %v %v", n.streams, n.retired)
	}
	// A file that cannot be read is not trusted, and not fatal.
	for _, bad := range []string{
		"", "{", `{"version":2}`, `{"version":1,"streams":[null]}`, `{"version":1,"streams":[{"name":"../x","target_duration":360000}]}`,
		`{"version":1,"streams":[{"name":"x","target_duration":-5}]}`, `{"version":1,"streams":[{"name":"x","target_duration":360000},{"name":"x","target_duration":360000}]}`,
	} {
		if err := os.WriteFile(s.file(), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		n, s := idle(t, text)
		if len(n.streams)+len(n.retired)+len(s.taken) != 0 {
			t.Errorf("%q: %v", bad, n.streams)
		}
		s.apply(listing("b", "a"), 0)
		if b, err := os.ReadFile(s.file()); err != nil || !strings.Contains(string(b), `"name":"a"`) {
			t.Errorf("%q: not written anew: %s %v", bad, b, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".tmp-*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A list without end takes no more streams than the bound.
func TestSourcedBound(t *testing.T) {
	_, s := idle(t, fmt.Sprintf("source b.example { dvr %s 1d; }", t.TempDir()))
	var names []string
	for i := range 2 * mostSourced {
		names = append(names, fmt.Sprintf("s%05d", i))
	}
	s.apply(listing("b", names...), 0)
	if got := s.names(); len(got) != mostSourced {
		t.Errorf("%d taken", len(got))
	}
	if st := s.status(); len(st.Problems) != 1+mostTold+1 || st.Problems[mostTold+1] != fmt.Sprintf("and %d streams more are not taken", mostSourced-mostTold) {
		t.Errorf("%q", st.Problems)
	}
	// Other names each time do not help.
	for range 2 * goneAfter {
		for i := range names {
			names[i] = "x" + names[i]
		}
		s.apply(listing("b", names...), 0)
	}
	if len(s.taken) > mostSourced {
		t.Errorf("%d held", len(s.taken))
	}
}

// A changed file changes what it says, and touches nothing else.
func TestSourcedReload(t *testing.T) {
	dir := t.TempDir()
	n, s := idle(t, fmt.Sprintf("source b.example { dvr %s 1d; } source c.example { dvr %[1]s 1d; }", dir))
	s.apply(listing("b", "a", "b", "c", "d"), 0)
	n.sources[1].apply(listing("c", "e"), 0)
	was := map[string]*stream{}
	for name, r := range n.streams {
		was[name] = r.stream
	}
	change := func(text string) {
		t.Helper()
		c := parsed(t, text)
		diff := config.Compare(n.cfg, c)
		n.cfg = c
		for _, name := range diff.Removed {
			n.retire(name)
		}
		for _, name := range diff.Added {
			n.release(name)
			n.add(c.Stream(name))
		}
		n.reloadSources()
	}
	state := func() string {
		var out []string
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			switch {
			case n.streams[name] != nil && n.streams[name].stream == was[name]:
				out = append(out, name+" untouched")
			case n.streams[name] != nil:
				out = append(out, name+" new")
				was[name] = n.streams[name].stream
			case n.retired[name] != nil:
				out = append(out, name+" retired")
			}
		}
		return strings.Join(out, ", ")
	}
	// One named in a stream block is left to it; the rest is not touched.
	block := fmt.Sprintf("stream a { url udp://127.0.0.1:1; dvr %s 1d; }", dir)
	other := fmt.Sprintf("source c.example { dvr %s 1d; }", dir)
	change(fmt.Sprintf("%s source b.example { dvr %s 1d; } %s", block, dir, other))
	if got := state(); got != "a new, b untouched, c untouched, d untouched, e untouched" {
		t.Error(got)
	}
	change(fmt.Sprintf("%s source b.example { except c; dvr %s 1d; } %s", block, dir, other))
	if got := state(); got != "a untouched, b untouched, c retired, d untouched, e untouched" {
		t.Error(got)
	}
	n.sources[1].apply(listing("b", "a", "b", "c", "d"), 0)
	if got := state(); got != "a untouched, b untouched, c retired, d untouched, e untouched" {
		t.Error(got)
	}
	// A changed depth is that of all; a block that is gone leaves its streams served.
	change(fmt.Sprintf("%s source b.example { except c; dvr %s 2d; }", block, dir))
	if got := state(); got != "a untouched, b new, c retired, d new, e retired" {
		t.Error(got)
	}
	if n.streams["b"].cfg.DVR.Depth != 48*time.Hour || n.retired["c"].cfg.DVR.Depth != 48*time.Hour {
		t.Errorf("depths %v, %v", n.streams["b"].cfg.DVR.Depth, n.retired["c"].cfg.DVR.Depth)
	}
	// Without its block the stream comes from the source again.
	change(fmt.Sprintf("source b.example { except c; dvr %s 2d; }", dir))
	n.sources[0].apply(listing("b", "a", "b", "c", "d"), 0)
	if got := state(); got != "a new, b untouched, c retired, d untouched, e retired" {
		t.Error(got)
	}
}

// Whatever the file holds: what is read of it are streams, and is read back as
// it was.
func FuzzSourcedFile(f *testing.F) {
	f.Add([]byte(`{"version":1,"source":"m4f://b:8081","streams":[{"name":"sport/hd","target_duration":360000,"via":["0123"]},{"name":"x","target_duration":90000,"via":null,"gone":5}]}`))
	f.Add([]byte(`{"version":1,"streams":[{"name":"..","target_duration":1e9}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseSourced(b)
		if err != nil {
			return
		}
		for _, s := range list {
			if config.ValidName(s.Name) != nil || s.TargetDuration <= 0 || len(s.Via) > 100 {
				t.Fatalf("%+v", s)
			}
		}
		text, err := json.Marshal(sourcedFile{Version: sourcedVersion, Streams: list})
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseSourced(text); err != nil || !reflect.DeepEqual(list, again) && len(list) > 0 {
			t.Fatalf("%+v\nread back as %+v, %v", list, again, err)
		}
	})
}
