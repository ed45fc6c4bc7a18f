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

// fileRecorder starts what records a file.
type fileRecorder func(dir, input string) ([]*process, error)

// measureFile measures recording a file, which is in the page cache.
func (b *bench) measureFile(ctx context.Context, t *table) error {
	input := filepath.Join(b.dir, "input.ts")
	seconds := (b.fileSize*8 + b.bitrate - 1) / b.bitrate
	if err := b.makeInput(input, seconds); err != nil {
		return fmt.Errorf("making the input file: %w", err)
	}
	sent := &sending{Frames: uint64(seconds) * 25}
	contend := func(name string, whole bool, start fileRecorder) contender {
		return contender{name: name, run: func(context.Context) (sample, error) { return b.file(name, start, whole, input, sent) }}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%d MB", b.fileSize/1e6)
	c, err := b.compare(ctx, t, name, float64(b.fileSize)/1e6, []contender{
		contend("floor", true, func(dir, input string) ([]*process, error) {
			return one(start(nil, self, "floor-file", input, filepath.Join(dir, "out.ts")))
		}),
		contend("twindvr", false, func(dir, input string) ([]*process, error) {
			return one(start(nil, b.twindvr, "ingest", "--record", filepath.Join(dir, "archive", "s"), input))
		}),
		contend("twindvr, a pipe", false, b.ingestRecord),
		b.peer("ffmpeg", "ffmpeg", func(_ context.Context, path string) (sample, error) {
			return b.file("ffmpeg", func(dir, input string) ([]*process, error) {
				return one(startFFmpeg(path, input, filepath.Join(dir, "out.mp4")))
			}, false, input, sent)
		}),
	})
	if err != nil {
		return err
	}
	t.atMost("CPU of twindvr above the bare write", c.above("twindvr", "floor", cpuPerGB), 0.9, "s/GB")
	t.atLeast("CPU of ffmpeg in that of twindvr", c.ratio("ffmpeg", "twindvr", cpuPerGB), 2.5, "times")
	t.atMost("pictures lost", highest(c.values("twindvr", lost)), 0, "")
	return os.Remove(input)
}

// ingestRecord records the stream DIR/archive/s.
func (b *bench) ingestRecord(dir, input string) ([]*process, error) {
	return b.ingestInto(filepath.Join(dir, "archive", "s"), input)
}

// ingestInto is twindvr ingest INPUT | twindvr record STREAM.
func (b *bench) ingestInto(stream, input string) ([]*process, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	defer w.Close()
	in := command(nil, b.twindvr, "ingest", input)
	in.Stdout = w
	out := command(nil, b.twindvr, "record", stream)
	out.Stdin = r
	if err := in.Start(); err != nil {
		return nil, err
	}
	if err := out.Start(); err != nil {
		kill([]*process{in})
		return nil, err
	}
	return []*process{in, out}, nil
}

func (b *bench) makeInput(path string, seconds int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	p := command(nil, b.twindvr, "testsrc", "--realtime=false", "--bitrate", fmt.Sprint(b.bitrate), "--duration", fmt.Sprintf("%ds", seconds))
	p.Stdout = f
	if err := p.Start(); err != nil {
		return errors.Join(err, f.Close())
	}
	_, err = stopAll([]*process{p})
	return errors.Join(err, f.Close())
}

func (b *bench) file(name string, start fileRecorder, whole bool, input string, sent *sending) (sample, error) {
	dir, err := os.MkdirTemp(b.dir, name+"-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	unix.Sync() // what is still to be written is not this recorder's
	if err := b.warmUp(b.fileSize + 64<<20); err != nil {
		return nil, fmt.Errorf("warming up: %w", err)
	}
	began := time.Now()
	procs, err := start(dir, input)
	if err != nil {
		return nil, err
	}
	peak := watchMemory(procs)
	used, err := stopAll(procs)
	took := time.Since(began)
	memory := peak()
	if err != nil {
		return nil, err
	}
	bytes, missing, err := count(dir, whole, sent, 1)
	if err != nil {
		return nil, err
	}
	if whole {
		st, err := os.Stat(input)
		if err != nil {
			return nil, err
		}
		missing = st.Size() - bytes
	}
	s := sample{perStream: float64(memory) / 1e6, lost: float64(missing), perSecond: float64(bytes) / 1e6 / took.Seconds()}
	s.use(used, bytes)
	return s, nil
}

// warmUp writes and removes size bytes: the first use of a page of memory costs
// a virtual machine more than the next, and should cost no recorder.
func (b *bench) warmUp(size int64) error {
	path := filepath.Join(b.dir, "warm")
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for ; size > 0 && err == nil; size -= int64(len(block)) {
		_, err = f.Write(block)
	}
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(path))
}
