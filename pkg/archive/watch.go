package archive

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// rescan is how often a watch looks at the file even if nothing was reported, and
	// pollInterval how often where nothing can be; where there is no file yet, that
	// becomes longer, up to absentInterval.
	rescan         = time.Second
	pollInterval   = 50 * time.Millisecond
	absentInterval = 400 * time.Millisecond
	// relook is how often its user reads the file though it looks the same: a network
	// file system may tell of its size and time late.
	relook = 10 * time.Second
)

// watcher reports writes to files, by any process. All watches of the process
// share one inotify instance, of which the system allows few, and one
// goroutine that lives as long as there is a watch.
type watcher struct {
	mu    sync.Mutex
	fs    *fsnotify.Watcher // nil: none works; watches poll
	done  chan struct{}     // closed when the goroutine has ended
	files map[string]*watchedFile
}

type watchedFile struct {
	users   int
	native  bool          // reported by the system
	changed chan struct{} // closed and replaced at each change
}

var files = &watcher{files: make(map[string]*watchedFile)}

// watch is one user's watch of a file.
type watch struct {
	w    *watcher
	path string
	seen fs.FileInfo // at the last next; nil: no file
}

// watchFile watches a file, which need not exist yet. It never fails: where the
// system reports nothing the watch looks by itself.
func watchFile(path string) *watch { return files.watch(path) }

func (w *watcher) watch(path string) *watch {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.files[path]
	if f == nil {
		f = &watchedFile{changed: make(chan struct{})}
		w.files[path] = f
		w.start()
	}
	f.users++
	w.attach(f, path)
	return &watch{w: w, path: path}
}

// attach has the system report changes of a file, if it does and the file is there.
// Callers hold mu.
func (w *watcher) attach(f *watchedFile, path string) {
	if !f.native && w.fs != nil {
		f.native = w.fs.Add(path) == nil
	}
}

// start starts the goroutine with the first watch.
func (w *watcher) start() {
	if w.fs != nil {
		return
	}
	fs, err := fsnotify.NewWatcher()
	if err != nil {
		return
	}
	w.fs, w.done = fs, make(chan struct{})
	go w.run(fs, w.done)
}

func (w *watcher) run(fs *fsnotify.Watcher, done chan struct{}) {
	defer close(done)
	for {
		select {
		case ev, ok := <-fs.Events:
			if !ok {
				return
			}
			w.notify(filepath.Clean(ev.Name), ev.Op)
		case _, ok := <-fs.Errors: // an overflowed queue: look at everything
			if !ok {
				return
			}
			w.notify("", 0)
		}
	}
}

func (w *watcher) notify(path string, op fsnotify.Op) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for p, f := range w.files {
		if path != "" && p != path {
			continue
		}
		if op.Has(fsnotify.Remove) || op.Has(fsnotify.Rename) {
			f.native = false // look by ourselves until it can be watched again
		}
		close(f.changed)
		f.changed = make(chan struct{})
	}
}

// next returns a channel that is closed at the next change. Take it before
// looking at the file.
func (x *watch) next() <-chan struct{} {
	x.seen, _ = os.Stat(x.path)
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	return x.w.files[x.path].changed
}

// wait returns when the channel is closed, when the file does not look as it did
// or it is time to read it anyway, or with ctx's error.
func (x *watch) wait(ctx context.Context, changed <-chan struct{}) error {
	interval := pollInterval
	for end := time.Now().Add(relook); time.Now().Before(end); {
		native, polls := x.native()
		if x.differs() {
			return nil
		}
		d := interval
		switch {
		case native:
			d = rescan
		case x.seen == nil && !polls:
			interval = min(2*interval, absentInterval)
		}
		t := time.NewTimer(d)
		select {
		case <-changed:
			t.Stop()
			return nil
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
	return nil
}

// differs says whether the file does not look as it did.
func (x *watch) differs() bool {
	now, _ := os.Stat(x.path)
	if now == nil || x.seen == nil {
		return (now == nil) != (x.seen == nil)
	}
	return now.Size() != x.seen.Size() || !now.ModTime().Equal(x.seen.ModTime()) || !os.SameFile(now, x.seen)
}

// native says whether the system reports changes of the file, and polls whether it
// reports those of no file at all.
func (x *watch) native() (native, polls bool) {
	x.w.mu.Lock()
	defer x.w.mu.Unlock()
	f := x.w.files[x.path]
	x.w.attach(f, x.path)
	return f.native, x.w.fs == nil
}

// close ends the watch, and the goroutine with the last one.
func (x *watch) close() {
	x.w.mu.Lock()
	f := x.w.files[x.path]
	f.users--
	if f.users > 0 {
		x.w.mu.Unlock()
		return
	}
	delete(x.w.files, x.path)
	if x.w.fs == nil || len(x.w.files) > 0 {
		if f.native {
			x.w.fs.Remove(x.path)
		}
		x.w.mu.Unlock()
		return
	}
	fs, done := x.w.fs, x.w.done
	x.w.fs, x.w.done = nil, nil
	x.w.mu.Unlock()
	fs.Close()
	<-done
}
