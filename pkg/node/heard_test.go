package node_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/archive"
	"github.com/twindvr/twindvr/pkg/event"
)

// TestLastHeard: what was held back until a lost source's end is no data that came then.
func TestLastHeard(t *testing.T) {
	to := freePort(t)
	dir := t.TempDir()
	n, log, _ := inProcess(t, fmt.Sprintf("http 127.0.0.1:%d;\nstream a { url udp://127.0.0.1:%d source_timeout=2s; dvr %s 1d; segment_duration 1s; }\n", freePort(t), to, dir))
	src := start(t, "source", "testsrc", fmt.Sprintf("udp://127.0.0.1:%d", to))
	within(t, time.Minute, "it is recorded", func() bool { return stream(n, "a").Archive.Segments > 1 })
	killed := time.Now()
	src.kill()
	within(t, time.Minute, "the loss is noticed", func() bool { return stream(n, "a").Mode == "offline" })
	if text := log.String(); strings.Count(text, "input delivers") != 1 {
		t.Errorf("said to deliver more than once:\n%s", text)
	}
	lost := lossOf(t, filepath.Join(dir, "a"), killed)
	if before := lost.Sub(*stream(n, "a").Inputs[0].LastData); before < time.Second {
		t.Errorf("last heard %v ahead of its loss, which takes two seconds to notice", before)
	}
}

// lossOf is when the loss of a stream's source was noticed, after some time.
func lossOf(t *testing.T, dir string, after time.Time) (at time.Time) {
	a, err := archive.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	within(t, time.Minute, "an event tells of it", func() bool {
		events, err := a.Events(0, 0)
		i := slices.IndexFunc(events, func(e event.Event) bool { return e.Kind == event.SourceLost && e.Time.After(after) })
		if err != nil || i < 0 {
			return false
		}
		at = events[i].Time
		return true
	})
	return at
}
