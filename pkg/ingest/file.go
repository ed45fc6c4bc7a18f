package ingest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/twindvr/twindvr/pkg/clock"
)

// blockSize is how much of a file one Read returns. A megabyte makes the cost
// of a system call vanish and still fits a second-level cache.
const blockSize = 1 << 20

// Path returns the path that a URL names, "-" standing for standard input;
// false: the URL is no file's.
func Path(url string) (string, bool) {
	scheme, rest := splitScheme(url)
	switch scheme {
	case "":
		return rest, true
	case "file":
		path, err := filePath(rest)
		return path, err == nil
	}
	return "", false
}

// openFileURL opens file:PATH and file:///PATH.
func openFileURL(ctx context.Context, rest string, opt Options) (Source, error) {
	path, err := filePath(rest)
	if err != nil {
		return nil, err
	}
	return openPath(ctx, path, opt)
}

// checkFileURL says what is wrong with a file URL, wherever the file is.
func checkFileURL(rest string) error {
	path, err := filePath(rest)
	if err == nil && strings.Trim(path, "/") == "" {
		err = &URLError{"file:" + rest, errors.New("no path; write file:PATH")}
	}
	return err
}

// filePath is the path that a file URL names.
func filePath(rest string) (string, error) {
	p, ok := strings.CutPrefix(rest, "//")
	if !ok {
		return rest, nil
	}
	host, tail, _ := strings.Cut(p, "/")
	if host != "" && host != "localhost" {
		return "", &URLError{"file:" + rest, fmt.Errorf("%q is not this machine; write file:///PATH or a bare path", host)}
	}
	// RFC 8089 paths are percent-encoded; a name with a stray % is taken as
	// it stands.
	path := "/" + tail
	if u, err := url.PathUnescape(path); err == nil {
		path = u
	}
	return path, nil
}

// openPath opens a file, a FIFO or a device by its path, or standard input.
func openPath(_ context.Context, path string, opt Options) (Source, error) {
	var src Source
	var err error
	switch path {
	case "":
		return nil, &URLError{path, errors.New("no path; name a file, or - for standard input")}
	case "-":
		src, err = openStdin(opt)
	default:
		src, err = openFile(path, opt)
	}
	if err != nil || !opt.Realtime {
		return src, err
	}
	return Pace(src, opt), nil
}

func openFile(path string, opt Options) (Source, error) {
	// O_NONBLOCK: opening a FIFO does not wait for its writer; Read does.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			if err := misspelt(path); err != nil {
				return nil, err
			}
			return nil, noFileError(path)
		}
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return newFDSource(fd, path, opt)
}

// noFileError says how far a path that does not exist does exist.
func noFileError(path string) error {
	err := &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	if filepath.Dir(path) == "." {
		if wd, e := os.Getwd(); e == nil {
			return fmt.Errorf("%w in %s", err, wd)
		}
	}
	return err
}

func openStdin(opt Options) (Source, error) {
	in := opt.Stdin
	if in == nil {
		in = os.Stdin
	}
	f, ok := in.(*os.File)
	if !ok {
		return &readerSource{r: in, buf: make([]byte, blockSize), counters: counters{clock: opt.Clock}}, nil
	}
	// A descriptor of its own, so that Close leaves the process's open.
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	return newFDSource(fd, "standard input", opt)
}

// counters are the Stats of a source that reads blocks.
type counters struct {
	clock          clock.Clock
	packets, bytes atomic.Uint64
	last           atomic.Int64 // Unix nanoseconds, 0: never
	out            [1][]byte
	batch          Batch
}

// deliver makes a batch of one block.
func (c *counters) deliver(p []byte) *Batch {
	now := c.clock.Now()
	c.packets.Add(1)
	c.bytes.Add(uint64(len(p)))
	c.last.Store(now.UnixNano())
	c.out[0] = p
	c.batch = Batch{Datagrams: c.out[:], Arrived: now}
	return &c.batch
}

// Stats implements Source.
func (c *counters) Stats() Stats {
	return Stats{Packets: c.packets.Load(), Bytes: c.bytes.Load(), LastArrival: timeOf(c.last.Load())}
}

// fdSource reads a file descriptor: a file, a pipe, a FIFO, a device.
type fdSource struct {
	counters
	fd    int
	wake  *waker // nil for a regular file, which never makes a reader wait
	name  string
	off   int64
	buf   []byte
	ended bool
}

func newFDSource(fd int, name string, opt Options) (Source, error) {
	s := &fdSource{fd: fd, name: name, counters: counters{clock: opt.Clock}}
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	if err == nil {
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			err = errors.New("is a directory; name a file in it")
		case unix.S_IFREG:
			unix.Fadvise(fd, 0, 0, unix.FADV_SEQUENTIAL) // only a hint
		case unix.S_IFIFO:
			// Fewer wake-ups; a smaller pipe works as well.
			unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, blockSize)
			fallthrough
		default:
			s.wake, err = newWaker()
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("source %s: %w", name, err)
	}
	s.buf = make([]byte, blockSize)
	return s, nil
}

// Read implements Source.
func (s *fdSource) Read(ctx context.Context) (*Batch, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if s.ended {
			return nil, io.EOF
		}
		if s.wake != nil {
			if err := s.wake.wait(ctx, s.fd); err != nil {
				return nil, s.fail("waiting for", err)
			}
		}
		n, err := unix.Read(s.fd, s.buf)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN && s.wake != nil:
			continue
		case err != nil:
			return nil, s.fail("reading", err)
		case n == 0:
			s.ended = true
			return nil, io.EOF
		}
		s.off += int64(n)
		return s.deliver(s.buf[:n]), nil
	}
}

func (s *fdSource) fail(doing string, err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%s %s at byte %d: %w", doing, s.name, s.off, err)
}

// Close implements Source.
func (s *fdSource) Close() error {
	if s.fd < 0 {
		return nil
	}
	err := unix.Close(s.fd)
	s.fd = -1
	if s.wake != nil {
		err = errors.Join(err, s.wake.close())
	}
	return err
}

// readerSource reads an io.Reader that is no file.
type readerSource struct {
	counters
	r   io.Reader
	buf []byte
	off int64
	err error
}

// Read implements Source.
func (s *readerSource) Read(ctx context.Context) (*Batch, error) {
	for s.err == nil {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var n int
		n, s.err = s.r.Read(s.buf)
		if s.err != nil && s.err != io.EOF {
			s.err = fmt.Errorf("reading standard input at byte %d: %w", s.off+int64(n), s.err)
		}
		if n > 0 {
			s.off += int64(n)
			return s.deliver(s.buf[:n]), nil
		}
	}
	return nil, s.err
}

// Close implements Source.
func (s *readerSource) Close() error { return nil }
