package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// measureBackfill fills an empty archive from a node, verified and durable, beside
// curl, which writes the same bytes from the same node to a file, and a sync of that.
func (b *bench) measureBackfill(ctx context.Context, t *table) error {
	dir := filepath.Join(b.dir, "backfill")
	root, err := b.recordFile(dir, b.fileSize)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := b.serveM4F(ctx, root)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%d MB", b.fileSize/1e6)
	found, err := b.compare(ctx, t, name, float64(b.fileSize)/1e6, []contender{
		{name: "twindvr", run: func(ctx context.Context) (sample, error) {
			return b.fetch(dir, func(to string) (*process, error) {
				return start(nil, b.twindvr, "backfill", filepath.Join(to, "s"), "m4f://"+s.addr+"/s")
			})
		}},
		b.peer("curl", "curl", func(ctx context.Context, path string) (sample, error) {
			return b.fetch(dir, func(to string) (*process, error) {
				return start(nil, path, "-sSf", "-o", filepath.Join(to, "all.mp4"), "http://"+s.addr+"/s/m4f/media")
			})
		}),
	})
	if err := errors.Join(err, s.stop()); err != nil {
		return err
	}
	t.atMost("time over that of curl and sync", found.ratio("twindvr", "curl", wall), 2, "times")
	t.note("An hour of 6 Mbit/s is -file 2700000000. The CPU time is that of who fetches; both are followed by a sync of what they wrote, which is in their time.")
	return nil
}

// fetch measures a process that fetches what a node has into a directory.
func (b *bench) fetch(dir string, fetch func(to string) (*process, error)) (sample, error) {
	to, err := os.MkdirTemp(dir, "fetched-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(to)
	unix.Sync() // what is still to be written is not of this one
	if err := b.warmUp(b.fileSize + 64<<20); err != nil {
		return nil, fmt.Errorf("warming up: %w", err)
	}
	began := time.Now()
	p, err := fetch(to)
	if err != nil {
		return nil, err
	}
	used, err := stopAll([]*process{p})
	if err == nil {
		err = syncfs(to)
	}
	took := time.Since(began)
	if err != nil {
		return nil, err
	}
	got, err := sizeBelow(to)
	if err == nil && got < b.fileSize/2 {
		err = fmt.Errorf("only %d bytes came", got)
	}
	s := sample{wall: ms(took), perSecond: float64(got) / 1e6 / took.Seconds()}
	s.use(used, got)
	return s, err
}

// syncfs makes everything durable that has been written to the file system of dir.
func syncfs(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

// sizeBelow is the size of all media files below dir.
func sizeBelow(dir string) (int64, error) {
	var sum int64
	err := eachMedia(dir, func(path string) error {
		st, err := os.Stat(path)
		if err == nil {
			sum += st.Size()
		}
		return err
	})
	return sum, err
}

// eachMedia calls fn with the media files below dir.
func eachMedia(dir string, fn func(path string) error) error {
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Ext(path) != ".mp4" {
			return err
		}
		return fn(path)
	})
}
