package node_test

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
)

// modes are the modes of a node's streams by name; retired ones have none.
func (n *testNode) modes() map[string]string {
	st := n.status()
	if st == nil {
		return nil
	}
	out := map[string]string{}
	for _, s := range st.Streams {
		out[s.Name] = s.Mode
	}
	return out
}

// TestSource has two nodes take each other's streams as they come and go.
func TestSource(t *testing.T) {
	t.Parallel()
	source := multicast()
	one := fmt.Sprintf("stream %%s { url %s; dvr %%%%DIR 1d; segment_duration 1s; }\n", source)
	stream := func(name string) string { return fmt.Sprintf(one, name) }
	a, b := newNode(t, "a", ""), newNode(t, "b", "")
	from := func(n *testNode, words string) string {
		return fmt.Sprintf("http 127.0.0.1:%%PORT; cluster_key s3cret; source 127.0.0.1:%d { %s dvr %%DIR 1d replicate; }\n", n.port, words)
	}
	a.configure(from(b, "") + stream("sport/hd") + stream("news") + stream("private"))
	b.configure(from(a, "except private;") + stream("own"))
	start(t, "source", "testsrc", source, "--bitrate", "1M")
	a.up()
	b.up()
	within(t, time.Minute, "each records the streams of the other", func() bool {
		return wroteReplicated(b.stream("sport/hd")) && wroteReplicated(b.stream("news")) && wroteReplicated(a.stream("own"))
	})
	if got := b.modes(); len(got) != 3 {
		t.Errorf("b has %v", got)
	}
	if st := b.status(); len(st.Sources) != 1 || !slices.Equal(st.Sources[0].Streams, []string{"news", "sport/hd"}) || len(st.Sources[0].Problems) != 0 {
		t.Errorf("b: %+v", st.Sources)
	}
	if out, errs, status := run(t, "diff-archive", b.stream("sport/hd"), b.stream("news")); status == 2 {
		t.Errorf("%s%s", out, errs)
	}

	// What is new there is new here; what is gone there is served on, and comes
	// back to neither through the other.
	a.configure(from(b, "") + stream("sport/hd") + stream("late/one") + stream("private"))
	a.cmd.Process.Signal(syscall.SIGHUP)
	within(t, time.Minute, "the new stream is taken, the one that is gone retired", func() bool {
		m := b.modes()
		mode, has := m["news"]
		return has && mode == "" && wroteReplicated(b.stream("late/one"))
	})
	if mode, has := a.modes()["news"]; !has || mode != "" {
		t.Errorf("a has the stream that it gave up in mode %q, %v", mode, has)
	}
	if out, errs, status := run(t, "ls", b.stream("news")); status == 2 || !strings.Contains(out, "span") {
		t.Errorf("ls of what is gone: %d %s%s", status, out, errs)
	}

	// A node that starts while the other is down has its streams all the same.
	a.kill()
	b.kill()
	b.up()
	within(t, time.Minute, "b serves what it took and says what is wrong", func() bool {
		m := b.modes()
		return len(m) == 4 && m["sport/hd"] == "offline" && m["late/one"] == "offline" && m["news"] == "" && m["own"] == "normal"
	})
	if out, _, status := run(t, "status", fmt.Sprintf(":%d", b.port)); status != 1 || !strings.Contains(out, fmt.Sprintf("! source m4f://127.0.0.1:%d: its streams are not known", a.port)) {
		t.Errorf("status: %d\n%s", status, out)
	}
	a.up()
	within(t, time.Minute, "they are recorded again", func() bool {
		m := b.modes()
		return m["sport/hd"] == "normal" && m["late/one"] == "normal"
	})
	for _, n := range []*testNode{a, b} {
		if lines := strings.Count(n.text(), "\n"); lines > 60 {
			t.Errorf("%s logged %d lines", n.name, lines)
		}
	}
}

// wroteReplicated says whether a stream has a clean segment that came from a
// peer.
func wroteReplicated(dir string) bool {
	a, err := archive.Open(dir)
	if err != nil {
		return false
	}
	els, err := a.Span(0, 0)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(els, func(e archive.Element) bool { return e.Origin != archive.Live && e.Clean() })
}
