package serve

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/m4fhttp"
	"github.com/twindvr/twindvr/pkg/testkit"
)

// BenchmarkCoverage: what a page with many streams asks for, of archives of 30 days:
// the timeline of one, of a day and of all its time, and of 20 one after the other.
// Cold is the first that a process is asked for; a node that runs has looked at its
// archives before anybody asks.
func BenchmarkCoverage(b *testing.B) {
	testkit.Need(b, "ffmpeg")
	root := b.TempDir()
	month(b, root)
	const streams = 20
	for n := range streams - 1 {
		linked(b, filepath.Join(root, "example"), filepath.Join(root, fmt.Sprintf("stream%d", n)))
	}
	names, err := m4fhttp.NewRoot(root).Streams()
	if err != nil || len(names) != streams {
		b.Fatal(len(names), err)
	}
	open := func() *Handler { return handlerOf(fake{m4fhttp.NewRoot(root)}) }
	get := func(b *testing.B, h *Handler, query string, least int) {
		var c Coverage
		if code, text := ask(b, h, "GET", "coverage?"+query, "", &c); code != http.StatusOK || len(c.Spans) < least {
			b.Fatal(query, code, len(c.Spans), text[:min(len(text), 300)])
		}
	}
	day := fmt.Sprintf("&from=%d&to=%d", begins.Add(17*24*time.Hour).Unix(), begins.Add(18*24*time.Hour).Unix())
	for _, c := range []struct {
		name, query string
		least       int
	}{{"day", "stream=example&step=60" + day, 7}, {"month", "stream=example&step=3600", 200}} {
		coldAndWarm(b, c.name, open, func(b *testing.B, h *Handler) { get(b, h, c.query, c.least) })
	}
	b.Run("20-months-warm", func(b *testing.B) {
		h := open()
		all := func() {
			for _, name := range names {
				get(b, h, "step=3600&stream="+name, 200)
			}
		}
		all()
		for b.Loop() {
			all()
		}
	})
}

// coldAndWarm measures what a question costs a node that has just been opened, and one
// that was asked before.
func coldAndWarm[T any](b *testing.B, name string, open func() T, ask func(*testing.B, T)) {
	b.Run(name+"-cold", func(b *testing.B) {
		for b.Loop() {
			ask(b, open())
		}
	})
	b.Run(name+"-warm", func(b *testing.B) {
		x := open()
		ask(b, x)
		for b.Loop() {
			ask(b, x)
		}
	})
}

// linked makes a copy of a directory whose files are links.
func linked(b *testing.B, from, to string) {
	err := filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o750)
		}
		return os.Link(path, filepath.Join(to, rel))
	})
	if err != nil {
		b.Fatal(err)
	}
}
