package ingest

import (
	"context"
	"time"

	"golang.org/x/sys/unix"
)

// waker waits until a descriptor is readable or a context ends, whatever the
// descriptor is and without changing its flags, which other processes may
// share (standard input's are the shell's).
type waker struct{ event int }

func newWaker() (*waker, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return &waker{fd}, nil
}

// wait returns nil when fd is readable (or at its end), and the context's
// error when that ends first.
func (w *waker) wait(ctx context.Context, fd int) error {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		unix.Write(w.event, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	})
	defer func() {
		if stop() {
			return
		}
		<-done
		var b [8]byte
		unix.Read(w.event, b[:])
	}()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(w.event), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case fds[1].Revents != 0:
			return ctx.Err()
		case fds[0].Revents != 0:
			return nil
		}
	}
}

func (w *waker) close() error { return unix.Close(w.event) }

// timeOf converts Unix nanoseconds, 0 meaning never.
func timeOf(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}
