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

// fileRecorder is one way to record a file.
type fileRecorder struct {
	name  string
	start func(dir, input string) ([]*process, error)
	whole bool
}

func (b *bench) fileRecorders() []fileRecorder {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	list := []fileRecorder{
		{name: "floor", whole: true, start: func(dir, input string) ([]*process, error) {
			return one(start(nil, self, "floor-file", input, filepath.Join(dir, "out.ts")))
		}},
		{name: "twindvr", start: b.ingestRecord},
	}
	if b.ffmpeg != "" {
		list = append(list, fileRecorder{name: "ffmpeg", start: func(dir, input string) ([]*process, error) {
			return one(start(nil, b.ffmpeg, "-nostdin", "-loglevel", "error", "-y", "-i", input, "-map", "0", "-c", "copy", "-bsf:a", "aac_adtstoasc",
				"-f", "mp4", "-movflags", "frag_keyframe+empty_moov+default_base_moof", filepath.Join(dir, "out.mp4")))
		}})
	}
	kept := list[:0]
	for _, r := range list {
		if b.wanted(r.name) {
			kept = append(kept, r)
		}
	}
	return kept
}

// ingestRecord is twindvr ingest INPUT | twindvr record DIR.
func (b *bench) ingestRecord(dir, input string) ([]*process, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	defer w.Close()
	in := command(nil, b.twindvr, "ingest", input)
	in.Stdout = w
	out := command(nil, b.twindvr, "record", filepath.Join(dir, "archive", "s"))
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

// files measures recording a file, which is in the page cache.
func (b *bench) files(ctx context.Context, r *report) error {
	input := filepath.Join(b.dir, "input.ts")
	seconds := (b.fileSize*8 + b.bitrate - 1) / b.bitrate
	if err := b.makeInput(input, seconds); err != nil {
		return fmt.Errorf("making the input file: %w", err)
	}
	sent := &sending{Frames: uint64(seconds) * 25}
	var list []measurement
	for _, rec := range b.fileRecorders() {
		list = append(list, measurement{rec.name, func() (row, error) { return b.file(rec, input, sent) }})
	}
	if err := b.rounds(ctx, r, list); err != nil {
		return fmt.Errorf("file: %w", err)
	}
	return os.Remove(input)
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

func (b *bench) file(rec fileRecorder, input string, sent *sending) (row, error) {
	dir, err := os.MkdirTemp(b.dir, rec.name+"-")
	if err != nil {
		return row{}, err
	}
	defer os.RemoveAll(dir)
	unix.Sync() // what is still to be written is not this recorder's
	if err := b.warmUp(b.fileSize + 64<<20); err != nil {
		return row{}, fmt.Errorf("warming up: %w", err)
	}
	began := time.Now()
	procs, err := rec.start(dir, input)
	if err != nil {
		return row{}, err
	}
	watch, stopWatch := context.WithCancel(context.Background())
	peak := make(chan int64, 1)
	go func() { peak <- watchMemory(watch, procs) }()
	used, err := stopAll(procs)
	took := time.Since(began)
	stopWatch()
	memory := <-peak
	if err != nil {
		return row{}, err
	}
	r := row{What: "file", Recorder: rec.name, Streams: 1, Seconds: took.Seconds(), PeakBytes: memory, Unit: "pictures"}
	r.use(used)
	st, err := os.Stat(input)
	if err != nil {
		return row{}, err
	}
	if r.Bytes, r.Lost, err = count(dir, rec.whole, sent, 1); rec.whole {
		r.Lost, r.Unit = st.Size()-r.Bytes, "bytes"
	}
	return r, err
}
