package cli

import (
	"context"
	"io"

	"github.com/twindvr/twindvr/pkg/m4f"
)

// queued is how many segments wait for a slow reader of standard output before
// the source has to.
const queued = 8

// output writes segments beside their making, so that a reader that is busy
// for a moment does not keep the source from being heard.
type output struct {
	queue  chan *m4f.Segment
	done   chan struct{}
	err    error                   // after done
	failed context.CancelCauseFunc // called with the first error
}

// startOutput starts the writer. Its failed is called, where it is set before
// the first segment, as soon as writing has failed.
func startOutput(w io.Writer) *output {
	o := &output{queue: make(chan *m4f.Segment, queued), done: make(chan struct{})}
	go o.run(m4f.NewWriter(w))
	return o
}

func (o *output) run(w *m4f.Writer) {
	defer close(o.done)
	for s := range o.queue {
		if o.err != nil {
			continue
		}
		if o.err = w.WriteSegment(s); o.err != nil && o.failed != nil {
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
