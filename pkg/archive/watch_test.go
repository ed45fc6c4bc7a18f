package archive

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twindvr/twindvr/pkg/fsx"
)

// countOpens counts how often files of a name are opened.
type countOpens struct {
	fsx.FS
	name string
	n    atomic.Int32
}

func (c *countOpens) OpenFile(name string, flag int, perm fs.FileMode) (fsx.File, error) {
	if filepath.Base(name) == c.name {
		c.n.Add(1)
	}
	return c.FS.OpenFile(name, flag, perm)
}

// A follower of an archive to which nothing is added leaves its files alone, whether there are any
// yet or not, and has each segment soon after it is added.
func TestFollowersRest(t *testing.T) {
	for _, begun := range []bool{false, true} {
		count := &countOpens{FS: fsx.OS, name: "changes"}
		a, err := Create(filepath.Join(t.TempDir(), "x"), "x", Options{FS: count})
		if err != nil {
			t.Fatal(err)
		}
		w := a.Writer(Live, 0, WriterOptions{Sync: SyncOff})
		next := int64(0)
		add := func() {
			t.Helper()
			err := w.Append(spec{media: next * 4 * sec, utc: noon.Add(next * 4 * sec), duration: 4 * sec}.build(t))
			if err != nil {
				t.Fatal(err)
			}
			next++
		}
		if begun {
			add()
		}
		ctx, cancel := context.WithCancel(t.Context())
		got, ended := make(chan Record, 16), make(chan error, 1)
		go func() {
			ended <- a.Changes(ctx, "", func(r Record, _ Cursor) error { got <- r; return nil })
		}()
		if begun {
			<-got
		}
		before := count.n.Load()
		time.Sleep(1500 * time.Millisecond) // in which nothing happens
		if n := count.n.Load() - before; n > 3 {
			t.Errorf("begun %v: the file was opened %d times", begun, n)
		}
		for range 3 {
			add()
			select {
			case <-got:
			case <-time.After(10 * time.Second):
				t.Fatal("a segment was not heard of")
			}
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
}
