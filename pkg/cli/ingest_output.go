package cli

import (
	"context"
	"os"

	"golang.org/x/sys/unix"

	"github.com/twindvr/twindvr/pkg/m4f"
)

const (
	// queued is how many segments wait for a slow reader of standard output, or
	// disk, before the source has to.
	queued = 8
	// pipeSize is how much a pipe should hold, in bytes: fewer changes between
	// its two ends than with the 64 KiB that it has.
	pipeSize = 1 << 20
)

// widen has a pipe hold more; it is only a wish, and other files have none.
func widen(stream any) {
	f, ok := stream.(*os.File)
	if !ok {
		return
	}
	if c, err := f.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) { unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
	}
}

// output writes segments beside their making, so that a reader that is busy
// for a moment does not keep the source from being heard.
type output struct {
	put    func(*m4f.Segment) error
	queue  chan *m4f.Segment
	done   chan struct{}
	err    error                   // after done
	failed context.CancelCauseFunc // called with the first error
}

// startOutput starts writing segments by put. Its failed is called, where it is
// set before the first segment, as soon as writing has failed.
func startOutput(put func(*m4f.Segment) error) *output {
	o := &output{put: put, queue: make(chan *m4f.Segment, queued), done: make(chan struct{})}
	go o.run()
	return o
}

func (o *output) run() {
	defer close(o.done)
	for s := range o.queue {
		if o.err != nil {
			continue
		}
		if o.err = o.put(s); o.err != nil && o.failed != nil {
			o.failed(o.err)
		}
		s.Recycle()
	}
}

// write queues a segment.
func (o *output) write(s *m4f.Segment) { o.queue <- s }

// close writes what is queued and returns the first error.
func (o *output) close() error {
	close(o.queue)
	<-o.done
	return o.err
}
